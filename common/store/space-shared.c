/* SPDX-License-Identifier: BSD-2-Clause */
/* space-shared.c - blocks with more than one owner; see space.h.
 *
 * Three sets of runs, each with a number per run, and all as B+trees that look like the table on
 * the device:
 *   shared    owners of those blocks that have several: the table itself
 *   unshared  how many batches, in which a block fell to one owner, are not durable yet
 *   seen      at the opening, owners found in the maps; to be compared with the table
 *
 * They are empty in a store in which nothing was cloned, and `special` says so without a lock.
 */
#include "base/bytes.h"
#include "base/check.h"
#include "store/format.h"
#include "store/space-groups.h"

#define RUN_LENGTH_MAX UINT64_C (0xffffffff)

/* Nodes that a change of one run can need, in the two trees together, where it has them alone: a
 * leaf that is frozen and copied, or split; and those of the upper levels that no other has. */
#define CHANGE_NODES 3

/* --- numbered runs --- */

static uint64_t
entry_length (const struct btree_entry *entry)
{
  return entry->value >> 32;
}

static uint32_t
entry_number (const struct btree_entry *entry)
{
  return entry->value & UINT32_MAX;
}

static uint64_t
entry_end (const struct btree_entry *entry)
{
  return entry->key + entry_length (entry);
}

static void
numbers_insert (struct run_numbers *numbers, uint64_t place, uint64_t length, uint32_t number)
{
  CHECK (length > 0 && length <= RUN_LENGTH_MAX);
  btree_insert (&numbers->tree, (struct btree_entry) { place, length << 32 | number });
}

/* The number at PLACE, and of how many blocks from there on, up to MAX, it is the number. */
static uint32_t
numbers_at (const struct run_numbers *numbers, uint64_t place, uint64_t max, uint64_t *length)
{
  struct btree_entry entry;

  if (btree_floor (&numbers->tree, place, &entry) && entry_end (&entry) > place) {
    *length = MIN (max, entry_end (&entry) - place);
    return entry_number (&entry);
  }
  *length = btree_ceiling (&numbers->tree, place, &entry) ? MIN (max, entry.key - place) : max;
  return numbers->base;
}

/* Takes [place, end), which lies within one run or in none, out of it. */
static void
numbers_cut (struct run_numbers *numbers, uint64_t place, uint64_t end)
{
  struct btree_entry entry;

  if (! btree_floor (&numbers->tree, place, &entry) || entry_end (&entry) <= place)
    return;
  numbers->blocks -= end - place;
  if (entry.key < place)
    numbers_insert (numbers, entry.key, place - entry.key, entry_number (&entry));
  else
    btree_remove (&numbers->tree, entry.key);
  if (entry_end (&entry) > end)
    numbers_insert (numbers, end, entry_end (&entry) - end, entry_number (&entry));
}

/* Gives [place, end), which is in no run, NUMBER, in one run with the neighbours that have it. */
static void
numbers_join (struct run_numbers *numbers, uint64_t place, uint64_t end, uint32_t number)
{
  struct btree_entry entry;

  numbers->blocks += end - place;
  if (btree_floor (&numbers->tree, place, &entry) && entry_end (&entry) == place
      && entry_number (&entry) == number && end - entry.key <= RUN_LENGTH_MAX)
    place = entry.key;
  if (btree_ceiling (&numbers->tree, end, &entry) && entry.key == end
      && entry_number (&entry) == number && entry_end (&entry) - place <= RUN_LENGTH_MAX) {
    btree_remove (&numbers->tree, entry.key);
    end = entry_end (&entry);
  }
  numbers_insert (numbers, place, end - place, number);
}

/* Sets the number of a run that has one number all over. */
static void
numbers_set (struct run_numbers *numbers, uint64_t place, uint64_t length, uint32_t number)
{
  numbers_cut (numbers, place, place + length);
  if (number != numbers->base)
    numbers_join (numbers, place, place + length, number);
}

static void
numbers_change (struct run_numbers *numbers, uint64_t place, uint64_t length, int change)
{
  uint64_t part;

  for (uint64_t end = place + length; place < end; place += part) {
    uint32_t number = numbers_at (numbers, place, end - place, &part);

    CHECK (change < 0 ? number > numbers->base : number < UINT32_MAX);
    numbers_set (numbers, place, part, number + change);
  }
}

/* The first run, or rest of one, from *PLACE on: where, how long, and its number; false: none. */
static bool
numbers_next (const struct run_numbers *numbers, uint64_t *place, uint64_t *length,
              uint32_t *number)
{
  struct btree_entry entry;

  if ((! btree_floor (&numbers->tree, *place, &entry) || entry_end (&entry) <= *place)
      && ! btree_ceiling (&numbers->tree, *place, &entry))
    return false;
  *place = MAX (*place, entry.key);
  *length = entry_end (&entry) - *place;
  *number = entry_number (&entry);
  return true;
}

static void
numbers_verify (const struct run_numbers *numbers)
{
  struct btree_entry entry = { 0 };
  uint64_t blocks = 0, end = 0, key = 0;
  uint32_t number = numbers->base;

  for (; btree_ceiling (&numbers->tree, key, &entry); key = entry.key + 1) {
    CHECK (entry.key >= end && entry_number (&entry) > numbers->base);
    CHECK (entry.key > end || entry_number (&entry) != number);
    end = entry_end (&entry);
    number = entry_number (&entry);
    blocks += entry_length (&entry);
  }
  CHECK (blocks == numbers->blocks);
}

/* --- owners --- */

void
shared_init (struct space *space, struct btree_pool *pool)
{
  space->shared.base = space->seen.base = 1;
  btree_init (&space->shared.tree, pool);
  btree_init (&space->unshared.tree, pool);
  btree_init (&space->seen.tree, pool);
}

static void
shared_changed (struct space *space)
{
  atomic_store_explicit (&space->special,
                         space->shared.tree.entry_count + space->unshared.tree.entry_count,
                         memory_order_relaxed);
}

void
shared_release (struct space *space, uint64_t place, uint64_t length, space_run *freed,
                space_run *unshared, void *arg)
{
  uint64_t part;

  for (uint64_t end = place + length; place < end; place += part) {
    uint32_t owners = numbers_at (&space->shared, place, end - place, &part);

    if (owners == 1) {
      if (freed)
        freed (arg, place, part);
      continue;
    }
    numbers_set (&space->shared, place, part, owners - 1);
    space->is_shared_changed = true;
    if (owners == 2 && unshared)
      unshared (arg, place, part);
  }
  shared_changed (space);
}

void
unshared_change (struct space *space, uint64_t place, uint64_t length, int change)
{
  numbers_change (&space->unshared, place, length, change);
  shared_changed (space);
}

uint64_t
space_change_nodes (struct space *space, uint64_t runs, bool is_sharing)
{
  uint64_t leaves;

  if (! is_sharing && atomic_load_explicit (&space->special, memory_order_relaxed) == 0)
    return 0;
  pthread_mutex_lock (&space->mutex);
  leaves = space->shared.tree.node_count + space->unshared.tree.node_count;
  pthread_mutex_unlock (&space->mutex);
  /* Many runs cannot each have a leaf of its own: there are not more than now, and what new ones
   * come of splitting, each with some 80 entries. */
  return MIN (CHANGE_NODES * runs, 2 * leaves + runs / 16) + CHANGE_NODES * BTREE_DEPTH_MAX;
}

int
space_reserve_changes (struct space *space, uint64_t runs, bool is_sharing)
{
  return btree_pool_ensure_nodes (space->shared.tree.pool,
                                  space_change_nodes (space, runs, is_sharing));
}

uint64_t
space_count_runs (struct space *space, uint64_t place, uint64_t length)
{
  uint64_t count = 0, part;

  if (atomic_load_explicit (&space->special, memory_order_relaxed) == 0)
    return 1;
  pthread_mutex_lock (&space->mutex);
  for (uint64_t end = place + length; place < end; place += part) {
    numbers_at (&space->shared, place, end - place, &part);
    count++;
  }
  pthread_mutex_unlock (&space->mutex);
  return count;
}

static void
shared_add (struct space *space, uint64_t place, uint64_t length)
{
  numbers_change (&space->shared, place, length, 1);
  space->is_shared_changed = true;
  shared_changed (space);
}

void
space_table_share (struct space *space, uint64_t place, uint64_t length)
{
  pthread_mutex_lock (&space->mutex);
  shared_add (space, place, length);
  pthread_mutex_unlock (&space->mutex);
}

void
space_share (struct space *space, uint64_t place, uint64_t length)
{
  pthread_mutex_lock (&space->mutex);
  CHECK (run_is_data (space, place, length));
  CHECK (group_is_busy (space, place_group (space, place), place_in_group (space, place), length));
  shared_add (space, place, length);
  pthread_mutex_unlock (&space->mutex);
}

void
space_table_release (struct space *space, uint64_t place, uint64_t length, space_run *freed,
                     space_run *unshared, void *arg)
{
  pthread_mutex_lock (&space->mutex);
  shared_release (space, place, length, freed, unshared, arg);
  pthread_mutex_unlock (&space->mutex);
}

bool
space_is_private (struct space *space, uint64_t place, uint64_t *length)
{
  uint64_t shared, unshared;
  bool is_private;

  if (atomic_load_explicit (&space->special, memory_order_relaxed) == 0)
    return true;
  pthread_mutex_lock (&space->mutex);
  is_private = numbers_at (&space->shared, place, *length, &shared) == space->shared.base;
  if (numbers_at (&space->unshared, place, *length, &unshared) != space->unshared.base) {
    /* Both say no: where one of them ends, the other may still. */
    if (is_private)
      shared = unshared;
    is_private = false;
  } else if (is_private)
    shared = MIN (shared, unshared);
  *length = shared;
  pthread_mutex_unlock (&space->mutex);
  return is_private;
}

/* --- opening --- */

bool
space_check_table (struct space *space)
{
  struct run_numbers *shared = &space->shared;
  struct btree_entry entry;
  uint64_t key = 0, end = 0;

  shared->blocks = 0;
  for (; btree_ceiling (&shared->tree, key, &entry); key = entry.key + 1) {
    if (entry.key < end || entry_number (&entry) < 2 || entry_number (&entry) > OWNERS_MAX
        || ! run_is_data (space, entry.key, entry_length (&entry)))
      return false;
    end = entry_end (&entry);
    shared->blocks += entry_length (&entry);
  }
  shared_changed (space);
  return true;
}

bool
seen_again (struct space *space, uint64_t place, uint64_t length)
{
  if (btree_pool_ensure (space->seen.tree.pool, 2) < 0)
    return false;
  numbers_change (&space->seen, place, length, 1);
  return true;
}

/* Whether no block has more owners than the table says. */
static bool
owners_are_known (struct space *space, struct space_owners *wrong)
{
  uint64_t length;
  uint32_t found;

  for (uint64_t place = 0; numbers_next (&space->seen, &place, &length, &found); place += length) {
    uint32_t expected = numbers_at (&space->shared, place, length, &length);

    if (found <= expected)
      continue;
    *wrong = (struct space_owners) { place, length, found, expected };
    return false;
  }
  return true;
}

/* Takes owners that do not exist out of the table. */
static bool
owners_correct (struct space *space, uint64_t *corrected)
{
  uint64_t length;
  uint32_t expected;

  for (uint64_t place = 0; numbers_next (&space->shared, &place, &length, &expected);
       place += length) {
    uint32_t found = numbers_at (&space->seen, place, length, &length);

    if (found == expected)
      continue;
    if (btree_pool_ensure (space->shared.tree.pool, 3) < 0)
      return false;
    numbers_set (&space->shared, place, length, found);
    space->is_shared_changed = true;
    *corrected += length;
  }
  return true;
}

bool
space_check_owners (struct space *space, bool may_lack, uint64_t *corrected,
                    struct space_owners *wrong)
{
  bool ok;

  *corrected = 0;
  *wrong = (struct space_owners) { 0 };
  ok = owners_are_known (space, wrong) && (may_lack || owners_correct (space, corrected));
  shared_changed (space);
  btree_clear (&space->seen.tree);
  space->seen.blocks = 0;
  return ok;
}

/* --- writing --- */

struct btree *
space_shared_tree (struct space *space)
{
  return &space->shared.tree;
}

bool
space_freeze_shared (struct space *space)
{
  bool is_changed;

  pthread_mutex_lock (&space->mutex);
  is_changed = space->is_shared_changed;
  space->is_shared_changed = false;
  if (is_changed)
    btree_freeze (&space->shared.tree);
  pthread_mutex_unlock (&space->mutex);
  return is_changed;
}

static void
shared_node_released (void *space, uint64_t place)
{
  node_release (space, place);
}

void
space_thaw_shared (struct space *space, bool written)
{
  pthread_mutex_lock (&space->mutex);
  btree_thaw (&space->shared.tree, written, shared_node_released, space);
  space->is_shared_changed |= ! written;
  pthread_mutex_unlock (&space->mutex);
}

/* --- tests --- */

void
shared_verify (const struct space *space)
{
  numbers_verify (&space->shared);
  numbers_verify (&space->unshared);
  btree_verify (&space->shared.tree);
  btree_verify (&space->unshared.tree);
  CHECK (space->special == space->shared.tree.entry_count + space->unshared.tree.entry_count);
}
