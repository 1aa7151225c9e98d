/* SPDX-License-Identifier: BSD-2-Clause */
/* tables.c - all that populates the cache or uses mappings, against all that deallocates: one
 * scenario for each pair, in three places.
 *
 *   same       both on one block
 *   neighbour  on two blocks of one extent
 *   reuse      on one block, and the store has no other: as soon as the invalidator has ended,
 *              another disk writes, gets that block, and has it written back, while the populator
 *              may still be on its way
 *
 * A disk has three blocks.  Block 0 is in nobody's way; the invalidator's is block 1, or block 2 if
 * it can only cut off the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "explorer.h"

#define DISK_BLOCKS 3

enum place { PLACE_SAME, PLACE_NEIGHBOUR, PLACE_REUSE, PLACES };

static const char *const place_names[] = { "same", "neighbour", "reuse" };

struct populator;
struct invalidator;

struct pair {
  const struct populator *populator;
  const struct invalidator *invalidator;
  enum place place;
};

static const struct pair *
pair_now (void)
{
  return explorer_scenario ()->arg;
}

/* --- populators: whatever puts blocks into the cache, or makes use of a mapping --- */

struct populator {
  const char *name;
  const char *about;
  void (*start) (struct world *world, uint64_t block);
  bool needs_dirty;             /* the block is dirty before */
  bool is_admin;                /* of which there is one at a time */
  bool has_partner;             /* a second disk takes part */
  bool is_quick;                /* even where its block is reused */
  bool is_slow;                 /* even where it is not */
};

static void
populate_read (struct world *world, uint64_t block)
{
  world_request (world, 0, 0, REQUEST_READ, 0, BLOCKS (block), BLOCKS (1));
}

static void
populate_read_ahead (struct world *world, uint64_t block)
{
  /* What follows is read ahead: nothing of the block itself is asked for. */
  explorer_read_ahead (world, 0, BLOCKS (block) - 512, 512);
}

static void
populate_cache (struct world *world, uint64_t block)
{
  world_request (world, 0, 0, REQUEST_CACHE, 0, BLOCKS (block), BLOCKS (1));
}

static void
populate_partial_write (struct world *world, uint64_t block)
{
  world_request (world, 0, 0, REQUEST_WRITE, 0, BLOCKS (block) + 512, 512);
}

static void
populate_write (struct world *world, uint64_t block)
{
  world_request (world, 0, 0, REQUEST_WRITE, 0, BLOCKS (block), BLOCKS (1));
}

/* As the keeper does by itself, with no reference to the disk. */
static void
populate_write_back (struct world *world, uint64_t block)
{
  (void) block;
  world->store->keeper.old_version = cache_version (world->store->cache);
  keeper_kick (world->store);
}

static void
populate_status (struct world *world, uint64_t block)
{
  world_request (world, 0, 0, REQUEST_BLOCK_STATUS, 0, BLOCKS (block), BLOCKS (1));
}

/* The other disk's block 0 becomes a clone. */
static void
populate_clone (struct world *world, uint64_t block)
{
  world_clone_range (world, 0, BLOCKS (block), BLOCKS (1), 1, 0);
}

static const struct populator populators[] = {
  { .name = "read", .about = "a READ that misses", .start = populate_read, .is_quick = true },
  { .name = "read-ahead", .about = "reading ahead of a stream", .start = populate_read_ahead },
  { .name = "cache", .about = "CACHE", .start = populate_cache, .is_quick = true },
  { .name = "partial-write", .about = "a WRITE that completes its block from the old content",
    .start = populate_partial_write },
  { .name = "write", .about = "a WRITE that looks whether its block needs space",
    .start = populate_write },
  { .name = "write-back", .about = "the keeper's write-back", .start = populate_write_back,
    .needs_dirty = true, .is_quick = true },
  { .name = "status", .about = "BLOCK_STATUS", .start = populate_status, .is_quick = true },
  { .name = "clone-source", .about = "cloning the block", .start = populate_clone,
    .is_admin = true, .has_partner = true, .is_slow = true },
};

/* --- invalidators: whatever deallocates, or gives up what was promised --- */

struct invalidator {
  const char *name;
  const char *about;
  uint64_t block;               /* that it deallocates */
  void (*start) (struct world *world);
  bool is_admin, has_partner;   /* as above */
  bool is_without_space;        /* wants a store that has none left */
  bool is_last;                 /* it must not be the first to start */
  bool is_quick;                /* even where its block is reused */
  bool is_slow;                 /* even where it is not */
};

/* What is freed can be used again when that is durable. */
static void
invalidate (struct world *world, enum request_kind kind, unsigned flags, uint64_t length)
{
  if (pair_now ()->place == PLACE_REUSE)
    flags |= REQUEST_FUA;
  world_request (world, 0, 0, kind, flags, BLOCKS (1), length);
}

static void
invalidate_trim (struct world *world)
{
  invalidate (world, REQUEST_TRIM, 0, BLOCKS (1));
}

static void
invalidate_zeroes (struct world *world)
{
  invalidate (world, REQUEST_WRITE_ZEROES, 0, BLOCKS (1));
}

static void
invalidate_zeroes_kept (struct world *world)
{
  invalidate (world, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, BLOCKS (1));
}

static void
invalidate_trim_edge (struct world *world)
{
  invalidate (world, REQUEST_TRIM, 0, BLOCKS (1) + 1024);
}

static void
invalidate_zeroes_edge (struct world *world)
{
  invalidate (world, REQUEST_WRITE_ZEROES, 0, BLOCKS (1) + 1024);
}

static void
invalidate_shrink (struct world *world)
{
  world_resize_disk (world, 0, BLOCKS (2));
}

static void
invalidate_delete (struct world *world)
{
  world_delete_disk (world, 0);
}

/* Block 2 comes in the place of block 1. */
static void
invalidate_collapse (struct world *world)
{
  world_shift_range (world, 0, ADMIN_COLLAPSE, BLOCKS (1), BLOCKS (1));
}

static void
invalidate_insert (struct world *world)
{
  world_shift_range (world, 0, ADMIN_INSERT, BLOCKS (1), BLOCKS (1));
}

static void
invalidate_clone (struct world *world)
{
  world_clone_range (world, 1, 0, BLOCKS (1), 0, BLOCKS (1));
}

/* Two blocks, of which one is a hole, and there is no space for that. */
static void
invalidate_failed_write (struct world *world)
{
  invalidate (world, REQUEST_WRITE, 0, BLOCKS (2));
}

static const struct invalidator invalidators[] = {
  { .name = "trim", .about = "TRIM", .block = 1, .start = invalidate_trim, .is_quick = true },
  { .name = "zeroes", .about = "WRITE_ZEROES", .block = 1, .start = invalidate_zeroes },
  { .name = "zeroes-kept", .about = "WRITE_ZEROES that keeps the space", .block = 1,
    .start = invalidate_zeroes_kept },
  { .name = "trim-edge", .about = "TRIM that ends within a block", .block = 1,
    .start = invalidate_trim_edge },
  { .name = "zeroes-edge", .about = "WRITE_ZEROES that ends within a block", .block = 1,
    .start = invalidate_zeroes_edge },
  { .name = "shrink", .about = "cutting off the end of the disk", .block = 2,
    .start = invalidate_shrink, .is_admin = true },
  { .name = "delete", .about = "deleting the disk", .block = 1, .start = invalidate_delete,
    .is_admin = true, .is_last = true },
  { .name = "failed-write", .about = "a WRITE that fails for want of space", .block = 1,
    .start = invalidate_failed_write, .is_without_space = true },
  { .name = "collapse", .about = "collapsing the range", .block = 1,
    .start = invalidate_collapse, .is_admin = true, .is_slow = true },
  { .name = "insert", .about = "inserting before the block", .block = 1,
    .start = invalidate_insert, .is_admin = true, .is_slow = true },
  { .name = "clone-target", .about = "a clone that takes the block's place", .block = 1,
    .start = invalidate_clone, .is_admin = true, .has_partner = true, .is_slow = true },
};

/* --- pairs --- */

static uint64_t
populated_block (const struct pair *pair)
{
  return pair->place == PLACE_NEIGHBOUR ? 3 - pair->invalidator->block : pair->invalidator->block;
}

static bool
has_partner (const struct pair *pair)
{
  return pair->populator->has_partner || pair->invalidator->has_partner;
}

/* The disk that gets what is freed. */
static unsigned
chaser (const struct pair *pair)
{
  return has_partner (pair) ? 2 : 1;
}

static void
make_disk (struct world *world, unsigned disk, uint64_t blocks)
{
  world_create_disk (world, disk, BLOCKS (blocks));
  explorer_finish (world);
}

/* Blocks that are written before all begins; where space is scarce there are no more. */
static uint64_t
pair_blocks (const struct pair *pair)
{
  bool is_scarce = pair->place == PLACE_REUSE || pair->invalidator->is_without_space;

  return (is_scarce ? 1 : 2) + pair->invalidator->has_partner;
}

static void
pair_base (struct world *world)
{
  const struct pair *pair = pair_now ();
  bool is_scarce = pair->place == PLACE_REUSE || pair->invalidator->is_without_space;

  make_disk (world, 0, DISK_BLOCKS);
  if (has_partner (pair))
    make_disk (world, 1, 1);
  if (pair->place == PLACE_REUSE)
    make_disk (world, chaser (pair), 1);
  if (pair->invalidator->has_partner) {
    world_request (world, 0, 1, REQUEST_WRITE, 0, 0, BLOCKS (1));
    explorer_finish (world);
  }
  /* With nothing written the failing WRITE and the other disk's want the same block. */
  if (pair->place == PLACE_REUSE && pair->invalidator->is_without_space)
    return;
  world_request (world, 0, 0, REQUEST_WRITE, 0, BLOCKS (is_scarce ? pair->invalidator->block : 1),
                 BLOCKS (is_scarce ? 1 : 2));
}

static void
pair_warm (struct world *world)
{
  const struct pair *pair = pair_now ();

  if (pair->populator->needs_dirty)
    world_request (world, 0, 0, REQUEST_WRITE, 0, BLOCKS (populated_block (pair)), BLOCKS (1));
}

static unsigned invalidating;   /* the client; WORLD_CLIENTS: it is an administrative op */

static void
pair_invalidate (struct world *world)
{
  unsigned client = 0;

  while (world->clients[client].state != CLIENT_FREE)
    client++;
  pair_now ()->invalidator->start (world);
  invalidating = pair_now ()->invalidator->is_admin ? WORLD_CLIENTS : client;
}

static void
pair_start (struct world *world)
{
  const struct pair *pair = pair_now ();

  if (!pair->invalidator->is_last)
    pair_invalidate (world);
  pair->populator->start (world, populated_block (pair));
  if (pair->invalidator->is_last)
    pair_invalidate (world);
}

/* The other disk's WRITE, as soon as the invalidator has ended, and then its write-back. */
static bool
pair_chase (struct world *world, unsigned phase)
{
  bool has_ended = invalidating == WORLD_CLIENTS
                     ? !world->admin.is_running
                     : world->clients[invalidating].state == CLIENT_FREE;

  if (pair_now ()->place != PLACE_REUSE || phase > 1)
    return false;
  if (phase == 0 && has_ended)
    return world_request (world, 0, chaser (pair_now ()), REQUEST_WRITE, 0, 0, BLOCKS (1));
  for (unsigned i = 0; i < WORLD_CLIENTS && phase == 1; i++)
    has_ended &= world->clients[i].state == CLIENT_FREE
                 || world->clients[i].disk != chaser (pair_now ());
  if (phase == 1 && has_ended)
    explorer_write_back (world, chaser (pair_now ()));
  return phase == 1 && has_ended;
}

static void
pair_then (struct world *world)
{
  if (world->disks[0].exists)
    world_request (world, 0, 0, REQUEST_READ, 0, 0, world->disks[0].size);
}

/* What make check has no time for. */
static bool
is_long (const struct pair *pair)
{
  if (pair->place == PLACE_REUSE)
    return !pair->populator->is_quick || !pair->invalidator->is_quick;
  return (pair->populator->is_slow || pair->invalidator->is_slow)
         && (!pair->populator->is_quick || pair->place != PLACE_SAME);
}

static struct scenario
pair_scenario (const struct pair *pair)
{
  const struct populator *populator = pair->populator;
  const struct invalidator *invalidator = pair->invalidator;
  struct scenario scenario = {
    .arg = pair, .base = pair_base, .warm = pair_warm, .start = pair_start, .chase = pair_chase,
    .then = pair_then,
    .capacity = pair->place == PLACE_REUSE || invalidator->is_without_space ? pair_blocks (pair)
                                                                            : 0,
    .is_long = is_long (pair),
  };
  char *name, *about;

  CHECK (asprintf (&name, "%s/%s/%s", populator->name, invalidator->name, place_names[pair->place])
         > 0);
  CHECK (asprintf (&about, "%s against %s", populator->about, invalidator->about) > 0);
  scenario.name = name;
  scenario.about = about;
  return scenario;
}

bool
tables_has_row (const char *name)
{
  for (unsigned p = 0; p < ARRAY_COUNT (populators); p++)
    if (strcmp (populators[p].name, name) == 0)
      return true;
  for (unsigned i = 0; i < ARRAY_COUNT (invalidators); i++)
    if (strcmp (invalidators[i].name, name) == 0)
      return true;
  return false;
}

void
tables_print_rows (void)
{
  for (unsigned p = 0; p < ARRAY_COUNT (populators); p++)
    printf ("populator %s\n", populators[p].name);
  for (unsigned i = 0; i < ARRAY_COUNT (invalidators); i++)
    printf ("invalidator %s\n", invalidators[i].name);
}

void
tables_each (void (*visit) (const struct scenario *scenario, void *arg), void *arg)
{
  for (unsigned p = 0; p < ARRAY_COUNT (populators); p++)
    for (unsigned i = 0; i < ARRAY_COUNT (invalidators); i++)
      for (enum place place = 0; place < PLACES; place++) {
        struct pair pair = { &populators[p], &invalidators[i], place };
        struct scenario scenario;

        if (pair.populator->is_admin && pair.invalidator->is_admin)
          continue;
        scenario = pair_scenario (&pair);
        visit (&scenario, arg);
        free ((char *) scenario.name);
        free ((char *) scenario.about);
      }
}
