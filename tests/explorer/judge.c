/* SPDX-License-Identifier: BSD-2-Clause */
/* judge.c - what must be true of each io, after a crash at any step, and in the end; see
 * explorer.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "explorer.h"

/* So many outcomes are tried where the device has something that is not durable yet. */
#define CUTS_OF_STATE 4

/* --- who owns the blocks that I/O goes to --- */

#define TRACKED_MAX 256

struct owner {
  uint64_t number;              /* of the io */
  uint64_t place, disk, block;  /* disk 0: nobody */
};
static struct owner tracked[TRACKED_MAX];
static unsigned tracked_count;

static void
find_owner (struct store *store, uint64_t place, uint64_t *owner, uint64_t *block)
{
  *owner = *block = 0;
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);
    uint64_t blocks = disk_blocks (disk);

    for (uint64_t at = 0; at < blocks;) {
      struct extent extent;

      extent_map_lookup (&disk->map, at, blocks - at, &extent);
      if (extent.state != EXTENT_HOLE && place >= extent.place
          && place < extent.place + extent.length) {
        *owner = disk->id;
        *block = extent.block + (place - extent.place);
        return;
      }
      at += extent.length;
    }
  }
}

static bool
is_data (struct world *world, const struct io *io)
{
  const struct format_superblock *superblock = &world->store->superblock;
  uint64_t first_data
    = from_le64 (superblock->journal_place) + 2 * from_le64 (superblock->journal_half_blocks);

  return io->kind != IO_FLUSH && io->place >= first_data
         && io->place % from_le64 (superblock->group_blocks) >= from_le64 (superblock->meta_blocks);
}

/* Data blocks must belong to whom they belong to from submission to completion; what is new belongs
 * to nobody. */
void
judge_io (void *arg, const struct io *io, bool is_completion)
{
  struct world *world = arg;

  if (!is_data (world, io))
    return;
  for (uint64_t i = 0; i < io->length; i++) {
    struct owner now = { .number = io->number, .place = io->place + i };
    unsigned at = 0;

    find_owner (world->store, now.place, &now.disk, &now.block);
    if (io->kind == IO_DISCARD && now.disk != 0)
      world_fail (world, "block %" PRIu64 " is passed down while disk %" PRIu64 " has it",
                  now.place, now.disk);
    if (!is_completion) {
      CHECK (tracked_count < TRACKED_MAX);
      tracked[tracked_count++] = now;
      continue;
    }
    while (at < tracked_count
           && (tracked[at].number != now.number || tracked[at].place != now.place))
      at++;
    if (at == tracked_count)
      continue;
    if (tracked[at].disk != now.disk || tracked[at].block != now.block)
      world_fail (world, "%s of block %" PRIu64 " began when it was disk %" PRIu64 "'s block"
                  " %" PRIu64 " and ended when it was disk %" PRIu64 "'s block %" PRIu64,
                  io->kind == IO_READ ? "a read" : "a write", now.place, tracked[at].disk,
                  tracked[at].block, now.disk, now.block);
    tracked[at] = tracked[--tracked_count];
  }
}

void
judge_begin (void)
{
  tracked_count = 0;
}

uint64_t
judge_token (void)
{
  uint64_t sum = tracked_count;

  for (unsigned i = 0; i < tracked_count; i++) {
    uint64_t words[] = { tracked[i].place, tracked[i].disk, tracked[i].block };

    sum += checksum (words, sizeof words, 3);
  }
  return sum;
}

/* --- crashes --- */

static struct seen_set cut_states, killed_states;

/* Without its arena, for as long as the power is off: the superblock tells where it is. */
static void
hide_arena (const struct world *world, char *hidden, size_t length)
{
  snprintf (hidden, length, "%s-hidden", world->arena_path);
  if (world->options.has_arena)
    CHECK (rename (world->arena_path, hidden) == 0);
}

static void
restore_arena (const struct world *world, const char *hidden)
{
  if (world->options.has_arena)
    CHECK (rename (hidden, world->arena_path) == 0);
}

/* Cuts the power of a clone and looks at what is there after recovery. */
static void
cut_power_once (struct world *world, uint64_t seed, struct exploration *result)
{
  struct world *clone = world_clone (world, seed);
  char hidden[sizeof world->arena_path + 8];

  result->cuts++;
  hide_arena (world, hidden, sizeof hidden);
  if (!world_crash (clone, CRASH_POWER, 0) || !world_verify (clone)) {
    printf ("  (after a power cut, image seed %" PRIu64 ")\n", seed);
    world->is_failed = true;
  }
  restore_arena (world, hidden);
  world_destroy (clone);
}

/* In each state of image and model once, for nothing else outlives it; some times where it is open
 * what the device has kept. */
static void
cut_power (struct world *world, struct exploration *result)
{
  uint64_t hash = world_hash (world) | 1;
  unsigned count = sim_image_is_durable (world->image) ? 1 : CUTS_OF_STATE;
  bool is_new;

  seen_find (&cut_states, hash, &is_new);
  for (unsigned i = 0; is_new && i < count && !world->is_failed; i++)
    cut_power_once (world, hash + i, result);
}

/* The arena as it is now, in the place of the one that is hidden. */
static void
copy_arena (const struct world *world)
{
  const struct arena *arena = world->store->arena;
  int fd = open (world->arena_path, O_RDWR | O_CREAT | O_EXCL, 0600);

  CHECK (fd >= 0);
  CHECK (write (fd, arena->header, arena->length) == (ssize_t) arena->length);
  close (fd);
}

/* Kills the process that a clone is in: the arena outlives it. */
static void
kill_once (struct world *world, uint64_t seed, struct exploration *result)
{
  struct world *clone = world_clone (world, seed);
  char hidden[sizeof world->arena_path + 8];

  result->cuts++;
  hide_arena (world, hidden, sizeof hidden);
  copy_arena (world);
  clone->options.has_arena = true;
  memcpy (clone->arena_path, world->arena_path, sizeof clone->arena_path);
  if (!world_crash (clone, CRASH_KILL, 0) || !world_verify (clone)) {
    printf ("  (after a kill, image seed %" PRIu64 ")\n", seed);
    world->is_failed = true;
  }
  clone->options.has_arena = false;
  world_destroy (clone);
  unlink (world->arena_path);
  restore_arena (world, hidden);
}

void
judge_cuts (struct world *world, unsigned cuts, struct exploration *result)
{
  bool is_new;

  if (cuts & CUT_POWER)
    cut_power (world, result);
  if (!(cuts & CUT_KILL) || world->is_failed)
    return;
  seen_find (&killed_states, explorer_state (world), &is_new);
  if (is_new)
    kill_once (world, killed_states.count, result);
}

/* --- the end --- */

/* What a frame must hold by the map: what lies at the block's place, or zeros. */
static void
check_clean (struct world *world, struct frame *frame, const struct extent *extent)
{
  uint8_t expected[BLOCK_SIZE] = { 0 };

  if (extent->state == EXTENT_WRITTEN)
    sim_peek (world->image, extent->place, expected);
  if (memcmp (frame->data, expected, BLOCK_SIZE) != 0)
    world_fail (world, "the clean frame of block %" PRIu64 " is not what the map leads to",
                atomic_load (&frame->block));
}

/* Every cached block of DISK: clean ones are what the map leads to, dirty ones have their space. */
static void
check_frames (struct world *world, struct disk *disk)
{
  for (uint64_t block = 0; block < disk_blocks (disk); block++) {
    struct frame *frame = cache_peek (world->store->cache, disk->id, block);
    struct extent extent;

    if (frame == NULL)
      continue;
    extent_map_lookup (&disk->map, block, 1, &extent);
    if (atomic_load (&frame->state) == FRAME_CLEAN)
      check_clean (world, frame, &extent);
    else if (extent.state == EXTENT_HOLE && !(atomic_load (&frame->flags) & FRAME_HAS_TOKEN))
      world_fail (world, "the dirty block %" PRIu64 " has no space", block);
    cache_put (world->store->cache, frame);
  }
}

static bool
check_cache (struct world *world)
{
  list_for_each (link, &world->store->disks)
    check_frames (world, container_of (link, struct disk, link));
  return !world->is_failed;
}

/* Nothing runs but what the judge wants to know. */
static bool
read_all (struct world *world)
{
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    if (world->disks[d].exists)
      world_request (world, 0, d, REQUEST_READ, 0, 0, world->disks[d].size);
  return world_settle (world);
}

static bool
flush_all (struct world *world)
{
  for (unsigned d = 0; d < WORLD_DISKS; d++)
    if (world->disks[d].exists)
      world_request (world, 0, d, REQUEST_FLUSH, 0, 0, 0);
  return world_settle (world);
}

uint64_t
judge_end (struct world *world, struct exploration *result)
{
  uint64_t words[] = { world->replies, 0 };

  if (!world_settle (world) || !world_verify (world) || !check_cache (world) || !read_all (world)
      || !flush_all (world) || !world_verify (world))
    return 0;
  words[1] = sim_image_hash (world->image);
  cut_power (world, result);
  return checksum (words, sizeof words, 4) | 1;
}

void
judge_forget (void)
{
  seen_clear (&cut_states);
  seen_clear (&killed_states);
}
