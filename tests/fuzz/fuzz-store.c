/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-store.c - files that look like a store.  A good one is changed in a few places, and the
 * checksums put right again, so that what was changed is looked at; then it is checked, opened,
 * read and written.  Whatever it says is right, as long as it says it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/log.h"
#include "store/checker.h"
#include "store/store.h"
#include "../sim/blocking.h"
#include "fuzz.h"

#define BLOCKS_MAX 2048
#define RECORD_BLOCKS_MAX 512
#define DATA 0xda

/* What is not zero in a store's file. */
struct image {
  uint64_t length;               /* bytes */
  unsigned count;
  uint64_t places[BLOCKS_MAX];
  uint8_t blocks[BLOCKS_MAX][BLOCK_SIZE];
};

static struct image clean, cut, changed;   /* closed in order; with a journal to be replayed */
static char directory[] = "/dev/shm/lacuna-fuzz-XXXXXX", path[64];
static FILE *nowhere;

static void
remove_store (void)
{
  unlink (path);
  rmdir (directory);
}

/* --- requests, one at a time --- */

static void
run_request (struct context *context, struct disk *disk, enum request_kind kind, uint64_t offset,
             uint64_t length)
{
  struct status_extent extents[64];
  struct iovec segment;
  struct request request;
  const char *why;
  uint64_t bytes;

  if (request_validate (disk, kind, 0, offset, length, &why) != 0)
    return;
  request_init (&request, context, disk, kind, 0, offset, length, request_is_done);
  request.extents = extents;
  request.extent_max = 64;
  if (kind == REQUEST_WRITE) {
    CHECK (request_admit (&request));
    for (uint64_t at = 0; at < length && request.op.error == 0; at += bytes) {
      CHECK (request_segments (&request, at, &segment, 1, &bytes) == 1);
      memset (segment.iov_base, DATA, bytes);
    }
  }
  if (request.op.error == 0)
    request_run (&request);
  request_release (&request);
}

static void
create_disk (struct store *store, struct context *context, const char *name)
{
  struct admin admin;

  admin_init (&admin, context, store, ADMIN_CREATE, name, admin_is_done);
  admin.size = 64 * MIB;
  CHECK (admin_run (&admin) == 0);
}

/* Every item that the journal may hold. */
static void
change_disks (struct store *store, struct context *context)
{
  static const enum admin_kind kinds[] = { ADMIN_CLONE, ADMIN_COLLAPSE, ADMIN_INSERT, ADMIN_RESIZE,
                                           ADMIN_RENAME, ADMIN_DELETE };
  struct admin admin;

  create_disk (store, context, "third");
  for (unsigned i = 0; i < ARRAY_COUNT (kinds); i++) {
    bool is_renamed = kinds[i] == ADMIN_DELETE;

    admin_init (&admin, context, store, kinds[i], is_renamed ? "fourth" : "third", admin_is_done);
    if (kinds[i] == ADMIN_CLONE)
      strcpy (admin.name, "disk");
    strcpy (admin.new_name, kinds[i] == ADMIN_CLONE ? "third" : "fourth");
    admin.size = 32 * MIB;
    admin.may_shrink = true;
    admin.offset = BLOCK_SIZE;
    admin.length = 16 * MIB;
    CHECK (admin_run (&admin) == 0);
  }
}

/* Something of everything. */
static void
use_disk (struct context *context, struct disk *disk, unsigned seed)
{
  for (unsigned i = 0; i < 24; i++)
    run_request (context, disk, REQUEST_WRITE, (i * 37 + seed) % 1000 * 3 * BLOCK_SIZE,
                 (i % 3 + 1) * BLOCK_SIZE);
  run_request (context, disk, REQUEST_FLUSH, 0, 0);
  run_request (context, disk, REQUEST_TRIM, 10 * 3 * BLOCK_SIZE, 20 * BLOCK_SIZE);
  run_request (context, disk, REQUEST_WRITE_ZEROES, seed * BLOCK_SIZE, 5 * BLOCK_SIZE);
  run_request (context, disk, REQUEST_BLOCK_STATUS, 0, 16 * MIB);
  for (unsigned i = 0; i < 24; i++)
    run_request (context, disk, REQUEST_READ, (i * 37 + seed) % 1000 * 3 * BLOCK_SIZE, BLOCK_SIZE);
  run_request (context, disk, REQUEST_FLUSH, 0, 0);
}

/* --- images --- */

static void
load_image (struct image *image)
{
  static const uint8_t zeros[BLOCK_SIZE];
  int fd = open (path, O_RDONLY | O_CLOEXEC);

  CHECK (fd != -1);
  image->length = (uint64_t) lseek (fd, 0, SEEK_END);
  for (uint64_t place = 0; place < image->length / BLOCK_SIZE; place++) {
    uint8_t *block = image->blocks[image->count];

    CHECK (image->count < BLOCKS_MAX);
    CHECK (pread (fd, block, BLOCK_SIZE, (off_t) (place * BLOCK_SIZE)) == BLOCK_SIZE);
    if (memcmp (block, zeros, BLOCK_SIZE) != 0 && block[0] != DATA)
      image->places[image->count++] = place;
  }
  close (fd);
}

static void
save_image (const struct image *image)
{
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  CHECK (fd != -1 && ftruncate (fd, (off_t) image->length) == 0);
  for (unsigned i = 0; i < image->count; i++)
    CHECK (pwrite (fd, image->blocks[i], BLOCK_SIZE, (off_t) (image->places[i] * BLOCK_SIZE))
           == BLOCK_SIZE);
  close (fd);
}

static int
open_store (struct store **store, bool is_read_only)
{
  struct store_options options = {
    .path = path, .arena_path = "off", .cache_bytes = STORE_CACHE_MIN, .is_read_only = is_read_only,
  };
  char *error = NULL;
  int result = store_open (&options, store, &error);

  free (error);
  return result;
}

static void
make_images (void)
{
  struct context *context;
  struct store *store;
  struct disk *disk;
  char *error;

  log_set_sink (log_nowhere);
  nowhere = fopen ("/dev/null", "w");
  CHECK (nowhere && mkdtemp (directory));
  atexit (remove_store);
  snprintf (path, sizeof path, "%s/store", directory);
  CHECK (store_init (path, 0, false, &error) == 0);
  for (unsigned round = 0; round < 2; round++) {
    CHECK (open_store (&store, false) == 0);
    context = store_context_create (store);
    if (round == 0) {
      create_disk (store, context, "disk");
      create_disk (store, context, "other");
    }
    disk = disk_open (store, "disk");
    use_disk (context, disk, round);
    if (round == 1)
      change_disks (store, context);
    use_disk (context, disk, round + 7);
    disk_close (disk);
    if (round == 1)
      load_image (&cut);
    store_context_destroy (store, context);
    CHECK (store_close (store, &error) == 0);
    if (round == 0)
      load_image (&clean);
  }
}

/* --- changes --- */

static void
change (struct input *input)
{
  unsigned block = (unsigned) input_take (input, 2) % changed.count;
  unsigned at = (unsigned) input_take (input, 2) % BLOCK_SIZE;
  uint64_t number;

  /* Most of a block is not in use: the beginning is what counts. */
  if (input_pick (input, 4))
    at %= 256;
  switch (input_pick (input, 4)) {
  case 0:
    changed.blocks[block][at] = (uint8_t) input_take (input, 1);
    break;
  case 1:
    changed.blocks[block][at] ^= (uint8_t) (1 << input_pick (input, 8));
    break;
  case 2:
    number = input_number (input);
    memcpy (changed.blocks[block] + at / 8 * 8, &number, 8);
    break;
  default:
    memcpy (changed.blocks[block], changed.blocks[input_take (input, 2) % changed.count],
            BLOCK_SIZE);
  }
}

static uint8_t *
block_at (uint64_t place)
{
  for (unsigned i = 0; i < changed.count; i++)
    if (changed.places[i] == place)
      return changed.blocks[i];
  return NULL;
}

static bool
is_node (const uint8_t *block)
{
  static const uint32_t kinds[] = {
    KIND_MAP_LEAF, KIND_MAP_INNER, KIND_CATALOGUE_LEAF, KIND_CATALOGUE_INNER, KIND_SHARED_LEAF,
    KIND_SHARED_INNER, KIND_DISK,
  };
  struct format_node node;

  memcpy (&node, block, sizeof node);
  for (unsigned i = 0; i < ARRAY_COUNT (kinds); i++)
    if (from_le32 (node.kind) == kinds[i])
      return true;
  return false;
}

static void
seal_node (uint8_t *block)
{
  struct format_node *node = (struct format_node *) block;

  node->checksum = to_le64 (format_node_checksum (block));
}

static void
seal_pointer (struct format_pointer *pointer)
{
  uint8_t *block = block_at (from_le64 (pointer->place));

  if (block && is_node (block))
    pointer->checksum = ((struct format_node *) block)->checksum;
}

/* From the leaves up; trees of one node, as these are. */
static void
seal_all (void)
{
  for (unsigned i = 0; i < changed.count; i++)
    if (is_node (changed.blocks[i]))
      seal_node (changed.blocks[i]);
  for (unsigned i = 0; i < changed.count; i++) {
    struct format_disk *disk = (struct format_disk *) changed.blocks[i];

    if (from_le32 (disk->header.kind) == KIND_DISK) {
      seal_pointer (&disk->map);
      seal_node (changed.blocks[i]);
    }
  }
  for (uint64_t place = 0; place < 4; place++) {
    struct format_superblock *superblock = (struct format_superblock *) block_at (place);

    if (superblock) {
      seal_pointer (&superblock->catalogue);
      seal_pointer (&superblock->shared);
      format_superblock_seal (superblock, place);
    }
  }
}

static int
read_changed (void *arg, uint64_t place, void *block)
{
  const uint8_t *found = block_at (place);

  (void) arg;
  if (found)
    memcpy (block, found, BLOCK_SIZE);
  else
    memset (block, 0, BLOCK_SIZE);
  return 0;
}

/* Of a record in memory, with all that belongs to it. */
static void
seal_record (uint8_t *whole, uint64_t blocks, uint64_t salt, uint64_t chain)
{
  struct format_record *record = (struct format_record *) whole;
  le64 sum;

  record->previous = to_le64 (chain);
  record->header_checksum = record->checksum = to_le64 (0);
  sum = to_le64 (checksum (whole, blocks * BLOCK_SIZE, salt));
  record->header_checksum = to_le64 (checksum (whole, BLOCK_SIZE, salt));
  record->checksum = sum;
}

/* From block 0 of a half, one after the other, as long as they look like records.  Data blocks are
 * zeros in an image. */
static void
seal_half (const struct format_superblock *superblock, unsigned half)
{
  static uint8_t whole[RECORD_BLOCKS_MAX * BLOCK_SIZE];
  uint64_t blocks = from_le64 (superblock->journal_half_blocks);
  uint64_t place = from_le64 (superblock->journal_place) + half * blocks, end = place + blocks;
  uint64_t chain = from_le64 (superblock->journal_chain), count;
  struct format_record *record;

  for (; place < end; place += count) {
    record = (struct format_record *) block_at (place);
    if (!record || from_le32 (record->magic) != JOURNAL_MAGIC)
      return;
    count = from_le32 (record->block_count);
    if (count == 0 || count > end - place || count > RECORD_BLOCKS_MAX)
      return;
    for (uint64_t i = 0; i < count; i++)
      read_changed (NULL, place + i, whole + i * BLOCK_SIZE);
    seal_record (whole, count, from_le64 (superblock->journal_salt), chain);
    memcpy (record, whole, BLOCK_SIZE);
    chain = from_le64 (record->checksum);
  }
}

/* For the newest superblock: the others are not replayed. */
static void
seal_journal (void)
{
  const struct format_superblock *newest = NULL;

  for (uint64_t place = 0; place < 4; place++) {
    const struct format_superblock *superblock
      = (const struct format_superblock *) block_at (place);

    if (superblock
        && (!newest || from_le64 (superblock->sequence) > from_le64 (newest->sequence)))
      newest = superblock;
  }
  for (unsigned half = 0; newest && half < JOURNAL_HALVES; half++)
    seal_half (newest, half);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct input input = { data, data + size };
  unsigned how, changes;
  struct store *store;
  char *error = NULL;

  if (!nowhere)
    make_images ();
  how = input_pick (&input, 16);
  changes = input_pick (&input, 6);
  changed = how & 1 ? cut : clean;
  for (unsigned i = 0; i < changes; i++)
    change (&input);
  if (how & 6) {
    seal_all ();
    seal_journal ();
  }
  save_image (&changed);
  checker_run_reader (&(struct checker_reader) { .read = read_changed, .is_growing = true,
                                                 .length = changed.length / BLOCK_SIZE },
                      nowhere, how & 1);
  if (open_store (&store, how & 8) == 0) {
    struct context *context = store_context_create (store);
    struct disk *disk = disk_open (store, "disk");

    if (disk) {
      use_disk (context, disk, how);
      disk_close (disk);
    }
    store_context_destroy (store, context);
    store_close (store, &error);
    free (error);
  }
  return 0;
}
