/* SPDX-License-Identifier: BSD-2-Clause */
/* request.c - what all requests have in common: validity, admission, payload, start and release. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"

/* What a hole reads as. */
static const uint8_t zero_block[BLOCK_SIZE] __attribute__ ((aligned (4096)));

uint64_t
request_first_block (const struct request *request)
{
  return request->offset / BLOCK_SIZE;
}

uint64_t
request_block_count (const struct request *request)
{
  if (request->length == 0)
    return 0;
  return (request->offset + request->length - 1) / BLOCK_SIZE - request_first_block (request) + 1;
}

int
request_validate (struct disk *disk, enum request_kind kind, unsigned flags, uint64_t offset,
                  uint64_t length, const char **why)
{
  uint64_t size = disk_size (disk);
  bool is_change
    = kind == REQUEST_WRITE || kind == REQUEST_TRIM || kind == REQUEST_WRITE_ZEROES;

  (void) flags;
  if (disk->is_damaged) {
    *why = "The disk is damaged: a part of its map cannot be read.";
    return -EIO;
  }
  if (kind == REQUEST_FLUSH)
    return 0;
  if (is_change && disk->store->is_read_only) {
    *why = "The store is open read-only.";
    return -EPERM;
  }
  if (offset > size || length > size - offset) {
    *why = "The request reaches beyond the end of the disk.";
    return kind == REQUEST_WRITE || kind == REQUEST_WRITE_ZEROES ? -ENOSPC : -EINVAL;
  }
  if ((kind == REQUEST_READ || kind == REQUEST_WRITE)
      && (length > STORE_REQUEST_MAX
          || length / BLOCK_SIZE + 2 > disk->store->arena->frame_count / 2)) {
    *why = "The request is longer than 32 MiB, or than half of the cache.";
    return -EINVAL;
  }
  if (kind == REQUEST_BLOCK_STATUS && length == 0) {
    *why = "The status of no blocks was asked for.";
    return -EINVAL;
  }
  return 0;
}

static void
request_op_done (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  request->done (request);
}

/* Waits for admission on behalf of a WRITE whose payload has not been received: a small op of its
 * own life, so that the caller's callback runs on the context, never inside request_admit. */
static enum op_next
request_admitted_step (struct op *op)
{
  (void) op;
  return OP_DONE;
}

static int
request_take_frames (struct request *request)
{
  struct cache *cache = request->disk->store->cache;
  uint64_t count = request_block_count (request);

  if (count > REQUEST_FRAMES_INLINE) {
    request->frames = malloc (count * sizeof *request->frames);
    if (request->frames == NULL) {
      request->frames = request->frames_inline;
      return -ENOMEM;
    }
  }
  cache_allocate_all (cache, request->frames, count);
  request->frame_count = count;
  return 0;
}

static void
request_admission_done (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  request->is_admitted = true;
  op->error = request_take_frames (request);
  request->admitted (request);
}

void
request_init (struct request *request, struct context *context, struct disk *disk,
              enum request_kind kind, unsigned flags, uint64_t offset, uint64_t length,
              void (*done) (struct request *))
{
  static const struct {
    const char *name;
    enum op_next (*step) (struct op *);
  } kinds[] = {
    [REQUEST_READ] = { "read", op_read_step },
    [REQUEST_WRITE] = { "write", op_write_step },
    [REQUEST_TRIM] = { "trim", op_zero_step },
    [REQUEST_WRITE_ZEROES] = { "write-zeroes", op_zero_step },
    [REQUEST_FLUSH] = { "flush", op_flush_step },
    [REQUEST_CACHE] = { "cache", op_cache_step },
    [REQUEST_BLOCK_STATUS] = { "block-status", op_status_step },
  };

  op_init (&request->op, context, kinds[kind].name, 0, kinds[kind].step, request_op_done);
  request->disk = disk;
  request->kind = kind;
  request->flags = flags;
  request->offset = offset;
  request->length = length;
  request->done = done;
  request->admitted = NULL;
  request->extents = NULL;
  request->extent_max = request->extent_count = 0;
  request->stream = NULL;
  request->frames = request->frames_inline;
  request->frame_count = 0;
  request->charged = request->charged_dirty = 0;
  request->at = 0;
  request->fill = NULL;
  request->version = 0;
  request->end = 0;
  request->space_waits = 0;
  request->is_admitted = request->is_started = false;
}

/* A short request is most likely one of many, which have all come before the first is looked at: by
 * then its frame's header, which is in no processor's cache, can be there. */
static void
request_prefetch (struct request *request)
{
  if (request->length <= BLOCK_SIZE)
    cache_prefetch (request->disk->store->cache, request->disk->id, request_first_block (request));
}

bool
request_admit (struct request *request)
{
  struct cache *cache = request->disk->store->cache;
  struct op *op = &request->op;
  uint32_t count = request_block_count (request);

  CHECK (request->kind == REQUEST_WRITE && !request->is_admitted);
  /* The op stands in the queue; when it has its charge it runs a step that does nothing, on its
   * context, and its end is the call of `admitted`. */
  op->step = request_admitted_step;
  op->done = request_admission_done;
  atomic_store (&op->pending, 1);
  atomic_fetch_add_explicit (&op->context->active, 1, memory_order_relaxed);
  request->charged = count;
  request_prefetch (request);
  if (!cache_charge (cache, op_credit (op), count, &op->waiter, &request->ticket))
    return false;
  atomic_fetch_sub_explicit (&op->context->active, 1, memory_order_relaxed);
  atomic_store (&op->pending, 0);
  request->is_admitted = true;
  op->error = request_take_frames (request);
  return true;
}

void
request_start (struct request *request)
{
  struct op *op = &request->op;

  CHECK (!request->is_started);
  request->is_started = true;
  if (request->kind == REQUEST_READ)
    request_prefetch (request);
  if (request->kind == REQUEST_WRITE) {
    CHECK (request->is_admitted);
    op->step = op_write_step;
    op->done = request_op_done;
  }
  op_start (op);
}

unsigned
request_segments (struct request *request, uint64_t from, struct iovec *segments, unsigned max,
                  uint64_t *bytes)
{
  uint64_t at = request->offset + from, end = request->offset + request->length;
  uint64_t first = request_first_block (request);
  unsigned count = 0;

  *bytes = 0;
  if (request->op.error != 0)
    return 0;
  while (at < end && count < max) {
    struct frame *frame = request->frames[at / BLOCK_SIZE - first];
    uint64_t within = at % BLOCK_SIZE;
    uint64_t length = MIN (BLOCK_SIZE - within, end - at);
    uint8_t *data = (frame != NULL ? frame->data : (uint8_t *) zero_block) + within;
    struct iovec *last = count > 0 ? &segments[count - 1] : NULL;

    if (last != NULL && (uint8_t *) last->iov_base + last->iov_len == data)
      last->iov_len += length;
    else
      segments[count++] = (struct iovec) { data, length };
    *bytes += length;
    at += length;
  }
  return count;
}

bool
request_is_hole (struct request *request, uint64_t from, uint64_t *length)
{
  uint64_t at = request->offset + from, end = request->offset + request->length;
  uint64_t first = request_first_block (request);
  bool is_hole = request->frames[at / BLOCK_SIZE - first] == NULL;

  while (at < end && (request->frames[at / BLOCK_SIZE - first] == NULL) == is_hole)
    at = align_down (at, BLOCK_SIZE) + BLOCK_SIZE;
  *length = MIN (at, end) - request->offset - from;
  return is_hole;
}

void
request_release (struct request *request)
{
  struct cache *cache = request->disk->store->cache;
  struct list wake = LIST_INIT (wake);

  CHECK (atomic_load (&request->op.pending) == 0);
  for (uint32_t i = 0; i < request->frame_count; i++)
    if (request->frames[i] != NULL && request->frames[i] != FRAME_UNKNOWN)
      cache_put (cache, request->frames[i]);
  request->frame_count = 0;
  if (request->frames != request->frames_inline)
    free (request->frames);
  request->frames = request->frames_inline;
  if (request->charged > 0)
    cache_uncharge (cache, op_credit (&request->op), request->charged, &wake);
  request->charged = 0;
  CHECK (request->charged_dirty == 0);
  CHECK (request->fill == NULL);
  op_wake_all (&wake);
}
