/* SPDX-License-Identifier: BSD-2-Clause */
/* test-faults.c - every single fault: a script that uses all operations runs again and again, and
 * the k-th read, write, flush, discard or allocation fails, once or with all that follow, for every
 * k until the script ends without meeting it.  "data": from the k-th act on writes to places of
 * data fail, and others do not.  "host": the host's file system has room for 64 k blocks.  The
 * oracle judges what is answered meanwhile, and, after a kill or a power cut, what is left.
 *
 *   test-faults [--stride N] [--first K] [--only FAULT] [--script NAME] [--from K] [--trace]
 *
 * --stride N: every N-th k only.  A violation prints the command that repeats it.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "starve.h"
#include "store/store-internal.h"
#include "world.h"

/* Stores are abandoned here, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

/* --- the scripts --- */

enum act_kind {
  ACT_REQUEST,          /* starts it */
  ACT_CREATE, ACT_DELETE, ACT_RESIZE, ACT_RENAME, ACT_COLLAPSE, ACT_INSERT, ACT_CLONE, ACT_SYNC,
  ACT_SETTLE,           /* all that was started ends */
  ACT_TICKS,            /* the keeper's clock goes on: what is dirty gets old */
  ACT_REOPEN, ACT_KILL, ACT_POWER,
};

struct act {
  enum act_kind kind;
  enum request_kind request;
  unsigned disk, flags;
  uint64_t offset, length;      /* bytes; RESIZE, CREATE: length */
  unsigned target;              /* CLONE: disk, and bytes */
  uint64_t to;
};

#define B UINT64_C (4096)
#define START(what, d, from, bytes, bits)                                                          \
  { .kind = ACT_REQUEST, .request = REQUEST_##what, .disk = d, .flags = bits, .offset = from,      \
    .length = bytes }
#define SETTLE { .kind = ACT_SETTLE }
#define ONE(...) START (__VA_ARGS__), SETTLE
#define CREATE(d, bytes) { .kind = ACT_CREATE, .disk = d, .length = bytes }
#define RESIZE(d, bytes) { .kind = ACT_RESIZE, .disk = d, .length = bytes }
#define COLLAPSE(d, from, bytes)                                                                   \
  { .kind = ACT_COLLAPSE, .disk = d, .offset = from, .length = bytes }
#define INSERT(d, from, bytes) { .kind = ACT_INSERT, .disk = d, .offset = from, .length = bytes }
#define CLONE(d, from, bytes, into, at)                                                            \
  { .kind = ACT_CLONE, .disk = d, .offset = from, .length = bytes, .target = into, .to = at }
#define ADMIN(what, d) { .kind = ACT_##what, .disk = d }
#define THEN(what) { .kind = ACT_##what }

/* One after the other. */
static const struct act in_order[] = {
  CREATE (0, 100 * B), CREATE (1, 60 * B),
  ONE (WRITE, 0, 0, 10 * B, 0), ONE (FLUSH, 0, 0, 0, 0),
  ONE (WRITE, 0, 5 * B + 512, 700, 0), ONE (READ, 0, 0, 12 * B, 0),
  ONE (WRITE, 0, 20 * B, B, REQUEST_FUA), ONE (BLOCK_STATUS, 0, 0, 100 * B, 0),
  ONE (WRITE, 1, 0, 30 * B, 0), THEN (TICKS), ONE (FLUSH, 1, 0, 0, 0),
  ONE (TRIM, 0, 2 * B, 4 * B, 0), ONE (WRITE_ZEROES, 0, 3 * B + 100, 5 * B, 0),
  ONE (WRITE_ZEROES, 0, 30 * B, 9 * B, REQUEST_NO_HOLE | REQUEST_FUA), ONE (FLUSH, 0, 0, 0, 0),
  RESIZE (0, 25 * B), RESIZE (0, 90 * B), ADMIN (RENAME, 1),
  ONE (WRITE, 0, 25 * B, 20 * B, 0), ONE (FLUSH, 0, 0, 0, 0), ADMIN (SYNC, 0), THEN (REOPEN),
  ONE (CACHE, 0, 0, 60 * B, 0), ONE (READ, 0, 100, 50 * B, 0),
  ONE (WRITE, 0, 40 * B + 1, 3 * B, 0), ONE (TRIM, 1, 0, 15 * B, REQUEST_FUA), THEN (KILL),
  ONE (WRITE, 1, 3 * B, 7 * B, 0), ONE (FLUSH, 1, 0, 0, 0), ADMIN (DELETE, 0),
  THEN (TICKS), THEN (TICKS), THEN (POWER),
  CREATE (0, 50 * B), ONE (WRITE, 0, 0, 50 * B, 0), ONE (FLUSH, 0, 0, 0, 0), THEN (REOPEN),
};

/* Several at a time, over a journal that is soon full. */
static const struct act at_once[] = {
  CREATE (0, 300 * B), CREATE (1, 200 * B), CREATE (2, B),
  START (WRITE, 0, 0, 20 * B, 0), START (WRITE, 0, 30 * B, 20 * B, 0),
  START (WRITE, 1, 10 * B, 15 * B, REQUEST_FUA), START (FLUSH, 0, 0, 0, 0),
  START (READ, 0, 0, 25 * B, 0), START (TRIM, 0, 5 * B, 30 * B, 0), SETTLE,
  START (WRITE, 0, 8 * B, 1000, REQUEST_FUA), START (WRITE, 0, 8 * B + 2000, 1000, REQUEST_FUA),
  START (WRITE, 1, 11 * B, 9000, 0), START (WRITE_ZEROES, 1, 12 * B + 5, 6 * B, REQUEST_FUA),
  START (FLUSH, 1, 0, 0, 0), RESIZE (1, 100 * B), SETTLE,
  START (WRITE, 0, 100 * B, 30 * B, 0), START (WRITE, 0, 150 * B, 30 * B, REQUEST_FUA),
  START (WRITE, 1, 50 * B, 30 * B, REQUEST_FUA), START (FLUSH, 0, 0, 0, 0), THEN (TICKS), SETTLE,
  START (WRITE, 0, 200 * B, 40 * B, 0), START (TRIM, 0, 90 * B, 100 * B, REQUEST_FUA),
  START (FLUSH, 0, 0, 0, 0), SETTLE,
  START (WRITE, 0, 0, 30 * B, REQUEST_FUA), START (WRITE, 0, 30 * B, 30 * B, REQUEST_FUA),
  START (WRITE, 1, 0, 30 * B, REQUEST_FUA), START (READ, 1, 0, 40 * B, 0), SETTLE, THEN (KILL),
  START (WRITE, 0, 60 * B, 30 * B, REQUEST_FUA), START (WRITE, 1, 30 * B, 30 * B, REQUEST_FUA),
  START (TRIM, 0, 200 * B, 100 * B, 0), START (CACHE, 0, 0, 40 * B, 0),
  START (FLUSH, 0, 0, 0, 0), SETTLE,
  ADMIN (DELETE, 1), START (WRITE, 0, 250 * B, 20 * B, 0), SETTLE, THEN (TICKS),
  CREATE (1, 40 * B), START (WRITE, 1, 0, 40 * B, REQUEST_FUA),
  START (WRITE, 0, 100 * B, 40 * B, 0), SETTLE, THEN (TICKS), THEN (REOPEN),
  ONE (READ, 0, 0, 30 * B, 0), ONE (WRITE, 0, 7 * B, 100, REQUEST_FUA),
};

/* Ranges that move, and blocks with several owners. */
static const struct act moved[] = {
  CREATE (0, 100 * B), CREATE (1, 60 * B),
  ONE (WRITE, 0, 0, 30 * B, 0), ONE (WRITE, 0, 60 * B, 9 * B, 0), ONE (FLUSH, 0, 0, 0, 0),
  START (WRITE, 0, 4 * B, 100, 0), START (READ, 0, 0, 40 * B, 0), COLLAPSE (0, 3 * B, 8 * B),
  ONE (READ, 0, 0, 50 * B, 0), ONE (WRITE, 0, 10 * B + 7, 2 * B, REQUEST_FUA),
  INSERT (0, 5 * B, 4 * B), SETTLE, ONE (READ, 0, 0, 60 * B, 0), THEN (KILL),
  CLONE (0, 2 * B, 20 * B, 1, 10 * B), SETTLE, ONE (WRITE, 1, 12 * B + 512, 1024, 0),
  ONE (WRITE, 0, 8 * B, 3 * B, 0), ONE (FLUSH, 0, 0, 0, 0), ONE (FLUSH, 1, 0, 0, 0), THEN (TICKS),
  CLONE (1, 10 * B, 10 * B, 1, 30 * B), START (WRITE, 1, 11 * B, B, 0), SETTLE,
  ONE (TRIM, 1, 14 * B, 9 * B, 0), ONE (WRITE_ZEROES, 0, 9 * B, 4 * B, REQUEST_NO_HOLE),
  COLLAPSE (1, 0, 12 * B), SETTLE, ADMIN (SYNC, 0), THEN (POWER),
  ONE (READ, 1, 0, 40 * B, 0), ADMIN (DELETE, 0), INSERT (1, B, 2 * B), SETTLE, THEN (REOPEN),
  ONE (READ, 1, 0, 40 * B, 0),
};

static const struct script {
  const char *name;
  const struct act *acts;
  size_t count;
} scripts[] = {
  { "in-order", in_order, ARRAY_COUNT (in_order) },
  { "at-once", at_once, ARRAY_COUNT (at_once) },
  { "moved", moved, ARRAY_COUNT (moved) },
};

#define TICKS 12

static void
tick (struct world *world)
{
  for (unsigned i = 0; i < TICKS && !world->is_failed; i++) {
    keeper_tick (world->store);
    for (unsigned turns = 0; turns < 400 && world_turn (world); turns++)
      ;
  }
}

static bool
act (struct world *world, const struct act *act)
{
  const struct world_disk *disk = &world->disks[act->disk];
  bool is_admin = act->kind >= ACT_CREATE && act->kind <= ACT_SYNC;

  /* One at a time. */
  if (is_admin && !world_settle (world))
    return false;
  switch (act->kind) {
  case ACT_REQUEST:
    if (disk->exists && act->offset + act->length <= disk->size)
      world_request (world, 0, act->disk, act->request, act->flags, act->offset, act->length);
    break;
  case ACT_CREATE:
    world_create_disk (world, act->disk, act->length);
    break;
  case ACT_DELETE:
    world_delete_disk (world, act->disk);
    break;
  case ACT_RESIZE:
    world_resize_disk (world, act->disk, act->length);
    break;
  case ACT_RENAME:
    world_rename_disk (world, act->disk);
    break;
  case ACT_COLLAPSE:
  case ACT_INSERT:
    if (disk->exists && act->offset + act->length < disk->size)
      world_shift_range (world, act->disk,
                         act->kind == ACT_INSERT ? ADMIN_INSERT : ADMIN_COLLAPSE, act->offset,
                         act->length);
    break;
  case ACT_CLONE:
    world_clone_range (world, act->disk, act->offset, act->length, act->target, act->to);
    break;
  case ACT_SYNC:
    world_sync (world);
    break;
  case ACT_SETTLE:
    return world_settle (world);
  case ACT_TICKS:
    tick (world);
    break;
  case ACT_REOPEN:
    return world_reopen (world);
  case ACT_KILL:
    return world_crash (world, CRASH_KILL, 0);
  case ACT_POWER:
    return world_crash (world, CRASH_POWER, 0);
  }
  if (act->kind == ACT_CREATE || act->kind == ACT_DELETE)
    return world_settle (world);
  return !world->is_failed;
}

/* --- one run --- */

/* Beside the kinds of I/O. */
enum { MEMORY = IO_DISCARD + 1, DATA, HOST, FAULTS };

static const char *const fault_names[FAULTS] = {
  [IO_READ] = "read", [IO_WRITE] = "write", [IO_FLUSH] = "flush", [IO_DISCARD] = "discard",
  [MEMORY] = "memory", [DATA] = "data", [HOST] = "host",
};

#define META_BLOCKS 64
#define HALF_BLOCKS 80
#define DEVICE_BLOCKS 16384
/* Acts for which DATA fails. */
#define DATA_ACTS 8
#define HOST_STEP 64
/* Room for all of a script, and the margin that the engine leaves (store.c). */
#define HOST_ENOUGH 6000

struct run {
  const struct script *script;
  unsigned fault;               /* enum io_kind, or MEMORY */
  uint64_t k;
  bool is_forever;
  enum crash_kind end;
};

static void
begin_faults (struct world *world, const struct run *run)
{
  if (run->fault == MEMORY) {
    world->is_starved = world->may_lose_space = true;
    starve_after (run->k, run->is_forever);
  }
  else if (run->fault == HOST) {
    world->is_faulty = true;
    sim_set_host_free (world->image, run->k * HOST_STEP);
  }
  else if (run->fault != DATA) {
    world->is_faulty = true;
    sim_fail (world->image, run->fault, run->k, -EIO, run->is_forever);
  }
}

static void
end_faults (struct world *world)
{
  starve_end ();
  sim_heal (world->image);
  world->is_faulty = world->is_starved = false;
}

/* Before the I-th act. */
static void
turn_data (struct world *world, const struct run *run, size_t i)
{
  uint64_t first = META_BLOCKS + 2 * HALF_BLOCKS;

  if (run->fault != DATA)
    return;
  if (i == run->k) {
    world->is_faulty = true;
    sim_fail_range (world->image, IO_WRITE, first, DEVICE_BLOCKS - first, -EIO);
  }
  else if (i == run->k + DATA_ACTS && !run->is_forever)
    sim_fail_range (world->image, IO_WRITE, 0, 0, 0);
}

/* Whether there was a fault. */
static bool
is_fault_met (struct world *world, const struct run *run)
{
  struct sim_counts counts;

  if (run->fault == MEMORY)
    return starve_failed () > 0;
  if (run->fault == DATA)
    return run->k < run->script->count;
  if (run->fault == HOST)
    return run->k * HOST_STEP < HOST_ENOUGH;
  sim_get_counts (world->image, &counts);
  return counts.failed > 0;
}

static void
describe_run (const struct run *run, char text[160])
{
  snprintf (text, 160, "test-faults --script %s --only %s --from %" PRIu64 "%s%s --trace",
            run->script->name, fault_names[run->fault], run->k,
            run->is_forever ? " --forever" : " --once",
            run->end == CRASH_KILL ? " --kill" : " --power");
}

/* 1: the fault was met, and all was well; 0: it was not; -1: a violation. */
static int
run_once (const struct run *run, bool is_traced)
{
  struct world_options options = {
    .seed = 1 + run->k,
    .geometry = {
      .group_blocks = 1024, .meta_blocks = META_BLOCKS, .journal_half_blocks = HALF_BLOCKS,
    },
    .device_blocks = 64, .device_blocks_max = DEVICE_BLOCKS,
    .cache_bytes = 128 * BLOCK_SIZE, .tail_bytes = 16 * KIB,
    .request_bytes_max = 400 * BLOCK_SIZE, .contexts = 1,
    .has_arena = true, .has_lints = true, .is_plain = true,
    .is_tight = run->fault == HOST, .is_traced = is_traced,
    .end_faults = end_faults, .step_weight = 4, .io_weight = 2, .tick_weight = 1,
  };
  struct world *world = world_create (&options);
  char text[160];
  bool is_ok = !world->is_failed, is_met;

  describe_run (run, text);
  world_note ("FAIL a check failed: %s", text);
  begin_faults (world, run);
  for (size_t i = 0; i < run->script->count && is_ok; i++) {
    turn_data (world, run, i);
    is_ok = act (world, &run->script->acts[i]);
  }
  is_met = is_fault_met (world, run);
  is_ok = is_ok && world_settle (world);
  /* What failed for lack of memory has left nothing half done. */
  if (is_ok && run->fault == MEMORY) {
    end_faults (world);
    is_ok = world_verify (world);
  }
  end_faults (world);
  is_ok = is_ok && world_crash (world, run->end, 0) && world_verify (world) && world_reopen (world);
  world_destroy (world);
  return !is_ok ? -1 : is_met;
}

/* --- all runs --- */

struct settings {
  uint64_t stride, first, from;
  const char *script, *only;
  bool is_one;                  /* K = FROM alone */
  bool once, forever, kill, power, is_traced;
};

static bool
run_all_k (const struct settings *settings, struct run run, uint64_t *runs)
{
  char text[160];
  int result = 1;

  run.k = settings->is_one ? settings->from : settings->first;
  for (; result > 0; run.k += settings->stride) {
    result = run_once (&run, settings->is_traced);
    (*runs)++;
    if (result < 0) {
      describe_run (&run, text);
      printf ("  repeat: %s\n", text);
    }
    if (settings->is_one)
      break;
  }
  return result >= 0;
}

static int
run_all (const struct settings *settings)
{
  unsigned violations = 0;

  for (size_t s = 0; s < ARRAY_COUNT (scripts); s++)
    for (unsigned fault = 0; fault < FAULTS; fault++) {
      unsigned before = violations;
      uint64_t runs = 0;

      if ((settings->script != NULL && strcmp (settings->script, scripts[s].name) != 0)
          || (settings->only != NULL && strcmp (settings->only, fault_names[fault]) != 0))
        continue;
      for (unsigned choice = 0; choice < 4; choice++) {
        struct run run = {
          .script = &scripts[s], .fault = fault, .is_forever = choice & 1,
          .end = choice & 2 ? CRASH_POWER : CRASH_KILL,
        };

        /* A full host stays full. */
        if (fault == HOST && !run.is_forever)
          continue;
        if ((run.is_forever ? settings->once : settings->forever)
            || (run.end == CRASH_POWER ? settings->kill : settings->power))
          continue;
        violations += !run_all_k (settings, run, &runs);
      }
      printf ("%s %s, %s: %" PRIu64 " runs\n", violations > before ? "FAIL" : "ok",
              scripts[s].name, fault_names[fault], runs);
    }
  return violations > 0 ? 1 : 0;
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "stride", required_argument, NULL, 'n' }, { "only", required_argument, NULL, 'o' },
    { "first", required_argument, NULL, '0' },
    { "script", required_argument, NULL, 's' }, { "from", required_argument, NULL, 'f' },
    { "once", no_argument, NULL, '1' },         { "forever", no_argument, NULL, 'F' },
    { "kill", no_argument, NULL, 'k' },         { "power", no_argument, NULL, 'p' },
    { "trace", no_argument, NULL, 't' },        { NULL, 0, NULL, 0 },
  };
  struct settings settings = { .stride = 1 };
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 'n':
      settings.stride = strtoull (optarg, NULL, 0);
      break;
    case '0':
      settings.first = strtoull (optarg, NULL, 0);
      break;
    case 'o':
      settings.only = optarg;
      break;
    case 's':
      settings.script = optarg;
      break;
    case 'f':
      settings.from = strtoull (optarg, NULL, 0);
      settings.is_one = true;
      break;
    case '1':
      settings.once = true;
      break;
    case 'F':
      settings.forever = true;
      break;
    case 'k':
      settings.kill = true;
      break;
    case 'p':
      settings.power = true;
      break;
    case 't':
      settings.is_traced = true;
      break;
    default:
      return 2;
    }
  setvbuf (stdout, NULL, _IOLBF, 0);
  if (!settings.is_traced)
    world_log_nothing ();
  world_handle_signals ();
  return run_all (&settings);
}
