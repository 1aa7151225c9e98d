/* SPDX-License-Identifier: BSD-2-Clause */
/* keeper.c - the one background worker: decides what to do next, in this order:
 *
 *   a checkpoint that somebody needs    (a commit waits for half of the journal, or half is full;
 *                                        opening, closing)
 *   write-back that a FLUSH waits for
 *   write-back because much is dirty, or old
 *   freeing what deleted disks held
 *
 * and beside these, as ops of their own on the same context, since they must not
 * wait for each other:
 *
 *   a commit, when the tail is half full or has been lying there for a second
 *   passing free space down to the host, a piece at a time
 *
 * It sleeps (parks) until it is kicked.  Its clock is keeper_tick, once a second from
 * its thread; the simulator ticks it as it likes.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/store-internal.h"

/* So much of a half may be full before a checkpoint begins, in percent: the rest is
 * for what is committed while it writes back. */
#define KEEPER_HALF_PERCENT 50
/* The longest piece that is passed down at once, blocks (64 MiB): a hole punch of
 * that size takes some 13 ms on ext4. */
#define KEEPER_DISCARD_BLOCKS 16384
/* Extents of a deleted disk freed between two looks at other work. */
#define KEEPER_DYING_EXTENTS 1024
#define KEEPER_TICK_MS 1000
/* After a failed write-back this many ticks pass before it is tried again without being asked. */
#define KEEPER_BACKOFF_TICKS 5

static enum op_next keeper_step (struct op *op);
static enum op_next keeper_commit_step (struct op *op);
static enum op_next keeper_discard_step (struct op *op);

static struct store *
keeper_store (struct keeper *keeper)
{
  return container_of (keeper, struct store, keeper);
}

static void
keeper_commit_done (struct op *op)
{
  struct keeper *keeper = container_of (op, struct keeper, commit_op);

  keeper->is_committing = false;
  keeper_kick (keeper_store (keeper));
}

static void
keeper_discard_done (struct op *op)
{
  struct keeper *keeper = container_of (op, struct keeper, discard_op);

  keeper->is_discarding = false;
  keeper_kick (keeper_store (keeper));
}

/* The keeper's op goes on for ever; it is parked when there is nothing to do. */
static void
keeper_done (struct op *op)
{
  (void) op;
  CHECK (false);
}

int
keeper_init (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  int error;

  pthread_mutex_init (&keeper->mutex, NULL);
  list_init (&keeper->requests);
  list_init (&keeper->discard_waiters);
  error = writeback_init (store);
  if (error == 0)
    error = checkpoint_init (store);
  if (error != 0)
    return error;
  keeper->unmapped_max = keeper->writeback.max;
  keeper->context = store_context_create (store);
  if (keeper->context == NULL)
    return -errno;
  op_init (&keeper->op, keeper->context, "keeper", 0, keeper_step, keeper_done);
  op_start (&keeper->op);
  return 0;
}

void
keeper_destroy (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  if (keeper->context != NULL) {
    /* Its own op never ends. */
    context_abandon (keeper->context);
    list_remove (&keeper->context->link);
    context_destroy (keeper->context);
  }
  writeback_destroy (store);
  checkpoint_destroy (store);
  pthread_mutex_destroy (&keeper->mutex);
}

void
keeper_kick (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  bool wakes;

  pthread_mutex_lock (&keeper->mutex);
  wakes = keeper->is_parked;
  keeper->is_parked = false;
  keeper->is_kicked = !wakes;
  pthread_mutex_unlock (&keeper->mutex);
  if (wakes)
    op_wake (&keeper->op);
}

void
keeper_write_back (struct store *store, struct writeback_request *request, struct op *op)
{
  struct keeper *keeper = &store->keeper;

  order_wait (&op->waiter, WAITS_FOR_WRITE_BACK);
  request->waiter = &op->waiter;
  request->error = 0;
  pthread_mutex_lock (&keeper->mutex);
  list_append (&keeper->requests, &request->link);
  pthread_mutex_unlock (&keeper->mutex);
  keeper_kick (store);
}

void
keeper_want_checkpoint (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  pthread_mutex_lock (&keeper->mutex);
  keeper->checkpoint_wanted = true;
  pthread_mutex_unlock (&keeper->mutex);
  keeper_kick (store);
}

bool
keeper_wait_discard (struct store *store, struct waiter *waiter)
{
  struct keeper *keeper = &store->keeper;
  bool waits;

  order_wait (waiter, WAITS_FOR_DISCARD);
  pthread_mutex_lock (&keeper->mutex);
  waits = keeper->is_passing_down;
  if (waits)
    list_append (&keeper->discard_waiters, &waiter->link);
  pthread_mutex_unlock (&keeper->mutex);
  return waits;
}

/* --- what there is to do --- */

/* A block that is written again before its turn costs the device one write less, so what has a place
 * waits until there is little room for more, or until it is old.  What has none is seldom written
 * again soon (a disk is being filled), and goes as soon as there is enough for a batch: the device
 * would be idle, and the writer, when there is no more room, would wait for all of it. */
bool
keeper_wants_writeback (struct store *store)
{
  uint64_t dirty = cache_dirty_count (store->cache), max = cache_dirty_max (store->cache);

  return dirty > 0
         && (dirty > max - max / 8 || cache_dirty_wanted (store->cache)
             || cache_unmapped_count (store->cache) >= store->keeper.unmapped_max);
}

static bool
keeper_wants_discard (struct store *store)
{
  struct space_counts counts;

  if (!store->device_info.can_discard || store_is_failed (store)
      || atomic_load (&store->keeper.is_stopping)
      || atomic_load (&store->keeper.is_discard_stuck))
    return false;
  space_get_counts (store->space, &counts);
  return counts.undiscarded > 0;
}

bool
keeper_has_work (struct store *store)
{
  return commit_half_percent (store) >= KEEPER_HALF_PERCENT
         || !atomic_load (&store->commit.other_is_free) || journal_is_pressed (&store->journal)
         || keeper_wants_writeback (store) || keeper_wants_discard (store);
}

/* --- the clock --- */

/* Says it once each time that the store has become so full; less full by some percent it may be
 * said again. */
static void
keeper_note_fullness (struct store *store)
{
  static const unsigned marks[] = { 80, 90, 95, 100 };
  struct keeper *keeper = &store->keeper;
  unsigned percent = store_full_percent (store), passed = 0;

  for (unsigned i = 0; i < ARRAY_COUNT (marks); i++)
    if (percent >= marks[i])
      passed = marks[i];
  if (passed > keeper->fullness && passed == 100)
    log_warning ("%s: the store is full: writes that need space are refused", store->path);
  else if (passed > keeper->fullness)
    log_warning ("%s: the store is %u %% full", store->path, percent);
  if (passed > keeper->fullness || percent + 3 < keeper->fullness)
    keeper->fullness = passed;
}

void
keeper_tick (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  uint64_t *versions = keeper->tick_versions;
  struct space_counts counts;

  /* What was dirty KEEPER_TICKS_OLD ticks ago is old now. */
  keeper->old_version = versions[0];
  for (unsigned i = 0; i + 1 < KEEPER_TICKS_OLD; i++)
    versions[i] = versions[i + 1];
  versions[KEEPER_TICKS_OLD - 1] = cache_version (store->cache);
  /* Items that were in the tail at the last tick and still are: committed, so that the space they
   * free is free.  What a deleted disk had is in no item, and waits for a commit nevertheless. */
  space_get_counts (store->space, &counts);
  keeper->commit_wanted
    = journal_start (&store->journal) < keeper->tick_position || counts.pending > 0
      || counts.unshared > 0;
  keeper->tick_position = journal_end (&store->journal);
  keeper->seal_wanted = commit_is_bare (store);
  if (keeper->backoff_ticks > 0)
    keeper->backoff_ticks--;
  atomic_store (&keeper->is_discard_stuck, false);
  store_look_at_host (store);
  keeper_note_fullness (store);
  keeper_kick (store);
}

/* --- the ops beside --- */

static void
keeper_start_commit (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  if (keeper->is_committing || store->is_opening || store_is_failed (store))
    return;
  keeper->is_committing = true;
  keeper->commit_wanted = false;
  op_init (&keeper->commit_op, keeper->context, "keeper-commit", 0, keeper_commit_step,
           keeper_commit_done);
  op_start (&keeper->commit_op);
}

static enum op_next
keeper_commit_step (struct op *op)
{
  struct keeper *keeper = container_of (op, struct keeper, commit_op);

  if (op->stage++ == 1)
    return OP_DONE;
  keeper->commit = (struct commit_request) { .is_seal = keeper->seal_wanted };
  keeper->seal_wanted = false;
  op_expect (op);
  if (keeper->is_held)
    commit_join_items (keeper_store (keeper), &keeper->commit, op);
  else
    commit_join (keeper_store (keeper), &keeper->commit, op);
  return OP_WAIT;
}

static void
keeper_start_discard (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  if (keeper->is_discarding)
    return;
  keeper->is_discarding = true;
  op_init (&keeper->discard_op, keeper->context, "keeper-discard", 0, keeper_discard_step,
           keeper_discard_done);
  op_start (&keeper->discard_op);
}

/* What was passed down is free.  True: somebody waited for that. */
static bool
keeper_passed_down (struct keeper *keeper)
{
  struct list wake = LIST_INIT (wake);
  bool was_wanted;

  pthread_mutex_lock (&keeper->mutex);
  keeper->is_passing_down = false;
  list_splice (&wake, &keeper->discard_waiters);
  pthread_mutex_unlock (&keeper->mutex);
  was_wanted = !list_is_empty (&wake);
  op_wake_all (&wake);
  return was_wanted;
}

enum discard_stage { DISCARD_BEGIN, DISCARD_END };

static enum op_next
keeper_discard_step (struct op *op)
{
  struct keeper *keeper = container_of (op, struct keeper, discard_op);
  struct store *store = keeper_store (keeper);

  switch ((enum discard_stage) op->stage) {
  case DISCARD_BEGIN:
    keeper->discard_length
      = store_is_failed (store) || atomic_load (&keeper->is_stopping)
          ? 0
          : space_discard_begin (store->space, KEEPER_DISCARD_BLOCKS, &keeper->discard_place);
    if (keeper->discard_length == 0) {
      atomic_store (&keeper->is_discard_stuck, true);
      return OP_DONE;
    }
    keeper->discard.io = (struct io) {
      .kind = IO_DISCARD,
      .place = keeper->discard_place,
      .length = keeper->discard_length,
    };
    pthread_mutex_lock (&keeper->mutex);
    keeper->is_passing_down = true;
    pthread_mutex_unlock (&keeper->mutex);
    op->stage = DISCARD_END;
    op_submit (op, &keeper->discard);
    return OP_WAIT;
  case DISCARD_END:
    space_discard_end (store->space, keeper->discard_place, keeper->discard_length,
                       keeper->discard.io.error == 0);
    if (keeper->discard.io.error == 0)
      op_count (op, COUNTER_DISCARDED_BLOCKS, keeper->discard_length);
    op->stage = DISCARD_BEGIN;
    if (!keeper_passed_down (keeper))
      return OP_MORE;
    /* Space is scarce: those who waited come first. */
    atomic_store (&keeper->is_discard_stuck, true);
    return OP_DONE;
  }
  CHECK (false);
}

/* --- deleted disks --- */

/* A deleted disk whose extents are gone, and a checkpoint has seen it so. */
static bool
keeper_may_forget (struct disk *disk)
{
  return disk->map.tree.node_count == 0 && disk->map.tree.superseded == NULL
         && disk->map.tree.given_up == NULL && !atomic_load (&disk->is_changed)
         && atomic_load (&disk->references) == 0 && atomic_load (&disk->readaheads) == 0;
}

static bool
keeper_forget (struct store *store, struct disk *disk)
{
  struct list wake = LIST_INIT (wake);

  if (!journal_reserve_keeper (&store->journal, JOURNAL_RANGE_ITEM, false))
    return false;
  if (disk->node_place != 0 && !checkpoint_note_freed (store, disk->node_place)) {
    journal_unreserve (&store->journal, JOURNAL_RANGE_ITEM, &wake);
    op_wake_all (&wake);
    return false;
  }
  pthread_rwlock_rdlock (&store->gate);
  journal_append (&store->journal, ITEM_FORGET, 0, disk->id, 0, 0, 0, NULL, 0);
  pthread_mutex_lock (&store->disks_mutex);
  list_remove (&disk->link);
  pthread_mutex_unlock (&store->disks_mutex);
  pthread_rwlock_unlock (&store->gate);
  btree_remove (&store->catalogue, disk->id);
  disk_destroy (disk);
  return true;
}

/* Some of the extents of a deleted disk; true: there was something to do.  No item is logged
 * for them: a deleted disk's extents are free when the store is opened (recovery.c).  The
 * DELETE is durable already. */
static bool
keeper_free_dying (struct store *store)
{
  struct disk *dying = NULL, *empty = NULL;

  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (!disk->is_dying || !disk->is_deleted)
      continue;
    if (extent_map_extents (&disk->map) > 0)
      dying = disk;
    else if (keeper_may_forget (disk))
      empty = disk;
  }
  pthread_mutex_unlock (&store->disks_mutex);
  if (empty != NULL && keeper_forget (store, empty))
    return true;
  if (dying == NULL)
    return false;
  if (disk_reserve_changes (dying, 2, KEEPER_DYING_EXTENTS) != 0)
    return false;
  pthread_rwlock_rdlock (&store->gate);
  extent_map_clear (&dying->map, 0, DISK_SIZE_MAX / BLOCK_SIZE, KEEPER_DYING_EXTENTS,
                    disk_space_free, store);
  atomic_store (&dying->is_changed, true);
  pthread_rwlock_unlock (&store->gate);
  return true;
}

/* --- the loop --- */

static void
keeper_end_request (struct store *store, int error)
{
  struct keeper *keeper = &store->keeper;
  struct list wake = LIST_INIT (wake);
  struct writeback_request *request;

  pthread_mutex_lock (&keeper->mutex);
  request = container_of (list_take (&keeper->requests), struct writeback_request, link);
  pthread_mutex_unlock (&keeper->mutex);
  request->error = error;
  if (error == 0 && request->disk != NULL)
    atomic_store (&request->disk->has_write_error, false);
  list_append (&wake, &request->waiter->link);
  op_wake_all (&wake);
}

static bool
keeper_begin_request (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  struct writeback_request *request = NULL;

  pthread_mutex_lock (&keeper->mutex);
  if (!list_is_empty (&keeper->requests))
    request = container_of (keeper->requests.next, struct writeback_request, link);
  pthread_mutex_unlock (&keeper->mutex);
  if (request == NULL)
    return false;
  writeback_begin (store, COLLECT_OLDEST, request->disk, request->version, 0, false);
  return true;
}

static bool
keeper_begin_checkpoint (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  bool wanted;
  int now;

  pthread_mutex_lock (&keeper->mutex);
  wanted = keeper->checkpoint_wanted;
  keeper->checkpoint_wanted = false;
  now = keeper->checkpoint_now;
  keeper->checkpoint_now = 0;
  pthread_mutex_unlock (&keeper->mutex);
  if (now != 0) {
    checkpoint_begin (store, now - 1);
    return true;
  }
  /* After a superblock write that failed nobody knows whether it is on the device.  Another
   * checkpoint would use the places of the nodes that it leads to. */
  if (store_is_failed (store) || (keeper->backoff_ticks > 0 && !wanted))
    return false;
  if (!wanted && atomic_load (&store->commit.other_is_free)
      && commit_half_percent (store) < KEEPER_HALF_PERCENT)
    return false;
  checkpoint_begin (store, CHECKPOINT_RUNNING);
  return true;
}

/* Nothing to do: sleeps, unless it was kicked meanwhile. */
static enum op_next
keeper_park (struct keeper *keeper)
{
  pthread_mutex_lock (&keeper->mutex);
  if (keeper->is_kicked) {
    keeper->is_kicked = false;
    pthread_mutex_unlock (&keeper->mutex);
    return OP_MORE;
  }
  keeper->is_parked = true;
  op_expect (&keeper->op);
  pthread_mutex_unlock (&keeper->mutex);
  return OP_WAIT;
}

static enum op_next
keeper_choose (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  if (keeper->is_held)
    return keeper_park (keeper);
  if (journal_is_pressed (&store->journal) || keeper->commit_wanted || keeper->seal_wanted)
    keeper_start_commit (store);
  if (keeper_wants_discard (store))
    keeper_start_discard (store);
  if (keeper_begin_checkpoint (store))
    keeper->activity = KEEPER_CHECKPOINT;
  else if (keeper_begin_request (store))
    keeper->activity = KEEPER_REQUEST;
  else if (keeper->backoff_ticks == 0 && !store_is_failed (store)
           && keeper_wants_writeback (store)) {
    writeback_begin (store, COLLECT_OLDEST, NULL, UINT64_MAX, 0, false);
    keeper->activity = KEEPER_WRITEBACK;
  }
  else if (keeper->backoff_ticks == 0 && !store_is_failed (store) && keeper->old_version > 0) {
    writeback_begin (store, COLLECT_OLDEST, NULL, keeper->old_version, 0, false);
    keeper->activity = KEEPER_WRITEBACK;
  }
  else if (store_is_failed (store) || store->is_read_only || !keeper_free_dying (store))
    return keeper_park (keeper);
  return OP_MORE;
}

/* A checkpoint ended. */
static void
keeper_checkpoint_ended (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  keeper->checkpoint_error = keeper->checkpoint.error;
  if (keeper->checkpoint_error != 0) {
    keeper->backoff_ticks = KEEPER_BACKOFF_TICKS;
    if (atomic_load (&store->commit.other_is_free) == false && !store_is_failed (store)
        && keeper->checkpoint.kind == CHECKPOINT_RUNNING)
      /* A commit may be waiting for the half that cannot be freed. */
      store_fail (store, "freeing half of the journal", keeper->checkpoint_error);
    if (store_is_failed (store))
      commit_half_freed (store);
  }
  if (keeper->checkpoint.kind != CHECKPOINT_RUNNING)
    atomic_store (&keeper->is_done, true);
}

/* All that was dirty up to VERSION is in its place, on all disks. */
static void
keeper_forgive_disks (struct store *store, uint64_t version)
{
  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (disk->error_version <= version)
      atomic_store (&disk->has_write_error, false);
  }
  pthread_mutex_unlock (&store->disks_mutex);
}

/* A batch of write-back ended. */
static void
keeper_writeback_ended (struct store *store, bool is_request)
{
  struct keeper *keeper = &store->keeper;
  struct writeback *writeback = &keeper->writeback;

  if (writeback->needs_room) {
    keeper_start_commit (store);
    if (store_is_failed (store) && is_request)
      keeper_end_request (store, -EIO);
    return;
  }
  if (writeback->error != 0) {
    struct list wake = LIST_INIT (wake);

    keeper->backoff_ticks = KEEPER_BACKOFF_TICKS;
    /* The device takes no data any more, it seems: writers are told so instead of left waiting. */
    if (++keeper->failed_batches >= KEEPER_FAILED_BATCHES)
      cache_refuse_dirty (store->cache, false, &wake);
    op_wake_all (&wake);
  }
  else if (writeback->frame_count > 0)
    keeper->failed_batches = 0;
  /* What could not be written goes elsewhere, when it is tried again. */
  if (is_request && writeback->error != 0 && !store_is_failed (store)
      && keeper->failed_batches < KEEPER_FAILED_BATCHES)
    return;
  if (is_request && (writeback->error != 0 || writeback->frame_count == 0))
    keeper_end_request (store, writeback->error);
  else if (!is_request && writeback->frame_count == 0) {
    keeper->old_version = 0;
    keeper_forgive_disks (store, writeback->version);
  }
}

static enum op_next
keeper_step (struct op *op)
{
  struct keeper *keeper = container_of (op, struct keeper, op);
  struct store *store = keeper_store (keeper);
  enum op_next next;

  switch (keeper->activity) {
  case KEEPER_CHOOSE:
    return keeper_choose (store);
  case KEEPER_CHECKPOINT:
    next = checkpoint_step (store, op);
    if (next == OP_DONE)
      keeper_checkpoint_ended (store);
    break;
  case KEEPER_REQUEST:
  case KEEPER_WRITEBACK:
    next = writeback_step (store, op);
    if (next == OP_DONE)
      keeper_writeback_ended (store, keeper->activity == KEEPER_REQUEST);
    break;
  default:
    CHECK (false);
  }
  if (next != OP_DONE)
    return next;
  keeper->activity = KEEPER_CHOOSE;
  if (keeper->writeback.needs_room && keeper->is_committing) {
    /* The commit's end kicks. */
    keeper->writeback.needs_room = false;
    return keeper_park (keeper);
  }
  return OP_MORE;
}

/* --- its thread --- */

static uint64_t
keeper_clock_ms (void)
{
  return clock_ns () / 1000000;
}

static void *
keeper_thread (void *arg)
{
  struct store *store = arg;
  struct keeper *keeper = &store->keeper;
  uint64_t next_tick = keeper_clock_ms () + KEEPER_TICK_MS;

  op_enter_context (keeper->context);
  for (;;) {
    uint64_t now = keeper_clock_ms ();

    if (now >= next_tick) {
      next_tick = now + KEEPER_TICK_MS;
      keeper_tick (store);
    }
    context_run (keeper->context);
    if (atomic_load (&keeper->is_stopping))
      break;
    now = keeper_clock_ms ();
    if (now < next_tick)
      context_wait (keeper->context, next_tick - now);
  }
  /* The kernel cancels what a thread that ends has submitted and not begun: a flush would fail. */
  keeper_settle (store);
  return NULL;
}

int
keeper_start_thread (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  int error = pthread_create (&keeper->thread, NULL, keeper_thread, store);

  keeper->has_thread = error == 0;
  return -error;
}

void
keeper_stop_thread (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  if (!keeper->has_thread)
    return;
  atomic_store (&keeper->is_stopping, true);
  /* Not a kick: one that meets the keeper's op at work wakes nobody who waits after it. */
  context_signal (keeper->context);
  pthread_join (keeper->thread, NULL);
  keeper->has_thread = false;
}

/* Whether anything of its own is under way. */
static bool
keeper_is_busy (struct store *store)
{
  struct keeper *keeper = &store->keeper;
  bool is_parked, is_committing;

  pthread_mutex_lock (&keeper->mutex);
  is_parked = keeper->is_parked;
  pthread_mutex_unlock (&keeper->mutex);
  pthread_mutex_lock (&store->commit.mutex);
  is_committing = store->commit.is_running;
  pthread_mutex_unlock (&store->commit.mutex);
  return !is_parked || is_committing || keeper->is_committing || keeper->is_discarding;
}

void
keeper_settle (struct store *store)
{
  struct keeper *keeper = &store->keeper;

  for (;;) {
    context_run (keeper->context);
    if (!keeper_is_busy (store))
      return;
    context_wait (keeper->context, -1);
  }
}

void
keeper_write_back_all (struct store *store)
{
  store->keeper.old_version = UINT64_MAX;
  keeper_kick (store);
  keeper_settle (store);
}

int
keeper_checkpoint_now (struct store *store, enum checkpoint_kind kind)
{
  struct keeper *keeper = &store->keeper;

  CHECK (!keeper->has_thread);
  pthread_mutex_lock (&keeper->mutex);
  keeper->checkpoint_now = kind + 1;
  pthread_mutex_unlock (&keeper->mutex);
  atomic_store (&keeper->is_done, false);
  keeper_kick (store);
  context_run_until (keeper->context, &keeper->is_done);
  return keeper->checkpoint_error;
}

int
keeper_commit_now (struct store *store, bool is_held)
{
  struct keeper *keeper = &store->keeper;

  CHECK (!keeper->has_thread);
  if (journal_start (&store->journal) == journal_end (&store->journal))
    return 0;
  keeper->is_held = is_held;
  keeper_start_commit (store);
  while (keeper->is_committing) {
    context_run (keeper->context);
    if (keeper->is_committing)
      context_wait (keeper->context, -1);
  }
  keeper->is_held = false;
  keeper_kick (store);
  return keeper->commit.error;
}
