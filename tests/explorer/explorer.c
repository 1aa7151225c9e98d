/* SPDX-License-Identifier: BSD-2-Clause */
/* explorer.c - see explorer.h. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "explorer.h"
#include "store/store-internal.h"

#define DEPTH_MAX 4096
#define CHOICES_MAX 64
/* Periods of the clock that may pass when nothing else can happen. */
#define IDLE_TICKS_MAX 50
/* So many outcomes are tried where the device has something that is not durable yet. */
#define CUTS_OF_STATE 4

/* The choices of a run: which of how many. */
struct path {
  uint16_t chosen[DEPTH_MAX], count[DEPTH_MAX];
  uint32_t length;              /* of this run, so far */
  uint32_t replayed;            /* so many are given */
};

static struct path path;
static const struct scenario *current;

/* A check in the engine ends the program: which choices led there must still be told. */
static void
on_abort (int signal)
{
  (void) signal;
  printf ("FAIL %s: a check failed; choices", current != NULL ? current->name : "?");
  for (uint32_t i = 0; i < path.length; i++)
    printf (" %u/%u", path.chosen[i], path.count[i]);
  printf ("\n");
  fflush (stdout);
}

/* --- ops of scenarios that are not requests --- */

struct write_back_op {
  struct op op;
  struct world *world;
  struct writeback_request request;
  unsigned disk;
  struct disk *opened;
};

static enum op_next
write_back_step (struct op *op)
{
  struct write_back_op *self = container_of (op, struct write_back_op, op);

  if (op->stage == 1)
    return OP_DONE;
  op->stage = 1;
  self->request = (struct writeback_request) {
    .disk = self->opened, .version = cache_version (self->world->store->cache),
  };
  op_expect (op);
  keeper_write_back (self->world->store, &self->request, op);
  return OP_WAIT;
}

static void
write_back_done (struct op *op)
{
  struct write_back_op *self = container_of (op, struct write_back_op, op);

  if (self->request.error != 0)
    world_fail (self->world, "write-back failed: %d", self->request.error);
  self->world->busy--;
  disk_close (self->opened);
  free (self);
}

void
explorer_write_back (struct world *world, unsigned d)
{
  struct write_back_op *self = calloc (1, sizeof *self);

  CHECK (self != NULL);
  self->world = world;
  self->opened = disk_open (world->store, world->disks[d].name);
  world->busy++;
  op_init (&self->op, world->contexts[0], "write-back", 0, write_back_step, write_back_done);
  op_start (&self->op);
}

void
explorer_finish (struct world *world)
{
  world_settle (world);
}

/* --- who owns the blocks that I/O goes to --- */

#define TRACKED_MAX 256

struct owner {
  uint64_t number;              /* of the io */
  uint64_t place, disk, block;  /* disk 0: nobody */
};
static struct owner tracked[TRACKED_MAX];
static unsigned tracked_count;

static void
find_owner (struct store *store, uint64_t place, uint64_t *owner, uint64_t *block)
{
  *owner = *block = 0;
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);
    uint64_t blocks = disk_blocks (disk);

    for (uint64_t at = 0; at < blocks;) {
      struct extent extent;

      extent_map_lookup (&disk->map, at, blocks - at, &extent);
      if (extent.state != EXTENT_HOLE && place >= extent.place && place < extent.place + extent.length) {
        *owner = disk->id;
        *block = extent.block + (place - extent.place);
        return;
      }
      at += extent.length;
    }
  }
}

/* Data blocks must belong to whom they belong to from submission to completion; what is new belongs to nobody. */
static void
on_io (void *arg, const struct io *io, bool is_completion)
{
  struct world *world = arg;
  uint64_t first_data = from_le64 (world->store->superblock.journal_place)
                        + 2 * from_le64 (world->store->superblock.journal_half_blocks);

  if (io->kind == IO_FLUSH || io->place < first_data
      || io->place % from_le64 (world->store->superblock.group_blocks) 
            < from_le64 (world->store->superblock.meta_blocks))
    return;
  for (uint64_t i = 0; i < io->length; i++) {
    struct owner now = { .number = io->number, .place = io->place + i };
    unsigned at = 0;

    find_owner (world->store, now.place, &now.disk, &now.block);
    if (io->kind == IO_DISCARD && now.disk != 0)
      world_fail (world, "block %" PRIu64 " is passed down while disk %" PRIu64 " has it", now.place, now.disk);
    if (!is_completion) {
      CHECK (tracked_count < TRACKED_MAX);
      tracked[tracked_count++] = now;
      continue;
    }
    while (at < tracked_count && (tracked[at].number != now.number || tracked[at].place != now.place))
      at++;
    if (at == tracked_count)
      continue;
    if (tracked[at].disk != now.disk || tracked[at].block != now.block)
      world_fail (world, "%s of block %" PRIu64 " began when it was disk %" PRIu64 "'s block %" PRIu64
                  " and ended when it was disk %" PRIu64 "'s block %" PRIu64,
                  io->kind == IO_READ ? "a read" : "a write", now.place, tracked[at].disk, tracked[at].block, now.disk,
                  now.block);
    tracked[at] = tracked[--tracked_count];
  }
}

/* --- judging --- */

/* Hashes of worlds in which the power was cut already.  Open addressing; 0: empty. */
struct seen {
  uint64_t *hashes;
  uint64_t slots, count;        /* slots: power of 2 */
};
static struct seen seen;

static bool
seen_add (uint64_t hash)
{
  uint64_t at;

  if (seen.count >= seen.slots / 2) {
    struct seen old = seen;

    seen = (struct seen) { .slots = MAX (1024, 2 * old.slots) };
    seen.hashes = calloc (seen.slots, sizeof *seen.hashes);
    CHECK (seen.hashes != NULL);
    for (uint64_t i = 0; i < old.slots; i++)
      if (old.hashes[i] != 0)
        seen_add (old.hashes[i]);
    free (old.hashes);
  }
  for (at = hash & (seen.slots - 1); seen.hashes[at] != 0; at = (at + 1) & (seen.slots - 1))
    if (seen.hashes[at] == hash)
      return false;
  seen.hashes[at] = hash;
  seen.count++;
  return true;
}

static void
seen_clear (void)
{
  free (seen.hashes);
  seen = (struct seen) { 0 };
}

/* Cuts the power of a clone and looks at what is there after recovery. */
static void
cut_power_once (struct world *world, uint64_t seed, struct exploration *result)
{
  struct world *clone = world_clone (world, seed);

  result->cuts++;
  if (!world_crash (clone, CRASH_POWER, 0) || !world_verify (clone)) {
    printf ("  (after a power cut, image seed %" PRIu64 ")\n", seed);
    world->is_failed = true;
  }
  world_destroy (clone);
}

/* In each state once; some times where it is open what the device has kept. */
static void
cut_power (struct world *world, struct exploration *result)
{
  uint64_t hash = world_hash (world) | 1;
  unsigned count = sim_image_is_durable (world->image) ? 1 : CUTS_OF_STATE;

  if (!seen_add (hash))
    return;
  for (unsigned i = 0; i < count && !world->is_failed; i++)
    cut_power_once (world, hash + i, result);
}

static void
judge_end (struct world *world, struct exploration *result)
{
  if (!world_verify (world))
    return;
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    if (world->disks[d].exists)
      world_request (world, 0, d, REQUEST_READ, 0, 0, world->disks[d].size);
  if (!world_settle (world))
    return;
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    if (world->disks[d].exists)
      world_request (world, 0, d, REQUEST_FLUSH, 0, 0, 0);
  if (!world_settle (world) || !world_verify (world))
    return;
  cut_power (world, result);
}

/* --- one run --- */

/* What may still be spent in a run. */
struct bounds {
  uint32_t preemptions, delays;
};

struct choice {
  struct op *op;                /* NULL: a completion */
  unsigned io;
};

static unsigned
find_choices (struct world *world, struct choice *choices, struct op *last, const struct bounds *left, bool *costs,
              bool *is_cut)
{
  unsigned ready = world_collect (world), in_flight = sim_in_flight (world->image), count = 0;
  bool last_is_ready = false;

  CHECK (ready + in_flight <= CHOICES_MAX);
  for (unsigned i = 0; i < ready; i++)
    last_is_ready |= world_ready_op (world, i) == last;
  *costs = last_is_ready;
  *is_cut = ((last_is_ready && left->preemptions == 0) || left->delays == 0) && ready + in_flight > 1;
  /* The op that ran goes first, so that the first run is one op after the other. */
  if (last_is_ready)
    choices[count++].op = last;
  for (unsigned i = 0; i < ready; i++) {
    struct op *op = world_ready_op (world, i);

    if (op != last && (!last_is_ready || left->preemptions > 0))
      choices[count++].op = op;
  }
  for (unsigned i = 0; i < in_flight && (!last_is_ready || left->preemptions > 0); i++) {
    choices[count].op = NULL;
    choices[count++].io = i;
  }
  if (left->delays == 0)
    count = MIN (count, 1);
  return count;
}

static unsigned
choose (unsigned count)
{
  CHECK (path.length < DEPTH_MAX);
  if (path.length >= path.replayed)
    path.chosen[path.length] = 0;
  else if (path.chosen[path.length] >= count) {
    /* The engine did something else than last time. */
    fprintf (stderr, "explorer: a run is not repeatable\n");
    abort ();
  }
  path.count[path.length] = count;
  return path.chosen[path.length++];
}

static void
run_choices (struct world *world, struct exploration *result)
{
  struct op *last = NULL;
  struct bounds left = {
    .preemptions = current->preemptions > 0 ? current->preemptions : UINT32_MAX,
    .delays = current->delays > 0 ? current->delays : UINT32_MAX,
  };
  unsigned idle = 0;
  bool has_then = current->then != NULL, is_in_order = false;

  while (!world->is_failed) {
    struct choice choices[CHOICES_MAX];
    unsigned count, chosen;
    bool costs, is_cut, is_new;

    if (world->busy == 0 && !world->admin.is_running) {
      if (!has_then)
        return;
      has_then = false;
      is_in_order = current->then_in_order;
      current->then (world);
    }
    count = find_choices (world, choices, last, &left, &costs, &is_cut);
    result->is_complete &= !is_cut;
    if (is_in_order)
      count = MIN (count, 1);
    if (count == 0) {
      if (idle++ == IDLE_TICKS_MAX) {
        world_fail (world, "requests hang");
        return;
      }
      keeper_tick (world->store);
      continue;
    }
    chosen = count > 1 ? choose (count) : 0;
    is_new = path.length >= path.replayed;
    result->steps++;
    if (costs && choices[chosen].op != last && left.preemptions != UINT32_MAX)
      left.preemptions--;
    if (chosen > 0 && left.delays != UINT32_MAX)
      left.delays--;
    if (choices[chosen].op != NULL) {
      last = choices[chosen].op;
      world_step (world, last);
    } else
      world_complete (world, choices[chosen].io);
    if (current->cuts_power && is_new && !world->is_failed)
      cut_power (world, result);
  }
}

static bool
run_once (struct world *base, bool is_traced, struct exploration *result)
{
  struct world *world = world_clone (base, 1);
  bool is_failed;

  path.length = 0;
  tracked_count = 0;
  if (world_open (world)) {
    if (current->warm != NULL) {
      current->warm (world);
      world_settle (world);
    }
    world->options.is_traced = is_traced;
    sim_set_trace (world->image, on_io, world);
    current->start (world);
    run_choices (world, result);
    result->depth_max = MAX (result->depth_max, path.length);
    if (!world->is_failed && world_settle (world))
      judge_end (world, result);
    sim_set_trace (world->image, NULL, NULL);
  }
  is_failed = world->is_failed;
  world_destroy (world);
  return !is_failed;
}

/* The last choice that has an alternative takes it.  False: there is none. */
static bool
next_path (void)
{
  while (path.length > 0 && path.chosen[path.length - 1] + 1 == path.count[path.length - 1])
    path.length--;
  if (path.length == 0)
    return false;
  path.chosen[path.length - 1]++;
  path.replayed = path.length;
  return true;
}

static struct world *
make_base (const struct scenario *scenario)
{
  struct world_options options = {
    .seed = 1,
    .geometry = { .group_blocks = 512, .meta_blocks = 64, .journal_half_blocks = 32 },
    .device_blocks = 64, .device_blocks_max = 4096,
    .cache_bytes = 64 * BLOCK_SIZE, .tail_bytes = 16 * KIB, .request_bytes_max = 64 * BLOCK_SIZE,
    .contexts = 1, .is_plain = true, .step_weight = 1, .io_weight = 1,
    .is_tight = scenario->capacity > 0,
  };
  struct world *world;

  if (scenario->capacity > 0)
    options.geometry.capacity = 64 + 2 * 32 + scenario->capacity;
  world = world_create (&options);
  if (world->is_failed)
    return world;
  scenario->base (world);
  if (world_settle (world))
    world_close (world);
  return world;
}

bool
explore (const struct scenario *scenario, uint64_t runs_max, bool is_traced, struct exploration *result)
{
  struct world *base;

  *result = (struct exploration) { .is_complete = true };
  current = scenario;
  path.length = path.replayed = 0;
  signal (SIGABRT, on_abort);
  base = make_base (scenario);
  result->is_failed = base->is_failed;
  while (!result->is_failed) {
    result->runs++;
    if (!run_once (base, is_traced, result)) {
      result->is_failed = true;
      printf ("  in run %" PRIu64 " of %s, choices", result->runs, scenario->name);
      for (uint32_t i = 0; i < path.length; i++)
        printf (" %u", path.chosen[i]);
      printf ("\n");
      if (!is_traced) {
        path.replayed = path.length;
        run_once (base, true, result);
      }
      break;
    }
    if (!next_path ())
      break;
    if (result->runs == runs_max) {
      printf ("  %s has more than %" PRIu64 " interleavings: not all were run\n", scenario->name, runs_max);
      result->is_complete = false;
      result->is_failed = true;
    }
  }
  world_destroy (base);
  seen_clear ();
  return !result->is_failed;
}
