/* SPDX-License-Identifier: BSD-2-Clause */
/* threshold.c - from which size on a commit shall write its data to its place.
 *
 *   threshold [DIRECTORY]       where the store is made, and removed again; default /var/tmp
 *
 * A WRITE and a FLUSH, again and again, one after the other: with the data in the journal's record
 * (RECORD; more than fits one goes into several), and with the data in its place first (PLACE).  Both
 * take turns.  What is measured is the time until the FLUSH has ended; the time with all that is
 * left to be done afterwards, until the data is in its place (SYNC); what the device is asked to
 * write, and its flushes, of all that.  The WRITEs are
 *
 *   new         of blocks that have no place yet, or of blocks that have one (over)
 *   one piece   of blocks side by side, or of single ones here and there (scattered)
 *
 * Times are the least of the rounds, since neighbours only add to it, and beside them the median of how
 * much longer PLACE took than RECORD in one and the same round; what is counted are medians.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sim/blocking.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "bench-store.h"
#include "store/store-internal.h"

#define ROUNDS 15
#define CACHE_BYTES (256 * MIB)
#define DISK_BYTES (1 * GIB)
#define SLOTS 16384              /* places for scattered blocks */
#define ROUND_BYTES (8 * MIB)    /* written in a round, but not in more than */
#define COMMITS_MAX 32

enum way { RECORD, PLACE, WAYS };

struct result {
  double flushed_us, all_us;     /* of one commit */
  double bytes, flushes;
};

static struct store *store;
static struct context *context;
static struct disk *disk;
static struct request request;
static uint64_t random_state = 1;
static _Atomic uint64_t device_bytes, device_flushes;

/* ld --wrap: the engine's I/O. */
void __real_op_submit (struct op *op, struct op_io *io);
void __wrap_op_submit (struct op *op, struct op_io *io);

void
__wrap_op_submit (struct op *op, struct op_io *io)
{
  if (io->io.kind == IO_WRITE)
    atomic_fetch_add (&device_bytes, io->io.length * BLOCK_SIZE);
  else if (io->io.kind == IO_FLUSH)
    atomic_fetch_add (&device_flushes, 1);
  __real_op_submit (op, io);
}

/* --- requests --- */

static void
run (enum request_kind kind, uint64_t offset, uint64_t length)
{
  struct iovec segments[16];
  uint64_t bytes;

  request_init (&request, context, disk, kind, 0, offset, length, request_is_done);
  if (kind == REQUEST_WRITE) {
    request_admit_wait (&request);
    for (uint64_t at = 0; at < length; at += bytes) {
      unsigned count = request_segments (&request, at, segments, ARRAY_COUNT (segments), &bytes);

      for (unsigned i = 0; i < count; i++)
        memset (segments[i].iov_base, (int) ++random_state, segments[i].iov_len);
    }
  }
  CHECK (request_run (&request) == 0);
  request_release (&request);
}

static void
run_admin (enum admin_kind kind)
{
  struct admin admin;

  admin_init (&admin, context, store, kind, kind == ADMIN_CREATE ? "disk" : "", admin_is_done);
  admin.size = DISK_BYTES;
  CHECK (admin_run (&admin) == 0);
}

static uint64_t
next_slot (void)
{
  random_state = random_state * 6364136223846793005 + 1442695040888963407;
  return (random_state >> 33) % SLOTS;
}

static void
write_commit (uint64_t blocks, bool is_scattered)
{
  if (is_scattered)
    /* In another order than that of their places, and none beside another. */
    for (uint64_t i = 0; i < blocks; i++)
      run (REQUEST_WRITE, next_slot () * (DISK_BYTES / SLOTS), BLOCK_SIZE);
  else
    run (REQUEST_WRITE, next_slot () % (SLOTS - 128) * (DISK_BYTES / SLOTS), blocks * BLOCK_SIZE);
  run (REQUEST_FLUSH, 0, 0);
}

/* --- measuring --- */

static struct result
measure (enum way way, uint64_t blocks, bool is_new, bool is_scattered)
{
  unsigned commits = MAX (4, MIN (COMMITS_MAX, ROUND_BYTES / (blocks * BLOCK_SIZE)));
  uint64_t began, flushed, ended;

  if (is_new)
    run (REQUEST_TRIM, 0, DISK_BYTES);
  run_admin (ADMIN_SYNC);
  store->commit.small_blocks = way == RECORD ? UINT32_MAX : 0;
  atomic_store (&device_bytes, 0);
  atomic_store (&device_flushes, 0);
  began = clock_ns ();
  for (unsigned i = 0; i < commits; i++)
    write_commit (blocks, is_scattered);
  flushed = clock_ns ();
  run_admin (ADMIN_SYNC);
  ended = clock_ns ();
  return (struct result) {
    .flushed_us = (double) (flushed - began) / 1000 / commits,
    .all_us = (double) (ended - began) / 1000 / commits,
    .bytes = (double) atomic_load (&device_bytes) / (double) (commits * blocks * BLOCK_SIZE),
    .flushes = (double) atomic_load (&device_flushes) / commits,
  };
}

static int
compare_doubles (const void *a, const void *b)
{
  double left = *(const double *) a, right = *(const double *) b;

  return (left > right) - (left < right);
}

static double
value_of (const struct result *result, size_t member)
{
  double value;

  memcpy (&value, (const char *) result + member, sizeof value);
  return value;
}

static double
median_of (const struct result results[ROUNDS], size_t member)
{
  double values[ROUNDS];

  for (unsigned i = 0; i < ROUNDS; i++)
    values[i] = value_of (&results[i], member);
  qsort (values, ROUNDS, sizeof values[0], compare_doubles);
  return values[ROUNDS / 2];
}

/* The least of both ways, and the ratio. */
static void
print_times (struct result results[WAYS][ROUNDS], size_t member)
{
  double least[WAYS], ratios[ROUNDS];

  for (unsigned w = 0; w < WAYS; w++) {
    least[w] = value_of (&results[w][0], member);
    for (unsigned i = 1; i < ROUNDS; i++)
      least[w] = MIN (least[w], value_of (&results[w][i], member));
  }
  for (unsigned i = 0; i < ROUNDS; i++)
    ratios[i] = value_of (&results[PLACE][i], member) / value_of (&results[RECORD][i], member);
  qsort (ratios, ROUNDS, sizeof ratios[0], compare_doubles);
  printf (" %8.0f%8.0f%6.2f", least[RECORD], least[PLACE], ratios[ROUNDS / 2]);
}

static void
measure_all (bool is_new, bool is_scattered)
{
  static const unsigned sizes[] = { 1, 4, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048 };
  struct result results[WAYS][ROUNDS];

  printf ("\n %-15s      until flushed, us     until in place, us     written       flushes\n"
          "                   record   place ratio   record   place ratio  record place  record place\n",
          is_new ? is_scattered ? "new, scattered" : "new, one piece"
                 : is_scattered ? "over, scattered" : "over, one piece");
  for (unsigned s = 0; s < ARRAY_COUNT (sizes); s++) {
    for (unsigned round = 0; round < ROUNDS; round++)
      for (unsigned w = 0; w < WAYS; w++) {
        enum way way = (round + w) % WAYS;

        results[way][round] = measure (way, sizes[s], is_new, is_scattered);
      }
    printf (" %10u KiB  ", 4 * sizes[s]);
    print_times (results, offsetof (struct result, flushed_us));
    print_times (results, offsetof (struct result, all_us));
    printf ("    %4.2f  %4.2f    %4.2f  %4.2f\n",
            median_of (results[RECORD], offsetof (struct result, bytes)),
            median_of (results[PLACE], offsetof (struct result, bytes)),
            median_of (results[RECORD], offsetof (struct result, flushes)),
            median_of (results[PLACE], offsetof (struct result, flushes)));
    fflush (stdout);
  }
}

/* Every block of the disk has its place. */
static void
fill (void)
{
  for (uint64_t at = 0; at < DISK_BYTES; at += 4 * MIB)
    run (REQUEST_WRITE, at, 4 * MIB);
  run_admin (ADMIN_SYNC);
}

int
main (int argc, char **argv)
{
  char *error = NULL;

  store = bench_store_open ("threshold", argc > 1 ? argv[1] : NULL, CACHE_BYTES);
  if (store == NULL)
    return 1;
  context = store_context_create (store);
  CHECK (context != NULL);
  run_admin (ADMIN_CREATE);
  disk = disk_open (store, "disk");
  fill ();
  for (unsigned over = 0; over < 4; over++) {
    if (over == 2)
      fill ();
    measure_all (over < 2, over % 2 == 1);
  }
  disk_close (disk);
  store_context_destroy (store, context);
  CHECK (store_close (store, &error) == 0);
  return 0;
}
