/* SPDX-License-Identifier: BSD-2-Clause */
/* disk.c - the table of disks: lookup, references, facts.  Changes to it are op-admin.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"

struct disk *
disk_create (struct store *store, uint64_t id, const uint8_t uuid[16], const char *name,
             uint64_t size, uint64_t created)
{
  struct disk *disk = calloc (1, sizeof *disk);

  if (disk == NULL)
    return NULL;
  disk->store = store;
  disk->id = id;
  memcpy (disk->uuid, uuid, 16);
  disk->created = created;
  snprintf (disk->name, sizeof disk->name, "%s", name);
  atomic_init (&disk->size, size);
  atomic_init (&disk->is_changed, true);
  cache_disk_init (&disk->cache, id);
  extent_map_init (&disk->map, store->pool);
  range_lock_init (&disk->range_lock);
  list_init (&disk->link);
  list_init (&disk->frozen_link);
  atomic_fetch_add (&store->disk_count, 1);
  return disk;
}

void
disk_destroy (struct disk *disk)
{
  CHECK (list_is_empty (&disk->link));
  atomic_fetch_sub (&disk->store->disk_count, 1);
  range_lock_destroy (&disk->range_lock);
  extent_map_destroy (&disk->map);
  cache_disk_destroy (&disk->cache);
  free (disk);
}

struct disk *
disk_find (struct store *store, const char *name)
{
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (!disk->is_dying && strcmp (disk->name, name) == 0)
      return disk;
  }
  return NULL;
}

/* The first of the disks of a store that is being opened whose id is not less. */
static size_t
disk_opening_at (const struct store *store, uint64_t id)
{
  size_t low = 0, high = store->opening_count;

  while (low < high) {
    size_t middle = low + (high - low) / 2;

    if (store->opening[middle]->id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

bool
disk_add_opening (struct disk *disk)
{
  struct store *store = disk->store;
  size_t at = disk_opening_at (store, disk->id);

  if (store->opening_count == store->opening_max) {
    size_t max = MAX (64, 2 * store->opening_max);
    struct disk **opening = reallocarray (store->opening, max, sizeof *opening);

    if (opening == NULL)
      return false;
    store->opening = opening;
    store->opening_max = max;
  }
  memmove (&store->opening[at + 1], &store->opening[at],
           (store->opening_count++ - at) * sizeof *store->opening);
  store->opening[at] = disk;
  list_append (&store->disks, &disk->link);
  return true;
}

void
disk_end_opening (struct store *store)
{
  free (store->opening);
  store->opening = NULL;
  store->opening_count = store->opening_max = 0;
}

struct disk *
disk_find_id (struct store *store, uint64_t id)
{
  if (store->opening != NULL) {
    size_t at = disk_opening_at (store, id);

    return at < store->opening_count && store->opening[at]->id == id ? store->opening[at] : NULL;
  }
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (disk->id == id)
      return disk;
  }
  return NULL;
}

struct disk *
disk_open (struct store *store, const char *name)
{
  struct disk *disk;

  pthread_mutex_lock (&store->disks_mutex);
  disk = disk_find (store, name);
  if (disk != NULL)
    atomic_fetch_add (&disk->references, 1);
  pthread_mutex_unlock (&store->disks_mutex);
  return disk;
}

void
disk_close (struct disk *disk)
{
  unsigned before = atomic_fetch_sub (&disk->references, 1);

  CHECK (before >= 1);
}

bool
disk_is_damaged (const struct disk *disk)
{
  return disk->is_damaged;
}

uint64_t
disk_size (const struct disk *disk)
{
  return atomic_load_explicit (&disk->size, memory_order_acquire);
}

uint64_t
disk_blocks (const struct disk *disk)
{
  return disk_size (disk) / BLOCK_SIZE;
}

uint64_t
disk_hold_size (struct disk *disk)
{
  uint64_t size;

  pthread_mutex_lock (&disk->store->disks_mutex);
  disk->size_holds++;
  size = disk_size (disk);
  /* A shrink that was let through a moment ago: it will have this size. */
  if (disk->shrinks_to != 0)
    size = MIN (size, disk->shrinks_to);
  pthread_mutex_unlock (&disk->store->disks_mutex);
  return size;
}

void
disk_release_size (struct disk *disk)
{
  pthread_mutex_lock (&disk->store->disks_mutex);
  CHECK (disk->size_holds > 0);
  disk->size_holds--;
  pthread_mutex_unlock (&disk->store->disks_mutex);
}

/* The caller holds disks_mutex, for the name. */
static void
disk_fill_info (struct disk *disk, struct disk_info *info)
{
  memset (info, 0, sizeof *info);
  snprintf (info->name, sizeof info->name, "%s", disk->name);
  memcpy (info->uuid, disk->uuid, 16);
  info->id = disk->id;
  info->size = disk_size (disk);
  info->mapped
    = (disk->is_damaged ? disk->lost_mapped : extent_map_mapped (&disk->map)) * BLOCK_SIZE;
  info->unmapped_dirty = atomic_load (&disk->cache.unmapped_count) * BLOCK_SIZE;
  info->extents = extent_map_extents (&disk->map);
  info->created = disk->created;
  info->open_count = atomic_load (&disk->references);
  info->is_damaged = disk->is_damaged;
}

void
disk_get_info (struct disk *disk, struct disk_info *info)
{
  pthread_mutex_lock (&disk->store->disks_mutex);
  disk_fill_info (disk, info);
  pthread_mutex_unlock (&disk->store->disks_mutex);
}

size_t
store_list_disks (struct store *store, struct disk_info *infos, size_t max)
{
  size_t count = 0;

  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    if (disk->is_dying)
      continue;
    if (count < max)
      disk_fill_info (disk, &infos[count]);
    count++;
  }
  pthread_mutex_unlock (&store->disks_mutex);
  return count;
}

void
disk_note_position (struct disk *disk, uint64_t position)
{
  uint64_t before = atomic_load (&disk->last_position);

  while (before < position
         && !atomic_compare_exchange_weak (&disk->last_position, &before, position))
    continue;
  atomic_store (&disk->is_changed, true);
}

int
disk_reserve_changes (struct disk *disk, unsigned changes, uint64_t runs)
{
  return btree_pool_ensure_nodes (disk->store->pool,
                                  extent_map_change_nodes (changes)
                                    + space_change_nodes (disk->store->space, runs, false));
}

int
disk_reserve_many (struct disk *disk, uint64_t extents, uint64_t runs, bool is_sharing)
{
  return btree_pool_ensure_nodes (disk->store->pool,
                                  extent_map_row_nodes (extents)
                                    + space_change_nodes (disk->store->space, runs, is_sharing));
}

void
disk_space_free (void *store, uint64_t place, uint64_t length)
{
  space_free (((struct store *) store)->space, place, length);
}
