/* SPDX-License-Identifier: BSD-2-Clause */
/* state.c - one number for all that the future of a run depends on; see explorer.h.
 *
 * Two runs that have come to states of the same number go on in the same ways: what may happen
 * next, what it does, and what the judges say of it, is the same.  So everything is in it that a
 * step reads, and nothing that tells only by which way the state was reached: addresses, which
 * frame of those that are free was taken, the order among those that are ready, statistics.  Times
 * of the model count by their order only.
 *
 * Where more than that has got in, states that are the same are told apart, and visited twice;
 * that costs time only.  Where something is missing, ways would not be gone.  That nothing is, is
 * tested: explorer --compare counts ways and outcomes with and without (main.c).  And ops and
 * structures that are not known here are failed CHECKs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "device/device-sim-internal.h"
#include "explorer.h"
#include "store/btree-internal.h"
#include "store/cache-internal.h"
#include "store/op-admin.h"
#include "store/space-groups.h"

/* --- words that are gathered --- */

static struct {
  uint64_t *words;
  size_t count, max;
} gathered;

static void
put (uint64_t word)
{
  if (gathered.count == gathered.max) {
    gathered.max = MAX (4096, 2 * gathered.max);
    gathered.words = realloc (gathered.words, gathered.max * sizeof word);
    CHECK (gathered.words != NULL);
  }
  gathered.words[gathered.count++] = word;
}

static void
put_bytes (const void *bytes, size_t count)
{
  put (checksum (bytes, count, 0));
}

/* What was put since MARK, as one number instead. */
static uint64_t
take (size_t mark)
{
  uint64_t hash = checksum (gathered.words + mark, (gathered.count - mark) * sizeof (uint64_t), 1);

  gathered.count = mark;
  return hash;
}

/* --- times: which is before which --- */

static struct {
  uint64_t *values;
  size_t count, max;
} times;

static void
time_note (uint64_t value)
{
  if (times.count == times.max) {
    times.max = MAX (1024, 2 * times.max);
    times.values = realloc (times.values, times.max * sizeof value);
    CHECK (times.values != NULL);
  }
  times.values[times.count++] = value;
}

static int
time_compare (const void *left, const void *right)
{
  uint64_t a = *(const uint64_t *) left, b = *(const uint64_t *) right;

  return a < b ? -1 : a > b;
}

static void
times_sort (void)
{
  size_t kept = 0;

  qsort (times.values, times.count, sizeof *times.values, time_compare);
  for (size_t i = 0; i < times.count; i++)
    if (kept == 0 || times.values[kept - 1] != times.values[i])
      times.values[kept++] = times.values[i];
  times.count = kept;
}

static void
put_time (uint64_t value)
{
  size_t low = 0, high = times.count;

  while (low + 1 < high) {
    size_t middle = (low + high) / 2;

    if (times.values[middle] <= value)
      low = middle;
    else
      high = middle;
  }
  CHECK (times.values[low] == value);
  put (value == NEVER ? NEVER : low);
}

/* --- ops --- */

static void put_request (struct world *world, const struct request *request);

/* Which op it is.  A WRITE that belongs to a WRITE_ZEROES is known by that, and has its state here,
 * since nobody else leads to it; likewise a CACHE that is nobody's: it reads ahead. */
static uint64_t
op_token (struct world *world, const struct op *op)
{
  const struct keeper *keeper = &world->store->keeper;
  const struct request *request = container_of (op, struct request, op);

  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    if (op == &world->clients[i].request.op)
      return 100 + i;
  if (op == &world->admin.admin.op)
    return 200;
  if (op == &keeper->op || op == &keeper->commit_op || op == &keeper->discard_op)
    return op == &keeper->op ? 201 : op == &keeper->commit_op ? 202 : 203;
  if (op == &world->store->commit.op)
    return 204;
  for (unsigned i = 0; i < EXPLORER_OPS; i++)
    if (explorer_ops[i] != NULL && op == &explorer_ops[i]->op)
      return 300 + i;
  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    if (strcmp (op->name, "write") == 0 && request->owner == &world->clients[i].request) {
      size_t mark = gathered.count;

      put (400 + i);
      put_request (world, request);
      return take (mark);
    }
  if (strcmp (op->name, "cache") == 0) {
    size_t mark = gathered.count;

    put_request (world, request);
    return take (mark);
  }
  fprintf (stderr, "explorer: the op %s is not known to state.c\n", op->name);
  abort ();
}

static uint64_t
waiter_token (struct world *world, struct waiter *waiter)
{
  return waiter == NULL ? 0 : op_token (world, container_of (waiter, struct op, waiter));
}

static void
put_op (struct world *world, struct op *op)
{
  put (op->stage);
  put (atomic_load (&op->pending));
  put (op->error);
  put (!list_is_empty (&op->link));
  put (op->context == world->contexts[0]);
}

/* --- frames --- */

static void
put_frame (struct world *world, struct frame *frame)
{
  enum frame_state state;

  if (frame == NULL || frame == FRAME_UNKNOWN) {
    put (frame == NULL);
    return;
  }
  state = atomic_load (&frame->state);
  put (2 + state);
  put (frame_is_invalid (world->store->cache, frame));
  put (atomic_load (&frame->references));
  /* Key and content of a frame that is in nobody's way are left over from before. */
  if (state == FRAME_FREE)
    return;
  put (atomic_load (&frame->disk));
  put (atomic_load (&frame->block));
  put (atomic_load (&frame->flags));
  put (atomic_load (&frame->frequency) | atomic_load (&frame->queue) << 8 | frame->is_warm << 16);
  put_bytes (frame->data, BLOCK_SIZE);
  list_for_each (link, &frame->waiters)
    put (waiter_token (world, container_of (link, struct waiter, link)));
  if (state != FRAME_DIRTY && !(atomic_load (&frame->flags) & FRAME_IN_WRITEBACK))
    return;
  put (frame->copy_epoch);
  put (frame->copy_version);
  put (frame->version);
  put (frame->since);
}

static uint64_t
frame_token (struct world *world, struct frame *frame)
{
  size_t mark = gathered.count;

  put_frame (world, frame);
  return take (mark);
}

static void
put_budget (struct world *world, struct budget *budget)
{
  put (atomic_load (&budget->used));
  put (atomic_load (&budget->waiting));
  list_for_each (link, &budget->queue) {
    const struct budget_ticket *ticket = container_of (link, struct budget_ticket, link);

    put (ticket->count);
    put (waiter_token (world, ticket->waiter));
  }
}

/* What only the index holds, and is invalid there, is as good as free. */
static bool
frame_counts (const struct cache *cache, const struct frame *frame)
{
  uint32_t references = atomic_load (&frame->references);

  return references > 1 || (references == 1 && !frame_is_invalid (cache, frame));
}

static void
put_cache (struct world *world)
{
  struct cache *cache = world->store->cache;
  uint64_t sum = 0;

  /* In which order frames would be evicted is not in the state, nor what is known to be invalid. */
  CHECK (atomic_load (&cache->replacement.evictions) == 0);
  CHECK (atomic_load (&cache->replacement.evict_begun) == 0);
  for (uint32_t i = 0; i < cache->frame_count; i++)
    if (frame_counts (cache, &cache->frames[i]))
      sum += frame_token (world, &cache->frames[i]);
  put (sum);
  put (atomic_load (&cache->version));
  put (atomic_load (&cache->dirty_count));
  put_budget (world, &cache->in_flight);
  put_budget (world, &cache->in_flight_large);
  put_budget (world, &cache->dirty);
}

/* --- requests --- */

static void
put_commit_request (struct world *world, const struct commit_request *request)
{
  (void) world;
  put (request->disk != NULL ? request->disk->id : 0);
  put (request->version);
  put (request->first);
  put (request->count);
  put (request->second);
  put (request->is_switch | request->is_items_only << 1);
  put (request->error);
}

static void
put_writeback_request (const struct writeback_request *request)
{
  put (request->disk != NULL ? request->disk->id : 0);
  put (request->version);
  put (request->error);
}

static void
put_range (const struct range_request *range)
{
  put (range->first);
  put (range->last);
  put (range->mode);
  put (range->is_granted);
}

/* fill_acquire gives clean ones here (below), so that nothing is left over from before. */
static void
put_fill (struct world *world, const struct fill *fill)
{
  put_range (&fill->range);
  put (fill->tail.bytes);
  put (fill->first);
  put (fill->count);
  put_bytes (fill->states, sizeof fill->states);
  put (fill->io_count);
  for (unsigned i = 0; i < fill->io_count; i++) {
    put (fill->io_first[i]);
    put (fill->ios[i].io.place);
    put (fill->ios[i].io.length);
    put (fill->ios[i].io.error);
  }
  put (frame_token (world, fill->edge));
  put_bytes (fill->needs_space, sizeof fill->needs_space);
  put_commit_request (world, &fill->commit);
  put_writeback_request (&fill->writeback);
}

static void
put_request (struct world *world, const struct request *request)
{
  struct op *op = (struct op *) &request->op;

  put_op (world, op);
  put (request->disk->id);
  put (request->kind);
  put (request->flags);
  put (request->offset);
  put (request->length);
  put (request->frame_count);
  for (uint32_t i = 0; i < request->frame_count; i++)
    put (frame_token (world, request->frames[i]));
  put (request->charged);
  put (request->charged_dirty);
  put (request->at);
  put (request->version);
  put (request->end);
  put (request->space_waits);
  put (request->extent_count);
  put (request->is_admitted | request->is_started << 1);
  put (request->fill != NULL);
  if (request->fill != NULL)
    put_fill (world, request->fill);
}

static void
put_clone (const struct clone *clone)
{
  put (clone->source != NULL ? clone->source->id : 0);
  put (clone->target != NULL ? clone->target->id : 0);
  put (clone->from);
  put (clone->to);
  put (clone->length);
  put_range (&clone->source_range);
  put_range (&clone->target_range);
  put (clone->has_maps_lock);
  put_writeback_request (&clone->writeback);
  put (clone->at);
  put (clone->extents);
  put (clone->runs);
}

static void
put_admin (struct world *world)
{
  struct world_admin *running = &world->admin;
  struct admin *admin = &running->admin;

  put (running->is_running | running->is_unknown << 1 | world->clone.is_running << 2);
  if (!running->is_running)
    return;
  put_op (world, &admin->op);
  put (admin->kind);
  put_bytes (admin->name, strlen (admin->name));
  put (admin->size);
  put (admin->disk != NULL ? admin->disk->id : 0);
  put (admin->tail_left);
  put (admin->offset);
  put (admin->length);
  put (admin->target_offset);
  put (admin->clone != NULL);
  if (admin->clone != NULL)
    put_clone (admin->clone);
  put (admin->at);
  put (admin->size_before);
  put (admin->range != NULL);
  if (admin->range != NULL)
    put_range (admin->range);
  put (admin->commit != NULL);
  if (admin->commit != NULL)
    put_commit_request (world, admin->commit);
  put (admin->writeback != NULL);
  if (admin->writeback != NULL)
    put_writeback_request (admin->writeback);
  put_time (running->begun);
}

static void
put_explorer_ops (struct world *world)
{
  for (unsigned i = 0; i < EXPLORER_OPS; i++) {
    put (explorer_ops[i] != NULL);
    if (explorer_ops[i] == NULL)
      continue;
    put_op (world, &explorer_ops[i]->op);
    put_writeback_request (&explorer_ops[i]->request);
  }
}

/* Some ops are known by this only. */
static void
put_ready (struct world *world, struct context *context)
{
  uint64_t sum = 0;

  list_for_each (link, &context->ready) {
    uint64_t token = op_token (world, container_of (link, struct op, link));

    sum += checksum (&token, sizeof token, 5);
  }
  put (sum);
}

static void
put_clients (struct world *world)
{
  for (unsigned i = 0; i < WORLD_CLIENTS; i++) {
    const struct world_client *client = &world->clients[i];

    put (atomic_load (&client->stream.next_offset));
    put (atomic_load (&client->stream.ahead_end));
    put (atomic_load (&client->stream.window_blocks));
    put (client->state);
    if (client->state == CLIENT_FREE)
      continue;
    put (client->change);
    put_time (client->begun);
    put_request (world, &client->request);
  }
}

/* --- disks --- */

static void
put_node (const struct btree_node *node)
{
  put (node->generation);
  put (node->place);
  put (node->attempt);
  put (node->level);
  put (node->count);
  for (unsigned i = 0; i < node->count; i++) {
    put (node->entries[i].key);
    if (node->level == 0)
      put (node->entries[i].value);
    else
      put_node (node_child (node, i));
  }
}

static void
put_tree (const struct btree *tree)
{
  put (tree->generation);
  put (tree->root != NULL);
  if (tree->root != NULL)
    put_node (tree->root);
  put (tree->has_frozen);
  put (tree->frozen != NULL);
  if (tree->frozen != NULL)
    put_node (tree->frozen);
  for (const struct btree_node *node = tree->superseded; node != NULL; node = node->next)
    put (node->place);
  for (struct btree_node *node = tree->given_up; node != NULL; node = node->next)
    for (unsigned i = 0; i < node->count; i++)
      put (node_places (node)[i]);
}

struct range_view {
  const struct range_request *request;
  uint64_t token;
};

static uint64_t
range_token (struct world *world, const struct range_request *range)
{
  size_t mark = gathered.count;

  put_range (range);
  put (range->is_upgrading);
  put (range->blockers);
  put (waiter_token (world, range->waiter));
  return take (mark);
}

/* Requests, and for those that wait, whom they came after. */
static void
put_range_lock (struct world *world, struct range_lock *lock)
{
  struct range_view views[64];
  unsigned count = 0;
  uint64_t sum = 0;

  for (enum range_mode mode = 0; mode < RANGE_MODES; mode++)
    list_for_each (link, &lock->line[mode]) {
      const struct range_request *request = container_of (link, struct range_request, link);

      CHECK (count < ARRAY_COUNT (views));
      views[count++] = (struct range_view) { request, range_token (world, request) };
    }
  for (unsigned i = 0; i < count; i++) {
    size_t mark = gathered.count;
    uint64_t before = 0;

    for (unsigned j = 0; j < count; j++)
      if (views[j].request->arrival < views[i].request->arrival
          && !(views[i].request->is_granted && views[j].request->is_granted))
        before += views[j].token;
    put (views[i].token);
    put (before);
    sum += take (mark);
  }
  put (sum);
  list_for_each (link, &lock->beside)
    put (range_token (world, container_of (link, struct range_request, link)));
}

static void
put_disk (struct world *world, struct disk *disk)
{
  put (disk->id);
  put_bytes (disk->name, sizeof disk->name);
  put_bytes (&disk->request_ids, sizeof disk->request_ids);
  put_bytes (&disk->frozen_request_ids, sizeof disk->frozen_request_ids);
  put (disk->size_holds);
  put (disk->shrinks_to);
  put (atomic_load (&disk->size));
  put (atomic_load (&disk->last_position));
  put (atomic_load (&disk->references));
  put (atomic_load (&disk->readaheads));
  put (atomic_load (&disk->has_write_error) | atomic_load (&disk->is_changed) << 1
       | disk->is_dying << 2 | disk->is_deleted << 3 | disk->frozen_is_dying << 4);
  put (disk->write_error);
  put (disk->error_version);
  put (disk->node_place);
  put (disk->new_node_place);
  put (!list_is_empty (&disk->frozen_link));
  put (disk->frozen_size);
  put (disk->frozen_mapped);
  put (disk->map.mapped);
  put_tree (&disk->map.tree);
  put_range_lock (world, &disk->range_lock);
  list_for_each (link, &disk->cache.fresh)
    put (atomic_load (&container_of (link, struct frame, dirty_link)->block));
  list_for_each (link, &disk->cache.logged)
    put (atomic_load (&container_of (link, struct frame, dirty_link)->block));
}

static void
put_space (struct space *space)
{
  uint64_t bitmap_words = space->geometry.group_blocks / 64;

  put_bytes (&space->counts, sizeof space->counts);
  put (space->opened_free);
  put (space->open_hint);
  put_bytes (space->streams, sizeof space->streams);
  put (space->run_bound);
  put (space->discard_bound);
  put (space->discard_next);
  put (space->batch);
  put (space->node_hint);
  put (space->nodes_used);
  put (space->end);
  for (uint64_t i = 0; i < space->groups_known; i++) {
    const struct group *group = &space->groups[i];

    put (group->free);
    put (group->held_count);
    put ((uint64_t) group->longest << 32 | group->held_longest);
    put (group->next);
    put (group->is_refused);
    if (group->busy != NULL)
      put_bytes (group->busy, bitmap_words * 8);
    if (group->held != NULL)
      put_bytes (group->held, bitmap_words * 8);
    if (group->nodes != NULL)
      put_bytes (group->nodes, space->geometry.meta_blocks / 8);
  }
  for (const struct pending_chunk *chunk = space->pending_first; chunk; chunk = chunk->next)
    for (uint32_t i = chunk->first; i < chunk->count; i++) {
      put (chunk->runs[i].place);
      put (chunk->runs[i].length);
      put (chunk->runs[i].batch);
      put (chunk->runs[i].is_unshared);
    }
  put_tree (&space->shared.tree);
  put_tree (&space->unshared.tree);
  put (space->is_shared_changed);
}

/* --- journal and keeper --- */

static void
put_op_lock (struct world *world, struct op_lock *lock)
{
  put (lock->holder != NULL);
  list_for_each (link, &lock->waiters)
    put (waiter_token (world, container_of (link, struct waiter, link)));
}

static void
put_journal (struct world *world)
{
  struct journal *journal = &world->store->journal;
  uint64_t start = journal_start (journal), end = journal_end (journal);
  uint8_t items[16 * KIB];

  CHECK (end - start <= sizeof items);
  journal_copy (journal, start, end, items);
  put (start);
  put_bytes (items, end - start);
  put (journal->reserved);
  put (journal->is_wanted | journal->is_closed << 1);
  list_for_each (link, &journal->waiters)
    put (waiter_token (world, container_of (link, struct journal_waiter, link)->waiter));
}

static void
put_commit_queue (struct world *world, struct list *queue)
{
  list_for_each (link, queue) {
    struct commit_request *request = container_of (link, struct commit_request, link);

    put (waiter_token (world, request->waiter));
    put_commit_request (world, request);
  }
  put (0);
}

static void
put_commit (struct world *world)
{
  struct commit *commit = &world->store->commit;

  put_commit_queue (world, &commit->queue);
  put_commit_queue (world, &commit->batch);
  put (commit->is_running | commit->is_waiting << 1 | atomic_load (&commit->other_is_free) << 2);
  put (commit->half);
  put (commit->head);
  put (commit->sequence);
  put (commit->chain);
  put (commit->half_sequence);
  put (commit->half_chain);
  put (commit->epoch);
  put (commit->is_seal | commit->is_empty << 1 | commit->is_items_only << 2);
  put (commit->sealed);
  put (commit->tick_sequence);
  if (!commit->is_running)
    return;
  put_op (world, &commit->op);
  put (commit->frame_count);
  for (uint32_t i = 0; i < commit->frame_count; i++)
    put (frame_token (world, commit->frames[i]));
  put (commit->position_end);
  put (commit->space_batch);
  put (commit->record_blocks);
  put (commit->record_checksum);
  put (commit->io.io.error);
  put (commit->flush.io.error);
}

static void
put_writeback (struct world *world)
{
  const struct writeback *writeback = &world->store->keeper.writeback;

  put (writeback->stage);
  put (writeback->kind);
  put (writeback->version);
  put (writeback->epoch);
  put (writeback->only != NULL ? writeback->only->id : 0);
  put (writeback->is_checkpoint | writeback->has_committed << 1);
  put (writeback->frame_count);
  for (uint32_t i = 0; i < writeback->frame_count; i++)
    put (frame_token (world, writeback->frames[i]));
  for (uint32_t i = 0; i < writeback->run_count; i++) {
    put (writeback->runs[i].first);
    put (writeback->runs[i].count);
    put_range (&writeback->runs[i].range);
  }
  for (uint32_t i = 0; i < writeback->piece_count; i++) {
    const struct writeback_piece *piece = &writeback->pieces[i];

    put (piece->block);
    put (piece->place);
    put (piece->first);
    put (piece->count);
    put (piece->io);
    put (piece->is_new | piece->is_moved << 1 | piece->was_unwritten << 2);
  }
  for (uint32_t i = 0; i < writeback->io_count; i++)
    put (writeback->ios[i].io.error);
  put (writeback->flush.io.error);
  put (writeback->tail_bytes);
  put_commit_request (world, &writeback->commit);
  put (writeback->error);
}

static void
put_checkpoint (struct world *world)
{
  const struct checkpoint *checkpoint = &world->store->keeper.checkpoint;

  put (checkpoint->stage);
  put (checkpoint->kind);
  put_commit_request (world, &checkpoint->commit);
  put (checkpoint->position);
  put (checkpoint->space_batch);
  put_bytes (checkpoint->superblock, BLOCK_SIZE);
  put (checkpoint->disk != NULL ? checkpoint->disk->id : 0);
  put (checkpoint->is_catalogue_frozen | checkpoint->is_writer_active << 1
       | checkpoint->is_metadata_full << 2 | checkpoint->has_maps << 3
       | checkpoint->is_shared_frozen << 4 | checkpoint->has_maps_lock << 5);
  put (checkpoint->writer.depth);
  put (checkpoint->node_count);
  put_bytes (checkpoint->buffer, checkpoint->node_count * BLOCK_SIZE);
  put (checkpoint->io_count);
  for (unsigned i = 0; i < checkpoint->io_count; i++)
    put (checkpoint->ios[i].io.error);
  put (checkpoint->flush.io.error);
  put (checkpoint->failed_batches);
  put (checkpoint->error);
}

static void
put_keeper (struct world *world)
{
  struct keeper *keeper = &world->store->keeper;

  put_op (world, &keeper->op);
  put (keeper->is_parked | keeper->is_kicked << 1 | keeper->is_passing_down << 2
       | keeper->checkpoint_wanted << 3 | keeper->is_committing << 4 | keeper->is_discarding << 5
       | atomic_load (&keeper->is_discard_stuck) << 6 | keeper->commit_wanted << 7
       | keeper->writeback.needs_room << 8 | keeper->seal_wanted << 9);
  put (keeper->checkpoint_now);
  list_for_each (link, &keeper->requests) {
    const struct writeback_request *request = container_of (link, struct writeback_request, link);

    put (waiter_token (world, request->waiter));
    put_writeback_request (request);
  }
  list_for_each (link, &keeper->discard_waiters)
    put (waiter_token (world, container_of (link, struct waiter, link)));
  put (keeper->activity);
  if (keeper->activity != KEEPER_CHOOSE)
    put_writeback (world);
  if (keeper->activity == KEEPER_CHECKPOINT)
    put_checkpoint (world);
  put_bytes (keeper->checkpoint.freed, keeper->checkpoint.freed_count * 8);
  if (keeper->is_committing) {
    put_op (world, &keeper->commit_op);
    put_commit_request (world, &keeper->commit);
  }
  if (keeper->is_discarding) {
    put_op (world, &keeper->discard_op);
    put (keeper->discard_place);
    put (keeper->discard_length);
    put (keeper->discard.io.error);
  }
  put_bytes (keeper->tick_versions, sizeof keeper->tick_versions);
  put (keeper->old_version);
  put (keeper->tick_position);
  put (keeper->backoff_ticks);
  put (keeper->fullness);
  put (keeper->failed_batches);
  put (keeper->checkpoint_error);
}

/* --- device --- */

static uint64_t
page_token (struct page *page)
{
  if (page == NULL)
    return 0;
  if (page->hash == 0)
    page->hash = checksum (page->data, BLOCK_SIZE, 0) | 1;
  return page->hash + page->is_garbage;
}

static uint64_t
flight_token (struct world *world, const struct flight *flight)
{
  size_t mark = gathered.count;

  put (flight->kind);
  put (flight->is_kicked);
  put (flight->error);
  put (flight->place);
  put (flight->length);
  put (flight->kind == IO_FLUSH ? flight->device_length : 0);
  put (op_token (world, container_of (flight->io, struct op_io, io)->op));
  for (uint64_t i = 0; flight->pages != NULL && i < flight->length; i++)
    put (page_token (flight->pages[i]));
  return take (mark);
}

/* An entry of the log: what, on top of how many others there, and which flushes will make it
 * durable. */
static uint64_t
log_token (struct world *world, uint64_t position)
{
  struct sim_image *image = world->image;
  const struct log_entry *entry = &image->log[position & (image->log_slots - 1)];
  uint64_t below = 0, flushes = 0;
  size_t mark = gathered.count;

  for (uint64_t p = image->log_first; p < position; p++)
    below += image->log[p & (image->log_slots - 1)].place == entry->place;
  for (unsigned i = 0; i < image->flight_count; i++)
    if (image->flights[i].kind == IO_FLUSH && image->flights[i].log_mark > position)
      flushes += flight_token (world, &image->flights[i]);
  put (entry->place);
  put (page_token (entry->page));
  put (below);
  put (flushes);
  return take (mark);
}

static void
put_device (struct world *world)
{
  struct sim_image *image = world->image;
  uint64_t sum = 0;

  put (image->length);
  put (image->durable_length);
  put (image->random);
  for (unsigned kind = 0; kind < KINDS; kind++) {
    const struct fault *fault = &image->faults[kind];

    put (fault->after);
    put (fault->forever);
    put (fault->length);
  }
  for (uint64_t i = 0; i < image->chunk_slots; i++)
    for (unsigned b = 0; image->chunks[i] != NULL && b < CHUNK_BLOCKS; b++)
      if (image->chunks[i]->durable[b] != NULL) {
        uint64_t words[] = {
          image->chunks[i]->number * CHUNK_BLOCKS + b, page_token (image->chunks[i]->durable[b]),
        };

        sum += checksum (words, sizeof words, 2);
      }
  for (uint64_t p = image->log_first; p < image->log_end; p++)
    sum += log_token (world, p);
  for (unsigned i = 0; i < image->flight_count; i++)
    sum += flight_token (world, &image->flights[i]);
  put (sum);
}

/* --- the model --- */

static void
times_gather (struct world *world)
{
  times.count = 0;
  time_note (0);
  for (unsigned d = 0; d < WORLD_DISKS; d++) {
    const struct world_disk *disk = &world->disks[d];

    time_note (disk->shrunk);
    time_note (disk->oracle.flushed);
    for (uint64_t s = 0; disk->exists && s < disk->oracle.sector_max; s++)
      for (uint32_t i = 0; i < disk->oracle.sectors[s].count; i++) {
        const struct oracle_entry *entry = &disk->oracle.sectors[s].entries[i];

        time_note (entry->begun);
        time_note (entry->ended);
        time_note (entry->seen_first);
        time_note (entry->seen_last);
      }
  }
  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    if (world->clients[i].state != CLIENT_FREE)
      time_note (world->clients[i].begun);
  if (world->admin.is_running)
    time_note (world->admin.begun);
  times_sort ();
}

static void
put_model_disk (const struct world_disk *disk)
{
  put (disk->exists);
  if (!disk->exists)
    return;
  put_bytes (disk->name, sizeof disk->name);
  put (disk->size);
  put (disk->users);
  put_time (disk->shrunk);
  put_time (disk->oracle.flushed);
  put (disk->oracle.incarnation);
  for (uint64_t s = 0; s < disk->oracle.sector_max; s++)
    for (uint32_t i = 0; i < disk->oracle.sectors[s].count; i++) {
      const struct oracle_entry *entry = &disk->oracle.sectors[s].entries[i];

      put (s);
      put (entry->change);
      put (entry->pattern);
      put (entry->incarnation);
      put (entry->origin);
      put ((uint64_t) entry->from << 32 | (uint64_t) entry->to << 16 | entry->flags);
      put_time (entry->begun);
      put_time (entry->ended);
      put_time (entry->seen_first);
      put_time (entry->seen_last);
    }
}

uint64_t
explorer_state (struct world *world)
{
  struct store *store = world->store;

  times_gather (world);
  gathered.count = 0;
  put (world->replies);
  put (explorer_phase ());
  put (world->random.state);
  put (world->names);
  put (atomic_load (&store->mode));
  put (atomic_load (&store->next_disk_id));
  put (atomic_load (&store->host_room));
  put (store->length);
  put_bytes (&store->superblock, sizeof store->superblock);
  put_op_lock (world, &store->admin_lock);
  put_op_lock (world, &store->maps_lock);
  put_ready (world, world->contexts[0]);
  put_ready (world, store->keeper.context);
  put_clients (world);
  put_admin (world);
  put_explorer_ops (world);
  put (judge_token ());
  put_cache (world);
  list_for_each (link, &store->disks)
    put_disk (world, container_of (link, struct disk, link));
  put_tree (&store->catalogue);
  put_space (store->space);
  put_journal (world);
  put_commit (world);
  put_keeper (world);
  put_device (world);
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    put_model_disk (&world->disks[d]);
  return take (0) | 1;
}

/* --- what this was written for --- */

/* As they were when somebody last asked of each of their members: does the future depend on it? */
static const struct {
  const char *name;
  size_t bytes, known;
} structures[] = {
  { "request", sizeof (struct request), 544 },
  { "fill", sizeof (struct fill), 17592 },
  { "admin", sizeof (struct admin), 1328 },
  { "clone", sizeof (struct clone), 280 },
  { "frame", sizeof (struct frame), 128 },
  { "cache_disk", sizeof (struct cache_disk), 120 },
  { "disk", sizeof (struct disk), 1640 },
  { "range_lock", sizeof (struct range_lock), 144 },
  { "range_request", sizeof (struct range_request), 80 },
  { "space", sizeof (struct space), 1120 },
  { "group", sizeof (struct group), 56 },
  { "journal", sizeof (struct journal), 80 },
  { "commit", sizeof (struct commit), 4672 },
  { "commit_request", sizeof (struct commit_request), 72 },
  { "writeback", sizeof (struct writeback), 8520 },
  { "checkpoint", sizeof (struct checkpoint), 624 },
  { "keeper", sizeof (struct keeper), 9856 },
  { "store", sizeof (struct store), 16728 },
  { "btree", sizeof (struct btree), 80 },
};

bool
state_is_known (void)
{
  bool is_known = true;

#ifdef __x86_64__
  for (unsigned i = 0; i < ARRAY_COUNT (structures); i++)
    if (structures[i].bytes != structures[i].known) {
      printf ("FAIL state.c knows a struct %s of %zu bytes, and it has %zu:"
              " are its new members part of the state?\n",
              structures[i].name, structures[i].known, structures[i].bytes);
      is_known = false;
    }
#endif
  return is_known;
}

/* --- what the engine leaves lying about --- */

struct fill *__real_fill_acquire (struct store *store);
struct fill *__wrap_fill_acquire (struct store *store);

/* Linked in the place of fill_acquire: one that was used looks like one that was not. */
struct fill *
__wrap_fill_acquire (struct store *store)
{
  struct fill *fill = __real_fill_acquire (store);

  if (fill != NULL) {
    memset (fill, 0, sizeof *fill);
    list_init (&fill->link);
  }
  return fill;
}
