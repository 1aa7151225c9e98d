/* SPDX-License-Identifier: BSD-2-Clause */
/* checkpoint.c - the maps go to the device, and half of the journal is free again.
 * The keeper's.  Stands for:
 *
 *   let the next record begin the other half
 *   write back all blocks whose copy lies in the old half
 *   wait for who is changing maps in steps
 *   with the gate closed: freeze all maps that have changed, and the table of shared runs, note the
 *     tail's end (the position)
 *   let all items before the position become durable, and the record that is in flight
 *   write the new nodes, both copies, children before parents; the disks' nodes; the table; the
 *     catalogue
 *   flush; write the superblock; flush; write its second copy
 *   the old half is free; so is what only the old state used
 *
 * Until the new superblock is durable the old one and all it refers to stay untouched: nodes are
 * never overwritten, and their places are given back last.  Maps go on changing while they are
 * written: a frozen node is copied before it is changed (btree.h).
 *
 * The record in flight may hold a newer copy of a block whose older one lies in the old half; were it
 * lost after that half was given up, both would be.  And the nodes must not be ahead of the journal:
 * DATA of a block that was deallocated before the position would be found without what voids it.
 *
 * But a commit may be waiting for the half that the checkpoint frees.  That lets the checkpoint's
 * items pass, for which the end of each half is kept free (commit_join_items).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "store/store-internal.h"

enum checkpoint_stage {
  CHECKPOINT_SWITCH,
  CHECKPOINT_COLLECT,   /* the next batch of blocks to write back */
  CHECKPOINT_PLACE,     /* it is being written back */
  CHECKPOINT_LOCK,      /* nobody is moving mappings */
  CHECKPOINT_FREEZE,
  CHECKPOINT_COMMIT,    /* what is in flight, and the items before the position */
  CHECKPOINT_COMMITTED,
  CHECKPOINT_GATHER,    /* the next batch of nodes */
  CHECKPOINT_WRITTEN,
  CHECKPOINT_FLUSHED,   /* all nodes are durable: the superblock */
  CHECKPOINT_SUPERBLOCK,
  CHECKPOINT_DURABLE,
  CHECKPOINT_COPIED,    /* the second copy of the superblock */
  CHECKPOINT_COPY_FLUSHED,
  CHECKPOINT_END,
};

int
checkpoint_init (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  list_init (&checkpoint->frozen);
  checkpoint->superblock = aligned_alloc (BLOCK_SIZE, BLOCK_SIZE);
  checkpoint->buffer = aligned_alloc (BLOCK_SIZE, CHECKPOINT_NODES * BLOCK_SIZE);
  checkpoint->places = calloc (CHECKPOINT_NODES, sizeof *checkpoint->places);
  checkpoint->ios = calloc (2 * CHECKPOINT_NODES, sizeof *checkpoint->ios);
  checkpoint->segments = calloc (CHECKPOINT_NODES, sizeof *checkpoint->segments);
  return checkpoint->superblock != NULL && checkpoint->buffer != NULL
             && checkpoint->places != NULL && checkpoint->ios != NULL
             && checkpoint->segments != NULL
           ? 0
           : -ENOMEM;
}

void
checkpoint_destroy (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  free (checkpoint->superblock);
  free (checkpoint->buffer);
  free (checkpoint->places);
  free (checkpoint->ios);
  free (checkpoint->segments);
  free (checkpoint->freed);
}

void
checkpoint_begin (struct store *store, enum checkpoint_kind kind)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->stage = kind == CHECKPOINT_RUNNING ? CHECKPOINT_SWITCH : CHECKPOINT_COLLECT;
  checkpoint->kind = kind;
  checkpoint->error = 0;
  checkpoint->commit.error = 0;
  checkpoint->is_metadata_full = checkpoint->has_maps_lock = false;
  checkpoint->is_shared_frozen = false;
  checkpoint->is_catalogue_frozen = checkpoint->is_writer_active = false;
  checkpoint->node_count = checkpoint->failed_batches = 0;
}

/* --- blocks --- */

static enum op_next
checkpoint_switch (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->stage = CHECKPOINT_COLLECT;
  if (!atomic_load (&store->commit.other_is_free))
    return OP_MORE;                      /* a record has gone over already */
  checkpoint->commit = (struct commit_request) { .is_switch = true };
  op_expect (op);
  commit_join (store, &checkpoint->commit, op);
  return OP_WAIT;
}

static enum op_next
checkpoint_collect (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->stage = CHECKPOINT_PLACE;
  if (checkpoint->kind == CHECKPOINT_FINAL)
    writeback_begin (store, COLLECT_OLDEST, NULL, UINT64_MAX, 0, true);
  else
    writeback_begin (store, COLLECT_COPIES, NULL, 0, store->commit.epoch - 1, true);
  return OP_MORE;
}

static enum op_next
checkpoint_place (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  struct writeback *writeback = &store->keeper.writeback;
  enum op_next next = writeback_step (store, op);

  if (next != OP_DONE)
    return next;
  /* What could not be written goes elsewhere, when it is tried again. */
  if (writeback->error != 0 && !store_is_failed (store)
      && ++checkpoint->failed_batches < KEEPER_FAILED_BATCHES) {
    checkpoint->stage = CHECKPOINT_COLLECT;
    return OP_MORE;
  }
  if (writeback->error != 0 || writeback->needs_room || checkpoint->commit.error != 0) {
    checkpoint->error = writeback->error != 0 ? writeback->error : -EIO;
    checkpoint->stage = CHECKPOINT_END;
  }
  else {
    checkpoint->stage = writeback->frame_count > 0 ? CHECKPOINT_COLLECT : CHECKPOINT_LOCK;
    checkpoint->failed_batches = 0;
  }
  return OP_MORE;
}

static enum op_next
checkpoint_lock (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->stage = CHECKPOINT_FREEZE;
  checkpoint->has_maps_lock = true;
  op_expect (op);
  if (!op_lock_acquire (&store->maps_lock, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* --- freezing --- */

static void
checkpoint_freeze_disk (struct checkpoint *checkpoint, struct disk *disk)
{
  if (!atomic_exchange (&disk->is_changed, false))
    return;
  list_append (&checkpoint->frozen, &disk->frozen_link);
  pthread_mutex_lock (&disk->map.mutex);
  btree_freeze (&disk->map.tree);
  disk->frozen_mapped = disk->map.mapped;
  pthread_mutex_unlock (&disk->map.mutex);
  disk->frozen_size = disk_size (disk);
  /* Deleted from the moment on when its item was logged, and its size is 0; not
   * when somebody means to. */
  disk->frozen_is_dying = disk->is_dying && disk->frozen_size == 0;
  memcpy (disk->frozen_name, disk->name, sizeof disk->name);
  if (disk->frozen_is_dying)
    disk->frozen_name[0] = '\0';
  disk->frozen_request_ids = disk->request_ids;
  disk->new_node_place = 0;
}

static enum op_next
checkpoint_freeze (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  struct format_superblock *superblock = checkpoint->superblock;
  struct commit *commit = &store->commit;

  memset (superblock, 0, BLOCK_SIZE);
  *superblock = store->superblock;
  pthread_rwlock_wrlock (&store->gate);
  checkpoint->position = journal_end (&store->journal);
  checkpoint->space_batch = space_close_batch (store->space);
  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks)
    checkpoint_freeze_disk (checkpoint, container_of (link, struct disk, link));
  superblock->next_disk_id = to_le64 (atomic_load (&store->next_disk_id));
  pthread_mutex_unlock (&store->disks_mutex);
  checkpoint->is_shared_frozen = space_freeze_shared (store->space);
  checkpoint->data_end = space_end (store->space);
  pthread_rwlock_unlock (&store->gate);

  superblock->sequence = to_le64 (from_le64 (superblock->sequence) + 1);
  superblock->is_clean = to_le32 (checkpoint->kind == CHECKPOINT_FINAL);
  superblock->journal_position = to_le64 (checkpoint->position);
  pthread_mutex_lock (&commit->mutex);
  superblock->journal_half = to_le32 (commit->half);
  /* In the end there is nothing to replay. */
  superblock->journal_durable = to_le32 (checkpoint->kind == CHECKPOINT_RUNNING
                                           ? commit->sequence - commit->half_sequence : 0);
  superblock->journal_sequence
    = to_le64 (checkpoint->kind == CHECKPOINT_FINAL ? commit->sequence : commit->half_sequence);
  superblock->journal_chain
    = to_le64 (checkpoint->kind == CHECKPOINT_FINAL ? commit->chain : commit->half_chain);
  superblock->journal_salt = to_le64 (commit->salt);
  pthread_mutex_unlock (&commit->mutex);
  if (checkpoint->kind == CHECKPOINT_FINAL)
    memset (superblock->arena_id, 0, sizeof superblock->arena_id);

  checkpoint->disk = NULL;
  checkpoint->has_maps = checkpoint->is_catalogue_frozen = checkpoint->is_writer_active = false;
  /* While a store is opened or closed nobody changes anything, and its old journal counts. */
  checkpoint->stage
    = checkpoint->kind == CHECKPOINT_RUNNING ? CHECKPOINT_COMMIT : CHECKPOINT_GATHER;
  return OP_MORE;
}

static enum op_next
checkpoint_commit (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->stage = CHECKPOINT_COMMITTED;
  op_expect (op);
  commit_join_items (store, &checkpoint->commit, op);
  return OP_WAIT;
}

static enum op_next
checkpoint_committed (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->stage = CHECKPOINT_GATHER;
  if (store_is_failed (store)) {
    checkpoint->error = -EIO;
    checkpoint->stage = CHECKPOINT_END;
  }
  return OP_MORE;
}

/* --- nodes --- */

static uint64_t
checkpoint_node_place (void *arg)
{
  struct store *store = arg;
  uint64_t place = space_allocate_node (store->space);

  if (place == 0)
    store->keeper.checkpoint.is_metadata_full = true;
  return place;
}

/* The first frozen disk after DISK (NULL: the first of all). */
static struct disk *
checkpoint_next_disk (struct checkpoint *checkpoint, struct disk *disk)
{
  struct list *link = disk != NULL ? disk->frozen_link.next : checkpoint->frozen.next;

  return link != &checkpoint->frozen ? container_of (link, struct disk, frozen_link) : NULL;
}

bool
checkpoint_note_freed (struct store *store, uint64_t place)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  if (checkpoint->freed_count == checkpoint->freed_max) {
    size_t max = MAX (64, checkpoint->freed_max * 2);
    uint64_t *freed = realloc (checkpoint->freed, max * sizeof *freed);

    if (freed == NULL)
      return false;
    checkpoint->freed = freed;
    checkpoint->freed_max = max;
  }
  checkpoint->freed[checkpoint->freed_count++] = place;
  return true;
}

/* The frozen disk's own node, after all of its map. */
static bool
checkpoint_disk_node (struct store *store, struct disk *disk, void *image, uint64_t *place)
{
  struct format_disk *node = image;
  size_t length = strlen (disk->frozen_name);
  struct format_node_identity identity = store_identity (
    store, KIND_DISK, 0, disk->id, from_le64 (store->keeper.checkpoint.superblock->sequence));

  *place = checkpoint_node_place (store);
  if (*place == 0)
    return false;
  memset (node, 0, BLOCK_SIZE);
  memcpy (node->uuid, disk->uuid, 16);
  node->size = to_le64 (disk->frozen_size);
  node->flags = to_le64 (disk->frozen_is_dying ? DISK_IS_DYING
                         : disk->is_stale      ? DISK_IS_STALE : 0);
  node->created = to_le64 (disk->created);
  btree_frozen_root (&disk->map.tree, &node->map);
  node->mapped = to_le64 (disk->frozen_mapped);
  node->data_end = to_le64 (store->keeper.checkpoint.data_end);
  if (disk->is_damaged && !disk->frozen_is_dying) {
    node->map = disk->lost_map;
    node->mapped = to_le64 (disk->lost_mapped);
    node->data_end = to_le64 (disk->lost_end);
  }
  node->name_length = to_le16 (length);
  memcpy (node->name, disk->frozen_name, length);
  memcpy (node->request_ids, disk->frozen_request_ids.ids, sizeof node->request_ids);
  format_node_seal (image, KIND_DISK, 0, 1, &identity, *place);
  disk->new_node_place = *place;
  return true;
}

static void
checkpoint_start_writer (struct store *store, struct btree *tree, uint32_t leaf_kind,
                         uint32_t inner_kind, uint64_t owner)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  struct format_node_identity identity = store_identity (
    store, leaf_kind, inner_kind, owner, from_le64 (checkpoint->superblock->sequence));

  btree_writer_init (&checkpoint->writer, tree, &identity, checkpoint_node_place, store);
  checkpoint->is_writer_active = true;
}

/* All disks have their nodes: the catalogue is told where.  False: no memory. */
static bool
checkpoint_freeze_catalogue (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  for (struct disk *disk = NULL; (disk = checkpoint_next_disk (checkpoint, disk)) != NULL;) {
    checkpoint->error = btree_pool_ensure (store->pool, 1);
    if (checkpoint->error != 0)
      return false;
    btree_insert (&store->catalogue, (struct btree_entry) { disk->id, disk->new_node_place });
  }
  btree_freeze (&store->catalogue);
  checkpoint->is_catalogue_frozen = true;
  checkpoint_start_writer (store, &store->catalogue, KIND_CATALOGUE_LEAF, KIND_CATALOGUE_INNER, 0);
  return true;
}

/* Begins the tree after the one that has been written: the maps of the frozen disks, the table of
 * shared runs, the catalogue. */
static void
checkpoint_next_tree (struct store *store)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  if (!checkpoint->has_maps) {
    checkpoint->disk = checkpoint_next_disk (checkpoint, checkpoint->disk);
    checkpoint->has_maps = checkpoint->disk == NULL;
    if (checkpoint->disk != NULL) {
      checkpoint_start_writer (store, &checkpoint->disk->map.tree, KIND_MAP_LEAF, KIND_MAP_INNER,
                               checkpoint->disk->id);
      return;
    }
    if (checkpoint->is_shared_frozen) {
      checkpoint_start_writer (store, space_shared_tree (store->space), KIND_SHARED_LEAF,
                               KIND_SHARED_INNER, 0);
      return;
    }
  }
  checkpoint_freeze_catalogue (store);
}

/* The next node to be written; each map is followed by its disk's node.
 * False: that was all, or an error (checkpoint->error). */
static bool
checkpoint_next_node (struct store *store, void *image, uint64_t *place)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  for (;;) {
    if (checkpoint->is_writer_active && btree_writer_next (&checkpoint->writer, image, place))
      return !checkpoint->is_metadata_full;
    if (checkpoint->is_metadata_full || checkpoint->is_catalogue_frozen)
      return false;
    if (checkpoint->is_writer_active && checkpoint->disk != NULL) {
      /* Its map is complete. */
      checkpoint->is_writer_active = false;
      return checkpoint_disk_node (store, checkpoint->disk, image, place);
    }
    checkpoint_next_tree (store);
    if (checkpoint->error != 0)
      return false;
  }
}

/* Both copies of nodes [first, first + count), which lie side by side. */
static void
checkpoint_submit_run (struct store *store, struct op *op, unsigned first, unsigned count)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  uint64_t mirror = from_le64 (store->superblock.meta_blocks) / 2;
  struct iovec *segment = &checkpoint->segments[first];

  *segment = (struct iovec) { checkpoint->buffer + first * BLOCK_SIZE, count * BLOCK_SIZE };
  for (unsigned copy = 0; copy < 2; copy++) {
    struct op_io *io = &checkpoint->ios[checkpoint->io_count++];

    io->io = (struct io) {
      .kind = IO_WRITE,
      .place = checkpoint->places[first] + copy * mirror,
      .length = count,
      .segments = segment,
      .segment_count = 1,
    };
    op_submit (op, io);
  }
}

static enum op_next
checkpoint_gather (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  unsigned count = 0, first = 0;
  uint64_t end = 0;

  while (count < CHECKPOINT_NODES
         && checkpoint_next_node (store, checkpoint->buffer + count * BLOCK_SIZE,
                                  &checkpoint->places[count])) {
    end = MAX (end, checkpoint->places[count] + from_le64 (store->superblock.meta_blocks));
    count++;
  }
  checkpoint->node_count = count;
  checkpoint->stage = CHECKPOINT_WRITTEN;
  checkpoint->io_count = 0;
  if (checkpoint->is_metadata_full) {
    log_error ("%s: the space for metadata is full; deleting or trimming disks frees some",
               store->path);
    checkpoint->error = -ENOSPC;
    checkpoint->stage = CHECKPOINT_END;
    return OP_MORE;
  }
  if (checkpoint->error != 0) {
    checkpoint->stage = CHECKPOINT_END;
    return OP_MORE;
  }
  checkpoint->error = store_grow (store, end);
  if (checkpoint->error != 0)
    return OP_MORE;
  op_count (op, COUNTER_NODES_WRITTEN, count);
  for (unsigned i = 1; i <= count; i++)
    if (i == count || checkpoint->places[i] != checkpoint->places[i - 1] + 1) {
      checkpoint_submit_run (store, op, first, i - first);
      first = i;
    }
  return count > 0 ? OP_WAIT : OP_MORE;
}

/* The errors of a batch of ios; one that failed fails the store: its metadata cannot be written. */
static bool
checkpoint_ios_ok (struct store *store, const char *what)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  for (unsigned i = 0; i < checkpoint->io_count && checkpoint->error == 0; i++)
    checkpoint->error = checkpoint->ios[i].io.error;
  if (checkpoint->error == 0)
    return true;
  store_fail (store, what, checkpoint->error);
  checkpoint->stage = CHECKPOINT_END;
  return false;
}

static enum op_next
checkpoint_flush (struct op *op, struct checkpoint *checkpoint, enum checkpoint_stage next)
{
  checkpoint->stage = next;
  checkpoint->flush.io = (struct io) { .kind = IO_FLUSH };
  op_submit (op, &checkpoint->flush);
  return OP_WAIT;
}

static enum op_next
checkpoint_written (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  if (!checkpoint_ios_ok (store, "writing metadata"))
    return OP_MORE;
  if (checkpoint->node_count > 0) {
    checkpoint->stage = CHECKPOINT_GATHER;
    return OP_MORE;
  }
  return checkpoint_flush (op, checkpoint, CHECKPOINT_FLUSHED);
}

/* One copy of the superblock, in the slot that does not hold the state before. */
static void
checkpoint_submit_superblock (struct store *store, struct op *op, unsigned copy)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  struct format_superblock *superblock = checkpoint->superblock;
  uint64_t place = from_le64 (superblock->sequence) % 2 * 2 + copy;

  format_superblock_seal (superblock, place);
  checkpoint->io_count = 1;
  checkpoint->superblock_segment = (struct iovec) { superblock, BLOCK_SIZE };
  checkpoint->ios[0].io = (struct io) {
    .kind = IO_WRITE,
    .place = place,
    .length = 1,
    .segments = &checkpoint->superblock_segment,
    .segment_count = 1,
  };
  op_submit (op, &checkpoint->ios[0]);
}

/* The two copies are not written at once: whatever tears the first leaves the second one of this
 * slot as it was, so that a slot without a valid copy is damage, never a crash. */
static enum op_next
checkpoint_flushed (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  checkpoint->io_count = 0;
  checkpoint->error = checkpoint->flush.io.error;
  if (!checkpoint_ios_ok (store, "flushing metadata"))
    return OP_MORE;
  btree_frozen_root (&store->catalogue, &checkpoint->superblock->catalogue);
  if (checkpoint->is_shared_frozen)
    btree_frozen_root (space_shared_tree (store->space), &checkpoint->superblock->shared);
  checkpoint->stage = CHECKPOINT_SUPERBLOCK;
  checkpoint_submit_superblock (store, op, 0);
  return OP_WAIT;
}

/* --- the end --- */

static void
checkpoint_free_node (void *store, uint64_t place)
{
  space_free_node (((struct store *) store)->space, place);
}

/* Lets the frozen states go; what only they used is free if the new state is durable. */
static void
checkpoint_thaw (struct store *store, bool is_durable)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  struct list *link;

  while ((link = list_take (&checkpoint->frozen)) != NULL) {
    struct disk *disk = container_of (link, struct disk, frozen_link);

    pthread_mutex_lock (&disk->map.mutex);
    btree_thaw (&disk->map.tree, is_durable, checkpoint_free_node, store);
    pthread_mutex_unlock (&disk->map.mutex);
    if (is_durable) {
      if (disk->node_place != 0)
        space_free_node (store->space, disk->node_place);
      disk->node_place = disk->new_node_place;
    }
    else {
      if (disk->new_node_place != 0)
        space_free_node (store->space, disk->new_node_place);
      atomic_store (&disk->is_changed, true);
    }
  }
  if (checkpoint->is_shared_frozen)
    space_thaw_shared (store->space, is_durable);
  checkpoint->is_shared_frozen = false;
  if (checkpoint->is_catalogue_frozen)
    btree_thaw (&store->catalogue, is_durable, checkpoint_free_node, store);
  checkpoint->is_catalogue_frozen = false;
  if (is_durable) {
    for (size_t i = 0; i < checkpoint->freed_count; i++)
      space_free_node (store->space, checkpoint->freed[i]);
    checkpoint->freed_count = 0;
  }
  if (checkpoint->has_maps_lock) {
    struct list wake = LIST_INIT (wake);

    checkpoint->has_maps_lock = false;
    op_lock_release (&store->maps_lock, &wake);
    op_wake_all (&wake);
  }
}

/* The durable superblock is the one in memory from now on; but for what is the same as long as
 * the store is open, which other threads read. */
static void
checkpoint_remember (struct format_superblock *superblock, const struct format_superblock *durable)
{
  superblock->sequence = durable->sequence;
  superblock->is_clean = durable->is_clean;
  memcpy (&superblock->catalogue, &durable->catalogue,
          offsetof (struct format_superblock, opened)
            - offsetof (struct format_superblock, catalogue));
  memcpy (superblock->arena_id, durable->arena_id, sizeof durable->arena_id);
}

static enum op_next
checkpoint_durable (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;
  struct list wake = LIST_INIT (wake);

  checkpoint->io_count = 0;
  checkpoint->error = checkpoint->flush.io.error;
  if (!checkpoint_ios_ok (store, "flushing the superblock"))
    return OP_MORE;
  checkpoint_remember (&store->superblock, checkpoint->superblock);
  checkpoint_thaw (store, true);
  space_release_batches (store->space, checkpoint->space_batch);
  /* The tail keeps its items, though the nodes have what they say of the maps: an UNMAP or RETIRE
   * among them may void DATA of a record that was written since the switch, and must follow it into
   * the journal.  Only while there is no record yet they can go. */
  if (checkpoint->kind != CHECKPOINT_RUNNING)
    journal_advance (&store->journal, checkpoint->position, &wake);
  op_wake_all (&wake);
  op_count (op, COUNTER_CHECKPOINTS, 1);
  commit_half_freed (store);
  /* The second copy; the next checkpoint's flush makes it durable, long before the
   * first is overwritten. */
  checkpoint->stage = CHECKPOINT_COPIED;
  checkpoint_submit_superblock (store, op, 1);
  return OP_WAIT;
}

static enum op_next
checkpoint_copied (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  if (checkpoint->ios[0].io.error != 0)
    log_warning ("%s: the second copy of the superblock could not be written: %s", store->path,
                 strerror (-checkpoint->ios[0].io.error));
  if (checkpoint->kind == CHECKPOINT_RUNNING)
    return OP_DONE;
  /* Opening and closing leave nothing behind that a power cut could take. */
  checkpoint->stage = CHECKPOINT_COPY_FLUSHED;
  checkpoint->flush.io = (struct io) { .kind = IO_FLUSH };
  op_submit (op, &checkpoint->flush);
  return OP_WAIT;
}

/* It failed: all stays as it was. */
static enum op_next
checkpoint_end (struct store *store)
{
  checkpoint_thaw (store, false);
  return OP_DONE;
}

enum op_next
checkpoint_step (struct store *store, struct op *op)
{
  struct checkpoint *checkpoint = &store->keeper.checkpoint;

  switch ((enum checkpoint_stage) checkpoint->stage) {
  case CHECKPOINT_SWITCH:
    return checkpoint_switch (store, op);
  case CHECKPOINT_COLLECT:
    return checkpoint_collect (store);
  case CHECKPOINT_PLACE:
    return checkpoint_place (store, op);
  case CHECKPOINT_LOCK:
    return checkpoint_lock (store, op);
  case CHECKPOINT_FREEZE:
    return checkpoint_freeze (store);
  case CHECKPOINT_COMMIT:
    return checkpoint_commit (store, op);
  case CHECKPOINT_COMMITTED:
    return checkpoint_committed (store);
  case CHECKPOINT_GATHER:
    return checkpoint_gather (store, op);
  case CHECKPOINT_WRITTEN:
    return checkpoint_written (store, op);
  case CHECKPOINT_FLUSHED:
    return checkpoint_flushed (store, op);
  case CHECKPOINT_SUPERBLOCK:
    if (!checkpoint_ios_ok (store, "writing the superblock"))
      return OP_MORE;
    return checkpoint_flush (op, checkpoint, CHECKPOINT_DURABLE);
  case CHECKPOINT_DURABLE:
    return checkpoint_durable (store, op);
  case CHECKPOINT_COPIED:
    return checkpoint_copied (store, op);
  case CHECKPOINT_COPY_FLUSHED:
    return OP_DONE;
  case CHECKPOINT_END:
    return checkpoint_end (store);
  }
  CHECK (false);
}
