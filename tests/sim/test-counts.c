/* SPDX-License-Identifier: BSD-2-Clause */
/* test-counts.c - what a commit costs, as the device counts it: one sequential write and one flush
 * for a FLUSH after a WRITE of 4 KiB, or after 32 scattered ones; and for many FLUSHes at once
 * hardly more, whatever connections and disks they come from.  Write-back and checkpoints come on
 * top now and then: nearly all rounds must cost just that, and all together not much more.
 *
 * And when write-back begins by itself: blocks that had no place go as soon as they are a batch,
 * those that are overwritten wait.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

#define ROUNDS 1000
#define BLOCKS 1000

/* Stores are abandoned here, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

static struct sim_counts
counts (struct world *world)
{
  struct sim_counts now;

  sim_get_counts (world->image, &now);
  return now;
}

static bool
start_write (struct world *world, unsigned disk, uint64_t block, unsigned flags)
{
  return world_request (world, disk % world->options.contexts, disk, REQUEST_WRITE, flags,
                        block * BLOCK_SIZE, BLOCK_SIZE);
}

/* WRITES scattered blocks and a FLUSH (or FUA on the only one), again and again. */
static bool
run_rounds (struct world *world, const char *what, unsigned writes, bool is_fua)
{
  struct sim_counts first = counts (world), before = first, now;
  unsigned single = 0;
  bool is_ok = true;

  for (unsigned round = 0; round < ROUNDS && is_ok; round++) {
    for (unsigned i = 0; i < writes && is_ok; i++)
      is_ok = start_write (world, 0, (round * 7 + i * 29) % BLOCKS, is_fua ? REQUEST_FUA : 0)
              && world_settle (world);
    if (!is_fua)
      is_ok = is_ok && world_request (world, 0, 0, REQUEST_FLUSH, 0, 0, 0);
    is_ok = is_ok && world_settle (world);
    now = counts (world);
    single += now.writes - before.writes == 1 && now.flushes - before.flushes == 1;
    before = now;
  }
  now = counts (world);
  printf ("%s: %u of %u cost one write and one flush; all together %" PRIu64 " writes, %" PRIu64
          " flushes\n", what, single, ROUNDS, now.writes - first.writes,
          now.flushes - first.flushes);
  /* 32 blocks and their header fill the half of 8 MiB in 62 rounds; then all is written back. */
  if (single < ROUNDS * 80 / 100 || now.flushes - first.flushes > ROUNDS * 3 / 2) {
    printf ("FAIL %s\n", what);
    return false;
  }
  return is_ok;
}

/* A WRITE with FUA or a FLUSH from everybody at once. */
static bool
run_together (struct world *world, unsigned flags)
{
  struct sim_counts first = counts (world), now;
  unsigned total = 0;
  bool is_ok = true;

  for (unsigned round = 0; round < 50 && is_ok; round++) {
    for (unsigned i = 0; i < WORLD_CLIENTS - 4 && is_ok; i++, total++)
      is_ok = start_write (world, i % 3, (round * 31 + i * 5) % BLOCKS, flags);
    if (flags == 0)
      is_ok = is_ok && world_settle (world);
    for (unsigned i = 0; i < WORLD_CLIENTS - 4 && is_ok && flags == 0; i++)
      is_ok = world_request (world, i % 4, i % 3, REQUEST_FLUSH, 0, 0, 0);
    is_ok = is_ok && world_settle (world);
  }
  now = counts (world);
  printf ("%u %s in crowds of %u, on 3 disks: %" PRIu64 " writes, %" PRIu64 " flushes\n", total,
          flags == 0 ? "FLUSHes" : "FUAs", WORLD_CLIENTS - 4, now.writes - first.writes,
          now.flushes - first.flushes);
  if (now.flushes - first.flushes > total / 4) {
    printf ("FAIL in crowds\n");
    return false;
  }
  return is_ok;
}

/* What is written is done, and what the keeper makes of it, too. */
static bool
write_and_drain (struct world *world, unsigned disk, uint64_t block)
{
  return start_write (world, disk, block, 0) && world_settle (world) && world_drain (world);
}

static bool
run_write_back (struct world *world)
{
  uint32_t batch = world->store->keeper.writeback.max;
  struct sim_counts first, placed, now;
  bool is_ok = world_sync (world) && world_settle (world)
               && world_create_disk (world, 3, batch * UINT64_C (4096)) && world_settle (world)
               && world_drain (world);

  first = counts (world);
  for (uint32_t block = 0; block < batch - 1 && is_ok; block++)
    is_ok = write_and_drain (world, 3, block);
  now = counts (world);
  is_ok = is_ok && write_and_drain (world, 3, batch - 1);
  placed = counts (world);
  printf ("%u new blocks: %" PRIu64 " writes; one more: %" PRIu64 "; ", batch - 1,
          now.writes - first.writes, placed.writes - now.writes);
  if (now.writes != first.writes || placed.writes == now.writes) {
    printf ("FAIL new blocks\n");
    return false;
  }
  for (uint32_t i = 0; i < 3 * batch && is_ok; i++)
    is_ok = write_and_drain (world, 3, i % batch);
  now = counts (world);
  printf ("all overwritten, three times: %" PRIu64 "\n", now.writes - placed.writes);
  if (now.writes != placed.writes) {
    printf ("FAIL overwritten blocks\n");
    return false;
  }
  return is_ok;
}

int
main (void)
{
  struct world_options options = {
    .seed = 1,
    .geometry = { .group_blocks = 32768, .meta_blocks = 512, .journal_half_blocks = 2048 },
    .device_blocks = 64, .device_blocks_max = 65536, .cache_bytes = 16 * MIB,
    .tail_bytes = 256 * KIB, .request_bytes_max = MIB, .contexts = 4,
    .is_plain = true, .has_lints = true, .step_weight = 1, .io_weight = 1,
  };
  struct world *world = world_create (&options);
  bool is_ok = !world->is_failed;

  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  for (unsigned disk = 0; disk < 3 && is_ok; disk++)
    is_ok = world_create_disk (world, disk, BLOCKS * BLOCK_SIZE) && world_settle (world);
  is_ok = is_ok && run_rounds (world, "WRITE of 4 KiB and FLUSH", 1, false)
          && run_rounds (world, "WRITE of 4 KiB with FUA", 1, true)
          && run_rounds (world, "32 WRITEs of 4 KiB and FLUSH", 32, false)
          && run_together (world, 0) && run_together (world, REQUEST_FUA)
          && run_write_back (world);
  world_destroy (world);
  return is_ok ? 0 : 1;
}
