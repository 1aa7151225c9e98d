/* SPDX-License-Identifier: BSD-2-Clause */
/* op-zero.c - TRIM and WRITE_ZEROES: the range reads as zeros, and its space is given back (TRIM,
 * WRITE_ZEROES), or taken and kept (NO_HOLE).  Blocks that a clone shares lose an owner; with
 * NO_HOLE they get a place of their own.  Stands for:
 *
 *   write zeros into the partly covered blocks at the edges (TRIM leaves them
 *     alone), unless they read as zeros already
 *   for each step of at most ZERO_STEP_EXTENTS extents, and some ZERO_STEP_FRAMES cached frames:
 *     reserve tail room; lock the step exclusive; apply; unlock
 *   if (FUA) commit
 *
 * Applying is one pass through the gate: log the change, drop the frames, change the map, free the
 * space.  Between the lock and the unlock nobody else can look the range up, fill it, or write to
 * the blocks that it maps to: that is the whole point of the range lock (range-lock.h).  The item
 * is logged before the frames are dropped: were the process killed in between, acknowledged data
 * would otherwise be lost from the arena without the trim being there.
 *
 * Cost: extents and cached frames touched, never bytes.  Over a hole nothing is logged.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"

enum zero_stage {
  ZERO_START,
  ZERO_HEAD,       /* the partly covered first block: lock it */
  ZERO_HEAD_LOOK,  /* locked */
  ZERO_TAIL,       /* the partly covered last block: likewise */
  ZERO_TAIL_LOOK,
  ZERO_STEP,       /* tail room for the next step */
  ZERO_LOCK,
  ZERO_APPLY,      /* locked */
  ZERO_SYNC,
  ZERO_END,
};

/* NO_HOLE: extents and holes changed in one step; each may take an item. */
#define ZERO_KEEP_EXTENTS 64

/* Frames dropped in one step, about: some 0.3 ms. */
#define ZERO_STEP_FRAMES 16384

/* Changes of the map whose memory is set aside for a step: neighbouring ones share their nodes. */
#define ZERO_CHANGES 4

static bool
zero_keeps_space (const struct request *request)
{
  return request->kind == REQUEST_WRITE_ZEROES && (request->flags & REQUEST_NO_HOLE);
}

static uint64_t
zero_item_bytes (const struct request *request)
{
  return (zero_keeps_space (request) ? 2 * ZERO_KEEP_EXTENTS : 1) * JOURNAL_RANGE_ITEM;
}

/* Blocks that lie wholly in the range: [request->at, request->end). */
static enum op_next
zero_start (struct request *request)
{
  struct op *op = &request->op;

  op_count (op, request->kind == REQUEST_TRIM ? COUNTER_TRIMS : COUNTER_WRITE_ZEROES, 1);
  if (store_is_failed (request->disk->store)) {
    op->error = -EIO;
    return OP_DONE;
  }
  request->at = divide_up (request->offset, BLOCK_SIZE);
  request->end = (request->offset + request->length) / BLOCK_SIZE;
  request->fill = fill_acquire (request->disk->store);
  if (request->fill == NULL) {
    op->error = -ENOMEM;
    return OP_DONE;
  }
  request->fill->commit.error = request->fill->writeback.error = 0;
  op->stage = request->kind == REQUEST_TRIM ? ZERO_STEP : ZERO_HEAD;
  return OP_MORE;
}

/* --- edges --- */

static void
zero_edge_done (struct request *edge)
{
  struct request *request = edge->owner;

  if (edge->op.error != 0)
    request->op.error = edge->op.error;
  request_release (edge);
  free (edge);
  op_wake (&request->op);
}

static void
zero_edge_admitted (struct request *edge)
{
  struct iovec segment;
  uint64_t bytes;

  if (request_segments (edge, 0, &segment, 1, &bytes) == 1)
    memset (segment.iov_base, 0, segment.iov_len);
  request_start (edge);
}

/* Zeros a part of one block, as a WRITE. */
static enum op_next
zero_edge (struct request *request, uint64_t from, uint64_t to)
{
  struct op *op = &request->op;
  struct request *edge = malloc (sizeof *edge);

  if (edge == NULL) {
    op->error = -ENOMEM;
    op->stage = ZERO_END;
    return OP_MORE;
  }
  request_init (edge, op->context, request->disk, REQUEST_WRITE, 0, from, to - from,
                zero_edge_done);
  edge->owner = request;
  edge->admitted = zero_edge_admitted;
  op_expect (op);
  if (request_admit (edge))
    zero_edge_admitted (edge);
  return OP_WAIT;
}

/* Whether BLOCK, locked, reads as zeros as it is, and needs no space either: then
 * zeros need not be written to a part of it. */
static bool
zero_edge_is_needless (struct request *request, uint64_t block)
{
  struct disk *disk = request->disk;
  /* The frame first, the map second: what is not dirty any more is in the map by then. */
  struct frame *frame = cache_peek (disk->store->cache, disk->id, block);
  bool is_dirty = frame != NULL && atomic_load (&frame->state) == FRAME_DIRTY;
  struct extent extent;

  if (frame != NULL)
    cache_put (disk->store->cache, frame);
  if (is_dirty || request->offset + request->length > disk_size (disk))
    return false;
  extent_map_lookup (&disk->map, block, 1, &extent);
  return extent.state == EXTENT_UNWRITTEN
         || (extent.state == EXTENT_HOLE && !zero_keeps_space (request));
}

/* Locks the block of an edge, to look at it in STAGE. */
static enum op_next
zero_edge_lock (struct request *request, uint64_t block, enum zero_stage stage)
{
  struct op *op = &request->op;

  op->stage = stage;
  op_expect (op);
  if (!range_lock_acquire (&request->disk->range_lock, &request->fill->range, block, block,
                           RANGE_SHARED, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* Bytes [from, to) of the locked block become zeros; not under the lock, for it is
 * a WRITE of its own. */
static enum op_next
zero_edge_look (struct request *request, uint64_t from, uint64_t to, enum zero_stage next)
{
  struct list wake = LIST_INIT (wake);
  bool is_needless = zero_edge_is_needless (request, from / BLOCK_SIZE);

  range_lock_release (&request->disk->range_lock, &request->fill->range, &wake);
  op_wake_all (&wake);
  request->op.stage = next;
  return is_needless ? OP_MORE : zero_edge (request, from, to);
}

static enum op_next
zero_head (struct request *request)
{
  request->op.stage = ZERO_TAIL;
  if (request->offset % BLOCK_SIZE == 0)
    return OP_MORE;
  return zero_edge_lock (request, request->offset / BLOCK_SIZE, ZERO_HEAD_LOOK);
}

static enum op_next
zero_head_look (struct request *request)
{
  uint64_t end = request->offset + request->length;

  return zero_edge_look (request, request->offset, MIN (request->at * BLOCK_SIZE, end), ZERO_TAIL);
}

static enum op_next
zero_tail (struct request *request)
{
  uint64_t end = request->offset + request->length;

  request->op.stage = request->op.error == 0 ? ZERO_STEP : ZERO_END;
  /* Within one block there is no second edge. */
  if (request->op.error != 0 || end % BLOCK_SIZE == 0
      || request->end * BLOCK_SIZE < request->offset)
    return OP_MORE;
  return zero_edge_lock (request, request->end, ZERO_TAIL_LOOK);
}

static enum op_next
zero_tail_look (struct request *request)
{
  return zero_edge_look (request, request->end * BLOCK_SIZE, request->offset + request->length,
                         ZERO_STEP);
}

/* --- steps --- */

/* For what a step may add to the map. */
static enum node_room
zero_node_room (struct request *request)
{
  bool keeps = zero_keeps_space (request);

  return store_node_room (request->disk->store, 0,
                          keeps ? MIN (request->end - request->at, ZERO_KEEP_EXTENTS) : 1,
                          keeps ? NODES_FOR_DATA : NODES_FOR_HOLES);
}

static enum op_next
zero_step (struct request *request)
{
  struct op *op = &request->op;
  struct store *store = request->disk->store;

  if (request->op.error != 0 || request->at >= request->end) {
    op->stage = op->error == 0 && (request->flags & REQUEST_FUA) ? ZERO_SYNC : ZERO_END;
    return OP_MORE;
  }
  if (zero_node_room (request) == NODES_FIT_LATER && request->fill->writeback.error == 0)
    return store_wait_nodes (store, &request->fill->writeback, op);
  op->error = disk_reserve_changes (request->disk, ZERO_CHANGES, ZERO_STEP_EXTENTS);
  if (op->error != 0) {
    op->stage = ZERO_END;
    return OP_MORE;
  }
  op->stage = ZERO_LOCK;
  op_expect (op);
  if (!journal_reserve (&store->journal, zero_item_bytes (request), &request->fill->tail,
                        &op->waiter)) {
    keeper_kick (store);
    return OP_WAIT;
  }
  op_wake (op);
  return OP_MORE;
}

static enum op_next
zero_lock (struct request *request)
{
  struct op *op = &request->op;
  struct disk *disk = request->disk;
  unsigned extents = zero_keeps_space (request) ? ZERO_KEEP_EXTENTS : ZERO_STEP_EXTENTS;
  uint64_t step
    = extent_map_step (&disk->map, request->at, request->end - request->at, extents);

  if (request->fill->tail.is_refused) {
    op->error = -EIO;
    op->stage = ZERO_END;
    return OP_MORE;
  }
  step = cache_step (disk->store->cache, &disk->cache, request->at, step, ZERO_STEP_FRAMES);
  op->stage = ZERO_APPLY;
  op_expect (op);
  if (!range_lock_acquire (&disk->range_lock, &request->fill->range, request->at,
                           request->at + step - 1, RANGE_EXCLUSIVE, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* Drops the frames of [block, block + length), exclusive and within the gate; their
 * promises are void.  IS_LOGGED: and so are copies of them in the journal, by an item. */
static void
zero_drop (struct disk *disk, uint64_t block, uint64_t length, bool is_logged, struct list *wake)
{
  struct cache_dropped dropped = { 0 };

  CHECK (range_lock_is_held (&disk->range_lock, block, block + length - 1, RANGE_EXCLUSIVE));
  cache_invalidate (disk->store->cache, &disk->cache, block, block + length - 1, &dropped, wake);
  CHECK (dropped.copies == 0 || is_logged);
  if (dropped.tokens > 0)
    space_unreserve (disk->store->space, dropped.tokens);
}

/* Deallocates the step; how many bytes of items it took. */
static uint64_t
zero_deallocate (struct disk *disk, uint64_t block, uint64_t length, struct list *wake)
{
  struct store *store = disk->store;
  uint64_t bytes = 0, cleared;

  if (extent_map_mapped_in (&disk->map, block, length) > 0
      || cache_has_copies (store->cache, &disk->cache, block, block + length - 1)) {
    disk_note_position (disk, journal_append (&store->journal, ITEM_UNMAP, 0, disk->id, block,
                                              length, 0, NULL, 0));
    bytes = JOURNAL_RANGE_ITEM;
  }
  zero_drop (disk, block, length, bytes > 0, wake);
  cleared = extent_map_clear (&disk->map, block, length, UINT32_MAX, disk_space_free, store);
  CHECK (cleared == length);
  return bytes;
}

/* Logs and sets one unwritten extent. */
static void
zero_set_unwritten (struct disk *disk, const struct extent *extent)
{
  struct store *store = disk->store;

  disk_note_position (disk, journal_append (&store->journal, ITEM_MAP, EXTENT_UNWRITTEN, disk->id,
                                            extent->block, extent->length, extent->place, NULL, 0));
  extent_map_set (&disk->map, extent, disk_space_free, store);
}

/* Gives a hole, whose blocks have been promised, its space, at most *EXTENTS runs; how many blocks
 * were done. */
static uint64_t
zero_allocate (struct disk *disk, const struct extent *hole, unsigned *extents)
{
  struct store *store = disk->store;
  uint64_t done = 0, goal = 0;

  while (done < hole->length && *extents > 0) {
    struct extent extent = { .block = hole->block + done, .state = EXTENT_UNWRITTEN };

    extent.length
      = space_allocate (store->space, disk->id, goal, MIN (hole->length - done, EXTENT_LENGTH_MAX),
                        &extent.place);
    zero_set_unwritten (disk, &extent);
    goal = extent.place + extent.length;
    done += extent.length;
    --*extents;
  }
  if (done < hole->length)
    space_unreserve (store->space, hole->length - done);
  return done;
}

/* Retires the journal's copies of what is going to be dropped, and of nothing else: a FLUSH may
 * have relied on the others.  How many items it took. */
static unsigned
zero_retire (struct disk *disk, uint64_t block, uint64_t length)
{
  struct store *store = disk->store;

  if (!cache_has_copies (store->cache, &disk->cache, block, block + length - 1))
    return 0;
  disk_note_position (disk, journal_append (&store->journal, ITEM_RETIRE, 0, disk->id, block,
                                            length, 0, NULL, 0));
  return 1;
}

/* Deallocates what EXTENT shares with others, logged: with one item. */
static void
zero_unshare (struct disk *disk, struct extent *extent)
{
  struct store *store = disk->store;
  uint64_t cleared;

  disk_note_position (disk, journal_append (&store->journal, ITEM_UNMAP, 0, disk->id, extent->block,
                                            extent->length, 0, NULL, 0));
  cleared = extent_map_clear (&disk->map, extent->block, extent->length, UINT32_MAX,
                              disk_space_free, store);
  CHECK (cleared == extent->length);
  extent->state = EXTENT_HOLE;
}

static bool
zero_has_dirty (struct disk *disk, const struct extent *extent)
{
  uint64_t run, length;

  return cache_find_dirty (disk->store->cache, &disk->cache, extent->block, extent->length, &run,
                           &length);
}

/* What the range's frames held is over; the items that say so come first, or a process killed in
 * between would leave neither.  A dirty frame over no extent, or an unwritten one, has nothing else
 * to be logged than the copy that the journal has of it. */
static void
zero_forget (struct disk *disk, const struct extent *extent, unsigned *items, struct list *wake)
{
  unsigned retired = zero_retire (disk, extent->block, extent->length);

  *items -= retired;
  zero_drop (disk, extent->block, extent->length, retired > 0, wake);
}

/* As zero_keep_extent, where EXTENT is a hole, or shares its place with others: it gets space of its
 * own.
 *
 * Promises of what is dirty come free when that is dropped, which cannot be undone: where the extent
 * is shared, its blocks would be seen again that the dirty ones had replaced.  So it becomes a hole
 * with that, and is one if there is not enough space after all, or items for a part only. */
static int64_t
zero_keep_new (struct disk *disk, struct extent *extent, unsigned *items, struct list *wake)
{
  struct store *store = disk->store;
  int error = space_reserve_unsettled (store->space, extent->length);
  uint64_t done;

  if (error != 0 && !zero_has_dirty (disk, extent))
    return error;
  if (extent->state != EXTENT_HOLE) {
    zero_unshare (disk, extent);
    --*items;
  }
  zero_forget (disk, extent, items, wake);
  if (error != 0)
    error = space_reserve_unsettled (store->space, extent->length);
  if (error != 0)
    return error;
  done = zero_allocate (disk, extent, items);
  space_settle (store->space, extent->length);
  return done;
}

/* Makes EXTENT, or its first part, unwritten, hole or not, with at most *ITEMS items.  Returns how
 * many blocks are done, or negative errno. */
static int64_t
zero_keep_extent (struct disk *disk, struct extent extent, unsigned *items, struct list *wake)
{
  if (store_needs_space (disk->store, &extent))
    return zero_keep_new (disk, &extent, items, wake);
  if (extent.state == EXTENT_WRITTEN) {
    extent.state = EXTENT_UNWRITTEN;
    zero_set_unwritten (disk, &extent);
    --*items;
  }
  zero_forget (disk, &extent, items, wake);
  return extent.length;
}

/* Makes the step unwritten.  Returns how many blocks are done, or negative errno; *BYTES of
 * items. */
static int64_t
zero_keep (struct disk *disk, struct fill *fill, uint64_t block, uint64_t length, uint64_t *bytes,
           struct list *wake)
{
  unsigned items = 2 * ZERO_KEEP_EXTENTS, e = 0;
  int64_t done = 0, part;
  unsigned count
    = extent_map_scan (&disk->map, block, length, fill->extents, ZERO_KEEP_EXTENTS / 2);

  /* At most three items are needed to go on. */
  while (e < count && items > 2) {
    struct extent *extent = &fill->extents[e];

    part = zero_keep_extent (disk, *extent, &items, wake);
    if (part < 0) {
      done = part;
      break;
    }
    done += part;
    extent->block += part;
    extent->length -= part;
    if (extent->state != EXTENT_HOLE)
      extent->place += part;
    e += extent->length == 0;
  }
  *bytes = (2 * ZERO_KEEP_EXTENTS - items) * JOURNAL_RANGE_ITEM;
  return done;
}

/* For this step, which is locked.  A hole within an extent makes two of it; others make none. */
static enum node_room
zero_node_room_here (struct request *request)
{
  uint64_t first = request->fill->range.first, length = request->fill->range.last - first + 1;
  enum node_room room = zero_node_room (request);
  struct extent extent;

  if (room == NODES_FIT || zero_keeps_space (request))
    return room;
  if (first == 0)
    return NODES_FIT;
  extent_map_lookup (&request->disk->map, first - 1, length + 2, &extent);
  return extent.state != EXTENT_HOLE && extent.length == length + 2 ? room : NODES_FIT;
}

static enum op_next
zero_apply (struct request *request)
{
  struct op *op = &request->op;
  struct disk *disk = request->disk;
  struct store *store = disk->store;
  struct fill *fill = request->fill;
  struct list wake = LIST_INIT (wake);
  uint64_t length = fill->range.last - fill->range.first + 1, bytes = 0;
  int64_t done = length;
  enum node_room nodes = zero_node_room_here (request);
  enum op_next next;

  if (request->end > disk_blocks (disk))
    done = request->kind == REQUEST_TRIM ? -EINVAL : -ENOSPC;
  else if (nodes != NODES_FIT)
    done = nodes == NODES_FIT_LATER && fill->writeback.error == 0 ? 0 : -ENOSPC;
  else {
    pthread_rwlock_rdlock (&store->gate);
    if (zero_keeps_space (request))
      done = zero_keep (disk, fill, request->at, length, &bytes, &wake);
    else
      bytes = zero_deallocate (disk, request->at, length, &wake);
    pthread_rwlock_unlock (&store->gate);
  }
  range_lock_release (&disk->range_lock, &fill->range, &wake);
  journal_unreserve (&store->journal, zero_item_bytes (request) - bytes, &wake);
  op_wake_all (&wake);
  if (journal_is_pressed (&store->journal))
    keeper_kick (store);
  op->stage = ZERO_STEP;
  if (done == -ENOSPC && nodes == NODES_FIT && request->end <= disk_blocks (disk)) {
    next = store_wait_space (store, length, &request->space_waits, fill, op);
    if (next != OP_DONE)
      return next;
  }
  if (done < 0)
    op->error = done;
  else {
    request->at += done;
    request->space_waits = 0;
  }
  return op->error == 0 && request->at < request->end ? OP_YIELD : OP_MORE;
}

static enum op_next
zero_sync (struct request *request)
{
  struct op *op = &request->op;
  uint64_t first = request_first_block (request), last = first + request_block_count (request) - 1;

  /* The edges' frames, and the items.  They are at most two blocks, one at each end. */
  op->stage = ZERO_END;
  request->fill->commit = (struct commit_request) {
    .disk = request->disk,
    .first = first,
    .count = 1,
    .second = last,
  };
  op_expect (op);
  commit_join (request->disk->store, &request->fill->commit, op);
  return OP_WAIT;
}

enum op_next
op_zero_step (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  switch ((enum zero_stage) op->stage) {
  case ZERO_START:
    return zero_start (request);
  case ZERO_HEAD:
    return zero_head (request);
  case ZERO_HEAD_LOOK:
    return zero_head_look (request);
  case ZERO_TAIL:
    return zero_tail (request);
  case ZERO_TAIL_LOOK:
    return zero_tail_look (request);
  case ZERO_STEP:
    return zero_step (request);
  case ZERO_LOCK:
    return zero_lock (request);
  case ZERO_APPLY:
    return zero_apply (request);
  case ZERO_SYNC:
    return zero_sync (request);
  case ZERO_END:
    if (op->error == 0)
      op->error = request->fill->commit.error;
    fill_release (request->disk->store, request->fill);
    request->fill = NULL;
    return OP_DONE;
  }
  CHECK (false);
}
