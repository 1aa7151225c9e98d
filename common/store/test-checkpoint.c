/* SPDX-License-Identifier: BSD-2-Clause */
/* test-checkpoint.c - a power cut at a checkpoint's end, where the one state has not gone and the
 * other not come: while something uses the old half of the journal, or passes down what was freed,
 * before it may; or while records that tell of what the nodes have already are found behind a
 * checkpoint.  Random histories seldom have these beside those few steps; here ops and I/O are held
 * until they are.
 *
 * LACUNA_SEED=n replays one seed. */
#include <errno.h>

#include "store/op-admin.h"
#include "store/test-steps.h"

#define BLOCKS 200                 /* of the disk */

static struct disk *disk;
static uint64_t tags[BLOCKS];      /* what it holds, durably */
static uint64_t last_tag;

/* --- steps --- */

static const struct op *held;      /* it does not go on */
static bool discards_only;         /* no other I/O ends; else they do not */

static bool
step_beside (void)
{
  struct op *op = NULL;
  unsigned ready = find_ready (UINT32_MAX, &op), ios = sim_in_flight (image);

  for (unsigned i = 0; i < ready; i++) {
    find_ready (i, &op);
    if (op == held)
      continue;
    context_step (op->context, op);
    return true;
  }
  for (unsigned i = 0; i < ios; i++)
    if ((sim_io (image, i)->kind == IO_DISCARD) == discards_only) {
      sim_complete (image, i);
      return true;
    }
  return false;
}

static bool
is_discarding (void)
{
  for (unsigned i = 0; i < sim_in_flight (image); i++)
    if (sim_io (image, i)->kind == IO_DISCARD)
      return true;
  return false;
}

static bool
is_frozen (void)
{
  return !list_is_empty (&store->keeper.checkpoint.frozen);
}

/* --- requests --- */

static void
ignore_request (struct request *request)
{
  (void) request;
}

static void
begin (struct request *request, enum request_kind kind, unsigned flags, uint64_t block,
       uint64_t count)
{
  request_init (request, context, disk, kind, flags, block * BLOCK_SIZE, count * BLOCK_SIZE,
                ignore_request);
  if (kind == REQUEST_WRITE) {
    assert_true (request_admit (request));
    for (uint64_t i = 0; i < count; i++) {
      memset (request->frames[i]->data, 0, BLOCK_SIZE);
      *(uint64_t *) request->frames[i]->data = ++last_tag;
    }
  }
  request_start (request);
}

static bool
is_done (const struct op *op)
{
  return atomic_load (&op->pending) == 0;
}

static void
do_request (enum request_kind kind, unsigned flags, uint64_t block, uint64_t count)
{
  struct request request;

  begin (&request, kind, flags, block, count);
  run ();
  assert_true (is_done (&request.op));
  assert_int_equal (request.op.error, 0);
  for (uint64_t i = 0; i < count && kind == REQUEST_READ; i++)
    assert_int_equal (request.frames[i] != NULL ? *(uint64_t *) request.frames[i]->data : 0,
                      tags[block + i]);
  for (uint64_t i = 0; i < count && kind != REQUEST_READ; i++)
    tags[block + i] = kind == REQUEST_WRITE ? last_tag - count + 1 + i : 0;
  request_release (&request);
}

static void
do_admin (enum admin_kind kind, uint64_t block, uint64_t length)
{
  struct admin admin;

  admin_begin (&admin, kind, block, length);
  run ();
  assert_true (is_done (&admin.op));
  assert_int_equal (admin.op.error, 0);
}

/* --- the store --- */

static void
open_store (void)
{
  steps_open ();
  disk = disk_open (store, "d");
  held = NULL;
  discards_only = false;
}

/* All blocks are in their places, and nodes lead to them. */
static void
make_store (void)
{
  image_make (0);
  open_store ();
  do_admin (ADMIN_CREATE, 0, BLOCKS);
  disk = disk_open (store, "d");
  for (uint64_t block = 0; block < BLOCKS; block += 50)
    do_request (REQUEST_WRITE, 0, block, 50);
  do_admin (ADMIN_SYNC, 0, 0);
  keeper_want_checkpoint (store);
  run ();
}

static void
cut_power (void)
{
  steps_crash (SIM_POWER);
  open_store ();
  assert_non_null (disk);
}

static void
verify (void)
{
  for (uint64_t block = 0; block < disk_blocks (disk); block += 10)
    do_request (REQUEST_READ, 0, block, 10);
}

static void
end_store (void)
{
  disk_close (disk);
  steps_close ();
  image_destroy ();
}

/* --- the old half --- */

/* The keeper stands still while it writes nodes; meanwhile clients commit until there is no room.
 * The superblock still says that the journal begins in the old half. */
static void
half_once (void)
{
  struct request request;
  unsigned written = 0;

  make_store ();
  do_request (REQUEST_WRITE, REQUEST_FUA, 0, 1);
  do_request (REQUEST_WRITE, REQUEST_FUA, 1, 1);
  keeper_want_checkpoint (store);
  while (!is_frozen () || store->keeper.checkpoint.node_count == 0)
    assert_true (step_beside ());
  held = &store->keeper.op;
  do {
    begin (&request, REQUEST_WRITE, REQUEST_FUA, written % BLOCKS, 1);
    while (!is_done (&request.op) && step_beside ())
      continue;
    if (!is_done (&request.op))
      break;
    assert_int_equal (request.op.error, 0);
    tags[written % BLOCKS] = last_tag;
    request_release (&request);
    /* More than both halves hold. */
    assert_true (++written < 200);
  } while (true);
  assert_true (store->commit.is_waiting && written > 0);
  cut_power ();
  /* What was not acknowledged may have been done. */
  tags[written % BLOCKS] = last_tag;
  do_request (REQUEST_WRITE, 0, written % BLOCKS, 1);
  verify ();
  end_store ();
}

/* --- freed --- */

/* A shrink has freed blocks after the checkpoint has gone over to the other half, the maps are
 * frozen, and the record that says so is on its way; the keeper is just passing down others. */
static void
freed_once (void)
{
  struct list wake = LIST_INIT (wake);
  struct waiter waiter;
  struct request trim;
  struct admin shrink;
  struct space_counts counts;

  make_store ();
  begin (&trim, REQUEST_TRIM, REQUEST_FUA, 150, 50);
  while (!is_done (&trim.op) || !is_discarding ())
    assert_true (step_beside ());
  request_release (&trim);
  memset (&tags[150], 0, 50 * sizeof tags[0]);
  waiter_init (&waiter);
  assert_true (op_lock_acquire (&store->maps_lock, &waiter));
  keeper_want_checkpoint (store);
  while (step_beside ())
    continue;
  admin_begin (&shrink, ADMIN_RESIZE, 0, 100);
  do {
    assert_true (step_beside ());
    space_get_counts (store->space, &counts);
  } while (counts.pending < 50);
  held = &shrink.op;
  op_lock_release (&store->maps_lock, &wake);
  op_wake_all (&wake);
  while (!is_frozen ())
    assert_true (step_beside ());
  discards_only = true;
  while (step_beside ())
    continue;
  cut_power ();
  verify ();
  end_store ();
}

/* --- applied --- */

/* A collapse is logged after the checkpoint has gone over to the other half, and before it freezes
 * the maps; so its record is found after a power cut, and the nodes have it. */
static void
applied_once (void)
{
  struct admin collapse;

  make_store ();
  admin_begin (&collapse, ADMIN_COLLAPSE, 50, 10);
  while ((collapse.op.waiter.holds & HOLD (HOLDS_MAPS_LOCK)) == 0)
    assert_true (step_beside ());
  held = &collapse.op;
  keeper_want_checkpoint (store);
  while (step_beside ())
    continue;
  assert_false (is_frozen ());
  held = NULL;
  run ();
  assert_true (is_done (&collapse.op));
  assert_int_equal (collapse.op.error, 0);
  memmove (&tags[50], &tags[60], (BLOCKS - 60) * sizeof tags[0]);
  cut_power ();
  assert_int_equal (disk_blocks (disk), BLOCKS - 10);
  verify ();
  end_store ();
}

static void
test_half (void **state)
{
  (void) state;
  for_each_seed (half_once);
}

static void
test_freed (void **state)
{
  (void) state;
  for_each_seed (freed_once);
}

static void
test_applied (void **state)
{
  (void) state;
  for_each_seed (applied_once);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_half),
    cmocka_unit_test (test_freed),
    cmocka_unit_test (test_applied),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
