/* SPDX-License-Identifier: BSD-2-Clause */
/* test-kill-reuse.c - what a killed process has left is not durable yet, and the power may go
 * before the next one has made it so.
 *
 * The one has trimmed the only block there is, and nothing of that is on the device.  The next
 * takes over its arena, and another disk writes: until the freeing is durable the block must not be
 * given to it.
 *
 * Or it has trimmed one of two clones of a block.  Until that is durable the other one's owner must
 * not write in place: a power cut would bring the first one back, with his data.
 *
 * Or a record that frees a block is in the device's cache, and the arena is gone.  The next reads
 * the record; before it takes the block for another disk, it must have made durable what it has
 * read.
 *
 * It is cut at every step, in clones of the world.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

#define SEEDS 20
#define RECORD_SEEDS 3
#define FATES 8                /* of what is not durable, for each moment */
#define TURNS_MAX 2000
#define JOURNAL_HALF 32

/* Stores are abandoned, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

/* With DATA blocks for all disks together; 0: as many as they want. */
static struct world_options
small_world (uint64_t seed, uint64_t data, bool has_arena, bool has_ticks)
{
  return (struct world_options) {
    .seed = seed,
    .geometry = {
      .group_blocks = 512, .meta_blocks = 64, .journal_half_blocks = JOURNAL_HALF,
      .capacity = data > 0 ? 64 + 2 * JOURNAL_HALF + data : 0,
    },
    .device_blocks = 64, .device_blocks_max = 4096,
    .cache_bytes = 64 * BLOCK_SIZE, .tail_bytes = 16 * KIB, .request_bytes_max = 64 * BLOCK_SIZE,
    .contexts = 1, .has_arena = has_arena, .is_plain = true, .is_tight = data > 0,
    .step_weight = 1, .io_weight = 1, .tick_weight = has_ticks,
  };
}

/* Cuts the power in a clone.  The arena goes, for as long as this takes: the superblock says where
 * it is. */
static bool
cut_power (struct world *world, uint64_t seed)
{
  struct world *clone = world_clone (world, seed);
  char hidden[sizeof world->arena_path + 8];
  bool is_ok;

  snprintf (hidden, sizeof hidden, "%s-hidden", world->arena_path);
  CHECK (rename (world->arena_path, hidden) == 0);
  is_ok = world_crash (clone, CRASH_POWER, 0) && world_verify (clone);
  CHECK (rename (hidden, world->arena_path) == 0);
  world_destroy (clone);
  return is_ok;
}

/* Cuts the power if the device is in another state than LAST. */
static bool
cut_if_new (struct world *world, uint64_t *last)
{
  uint64_t hash = world_hash (world);

  for (unsigned i = 0; hash != *last && i < 3; i++)
    world->is_failed |= !cut_power (world, hash + i);
  *last = hash;
  return !world->is_failed;
}

/* Runs what was started to its end. */
static bool
settle_with_cuts (struct world *world)
{
  uint64_t last = 0;

  for (unsigned turn = 0; turn < TURNS_MAX && (world->busy > 0 || world->admin.is_running);
       turn++) {
    if (!cut_if_new (world, &last))
      return false;
    world_turn (world);
  }
  return world_settle (world);
}

/* What is dirty goes to its place, without a commit. */
static bool
write_back_with_cuts (struct world *world)
{
  uint64_t last = 0;

  world->store->keeper.old_version = cache_version (world->store->cache);
  keeper_kick (world->store);
  for (unsigned turn = 0; turn < TURNS_MAX; turn++)
    if (!cut_if_new (world, &last) || !world_turn (world))
      break;
  return !world->is_failed;
}

static bool
run (uint64_t seed)
{
  struct world_options options = small_world (seed, 1, true, true);
  struct world *world = world_create (&options);
  bool is_ok = !world->is_failed
               && world_create_disk (world, 0, 2 * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, 1, 2 * BLOCK_SIZE) && world_settle (world)
               && world_request (world, 0, 0, REQUEST_WRITE, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_reopen (world)
               && world_request (world, 0, 0, REQUEST_TRIM, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_crash (world, CRASH_KILL, 0)
               && world_request (world, 0, 1, REQUEST_WRITE, 0, 0, BLOCK_SIZE)
               && settle_with_cuts (world)
               && world_sync (world) && settle_with_cuts (world)
               && world_verify (world) && world_crash (world, CRASH_POWER, 0);

  if (!is_ok)
    printf ("FAIL test-kill-reuse: seed %" PRIu64 "\n", seed);
  world_destroy (world);
  return is_ok;
}

static bool
run_unshared (uint64_t seed)
{
  struct world_options options = small_world (seed, 0, true, false);
  struct world *world = world_create (&options);
  bool is_ok = !world->is_failed
               && world_create_disk (world, 0, BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, 1, BLOCK_SIZE) && world_settle (world)
               && world_request (world, 0, 0, REQUEST_WRITE, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_clone_range (world, 0, 0, BLOCK_SIZE, 1, 0) && world_settle (world)
               && world_reopen (world)
               && world_request (world, 0, 1, REQUEST_TRIM, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_crash (world, CRASH_KILL, 0)
               && world_request (world, 0, 0, REQUEST_WRITE, 0, 0, BLOCK_SIZE)
               && world_settle (world) && write_back_with_cuts (world)
               && world_verify (world) && world_crash (world, CRASH_POWER, 0);

  if (!is_ok)
    printf ("FAIL test-kill-reuse: unshared, seed %" PRIu64 "\n", seed);
  world_destroy (world);
  return is_ok;
}

/* Kills the process in a clone, and cuts the power when the next one, which opens the store, has
 * done IOS of its ios; *IS_OPEN if that was enough for it. */
static bool
die_twice (struct world *world, uint64_t seed, uint64_t ios, bool *is_open)
{
  struct world *clone = world_clone (world, seed);
  struct store_options options = {
    .arena_path = "off",
    .cache_bytes = clone->options.cache_bytes,
    .tail_bytes = clone->options.tail_bytes,
    .has_own_keeper = true,
  };
  struct store *store;
  char *error = NULL;
  bool is_ok;

  sim_crash (clone->image, SIM_KILL);
  sim_stop_after (clone->image, ios);
  options.device = sim_device_create (clone->image);
  *is_open = store_open (&options, &store, &error) == 0;
  free (error);
  if (*is_open)
    store_abandon (store);
  is_ok = world_crash (clone, CRASH_POWER, 0);
  world_destroy (clone);
  return is_ok;
}

/* Whenever the next one dies. */
static bool
die_twice_everywhere (struct world *world, uint64_t seed)
{
  bool is_open = false;

  for (uint64_t ios = 0; !is_open; ios++)
    for (unsigned i = 0; i < FATES; i++)
      if (!die_twice (world, seed + ios * FATES + i, ios, &is_open))
        return false;
  return true;
}

/* Runs what was started to its end, with deaths wherever the device is in another state than
 * before. */
static bool
settle_with_deaths (struct world *world)
{
  uint64_t last = 0;

  for (unsigned turn = 0; turn < TURNS_MAX && world->busy > 0; turn++) {
    uint64_t hash = world_hash (world);

    if (hash != last && !die_twice_everywhere (world, hash))
      return false;
    last = hash;
    world_turn (world);
  }
  return world_settle (world);
}

static bool
run_record (uint64_t seed)
{
  struct world_options options = small_world (seed, 2, false, false);
  struct world *world = world_create (&options);
  bool is_ok = !world->is_failed
               && world_create_disk (world, 0, BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, 1, BLOCK_SIZE) && world_settle (world)
               && world_request (world, 0, 0, REQUEST_WRITE, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_reopen (world)
               && world_request (world, 0, 1, REQUEST_WRITE, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_request (world, 0, 0, REQUEST_TRIM, 0, 0, BLOCK_SIZE)
               && world_settle (world)
               && world_request (world, 0, 1, REQUEST_FLUSH, 0, 0, 0)
               && settle_with_deaths (world);

  if (!is_ok)
    printf ("FAIL test-kill-reuse: record, seed %" PRIu64 "\n", seed);
  world_destroy (world);
  return is_ok;
}

int
main (void)
{
  bool is_ok = true;

  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  for (uint64_t seed = 1; seed <= SEEDS && is_ok; seed++)
    is_ok = run (seed) && run_unshared (seed) && (seed > RECORD_SEEDS || run_record (seed));
  printf ("%s test-kill-reuse: %u seeds\n", is_ok ? "ok" : "FAIL", SEEDS);
  return is_ok ? 0 : 1;
}
