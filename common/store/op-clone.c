/* SPDX-License-Identifier: BSD-2-Clause */
/* op-clone.c - clone range: a range of a disk appears in another disk, or elsewhere in the same
 * one, without a copy: the blocks get one owner more.  An administrative op; stands for:
 *
 *   [admin lock; tail room]  check
 *   write back what is dirty in the source and the target
 *   lock both ranges QUIESCE, in order of disk and block; write back the rest
 *   keep checkpoints off
 *   upgrade the target's lock to EXCLUSIVE
 *   set memory aside for all that follows
 *   in the gate: log the CLONE, drop the target's frames
 *   in steps: clear the target's map; map the source's written extents there, each with one owner
 *     more
 *   let checkpoints go on; unlock
 *   [commit]
 *
 * The item is what makes it happen: before it nothing has changed, after it nothing can fail, and
 * replay does the same once more with the maps as they were at that point of the journal.  So at
 * that point the source's range must be all in the maps: no dirty block, and no DATA of it in the
 * journal that could come back.  The same holds for the target: a dirty block of it would be taken
 * over by whoever finds the arena with the item and before the drop, and DATA of it by whoever
 * finds a checkpoint that has the clone and no record that has.  Writers are kept off until the
 * blocks have their new owner, or a WRITE that found its block private would have it written in
 * place under the target's eyes.
 *
 * The map and the table are changed in many steps.  A checkpoint in between would freeze half of
 * it, with a position behind the item, and nobody would do the rest; so there is none.  A commit
 * may come: its record has the item.
 *
 * Holes and unwritten extents of the source become holes of the target: both read as zeros.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/op-admin.h"

enum clone_stage {
  CLONE_WRITE_BACK = ADMIN_OWN,    /* so that writers are kept off for the rest only */
  CLONE_WRITE_BACK_TARGET,
  CLONE_LOCK_FIRST,
  CLONE_LOCK_SECOND,
  CLONE_WRITE_REST,  /* the source's dirty blocks to their places */
  CLONE_WRITE_REST_TARGET,
  CLONE_CLEANED,
  CLONE_UPGRADE,     /* checkpoints are kept off */
  CLONE_COUNT,       /* what memory the changes need */
  CLONE_LOG,
  CLONE_CLEAR,       /* the target's map */
  CLONE_MAP,
};

/* Extents of the source counted, or mapped at the target, in one step. */
#define CLONE_STEP_EXTENTS 64

/* --- checks --- */

static enum op_next
clone_check_alignment (struct admin *admin)
{
  if (admin->length == 0)
    return admin_fail (admin, -EINVAL, "the length must be greater than zero");
  if (admin->length % BLOCK_SIZE != 0)
    return admin_fail (admin, -EINVAL, "the length %" PRIu64 " is not a multiple of 4096",
                       admin->length);
  if (admin->offset % BLOCK_SIZE != 0 || admin->target_offset % BLOCK_SIZE != 0)
    return admin_fail (admin, -EINVAL, "the offset %" PRIu64 " is not a multiple of 4096",
                       admin->offset % BLOCK_SIZE != 0 ? admin->offset : admin->target_offset);
  return OP_DONE;
}

static bool
clone_is_within (uint64_t offset, uint64_t length, const struct disk *disk)
{
  return length <= disk_size (disk) && offset <= disk_size (disk) - length;
}

/* OP_DONE if the ranges can be. */
static enum op_next
clone_check_ranges (struct admin *admin)
{
  struct clone *clone = admin->clone;
  enum op_next next = clone_check_alignment (admin);
  uint64_t far;

  if (next != OP_DONE)
    return next;
  if (!clone_is_within (admin->offset, admin->length, clone->source))
    return admin_fail (admin, -EINVAL, "the range ends beyond the disk, whose size is %" PRIu64,
                       disk_size (clone->source));
  if (!clone_is_within (admin->target_offset, admin->length, clone->target))
    return admin_fail (admin, -EINVAL,
                       "the range would end beyond the target, whose size is %" PRIu64,
                       disk_size (clone->target));
  far = admin->offset > admin->target_offset ? admin->offset - admin->target_offset
                                             : admin->target_offset - admin->offset;
  if (clone->source == clone->target && far < admin->length)
    return admin_fail (admin, -EINVAL, "the two ranges overlap");
  return OP_DONE;
}

enum op_next
clone_check (struct admin *admin)
{
  struct store *store = admin->store;
  struct clone *clone = admin->clone = calloc (1, sizeof *clone);
  enum op_next next;

  if (clone == NULL)
    return admin_fail (admin, -ENOMEM, "there is not enough memory");
  next = admin_find (admin);
  if (next != OP_DONE)
    return next;
  clone->source = admin->disk;
  pthread_mutex_lock (&store->disks_mutex);
  clone->target = disk_find (store, admin->new_name);
  pthread_mutex_unlock (&store->disks_mutex);
  if (clone->target == NULL)
    return admin_fail (admin, -ENOENT, "there is no disk of the name of the target");
  next = admin_check_whole (admin, clone->target);
  if (next != OP_DONE)
    return next;
  if (request_ids_has (&clone->target->request_ids, admin->request_id)) {
    /* Now it shall be durable, which it may not have been. */
    admin->was_done = true;
    admin->op.stage = ADMIN_COMMIT;
    return OP_MORE;
  }
  next = clone_check_ranges (admin);
  if (next != OP_DONE)
    return next;
  clone->from = admin->offset / BLOCK_SIZE;
  clone->to = admin->target_offset / BLOCK_SIZE;
  clone->length = admin->length / BLOCK_SIZE;
  admin->op.stage = CLONE_WRITE_BACK;
  return OP_MORE;
}

/* --- locks --- */

/* Of two ranges one is waited for while the other is held.  The only one who does so is an
 * administrative op, of which there is one at a time, and those who wait for a QUIESCE stand in
 * nobody's way (range-lock.h); the order is for those who will not be alone some day. */
static enum op_next
clone_lock (struct admin *admin, bool is_second, int next)
{
  struct clone *clone = admin->clone;
  struct op *op = &admin->op;
  bool is_source_first = clone->source == clone->target ? clone->from < clone->to
                                                        : clone->source->id < clone->target->id;
  bool is_source = is_source_first != is_second;
  struct disk *disk = is_source ? clone->source : clone->target;
  uint64_t first = is_source ? clone->from : clone->to;

  op->stage = next;
  op_expect (op);
  if (!range_lock_acquire (&disk->range_lock,
                           is_source ? &clone->source_range : &clone->target_range, first,
                           first + clone->length - 1, RANGE_QUIESCE, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static bool
clone_has_dirty (struct admin *admin, struct disk *disk, uint64_t from)
{
  uint64_t block, count;

  return cache_find_dirty (admin->store->cache, &disk->cache, from, admin->clone->length, &block,
                           &count);
}

static enum op_next
clone_cleaned (struct admin *admin)
{
  struct clone *clone = admin->clone;
  struct op *op = &admin->op;

  if (clone_has_dirty (admin, clone->source, clone->from)
      || clone_has_dirty (admin, clone->target, clone->to))
    return admin_fail (admin, -EIO, "what was written to it last could not be brought to its place;"
                                    " see the log");
  op->stage = CLONE_UPGRADE;
  op_expect (op);
  if (!op_lock_acquire (&admin->store->maps_lock, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static enum op_next
clone_upgrade (struct admin *admin)
{
  struct clone *clone = admin->clone;
  struct op *op = &admin->op;

  clone->has_maps_lock = true;
  op->stage = CLONE_COUNT;
  op_expect (op);
  if (!range_lock_upgrade (&clone->target->range_lock, &clone->target_range, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* --- memory --- */

/* Some more of the extents that change: those of the source get an owner and a double, those of the
 * target go.  At the end their memory is set aside. */
static enum op_next
clone_count (struct admin *admin)
{
  struct clone *clone = admin->clone;
  struct extent extents[CLONE_STEP_EXTENTS];
  /* First the one range, then the other, as if it were one behind it. */
  bool is_source = clone->at < clone->length;
  struct disk *disk = is_source ? clone->source : clone->target;
  uint64_t at = clone->at % clone->length;
  unsigned count;

  if (clone->at == 2 * clone->length) {
    clone->at = 0;
    admin->op.stage = CLONE_LOG;
    if (store_node_room (admin->store, 2 + clone->extents / (LEAF_ENTRIES / 2), 0, NODES_FOR_DATA)
        != NODES_FIT)
      return admin_fail (admin, -ENOSPC, "the store has no room to keep account of so many shared"
                         " extents");
    if (disk_reserve_many (clone->target, clone->extents, clone->runs, true) != 0)
      return admin_fail (admin, -ENOMEM, "there is not enough memory");
    return OP_MORE;
  }
  count = extent_map_scan (&disk->map, (is_source ? clone->from : clone->to) + at,
                           clone->length - at, extents, CLONE_STEP_EXTENTS);
  for (unsigned e = 0; e < count; e++) {
    clone->at += extents[e].length;
    if (extents[e].state == EXTENT_HOLE)
      continue;
    clone->extents++;
    clone->runs += space_count_runs (admin->store->space, extents[e].place, extents[e].length);
  }
  return OP_MORE;
}

/* --- the change --- */

static void
clone_check_locks (const struct clone *clone)
{
  uint64_t more = clone->length - 1;

  CHECK (range_request_holds (&clone->source_range, &clone->source->range_lock, clone->from,
                              clone->from + more, RANGE_QUIESCE));
  CHECK (range_request_holds (&clone->target_range, &clone->target->range_lock, clone->to,
                              clone->to + more, RANGE_EXCLUSIVE));
}

static enum op_next
clone_log (struct admin *admin)
{
  struct clone *clone = admin->clone;
  struct store *store = admin->store;
  struct disk *target = clone->target;
  struct cache_dropped dropped = { 0 };
  struct format_item_clone more = {
    .disk = to_le64 (clone->source->id),
    .block = to_le64 (clone->from),
  };
  struct list wake = LIST_INIT (wake);
  uint64_t last = clone->to + clone->length - 1;

  clone_check_locks (clone);
  memcpy (more.request, admin->request_id, sizeof more.request);
  pthread_rwlock_rdlock (&store->gate);
  disk_note_position (target, journal_append (&store->journal, ITEM_CLONE, 0, target->id,
                                              clone->to, clone->length, 0, &more, sizeof more));
  request_ids_add (&target->request_ids, admin->request_id);
  cache_drop (store->cache, &target->cache, clone->to, last, &dropped, &wake);
  CHECK (dropped.tokens == 0 && dropped.copies == 0);
  pthread_rwlock_unlock (&store->gate);
  admin->tail_left -= sizeof (struct format_item) + sizeof more;
  op_wake_all (&wake);
  admin->op.stage = CLONE_CLEAR;
  return OP_MORE;
}

static enum op_next
clone_clear (struct admin *admin)
{
  struct clone *clone = admin->clone;
  struct store *store = admin->store;

  clone_check_locks (clone);
  pthread_rwlock_rdlock (&store->gate);
  clone->at += extent_map_clear (&clone->target->map, clone->to + clone->at,
                                 clone->length - clone->at, ZERO_STEP_EXTENTS, disk_space_free,
                                 store);
  pthread_rwlock_unlock (&store->gate);
  if (clone->at < clone->length)
    return OP_YIELD;
  clone->at = 0;
  admin->op.stage = CLONE_MAP;
  return OP_MORE;
}

static void
clone_unlock (struct admin *admin, struct list *wake)
{
  struct clone *clone = admin->clone;

  if (clone->has_maps_lock)
    op_lock_release (&admin->store->maps_lock, wake);
  if (clone->target_range.is_granted)
    range_lock_release (&clone->target->range_lock, &clone->target_range, wake);
  if (clone->source_range.is_granted)
    range_lock_release (&clone->source->range_lock, &clone->source_range, wake);
}

static enum op_next
clone_map (struct admin *admin)
{
  struct clone *clone = admin->clone;
  struct store *store = admin->store;
  struct extent extents[CLONE_STEP_EXTENTS];
  struct list wake = LIST_INIT (wake);
  unsigned count
    = extent_map_scan (&clone->source->map, clone->from + clone->at, clone->length - clone->at,
                       extents, CLONE_STEP_EXTENTS);

  clone_check_locks (clone);
  pthread_rwlock_rdlock (&store->gate);
  for (unsigned e = 0; e < count; e++) {
    struct extent extent = extents[e];

    clone->at += extent.length;
    if (extent.state != EXTENT_WRITTEN)
      continue;
    extent.block = extent.block - clone->from + clone->to;
    space_share (store->space, extent.place, extent.length);
    extent_map_set (&clone->target->map, &extent, disk_space_free, store);
  }
  pthread_rwlock_unlock (&store->gate);
  if (clone->at < clone->length)
    return OP_MORE;
  clone_end (admin, &wake);
  op_wake_all (&wake);
  admin->op.stage = ADMIN_COMMIT;
  return OP_MORE;
}

void
clone_end (struct admin *admin, struct list *wake)
{
  if (admin->clone == NULL)
    return;
  clone_unlock (admin, wake);
  free (admin->clone);
  admin->clone = NULL;
}

enum op_next
clone_step (struct admin *admin)
{
  switch ((enum clone_stage) admin->op.stage) {
  case CLONE_WRITE_BACK:
    /* If it cannot all be written, the second time will tell. */
    return admin_write_back (admin, &admin->clone->writeback, admin->clone->source,
                             CLONE_WRITE_BACK_TARGET);
  case CLONE_WRITE_BACK_TARGET:
    return admin_write_back (admin, &admin->clone->writeback, admin->clone->target,
                             CLONE_LOCK_FIRST);
  case CLONE_LOCK_FIRST:
    return clone_lock (admin, false, CLONE_LOCK_SECOND);
  case CLONE_LOCK_SECOND:
    return clone_lock (admin, true, CLONE_WRITE_REST);
  case CLONE_WRITE_REST:
    return admin_write_back (admin, &admin->clone->writeback, admin->clone->source,
                             CLONE_WRITE_REST_TARGET);
  case CLONE_WRITE_REST_TARGET:
    return admin_write_back (admin, &admin->clone->writeback, admin->clone->target, CLONE_CLEANED);
  case CLONE_CLEANED:
    return clone_cleaned (admin);
  case CLONE_UPGRADE:
    return clone_upgrade (admin);
  case CLONE_COUNT:
    return clone_count (admin);
  case CLONE_LOG:
    return clone_log (admin);
  case CLONE_CLEAR:
    return clone_clear (admin);
  case CLONE_MAP:
    return clone_map (admin);
  }
  CHECK (false);
}
