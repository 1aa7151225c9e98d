/* SPDX-License-Identifier: BSD-2-Clause */
/* test-btree.c - B+trees against a sorted array, and against a device that is an array of blocks.
 *
 * LACUNA_SEED=n replays one seed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/test-seed.h"
#include "store/btree.h"

/* --- the model: a sorted array --- */

struct model {
  struct btree_entry *entries;
  size_t count;
};

#define MODEL_MAX 60000

/* The first entry with a key >= KEY. */
static size_t
model_find (const struct model *model, uint64_t key)
{
  size_t low = 0, high = model->count, middle;

  while (low < high) {
    middle = (low + high) / 2;
    if (model->entries[middle].key < key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static void
model_insert (struct model *model, struct btree_entry entry)
{
  size_t i = model_find (model, entry.key);

  if (i == model->count || model->entries[i].key != entry.key) {
    assert_true (model->count < MODEL_MAX);
    memmove (model->entries + i + 1, model->entries + i, (model->count - i) * sizeof entry);
    model->count++;
  }
  model->entries[i] = entry;
}

static bool
model_remove (struct model *model, uint64_t key)
{
  size_t i = model_find (model, key);

  if (i == model->count || model->entries[i].key != key)
    return false;
  model->count--;
  memmove (model->entries + i, model->entries + i + 1,
           (model->count - i) * sizeof model->entries[0]);
  return true;
}

static void
model_create (struct model *model)
{
  model->entries = malloc (MODEL_MAX * sizeof model->entries[0]);
  model->count = 0;
  assert_non_null (model->entries);
}

static void
model_copy (struct model *to, const struct model *from)
{
  memcpy (to->entries, from->entries, from->count * sizeof from->entries[0]);
  to->count = from->count;
}

static void
assert_same (const struct btree *tree, const struct model *model)
{
  struct btree_entry *entries = malloc ((model->count + 1) * sizeof *entries);

  btree_verify (tree);
  assert_int_equal (tree->entry_count, model->count);
  assert_int_equal (btree_scan (tree, 0, entries, model->count + 1), model->count);
  if (model->count > 0)
    assert_memory_equal (entries, model->entries, model->count * sizeof *entries);
  free (entries);
}

static void
assert_same_at (const struct btree *tree, const struct model *model, uint64_t key)
{
  size_t i = model_find (model, key);
  size_t below = i < model->count && model->entries[i].key == key ? i + 1 : i;
  struct btree_entry entry;

  assert_int_equal (btree_ceiling (tree, key, &entry), i < model->count);
  if (i < model->count)
    assert_memory_equal (&entry, &model->entries[i], sizeof entry);
  assert_int_equal (btree_floor (tree, key, &entry), below > 0);
  if (below > 0)
    assert_memory_equal (&entry, &model->entries[below - 1], sizeof entry);
}

/* --- changes --- */

/* One burst of changes of one pattern, with keys below LIMIT. */
static void
change_some (struct btree *tree, struct model *model, uint64_t limit, unsigned count)
{
  unsigned pattern = random_below (6);
  uint64_t key = random_below (4) ? random_below (limit) : 0, number;

  /* From 0 on the first nodes of all run empty, which have no sibling in front. */
  for (unsigned i = 0; i < count; i++) {
    assert_int_equal (btree_pool_ensure (tree->pool, 1), 0);
    if (pattern < 2)
      key = random_below (limit);
    else
      key = pattern & 1 ? key + 1 : key - (key > 0);
    if (pattern == 1 || pattern >= 4) {
      assert_int_equal (btree_remove (tree, key), model_remove (model, key));
    } else {
      number = random_number ();
      btree_insert (tree, (struct btree_entry) { key, number });
      model_insert (model, (struct btree_entry) { key, number });
    }
    if (i % 16 == 0)
      assert_same_at (tree, model, random_below (limit));
  }
}

/* Keys move, LEAVES leaves at a time, with changes elsewhere between; what is in the way of a move
 * down goes first. */
static void
shift_some (struct btree *tree, struct model *model, uint64_t limit)
{
  uint64_t from = random_below (limit), delta = 1 + random_below (limit / 4), at;
  unsigned leaves = 1 + random_below (3);
  bool is_up = random_below (2), is_done;
  size_t first;

  if (! is_up)
    for (size_t i; (i = model_find (model, from)) < model->count
                   && model->entries[i].key < from + delta;) {
      assert_true (btree_remove (tree, model->entries[i].key));
      assert_true (model_remove (model, model->entries[i].key));
    }
  first = model_find (model, from);
  for (size_t i = first; i < model->count; i++)
    model->entries[i].key += is_up ? delta : -delta;
  assert_int_equal (btree_ensure_shift (tree, 0), 0);
  at = is_up ? UINT64_MAX : from + delta;
  do {
    is_done = is_up ? btree_shift_up (tree, from, &at, delta, leaves)
                    : btree_shift_down (tree, &at, delta, leaves);
    btree_verify (tree);
    for (unsigned i = 0; from > 0 && i < 30; i++) {
      struct btree_entry entry = { random_below (from), random_number () };

      assert_int_equal (btree_pool_ensure (tree->pool, 1), 0);
      if (random_below (2)) {
        btree_insert (tree, entry);
        model_insert (model, entry);
      } else
        assert_int_equal (btree_remove (tree, entry.key), model_remove (model, entry.key));
    }
  } while (! is_done);
  assert_same (tree, model);
}

static void
run_shifts (void)
{
  struct btree_pool *pool = btree_pool_create ();
  struct model model;
  struct btree tree;

  model_create (&model);
  btree_init (&tree, pool);
  for (unsigned i = 0; i < 60; i++) {
    change_some (&tree, &model, 40000, random_below (2500));
    shift_some (&tree, &model, 40000);
  }
  btree_clear (&tree);
  free (model.entries);
  btree_pool_destroy (pool);
}

static void
test_shifts (void **state)
{
  (void) state;
  for_each_seed (run_shifts);
}

static void
run_changes (void)
{
  struct btree_pool *pool = btree_pool_create ();
  struct model model;
  struct btree tree;
  uint64_t limit = random_below (2) ? 20000 : 40000;

  model_create (&model);
  btree_init (&tree, pool);
  for (unsigned i = 0; i < 80; i++) {
    change_some (&tree, &model, limit, random_below (1500));
    assert_same (&tree, &model);
  }
  assert_int_equal (btree_pool_nodes (pool), tree.node_count);
  while (model.count > 0) {
    uint64_t key = model.entries[random_below (model.count)].key;

    assert_true (model_remove (&model, key));
    assert_true (btree_remove (&tree, key));
    if (model.count % 64 == 0)
      btree_verify (&tree);
  }
  assert_same (&tree, &model);
  assert_int_equal (btree_pool_nodes (pool), 0);
  btree_clear (&tree);
  free (model.entries);
  btree_pool_destroy (pool);
}

static void
test_changes (void **state)
{
  (void) state;
  for_each_seed (run_changes);
}

/* --- the device --- */

#define DEVICE_BLOCKS 4000

struct device {
  uint8_t *blocks;
  bool used[DEVICE_BLOCKS];
  uint64_t used_count;
  uint64_t fail_after;         /* places until there is no more room */
};

static uint64_t
device_place (void *arg)
{
  struct device *device = arg;
  uint64_t place;

  if (device->fail_after-- == 0)
    return 0;
  do
    place = 1 + random_below (DEVICE_BLOCKS - 1);
  while (device->used[place]);
  device->used[place] = true;
  device->used_count++;
  return place;
}

static void
device_released (void *arg, uint64_t place)
{
  struct device *device = arg;

  assert_true (device->used[place]);
  device->used[place] = false;
  device->used_count--;
  /* Whoever reads it now finds out. */
  memset (device->blocks + place * BLOCK_SIZE, 0xa5, BLOCK_SIZE);
}

static void
device_count (void *arg, uint64_t place)
{
  (void) place;
  ++*(uint64_t *) arg;
}

static int
device_read (void *arg, const uint64_t *places, const uint64_t *checksums, size_t count,
             btree_take *take, void *taker)
{
  struct device *device = arg;
  int error = 0;

  assert_true (count > 0);
  (void) checksums;
  /* Any order will do: the last comes first. */
  for (size_t i = count; i-- > 0 && error == 0;) {
    assert_true (i == 0 || places[i] > places[i - 1]);
    error = places[i] < DEVICE_BLOCKS
              ? take (taker, i, device->blocks + places[i] * BLOCK_SIZE)
              : -EIO;
  }
  return error;
}

static const struct format_node_identity identity = {
  .uuid = "0123456789abcde", .owner = 7, .sequence = 3,
  .leaf_kind = KIND_MAP_LEAF, .inner_kind = KIND_MAP_INNER,
};

/* Loads what the device has and compares it; IS_EXACT: no other places are in use. */
static void
assert_device_has (struct device *device, struct btree_pool *pool,
                   const struct format_pointer *root, const struct model *model, bool is_exact)
{
  struct btree loaded;
  uint64_t places = 0;

  btree_init (&loaded, pool);
  assert_int_equal (btree_load (&loaded, root, &identity, device_read, device), 0);
  assert_same (&loaded, model);
  btree_visit_places (&loaded, device_count, &places);
  assert_int_equal (places, loaded.node_count);
  if (is_exact)
    assert_int_equal (places, device->used_count);
  btree_clear (&loaded);
}

/* A tree, and what the device has of it. */
struct checkpoints {
  struct btree_pool *pool;
  struct device *device;
  struct btree tree;
  struct model model, durable, frozen;
  struct format_pointer root;
};

/* One checkpoint, unless QUIET with changes in the middle and failures. */
static void
run_checkpoint (struct checkpoints *c, bool quiet)
{
  static uint8_t image[BLOCK_SIZE] __attribute__ ((aligned (4096)));
  struct device *device = c->device;
  struct btree_writer writer;
  struct format_pointer root;
  uint64_t place;
  bool ok;

  model_copy (&c->frozen, &c->model);
  device->fail_after = quiet || random_below (3) ? UINT64_MAX : random_below (60);
  btree_freeze (&c->tree);
  if (! quiet && random_below (2))
    change_some (&c->tree, &c->model, 30000, random_below (500));
  btree_writer_init (&writer, &c->tree, &identity, device_place, device);
  while (btree_writer_next (&writer, image, &place)) {
    memcpy (device->blocks + place * BLOCK_SIZE, image, BLOCK_SIZE);
    if (! quiet && random_below (20) == 0)
      change_some (&c->tree, &c->model, 30000, random_below (20));
  }
  /* After an error, and sometimes without one, the state before must still be there. */
  assert_true (writer.error == 0 || (writer.error == -ENOSPC && ! quiet));
  ok = writer.error == 0 && (quiet || random_below (5) != 0);
  if (ok) {
    btree_frozen_root (&c->tree, &root);
    assert_device_has (device, c->pool, &root, &c->frozen, false);
    model_copy (&c->durable, &c->frozen);
    c->root = root;
  }
  btree_thaw (&c->tree, ok, device_released, device);
  assert_device_has (device, c->pool, &c->root, &c->durable, quiet);
  assert_same (&c->tree, &c->model);
}

static void
device_use (void *arg, uint64_t place)
{
  struct device *device = arg;

  assert_false (device->used[place]);
  device->used[place] = true;
  device->used_count++;
}

/* The process ends; the next one finds what was durable. */
static void
run_restart (struct checkpoints *c)
{
  btree_clear (&c->tree);
  assert_int_equal (btree_pool_nodes (c->pool), 0);
  assert_int_equal (btree_load (&c->tree, &c->root, &identity, device_read, c->device), 0);
  model_copy (&c->model, &c->durable);
  assert_same (&c->tree, &c->model);
  memset (c->device->used, 0, sizeof c->device->used);
  c->device->used_count = 0;
  btree_visit_places (&c->tree, device_use, c->device);
}

static void
checkpoints_create (struct checkpoints *c)
{
  memset (c, 0, sizeof *c);
  c->pool = btree_pool_create ();
  c->device = calloc (1, sizeof *c->device);
  c->device->blocks = calloc (DEVICE_BLOCKS, BLOCK_SIZE);
  model_create (&c->model);
  model_create (&c->durable);
  model_create (&c->frozen);
  btree_init (&c->tree, c->pool);
}

static void
checkpoints_destroy (struct checkpoints *c)
{
  btree_clear (&c->tree);
  assert_int_equal (btree_pool_nodes (c->pool), 0);
  btree_pool_destroy (c->pool);
  free (c->model.entries);
  free (c->durable.entries);
  free (c->frozen.entries);
  free (c->device->blocks);
  free (c->device);
}

static void
run_checkpoints (void)
{
  struct checkpoints c;

  checkpoints_create (&c);
  for (unsigned i = 0; i < 64; i++) {
    change_some (&c.tree, &c.model, 30000, random_below (1500));
    run_checkpoint (&c, i % 8 == 7);
    if (i % 16 == 11)
      run_restart (&c);
  }
  /* Forgotten: all that the device has of it is told. */
  run_checkpoint (&c, true);
  change_some (&c.tree, &c.model, 30000, 500);
  btree_release_all (&c.tree, device_released, c.device);
  assert_int_equal (c.device->used_count, 0);
  checkpoints_destroy (&c);
}

static void
test_checkpoints (void **state)
{
  (void) state;
  for_each_seed (run_checkpoints);
}

/* A checkpoint of an unchanged tree writes nothing; of one changed entry, the nodes above it. */
static void
test_writes_what_changed (void **state)
{
  struct checkpoints c;
  uint64_t before;

  (void) state;
  random_state = 1;
  checkpoints_create (&c);
  for (uint64_t i = 0; i < 50000; i++) {
    btree_pool_ensure (c.pool, 1);
    btree_insert (&c.tree, (struct btree_entry) { i, i });
    model_insert (&c.model, (struct btree_entry) { i, i });
  }
  run_checkpoint (&c, true);
  before = c.device->used_count;
  assert_int_equal (before, (50000 + 251) / 252 + 3);
  btree_freeze (&c.tree);
  struct btree_writer writer;
  uint8_t image[BLOCK_SIZE];
  uint64_t place;
  btree_writer_init (&writer, &c.tree, &identity, device_place, c.device);
  assert_false (btree_writer_next (&writer, image, &place));
  btree_thaw (&c.tree, true, device_released, c.device);
  btree_insert (&c.tree, (struct btree_entry) { 7, 1 });
  btree_freeze (&c.tree);
  btree_writer_init (&writer, &c.tree, &identity, device_place, c.device);
  for (unsigned i = 0; i < 3; i++)
    assert_true (btree_writer_next (&writer, image, &place));
  assert_false (btree_writer_next (&writer, image, &place));
  btree_thaw (&c.tree, false, device_released, c.device);
  assert_int_equal (c.device->used_count, before);
  checkpoints_destroy (&c);
}

/* --- damage --- */

/* Whatever a node holds, even with a right checksum: an error or a tree, never a crash. */
static void
run_damage (void)
{
  struct checkpoints c;
  struct btree loaded;
  uint8_t *node, saved[BLOCK_SIZE];
  int error;

  checkpoints_create (&c);
  for (unsigned i = 0; i < 40; i++)
    change_some (&c.tree, &c.model, 30000, 1000);
  run_checkpoint (&c, true);
  btree_init (&loaded, c.pool);
  for (unsigned i = 0; i < 1500 && c.device->used_count > 0; i++) {
    uint64_t place = random_below (DEVICE_BLOCKS);
    struct format_pointer root = c.root;

    if (! c.device->used[place] || i % 3 == 0)
      place = from_le64 (c.root.place);
    node = c.device->blocks + place * BLOCK_SIZE;
    memcpy (saved, node, BLOCK_SIZE);
    node[random_below (random_below (2) ? 100 : BLOCK_SIZE)] ^= 1 << random_below (8);
    if (random_below (2)) {
      ((struct format_node *) node)->checksum = to_le64 (format_node_checksum (node));
      if (place == from_le64 (root.place))
        root.checksum = ((struct format_node *) node)->checksum;
    }
    error = btree_load (&loaded, &root, &identity, device_read, c.device);
    assert_true (error == 0 || error == -EUCLEAN || error == -EIO);
    if (error == 0)
      btree_verify (&loaded);
    /* Only what the pointer to the root vouches for is believed. */
    assert_true (error != 0 || root.checksum.raw != c.root.checksum.raw
                 || memcmp (node, saved, BLOCK_SIZE) == 0);
    btree_clear (&loaded);
    memcpy (node, saved, BLOCK_SIZE);
  }
  checkpoints_destroy (&c);
}

static void
test_damage (void **state)
{
  (void) state;
  for_each_seed (run_damage);
}

/* --- memory --- */

/* The Ith of COUNT keys, each once, in the order of a pattern. */
static uint64_t
pattern_key (unsigned pattern, uint64_t i, uint64_t count)
{
  switch (pattern) {
  case 0:                       /* ascending */
    return i;
  case 1:                       /* descending */
    return count - i;
  case 2:                       /* random */
    return random_number ();
  case 3:                       /* many ascending streams */
    return (i % 64 << 32) + i;
  case 4:                       /* from both ends to the middle */
    return i & 1 ? UINT64_C (1) << 40 | i : (UINT64_C (1) << 41) - i;
  default:                      /* every second one, then those between */
    return i < count / 2 ? 2 * i : 2 * (i - count / 2) + 1;
  }
}

static void
test_memory (void **state)
{
  struct btree_pool *pool = btree_pool_create ();
  const uint64_t count = 300000;
  struct btree tree;

  (void) state;
  random_state = 1;
  for (unsigned pattern = 0; pattern < 6; pattern++) {
    btree_init (&tree, pool);
    for (uint64_t i = 0; i < count; i++) {
      btree_pool_ensure (pool, 1);
      btree_insert (&tree, (struct btree_entry) { pattern_key (pattern, i, count), i });
    }
    btree_verify (&tree);
    print_message ("pattern %u: %.1f bytes per entry\n", pattern,
                   (double) btree_pool_bytes (pool) / tree.entry_count);
    assert_true (btree_pool_bytes (pool) <= 32 * tree.entry_count);
    btree_clear (&tree);
  }
  btree_pool_destroy (pool);
}

/* --- threads: the writer needs no mutex --- */

struct writing {
  struct btree *tree;
  uint64_t written;
};

static uint64_t
writing_place (void *arg)
{
  return ++((struct writing *) arg)->written;
}

static void *
writing_run (void *arg)
{
  struct writing *writing = arg;
  struct btree_writer writer;
  uint8_t image[BLOCK_SIZE];
  uint64_t place;

  btree_writer_init (&writer, writing->tree, &identity, writing_place, writing);
  while (btree_writer_next (&writer, image, &place))
    ;
  return NULL;
}

static void
test_threads (void **state)
{
  struct btree_pool *pool = btree_pool_create ();
  struct btree tree;
  struct model model;
  struct writing writing = { .tree = &tree };
  pthread_t thread;

  (void) state;
  random_state = 1;
  model_create (&model);
  btree_init (&tree, pool);
  for (unsigned i = 0; i < 40; i++) {
    change_some (&tree, &model, 30000, 1000);
    btree_freeze (&tree);
    assert_int_equal (pthread_create (&thread, NULL, writing_run, &writing), 0);
    for (unsigned j = 0; j < 10; j++)
      change_some (&tree, &model, 30000, 100);
    pthread_join (thread, NULL);
    btree_thaw (&tree, i % 4 != 0, NULL, NULL);
    assert_same (&tree, &model);
  }
  btree_clear (&tree);
  free (model.entries);
  btree_pool_destroy (pool);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_changes),
    cmocka_unit_test (test_shifts),
    cmocka_unit_test (test_checkpoints),
    cmocka_unit_test (test_writes_what_changed),
    cmocka_unit_test (test_damage),
    cmocka_unit_test (test_memory),
    cmocka_unit_test (test_threads),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
