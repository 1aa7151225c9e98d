/* SPDX-License-Identifier: BSD-2-Clause */
/* commit.c - making all up to a point durable: one record, one sequential write,
 * one device flush, for all who wait.
 *
 * A record takes the items of the tail and the content of fresh dirty blocks, under one checksum,
 * so that the device may write its sectors in any order: what is not whole is not valid.  An
 * ITEM_MAP in the tail says that its data is durable already (writeback.c), so the record may
 * become durable at any time after it was submitted.
 *
 * One record is in flight at a time.  Ops join the queue; the first of them lends its
 * context.  While a record is being written the next batch gathers, which is what makes a
 * hundred FLUSHes cost a few.
 *
 * The journal has two halves, each used from its start.  When a record does not fit, it goes to
 * the other half, if a checkpoint has freed that; else the commit waits for the checkpoint.  That in
 * turn must have the items before its position durable first: for a record of these alone the end
 * of each half is kept free.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/checksum.h"
#include "store/store-internal.h"

enum commit_stage {
  COMMIT_TAKE,     /* the batch; a half with room */
  COMMIT_COLLECT,  /* items and frames, with the gate closed; write */
  COMMIT_FLUSH,
  COMMIT_DONE,     /* tell everybody */
};

static enum op_next commit_step (struct op *op);
static void commit_finished (struct op *op);

static uint64_t
commit_half_blocks (const struct store *store)
{
  return from_le64 (store->superblock.journal_half_blocks);
}

/* Blocks at the end of a half for a record of nothing but items, were the tail full of them: as
 * many as commit_blocks_bound wants. */
static uint64_t
commit_kept_blocks (const struct store *store)
{
  return 2 + divide_up (store->arena->tail_bytes, BLOCK_SIZE);
}

/* Blocks of the half that the next record may take.  The first one has all of it: where the arena of
 * an earlier version was taken over, whose tail is longer, it must not wait for ever. */
static uint64_t
commit_room (const struct store *store)
{
  const struct commit *commit = &store->commit;
  uint64_t used = commit->head;

  if (used > 0 && !commit->is_items_only)
    used += commit_kept_blocks (store);
  return commit_half_blocks (store) - MIN (used, commit_half_blocks (store));
}

/* Frames that a record may hold in this store. */
static uint32_t
commit_frames_max (const struct store *store)
{
  return MAX (2, MIN (MIN (COMMIT_BLOCKS_MAX, commit_half_blocks (store) / 4),
                      store->arena->frame_count / 32));
}

int
commit_init (struct store *store)
{
  struct commit *commit = &store->commit;

  pthread_mutex_init (&commit->mutex, NULL);
  list_init (&commit->queue);
  list_init (&commit->batch);
  /* Header, all items of a full tail, and a DATA item for each frame. */
  commit->buffer_bytes = align_up (BLOCK_SIZE + store->arena->tail_bytes
                                     + COMMIT_BLOCKS_MAX * sizeof (struct format_item),
                                   BLOCK_SIZE);
  commit->buffer = aligned_alloc (BLOCK_SIZE, commit->buffer_bytes);
  commit->small_blocks = MIN (COMMIT_SMALL_BLOCKS, commit_frames_max (store) / 2);
  commit->frames = calloc (COMMIT_BLOCKS_MAX, sizeof *commit->frames);
  commit->hash = XXH3_createState ();
  return commit->buffer != NULL && commit->frames != NULL && commit->hash != NULL ? 0 : -ENOMEM;
}

void
commit_destroy (struct store *store)
{
  struct commit *commit = &store->commit;

  pthread_mutex_destroy (&commit->mutex);
  free (commit->buffer);
  free (commit->frames);
  XXH3_freeState (commit->hash);
}

unsigned
commit_half_percent (struct store *store)
{
  struct commit *commit = &store->commit;
  unsigned percent;

  pthread_mutex_lock (&commit->mutex);
  percent = commit->head * 100 / (commit_half_blocks (store) - commit_kept_blocks (store));
  pthread_mutex_unlock (&commit->mutex);
  return percent;
}

bool
commit_is_bare (struct store *store)
{
  struct commit *commit = &store->commit;
  bool is_bare;

  pthread_mutex_lock (&commit->mutex);
  is_bare = commit->sequence == commit->tick_sequence && commit->sealed < commit->sequence;
  commit->tick_sequence = commit->sequence;
  pthread_mutex_unlock (&commit->mutex);
  return is_bare;
}

/* Starts the next commit on the context of the first that waits for it.  The mutex is held. */
static void
commit_start (struct commit *commit, struct commit_request *first)
{
  struct op *op = container_of (first->waiter, struct op, waiter);

  commit->is_running = true;
  op_init (&commit->op, op->context, "commit", COMMIT_TAKE, commit_step, commit_finished);
}

/* Where the running commit waits for a checkpoint, and REQUEST is the checkpoint's, it goes on with
 * that. */
static void
commit_add (struct store *store, struct commit_request *request, struct op *op)
{
  struct commit *commit = &store->commit;
  bool starts, wakes;

  request->waiter = &op->waiter;
  request->error = 0;
  pthread_mutex_lock (&commit->mutex);
  list_append (&commit->queue, &request->link);
  starts = !commit->is_running;
  if (starts)
    commit_start (commit, request);
  wakes = request->is_items_only && commit->is_waiting;
  if (wakes)
    commit->is_waiting = false;
  pthread_mutex_unlock (&commit->mutex);
  if (starts)
    op_start (&commit->op);
  if (wakes)
    op_wake (&commit->op);
}

void
commit_join (struct store *store, struct commit_request *request, struct op *op)
{
  order_wait (&op->waiter, WAITS_FOR_COMMIT);
  commit_add (store, request, op);
}

void
commit_join_items (struct store *store, struct commit_request *request, struct op *op)
{
  order_wait (&op->waiter, WAITS_FOR_ITEMS);
  *request = (struct commit_request) { .is_items_only = true };
  commit_add (store, request, op);
}

/* Moves the checkpoint's requests, or all others, from one list to the end of another. */
static void
commit_pick (struct list *from, bool is_items_only, struct list *to)
{
  list_for_each_safe (link, from)
    if (container_of (link, struct commit_request, link)->is_items_only == is_items_only) {
      list_remove (link);
      list_append (to, link);
    }
}

static void
commit_tell (struct list *requests, int error)
{
  struct list wake = LIST_INIT (wake), *link;

  while ((link = list_take (requests)) != NULL) {
    struct commit_request *request = container_of (link, struct commit_request, link);

    request->error = error;
    list_append (&wake, &request->waiter->link);
  }
  op_wake_all (&wake);
}

uint32_t
commit_small_blocks (const struct store *store)
{
  return store->commit.small_blocks;
}

/* At most so many blocks the next record takes, with ITEMS bytes of items. */
static uint64_t
commit_blocks_bound (struct store *store, uint64_t items)
{
  struct commit *commit = &store->commit;
  uint64_t frames = 0;

  list_for_each (link, &commit->batch) {
    struct commit_request *request = container_of (link, struct commit_request, link);

    if (request->count > 0)
      frames += request->count + 1;
    else if (request->disk != NULL && request->version > 0)
      /* And one that has its version, and is just being counted. */
      frames += atomic_load (&request->disk->cache.fresh_count) + 1;
  }
  frames = MIN (frames, commit_frames_max (store));
  return 2 + divide_up (items + frames * sizeof (struct format_item), BLOCK_SIZE) + frames;
}

/* The next record begins the other half; or this one, if none lies in it yet: the superblock tells
 * where the first one is looked for. */
static void
commit_switch_half (struct store *store)
{
  struct commit *commit = &store->commit;

  CHECK (atomic_load (&commit->other_is_free));
  pthread_mutex_lock (&commit->mutex);
  if (commit->head > 0) {
    commit->half ^= 1;
    commit->head = 0;
    commit->half_sequence = commit->sequence;
    commit->half_chain = commit->chain;
    commit->epoch++;
  }
  atomic_store (&commit->other_is_free, false);
  pthread_mutex_unlock (&commit->mutex);
}

/* Whether a checkpoint asks for the other half.  Where a record has gone over to it meanwhile
 * the checkpoint has what it wants, and must not wait for this commit, which may have to wait
 * for the checkpoint. */
static bool
commit_take_switches (struct store *store)
{
  struct commit *commit = &store->commit;
  struct list wake = LIST_INIT (wake);
  bool is_free = atomic_load (&commit->other_is_free), wants_switch = false;

  list_for_each_safe (link, &commit->batch) {
    struct commit_request *request = container_of (link, struct commit_request, link);

    if (!request->is_switch)
      continue;
    request->is_switch = false;
    wants_switch |= is_free;
    if (!is_free) {
      list_remove (link);
      list_append (&wake, &request->waiter->link);
    }
  }
  op_wake_all (&wake);
  return wants_switch;
}

/* There is no room for the batch, but a checkpoint is in it, which the others wait for: its record, of
 * items alone, comes first.  False: there is none, or not even room for that; and then it must not
 * wait. */
static bool
commit_take_items (struct store *store, uint64_t items)
{
  struct commit *commit = &store->commit;
  struct list others = LIST_INIT (others);

  commit_pick (&commit->batch, false, &others);
  commit->is_items_only = !list_is_empty (&commit->batch);
  if (commit->is_items_only && commit_blocks_bound (store, items) > commit_room (store)) {
    commit_tell (&commit->batch, 0);
    commit->is_items_only = false;
  }
  if (!commit->is_items_only) {
    list_splice (&commit->batch, &others);
    return false;
  }
  pthread_mutex_lock (&commit->mutex);
  list_splice (&others, &commit->queue);
  list_splice (&commit->queue, &others);
  pthread_mutex_unlock (&commit->mutex);
  return true;
}

static enum op_next
commit_take (struct store *store)
{
  struct commit *commit = &store->commit;
  struct op *op = &commit->op;
  bool wants_switch = false, waits = false;
  struct list more = LIST_INIT (more);
  uint64_t items;

  pthread_mutex_lock (&commit->mutex);
  list_splice (&commit->batch, &commit->queue);
  pthread_mutex_unlock (&commit->mutex);
  wants_switch = commit_take_switches (store);
  /* The tail may still grow before the gate is closed; then it is looked at again. */
  items = journal_end (&store->journal) - journal_start (&store->journal);
  items = MIN (items + items / 4 + BLOCK_SIZE, store->arena->tail_bytes);
  op->stage = COMMIT_COLLECT;
  if (store_is_failed (store)) {
    op->error = -EIO;
    op->stage = COMMIT_DONE;
    return OP_MORE;
  }
  commit->is_items_only = false;
  if (!wants_switch && commit_blocks_bound (store, items) <= commit_room (store))
    return OP_MORE;
  if (atomic_load (&commit->other_is_free)) {
    commit_switch_half (store);
    return OP_MORE;
  }
  if (commit_take_items (store, items))
    return OP_MORE;
  op->stage = COMMIT_TAKE;
  op_expect (op);
  pthread_mutex_lock (&commit->mutex);
  commit_pick (&commit->queue, true, &more);
  waits = !atomic_load (&commit->other_is_free) && !store_is_failed (store)
          && list_is_empty (&more);
  list_splice (&commit->queue, &more);
  commit->is_waiting = waits;
  pthread_mutex_unlock (&commit->mutex);
  if (!waits) {
    op_wake (op);
    return OP_MORE;
  }
  keeper_want_checkpoint (store);
  return OP_WAIT;
}

void
commit_half_freed (struct store *store)
{
  struct commit *commit = &store->commit;
  bool wakes;

  pthread_mutex_lock (&commit->mutex);
  if (!store_is_failed (store))
    atomic_store (&commit->other_is_free, true);
  wakes = commit->is_waiting;
  commit->is_waiting = false;
  pthread_mutex_unlock (&commit->mutex);
  if (wakes)
    op_wake (&commit->op);
}

/* Picks the frames that REQUEST wants into the record; false: there is no room for all of them. */
static bool
commit_collect_request (struct store *store, struct commit_request *request)
{
  struct commit *commit = &store->commit;
  uint32_t max = commit_frames_max (store);
  uint64_t blocks = request->count + (request->second != 0);

  commit->is_seal |= request->is_seal;
  if (request->disk == NULL)
    return true;
  if (request->count == 0) {
    uint32_t room = max - commit->frame_count;

    if (request->version == 0)
      return true;
    commit->frame_count += cache_collect_fresh (store->cache, &request->disk->cache,
                                                request->version, commit->epoch,
                                                commit->frames + commit->frame_count, room);
    return commit->frame_count < max;
  }
  if (commit->frame_count + blocks > max)
    return false;
  for (uint64_t i = 0; i < blocks; i++)
    commit->frame_count
      += cache_collect_block (store->cache, &request->disk->cache,
                              i < request->count ? request->first + i : request->second,
                              commit->epoch, &commit->frames[commit->frame_count]);
  return true;
}

/* What the record will hold.  With the gate closed no change is half made: the items tell the state
 * of the maps, the fresh frames what lies over it.  Requests that find no more room wait for the
 * next record.  False: so many items came that the half must be chosen again; cutting them off here
 * would be wrong, since the frames are those of the state after the last item. */
static bool
commit_collect (struct store *store)
{
  struct commit *commit = &store->commit;
  struct list rest = LIST_INIT (rest);

  commit->frame_count = 0;
  commit->is_seal = false;
  pthread_rwlock_wrlock (&store->gate);
  commit->position_end = journal_end (&store->journal);
  if (commit_blocks_bound (store, commit->position_end - journal_start (&store->journal))
      > commit_room (store)) {
    pthread_rwlock_unlock (&store->gate);
    return false;
  }
  commit->space_batch = space_close_batch (store->space);
  list_for_each_safe (link, &commit->batch) {
    struct commit_request *request = container_of (link, struct commit_request, link);

    if (!commit_collect_request (store, request)) {
      list_remove (link);
      list_append (&rest, link);
    }
  }
  pthread_rwlock_unlock (&store->gate);
  pthread_mutex_lock (&commit->mutex);
  list_splice (&rest, &commit->queue);
  list_splice (&commit->queue, &rest);
  pthread_mutex_unlock (&commit->mutex);
  return true;
}

/* Appends a DATA item for each run of frames that continue each other, in the order
 * of the frames. */
static size_t
commit_put_data_items (struct commit *commit, uint8_t *at)
{
  size_t bytes = 0;

  for (uint32_t i = 0; i < commit->frame_count;) {
    const struct frame *frame = commit->frames[i];
    uint64_t disk = atomic_load (&frame->disk), block = atomic_load (&frame->block), length = 1;
    struct format_item item = {
      .kind = to_le16 (ITEM_DATA),
      .bytes = to_le16 (sizeof item),
      .disk = to_le64 (disk),
      .block = to_le64 (block),
    };

    while (i + length < commit->frame_count
           && atomic_load (&commit->frames[i + length]->disk) == disk
           && atomic_load (&commit->frames[i + length]->block) == block + length)
      length++;
    item.length = to_le64 (length);
    memcpy (at + bytes, &item, sizeof item);
    bytes += sizeof item;
    i += length;
  }
  return bytes;
}

/* Builds header and items in the buffer, and seals the record. */
static void
commit_build (struct store *store)
{
  struct commit *commit = &store->commit;
  struct format_record *record = (struct format_record *) commit->buffer;
  uint64_t start = journal_start (&store->journal), count = commit->position_end - start;
  uint8_t *items = commit->buffer + sizeof *record;
  uint64_t place = from_le64 (store->superblock.journal_place)
                   + commit->half * commit_half_blocks (store) + commit->head;
  size_t item_bytes, front;

  journal_copy (&store->journal, start, commit->position_end, items);
  item_bytes = count + commit_put_data_items (commit, items + count);
  front = align_up (sizeof *record + item_bytes, BLOCK_SIZE);
  memset (items + item_bytes, 0, front - sizeof *record - item_bytes);
  commit->record_blocks = front / BLOCK_SIZE + commit->frame_count;
  *record = (struct format_record) {
    .magic = to_le32 (JOURNAL_MAGIC),
    .block_count = to_le32 (commit->record_blocks),
    .sequence = to_le64 (commit->sequence),
    .previous = to_le64 (commit->chain),
    .place = to_le64 (place),
    .position = to_le64 (start),
    .item_bytes = to_le32 (item_bytes),
    .data_count = to_le32 (commit->frame_count),
    .data_offset = to_le32 (front / BLOCK_SIZE),
    .tail_bytes = to_le32 (count),
    .time = to_le64 (time (NULL)),
  };
  memcpy (record->uuid, store->identity.uuid, 16);
  commit->segments[0] = (struct iovec) { commit->buffer, front };
  XXH3_64bits_reset_withSeed (commit->hash, commit->salt);
  XXH3_64bits_update (commit->hash, commit->buffer, front);
  for (uint32_t i = 0; i < commit->frame_count; i++) {
    commit->segments[i + 1] = (struct iovec) { commit->frames[i]->data, BLOCK_SIZE };
    XXH3_64bits_update (commit->hash, commit->frames[i]->data, BLOCK_SIZE);
  }
  commit->record_checksum = XXH3_64bits_digest (commit->hash);
  record->header_checksum = to_le64 (checksum (commit->buffer, BLOCK_SIZE, commit->salt));
  record->checksum = to_le64 (commit->record_checksum);
  commit->io.io = (struct io) {
    .kind = IO_WRITE,
    .place = place,
    .length = commit->record_blocks,
    .segments = commit->segments,
    .segment_count = 1 + commit->frame_count,
  };
}

static enum op_next
commit_write (struct store *store)
{
  struct commit *commit = &store->commit;
  struct op *op = &commit->op;

  if (!commit_collect (store)) {
    op->stage = COMMIT_TAKE;
    return OP_MORE;
  }
  op->stage = COMMIT_DONE;
  commit->is_empty
    = commit->frame_count == 0 && commit->position_end == journal_start (&store->journal);
  if (commit->is_empty && !commit->is_seal)
    return OP_MORE;
  commit_build (store);
  CHECK (commit->head + commit->record_blocks <= commit_half_blocks (store));
  op->stage = COMMIT_FLUSH;
  op_submit (op, &commit->io);
  return OP_WAIT;
}

static enum op_next
commit_flush (struct store *store)
{
  struct commit *commit = &store->commit;
  struct op *op = &commit->op;

  op->stage = COMMIT_DONE;
  if (commit->io.io.error != 0) {
    store_fail (store, "writing the journal", commit->io.io.error);
    op->error = -EIO;
    return OP_MORE;
  }
  commit->flush.io = (struct io) { .kind = IO_FLUSH };
  op_submit (op, &commit->flush);
  return OP_WAIT;
}

/* The record is durable, or has failed. */
static void
commit_settle (struct store *store, struct list *wake)
{
  struct commit *commit = &store->commit;
  bool ok = commit->op.error == 0;

  if (ok && commit->record_blocks > 0) {
    pthread_mutex_lock (&commit->mutex);
    commit->head += commit->record_blocks;
    commit->sequence++;
    commit->chain = commit->record_checksum;
    if (commit->is_empty)
      commit->sealed = commit->sequence;
    arena_note_durable (store->arena, commit->sequence);
    pthread_mutex_unlock (&commit->mutex);
    op_count (&commit->op, COUNTER_COMMITS, 1);
    op_count (&commit->op, COUNTER_COMMIT_BLOCKS, commit->record_blocks);
  }
  for (uint32_t i = 0; i < commit->frame_count; i++) {
    cache_committed (store->cache, commit->frames[i], ok);
    cache_put (store->cache, commit->frames[i]);
  }
  commit->frame_count = 0;
  if (ok) {
    space_release_batches (store->space, commit->space_batch);
    journal_advance (&store->journal, commit->position_end, wake);
  }
}

static enum op_next
commit_done (struct store *store)
{
  struct commit *commit = &store->commit;
  struct op *op = &commit->op;
  struct list wake = LIST_INIT (wake);

  if (op->error == 0 && commit->record_blocks > 0 && commit->flush.io.error != 0) {
    store_fail (store, "flushing the journal", commit->flush.io.error);
    op->error = -EIO;
  }
  commit_settle (store, &wake);
  commit->record_blocks = 0;
  op_wake_all (&wake);
  commit_tell (&commit->batch, op->error);
  if (keeper_has_work (store))
    keeper_kick (store);
  return OP_DONE;
}

static enum op_next
commit_step (struct op *op)
{
  struct store *store = container_of (container_of (op, struct commit, op), struct store, commit);

  switch ((enum commit_stage) op->stage) {
  case COMMIT_TAKE:
    return commit_take (store);
  case COMMIT_COLLECT:
    return commit_write (store);
  case COMMIT_FLUSH:
    return commit_flush (store);
  case COMMIT_DONE:
    return commit_done (store);
  }
  CHECK (false);
}

/* The next batch, if one has gathered. */
static void
commit_finished (struct op *op)
{
  struct commit *commit = container_of (op, struct commit, op);
  bool starts;

  pthread_mutex_lock (&commit->mutex);
  starts = !list_is_empty (&commit->queue);
  if (starts)
    commit_start (commit, container_of (commit->queue.next, struct commit_request, link));
  else
    commit->is_running = false;
  pthread_mutex_unlock (&commit->mutex);
  if (starts)
    op_start (&commit->op);
}
