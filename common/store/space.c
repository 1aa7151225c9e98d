/* SPDX-License-Identifier: BSD-2-Clause */
/* space.c - promises, allocation, freeing, and what goes back to the host; see space.h.
 *
 * Invariant: free blocks in groups that have their bitmap (opened_free) are never fewer than the
 * reserved ones.  So memory is needed where a promise is given, which may be refused, and not
 * where it is kept.  The one exception is space_reserve_again, which cannot refuse.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "store/format.h"
#include "store/space-groups.h"

/* Each round of looking for something to discard is content with so much less. */
#define DISCARD_ROUND 8

/* --- making --- */

/* How many groups have data, and how much they have together. */
static void
space_measure (struct space *space)
{
  const struct space_geometry *geometry = &space->geometry;
  uint64_t rest = geometry->capacity % geometry->group_blocks, last;

  space->group_count = geometry->capacity / geometry->group_blocks;
  if (rest > (space->group_count == 0 ? MAX (geometry->meta_blocks, geometry->first_data)
                                      : geometry->meta_blocks))
    space->group_count++;
  if (space->group_count == 0)
    return;
  last = space->group_count - 1;
  space->counts.capacity = group_data_end (space, last) - group_data_first (space, last);
  if (last > 0)
    space->counts.capacity += group_data_end (space, 0) - group_data_first (space, 0)
                              + (last - 1) * (geometry->group_blocks - geometry->meta_blocks);
  space->counts.free = space->counts.capacity;
}

struct space *
space_create (const struct space_geometry *geometry, struct btree_pool *pool)
{
  struct space *space = calloc (1, sizeof *space);

  CHECK (is_power_of_2 (geometry->group_blocks) && is_power_of_2 (geometry->meta_blocks));
  CHECK (geometry->meta_blocks >= 2 * SUPERBLOCK_COPIES);
  CHECK (geometry->meta_blocks < geometry->group_blocks);
  CHECK (geometry->group_blocks <= UINT32_MAX / 2);
  CHECK (geometry->first_data <= geometry->group_blocks);
  if (space == NULL)
    return NULL;
  space->pending_spare = malloc (sizeof *space->pending_spare);
  if (space->pending_spare == NULL) {
    free (space);
    return NULL;
  }
  pthread_mutex_init (&space->mutex, NULL);
  space->geometry = *geometry;
  space->geometry.capacity = MIN (geometry->capacity, PLACE_MAX);
  space->batch = 1;
  space->end = geometry->first_data;
  for (unsigned i = 0; i < STREAM_SLOTS; i++)
    space->streams[i] = NO_GROUP;
  shared_init (space, pool);
  space_measure (space);
  return space;
}

void
space_destroy (struct space *space)
{
  if (space == NULL)
    return;
  for (struct pending_chunk *chunk = space->pending_first, *next; chunk; chunk = next) {
    next = chunk->next;
    free (chunk);
  }
  free (space->pending_spare);
  for (uint64_t i = 0; i < space->groups_known; i++) {
    free (space->groups[i].busy);
    free (space->groups[i].held);
    free (space->groups[i].nodes);
  }
  free (space->groups);
  pthread_mutex_destroy (&space->mutex);
  free (space);
}

void
space_get_counts (struct space *space, struct space_counts *counts)
{
  pthread_mutex_lock (&space->mutex);
  *counts = space->counts;
  counts->unsettled = atomic_load (&space->unsettled);
  counts->shared = space->shared.blocks;
  counts->unshared = space->unshared.blocks;
  pthread_mutex_unlock (&space->mutex);
}

uint64_t
space_end (struct space *space)
{
  uint64_t end;

  pthread_mutex_lock (&space->mutex);
  end = space->end;
  pthread_mutex_unlock (&space->mutex);
  return end;
}

/* Blocks that cannot be made free for want of memory count as used. */
static void
space_lose (struct space *space, uint64_t length)
{
  space->counts.used += length;
  if (! space->has_logged)
    log_warning ("Out of memory: some freed blocks stay in use until the store is opened again.");
  space->has_logged = true;
}

/* --- opening --- */

/* Opens groups until NEEDED free blocks are in open ones; false: no memory, or not so many. */
static bool
space_open_enough (struct space *space, uint64_t needed)
{
  for (; space->opened_free < needed; space->open_hint++) {
    if (space->open_hint >= space->group_count || ! group_know (space, space->open_hint)
        || (space->groups[space->open_hint].free > 0 && ! group_open (space, space->open_hint)))
      return false;
  }
  return true;
}

/* Free -> used, of an open group. */
static void
mark_run (struct space *space, uint64_t number, uint32_t start, uint32_t length)
{
  group_take (space, number, start, length);
  space_open_enough (space, space->counts.reserved);
  space->counts.used += length;
  space->end = MAX (space->end, number * space->geometry.group_blocks + start + length);
}

bool
space_mark_used (struct space *space, uint64_t place, uint64_t length)
{
  uint64_t number = place_group (space, place);
  uint32_t start = place_in_group (space, place);
  bool ok = false;

  pthread_mutex_lock (&space->mutex);
  if (run_is_data (space, place, length)) {
    if (! group_know (space, number))
      log_error ("Out of memory for the map of free space.");
    else if (group_is_free (space, number, start, length)) {
      ok = group_open (space, number);
      if (! ok)
        log_error ("Out of memory for the map of free space.");
    }
  }
  if (ok)
    mark_run (space, number, start, length);
  pthread_mutex_unlock (&space->mutex);
  return ok;
}

bool
space_mark_shared (struct space *space, uint64_t place, uint64_t length)
{
  uint64_t number = place_group (space, place);
  uint32_t start = place_in_group (space, place), count;
  bool ok;

  pthread_mutex_lock (&space->mutex);
  ok = run_is_data (space, place, length) && group_know (space, number);
  while (ok && length > 0) {
    count = group_free_at (space, number, start, length);
    if (count > 0) {
      ok = group_open (space, number);
      if (ok)
        mark_run (space, number, start, count);
    } else {
      count = group_busy_at (space, number, start, length);
      ok = seen_again (space, place, count);
    }
    place += count;
    start += count;
    length -= count;
  }
  pthread_mutex_unlock (&space->mutex);
  return ok;
}

/* The free blocks of a group below LIMIT; false: no memory. */
static bool
withhold_group (struct space *space, uint64_t number, uint32_t limit)
{
  uint32_t count;

  if (space->groups[number].free == 0)
    return true;
  if (! group_open (space, number))
    return false;
  for (uint32_t at = group_data_first (space, number); at < limit; at += count) {
    count = group_free_at (space, number, at, limit - at);
    if (count > 0) {
      group_take (space, number, at, count);
      space->counts.withheld += count;
    } else
      count = group_busy_at (space, number, at, limit - at);
  }
  return true;
}

bool
space_withhold (struct space *space, uint64_t end)
{
  uint64_t base;
  bool ok = true;

  pthread_mutex_lock (&space->mutex);
  for (uint64_t number = 0; ok && number < space->group_count; number++) {
    base = number * space->geometry.group_blocks;
    if (base >= end)
      break;
    ok = group_know (space, number)
         && withhold_group (space, number, MIN (end - base, group_data_end (space, number)));
  }
  space->end = MAX (space->end, MIN (end, space->geometry.capacity));
  pthread_mutex_unlock (&space->mutex);
  return ok;
}

void
space_mark_undiscarded (struct space *space, uint64_t end)
{
  uint64_t base;

  pthread_mutex_lock (&space->mutex);
  for (uint64_t number = 0; number < space->group_count; number++) {
    base = number * space->geometry.group_blocks;
    if (base >= end || ! group_know (space, number))
      break;
    if (space->groups[number].free == 0 || end - base <= group_data_first (space, number))
      continue;
    /* A store may be much larger than what is in it: no bitmap for each gigabyte of it. */
    if (space->groups[number].busy == NULL && end - base >= group_data_end (space, number)) {
      group_hold_all (space, number);
      continue;
    }
    if (! group_open (space, number))
      break;
    group_hold (space, number, group_data_first (space, number),
                MIN (end - base, group_data_end (space, number)));
  }
  space->end = MAX (space->end, MIN (end, space->geometry.capacity));
  pthread_mutex_unlock (&space->mutex);
}

/* --- promises --- */

static int
reserve (struct space *space, uint64_t count, bool is_settled)
{
  struct space_counts *counts = &space->counts;
  int error = 0;

  pthread_mutex_lock (&space->mutex);
  if (counts->reserved > counts->free || count > counts->free - counts->reserved)
    error = -ENOSPC;
  else if (! space_open_enough (space, counts->reserved + count))
    error = -ENOMEM;
  else {
    counts->reserved += count;
    if (! is_settled)
      atomic_fetch_add (&space->unsettled, count);
  }
  pthread_mutex_unlock (&space->mutex);
  return error;
}

int
space_reserve (struct space *space, uint64_t count)
{
  return reserve (space, count, true);
}

int
space_reserve_unsettled (struct space *space, uint64_t count)
{
  return reserve (space, count, false);
}

void
space_settle (struct space *space, uint64_t count)
{
  CHECK (atomic_fetch_sub (&space->unsettled, count) >= count);
}

void
space_unreserve (struct space *space, uint64_t count)
{
  pthread_mutex_lock (&space->mutex);
  CHECK (count <= space->counts.reserved);
  space->counts.reserved -= count;
  pthread_mutex_unlock (&space->mutex);
}

void
space_reserve_again (struct space *space, uint64_t count)
{
  pthread_mutex_lock (&space->mutex);
  space->counts.reserved += count;
  space_open_enough (space, space->counts.reserved);
  pthread_mutex_unlock (&space->mutex);
}

/* --- allocating --- */

/* A run that was found. */
struct found {
  uint64_t number;
  uint32_t start, length;
};

/* At the goal, or where the data of the next group begins if the goal is where a group's metadata
 * is: so a long run goes on from group to group. */
static bool
find_at_goal (struct space *space, uint64_t goal, uint32_t wanted, struct found *found)
{
  uint64_t number = place_group (space, goal);
  uint32_t start = place_in_group (space, goal);

  if (goal == 0 || number >= space->group_count || ! group_know (space, number))
    return false;
  start = MAX (start, group_data_first (space, number));
  if (start >= group_data_end (space, number))
    return false;
  *found = (struct found) { number, start, group_free_at (space, number, start, wanted) };
  return found->length > 0 && group_open (space, number);
}

/* Finds a run of WANTED blocks in group NUMBER. */
static bool
find_in_group (struct space *space, uint64_t number, uint32_t wanted, bool is_held,
               struct found *found)
{
  const struct group *group = &space->groups[number];
  uint32_t start;

  if ((is_held ? group->held_longest : group->longest) < wanted || ! group_open (space, number)
      || ! group_find (space, number, wanted, is_held, &start))
    return false;
  *found = (struct found) { number, start, wanted };
  return true;
}

static bool
is_current (const struct space *space, uint64_t number)
{
  for (unsigned i = 0; i < STREAM_SLOTS; i++)
    if (space->streams[i] == number)
      return true;
  return false;
}

/* Finds a run of WANTED blocks in the lowest known group that has one, and in which no stream is
 * (unless MAY_SHARE). */
static bool
find_in_known (struct space *space, uint32_t wanted, bool is_held, bool may_share,
               struct found *found)
{
  const struct group *group;

  for (uint64_t i = 0; i < space->groups_known; i++) {
    group = &space->groups[i];
    if ((is_held ? group->held_longest : group->longest) >= wanted
        && (may_share || ! is_current (space, i))
        && find_in_group (space, i, wanted, is_held, found))
      return true;
  }
  return false;
}

/* Finds the longest run that there is in a known group. */
static bool
find_longest (struct space *space, struct found *found)
{
  uint32_t longest;

  found->length = 0;
  for (uint64_t i = 0; i < space->groups_known; i++)
    /* The first attempt may fail and make the bound exact, the second does not. */
    while ((longest = space->groups[i].longest) > found->length)
      if (find_in_group (space, i, longest, false, found) || space->groups[i].longest == longest)
        break;
  space->run_bound = found->length;
  return found->length > 0;
}

/* Anywhere: blocks that the host still holds before such that it must find; groups without a
 * stream before others; low ones before high ones. */
static bool
find_anywhere (struct space *space, uint32_t wanted, struct found *found)
{
  if (wanted <= space->run_bound) {
    if (space->counts.undiscarded >= wanted && find_in_known (space, wanted, true, false, found))
      return true;
    if (find_in_known (space, wanted, false, false, found))
      return true;
  }
  while (space->groups_known < space->group_count && group_know (space, space->groups_known))
    if (find_in_group (space, space->groups_known - 1, wanted, false, found))
      return true;
  if (wanted <= space->run_bound && find_in_known (space, wanted, false, true, found))
    return true;
  return find_longest (space, found);
}

uint64_t
space_allocate (struct space *space, uint64_t stream, uint64_t goal, uint64_t wanted,
                uint64_t *place)
{
  uint64_t *current = &space->streams[stream * UINT64_C (0x9e3779b97f4a7c15) % STREAM_SLOTS];
  uint64_t most = space->geometry.group_blocks - space->geometry.meta_blocks;
  struct found found = { 0, 0, 0 };

  pthread_mutex_lock (&space->mutex);
  CHECK (wanted > 0 && space->counts.reserved > 0);
  wanted = MIN (MIN (wanted, space->counts.reserved), most);
  if (find_at_goal (space, goal, wanted, &found)
      || (*current != NO_GROUP && find_in_group (space, *current, wanted, false, &found))
      || find_anywhere (space, wanted, &found)) {
    *current = found.number;
    *place = found.number * space->geometry.group_blocks + found.start;
    space->groups[found.number].next = found.start + found.length;
    /* In this order, so that the group is not kept open for what is reserved no more. */
    space->counts.reserved -= found.length;
    space->counts.used += found.length;
    group_take (space, found.number, found.start, found.length);
    space->end = MAX (space->end, *place + found.length);
  }
  pthread_mutex_unlock (&space->mutex);
  return found.length;
}

void
space_unallocate (struct space *space, uint64_t place, uint64_t length)
{
  pthread_mutex_lock (&space->mutex);
  CHECK (run_is_data (space, place, length) && space->counts.used >= length);
  space->counts.used -= length;
  space->counts.reserved += length;
  /* A write to it may have been begun. */
  if (! group_put (space, place_group (space, place), place_in_group (space, place), length, true))
    space_lose (space, length);
  pthread_mutex_unlock (&space->mutex);
}

/* --- freeing --- */

/* Room for one pending run more; NULL: no memory. */
static struct pending_run *
pending_append (struct space *space)
{
  struct pending_chunk *chunk = space->pending_last;

  if (chunk == NULL || chunk->count == PENDING_RUNS) {
    chunk = malloc (sizeof *chunk);
    if (chunk == NULL) {
      chunk = space->pending_spare;
      space->pending_spare = NULL;
    }
    if (chunk == NULL)
      return NULL;
    chunk->next = NULL;
    chunk->first = chunk->count = 0;
    if (space->pending_last)
      space->pending_last->next = chunk;
    else
      space->pending_first = chunk;
    space->pending_last = chunk;
  }
  return &chunk->runs[chunk->count++];
}

bool
pending_add (struct space *space, uint64_t place, uint64_t length, bool is_unshared)
{
  struct pending_chunk *chunk = space->pending_last;
  struct pending_run *run
    = chunk && chunk->count > chunk->first ? &chunk->runs[chunk->count - 1] : NULL;

  if (run && run->batch == space->batch && run->place + run->length == place
      && run->is_unshared == is_unshared) {
    run->length += length;
    return true;
  }
  run = pending_append (space);
  if (run == NULL)
    return false;
  *run = (struct pending_run) { place, length, space->batch, is_unshared };
  return true;
}

/* A run has lost its only owner. */
static void
free_run (void *arg, uint64_t place, uint64_t length)
{
  struct space *space = arg;

  space->counts.used -= length;
  if (pending_add (space, place, length, false))
    space->counts.pending += length;
  else
    space_lose (space, length);
}

/* A run has one owner left.  Without memory it is not private until the store is opened again. */
static void
unshare_run (void *arg, uint64_t place, uint64_t length)
{
  struct space *space = arg;

  unshared_change (space, place, length, 1);
  if (! pending_add (space, place, length, true))
    space_lose (space, 0);
}

void
space_free (struct space *space, uint64_t place, uint64_t length)
{
  pthread_mutex_lock (&space->mutex);
  CHECK (run_is_data (space, place, length) && space->counts.used >= length);
  CHECK (group_is_busy (space, place_group (space, place), place_in_group (space, place), length));
  shared_release (space, place, length, free_run, unshare_run, space);
  pthread_mutex_unlock (&space->mutex);
}

void
space_mark_unshared (struct space *space, uint64_t place, uint64_t length)
{
  pthread_mutex_lock (&space->mutex);
  unshare_run (space, place, length);
  pthread_mutex_unlock (&space->mutex);
}

uint64_t
space_close_batch (struct space *space)
{
  uint64_t batch;

  pthread_mutex_lock (&space->mutex);
  batch = space->batch++;
  pthread_mutex_unlock (&space->mutex);
  return batch;
}

static void
release_run (struct space *space, const struct pending_run *run)
{
  uint64_t number = place_group (space, run->place);

  if (run->is_unshared) {
    unshared_change (space, run->place, run->length, -1);
    return;
  }
  space->counts.pending -= run->length;
  space->groups[number].is_refused = false;
  if (! group_put (space, number, place_in_group (space, run->place), run->length, true))
    space_lose (space, run->length);
}

void
space_release_batches (struct space *space, uint64_t batch)
{
  struct pending_chunk *chunk;

  pthread_mutex_lock (&space->mutex);
  CHECK (batch < space->batch);
  while ((chunk = space->pending_first) != NULL) {
    while (chunk->first < chunk->count && chunk->runs[chunk->first].batch <= batch)
      release_run (space, &chunk->runs[chunk->first++]);
    if (chunk->first < chunk->count)
      break;
    space->pending_first = chunk->next;
    if (chunk->next == NULL)
      space->pending_last = NULL;
    if (space->pending_spare == NULL)
      space->pending_spare = chunk;
    else
      free (chunk);
  }
  pthread_mutex_unlock (&space->mutex);
}

/* --- passing down --- */

/* What is left of the run whose beginning was passed down last: group after group is done with, and
 * needs its bitmaps no more. */
static bool
find_rest_to_discard (struct space *space, uint32_t most, struct found *found)
{
  uint64_t number = place_group (space, space->discard_next);
  uint32_t start = place_in_group (space, space->discard_next);

  if (number >= space->groups_known || space->groups[number].busy == NULL
      || space->groups[number].is_refused)
    return false;
  *found = (struct found) { number, start, group_held_at (space, number, start, most) };
  return found->length > 0;
}

/* Finds held blocks: first long runs, then ever shorter ones. */
static bool
find_to_discard (struct space *space, uint32_t most, struct found *found)
{
  uint32_t wanted = most;

  if (space->discard_bound == 0 || most == 0)
    return false;
  if (find_rest_to_discard (space, most, found))
    return true;
  for (;; wanted /= DISCARD_ROUND) {
    wanted = MAX (1u, MIN (wanted, space->discard_bound));
    for (uint64_t i = 0; i < space->groups_known; i++)
      if (! space->groups[i].is_refused && space->groups[i].held_longest >= wanted
          && find_in_group (space, i, wanted, true, found)) {
        found->length = group_held_at (space, i, found->start, most);
        return true;
      }
    space->discard_bound = wanted - 1;
    if (wanted == 1)
      return false;
  }
}

uint64_t
space_discard_begin (struct space *space, uint64_t max, uint64_t *place)
{
  struct space_counts *counts = &space->counts;
  struct found found = { 0, 0, 0 };
  uint64_t most;

  pthread_mutex_lock (&space->mutex);
  most = counts->free > counts->reserved ? counts->free - counts->reserved : 0;
  most = MIN (MIN (most, max), space->geometry.group_blocks);
  /* What is promised must stay allocatable meanwhile. */
  if (counts->undiscarded > 0 && find_to_discard (space, most, &found)
      && space_open_enough (space, counts->reserved + found.length)) {
    *place = found.number * space->geometry.group_blocks + found.start;
    group_take (space, found.number, found.start, found.length);
    counts->discarding += found.length;
    space->discard_next = *place + found.length;
  } else
    found.length = 0;
  pthread_mutex_unlock (&space->mutex);
  return found.length;
}

void
space_discard_end (struct space *space, uint64_t place, uint64_t length, bool ok)
{
  uint64_t number = place_group (space, place);

  pthread_mutex_lock (&space->mutex);
  CHECK (run_is_data (space, place, length) && space->counts.discarding >= length);
  space->counts.discarding -= length;
  if (! ok)
    space->groups[number].is_refused = true;
  if (! group_put (space, number, place_in_group (space, place), length, ! ok))
    space_lose (space, length);
  pthread_mutex_unlock (&space->mutex);
}

/* --- metadata nodes --- */

/* Nodes that a group has room for, and the first of them. */
static uint32_t
group_nodes (const struct space *space)
{
  return space->geometry.meta_blocks / 2;
}

static uint32_t
group_node_first (uint64_t number)
{
  return number == 0 ? SUPERBLOCK_COPIES : 0;
}

/* The node bitmap of a group; NULL: no memory. */
static uint64_t *
group_node_bitmap (struct space *space, uint64_t number)
{
  struct group *group;

  if (! group_know (space, number))
    return NULL;
  group = &space->groups[number];
  if (group->nodes == NULL)
    group->nodes = calloc (divide_up (group_nodes (space), 64), sizeof (uint64_t));
  return group->nodes;
}

static void
node_take (struct space *space, uint64_t number, uint32_t i)
{
  space->groups[number].nodes[i / 64] |= UINT64_C (1) << (i % 64);
  space->groups[number].nodes_used++;
  space->nodes_used++;
  space->end = MAX (space->end,
                    number * space->geometry.group_blocks + group_nodes (space) + i + 1);
}

bool
space_mark_node (struct space *space, uint64_t place)
{
  uint64_t number = place_group (space, place), *bitmap;
  uint32_t i = place_in_group (space, place);
  bool ok = false;

  pthread_mutex_lock (&space->mutex);
  if (number < space->group_count && i >= group_node_first (number) && i < group_nodes (space)) {
    bitmap = group_node_bitmap (space, number);
    ok = bitmap && ! (bitmap[i / 64] >> (i % 64) & 1);
    if (ok)
      node_take (space, number, i);
  }
  pthread_mutex_unlock (&space->mutex);
  return ok;
}

uint64_t
space_allocate_node (struct space *space)
{
  uint64_t number, place = 0, *bitmap;
  uint32_t i;

  pthread_mutex_lock (&space->mutex);
  for (number = space->node_hint; number < space->group_count; number++) {
    bitmap = group_node_bitmap (space, number);
    if (bitmap == NULL)
      break;
    space->node_hint = number;
    i = group_node_first (number);
    if (space->groups[number].nodes_used == group_nodes (space) - i)
      continue;
    while (bitmap[i / 64] >> (i % 64) & 1)
      i = ~bitmap[i / 64] >> (i % 64) == 0 ? (i / 64 + 1) * 64 : i + 1;
    node_take (space, number, i);
    place = number * space->geometry.group_blocks + i;
    break;
  }
  pthread_mutex_unlock (&space->mutex);
  return place;
}

void
node_release (struct space *space, uint64_t place)
{
  uint64_t number = place_group (space, place);
  uint32_t i = place_in_group (space, place);
  struct group *group;

  CHECK (number < space->groups_known && i < group_nodes (space));
  group = &space->groups[number];
  CHECK (group->nodes && group->nodes[i / 64] >> (i % 64) & 1);
  group->nodes[i / 64] &= ~(UINT64_C (1) << (i % 64));
  group->nodes_used--;
  space->nodes_used--;
  space->node_hint = MIN (space->node_hint, number);
}

void
space_free_node (struct space *space, uint64_t place)
{
  pthread_mutex_lock (&space->mutex);
  node_release (space, place);
  pthread_mutex_unlock (&space->mutex);
}

uint64_t
space_node_capacity (struct space *space)
{
  if (space->group_count == 0)
    return 0;
  return space->group_count * group_nodes (space) - SUPERBLOCK_COPIES;
}

uint64_t
space_nodes_used (struct space *space)
{
  uint64_t used;

  pthread_mutex_lock (&space->mutex);
  used = space->nodes_used;
  pthread_mutex_unlock (&space->mutex);
  return used;
}

/* --- tests --- */

void
space_verify (struct space *space)
{
  const struct space_counts *counts = &space->counts;
  uint64_t busy = 0, opened = 0, held = 0, pending = 0, nodes = 0;

  pthread_mutex_lock (&space->mutex);
  for (uint64_t i = 0; i < space->groups_known; i++) {
    const struct group *group = &space->groups[i];

    group_verify (space, i);
    busy += group_data_end (space, i) - group_data_first (space, i) - group->free;
    opened += group->busy ? group->free : 0;
    held += group->held_count;
    nodes += group->nodes_used;
  }
  for (struct pending_chunk *chunk = space->pending_first; chunk; chunk = chunk->next)
    for (uint32_t i = chunk->first; i < chunk->count; i++)
      pending += chunk->runs[i].is_unshared ? 0 : chunk->runs[i].length;
  CHECK (counts->free + counts->used + counts->pending + counts->discarding + counts->withheld
         == counts->capacity);
  CHECK (busy == counts->used + counts->pending + counts->discarding + counts->withheld);
  CHECK (held == counts->undiscarded && held <= counts->free);
  CHECK (pending == counts->pending && nodes == space->nodes_used);
  CHECK (opened == space->opened_free);
  shared_verify (space);
  CHECK (opened >= counts->reserved || counts->reserved > counts->free);
  pthread_mutex_unlock (&space->mutex);
}
