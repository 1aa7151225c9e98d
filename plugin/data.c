/* SPDX-License-Identifier: BSD-2-Clause */
/* data.c - requests: nbdkit's buffer on one side, the engine's frames on the other.
 *
 * A thread of nbdkit takes a context, runs its op there, and waits until nothing is under way on
 * it.  Data is copied once, between nbdkit's buffer and the frames, which is what its interface
 * takes.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "nbd/nbd-errno.h"
#include "plugin.h"

/* Extents in one answer; a client asks on from where it ends. */
#define EXTENTS_MAX 1024

#define COPY_SEGMENTS 64

/* The numbers of the protocol are those of Linux, so they need no table for nbdkit_set_error. */
_Static_assert ((int) NBD_EPERM == EPERM && (int) NBD_EIO == EIO && (int) NBD_ENOMEM == ENOMEM
                  && (int) NBD_EINVAL == EINVAL && (int) NBD_ENOSPC == ENOSPC
                  && (int) NBD_EOVERFLOW == EOVERFLOW && (int) NBD_ENOTSUP == EOPNOTSUPP
                  && (int) NBD_ESHUTDOWN == ESHUTDOWN,
                "errors");
_Static_assert (STATUS_HOLE == NBDKIT_EXTENT_HOLE && STATUS_ZERO == NBDKIT_EXTENT_ZERO, "extents");

/* What a request is to the protocol, and in a message. */
static const struct {
  enum nbd_command command;
  const char *name;
} kinds[] = {
  [REQUEST_READ] = { NBD_CMD_READ, "read" },
  [REQUEST_WRITE] = { NBD_CMD_WRITE, "write" },
  [REQUEST_TRIM] = { NBD_CMD_TRIM, "trim" },
  [REQUEST_WRITE_ZEROES] = { NBD_CMD_WRITE_ZEROES, "zero" },
  [REQUEST_FLUSH] = { NBD_CMD_FLUSH, "flush" },
  [REQUEST_CACHE] = { NBD_CMD_CACHE, "cache" },
  [REQUEST_BLOCK_STATUS] = { NBD_CMD_BLOCK_STATUS, "extents" },
};

/* Tells nbdkit how it went.  WHY: a sentence, NULL: the one that goes with ERROR. */
static int
finish (const struct connection *connection, enum request_kind kind, uint64_t offset,
        uint64_t count, int error, const char *why)
{
  struct nbd_failure failure;

  atomic_fetch_add_explicit (&plugin.requests, 1, memory_order_relaxed);
  if (error == 0)
    return 0;
  failure = nbd_failure (kinds[kind].command, nbd_cause_of_errno (error));
  nbdkit_error ("%s: %s: %s of %" PRIu64 " bytes at %" PRIu64 ": %s", plugin.path,
                connection->name, kinds[kind].name, count, offset,
                why != NULL ? why : failure.text);
  nbdkit_set_error ((int) failure.error);
  return -1;
}

/* The thread waits for its op, it need not be called. */
static void
on_request (struct request *request)
{
  (void) request;
}

static void
run (struct request *request)
{
  request_start (request);
  context_drain (request->op.context);
}

/* --- payload --- */

static void
copy_out (struct request *request, uint8_t *buffer)
{
  struct iovec segments[COPY_SEGMENTS];
  uint64_t bytes;

  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, COPY_SEGMENTS, &bytes);
    uint8_t *to = buffer + at;

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++) {
      memcpy (to, segments[i].iov_base, segments[i].iov_len);
      to += segments[i].iov_len;
    }
  }
}

static void
copy_in (struct request *request, const uint8_t *buffer)
{
  struct iovec segments[COPY_SEGMENTS];
  uint64_t bytes;

  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, COPY_SEGMENTS, &bytes);
    const uint8_t *from = buffer + at;

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++) {
      memcpy (segments[i].iov_base, from, segments[i].iov_len);
      from += segments[i].iov_len;
    }
  }
}

/* One READ or WRITE that the engine takes.  0 or negative errno. */
static int
transfer (struct connection *connection, struct context *context, enum request_kind kind,
          unsigned flags, uint8_t *buffer, uint64_t count, uint64_t offset)
{
  struct request request;
  int error;

  request_init (&request, context, connection->disk, kind, flags, offset, count, on_request);
  if (kind == REQUEST_READ) {
    request.stream = &connection->stream;
    run (&request);
    if (request.op.error == 0)
      copy_out (&request, buffer);
  }
  else {
    request.admitted = on_request;
    if (!request_admit (&request))
      context_drain (context);
    if (request.op.error == 0) {
      copy_in (&request, buffer);
      run (&request);
    }
  }
  error = request.op.error;
  request_release (&request);
  return error;
}

/* nbdkit lets through up to 64 MiB, the engine half of that at a time. */
static int
transfer_all (struct connection *connection, enum request_kind kind, unsigned flags,
              uint8_t *buffer, uint64_t count, uint64_t offset)
{
  const char *why = NULL;
  struct context *context = bridge_take (plugin.bridge);
  int error = 0;

  for (uint64_t done = 0, piece; done < count && error == 0; done += piece) {
    piece = MIN (count - done, STORE_REQUEST_MAX);
    error = request_validate (connection->disk, kind, flags, offset + done, piece, &why);
    if (error == 0)
      error = transfer (connection, context, kind, flags, buffer + done, piece, offset + done);
  }
  bridge_give (plugin.bridge, context);
  return finish (connection, kind, offset, count, error, why);
}

int
data_pread (void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void) flags;
  atomic_fetch_add_explicit (&plugin.sent_bytes, count, memory_order_relaxed);
  return transfer_all (handle, REQUEST_READ, 0, buffer, count, offset);
}

int
data_pwrite (void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
  atomic_fetch_add_explicit (&plugin.received_bytes, count, memory_order_relaxed);
  return transfer_all (handle, REQUEST_WRITE, flags & NBDKIT_FLAG_FUA ? REQUEST_FUA : 0,
                       (uint8_t *) buffer, count, offset);
}

/* --- without payload --- */

static int
simple (struct connection *connection, enum request_kind kind, unsigned flags, uint64_t count,
        uint64_t offset)
{
  const char *why = NULL;
  int error = request_validate (connection->disk, kind, flags, offset, count, &why);

  if (error == 0) {
    struct context *context = bridge_take (plugin.bridge);
    struct request request;

    request_init (&request, context, connection->disk, kind, flags, offset, count, on_request);
    run (&request);
    error = request.op.error;
    request_release (&request);
    bridge_give (plugin.bridge, context);
  }
  return finish (connection, kind, offset, count, error, why);
}

int
data_flush (void *handle, uint32_t flags)
{
  (void) flags;
  return simple (handle, REQUEST_FLUSH, 0, 0, 0);
}

int
data_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  return simple (handle, REQUEST_TRIM, flags & NBDKIT_FLAG_FUA ? REQUEST_FUA : 0, count, offset);
}

/* Without MAY_TRIM the space stays reserved. */
int
data_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  unsigned own = (flags & NBDKIT_FLAG_FUA ? REQUEST_FUA : 0)
                 | (flags & NBDKIT_FLAG_MAY_TRIM ? 0 : REQUEST_NO_HOLE)
                 | (flags & NBDKIT_FLAG_FAST_ZERO ? REQUEST_FAST_ZERO : 0);

  return simple (handle, REQUEST_WRITE_ZEROES, own, count, offset);
}

int
data_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void) flags;
  return simple (handle, REQUEST_CACHE, 0, count, offset);
}

/* --- extents --- */

int
data_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
              struct nbdkit_extents *extents)
{
  struct connection *connection = handle;
  struct status_extent found[EXTENTS_MAX];
  bool is_one = flags & NBDKIT_FLAG_REQ_ONE;
  unsigned own = is_one ? REQUEST_ONE_EXTENT : 0;
  uint32_t found_count = 0;
  const char *why = NULL;
  int error = request_validate (connection->disk, REQUEST_BLOCK_STATUS, own, offset, count, &why);

  if (error == 0) {
    struct context *context = bridge_take (plugin.bridge);
    struct request request;

    request_init (&request, context, connection->disk, REQUEST_BLOCK_STATUS, own, offset, count,
                  on_request);
    request.extents = found;
    request.extent_max = is_one ? 1 : EXTENTS_MAX;
    run (&request);
    error = request.op.error;
    found_count = request.extent_count;
    request_release (&request);
    bridge_give (plugin.bridge, context);
  }
  if (finish (connection, REQUEST_BLOCK_STATUS, offset, count, error, why) != 0)
    return -1;
  for (uint32_t i = 0; i < found_count; i++) {
    if (nbdkit_add_extent (extents, offset, found[i].length, found[i].flags) == -1)
      return -1;
    offset += found[i].length;
  }
  return 0;
}
