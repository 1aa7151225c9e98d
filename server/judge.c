/* SPDX-License-Identifier: BSD-2-Clause */
/* judge.c - a request as it came, and what is wrong with it.
 *
 * Everything that can be refused before the engine sees it is refused here.  Changes nothing.
 */
#include <errno.h>
#include <string.h>

#include "server.h"

const struct command_info command_infos[NBD_CMD_COUNT] = {
  [NBD_CMD_READ] = { REQUEST_READ, NBD_CMD_FLAG_FUA, false },   /* and DF, if structured */
  [NBD_CMD_WRITE] = { REQUEST_WRITE, NBD_CMD_FLAG_FUA, true },
  [NBD_CMD_FLUSH] = { REQUEST_FLUSH, NBD_CMD_FLAG_FUA, false },
  [NBD_CMD_TRIM] = { REQUEST_TRIM, NBD_CMD_FLAG_FUA, true },
  [NBD_CMD_CACHE] = { REQUEST_CACHE, NBD_CMD_FLAG_FUA, false },
  [NBD_CMD_WRITE_ZEROES] = { REQUEST_WRITE_ZEROES,
                             NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
                             true },
  [NBD_CMD_BLOCK_STATUS] = { REQUEST_BLOCK_STATUS, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE, false },
  [NBD_CMD_RESIZE] = { 0, NBD_CMD_FLAG_FUA, false },            /* no request of the engine */
};

/* --- the header --- */

size_t
request_header_bytes (const struct connection *connection)
{
  return connection->is_extended ? sizeof (struct nbd_extended_request)
                                 : sizeof (struct nbd_request);
}

/* The payload of BLOCK_STATUS, if it can be right: a length, and ids of contexts that the connection
 * has. */
static void
decode_filter (const struct connection *connection, struct arrived *arrived, const uint8_t *data)
{
  struct nbd_status_filter filter;
  uint64_t count = (arrived->payload - sizeof filter) / sizeof (be32);
  be32 id;

  memcpy (&filter, data, sizeof filter);
  arrived->length = from_be64 (filter.length);
  arrived->contexts = 0;
  for (uint64_t i = 0; i < count; i++) {
    unsigned context;

    memcpy (&id, data + sizeof filter + i * sizeof id, sizeof id);
    context = context_of_id (from_be32 (id)) & connection->contexts;
    arrived->has_bad_filter |= context == 0 || (arrived->contexts & context);
    arrived->contexts |= context;
  }
}

/* Whether this payload of a BLOCK_STATUS is one that is looked at.  More ids than there are
 * contexts cannot be right. */
static bool
is_filter (const struct connection *connection, const struct arrived *arrived)
{
  return arrived->command == NBD_CMD_BLOCK_STATUS
         && connection->transmission_flags & NBD_BLOCK_STATUS_PAYLOAD
         && arrived->payload > sizeof (struct nbd_status_filter)
         && arrived->payload <= sizeof (struct nbd_status_filter) + CONTEXT_COUNT * sizeof (be32)
         && arrived->payload % sizeof (be32) == 0;
}

static void
decode_compact (const uint8_t *data, struct arrived *arrived)
{
  struct nbd_request wire;

  memcpy (&wire, data, sizeof wire);
  arrived->command = from_be16 (wire.command);
  arrived->flags = from_be16 (wire.flags);
  arrived->cookie = from_be64 (wire.cookie);
  arrived->offset = from_be64 (wire.offset);
  arrived->length = from_be32 (wire.length);
  arrived->payload = arrived->command == NBD_CMD_WRITE ? arrived->length : 0;
}

static void
decode_extended (const uint8_t *data, struct arrived *arrived)
{
  struct nbd_extended_request wire;

  memcpy (&wire, data, sizeof wire);
  arrived->command = from_be16 (wire.command);
  arrived->flags = from_be16 (wire.flags);
  arrived->cookie = from_be64 (wire.cookie);
  arrived->offset = from_be64 (wire.offset);
  arrived->length = from_be64 (wire.length);
  arrived->payload = arrived->flags & NBD_CMD_FLAG_PAYLOAD_LEN ? arrived->length : 0;
}

int
request_decode (const struct connection *connection, const uint8_t *data, size_t available,
                struct arrived *arrived)
{
  size_t bytes = request_header_bytes (connection);
  be32 magic;

  if (available < bytes)
    return -EAGAIN;
  memcpy (&magic, data, sizeof magic);
  if (from_be32 (magic)
      != (connection->is_extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
    return -EPROTO;
  if (connection->is_extended)
    decode_extended (data, arrived);
  else
    decode_compact (data, arrived);
  arrived->contexts = connection->contexts;
  arrived->has_bad_filter = false;
  if (is_filter (connection, arrived)) {
    if (available < bytes + arrived->payload)
      return -EAGAIN;
    decode_filter (connection, arrived, data + bytes);
    bytes += arrived->payload;
    arrived->payload = 0;
    arrived->flags &= (uint16_t) ~NBD_CMD_FLAG_PAYLOAD_LEN;
  } else if (arrived->command == NBD_CMD_BLOCK_STATUS && arrived->payload > 0) {
    arrived->has_bad_filter = true;
  }
  arrived->bytes = (uint32_t) bytes;
  return 0;
}

/* --- judgement --- */

static enum nbd_cause
judge_flags (const struct connection *connection, const struct arrived *arrived)
{
  unsigned allowed = command_infos[arrived->command].flags;

  if (arrived->command == NBD_CMD_READ && connection->is_structured)
    allowed |= NBD_CMD_FLAG_DF;
  if (connection->is_extended)
    allowed |= NBD_CMD_FLAG_PAYLOAD_LEN;
  return arrived->flags & ~allowed ? NBD_CAUSE_FLAGS : NBD_CAUSE_NONE;
}

/* With extended headers a flag says whether there is a payload, whatever the command. */
static enum nbd_cause
judge_payload (const struct connection *connection, const struct arrived *arrived)
{
  bool has_payload = arrived->flags & NBD_CMD_FLAG_PAYLOAD_LEN;

  if (arrived->has_bad_filter)
    return connection->transmission_flags & NBD_BLOCK_STATUS_PAYLOAD ? NBD_CAUSE_FILTER
                                                                     : NBD_CAUSE_PAYLOAD;
  if (connection->is_extended && has_payload != (arrived->command == NBD_CMD_WRITE))
    return NBD_CAUSE_PAYLOAD;
  return NBD_CAUSE_NONE;
}

static bool
is_within (uint64_t offset, uint64_t length, uint64_t size)
{
  return offset <= size && length <= size - offset;
}

/* What a client knew as a part of the disk before it resized it gets another answer than what never
 * was one. */
static enum nbd_cause
judge_end (const struct connection *connection, uint64_t offset, uint64_t length)
{
  if (is_within (offset, length, disk_size (connection->disk)))
    return NBD_CAUSE_NONE;
  return connection->transmission_flags & NBD_SEND_RESIZE
         && is_within (offset, length, connection->size_seen)
           ? NBD_CAUSE_CUT_OFF : NBD_CAUSE_BEYOND_END;
}

static enum nbd_cause
judge_range (const struct connection *connection, const struct arrived *arrived)
{
  uint64_t offset = arrived->offset, length = arrived->length;
  enum nbd_cause cause;

  if (arrived->command == NBD_CMD_FLUSH)
    return offset == 0 && length == 0 ? NBD_CAUSE_NONE : NBD_CAUSE_FLUSH_RANGE;
  cause = judge_end (connection, offset, length);
  if (cause != NBD_CAUSE_NONE)
    return cause;
  if ((arrived->command == NBD_CMD_WRITE || arrived->command == NBD_CMD_READ)
      && length > STORE_REQUEST_MAX)
    return arrived->command == NBD_CMD_READ && connection->is_structured
             ? NBD_CAUSE_TOO_LONG_TO_SPLIT : NBD_CAUSE_TOO_LONG;
  /* The one command without a payload whose work grows with its length. */
  if (arrived->command == NBD_CMD_WRITE_ZEROES && arrived->flags & NBD_CMD_FLAG_NO_HOLE
      && length > NO_HOLE_MAX)
    return arrived->flags & NBD_CMD_FLAG_FAST_ZERO ? NBD_CAUSE_NOT_FAST : NBD_CAUSE_TOO_LONG;
  if (arrived->command == NBD_CMD_BLOCK_STATUS && length == 0)
    return NBD_CAUSE_NO_STATUS;
  return NBD_CAUSE_NONE;
}

static enum nbd_cause
judge (const struct connection *connection, const struct arrived *arrived)
{
  enum nbd_cause cause;

  if (arrived->command >= NBD_CMD_COUNT)
    return NBD_CAUSE_UNKNOWN_COMMAND;
  cause = judge_flags (connection, arrived);
  if (cause == NBD_CAUSE_NONE)
    cause = judge_payload (connection, arrived);
  if (cause != NBD_CAUSE_NONE)
    return cause;
  if (connection->is_stopping)
    return NBD_CAUSE_SHUTDOWN;
  if (arrived->command == NBD_CMD_BLOCK_STATUS && connection->contexts == 0)
    return NBD_CAUSE_NO_CONTEXT;
  if (command_infos[arrived->command].is_change
      && connection->transmission_flags & NBD_READ_ONLY)
    return NBD_CAUSE_READ_ONLY;
  if (arrived->command == NBD_CMD_RESIZE)
    return resize_judge (connection, arrived->offset);
  return judge_range (connection, arrived);
}

struct nbd_failure
request_judge (const struct connection *connection, const struct arrived *arrived)
{
  enum nbd_cause cause = judge (connection, arrived);
  const char *why = NULL;
  struct nbd_failure failure;
  int error;

  if (cause != NBD_CAUSE_NONE || arrived->command == NBD_CMD_RESIZE)
    return nbd_failure (arrived->command, cause);
  /* What only the engine knows: the store, and the size of the cache. */
  error = request_validate (connection->disk, command_infos[arrived->command].kind,
                            request_engine_flags (arrived->command, arrived->flags),
                            arrived->offset, arrived->length, &why);
  failure = nbd_failure (arrived->command, nbd_cause_of_errno (error));
  if (error && why)
    failure.text = why;
  return failure;
}

struct nbd_failure
request_failure (const struct slot *slot)
{
  const struct request *request = &slot->request;
  enum nbd_cause cause = judge_end (slot->connection, request->offset, request->length);

  if (cause == NBD_CAUSE_NONE)
    cause = nbd_cause_of_errno (request->op.error);
  return nbd_failure (slot->command, cause);
}

unsigned
request_engine_flags (uint16_t command, uint16_t flags)
{
  unsigned result = 0;

  if (flags & NBD_CMD_FLAG_FUA && command_infos[command].is_change)
    result |= REQUEST_FUA;
  if (flags & NBD_CMD_FLAG_NO_HOLE)
    result |= REQUEST_NO_HOLE;
  if (flags & NBD_CMD_FLAG_FAST_ZERO)
    result |= REQUEST_FAST_ZERO;
  if (flags & NBD_CMD_FLAG_REQ_ONE)
    result |= REQUEST_ONE_EXTENT;
  return result;
}
