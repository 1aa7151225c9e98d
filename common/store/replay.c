/* SPDX-License-Identifier: BSD-2-Clause */
/* replay.c - the journal, and the arena's tail, applied to maps that the superblock's nodes hold.
 *
 * Logical and in order: (disk, block), the last one wins.  DATA is kept aside, block by block,
 * until something newer makes it void; what remains is what a FLUSH acknowledged and write-back had
 * not taken to its place.
 *
 * Items before the superblock's journal_position are in the nodes already.  They are
 * not applied again, but they still make DATA void.
 *
 * The end of the journal is where the next record would have to be and is not valid.  A torn
 * record there is the normal end after a power cut: it was never acknowledged.  Where a later one is
 * found, or the superblock (or the arena: recovery.c) knows that it was durable, it is damage: the
 * store is not opened.  Nor where the device has an error for what would be the next one; elsewhere
 * in the journal it may have as many as it likes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/log.h"
#include "store/store-internal.h"

static uint64_t
replay_half_blocks (const struct replay *replay)
{
  return from_le64 (replay->store->superblock.journal_half_blocks);
}

/* --- items --- */

/* What a record of the journal frees is free.  What only the arena's tail frees still has its owner
 * on the device, and gets no new one, nor is private if it is left with one, before the tail is
 * durable (recovery_free_pending). */
static void
replay_note_run (struct replay *replay, uint64_t place, uint64_t length, bool is_unshared)
{
  if (!replay->is_tail)
    return;
  if (replay->freed_count == replay->freed_max) {
    size_t max = MAX (256, replay->freed_max * 2);
    struct replay_run *freed = realloc (replay->freed, max * sizeof *freed);

    if (freed == NULL) {
      replay->is_out_of_memory = true;
      return;
    }
    replay->freed = freed;
    replay->freed_max = max;
  }
  replay->freed[replay->freed_count++] = (struct replay_run) { place, length, is_unshared };
}

static void
replay_freed (void *replay, uint64_t place, uint64_t length)
{
  replay_note_run (replay, place, length, false);
}

static void
replay_unshared (void *replay, uint64_t place, uint64_t length)
{
  replay_note_run (replay, place, length, true);
}

/* A run that an item unmapped has one owner less. */
static void
replay_unmapped (void *arg, uint64_t place, uint64_t length)
{
  struct replay *replay = arg;

  space_table_release (replay->store->space, place, length, replay_freed, replay_unshared, replay);
}

/* Memory for a change of a disk's map, and what comes of it in the table of shared runs. */
static int
replay_reserve (struct replay *replay, struct disk *disk, uint64_t length)
{
  uint64_t runs = MIN (length, extent_map_extents (&disk->map));

  if (extent_map_reserve (&disk->map, 1) != 0
      || space_reserve_changes (replay->store->space, runs, false) != 0)
    return error_set (replay->error, -ENOMEM, "there is not enough memory for its metadata");
  return 0;
}

static int
replay_bad_item (struct replay *replay, const char *what)
{
  if (replay->is_tail)
    return error_set (replay->error, -EUCLEAN,
                      "damaged: the arena has an item that makes no sense (%s); without the arena"
                      " the store opens as after a power cut",
                      what);
  return error_set (replay->error, -EUCLEAN,
                    "damaged: the journal has an item that makes no sense (%s); lacuna check"
                    " tells more",
                    what);
}

/* Whether a disk can have these blocks, whatever its size. */
static bool
replay_range_is_possible (uint64_t block, uint64_t length)
{
  return length <= DISK_SIZE_MAX / BLOCK_SIZE && block <= DISK_SIZE_MAX / BLOCK_SIZE - length;
}

static int
replay_map (struct replay *replay, struct disk *disk, const struct format_item *item)
{
  struct extent extent = {
    .block = from_le64 (item->block),
    .length = from_le64 (item->length),
    .place = from_le64 (item->place),
    .state = from_le32 (item->flags),
  };

  if (extent.length == 0 || extent.length > EXTENT_LENGTH_MAX
      || !replay_range_is_possible (extent.block, extent.length) || extent.place == 0
      || extent.place > PLACE_MAX - extent.length
      || (extent.state != EXTENT_WRITTEN && extent.state != EXTENT_UNWRITTEN))
    return replay_bad_item (replay, "a mapping");
  if (replay_reserve (replay, disk, extent.length) != 0)
    return -ENOMEM;
  extent_map_set (&disk->map, &extent, replay_unmapped, replay);
  return 0;
}

static int
replay_unmap (struct replay *replay, struct disk *disk, uint64_t block, uint64_t length)
{
  if (!replay_range_is_possible (block, length))
    return replay_bad_item (replay, "an unmapping");
  if (length == 0)
    return 0;
  if (replay_reserve (replay, disk, length) != 0)
    return -ENOMEM;
  extent_map_clear (&disk->map, block, length, UINT32_MAX, replay_unmapped, replay);
  return 0;
}

/* The run of blocks as what the source has now.  In parts: the target's changes do not touch the
 * source's range. */
static int
replay_clone_map (struct replay *replay, struct disk *source, uint64_t from, struct disk *target,
                  uint64_t to, uint64_t length)
{
  struct space *space = replay->store->space;
  struct extent extents[64];

  for (uint64_t at = 0; at < length;) {
    unsigned count = extent_map_scan (&source->map, from + at, length - at, extents,
                                      ARRAY_COUNT (extents));

    for (unsigned e = 0; e < count; e++) {
      struct extent extent = extents[e];

      at += extent.length;
      if (extent.state != EXTENT_WRITTEN)
        continue;
      extent.block = extent.block - from + to;
      if (disk_reserve_many (target, 1, space_count_runs (space, extent.place, extent.length), true)
          != 0)
        return error_set (replay->error, -ENOMEM, "there is not enough memory for its metadata");
      space_table_share (space, extent.place, extent.length);
      extent_map_set (&target->map, &extent, replay_unmapped, replay);
    }
  }
  return 0;
}

static int
replay_clone (struct replay *replay, struct disk *target, const struct format_item *item)
{
  const struct format_item_clone *more = (const struct format_item_clone *) (item + 1);
  uint64_t to = from_le64 (item->block), length = from_le64 (item->length), from;
  struct disk *source;
  int error;

  if (from_le16 (item->bytes) != sizeof *item + sizeof *more)
    return replay_bad_item (replay, "the cloning of a range");
  source = disk_find_id (replay->store, from_le64 (more->disk));
  from = from_le64 (more->block);
  if (source == NULL || length == 0 || !replay_range_is_possible (from, length)
      || (source == target && from < to + length && to < from + length))
    return replay_bad_item (replay, "the cloning of a range");
  if (source->is_damaged) {
    log_error ("%s: %s is damaged, too: it has been given blocks of disk %s", replay->store->path,
               target->name, source->name);
    recovery_forget_map (target);
    target->is_given_up = true;
    target->is_unreadable = source->is_unreadable;
    return 0;
  }
  error = replay_unmap (replay, target, to, length);
  if (error == 0)
    error = replay_clone_map (replay, source, from, target, to, length);
  request_ids_add (&target->request_ids, more->request);
  return error;
}

/* The facts about a disk that CREATE and RENAME carry; NULL: not whole. */
static const struct format_item_disk *
replay_disk_item (const struct format_item *item, char name[DISK_NAME_MAX + 1])
{
  const struct format_item_disk *extra = (const struct format_item_disk *) (item + 1);
  size_t bytes = from_le16 (item->bytes), length;
  const char *why;

  if (bytes < sizeof *item + offsetof (struct format_item_disk, name))
    return NULL;
  length = from_le16 (extra->name_length);
  if (length > DISK_NAME_MAX
      || sizeof *item + offsetof (struct format_item_disk, name) + length > bytes)
    return NULL;
  memcpy (name, extra->name, length);
  name[length] = '\0';
  return format_name_is_valid (name, &why) ? extra : NULL;
}

static int
replay_create (struct replay *replay, const struct format_item *item)
{
  struct store *store = replay->store;
  char name[DISK_NAME_MAX + 1];
  const struct format_item_disk *extra = replay_disk_item (item, name);
  uint64_t id = from_le64 (item->disk);
  struct disk *disk;

  if (extra == NULL || id == 0 || id == UINT64_MAX || disk_find_id (store, id) != NULL
      || from_le64 (extra->size) > DISK_SIZE_MAX || from_le64 (extra->size) % BLOCK_SIZE != 0)
    return replay_bad_item (replay, "the creation of a disk");
  disk = disk_create (store, id, extra->uuid, name, from_le64 (extra->size),
                      from_le64 (extra->created));
  if (disk == NULL || !disk_add_opening (disk)) {
    if (disk != NULL)
      disk_destroy (disk);
    return error_set (replay->error, -ENOMEM, "there is not enough memory for its disks");
  }
  if (atomic_load (&store->next_disk_id) <= id)
    atomic_store (&store->next_disk_id, id + 1);
  return 0;
}

/* COLLAPSE and INSERT: in the order of the items, so that each finds the blocks of those before it
 * where they were. */
static int
replay_shift (struct replay *replay, struct disk *disk, const struct format_item *item)
{
  const struct format_item_request *request = (const struct format_item_request *) (item + 1);
  bool is_up = from_le16 (item->kind) == ITEM_INSERT;
  uint64_t block = from_le64 (item->block), length = from_le64 (item->length), at = 0;
  uint64_t size = disk_blocks (disk);
  uint64_t most = is_up ? DISK_SIZE_MAX / BLOCK_SIZE - size : size - MIN (block, size);
  int error;

  if (from_le16 (item->bytes) != sizeof *item + sizeof *request || disk->is_dying || block > size
      || length == 0 || length > most)
    return replay_bad_item (replay, is_up ? "an insertion" : "a collapse");
  /* A shrink before it, which the nodes have, may not have freed all when they were frozen. */
  error = is_up ? replay_unmap (replay, disk, size, DISK_SIZE_MAX / BLOCK_SIZE - size)
                : replay_unmap (replay, disk, block, length);
  if (error != 0)
    return error;
  if (extent_map_reserve_shift (&disk->map, 1) != 0)
    return error_set (replay->error, -ENOMEM, "there is not enough memory for its metadata");
  while (!(is_up ? extent_map_shift_up (&disk->map, block, length, UINT32_MAX, &at)
                 : extent_map_shift_down (&disk->map, block, length, UINT32_MAX, &at)))
    continue;
  atomic_store (&disk->size, (is_up ? size + length : size - length) * BLOCK_SIZE);
  request_ids_add (&disk->request_ids, request->id);
  return 0;
}

/* An item about a damaged disk, whose map is not known: what it does to that is given up. */
static int
replay_damaged (struct replay *replay, struct disk *disk, const struct format_item *item)
{
  enum format_item_kind kind = from_le16 (item->kind);
  char name[DISK_NAME_MAX + 1];

  if (kind == ITEM_RETIRE)
    return 0;
  atomic_store (&disk->is_changed, true);
  switch (kind) {
  case ITEM_RENAME:
    if (replay_disk_item (item, name) == NULL)
      return replay_bad_item (replay, "the renaming of a disk");
    memcpy (disk->name, name, sizeof name);
    disk->is_given_up |= disk->has_lost_node;
    return 0;
  case ITEM_DELETE:
    disk->is_damaged = disk->is_given_up = false;
    disk->is_dying = disk->is_deleted = true;
    atomic_store (&disk->size, 0);
    return 0;
  default:
    disk->is_given_up = true;
    return 0;
  }
}

/* Applies an item to the maps and disks. */
static int
replay_apply (struct replay *replay, const struct format_item *item)
{
  struct store *store = replay->store;
  enum format_item_kind kind = from_le16 (item->kind);
  struct disk *disk = disk_find_id (store, from_le64 (item->disk));
  uint64_t block = from_le64 (item->block), length = from_le64 (item->length);
  char name[DISK_NAME_MAX + 1];

  replay->items++;
  if (kind == ITEM_CREATE)
    return replay_create (replay, item);
  if (disk == NULL)
    return replay_bad_item (replay, "of a disk that does not exist");
  if (disk->is_damaged)
    return replay_damaged (replay, disk, item);
  atomic_store (&disk->is_changed, true);
  switch (kind) {
  case ITEM_MAP:
    return replay_map (replay, disk, item);
  case ITEM_UNMAP:
    return replay_unmap (replay, disk, block, length);
  case ITEM_RETIRE:
    return 0;
  case ITEM_CLONE:
    return replay_clone (replay, disk, item);
  case ITEM_RENAME:
    if (replay_disk_item (item, name) == NULL)
      return replay_bad_item (replay, "the renaming of a disk");
    memcpy (disk->name, name, sizeof name);
    return 0;
  case ITEM_RESIZE:
    if (length > DISK_SIZE_MAX || length % BLOCK_SIZE != 0)
      return replay_bad_item (replay, "a size");
    /* Growing clears too: a shrink before it, which the nodes have, may not have
     * freed all when they were frozen. */
    block = MIN (length, disk_size (disk)) / BLOCK_SIZE;
    atomic_store (&disk->size, length);
    return replay_unmap (replay, disk, block, DISK_SIZE_MAX / BLOCK_SIZE - block);
  case ITEM_DELETE:
    disk->is_dying = disk->is_deleted = true;
    atomic_store (&disk->size, 0);
    return replay_unmap (replay, disk, 0, DISK_SIZE_MAX / BLOCK_SIZE);
  case ITEM_COLLAPSE:
  case ITEM_INSERT:
    return replay_shift (replay, disk, item);
  case ITEM_FORGET:
    /* Where it stands in the table of what is being opened others still look for it by id. */
    disk->is_forgotten = true;
    return 0;
  default:
    return replay_bad_item (replay, "its kind is unknown");
  }
}

/* Makes DATA of [first, last] of a disk void. */
static void
replay_void (struct replay *replay, uint64_t disk, uint64_t first, uint64_t last)
{
  replay->is_out_of_memory |= replay_data_void (&replay->data, disk, first, last) != 0;
}

/* What an item makes void, whether or not the nodes have it already. */
static void
replay_item_voids (struct replay *replay, const struct format_item *item)
{
  uint64_t disk = from_le64 (item->disk), block = from_le64 (item->block);
  uint64_t length = from_le64 (item->length);

  switch ((enum format_item_kind) from_le16 (item->kind)) {
  case ITEM_UNMAP:
  case ITEM_RETIRE:
  case ITEM_CLONE:
    if (length > 0)
      replay_void (replay, disk, block, block + length - 1);
    break;
  case ITEM_RESIZE:
    replay_void (replay, disk, length / BLOCK_SIZE, UINT64_MAX);
    break;
  case ITEM_DELETE:
    replay_void (replay, disk, 0, UINT64_MAX);
    break;
  case ITEM_COLLAPSE:
  case ITEM_INSERT:
    replay_void (replay, disk, block, UINT64_MAX);
    break;
  default:
    break;
  }
}

/* Items from position FROM on; DATA items are at the end and have no position. */
static int
replay_items (struct replay *replay, const uint8_t *bytes, size_t count, uint64_t from)
{
  size_t at = 0;

  while (at < count) {
    const struct format_item *item = (const struct format_item *) (bytes + at);
    size_t item_bytes = count - at >= sizeof *item ? from_le16 (item->bytes) : 0;
    int error;

    if (item_bytes < sizeof *item || item_bytes % 8 != 0 || item_bytes > count - at)
      return replay_bad_item (replay, "its length");
    replay_item_voids (replay, item);
    if (from + at >= replay->position) {
      error = replay_apply (replay, item);
      if (error != 0)
        return error;
    }
    at += item_bytes;
  }
  replay->position = MAX (replay->position, from + count);
  return 0;
}

/* --- records --- */

/* The record at BLOCK of HALF as far as its header can be trusted; NULL: none of
 * this store and salt. */
static const struct format_record *
replay_header (const struct replay *replay, unsigned half, uint64_t block)
{
  const struct store *store = replay->store;
  uint64_t half_blocks = replay_half_blocks (replay);
  const uint8_t *at = replay->halves + (half * half_blocks + block) * BLOCK_SIZE;
  const struct format_record *record = (const struct format_record *) at;
  uint64_t place = from_le64 (store->superblock.journal_place) + half * half_blocks + block;
  uint8_t header[BLOCK_SIZE];

  if (block >= half_blocks || from_le32 (record->magic) != JOURNAL_MAGIC
      || memcmp (record->uuid, store->identity.uuid, 16) != 0
      || from_le64 (record->place) != place || from_le32 (record->block_count) == 0
      || from_le32 (record->block_count) > half_blocks - block)
    return NULL;
  memcpy (header, at, BLOCK_SIZE);
  ((struct format_record *) header)->header_checksum = to_le64 (0);
  ((struct format_record *) header)->checksum = to_le64 (0);
  if (checksum (header, BLOCK_SIZE, from_le64 (store->superblock.journal_salt))
      != from_le64 (record->header_checksum))
    return NULL;
  return record;
}

/* Whether all of the record is as it was written. */
static bool
replay_is_whole (const struct replay *replay, struct format_record *record)
{
  le64 header_checksum = record->header_checksum, sum = record->checksum;
  uint64_t found;

  record->header_checksum = record->checksum = to_le64 (0);
  found = checksum (record, from_le32 (record->block_count) * BLOCK_SIZE,
                    from_le64 (replay->store->superblock.journal_salt));
  record->header_checksum = header_checksum;
  record->checksum = sum;
  return found == from_le64 (sum);
}

/* The record that continues the chain, if it is there. */
static struct format_record *
replay_next_at (const struct replay *replay, unsigned half, uint64_t block)
{
  const struct format_record *record = replay_header (replay, half, block);

  if (record == NULL || from_le64 (record->sequence) != replay->sequence
      || from_le64 (record->previous) != replay->chain
      || !replay_is_whole (replay, (struct format_record *) record))
    return NULL;
  return (struct format_record *) record;
}

/* Keeps the record's data aside, block by block. */
static int
replay_data (struct replay *replay, const struct format_record *record, const uint8_t *items,
             size_t count)
{
  const uint8_t *data
    = (const uint8_t *) record + (uint64_t) from_le32 (record->data_offset) * BLOCK_SIZE;
  uint64_t left = from_le32 (record->data_count);
  uint32_t epoch = replay->half == from_le32 (replay->store->superblock.journal_half) ? 1 : 2;

  for (size_t at = 0; at + sizeof (struct format_item) <= count;
       at += sizeof (struct format_item)) {
    const struct format_item *item = (const struct format_item *) (items + at);
    uint64_t disk = from_le64 (item->disk), block = from_le64 (item->block);
    uint64_t length = from_le64 (item->length);

    if (from_le16 (item->kind) != ITEM_DATA || length == 0 || length > left)
      return replay_bad_item (replay, "data");
    for (uint64_t i = 0; i < length; i++, data += BLOCK_SIZE)
      if (replay_data_keep (&replay->data, disk, block + i, data, epoch) != 0)
        return error_set (replay->error, -ENOMEM,
                          "there is not enough memory to replay the journal");
    left -= length;
  }
  return left == 0 ? 0 : replay_bad_item (replay, "data");
}

static int
replay_record (struct replay *replay, const struct format_record *record)
{
  const uint8_t *items = (const uint8_t *) (record + 1);
  uint64_t blocks = from_le32 (record->block_count);
  uint64_t item_bytes = from_le32 (record->item_bytes), tail = from_le32 (record->tail_bytes);
  uint64_t front = from_le32 (record->data_offset);
  int error;

  if (sizeof *record + item_bytes > front * BLOCK_SIZE || tail > item_bytes
      || front + from_le32 (record->data_count) != blocks)
    return replay_bad_item (replay, "the lengths of a record");
  error = replay_items (replay, items, tail, from_le64 (record->position));
  replay->recorded = from_le64 (record->position) + tail;
  if (error == 0)
    error = replay_data (replay, record, items + tail, item_bytes - tail);
  replay->records++;
  replay->sequence++;
  replay->chain = from_le64 (record->checksum);
  replay->head += blocks;
  return error;
}

/* A record that cannot be reached is proof that one before it was there and is damaged; and so is
 * what the superblock says. */
static int
replay_check_end (struct replay *replay)
{
  const struct format_superblock *superblock = &replay->store->superblock;

  if (replay->sequence - from_le64 (superblock->journal_sequence)
      < from_le32 (superblock->journal_durable))
    return error_set (replay->error, -EUCLEAN,
                      "damaged: record %" PRIu64 " of the journal cannot be read, but it was durable"
                      " when the superblock was written; lacuna check tells more",
                      replay->sequence);
  for (unsigned half = 0; half < JOURNAL_HALVES; half++)
    for (uint64_t block = 0; block < replay_half_blocks (replay); block++) {
      const struct format_record *record = replay_header (replay, half, block);

      if (record != NULL && from_le64 (record->sequence) > replay->sequence)
        return error_set (replay->error, -EUCLEAN,
                          "damaged: record %" PRIu64 " of the journal cannot be read, but a later"
                          " one (%" PRIu64 ") is there, so acknowledged data would be lost;"
                          " lacuna check tells more",
                          replay->sequence, from_le64 (record->sequence));
    }
  return 0;
}

/* Whether the record that would be the next one was there to be read, at BLOCK of HALF. */
static bool
replay_is_read (const struct replay *replay, unsigned half, uint64_t block)
{
  const struct format_record *record = replay_header (replay, half, block);
  uint64_t half_blocks = replay_half_blocks (replay);
  uint64_t end = block + (record != NULL ? from_le32 (record->block_count) : 1);

  if (record != NULL && from_le64 (record->sequence) != replay->sequence)
    return true;
  for (; block < MIN (end, half_blocks); block++)
    if (replay->is_lost[half * half_blocks + block])
      return false;
  return true;
}

/* The end may be one only because nothing could be read there, which may be over soon. */
static int
replay_check_read (struct replay *replay)
{
  unsigned start = from_le32 (replay->store->superblock.journal_half);

  if (replay_is_read (replay, replay->half, replay->head)
      && (replay->half != start || replay_is_read (replay, start ^ 1, 0)))
    return 0;
  return error_set (replay->error, -EIO, "record %" PRIu64 " of the journal cannot be read now",
                    replay->sequence);
}

static int
replay_read (struct replay *replay)
{
  uint64_t blocks = JOURNAL_HALVES * replay_half_blocks (replay);
  uint64_t place = from_le64 (replay->store->superblock.journal_place);
  uint64_t step = IO_BYTES_MAX / BLOCK_SIZE;

  replay->halves = aligned_alloc (BLOCK_SIZE, blocks * BLOCK_SIZE);
  replay->is_lost = calloc (blocks, sizeof *replay->is_lost);
  if (replay->halves == NULL || replay->is_lost == NULL)
    return error_set (replay->error, -ENOMEM, "there is not enough memory to read the journal");
  for (uint64_t at = 0; at < blocks; at += step) {
    int error = device_read_each (replay->queue, place + at, replay->halves + at * BLOCK_SIZE,
                                  MIN (step, blocks - at), replay->is_lost + at);

    if (error != 0)
      log_warning ("%s: parts of the journal cannot be read: %s", replay->store->path,
                   strerror (-error));
  }
  return 0;
}

int
replay_journal (struct replay *replay)
{
  const struct format_superblock *superblock = &replay->store->superblock;
  int error = replay_read (replay);

  if (error != 0)
    return error;
  replay->position = from_le64 (superblock->journal_position);
  replay->half = from_le32 (superblock->journal_half);
  replay->head = 0;
  replay->sequence = replay->half_sequence = from_le64 (superblock->journal_sequence);
  replay->chain = replay->half_chain = from_le64 (superblock->journal_chain);
  while (error == 0) {
    struct format_record *record = replay_next_at (replay, replay->half, replay->head);

    if (record == NULL && replay->half == from_le32 (superblock->journal_half)) {
      record = replay_next_at (replay, replay->half ^ 1, 0);
      if (record != NULL) {
        replay->half ^= 1;
        replay->head = 0;
        replay->half_sequence = replay->sequence;
        replay->half_chain = replay->chain;
      }
    }
    if (record == NULL)
      break;
    error = replay_record (replay, record);
  }
  if (error == 0)
    error = replay_check_read (replay);
  return error != 0 ? error : replay_check_end (replay);
}

int
replay_tail (struct replay *replay, struct arena *arena)
{
  uint64_t start = MAX (atomic_load (&arena->header->tail_start), replay->recorded);
  uint64_t end = atomic_load (&arena->header->tail_end), count;
  struct journal tail = { .arena = arena };
  uint8_t *items;
  int error;

  CHECK (end >= start);
  count = end - start;
  items = malloc (MAX (count, 8));
  if (items == NULL)
    return error_set (replay->error, -ENOMEM, "there is not enough memory to replay the arena");
  journal_copy (&tail, start, end, items);
  replay->is_tail = true;
  error = replay_items (replay, items, count, start);
  free (items);
  /* The record may have become durable just before the process ended. */
  atomic_store (&arena->header->tail_start, start);
  return error;
}

int
replay_settle (struct replay *replay)
{
  if (replay->is_out_of_memory || replay_data_settle (&replay->data) != 0)
    return error_set (replay->error, -ENOMEM, "there is not enough memory to replay the journal");
  return 0;
}

void
replay_end (struct replay *replay)
{
  free (replay->halves);
  free (replay->is_lost);
  replay_data_free (&replay->data);
  free (replay->freed);
}
