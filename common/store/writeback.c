/* SPDX-License-Identifier: BSD-2-Clause */
/* writeback.c - dirty blocks go to their places.  The keeper's; one batch at a time.  Stands for:
 *
 *   collect dirty frames, in order of disk and block; reserve tail room
 *   lock each run shared: wait for the first, leave the others that cannot be had at once
 *   for each part that is still current: where is it mapped, for itself alone? else allocate
 *   write; flush the device
 *   for each part, in the gate: log MAP and RETIRE, change the map, settle the frames
 *   unlock
 *
 * The range locks are held from the look at the map to the end of the I/O and the change of the
 * map: no block can be deallocated, and given to another disk, while it is being written.
 *
 * A block that shares its place with others (a clone) is never written there: it gets a place of
 * its own, and the old one has an owner less when that is mapped.  So copying on write costs no
 * copy.
 *
 * An extent becomes `written` after its data is durable: the map is changed, and the item logged,
 * after the device flush.  It would be tempting to log at completion of the write and leave the
 * flush to the next commit; but then a record could become durable before the data it speaks of.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "store/store-internal.h"

enum writeback_stage {
  WRITEBACK_COLLECT,
  WRITEBACK_LOCK,
  WRITEBACK_LOCK_MORE,
  WRITEBACK_PLACE,
  WRITEBACK_WRITTEN,
  WRITEBACK_PUBLISH,
};

/* A long run that begins so near behind a mapped extent is placed at the same distance behind it:
 * what is missing between them is in flight, and finds its place free (64 requests of a sequential
 * writer arrive in any order, and those of four connections 64 MiB apart).
 * Short runs are not: random writes are better laid side by side. */
#define WRITEBACK_GAP_BLOCKS (UINT64_C (1) << 15)
#define WRITEBACK_GAP_RUN 16
#define WRITEBACK_IO_BLOCKS 256

int
writeback_init (struct store *store)
{
  struct writeback *writeback = &store->keeper.writeback;
  uint64_t by_tail = store->arena->tail_bytes / 4 / (2 * JOURNAL_RANGE_ITEM);
  uint32_t max
    = MAX (1, MIN (MIN (WRITEBACK_BLOCKS_MAX, store->arena->frame_count / 16), by_tail));

  writeback->max = max;
  writeback->frames = calloc (max, sizeof *writeback->frames);
  writeback->runs = calloc (max, sizeof *writeback->runs);
  writeback->pieces = calloc (max, sizeof *writeback->pieces);
  writeback->ios = calloc (max, sizeof *writeback->ios);
  writeback->segments = calloc (max, sizeof *writeback->segments);
  return writeback->frames != NULL && writeback->runs != NULL && writeback->pieces != NULL
             && writeback->ios != NULL && writeback->segments != NULL
           ? 0
           : -ENOMEM;
}

void
writeback_destroy (struct store *store)
{
  struct writeback *writeback = &store->keeper.writeback;

  free (writeback->frames);
  free (writeback->runs);
  free (writeback->pieces);
  free (writeback->ios);
  free (writeback->segments);
}

void
writeback_begin (struct store *store, enum collect_kind kind, struct disk *only, uint64_t version,
                 uint32_t epoch, bool is_checkpoint)
{
  struct writeback *writeback = &store->keeper.writeback;

  writeback->stage = WRITEBACK_COLLECT;
  writeback->kind = kind;
  writeback->only = only;
  writeback->version = version;
  writeback->epoch = epoch;
  writeback->is_checkpoint = is_checkpoint;
  writeback->frame_count = 0;
  writeback->has_committed = false;
  writeback->error = 0;
}

/* --- collect and lock --- */

static int
writeback_compare (const void *left, const void *right)
{
  const struct frame *a = *(struct frame *const *) left, *b = *(struct frame *const *) right;
  uint64_t disk_a = atomic_load (&a->disk), disk_b = atomic_load (&b->disk);
  uint64_t block_a = atomic_load (&a->block), block_b = atomic_load (&b->block);

  if (disk_a != disk_b)
    return disk_a < disk_b ? -1 : 1;
  return block_a < block_b ? -1 : block_a > block_b;
}

static void
writeback_collect_disk (struct store *store, struct disk *disk)
{
  struct writeback *writeback = &store->keeper.writeback;

  if (writeback->frame_count < writeback->max)
    writeback->frame_count += cache_collect (
      store->cache, &disk->cache, writeback->kind, writeback->version, writeback->epoch,
      writeback->frames + writeback->frame_count, writeback->max - writeback->frame_count);
}

/* Runs of frames that continue each other. */
static void
writeback_make_runs (struct store *store)
{
  struct writeback *writeback = &store->keeper.writeback;
  struct writeback_run *run = NULL;

  writeback->run_count = 0;
  pthread_mutex_lock (&store->disks_mutex);
  for (uint32_t i = 0; i < writeback->frame_count; i++) {
    const struct frame *frame = writeback->frames[i];
    uint64_t disk = atomic_load (&frame->disk), block = atomic_load (&frame->block);

    if (run == NULL || run->disk->id != disk || run->range.last + 1 != block) {
      run = &writeback->runs[writeback->run_count++];
      run->disk = disk_find_id (store, disk);
      CHECK (run->disk != NULL);
      run->first = i;
      run->count = 0;
      run->range.first = block;
    }
    run->count++;
    run->range.last = block;
  }
  pthread_mutex_unlock (&store->disks_mutex);
}

/* The tail is too full for a checkpoint, which nobody else would make room for. */
static enum op_next
writeback_make_room (struct store *store, struct op *op)
{
  struct writeback *writeback = &store->keeper.writeback;

  writeback->has_committed = true;
  if (store->is_opening) {
    struct list wake = LIST_INIT (wake);

    /* The maps have what the items tell, and until the checkpoint is durable the
     * old journal is what counts. */
    journal_advance (&store->journal, journal_end (&store->journal), &wake);
    op_wake_all (&wake);
    return OP_MORE;
  }
  op_expect (op);
  commit_join_items (store, &writeback->commit, op);
  return OP_WAIT;
}

/* The frames that were collected, back to the dirty ones. */
static void
writeback_put_back (struct store *store)
{
  struct writeback *writeback = &store->keeper.writeback;
  struct list wake = LIST_INIT (wake);

  for (uint32_t i = 0; i < writeback->frame_count; i++) {
    cache_settle (store->cache, writeback->frames[i], false, &wake);
    cache_put (store->cache, writeback->frames[i]);
  }
  writeback->frame_count = 0;
  op_wake_all (&wake);
}

static enum op_next
writeback_collect (struct store *store, struct op *op)
{
  struct writeback *writeback = &store->keeper.writeback;
  uint64_t bytes;

  if (writeback->only != NULL)
    writeback_collect_disk (store, writeback->only);
  else {
    pthread_mutex_lock (&store->disks_mutex);
    list_for_each (link, &store->disks)
      writeback_collect_disk (store, container_of (link, struct disk, link));
    pthread_mutex_unlock (&store->disks_mutex);
  }
  /* Not more than they need: to find out that there are none left, none. */
  bytes = 2 * JOURNAL_RANGE_ITEM * writeback->frame_count;
  writeback->needs_room
    = bytes > 0 && !journal_reserve_keeper (&store->journal, bytes, writeback->is_checkpoint);
  if (writeback->needs_room) {
    writeback_put_back (store);
    return writeback->is_checkpoint && !writeback->has_committed ? writeback_make_room (store, op)
                                                                 : OP_DONE;
  }
  writeback->tail_bytes = bytes;
  if (writeback->frame_count == 0)
    return OP_DONE;
  qsort (writeback->frames, writeback->frame_count, sizeof *writeback->frames, writeback_compare);
  writeback_make_runs (store);
  writeback->stage = WRITEBACK_LOCK;
  return OP_MORE;
}

/* Waits for the first run only, with nothing held.  An exclusive request that came between two of
 * the runs would wait for the one that is held, and be waited for by the other: runs that are not
 * to be had at once are left to the next batch, which has them first some time. */
static enum op_next
writeback_lock (struct store *store, struct op *op)
{
  struct writeback *writeback = &store->keeper.writeback;
  struct writeback_run *run = &writeback->runs[0];

  writeback->stage = WRITEBACK_LOCK_MORE;
  op_expect (op);
  if (!range_lock_acquire (&run->disk->range_lock, &run->range, run->range.first, run->range.last,
                           RANGE_SHARED, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static enum op_next
writeback_lock_more (struct writeback *writeback)
{
  uint32_t count = 1;

  for (uint32_t r = 1; r < writeback->run_count; r++) {
    struct writeback_run *run = &writeback->runs[count];

    *run = writeback->runs[r];
    count += range_lock_try (&run->disk->range_lock, &run->range, run->range.first,
                             run->range.last, RANGE_SHARED);
  }
  writeback->run_count = count;
  writeback->stage = WRITEBACK_PLACE;
  return OP_MORE;
}

/* --- where it goes --- */

/* Where BLOCK would continue what lies before it. */
static uint64_t
writeback_goal (struct store *store, struct disk *disk, uint64_t block, uint64_t length)
{
  struct writeback *writeback = &store->keeper.writeback;
  uint64_t most = length >= WRITEBACK_GAP_RUN ? MIN (WRITEBACK_GAP_BLOCKS, block) : MIN (1, block);
  uint64_t gap = MIN (WINDOW_BLOCKS, most);
  const struct writeback_piece *before
    = writeback->piece_count > 0 ? &writeback->pieces[writeback->piece_count - 1] : NULL;
  unsigned count;

  if (before != NULL && before->disk == disk && block - (before->block + before->count) < most)
    return before->place + (block - before->block);
  for (; gap > 0; gap = MIN (gap * 16, most)) {
    count = extent_map_scan (&disk->map, block - gap, gap, writeback->extents,
                             ARRAY_COUNT (writeback->extents));
    while (count-- > 0) {
      const struct extent *extent = &writeback->extents[count];

      if (extent->state != EXTENT_HOLE)
        return extent->place + (block - extent->block);
    }
    if (gap == most)
      break;
  }
  return 0;
}

/* One block more for the device to write, in the io that it continues or a new one. */
static uint32_t
writeback_add_block (struct store *store, struct frame *frame, uint64_t place)
{
  struct writeback *writeback = &store->keeper.writeback;
  struct op_io *last
    = writeback->io_count > 0 ? &writeback->ios[writeback->io_count - 1] : NULL;

  if (last == NULL || last->io.place + last->io.length != place
      || last->io.length == WRITEBACK_IO_BLOCKS) {
    last = &writeback->ios[writeback->io_count++];
    last->io = (struct io) {
      .kind = IO_WRITE,
      .place = place,
      .segments = &writeback->segments[writeback->segment_count],
    };
  }
  writeback->segments[writeback->segment_count++] = (struct iovec) { frame->data, BLOCK_SIZE };
  last->io.length++;
  last->io.segment_count++;
  return writeback->io_count - 1;
}

/* Frames [first, first + count) go to PLACE; a piece never spans two ios. */
static void
writeback_add_piece (struct store *store, const struct writeback_piece *model)
{
  struct writeback *writeback = &store->keeper.writeback;
  struct writeback_piece *piece = NULL;

  for (uint32_t i = 0; i < model->count; i++) {
    uint32_t io = writeback_add_block (store, writeback->frames[model->first + i],
                                       model->place + i);

    if (piece == NULL || piece->io != io) {
      piece = &writeback->pieces[writeback->piece_count++];
      *piece = *model;
      piece->block = model->block + i;
      piece->place = model->place + i;
      piece->first = model->first + i;
      piece->count = 0;
      piece->io = io;
    }
    piece->count++;
  }
}

/* Whether a write that failed is better tried elsewhere. */
static bool
writeback_blames_place (int error)
{
  return error != 0 && error != -ENOSPC;
}

/* Allocates for frames [first, first + count), whose promises have been taken. */
static void
writeback_allocate (struct store *store, struct disk *disk, uint64_t block, uint32_t first,
                    uint32_t count, bool is_moved)
{
  struct writeback_piece piece = { .disk = disk, .is_new = true, .is_moved = is_moved };

  atomic_fetch_add (&store->placing, count);
  for (uint32_t done = 0; done < count; done += piece.count) {
    uint64_t goal = writeback_goal (store, disk, block + done, count - done);

    piece.block = block + done;
    piece.first = first + done;
    piece.count = space_allocate (store->space, disk->id, goal, count - done, &piece.place);
    writeback_add_piece (store, &piece);
  }
}

/* Frames [first, first + count) of blocks that are not mapped, or not to a place of their own.
 * Such a dirty block owns a promise, always; a frame that has none any more was replaced by a write
 * since it was seen to be current (writes pass our lock), and the frame that replaced it has it. */
static void
writeback_place_new (struct store *store, struct disk *disk, uint64_t block, uint32_t first,
                     uint32_t count)
{
  struct writeback *writeback = &store->keeper.writeback;
  uint32_t taken = 0;

  for (uint32_t i = 0; i <= count; i++) {
    if (i < count && cache_take_token (store->cache, writeback->frames[first + i])) {
      taken++;
      continue;
    }
    CHECK (i == count || !cache_is_current (writeback->frames[first + i]));
    if (taken > 0)
      writeback_allocate (store, disk, block + i - taken, first + i - taken, taken, false);
    taken = 0;
  }
}

/* The frames from FIRST on of EXTENT's blocks, which all need space or all do not. */
static void
writeback_place_part (struct store *store, struct disk *disk, const struct extent *extent,
                      uint32_t first, bool needs_space)
{
  uint32_t count = extent->length;

  if (needs_space)
    writeback_place_new (store, disk, extent->block, first, count);
  else if (atomic_load (&disk->has_write_error) && writeback_blames_place (disk->write_error)
           && space_reserve (store->space, count) == 0)
    /* The place may be what failed: elsewhere, then. */
    writeback_allocate (store, disk, extent->block, first, count, true);
  else {
    struct writeback_piece piece = {
      .disk = disk,
      .block = extent->block,
      .place = extent->place,
      .first = first,
      .count = count,
      .was_unwritten = extent->state == EXTENT_UNWRITTEN,
    };

    writeback_add_piece (store, &piece);
  }
}

/* Frames [first, first + count) of a run, all current. */
static void
writeback_place_current (struct store *store, struct disk *disk, uint32_t first, uint32_t count)
{
  struct writeback *writeback = &store->keeper.writeback;
  uint64_t block = atomic_load (&writeback->frames[first]->block);

  while (count > 0) {
    struct extent extent;

    bool needs_space;

    extent_map_lookup (&disk->map, block, count, &extent);
    needs_space = store_needs_space (store, &extent);
    writeback_place_part (store, disk, &extent, first, needs_space);
    block += extent.length;
    first += extent.length;
    count -= extent.length;
  }
}

static enum op_next
writeback_place (struct store *store, struct op *op)
{
  struct writeback *writeback = &store->keeper.writeback;
  uint64_t end = 0;
  int error;

  writeback->piece_count = writeback->io_count = writeback->segment_count = 0;
  for (uint32_t r = 0; r < writeback->run_count; r++) {
    struct writeback_run *run = &writeback->runs[r];
    uint32_t stop = run->first + run->count;

    for (uint32_t i = run->first, next; i < stop; i = next) {
      /* Dropped by a TRIM, or replaced by a write, before the lock was granted: not
       * ours to write. */
      bool is_current = cache_is_current (writeback->frames[i]);

      for (next = i + 1;
           next < stop && cache_is_current (writeback->frames[next]) == is_current; next++)
        continue;
      if (is_current)
        writeback_place_current (store, run->disk, i, next - i);
    }
  }
  for (uint32_t i = 0; i < writeback->io_count; i++)
    end = MAX (end, writeback->ios[i].io.place + writeback->ios[i].io.length);
  writeback->stage = WRITEBACK_WRITTEN;
  /* A store that has failed has not made durable what a shift has moved: the place of a block, as the
   * map has it, is that of another one on the device. */
  error = store_is_failed (store) ? -EIO : store_grow (store, end);
  for (uint32_t i = 0; i < writeback->io_count; i++)
    if (error != 0)
      writeback->ios[i].io.error = error;
    else
      op_submit (op, &writeback->ios[i]);
  return error == 0 && writeback->io_count > 0 ? OP_WAIT : OP_MORE;
}

static enum op_next
writeback_written (struct store *store, struct op *op)
{
  struct writeback *writeback = &store->keeper.writeback;

  writeback->stage = WRITEBACK_PUBLISH;
  writeback->flush.io = (struct io) { .kind = IO_FLUSH };
  if (writeback->io_count == 0)
    return OP_MORE;
  op_submit (op, &writeback->flush);
  return OP_WAIT;
}

/* --- publish --- */

/* Blocks that a write-back moved away from where a write failed stay in use until
 * the store is opened again. */
static void
writeback_forget_place (void *store, uint64_t place, uint64_t length)
{
  (void) store;
  log_warning ("%" PRIu64 " blocks at %" PRIu64 " of the store are not used any more: writing"
               " them failed",
               length, place);
}

/* RETIRE for those of the piece's blocks that have a copy in the journal, runs as one.  In the
 * gate: no commit can add a newer copy in between. */
static void
writeback_retire (struct store *store, const struct writeback_piece *piece)
{
  struct writeback *writeback = &store->keeper.writeback;

  for (uint32_t i = 0, next; i < piece->count; i = next) {
    next = i + 1;
    if (!cache_has_copy (store->cache, writeback->frames[piece->first + i]))
      continue;
    while (next < piece->count
           && cache_has_copy (store->cache, writeback->frames[piece->first + next]))
      next++;
    disk_note_position (piece->disk,
                        journal_append (&store->journal, ITEM_RETIRE, 0, piece->disk->id,
                                        piece->block + i, next - i, 0, NULL, 0));
    writeback->tail_bytes -= JOURNAL_RANGE_ITEM;
  }
}

/* The one place where an extent becomes `written`: data done, item and map
 * together, within the gate. */
static void
writeback_publish_piece (struct store *store, const struct writeback_piece *piece,
                         const struct writeback_run *run, struct list *wake)
{
  struct writeback *writeback = &store->keeper.writeback;
  struct disk *disk = piece->disk;

  CHECK (range_request_holds (&run->range, &disk->range_lock, piece->block,
                              piece->block + piece->count - 1, RANGE_SHARED));
  pthread_rwlock_rdlock (&store->gate);
  if (piece->is_new || piece->was_unwritten) {
    struct extent extent = {
      .block = piece->block,
      .length = piece->count,
      .place = piece->place,
      .state = EXTENT_WRITTEN,
    };

    disk_note_position (disk,
                        journal_append (&store->journal, ITEM_MAP, EXTENT_WRITTEN, disk->id,
                                        extent.block, extent.length, extent.place, NULL, 0));
    writeback->tail_bytes -= JOURNAL_RANGE_ITEM;
    extent_map_set (&disk->map, &extent,
                    piece->is_moved ? writeback_forget_place : disk_space_free, store);
    /* Before the frames are clean, and may leave the cache: see fill_look_again. */
    atomic_fetch_add (&disk->placements, 1);
  }
  writeback_retire (store, piece);
  for (uint32_t i = 0; i < piece->count; i++)
    if (cache_settle (store->cache, writeback->frames[piece->first + i], true, wake))
      space_unreserve (store->space, 1);
  pthread_rwlock_unlock (&store->gate);
}

/* Nothing is mapped; the blocks stay dirty, and have their promises again. */
static void
writeback_fail_piece (struct store *store, const struct writeback_piece *piece, struct list *wake)
{
  struct writeback *writeback = &store->keeper.writeback;
  bool has_tokens = piece->is_new && !piece->is_moved;
  int error = writeback->ios[piece->io].io.error;

  piece->disk->write_error = error;
  piece->disk->error_version = cache_version (store->cache);
  atomic_store (&piece->disk->has_write_error, true);
  writeback->error = -EIO;
  op_count (&store->keeper.op, COUNTER_WRITEBACK_ERRORS, piece->count);
  /* The place that failed is left out of use, if there are others; else it is tried again. */
  if (piece->is_new
      && (piece->is_moved || !writeback_blames_place (error)
          || space_reserve (store->space, piece->count) != 0)) {
    space_unallocate (store->space, piece->place, piece->count);
    if (piece->is_moved)
      space_unreserve (store->space, piece->count);
  }
  for (uint32_t i = 0; i < piece->count; i++) {
    if (has_tokens && !cache_give_token (store->cache, &piece->disk->cache, piece->block + i))
      space_unreserve (store->space, 1);
    cache_settle (store->cache, writeback->frames[piece->first + i], false, wake);
  }
}

static enum op_next
writeback_publish (struct store *store)
{
  struct writeback *writeback = &store->keeper.writeback;
  const struct writeback_run *run = writeback->runs;
  struct list wake = LIST_INIT (wake);
  uint64_t blocks = 0;

  if (writeback->io_count > 0 && writeback->flush.io.error != 0)
    store_fail (store, "flushing data", writeback->flush.io.error);
  for (uint32_t p = 0; p < writeback->piece_count; p++) {
    const struct writeback_piece *piece = &writeback->pieces[p];

    /* Both are in order. */
    while (run->first + run->count <= piece->first)
      run++;
    if (writeback->ios[piece->io].io.error != 0 || store_is_failed (store)
        || disk_reserve_changes (piece->disk, 1, piece->count) != 0)
      writeback_fail_piece (store, piece, &wake);
    else {
      writeback_publish_piece (store, piece, run, &wake);
      blocks += piece->count;
    }
    /* Settled: what is left below was skipped. */
    for (uint32_t i = 0; i < piece->count; i++) {
      cache_put (store->cache, writeback->frames[piece->first + i]);
      writeback->frames[piece->first + i] = NULL;
    }
    op_wake_all (&wake);
  }
  for (uint32_t i = 0; i < writeback->frame_count; i++)
    if (writeback->frames[i] != NULL) {
      cache_settle (store->cache, writeback->frames[i], false, &wake);
      cache_put (store->cache, writeback->frames[i]);
    }
  for (uint32_t r = 0; r < writeback->run_count; r++)
    range_lock_release (&writeback->runs[r].disk->range_lock, &writeback->runs[r].range, &wake);
  atomic_store (&store->placing, 0);
  journal_unreserve (&store->journal, writeback->tail_bytes, &wake);
  writeback->tail_bytes = 0;
  op_count (&store->keeper.op, COUNTER_WRITEBACK_BLOCKS, blocks);
  op_wake_all (&wake);
  return OP_DONE;
}

enum op_next
writeback_step (struct store *store, struct op *op)
{
  struct writeback *writeback = &store->keeper.writeback;

  switch ((enum writeback_stage) writeback->stage) {
  case WRITEBACK_COLLECT:
    return writeback_collect (store, op);
  case WRITEBACK_LOCK:
    return writeback_lock (store, op);
  case WRITEBACK_LOCK_MORE:
    return writeback_lock_more (&store->keeper.writeback);
  case WRITEBACK_PLACE:
    return writeback_place (store, op);
  case WRITEBACK_WRITTEN:
    return writeback_written (store, op);
  case WRITEBACK_PUBLISH:
    return writeback_publish (store);
  }
  CHECK (false);
}
