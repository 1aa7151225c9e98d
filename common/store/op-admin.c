/* SPDX-License-Identifier: BSD-2-Clause */
/* op-admin.c - create, resize, rename and delete a disk; make all durable; and the frame for those
 * that have files of their own (op-admin.h).  One at a time; each is one item in the journal, so
 * that it is there or not after a crash.  They stand for:
 *
 *   lock the disks' table (a queue, no thread waits); check; [shrink, delete: lock
 *     what goes away exclusive]
 *   in the gate: log the item, change the table [drop the frames]
 *   commit
 *   [shrink: clear the extents beyond the end, in steps; delete: the keeper does]
 *   unlock
 *
 * Blocks that a shrink or a delete frees are freed after its item was logged: they get a new owner
 * only after the record that holds it is durable (space.h).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/check.h"
#include "base/log.h"
#include "store/op-admin.h"

void
op_lock_init (struct op_lock *lock, enum order_wait wait, enum order_hold hold)
{
  lock->wait = wait;
  lock->hold = hold;
  pthread_mutex_init (&lock->mutex, NULL);
  lock->holder = NULL;
  list_init (&lock->waiters);
}

bool
op_lock_acquire (struct op_lock *lock, struct waiter *waiter)
{
  bool granted;

  order_wait (waiter, lock->wait);
  order_take (waiter, lock->hold);
  pthread_mutex_lock (&lock->mutex);
  granted = lock->holder == NULL;
  if (granted)
    lock->holder = waiter;
  else
    list_append (&lock->waiters, &waiter->link);
  pthread_mutex_unlock (&lock->mutex);
  return granted;
}

void
op_lock_release (struct op_lock *lock, struct list *wake)
{
  struct list *link;

  pthread_mutex_lock (&lock->mutex);
  CHECK (lock->holder != NULL);
  order_drop (lock->holder, lock->hold);
  link = list_take (&lock->waiters);
  lock->holder = link != NULL ? container_of (link, struct waiter, link) : NULL;
  pthread_mutex_unlock (&lock->mutex);
  if (link != NULL)
    list_append (wake, link);
}

enum op_next
admin_fail (struct admin *admin, int error, const char *format, ...)
{
  va_list args;

  admin->op.error = error;
  va_start (args, format);
  vsnprintf (admin->message, sizeof admin->message, format, args);
  va_end (args);
  admin->op.stage = ADMIN_END;
  return OP_MORE;
}

enum op_next
admin_write_back (struct admin *admin, struct writeback_request *request, struct disk *disk,
                  int stage)
{
  struct op *op = &admin->op;

  op->stage = stage;
  *request = (struct writeback_request) {
    .disk = disk,
    .version = cache_version (admin->store->cache),
  };
  op_expect (op);
  keeper_write_back (admin->store, request, op);
  return OP_WAIT;
}

/* --- checks --- */

enum op_next
admin_need_nodes (struct admin *admin, uint64_t more, enum node_use use)
{
  enum node_room room = store_node_room (admin->store, more, 0, use);

  if (room == NODES_FIT_LATER && admin->writeback == NULL) {
    admin->writeback = calloc (1, sizeof *admin->writeback);
    if (admin->writeback == NULL)
      return admin_fail (admin, -ENOMEM, "there is not enough memory");
    return admin_write_back (admin, admin->writeback, NULL, ADMIN_CHECK);
  }
  free (admin->writeback);
  admin->writeback = NULL;
  if (room != NODES_FIT)
    return admin_fail (admin, -ENOSPC, "the store has no room to keep account of more; what is"
                       " deleted or trimmed gives some back");
  return OP_DONE;
}

static enum op_next
admin_check_size (struct admin *admin)
{
  if (admin->size == 0)
    return admin_fail (admin, -EINVAL, "the size of a disk must not be zero");
  if (admin->size > DISK_SIZE_MAX)
    return admin_fail (admin, -EINVAL, "a disk may have at most 8 EiB - 4 KiB");
  if (admin->size % BLOCK_SIZE != 0)
    return admin_fail (admin, -EINVAL,
                       "the size must be a multiple of 4096 bytes; the next one is %llu",
                       (unsigned long long) align_up (admin->size, BLOCK_SIZE));
  return OP_DONE;
}

static enum op_next
admin_check_new_name (struct admin *admin, const char *name)
{
  const char *why;
  struct disk *taken;

  if (!format_name_is_valid (name, &why))
    return admin_fail (admin, -EINVAL, "%s", why);
  pthread_mutex_lock (&admin->store->disks_mutex);
  taken = disk_find (admin->store, name);
  pthread_mutex_unlock (&admin->store->disks_mutex);
  if (taken != NULL)
    return admin_fail (admin, -EEXIST, "there is a disk of this name already");
  return OP_DONE;
}

enum op_next
admin_check_whole (struct admin *admin, const struct disk *disk)
{
  if (!disk->is_damaged)
    return OP_DONE;
  return admin_fail (admin, -EIO, "%s damaged: a part of its map cannot be read; it can only be"
                     " deleted", disk == admin->disk ? "it is" : "the target is");
}

enum op_next
admin_find (struct admin *admin)
{
  pthread_mutex_lock (&admin->store->disks_mutex);
  admin->disk = disk_find (admin->store, admin->name);
  pthread_mutex_unlock (&admin->store->disks_mutex);
  if (admin->disk == NULL || (admin->disk_id != 0 && admin->disk->id != admin->disk_id))
    return admin_fail (admin, -ENOENT, "there is no disk of this name");
  return admin->kind == ADMIN_DELETE ? OP_DONE : admin_check_whole (admin, admin->disk);
}

/* What a disk more takes: its own node and the first of its map, which others that are empty do not
 * have yet either. */
static uint64_t
admin_new_disk_nodes (struct store *store)
{
  uint64_t nodes = 2;

  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks)
    nodes += extent_map_extents (&container_of (link, struct disk, link)->map) == 0;
  pthread_mutex_unlock (&store->disks_mutex);
  return nodes;
}

static enum op_next
admin_check_create (struct admin *admin)
{
  struct store *store = admin->store;
  uint8_t uuid[16];
  enum op_next next = admin_check_new_name (admin, admin->name);

  if (next == OP_DONE)
    next = admin_check_size (admin);
  if (next != OP_DONE)
    return next;
  next = admin_need_nodes (admin, admin_new_disk_nodes (store), NODES_FOR_DISKS);
  if (next != OP_DONE)
    return next;
  if (getrandom (uuid, sizeof uuid, 0) != sizeof uuid)
    return admin_fail (admin, -EIO, "no random numbers could be had for its UUID");
  uuid[6] = (uuid[6] & 0x0f) | 0x40;    /* RFC 4122, version 4 */
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  admin->disk = disk_create (store, atomic_fetch_add (&store->next_disk_id, 1), uuid, admin->name,
                             admin->size, time (NULL));
  if (admin->disk == NULL)
    return admin_fail (admin, -ENOMEM, "there is not enough memory");
  admin->op.stage = ADMIN_CHANGE;
  return OP_MORE;
}

enum op_next
admin_check_shrink (struct admin *admin)
{
  bool is_held;

  pthread_mutex_lock (&admin->store->disks_mutex);
  is_held = admin->disk->size_holds > 0;
  if (!is_held)
    admin->disk->shrinks_to = admin->size;
  pthread_mutex_unlock (&admin->store->disks_mutex);
  if (is_held)
    return admin_fail (admin, -EBUSY,
                       "it cannot shrink while it has clients that were promised its size;"
                       " disconnect them first");
  return OP_DONE;
}

static enum op_next
admin_check_resize (struct admin *admin)
{
  enum op_next next = admin_check_size (admin);

  if (next == OP_DONE)
    next = admin_find (admin);
  if (next != OP_DONE)
    return next;
  admin->size_before = disk_size (admin->disk);
  if (admin->size == admin->size_before) {
    admin->op.stage = ADMIN_END;
    return OP_MORE;
  }
  if (admin->size < admin->size_before && !admin->may_shrink)
    return admin_fail (admin, -EPERM,
                       "this would shrink the disk, and what lies beyond its new end would be"
                       " lost; say --shrink if that is wanted");
  if (admin->size > admin->size_before
      && extent_map_mapped_in (&admin->disk->map, admin->size_before / BLOCK_SIZE,
                               (admin->size - admin->size_before) / BLOCK_SIZE)
           > 0)
    return admin_fail (admin, -ENOMEM,
                       "what an earlier shrink cut off could not be freed for want of memory, and"
                       " would be seen again; it is freed when the store is opened next");
  if (admin->size < admin->size_before)
    next = admin_check_shrink (admin);
  if (next != OP_DONE)
    return next;
  admin->op.stage = admin->size < admin->size_before ? ADMIN_RANGE : ADMIN_CHANGE;
  return OP_MORE;
}

static enum op_next
admin_check_rename (struct admin *admin)
{
  enum op_next next = admin_find (admin);

  if (next == OP_DONE)
    next = admin_check_new_name (admin, admin->new_name);
  if (next != OP_DONE)
    return next;
  admin->op.stage = ADMIN_CHANGE;
  return OP_MORE;
}

static enum op_next
admin_check_delete (struct admin *admin)
{
  struct store *store = admin->store;
  enum op_next next = admin_find (admin);
  bool is_open;

  if (next != OP_DONE)
    return next;
  /* From here on nobody can open it. */
  pthread_mutex_lock (&store->disks_mutex);
  is_open = atomic_load (&admin->disk->references) > 0
            || atomic_load (&admin->disk->readaheads) > 0;
  admin->disk->is_dying = !is_open;
  pthread_mutex_unlock (&store->disks_mutex);
  if (is_open) {
    admin->disk = NULL;
    return admin_fail (admin, -EBUSY, "the disk is in use; disconnect its clients first");
  }
  admin->size = 0;
  admin->op.stage = ADMIN_RANGE;
  return OP_MORE;
}

static enum op_next
admin_check (struct admin *admin)
{
  if (admin->tail.is_refused)
    admin->tail_left = 0;
  if (store_is_failed (admin->store))
    return admin_fail (admin, -EIO, "the store has failed; see the log, and open it again");
  switch (admin->kind) {
  case ADMIN_CREATE:
    return admin_check_create (admin);
  case ADMIN_RESIZE:
    return admin_check_resize (admin);
  case ADMIN_RENAME:
    return admin_check_rename (admin);
  case ADMIN_DELETE:
    return admin_check_delete (admin);
  case ADMIN_COLLAPSE:
  case ADMIN_INSERT:
    return shift_check (admin);
  case ADMIN_CLONE:
    return clone_check (admin);
  case ADMIN_SYNC:
    break;
  }
  CHECK (false);
}

/* --- changes --- */

static enum op_next
admin_range (struct admin *admin)
{
  struct op *op = &admin->op;

  op->stage = ADMIN_CHANGE;
  admin->range = malloc (sizeof *admin->range);
  if (admin->range == NULL) {
    if (admin->kind == ADMIN_DELETE)
      admin->disk->is_dying = false;
    return admin_fail (admin, -ENOMEM, "there is not enough memory");
  }
  op_expect (op);
  if (!range_lock_acquire (&admin->disk->range_lock, admin->range, admin->size / BLOCK_SIZE,
                           UINT64_MAX, RANGE_EXCLUSIVE, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* Appends the item; how many bytes it took. */
static uint64_t
admin_log (struct admin *admin)
{
  struct store *store = admin->store;
  struct disk *disk = admin->disk;
  struct format_item_disk extra = { 0 };
  const char *name = admin->kind == ADMIN_RENAME ? admin->new_name : admin->name;
  size_t extra_bytes = 0;
  static const enum format_item_kind kinds[] = {
    [ADMIN_CREATE] = ITEM_CREATE,
    [ADMIN_RESIZE] = ITEM_RESIZE,
    [ADMIN_RENAME] = ITEM_RENAME,
    [ADMIN_DELETE] = ITEM_DELETE,
  };

  if (admin->kind == ADMIN_CREATE || admin->kind == ADMIN_RENAME) {
    size_t length = strlen (name);

    memcpy (extra.uuid, disk->uuid, 16);
    extra.size = to_le64 (disk_size (disk));
    extra.created = to_le64 (disk->created);
    extra.name_length = to_le16 (length);
    memcpy (extra.name, name, length);
    extra_bytes = offsetof (struct format_item_disk, name) + length;
  }
  disk_note_position (disk, journal_append (&store->journal, kinds[admin->kind], 0, disk->id, 0,
                                            admin->size, 0, &extra, extra_bytes));
  return align_up (sizeof (struct format_item) + extra_bytes, 8);
}

/* Into the table, in order of names. */
static void
admin_insert (struct store *store, struct disk *disk)
{
  struct list *position = store->disks.next;

  while (position != &store->disks
         && strcmp (container_of (position, struct disk, link)->name, disk->name) < 0)
    position = position->next;
  list_insert_before (&disk->link, position);
}

static void
admin_apply (struct admin *admin, struct list *wake)
{
  struct store *store = admin->store;
  struct disk *disk = admin->disk;

  pthread_mutex_lock (&store->disks_mutex);
  if (admin->kind == ADMIN_CREATE)
    admin_insert (store, disk);
  else if (admin->kind == ADMIN_RENAME) {
    list_remove (&disk->link);
    snprintf (disk->name, sizeof disk->name, "%s", admin->new_name);
    admin_insert (store, disk);
  }
  else
    atomic_store (&disk->size, admin->size);
  pthread_mutex_unlock (&store->disks_mutex);
  if (admin->range != NULL) {
    struct cache_dropped dropped = { 0 };

    CHECK (range_lock_is_held (&disk->range_lock, admin->size / BLOCK_SIZE, UINT64_MAX,
                               RANGE_EXCLUSIVE));
    cache_drop (store->cache, &disk->cache, admin->size / BLOCK_SIZE, UINT64_MAX, &dropped, wake);
    if (dropped.tokens > 0)
      space_unreserve (store->space, dropped.tokens);
  }
}

static enum op_next
admin_change (struct admin *admin)
{
  struct store *store = admin->store;
  struct list wake = LIST_INIT (wake);
  uint64_t bytes;

  pthread_rwlock_rdlock (&store->gate);
  bytes = admin_log (admin);
  admin_apply (admin, &wake);
  pthread_rwlock_unlock (&store->gate);
  admin->tail_left -= bytes;
  op_wake_all (&wake);
  admin->at = admin->size / BLOCK_SIZE;
  admin->op.stage = admin->kind == ADMIN_RESIZE && admin->range != NULL ? ADMIN_CLEAR
                                                                         : ADMIN_COMMIT;
  return OP_MORE;
}

/* Still exclusive.  No items: what lies beyond a disk's size is free when the store
 * is opened (recovery.c). */
static enum op_next
admin_clear (struct admin *admin)
{
  struct store *store = admin->store;
  struct disk *disk = admin->disk;
  uint64_t left = DISK_SIZE_MAX / BLOCK_SIZE - admin->at;

  CHECK (range_request_holds (admin->range, &disk->range_lock, admin->size / BLOCK_SIZE,
                              UINT64_MAX, RANGE_EXCLUSIVE));
  if (left > 0) {
    if (disk_reserve_changes (disk, 2, ZERO_STEP_EXTENTS) != 0) {
      /* The disk has its new size, and nobody sees what lies beyond. */
      log_warning ("%s: %s: there is not enough memory to free what lay beyond its new end; that is"
                   " done when the store is opened next", store->path, admin->name);
      admin->op.stage = ADMIN_COMMIT;
      return OP_MORE;
    }
    pthread_rwlock_rdlock (&store->gate);
    admin->at += extent_map_clear (&disk->map, admin->at, left, ZERO_STEP_EXTENTS,
                                   disk_space_free, store);
    atomic_store (&disk->is_changed, true);
    pthread_rwlock_unlock (&store->gate);
    return OP_YIELD;
  }
  admin->op.stage = ADMIN_COMMIT;
  return OP_MORE;
}

static void
admin_unlock_range (struct admin *admin, struct list *wake)
{
  if (admin->range == NULL)
    return;
  range_lock_release (&admin->disk->range_lock, admin->range, wake);
  free (admin->range);
  admin->range = NULL;
}

static enum op_next
admin_commit (struct admin *admin)
{
  struct op *op = &admin->op;
  struct list wake = LIST_INIT (wake);

  /* A shift keeps writers off until it is durable (op-shift.c). */
  if (admin->kind != ADMIN_COLLAPSE && admin->kind != ADMIN_INSERT)
    admin_unlock_range (admin, &wake);
  op_wake_all (&wake);
  op->stage = ADMIN_COMMITTED;
  op_expect (op);
  commit_join (admin->store, admin->commit, op);
  return OP_WAIT;
}

static enum op_next
admin_committed (struct admin *admin)
{
  admin->op.stage = ADMIN_END;
  if (admin->commit->error != 0)
    return admin_fail (admin, admin->commit->error,
                       "the change could not be made durable; see the log");
  if (admin->kind == ADMIN_DELETE) {
    pthread_mutex_lock (&admin->store->disks_mutex);
    admin->disk->is_deleted = true;
    pthread_mutex_unlock (&admin->store->disks_mutex);
    keeper_kick (admin->store);
  }
  return OP_MORE;
}

static enum op_next
admin_end (struct admin *admin)
{
  struct store *store = admin->store;
  struct list wake = LIST_INIT (wake);

  admin_unlock_range (admin, &wake);
  if ((admin->kind == ADMIN_RESIZE || admin->kind == ADMIN_COLLAPSE) && admin->disk != NULL) {
    pthread_mutex_lock (&store->disks_mutex);
    admin->disk->shrinks_to = 0;
    pthread_mutex_unlock (&store->disks_mutex);
  }
  clone_end (admin, &wake);
  if (admin->kind == ADMIN_CREATE && admin->disk != NULL && list_is_empty (&admin->disk->link))
    disk_destroy (admin->disk);
  free (admin->commit);
  free (admin->writeback);
  admin->commit = NULL;
  admin->writeback = NULL;
  journal_unreserve (&store->journal, admin->tail_left, &wake);
  op_lock_release (&store->admin_lock, &wake);
  op_wake_all (&wake);
  return OP_DONE;
}

/* Every disk's dirty blocks, then the items. */
static enum op_next
admin_sync (struct admin *admin)
{
  struct op *op = &admin->op;
  struct store *store = admin->store;
  struct disk *next = NULL;

  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (!disk->is_dying && disk->id >= admin->at && (next == NULL || disk->id < next->id))
      next = disk;
  }
  if (next != NULL)
    atomic_fetch_add (&next->references, 1);
  pthread_mutex_unlock (&store->disks_mutex);
  if (admin->disk != NULL)
    disk_close (admin->disk);
  admin->disk = next;
  if (admin->writeback == NULL)
    admin->writeback = calloc (1, sizeof *admin->writeback);
  if (admin->writeback == NULL || admin->writeback->error != 0) {
    op->error = admin->writeback == NULL ? -ENOMEM : admin->writeback->error;
    if (next != NULL)
      disk_close (next);
    admin->disk = next = NULL;
  }
  if (next == NULL) {
    free (admin->writeback);
    admin->writeback = NULL;
    if (op->error != 0)
      return admin_fail (admin, op->error, "not everything could be written; see the log");
    op->stage = ADMIN_COMMIT;
    return OP_MORE;
  }
  admin->at = next->id + 1;
  return admin_write_back (admin, admin->writeback, next, ADMIN_CHECK);
}

static enum op_next
admin_lock (struct admin *admin)
{
  struct op *op = &admin->op;

  op->stage = ADMIN_TAIL;
  op_expect (op);
  if (!op_lock_acquire (&admin->store->admin_lock, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

static enum op_next
admin_tail (struct admin *admin)
{
  struct op *op = &admin->op;
  struct store *store = admin->store;

  op->stage = ADMIN_CHECK;
  /* Now: what has been changed must not fail for memory. */
  admin->commit = calloc (1, sizeof *admin->commit);
  if (admin->commit == NULL)
    return admin_fail (admin, -ENOMEM, "there is not enough memory");
  if (admin->kind == ADMIN_SYNC)
    return OP_MORE;
  if (store->is_read_only)
    return admin_fail (admin, -EPERM, "the store is open read-only");
  admin->tail_left = JOURNAL_ITEM_MAX;
  op_expect (op);
  if (!journal_reserve (&store->journal, admin->tail_left, &admin->tail, &op->waiter)) {
    keeper_kick (store);
    return OP_WAIT;
  }
  op_wake (op);
  return OP_MORE;
}

static enum op_next
admin_step (struct op *op)
{
  struct admin *admin = container_of (op, struct admin, op);

  if (op->stage >= ADMIN_OWN)
    return admin->kind == ADMIN_CLONE ? clone_step (admin) : shift_step (admin);
  switch ((enum admin_stage) op->stage) {
  case ADMIN_LOCK:
    return admin_lock (admin);
  case ADMIN_TAIL:
    return admin_tail (admin);
  case ADMIN_CHECK:
    return admin->kind == ADMIN_SYNC ? admin_sync (admin) : admin_check (admin);
  case ADMIN_RANGE:
    return admin_range (admin);
  case ADMIN_CHANGE:
    return admin_change (admin);
  case ADMIN_CLEAR:
    return admin_clear (admin);
  case ADMIN_COMMIT:
    return admin_commit (admin);
  case ADMIN_COMMITTED:
    return admin_committed (admin);
  case ADMIN_END:
    return admin_end (admin);
  case ADMIN_OWN:
    break;
  }
  CHECK (false);
}

static void
admin_op_done (struct op *op)
{
  struct admin *admin = container_of (op, struct admin, op);

  admin->done (admin);
}

void
admin_init (struct admin *admin, struct context *context, struct store *store,
            enum admin_kind kind, const char *name, void (*done) (struct admin *))
{
  memset (admin, 0, sizeof *admin);
  op_init (&admin->op, context, "admin", ADMIN_LOCK, admin_step, admin_op_done);
  admin->store = store;
  admin->kind = kind;
  snprintf (admin->name, sizeof admin->name, "%s", name);
  admin->done = done;
}

void
admin_start (struct admin *admin)
{
  op_start (&admin->op);
}
