/* SPDX-License-Identifier: BSD-2-Clause */
/* test-recovery.c - opening and checkpoints where the simulator does not come: stores that were
 * changed by hand, and events at a certain moment of a checkpoint.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/test-seed.h"
#include "device/device-sim.h"
#include "store/store-internal.h"

#define BLOCKS 131072
#define META_BLOCKS 4096
#define HALF_BLOCKS 64
#define TAIL_BYTES 65536
#define DATA_FIRST (META_BLOCKS + JOURNAL_HALVES * HALF_BLOCKS)

static const struct store_geometry geometry = {
  .group_blocks = BLOCKS,
  .meta_blocks = META_BLOCKS,
  .journal_half_blocks = HALF_BLOCKS,
  .capacity = BLOCKS,
};
static const uint8_t uuid[16] = { 1, 2, 3 };

/* Stores are abandoned here, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

static char arena_path[64];
static struct sim_image *image;
static struct store *store;
static struct context *context;
static char *error;
static uint64_t cache_bytes = 4 * MIB;

/* --- running --- */

static int
open_image (const char *arena, bool is_read_only)
{
  struct store_options options = {
    .device = sim_device_create (image),
    .arena_path = arena,
    .cache_bytes = cache_bytes,
    .tail_bytes = TAIL_BYTES,
    .is_read_only = is_read_only,
    .has_own_keeper = true,
  };
  int result = store_open (&options, &store, &error);

  if (result == 0)
    context = store_context_create (store);
  return result;
}

static void
make_store (const char *arena)
{
  struct sim_options options = { .seed = 1, .length = BLOCKS, .length_max = BLOCKS };
  struct device *device;

  image = sim_image_create (&options);
  device = sim_device_create (image);
  assert_int_equal (store_init_device (device, &geometry, uuid, &error), 0);
  device_close (device);
  assert_int_equal (open_image (arena, false), 0);
}

/* Runs what can run; false: there is nothing left to be done. */
static bool
step (void)
{
  bool ran = context_run (context);

  ran |= context_run (store_keeper_context (store));
  if (!ran && sim_in_flight (image) > 0) {
    sim_complete (image, 0);
    ran = true;
  }
  return ran;
}

static void
run (void)
{
  while (step ())
    continue;
}

static void
ignore_admin (struct admin *admin)
{
  (void) admin;
}

static void
begin_admin (struct admin *admin, enum admin_kind kind, const char *name, const char *new_name)
{
  admin_init (admin, context, store, kind, name, ignore_admin);
  admin->size = kind == ADMIN_CREATE ? GIB : 0;
  snprintf (admin->new_name, sizeof admin->new_name, "%s", new_name);
  admin_start (admin);
}

static void
do_admin (enum admin_kind kind, const char *name)
{
  struct admin admin;

  begin_admin (&admin, kind, name, "");
  run ();
  assert_int_equal (admin.op.error, 0);
}

static void
ignore_request (struct request *request)
{
  (void) request;
}

static void
write_blocks (const char *name, uint64_t block, uint64_t count)
{
  struct disk *disk = disk_open (store, name);
  struct request request;

  request_init (&request, context, disk, REQUEST_WRITE, 0, block * BLOCK_SIZE, count * BLOCK_SIZE,
                ignore_request);
  assert_true (request_admit (&request));
  request_start (&request);
  run ();
  assert_int_equal (request.op.error, 0);
  request_release (&request);
  disk_close (disk);
}

static void
close_store (void)
{
  store_context_destroy (store, context);
  assert_int_equal (store_close (store, &error), 0);
}

static void
kill_store (void)
{
  context_abandon (context);
  list_remove (&context->link);
  context_destroy (context);
  store_abandon (store);
  sim_crash (image, SIM_KILL);
}

static void
refused (int result)
{
  assert_int_equal (result, -EUCLEAN);
  assert_non_null (error);
  free (error);
}

/* --- checkpoints --- */

/* Disks change their order in the table while their nodes are being written. */
static void
test_rename_in_checkpoint (void **state)
{
  const uint64_t extents = 3 * CHECKPOINT_NODES / 2 * LEAF_ENTRIES;
  struct disk_info infos[3];
  struct admin admin;
  struct disk *disk;

  (void) state;
  make_store ("off");
  do_admin (ADMIN_CREATE, "a");
  do_admin (ADMIN_CREATE, "b");
  do_admin (ADMIN_CREATE, "c");
  /* More leaves than are written at once. */
  disk = disk_open (store, "a");
  for (uint64_t i = 0; i < extents; i++) {
    const struct extent extent = { 2 * i, 1, DATA_FIRST + i, EXTENT_UNWRITTEN };

    assert_int_equal (extent_map_reserve (&disk->map, 1), 0);
    extent_map_set (&disk->map, &extent, NULL, NULL);
  }
  keeper_want_checkpoint (store);
  while (store->keeper.checkpoint.disk != disk || sim_in_flight (image) < 2)
    assert_true (step ());
  begin_admin (&admin, ADMIN_RENAME, "a", "z");
  run ();
  assert_int_equal (admin.op.error, 0);
  assert_int_equal (store->keeper.checkpoint.error, 0);
  kill_store ();
  assert_int_equal (open_image ("off", false), 0);
  assert_int_equal (store_list_disks (store, infos, 3), 3);
  assert_string_equal (infos[1].name, "c");
  assert_string_equal (infos[2].name, "z");
  assert_int_equal (infos[2].extents, extents);
  close_store ();
  sim_image_destroy (image);
}

/* One step of the one op that is ready. */
static void
step_once (void)
{
  context_collect (context);
  assert_false (list_is_empty (&context->ready));
  context_step (context, container_of (context->ready.next, struct op, link));
}

/* A shrink in steps, a checkpoint between two of them, and then the process ends: what the new maps
 * still have beyond the end of the disk is free. */
static void
test_shrink_in_steps (void **state)
{
  const uint64_t extents = 4 * ZERO_STEP_EXTENTS, left = 8;
  struct disk_info info;
  struct admin admin;
  struct disk *disk;
  uint64_t sequence;

  (void) state;
  make_store ("off");
  do_admin (ADMIN_CREATE, "a");
  disk = disk_open (store, "a");
  for (uint64_t i = 0; i < extents; i++) {
    const struct extent extent = { 2 * i, 1, DATA_FIRST + i, EXTENT_UNWRITTEN };

    assert_int_equal (extent_map_reserve (&disk->map, 1), 0);
    assert_true (space_mark_used (store->space, extent.place, 1));
    extent_map_set (&disk->map, &extent, NULL, NULL);
  }
  admin_init (&admin, context, store, ADMIN_RESIZE, "a", ignore_admin);
  admin.size = 2 * left * BLOCK_SIZE;
  admin.may_shrink = true;
  admin_start (&admin);
  while (extent_map_extents (&disk->map) == extents)
    step_once ();
  assert_true (extent_map_extents (&disk->map) > left);
  sequence = from_le64 (store->superblock.sequence);
  keeper_want_checkpoint (store);
  while (from_le64 (store->superblock.sequence) == sequence)
    if (!context_run (store_keeper_context (store)))
      sim_complete (image, 0);
  kill_store ();
  assert_int_equal (open_image ("off", false), 0);
  assert_int_equal (store_list_disks (store, &info, 1), 1);
  assert_int_equal (info.size, 2 * left * BLOCK_SIZE);
  assert_int_equal (info.extents, left);
  close_store ();
  sim_image_destroy (image);
}

/* The flush behind a write of the superblock fails. */
static void
fail_superblock (void *arg, const struct io *io, bool is_completion)
{
  (void) arg;
  if (!is_completion && io->kind == IO_WRITE && io->place < SUPERBLOCK_COPIES)
    sim_fail (image, IO_FLUSH, 0, -EIO, false);
}

/* Nobody knows then which superblock counts: the nodes of neither may be overwritten. */
static void
test_superblock_fails (void **state)
{
  struct sim_counts before, after;

  (void) state;
  make_store ("off");
  do_admin (ADMIN_CREATE, "a");
  write_blocks ("a", 0, 16);
  sim_set_trace (image, fail_superblock, NULL);
  keeper_want_checkpoint (store);
  run ();
  assert_true (store_is_failed (store));
  sim_set_trace (image, NULL, NULL);
  sim_heal (image);
  sim_get_counts (image, &before);
  for (unsigned tick = 0; tick < 20; tick++) {
    keeper_tick (store);
    run ();
  }
  sim_get_counts (image, &after);
  assert_int_equal (before.writes, after.writes);
  kill_store ();
  assert_int_equal (open_image ("off", false), 0);
  close_store ();
  sim_image_destroy (image);
}

/* A deleted disk that waits to be forgotten waits on while the store is read-only. */
static void
test_read_only (void **state)
{
  struct sim_counts before, after;

  (void) state;
  make_store ("off");
  do_admin (ADMIN_CREATE, "a");
  write_blocks ("a", 0, 16);
  do_admin (ADMIN_DELETE, "a");
  close_store ();
  assert_int_equal (open_image ("off", true), 0);
  sim_get_counts (image, &before);
  for (unsigned tick = 0; tick < 20; tick++) {
    keeper_tick (store);
    run ();
  }
  sim_get_counts (image, &after);
  assert_int_equal (before.writes, after.writes);
  assert_false (store_is_failed (store));
  close_store ();
  sim_image_destroy (image);
}

/* More dirty blocks than the tail and the journal have room for the items of. */
static void
test_close_dirty (void **state)
{
  (void) state;
  cache_bytes = GIB;
  make_store ("off");
  do_admin (ADMIN_CREATE, "a");
  /* Or there would never be so many of blocks that have no place. */
  store->keeper.unmapped_max = UINT64_MAX;
  for (uint64_t i = 0; i < 20000; i++)
    write_blocks ("a", 2 * i, 1);
  assert_true (cache_dirty_count (store->cache) > 19000);
  close_store ();
  cache_bytes = 4 * MIB;
  assert_int_equal (open_image ("off", true), 0);
  assert_true (space_end (store->space) >= DATA_FIRST + 20000);
  close_store ();
  sim_image_destroy (image);
}

/* --- damage --- */

static void
seal_node (uint8_t *block, uint64_t place)
{
  struct format_node *node = (struct format_node *) block;

  node->checksum = to_le64 (format_node_checksum (block));
  sim_poke (image, place, block);
  sim_poke (image, place + geometry.meta_blocks / 2, block);
}

/* A catalogue, well sealed, of a disk whose number is the last there is. */
static void
test_last_disk_id (void **state)
{
  _Alignas (8) uint8_t super[BLOCK_SIZE], catalogue[BLOCK_SIZE], disk[BLOCK_SIZE];
  struct format_superblock *superblock = (struct format_superblock *) super;
  struct format_leaf_entry *entry
    = (struct format_leaf_entry *) (catalogue + sizeof (struct format_node));
  uint64_t root;

  (void) state;
  make_store ("off");
  do_admin (ADMIN_CREATE, "a");
  close_store ();
  sim_peek (image, 0, super);
  if (from_le32 (superblock->is_clean) == 0)
    sim_peek (image, 2, super);
  root = from_le64 (superblock->catalogue.place);
  sim_peek (image, root, catalogue);
  sim_peek (image, from_le64 (entry->value), disk);
  entry->key = ((struct format_node *) disk)->owner = to_le64 (UINT64_MAX);
  seal_node (disk, from_le64 (entry->value));
  seal_node (catalogue, root);
  superblock->catalogue.checksum = ((struct format_node *) catalogue)->checksum;
  for (uint64_t copy = 0; copy < 2; copy++) {
    uint64_t place = from_le64 (superblock->sequence) % 2 * 2 + copy;

    format_superblock_seal (superblock, place);
    sim_poke (image, place, super);
  }
  refused (open_image ("off", false));
  sim_image_destroy (image);
}

/* Copies of the superblock of another store, as an init that was interrupted leaves them. */
static void
test_two_stores (void **state)
{
  _Alignas (8) uint8_t super[BLOCK_SIZE];

  (void) state;
  make_store ("off");
  close_store ();
  for (uint64_t place = 2; place < SUPERBLOCK_COPIES; place++) {
    sim_peek (image, place, super);
    ((struct format_superblock *) super)->uuid[0] ^= 1;
    format_superblock_seal ((struct format_superblock *) super, place);
    sim_poke (image, place, super);
  }
  refused (open_image ("off", false));
  sim_image_destroy (image);
}

/* Whatever a killed process left in the arena, the store opens, or says why not. */
static void
test_damaged_arena (void **state)
{
  struct sim_image *whole;
  static uint8_t bytes[8 * MIB];
  struct arena_header *header;
  uint64_t tail, tail_bytes;
  ssize_t length;
  unsigned opened = 0;
  int fd;

  (void) state;
  make_store (arena_path);
  do_admin (ADMIN_CREATE, "a");
  write_blocks ("a", 0, 40);
  write_blocks ("a", 100, 20);
  for (unsigned tick = 0; tick < 10; tick++)
    keeper_tick (store);
  run ();
  write_blocks ("a", 10, 40);
  keeper_write_back_all (store);
  write_blocks ("a", 5, 10);
  header = store->arena->header;
  tail = store->arena->tail - (uint8_t *) header + atomic_load (&header->tail_start) % TAIL_BYTES;
  tail_bytes = atomic_load (&header->tail_end) - atomic_load (&header->tail_start);
  assert_true (tail_bytes > 0);
  kill_store ();
  whole = image;
  fd = open (arena_path, O_RDONLY);
  length = pread (fd, bytes, sizeof bytes, 0);
  close (fd);
  assert_true (length > 0 && length < (ssize_t) sizeof bytes);
  random_state = 1;
  for (unsigned i = 0; i < 400; i++) {
    /* The header; those of the frames that are used first; the items. */
    uint64_t at = i % 3 == 0   ? random_below (sizeof *header) / 8 * 8
                  : i % 3 == 1 ? BLOCK_SIZE
                                   + random_below (60 * sizeof (struct arena_frame)) / 8 * 8
                               : tail + random_below (tail_bytes) / 8 * 8;
    uint64_t value = random_below (3) == 0 ? random_number () : random_below (64);

    fd = open (arena_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (random_below (2) == 0)
      value = UINT64_MAX - value;
    assert_int_equal (pwrite (fd, bytes, length, 0), length);
    assert_int_equal (pwrite (fd, &value, 8, at), 8);
    close (fd);
    image = sim_image_clone (whole, i);
    sim_crash (image, SIM_KILL);
    if (open_image (arena_path, false) == 0) {
      opened++;
      kill_store ();
    }
    else {
      assert_non_null (error);
      free (error);
    }
    sim_image_destroy (image);
  }
  assert_true (opened > 0);
  sim_image_destroy (whole);
  unlink (arena_path);
}

/* --- files --- */

/* What lies beyond the end of a file that was cut off is not taken for zeros. */
static void
test_cut_off (void **state)
{
  char path[80];
  struct store_options options = { .path = path, .arena_path = "off" };

  (void) state;
  snprintf (path, sizeof path, "%s.store", arena_path);
  assert_int_equal (store_init (path, 64 * MIB, false, &error), 0);
  assert_int_equal (truncate (path, 5 * MIB), 0);
  refused (store_open (&options, &store, &error));
  unlink (path);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_rename_in_checkpoint),
    cmocka_unit_test (test_shrink_in_steps),
    cmocka_unit_test (test_superblock_fails),
    cmocka_unit_test (test_read_only),
    cmocka_unit_test (test_close_dirty),
    cmocka_unit_test (test_last_disk_id),
    cmocka_unit_test (test_two_stores),
    cmocka_unit_test (test_damaged_arena),
    cmocka_unit_test (test_cut_off),
  };

  snprintf (arena_path, sizeof arena_path, "/dev/shm/lacuna-test-recovery-%d", (int) getpid ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
