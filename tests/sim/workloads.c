/* SPDX-License-Identifier: BSD-2-Clause */
/* workloads.c - all short workloads, each cut off at every step.
 *
 *   workloads [--length N] [--stride N] [--first K] [--kill]
 *
 * A workload is N acts (2) out of an alphabet: requests of all kinds over ranges of three blocks,
 * and what is done to disks, on two disks, one of which has data in its places.  Each act ends
 * before the next one begins.  Wherever the device is in another state than before, the power is
 * cut, in clones that differ in what becomes of what was not flushed; the oracle judges what is
 * found.  --kill: the process is killed instead, at every single step, and its arena taken over.
 * --stride, --first: every N-th workload only, from the K-th on.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

/* Clones of one state. */
#define FATES 2
#define TURNS_MAX 3000
#define DISK_BLOCKS 3

/* Stores are abandoned, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

/* --- the alphabet --- */

struct range {
  unsigned offset, length;      /* bytes */
};

static const struct range ranges[] = {
  { 0, 4096 }, { 4096, 4096 }, { 0, 8192 }, { 0, 12288 }, { 4608, 512 }, { 2048, 8192 },
};

static const struct {
  enum request_kind kind;
  unsigned flags;
} requests[] = {
  { REQUEST_WRITE, 0 },
  { REQUEST_WRITE, REQUEST_FUA },
  { REQUEST_TRIM, 0 },
  { REQUEST_TRIM, REQUEST_FUA },
  { REQUEST_WRITE_ZEROES, 0 },
  { REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE },
};

enum { ACT_FLUSH, ACT_SYNC, ACT_SHRINK, ACT_GROW, ACT_RENAME, ACT_DELETE, ACT_CREATE, ACT_CLOCK,
       OTHERS };

#define REQUESTS (ARRAY_COUNT (requests) * ARRAY_COUNT (ranges))
#define ALPHABET (2 * (REQUESTS + OTHERS))

/* Begins the act; what cannot be (a disk that is there, or is not) is no act. */
static void
begin_act (struct world *world, unsigned letter)
{
  unsigned disk = letter % 2, rest = letter / 2;

  if (rest < REQUESTS) {
    const struct range *range = &ranges[rest % ARRAY_COUNT (ranges)];

    if (world->disks[disk].exists && range->offset + range->length <= world->disks[disk].size)
      world_request (world, 0, disk, requests[rest / ARRAY_COUNT (ranges)].kind,
                     requests[rest / ARRAY_COUNT (ranges)].flags, range->offset, range->length);
    return;
  }
  switch (rest - REQUESTS) {
  case ACT_FLUSH:
    if (world->disks[disk].exists)
      world_request (world, 0, disk, REQUEST_FLUSH, 0, 0, 0);
    break;
  case ACT_SYNC:
    world_sync (world);
    break;
  case ACT_SHRINK:
    world_resize_disk (world, disk, BLOCK_SIZE);
    break;
  case ACT_GROW:
    world_resize_disk (world, disk, (DISK_BLOCKS + 1) * BLOCK_SIZE);
    break;
  case ACT_RENAME:
    world_rename_disk (world, disk);
    break;
  case ACT_DELETE:
    world_delete_disk (world, disk);
    break;
  case ACT_CREATE:
    world_create_disk (world, disk, DISK_BLOCKS * BLOCK_SIZE);
    break;
  case ACT_CLOCK:
    /* What is dirty is old, and goes to its place. */
    for (unsigned i = 0; i < KEEPER_TICKS_OLD + 2; i++)
      keeper_tick (world->store);
    break;
  }
}

/* --- one workload --- */

struct settings {
  unsigned length;
  uint64_t stride, first;
  bool is_kill;
};

struct totals {
  uint64_t workloads, steps, cuts, violations;
};

static bool
is_settled (struct world *world)
{
  return world->busy == 0 && !world->admin.is_running && world_collect (world) == 0
         && sim_in_flight (world->image) == 0;
}

static bool
cut_power (struct world *world, uint64_t *last, struct totals *totals)
{
  uint64_t hash = world_hash (world);

  for (unsigned i = 0; hash != *last && i < FATES; i++) {
    struct world *clone = world_clone (world, hash + i);
    bool is_ok = world_crash (clone, CRASH_POWER, 0) && world_verify (clone);

    totals->cuts++;
    world_destroy (clone);
    if (!is_ok)
      return false;
  }
  *last = hash;
  return true;
}

static struct world *
start (uint64_t workload, bool is_kill)
{
  struct world_options options = {
    .seed = workload + 1,
    .geometry = { .group_blocks = 512, .meta_blocks = 64, .journal_half_blocks = 32 },
    .device_blocks = 64, .device_blocks_max = 1024, .cache_bytes = 64 * BLOCK_SIZE,
    .tail_bytes = 16 * KIB, .request_bytes_max = 16 * BLOCK_SIZE, .contexts = 1,
    .has_arena = is_kill, .is_plain = true, .has_lints = true, .step_weight = 1, .io_weight = 1,
  };
  struct world *world = world_create (&options);

  if (!world->is_failed && world_create_disk (world, 0, DISK_BLOCKS * BLOCK_SIZE)
      && world_settle (world) && world_create_disk (world, 1, DISK_BLOCKS * BLOCK_SIZE)
      && world_settle (world) && world_request (world, 0, 0, REQUEST_WRITE, 0, 0, 2 * BLOCK_SIZE)
      && world_settle (world) && world_reopen (world))
    return world;
  world_destroy (world);
  return NULL;
}

/* Runs it; with STOP_AT, to that step only.  False: a violation.  *STEPS: how many there were. */
static bool
run (struct world *world, uint64_t workload, const struct settings *settings, uint64_t stop_at,
     uint64_t *steps, struct totals *totals)
{
  uint64_t last = 0;

  *steps = 0;
  for (unsigned i = 0; i < settings->length; i++, workload /= ALPHABET) {
    begin_act (world, workload % ALPHABET);
    for (unsigned turn = 0; turn < TURNS_MAX && !is_settled (world); turn++) {
      if ((!settings->is_kill && !cut_power (world, &last, totals)) || world->is_failed)
        return false;
      if ((*steps)++ == stop_at)
        return true;
      world_turn (world);
    }
    if (!world_settle (world))
      return false;
  }
  return settings->is_kill || (cut_power (world, &last, totals) && world_verify (world));
}

static void
run_workload (uint64_t workload, const struct settings *settings, struct totals *totals)
{
  uint64_t steps = 0, stop_at = settings->is_kill ? 0 : UINT64_MAX;
  bool is_ok = true;

  world_note ("FAIL workload %" PRIu64 ": a check failed", workload);
  do {
    struct world *world = start (workload, settings->is_kill);

    is_ok = world != NULL && run (world, workload, settings, stop_at, &steps, totals);
    if (is_ok && settings->is_kill) {
      totals->cuts++;
      is_ok = world_crash (world, CRASH_KILL, 0) && world_verify (world);
    }
    if (world != NULL)
      world_destroy (world);
  } while (is_ok && settings->is_kill && stop_at++ < steps);
  totals->workloads++;
  totals->steps += steps;
  if (is_ok)
    return;
  totals->violations++;
  printf ("FAIL workload %" PRIu64 "; repeat: workloads --length %u --first %" PRIu64
          " --stride %" PRIu64 "%s\n", workload, settings->length, workload, UINT64_MAX / 2,
          settings->is_kill ? " --kill" : "");
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "length", required_argument, NULL, 'l' }, { "stride", required_argument, NULL, 's' },
    { "first", required_argument, NULL, 'f' },  { "kill", no_argument, NULL, 'k' },
    { NULL, 0, NULL, 0 },
  };
  struct settings settings = { .length = 2, .stride = 1 };
  struct totals totals = { 0 };
  uint64_t count = 1;
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 'l':
      settings.length = strtoul (optarg, NULL, 0);
      break;
    case 's':
      settings.stride = strtoull (optarg, NULL, 0);
      break;
    case 'f':
      settings.first = strtoull (optarg, NULL, 0);
      break;
    case 'k':
      settings.is_kill = true;
      break;
    default:
      return 2;
    }
  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  for (unsigned i = 0; i < settings.length; i++)
    count *= ALPHABET;
  for (uint64_t workload = settings.first; workload < count; workload += settings.stride)
    run_workload (workload, &settings, &totals);
  printf ("%s %" PRIu64 " of %" PRIu64 " workloads of %u acts, %" PRIu64 " steps, %" PRIu64
          " %s, %" PRIu64 " violations\n", totals.violations > 0 ? "FAIL" : "ok", totals.workloads,
          count, settings.length, totals.steps, totals.cuts,
          settings.is_kill ? "kills" : "power cuts", totals.violations);
  return totals.violations > 0 ? 1 : 0;
}
