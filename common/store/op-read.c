/* SPDX-License-Identifier: BSD-2-Clause */
/* op-read.c - READ, CACHE, and reading ahead.  READ stands for:
 *
 *   charge frames; take all hits; done if that was all
 *   for each window with misses: lock it shared; find and read what is missing; publish; unlock;
 *     wait for what others are reading
 *
 * A READ of cached blocks goes through the first two stages only: no lock, no allocation.
 * CACHE and reading ahead are optional: they try the lock and the frames, and give up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"

enum read_stage {
  READ_CHARGE,     /* frames in flight for all of it */
  READ_HITS,       /* what is cached */
  READ_WINDOW,     /* the next window that misses something: lock it */
  READ_FILL,       /* locked: look up, read */
  READ_PUBLISH,    /* our reads have ended: publish, unlock */
  READ_BUSY,       /* unlocked: wait for those that others read */
  READ_END,
};

/* Reads ahead by at most this much, once a stream has proved to be one. */
#define READAHEAD_BLOCKS_MAX 512
#define READAHEAD_BLOCKS_MIN 32

static enum op_next
read_charge (struct request *request)
{
  uint64_t count = request_block_count (request);
  struct op *op = &request->op;

  op->stage = READ_HITS;
  op_count (op, COUNTER_READS, 1);
  op_count (op, COUNTER_READ_BYTES, request->length);
  if (count > REQUEST_FRAMES_INLINE) {
    request->frames = malloc (count * sizeof *request->frames);
    if (request->frames == NULL) {
      request->frames = request->frames_inline;
      op->error = -ENOMEM;
      op->stage = READ_END;
      return OP_MORE;
    }
  }
  request->charged = count;
  if (cache_try_charge (request->disk->store->cache, op_credit (op), count))
    return OP_MORE;
  op_expect (op);
  if (!cache_charge (request->disk->store->cache, op_credit (op), count, &op->waiter,
                     &request->ticket))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static enum op_next
read_hits (struct request *request)
{
  struct cache *cache = request->disk->store->cache;
  uint64_t first = request_first_block (request);
  uint64_t count = request_block_count (request);
  uint64_t misses = 0;

  for (uint32_t i = 0; i < count; i++) {
    struct frame *frame;

    if (i + CACHE_AHEAD < count)
      cache_prefetch (cache, request->disk->id, first + i + CACHE_AHEAD);
    frame = cache_get (cache, request->disk->id, first + i);
    request->frames[i] = frame != NULL ? frame : FRAME_UNKNOWN;
    misses += frame == NULL;
  }
  request->frame_count = count;
  op_count (&request->op, COUNTER_HIT_BLOCKS, count - misses);
  op_count (&request->op, COUNTER_MISS_BLOCKS, misses);
  request->op.stage = misses == 0 ? READ_END : READ_WINDOW;
  return OP_MORE;
}

/* Drops the range lock of the slow path. */
static void
read_unlock (struct request *request, struct list *wake)
{
  range_lock_release (&request->disk->range_lock, &request->fill->range, wake);
}

static enum op_next
read_window (struct request *request)
{
  struct op *op = &request->op;
  struct disk *disk = request->disk;
  uint64_t first = request_first_block (request), count;

  while (request->at < request->frame_count && request->frames[request->at] != FRAME_UNKNOWN)
    request->at++;
  if (request->at == request->frame_count) {
    op->stage = READ_END;
    return OP_MORE;
  }
  if (request->fill == NULL && (request->fill = fill_acquire (disk->store)) == NULL) {
    op->error = -ENOMEM;
    op->stage = READ_END;
    return OP_MORE;
  }
  /* Up to the last block of the window that is missing. */
  count = MIN (request->frame_count - request->at, WINDOW_BLOCKS);
  while (request->frames[request->at + count - 1] != FRAME_UNKNOWN)
    count--;
  request->fill->count = count;
  op->stage = READ_FILL;
  op_expect (op);
  if (!range_lock_acquire (&disk->range_lock, &request->fill->range, first + request->at,
                           first + request->at + count - 1, RANGE_SHARED, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static enum op_next
read_fill (struct request *request)
{
  struct op *op = &request->op;
  uint64_t first = request_first_block (request) + request->at;

  /* The size is checked again under the lock: the disk may have shrunk since request_validate. */
  if (request->offset + request->length > disk_size (request->disk)) {
    struct list wake = LIST_INIT (wake);

    read_unlock (request, &wake);
    op_wake_all (&wake);
    op->error = -EINVAL;
    op->stage = READ_END;
    return OP_MORE;
  }
  op->stage = READ_PUBLISH;
  fill_start (request->fill, op, request->disk, first, request->frames + request->at,
              request->fill->count, false);
  return request->fill->io_count > 0 ? OP_WAIT : OP_MORE;
}

static enum op_next
read_publish (struct request *request)
{
  struct list wake = LIST_INIT (wake);
  int error = fill_finish (request->fill, request->disk->store, &wake);

  read_unlock (request, &wake);
  op_wake_all (&wake);
  request->op.error = error;
  request->op.stage = error != 0 ? READ_END : READ_BUSY;
  return OP_MORE;
}

/* Waits for one frame after the other; holds no lock while it does. */
static enum op_next
read_busy (struct request *request)
{
  struct op *op = &request->op;
  struct fill *fill = request->fill;

  for (unsigned i = 0; i < fill->count; i++) {
    struct frame *frame = fill->frames[i];

    if (fill->states[i] != FILL_BUSY)
      continue;
    op_expect (op);
    if (cache_wait_fill (request->disk->store->cache, frame, &op->waiter))
      return OP_WAIT;
    op_wake (op);
    fill->states[i] = FILL_KNOWN;
    if (atomic_load (&frame->state) == FRAME_FREE) {
      /* Its reader failed, as our own read will if the device is to blame; or it was replaced. */
      cache_put (request->disk->store->cache, frame);
      fill->frames[i] = FRAME_UNKNOWN;
    }
  }
  op->stage = READ_WINDOW;
  return OP_MORE;
}

static enum op_next
read_end (struct request *request)
{
  struct list wake = LIST_INIT (wake);

  if (request->fill != NULL) {
    fill_release (request->disk->store, request->fill);
    request->fill = NULL;
  }
  if (request->op.error == 0 && request->stream != NULL)
    readahead_after (request);
  return OP_DONE;
}

enum op_next
op_read_step (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  switch ((enum read_stage) op->stage) {
  case READ_CHARGE:
    return read_charge (request);
  case READ_HITS:
    return read_hits (request);
  case READ_WINDOW:
    return read_window (request);
  case READ_FILL:
    return read_fill (request);
  case READ_PUBLISH:
    return read_publish (request);
  case READ_BUSY:
    return read_busy (request);
  case READ_END:
    return read_end (request);
  }
  CHECK (false);
}

/* --- CACHE --- */

enum cache_stage {
  CACHE_START,
  CACHE_WINDOW,    /* try the lock and the frames; give up where they cannot be had */
  CACHE_PUBLISH,
  CACHE_END,
};

/* However long the request: no more than this is fetched, so that CACHE cannot sweep the cache. */
static uint64_t
cache_request_max (struct store *store)
{
  return store->arena->frame_count / 8;
}

static enum op_next
cache_window (struct request *request)
{
  struct op *op = &request->op;
  struct disk *disk = request->disk;
  struct fill *fill = request->fill;
  uint64_t first = request_first_block (request) + request->at;
  uint64_t left = MIN (request_block_count (request), cache_request_max (disk->store));
  uint64_t count;

  op->stage = CACHE_END;
  if (request->at >= left)
    return OP_MORE;
  count = MIN (left - request->at, ARRAY_COUNT (request->frames_inline));
  if (!cache_try_charge (disk->store->cache, op_credit (op), count))
    return OP_MORE;
  request->charged = count;
  if (!range_lock_try (&disk->range_lock, &fill->range, first, first + count - 1, RANGE_SHARED))
    return OP_MORE;
  if (first + count > disk_blocks (disk)) {
    struct list wake = LIST_INIT (wake);

    read_unlock (request, &wake);
    op_wake_all (&wake);
    return OP_MORE;
  }
  for (uint64_t i = 0; i < count; i++)
    request->frames[i] = FRAME_UNKNOWN;
  request->frame_count = count;
  op->stage = CACHE_PUBLISH;
  fill_start (fill, op, disk, first, request->frames, count, true);
  return fill->io_count > 0 ? OP_WAIT : OP_MORE;
}

static enum op_next
cache_publish_window (struct request *request)
{
  struct store *store = request->disk->store;
  struct fill *fill = request->fill;
  struct list wake = LIST_INIT (wake);
  int error;

  for (unsigned i = 0; i < fill->io_count; i++)
    op_count (&request->op, COUNTER_READAHEAD_BLOCKS, fill->ios[i].io.length);
  error = fill_finish (fill, store, &wake);
  read_unlock (request, &wake);
  for (uint32_t i = 0; i < request->frame_count; i++)
    if (request->frames[i] != NULL && request->frames[i] != FRAME_UNKNOWN)
      cache_put (store->cache, request->frames[i]);
  request->frame_count = 0;
  cache_uncharge (store->cache, op_credit (&request->op), request->charged, &wake);
  request->charged = 0;
  op_wake_all (&wake);
  request->at += fill->count;
  request->op.stage = error != 0 || fill->count == 0 ? CACHE_END : CACHE_WINDOW;
  return OP_MORE;
}

enum op_next
op_cache_step (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  switch ((enum cache_stage) op->stage) {
  case CACHE_START:
    op_count (op, COUNTER_CACHES, 1);
    request->fill = fill_acquire (request->disk->store);
    op->stage = request->fill != NULL ? CACHE_WINDOW : CACHE_END;
    return OP_MORE;
  case CACHE_WINDOW:
    return cache_window (request);
  case CACHE_PUBLISH:
    return cache_publish_window (request);
  case CACHE_END:
    if (request->fill != NULL)
      fill_release (request->disk->store, request->fill);
    request->fill = NULL;
    /* A hint: that it could not be followed is not an error. */
    return OP_DONE;
  }
  CHECK (false);
}

/* --- reading ahead --- */

static void
readahead_done (struct request *request)
{
  struct disk *disk = request->disk;

  request_release (request);
  free (request);
  atomic_fetch_sub (&disk->readaheads, 1);
}

/* The stream went on where it had ended: the window doubles, and the next one is fetched when the
 * reader has come halfway to the end of what was fetched. */
void
readahead_after (struct request *request)
{
  struct read_stream *stream = request->stream;
  uint64_t end = request->offset + request->length, size = disk_size (request->disk);
  bool is_sequential = request->offset == stream->next_offset && request->offset > 0;
  struct request *ahead;
  uint64_t from, window;

  stream->next_offset = end;
  if (!is_sequential) {
    stream->window_blocks = 0;
    stream->ahead_end = 0;
    return;
  }
  window = MAX ((uint64_t) stream->window_blocks, READAHEAD_BLOCKS_MIN);
  from = MAX (stream->ahead_end, end);
  if (from > end + window * BLOCK_SIZE / 2 || from >= size)
    return;
  stream->window_blocks = MIN (window * 2, READAHEAD_BLOCKS_MAX);
  window = MIN (window * BLOCK_SIZE, size - from);
  ahead = malloc (sizeof *ahead);
  if (ahead == NULL)
    return;
  stream->ahead_end = from + window;
  atomic_fetch_add (&request->disk->readaheads, 1);
  request_init (ahead, stream->context != NULL ? stream->context : request->op.context,
                request->disk, REQUEST_CACHE, 0, from, window, readahead_done);
  request_start (ahead);
}
