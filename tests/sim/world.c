/* SPDX-License-Identifier: BSD-2-Clause */
/* world.c - the scheduler and the life of the store; see world.h. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/log.h"
#include "lint.h"
#include "repeatable.h"
#include "store/store-internal.h"
#include "store/test-image.h"
#include "world-internal.h"

/* So many turns of the clock, with nothing else that could happen, and requests still run: they
 * hang. */
#define SETTLE_TICKS 400
#define SETTLE_TURNS 2000000

void
world_trace (struct world *world, const char *format, ...)
{
  va_list arguments;

  if (!world->options.is_traced)
    return;
  fprintf (stderr, "%8" PRIu64 " ", world->now);
  va_start (arguments, format);
  vfprintf (stderr, format, arguments);
  va_end (arguments);
  fputc ('\n', stderr);
}

void
world_fail (struct world *world, const char *format, ...)
{
  va_list arguments;

  world->is_failed = true;
  printf ("FAIL seed %" PRIu64 " at %" PRIu64 ": ", world->options.seed, world->now);
  va_start (arguments, format);
  vprintf (format, arguments);
  va_end (arguments);
  printf ("\n");
  fflush (stdout);
}

/* --- the scheduler --- */

static struct context *
world_context (struct world *world, unsigned index)
{
  return index < world->options.contexts ? world->contexts[index]
         : store_keeper_context (world->store);
}

unsigned
world_collect (struct world *world)
{
  unsigned ready = 0;

  for (unsigned i = 0; i <= world->options.contexts; i++) {
    struct context *context = world_context (world, i);

    context_collect (context);
    list_for_each (link, &context->ready)
      ready++;
  }
  return ready;
}

struct op *
world_ready_op (struct world *world, unsigned index)
{
  for (unsigned i = 0; i <= world->options.contexts; i++)
    list_for_each (link, &world_context (world, i)->ready)
      if (index-- == 0)
        return container_of (link, struct op, link);
  CHECK (false);
}

void
world_step (struct world *world, struct op *op)
{
  world_trace (world, "step %s stage %d", op->name, op->stage);
  world->totals.steps++;
  context_step (op->context, op);
}

void
world_complete (struct world *world, unsigned index)
{
  static const char *const kinds[] = { "read", "write", "flush", "discard" };
  const struct io *io = sim_io (world->image, index);

  world_trace (world, "done %s %" PRIu64 "+%" PRIu64, kinds[io->kind], io->place, io->length);
  world->totals.ios++;
  sim_complete (world->image, index);
}

bool
world_turn (struct world *world)
{
  unsigned ready = world_collect (world), in_flight, admitted = 0;
  uint64_t weights[3], total, choice;

  in_flight = sim_in_flight (world->image);
  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    admitted += world->clients[i].state == CLIENT_ADMITTED
                || world->clients[i].state == CLIENT_HELD;
  if (random_below (&world->random, 1000) < world->options.tick_weight) {
    world->totals.ticks++;
    world_trace (world, "tick");
    keeper_tick (world->store);
    return true;
  }
  weights[0] = ready > 0 ? world->options.step_weight : 0;
  weights[1] = in_flight > 0 ? world->options.io_weight : 0;
  weights[2] = admitted > 0 ? world->options.step_weight : 0;
  total = weights[0] + weights[1] + weights[2];
  if (total == 0)
    return false;
  choice = random_below (&world->random, total);
  if (choice < weights[0])
    world_step (world, world_ready_op (world, random_below (&world->random, ready)));
  else if (choice < weights[0] + weights[1])
    world_complete (world, random_below (&world->random, in_flight));
  else
    world_client_turn (world, random_below (&world->random, admitted));
  return true;
}

bool
world_settle (struct world *world)
{
  unsigned idle = 0;

  for (unsigned turns = 0; !world->is_failed && (world->busy > 0 || world->admin.is_running);
       turns++) {
    if (world_turn (world))
      idle = 0;
    else {
      world->totals.ticks++;
      keeper_tick (world->store);
      idle++;
    }
    if (idle > SETTLE_TICKS || turns > SETTLE_TURNS) {
      world_fail (world, "requests hang%s", idle > SETTLE_TICKS ? "" : " (no end of turns)");
      world_print_clients (world);
    }
  }
  return !world->is_failed;
}

bool
world_drain (struct world *world)
{
  for (unsigned turns = 0; turns < SETTLE_TURNS; turns++) {
    unsigned ready = world_collect (world), in_flight = sim_in_flight (world->image);

    if (ready > 0)
      world_step (world, world_ready_op (world, random_below (&world->random, ready)));
    else if (in_flight > 0)
      world_complete (world, random_below (&world->random, in_flight));
    else
      return true;
  }
  world_fail (world, "the keeper does not come to rest");
  return false;
}

/* --- the store --- */

static bool
open_contexts (struct world *world)
{
  for (unsigned i = 0; i < world->options.contexts; i++) {
    world->contexts[i] = store_context_create (world->store);
    if (world->contexts[i] == NULL && world->is_starved) {
      world->options.end_faults (world);
      world->contexts[i] = store_context_create (world->store);
    }
    if (world->contexts[i] == NULL) {
      world_fail (world, "no context: %s", strerror (errno));
      return false;
    }
  }
  return true;
}

static int
open_store (struct world *world, char **error)
{
  struct store_options options = {
    .device = sim_device_create (world->image),
    .arena_path = world->options.has_arena ? world->arena_path : "off",
    .cache_bytes = world->options.cache_bytes,
    .tail_bytes = world->options.tail_bytes,
    .has_own_keeper = true,
  };
  int result;

  *error = NULL;
  world->store = NULL;
  if (world->lint != NULL)
    lint_begin (world->lint);
  result = store_open (&options, &world->store, error);
  if (result == 0 && world->options.places_late)
    world->store->keeper.unmapped_max = UINT64_MAX;
  return result;
}

/* An opening ends all faults, unless they are to go on. */
static void
heal (struct world *world)
{
  if (world->options.end_faults != NULL)
    return;
  sim_heal (world->image);
  world->is_faulty = false;
}

/* Reads that fail make disks damaged; when they do no more all is there. */
static bool
lacks_disks (struct world *world)
{
  list_for_each (link, &world->store->disks)
    if (container_of (link, struct disk, link)->is_damaged)
      return true;
  return false;
}

static bool
open_whole (struct world *world, enum crash_kind kind)
{
  char *error;
  int result;

  heal (world);
  world->may_lose_space = world->is_starved;
  result = open_store (world, &error);
  if (result == 0 && world->is_faulty && lacks_disks (world)) {
    store_abandon (world->store);
    world->store = NULL;
    result = -EIO;
  }
  if (result < 0 && (world->is_faulty || world->is_starved)) {
    world_trace (world, "it does not open: %s", error != NULL ? error : strerror (-result));
    free (error);
    sim_crash (world->image, SIM_KILL);
    world->options.end_faults (world);
    result = open_store (world, &error);
  }
  if ((result == -EUCLEAN || result == -EIO) && world->may_refuse && error != NULL) {
    world_trace (world, "refused: %s", error);
    free (error);
    sim_crash (world->image, SIM_KILL);
    world->is_refused = true;
    return false;
  }
  if (result < 0) {
    world_fail (world, "the store does not open after a %s: %s (%s)",
                kind == CRASH_KILL ? "kill" : "power cut", strerror (-result),
                error != NULL ? error : "");
    world->store = NULL;
    sim_crash (world->image, SIM_KILL);
    return false;
  }
  world->totals.opens++;
  world_trace (world, "opened");
  return open_contexts (world);
}

/* What the power takes with it. */
static enum crash_kind
crash_device (struct world *world, enum crash_kind kind)
{
  sim_crash (world->image, kind == CRASH_POWER ? SIM_POWER : SIM_KILL);
  if (kind == CRASH_POWER) {
    world->totals.power_cuts++;
    if (world->options.has_arena)
      unlink (world->arena_path);
  } else
    world->totals.kills++;
  /* Without an arena that outlives the process only what was flushed is sure to be there. */
  return world->options.has_arena ? kind : CRASH_POWER;
}

static void
drop_store (struct world *world)
{
  for (unsigned i = 0; i < world->options.contexts; i++)
    if (world->contexts[i] != NULL) {
      context_abandon (world->contexts[i]);
      list_remove (&world->contexts[i]->link);
      context_destroy (world->contexts[i]);
      world->contexts[i] = NULL;
    }
  store_abandon (world->store);
  world->store = NULL;
}

/* Opens the store in a process that dies while it does; true if it got through before. */
static bool
open_and_die (struct world *world, enum crash_kind *kind, bool *got_through)
{
  char *error;
  int result;
  enum crash_kind next;

  sim_stop_after (world->image,
                  random_below (&world->random, random_chance (&world->random, 50) ? 20 : 200));
  result = open_store (world, &error);
  free (error);
  world->totals.open_crashes++;
  world_trace (world, "opening %s", result == 0 ? "ended before it was cut off" : "cut off");
  if (result < 0 && !sim_is_stopped (world->image)) {
    world_fail (world, "the store does not open: %s", strerror (-result));
    sim_crash (world->image, SIM_KILL);
    return false;
  }
  *got_through = result == 0;
  if (result == 0) {
    store_abandon (world->store);
    world->store = NULL;
  }
  next = random_chance (&world->random, 50) ? CRASH_KILL : CRASH_POWER;
  next = crash_device (world, next);
  if (next == CRASH_POWER)
    *kind = CRASH_POWER;
  return true;
}

/* --- the independent checker --- */

/* A damaged disk is damage: who made it judges the image. */
static bool
has_damaged (const struct world *world)
{
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    if (world->disks[d].exists && world->disks[d].is_damaged)
      return true;
  return false;
}

/* The image of a store that nobody has open, as it is on the device: closed in order, or left as a
 * crash left it. */
static bool
check_image (struct world *world)
{
  char *text;
  int verdict;

  if (has_damaged (world))
    return true;
  text = image_check_text (world->image, world->options.device_blocks_max, false, &verdict);
  /* A device that failed, or a process that died while it wrote the superblock, leaves second
   * copies that are older: they may need repair, but nothing more. */
  if (verdict != CHECKER_CLEAN
      && (world->totals.faults + world->totals.kills + world->totals.power_cuts == 0
          || strstr (text, "damage:") != NULL || strstr (text, " owners, not ") != NULL))
    world_fail (world, "the checker finds:\n%s", text);
  free (text);
  return !world->is_failed;
}

/* --- crashes --- */

bool
world_crash (struct world *world, enum crash_kind kind, unsigned open_crashes)
{
  bool got_through;

  world_trace (world, "%s", kind == CRASH_KILL ? "KILL" : "POWER CUT");
  world->now++;
  if (world->store != NULL)
    drop_store (world);
  kind = crash_device (world, kind);
  world_clients_crash (world);
  heal (world);
  /* The explorer cuts the power too often for it. */
  if (!world->may_refuse && !world->options.is_plain && !check_image (world))
    return false;
  while (open_crashes-- > 0)
    if (!open_and_die (world, &kind, &got_through))
      return false;
  return open_whole (world, kind) && world_match_disks (world) && world_read_all (world, kind);
}

bool
world_close (struct world *world)
{
  char *error = NULL;
  int result;

  world->now++;
  if (!world_settle (world) || !world_drain (world) || (!world->is_faulty && !world_verify (world)))
    return false;
  for (unsigned i = 0; i < world->options.contexts; i++) {
    store_context_destroy (world->store, world->contexts[i]);
    world->contexts[i] = NULL;
  }
  result = store_close (world->store, &error);
  world->store = NULL;
  if (result < 0 && (world->is_faulty || world->is_starved)) {
    /* What it could not write is in the arena, or lost as by a power cut. */
    free (error);
    world->is_cut_off = true;
    sim_crash (world->image, SIM_KILL);
    world_clients_crash (world);
    return true;
  }
  if (result < 0) {
    world_fail (world, "the store does not close: %s (%s)", strerror (-result),
                error != NULL ? error : "");
    return false;
  }
  free (error);
  world->totals.closes++;
  world_trace (world, "closed");
  if (world->options.has_arena && access (world->arena_path, F_OK) == 0) {
    world_fail (world, "the arena is still there after a clean close");
    return false;
  }
  world->now++;
  /* Whatever was not flushed is durable now: closing is a flush. */
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    if (world->disks[d].exists)
      oracle_flushed (&world->disks[d].oracle, world->now);
  return check_image (world);
}

bool
world_reopen (struct world *world)
{
  enum crash_kind kind = CRASH_POWER;

  world->is_cut_off = false;
  if (!world_close (world))
    return false;
  if (world->is_cut_off)
    kind = world->options.has_arena ? CRASH_KILL : CRASH_POWER;
  else if (random_chance (&world->random, 30))
    sim_crash (world->image, SIM_POWER);
  return open_whole (world, kind) && world_match_disks (world) && world_read_all (world, kind);
}

bool
world_open (struct world *world)
{
  return open_whole (world, CRASH_POWER);
}

static int
count_owners (void *arg, const struct extent *extent)
{
  uint32_t *owners = arg;

  for (uint64_t i = 0; i < extent->length; i++)
    owners[extent->place + i]++;
  return 0;
}

/* Each block has as many owners as extents refer to it. */
static void
verify_owners (struct world *world, const struct space_counts *counts)
{
  struct store *store = world->store;
  uint64_t blocks = world->options.device_blocks_max, used = 0, shared = 0;
  uint32_t *owners = calloc (blocks, sizeof *owners);

  CHECK (owners != NULL);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    CHECK (extent_map_check (&disk->map, UINT64_MAX, count_owners, owners) == 0);
  }
  for (uint64_t place = 0; place < blocks; place++) {
    uint64_t one = 1;

    used += owners[place] > 0;
    shared += owners[place] > 1;
    if (owners[place] > 1 && space_is_private (store->space, place, &one))
      world_fail (world, "the block at %" PRIu64 " is private to %u extents", place, owners[place]);
  }
  /* What a damaged disk has is not in its map. */
  if (used > counts->used
      || (used < counts->used && !world->may_lose_space && !has_damaged (world))
      || (shared != counts->shared && !has_damaged (world)))
    world_fail (world, "%" PRIu64 " blocks are mapped, %" PRIu64 " used; %" PRIu64
                " shared, not %" PRIu64, used, counts->used, shared, counts->shared);
  free (owners);
}

/* Space: what is used is what the maps hold, what is reserved is what dirty blocks need. */
bool
world_verify (struct world *world)
{
  struct store *store = world->store;
  struct space_counts counts;
  uint64_t tokens = 0;

  if (!world_drain (world))
    return false;
  cache_verify (store->cache);
  space_verify (store->space);
  space_get_counts (store->space, &counts);
  verify_owners (world, &counts);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    tokens += atomic_load (&disk->cache.unmapped_count);
  }
  if (tokens != counts.reserved)
    world_fail (world, "%" PRIu64 " dirty blocks have a promise, %" PRIu64 " were given", tokens,
                counts.reserved);
  return !world->is_failed;
}

/* --- life --- */

/* Of the one world that has an arena: for signal handlers. */
static char arena_directory[sizeof ((struct world *) NULL)->directory];
static char arena_path[sizeof ((struct world *) NULL)->arena_path];

static void
remove_arena (void)
{
  if (arena_directory[0] == '\0')
    return;
  unlink (arena_path);
  rmdir (arena_directory);
}

static char note[160];

void
world_note (const char *format, ...)
{
  va_list arguments;

  va_start (arguments, format);
  vsnprintf (note, sizeof note - 1, format, arguments);
  va_end (arguments);
  strcat (note, "\n");
}

static void
on_end (int number)
{
  remove_arena ();
  if (number == SIGABRT && write (STDOUT_FILENO, note, strlen (note)) < 0)
    _exit (3);
  signal (number, SIG_DFL);
  raise (number);
}

void
world_handle_signals (void)
{
  static const int numbers[] = { SIGHUP, SIGINT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGPIPE };

  atexit (remove_arena);
  for (unsigned i = 0; i < ARRAY_COUNT (numbers); i++)
    signal (numbers[i], on_end);
}

static void
quiet_sink (enum log_level level, const char *message)
{
  (void) level;
  (void) message;
}

void
world_log_nothing (void)
{
  log_set_sink (quiet_sink);
}

static void
make_directory (struct world *world)
{
  const char *parent = getenv ("LACUNA_SHM");

  snprintf (world->directory, sizeof world->directory, "%s/lacuna-sim-XXXXXX",
            parent != NULL ? parent : "/dev/shm");
  CHECK (mkdtemp (world->directory) != NULL);
  snprintf (world->arena_path, sizeof world->arena_path, "%s/arena", world->directory);
  strcpy (arena_path, world->arena_path);
  strcpy (arena_directory, world->directory);
}

/* Memory and arena's directory, without image and store. */
static struct world *
allocate_world (const struct world_options *options)
{
  struct world *world = calloc (1, sizeof *world);

  CHECK (world != NULL);
  world->options = *options;
  world->random.state = options->seed;
  repeatable_seed (options->seed);
  world->buffer_bytes = options->request_bytes_max > 0 ? options->request_bytes_max
                        : STORE_REQUEST_MAX;
  world->buffer = malloc (world->buffer_bytes);
  CHECK (world->buffer != NULL);
  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    world->clients[i].world = world;
  if (options->has_arena)
    make_directory (world);
  if (options->has_lints)
    world->lint = lint_create (world);
  return world;
}

struct world *
world_create_closed (const struct world_options *options)
{
  struct world *world = allocate_world (options);
  struct sim_options sim = {
    .seed = options->seed ^ 0x5eed,
    .length = options->device_blocks, .length_max = options->device_blocks_max,
  };
  uint8_t uuid[16] = "simulated store";
  struct device *device;
  char *error = NULL;
  int result;

  world->image = sim_image_create (&sim);
  device = sim_device_create (world->image);
  result = store_init_device (device, &options->geometry, uuid, &error);
  device_close (device);
  if (result < 0)
    world_fail (world, "no store could be made: %s (%s)", strerror (-result),
                error != NULL ? error : "");
  return world;
}

struct world *
world_create (const struct world_options *options)
{
  struct world *world = world_create_closed (options);

  if (!world->is_failed)
    open_whole (world, CRASH_POWER);
  return world;
}

struct world *
world_clone (struct world *world, uint64_t seed)
{
  struct world_options options = world->options;
  struct world *clone;

  options.has_arena = options.has_lints = false;
  options.seed = seed;
  clone = allocate_world (&options);
  clone->random.state = seed;
  clone->image = sim_image_clone (world->image, seed);
  clone->oracle = world->oracle;
  clone->now = world->now;
  clone->names = world->names;
  clone->replies = world->replies;
  clone->admin = world->admin;
  for (unsigned d = 0; d < WORLD_DISKS; d++) {
    clone->disks[d] = world->disks[d];
    oracle_disk_copy (&clone->disks[d].oracle, &world->disks[d].oracle);
  }
  return clone;
}

void
world_use_arena (struct world *world)
{
  CHECK (!world->options.has_arena && world->store == NULL);
  world->options.has_arena = world->is_arena_lent = true;
  /* One directory for all: its name is in the superblock, and worlds are to be compared. */
  if (arena_directory[0] == '\0')
    make_directory (world);
  strcpy (world->directory, arena_directory);
  strcpy (world->arena_path, arena_path);
}

uint64_t
world_hash (struct world *world)
{
  const struct world_admin *admin = &world->admin;
  uint64_t hash = sim_image_hash (world->image);
  uint64_t words[] = {
    admin->is_running, admin->is_unknown, admin->admin.kind, admin->disk, admin->size,
    admin->begun, world->names,
  };

  if (admin->is_running || admin->is_unknown)
    hash = checksum (words, sizeof words, hash);
  for (unsigned d = 0; d < WORLD_DISKS; d++) {
    const struct world_disk *disk = &world->disks[d];

    if (!disk->exists)
      continue;
    hash = checksum (disk->name, sizeof disk->name, hash);
    hash = checksum (&disk->size, sizeof disk->size, hash + d) + oracle_disk_hash (&disk->oracle);
  }
  return hash;
}

void
world_destroy (struct world *world)
{
  if (world->store != NULL) {
    drop_store (world);
    sim_crash (world->image, SIM_KILL);
    world_clients_crash (world);
  }
  if (world->is_arena_lent)
    unlink (world->arena_path);
  else if (world->options.has_arena) {
    remove_arena ();
    arena_directory[0] = '\0';
  }
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    oracle_disk_clear (&world->disks[d].oracle);
  sim_image_destroy (world->image);
  lint_destroy (world->lint);
  free (world->buffer);
  free (world);
}
