/* SPDX-License-Identifier: BSD-2-Clause */
/* test-node-room.c - a store in which not data is what is full, but the places for nodes: what would
 * need more of them is refused, and closing, opening after whatever crash, deleting and deallocating
 * all that there is are not.
 *
 * LACUNA_SEED=n replays one seed. */
#include <errno.h>

#include "store/test-steps.h"

#define DISKS_MAX 40
#define DISK_BLOCKS 8192
#define BUSY_BLOCKS 1024        /* of each, in histories */

static struct disk *disks[DISKS_MAX];    /* NULL: there is none */
static struct admin admin;
static bool is_done;

static void
request_done (struct request *request)
{
  (void) request;
  is_done = true;
}

static int
do_request (enum request_kind kind, unsigned flags, struct disk *disk, uint64_t block,
            uint64_t count)
{
  struct request request;
  struct iovec segment;
  uint64_t bytes;
  int error;

  is_done = false;
  request_init (&request, context, disk, kind, flags, block * BLOCK_SIZE, count * BLOCK_SIZE,
                request_done);
  if (kind == REQUEST_WRITE) {
    assert_true (request_admit (&request));
    for (uint64_t i = 0; i < count; i++) {
      assert_int_equal (request_segments (&request, i * BLOCK_SIZE, &segment, 1, &bytes), 1);
      memset (segment.iov_base, 1 + i, BLOCK_SIZE);
    }
  }
  request_start (&request);
  run ();
  assert_true (is_done);
  error = request.op.error;
  request_release (&request);
  return error;
}

static void
admin_done (struct admin *done)
{
  (void) done;
  is_done = true;
}

static void
name_of (unsigned disk, char name[DISK_NAME_MAX + 1])
{
  snprintf (name, DISK_NAME_MAX + 1, "%u", disk);
}

static int
do_admin (enum admin_kind kind, unsigned disk, unsigned target, uint64_t block, uint64_t count)
{
  char name[DISK_NAME_MAX + 1];

  is_done = false;
  name_of (disk, name);
  admin_init (&admin, context, store, kind, name, admin_done);
  name_of (target, admin.new_name);
  admin.size = DISK_BLOCKS * BLOCK_SIZE;
  admin.offset = block * BLOCK_SIZE;
  admin.target_offset = 0;
  admin.length = count * BLOCK_SIZE;
  admin_start (&admin);
  run ();
  assert_true (is_done);
  return admin.op.error;
}

static int
make_disk (unsigned disk)
{
  char name[DISK_NAME_MAX + 1];
  int error = disks[disk] == NULL ? do_admin (ADMIN_CREATE, disk, 0, 0, 0) : 0;

  name_of (disk, name);
  if (error == 0 && disks[disk] == NULL)
    disks[disk] = disk_open (store, name);
  return error;
}

static void
delete_disk (unsigned disk)
{
  disk_close (disks[disk]);
  disks[disk] = NULL;
  assert_int_equal (do_admin (ADMIN_DELETE, disk, 0, 0, 0), 0);
}

static void
close_disks (void)
{
  for (unsigned d = 0; d < DISKS_MAX; d++)
    if (disks[d] != NULL)
      disk_close (disks[d]);
  run ();
}

static void
open_store (void)
{
  char name[DISK_NAME_MAX + 1];

  steps_open ();
  for (unsigned d = 0; d < DISKS_MAX; d++) {
    name_of (d, name);
    disks[d] = disk_open (store, name);
  }
}

static void
reopen (void)
{
  close_disks ();
  steps_close ();
  open_store ();
}

/* One group: places for META / 2 nodes, less four; ROOM blocks for data. */
static void
make_store (uint64_t meta, uint64_t room)
{
  struct store_geometry geometry = {
    .group_blocks = 4096, .meta_blocks = meta, .journal_half_blocks = 64,
    .capacity = meta + JOURNAL_HALVES * 64 + room,
  };

  memset (disks, 0, sizeof disks);
  image_make_as (&geometry);
  open_store ();
}

static void
drop_store (void)
{
  close_disks ();
  steps_close ();
  image_destroy ();
}

/* Disks, until there is room for no more. */
static unsigned
fill_with_disks (void)
{
  int error = 0;
  unsigned count = 0;

  for (unsigned d = 0; d < DISKS_MAX && error == 0; d++)
    if (disks[d] == NULL) {
      error = make_disk (d);
      count += error == 0;
    }
  assert_int_equal (error, -ENOSPC);
  return count;
}

static void
disks_once (void)
{
  unsigned count;

  make_store (64, 40);
  count = fill_with_disks ();
  assert_in_range (count, 4, 12);
  for (unsigned d = 0; d < count; d++)
    assert_int_equal (do_request (REQUEST_WRITE, 0, disks[d], 0, 1), 0);
  reopen ();
  for (unsigned d = 0; d < count; d++)
    assert_int_equal (do_request (REQUEST_WRITE, 0, disks[d], 1, 1), 0);
  steps_crash (SIM_POWER);
  open_store ();
  assert_int_equal (make_disk (count), -ENOSPC);
  for (unsigned d = 0; d < count; d += 2)
    delete_disk (d);
  reopen ();
  assert_in_range (fill_with_disks (), count / 2, count);
  drop_store ();
}

/* Blocks here and there, so that maps have many extents; holes in them; clones; disks. */
static int
random_act (unsigned disk)
{
  uint64_t block = random_below (BUSY_BLOCKS), count = 1 + random_below (3);
  unsigned other = random_below (DISKS_MAX);

  count = MIN (count, BUSY_BLOCKS - block);
  switch (random_below (40)) {
  case 0:
    return make_disk (other);
  case 1:
    delete_disk (disk);
    return 0;
  case 2:
    /* All of it can be given back. */
    assert_int_equal (do_request (REQUEST_TRIM, 0, disks[disk], 0, DISK_BLOCKS), 0);
    return 0;
  case 3:
  case 4:
    return disks[other] == NULL ? 0
                                : do_admin (ADMIN_CLONE, disk, other, BUSY_BLOCKS / 2,
                                            BUSY_BLOCKS / 4);
  case 5:
    return do_admin (ADMIN_SYNC, 0, 0, 0, 0);
  case 6:
  case 7:
  case 8:
    return do_request (REQUEST_TRIM, 0, disks[disk], block, count);
  case 9:
    return do_request (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, disks[disk], block, count);
  case 10:
    /* One large extent to be cut up. */
    return do_request (REQUEST_WRITE, 0, disks[disk], block, MIN (100, BUSY_BLOCKS - block));
  default:
    return do_request (REQUEST_WRITE, 0, disks[disk], block, 1);
  }
}

static void
history (uint64_t meta, unsigned acts)
{
  unsigned refused = 0;
  uint64_t most = 0;

  make_store (meta, 4096 - meta - JOURNAL_HALVES * 64);
  for (unsigned i = 0; i < acts; i++) {
    unsigned disk = random_below (DISKS_MAX), tries = random_below (20) ? DISKS_MAX : 0;
    int error;

    for (; disks[disk] == NULL && tries > 0; tries--)
      disk = (disk + 1) % DISKS_MAX;
    error = disks[disk] != NULL ? random_act (disk) : make_disk (disk);

    if (error != -ENOSPC)
      assert_int_equal (error, 0);
    refused += error == -ENOSPC;
    most = MAX (most, btree_pool_present (store->pool) + store->disk_count);
    if (random_below (150) == 0)
      reopen ();
    else if (random_below (300) == 0) {
      steps_crash (random_below (2) ? SIM_POWER : SIM_KILL);
      open_store ();
    }
  }
  print_message ("%u of %u refused, %d disks, at most %d of %d nodes\n", refused, acts,
                 (int) store->disk_count, (int) most, (int) space_node_capacity (store->space) / 2);
  drop_store ();
}

static void
histories_once (void)
{
  history (64, 2000);
  history (128, 6000);
}

static void
test_histories (void **state)
{
  (void) state;
  for_each_seed (histories_once);
}

/* Extents of one block each, side by side in full nodes; then some between them, while nothing is
 * written back, each of which can split one of these. */
static void
data_once (void)
{
  int error = 0;

  make_store (64, 4096 - 64 - JOURNAL_HALVES * 64);
  assert_int_equal (make_disk (0), 0);
  for (unsigned i = 0; i < 2250 && error == 0; i++) {
    error = do_request (REQUEST_WRITE, 0, disks[0], 2 * i, 1);
    if (i % 50 == 0)
      assert_int_equal (do_admin (ADMIN_SYNC, 0, 0, 0, 0), 0);
  }
  reopen ();
  for (unsigned i = 0; i < 190; i++) {
    error = do_request (REQUEST_WRITE, 0, disks[0], 1 + 2 * random_below (2250), 1);
    assert_true (error == 0 || error == -ENOSPC);
  }
  /* There is no room for more, until some is given back. */
  assert_int_equal (error, -ENOSPC);
  reopen ();
  assert_int_equal (do_request (REQUEST_TRIM, 0, disks[0], 0, 1000), 0);
  assert_int_equal (do_request (REQUEST_WRITE, 0, disks[0], 1, 1), 0);
  drop_store ();
}

static void
test_data (void **state)
{
  (void) state;
  for_each_seed (data_once);
}

static void
test_disks (void **state)
{
  (void) state;
  for_each_seed (disks_once);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_disks),
    cmocka_unit_test (test_data),
    cmocka_unit_test (test_histories),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
