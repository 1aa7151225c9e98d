/* SPDX-License-Identifier: BSD-2-Clause */
/* scenarios.c - what the explorer runs: the races of the design, each as small as it can be. */
#include "base/bytes.h"
#include "explorer.h"
#include "store/store-internal.h"

/* --- initial states --- */

/* One disk of 4 blocks, all written. */
static void
base_one (struct world *world)
{
  world_create_disk (world, 0, BLOCKS (4));
  explorer_finish (world);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (4));
}

/* One disk of 4 blocks, nothing written. */
static void
base_empty (struct world *world)
{
  world_create_disk (world, 0, BLOCKS (4));
}

/* Two disks; the first has all the space, the second is empty. */
static void
base_two (struct world *world)
{
  world_create_disk (world, 0, BLOCKS (2));
  explorer_finish (world);
  world_create_disk (world, 1, BLOCKS (2));
  explorer_finish (world);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

/* Block 0 dirty, over its place. */
static void
warm_dirty (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

/* Block 0 dirty, and a copy of it in the journal. */
static void
warm_logged (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, REQUEST_FUA, 0, BLOCKS (1));
}

/* A copy in the journal of block 0, and a newer content that is dirty. */
static void
warm_logged_dirty (struct world *world)
{
  warm_logged (world);
  explorer_finish (world);
  warm_dirty (world);
}

/* Block 0 has space, reads as zeros there, and is dirty. */
static void
warm_unwritten_dirty (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 0, BLOCKS (1));
  explorer_finish (world);
  warm_dirty (world);
}

/* --- the races --- */

static void
start_read_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (2));
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_read_zeroes (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (2));
  explorer_request (world, 0, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 0, BLOCKS (1));
}

static void
start_cache_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_CACHE, 0, 0, BLOCKS (2));
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
then_read (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (2));
}

static void
start_partial_write_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, 512, 512);
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_write_write (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, 512, 1024);
  explorer_request (world, 0, REQUEST_WRITE, 0, 1024, 1024);
}

static void
start_write_write_read (struct world *world)
{
  start_write_write (world);
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
}

static void
start_read_write (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (2));
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

static void
start_read_read_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_read_partial_write_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_WRITE, 0, 512, 512);
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_flush_write (struct world *world)
{
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
  explorer_request (world, 0, REQUEST_WRITE, 0, BLOCKS (1), BLOCKS (1));
}

static void
start_flush_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_fua_fua (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, REQUEST_FUA, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_WRITE, REQUEST_FUA, 0, BLOCKS (1));
}

static void
start_write_back_trim (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_write_back_zeroes (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 0, BLOCKS (1));
}

/* The record may go to the half that the checkpoint begins, before the maps are frozen. */
static void
start_checkpoint_write (struct world *world)
{
  keeper_want_checkpoint (world->store);
  explorer_request (world, 0, REQUEST_WRITE, REQUEST_FUA, 0, BLOCKS (1));
}

static void
then_trim (struct world *world)
{
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_write_back_write (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

static void
start_write_back_flush (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
}

static void
start_write_back_status (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_BLOCK_STATUS, 0, 0, BLOCKS (2));
}

static void
start_write_back_flush_write (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

/* The other disk's WRITE finds space only when the TRIM is durable. */
static void
start_reuse (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_TRIM, REQUEST_FUA, 0, BLOCKS (1));
}

static void
then_reuse (struct world *world)
{
  explorer_request (world, 1, REQUEST_WRITE, 0, 0, BLOCKS (1));
  explorer_write_back (world, 1);
}

static void
start_trim_reuse (struct world *world)
{
  explorer_request (world, 0, REQUEST_TRIM, REQUEST_FUA, 0, BLOCKS (1));
  explorer_request (world, 1, REQUEST_WRITE, 0, 0, BLOCKS (1));
  explorer_write_back (world, 1);
}

static void
start_write_shrink (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, BLOCKS (3), BLOCKS (1));
  world_resize_disk (world, 0, BLOCKS (2));
}

static void
start_read_shrink (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, BLOCKS (2), BLOCKS (2));
  world_resize_disk (world, 0, BLOCKS (2));
}

static void
then_grow (struct world *world)
{
  world_resize_disk (world, 0, BLOCKS (4));
}

const struct scenario scenarios[] = {
  { .name = "read-trim",
    .about = "a miss must not bring back what is being deallocated",
    .base = base_one, .start = start_read_trim, .then = then_read },
  { .name = "read-zeroes",
    .about = "nor what becomes unwritten in its place",
    .base = base_one, .start = start_read_zeroes, .then = then_read },
  { .name = "cache-trim",
    .about = "nor must CACHE",
    .base = base_one, .start = start_cache_trim, .then = then_read },
  { .name = "partial-write-trim",
    .about = "nor what completes a partly written block",
    .base = base_one, .start = start_partial_write_trim, .then = then_read },
  { .name = "write-write",
    .about = "two parts of one block: neither is lost",
    .base = base_one, .start = start_write_write, .then = then_read },
  { .name = "write-write-empty",
    .about = "the same over a hole",
    .base = base_empty, .start = start_write_write, .then = then_read },
  { .name = "write-write-read",
    .about = "the same, while the block is being read",
    .base = base_one, .start = start_write_write_read },
  { .name = "read-write",
    .about = "a late fill must not come over newer data",
    .base = base_one, .start = start_read_write, .then = then_read },
  { .name = "read-read-trim",
    .about = "two readers of one block, one of whom waits for the other's fill",
    .base = base_one, .start = start_read_read_trim, .then = then_read },
  { .name = "read-partial-write-trim",
    .about = "all populators against one that deallocates",
    .base = base_one, .start = start_read_partial_write_trim, .then = then_read },
  { .name = "write-shrink",
    .about = "what is cut off is gone, also after growing again",
    .base = base_one, .start = start_write_shrink, .then = then_grow },
  { .name = "read-shrink",
    .about = "nor does a read bring it back",
    .base = base_one, .start = start_read_shrink, .then = then_grow },
  { .name = "write-back-trim",
    .about = "what is being written back must not outlive a TRIM",
    .base = base_one, .warm = warm_dirty, .start = start_write_back_trim, .then = then_read,
    .cuts = CUT_POWER },
  { .name = "write-back-zeroes",
    .about = "nor come into what WRITE_ZEROES has kept the place of",
    .base = base_one, .warm = warm_dirty, .start = start_write_back_zeroes, .then = then_read,
    .cuts = CUT_POWER },
  { .name = "checkpoint-write-trim",
    .about = "a TRIM that the new maps have, after a record that they do not need any more",
    .base = base_one, .start = start_checkpoint_write, .then = then_trim, .cuts = CUT_POWER },
  { .name = "checkpoint-write-logged",
    .about = "the old copy goes with its half, while the record that has the new one is in flight",
    .base = base_one, .warm = warm_logged, .start = start_checkpoint_write, .cuts = CUT_POWER },
  { .name = "write-back-trim-logged",
    .about = "nor its copy in the journal",
    .base = base_one, .warm = warm_logged, .start = start_write_back_trim, .cuts = CUT_POWER },
  { .name = "write-back-trim-hole",
    .about = "the same with a block that is just being allocated",
    .base = base_empty, .warm = warm_dirty, .start = start_write_back_trim, .cuts = CUT_POWER },
  { .name = "write-back-write",
    .about = "a block replaced while it is being written back",
    .base = base_one, .warm = warm_dirty, .start = start_write_back_write, .cuts = CUT_POWER },
  { .name = "write-back-write-logged",
    .about = "a copy in the journal that is older than what is in its place",
    .base = base_one, .warm = warm_logged, .start = start_write_back_write, .cuts = CUT_POWER },
  { .name = "write-back-flush-write",
    .about = "a FLUSH of what is written back while something newer replaces it, over an old "
             "copy in the journal",
    .base = base_one, .warm = warm_logged_dirty, .start = start_write_back_flush_write,
    .cuts = CUT_POWER, .is_long = true },
  { .name = "trim-logged-hole",
    .about = "a copy in the journal of a block that is not mapped, trimmed",
    .base = base_empty, .warm = warm_logged, .start = start_read_trim, .then = then_read,
    .cuts = CUT_POWER },
  { .name = "write-back-flush",
    .about = "written: with its data, or not at all",
    .base = base_empty, .warm = warm_dirty, .start = start_write_back_flush, .cuts = CUT_POWER },
  { .name = "write-back-status",
    .about = "dirty data over zeros is not told to be zeros",
    .base = base_one, .warm = warm_unwritten_dirty, .start = start_write_back_status },
  { .name = "reuse",
    .about = "write-back, TRIM, and the space given to another disk",
    .base = base_two, .warm = warm_dirty, .start = start_reuse, .then = then_reuse, .capacity = 1,
    .cuts = CUT_POWER },
  { .name = "reuse-all",
    .about = "all of write-back and TRIM, each followed by the other disk's WRITE and its "
             "write-back",
    .base = base_two, .warm = warm_dirty, .start = start_write_back_trim, .then = then_reuse,
    .capacity = 1 },
  { .name = "trim-reuse",
    .about = "no new owner before the freeing is durable",
    .base = base_two, .start = start_trim_reuse, .capacity = 1, .cuts = CUT_POWER,
    .is_long = true },
  { .name = "flush-write",
    .about = "FLUSH covers what was acknowledged before",
    .base = base_one, .warm = warm_dirty, .start = start_flush_write, .cuts = CUT_POWER },
  { .name = "flush-write-hole",
    .about = "the same without places",
    .base = base_empty, .warm = warm_dirty, .start = start_flush_write, .cuts = CUT_POWER },
  { .name = "flush-trim",
    .about = "a TRIM beside a FLUSH of the same block",
    .base = base_one, .warm = warm_dirty, .start = start_flush_trim, .cuts = CUT_POWER },
  { .name = "fua-fua",
    .about = "two records for one block",
    .base = base_one, .start = start_fua_fua, .cuts = CUT_POWER },
};
const unsigned scenario_count = ARRAY_COUNT (scenarios);
