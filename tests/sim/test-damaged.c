/* SPDX-License-Identifier: BSD-2-Clause */
/* test-damaged.c - a node of which both copies are gone costs one disk, and nothing else.
 *
 * A store has a disk with a map of several levels, one that shares blocks with it, and another.
 * Each node of the first one's map in turn, and its disk node, loses both copies.  Then the store
 * opens and can be used, over a checkpoint, a power cut and clean closings; the checker finds
 * nothing wrong but that node.  And then
 *
 *   the node can be read again: the disk is there, with all that it had;
 *   or it is deleted: no block is withheld any more, and the checker finds nothing;
 *   or the store is repaired, which gives up what is lost.
 *
 * When the journal (or the arena of a killed process) has changes of the disk these are lost, so it
 * stays damaged even if the node can be read again.
 *
 * Of a map with two leaves one is lost, and the repair leaves a root with one child, which is as good
 * as any.
 *
 * And the table of shared runs, wrong or with nodes that are gone, can be made anew from the maps.
 * When the power is cut in the middle of a repair it can be begun again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"
#include "store/test-image.h"
#include "world.h"

#define META_BLOCKS 128
#define HALF_BLOCKS 64
#define NODES_MAX 64

enum { LOST, SHARER, OTHER };                /* disks */

/* Stores are abandoned, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

static struct world_options options = {
  .seed = 1,
  .geometry = {
    .group_blocks = 4096, .meta_blocks = META_BLOCKS, .journal_half_blocks = HALF_BLOCKS,
  },
  .device_blocks = 512, .device_blocks_max = 40960, .cache_bytes = 512 * BLOCK_SIZE,
  .tail_bytes = 32 * KIB, .request_bytes_max = 64 * BLOCK_SIZE, .contexts = 1,
  .is_plain = true, .step_weight = 1, .io_weight = 1,
};

/* The node that is lost, and what it was. */
struct victim {
  uint64_t place;
  uint8_t first[BLOCK_SIZE], second[BLOCK_SIZE];
};

/* --- doing --- */

static bool
request (struct world *world, unsigned disk, enum request_kind kind, uint64_t block, uint64_t count)
{
  return world_request (world, 0, disk, kind, 0, block * BLOCK_SIZE, count * BLOCK_SIZE)
         && world_settle (world);
}

static bool
write_blocks (struct world *world, unsigned disk, uint64_t block, uint64_t count)
{
  return request (world, disk, REQUEST_WRITE, block, count);
}

static bool
flush (struct world *world, unsigned disk)
{
  return request (world, disk, REQUEST_FLUSH, 0, 0);
}

static bool
checkpoint (struct world *world)
{
  keeper_want_checkpoint (world->store);
  while (world_turn (world))
    continue;
  return !world->is_failed;
}

/* LOST has each second block, and SHARER shares each second of these: so LOST's map and the table
 * of shared runs have several leaves and a root above them. */
static struct world *
make (void)
{
  struct world *world = world_create (&options);
  bool is_ok = world_create_disk (world, LOST, 1300 * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, SHARER, 1300 * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, OTHER, 600 * BLOCK_SIZE) && world_settle (world);

  for (uint64_t i = 0; i < 620 && is_ok; i++)
    is_ok = write_blocks (world, LOST, 2 * i, 1);
  is_ok = is_ok && write_blocks (world, OTHER, 10, 60) && write_blocks (world, SHARER, 1250, 20)
          && world_clone_range (world, LOST, 0, 1240 * BLOCK_SIZE, SHARER, 0)
          && world_settle (world);
  for (uint64_t i = 0; i < 310 && is_ok; i++)
    is_ok = write_blocks (world, SHARER, 4 * i, 1);
  is_ok = is_ok && world_reopen (world) && world_reopen (world);
  CHECK (is_ok);
  return world;
}

static struct disk *
find (struct world *world, unsigned d)
{
  return disk_find (world->store, world->disks[d].name);
}

struct places {
  uint64_t places[NODES_MAX];
  unsigned count;
};

static void
add_place (void *arg, uint64_t place)
{
  struct places *places = arg;

  CHECK (places->count < NODES_MAX);
  places->places[places->count++] = place;
}

/* What LOST's map has on the device, the root among it, and its disk node last. */
static struct places
places_of_lost (struct world *world)
{
  struct places places = { .count = 0 };
  struct disk *disk = find (world, LOST);

  btree_visit_places (&disk->map.tree, add_place, &places);
  add_place (&places, disk->node_place);
  CHECK (places.count >= 5);
  return places;
}

static void
lose (struct world *world, uint64_t place, struct victim *victim)
{
  uint8_t block[BLOCK_SIZE];

  victim->place = place;
  sim_peek (world->image, place, victim->first);
  sim_peek (world->image, place + META_BLOCKS / 2, victim->second);
  memset (block, place % 3 == 0 ? 0 : 0xa5, sizeof block);
  sim_poke (world->image, place, block);
  sim_poke (world->image, place + META_BLOCKS / 2, block);
  world->disks[LOST].is_damaged = true;
}

static void
restore (struct world *world, const struct victim *victim)
{
  sim_poke (world->image, victim->place, victim->first);
  sim_poke (world->image, victim->place + META_BLOCKS / 2, victim->second);
}

/* --- the checker --- */

/* One finding, of WHAT, and no other. */
static bool
finds_only (struct world *world, const char *what)
{
  int verdict;
  char *text = image_check_text (world->image, world->options.device_blocks_max, false,
                                 &verdict);
  bool is_ok = verdict == CHECKER_DAMAGED && strncmp (text, "damage: ", 8) == 0
               && strstr (text, what) != NULL && strstr (text, what) < strchr (text, '\n')
               && strstr (text, "\n1 problem\n") != NULL;

  if (!is_ok)
    world_fail (world, "the checker does not find one thing, %s, but:\n%s", what, text);
  free (text);
  return is_ok;
}

static bool
finds_nothing (struct world *world, bool repairs)
{
  int verdict;
  char *text = image_check_text (world->image, world->options.device_blocks_max, repairs,
                                 &verdict);

  if (verdict != CHECKER_CLEAN)
    world_fail (world, "the checker finds:\n%s", text);
  free (text);
  return verdict == CHECKER_CLEAN;
}

/* --- damage to a store that is closed --- */

/* All that can be done with a store that has a damaged disk. */
static bool
use (struct world *world)
{
  struct disk *disk = find (world, LOST);
  const char *why = NULL;
  bool is_ok = true;

  if (world->disks[LOST].is_damaged)
    is_ok = request_validate (disk, REQUEST_READ, 0, 0, 512, &why) == -EIO
            && request_validate (disk, REQUEST_FLUSH, 0, 0, 0, &why) == -EIO;
  for (uint64_t i = 0; i < 8 && is_ok; i++)
    is_ok = write_blocks (world, OTHER, 64 * i, 50) && write_blocks (world, SHARER, 20 * i, 9)
            && request (world, OTHER, REQUEST_TRIM, 64 * i + 20, 10)
            && (i % 3 > 0 || flush (world, OTHER)) && (i % 3 > 1 || checkpoint (world));
  return is_ok && flush (world, OTHER) && flush (world, SHARER);
}

/* A disk whose own node is lost has another name, and no size. */
static void
expect_nameless (struct world *world)
{
  struct world_disk *disk = &world->disks[LOST];

  strcpy (disk->name, "damaged-1");
  disk->size = 0;
}

static bool
run_restored (struct world *base, uint64_t place, bool is_disk_node)
{
  struct world *world = world_clone (base, place);
  struct world_disk before = world->disks[LOST];
  struct victim victim;
  char what[80];
  bool is_ok;

  lose (world, place, &victim);
  if (is_disk_node)
    expect_nameless (world);
  snprintf (what, sizeof what, " at place %" PRIu64 "%s: both copies", place,
            is_disk_node ? "" : " of disk 'disk0-1'");
  is_ok = world_open (world) && world_read_all (world, CRASH_POWER) && use (world)
          && world_crash (world, CRASH_POWER, 0) && use (world) && world_reopen (world)
          && use (world) && world_close (world) && finds_only (world, what);
  if (is_ok) {
    before.oracle = world->disks[LOST].oracle;
    world->disks[LOST] = before;
    restore (world, &victim);
    is_ok = world_open (world) && world_read_all (world, CRASH_POWER) && world_reopen (world);
  }
  world_destroy (world);
  return is_ok;
}

/* Deletes LOST, and waits until it is forgotten. */
static bool
run_deleted (struct world *base, uint64_t place, bool is_disk_node)
{
  struct world *world = world_clone (base, place);
  struct space_counts counts;
  struct victim victim;
  bool is_ok;

  lose (world, place, &victim);
  if (is_disk_node)
    expect_nameless (world);
  is_ok = world_open (world) && world_delete_disk (world, LOST) && world_settle (world)
          && use (world);
  for (unsigned i = 0; i < 3 && is_ok; i++) {
    keeper_tick (world->store);
    is_ok = checkpoint (world);
  }
  /* Whatever the others shared with it is right when the store is opened again. */
  is_ok = is_ok && world_crash (world, CRASH_POWER, 0) && use (world) && world_verify (world);
  if (is_ok) {
    space_get_counts (world->store->space, &counts);
    is_ok = counts.withheld == 0 && world_close (world);
  }
  world_destroy (world);
  return is_ok;
}

static bool
run_repaired (struct world *base, uint64_t place, bool is_disk_node)
{
  struct world *world = world_clone (base, place);
  struct victim victim;
  bool is_ok;

  lose (world, place, &victim);
  is_ok = finds_nothing (world, true);
  if (is_ok && !is_disk_node) {
    struct disk *disk;

    /* What it has now is not judged. */
    world->disks[LOST].exists = world->disks[LOST].is_damaged = false;
    is_ok = world_open (world) && world_read_all (world, CRASH_POWER) && world_verify (world);
    disk = is_ok ? find (world, LOST) : NULL;
    is_ok = disk != NULL && !disk->is_damaged && use (world);
  }
  world_destroy (world);
  return is_ok;
}

static bool
report (const char *what, unsigned count, bool is_ok)
{
  printf ("%s %s: %u nodes\n", is_ok ? "ok" : "FAIL", what, count);
  return is_ok;
}

static bool
run_closed (void)
{
  struct world *world = make ();
  struct places places = places_of_lost (world);
  bool is_ok = world_close (world), is_restored = true, is_deleted = true, is_repaired = true;

  for (unsigned i = 0; i < places.count && is_ok; i++) {
    bool is_disk_node = i + 1 == places.count;

    is_restored &= run_restored (world, places.places[i], is_disk_node);
    is_deleted &= run_deleted (world, places.places[i], is_disk_node);
    is_repaired &= run_repaired (world, places.places[i], is_disk_node);
  }
  world_destroy (world);
  return report ("read again", places.count, is_ok && is_restored)
         & report ("deleted", places.count, is_ok && is_deleted)
         & report ("repaired", places.count, is_ok && is_repaired);
}

/* Each second block of LOST, so that there are two leaves. */
static bool
run_two_leaves (void)
{
  struct world *world = world_create (&options);
  struct places places = { .count = 0 };
  bool is_ok = world_create_disk (world, LOST, 700 * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, SHARER, 200 * BLOCK_SIZE) && world_settle (world)
               && world_create_disk (world, OTHER, 600 * BLOCK_SIZE) && world_settle (world);

  for (uint64_t i = 0; i < 300 && is_ok; i++)
    is_ok = write_blocks (world, LOST, 2 * i, 1);
  is_ok = is_ok && world_reopen (world) && world_reopen (world);
  btree_visit_places (&find (world, LOST)->map.tree, add_place, &places);
  CHECK (is_ok && places.count == 3);
  is_ok = world_close (world);
  /* The root comes first. */
  for (unsigned i = 1; i < places.count && is_ok; i++) {
    struct world *clone = world_clone (world, i);
    struct victim victim;

    lose (clone, places.places[i], &victim);
    clone->disks[LOST].is_damaged = false;
    is_ok = finds_nothing (clone, true) && world_open (clone)
            && !find (clone, LOST)->is_damaged;
    /* It is changed, and then all of it goes.  What it has now is not judged. */
    for (uint64_t block = 0; block < 700 && is_ok; block += 70)
      is_ok = write_blocks (clone, LOST, block, 9) && request (clone, LOST, REQUEST_TRIM, block, 5)
              && checkpoint (clone);
    is_ok = is_ok && use (clone) && world_delete_disk (clone, LOST) && world_settle (clone)
            && use (clone) && world_reopen (clone) && use (clone) && world_close (clone);
    world_destroy (clone);
  }
  world_destroy (world);
  return report ("a root with one child", places.count - 1, is_ok);
}

/* --- and to one that is not --- */

/* The journal has changes of OTHER, and if LOSES of LOST. */
static bool
run_cut (bool loses)
{
  struct world *world = make ();
  struct places places = places_of_lost (world);
  bool is_ok = write_blocks (world, OTHER, 0, 5) && flush (world, OTHER);

  if (loses)
    is_ok = is_ok && write_blocks (world, LOST, 7, 3) && flush (world, LOST);
  for (unsigned i = 0; i + 1 < places.count && is_ok; i++) {
    struct world *clone = world_clone (world, i + 1);
    struct victim victim;

    sim_crash (clone->image, SIM_POWER);
    lose (clone, places.places[i], &victim);
    is_ok = world_crash (clone, CRASH_POWER, i % 3) && use (clone) && world_close (clone);
    restore (clone, &victim);
    clone->disks[LOST].is_damaged = loses;
    is_ok = is_ok && world_open (clone) && use (clone) && world_close (clone);
    if (loses)
      is_ok = is_ok && finds_only (clone, "could not be read") && finds_nothing (clone, true);
    world_destroy (clone);
  }
  world_destroy (world);
  return report (loses ? "with changes in the journal" : "without changes in the journal",
                 places.count - 1, is_ok);
}

/* A killed process: what it had of LOST, flushed or not, is lost with it, and nothing of OTHER. */
static bool
run_kill (bool loses)
{
  struct world *world;
  struct places places;
  struct victim victim;
  bool is_ok;

  options.has_arena = true;
  world = make ();
  places = places_of_lost (world);
  is_ok = write_blocks (world, OTHER, 0, 5) && (!loses || write_blocks (world, LOST, 7, 3));
  lose (world, places.places[1], &victim);
  is_ok = is_ok && world_crash (world, CRASH_KILL, 0) && use (world)
          && world_crash (world, CRASH_KILL, 2) && use (world) && world_close (world);
  restore (world, &victim);
  world->disks[LOST].is_damaged = loses;
  is_ok = is_ok && world_open (world) && use (world) && world_reopen (world);
  world_destroy (world);
  options.has_arena = false;
  return report (loses ? "killed, with changes" : "killed, without changes", 1, is_ok);
}

/* The journal begins with an item of a disk that was deleted and forgotten long ago, which is no reason
 * to give the rest up when it is another one that is lost.  But where that one has been cloned since,
 * it is. */
static bool
run_forgotten (bool is_cloned)
{
  struct world *world = world_create (&options), *clone;
  struct victim victim;
  bool is_ok = true;

  for (unsigned d = 0; d < 3 && is_ok; d++)
    is_ok = world_create_disk (world, d, 100 * BLOCK_SIZE) && world_settle (world)
            && write_blocks (world, d, 0, 20);
  is_ok = is_ok && world_reopen (world) && world_delete_disk (world, SHARER)
          && world_settle (world) && checkpoint (world) && checkpoint (world);
  CHECK (is_ok && disk_find_id (world->store, 2) == NULL);
  is_ok = write_blocks (world, OTHER, 5, 3) && flush (world, OTHER);
  if (is_cloned)
    is_ok = is_ok && world_clone_range (world, LOST, 0, 9 * BLOCK_SIZE, OTHER, 50 * BLOCK_SIZE)
            && world_settle (world);
  clone = world_clone (world, 1);
  sim_crash (clone->image, SIM_POWER);
  lose (clone, find (world, LOST)->node_place, &victim);
  clone->disks[LOST].exists = clone->disks[LOST].is_damaged = false;
  clone->disks[OTHER].exists = !is_cloned;
  is_ok = is_ok && finds_nothing (clone, true) && world_open (clone)
          && world_read_all (clone, CRASH_POWER) && world_verify (clone);
  world_destroy (clone);
  world_destroy (world);
  return report (is_cloned ? "repaired, with a clone" : "repaired, with a journal of others", 1,
                 is_ok);
}

/* --- the table --- */

/* The newest superblock of a closed store, and where its first copy lies. */
static uint64_t
superblock_read (struct world *world, uint8_t *block)
{
  struct format_superblock *superblock = (struct format_superblock *) block;
  uint64_t first, second;

  sim_peek (world->image, 0, block);
  first = from_le64 (superblock->sequence);
  sim_peek (world->image, 2, block);
  second = from_le64 (superblock->sequence);
  if (first > second)
    sim_peek (world->image, 0, block);
  return first > second ? 0 : 2;
}

enum wrong { WRONG_MORE, WRONG_FEWER, WRONG_MISSING, WRONG_SHORT, WRONG_NONE, WRONGS };

/* The table's leaf at PLACE, well sealed, says something else; or the table is empty. */
static void
table_spoil (struct world *world, uint64_t place, enum wrong wrong)
{
  _Alignas (8) uint8_t super[BLOCK_SIZE], root[BLOCK_SIZE], leaf[BLOCK_SIZE];
  struct format_superblock *superblock = (struct format_superblock *) super;
  struct format_node *node = (struct format_node *) leaf;
  struct format_leaf_entry *entries = (struct format_leaf_entry *) (node + 1);
  struct format_inner_entry *children
    = (struct format_inner_entry *) (root + sizeof (struct format_node));
  uint64_t at = superblock_read (world, super), root_place = from_le64 (superblock->shared.place);

  sim_peek (world->image, place, leaf);
  sim_peek (world->image, root_place, root);
  for (unsigned i = 0; i < from_le16 (node->count); i += 7)
    if (wrong == WRONG_MORE)
      entries[i].value = to_le64 (from_le64 (entries[i].value) + 3);
    else if (wrong == WRONG_SHORT)
      entries[i].key = to_le64 (from_le64 (entries[i].key) + 1);
  if (wrong == WRONG_FEWER)
    entries[5].value = to_le64 (from_le64 (entries[5].value) - 1);
  if (wrong == WRONG_MISSING) {
    memset (&entries[from_le16 (node->count) - 9], 0, 9 * sizeof *entries);
    node->count = to_le16 (from_le16 (node->count) - 9);
  }
  node->checksum = to_le64 (format_node_checksum (leaf));
  sim_poke (world->image, place, leaf);
  sim_poke (world->image, place + META_BLOCKS / 2, leaf);
  for (unsigned i = 0; i < from_le16 (((struct format_node *) root)->count); i++)
    if (from_le64 (children[i].child.place) == place)
      children[i].child.checksum = node->checksum;
  ((struct format_node *) root)->checksum = to_le64 (format_node_checksum (root));
  sim_poke (world->image, root_place, root);
  sim_poke (world->image, root_place + META_BLOCKS / 2, root);
  superblock->shared.checksum = ((struct format_node *) root)->checksum;
  if (wrong == WRONG_NONE)
    superblock->shared = (struct format_pointer) { to_le64 (0), to_le64 (0) };
  for (unsigned copy = 0; copy < 2; copy++) {
    format_superblock_seal (superblock, at + copy);
    sim_poke (world->image, at + copy, super);
  }
}

/* It opens only if the table says too much; repaired, it has all that it had. */
static bool
table_repair (struct world *clone, bool may_open)
{
  struct world *other = world_clone (clone, 2);
  bool is_ok;

  other->may_refuse = true;
  is_ok = world_open (other) == may_open && other->is_refused != may_open;
  world_destroy (other);
  return is_ok && finds_nothing (clone, true) && world_open (clone)
         && world_read_all (clone, CRASH_POWER) && world_verify (clone) && use (clone)
         && world_reopen (clone);
}

static bool
run_table (void)
{
  struct world *world = make (), *clone;
  struct places places = { .count = 0 };
  struct victim victim;
  bool is_ok;

  btree_visit_places (space_shared_tree (world->store->space), add_place, &places);
  CHECK (places.count >= 3);
  is_ok = world_close (world);
  for (unsigned i = 0; i < places.count && is_ok; i++) {
    clone = world_clone (world, i + 1);
    lose (clone, places.places[i], &victim);
    clone->disks[LOST].is_damaged = false;
    is_ok = table_repair (clone, false);
    world_destroy (clone);
  }
  /* The root comes first. */
  for (enum wrong wrong = 0; wrong < WRONGS && is_ok; wrong++) {
    clone = world_clone (world, wrong + 1);
    table_spoil (clone, places.places[1 + wrong % 2], wrong);
    is_ok = table_repair (clone, wrong == WRONG_MORE);
    world_destroy (clone);
  }
  world_destroy (world);
  return report ("the table of shared runs", places.count, is_ok);
}

/* --- a repair that is cut off --- */

/* The power is cut with the write that takes LEFT to 0. */
struct cut {
  struct sim_image *image;
  struct random random;
  unsigned left;
  struct { uint64_t place; uint8_t before[BLOCK_SIZE]; } unflushed[64];
  unsigned count;
};

static int
cut_read (void *arg, uint64_t place, void *block)
{
  return image_read (((struct cut *) arg)->image, place, block);
}

static int
cut_flush (void *arg)
{
  ((struct cut *) arg)->count = 0;
  return 0;
}

/* Each sector that was not flushed is as it was, or not; mostly all of a block. */
static void
cut_power (struct cut *cut)
{
  while (cut->count-- > 0) {
    uint8_t block[BLOCK_SIZE];
    bool is_torn = random_chance (&cut->random, 30), is_lost = random_chance (&cut->random, 50);

    sim_peek (cut->image, cut->unflushed[cut->count].place, block);
    for (unsigned at = 0; at < BLOCK_SIZE; at += SECTOR_SIZE)
      if (is_torn ? random_chance (&cut->random, 50) : is_lost)
        memcpy (block + at, cut->unflushed[cut->count].before + at, SECTOR_SIZE);
    sim_poke (cut->image, cut->unflushed[cut->count].place, block);
  }
  cut->count = 0;
}

static int
cut_write (void *arg, uint64_t place, const void *block)
{
  struct cut *cut = arg;

  if (cut->left == 0)
    return -EIO;
  CHECK (cut->count < ARRAY_COUNT (cut->unflushed));
  cut->unflushed[cut->count].place = place;
  sim_peek (cut->image, place, cut->unflushed[cut->count++].before);
  sim_poke (cut->image, place, block);
  if (--cut->left > 0)
    return 0;
  cut_power (cut);
  return -EIO;
}

/* False: it ended before its K-th write. */
static bool
repair_until (struct world *world, unsigned k)
{
  struct cut cut = { .image = world->image, .random.state = k, .left = k };
  struct checker_reader reader = {
    .read = cut_read, .write = cut_write, .flush = cut_flush,
    .length = world->options.device_blocks_max, .is_growing = true, .arg = &cut,
  };
  FILE *out = fopen ("/dev/null", "w");

  CHECK (out != NULL);
  checker_repair_reader (&reader, out, image_agree, NULL);
  fclose (out);
  return cut.left == 0;
}

/* What is left can be used as before, and repaired as before.  LOST is not judged. */
static bool
cut_at (struct world *base, const uint64_t *places, unsigned count, unsigned k, bool *is_over)
{
  struct world *world = world_clone (base, k), *other;
  struct victim victim;
  bool is_ok;

  for (unsigned i = 0; i < count; i++)
    lose (world, places[i], &victim);
  world->disks[LOST].exists = world->disks[LOST].is_damaged = false;
  *is_over = !repair_until (world, k);
  other = world_clone (world, k);
  other->may_refuse = true;
  is_ok = world_open (other) ? world_read_all (other, CRASH_POWER) && use (other)
                             : other->is_refused && !other->is_failed;
  world_destroy (other);
  is_ok = is_ok && finds_nothing (world, true) && world_open (world)
          && world_read_all (world, CRASH_POWER) && world_verify (world) && use (world);
  world_destroy (world);
  return is_ok;
}

/* One node of LOST and one of the table at a time, so that maps, table and superblock change. */
static bool
run_cut_repair (void)
{
  struct world *world = make ();
  struct places places = places_of_lost (world), table = { .count = 0 };
  unsigned cuts = 0;
  bool is_ok;

  btree_visit_places (space_shared_tree (world->store->space), add_place, &table);
  is_ok = world_close (world);
  for (unsigned i = 0; i < places.count && is_ok; i++) {
    uint64_t both[2] = { places.places[i], table.places[i % table.count] };
    bool is_over = false;

    for (unsigned k = 1; is_ok && !is_over; k++, cuts++)
      is_ok = cut_at (world, both, 1 + i % 2, k, &is_over);
  }
  world_destroy (world);
  printf ("%s a repair that was cut off, %u times\n", is_ok ? "ok" : "FAIL", cuts);
  return is_ok;
}

int
main (int argc, char **argv)
{
  options.is_traced = argc > 1 && strcmp (argv[1], "--trace") == 0;
  setvbuf (stdout, NULL, _IOLBF, 0);
  if (!options.is_traced)
    world_log_nothing ();
  world_handle_signals ();
  return run_closed () & run_cut (false) & run_cut (true) & run_kill (false) & run_kill (true)
             & run_two_leaves () & run_forgotten (false) & run_forgotten (true) & run_table ()
             & run_cut_repair ()
           ? 0 : 1;
}
