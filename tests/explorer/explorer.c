/* SPDX-License-Identifier: BSD-2-Clause */
/* explorer.c - the search; see explorer.h. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "explorer.h"

#define DEPTH_MAX 4096
#define CHOICES_MAX 64
/* Periods of the clock that may pass when nothing else can happen. */
#define IDLE_TICKS_MAX 50
/* The value of a state from which not everything has been tried yet. */
#define UNDER_WAY UINT64_MAX

/* Where more than one thing could happen. */
struct choice_point {
  uint64_t state;
  uint64_t ways;                /* of the choices before the present one */
  uint16_t chosen, count;
};

/* The choices of a run. */
struct path {
  struct choice_point points[DEPTH_MAX];
  uint32_t length;              /* of this run, so far */
  uint32_t replayed;            /* so many are given */
};

static struct path path;
static struct seen_set visited; /* states; value: ways from there */
static struct seen_set outcomes;
static const struct scenario *current;
static unsigned chased;         /* phases that were started */
static bool is_then_due;

/* A check in the engine ends the program: which choices led there must still be told. */
static void
print_path (void)
{
  for (uint32_t i = 0; i < path.length; i++)
    printf (" %u", path.points[i].chosen);
  printf ("\n");
  fflush (stdout);
}

static void
on_abort (int signal)
{
  (void) signal;
  printf ("FAIL %s: a check failed; choices", current != NULL ? current->name : "?");
  print_path ();
}

static uint64_t
add_ways (uint64_t a, uint64_t b)
{
  return a > UINT64_MAX - 1 - b ? UINT64_MAX - 1 : a + b;
}

/* --- what was seen --- */

static struct seen_entry *
seen_slot (struct seen_set *set, uint64_t key)
{
  uint64_t at = key & (set->slots - 1);

  while (set->entries[at].key != 0 && set->entries[at].key != key)
    at = (at + 1) & (set->slots - 1);
  return &set->entries[at];
}

static void
seen_enlarge (struct seen_set *set)
{
  struct seen_set old = *set;

  set->slots = MAX (1024, 2 * old.slots);
  set->entries = calloc (set->slots, sizeof *set->entries);
  CHECK (set->entries != NULL);
  for (uint64_t i = 0; i < old.slots; i++)
    if (old.entries[i].key != 0)
      *seen_slot (set, old.entries[i].key) = old.entries[i];
  free (old.entries);
}

uint64_t *
seen_find (struct seen_set *set, uint64_t key, bool *is_new)
{
  struct seen_entry *entry;

  if (set->count >= set->slots / 2)
    seen_enlarge (set);
  entry = seen_slot (set, key);
  *is_new = entry->key == 0;
  entry->key = key;
  set->count += *is_new;
  return &entry->value;
}

void
seen_clear (struct seen_set *set)
{
  free (set->entries);
  *set = (struct seen_set) { 0 };
}

/* --- ops of scenarios that are not requests --- */

struct explorer_op *explorer_ops[EXPLORER_OPS];

static enum op_next
write_back_step (struct op *op)
{
  struct explorer_op *self = container_of (op, struct explorer_op, op);

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
  struct explorer_op *self = container_of (op, struct explorer_op, op);

  if (self->request.error != 0)
    world_fail (self->world, "write-back failed: %d", self->request.error);
  self->world->busy--;
  disk_close (self->opened);
  for (unsigned i = 0; i < EXPLORER_OPS; i++)
    if (explorer_ops[i] == self)
      explorer_ops[i] = NULL;
  free (self);
}

void
explorer_write_back (struct world *world, unsigned d)
{
  struct explorer_op *self = calloc (1, sizeof *self);
  unsigned number = 0;

  CHECK (self != NULL);
  while (explorer_ops[number] != NULL)
    CHECK (++number < EXPLORER_OPS);
  explorer_ops[number] = self;
  self->world = world;
  self->opened = disk_open (world->store, world->disks[d].name);
  world->busy++;
  op_init (&self->op, world->contexts[0], "write-back", 0, write_back_step, write_back_done);
  op_start (&self->op);
}

static void
forget_ops (void)
{
  for (unsigned i = 0; i < EXPLORER_OPS; i++) {
    free (explorer_ops[i]);
    explorer_ops[i] = NULL;
  }
}

void
explorer_request (struct world *world, unsigned disk, enum request_kind kind, unsigned flags,
                  uint64_t offset, uint64_t length)
{
  bool is_started = world_request (world, 0, disk, kind, flags, offset, length);

  CHECK (is_started);
}

void
explorer_read_ahead (struct world *world, unsigned d, uint64_t offset, uint64_t length)
{
  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    world->clients[i].stream.next_offset = offset;
  world->reads_ahead = true;
  world_request (world, 0, d, REQUEST_READ, 0, offset, length);
  world->reads_ahead = false;
}

void
explorer_finish (struct world *world)
{
  world_settle (world);
}

/* --- one run --- */

/* Of READY ops and IN_FLIGHT completions the one that is to happen. */
static void
take_choice (struct world *world, unsigned ready, unsigned chosen)
{
  if (chosen < ready)
    world_step (world, world_ready_op (world, chosen));
  else
    world_complete (world, chosen - ready);
}

/* At a point where more than one thing can happen: which?  False: all that can follow is known,
 * and how many WAYS there are. */
static bool
choose (struct world *world, unsigned count, bool is_full, unsigned *chosen,
        struct exploration *result, uint64_t *ways)
{
  struct choice_point *point = &path.points[path.length];
  bool is_new = true;

  CHECK (path.length < DEPTH_MAX);
  if (path.length >= path.replayed) {
    *point = (struct choice_point) { .count = count };
    if (!is_full) {
      uint64_t *value;

      point->state = explorer_state (world);
      value = seen_find (&visited, point->state, &is_new);
      if (!is_new) {
        result->returns += *value == UNDER_WAY;
        *ways = *value == UNDER_WAY ? 0 : *value;
        return false;
      }
      *value = UNDER_WAY;
    }
  }
  else if (point->count != count) {
    /* The engine did something else than last time. */
    fprintf (stderr, "explorer: a run is not repeatable\n");
    abort ();
  }
  *chosen = point->chosen;
  path.length++;
  return true;
}

const struct scenario *
explorer_scenario (void)
{
  return current;
}

uint64_t
explorer_phase (void)
{
  return chased << 1 | is_then_due;
}

/* What a scenario starts when it is time for that. */
static void
start_more (struct world *world)
{
  while (current->chase != NULL && current->chase (world, chased))
    chased++;
  if (!is_then_due || world->busy > 0 || world->admin.is_running)
    return;
  is_then_due = false;
  current->then (world);
}

/* Nothing can happen but that the clock ticks.  False: nothing is waited for either. */
static bool
let_tick (struct world *world, unsigned *ticks)
{
  if (world->busy == 0 && !world->admin.is_running)
    return false;
  if ((*ticks)++ == IDLE_TICKS_MAX)
    world_fail (world, "requests hang");
  keeper_tick (world->store);
  return true;
}

/* Until all has ended (true), or it is known what will (false). */
static bool
run_choices (struct world *world, const struct explorer_settings *settings,
             struct exploration *result, uint64_t *ways)
{
  unsigned ticks = 0;

  while (!world->is_failed) {
    unsigned ready, count, chosen = 0;
    bool is_new;

    start_more (world);
    ready = world_collect (world);
    count = ready + sim_in_flight (world->image);
    CHECK (count <= CHOICES_MAX);
    if (count == 0) {
      if (!let_tick (world, &ticks))
        return true;
      continue;
    }
    if (count > 1 && !choose (world, count, settings->is_full, &chosen, result, ways))
      return false;
    is_new = path.length >= path.replayed;
    result->steps++;
    take_choice (world, ready, chosen);
    if (is_new && !world->is_failed && !settings->is_full)
      judge_cuts (world, current->cuts, result);
  }
  return true;
}

/* All has ended: judged, unless this end was judged already. */
static void
end_run (struct world *world, const struct explorer_settings *settings, struct exploration *result)
{
  bool is_new = true;
  uint64_t outcome;

  if (world->is_failed)
    return;
  if (!settings->is_full)
    seen_find (&visited, explorer_state (world), &is_new);
  if (!is_new)
    return;
  outcome = judge_end (world, result);
  if (outcome == 0)
    return;
  seen_find (&outcomes, outcome, &is_new);
  result->outcomes += is_new;
  result->digest += is_new ? outcome : 0;
}

static bool
run_once (struct world *base, const struct explorer_settings *settings, struct exploration *result,
          uint64_t *ways)
{
  struct world *world = world_clone (base, 1);
  bool is_failed;

  path.length = 0;
  *ways = 1;
  chased = 0;
  is_then_due = current->then != NULL;
  judge_begin ();
  if (current->cuts & CUT_KILL)
    world_use_arena (world);
  if (world_open (world)) {
    if (current->warm != NULL) {
      current->warm (world);
      world_settle (world);
    }
    world->options.is_traced = settings->is_traced;
    sim_set_trace (world->image, judge_io, world);
    current->start (world);
    if (run_choices (world, settings, result, ways))
      end_run (world, settings, result);
    result->depth_max = MAX (result->depth_max, path.length);
    sim_set_trace (world->image, NULL, NULL);
  }
  is_failed = world->is_failed;
  world_destroy (world);
  forget_ops ();
  return !is_failed;
}

/* --- all of them --- */

/* There are WAYS from where the last choice led.  The last one that has an alternative takes it.
 * False: there is none. */
static bool
next_path (uint64_t ways, bool is_full, struct exploration *result)
{
  while (path.length > 0) {
    struct choice_point *point = &path.points[path.length - 1];
    bool is_new;

    point->ways = add_ways (point->ways, ways);
    if (++point->chosen < point->count) {
      path.replayed = path.length;
      return true;
    }
    ways = point->ways;
    if (!is_full)
      *seen_find (&visited, point->state, &is_new) = ways;
    path.length--;
  }
  result->ways = ways;
  return false;
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

/* Says how the run that failed came to it, and shows it. */
static void
report_failure (struct world *base, const struct explorer_settings *settings,
                struct exploration *result)
{
  struct explorer_settings traced = *settings;
  uint64_t ways;

  result->is_failed = true;
  printf ("  in run %" PRIu64 " of %s, choices", result->runs, current->name);
  print_path ();
  if (settings->is_traced)
    return;
  traced.is_traced = traced.is_full = true;
  path.replayed = path.length;
  run_once (base, &traced, result, &ways);
}

bool
explore (const struct scenario *scenario, const struct explorer_settings *settings,
         struct exploration *result)
{
  struct world *base;
  uint64_t ways;

  *result = (struct exploration) { 0 };
  current = scenario;
  path.length = path.replayed = 0;
  signal (SIGABRT, on_abort);
  base = make_base (scenario);
  result->is_failed = base->is_failed;
  while (!result->is_failed) {
    result->runs++;
    if (!run_once (base, settings, result, &ways))
      report_failure (base, settings, result);
    else if (!next_path (ways, settings->is_full, result))
      break;
    else if (result->runs == settings->runs_max) {
      printf ("  %s takes more than %" PRIu64 " runs: not all interleavings were tried\n",
              scenario->name, settings->runs_max);
      result->is_failed = true;
    }
  }
  result->states = visited.count;
  world_destroy (base);
  seen_clear (&visited);
  seen_clear (&outcomes);
  judge_forget ();
  return !result->is_failed;
}
