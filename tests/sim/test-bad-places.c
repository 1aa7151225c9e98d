/* SPDX-License-Identifier: BSD-2-Clause */
/* test-bad-places.c - one block of the device cannot be written any more.  What is due there goes to
 * another place, and nobody notices: for a FLUSH; for a checkpoint, which brings to their places
 * blocks that are in the journal, while the store is in use, when it is opened after a power cut, and
 * when it is closed.  No store fails for one block, and none stays closed.
 */
#include <errno.h>
#include <stdio.h>

#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

#define BLOCKS 16

/* Stores are abandoned, as a power cut does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

/* What is bad stays bad, whoever opens the store. */
static void
stay_bad (struct world *world)
{
  world_fail (world, "the store does not open");
}

static bool
write_and_flush (struct world *world, uint64_t block, uint64_t count)
{
  return world_request (world, 0, 0, REQUEST_WRITE, 0, block * BLOCK_SIZE, count * BLOCK_SIZE)
         && world_settle (world) && world_request (world, 0, 0, REQUEST_FLUSH, 0, 0, 0)
         && world_settle (world);
}

static bool
checkpoint (struct world *world)
{
  keeper_want_checkpoint (world->store);
  while (world_turn (world))
    continue;
  return !world->is_failed && !store_is_failed (world->store);
}

/* Block 2 of the disk has newer content, in the journal, and its place is bad from now on. */
static struct world *
make (bool has_arena)
{
  struct world_options options = {
    .seed = 1,
    .geometry = { .group_blocks = 512, .meta_blocks = 64, .journal_half_blocks = 64 },
    .device_blocks = 64, .device_blocks_max = 4096, .cache_bytes = 512 * BLOCK_SIZE,
    .tail_bytes = 16 * KIB, .request_bytes_max = 64 * BLOCK_SIZE, .contexts = 1,
    .has_arena = has_arena, .is_plain = true, .end_faults = stay_bad,
    .step_weight = 1, .io_weight = 1,
  };
  struct world *world = world_create (&options);
  struct extent extent;
  bool is_ok = !world->is_failed && world_create_disk (world, 0, BLOCKS * BLOCK_SIZE)
               && world_settle (world) && write_and_flush (world, 0, BLOCKS)
               && world_reopen (world) && write_and_flush (world, 1, 4);

  CHECK (is_ok);
  extent_map_lookup (&disk_find (world->store, world->disks[0].name)->map, 2, 1, &extent);
  CHECK (extent.state == EXTENT_WRITTEN);
  sim_fail_range (world->image, IO_WRITE, extent.place, 1, -EIO);
  return world;
}

/* It goes on, and the places that are left out of use are found again by the next opening. */
static bool
end (struct world *world, const char *what, bool is_ok)
{
  world->may_lose_space = true;
  is_ok = is_ok && write_and_flush (world, 0, BLOCKS) && checkpoint (world)
          && world_reopen (world) && world_verify (world);
  printf ("%s test-bad-places: %s\n", is_ok ? "ok" : "FAIL", what);
  world_destroy (world);
  return is_ok;
}

/* More than a record takes. */
static bool
test_flush (void)
{
  struct world *world = make (false);

  return end (world, "flushed", write_and_flush (world, 0, BLOCKS));
}

static bool
test_running (void)
{
  struct world *world = make (false);

  return end (world, "in use", checkpoint (world));
}

static bool
test_power_cut (void)
{
  struct world *world = make (false);

  return end (world, "after a power cut", world_crash (world, CRASH_POWER, 0));
}

static bool
test_kill (void)
{
  struct world *world = make (true);

  return end (world, "after a kill", world_crash (world, CRASH_KILL, 0) && checkpoint (world));
}

static bool
test_closing (void)
{
  struct world *world = make (true);

  world->may_lose_space = true;
  return end (world, "closed", world_reopen (world));
}

int
main (void)
{
  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  return test_flush () & test_running () & test_power_cut () & test_kill () & test_closing () ? 0 : 1;
}
