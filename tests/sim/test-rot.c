/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rot.c - bits that rot on the device.  A store has run for a while, and the power was cut
 * when nothing had been written for some time; then one sector of its metadata is changed, every
 * one of superblocks, nodes and journal in turn, in clones of the world.
 *
 *   superblock, node: the other copy counts; all that was flushed is there.
 *   journal: the store is refused, or all that was flushed is there.  Never less, and never
 *     something else.
 *
 * And each block of these in turn cannot be read, which is no worse; where the journal has nothing
 * that counts, it does not matter at all.
 *
 * What was answered before the cut was flushed, so "all" is judged sharply.  A process is killed
 * just after a FLUSH, too: the arena knows that the last record was durable.  And whatever is
 * damaged, one copy or both, is repaired; then the checker must find nothing, and the store opens.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store-internal.h"
#include "store/test-image.h"
#include "world.h"

#define META_BLOCKS 64
#define HALF_BLOCKS 64

/* Stores are abandoned, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

enum rot { ROT_BIT, ROT_ZEROS, ROT_NOISE, ROTS, ROT_UNREADABLE = ROTS };

static void
rot_sector (struct sim_image *image, uint64_t place, unsigned sector, enum rot rot, uint64_t seed)
{
  struct random random = { .state = seed };
  uint8_t block[BLOCK_SIZE], *at = block + sector * SECTOR_SIZE;

  if (rot == ROT_UNREADABLE) {
    sim_fail_range (image, IO_READ, place, 1, -EIO);
    return;
  }
  sim_peek (image, place, block);
  for (unsigned i = 0; i < SECTOR_SIZE && rot != ROT_BIT; i++)
    at[i] = rot == ROT_ZEROS ? 0 : random_below (&random, 256);
  if (rot == ROT_BIT)
    at[random_below (&random, SECTOR_SIZE)] ^= 1 << random_below (&random, 8);
  sim_poke (image, place, block);
}

/* An opening does not change what can be read. */
static void
stay_unreadable (struct world *world)
{
  (void) world;
}

/* Opens a clone that has been damaged; 1: all is there, 0: refused, -1: a violation. */
static int
open_damaged (struct world *clone)
{
  bool is_open;

  clone->may_refuse = true;
  is_open = world_crash (clone, CRASH_POWER, 0) && world_verify (clone) && world_reopen (clone);
  return is_open ? 1 : clone->is_refused && !clone->is_failed ? 0 : -1;
}

struct totals {
  unsigned survived, refused, failed;
};

static void
damage_one (struct world *world, uint64_t place, unsigned sector, enum rot rot, bool may_refuse,
            struct totals *totals)
{
  uint64_t seed = (place * 8 + sector) * ROTS + rot;
  struct world *clone = world_clone (world, seed);
  int result;

  rot_sector (clone->image, place, sector, rot, seed);
  result = open_damaged (clone);
  totals->survived += result == 1;
  totals->refused += result == 0;
  if (result < 0 || (result == 0 && !may_refuse)) {
    printf ("FAIL test-rot: place %" PRIu64 ", sector %u, rot %d: %s\n", place, sector, rot,
            result < 0 ? "a violation" : "refused");
    totals->failed++;
  }
  world_destroy (clone);
}

static bool
is_zero (struct sim_image *image, uint64_t place)
{
  uint8_t block[BLOCK_SIZE];

  sim_peek (image, place, block);
  return block[0] == 0 && memcmp (block, block + 1, BLOCK_SIZE - 1) == 0;
}

/* --- repair --- */

/* Whatever can be done is done; then the checker must find nothing more. */
static bool
repair (struct world *clone)
{
  int verdict;
  char *text = image_check_text (clone->image, clone->options.device_blocks_max, true, &verdict);

  if (verdict != CHECKER_CLEAN || clone->options.is_traced)
    printf ("%s", text);
  free (text);
  return verdict == CHECKER_CLEAN;
}

/* Blocks PLACES[0] and [1] (0: none) are damaged, and the store is repaired.  Then it opens; and
 * IS_WHOLE: nothing is missing. */
static bool
repair_one (struct world *world, const uint64_t places[2], bool is_whole)
{
  struct world *clone = world_clone (world, places[0]);
  bool is_ok;

  sim_crash (clone->image, SIM_POWER);
  for (unsigned i = 0; i < 2; i++)
    if (i == 0 || places[i] != 0)
      rot_sector (clone->image, places[i], places[0] % 8, ROT_NOISE, places[i] + 1);
  is_ok = repair (clone);
  if (is_ok && is_whole)
    is_ok = open_damaged (clone) == 1;
  else if (is_ok)
    is_ok = world_open (clone) && world_verify (clone);
  if (!is_ok)
    printf ("FAIL test-rot: repair of %" PRIu64 " and %" PRIu64 "\n", places[0], places[1]);
  world_destroy (clone);
  return is_ok;
}

static bool
repair_each (struct world *world)
{
  unsigned count = 0;
  bool is_ok = true;

  for (uint64_t place = 0; place < META_BLOCKS + 2 * HALF_BLOCKS; place++) {
    bool is_node = place >= 4 && place < META_BLOCKS;
    uint64_t one[2] = { place, 0 };
    uint64_t both[2] = { place, place < 4 ? place ^ 1 : place + META_BLOCKS / 2 };

    if (is_zero (world->image, place))
      continue;
    is_ok &= repair_one (world, one, place < META_BLOCKS);
    count++;
    if ((is_node && place < META_BLOCKS / 2) || place == 0 || place == 2) {
      is_ok &= repair_one (world, both, false);
      count++;
    }
  }
  printf ("%s repair: %u\n", is_ok ? "ok" : "FAIL", count);
  return is_ok;
}

/* Every sector of [FROM, TO), STRIDE apart. */
static void
damage_each (struct world *world, const char *what, uint64_t from, uint64_t to, unsigned stride,
             bool may_refuse)
{
  struct totals totals = { 0 };

  for (uint64_t at = from * 8 + stride / 2; at < to * 8; at += stride)
    for (enum rot rot = 0; rot < ROTS; rot++)
      if (!is_zero (world->image, at / 8))
        damage_one (world, at / 8, at % 8, rot, may_refuse, &totals);
  printf ("%s %s: %u survived, %u refused\n", totals.failed > 0 ? "FAIL" : "ok", what,
          totals.survived, totals.refused);
  world->is_failed |= totals.failed > 0;
}

/* Every block of [FROM, TO) that was ever written. */
static void
lose_each (struct world *world, const char *what, uint64_t from, uint64_t to, bool may_refuse)
{
  struct totals totals = { 0 };

  for (uint64_t place = from; place < to; place++)
    if (!is_zero (world->image, place))
      damage_one (world, place, 0, ROT_UNREADABLE, may_refuse, &totals);
  printf ("%s %s: %u survived, %u refused\n", totals.failed > 0 ? "FAIL" : "ok", what,
          totals.survived, totals.refused);
  world->is_failed |= totals.failed > 0;
}

static bool
write_and_flush (struct world *world, unsigned disk, uint64_t block, uint64_t count)
{
  return world_request (world, 0, disk, REQUEST_WRITE, 0, block * BLOCK_SIZE, count * BLOCK_SIZE)
         && world_settle (world) && world_request (world, 0, disk, REQUEST_FLUSH, 0, 0, 0)
         && world_settle (world);
}

static bool
tick (struct world *world, unsigned count)
{
  for (unsigned i = 0; i < count; i++) {
    keeper_tick (world->store);
    while (world_turn (world))
      continue;
  }
  return !world->is_failed;
}

/* A store with nodes, and with records that hold items and data. */
static bool
live (struct world *world)
{
  bool is_ok = world_create_disk (world, 0, 90 * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, 1, 50 * BLOCK_SIZE) && world_settle (world)
               && write_and_flush (world, 0, 3, 20) && write_and_flush (world, 1, 0, 9);

  /* Records of an earlier time, more than there will be of this one. */
  for (unsigned i = 0; i < 9 && is_ok; i++)
    is_ok = write_and_flush (world, 1, i, 1);
  is_ok = is_ok && world_reopen (world);
  for (unsigned i = 0; i < 5 && is_ok; i++)
    is_ok = write_and_flush (world, i % 2, 7 * i, 1 + i % 3);
  return is_ok && world_request (world, 0, 0, REQUEST_TRIM, 0, 4 * BLOCK_SIZE, 6 * BLOCK_SIZE)
         && world_settle (world) && write_and_flush (world, 0, 80, 2);
}

static bool
run_cut (const struct world_options *options)
{
  struct world *world = world_create (options);
  bool is_ok = !world->is_failed && live (world) && tick (world, 3);
  const struct commit *commit = &world->store->commit;
  uint64_t half = META_BLOCKS + commit->half * HALF_BLOCKS;

  if (is_ok) {
    damage_each (world, "superblocks", 0, 4, 3, false);
    damage_each (world, "nodes", 4, META_BLOCKS, 3, false);
    damage_each (world, "journal", META_BLOCKS, META_BLOCKS + 2 * HALF_BLOCKS, 1, true);
    lose_each (world, "unreadable metadata", 0, META_BLOCKS, false);
    lose_each (world, "unreadable journal, in use", half, half + commit->head, true);
    lose_each (world, "unreadable journal, not in use", half + commit->head + 1,
               META_BLOCKS + 2 * HALF_BLOCKS, false);
  }
  is_ok = is_ok && !world->is_failed && repair_each (world);
  world_destroy (world);
  return is_ok;
}

static bool
run_kill (const struct world_options *options)
{
  struct world *world = world_create (options);
  bool is_ok = !world->is_failed && live (world);
  const struct commit *commit = &world->store->commit;

  if (is_ok) {
    uint64_t last = META_BLOCKS + commit->half * HALF_BLOCKS + commit->head - 1;

    rot_sector (world->image, last, 3, ROT_BIT, 1);
    world->may_refuse = true;
    is_ok = !world_crash (world, CRASH_KILL, 0) && world->is_refused;
  }
  printf ("%s the last record, of which the arena knows\n", is_ok ? "ok" : "FAIL");
  world_destroy (world);
  return is_ok;
}

int
main (int argc, char **argv)
{
  bool is_traced = argc > 1 && strcmp (argv[1], "--trace") == 0, is_ok;
  struct world_options options = {
    .seed = 1,
    .geometry = {
      .group_blocks = 512, .meta_blocks = META_BLOCKS, .journal_half_blocks = HALF_BLOCKS,
    },
    .device_blocks = 64, .device_blocks_max = 4096, .cache_bytes = 96 * BLOCK_SIZE,
    .tail_bytes = 16 * KIB, .request_bytes_max = 64 * BLOCK_SIZE, .contexts = 1,
    .is_plain = true, .is_traced = is_traced, .end_faults = stay_unreadable,
    .step_weight = 1, .io_weight = 1,
  };

  setvbuf (stdout, NULL, _IOLBF, 0);
  if (!is_traced)
    world_log_nothing ();
  world_handle_signals ();
  is_ok = run_cut (&options);
  options.has_arena = true;
  return run_kill (&options) && is_ok ? 0 : 1;
}
