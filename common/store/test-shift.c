/* SPDX-License-Identifier: BSD-2-Clause */
/* test-shift.c - collapse range and insert range, against an array of blocks that is moved by hand:
 * in random histories, cut off at every step, and with requests beside them.
 *
 * LACUNA_SEED=n replays one seed. */
#include <errno.h>

#include "store/op-admin.h"
#include "store/test-steps.h"

#define BLOCKS_MAX 1200          /* of the disk */

static struct disk *disk;

/* What the disk holds: a tag per block, 0: zeros. */
static struct model {
  uint64_t tags[BLOCKS_MAX];
  uint64_t size;                 /* blocks */
} model;
static uint64_t last_tag;

/* --- the store --- */

static void
open_store (void)
{
  steps_open ();
  disk = disk_open (store, "d");
}

/* As step, while OP stands still. */
static bool
step_others (const struct op *op)
{
  struct op *other = NULL;
  unsigned ready = find_ready (UINT32_MAX, &other);

  for (unsigned i = 0; i < ready; i++) {
    find_ready (i, &other);
    if (other == op)
      continue;
    context_step (other->context, other);
    return true;
  }
  if (sim_in_flight (image) == 0)
    return false;
  sim_complete (image, 0);
  return true;
}

static int
admin_run (enum admin_kind kind, uint64_t block, uint64_t length)
{
  struct admin admin;

  admin_begin (&admin, kind, block, length);
  run ();
  assert_int_equal (admin.op.pending, 0);
  return admin.op.error;
}

/* A store with one disk "d" of SIZE blocks, and ROOM for that. */
static void
make_full_store (uint64_t size, uint64_t room)
{
  image_make (room);
  open_store ();
  assert_null (disk);
  assert_int_equal (admin_run (ADMIN_CREATE, 0, size), 0);
  disk = disk_open (store, "d");
  assert_non_null (disk);
  memset (&model, 0, sizeof model);
  model.size = size;
}

static void
make_store (uint64_t size)
{
  make_full_store (size, 0);
}

static void
close_store (void)
{
  disk_close (disk);
  disk = NULL;
  steps_close ();
}

static void
crash (enum sim_crash_kind kind)
{
  steps_crash (kind);
  open_store ();
  assert_non_null (disk);
}

static void
end_store (void)
{
  close_store ();
  image_destroy ();
}

/* --- requests --- */

static void
ignore_request (struct request *request)
{
  (void) request;
}

/* A request that runs; a WRITE's blocks get the tags from TAG on. */
static struct request *
request_begin (enum request_kind kind, unsigned flags, uint64_t block, uint64_t count, uint64_t tag)
{
  struct request *request = malloc (sizeof *request);

  request_init (request, context, disk, kind, flags, block * BLOCK_SIZE, count * BLOCK_SIZE,
                ignore_request);
  if (kind == REQUEST_WRITE) {
    assert_true (request_admit (request));
    for (uint64_t i = 0; i < count; i++)
      for (unsigned j = 0; j < BLOCK_SIZE / 8; j++)
        ((uint64_t *) request->frames[i]->data)[j] = tag + i;
  }
  request_start (request);
  return request;
}

static bool
request_is_done (const struct request *request)
{
  return atomic_load (&request->op.pending) == 0;
}

static int
request_end (struct request *request)
{
  int result = request->op.error;

  assert_true (request_is_done (request));
  request_release (request);
  free (request);
  return result;
}

static int
request_run (enum request_kind kind, unsigned flags, uint64_t block, uint64_t count, uint64_t tag)
{
  struct request *request = request_begin (kind, flags, block, count, tag);

  run ();
  return request_end (request);
}

static void
write_some (uint64_t block, uint64_t count)
{
  assert_int_equal (request_run (REQUEST_WRITE, 0, block, count, last_tag + 1), 0);
  for (uint64_t i = 0; i < count; i++)
    model.tags[block + i] = ++last_tag;
}

static void
assert_blocks (const struct request *request, uint64_t block, uint64_t count)
{
  for (uint64_t i = 0; i < count; i++) {
    const struct frame *frame = request->frames[i];
    const uint64_t *data = frame != NULL ? frame->data : NULL;

    assert_int_equal (data != NULL ? data[0] : 0, model.tags[block + i]);
    assert_int_equal (data != NULL ? data[BLOCK_SIZE / 8 - 1] : 0, model.tags[block + i]);
  }
}

static void
assert_same (void)
{
  assert_int_equal (disk_size (disk), model.size * BLOCK_SIZE);
  for (uint64_t at = 0, count; at < model.size; at += count) {
    struct request *request;

    count = MIN (model.size - at, 50);
    request = request_begin (REQUEST_READ, 0, at, count, 0);
    run ();
    assert_int_equal (request->op.error, 0);
    assert_blocks (request, at, count);
    request_end (request);
  }
  btree_verify (&disk->map.tree);
}

/* Every block is data if it has a tag; what was written and is zeros now may be anything. */
static void
assert_status (void)
{
  struct status_extent extents[64];
  struct request request;
  uint64_t block = 0;

  request_init (&request, context, disk, REQUEST_BLOCK_STATUS, 0, 0, model.size * BLOCK_SIZE,
                ignore_request);
  request.extents = extents;
  request.extent_max = ARRAY_COUNT (extents);
  request_start (&request);
  run ();
  assert_int_equal (request.op.error, 0);
  for (uint32_t e = 0; e < request.extent_count; e++)
    for (uint64_t i = 0; i < extents[e].length / BLOCK_SIZE; i++, block++)
      assert_true (model.tags[block] == 0 || extents[e].flags == 0);
  request_release (&request);
}

static void
model_shift (enum admin_kind kind, uint64_t block, uint64_t length)
{
  uint64_t *from = model.tags + block, *to = from + length;

  if (kind == ADMIN_COLLAPSE) {
    memmove (from, to, (model.size - block - length) * sizeof *to);
    model.size -= length;
    return;
  }
  memmove (to, from, (model.size - block) * sizeof *to);
  memset (from, 0, length * sizeof *from);
  model.size += length;
}

/* --- histories --- */

static void
shift_some (void)
{
  bool is_up = model.size < 40 || (model.size < BLOCKS_MAX - 200 && random_below (2));
  uint64_t block = random_below (model.size + is_up), length = 1 + random_below (180);

  if (!is_up)
    length = MIN (length, model.size - MAX (block, 1));
  if (length == 0)
    return;
  assert_int_equal (admin_run (is_up ? ADMIN_INSERT : ADMIN_COLLAPSE, block, length), 0);
  model_shift (is_up ? ADMIN_INSERT : ADMIN_COLLAPSE, block, length);
}

static void
change_some (void)
{
  uint64_t block = random_below (model.size), count = 1 + random_below (12);
  enum request_kind kind = random_below (2) ? REQUEST_TRIM : REQUEST_WRITE_ZEROES;
  unsigned flags = kind == REQUEST_WRITE_ZEROES && random_below (2) ? REQUEST_NO_HOLE : 0;

  count = MIN (count, model.size - block);
  if (random_below (4)) {
    write_some (block, count);
    return;
  }
  assert_int_equal (request_run (kind, flags, block, count, 0), 0);
  memset (model.tags + block, 0, count * sizeof model.tags[0]);
}

static void
run_histories (void)
{
  make_store (60 + random_below (400));
  for (unsigned i = 0; i < 500; i++) {
    switch (random_below (12)) {
    case 0:
    case 1:
      shift_some ();
      break;
    case 2:
      assert_int_equal (request_run (REQUEST_FLUSH, 0, 0, 0, 0), 0);
      break;
    case 3:
      keeper_tick (store);
      break;
    case 4:
      if (random_below (4) == 0)
        keeper_want_checkpoint (store);
      break;
    default:
      change_some ();
    }
    if (i % 50 == 49) {
      if (random_below (3) == 0) {
        close_store ();
        open_store ();
      }
      else if (random_below (2))
        crash (SIM_KILL);
      else {
        assert_int_equal (request_run (REQUEST_FLUSH, 0, 0, 0, 0), 0);
        crash (SIM_POWER);
      }
      assert_same ();
      assert_status ();
    }
    else if (i % 10 == 0)
      assert_same ();
  }
  end_store ();
}

static void
test_histories (void **state)
{
  (void) state;
  for_each_seed (run_histories);
}

/* --- cut off --- */

/* Data, holes, blocks without data; dirty ones, in the journal or not; clean ones; and a neighbour
 * whose extent goes on over the edge of what moves. */
static void
fill_disk (void)
{
  write_some (0, 30);
  assert_int_equal (request_run (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 40, 5, 0), 0);
  assert_int_equal (admin_run (ADMIN_SYNC, 0, 0), 0);
  write_some (8, 3);
  write_some (50, 4);
  assert_int_equal (request_run (REQUEST_FLUSH, 0, 0, 0, 0), 0);
  write_some (12, 2);
  write_some (60, 1);
}

/* After each number of steps; true: it had ended by then. */
static bool
cut_off (enum admin_kind kind, unsigned steps, enum sim_crash_kind how)
{
  const uint64_t block = 10, length = 5;
  struct admin admin;
  bool was_done;

  make_store (80);
  fill_disk ();
  if (how == SIM_POWER)
    assert_int_equal (request_run (REQUEST_FLUSH, 0, 0, 0, 0), 0);
  if (steps % 2)
    keeper_want_checkpoint (store);
  admin_begin (&admin, kind, block, length);
  for (unsigned i = 0; i < steps && step (); i++)
    continue;
  was_done = atomic_load (&admin.op.pending) == 0;
  crash (how);
  if (disk_size (disk) != model.size * BLOCK_SIZE)
    model_shift (kind, block, length);
  else
    assert_false (was_done);
  assert_same ();
  end_store ();
  return was_done;
}

static void
test_cut_off (void **state)
{
  (void) state;
  random_state = 1;
  for (enum admin_kind kind = ADMIN_COLLAPSE; kind <= ADMIN_INSERT; kind++)
    for (enum sim_crash_kind how = SIM_KILL; how <= SIM_POWER; how++) {
      unsigned steps = 0;

      while (!cut_off (kind, steps, how))
        steps++;
      assert_true (steps > 20);
    }
}

/* As soon as anything has changed, a commit brings the item: what is freed may have another owner
 * after it. */
static void
test_item_first (void **state)
{
  struct request *flush;
  struct admin admin;

  (void) state;
  random_state = 1;
  make_store (80);
  fill_disk ();
  admin_begin (&admin, ADMIN_COLLAPSE, 10, 5);
  while (disk_size (disk) == model.size * BLOCK_SIZE
         && extent_map_mapped_in (&disk->map, 10, 5) == 5)
    assert_true (step ());
  flush = request_begin (REQUEST_FLUSH, 0, 0, 0, 0);
  while (!request_is_done (flush))
    assert_true (step_others (&admin.op));
  assert_int_not_equal (atomic_load (&admin.op.pending), 0);
  assert_int_equal (request_end (flush), 0);
  crash (SIM_POWER);
  model_shift (ADMIN_COLLAPSE, 10, 5);
  assert_same ();
  end_store ();
}

/* --- ids --- */

static bool
collapse_with_id (uint64_t id)
{
  struct admin admin;

  admin_init (&admin, context, store, ADMIN_COLLAPSE, "d", ignore_admin);
  admin.offset = 0;
  admin.length = BLOCK_SIZE;
  memcpy (admin.request_id, &id, sizeof id);
  admin_start (&admin);
  run ();
  assert_int_equal (admin.op.error, 0);
  if (!admin.was_done)
    model_shift (ADMIN_COLLAPSE, 0, 1);
  return admin.was_done;
}

static void
test_request_ids (void **state)
{
  (void) state;
  random_state = 1;
  make_store (200);
  write_some (0, 100);
  assert_false (collapse_with_id (1));
  assert_true (collapse_with_id (1));
  assert_false (collapse_with_id (2));
  /* None is none. */
  assert_false (collapse_with_id (0));
  assert_false (collapse_with_id (0));
  crash (SIM_KILL);
  assert_true (collapse_with_id (1));
  assert_true (collapse_with_id (2));
  crash (SIM_POWER);
  assert_true (collapse_with_id (2));
  close_store ();
  open_store ();
  assert_true (collapse_with_id (1));
  for (uint64_t id = 3; id < 3 + DISK_REQUEST_IDS; id++)
    assert_false (collapse_with_id (id));
  assert_true (collapse_with_id (3));
  assert_false (collapse_with_id (2));
  assert_same ();
  end_store ();
}

/* --- what is refused --- */

static void
refused (enum admin_kind kind, uint64_t offset, uint64_t length, int number, const char *why)
{
  struct admin admin;

  admin_init (&admin, context, store, kind, "d", ignore_admin);
  admin.offset = offset;
  admin.length = length;
  admin_start (&admin);
  run ();
  assert_int_equal (admin.op.error, number);
  assert_non_null (strstr (admin.message, why));
}

static void
test_refused (void **state)
{
  const uint64_t size = 50 * BLOCK_SIZE;

  (void) state;
  random_state = 1;
  make_store (50);
  write_some (0, 50);
  refused (ADMIN_COLLAPSE, 0, 0, -EINVAL, "greater than zero");
  refused (ADMIN_COLLAPSE, 512, BLOCK_SIZE, -EINVAL, "the offset 512 is not a multiple");
  refused (ADMIN_INSERT, 0, 1, -EINVAL, "the length 1 is not a multiple");
  refused (ADMIN_COLLAPSE, size - BLOCK_SIZE, 2 * BLOCK_SIZE, -EINVAL, "beyond the disk");
  refused (ADMIN_COLLAPSE, size + BLOCK_SIZE, BLOCK_SIZE, -EINVAL, "beyond the disk");
  refused (ADMIN_COLLAPSE, BLOCK_SIZE, UINT64_MAX - BLOCK_SIZE + 1, -EINVAL, "beyond the disk");
  refused (ADMIN_COLLAPSE, 0, size, -EINVAL, "nothing would be left");
  refused (ADMIN_INSERT, size + BLOCK_SIZE, BLOCK_SIZE, -EINVAL, "beyond the disk");
  refused (ADMIN_INSERT, 0, DISK_SIZE_MAX - size + BLOCK_SIZE, -EINVAL, "too large");
  assert_same ();
  /* The last block of a disk, and a hole behind its end. */
  assert_int_equal (admin_run (ADMIN_COLLAPSE, 49, 1), 0);
  model_shift (ADMIN_COLLAPSE, 49, 1);
  assert_int_equal (admin_run (ADMIN_INSERT, 49, 7), 0);
  model_shift (ADMIN_INSERT, 49, 7);
  assert_same ();
  end_store ();
}

/* As far up as it goes, and back. */
static void
test_far (void **state)
{
  const uint64_t all = DISK_SIZE_MAX / BLOCK_SIZE;
  struct extent extent;

  (void) state;
  random_state = 1;
  make_store (50);
  write_some (0, 50);
  assert_int_equal (admin_run (ADMIN_INSERT, 20, all - 50), 0);
  extent_map_lookup (&disk->map, all - 1, 1, &extent);
  assert_int_equal (extent.state, EXTENT_WRITTEN);
  assert_int_equal (extent_map_extents (&disk->map), 2);
  crash (SIM_POWER);
  assert_int_equal (admin_run (ADMIN_COLLAPSE, 20, all - 50), 0);
  assert_int_equal (extent_map_extents (&disk->map), 1);
  assert_same ();
  end_store ();
}

/* --- faults --- */

/* What is dirty cannot be written: nothing is changed, and nothing is lost. */
static void
test_write_error (void **state)
{
  (void) state;
  random_state = 1;
  make_store (50);
  write_some (0, 50);
  sim_fail (image, IO_WRITE, 0, -EIO, true);
  refused (ADMIN_COLLAPSE, 0, BLOCK_SIZE, -EIO, "nothing was changed");
  sim_heal (image);
  assert_same ();
  assert_int_equal (admin_run (ADMIN_COLLAPSE, 0, 1), 0);
  model_shift (ADMIN_COLLAPSE, 0, 1);
  assert_same ();
  end_store ();
}

/* The record of a collapse cannot be written: the store has failed.  A WRITE that waited must not go to
 * its place, which is that of another block, as far as the device knows. */
static void
test_commit_error (void **state)
{
  (void) state;
  random_state = 1;
  for (unsigned round = 0; round < 20; round++) {
    struct admin admin;
    struct request *write;

    make_store (50);
    write_some (0, 40);
    assert_int_equal (admin_run (ADMIN_SYNC, 0, 0), 0);
    admin_begin (&admin, ADMIN_COLLAPSE, 0, 1);
    while (admin.op.stage != ADMIN_COMMITTED)
      assert_true (step ());
    write = request_begin (REQUEST_WRITE, REQUEST_FUA, 5, 12, 1000);
    sim_fail (image, IO_WRITE, 0, -EIO, false);
    run ();
    assert_int_equal (admin.op.error, -EIO);
    assert_int_equal (request_end (write), -EIO);
    crash (SIM_POWER);
    /* A write that fails may have been done. */
    if (disk_blocks (disk) != model.size)
      model_shift (ADMIN_COLLAPSE, 0, 1);
    assert_same ();
    end_store ();
  }
}

/* A full store: what a collapse removes can be written anew. */
static void
test_full (void **state)
{
  const uint64_t room = 40;

  (void) state;
  random_state = 1;
  make_full_store (100, room);
  write_some (0, room);
  assert_int_equal (request_run (REQUEST_WRITE, 0, 90, 1, 7), -ENOSPC);
  assert_int_equal (admin_run (ADMIN_COLLAPSE, 10, 20), 0);
  model_shift (ADMIN_COLLAPSE, 10, 20);
  write_some (50, 20);
  assert_int_equal (request_run (REQUEST_WRITE, 0, 79, 1, 7), -ENOSPC);
  assert_int_equal (admin_run (ADMIN_INSERT, 15, 20), 0);
  model_shift (ADMIN_INSERT, 15, 20);
  crash (SIM_POWER);
  assert_same ();
  end_store ();
}

/* --- beside others --- */

/* Begins a collapse of [50, 60), and lets it come to where writers are held off while a block that
 * became dirty after its first write-back is to be written. */
static void
begin_quiesced (struct admin *admin)
{
  struct request *write;

  write_some (70, 1);
  admin_begin (admin, ADMIN_COLLAPSE, 50, 10);
  while (sim_in_flight (image) == 0)
    assert_true (step ());
  write = request_begin (REQUEST_WRITE, 0, 71, 1, ++last_tag);
  model.tags[71] = last_tag;
  while (!request_is_done (write))
    assert_true (step ());
  assert_int_equal (request_end (write), 0);
  while (!range_lock_is_held (&disk->range_lock, 50, UINT64_MAX, RANGE_QUIESCE))
    assert_true (step ());
  assert_true (atomic_load (&disk->cache.fresh_count) > 0);
}

/* While the rest is written back writers of the range wait, and nobody else: not who reads it,
 * cached or not, nor who writes before it. */
static void
test_who_waits (void **state)
{
  struct request *inside, *before, *reader, *miss;
  struct admin admin;

  (void) state;
  random_state = 1;
  make_store (600);
  write_some (0, 100);
  assert_int_equal (admin_run (ADMIN_SYNC, 0, 0), 0);
  close_store ();
  open_store ();
  assert_int_equal (request_run (REQUEST_READ, 0, 60, 1, 0), 0);
  begin_quiesced (&admin);
  inside = request_begin (REQUEST_WRITE, 0, 80, 1, 1000);
  before = request_begin (REQUEST_WRITE, 0, 49, 1, 1001);
  reader = request_begin (REQUEST_READ, 0, 60, 1, 0);
  while (context_run (context))
    continue;
  assert_true (request_is_done (before) && request_is_done (reader));
  assert_false (request_is_done (inside));
  assert_blocks (reader, 60, 1);
  miss = request_begin (REQUEST_READ, 0, 90, 1, 0);
  while (!request_is_done (miss)) {
    assert_int_not_equal (atomic_load (&admin.op.pending), 0);
    assert_true (step ());
  }
  run ();
  assert_int_equal (admin.op.error, 0);
  assert_int_equal (request_end (inside), 0);
  assert_int_equal (request_end (before), 0);
  assert_int_equal (request_end (reader), 0);
  assert_int_equal (request_end (miss), 0);
  /* What waited came after: it is where it was to go, then. */
  model.tags[49] = 1001;
  model_shift (ADMIN_COLLAPSE, 50, 10);
  model.tags[80] = 1000;
  assert_same ();
  end_store ();
}

#define TRIMS (TAIL_BYTES / sizeof (struct format_item))

/* Those who wait for the range have all the room in the tail that ops can have: write-back has its
 * own. */
static void
test_tail_promised (void **state)
{
  static struct request *trims[TRIMS];
  struct admin admin;

  (void) state;
  random_state = 1;
  make_store (600);
  write_some (0, 100);
  assert_int_equal (admin_run (ADMIN_SYNC, 0, 0), 0);
  begin_quiesced (&admin);
  for (unsigned i = 0; i < TRIMS; i++)
    trims[i] = request_begin (REQUEST_TRIM, 0, 300 + i % 200, 1, 0);
  run ();
  assert_int_equal (admin.op.pending, 0);
  assert_int_equal (admin.op.error, 0);
  for (unsigned i = 0; i < TRIMS; i++)
    assert_int_equal (request_end (trims[i]), 0);
  model_shift (ADMIN_COLLAPSE, 50, 10);
  assert_same ();
  end_store ();
}

/* A checkpoint has the map frozen when the op gets there: it waits, and readers do not. */
static void
test_checkpoint_first (void **state)
{
  const int hold = ADMIN_OWN + 3;             /* SHIFT_HOLD */
  struct request *reader;
  struct admin admin;

  (void) state;
  random_state = 1;
  make_store (600);
  write_some (0, 100);
  admin_begin (&admin, ADMIN_INSERT, 50, 10);
  while (admin.op.stage != hold)
    assert_true (step ());
  while (list_is_empty (&admin.op.link))
    assert_true (step_others (&admin.op));
  keeper_want_checkpoint (store);
  while (list_is_empty (&store->keeper.checkpoint.frozen))
    assert_true (step_others (&admin.op));
  reader = request_begin (REQUEST_READ, 0, 60, 1, 0);
  /* No I/O ends meanwhile. */
  while (context_run (context) | context_run (store_keeper_context (store)))
    continue;
  assert_true (request_is_done (reader));
  assert_int_equal (request_end (reader), 0);
  assert_false (range_lock_is_held (&disk->range_lock, 50, 50, RANGE_EXCLUSIVE));
  assert_int_equal (disk_size (disk), model.size * BLOCK_SIZE);
  run ();
  assert_int_equal (admin.op.error, 0);
  model_shift (ADMIN_INSERT, 50, 10);
  crash (SIM_POWER);
  assert_same ();
  end_store ();
}

/* A map that takes many steps to move, while a checkpoint is under way, and is cut off in the
 * middle; the blocks before it are written all the time. */
static void
test_many_extents (void **state)
{
  const uint64_t extents = 40000, first = 100;
  struct request *write = NULL;
  struct extent extent;
  struct admin admin;
  unsigned moves = 0;

  (void) state;
  random_state = 1;
  make_store (BLOCKS_MAX);
  assert_int_equal (admin_run (ADMIN_INSERT, 0, 4 * extents), 0);
  for (uint64_t i = 0; i < extents; i++) {
    extent = (struct extent) { first + 2 * i, 1, 0, EXTENT_UNWRITTEN };
    assert_int_equal (space_reserve (store->space, 1), 0);
    assert_int_equal (space_allocate (store->space, disk->id, 0, 1, &extent.place), 1);
    assert_int_equal (extent_map_reserve (&disk->map, 1), 0);
    extent_map_set (&disk->map, &extent, NULL, NULL);
  }
  keeper_want_checkpoint (store);
  while (!store->keeper.checkpoint.has_maps_lock)
    assert_true (step ());
  admin_begin (&admin, ADMIN_COLLAPSE, first, 10);
  while (atomic_load (&admin.op.pending) != 0) {
    if (write == NULL || request_is_done (write)) {
      if (write != NULL)
        request_end (write);
      write = request_begin (REQUEST_WRITE, 0, first - 1, 1, ++last_tag);
    }
    assert_true (step ());
    moves++;
  }
  run ();
  request_end (write);
  assert_int_equal (admin.op.error, 0);
  btree_verify (&disk->map.tree);
  for (uint64_t i = 0; i < extents - 5; i++) {
    extent_map_lookup (&disk->map, first + 2 * i, 2, &extent);
    assert_int_equal (extent.state, EXTENT_UNWRITTEN);
    assert_int_equal (extent.length, 1);
  }
  assert_int_equal (request_run (REQUEST_FLUSH, 0, 0, 0, 0), 0);
  crash (SIM_POWER);
  assert_int_equal (extent_map_mapped_in (&disk->map, first, UINT64_MAX / 8192), extents - 5);
  end_store ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_histories),
    cmocka_unit_test (test_cut_off),
    cmocka_unit_test (test_item_first),
    cmocka_unit_test (test_request_ids),
    cmocka_unit_test (test_refused),
    cmocka_unit_test (test_far),
    cmocka_unit_test (test_write_error),
    cmocka_unit_test (test_commit_error),
    cmocka_unit_test (test_full),
    cmocka_unit_test (test_who_waits),
    cmocka_unit_test (test_tail_promised),
    cmocka_unit_test (test_checkpoint_first),
    cmocka_unit_test (test_many_extents),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
