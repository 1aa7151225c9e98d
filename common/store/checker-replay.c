/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-replay.c - what the journal's items do to disks, maps and DATA
 * (lacuna-format(5), Items).
 *
 * Items about disks take effect at once.  Those about blocks become changes of ranges, which are
 * *painted* when all are known: cut into pieces that do not overlap, on each the latest one.
 * Painted over a map they give the map after the replay. */
#include <inttypes.h>
#include <stdlib.h>

#include "store/checker-internal.h"

#define ITEM 40
#define ITEM_WITH_ID 56
#define ITEM_NAME_AT 74
#define ITEM_CLONE_BYTES 72

struct item {
  unsigned kind;
  size_t bytes;
  uint32_t flags;
  uint64_t disk, block, length, place;
  const uint8_t *more;               /* CREATE, RENAME, CLONE: the item itself */
};

void
checker_change_add (struct checker_changes *changes, struct checker_change change)
{
  changes->items = checker_array_add (changes->items, &changes->count, &changes->max,
                                      sizeof *changes->items);
  changes->items[changes->count - 1] = change;
}

/* --- single items --- */

/* The effect on DATA; also that of items which the trees have already. */
static void
item_change_data (struct checker *checker, const struct item *item)
{
  struct checker_change change = {
    .disk = item->disk,
    .first = item->block,
    .end = item->block + item->length,
    .order = checker->item_count,
    .state = item->kind == CHECKER_DATA ? CHECKER_WRITTEN : CHECKER_HOLE,
  };

  switch (item->kind) {
  case CHECKER_RESIZE:
    change.first = item->length / CHECKER_BLOCK;
    change.end = UINT64_MAX;
    break;
  case CHECKER_DELETE:
    change.first = 0;
    change.end = UINT64_MAX;
    break;
  case CHECKER_COLLAPSE:
  case CHECKER_INSERT:
    change.end = UINT64_MAX;
    break;
  case CHECKER_UNMAP:
  case CHECKER_RETIRE:
  case CHECKER_CLONE:
  case CHECKER_DATA:
    break;
  default:
    return;
  }
  checker_change_add (&checker->data_changes, change);
}

unsigned
checker_shift_parts (const struct checker_shift *shift, uint64_t first, uint64_t end,
                     struct checker_range parts[2], uint64_t skipped[2])
{
  uint64_t from = shift->is_up ? shift->block : shift->block + shift->length, start;
  uint64_t delta = shift->is_up ? shift->length : -shift->length;
  unsigned count = 0;

  if (first < shift->block) {
    skipped[count] = 0;
    parts[count++] = (struct checker_range) { first, end < shift->block ? end : shift->block };
  }
  if (end > from) {
    start = first > from ? first : from;
    skipped[count] = start - first;
    /* What has no end has none afterwards. */
    parts[count++] = (struct checker_range) { start + delta,
                                              end == UINT64_MAX ? UINT64_MAX : end + delta };
  }
  return count;
}

/* Moves what is known to happen to the map: the changes, now; the trees' extents, when they are
 * walked. */
static void
item_shift (struct checker *checker, const struct item *item, uint64_t size)
{
  struct checker_changes *changes = &checker->map_changes;
  struct checker_shift shift = {
    .disk = item->disk,
    .block = item->block,
    .length = item->length,
    .is_up = item->kind == CHECKER_INSERT,
  };
  size_t count;

  /* The trees may still have what a shrink before freed, without an item. */
  if (shift.is_up)
    checker_change_add (changes, (struct checker_change) {
                           .disk = item->disk, .first = size / CHECKER_BLOCK, .end = UINT64_MAX,
                           .order = checker->item_count, .state = CHECKER_HOLE });
  count = changes->count;
  for (size_t i = 0; i < count; ++i) {
    struct checker_change change = changes->items[i];
    struct checker_range parts[2];
    uint64_t skipped[2];
    unsigned parts_count;

    if (change.disk != item->disk)
      continue;
    parts_count = checker_shift_parts (&shift, change.first, change.end, parts, skipped);
    changes->items[i].end = changes->items[i].first;        /* nothing */
    for (unsigned p = 0; p < parts_count; ++p) {
      struct checker_change part = change;

      part.first = parts[p].first;
      part.end = parts[p].end;
      part.place += skipped[p];
      if (p == 0)
        changes->items[i] = part;
      else
        checker_change_add (changes, part);
    }
  }
  checker->shifts = checker_array_add (checker->shifts, &checker->shift_count,
                                       &checker->shift_max, sizeof *checker->shifts);
  checker->shifts[checker->shift_count - 1] = shift;
}

/* SIZE: the disk's before this item. */
static void
item_change_map (struct checker *checker, const struct item *item, uint64_t size)
{
  struct checker_change change = {
    .disk = item->disk,
    .first = item->block,
    .end = item->block + item->length,
    .place = item->place,
    .order = checker->item_count,
    .state = CHECKER_HOLE,
    .origin = CHECKER_BY_MAP,
  };

  switch (item->kind) {
  case CHECKER_COLLAPSE:
  case CHECKER_INSERT:
    item_shift (checker, item, size);
    return;
  case CHECKER_MAP:
    change.state = item->flags == 1 ? CHECKER_UNWRITTEN : CHECKER_WRITTEN;
    break;
  case CHECKER_RESIZE:
    /* The trees may still have what a shrink before freed, without an item. */
    change.first = (item->length < size ? item->length : size) / CHECKER_BLOCK;
    change.end = UINT64_MAX;
    break;
  case CHECKER_DELETE:
    change.first = 0;
    change.end = UINT64_MAX;
    break;
  case CHECKER_UNMAP:
    break;
  default:
    return;
  }
  checker_change_add (&checker->map_changes, change);
}

static const char *
item_name_fault (struct checker *checker, const struct item *item, struct checker_disk *disk,
                 const char **name)
{
  static char text[CHECKER_NAME_MAX + 1];
  size_t length = item->bytes < ITEM_NAME_AT ? SIZE_MAX : checker_u16 (item->more + 72);
  const char *fault;

  if (length > item->bytes - ITEM_NAME_AT || item->bytes != (ITEM_NAME_AT + length + 7) / 8 * 8)
    return "its length is wrong";
  fault = checker_name_fault (item->more + ITEM_NAME_AT, length);
  if (fault != NULL)
    return fault;
  memcpy (text, item->more + ITEM_NAME_AT, length);
  text[length] = '\0';
  *name = text;
  return checker_disk_named (checker, text, disk) != NULL ? "another disk has the same name" : NULL;
}

static const char *
item_create (struct checker *checker, const struct item *item)
{
  struct checker_disk *disk;
  const char *name = "", *fault = item_name_fault (checker, item, NULL, &name);

  if (fault != NULL)
    return fault;
  if (checker_disk_find (checker, item->disk) != NULL || item->disk == 0)
    return "the id was given before";
  checker->disks = checker_array_add (checker->disks, &checker->disk_count, &checker->disk_max,
                                      sizeof *checker->disks);
  disk = &checker->disks[checker->disk_count - 1];
  *disk = (struct checker_disk) {
    .id = item->disk,
    .node_place = CHECKER_NO_PLACE,
    .size = checker_u64 (item->more + 56),
  };
  strcpy (disk->name, name);
  if (disk->size % CHECKER_BLOCK != 0 || disk->size > CHECKER_SIZE_MAX)
    return "the size is out of its limits";
  return NULL;
}

static bool
range_fits (const struct checker_disk *disk, uint64_t block, uint64_t length)
{
  uint64_t limit = disk->size / CHECKER_BLOCK;

  return block < limit && length <= limit - block;
}

/* Items with a range (invariant 13). */
static const char *
item_range_fault (struct checker *checker, const struct item *item,
                  const struct checker_disk *disk)
{
  bool must_fit = item->kind == CHECKER_MAP || item->kind == CHECKER_DATA;

  if (must_fit && !range_fits (disk, item->block, item->length))
    return "it lies beyond the disk's size";
  if (item->kind != CHECKER_MAP)
    return NULL;
  if (item->flags != 1 && item->flags != 2)
    return "its flags are wrong";
  return checker_run_fault (checker, item->place, item->length, item->flags == 2);
}

static const char *
item_shift_fault (const struct item *item, const struct checker_disk *disk)
{
  uint64_t blocks = disk->size / CHECKER_BLOCK, limit = CHECKER_SIZE_MAX / CHECKER_BLOCK;

  if (disk->is_dying)
    return "the disk was deleted";
  if (item->block > blocks
      || (item->kind == CHECKER_COLLAPSE && item->length > blocks - item->block))
    return "it lies beyond the disk's size";
  if (item->kind == CHECKER_INSERT && item->length > limit - blocks)
    return "the size is out of its limits";
  return NULL;
}

/* The target's range gets what the source has written in its own at this point of the journal, and
 * holes between. */
static void
item_change_clone (struct checker *checker, const struct item *item, struct checker_disk *source,
                   uint64_t from)
{
  struct checker_change change = {
    .disk = item->disk, .order = checker->item_count, .origin = CHECKER_BY_CLONE,
  };
  struct checker_change *pieces;
  size_t count = checker_map_now (checker, source, from, from + item->length, &pieces);
  uint64_t at = item->block;

  for (size_t i = 0; i < count; ++i) {
    uint64_t first = pieces[i].first - from + item->block;

    if (pieces[i].state != CHECKER_WRITTEN)
      continue;
    change.first = at;
    change.end = first;
    change.state = CHECKER_HOLE;
    if (change.first < change.end)
      checker_change_add (&checker->map_changes, change);
    change.first = first;
    change.end = at = first + (pieces[i].end - pieces[i].first);
    change.place = pieces[i].place;
    change.state = CHECKER_WRITTEN;
    checker_change_add (&checker->map_changes, change);
  }
  change.first = at;
  change.end = item->block + item->length;
  change.state = CHECKER_HOLE;
  if (change.first < change.end)
    checker_change_add (&checker->map_changes, change);
  free (pieces);
}

static const char *
item_clone (struct checker *checker, const struct item *item, const struct checker_disk *target)
{
  struct checker_disk *source = checker_disk_find (checker, checker_u64 (item->more + 40));
  uint64_t from = checker_u64 (item->more + 48), length = item->length;
  struct checker_change *data;
  size_t count, i;

  if (source == NULL)
    return checker->has_damaged_catalogue ? NULL : "there is no such disk as its source";
  if (target->is_dying || source->is_dying || source->is_forgotten)
    return "a disk was deleted";
  if (!range_fits (target, item->block, length) || !range_fits (source, from, length))
    return "it lies beyond a disk's size";
  if (source == target && from < item->block + length && item->block < from + length)
    return "the two ranges overlap";
  checker_changes_sort (&checker->data_changes);
  count = checker_paint (&checker->data_changes, source->id, &data);
  for (i = checker_painted_after (data, count, from); i < count; ++i)
    if (data[i].first < from + length && data[i].state != CHECKER_HOLE)
      break;
  free (data);
  if (i < count)
    return "there is data of the source that it does not have";
  item_change_clone (checker, item, source, from);
  return NULL;
}

/* An item that the trees do not have yet: its effect on disks and maps; NULL, or what is wrong. */
static const char *
item_apply (struct checker *checker, const struct item *item)
{
  struct checker_disk *disk = checker_disk_find (checker, item->disk);
  const char *fault = NULL, *name;
  uint64_t size;

  if (item->kind == CHECKER_CREATE)
    return item_create (checker, item);
  if (disk == NULL)
    return checker->has_damaged_catalogue ? NULL : "there is no such disk";
  if (disk->is_forgotten)
    return "the disk is gone";
  size = disk->size;
  switch (item->kind) {
  case CHECKER_RENAME:
    fault = item_name_fault (checker, item, disk, &name);
    if (fault == NULL && disk->is_dying)
      fault = "the disk was deleted";
    if (fault == NULL)
      strcpy (disk->name, name);
    break;
  case CHECKER_RESIZE:
    if (disk->is_dying)
      return "the disk was deleted";
    if (item->length % CHECKER_BLOCK != 0 || item->length > CHECKER_SIZE_MAX)
      return "the size is out of its limits";
    disk->size = item->length;
    break;
  case CHECKER_COLLAPSE:
  case CHECKER_INSERT:
    fault = item_shift_fault (item, disk);
    if (fault != NULL)
      return fault;
    disk->size += (item->kind == CHECKER_INSERT ? item->length : -item->length) * CHECKER_BLOCK;
    break;
  case CHECKER_DELETE:
    if (disk->is_dying)
      return "the disk was deleted before";
    disk->is_dying = true;
    disk->size = 0;
    disk->name[0] = '\0';
    break;
  case CHECKER_FORGET:
    if (!disk->is_dying)
      return "the disk was not deleted";
    disk->is_forgotten = true;
    break;
  case CHECKER_CLONE:
    return item_clone (checker, item, disk);
  default:
    fault = item_range_fault (checker, item, disk);
  }
  if (fault == NULL)
    item_change_map (checker, item, size);
  return fault;
}

/* --- records --- */

static struct item
item_decode (const uint8_t *at)
{
  return (struct item) {
    .kind = checker_u16 (at),
    .bytes = checker_u16 (at + 2),
    .flags = checker_u32 (at + 4),
    .disk = checker_u64 (at + 8),
    .block = checker_u64 (at + 16),
    .length = checker_u64 (at + 24),
    .place = checker_u64 (at + 32),
    .more = at,
  };
}

static const char *
item_form_fault (const struct item *item, size_t bytes)
{
  bool has_more = item->kind == CHECKER_CREATE || item->kind == CHECKER_RENAME;
  bool has_id = item->kind == CHECKER_COLLAPSE || item->kind == CHECKER_INSERT;
  bool has_range = item->kind == CHECKER_MAP || item->kind == CHECKER_UNMAP
                   || item->kind == CHECKER_RETIRE || item->kind == CHECKER_DATA || has_id
                   || item->kind == CHECKER_CLONE;

  if (item->kind < CHECKER_MAP || item->kind > CHECKER_CLONE)
    return "is of an unknown kind";
  has_more |= item->kind == CHECKER_CLONE;
  if (item->kind == CHECKER_CLONE && item->bytes != ITEM_CLONE_BYTES)
    return "its length is wrong";
  if (item->bytes < ITEM || item->bytes > bytes || item->bytes % 8 != 0
      || (!has_more && item->bytes != (has_id ? ITEM_WITH_ID : ITEM)))
    return "its length is wrong";
  if (has_range && (item->length == 0 || item->block + item->length < item->block))
    return "its range is empty or too long";
  return NULL;
}

size_t
checker_data_item_bytes (const uint8_t *items, size_t bytes)
{
  size_t data = 0;

  for (size_t at = 0; bytes - at >= ITEM;) {
    struct item item = item_decode (items + at);

    if (item_form_fault (&item, bytes - at) != NULL)
      break;
    if (item.kind == CHECKER_DATA)
      data += item.bytes;
    at += item.bytes;
  }
  return data;
}

static void
replay_find (struct checker *checker, uint64_t place, const struct item *item, const char *fault)
{
  static const char *const kinds[] = {
    "?", "MAP", "UNMAP", "RETIRE", "CREATE", "RENAME", "RESIZE", "DELETE", "FORGET", "DATA",
    "COLLAPSE", "INSERT", "CLONE",
  };
  struct checker_where where = { "journal record", place, checker_disk_find (checker, item->disk) };

  checker_find (checker, CHECKER_DAMAGE, where, "the state after the replay is not to be trusted",
                "item %s of disk %" PRIu64 ", block %" PRIu64 ", length %" PRIu64
                ", place %" PRIu64 ": %s",
                item->kind < sizeof kinds / sizeof kinds[0] ? kinds[item->kind] : "?", item->disk,
                item->block, item->length, item->place, fault);
}

void
checker_replay_record (struct checker *checker, uint64_t place, uint64_t position,
                       const uint8_t *items, size_t bytes, uint64_t data_count)
{
  struct checker_where where = { "journal record", place, NULL };
  uint64_t data = 0;
  bool had_data = false;

  for (size_t at = 0; at < bytes;) {
    struct item item = { .disk = 0 };
    const char *fault = "its length is wrong";

    if (bytes - at >= ITEM) {
      item = item_decode (items + at);
      fault = item_form_fault (&item, bytes - at);
    }
    if (fault != NULL) {
      replay_find (checker, place, &item, fault);
      return;
    }
    ++checker->item_count;
    if (had_data && item.kind != CHECKER_DATA)
      replay_find (checker, place, &item, "it stands behind DATA");
    had_data |= item.kind == CHECKER_DATA;
    /* DATA has no position: it is always new. */
    if (item.kind == CHECKER_DATA)
      data += item.length;
    else if (position < checker->super.journal_position)
      fault = NULL;
    else
      fault = item_apply (checker, &item);
    if (fault != NULL)
      replay_find (checker, place, &item, fault);
    item_change_data (checker, &item);
    if (item.kind != CHECKER_DATA)
      position += item.bytes;
    at += item.bytes;
  }
  if (data != data_count)
    checker_find (checker, CHECKER_DAMAGE, where, NULL,
                  "its DATA items cover %" PRIu64 " blocks, it has %" PRIu64, data, data_count);
}

/* --- painting --- */

static int
change_compare (const void *a, const void *b)
{
  const struct checker_change *x = a, *y = b;

  if (x->disk != y->disk)
    return x->disk < y->disk ? -1 : 1;
  if (x->first != y->first)
    return x->first < y->first ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

void
checker_changes_sort (struct checker_changes *changes)
{
  if (changes->count > 0)
    qsort (changes->items, changes->count, sizeof *changes->items, change_compare);
}

/* Changes that cover the place the brush is at, or ended before it: a heap, the latest on top. */
struct brush {
  const struct checker_change **heap;
  size_t count, max;
};

static void
brush_add (struct brush *brush, const struct checker_change *change)
{
  size_t i;

  brush->heap = checker_array_add (brush->heap, &brush->count, &brush->max, sizeof *brush->heap);
  for (i = brush->count - 1; i > 0 && brush->heap[(i - 1) / 2]->order < change->order;
       i = (i - 1) / 2)
    brush->heap[i] = brush->heap[(i - 1) / 2];
  brush->heap[i] = change;
}

static void
brush_drop (struct brush *brush)
{
  const struct checker_change *last = brush->heap[--brush->count];
  size_t i = 0, child;

  while ((child = 2 * i + 1) < brush->count) {
    if (child + 1 < brush->count && brush->heap[child + 1]->order > brush->heap[child]->order)
      ++child;
    if (brush->heap[child]->order <= last->order)
      break;
    brush->heap[i] = brush->heap[child];
    i = child;
  }
  brush->heap[i] = last;
}

/* The first change of DISK. */
static size_t
changes_of (const struct checker_changes *changes, uint64_t disk)
{
  size_t low = 0, high = changes->count;

  while (low < high) {
    size_t middle = low + (high - low) / 2;

    if (changes->items[middle].disk < disk)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

size_t
checker_paint (const struct checker_changes *changes, uint64_t disk,
               struct checker_change **result)
{
  struct checker_changes painted = { 0 };
  struct brush brush = { 0 };
  size_t i = changes_of (changes, disk), end = i;
  uint64_t at = 0;

  while (end < changes->count && changes->items[end].disk == disk)
    ++end;
  while (i < end || brush.count > 0) {
    struct checker_change piece;

    if (brush.count == 0)
      at = changes->items[i].first;
    for (; i < end && changes->items[i].first <= at; ++i)
      brush_add (&brush, &changes->items[i]);
    while (brush.count > 0 && brush.heap[0]->end <= at)
      brush_drop (&brush);
    if (brush.count == 0)
      continue;
    piece = *brush.heap[0];
    if (piece.state != CHECKER_HOLE)
      piece.place += at - piece.first;
    piece.first = at;
    if (i < end && changes->items[i].first < piece.end)
      piece.end = changes->items[i].first;
    checker_change_add (&painted, piece);
    at = piece.end;
  }
  free (brush.heap);
  *result = painted.items;
  return painted.count;
}

size_t
checker_painted_after (const struct checker_change *painted, size_t count, uint64_t block)
{
  size_t low = 0, high = count;

  while (low < high) {
    size_t middle = low + (high - low) / 2;

    if (painted[middle].end <= block)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* Invariant 14 for disks that do not exist: DATA that remains of them. */
static void
judge_orphans (struct checker *checker)
{
  const struct checker_changes *changes = &checker->data_changes;

  for (size_t i = 0; i < changes->count; ++i) {
    const struct checker_disk *disk = checker_disk_find (checker, changes->items[i].disk);
    struct checker_change *painted;
    uint64_t left = 0;
    size_t count;

    if (i > 0 && changes->items[i - 1].disk == changes->items[i].disk)
      continue;
    if (disk != NULL ? !disk->is_forgotten : checker->has_damaged_catalogue)
      continue;
    count = checker_paint (changes, changes->items[i].disk, &painted);
    for (size_t k = 0; k < count; ++k)
      if (painted[k].state != CHECKER_HOLE)
        left += painted[k].end - painted[k].first;
    free (painted);
    if (left > 0)
      checker_find (checker, CHECKER_DAMAGE,
                    (struct checker_where) { "journal", CHECKER_NO_PLACE, NULL }, NULL,
                    "data for %" PRIu64 " blocks remains of disk %" PRIu64
                    ", which does not exist",
                    left, changes->items[i].disk);
  }
}

void
checker_replay_end (struct checker *checker)
{
  struct checker_where where = { "journal", CHECKER_NO_PLACE, NULL };
  uint64_t node_count = checker->node_count, room;

  checker_changes_sort (&checker->map_changes);
  checker_changes_sort (&checker->data_changes);
  judge_orphans (checker);
  checker_set_clear (&checker->nodes);
  checker_maps (checker, true);
  checker->node_count = node_count;
  checker_owners (checker, true);
  room = checker_data_blocks (checker);
  if (room < checker->owned || room - checker->owned < checker->homeless)
    checker_find (checker, CHECKER_DAMAGE, where, "acknowledged writes cannot be given a place",
                  "has data for %" PRIu64 " blocks that are not mapped, and the store has no room",
                  checker->homeless);
}
