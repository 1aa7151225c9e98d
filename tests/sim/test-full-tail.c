/* SPDX-License-Identifier: BSD-2-Clause */
/* test-full-tail.c - a commit waits for the checkpoint that frees half of the journal, and
 * meanwhile the tail fills with items, as far as ops may fill it.  The checkpoint has what they have
 * done to the maps; so all of them must be durable before it is, and for that there must be room in
 * the half that is left.  Else there is, after a power cut, data in the journal for a block that was
 * trimmed since, while another one has taken its place, the last one of the store.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

#define META_BLOCKS 64
#define HALF_BLOCKS 64
#define BLOCKS 1500               /* all that the store has */

/* Stores are abandoned, as a power cut does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

/* False: it has not ended when there is nothing more to be done. */
static bool
request (struct world *world, unsigned disk, enum request_kind kind, unsigned flags,
         uint64_t block, uint64_t count)
{
  unsigned busy = world->busy;

  CHECK (world_request (world, 0, disk, kind, flags, block * BLOCK_SIZE, count * BLOCK_SIZE));
  while (world_turn (world))
    continue;
  return world->busy == busy && !world->is_failed;
}

/* All space but one block is taken. */
static bool
make (struct world *world)
{
  bool is_ok = world_create_disk (world, 0, BLOCKS * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, 1, 100 * BLOCK_SIZE) && world_settle (world);

  for (uint64_t block = 0; block < BLOCKS && is_ok; block += 50)
    is_ok = request (world, 0, REQUEST_WRITE, 0, block, 50);
  return is_ok && request (world, 0, REQUEST_TRIM, 0, BLOCKS - 1, 1) && world_reopen (world);
}

/* The checkpoint has taken the other half, and goes no further; a commit waits for it. */
static bool
hold_up (struct world *world, struct waiter *waiter)
{
  waiter_init (waiter);
  CHECK (op_lock_acquire (&world->store->maps_lock, waiter));
  CHECK (request (world, 0, REQUEST_WRITE, REQUEST_FUA, 0, 1));
  keeper_want_checkpoint (world->store);
  /* The last free block is promised. */
  if (!request (world, 1, REQUEST_WRITE, REQUEST_FUA, 50, 1))
    return false;
  while (request (world, 0, REQUEST_WRITE, REQUEST_FUA, 0, 1))
    continue;
  return world->store->commit.is_waiting;
}

/* The promise goes to another block; then as many items as there is room for. */
static bool
fill_tail (struct world *world)
{
  bool is_ok = request (world, 1, REQUEST_TRIM, 0, 50, 1)
               && request (world, 1, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 60, 1);

  for (uint64_t block = 1; block < BLOCKS - 1 && is_ok; block++)
    if (!request (world, 0, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, block, 1))
      return !world->is_failed;
  return is_ok;
}

static bool
run (unsigned tail_divisor)
{
  struct world_options options = {
    .seed = 1,
    .geometry = { .group_blocks = 4096, .meta_blocks = META_BLOCKS,
                  .journal_half_blocks = HALF_BLOCKS,
                  .capacity = META_BLOCKS + 2 * HALF_BLOCKS + BLOCKS },
    .device_blocks = 64, .device_blocks_max = 4096, .cache_bytes = 512 * BLOCK_SIZE,
    .tail_bytes = HALF_BLOCKS * BLOCK_SIZE / tail_divisor, .request_bytes_max = 64 * BLOCK_SIZE,
    .contexts = 1, .is_plain = true, .is_tight = true, .step_weight = 1, .io_weight = 1,
  };
  struct world *world = world_create (&options);
  struct list wake = LIST_INIT (wake);
  struct waiter waiter;
  le64 sequence;
  bool is_ok = !world->is_failed && make (world) && hold_up (world, &waiter) && fill_tail (world);

  if (is_ok) {
    sequence = world->store->superblock.sequence;
    op_lock_release (&world->store->maps_lock, &wake);
    op_wake_all (&wake);
    while (memcmp (&world->store->superblock.sequence, &sequence, sizeof sequence) == 0)
      CHECK (world_turn (world));
    is_ok = world_crash (world, CRASH_POWER, 0) && world_verify (world) && world_reopen (world);
  }
  printf ("%s test-full-tail: 1/%u of half the journal\n", is_ok ? "ok" : "FAIL", tail_divisor);
  world_destroy (world);
  return is_ok;
}

int
main (void)
{
  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  return run (2) & run (4) & run (16) ? 0 : 1;
}
