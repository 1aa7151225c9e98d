/* SPDX-License-Identifier: BSD-2-Clause */
/* recovery-damaged.c - disks of which a node cannot be read, neither copy of it.
 *
 * Such a disk is *damaged*: it cannot be used, only deleted.  All others can.  What it maps is not
 * known as a whole, so it counts as unknown altogether; and as what cannot be read today may be
 * readable tomorrow, nothing of it is overwritten:
 *
 *   its disk node, and the root that this has, stay as they are
 *   places where its map has, or may have, nodes are in use
 *   data blocks that nobody is known to own are withheld, as far as those of the disk can reach
 *   owners that the table of shared runs has and nobody is known to be, remain in it
 *
 * When the journal has changes of the disk, its map would never be right again: they are about to
 * be given up.  That is marked in the disk node first, in place, one copy after the other; from
 * then on the disk is *stale*, and stays damaged whatever can be read.  Not where the device has
 * reported errors, which may be over soon: then the store is refused.
 *
 * A deleted disk is nobody's: what cannot be read of its map is free.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "store/store-internal.h"

/* Blocks that are read at once when all nodes are looked at. */
#define SCAN_BLOCKS 256

void
recovery_set_damaged (struct disk *disk, char *why)
{
  if (disk->is_dying) {
    log_warning ("%s: %s; the disk is deleted, and what it held is free", disk->store->path, why);
    /* The next checkpoint writes its node with an empty map. */
    atomic_store (&disk->is_changed, true);
  }
  else {
    log_error ("%s: %s; the disk cannot be used before that is repaired, the others can",
               disk->store->path, why);
    disk->is_damaged = disk->store->has_damaged = true;
  }
  free (why);
}

void
recovery_forget_map (struct disk *disk)
{
  btree_clear (&disk->map.tree);
  disk->map.mapped = 0;
  disk->is_damaged = disk->store->has_damaged = true;
}

/* --- nodes --- */

struct damaged_walk {
  struct store *store;
  struct queue *queue;
  uint64_t owner;
  uint8_t *images;                  /* one per level, or SCAN_BLOCKS */
  bool is_partial;                  /* there are nodes that nothing readable leads to */
};

static uint64_t
mirror_of (const struct store *store, uint64_t place)
{
  return place ^ (from_le64 (store->superblock.meta_blocks) / 2);
}

/* CHECKSUM 0: any. */
static bool
node_is_valid (const struct store *store, const void *image, uint64_t owner, uint64_t place,
               uint64_t checksum)
{
  return format_node_check (image, 0, store->identity.uuid, owner, place, checksum) == NULL;
}

static bool
node_read (struct store *store, struct queue *queue, uint64_t owner, uint64_t place,
           uint64_t checksum, void *image)
{
  return (device_do (queue, IO_READ, place, image, 1) == 0
          && node_is_valid (store, image, owner, place, checksum))
         || (device_do (queue, IO_READ, mirror_of (store, place), image, 1) == 0
             && node_is_valid (store, image, owner, place, checksum));
}

/* The part of a map that can be read, from a node of LEVEL (< 0: a root, of any) down. */
static void
damaged_walk (struct damaged_walk *walk, const struct format_pointer *pointer, int level)
{
  uint64_t place = from_le64 (pointer->place), checksum = from_le64 (pointer->checksum);
  const uint8_t *image;
  const struct format_node *node;
  const struct format_inner_entry *entries;

  /* A place that has an owner already is not gone into. */
  if (place == 0 || !space_mark_node (walk->store->space, place) || level == 0)
    return;
  image = walk->images + (level < 0 ? BTREE_DEPTH_MAX - 1 : level) * BLOCK_SIZE;
  node = (const struct format_node *) image;
  entries = (const struct format_inner_entry *) (node + 1);
  if (!node_read (walk->store, walk->queue, walk->owner, place, checksum, (void *) image)
      || (level >= 0 ? from_le16 (node->level) != level
                     : from_le16 (node->level) >= BTREE_DEPTH_MAX)
      || from_le16 (node->count) > INNER_ENTRIES) {
    /* A root that is a leaf leads to nothing, but who knows. */
    walk->is_partial = true;
    return;
  }
  level = from_le16 (node->level);
  for (unsigned i = 0; level > 0 && i < from_le16 (node->count); i++)
    damaged_walk (walk, &entries[i].child, level - 1);
}

/* Whether what was read at PLACE, or its copy, is a node of a damaged disk. */
static bool
is_of_damaged (struct store *store, const uint8_t *image, uint64_t place)
{
  uint64_t owner = from_le64 (((const struct format_node *) image)->owner);
  const struct disk *disk
    = owner != 0 && node_is_valid (store, image, owner, place, 0) ? disk_find_id (store, owner)
                                                                  : NULL;

  return disk != NULL && disk->is_damaged;
}

/* One copy of COUNT places: where it may be a node of a damaged disk, the place is in use. */
static void
damaged_scan_run (struct damaged_walk *walk, uint64_t place, uint64_t count, bool is_second)
{
  struct store *store = walk->store;
  uint64_t from = is_second ? mirror_of (store, place) : place;
  bool is_read = device_do (walk->queue, IO_READ, from, walk->images, count) == 0;

  for (uint64_t i = 0; i < count; i++) {
    uint8_t *image = walk->images + i * BLOCK_SIZE;

    if ((!is_read && device_do (walk->queue, IO_READ, from + i, image, 1) != 0)
        || is_of_damaged (store, image, place + i))
      space_mark_node (store->space, place + i);
  }
}

/* All places of nodes that the store has, as far as it has ever reached. */
static void
damaged_scan (struct damaged_walk *walk)
{
  struct store *store = walk->store;
  uint64_t group = from_le64 (store->superblock.group_blocks);
  uint64_t half = from_le64 (store->superblock.meta_blocks) / 2;

  for (uint64_t base = 0; base < store->length; base += group)
    for (uint64_t at = 0; at < half && base + half + at < store->length; at += SCAN_BLOCKS) {
      uint64_t count = MIN (MIN (SCAN_BLOCKS, half - at), store->length - (base + half + at));

      damaged_scan_run (walk, base + at, count, false);
      damaged_scan_run (walk, base + at, count, true);
    }
}

int
recovery_mark_damaged_nodes (struct store *store, struct queue *queue, char **error)
{
  struct damaged_walk walk = { .store = store, .queue = queue };

  if (!store->has_damaged)
    return 0;
  walk.images = aligned_alloc (BLOCK_SIZE, SCAN_BLOCKS * BLOCK_SIZE);
  if (walk.images == NULL)
    return error_set (error, -ENOMEM, "there is not enough memory");
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (!disk->is_damaged)
      continue;
    walk.owner = disk->id;
    damaged_walk (&walk, &disk->lost_map, -1);
    walk.is_partial |= disk->has_lost_node;
  }
  if (walk.is_partial)
    damaged_scan (&walk);
  free (walk.images);
  return 0;
}

/* --- data --- */

bool
recovery_withhold (struct store *store)
{
  uint64_t known = 0, end = 0;
  bool is_unknown = false;

  if (!store->has_damaged)
    return true;
  list_for_each (link, &store->disks) {
    const struct disk *disk = container_of (link, struct disk, link);

    known = MAX (known, disk->lost_end);
    if (!disk->is_damaged)
      continue;
    is_unknown |= disk->lost_end == 0;
    end = MAX (end, disk->lost_end);
  }
  if (is_unknown)
    end = MAX (known, store->length);
  return space_withhold (store->space, end);
}

/* --- what is given up --- */

/* A disk without a name that could be said gets one that nobody has. */
static void
damaged_name (struct store *store, struct disk *disk)
{
  char name[DISK_NAME_MAX + 1];
  int length = snprintf (name, sizeof name, "damaged-%" PRIu64, disk->id);

  while (disk_find (store, name) != NULL)
    length += snprintf (name + length, sizeof name - length, "x");
  memcpy (disk->name, name, sizeof name);
  log_error ("%s: disk number %" PRIu64 ", of which the name is lost, is called %s", store->path,
             disk->id, name);
}

/* Data that the journal or the arena has for a damaged disk has no place to go to. */
static void
damaged_note_data (struct replay *replay)
{
  struct store *store = replay->store;
  uint64_t frames = store->arena != NULL ? store->arena->frame_count : 0;

  for (size_t i = 0; i < replay->data.count; i++) {
    struct disk *disk = disk_find_id (store, replay->data.blocks[i].disk);

    if (disk != NULL)
      disk->is_given_up |= disk->is_damaged;
  }
  for (uint64_t i = 0; i < frames; i++) {
    uint64_t id = atomic_load (&store->arena->frames[i].disk);
    struct disk *disk = id != 0 ? disk_find_id (store, id) : NULL;

    if (disk != NULL)
      disk->is_given_up |= disk->is_damaged;
  }
}

int
recovery_judge_damaged (struct replay *replay)
{
  struct store *store = replay->store;

  if (!store->has_damaged)
    return 0;
  damaged_note_data (replay);
  store->has_damaged = false;
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (!disk->is_damaged)
      continue;
    store->has_damaged = true;
    if (disk->is_given_up && disk->is_unreadable)
      return error_set (replay->error, -EIO, "the map of disk %s cannot be read now, and the"
                        " journal has changes of it; lacuna check tells more", disk->name);
    if (disk->is_given_up && (disk->has_lost_node || disk->node_place == 0))
      return error_set (replay->error, -EUCLEAN, "damaged: the journal has changes of disk number"
                        " %" PRIu64 ", but no node of it can be read; lacuna check tells more",
                        disk->id);
    if (disk->has_lost_node)
      damaged_name (store, disk);
  }
  return 0;
}

/* Both copies of the disk's node, one durable before the other is touched. */
static int
damaged_mark_stale (struct replay *replay, struct disk *disk, uint8_t *image)
{
  struct store *store = replay->store;
  struct format_disk *node = (struct format_disk *) image;
  struct format_node_identity identity;
  int result = 0;

  if (!node_read (store, replay->queue, disk->id, disk->node_place, 0, image))
    return error_set (replay->error, -EIO, "the node of disk %s cannot be read any more",
                      disk->name);
  identity = store_identity (store, KIND_DISK, 0, disk->id, from_le64 (node->header.sequence));
  node->flags = to_le64 (from_le64 (node->flags) | DISK_IS_STALE);
  format_node_seal (image, KIND_DISK, 0, 1, &identity, disk->node_place);
  for (unsigned copy = 0; copy < 2 && result == 0; copy++) {
    uint64_t place = copy == 0 ? disk->node_place : mirror_of (store, disk->node_place);

    result = device_do (replay->queue, IO_WRITE, place, image, 1);
    if (result == 0)
      result = device_do (replay->queue, IO_FLUSH, 0, NULL, 0);
  }
  if (result != 0)
    return error_set (replay->error, result, "the node of disk %s could not be written: %s",
                      disk->name, strerror (-result));
  disk->is_stale = true;
  log_error ("%s: %s: what the journal had of this disk, and what was not durable yet, is lost",
             store->path, disk->name);
  return 0;
}

int
recovery_give_up (struct replay *replay)
{
  struct store *store = replay->store;
  uint8_t *image;
  int result = 0;

  if (!store->has_damaged)
    return 0;
  image = aligned_alloc (BLOCK_SIZE, BLOCK_SIZE);
  if (image == NULL)
    return error_set (replay->error, -ENOMEM, "there is not enough memory");
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (result == 0 && disk->is_damaged && disk->is_given_up && !disk->is_stale)
      result = damaged_mark_stale (replay, disk, image);
  }
  free (image);
  return result;
}
