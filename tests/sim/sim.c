/* SPDX-License-Identifier: BSD-2-Clause */
/* sim.c - the simulator: histories of requests over a faulty device, killed, cut off, recovered,
 * judged, continued.
 *
 *   sim [--seed N] [--runs N] [--ops N] [--kind kill|power|mixed] [--faults] [--trace]
 *       [--first]
 *   sim --threads N [--seed N] [--runs N] [--ops N]
 *
 * Each run has a seed of its own, from N on, which says everything: the store's size, the cache's,
 * what is asked for how often, and what happens when.  A violation prints the seed; --seed N --runs
 * 1 --trace shows its history.  --first: the first violation is the last.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "sim.h"
#include "world.h"

/* Stores are abandoned here, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

struct settings {
  uint64_t seed, runs, ops;
  unsigned threads;
  enum { KIND_MIXED, KIND_KILL, KIND_POWER } kind;
  bool has_faults, is_traced, is_first_only;
};

/* What one run is like. */
struct swarm {
  unsigned disks;
  uint64_t disk_blocks;         /* about */
  uint64_t hot_blocks;          /* most requests fall into so many, at a place of each disk */
  uint64_t length_max;          /* blocks of most requests */
  unsigned weights[REQUEST_BLOCK_STATUS + 1];
  unsigned admin_weight;        /* of 1000 requests */
  unsigned clone_weight;        /* likewise */
  unsigned shift_weight;        /* likewise: ranges collapsed or inserted */
  unsigned unaligned, fua;      /* percent */
  unsigned depth;               /* requests at a time */
  unsigned crash, reopen, fault;/* of 10000 turns */
  struct world_options world;
};

static uint64_t
pick (struct random *random, const uint64_t *values, unsigned count)
{
  return values[random_below (random, count)];
}
#define PICK(random, ...)                                                                  \
  pick (random, (const uint64_t[]) { __VA_ARGS__ },                                        \
        sizeof ((uint64_t[]) { __VA_ARGS__ }) / sizeof (uint64_t))

static void
swarm_draw (struct swarm *swarm, const struct settings *settings, uint64_t seed)
{
  struct random random = { .state = seed * 31 + 7 };
  struct world_options *world = &swarm->world;
  uint64_t data;

  memset (swarm, 0, sizeof *swarm);
  swarm->disks = random_between (&random, 1, 3);
  swarm->disk_blocks = PICK (&random, 40, 200, 700);
  swarm->hot_blocks = PICK (&random, 4, 16, 64, 1000);
  swarm->length_max = PICK (&random, 2, 8, 40, 300);
  for (unsigned i = 0; i <= REQUEST_BLOCK_STATUS; i++)
    swarm->weights[i] = PICK (&random, 0, 1, 3, 10);
  swarm->weights[REQUEST_WRITE] = PICK (&random, 3, 10, 30);
  swarm->weights[REQUEST_FLUSH] = PICK (&random, 0, 1, 3);
  swarm->weights[REQUEST_READ] += 3;
  swarm->admin_weight = PICK (&random, 0, 5, 30);
  swarm->clone_weight = PICK (&random, 0, 10, 60);
  swarm->shift_weight = PICK (&random, 0, 10, 60);
  swarm->unaligned = PICK (&random, 0, 5, 50);
  swarm->fua = PICK (&random, 0, 5, 30);
  swarm->depth = PICK (&random, 1, 3, 8, 16);
  swarm->crash = PICK (&random, 2, 10, 40);
  swarm->reopen = PICK (&random, 0, 1, 5);
  swarm->fault = settings->has_faults ? PICK (&random, 1, 5, 20) : 0;
  world->seed = seed;
  world->geometry.group_blocks = 1024;
  world->geometry.meta_blocks = 64;
  world->geometry.journal_half_blocks = PICK (&random, 64, 100, 256);
  data = swarm->disks * swarm->disk_blocks;
  world->is_tight = random_chance (&random, 30);
  if (world->is_tight)
    world->geometry.capacity = 64 + 2 * world->geometry.journal_half_blocks + data / PICK (&random, 2, 8, 64) + PICK (&random, 1, 4, 32);
  world->device_blocks = 64;
  world->device_blocks_max = 16384;
  world->cache_bytes = PICK (&random, 64, 100, 256, 1024) * BLOCK_SIZE;
  world->tail_bytes = PICK (&random, 32, 64, 256) * KIB;
  world->contexts = random_between (&random, 1, WORLD_CONTEXTS);
  world->has_arena = settings->kind == KIND_KILL || random_chance (&random, 70);
  world->is_traced = settings->is_traced;
  world->has_lints = true;
  world->places_late = random_chance (&random, 50);
  world->step_weight = PICK (&random, 1, 4, 10);
  world->io_weight = PICK (&random, 1, 4, 10);
  world->tick_weight = PICK (&random, 1, 5, 50);
}

/* --- what the clients ask for --- */

static enum request_kind
draw_kind (struct world *world, const struct swarm *swarm)
{
  unsigned total = 0, choice;

  for (unsigned i = 0; i <= REQUEST_BLOCK_STATUS; i++)
    total += swarm->weights[i];
  choice = random_below (&world->random, total);
  for (unsigned i = 0;; i++) {
    if (choice < swarm->weights[i])
      return i;
    choice -= swarm->weights[i];
  }
}

static void
draw_range (struct world *world, const struct swarm *swarm, enum request_kind kind, uint64_t size,
            uint64_t *offset, uint64_t *length)
{
  struct random *random = &world->random;
  uint64_t blocks = size / BLOCK_SIZE, first, count, hot = MIN (swarm->hot_blocks, blocks);
  uint64_t base = (blocks - hot) / 2;

  if (random_chance (random, 85))
    first = base + random_below (random, hot);
  else
    first = random_below (random, blocks);
  count = random_between (random, 1, swarm->length_max);
  if (kind == REQUEST_TRIM || kind == REQUEST_WRITE_ZEROES)
    count *= random_chance (random, 10) ? 100 : 1;
  else if (kind != REQUEST_CACHE && kind != REQUEST_BLOCK_STATUS)
    /* Half of the frames is the most that one request may take. */
    count = MIN (count, swarm->world.cache_bytes / BLOCK_SIZE / 2 - 1);
  count = MIN (count, blocks - first);
  *offset = first * BLOCK_SIZE;
  *length = count * BLOCK_SIZE;
  if (random_chance (random, swarm->unaligned)) {
    uint64_t unit = random_chance (random, 50) ? SECTOR_SIZE : 1;

    *offset += random_below (random, BLOCK_SIZE / unit) * unit;
    *length = random_between (random, 1, *length / unit) * unit;
    *length = MIN (*length, size - *offset);
  }
}

static void
start_admin (struct world *world, const struct swarm *swarm)
{
  struct random *random = &world->random;
  unsigned disk = random_below (random, swarm->disks);
  uint64_t size = random_between (random, 1, swarm->disk_blocks * 3 / 2) * BLOCK_SIZE;

  switch (random_below (random, 8)) {
  case 0:
  case 1:
  case 2:
    world_create_disk (world, disk, size);
    break;
  case 3:
  case 4:
    world_resize_disk (world, disk, size);
    break;
  case 5:
    world_rename_disk (world, disk);
    break;
  case 6:
    if (world->disks[disk].users == 0 || random_chance (random, 10))
      world_delete_disk (world, disk);
    break;
  default:
    world_sync (world);
  }
}

/* From where most requests go to, to anywhere, or the other way. */
static void
start_clone (struct world *world, const struct swarm *swarm, unsigned source)
{
  struct random *random = &world->random;
  unsigned target = random_below (random, swarm->disks);
  uint64_t offset, length, to, any;

  if (!world->disks[target].exists)
    return;
  draw_range (world, swarm, REQUEST_TRIM, world->disks[source].size, &offset, &length);
  draw_range (world, swarm, REQUEST_TRIM, world->disks[target].size, &to, &any);
  world_clone_range (world, source, align_down (offset, BLOCK_SIZE), align_up (length, BLOCK_SIZE),
                     target, align_down (to, BLOCK_SIZE));
}

static void
start_shift (struct world *world, const struct swarm *swarm, unsigned disk)
{
  struct random *random = &world->random;
  uint64_t blocks = world->disks[disk].size / BLOCK_SIZE, first, count;
  bool is_up = random_chance (random, 50);

  if (blocks < 2 || (random_chance (random, 15) && world_shift_again (world, disk)))
    return;
  first = random_below (random, random_chance (random, 30) ? blocks : MIN (blocks, 8));
  count = random_between (random, 1, MAX (2, swarm->disk_blocks / 4));
  if (!is_up)
    count = MIN (count, blocks - MAX (first, 1));
  world_shift_range (world, disk, is_up ? ADMIN_INSERT : ADMIN_COLLAPSE, first * BLOCK_SIZE,
                     count * BLOCK_SIZE);
}

static void
start_request (struct world *world, const struct swarm *swarm)
{
  struct random *random = &world->random;
  unsigned disk = random_below (random, swarm->disks), flags = 0;
  enum request_kind kind = draw_kind (world, swarm);
  uint64_t offset = 0, length = 0;

  if (!world->disks[disk].exists) {
    world_create_disk (world, disk, swarm->disk_blocks * BLOCK_SIZE);
    return;
  }
  if (random_below (random, 1000) < swarm->admin_weight) {
    start_admin (world, swarm);
    return;
  }
  if (random_below (random, 1000) < swarm->shift_weight) {
    start_shift (world, swarm, disk);
    return;
  }
  if (random_below (random, 1000) < swarm->clone_weight) {
    start_clone (world, swarm, disk);
    return;
  }
  if (kind != REQUEST_FLUSH)
    draw_range (world, swarm, kind, world->disks[disk].size, &offset, &length);
  if (random_chance (random, swarm->fua) && kind != REQUEST_READ)
    flags |= REQUEST_FUA;
  if (kind == REQUEST_WRITE_ZEROES && random_chance (random, 30))
    flags |= REQUEST_NO_HOLE;
  world_request (world, random_below (random, world->options.contexts), disk, kind, flags, offset,
                 length);
}

static void
start_fault (struct world *world)
{
  static const enum io_kind kinds[] = { IO_READ, IO_WRITE, IO_WRITE, IO_FLUSH, IO_DISCARD };
  enum io_kind kind = kinds[random_below (&world->random, ARRAY_COUNT (kinds))];

  world->is_faulty = true;
  world->totals.faults++;
  world_trace (world, "FAULT on io kind %d", kind);
  sim_fail (world->image, kind, random_below (&world->random, 4), -EIO,
            random_chance (&world->random, 10));
}

static bool
run_world (struct world *world, const struct swarm *swarm, const struct settings *settings)
{
  struct random *random = &world->random;
  unsigned idle = 0;

  while (world->totals.requests < settings->ops && !world->is_failed) {
    if (world->busy < swarm->depth && random_chance (random, 30))
      start_request (world, swarm);
    idle = world_turn (world) ? 0 : idle + 1;
    if (random_below (random, 10000) < swarm->fault)
      start_fault (world);
    if (random_below (random, 10000) < swarm->crash) {
      bool is_kill = settings->kind == KIND_KILL
                     || (settings->kind == KIND_MIXED && random_chance (random, 50));

      world_crash (world, is_kill ? CRASH_KILL : CRASH_POWER,
                   random_chance (random, 25) ? random_between (random, 1, 3) : 0);
    } else if (!world->is_faulty && random_below (random, 10000) < swarm->reopen)
      world_reopen (world);
    if (idle > 100000) {
      if (!world_settle (world))
        break;
      idle = 0;
    }
  }
  if (!world->is_failed && world->is_faulty)
    world_crash (world, CRASH_KILL, 0);
  return !world->is_failed && world_reopen (world);
}

static void
totals_add (struct world_totals *to, const struct world_totals *from)
{
  uint64_t *sum = (uint64_t *) to;
  const uint64_t *add = (const uint64_t *) from;

  for (unsigned i = 0; i < sizeof *to / sizeof *sum; i++)
    sum[i] += add[i];
}

static int
run_all (const struct settings *settings)
{
  struct world_totals totals = { 0 };
  unsigned violations = 0;

  for (uint64_t seed = settings->seed;
       seed < settings->seed + settings->runs && (!settings->is_first_only || violations == 0);
       seed++) {
    struct swarm swarm;
    struct world *world;

    world_note ("FAIL seed %" PRIu64 ": a check failed", seed);
    swarm_draw (&swarm, settings, seed);
    world = world_create (&swarm.world);
    if (world->is_failed || !run_world (world, &swarm, settings)) {
      violations++;
      printf ("  replay: sim --seed %" PRIu64 " --runs 1 --ops %" PRIu64 "%s%s --trace\n", seed,
              settings->ops,
              settings->kind == KIND_KILL    ? " --kind kill"
              : settings->kind == KIND_POWER ? " --kind power" : "",
              settings->has_faults ? " --faults" : "");
    }
    totals_add (&totals, &world->totals);
    world_destroy (world);
  }
  printf ("%s seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " requests (%" PRIu64 " errors, %" PRIu64
          " of them no space), %" PRIu64 " admin, %" PRIu64
          " shifts, %" PRIu64 " kills, %" PRIu64
          " power cuts, %" PRIu64 " of them in recovery, %" PRIu64 " openings, %" PRIu64
          " closes, %" PRIu64 " faults, %" PRIu64 " steps, %" PRIu64 " ios, %u violations\n",
          violations ? "FAIL" : "ok", settings->seed, settings->seed + settings->runs - 1,
          totals.requests, totals.errors, totals.enospc, totals.admins, totals.shifts,
          totals.kills,
          totals.power_cuts, totals.open_crashes, totals.opens, totals.closes, totals.faults,
          totals.steps, totals.ios, violations);
  return violations ? 1 : 0;
}

static bool
parse_kind (const char *text, struct settings *settings)
{
  static const char *const kinds[] = {
    [KIND_MIXED] = "mixed", [KIND_KILL] = "kill", [KIND_POWER] = "power",
  };

  for (unsigned kind = 0; kind < ARRAY_COUNT (kinds); kind++)
    if (strcmp (text, kinds[kind]) == 0) {
      settings->kind = kind;
      return true;
    }
  fprintf (stderr, "sim: --kind is kill, power or mixed, not %s\n", text);
  return false;
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "seed", required_argument, NULL, 's' },  { "runs", required_argument, NULL, 'r' },
    { "ops", required_argument, NULL, 'o' },   { "kind", required_argument, NULL, 'k' },
    { "faults", no_argument, NULL, 'f' },      { "trace", no_argument, NULL, 't' },
    { "threads", required_argument, NULL, 'T' }, { "first", no_argument, NULL, 'F' },
    { NULL, 0, NULL, 0 },
  };
  struct settings settings = { .seed = 1, .runs = 100, .ops = 400 };
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 's':
      settings.seed = strtoull (optarg, NULL, 0);
      break;
    case 'r':
      settings.runs = strtoull (optarg, NULL, 0);
      break;
    case 'o':
      settings.ops = strtoull (optarg, NULL, 0);
      break;
    case 'k':
      if (!parse_kind (optarg, &settings))
        return 2;
      break;
    case 'f':
      settings.has_faults = true;
      break;
    case 'F':
      settings.is_first_only = true;
      break;
    case 't':
      settings.is_traced = true;
      break;
    case 'T':
      settings.threads = strtoull (optarg, NULL, 0);
      break;
    default:
      return 2;
    }
  setvbuf (stdout, NULL, _IOLBF, 0);
  world_handle_signals ();
  if (!settings.is_traced)
    world_log_nothing ();
  if (settings.threads > 0)
    return threads_run (settings.threads, settings.seed, settings.runs, settings.ops);
  return run_all (&settings);
}
