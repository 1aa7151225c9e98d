/* SPDX-License-Identifier: BSD-2-Clause */
/* store-init.c - a new, empty store: two superblocks, each in two copies, and nothing else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "store/store-internal.h"

/* Geometry by size, blocks.  Groups of 1 GiB, less for small stores; 1/32 for metadata: enough
 * for a store all of whose extents are single blocks, in half-full nodes, twice (copy on write),
 * each in two copies. */
#define INIT_GROUP_BLOCKS (UINT64_C (1) << 18)
#define INIT_GROUP_BLOCKS_SMALL (UINT64_C (1) << 15)
#define INIT_SMALL_BLOCKS (32 * GIB / BLOCK_SIZE)
#define INIT_META_SHARE 32
#define INIT_HALF_BLOCKS (8 * MIB / BLOCK_SIZE)
#define INIT_HALF_BLOCKS_MIN (2 * MIB / BLOCK_SIZE)

static void
init_geometry (uint64_t capacity, struct store_geometry *geometry)
{
  geometry->capacity = capacity;
  geometry->group_blocks = capacity != 0 && capacity < INIT_SMALL_BLOCKS ? INIT_GROUP_BLOCKS_SMALL
                                                                         : INIT_GROUP_BLOCKS;
  geometry->meta_blocks = geometry->group_blocks / INIT_META_SHARE;
  geometry->journal_half_blocks
    = capacity == 0 ? INIT_HALF_BLOCKS
                    : MAX (INIT_HALF_BLOCKS_MIN, MIN (INIT_HALF_BLOCKS, capacity / 128));
}

/* What a new store says of itself. */
static void
init_superblock (const struct store_geometry *geometry, const uint8_t uuid[16],
                 struct format_superblock *superblock)
{
  memset (superblock, 0, BLOCK_SIZE);
  memcpy (superblock->magic, SUPERBLOCK_MAGIC, sizeof superblock->magic);
  superblock->version = to_le32 (FORMAT_VERSION);
  superblock->is_clean = to_le32 (1);
  memcpy (superblock->uuid, uuid, 16);
  superblock->group_blocks = to_le64 (geometry->group_blocks);
  superblock->meta_blocks = to_le64 (geometry->meta_blocks);
  superblock->journal_place = to_le64 (geometry->meta_blocks);
  superblock->journal_half_blocks = to_le64 (geometry->journal_half_blocks);
  superblock->capacity = to_le64 (geometry->capacity);
  superblock->created = to_le64 (time (NULL));
  superblock->next_disk_id = to_le64 (1);
  superblock->journal_sequence = to_le64 (1);
}

int
store_init_device (struct device *device, const struct store_geometry *geometry,
                   const uint8_t uuid[16], char **error)
{
  struct format_superblock *superblock = aligned_alloc (BLOCK_SIZE, BLOCK_SIZE);
  uint64_t needed = geometry->meta_blocks + JOURNAL_HALVES * geometry->journal_half_blocks;
  struct queue *queue = queue_create (device);
  struct device_info info;
  int result = 0;

  device_get_info (device, &info);
  if (superblock == NULL || queue == NULL)
    result = error_set (error, superblock == NULL ? -ENOMEM : -errno,
                        "memory or the kernel's io_uring could not be had: %s", strerror (errno));
  if (result == 0 && info.length < needed)
    result = device_grow (device, needed);
  if (result == 0)
    init_superblock (geometry, uuid, superblock);
  /* Sequence 1 last: until it is there, there is no store that anybody would open. */
  for (uint64_t place = 0; place < SUPERBLOCK_COPIES && result == 0; place++) {
    superblock->sequence = to_le64 (place / 2);
    format_superblock_seal (superblock, place);
    result = device_do (queue, IO_WRITE, place, superblock, 1);
  }
  if (result == 0)
    result = device_do (queue, IO_FLUSH, 0, NULL, 0);
  if (result != 0 && *error == NULL)
    error_set (error, result, "%s", strerror (-result));
  if (queue != NULL)
    queue_destroy (queue);
  free (superblock);
  return result;
}

/* Where a partition table, a file system or a store shows itself: the first MiB. */
#define INIT_LOOK_BLOCKS (MIB / BLOCK_SIZE)

/* A block device that holds something is not overwritten by mistake. */
static int
init_check_device (struct device *device, const struct device_info *info, char **error)
{
  uint64_t count = MIN (INIT_LOOK_BLOCKS, info->length);
  uint8_t *blocks = aligned_alloc (BLOCK_SIZE, count * BLOCK_SIZE);
  struct queue *queue = queue_create (device);
  int result = 0;

  if (blocks == NULL || queue == NULL)
    result = error_set (error, -ENOMEM, "there is not enough memory");
  else
    result = device_do (queue, IO_READ, 0, blocks, count);
  if (result == 0 && memcmp (blocks, SUPERBLOCK_MAGIC, 8) == 0)
    result = error_set (error, -EEXIST, "it holds a store already; --force makes a new one, and"
                                        " all that is in it is lost");
  /* All bytes are 0 if the first one is, and each is as the one before it. */
  else if (result == 0
           && (blocks[0] != 0 || memcmp (blocks, blocks + 1, count * BLOCK_SIZE - 1) != 0))
    result = error_set (error, -EEXIST, "the device is not empty; --force makes a store of it, and"
                                        " all that is on it is lost");
  if (queue != NULL)
    queue_destroy (queue);
  free (blocks);
  return result;
}

static int
init_check_empty (struct device *device, const struct device_info *info, bool force, char **error)
{
  if (info->length == 0 || force)
    return 0;
  if (info->is_block_device)
    return init_check_device (device, info, error);
  return error_set (error, -EEXIST, "the file exists and is not empty; --force makes a new store"
                                    " of it, and all that is in it is lost");
}

/* Zeros where the journal will be.  A file system gives a file its blocks when they are written first,
 * and notes that on the device, with a flush of its own: it would come on top of that of each
 * commit, until the journal has been gone through once. */
static int
init_journal_blocks (struct device *device, const struct store_geometry *geometry, char **error)
{
  uint64_t place = geometry->meta_blocks;
  uint64_t end = place + JOURNAL_HALVES * geometry->journal_half_blocks, length;
  uint8_t *zeros = aligned_alloc (BLOCK_SIZE, MIB);
  struct queue *queue = queue_create (device);
  int result = zeros == NULL || queue == NULL ? -ENOMEM : device_grow (device, end);

  if (result == 0)
    memset (zeros, 0, MIB);
  for (; place < end && result == 0; place += length) {
    length = MIN (end - place, MIB / BLOCK_SIZE);
    result = device_do (queue, IO_WRITE, place, zeros, length);
  }
  if (queue != NULL)
    queue_destroy (queue);
  free (zeros);
  return result != 0 ? error_set (error, result, "%s", strerror (-result)) : 0;
}

int
store_init (const char *path, uint64_t capacity, bool force, char **error)
{
  struct store_geometry geometry;
  struct device_info info;
  struct device *device;
  uint8_t uuid[16];
  bool is_new;
  int result;

  *error = NULL;
  if (capacity != 0 && capacity < STORE_CAPACITY_MIN)
    return error_set (error, -EINVAL, "the capacity of a store is at least 64M");
  if (getrandom (uuid, sizeof uuid, 0) != sizeof uuid)
    return error_set (error, -EIO, "no random numbers could be had for its UUID");
  uuid[6] = (uuid[6] & 0x0f) | 0x40;    /* RFC 4122, version 4 */
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  result = device_open (path, DEVICE_CREATE, 0, &device);
  is_new = result == 0;
  if (result == -EEXIST)
    result = device_open (path, 0, 0, &device);
  if (result == -EWOULDBLOCK)
    return error_set (error, -EBUSY, "another process has it open");
  if (result != 0)
    return error_set (error, result, "%s",
                      result == -EINVAL ? "it is neither a regular file nor a block device"
                                        : strerror (-result));
  device_get_info (device, &info);
  if (info.is_block_device && capacity != 0)
    result = error_set (error, -EINVAL, "a block device is used whole, without --capacity");
  else if (info.is_block_device && info.length * BLOCK_SIZE < STORE_CAPACITY_MIN)
    result = error_set (error, -EINVAL, "the device is smaller than 64M");
  else
    result = init_check_empty (device, &info, force, error);
  if (result == 0) {
    init_geometry (info.is_block_device ? info.length : capacity / BLOCK_SIZE, &geometry);
    if (!info.is_block_device)
      result = init_journal_blocks (device, &geometry, error);
    if (result == 0)
      result = store_init_device (device, &geometry, uuid, error);
  }
  device_close (device);
  if (result != 0 && is_new)
    unlink (path);
  return result;
}
