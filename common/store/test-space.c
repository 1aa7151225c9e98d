/* SPDX-License-Identifier: BSD-2-Clause */
/* test-space.c - space against an array with one element per block.
 *
 * LACUNA_SEED=n replays one seed. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/test-seed.h"
#include "store/space-groups.h"

/* Of the tables of shared runs. */
static struct btree_pool *pool;

/* --- the model --- */

#define BLOCKS_MAX 4096

enum state { META, FREE, HELD, USED, PENDING, DISCARDING };

struct model {
  struct space_geometry geometry;
  struct space *space;
  enum state state[BLOCKS_MAX];
  uint64_t batch[BLOCKS_MAX];          /* of pending blocks */
  bool is_refused[BLOCKS_MAX];         /* by group */
  bool node[BLOCKS_MAX];
  uint64_t nodes, reserved, open_batch;
};

static uint64_t
model_group (const struct model *model, uint64_t place)
{
  return place / model->geometry.group_blocks;
}

/* The end of the run from PLACE on that is in one state, free and held being one, or not. */
static uint64_t
model_run_end (const struct model *model, uint64_t place, uint64_t max, bool held_is_free)
{
  enum state state = model->state[place];
  uint64_t end = place;

  while (end < model->geometry.capacity && end - place < max
         && (model->state[end] == state
             || (held_is_free && model->state[end] == HELD && state == FREE)
             || (held_is_free && model->state[end] == FREE && state == HELD)))
    end++;
  return end;
}

static bool
model_is_free (const struct model *model, uint64_t place)
{
  return place < model->geometry.capacity
         && (model->state[place] == FREE || model->state[place] == HELD);
}

static uint64_t
model_count (const struct model *model, enum state state)
{
  uint64_t count = 0;

  for (uint64_t i = 0; i < model->geometry.capacity; i++)
    count += model->state[i] == state;
  return count;
}

static void
model_assert_counts (struct model *model)
{
  struct space_counts counts;

  space_get_counts (model->space, &counts);
  assert_int_equal (counts.undiscarded, model_count (model, HELD));
  assert_int_equal (counts.free, model_count (model, FREE) + counts.undiscarded);
  assert_int_equal (counts.used, model_count (model, USED));
  assert_int_equal (counts.pending, model_count (model, PENDING));
  assert_int_equal (counts.discarding, model_count (model, DISCARDING));
  assert_int_equal (counts.reserved, model->reserved);
  assert_int_equal (counts.capacity,
                    counts.free + counts.used + counts.pending + counts.discarding);
  assert_int_equal (space_nodes_used (model->space), model->nodes);
  space_verify (model->space);
}

static void
model_create (struct model *model)
{
  struct space_geometry *geometry = &model->geometry;

  memset (model, 0, sizeof *model);
  geometry->group_blocks = 64 << random_below (4);
  geometry->meta_blocks = 8 << random_below (3);
  geometry->first_data = geometry->meta_blocks + random_below (20);
  geometry->capacity = geometry->first_data + 1;
  geometry->capacity += random_below (BLOCKS_MAX - geometry->capacity);
  model->space = space_create (geometry, pool);
  model->open_batch = 1;
  for (uint64_t i = 0; i < geometry->capacity; i++)
    if (i >= geometry->first_data && i % geometry->group_blocks >= geometry->meta_blocks)
      model->state[i] = FREE;
  model_assert_counts (model);
}

/* Some place in this state, a run of it, 0 if there is none. */
static uint64_t
model_pick (const struct model *model, enum state state, uint64_t *place)
{
  uint64_t start = random_below (model->geometry.capacity);

  for (uint64_t i = 0; i < model->geometry.capacity; i++) {
    *place = (start + i) % model->geometry.capacity;
    if (model->state[*place] == state)
      return model_run_end (model, *place, 1 + random_below (60), false) - *place;
  }
  return 0;
}

/* --- steps --- */

static void
step_reserve (struct model *model)
{
  uint64_t free = model_count (model, FREE) + model_count (model, HELD);
  uint64_t count = random_below (free + 10);

  if (random_below (2))
    count = random_below (20);
  assert_int_equal (space_reserve (model->space, count),
                    count + model->reserved <= free ? 0 : -ENOSPC);
  if (count + model->reserved <= free)
    model->reserved += count;
  if (random_below (4) == 0 && model->reserved > 0) {
    count = random_below (model->reserved);
    space_unreserve (model->space, count);
    model->reserved -= count;
  }
}

static uint64_t
model_longest (const struct model *model)
{
  uint64_t longest = 0, end;

  for (uint64_t i = 0; i < model->geometry.capacity; i = end) {
    end = i + 1;
    if (! model_is_free (model, i))
      continue;
    end = model_run_end (model, i, UINT64_MAX, true);
    longest = MAX (longest, end - i);
  }
  return longest;
}

static void
step_allocate (struct model *model)
{
  uint64_t wanted = 1 + random_below (random_below (4) ? 30 : 600), goal = 0, place = 0, length;
  uint64_t limit = MIN (wanted, model->reserved), at;

  if (model->reserved == 0)
    return;
  if (random_below (2))
    goal = random_below (model->geometry.capacity + 20);
  length = space_allocate (model->space, random_below (5), goal, wanted, &place);
  assert_true (length >= 1 && length <= limit);
  for (uint64_t i = 0; i < length; i++)
    assert_true (model_is_free (model, place + i));
  at = goal;
  if (goal > 0 && model_is_free (model, goal)) {
    assert_int_equal (place, goal);
    assert_int_equal (length, model_run_end (model, goal, limit, true) - goal);
  } else {
    /* A goal where metadata is means the data behind. */
    while (goal > 0 && at < model->geometry.capacity && model->state[at] == META)
      at++;
    if (place != at)
      assert_int_equal (length, MIN (limit, model_longest (model)));
  }
  for (uint64_t i = 0; i < length; i++)
    model->state[place + i] = USED;
  model->reserved -= length;
  assert_true (space_end (model->space) >= place + length);
}

static void
step_free (struct model *model)
{
  uint64_t place, length = model_pick (model, USED, &place);

  if (length == 0)
    return;
  for (uint64_t i = 0; i < length; i++) {
    model->state[place + i] = PENDING;
    model->batch[place + i] = model->open_batch;
  }
  if (random_below (6)) {
    space_free (model->space, place, length);
    return;
  }
  space_unallocate (model->space, place, length);
  for (uint64_t i = 0; i < length; i++)
    model->state[place + i] = HELD;
  model->reserved += length;
}

static void
step_batch (struct model *model)
{
  uint64_t batch, back = random_below (3);

  assert_int_equal (space_close_batch (model->space), model->open_batch);
  model->open_batch++;
  batch = model->open_batch - 1 - MIN (back, model->open_batch - 1);
  space_release_batches (model->space, batch);
  for (uint64_t i = 0; i < model->geometry.capacity; i++)
    if (model->state[i] == PENDING && model->batch[i] <= batch) {
      model->state[i] = HELD;
      model->is_refused[model_group (model, i)] = false;
    }
}

static void
step_discard (struct model *model)
{
  uint64_t free = model_count (model, FREE) + model_count (model, HELD);
  uint64_t max = 1 + random_below (100), place, length;
  bool can = false, ok = random_below (4) != 0;

  for (uint64_t i = 0; i < model->geometry.capacity; i++)
    can |= model->state[i] == HELD && ! model->is_refused[model_group (model, i)];
  length = space_discard_begin (model->space, max, &place);
  assert_int_equal (length > 0, can && free > model->reserved);
  assert_true (length <= max && model->reserved + length <= free);
  for (uint64_t i = 0; i < length; i++) {
    assert_int_equal (model->state[place + i], HELD);
    model->state[place + i] = DISCARDING;
  }
  if (length)
    assert_false (model->is_refused[model_group (model, place)]);
  length = model_pick (model, DISCARDING, &place);
  if (length == 0 || random_below (2))
    return;
  space_discard_end (model->space, place, length, ok);
  for (uint64_t i = 0; i < length; i++)
    model->state[place + i] = ok ? FREE : HELD;
  if (! ok)
    model->is_refused[model_group (model, place)] = true;
}

/* The lowest free node, 0 if there is none: nodes lie where there is data, too. */
static uint64_t
model_lowest_node (const struct model *model)
{
  const struct space_geometry *geometry = &model->geometry;

  for (uint64_t i = 4; i < geometry->capacity; i++)
    if (i % geometry->group_blocks < geometry->meta_blocks / 2 && ! model->node[i]
        && (i < geometry->group_blocks
            || i / geometry->group_blocks * geometry->group_blocks + geometry->meta_blocks
                 < geometry->capacity))
      return i;
  return 0;
}

static void
step_node (struct model *model)
{
  uint64_t place = random_below (model->geometry.capacity);

  if (random_below (3) && model->node[place]) {
    assert_false (space_mark_node (model->space, place));
    space_free_node (model->space, place);
    model->node[place] = false;
    model->nodes--;
    return;
  }
  place = space_allocate_node (model->space);
  assert_int_equal (place, model_lowest_node (model));
  assert_int_equal (place == 0, model->nodes == space_node_capacity (model->space));
  if (place == 0)
    return;
  model->node[place] = true;
  model->nodes++;
}

static void
run_steps (void)
{
  static struct model model;

  for (unsigned round = 0; round < 6; round++) {
    model_create (&model);
    for (unsigned i = 0; i < 1500; i++) {
      switch (random_below (9)) {
      case 0:
        step_reserve (&model);
        break;
      case 1 ... 3:
        step_allocate (&model);
        break;
      case 4:
      case 5:
        step_free (&model);
        break;
      case 6:
        step_batch (&model);
        break;
      case 7:
        step_discard (&model);
        break;
      default:
        step_node (&model);
      }
      model_assert_counts (&model);
    }
    space_destroy (model.space);
  }
}

static void
test_steps (void **state)
{
  (void) state;
  for_each_seed (run_steps);
}

/* Opening: what is marked counts, what is marked twice or is no data is refused. */
static void
run_marks (void)
{
  static struct model model;
  uint64_t place, length, end;
  bool ok;

  model_create (&model);
  for (unsigned i = 0; i < 300; i++) {
    place = random_below (model.geometry.capacity + 10);
    length = 1 + random_below (30);
    ok = true;
    for (uint64_t j = 0; j < length; j++)
      ok &= model_is_free (&model, place + j);
    assert_int_equal (space_mark_used (model.space, place, length), ok);
    for (uint64_t j = 0; ok && j < length; j++)
      model.state[place + j] = USED;
    model_assert_counts (&model);
  }
  end = random_below (model.geometry.capacity + 100);
  space_mark_undiscarded (model.space, end);
  for (uint64_t i = 0; i < MIN (end, model.geometry.capacity); i++)
    if (model.state[i] == FREE)
      model.state[i] = HELD;
  model_assert_counts (&model);
  for (uint64_t i = 0; i < 4; i++)
    assert_false (space_mark_node (model.space, i));
  assert_false (space_mark_node (model.space, model.geometry.meta_blocks / 2));
  assert_false (space_mark_node (model.space, UINT64_MAX));
  assert_false (space_mark_used (model.space, UINT64_MAX - 1, 2));
  assert_false (space_mark_used (model.space, model.geometry.first_data, UINT64_MAX));
  space_reserve_again (model.space, model.geometry.capacity);
  while ((length = space_allocate (model.space, 1, 0, 100, &place)) > 0)
    ;
  space_destroy (model.space);
}

static void
test_marks (void **state)
{
  (void) state;
  for_each_seed (run_marks);
}

/* --- policy --- */

static const struct space_geometry big = {
  .group_blocks = 32768, .meta_blocks = 512, .first_data = 9000, .capacity = UINT64_C (1) << 36,
};

/* Two disks written in turn, each in order, by goals: few extents each, and a short store. */
static void
test_streams (void **state)
{
  struct space *space = space_create (&big, pool);
  uint64_t goal[2] = { 0, 0 }, extents[2] = { 0, 0 }, place, length;

  (void) state;
  for (unsigned i = 0; i < 2 * 1024; i++) {
    uint64_t left = 256;

    assert_int_equal (space_reserve (space, left), 0);
    while (left > 0) {
      length = space_allocate (space, i % 2, goal[i % 2], left, &place);
      extents[i % 2] += place != goal[i % 2];
      goal[i % 2] = place + length;
      left -= length;
    }
  }
  print_message ("%d and %d extents of 1 GiB, the store ends at %d\n", (int) extents[0],
                 (int) extents[1], (int) space_end (space));
  assert_true (extents[0] <= 16 && extents[1] <= 16);
  assert_true (space_end (space) < 20 * big.group_blocks);
  space_verify (space);
  space_destroy (space);
}

/* What the host holds is used again before what it never gave. */
static void
test_prefers_held (void **state)
{
  struct space *space = space_create (&big, pool);
  uint64_t place, again;

  (void) state;
  assert_int_equal (space_reserve (space, 300), 0);
  assert_int_equal (space_allocate (space, 1, 0, 100, &place), 100);
  assert_int_equal (space_allocate (space, 1, 0, 100, &again), 100);
  assert_int_equal (again, place + 100);
  space_free (space, place, 100);
  space_release_batches (space, space_close_batch (space));
  assert_int_equal (space_allocate (space, 1, 0, 60, &again), 60);
  assert_int_equal (again, place);
  assert_int_equal (space_allocate (space, 1, 0, 40, &again), 40);
  assert_int_equal (again, place + 60);
  space_destroy (space);
}

/* A store without a limit costs memory for what it uses only. */
static void
test_far_places (void **state)
{
  struct space *space = space_create (&big, pool);
  struct space_counts counts;
  uint64_t place, most = 10 * big.group_blocks;

  (void) state;
  assert_true (space_mark_used (space, big.group_blocks * 1000 + 600, 5));
  assert_int_equal (space_reserve (space, UINT64_MAX), -ENOSPC);
  assert_int_equal (space_reserve (space, most), 0);
  while (most > 0)
    most -= space_allocate (space, 1, 0, most, &place);
  assert_true (place < 12 * big.group_blocks);
  space_get_counts (space, &counts);
  assert_int_equal (counts.used, 10 * big.group_blocks + 5);
  space_verify (space);
  space_destroy (space);
}

/* Nor does one of which the host may hold all, as after a crash: groups of which it holds all have
 * bitmaps only while that is passed down. */
static void
test_far_held (void **state)
{
  enum { GROUPS = 20000 };
  struct space *space = space_create (&big, pool);
  struct space_counts counts;
  uint64_t place, length, last = 0, held, opened;

  (void) state;
  assert_true (space_mark_used (space, big.group_blocks * (GROUPS - 1) + 600, 5));
  space_mark_undiscarded (space, big.group_blocks * GROUPS);
  space_get_counts (space, &counts);
  held = counts.undiscarded;
  assert_int_equal (held, (big.group_blocks - big.meta_blocks) * GROUPS - 5
                            - (MAX (big.first_data, big.meta_blocks) - big.meta_blocks));
  for (unsigned i = 0; i < 10000; i++) {
    length = space_discard_begin (space, 4096, &place);
    assert_true (length > 0 && place >= last);
    last = place;
    held -= length;
    space_discard_end (space, place, length, true);
  }
  space_get_counts (space, &counts);
  assert_int_equal (counts.undiscarded, held);
  opened = 0;
  for (uint64_t i = 0; i < space->groups_known; i++)
    opened += space->groups[i].busy != NULL;
  assert_true (opened <= 4);
  space_verify (space);
  space_destroy (space);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_steps),
    cmocka_unit_test (test_marks),
    cmocka_unit_test (test_streams),
    cmocka_unit_test (test_prefers_held),
    cmocka_unit_test (test_far_places),
    cmocka_unit_test (test_far_held),
  };

  int failed;

  pool = btree_pool_create ();
  failed = cmocka_run_group_tests (tests, NULL, NULL);
  btree_pool_destroy (pool);
  return failed;
}
