/* SPDX-License-Identifier: BSD-2-Clause */
/* test-space-shared.c - blocks with several owners, against arrays with one element per block.
 *
 * LACUNA_SEED=n replays one seed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/test-seed.h"
#include "store/space.h"

#define BLOCKS 1024
#define GROUP 256
#define META 16
#define FIRST 40

static const struct space_geometry geometry = {
  .group_blocks = GROUP, .meta_blocks = META, .first_data = FIRST, .capacity = BLOCKS,
};

static struct btree_pool *pool;

/* --- the model --- */

struct model {
  struct space *space;
  uint32_t owners[BLOCKS];
  bool is_pending[BLOCKS];
  uint64_t batch[BLOCKS];              /* of the last loss of an owner: 0 if it is durable */
  uint64_t open_batch;
  bool is_frozen, is_changed;
};

static bool
is_data (uint64_t place)
{
  return place >= FIRST && place < BLOCKS && place % GROUP >= META;
}

static bool
model_is_private (const struct model *model, uint64_t place)
{
  return model->owners[place] == 1 && model->batch[place] == 0;
}

static void
model_assert (struct model *model)
{
  struct space_counts counts;
  uint64_t used = 0, pending = 0, shared = 0, unshared = 0;

  for (uint64_t i = 0; i < BLOCKS; i++) {
    used += model->owners[i] > 0;
    shared += model->owners[i] > 1;
    pending += model->is_pending[i];
    unshared += model->batch[i] != 0 && !model->is_pending[i];
  }
  space_get_counts (model->space, &counts);
  assert_int_equal (counts.used, used);
  assert_int_equal (counts.pending, pending);
  assert_int_equal (counts.shared, shared);
  assert_true (counts.unshared >= unshared);
  space_verify (model->space);
}

/* A random run of blocks that are used. */
static uint64_t
model_pick (const struct model *model, uint64_t *place)
{
  uint64_t start = random_below (BLOCKS), max = 1 + random_below (random_below (3) ? 12 : 200);
  uint64_t length = 0;

  for (uint64_t i = 0; i < BLOCKS && length == 0; i++) {
    *place = (start + i) % BLOCKS;
    while (length < max && *place + length < BLOCKS && model->owners[*place + length] > 0)
      length++;
  }
  return length;
}

/* --- steps --- */

static void
step_allocate (struct model *model)
{
  uint64_t left = 1 + random_below (60), length, place;

  if (space_reserve (model->space, left) != 0)
    return;
  for (; left > 0; left -= length) {
    length = space_allocate (model->space, 1, random_below (BLOCKS), left, &place);
    for (uint64_t i = place; i < place + length; i++) {
      assert_true (is_data (i) && model->owners[i] == 0 && !model->is_pending[i]);
      model->owners[i] = 1;
    }
  }
}

static void
step_share (struct model *model)
{
  uint64_t place, length = model_pick (model, &place);

  if (length == 0)
    return;
  assert_int_equal (space_reserve_changes (model->space, 1, true), 0);
  space_share (model->space, place, length);
  for (uint64_t i = place; i < place + length; i++)
    model->owners[i]++;
  model->is_changed = true;
}

static void
step_free (struct model *model)
{
  uint64_t place, length = model_pick (model, &place);

  if (length == 0)
    return;
  assert_int_equal (space_reserve_changes (model->space, 1, false), 0);
  space_free (model->space, place, length);
  for (uint64_t i = place; i < place + length; i++) {
    model->is_changed |= model->owners[i] > 1;
    model->owners[i]--;
    model->is_pending[i] = model->owners[i] == 0;
    if (model->owners[i] <= 1)
      model->batch[i] = model->open_batch;
  }
}

static void
step_batch (struct model *model)
{
  uint64_t batch, back = random_below (3);

  assert_int_equal (space_close_batch (model->space), model->open_batch);
  model->open_batch++;
  batch = model->open_batch - 1 - MIN (back, model->open_batch - 1);
  space_release_batches (model->space, batch);
  for (uint64_t i = 0; i < BLOCKS; i++)
    if (model->batch[i] != 0 && model->batch[i] <= batch) {
      model->batch[i] = 0;
      model->is_pending[i] = false;
    }
}

static void
step_private (struct model *model)
{
  uint64_t place, most = model_pick (model, &place), length = most, same = 0;
  bool is_private;

  if (most == 0)
    return;
  is_private = space_is_private (model->space, place, &length);
  assert_true (length >= 1 && length <= most);
  while (same < length && model_is_private (model, place + same) == is_private)
    same++;
  assert_int_equal (same, length);
  assert_true (space_count_runs (model->space, place, most) <= most);
}

/* A checkpoint begins or ends; while it lasts the table goes on changing.  Nodes are not really
 * written, but get their places. */
static void
step_freeze (struct model *model)
{
  if (!model->is_frozen) {
    model->is_frozen = space_freeze_shared (model->space);
    assert_int_equal (model->is_frozen, model->is_changed);
    model->is_changed = false;
    return;
  }
  model->is_frozen = false;
  model->is_changed = true;
  space_thaw_shared (model->space, false);
}

static void
run_steps (void)
{
  static struct model model;

  for (unsigned round = 0; round < 4; round++) {
    memset (&model, 0, sizeof model);
    model.space = space_create (&geometry, pool);
    model.open_batch = 1;
    for (unsigned i = 0; i < 800; i++) {
      switch (random_below (10)) {
      case 0:
        step_allocate (&model);
        break;
      case 1 ... 3:
        step_share (&model);
        break;
      case 4 ... 6:
        step_free (&model);
        break;
      case 7:
        step_batch (&model);
        break;
      case 8:
        step_private (&model);
        break;
      default:
        step_freeze (&model);
      }
      model_assert (&model);
    }
    if (model.is_frozen)
      space_thaw_shared (model.space, false);
    space_destroy (model.space);
  }
}

static void
test_steps (void **state)
{
  (void) state;
  for_each_seed (run_steps);
}

/* Opening: the table must know of all that is marked more than once; what it has too much goes. */
static void
run_marks (void)
{
  static uint32_t owners[BLOCKS];
  struct space *space = space_create (&geometry, pool);
  struct space_owners wrong;
  uint64_t odd = UINT64_MAX, corrected;
  bool is_more = random_below (2);

  memset (owners, 0, sizeof owners);
  for (unsigned i = 0; i < 60; i++) {
    uint64_t place = FIRST + random_below (BLOCKS - FIRST), length = 1 + random_below (20);

    while (length > 0 && (!is_data (place + length - 1) || !is_data (place)
                          || place / GROUP != (place + length - 1) / GROUP))
      length--;
    if (length == 0)
      continue;
    if (!space_mark_used (space, place, length))
      assert_true (space_mark_shared (space, place, length));
    for (uint64_t j = place; j < place + length; j++) {
      assert_int_equal (space_reserve_changes (space, 1, true), 0);
      if (owners[j]++ > 0)
        space_table_share (space, j, 1);
    }
  }
  assert_false (space_mark_shared (space, META - 1, 2));
  assert_false (space_mark_shared (space, BLOCKS - 1, 2));
  if (random_below (2)) {
    do
      odd = random_below (BLOCKS);
    while (owners[odd] == 0 || (!is_more && owners[odd] == 1));
    if (is_more)
      space_table_share (space, odd, 1);
    else
      space_table_release (space, odd, 1, NULL, NULL, NULL);
  }
  assert_int_equal (space_check_owners (space, false, &corrected, &wrong),
                    odd == UINT64_MAX || is_more);
  assert_int_equal (corrected, odd != UINT64_MAX && is_more);
  if (odd != UINT64_MAX && !is_more) {
    assert_true (wrong.place <= odd && odd < wrong.place + wrong.length);
    assert_int_equal (wrong.found, owners[odd]);
    assert_int_equal (wrong.expected, owners[odd] - 1);
  }
  else
    for (uint64_t i = 0; i < BLOCKS; i++)
      if (owners[i] > 0) {
        uint64_t one = 1;

        assert_int_equal (space_is_private (space, i, &one), owners[i] == 1);
      }
  assert_true (space_check_table (space));
  space_verify (space);
  space_destroy (space);
}

static void
test_marks (void **state)
{
  (void) state;
  for_each_seed (run_marks);
}

/* A block that is left with one owner is not private before that is durable. */
static void
test_private_when_durable (void **state)
{
  struct space *space = space_create (&geometry, pool);
  uint64_t place, length = 4, batch;

  (void) state;
  assert_int_equal (space_reserve (space, 4), 0);
  assert_int_equal (space_allocate (space, 1, 0, 4, &place), 4);
  assert_true (space_is_private (space, place, &length));
  space_share (space, place, 3);
  assert_false (space_is_private (space, place, &length));
  assert_int_equal (length, 3);
  batch = space_close_batch (space);
  space_free (space, place, 2);
  space_release_batches (space, batch);
  length = 4;
  assert_false (space_is_private (space, place, &length));
  space_release_batches (space, space_close_batch (space));
  length = 4;
  assert_true (space_is_private (space, place, &length));
  assert_int_equal (length, 2);
  space_destroy (space);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_steps),
    cmocka_unit_test (test_marks),
    cmocka_unit_test (test_private_when_durable),
  };
  int failed;

  pool = btree_pool_create ();
  failed = cmocka_run_group_tests (tests, NULL, NULL);
  btree_pool_destroy (pool);
  return failed;
}
