/* SPDX-License-Identifier: BSD-2-Clause */
/* op-write.c - WRITE.  The payload is in fresh frames already (request_admit); what
 * is left stands for:
 *
 *   for each window: charge dirty frames; lock it (WRITE); complete partly written
 *     blocks from their old content;
 *     reserve space for the blocks that have none; publish; unlock
 *   if (FUA) commit
 *
 * Publishing is the last thing that is done and cannot fail, so a WRITE that fails leaves nothing
 * behind that must be cleaned up: no dirty frame without space, and nobody else's data touched.
 */
#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"

enum write_stage {
  WRITE_START,
  WRITE_CHARGE,    /* room for the dirty frames of the next window */
  WRITE_LOCK,      /* the window */
  WRITE_PUBLISH,   /* reserve; complete partly written blocks; publish; unlock */
  WRITE_EDGE_READ, /* the old content of a partly written block is being read by us */
  WRITE_NEXT,
  WRITE_PLACE,     /* FUA: too much for a record, so to its place first */
  WRITE_SYNC,
  WRITE_END,
};

/* A partly written block. */
struct write_edge {
  uint64_t index;      /* in request->frames */
  uint64_t from, to;   /* bytes of the block that the payload covers */
};

/* The partly covered block of the window at INDEX, if it is one. */
static bool
write_is_partial (const struct request *request, uint64_t index, struct write_edge *edge)
{
  uint64_t start = (request_first_block (request) + index) * BLOCK_SIZE;
  uint64_t end = request->offset + request->length;

  edge->index = index;
  edge->from = request->offset > start ? request->offset - start : 0;
  edge->to = MIN (end - start, BLOCK_SIZE);
  return edge->from > 0 || edge->to < BLOCK_SIZE;
}

/* Blocks of the window that begins at request->at. */
static uint64_t
write_window (const struct request *request)
{
  return MIN (request->frame_count - request->at, request->disk->store->window_blocks);
}

/* Blocks of the locked window that are left. */
static uint64_t
write_left (const struct request *request)
{
  return request->fill->range.last + 1 - request_first_block (request) - request->at;
}

static void
write_unlock (struct request *request)
{
  struct list wake = LIST_INIT (wake);
  struct fill *fill = request->fill;

  if (fill->edge != NULL && fill->edge != FRAME_UNKNOWN)
    cache_put (request->disk->store->cache, fill->edge);
  fill->edge = NULL;
  range_lock_release (&request->disk->range_lock, &fill->range, &wake);
  op_wake_all (&wake);
}

static enum op_next
write_fail (struct request *request, int error)
{
  request->op.error = error;
  request->op.stage = WRITE_END;
  return OP_MORE;
}

static enum op_next
write_start (struct request *request)
{
  struct op *op = &request->op;

  op_count (op, COUNTER_WRITES, 1);
  op_count (op, COUNTER_WRITE_BYTES, request->length);
  if (op->error != 0)
    return write_fail (request, op->error);
  if (store_is_failed (request->disk->store))
    return write_fail (request, -EIO);
  request->fill = fill_acquire (request->disk->store);
  if (request->fill == NULL)
    return write_fail (request, -ENOMEM);
  request->fill->edge = NULL;
  request->fill->commit.error = 0;
  request->fill->writeback.error = 0;
  op->stage = WRITE_NEXT;
  return OP_MORE;
}

static enum op_next
write_charge (struct request *request)
{
  struct op *op = &request->op;

  op->stage = WRITE_LOCK;
  op_expect (op);
  request->charged_dirty = write_window (request);
  request->ticket.is_refused = false;
  if (!cache_charge_dirty (request->disk->store->cache, request->charged_dirty, &op->waiter,
                           &request->ticket)) {
    keeper_kick (request->disk->store);
    return OP_WAIT;
  }
  op_wake (op);
  return OP_MORE;
}

static enum op_next
write_lock (struct request *request)
{
  struct op *op = &request->op;
  uint64_t first = request_first_block (request) + request->at;

  if (request->charged_dirty > 0 && request->ticket.is_refused) {
    request->charged_dirty = 0;
    return write_fail (request, -EIO);
  }
  op->stage = WRITE_PUBLISH;
  op_expect (op);
  if (!range_lock_acquire (&request->disk->range_lock, &request->fill->range, first,
                           first + write_window (request) - 1, RANGE_WRITE, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* Completes EDGE's fresh frame from OLD, and publishes it if OLD is still the block's frame.
 * False: somebody published another one meanwhile; look again. */
static bool
write_merge (struct request *request, const struct write_edge *edge, struct frame *old,
             bool has_token, bool *token_taken)
{
  struct store *store = request->disk->store;
  struct frame *fresh = request->frames[edge->index];
  uint8_t *data = fresh->data;
  struct list wake = LIST_INIT (wake);
  bool is_published;

  memcpy (data, old->data, edge->from);
  memcpy (data + edge->to, (uint8_t *) old->data + edge->to, BLOCK_SIZE - edge->to);
  is_published = cache_publish (store->cache, &request->disk->cache,
                                request_first_block (request) + edge->index, fresh, old, has_token,
                                token_taken, &wake);
  op_wake_all (&wake);
  return is_published;
}

/* A clean frame of zeros, referenced, for a block that had no frame and was not written; NULL: it
 * is not so any more.  The frame is in the index before the map is looked at: what is published for
 * the block from now on replaces it, so that write_merge sees it, even if it has reached its place
 * and left the cache by then. */
static struct frame *
write_hold_hole (struct request *request, uint64_t block)
{
  struct disk *disk = request->disk;
  struct cache *cache = disk->store->cache;
  struct list wake = LIST_INIT (wake);
  struct frame *zeros = cache_allocate (cache), *found;
  struct extent extent;
  bool is_hole;

  /* The charge for the dirty frame to come is enough for it. */
  CHECK (zeros != NULL);
  if (cache_fill_begin (cache, &disk->cache, block, zeros, &found) != CACHE_YOURS) {
    cache_put (cache, found);
    cache_put (cache, zeros);
    return NULL;
  }
  extent_map_lookup (&disk->map, block, 1, &extent);
  is_hole = extent.state != EXTENT_WRITTEN;
  if (is_hole)
    memset (zeros->data, 0, BLOCK_SIZE);
  is_hole = cache_fill_end (cache, zeros, is_hole, &wake);
  op_wake_all (&wake);
  if (is_hole)
    return zeros;
  cache_put (cache, zeros);
  return NULL;
}

/* The old content of the block at INDEX, a frame (referenced); or it must be waited for, or looked
 * for again: OP_WAIT or OP_MORE, with the stage to come back to set. */
static enum op_next
write_find_old (struct request *request, uint64_t index, struct frame **old)
{
  struct op *op = &request->op;
  struct fill *fill = request->fill;
  struct cache *cache = request->disk->store->cache;

  fill->edge = FRAME_UNKNOWN;
  fill_start (fill, op, request->disk, request_first_block (request) + index, &fill->edge, 1,
              false);
  if (fill->io_count > 0) {
    op->stage = WRITE_EDGE_READ;
    return OP_WAIT;
  }
  if (fill->states[0] == FILL_BUSY) {
    /* Its reader has its lock already and waits for the device only. */
    op->stage = WRITE_PUBLISH;
    op_expect (op);
    if (cache_wait_fill (cache, fill->edge, &op->waiter)) {
      cache_put (cache, fill->edge);
      fill->edge = NULL;
      return OP_WAIT;
    }
    op_wake (op);
    cache_put (cache, fill->edge);
    fill->edge = NULL;
    return OP_MORE;
  }
  *old = fill->edge;
  fill->edge = NULL;
  if (*old == NULL)
    *old = write_hold_hole (request, request_first_block (request) + index);
  op->stage = WRITE_PUBLISH;
  return *old != NULL ? OP_DONE : OP_MORE;
}

static enum op_next
write_edge_read (struct request *request)
{
  struct list wake = LIST_INIT (wake);
  int error = fill_finish (request->fill, request->disk->store, &wake);

  op_wake_all (&wake);
  if (error != 0) {
    request->fill->edge = NULL;
    write_unlock (request);
    return write_fail (request, error);
  }
  if (request->fill->edge != FRAME_UNKNOWN)
    cache_put (request->disk->store->cache, request->fill->edge);
  request->fill->edge = NULL;
  request->op.stage = WRITE_PUBLISH;
  return OP_MORE;
}

/* Notes which of EXTENT's blocks need space promised; how many. */
static uint64_t
write_needs_extent (struct request *request, const struct extent *extent, bool exact)
{
  struct fill *fill = request->fill;
  struct cache *cache = request->disk->store->cache;
  uint64_t end = extent->block + extent->length, needs = 0;
  struct extent part = *extent;

  for (; part.block < end; part.block += part.length, part.place += part.length) {
    bool goes_elsewhere;

    part.length = end - part.block;
    goes_elsewhere = store_needs_space (request->disk->store, &part);
    for (uint64_t block = part.block; block < part.block + part.length; block++) {
      bool needs_space = goes_elsewhere;

      if (needs_space && exact) {
        struct frame *frame = cache_peek (cache, request->disk->id, block);

        if (frame != NULL) {
          needs_space = atomic_load (&frame->state) != FRAME_DIRTY;
          cache_put (cache, frame);
        }
      }
      /* Only what is counted may take one of the tokens. */
      fill->needs_space[block - fill->range.first] = needs_space;
      needs += needs_space;
    }
  }
  return needs;
}

/* How many blocks of the window need space promised: those that cannot be written where they are
 * mapped, and if EXACT, that have no dirty frame, which has its own promise. */
static uint64_t
write_needs (struct request *request, bool exact)
{
  struct fill *fill = request->fill;
  uint64_t first = request_first_block (request) + request->at, needs = 0;

  fill->extent_count = extent_map_scan (&request->disk->map, first, write_left (request),
                                        fill->extents, ARRAY_COUNT (fill->extents));
  for (unsigned e = 0; e < fill->extent_count; e++)
    needs += write_needs_extent (request, &fill->extents[e], exact);
  return needs;
}

/* Publishes the blocks of the window from request->at on; stops at a partly written block whose old
 * content must be waited for.  Tokens not used are in *TOKENS. */
static enum op_next
write_publish_blocks (struct request *request, uint64_t *tokens)
{
  struct store *store = request->disk->store;
  struct fill *fill = request->fill;
  uint64_t first = request_first_block (request);
  uint64_t end = fill->range.last + 1 - first;

  while (request->at < end) {
    uint64_t block = first + request->at;
    bool has_token = *tokens > 0 && fill->needs_space[block - fill->range.first];
    bool token_taken = false;
    struct write_edge edge;

    if (request->at + CACHE_AHEAD < end)
      cache_prefetch_publish (store->cache, request->disk->id, block + CACHE_AHEAD,
                              request->frames[request->at + CACHE_AHEAD]);
    if (write_is_partial (request, request->at, &edge)) {
      struct frame *old;
      enum op_next next = write_find_old (request, request->at, &old);
      bool is_published;

      if (next != OP_DONE)
        return next;
      is_published = write_merge (request, &edge, old, has_token, &token_taken);
      cache_put (store->cache, old);
      if (!is_published)
        continue;
    }
    else {
      struct list wake = LIST_INIT (wake);
      bool is_published
        = cache_publish (store->cache, &request->disk->cache, block,
                         request->frames[request->at], NULL, has_token, &token_taken, &wake);

      CHECK (is_published);
      op_wake_all (&wake);
    }
    *tokens -= token_taken;
    request->charged_dirty--;
    request->at++;
  }
  return OP_DONE;
}

/* The lock is given up while waiting: the commit may need write-back of this very range, behind a
 * TRIM that waits for us. */
static enum op_next
write_no_space (struct request *request, uint64_t needs, int error)
{
  struct op *op = &request->op;
  struct store *store = request->disk->store;
  enum op_next next = OP_DONE;

  write_unlock (request);
  op->stage = WRITE_LOCK;
  if (error == -ENOSPC)
    next = store_wait_space (store, needs, &request->space_waits, request->fill, op);
  return next != OP_DONE ? next : write_fail (request, error);
}

static enum op_next
write_publish (struct request *request)
{
  struct store *store = request->disk->store;
  uint64_t tokens, left;
  enum op_next next;
  int error;

  if (request->offset + request->length > disk_size (request->disk)) {
    write_unlock (request);
    return write_fail (request, -ENOSPC);
  }
  CHECK (range_request_holds (&request->fill->range, &request->disk->range_lock,
                              request_first_block (request) + request->at,
                              request->fill->range.last, RANGE_WRITE));
  tokens = write_needs (request, false);
  error = store_promise (store, tokens);
  if (error != 0) {
    tokens = write_needs (request, true);
    error = store_promise (store, tokens);
  }
  if (error != 0)
    return write_no_space (request, tokens, error);
  left = tokens;
  next = write_publish_blocks (request, &left);
  store_settle (store, tokens, left);
  if (next != OP_DONE)
    return next;
  write_unlock (request);
  request->space_waits = 0;
  request->op.stage = WRITE_NEXT;
  return OP_MORE;
}

/* All windows are published. */
static enum op_next
write_next (struct request *request)
{
  if (request->at < request->frame_count)
    request->op.stage = WRITE_CHARGE;
  else if (!(request->flags & REQUEST_FUA))
    request->op.stage = WRITE_END;
  else
    request->op.stage = request->frame_count <= commit_small_blocks (request->disk->store)
                          ? WRITE_SYNC : WRITE_PLACE;
  return OP_MORE;
}

static enum op_next
write_place (struct request *request)
{
  struct op *op = &request->op;
  struct store *store = request->disk->store;

  op->stage = WRITE_SYNC;
  request->fill->writeback = (struct writeback_request) {
    .disk = request->disk,
    .version = cache_version (store->cache),
  };
  op_expect (op);
  keeper_write_back (store, &request->fill->writeback, op);
  return OP_WAIT;
}

static enum op_next
write_sync (struct request *request)
{
  struct op *op = &request->op;
  bool is_small = request->frame_count <= commit_small_blocks (request->disk->store);

  if (request->fill->writeback.error != 0)
    return write_fail (request, request->fill->writeback.error);
  op->stage = WRITE_END;
  request->fill->commit = (struct commit_request) {
    .disk = request->disk,
    .first = request_first_block (request),
    .count = is_small ? request->frame_count : 0,
  };
  op_expect (op);
  commit_join (request->disk->store, &request->fill->commit, op);
  return OP_WAIT;
}

static enum op_next
write_end (struct request *request)
{
  struct store *store = request->disk->store;
  struct list wake = LIST_INIT (wake);

  if (request->charged_dirty > 0)
    cache_undirty (store->cache, request->charged_dirty, &wake);
  request->charged_dirty = 0;
  op_wake_all (&wake);
  if (request->fill != NULL) {
    if (request->op.error == 0)
      request->op.error = request->fill->commit.error;
    fill_release (store, request->fill);
    request->fill = NULL;
  }
  if (keeper_wants_writeback (store))
    keeper_kick (store);
  return OP_DONE;
}

enum op_next
op_write_step (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  switch ((enum write_stage) op->stage) {
  case WRITE_START:
    return write_start (request);
  case WRITE_CHARGE:
    return write_charge (request);
  case WRITE_LOCK:
    return write_lock (request);
  case WRITE_PUBLISH:
    return write_publish (request);
  case WRITE_EDGE_READ:
    return write_edge_read (request);
  case WRITE_NEXT:
    return write_next (request);
  case WRITE_PLACE:
    return write_place (request);
  case WRITE_SYNC:
    return write_sync (request);
  case WRITE_END:
    return write_end (request);
  }
  CHECK (false);
}
