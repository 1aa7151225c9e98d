/* SPDX-License-Identifier: BSD-2-Clause */
/* store.c - opening, closing and describing a store; see store.h. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "store/store-internal.h"

/* --- modes and small services --- */

bool
store_is_failed (struct store *store)
{
  return atomic_load_explicit (&store->mode, memory_order_acquire) == STORE_FAILED;
}

void
store_fail (struct store *store, const char *what, int error)
{
  struct list wake = LIST_INIT (wake);

  if (atomic_exchange (&store->mode, STORE_FAILED) == STORE_FAILED)
    return;
  log_error ("%s: %s failed: %s; no change is accepted any more, and nothing is acknowledged as"
             " durable, until the store is opened again",
             store->path, what, strerror (-error));
  /* What nobody will make room for any more is not waited for. */
  if (store->cache != NULL) {
    cache_refuse_dirty (store->cache, true, &wake);
    journal_close (&store->journal, &wake);
    op_wake_all (&wake);
  }
  commit_half_freed (store);
  keeper_kick (store);
}

int
store_grow (struct store *store, uint64_t end)
{
  int error = 0;

  pthread_mutex_lock (&store->grow_mutex);
  if (end > store->length) {
    /* In steps, so that not every write-back changes the file's length. */
    uint64_t length = MIN (align_up (end, STORE_GROW_BLOCKS), store->device_info.length_max);

    error = length < end ? -ENOSPC : device_grow (store->device, length);
    if (error == 0)
      store->length = length;
  }
  pthread_mutex_unlock (&store->grow_mutex);
  return error;
}

struct format_node_identity
store_identity (struct store *store, uint32_t leaf_kind, uint32_t inner_kind, uint64_t owner,
                uint64_t sequence)
{
  struct format_node_identity identity = store->identity;

  identity.leaf_kind = leaf_kind;
  identity.inner_kind = inner_kind;
  identity.owner = owner;
  identity.sequence = sequence;
  return identity;
}

bool
store_arena_path_wanted (struct store *store, const struct store_options *options, char *path)
{
  const uint8_t *uuid = store->superblock.uuid;
  int at = 0;

  if (options->arena_path != NULL) {
    if (options->arena_path[0] != '/') {
      if (getcwd (path, ARENA_PATH_MAX - 1) == NULL)
        return false;
      at = strlen (path);
      path[at++] = '/';
    }
    return snprintf (path + at, ARENA_PATH_MAX - at, "%s", options->arena_path)
           < ARENA_PATH_MAX - at;
  }
  at = snprintf (path, ARENA_PATH_MAX, "/dev/shm/lacuna-");
  for (unsigned i = 0; i < 16; i++)
    at += snprintf (path + at, ARENA_PATH_MAX - at, "%02x", uuid[i]);
  snprintf (path + at, ARENA_PATH_MAX - at, ".arena");
  return true;
}

/* --- contexts --- */

struct context *
store_context_create (struct store *store)
{
  struct context *context = context_create (store->device);

  if (context == NULL)
    return NULL;
  cache_lend (store->cache, &context->credit);
  pthread_mutex_lock (&store->contexts_mutex);
  list_append (&store->contexts, &context->link);
  pthread_mutex_unlock (&store->contexts_mutex);
  return context;
}

void
store_context_destroy (struct store *store, struct context *context)
{
  context_drain (context);
  pthread_mutex_lock (&store->contexts_mutex);
  list_remove (&context->link);
  for (unsigned i = 0; i < COUNTER_COUNT; i++)
    store->counters[i] += atomic_load_explicit (&context->counters[i], memory_order_relaxed);
  pthread_mutex_unlock (&store->contexts_mutex);
  context_destroy (context);
}

struct context *
store_keeper_context (struct store *store)
{
  return store->keeper.context;
}

/* --- opening and closing --- */

static struct store *
store_allocate (const char *path)
{
  struct store *store = calloc (1, sizeof *store);

  if (store == NULL)
    return NULL;
  store->path = strdup (path);
  store->pool = btree_pool_create ();
  if (store->path == NULL || store->pool == NULL) {
    free (store->path);
    if (store->pool != NULL)
      btree_pool_destroy (store->pool);
    free (store);
    return NULL;
  }
  btree_init (&store->catalogue, store->pool);
  pthread_rwlock_init (&store->gate, NULL);
  op_lock_init (&store->admin_lock, WAITS_FOR_ADMIN_LOCK, HOLDS_ADMIN_LOCK);
  op_lock_init (&store->maps_lock, WAITS_FOR_MAPS_LOCK, HOLDS_MAPS_LOCK);
  pthread_mutex_init (&store->disks_mutex, NULL);
  list_init (&store->disks);
  pthread_mutex_init (&store->fills_mutex, NULL);
  list_init (&store->fills);
  pthread_mutex_init (&store->grow_mutex, NULL);
  pthread_mutex_init (&store->contexts_mutex, NULL);
  list_init (&store->contexts);
  return store;
}

/* Frees all that an open (or half open) store holds in memory; the device is closed
 * last, which gives up the lock. */
static void
store_free (struct store *store, bool removes_arena)
{
  bool is_abandoned = store->is_abandoned;
  struct list *link;

  keeper_destroy (store);
  commit_destroy (store);
  if (store->arena != NULL && !is_abandoned)
    journal_destroy (&store->journal);
  while ((link = list_take (&store->disks)) != NULL) {
    struct disk *disk = container_of (link, struct disk, link);

    if (is_abandoned)
      free (disk);
    else {
      struct cache_dropped dropped = { 0 };
      struct list wake = LIST_INIT (wake);

      if (store->cache != NULL)
        cache_drop (store->cache, &disk->cache, 0, UINT64_MAX, &dropped, &wake);
      disk_destroy (disk);
    }
  }
  if (!is_abandoned)
    btree_clear (&store->catalogue);
  if (store->cache != NULL)
    cache_destroy (store->cache, is_abandoned);
  if (store->arena != NULL)
    arena_close (store->arena, removes_arena);
  if (store->space != NULL)
    space_destroy (store->space);
  btree_pool_destroy (store->pool);
  while ((link = list_take (&store->fills)) != NULL)
    free (container_of (link, struct fill, link));
  pthread_rwlock_destroy (&store->gate);
  pthread_mutex_destroy (&store->admin_lock.mutex);
  pthread_mutex_destroy (&store->maps_lock.mutex);
  pthread_mutex_destroy (&store->disks_mutex);
  pthread_mutex_destroy (&store->fills_mutex);
  pthread_mutex_destroy (&store->grow_mutex);
  pthread_mutex_destroy (&store->contexts_mutex);
  device_close (store->device);
  free (store->path);
  free (store);
}

static int
store_open_device (const struct store_options *options, struct device **device, char **error)
{
  int result;

  if (options->device != NULL) {
    *device = options->device;
    return 0;
  }
  result = device_open (options->path, options->is_read_only ? DEVICE_READ_ONLY : 0,
                        options->lock_wait_ms, device);
  if (result == -EWOULDBLOCK)
    return error_set (error, -EBUSY, "another process has it open, or one that was killed has I/O"
                      " under way in the kernel");
  if (result == -EINVAL)
    return error_set (error, -EINVAL, "it is neither a regular file nor a block device");
  if (result != 0)
    return error_set (error, result, "%s", strerror (-result));
  return 0;
}

/* A taken-over arena of other size or place than OPTIONS want. */
static bool
store_wants_other_arena (struct store *store, const struct store_options *options)
{
  uint64_t cache = options->cache_bytes != 0 ? options->cache_bytes : STORE_CACHE_DEFAULT;
  char path[ARENA_PATH_MAX];

  if (store->arena->path == NULL)
    return false;
  if (options->arena_path != NULL && strcmp (options->arena_path, "off") == 0)
    return true;
  return store->arena->frame_count != MAX (cache / BLOCK_SIZE, 64)
         || !store_arena_path_wanted (store, options, path)
         || strcmp (path, store->arena->path) != 0;
}

/* The device, locked, and around it a store that nothing is known of yet. */
static int
store_begin (const struct store_options *options, struct store **result, char **error)
{
  struct store *store;
  struct device *device;
  int code = store_open_device (options, &device, error);

  if (code != 0)
    return code;
  store = store_allocate (options->path != NULL ? options->path : "store");
  if (store == NULL) {
    device_close (device);
    return error_set (error, -ENOMEM, "there is not enough memory");
  }
  store->device = device;
  device_get_info (device, &store->device_info);
  store->length = store->device_info.length;
  store->is_read_only = options->is_read_only;
  atomic_store (&store->mode, options->is_read_only ? STORE_READ_ONLY : STORE_OK);
  *result = store;
  return 0;
}

int
store_look (const struct store_options *options, struct disk_info **disks, size_t *count,
            char **error)
{
  struct store *store;
  int code = store_begin (options, &store, error);

  if (code != 0)
    return code;
  code = recovery_look (store, options, error);
  if (code == 0) {
    *count = store_list_disks (store, NULL, 0);
    *disks = calloc (*count + 1, sizeof **disks);
    if (*disks != NULL)
      store_list_disks (store, *disks, *count);
    else
      code = error_set (error, -ENOMEM, "there is not enough memory");
  }
  store->is_abandoned = true;
  store_free (store, false);
  return code;
}

static int
store_open_once (const struct store_options *options, struct store **result, char **error)
{
  struct store *store;
  int code = store_begin (options, &store, error);

  if (code != 0)
    return code;
  code = recovery_open (store, options, error);
  if (code != 0) {
    if (store->keeper.context != NULL)
      keeper_settle (store);
    /* An arena that was taken over is still needed, as it is; one that was made is not. */
    store->is_abandoned = true;
    store_free (store, store->arena != NULL && !store->is_resumed);
    return code;
  }
  *result = store;
  return 0;
}

int
store_open (const struct store_options *options, struct store **result, char **error)
{
  struct store *store;
  int code = store_open_once (options, &store, error);

  if (code != 0)
    return code;
  if (options->device == NULL && store->is_resumed && store_wants_other_arena (store, options)) {
    /* The one that was taken over is emptied in order; then there is nothing to take over. */
    code = store_close (store, error);
    if (code == 0)
      code = store_open_once (options, &store, error);
    if (code != 0)
      return code;
  }
  if (!options->has_own_keeper) {
    code = keeper_start_thread (store);
    if (code == 0)
      code = -cache_start_growing (store->cache);
    if (code != 0) {
      store_abandon (store);
      return error_set (error, code, "its worker could not be started: %s", strerror (-code));
    }
  }
  *result = store;
  return 0;
}

int
store_close (struct store *store, char **error)
{
  int code = 0;

  *error = NULL;
  keeper_stop_thread (store);
  keeper_settle (store);
  if (store_is_failed (store))
    code = error_set (error, -EIO, "the store had failed: what was not durable then is kept in"
                      " the arena %s, if that is in use", store->arena->path != NULL
                        ? store->arena->path : "(off)");
  else if (!store->is_read_only) {
    /* The last checkpoint writes back, too, but its items must fit what the journal has left. */
    keeper_write_back_all (store);
    code = keeper_checkpoint_now (store, CHECKPOINT_FINAL);
    keeper_settle (store);
    if (code != 0)
      error_set (error, code, "not everything could be written: %s; the arena is kept",
                 strerror (-code));
  }
  /* What could not be written is still in the arena: nothing there may be touched. */
  store->is_abandoned = code != 0;
  store_free (store, code == 0);
  return code;
}

void
store_abandon (struct store *store)
{
  keeper_stop_thread (store);
  store->is_abandoned = true;
  store_free (store, false);
}

/* --- facts --- */

static uint64_t
store_bytes (uint64_t blocks, bool is_unlimited)
{
  return is_unlimited ? UINT64_MAX : blocks * BLOCK_SIZE;
}

void
store_get_info (struct store *store, struct store_info *info)
{
  const struct format_superblock *superblock = &store->superblock;
  bool is_unlimited = from_le64 (superblock->capacity) == 0;
  struct space_counts counts;
  struct device_info device;

  memset (info, 0, sizeof *info);
  space_get_counts (store->space, &counts);
  device_get_info (store->device, &device);
  memcpy (info->uuid, store->identity.uuid, 16);
  info->mode = atomic_load (&store->mode);
  info->format_version = from_le32 (superblock->version);
  info->capacity = store_bytes (counts.capacity, is_unlimited);
  info->used = counts.used * BLOCK_SIZE;
  info->shared = counts.shared * BLOCK_SIZE;
  info->free = store_bytes (counts.free - counts.reserved, is_unlimited);
  info->reserved = counts.reserved * BLOCK_SIZE;
  info->pending = (counts.pending + counts.discarding) * BLOCK_SIZE;
  info->undiscarded = counts.undiscarded * BLOCK_SIZE;
  info->withheld = counts.withheld * BLOCK_SIZE;
  info->metadata = 2 * space_nodes_used (store->space) * BLOCK_SIZE;
  info->allocated = device.allocated;
  info->disks = store_list_disks (store, NULL, 0);
  info->opened = from_le64 (superblock->opened);
  info->is_block_device = device.is_block_device;
  info->is_direct = device.is_direct;
}

const char *
store_path (struct store *store)
{
  return store->path;
}

const char *
store_arena_path (struct store *store)
{
  return store->arena->path;
}

void
store_get_in_flight_max (struct store *store, uint64_t *small, uint64_t *large)
{
  struct cache_stats stats;

  cache_get_stats (store->cache, &stats);
  *large = stats.in_flight_large_max;
  *small = stats.in_flight_max - *large;
}

size_t
store_get_counters (struct store *store, struct store_counter *counters, size_t max)
{
  static const char *const names[COUNTER_COUNT] = {
    [COUNTER_READS] = "reads",
    [COUNTER_WRITES] = "writes",
    [COUNTER_TRIMS] = "trims",
    [COUNTER_WRITE_ZEROES] = "write_zeroes",
    [COUNTER_FLUSHES] = "flushes",
    [COUNTER_CACHES] = "caches",
    [COUNTER_BLOCK_STATUSES] = "block_statuses",
    [COUNTER_READ_BYTES] = "read_bytes",
    [COUNTER_WRITE_BYTES] = "write_bytes",
    [COUNTER_HIT_BLOCKS] = "hit_blocks",
    [COUNTER_MISS_BLOCKS] = "miss_blocks",
    [COUNTER_READAHEAD_BLOCKS] = "readahead_blocks",
    [COUNTER_COMMITS] = "commits",
    [COUNTER_COMMIT_BLOCKS] = "commit_blocks",
    [COUNTER_CHECKPOINTS] = "checkpoints",
    [COUNTER_WRITEBACK_BLOCKS] = "writeback_blocks",
    [COUNTER_WRITEBACK_ERRORS] = "writeback_error_blocks",
    [COUNTER_DISCARDED_BLOCKS] = "discarded_blocks",
    [COUNTER_NODES_WRITTEN] = "nodes_written",
  };
  struct cache_stats cache;
  uint64_t values[COUNTER_COUNT], lock_waits = 0, lock_wait_ns = 0, damaged = 0;
  size_t count = 0;

  pthread_mutex_lock (&store->contexts_mutex);
  memcpy (values, store->counters, sizeof values);
  list_for_each (link, &store->contexts) {
    struct context *context = container_of (link, struct context, link);

    for (unsigned i = 0; i < COUNTER_COUNT; i++)
      values[i] += atomic_load_explicit (&context->counters[i], memory_order_relaxed);
  }
  pthread_mutex_unlock (&store->contexts_mutex);
  pthread_mutex_lock (&store->disks_mutex);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    lock_waits += atomic_load (&disk->range_lock.waits);
    lock_wait_ns += atomic_load (&disk->range_lock.wait_ns);
    damaged += disk->is_damaged && !disk->is_dying;
  }
  pthread_mutex_unlock (&store->disks_mutex);
  cache_get_stats (store->cache, &cache);

  const struct store_counter more[] = {
    { "full_percent", store_full_percent (store) },
    { "damaged_disks", damaged },
    { "range_lock_waits", lock_waits },
    { "range_lock_wait_us", lock_wait_ns / 1000 },
    { "evictions", cache.evictions },
    { "cache_frames", cache.frames },
    { "cache_clean_frames", cache.clean },
    { "cache_dirty_frames", cache.dirty },
    { "cache_dirty_max_frames", cache.dirty_max },
    { "cache_in_flight_frames", cache.in_flight },
    { "journal_tail_bytes", journal_end (&store->journal) - journal_start (&store->journal) },
    { "journal_half_percent", commit_half_percent (store) },
    { "metadata_memory_bytes", btree_pool_bytes (store->pool) },
  };

  for (unsigned i = 0; i < COUNTER_COUNT && count < max; i++)
    counters[count++] = (struct store_counter) { names[i], values[i] };
  for (unsigned i = 0; i < ARRAY_COUNT (more) && count < max; i++)
    counters[count++] = more[i];
  return count;
}
