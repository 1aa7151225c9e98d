/* SPDX-License-Identifier: BSD-2-Clause */
/* test-extent-map.c - extent maps against an array with one element per block.
 *
 * LACUNA_SEED=n replays one seed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/test-seed.h"
#include "store/extent-map.h"

/* --- the model --- */

#define BLOCKS 2500

struct model {
  enum extent_state state[BLOCKS];
  uint64_t place[BLOCKS];
  /* What the change under way unmaps: how often each place was told, against what is right. */
  uint64_t told[BLOCKS], expected[BLOCKS];
  unsigned told_count, expected_count;
};

static void
model_told (void *arg, uint64_t place, uint64_t length)
{
  struct model *model = arg;

  for (uint64_t i = 0; i < length; i++) {
    assert_true (model->told_count < BLOCKS);
    model->told[model->told_count++] = place + i;
  }
}

static void
model_assert_told (struct model *model)
{
  assert_int_equal (model->told_count, model->expected_count);
  for (unsigned i = 0; i < model->told_count; i++)
    assert_int_equal (model->told[i], model->expected[i]);
  model->told_count = model->expected_count = 0;
}

static void
model_set (struct model *model, const struct extent *extent)
{
  for (uint64_t i = 0; i < extent->length; i++) {
    uint64_t block = extent->block + i;

    if (model->state[block] != EXTENT_HOLE && model->place[block] != extent->place + i)
      model->expected[model->expected_count++] = model->place[block];
    model->state[block] = extent->state;
    model->place[block] = extent->place + i;
  }
}

/* Whether BLOCK continues the extent that the block before is in. */
static bool
model_continues (const struct model *model, uint64_t block)
{
  return block > 0 && model->state[block] == model->state[block - 1]
         && (model->state[block] == EXTENT_HOLE
             || model->place[block] == model->place[block - 1] + 1);
}

static uint64_t
model_extents (const struct model *model, uint64_t block, uint64_t end)
{
  uint64_t count = 0;

  for (uint64_t i = block; i < end; i++)
    count += model->state[i] != EXTENT_HOLE && (i == block || ! model_continues (model, i));
  return count;
}

static uint64_t
model_mapped (const struct model *model, uint64_t block, uint64_t end)
{
  uint64_t count = 0;

  for (uint64_t i = block; i < end; i++)
    count += model->state[i] != EXTENT_HOLE;
  return count;
}

/* --- looking --- */

static void
assert_scan (struct extent_map *map, const struct model *model, uint64_t block, uint64_t length)
{
  struct extent extents[40];
  unsigned max = 1 + random_below (ARRAY_COUNT (extents)), count;
  uint64_t end = block + length;

  count = extent_map_scan (map, block, length, extents, max);
  assert_true (count > 0 && count <= max);
  for (unsigned i = 0; i < count; i++) {
    assert_int_equal (extents[i].block, block);
    assert_int_equal (extents[i].state, model->state[block]);
    assert_int_equal (extents[i].place, extents[i].state ? model->place[block] : 0);
    assert_true (extents[i].length > 0);
    for (uint64_t j = 1; j < extents[i].length; j++)
      assert_true (model_continues (model, block + j));
    block += extents[i].length;
    assert_true (block <= end);
    assert_true (block == end || ! model_continues (model, block));
  }
  assert_true (block == end || count == max);
}

struct check {
  const struct model *model;
  uint64_t block, count;
};

static int
check_visit (void *arg, const struct extent *extent)
{
  struct check *check = arg;

  assert_true (extent->block >= check->block);
  check->block = extent->block + extent->length;
  for (uint64_t i = 0; i < extent->length; i++) {
    assert_int_equal (check->model->state[extent->block + i], extent->state);
    assert_int_equal (check->model->place[extent->block + i], extent->place + i);
  }
  check->count++;
  return 0;
}

static void
assert_same (struct extent_map *map, const struct model *model)
{
  struct check check = { .model = model };
  uint64_t mapped = model_mapped (model, 0, BLOCKS);

  btree_verify (&map->tree);
  assert_int_equal (extent_map_mapped (map), mapped);
  assert_int_equal (extent_map_extents (map), model_extents (model, 0, BLOCKS));
  assert_int_equal (extent_map_check (map, BLOCKS, check_visit, &check), 0);
  assert_int_equal (check.count, extent_map_extents (map));
  assert_int_equal (extent_map_mapped (map), mapped);
}

/* --- changing --- */

static void
clear_some (struct extent_map *map, struct model *model, uint64_t block, uint64_t length)
{
  unsigned max = random_below (6);
  uint64_t cleared, left = max;

  cleared = extent_map_clear (map, block, length, max, model_told, model);
  for (uint64_t i = 0; i < cleared; i++) {
    uint64_t at = block + i;

    if (model->state[at] == EXTENT_HOLE)
      continue;
    model->expected[model->expected_count++] = model->place[at];
    if (i == 0 || ! model_continues (model, at)) {
      assert_true (left > 0);
      left--;
    }
  }
  assert_true (cleared == length || (left == 0 && model->state[block + cleared] != EXTENT_HOLE));
  for (uint64_t i = 0; i < cleared; i++)
    model->state[block + i] = EXTENT_HOLE;
}

static void
change_one (struct extent_map *map, struct model *model)
{
  uint64_t block = random_below (BLOCKS), most = random_below (8) ? 9 : BLOCKS;
  uint64_t length = 1 + random_below (MIN (BLOCKS - block, most));
  struct extent extent = { block, length, 1 + random_below (PLACE_MAX - BLOCKS),
                           random_below (2) ? EXTENT_WRITTEN : EXTENT_UNWRITTEN };

  assert_int_equal (extent_map_reserve (map, 1), 0);
  switch (random_below (5)) {
  case 0:
    clear_some (map, model, block, length);
    break;
  case 1:                       /* another state, the same place */
    if (model->state[block] == EXTENT_HOLE)
      return;
    extent.place = model->place[block];
    extent_map_set (map, &extent, model_told, model);
    model_set (model, &extent);
    break;
  case 2:                       /* places that continue each other */
    extent.place = 1000 + block;
    extent.state = EXTENT_WRITTEN;
    /* fallthrough */
  default:
    extent_map_set (map, &extent, model_told, model);
    model_set (model, &extent);
  }
  model_assert_told (model);
}

/* The end of the disk is at BLOCKS: what a move up would push beyond is cleared first. */
static void
shift_some (struct extent_map *map, struct model *model)
{
  uint64_t block = random_below (BLOCKS), length = 1 + random_below (BLOCKS - block), at = 0;
  uint64_t clear = BLOCKS - length, rest = BLOCKS - block - length;
  unsigned leaves = 1;
  bool is_up = random_below (2), is_done;

  if (! is_up)
    clear = block;
  assert_int_equal (extent_map_reserve_shift (map, 2), 0);
  extent_map_clear (map, clear, length, UINT32_MAX, NULL, NULL);
  memmove (model->state + (is_up ? block + length : block),
           model->state + (is_up ? block : block + length), rest * sizeof model->state[0]);
  memmove (model->place + (is_up ? block + length : block),
           model->place + (is_up ? block : block + length), rest * sizeof model->place[0]);
  memset (model->state + (is_up ? block : block + rest), 0, length * sizeof model->state[0]);
  do {
    is_done = is_up ? extent_map_shift_up (map, block, length, leaves, &at)
                    : extent_map_shift_down (map, block, length, leaves, &at);
    /* Before it things go on; what is mapped there may continue what is being moved. */
    for (unsigned i = 0; i < 4 && block > 0; i++) {
      uint64_t first = random_below (2) ? block - 1 : random_below (block);
      struct extent extent = { first, 1 + random_below (block - first), 1000 + first,
                               EXTENT_WRITTEN };

      assert_int_equal (extent_map_reserve (map, 1), 0);
      extent_map_set (map, &extent, NULL, NULL);
      model_set (model, &extent);
    }
  } while (! is_done);
  model->expected_count = 0;
  assert_same (map, model);
}

static void
run_changes (void)
{
  struct btree_pool *pool = btree_pool_create ();
  static struct model model;
  struct extent_map map;

  memset (&model, 0, sizeof model);
  extent_map_init (&map, pool);
  for (unsigned i = 0; i < 8000; i++) {
    uint64_t block = random_below (BLOCKS), length = 1 + random_below (BLOCKS - block), step;
    unsigned max = 1 + random_below (10);

    change_one (&map, &model);
    if (i % 64 == 0)
      shift_some (&map, &model);
    assert_scan (&map, &model, block, length);
    if (i % 8)
      continue;
    assert_same (&map, &model);
    assert_int_equal (extent_map_mapped_in (&map, block, length),
                      model_mapped (&model, block, block + length));
    step = extent_map_step (&map, block, length, max);
    if (step == length)
      assert_true (model_extents (&model, block, block + length) <= max);
    else {
      assert_int_equal (model_extents (&model, block, block + step), max);
      assert_int_equal (model_extents (&model, block, block + step + 1), max + 1);
    }
  }
  assert_int_equal (extent_map_clear (&map, 0, UINT64_MAX, UINT32_MAX, NULL, NULL), UINT64_MAX);
  assert_int_equal (extent_map_mapped (&map), 0);
  extent_map_destroy (&map);
  assert_int_equal (btree_pool_nodes (pool), 0);
  btree_pool_destroy (pool);
}

static void
test_changes (void **state)
{
  (void) state;
  for_each_seed (run_changes);
}

static void
test_long (void **state)
{
  struct btree_pool *pool = btree_pool_create ();
  const uint64_t last = DISK_SIZE_MAX / BLOCK_SIZE - 1;
  struct extent extents[8], extent = { 10, 3 * EXTENT_LENGTH_MAX - 5, 77, EXTENT_WRITTEN };
  struct extent_map map;

  (void) state;
  extent_map_init (&map, pool);
  assert_int_equal (extent_map_reserve (&map, 10), 0);
  extent_map_set (&map, &extent, NULL, NULL);
  assert_int_equal (extent_map_extents (&map), 3);
  assert_int_equal (extent_map_scan (&map, 0, last, extents, 8), 5);
  assert_int_equal (extents[3].length, EXTENT_LENGTH_MAX - 5);
  /* The last one grows to the most, and no further. */
  extent = (struct extent) { 10 + 3 * EXTENT_LENGTH_MAX - 5, 5,
                             77 + 3 * EXTENT_LENGTH_MAX - 5, EXTENT_WRITTEN };
  extent_map_set (&map, &extent, NULL, NULL);
  assert_int_equal (extent_map_extents (&map), 3);
  extent.block += 5;
  extent.place += 5;
  extent_map_set (&map, &extent, NULL, NULL);
  assert_int_equal (extent_map_extents (&map), 4);
  /* Nor does one in front of it. */
  extent = (struct extent) { 9, 1, 76, EXTENT_WRITTEN };
  extent_map_set (&map, &extent, NULL, NULL);
  assert_int_equal (extent_map_extents (&map), 5);
  extent = (struct extent) { last, 1, PLACE_MAX, EXTENT_UNWRITTEN };
  extent_map_set (&map, &extent, NULL, NULL);
  extent_map_lookup (&map, last, 1, &extents[0]);
  assert_int_equal (extents[0].place, PLACE_MAX);
  assert_int_equal (extents[0].state, EXTENT_UNWRITTEN);
  assert_int_equal (extent_map_clear (&map, last, 1, 1, NULL, NULL), 1);
  extent_map_destroy (&map);
  btree_pool_destroy (pool);
}

/* Entries that no map has. */
static void
test_bad_entries (void **state)
{
  static const struct { struct btree_entry entries[2]; uint64_t size; } bad[] = {
    { { { 5 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT | 3 },
        { 8 << MAP_KEY_SHIFT, 90 << MAP_VALUE_PLACE_SHIFT } }, UINT64_MAX },        /* overlap */
    { { { 5 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT },
        { 5 << MAP_KEY_SHIFT | 1, 9 << MAP_VALUE_PLACE_SHIFT } }, UINT64_MAX }, /* two states */
    { { { 5 << MAP_KEY_SHIFT | 2, 9 << MAP_VALUE_PLACE_SHIFT },
        { 8 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT } }, UINT64_MAX },         /* flags */
    { { { 5 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT },
        { 8 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT | 2 } }, 10 },             /* too far */
    { { { 5 << MAP_KEY_SHIFT, 0 },
        { 8 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT } }, UINT64_MAX },         /* no place */
    { { { 5 << MAP_KEY_SHIFT, PLACE_MAX << MAP_VALUE_PLACE_SHIFT | 1 },
        { 8 << MAP_KEY_SHIFT, 9 << MAP_VALUE_PLACE_SHIFT } }, UINT64_MAX },     /* too far */
  };
  struct btree_pool *pool = btree_pool_create ();
  struct extent_map map;

  (void) state;
  for (unsigned i = 0; i < ARRAY_COUNT (bad); i++) {
    extent_map_init (&map, pool);
    assert_int_equal (extent_map_reserve (&map, 2), 0);
    btree_insert (&map.tree, bad[i].entries[0]);
    btree_insert (&map.tree, bad[i].entries[1]);
    assert_int_equal (extent_map_check (&map, bad[i].size, NULL, NULL), -EUCLEAN);
    extent_map_destroy (&map);
  }
  btree_pool_destroy (pool);
}

static uint64_t
image_place (void *arg)
{
  return ++*(uint64_t *) arg;
}

/* The flag is never in an inner node, so that whoever reads them from the device may search by
 * blocks. */
static void
test_inner_keys (void **state)
{
  struct btree_pool *pool = btree_pool_create ();
  struct format_node_identity identity = { .leaf_kind = KIND_MAP_LEAF,
                                           .inner_kind = KIND_MAP_INNER };
  uint8_t image[BLOCK_SIZE];
  struct btree_writer writer;
  struct extent_map map;
  uint64_t place, last = 0;
  unsigned inner = 0;

  (void) state;
  random_state = 1;
  extent_map_init (&map, pool);
  for (unsigned i = 0; i < 3000; i++) {
    struct extent extent = { 2 * random_below (100000), 1, 2 * i + 1, EXTENT_UNWRITTEN };

    assert_int_equal (extent_map_reserve (&map, 1), 0);
    extent_map_set (&map, &extent, NULL, NULL);
  }
  btree_freeze (&map.tree);
  btree_writer_init (&writer, &map.tree, &identity, image_place, &last);
  while (btree_writer_next (&writer, image, &place)) {
    const struct format_node *node = (const void *) image;
    const struct format_inner_entry *entries = (const void *) (image + sizeof *node);

    for (unsigned i = 0; from_le16 (node->level) > 0 && i < from_le16 (node->count); i++, inner++)
      assert_int_equal (from_le64 (entries[i].key) & MAP_KEY_UNWRITTEN, 0);
  }
  assert_true (inner > 10);
  btree_thaw (&map.tree, true, NULL, NULL);
  extent_map_destroy (&map);
  btree_pool_destroy (pool);
}

static void
test_memory (void **state)
{
  struct btree_pool *pool = btree_pool_create ();
  struct extent_map map;

  (void) state;
  random_state = 1;
  extent_map_init (&map, pool);
  for (unsigned i = 0; i < 300000; i++) {
    struct extent extent = { 2 * random_below (UINT64_C (1) << 40), 1, 2 * i + 1, EXTENT_WRITTEN };

    assert_int_equal (extent_map_reserve (&map, 1), 0);
    extent_map_set (&map, &extent, NULL, NULL);
  }
  print_message ("%.1f bytes per extent\n",
                 (double) btree_pool_bytes (pool) / extent_map_extents (&map));
  assert_true (btree_pool_bytes (pool) <= 32 * extent_map_extents (&map));
  extent_map_destroy (&map);
  btree_pool_destroy (pool);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_changes),
    cmocka_unit_test (test_long),
    cmocka_unit_test (test_bad_entries),
    cmocka_unit_test (test_inner_keys),
    cmocka_unit_test (test_memory),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
