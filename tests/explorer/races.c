/* SPDX-License-Identifier: BSD-2-Clause */
/* races.c - the five races that the engine is made against, each in its smallest form, with the
 * power cut and the process killed after every step.  They are known from Linux' file systems; each
 * has bitten several of them.
 *
 *   1 what shifts extents against reads: the range stays invalid for as long as they are shifted
 *   2 what deallocates against whatever populates; cutting off the end takes the same road
 *   3 two problems: a frame that is found after its block was deallocated, for which no writer is
 *     needed; and write-back by a mapping that is out of date, into blocks that have another owner
 *   4 FLUSH against a write into an extent that is not written: after a crash it is unwritten, or
 *     has the data
 *   5 a write that fails after it has reserved, against others in its range: nothing dirty is left
 *     without space, and nobody else's data goes
 */
#include <errno.h>

#include "base/bytes.h"
#include "explorer.h"

/* Two blocks in one extent. */
static void
base_written (struct world *world)
{
  world_create_disk (world, 0, BLOCKS (2));
  explorer_finish (world);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (2));
}

static void
base_hole (struct world *world)
{
  world_create_disk (world, 0, BLOCKS (2));
}

static void
base_unwritten (struct world *world)
{
  base_hole (world);
  explorer_finish (world);
  explorer_request (world, 0, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 0, BLOCKS (1));
}

/* Block 0 has all the space that there is; another disk has none. */
static void
base_last_block (struct world *world)
{
  base_hole (world);
  explorer_finish (world);
  world_create_disk (world, 1, BLOCKS (1));
  explorer_finish (world);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

static void
warm_dirty (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

static void
then_read (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, world->disks[0].size);
}

/* Three blocks, so that something moves. */
static void
base_three (struct world *world)
{
  world_create_disk (world, 0, BLOCKS (3));
  explorer_finish (world);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (3));
}

/* --- 1 --- */

static void
start_collapse (struct world *world)
{
  world_shift_range (world, 0, ADMIN_COLLAPSE, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_READ, 0, BLOCKS (1), BLOCKS (1));
}

static void
start_insert (struct world *world)
{
  world_shift_range (world, 0, ADMIN_INSERT, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_READ, 0, BLOCKS (1), BLOCKS (1));
}

/* The new content of a block that moves, and write-back at once: until the move is durable, the
 * place belongs to another block. */
static void
start_collapse_write (struct world *world)
{
  world_shift_range (world, 0, ADMIN_COLLAPSE, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_WRITE, 0, BLOCKS (1), BLOCKS (1));
}

static bool
chase_write (struct world *world, unsigned phase)
{
  if (phase > 0 || world->clients[0].state != CLIENT_FREE)
    return false;
  explorer_write_back (world, 0);
  return true;
}

/* A part of a block is written into what was found there: it must not be what lay there before. */
static void
then_write_part (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, BLOCKS (1) + 512, 512);
}

/* --- 2 --- */

/* Two disks of one block each. */
static void
base_pair (struct world *world)
{
  for (unsigned d = 0; d < 2; d++) {
    world_create_disk (world, d, BLOCKS (1));
    explorer_finish (world);
    explorer_request (world, d, REQUEST_WRITE, 0, 0, BLOCKS (1));
    explorer_finish (world);
  }
}

/* What a clone was made of is not private any more: a WRITE beside it goes elsewhere. */
static void
start_clone (struct world *world)
{
  world_clone_range (world, 0, 0, BLOCKS (1), 1, 0);
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
}

static void
start_populators (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_WRITE, 0, 512, 512);
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_cache (struct world *world)
{
  explorer_request (world, 0, REQUEST_CACHE, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_shrink (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, BLOCKS (1), BLOCKS (1));
  world_resize_disk (world, 0, BLOCKS (1));
}

/* What was cut off must not be seen when the disk grows again. */
static void
then_grow (struct world *world)
{
  world_resize_disk (world, 0, BLOCKS (2));
}

/* --- 3 --- */

static void
start_stale_frame (struct world *world)
{
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_TRIM, 0, 0, BLOCKS (1));
}

static void
start_stale_mapping (struct world *world)
{
  explorer_request (world, 0, REQUEST_TRIM, REQUEST_FUA, 0, BLOCKS (1));
  explorer_write_back (world, 0);
}

/* Whoever gets the block has it written back at once. */
static bool
chase_reuse (struct world *world, unsigned phase)
{
  if (phase > 1 || world->clients[0].state != CLIENT_FREE)
    return false;
  if (phase == 0)
    explorer_request (world, 1, REQUEST_WRITE, 0, 0, BLOCKS (1));
  else
    explorer_write_back (world, 1);
  return true;
}

/* --- 4 --- */

static void
start_flush_write (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (1));
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
}

static void
start_flush_write_back (struct world *world)
{
  explorer_write_back (world, 0);
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
}

/* --- 5 --- */

/* Two blocks are wanted, and there is one: for whom comes first of those who want no more. */
static void
start_no_space (struct world *world)
{
  explorer_request (world, 0, REQUEST_WRITE, 0, 0, BLOCKS (2));
  explorer_request (world, 0, REQUEST_WRITE, 0, 512, 512);
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
}

/* The old content of a block, which two WRITEs complete theirs from, cannot be read once. */
static void
start_read_error (struct world *world)
{
  world->is_faulty = true;
  sim_fail (world->image, IO_READ, 0, -EIO, false);
  explorer_request (world, 0, REQUEST_WRITE, 0, 512, 512);
  explorer_request (world, 0, REQUEST_WRITE, 0, 1024, 512);
}

/* A place cannot be written once: the block must not be taken for clean. */
static void
start_write_error (struct world *world)
{
  world->is_faulty = true;
  world->may_lose_space = true;     /* the place stays out of use until the next opening */
  sim_fail (world->image, IO_WRITE, 0, -EIO, false);
  world->store->keeper.old_version = cache_version (world->store->cache);
  keeper_kick (world->store);
  explorer_request (world, 0, REQUEST_READ, 0, 0, BLOCKS (1));
}

static void
then_flush (struct world *world)
{
  explorer_request (world, 0, REQUEST_FLUSH, 0, 0, 0);
}

#define CUTS (CUT_POWER | CUT_KILL)

const struct scenario races[] = {
  { .name = "race-1-collapse", .about = "a READ of what moves down, then a WRITE of a part of it",
    .base = base_three, .start = start_collapse, .then = then_write_part, .cuts = CUTS,
    .is_long = true },
  { .name = "race-1-insert", .about = "a READ of what moves up, then a WRITE of a part of it",
    .base = base_three, .start = start_insert, .then = then_write_part, .cuts = CUTS,
    .is_long = true },
  { .name = "race-1-write-back",
    .about = "a WRITE of what moves down goes to its place at once",
    .base = base_three, .start = start_collapse_write, .chase = chase_write, .then = then_read,
    .cuts = CUTS },
  { .name = "race-2-clone", .about = "two disks locked, a WRITE of the source beside it",
    .base = base_pair, .start = start_clone, .then = then_read, .cuts = CUTS, .is_long = true },
  { .name = "race-2-populators", .about = "a READ and a WRITE of a part against a TRIM",
    .base = base_written, .start = start_populators, .then = then_read, .cuts = CUTS,
    .is_long = true },
  { .name = "race-2-cache", .about = "CACHE against a TRIM",
    .base = base_written, .start = start_cache, .then = then_read, .cuts = CUTS },
  { .name = "race-2-shrink", .about = "a READ against cutting off the end, which then grows again",
    .base = base_written, .start = start_shrink, .then = then_grow, .cuts = CUTS,
    .is_long = true },
  { .name = "race-3-stale-frame", .about = "a READ against a TRIM, and one after both",
    .base = base_written, .start = start_stale_frame, .then = then_read, .cuts = CUTS },
  { .name = "race-3-stale-mapping",
    .about = "write-back against a TRIM, and another disk that gets the block",
    .base = base_last_block, .warm = warm_dirty, .start = start_stale_mapping,
    .chase = chase_reuse, .capacity = 1, .cuts = CUTS, .is_long = true },
  { .name = "race-4-unwritten", .about = "a FLUSH against a WRITE into an unwritten extent",
    .base = base_unwritten, .start = start_flush_write, .then = then_read, .cuts = CUTS },
  { .name = "race-4-hole", .about = "a FLUSH against a WRITE into a hole",
    .base = base_hole, .start = start_flush_write, .then = then_read, .cuts = CUTS },
  { .name = "race-4-write-back",
    .about = "a FLUSH against write-back into an unwritten extent",
    .base = base_unwritten, .warm = warm_dirty, .start = start_flush_write_back,
    .then = then_read, .cuts = CUTS },
  { .name = "race-5-no-space", .about = "a WRITE that gets no space, a WRITE and a READ beside it",
    .base = base_hole, .start = start_no_space, .then = then_read, .capacity = 1, .cuts = CUTS },
  { .name = "race-5-read-error",
    .about = "two WRITEs of parts of a block that cannot be read once",
    .base = base_written, .start = start_read_error, .then = then_read, .cuts = CUTS },
  { .name = "race-5-write-error", .about = "write-back fails once, and then a FLUSH",
    .base = base_written, .warm = warm_dirty, .start = start_write_error, .then = then_flush,
    .cuts = CUTS },
};
const unsigned race_count = ARRAY_COUNT (races);
