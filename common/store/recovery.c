/* SPDX-License-Identifier: BSD-2-Clause */
/* recovery.c - from a device to a store that can be used. Stands for:
 *
 *   the newest valid superblock; the catalogue, the disks, their maps
 *   if the store was not closed in order: replay the journal; then
 *     the arena is there and ours: replay its tail, take over its dirty frames, and
 *       go on as if nothing had been;
 *     it is not: what DATA remains in the journal becomes dirty frames
 *   free what deleted disks and shrunk ends still map; rebuild the space from the maps
 *   unless an arena was taken over: a checkpoint with a new journal (salt) and a
 *     new arena, before anybody is served
 *
 * All this only reads the device (but for a mark on disks that lose something: recovery-damaged.c)
 * until that checkpoint, which overwrites nothing that the old superblock refers to: a crash at any
 * moment leaves the same recovery to be done again.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/check.h"
#include "base/log.h"
#include "store/store-internal.h"

/* So much of a new arena has its space before the store is open (8 MiB, some 2 ms); the rest follows
 * while it serves. */
#define FRAMES_AT_START 2048

int
error_set (char **message, int error, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  if (vasprintf (message, format, args) < 0)
    *message = NULL;
  va_end (args);
  return error;
}

/* An io that a thread waits for. */
struct device_do {
  struct io io;
  bool is_done;
};

static void
device_do_done (struct io *io)
{
  container_of (io, struct device_do, io)->is_done = true;
}

int
device_do (struct queue *queue, enum io_kind kind, uint64_t place, void *data, uint64_t length)
{
  struct iovec segment = { data, length * BLOCK_SIZE };
  struct device_do wait = {
    .io = {
      .kind = kind,
      .place = place,
      .length = length,
      .segments = &segment,
      .segment_count = length > 0,
      .done = device_do_done,
    },
  };

  io_submit (queue, &wait.io);
  queue_kick (queue);
  while (!wait.is_done)
    queue_wait (queue);
  return wait.io.error;
}

int
device_read_each (struct queue *queue, uint64_t place, uint8_t *data, uint64_t length, bool *is_lost)
{
  int error = device_do (queue, IO_READ, place, data, length), result = 0;

  for (uint64_t i = 0; i < length && error != 0; i++, data += BLOCK_SIZE) {
    int alone = device_do (queue, IO_READ, place + i, data, 1);

    is_lost[i] = alone != 0;
    if (alone == 0)
      continue;
    memset (data, 0, BLOCK_SIZE);
    result = alone;
  }
  return result;
}

/* --- disks --- */

/* Two disks of one name: the second could never be reached. */
static int
recovery_check_names (struct store *store, char **error)
{
  const char *before = "";

  list_for_each (link, &store->disks) {
    const struct disk *disk = container_of (link, struct disk, link);

    if (disk->is_dying)
      continue;
    if (strcmp (disk->name, before) == 0)
      return error_set (error, -EUCLEAN, "damaged: there are two disks of the name %s", before);
    before = disk->name;
  }
  return 0;
}

static int
recovery_compare_names (const void *left, const void *right)
{
  const struct disk *a = *(struct disk *const *) left, *b = *(struct disk *const *) right;

  return strcmp (a->name, b->name);
}

/* By name, as store_list_disks gives them. */
static int
recovery_sort_disks (struct store *store, char **error)
{
  size_t count = store->opening_count;
  struct disk **sorted = calloc (count + 1, sizeof *sorted);

  if (sorted == NULL)
    return error_set (error, -ENOMEM, "there is not enough memory for its disks");
  if (count > 0) {
    memcpy (sorted, store->opening, count * sizeof *sorted);
    qsort (sorted, count, sizeof *sorted, recovery_compare_names);
  }
  for (size_t i = 0; i < count; i++) {
    list_remove (&sorted[i]->link);
    list_append (&store->disks, &sorted[i]->link);
  }
  free (sorted);
  return 0;
}

/* As an extent_unmapped: what is not mapped any more has one owner less. */
static void
recovery_unmapped (void *store, uint64_t place, uint64_t length)
{
  space_table_release (((struct store *) store)->space, place, length, NULL, NULL, NULL);
}

/* What deleted disks and shrunk ends still map is free: RESIZE and DELETE are in the journal as one
 * item, and the extents were being freed when the process ended. */
static int
recovery_clear_beyond (struct store *store, char **error)
{
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);
    uint64_t end = disk->is_dying ? 0 : disk_blocks (disk);
    uint64_t beyond = DISK_SIZE_MAX / BLOCK_SIZE - end;

    if (beyond == 0 || extent_map_mapped_in (&disk->map, end, beyond) == 0)
      continue;
    if (extent_map_reserve (&disk->map, 1) != 0
        || space_reserve_changes (store->space, extent_map_extents (&disk->map), false) != 0)
      return error_set (error, -ENOMEM, "there is not enough memory for its metadata");
    extent_map_clear (&disk->map, end, beyond, UINT32_MAX, recovery_unmapped, store);
    atomic_store (&disk->is_changed, true);
  }
  return 0;
}

/* Deleted disks of which nothing was left, as a checkpoint has noted: their nodes go with the next
 * one.  Else each that was created and deleted since then would come back, and want a node of that;
 * there might not be so many. */
static int
recovery_forget (struct store *store, char **error)
{
  size_t kept = 0;

  for (size_t i = 0; i < store->opening_count; i++) {
    struct disk *disk = store->opening[i];

    if (!disk->is_forgotten || disk->map.tree.node_count > 0 || disk->map.tree.given_up != NULL) {
      store->opening[kept++] = disk;
      continue;
    }
    if (btree_pool_ensure (store->pool, 1) != 0
        || (disk->node_place != 0 && !checkpoint_note_freed (store, disk->node_place)))
      return error_set (error, -ENOMEM, "there is not enough memory for its disks");
    btree_remove (&store->catalogue, disk->id);
    list_remove (&disk->link);
    disk_destroy (disk);
  }
  store->opening_count = kept;
  return 0;
}

/* --- space --- */

/* What lies side by side is marked at once: extents that follow each other on a disk often do. */
struct recovery_marking {
  struct store *store;
  uint64_t place, length;
};

static int
recovery_mark_run (struct recovery_marking *marking)
{
  struct space *space = marking->store->space;

  return marking->length == 0 || space_mark_used (space, marking->place, marking->length)
             || space_mark_shared (space, marking->place, marking->length)
           ? 0
           : -EUCLEAN;
}

/* Written ones lie on the device: beyond its end it would read as zeros. */
static int
recovery_mark_extent (void *arg, const struct extent *extent)
{
  struct recovery_marking *marking = arg;
  int result = 0;

  if (extent->state == EXTENT_WRITTEN && extent->place + extent->length > marking->store->length)
    return -ENXIO;
  if (extent->place != marking->place + marking->length) {
    result = recovery_mark_run (marking);
    marking->place = extent->place;
    marking->length = 0;
  }
  marking->length += extent->length;
  return result;
}

static void
recovery_mark_node (void *arg, uint64_t place)
{
  struct store *store = arg;

  if (!space_mark_node (store->space, place))
    store->is_marking_wrong = true;
}

/* What only the arena's tail has freed: in use by the state on the device, free when the tail is
 * durable.  Likewise what it has left with one owner, which is private then. */
static bool
recovery_free_pending (struct store *store, const struct replay *replay)
{
  for (size_t i = 0; i < replay->freed_count; i++) {
    const struct replay_run *run = &replay->freed[i];

    if (run->is_unshared)
      space_mark_unshared (store->space, run->place, run->length);
    else if (!space_mark_used (store->space, run->place, run->length))
      return false;
    else
      space_free (store->space, run->place, run->length);
  }
  return true;
}

/* Before anything is replayed: the nodes that the superblock leads to are in use until the next one
 * is durable, whatever replay does to the trees in memory. */
static int
recovery_mark_nodes (struct store *store, struct queue *queue, char **error)
{
  btree_visit_places (&store->catalogue, recovery_mark_node, store);
  btree_visit_places (space_shared_tree (store->space), recovery_mark_node, store);
  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);

    btree_visit_places (&disk->map.tree, recovery_mark_node, store);
    if (disk->node_place != 0)
      recovery_mark_node (store, disk->node_place);
  }
  if (store->is_marking_wrong)
    return error_set (error, -EUCLEAN, "damaged: a node is used twice, or lies outside of the"
                      " store; lacuna check tells more");
  return recovery_mark_damaged_nodes (store, queue, error);
}

/* After replay: the extents.  How often each block is referred to must be what the table of shared
 * runs says, which was replayed as the maps were. */
static int
recovery_mark_extents (struct store *store, const struct replay *replay, bool was_clean,
                       char **error)
{
  struct space_owners wrong;
  uint64_t corrected;

  list_for_each (link, &store->disks) {
    struct disk *disk = container_of (link, struct disk, link);
    struct recovery_marking marking = { .store = store };
    int result = extent_map_check (&disk->map, UINT64_MAX, recovery_mark_extent, &marking);

    if (result == 0)
      result = recovery_mark_run (&marking);
    if (result == -ENXIO)
      return error_set (error, -EUCLEAN, "damaged: the store is shorter than it was: data of disk"
                        " %s lies beyond its end", disk->name);
    if (result != 0)
      return error_set (error, -EUCLEAN, "damaged: an extent of disk %s lies outside of the store;"
                        " lacuna check tells more", disk->name);
  }
  if (!space_check_owners (store->space, store->has_damaged, &corrected, &wrong))
    return wrong.length == 0
             ? error_set (error, -ENOMEM, "there is not enough memory for its metadata")
             : error_set (error, -EUCLEAN, "damaged: %" PRIu64 " blocks at %" PRIu64 " of the store"
                          " belong to %" PRIu32 " extents, not %" PRIu32 " as the table of shared"
                          " blocks says; lacuna check tells more",
                          wrong.length, wrong.place, wrong.found, wrong.expected);
  if (corrected > 0)
    log_warning ("%s: %" PRIu64 " blocks belong to fewer extents than the table of shared blocks"
                 " says, as after a repair that has left out parts of maps; it is corrected",
                 store->path, corrected);
  if (!recovery_free_pending (store, replay))
    return error_set (error, -EUCLEAN, "damaged: the arena frees blocks that are in use");
  if (!recovery_withhold (store))
    return error_set (error, -ENOMEM, "there is not enough memory for its space map");
  if (!was_clean)
    space_mark_undiscarded (store->space, space_end (store->space));
  return 0;
}

static int
recovery_create_space (struct store *store, char **error)
{
  const struct format_superblock *superblock = &store->superblock;
  uint64_t capacity = from_le64 (superblock->capacity);
  struct space_geometry geometry = {
    .group_blocks = from_le64 (superblock->group_blocks),
    .meta_blocks = from_le64 (superblock->meta_blocks),
    .first_data = from_le64 (superblock->journal_place)
                  + JOURNAL_HALVES * from_le64 (superblock->journal_half_blocks),
    .capacity = MIN (capacity != 0 ? capacity : STORE_UNLIMITED_BLOCKS,
                     store->device_info.length_max),
  };

  store->space = space_create (&geometry, store->pool);
  return store->space != NULL
           ? 0
           : error_set (error, -ENOMEM, "there is not enough memory for its space map");
}

/* --- arena and frames --- */

static void
recovery_identity (struct store *store, struct arena_identity *identity)
{
  memcpy (identity->store_uuid, store->superblock.uuid, 16);
  memcpy (identity->arena_id, store->superblock.arena_id, 16);
  arena_boot_id (identity->boot_id);
}

/* The arena of the process before, if there is one and it is whole.  One that is there, but cannot
 * be had now, is an error: it may have what was acknowledged. */
static int
recovery_take_over (struct store *store, const struct store_options *options,
                    const struct replay *replay, char **error)
{
  static const uint8_t none[16];
  const struct format_superblock *superblock = &store->superblock;
  char path[ARENA_PATH_MAX + 1];
  struct arena_identity identity;
  struct arena *arena;
  const char *why = NULL;
  uint64_t position = replay->position;
  int number;

  if (memcmp (superblock->arena_id, none, 16) == 0)
    return 0;
  memcpy (path, superblock->arena_path, ARENA_PATH_MAX);
  path[ARENA_PATH_MAX] = '\0';
  recovery_identity (store, &identity);
  arena = arena_take_over (path, &identity, options->lock_wait_ms, &why);
  number = arena == NULL ? errno : 0;
  if (number == EWOULDBLOCK)
    return error_set (error, -EBUSY, "its arena %s cannot be taken over: %s", path, why);
  if (number != 0 && memcmp (superblock->boot_id, identity.boot_id, 16) == 0)
    return error_set (error, -number,
                      "the arena %s, with what was acknowledged last, is there but cannot be taken"
                      " over: %s (%s); removing it gives that up",
                      path, why, strerror (number));
  if (arena != NULL && arena_durable (arena) > replay->sequence) {
    error_set (error, -EUCLEAN, "damaged: record %" PRIu64 " of the journal cannot be read, but the"
               " arena says that it was durable; lacuna check tells more", replay->sequence);
    arena_close (arena, false);
    return -EUCLEAN;
  }
  /* POSITION is where journal and nodes end: the tail begins before or there, and
   * ends there or later. */
  if (arena != NULL
      && (atomic_load (&arena->header->tail_start) > position
          || atomic_load (&arena->header->tail_end) < position
          || atomic_load (&arena->header->tail_end) - atomic_load (&arena->header->tail_start)
               > arena->tail_bytes)) {
    arena_close (arena, false);
    arena = NULL;
    why = "it does not continue the journal";
  }
  if (arena == NULL)
    log_warning ("%s: the arena %s cannot be taken over (%s): what was acknowledged but not"
                 " flushed before the last process ended is lost, as after a power cut",
                 store->path, path, why);
  store->arena = arena;
  return 0;
}

/* A new arena for this opening, and its identity in the superblock to be written.  IS_LOOK: only
 * whether there could be one. */
static int
recovery_new_arena (struct store *store, const struct store_options *options,
                    const struct replay *replay, bool is_look, char **error)
{
  struct format_superblock *superblock = &store->superblock;
  uint64_t cache = options->cache_bytes != 0 ? options->cache_bytes : STORE_CACHE_DEFAULT;
  uint64_t half_bytes = from_le64 (superblock->journal_half_blocks) * BLOCK_SIZE, tail;
  uint64_t frames = MAX (cache / BLOCK_SIZE, MAX (64, 4 * replay->data.count)), at_start;
  bool is_off = options->is_read_only
                || (options->arena_path != NULL && strcmp (options->arena_path, "off") == 0);
  struct arena_identity identity;
  char path[ARENA_PATH_MAX];

  /* There must be room for a record that holds all of the tail, behind others (commit.c). */
  tail = MIN (options->tail_bytes != 0 ? options->tail_bytes : 2 * MIB, half_bytes / 4);
  while (!is_power_of_2 (tail))
    tail &= tail - 1;
  memset (superblock->arena_id, 0, sizeof superblock->arena_id);
  memset (superblock->arena_path, 0, sizeof superblock->arena_path);
  if (!is_off) {
    if (getrandom (superblock->arena_id, 16, 0) != 16)
      return error_set (error, -EIO, "no random numbers could be had");
    if (!store_arena_path_wanted (store, options, path))
      return error_set (error, -ENAMETOOLONG, "the path of the arena is too long");
    snprintf ((char *) superblock->arena_path, ARENA_PATH_MAX, "%s", path);
  }
  recovery_identity (store, &identity);
  memcpy (superblock->boot_id, identity.boot_id, 16);
  if (is_look)
    return arena_check (is_off ? NULL : path, &identity, frames, tail, error) == 0 ? 0 : -ENOSPC;
  /* Who runs the keeper himself wants the same to happen each time. */
  at_start = options->has_own_keeper ? frames : MAX (FRAMES_AT_START, replay->data.count);
  store->arena
    = arena_create (is_off ? NULL : path, &identity, frames, at_start, tail, true, error);
  if (store->arena == NULL)
    return -ENOSPC;
  atomic_store (&store->arena->header->tail_start, replay->position);
  atomic_store (&store->arena->header->tail_end, replay->position);
  return 0;
}

/* DATA that remains in the journal becomes dirty frames of the new arena, to be
 * found by recovery_adopt. */
static void
recovery_plant (struct store *store, const struct replay *replay)
{
  uint64_t index = 0;

  for (size_t i = 0; i < replay->data.count; i++) {
    const struct replay_block *block = &replay->data.blocks[i];
    struct arena_frame *header = &store->arena->frames[index];

    memcpy (store->arena->data + index * BLOCK_SIZE, block->data, BLOCK_SIZE);
    header->block = block->block;
    header->version = ++index;
    atomic_store (&header->disk, block->disk);
  }
}

static int
recovery_compare_versions (const void *left, const void *right, void *arg)
{
  const struct arena_frame *frames = arg;
  uint64_t a = frames[*(const uint32_t *) left].version;
  uint64_t b = frames[*(const uint32_t *) right].version;

  return a < b ? -1 : a > b;
}

/* Dirty frames found in the arena go into the index, oldest first; those of disks
 * or blocks that are gone are dropped. */
static int
recovery_adopt (struct store *store, char **error)
{
  struct arena *arena = store->arena;
  uint32_t *indexes = calloc (arena->frame_count, sizeof *indexes), count = 0;

  if (indexes == NULL)
    return error_set (error, -ENOMEM, "there is not enough memory to take over the arena");
  for (uint32_t i = 0; i < arena->frames_at_start; i++) {
    struct arena_frame *header = &arena->frames[i];
    struct disk *disk;

    if (atomic_load (&header->disk) == 0)
      continue;
    disk = disk_find_id (store, atomic_load (&header->disk));
    if (disk == NULL || disk->is_dying || disk->is_damaged || header->block >= disk_blocks (disk))
      atomic_store (&header->disk, 0);
    else
      indexes[count++] = i;
  }
  qsort_r (indexes, count, sizeof *indexes, recovery_compare_versions, arena->frames);
  for (uint32_t i = 0; i < count; i++) {
    struct arena_frame *header = &arena->frames[indexes[i]];
    struct disk *disk = disk_find_id (store, atomic_load (&header->disk));

    /* From 1 on, each given once; they last for ever. */
    if (header->version <= (i > 0 ? arena->frames[indexes[i - 1]].version : 0)
        || header->version >= UINT64_MAX / 2) {
      free (indexes);
      return error_set (error, -EUCLEAN, "damaged: the arena's blocks make no sense; without the"
                        " arena the store opens as after a power cut");
    }
    cache_adopt (store->cache, &disk->cache, header->block, indexes[i], header->version);
  }
  /* Promises: dirty blocks that cannot be written where they are mapped. */
  for (uint32_t i = 0; i < count; i++) {
    struct arena_frame *header = &arena->frames[indexes[i]];
    struct disk *disk = disk_find_id (store, atomic_load (&header->disk));
    struct extent extent;

    if (disk == NULL)
      continue;             /* an older frame of a block that has a newer one */
    extent_map_lookup (&disk->map, header->block, 1, &extent);
    if (store_needs_space (store, &extent)) {
      space_reserve_again (store->space, 1);
      cache_mark_token (store->cache, &disk->cache, header->block);
    }
  }
  free (indexes);
  return 0;
}

/* All promises that were made again can be kept. */
static int
recovery_check_room (struct store *store, char **error)
{
  struct space_counts counts;

  space_get_counts (store->space, &counts);
  if (counts.reserved > counts.free)
    return error_set (error, -EUCLEAN, "damaged: there is no room for what the journal holds;"
                      " lacuna check tells more");
  return 0;
}

static void
recovery_mark_copies (struct store *store, const struct replay *replay)
{
  for (size_t i = 0; i < replay->data.count; i++) {
    const struct replay_block *block = &replay->data.blocks[i];
    struct disk *disk = disk_find_id (store, block->disk);

    if (disk != NULL)
      cache_mark_copy (store->cache, &disk->cache, block->block, block->epoch);
  }
}

/* --- all of it --- */

/* Goes on where the last process stopped. */
static void
recovery_resume_journal (struct store *store, const struct replay *replay)
{
  struct commit *commit = &store->commit;
  bool is_in_start = replay->half == from_le32 (store->superblock.journal_half);

  commit->half = replay->half;
  commit->head = replay->head;
  commit->sequence = replay->sequence;
  commit->chain = replay->chain;
  commit->half_sequence = replay->half_sequence;
  commit->half_chain = replay->half_chain;
  commit->salt = from_le64 (store->superblock.journal_salt);
  commit->epoch = is_in_start ? 1 : 2;
  commit->sealed = 0;
  atomic_store (&commit->other_is_free, is_in_start);
}

/* A journal that no old record can be part of. */
static int
recovery_new_journal (struct store *store, const struct replay *replay, char **error)
{
  struct commit *commit = &store->commit;
  uint64_t random[2];

  if (getrandom (random, sizeof random, 0) != sizeof random)
    return error_set (error, -EIO, "no random numbers could be had");
  commit->half = 0;
  commit->head = 0;
  commit->sequence = commit->half_sequence = replay->sequence;
  commit->chain = commit->half_chain = random[0];
  commit->salt = random[1];
  commit->epoch = 3;          /* everything found is older */
  commit->sealed = commit->sequence;
  atomic_store (&commit->other_is_free, store->is_read_only);
  return 0;
}

/* What the tail has freed may be promised again already: to blocks that a TRIM was about to drop when
 * the process ended, the item being logged.  Nobody may ask for it before it is free. */
static int
recovery_commit (struct store *store, char **error)
{
  int result = keeper_commit_now (store, true);

  if (result == 0)
    result = recovery_check_room (store, error);
  /* Where there was no room for the tail a checkpoint comes first. */
  if (result == 0)
    result = keeper_commit_now (store, false);
  return result;
}

static int
recovery_start (struct store *store, const struct replay *replay, char **error)
{
  int result;

  device_keep_memory (store->device, store->arena->fd);
  store->cache = cache_create (store->arena);
  if (store->cache == NULL)
    return error_set (error, -ENOMEM, "there is not enough memory for the cache");
  store->window_blocks = MAX (1, MIN (WINDOW_BLOCKS, store->arena->frame_count / 8));
  journal_init (&store->journal, store->arena);
  result = commit_init (store);
  if (result == 0)
    result = recovery_adopt (store, error);
  if (result == 0 && !store->is_resumed)
    result = recovery_check_room (store, error);
  if (result != 0)
    return result;
  recovery_mark_copies (store, replay);
  if (store->is_resumed) {
    recovery_resume_journal (store, replay);
    list_for_each (link, &store->disks)
      atomic_store (&container_of (link, struct disk, link)->last_position,
                    journal_end (&store->journal));
  }
  else {
    result = recovery_new_journal (store, replay, error);
    if (result != 0)
      return result;
  }
  store_look_at_host (store);
  disk_end_opening (store);
  result = keeper_init (store);
  if (result != 0)
    return error_set (error, result, "its worker could not be set up: %s", strerror (-result));
  if (store->is_resumed) {
    /* A change to the disks that was not acknowledged yet is seen from now on: it must stay. */
    result = recovery_commit (store, error);
    if (result != 0 && *error == NULL)
      error_set (error, result, "the recovered state could not be made durable: %s",
                 strerror (-result));
    return result;
  }
  if (store->is_read_only)
    return 0;
  store->superblock.opened = to_le64 (from_le64 (store->superblock.opened) + 1);
  store->is_opening = true;
  result = keeper_checkpoint_now (store, CHECKPOINT_OPENING);
  store->is_opening = false;
  if (result != 0)
    return error_set (error, result, "the recovered state could not be written: %s",
                      strerror (-result));
  return 0;
}

static int
recovery_load (struct store *store, const struct store_options *options, struct replay *replay,
               char **error)
{
  bool was_clean;
  int result = 0;

  /* What is read now decides what is overwritten later; so it must be durable, not only written. */
  if (!options->is_read_only)
    result = device_do (replay->queue, IO_FLUSH, 0, NULL, 0);
  if (result != 0)
    return error_set (error, result, "it cannot be flushed: %s", strerror (-result));
  result = recovery_load_superblock (store, replay->queue, options->is_read_only, error);
  if (result != 0)
    return result;
  was_clean = from_le32 (store->superblock.is_clean) != 0;
  memcpy (store->identity.uuid, store->superblock.uuid, 16);
  atomic_store (&store->next_disk_id, MAX (1, from_le64 (store->superblock.next_disk_id)));
  if (!was_clean && options->is_read_only)
    return error_set (error, -EUCLEAN, "the store was not closed in order and must be recovered,"
                      " for which it must be opened for writing once");
  result = recovery_create_space (store, error);
  if (result == 0)
    result = recovery_load_disks (store, replay->queue, error);
  if (result == 0)
    result = recovery_load_shared (store, replay->queue, error);
  if (result == 0)
    result = recovery_mark_nodes (store, replay->queue, error);
  if (result == 0)
    result = recovery_clear_beyond (store, error);
  if (result != 0)
    return result;
  replay->position = from_le64 (store->superblock.journal_position);
  replay->sequence = from_le64 (store->superblock.journal_sequence);
  if (!was_clean)
    result = replay_journal (replay);
  if (result == 0 && !was_clean) {
    result = recovery_take_over (store, options, replay, error);
    if (store->arena != NULL)
      result = replay_tail (replay, store->arena);
  }
  if (result == 0)
    result = replay_settle (replay);
  if (result == 0)
    result = recovery_clear_beyond (store, error);
  if (result == 0)
    result = recovery_forget (store, error);
  if (result == 0)
    result = recovery_judge_damaged (replay);
  if (result == 0)
    result = recovery_mark_extents (store, replay, was_clean, error);
  if (result == 0)
    result = recovery_sort_disks (store, error);
  return result == 0 ? recovery_check_names (store, error) : result;
}

/* All that is only read. */
static int
recovery_begin (struct store *store, const struct store_options *options, struct replay *replay,
                char **error)
{
  int result;

  *error = NULL;
  replay->queue = queue_create (store->device);
  if (replay->queue == NULL)
    return error_set (error, -errno, "the kernel's io_uring could not be set up: %s",
                      strerror (errno));
  result = recovery_load (store, options, replay, error);
  store->is_resumed = store->arena != NULL;
  return result;
}

static void
recovery_end (struct replay *replay, int result, char **error)
{
  if (replay->queue != NULL)
    queue_destroy (replay->queue);
  disk_end_opening (replay->store);
  replay_end (replay);
  if (result != 0 && *error == NULL)
    error_set (error, result, "%s", strerror (-result));
}

int
recovery_look (struct store *store, const struct store_options *options, char **error)
{
  struct replay replay = { .store = store, .error = error };
  int result = recovery_begin (store, options, &replay, error);

  if (result == 0 && !store->is_resumed)
    result = recovery_new_arena (store, options, &replay, true, error);
  recovery_end (&replay, result, error);
  return result;
}

int
recovery_open (struct store *store, const struct store_options *options, char **error)
{
  struct replay replay = { .store = store, .error = error };
  int result = recovery_begin (store, options, &replay, error);

  if (result == 0)
    result = recovery_give_up (&replay);
  if (result == 0 && !store->is_resumed) {
    result = recovery_new_arena (store, options, &replay, false, error);
    if (result == 0)
      recovery_plant (store, &replay);
  }
  if (result == 0)
    result = recovery_start (store, &replay, error);
  if (result == 0 && replay.records + replay.items > 0)
    log_info ("%s: recovered: %" PRIu64 " records of the journal, %" PRIu64 " items%s", store->path,
              replay.records, replay.items,
              store->is_resumed ? ", and what the last process had in memory" : "");
  recovery_end (&replay, result, error);
  return result;
}
