/* SPDX-License-Identifier: BSD-2-Clause */
/* op-shift.c - collapse range: what lies behind a range moves down over it; insert range: what lies
 * from an offset on moves up, and leaves a hole.  Stand for:
 *
 *   write back what is dirty
 *   lock [offset, end of all blocks) QUIESCE: no writers; write back the rest
 *   wait until no checkpoint has maps frozen; upgrade to EXCLUSIVE
 *   in the gate: log the item, drop the frames, change the size
 *   in steps: [collapse: free what the range mapped]; move the keys of the map
 *   downgrade to QUIESCE: readers come in; commit; unlock
 *
 * The item is the atomic point: all that follows is memory's, and done again from the item when the
 * process or the power ends in between.  So nothing that follows can fail, or wait.
 *
 * Nothing dirty is moved: a dirty frame's copies in the journal, and its header in the arena, tell
 * the block that it had.  Once everything is in its place, and retired from the journal, frames of
 * the range are clean and can be dropped.  That needs write-back, which locks SHARED what it
 * writes, while writers are held off: hence QUIESCE.  The first write-back, before it, is for them:
 * they are held off for what became dirty meanwhile only.
 *
 * The keys change in place, some 16 000 in a step.  Were a checkpoint to freeze the map in between
 * it would write half of a move, at a position behind the item; and a frozen node would have to be
 * copied, which takes memory.  So the maps lock is held from before the upgrade to the end of the
 * move.  A commit may come in between: its record has the item, and that is all there is to it.
 * What is waited for while the maps lock is held is the upgrade alone: those who hold the range
 * SHARED, that is for their I/O.  None of them waits for a checkpoint, a commit, tail room or
 * memory.
 *
 * Writers stay out until the move is durable.  Their blocks would go to the places that were moved;
 * and after a power cut before the commit, those are the places of other blocks.  Readers and
 * write-back never wait for a QUIESCE, so nobody whom the commit needs waits for this op.
 *
 * A READ that found a frame before it was dropped sends what the block was: it runs beside this op,
 * and comes before it.  One that misses waits for the lock, and finds what has moved.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/op-admin.h"

enum shift_stage {
  SHIFT_WRITE_BACK = ADMIN_OWN,
  SHIFT_QUIESCE,
  SHIFT_WRITE_REST,
  SHIFT_HOLD,       /* the maps lock */
  SHIFT_UPGRADE,
  SHIFT_LOG,        /* exclusive */
  SHIFT_CLEAR,
  SHIFT_MOVE,
};

/* Leaves of a map moved in one step: some 16 000 extents. */
#define SHIFT_LEAVES 64

static bool
shift_is_up (const struct admin *admin)
{
  return admin->kind == ADMIN_INSERT;
}

static uint64_t
shift_block (const struct admin *admin)
{
  return admin->offset / BLOCK_SIZE;
}

static uint64_t
shift_length (const struct admin *admin)
{
  return admin->length / BLOCK_SIZE;
}

/* --- checks --- */

static enum op_next
shift_check_alignment (struct admin *admin)
{
  if (admin->length == 0)
    return admin_fail (admin, -EINVAL, "the length must be greater than zero");
  if (admin->offset % BLOCK_SIZE != 0)
    return admin_fail (admin, -EINVAL, "the offset %" PRIu64 " is not a multiple of 4096",
                       admin->offset);
  if (admin->length % BLOCK_SIZE != 0)
    return admin_fail (admin, -EINVAL, "the length %" PRIu64 " is not a multiple of 4096",
                       admin->length);
  return OP_DONE;
}

/* Sets admin->size to what the disk's will be. */
static enum op_next
shift_check_range (struct admin *admin)
{
  uint64_t size = disk_size (admin->disk);

  if (admin->offset > size)
    return admin_fail (admin, -EINVAL, "the offset lies beyond the disk, whose size is %" PRIu64,
                       size);
  if (shift_is_up (admin)) {
    if (admin->length > DISK_SIZE_MAX - size)
      return admin_fail (admin, -EINVAL, "the disk would be too large: at most 8 EiB - 4 KiB");
    admin->size = size + admin->length;
    return OP_DONE;
  }
  if (admin->length > size - admin->offset)
    return admin_fail (admin, -EINVAL, "the range ends beyond the disk, whose size is %" PRIu64,
                       size);
  if (admin->length == size)
    return admin_fail (admin, -EINVAL, "nothing would be left of the disk");
  admin->size = size - admin->length;
  return OP_DONE;
}

enum op_next
shift_check (struct admin *admin)
{
  enum op_next next = admin_find (admin);
  uint64_t size;

  if (next != OP_DONE)
    return next;
  if (request_ids_has (&admin->disk->request_ids, admin->request_id)) {
    /* Durable when it was answered; who asks again has no answer. */
    admin->was_done = true;
    admin->op.stage = ADMIN_COMMIT;
    return OP_MORE;
  }
  next = shift_check_alignment (admin);
  if (next == OP_DONE)
    next = shift_check_range (admin);
  if (next == OP_DONE && !shift_is_up (admin))
    next = admin_check_shrink (admin);
  if (next != OP_DONE)
    return next;
  if (shift_is_up (admin))
    next = admin_need_nodes (admin, 2, NODES_FOR_DATA);
  if (next != OP_DONE)
    return next;
  size = disk_blocks (admin->disk);
  if (shift_is_up (admin)
      && extent_map_mapped_in (&admin->disk->map, size, DISK_SIZE_MAX / BLOCK_SIZE - size) > 0)
    return admin_fail (admin, -ENOMEM,
                       "what an earlier shrink cut off could not be freed for want of memory, and"
                       " would be seen again; it is freed when the store is opened next");
  admin->writeback = calloc (1, sizeof *admin->writeback);
  if (admin->writeback == NULL)
    return admin_fail (admin, -ENOMEM, "there is not enough memory");
  admin->op.stage = SHIFT_WRITE_BACK;
  return OP_MORE;
}

/* --- all that is dirty goes to its place --- */

static enum op_next
shift_write_back_failed (struct admin *admin)
{
  return admin_fail (admin, -EIO, "what clients wrote to the disk could not be written to the"
                     " device, so nothing was changed; see the log");
}

static enum op_next
shift_quiesce (struct admin *admin)
{
  struct op *op = &admin->op;

  if (admin->writeback->error != 0)
    return shift_write_back_failed (admin);
  admin->range = malloc (sizeof *admin->range);
  if (admin->range == NULL)
    return admin_fail (admin, -ENOMEM, "there is not enough memory");
  op->stage = SHIFT_WRITE_REST;
  op_expect (op);
  if (!range_lock_acquire (&admin->disk->range_lock, admin->range, shift_block (admin),
                           UINT64_MAX, RANGE_QUIESCE, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* --- alone --- */

static enum op_next
shift_hold (struct admin *admin)
{
  struct op *op = &admin->op;

  if (admin->writeback->error != 0)
    return shift_write_back_failed (admin);
  op->stage = SHIFT_UPGRADE;
  op_expect (op);
  if (!op_lock_acquire (&admin->store->maps_lock, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static void
shift_let_go (struct admin *admin)
{
  struct list wake = LIST_INIT (wake);

  op_lock_release (&admin->store->maps_lock, &wake);
  op_wake_all (&wake);
}

static enum op_next
shift_upgrade (struct admin *admin)
{
  struct op *op = &admin->op;

  op->stage = SHIFT_LOG;
  op_expect (op);
  if (!range_lock_upgrade (&admin->disk->range_lock, admin->range, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* Sets memory aside for all that is to come. */
static int
shift_reserve (struct admin *admin)
{
  struct disk *disk = admin->disk;
  uint64_t at = shift_block (admin), end = at + shift_length (admin), runs = 0;
  int error = extent_map_reserve_shift (&disk->map, 2);

  if (error != 0 || shift_is_up (admin))
    return error;
  for (; at < end; at += extent_map_step (&disk->map, at, end - at, ZERO_STEP_EXTENTS))
    runs += ZERO_STEP_EXTENTS;
  return space_reserve_changes (admin->store->space, runs, false);
}

static bool
shift_has_dirty (struct admin *admin)
{
  struct disk *disk = admin->disk;
  uint64_t block = shift_block (admin), run, length;

  return disk_blocks (disk) > block
         && cache_find_dirty (admin->store->cache, &disk->cache, block,
                              disk_blocks (disk) - block, &run, &length);
}

/* The atomic point. */
static void
shift_append (struct admin *admin)
{
  struct disk *disk = admin->disk;
  enum format_item_kind kind = shift_is_up (admin) ? ITEM_INSERT : ITEM_COLLAPSE;
  struct format_item_request request;

  memcpy (request.id, admin->request_id, sizeof request.id);
  disk_note_position (disk, journal_append (&admin->store->journal, kind, 0, disk->id,
                                            shift_block (admin), shift_length (admin), 0, &request,
                                            sizeof request));
  admin->tail_left -= sizeof (struct format_item) + sizeof request;
}

static void
shift_log (struct admin *admin, struct list *wake)
{
  struct store *store = admin->store;
  struct disk *disk = admin->disk;
  struct cache_dropped dropped = { 0 };
  uint64_t block = shift_block (admin);

  CHECK (range_lock_is_held (&disk->range_lock, block, UINT64_MAX, RANGE_EXCLUSIVE));
  CHECK (!shift_has_dirty (admin));
  shift_append (admin);
  request_ids_add (&disk->request_ids, admin->request_id);
  atomic_store (&disk->size, admin->size);
  cache_drop (store->cache, &disk->cache, block, UINT64_MAX, &dropped, wake);
  CHECK (dropped.tokens == 0 && dropped.copies == 0);
}

static enum op_next
shift_begin (struct admin *admin)
{
  struct store *store = admin->store;
  struct list wake = LIST_INIT (wake);

  if (store_is_failed (store) || shift_reserve (admin) != 0) {
    shift_let_go (admin);
    return store_is_failed (store)
             ? admin_fail (admin, -EIO, "the store has failed; see the log, and open it again")
             : admin_fail (admin, -ENOMEM, "there is not enough memory");
  }
  pthread_rwlock_rdlock (&store->gate);
  shift_log (admin, &wake);
  pthread_rwlock_unlock (&store->gate);
  op_wake_all (&wake);
  admin->op.stage = shift_is_up (admin) ? SHIFT_MOVE : SHIFT_CLEAR;
  admin->at = shift_is_up (admin) ? 0 : shift_block (admin);
  return OP_MORE;
}

/* Some of what the range mapped. */
static enum op_next
shift_clear (struct admin *admin)
{
  struct store *store = admin->store;
  struct disk *disk = admin->disk;
  uint64_t block = shift_block (admin), end = block + shift_length (admin);

  CHECK (range_lock_is_held (&disk->range_lock, block, UINT64_MAX, RANGE_EXCLUSIVE));
  pthread_rwlock_rdlock (&store->gate);
  admin->at += extent_map_clear (&disk->map, admin->at, end - admin->at, ZERO_STEP_EXTENTS,
                                 disk_space_free, store);
  pthread_rwlock_unlock (&store->gate);
  if (admin->at < end)
    return OP_YIELD;
  admin->at = 0;
  admin->op.stage = SHIFT_MOVE;
  return OP_MORE;
}

static enum op_next
shift_move (struct admin *admin)
{
  struct disk *disk = admin->disk;
  uint64_t block = shift_block (admin), length = shift_length (admin);
  struct list wake = LIST_INIT (wake);
  bool is_done;

  CHECK (range_lock_is_held (&disk->range_lock, block, UINT64_MAX, RANGE_EXCLUSIVE));
  is_done = shift_is_up (admin)
              ? extent_map_shift_up (&disk->map, block, length, SHIFT_LEAVES, &admin->at)
              : extent_map_shift_down (&disk->map, block, length, SHIFT_LEAVES, &admin->at);
  if (!is_done)
    return OP_YIELD;
  shift_let_go (admin);
  range_lock_downgrade (&disk->range_lock, admin->range, &wake);
  op_wake_all (&wake);
  admin->op.stage = ADMIN_COMMIT;
  return OP_MORE;
}

enum op_next
shift_step (struct admin *admin)
{
  switch ((enum shift_stage) admin->op.stage) {
  case SHIFT_WRITE_BACK:
    return admin_write_back (admin, admin->writeback, admin->disk, SHIFT_QUIESCE);
  case SHIFT_QUIESCE:
    return shift_quiesce (admin);
  case SHIFT_WRITE_REST:
    return admin_write_back (admin, admin->writeback, admin->disk, SHIFT_HOLD);
  case SHIFT_HOLD:
    return shift_hold (admin);
  case SHIFT_UPGRADE:
    return shift_upgrade (admin);
  case SHIFT_LOG:
    return shift_begin (admin);
  case SHIFT_CLEAR:
    return shift_clear (admin);
  case SHIFT_MOVE:
    return shift_move (admin);
  }
  CHECK (false);
}
