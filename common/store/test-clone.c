/* SPDX-License-Identifier: BSD-2-Clause */
/* test-clone.c - clone range, against arrays of blocks that are copied by hand: in random
 * histories, cut off at every step, on a full store.
 *
 * LACUNA_SEED=n replays one seed. */
#include <errno.h>

#include "store/test-steps.h"

#define DISKS 2
#define BLOCKS 400                /* of each disk */

static struct disk *disks[DISKS];
static const char *const names[DISKS] = { "one", "two" };

/* A tag per block, 0: zeros. */
static uint64_t tags[DISKS][BLOCKS];
static uint64_t last_tag;

/* --- the store --- */

static void
open_store (void)
{
  steps_open ();
  for (unsigned d = 0; d < DISKS; d++)
    disks[d] = disk_open (store, names[d]);
}

static void
close_store (void)
{
  for (unsigned d = 0; d < DISKS; d++)
    disk_close (disks[d]);
  run ();
  steps_close ();
}

static void
cut_off (enum sim_crash_kind kind)
{
  steps_crash (kind);
  open_store ();
}

/* --- requests --- */

static bool is_done;

static void
request_done (struct request *request)
{
  (void) request;
  is_done = true;
}

static void
block_make (uint64_t tag, uint64_t block[BLOCK_SIZE / 8])
{
  for (unsigned i = 0; i < BLOCK_SIZE / 8; i++)
    block[i] = tag;
}

static int
do_request (enum request_kind kind, unsigned flags, unsigned disk, uint64_t block, uint64_t count)
{
  static uint64_t data[BLOCK_SIZE / 8];
  struct request request;
  struct iovec segment;
  uint64_t bytes;
  int error;

  is_done = false;
  request_init (&request, context, disks[disk], kind, flags, block * BLOCK_SIZE,
                count * BLOCK_SIZE, request_done);
  if (kind == REQUEST_WRITE) {
    assert_true (request_admit (&request));
    for (uint64_t i = 0; i < count; i++) {
      assert_int_equal (request_segments (&request, i * BLOCK_SIZE, &segment, 1, &bytes), 1);
      block_make (last_tag + 1 + i, segment.iov_base);
    }
  }
  request_start (&request);
  run ();
  assert_true (is_done);
  error = request.op.error;
  for (uint64_t i = 0; i < count && error == 0 && kind == REQUEST_READ; i++) {
    assert_int_equal (request_segments (&request, i * BLOCK_SIZE, &segment, 1, &bytes), 1);
    block_make (tags[disk][block + i], data);
    if (memcmp (segment.iov_base, data, BLOCK_SIZE) != 0)
      fail_msg ("block %d of disk %s has tag %d, not %d", (int) (block + i), names[disk],
                (int) *(uint64_t *) segment.iov_base, (int) tags[disk][block + i]);
  }
  for (uint64_t i = 0; i < count && error == 0; i++)
    if (kind == REQUEST_WRITE)
      tags[disk][block + i] = ++last_tag;
    else if (kind == REQUEST_TRIM || kind == REQUEST_WRITE_ZEROES)
      tags[disk][block + i] = 0;
  request_release (&request);
  return error;
}

static struct admin admin;

static void
admin_done (struct admin *done)
{
  (void) done;
  is_done = true;
}

static void
begin_clone (unsigned source, uint64_t from, uint64_t count, unsigned target, uint64_t to)
{
  is_done = false;
  admin_init (&admin, context, store, ADMIN_CLONE, names[source], admin_done);
  strcpy (admin.new_name, names[target]);
  admin.offset = from * BLOCK_SIZE;
  admin.length = count * BLOCK_SIZE;
  admin.target_offset = to * BLOCK_SIZE;
}

static int
end_admin (void)
{
  admin_start (&admin);
  run ();
  assert_true (is_done);
  return admin.op.error;
}

static void
do_clone (unsigned source, uint64_t from, uint64_t count, unsigned target, uint64_t to)
{
  begin_clone (source, from, count, target, to);
  assert_int_equal (end_admin (), 0);
  memmove (&tags[target][to], &tags[source][from], count * sizeof tags[0][0]);
}

static void
do_sync (void)
{
  is_done = false;
  admin_init (&admin, context, store, ADMIN_SYNC, "", admin_done);
  assert_int_equal (end_admin (), 0);
}

/* --- judging --- */

static int
count_owners (void *arg, const struct extent *extent)
{
  uint32_t *owners = arg;

  for (uint64_t i = 0; i < extent->length; i++)
    owners[extent->place + i]++;
  return 0;
}

static void
verify (void)
{
  static uint32_t owners[LENGTH_MAX];
  struct space_counts counts;
  uint64_t used = 0, shared = 0;

  memset (owners, 0, sizeof owners);
  for (unsigned d = 0; d < DISKS; d++) {
    for (uint64_t block = 0; block < BLOCKS; block += 40)
      assert_int_equal (do_request (REQUEST_READ, 0, d, block, 40), 0);
    assert_int_equal (extent_map_check (&disks[d]->map, UINT64_MAX, count_owners, owners), 0);
  }
  for (uint64_t i = 0; i < LENGTH_MAX; i++) {
    used += owners[i] > 0;
    shared += owners[i] > 1;
  }
  space_get_counts (store->space, &counts);
  assert_int_equal (counts.used, used);
  assert_int_equal (counts.shared, shared);
  space_verify (store->space);
  cache_verify (store->cache);
}

/* --- making --- */

static void
make_store (uint64_t room)
{
  image_make (room);
  open_store ();
  for (unsigned d = 0; d < DISKS; d++) {
    is_done = false;
    admin_init (&admin, context, store, ADMIN_CREATE, names[d], admin_done);
    admin.size = BLOCKS * BLOCK_SIZE;
    assert_int_equal (end_admin (), 0);
    disks[d] = disk_open (store, names[d]);
  }
  memset (tags, 0, sizeof tags);
}

static void
drop_store (void)
{
  close_store ();
  image_destroy ();
}

/* --- histories --- */

static void
random_range (uint64_t *block, uint64_t *count, uint64_t most)
{
  *count = 1 + random_below (most);
  *block = random_below (random_below (3) ? 60 : BLOCKS - most);
}

static void
random_clone (void)
{
  unsigned source = random_below (DISKS), target = random_below (DISKS);
  uint64_t from, to, count;

  random_range (&from, &count, random_below (4) ? 20 : 150);
  to = random_below (BLOCKS - count);
  if (source == target && from < to + count && to < from + count)
    return;
  do_clone (source, from, count, target, to);
}

static void
random_stop (void)
{
  switch (random_below (3)) {
  case 0:
    cut_off (SIM_KILL);
    break;
  case 1:
    do_sync ();
    cut_off (SIM_POWER);
    break;
  default:
    close_store ();
    open_store ();
  }
  verify ();
}

static void
run_histories (void)
{
  make_store (0);
  for (unsigned i = 0; i < 500; i++) {
    unsigned disk = random_below (DISKS);
    uint64_t block, count;

    random_range (&block, &count, 12);
    switch (random_below (16)) {
    case 0 ... 5:
      assert_int_equal (do_request (REQUEST_WRITE, 0, disk, block, count), 0);
      break;
    case 6:
      assert_int_equal (do_request (REQUEST_TRIM, 0, disk, block, count), 0);
      break;
    case 7:
      assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, disk, block, count), 0);
      break;
    case 8:
      assert_int_equal (do_request (REQUEST_FLUSH, 0, disk, 0, 0), 0);
      break;
    case 9 ... 12:
      random_clone ();
      break;
    case 13:
      keeper_want_checkpoint (store);
      run ();
      break;
    case 14:
      do_sync ();
      break;
    default:
      random_stop ();
    }
  }
  verify ();
  drop_store ();
}

static void
test_histories (void **state)
{
  (void) state;
  for_each_seed (run_histories);
}

/* Ended at any step it was done, or not, as a whole. */
static bool
cut_at (unsigned steps, bool is_power_cut)
{
  static uint64_t before[BLOCKS];
  bool was_done;
  unsigned i;

  make_store (0);
  do_request (REQUEST_WRITE, 0, 1, 100, 40);
  do_request (REQUEST_WRITE, 0, 0, 0, 10);
  do_sync ();
  do_request (REQUEST_WRITE, 0, 0, 20, 10);
  do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 0, 14, 4);
  do_request (REQUEST_FLUSH, 0, 0, 0, 0);
  begin_clone (0, 0, 40, 1, 110);
  admin_start (&admin);
  keeper_want_checkpoint (store);
  for (i = 0; i < steps && step (); i++)
    continue;
  was_done = is_done;
  cut_off (is_power_cut ? SIM_POWER : SIM_KILL);
  memcpy (before, tags[1], sizeof before);
  memcpy (&tags[1][110], &tags[0][0], 40 * sizeof before[0]);
  /* Its first block tells which of the two it must be. */
  if (!was_done) {
    struct extent extent;

    extent_map_lookup (&disks[1]->map, 110, 1, &extent);
    if (extent.state == EXTENT_WRITTEN) {
      uint64_t block[BLOCK_SIZE / 8];

      sim_peek (image, extent.place, block);
      if (block[0] != tags[1][110])
        memcpy (tags[1], before, sizeof before);
    }
  }
  verify ();
  drop_store ();
  return i == steps;
}

static void
test_cut_off (void **state)
{
  (void) state;
  for (unsigned steps = 0; cut_at (steps, steps % 2 == 0); steps++)
    assert_true (steps < 2000);
}

/* A READ of the target that comes between any two steps sees what was there before or what comes
 * there, in each block; after the end only that. */
static bool
read_at (unsigned steps)
{
  static uint64_t before[BLOCKS];
  struct request request;
  unsigned i;

  make_store (0);
  do_request (REQUEST_WRITE, 0, 1, 100, 12);
  do_request (REQUEST_WRITE, 0, 0, 0, 12);
  /* Nothing is cached: the READ has to look at the map. */
  close_store ();
  open_store ();
  begin_clone (0, 0, 12, 1, 100);
  admin_start (&admin);
  for (i = 0; i < steps && step (); i++)
    continue;
  memcpy (before, tags[1], sizeof before);
  memcpy (&tags[1][100], &tags[0][0], 12 * sizeof before[0]);
  request_init (&request, context, disks[1], REQUEST_READ, 0, 100 * BLOCK_SIZE, 12 * BLOCK_SIZE,
                request_done);
  request_start (&request);
  run ();
  assert_int_equal (request.op.error, 0);
  for (unsigned block = 0; block < 12; block++) {
    struct iovec segment;
    uint64_t bytes, found;

    request_segments (&request, block * BLOCK_SIZE, &segment, 1, &bytes);
    found = *(uint64_t *) segment.iov_base;
    assert_true (found == before[100 + block] || found == tags[1][100 + block]);
  }
  request_release (&request);
  verify ();
  drop_store ();
  return i == steps;
}

static void
test_read_beside (void **state)
{
  (void) state;
  for (unsigned steps = 0; read_at (steps); steps++)
    assert_true (steps < 2000);
}

/* While the maps are being changed no checkpoint freezes them: it would have half of the change,
 * and replay would not do the rest. */
static void
test_checkpoint_beside (void **state)
{
  (void) state;
  for (unsigned steps = 0;; steps++) {
    bool was_done;

    make_store (0);
    do_request (REQUEST_WRITE, 0, 1, 100, 12);
    do_request (REQUEST_WRITE, 0, 0, 0, 12);
    do_sync ();
    begin_clone (0, 0, 12, 1, 100);
    admin_start (&admin);
    for (unsigned i = 0; i < steps && step (); i++)
      continue;
    was_done = is_done;
    /* The keeper alone, as far as it comes. */
    keeper_want_checkpoint (store);
    for (struct context *keeper = store_keeper_context (store);;) {
      context_collect (keeper);
      if (!list_is_empty (&keeper->ready))
        context_step (keeper, container_of (keeper->ready.next, struct op, link));
      else if (sim_in_flight (image) > 0)
        sim_complete (image, 0);
      else
        break;
    }
    cut_off (SIM_POWER);
    if (extent_map_mapped_in (&disks[1]->map, 100, 12) != 12)
      fail_msg ("after %u steps half of the clone is there", steps);
    drop_store ();
    if (was_done)
      break;
  }
}

/* Whether disk 1 has at block 100 what disk 0 has at 0. */
static bool
extents_are_shared (void)
{
  struct extent source, target;

  extent_map_lookup (&disks[0]->map, 0, 1, &source);
  extent_map_lookup (&disks[1]->map, 100, 1, &target);
  return target.state == EXTENT_WRITTEN && target.place == source.place;
}

/* Everybody but the clone, as far as they come. */
static void
run_beside (void)
{
  for (unsigned steps = 0;; steps++) {
    struct op *op = NULL;
    unsigned ready = find_ready (UINT32_MAX, &op), index = 0;

    assert_true (steps < 1000 * 1000);
    while (index < ready && (find_ready (index, &op), op == &admin.op))
      index++;
    if (index < ready)
      context_step (op->context, op);
    else if (sim_in_flight (image) > 0)
      sim_complete (image, 0);
    else
      break;
  }
}

static bool is_beside_done;

static void
beside_done (struct request *request)
{
  (void) request;
  is_beside_done = true;
}

/* Writes 8 blocks of TAG, and has them brought to their place and made durable; false: there is no
 * space. */
static bool
write_beside (uint64_t block, uint64_t tag)
{
  struct request request;
  struct iovec segment;
  uint64_t bytes;
  bool is_written;

  is_beside_done = false;
  request_init (&request, context, disks[1], REQUEST_WRITE, REQUEST_FUA, block * BLOCK_SIZE,
                8 * BLOCK_SIZE, beside_done);
  assert_true (request_admit (&request));
  for (unsigned i = 0; i < 8; i++) {
    assert_int_equal (request_segments (&request, i * BLOCK_SIZE, &segment, 1, &bytes), 1);
    block_make (tag, segment.iov_base);
  }
  request_start (&request);
  run_beside ();
  assert_true (is_beside_done);
  is_written = request.op.error == 0;
  assert_true (is_written || request.op.error == -ENOSPC);
  request_release (&request);
  store->keeper.old_version = cache_version (store->cache);
  keeper_kick (store);
  run_beside ();
  is_beside_done = false;
  request_init (&request, context, disks[1], REQUEST_FLUSH, 0, 0, 0, beside_done);
  request_start (&request);
  run_beside ();
  assert_true (is_beside_done);
  request_release (&request);
  return is_written;
}

/* A commit that comes amid the change frees for good what the target had; somebody else gets it.
 * So its record must have the clone, or a power cut would bring the target back to that. */
static void
test_commit_beside (void **state)
{
  bool is_done_before = false;
  unsigned written = 0;

  (void) state;
  for (unsigned steps = 0; !is_done_before; steps++) {
    uint64_t at = 200;
    bool is_written;

    make_store (120);
    do_request (REQUEST_WRITE, 0, 1, 100, 12);
    do_request (REQUEST_WRITE, 0, 0, 0, 12);
    while (at < BLOCKS && do_request (REQUEST_WRITE, 0, 0, at, 1) == 0)
      at++;
    assert_true (at < BLOCKS);
    do_sync ();
    begin_clone (0, 0, 12, 1, 100);
    admin_start (&admin);
    for (unsigned i = 0; i < steps && step (); i++)
      continue;
    is_done_before = is_done;
    is_written = write_beside (300, 1000000);
    written += is_written;
    cut_off (SIM_POWER);
    if (is_written) {
      for (unsigned i = 0; i < 8; i++)
        tags[1][300 + i] = 1000000;
      memcpy (&tags[1][100], &tags[0][0], 12 * sizeof tags[0][0]);
    }
    /* If nobody could have the blocks it may be done or not, as a whole. */
    else if (extents_are_shared ())
      memcpy (&tags[1][100], &tags[0][0], 12 * sizeof tags[0][0]);
    verify ();
    drop_store ();
  }
  assert_true (written > 1);
}

/* --- single facts --- */

/* What the journal has of the target's blocks is over. */
static void
test_target_data (void **state)
{
  (void) state;
  for (unsigned is_power_cut = 0; is_power_cut < 2; is_power_cut++) {
    make_store (0);
    do_request (REQUEST_WRITE, REQUEST_FUA, 1, 50, 5);
    do_request (REQUEST_WRITE, 0, 0, 0, 10);
    do_clone (0, 0, 8, 1, 48);
    cut_off (is_power_cut ? SIM_POWER : SIM_KILL);
    /* Of the source only what was cloned has to be durable. */
    for (unsigned i = 8; i < 10; i++)
      tags[0][i] = is_power_cut ? 0 : tags[0][i];
    if (is_power_cut)
      memcpy (&tags[0][0], &tags[1][48], 8 * sizeof tags[0][0]);
    for (unsigned d = 0; d < DISKS; d++)
      assert_int_equal (do_request (REQUEST_READ, 0, d, d == 0 ? 0 : 48, 8), 0);
    drop_store ();
  }
}

/* The same request again changes nothing, however the store was ended in between; another one
 * does. */
static void
test_request_ids (void **state)
{
  (void) state;
  make_store (0);
  do_request (REQUEST_WRITE, 0, 0, 0, 10);
  for (unsigned how = 0; how < 4; how++) {
    for (unsigned again = 0; again < 2; again++) {
      begin_clone (0, 0, 10, 1, 50);
      memset (admin.request_id, 17 + how, sizeof admin.request_id);
      assert_int_equal (end_admin (), 0);
      if (again == 0) {
        memcpy (&tags[1][50], &tags[0][0], 10 * sizeof tags[0][0]);
        do_request (REQUEST_WRITE, REQUEST_FUA, 0, 3, 4);
        do_request (REQUEST_WRITE, REQUEST_FUA, 1, 58, 1);
        if (how == 1 || how == 2)
          cut_off (how == 2 ? SIM_POWER : SIM_KILL);
        else if (how == 3) {
          close_store ();
          open_store ();
        }
      }
      verify ();
    }
  }
  drop_store ();
}

/* A block that was left with one owner is written elsewhere until that is durable: else a power cut
 * could give it back to the other, with what this one wrote. */
static void
test_unshared (void **state)
{
  struct extent before, after;

  (void) state;
  for (unsigned is_durable = 0; is_durable < 2; is_durable++) {
    make_store (0);
    do_request (REQUEST_WRITE, 0, 0, 0, 8);
    do_clone (0, 0, 8, 1, 100);
    extent_map_lookup (&disks[0]->map, 0, 8, &before);
    do_request (REQUEST_TRIM, is_durable ? REQUEST_FUA : 0, 1, 100, 8);
    do_request (REQUEST_WRITE, 0, 0, 0, 8);
    /* To its place, with a device flush, and without a commit. */
    struct op op;
    struct writeback_request writeback
      = { .disk = disks[0], .version = cache_version (store->cache) };

    op_init (&op, context, "test", 0, NULL, NULL);
    atomic_store (&op.pending, 2);
    keeper_write_back (store, &writeback, &op);
    run ();
    extent_map_lookup (&disks[0]->map, 0, 8, &after);
    assert_int_equal (before.place == after.place, is_durable);
    if (!is_durable) {
      uint64_t written[8];

      memcpy (written, tags[0], sizeof written);
      cut_off (SIM_POWER);
      /* As the last commit left it: that of the clone. */
      for (unsigned i = 0; i < 8; i++)
        tags[0][i] = tags[1][100 + i] = written[i] - 8;
      verify ();
    }
    drop_store ();
  }
}

/* Where there is no room a shared block cannot be overwritten, others can; what is shared no more
 * can be again. */
static void
test_full (void **state)
{
  uint64_t at = 100;

  (void) state;
  make_store (120);
  do_request (REQUEST_WRITE, 0, 0, 0, 20);
  do_clone (0, 0, 20, 1, 0);
  while (do_request (REQUEST_WRITE, 0, 0, at, 1) == 0)
    at++;
  assert_true (at > 180);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 5, 1), -ENOSPC);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 1, 5, 1), -ENOSPC);
  assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 1, 5, 1), -ENOSPC);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 110, 8), 0);
  do_sync ();
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 110, 8), 0);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 5, 1), -ENOSPC);
  /* Cloning and trimming need no room. */
  do_clone (0, 100, 20, 1, 300);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 105, 1), -ENOSPC);
  assert_int_equal (do_request (REQUEST_TRIM, 0, 1, 300, 20), 0);
  assert_int_equal (do_request (REQUEST_TRIM, 0, 1, 4, 4), 0);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 105, 1), 0);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 0, 5, 2), 0);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 1, 5, 1), -ENOSPC);
  verify ();
  /* The last owner gives all back. */
  for (unsigned d = 0; d < DISKS; d++)
    assert_int_equal (do_request (REQUEST_TRIM, REQUEST_FUA, d, 0, BLOCKS), 0);
  verify ();
  assert_int_equal (do_request (REQUEST_WRITE, 0, 1, 0, 100), 0);
  drop_store ();
}

/* A shared block that was overwritten, and is dirty: zeros that there is no room for may leave that, or
 * be there; what it had replaced is over. */
static void
test_zeroes_refused (void **state)
{
  (void) state;
  make_store (120);
  do_request (REQUEST_WRITE, 0, 0, 0, 20);
  do_clone (0, 0, 20, 1, 0);
  assert_int_equal (do_request (REQUEST_WRITE, 0, 1, 5, 1), 0);
  for (uint64_t at = 100; do_request (REQUEST_WRITE, 0, 0, at, 1) == 0; at++)
    continue;
  assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 1, 8, 3), -ENOSPC);
  assert_int_equal (do_request (REQUEST_READ, 0, 1, 8, 3), 0);
  assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 1, 4, 3), -ENOSPC);
  tags[1][4] = tags[1][5] = tags[1][6] = 0;
  verify ();
  /* What was freed a moment ago is waited for. */
  do_sync ();
  assert_int_equal (do_request (REQUEST_TRIM, 0, 0, 100, 10), 0);
  assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 0, 200, 5), 0);
  /* Its promise is another's now. */
  assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 1, 4, 1), 0);
  cut_off (SIM_KILL);
  verify ();
  drop_store ();
}

/* Writes, durably, until a commit has to wait for a checkpoint; the last one is left waiting. */
static void
fill_journal (void)
{
  for (;;) {
    struct request *request = malloc (sizeof *request);
    struct iovec segment;
    uint64_t bytes;

    is_done = false;
    request_init (request, context, disks[0], REQUEST_WRITE, REQUEST_FUA, 100 * BLOCK_SIZE,
                  BLOCK_SIZE, request_done);
    assert_true (request_admit (request));
    assert_int_equal (request_segments (request, 0, &segment, 1, &bytes), 1);
    block_make (++last_tag, segment.iov_base);
    request_start (request);
    run ();
    if (!is_done)
      return;
    assert_int_equal (request->op.error, 0);
    request_release (request);
    free (request);
  }
}

/* A commit waits for the checkpoint, which has what took the place of a trimmed block that the journal
 * has: it must not be durable without the TRIM, or there is no place for that block. */
static bool
wait_at (unsigned steps)
{
  struct waiter waiter;
  struct list wake = LIST_INIT (wake);
  uint64_t at = 100;
  unsigned i;

  make_store (120);
  while (do_request (REQUEST_WRITE, 0, 0, at, 1) == 0)
    at++;
  do_sync ();
  assert_int_equal (do_request (REQUEST_TRIM, REQUEST_FUA, 0, at - 1, 1), 0);
  keeper_want_checkpoint (store);
  run ();
  waiter_init (&waiter);
  assert_true (op_lock_acquire (&store->maps_lock, &waiter));
  keeper_want_checkpoint (store);
  run ();
  /* The last free block. */
  assert_int_equal (do_request (REQUEST_WRITE, REQUEST_FUA, 1, 50, 1), 0);
  fill_journal ();
  assert_true (store->commit.is_waiting);
  assert_int_equal (do_request (REQUEST_TRIM, 0, 1, 50, 1), 0);
  assert_int_equal (do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 1, 60, 1), 0);
  op_lock_release (&store->maps_lock, &wake);
  op_wake_all (&wake);
  for (i = 0; i < steps && step (); i++)
    continue;
  cut_off (SIM_POWER);
  space_verify (store->space);
  drop_store ();
  return i == steps;
}

static void
test_commit_waits (void **state)
{
  (void) state;
  for (unsigned steps = 0; wait_at (steps); steps++)
    assert_true (steps < 2000);
}

static void
test_refused (void **state)
{
  static const struct { uint64_t offset, length, to; unsigned target; int error; } wrong[] = {
    { 1, BLOCK_SIZE, 0, 1, -EINVAL },
    { 0, BLOCK_SIZE - 1, 0, 1, -EINVAL },
    { 0, BLOCK_SIZE, 512, 1, -EINVAL },
    { 0, 0, 0, 1, -EINVAL },
    { 0, (BLOCKS + 1) * BLOCK_SIZE, 0, 1, -EINVAL },
    { BLOCKS * BLOCK_SIZE, BLOCK_SIZE, 0, 1, -EINVAL },
    { 0, BLOCK_SIZE, BLOCKS * BLOCK_SIZE, 1, -EINVAL },
    { 0, 10 * BLOCK_SIZE, (BLOCKS - 9) * BLOCK_SIZE, 1, -EINVAL },
    { UINT64_MAX / BLOCK_SIZE * BLOCK_SIZE, BLOCK_SIZE, 0, 1, -EINVAL },
    { 0, UINT64_MAX / BLOCK_SIZE * BLOCK_SIZE, BLOCK_SIZE, 1, -EINVAL },
    { 0, 10 * BLOCK_SIZE, 9 * BLOCK_SIZE, 0, -EINVAL },
    { 9 * BLOCK_SIZE, 10 * BLOCK_SIZE, 0, 0, -EINVAL },
    { 0, 10 * BLOCK_SIZE, 0, 0, -EINVAL },
  };

  (void) state;
  make_store (0);
  do_request (REQUEST_WRITE, 0, 0, 0, 20);
  for (unsigned i = 0; i < ARRAY_COUNT (wrong); i++) {
    begin_clone (0, 0, 0, wrong[i].target, 0);
    admin.offset = wrong[i].offset;
    admin.length = wrong[i].length;
    admin.target_offset = wrong[i].to;
    assert_int_equal (end_admin (), wrong[i].error);
    assert_true (admin.message[0] != '\0');
  }
  begin_clone (0, 0, 1, 1, 0);
  strcpy (admin.new_name, "nobody");
  assert_int_equal (end_admin (), -ENOENT);
  begin_clone (0, 0, 1, 1, 0);
  strcpy (admin.name, "nobody");
  assert_int_equal (end_admin (), -ENOENT);
  verify ();
  /* Touching, and within one disk. */
  do_clone (0, 0, 10, 0, 10);
  do_clone (0, 10, 10, 0, 0);
  verify ();
  drop_store ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_histories),     cmocka_unit_test (test_cut_off),
    cmocka_unit_test (test_read_beside),   cmocka_unit_test (test_checkpoint_beside),
    cmocka_unit_test (test_commit_beside), cmocka_unit_test (test_target_data),
    cmocka_unit_test (test_request_ids),   cmocka_unit_test (test_unshared),
    cmocka_unit_test (test_full),          cmocka_unit_test (test_zeroes_refused),
    cmocka_unit_test (test_commit_waits),  cmocka_unit_test (test_refused),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
