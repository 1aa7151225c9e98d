/* SPDX-License-Identifier: BSD-2-Clause */
/* recovery-load.c - what the device says: the newest valid superblock, the
 * catalogue, the disks, their maps, the table of shared runs.
 * Only reads; everything is checked before it is used, and what does not make sense is named.
 * Where it is one disk's alone, that disk is damaged (recovery-damaged.c); else the store is.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "store/store-internal.h"

/* --- superblock --- */

static int
recovery_check_features (const struct format_superblock *superblock, bool is_read_only,
                         char **error)
{
  uint64_t incompat = from_le64 (superblock->incompat) & ~FEATURE_INCOMPAT_KNOWN;
  uint64_t ro_compat = from_le64 (superblock->ro_compat) & ~FEATURE_RO_COMPAT_KNOWN;

  if (from_le32 (superblock->version) != FORMAT_VERSION)
    return error_set (error, -EPROTONOSUPPORT,
                      "the store has format version %u, this program knows version %u; use a"
                      " newer one",
                      from_le32 (superblock->version), FORMAT_VERSION);
  if (incompat != 0)
    return error_set (error, -EPROTONOSUPPORT,
                      "the store uses features that this program does not know (incompat %#llx);"
                      " use a newer one",
                      (unsigned long long) incompat);
  if (ro_compat != 0 && !is_read_only)
    return error_set (error, -EPROTONOSUPPORT,
                      "the store uses features that this program does not know (ro_compat"
                      " %#llx), so it can only be opened read-only",
                      (unsigned long long) ro_compat);
  return 0;
}

/* Reads all copies; of the valid ones the newest counts.  A slot without any valid copy is damage,
 * whether it can be read or not: the copies of a slot are never written at the same time
 * (checkpoint.c). */
static int
recovery_read_superblock (struct store *store, struct queue *queue, char **error)
{
  uint8_t *images = aligned_alloc (BLOCK_SIZE, SUPERBLOCK_COPIES * BLOCK_SIZE);
  bool valid[SUPERBLOCK_COPIES] = { false }, any = false, is_mixed = false;
  bool is_lost[SUPERBLOCK_COPIES] = { false };
  const struct format_superblock *newest = NULL;
  int unreadable, result = 0;

  if (images == NULL)
    return error_set (error, -ENOMEM, "there is not enough memory");
  unreadable = device_read_each (queue, 0, images, SUPERBLOCK_COPIES, is_lost);
  for (unsigned copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
    const struct format_superblock *superblock
      = (const struct format_superblock *) (images + copy * BLOCK_SIZE);

    any |= memcmp (superblock->magic, SUPERBLOCK_MAGIC, sizeof superblock->magic) == 0;
    valid[copy] = format_superblock_check (superblock, copy) == NULL;
    is_mixed |= valid[copy] && newest != NULL && memcmp (superblock->uuid, newest->uuid, 16) != 0;
    if (valid[copy]
        && (newest == NULL || from_le64 (superblock->sequence) > from_le64 (newest->sequence)))
      newest = superblock;
  }
  if (newest == NULL && unreadable != 0)
    result = error_set (error, unreadable, "the superblock cannot be read: %s",
                        strerror (-unreadable));
  else if (newest == NULL)
    result = any ? error_set (error, -EUCLEAN, "damaged: no copy of the superblock is valid")
                 : error_set (error, -EMEDIUMTYPE,
                              "this is not a Lacuna store; lacuna init makes one");
  else if (is_mixed)
    result = error_set (error, -EUCLEAN,
                        "damaged: the superblocks are of two stores, as if lacuna init --force had"
                        " been interrupted");
  else if ((!valid[0] && !valid[1]) || (!valid[2] && !valid[3]))
    result = error_set (error, -EUCLEAN,
                        "damaged: both copies of a superblock (places %u and %u) are not valid, so"
                        " the newest state may be lost",
                        valid[0] || valid[1] ? 2 : 0, valid[0] || valid[1] ? 3 : 1);
  else
    store->superblock = *newest;
  for (unsigned copy = 0; copy < SUPERBLOCK_COPIES && result == 0; copy++)
    if (!valid[copy])
      log_warning ("%s: copy %u of the superblock %s; the other one is used", store->path, copy,
                   is_lost[copy] ? "cannot be read" : "is not valid");
  free (images);
  return result;
}

int
recovery_load_superblock (struct store *store, struct queue *queue, bool is_read_only, char **error)
{
  int result = recovery_read_superblock (store, queue, error);

  if (result == 0)
    result = recovery_check_features (&store->superblock, is_read_only, error);
  if (result == 0
      && from_le64 (store->superblock.journal_place)
             + JOURNAL_HALVES * from_le64 (store->superblock.journal_half_blocks)
           > store->length)
    result = error_set (error, -EUCLEAN, "damaged: the store is shorter than it was: its journal"
                        " lies beyond its end");
  return result;
}

/* --- nodes --- */

struct recovery_read {
  struct store *store;
  struct queue *queue;
  uint64_t owner;
  const char *what;
  char **error;
  bool is_unreadable;               /* what failed was the device */
};

/* One node from its second copy. */
static int
recovery_read_mirror (struct recovery_read *read, uint64_t place, uint64_t checksum, void *image)
{
  struct store *store = read->store;
  uint64_t mirror = place ^ (from_le64 (store->superblock.meta_blocks) / 2);
  int error = device_do (read->queue, IO_READ, mirror, image, 1);
  const char *why = error != 0 ? strerror (-error)
                               : format_node_check (image, 0, store->identity.uuid, read->owner,
                                                    place, checksum);

  read->is_unreadable |= error != 0;
  if (why == NULL) {
    log_warning ("%s: the node at %" PRIu64 " (%s) is damaged; its second copy is used",
                 store->path, place, read->what);
    return 0;
  }
  return error_set (read->error, -EUCLEAN,
                    "damaged: neither copy of the node at %" PRIu64 " (%s) is valid: %s; lacuna"
                    " check tells more",
                    place, read->what, why);
}

/* The node at PLACE, as it was read with ERROR: what counts is in IMAGE then. */
static int
recovery_verify (struct recovery_read *read, uint64_t place, uint64_t checksum, int error,
                 uint8_t *image)
{
  int result;

  if (error == 0
      && format_node_check (image, 0, read->store->identity.uuid, read->owner, place, checksum)
           == NULL)
    return 0;
  result = recovery_read_mirror (read, place, checksum, image);
  read->is_unreadable |= result != 0 && error != 0;
  return result;
}

static bool
recovery_is_node_place (const struct store *store, uint64_t place)
{
  uint64_t group = from_le64 (store->superblock.group_blocks);
  uint64_t meta = from_le64 (store->superblock.meta_blocks);

  return place >= SUPERBLOCK_COPIES && place <= PLACE_MAX && place % group < meta / 2;
}

static int
recovery_check_place (struct recovery_read *read, uint64_t place)
{
  return recovery_is_node_place (read->store, place)
           ? 0
           : error_set (read->error, -EUCLEAN, "damaged: %s refers to a node at %" PRIu64
                        ", where none can be", read->what, place);
}

/* Some reads are under way while nodes that have come are taken: neither the device nor the
 * processor waits for the other. */
#define RUNS_MAX 4
#define RUN_BLOCKS 256

/* Nodes that lie side by side, of those that are read. */
struct recovery_run {
  struct io io;
  struct iovec segment;
  size_t first, count;              /* 0: nothing is being read */
  bool is_done;
  uint8_t *images;
};

static void
recovery_run_done (struct io *io)
{
  container_of (io, struct recovery_run, io)->is_done = true;
}

/* Begins to read the next run, from FIRST on; how many they are. */
static size_t
recovery_run_start (struct recovery_run *run, struct queue *queue, const uint64_t *places,
                    size_t first, size_t count)
{
  run->first = first;
  run->count = 1;
  while (first + run->count < count && run->count < RUN_BLOCKS
         && places[first + run->count] == places[first] + run->count)
    run->count++;
  run->is_done = false;
  run->segment = (struct iovec) { run->images, run->count * BLOCK_SIZE };
  run->io = (struct io) {
    .kind = IO_READ, .place = places[first], .length = run->count,
    .segments = &run->segment, .segment_count = 1, .done = recovery_run_done,
  };
  io_submit (queue, &run->io);
  queue_kick (queue);
  return run->count;
}

/* As a btree_read does. */
static int
recovery_read_runs (struct recovery_read *read, struct recovery_run *runs, const uint64_t *places,
                    const uint64_t *checksums, size_t count, btree_take *take, void *taker)
{
  size_t started = 0;
  int result = 0;

  for (unsigned i = 0; i < RUNS_MAX && started < count; i++)
    started += recovery_run_start (&runs[i], read->queue, places, started, count);
  /* In order.  What was begun is waited for, whatever has gone wrong. */
  for (struct recovery_run *run = runs; run->count > 0; run = runs + (run + 1 - runs) % RUNS_MAX) {
    while (!run->is_done)
      queue_wait (read->queue);
    for (size_t i = 0; i < run->count && result == 0; i++) {
      uint8_t *image = run->images + i * BLOCK_SIZE;
      size_t at = run->first + i;

      result = recovery_verify (read, places[at], checksums[at], run->io.error, image);
      if (result == 0)
        result = take (taker, at, image);
    }
    run->count = 0;
    if (result == 0 && started < count)
      started += recovery_run_start (run, read->queue, places, started, count);
  }
  return result;
}

/* One alone. */
static int
recovery_read_node (struct recovery_read *read, uint64_t place, uint8_t *image)
{
  int result = recovery_check_place (read, place);

  return result != 0 ? result
                     : recovery_verify (read, place, 0,
                                        device_do (read->queue, IO_READ, place, image, 1), image);
}

static int
recovery_read_nodes (void *arg, const uint64_t *places, const uint64_t *checksums, size_t count,
                     btree_take *take, void *taker)
{
  struct recovery_read *read = arg;
  struct recovery_run runs[RUNS_MAX] = { 0 };
  size_t number = MIN (count, (size_t) RUNS_MAX), each = MIN (count, (size_t) RUN_BLOCKS);
  uint8_t *images;
  int result = 0;

  for (size_t i = 0; i < count && result == 0; i++)
    result = recovery_check_place (read, places[i]);
  if (result != 0)
    return result;
  images = aligned_alloc (BLOCK_SIZE, number * each * BLOCK_SIZE);
  if (images == NULL)
    return -ENOMEM;
  for (size_t i = 0; i < number; i++)
    runs[i].images = images + i * each * BLOCK_SIZE;
  result = recovery_read_runs (read, runs, places, checksums, count, take, taker);
  free (images);
  return result;
}

static int
recovery_load_tree (struct recovery_read *read, struct btree *tree,
                    const struct format_pointer *root, uint32_t leaf_kind, uint32_t inner_kind)
{
  struct format_node_identity identity
    = store_identity (read->store, leaf_kind, inner_kind, read->owner, 0);
  int error = btree_load (tree, root, &identity, recovery_read_nodes, read);

  if (error != 0 && *read->error == NULL)
    error_set (read->error, error,
               error == -ENOMEM ? "there is not enough memory for %s"
                                : "damaged: the nodes of %s do not fit together; lacuna check"
                                  " tells more",
               read->what);
  return error;
}

/* --- shared runs --- */

int
recovery_load_shared (struct store *store, struct queue *queue, char **error)
{
  struct recovery_read read = {
    .store = store, .queue = queue, .what = "the table of shared blocks", .error = error,
  };
  int result = recovery_load_tree (&read, space_shared_tree (store->space),
                                   &store->superblock.shared, KIND_SHARED_LEAF, KIND_SHARED_INNER);

  if (result == 0 && !space_check_table (store->space))
    result = error_set (error, -EUCLEAN, "damaged: the runs in %s make no sense; lacuna check tells"
                        " more", read.what);
  return result;
}

/* --- disks --- */

/* The disk that a valid disk node describes, without its map; NULL: *ERROR, with *RESULT. */
static struct disk *
recovery_make_disk (struct store *store, uint64_t id, const struct format_disk *node, int *result,
                    char **error)
{
  size_t length = from_le16 (node->name_length);
  char name[DISK_NAME_MAX + 1];
  struct disk *disk;

  if (from_le32 (node->header.kind) != KIND_DISK || length > DISK_NAME_MAX
      || from_le64 (node->size) > DISK_SIZE_MAX || from_le64 (node->size) % BLOCK_SIZE != 0) {
    *result = error_set (error, -EUCLEAN, "damaged: the node of disk number %" PRIu64
                         " makes no sense", id);
    return NULL;
  }
  memcpy (name, node->name, length);
  name[length] = '\0';
  if ((from_le64 (node->flags) & DISK_IS_DYING) != 0
        ? length > 0 || from_le64 (node->size) > 0
        : strlen (name) != length || !format_name_is_valid (name, NULL)) {
    *result = error_set (error, -EUCLEAN, "damaged: name or size of disk number %" PRIu64
                         " makes no sense", id);
    return NULL;
  }
  disk = disk_create (store, id, node->uuid, name, from_le64 (node->size),
                      from_le64 (node->created));
  if (disk == NULL) {
    *result = error_set (error, -ENOMEM, "there is not enough memory for its disks");
    return NULL;
  }
  memcpy (disk->request_ids.ids, node->request_ids, sizeof disk->request_ids.ids);
  disk->is_dying = disk->is_deleted = (from_le64 (node->flags) & DISK_IS_DYING) != 0;
  disk->is_stale = (from_le64 (node->flags) & DISK_IS_STALE) != 0;
  disk->lost_map = node->map;
  disk->lost_mapped = from_le64 (node->mapped);
  disk->lost_end = from_le64 (node->data_end);
  return disk;
}

/* What is read of a map that makes no sense is forgotten. */
static int
recovery_load_map (struct recovery_read *read, struct disk *disk)
{
  int result;

  if (disk->is_stale)
    return error_set (read->error, -EUCLEAN, "damaged: %s could not be read when the store was open"
                      " before, and what the journal said of it is lost", read->what);
  result = recovery_load_tree (read, &disk->map.tree, &disk->lost_map, KIND_MAP_LEAF,
                               KIND_MAP_INNER);
  if (result == 0 && extent_map_check (&disk->map, UINT64_MAX, NULL, NULL) != 0) {
    btree_clear (&disk->map.tree);
    result = error_set (read->error, -EUCLEAN, "damaged: the extents in %s make no sense; lacuna"
                        " check tells more", read->what);
  }
  return result;
}

static int
recovery_load_disk (struct store *store, struct queue *queue, const struct btree_entry *entry,
                    uint8_t *image, char **error)
{
  static const uint8_t no_uuid[16];
  char what[DISK_NAME_MAX + 32];
  struct recovery_read read
    = { .store = store, .queue = queue, .owner = entry->key, .what = what, .error = error };
  struct disk *disk = NULL;
  int result;

  snprintf (what, sizeof what, "disk number %" PRIu64, entry->key);
  if (entry->key >= from_le64 (store->superblock.next_disk_id))
    return error_set (error, -EUCLEAN, "damaged: the node of %s makes no sense", what);
  result = recovery_read_node (&read, entry->value, image);
  if (result == 0)
    disk = recovery_make_disk (store, entry->key, (const struct format_disk *) image, &result,
                               error);
  if (result == -EUCLEAN) {
    disk = disk_create (store, entry->key, no_uuid, "", 0, 0);
    if (disk == NULL) {
      free (*error);
      result = error_set (error, -ENOMEM, "there is not enough memory for its disks");
    }
    else
      disk->has_lost_node = true;
  }
  if (disk == NULL)
    return result;
  if (!disk_add_opening (disk)) {
    disk_destroy (disk);
    free (*error);
    return error_set (error, -ENOMEM, "there is not enough memory for its disks");
  }
  disk->node_place = recovery_is_node_place (store, entry->value) ? entry->value : 0;
  atomic_store (&disk->is_changed, false);
  if (result == 0) {
    snprintf (what, sizeof what, "the map of disk %s", disk->name);
    result = recovery_load_map (&read, disk);
  }
  if (result != -EUCLEAN)
    return result;
  disk->is_unreadable = read.is_unreadable;
  recovery_set_damaged (disk, *error);
  *error = NULL;
  return 0;
}

int
recovery_load_disks (struct store *store, struct queue *queue, char **error)
{
  struct recovery_read read
    = { .store = store, .queue = queue, .what = "the catalogue", .error = error };
  struct btree_entry entry = { 0 };
  uint8_t *image;
  int result
    = recovery_load_tree (&read, &store->catalogue, &store->superblock.catalogue,
                          KIND_CATALOGUE_LEAF, KIND_CATALOGUE_INNER);

  if (result != 0)
    return result;
  image = aligned_alloc (BLOCK_SIZE, BLOCK_SIZE);
  if (image == NULL)
    return error_set (error, -ENOMEM, "there is not enough memory");
  while (result == 0 && btree_ceiling (&store->catalogue, entry.key + 1, &entry))
    result = recovery_load_disk (store, queue, &entry, image, error);
  free (image);
  return result;
}
