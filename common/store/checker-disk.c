/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-disk.c - the catalogue, the disks in it, their maps, and the table of shared runs. */
#include <inttypes.h>
#include <stdlib.h>

#include "store/checker-internal.h"

#define KIND_MAP_LEAF 0x4c70614d
#define KIND_MAP_INNER 0x4970614d
#define KIND_CATALOGUE_LEAF 0x4c746143
#define KIND_CATALOGUE_INNER 0x49746143
#define KIND_SHARED_LEAF 0x4c726853
#define KIND_SHARED_INNER 0x49726853
#define KIND_DISK 0x6b736944

#define KEY_SHIFT 13
#define FLAG_DYING 1
#define FLAG_STALE 2
#define NAME_AT 130

/* --- disks --- */

struct checker_disk *
checker_disk_find (struct checker *checker, uint64_t id)
{
  /* The journal's items mostly come in series about one disk. */
  if (checker->disk_last < checker->disk_count && checker->disks[checker->disk_last].id == id)
    return &checker->disks[checker->disk_last];
  for (size_t i = 0; i < checker->disk_count; ++i)
    if (checker->disks[i].id == id) {
      checker->disk_last = i;
      return &checker->disks[i];
    }
  return NULL;
}

struct checker_disk *
checker_disk_named (struct checker *checker, const char *name, const struct checker_disk *except)
{
  for (size_t i = 0; i < checker->disk_count; ++i) {
    struct checker_disk *disk = &checker->disks[i];

    if (disk != except && !disk->is_dying && !disk->is_forgotten && strcmp (disk->name, name) == 0)
      return disk;
  }
  return NULL;
}

/* Bytes of the UTF-8 sequence at NAME; 0: there is none. */
static size_t
utf8_length (const uint8_t *name, size_t length)
{
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  size_t bytes = name[0] < 0x80             ? 1
                 : (name[0] & 0xe0) == 0xc0 ? 2
                 : (name[0] & 0xf0) == 0xe0 ? 3
                 : (name[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
  uint32_t code;

  if (bytes <= 1 || bytes > length)
    return bytes > length ? 0 : bytes;
  code = name[0] & (0x7f >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((name[i] & 0xc0) != 0x80)
      return 0;
    code = code << 6 | (name[i] & 0x3f);
  }
  if (code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
    return 0;
  return bytes;
}

const char *
checker_name_fault (const uint8_t *name, size_t length)
{
  if (length == 0)
    return "the name is empty";
  if (length > CHECKER_NAME_MAX)
    return "the name is too long";
  for (size_t i = 0; i < length;) {
    size_t bytes = utf8_length (name + i, length - i);

    if (bytes == 0)
      return "the name is not UTF-8";
    /* C0, DEL, and C1, which UTF-8 has as C2 80 .. C2 9F */
    if (name[i] < 0x20 || name[i] == 0x7f
        || (bytes == 2 && name[i] == 0xc2 && name[i + 1] < 0xa0))
      return "the name has control characters";
    i += bytes;
  }
  return NULL;
}

/* Invariant 6, for a disk node whose copies are valid. */
static const char *
disk_decode (struct checker *checker, const uint8_t *image, struct checker_disk *disk)
{
  uint64_t flags = checker_u64 (image + 88);
  size_t length = checker_u16 (image + 128);
  const char *fault;

  disk->size = checker_u64 (image + 80);
  disk->map = (struct checker_pointer) { checker_u64 (image + 104), checker_u64 (image + 112) };
  disk->mapped = checker_u64 (image + 120);
  disk->data_end = checker_u64 (image + 648);
  disk->is_dying = flags & FLAG_DYING;
  disk->is_stale = disk->has_damaged_map = flags & FLAG_STALE;
  if (length <= CHECKER_NAME_MAX)
    memcpy (disk->name, image + NAME_AT, length);
  if (checker_u16 (image + 4) != 0 || checker_u16 (image + 6) != 1)
    return "level and count are not 0 and 1";
  if (flags & ~(uint64_t) (FLAG_DYING | FLAG_STALE))
    return "has unknown flags";
  if (disk->size % CHECKER_BLOCK != 0 || disk->size > CHECKER_SIZE_MAX)
    return "the size is out of its limits";
  if (disk->is_dying)
    return length != 0 || disk->size != 0 ? "is dying but has a name or a size" : NULL;
  fault = checker_name_fault (image + NAME_AT, length);
  if (fault != NULL)
    return fault;
  if (checker_disk_named (checker, disk->name, disk) != NULL)
    return "another disk has the same name";
  return NULL;
}

/* What its map says is not to be trusted: it was not read when the journal had changes of it, which
 * are gone.  A repair leaves an empty one. */
static void
disk_stale (struct checker *checker, struct checker_disk *disk, uint8_t *image)
{
  checker_find (checker, CHECKER_DAMAGE,
                (struct checker_where) { "map", CHECKER_NO_PLACE, disk },
                "it is not known what the disk holds",
                "could not be read when the store was in use, and changes of it are lost");
  if (checker->plan == NULL)
    return;
  checker_put (image + 88, 0, 8);
  memset (image + 104, 0, 24);
  checker_fix_node (checker, true, disk->node_place, image);
  checker_fix_tell (checker, true, "map of disk '%s': all of it", disk->name);
}

/* What disks [FIRST, LAST] are is not known, or whether there are any. */
static void
disks_lost (struct checker *checker, uint64_t first, uint64_t last)
{
  checker->has_damaged_catalogue = true;
  checker->lost = checker_array_add (checker->lost, &checker->lost_count, &checker->lost_max,
                                     sizeof *checker->lost);
  checker->lost[checker->lost_count - 1] = (struct checker_range) { first, last };
}

bool
checker_disk_is_lost (struct checker *checker, uint64_t id)
{
  if (id >= checker->super.next_disk_id || checker_disk_find (checker, id) != NULL)
    return false;
  for (size_t i = 0; i < checker->lost_count; ++i)
    if (id >= checker->lost[i].first && id <= checker->lost[i].end)
      return true;
  return false;
}

static bool
disk_entry (struct checker *checker, const struct checker_tree *tree, uint64_t place, uint64_t id,
            uint64_t node_place)
{
  struct checker_where where = { "disk node", node_place, NULL };
  struct checker_disk *disk;
  const char *fault;
  char consequence[80];
  uint8_t image[CHECKER_BLOCK];

  if (id == 0 || id >= checker->super.next_disk_id)
    checker_find (checker, CHECKER_DAMAGE,
                  (struct checker_where) { tree->leaf_name, place, NULL }, NULL,
                  "has disk %" PRIu64 ", an id that was not given yet", id);
  snprintf (consequence, sizeof consequence, "disk %" PRIu64 " is lost", id);
  if (!checker_node_load (checker, where, KIND_DISK, id, NULL, consequence, image)) {
    disks_lost (checker, id, id);
    checker_fix_tell (checker, true, "disk node at place %" PRIu64 ": left out; %s", node_place,
                      consequence);
    return false;
  }
  checker->disks = checker_array_add (checker->disks, &checker->disk_count, &checker->disk_max,
                                      sizeof *checker->disks);
  disk = &checker->disks[checker->disk_count - 1];
  *disk = (struct checker_disk) { .id = id, .node_place = node_place };
  fault = disk_decode (checker, image, disk);
  where.disk = disk;
  if (fault != NULL)
    checker_find (checker, CHECKER_DAMAGE, where, NULL, "%s", fault);
  if (disk->is_stale)
    disk_stale (checker, disk, image);
  return true;
}

static void
catalogue_lost (struct checker *checker, const struct checker_tree *tree, uint64_t low,
                uint64_t high, char *consequence, size_t size)
{
  uint64_t last = checker->super.next_disk_id;

  (void) tree;
  if (low < 1)
    low = 1;
  if (high >= last)
    high = last - 1;
  if (low > high)
    snprintf (consequence, size, "no disk is known to be lost");
  else
    snprintf (consequence, size, "disks with ids %" PRIu64 " to %" PRIu64 " are lost", low, high);
}

/* A tree of the superblock's has another root after the repair. */
static void
checker_root_fix (struct checker *checker, struct checker_pointer *root,
                  struct checker_pointer now)
{
  checker->needs_superblock |= now.place != root->place || now.checksum != root->checksum;
  *root = now;
}

void
checker_disks (struct checker *checker)
{
  const struct checker_tree tree = {
    .root_name = "catalogue root",
    .inner_name = "catalogue node",
    .leaf_name = "catalogue leaf",
    .leaf_kind = KIND_CATALOGUE_LEAF,
    .inner_kind = KIND_CATALOGUE_INNER,
    .entry = disk_entry,
    .lost = catalogue_lost,
    .is_damaged = &checker->has_damaged_catalogue,
    .dropped = disks_lost,
  };

  checker_root_fix (checker, &checker->super.catalogue,
                    checker_tree_walk (checker, &tree, checker->super.catalogue));
}

/* --- shared runs --- */

static bool
shared_entry (struct checker *checker, const struct checker_tree *tree, uint64_t place,
              uint64_t key, uint64_t value)
{
  struct checker_where where = { tree->leaf_name, place, NULL };
  struct checker_shared run = { key, value >> 32, value & UINT32_MAX };
  const struct checker_shared *last
    = checker->shared_count == 0 ? NULL : &checker->shared[checker->shared_count - 1];
  const char *fault = run.length == 0 ? "has length 0" : NULL;

  if (fault == NULL)
    fault = checker_run_fault (checker, run.place, run.length, false);
  if (fault == NULL && run.owners < 2)
    fault = "has fewer than 2 owners";
  if (fault == NULL && run.owners > INT32_MAX)
    fault = "has more owners than there can be";
  if (fault == NULL && last != NULL && last->place + last->length > run.place)
    fault = "overlaps the one before it";
  if (fault != NULL) {
    checker->is_shared_wrong = true;
    checker_find (checker, CHECKER_DAMAGE, where, NULL,
                  "shared run %" PRIu64 "+%" PRIu64 ": %s", run.place, run.length, fault);
    return true;
  }
  checker->shared = checker_array_add (checker->shared, &checker->shared_count,
                                       &checker->shared_max, sizeof *checker->shared);
  checker->shared[checker->shared_count - 1] = run;
  return true;
}

static void
shared_lost (struct checker *checker, const struct checker_tree *tree, uint64_t low, uint64_t high,
             char *consequence, size_t size)
{
  (void) checker;
  (void) tree;
  snprintf (consequence, size,
            "who shares blocks in places %" PRIu64 " to %" PRIu64 " is not known", low, high);
}

void
checker_shared_runs (struct checker *checker)
{
  const struct checker_tree tree = {
    .root_name = "root of the shared runs",
    .inner_name = "node of the shared runs",
    .leaf_name = "leaf of the shared runs",
    .leaf_kind = KIND_SHARED_LEAF,
    .inner_kind = KIND_SHARED_INNER,
    .entry = shared_entry,
    .lost = shared_lost,
    .is_damaged = &checker->has_damaged_shared,
  };

  checker_root_fix (checker, &checker->super.shared,
                    checker_tree_walk (checker, &tree, checker->super.shared));
}

/* --- maps --- */

/* What the walk of one map needs. */
struct map_walk {
  struct checker_disk *disk;
  uint64_t end;                    /* of the extent before */
  bool is_replayed;
  struct checker_change *painted;  /* the journal's changes, on top of the map */
  size_t painted_count;
  struct checker_change *data;     /* what is in the journal's DATA */
  size_t data_count;
  uint64_t data_mapped;            /* blocks of it that are mapped too */
};

/* Gives a piece of the final map to its owner. */
static void
map_own (struct checker *checker, struct map_walk *walk, uint64_t first, uint64_t end,
         uint64_t place, const struct checker_change *change)
{
  size_t i = checker_painted_after (walk->data, walk->data_count, first);

  checker_run_add (checker, place, first, end - first, walk->disk, change);
  for (; i < walk->data_count && walk->data[i].first < end; ++i) {
    uint64_t from = walk->data[i].first > first ? walk->data[i].first : first;
    uint64_t to = walk->data[i].end < end ? walk->data[i].end : end;

    if (walk->data[i].state != CHECKER_HOLE)
      walk->data_mapped += to - from;
  }
}

/* An extent of the trees: those parts of it count that no change covers and that lie within the
 * disk.  (Of a disk that is gone all count: there must be none.) */
static void
map_own_uncovered (struct checker *checker, struct map_walk *walk, uint64_t first, uint64_t end,
                   uint64_t place)
{
  size_t i = checker_painted_after (walk->painted, walk->painted_count, first);
  uint64_t at = first;
  uint64_t limit = walk->disk->is_forgotten ? UINT64_MAX : walk->disk->size / CHECKER_BLOCK;

  if (end > limit)
    end = limit;
  while (at < end) {
    uint64_t next = i < walk->painted_count ? walk->painted[i].first : UINT64_MAX;

    if (next > at)
      map_own (checker, walk, at, next < end ? next : end, place + (at - first), NULL);
    if (i == walk->painted_count)
      return;
    at = walk->painted[i++].end;
  }
}

/* The same, for an extent that items may have moved: from the SHIFT-th shift on. */
static void
map_own_shifted (struct checker *checker, struct map_walk *walk, uint64_t first, uint64_t end,
                 uint64_t place, size_t shift)
{
  struct checker_range parts[2];
  uint64_t skipped[2];
  unsigned count;

  while (shift < checker->shift_count && checker->shifts[shift].disk != walk->disk->id)
    ++shift;
  if (shift == checker->shift_count) {
    map_own_uncovered (checker, walk, first, end, place);
    return;
  }
  count = checker_shift_parts (&checker->shifts[shift], first, end, parts, skipped);
  for (unsigned p = 0; p < count; ++p)
    map_own_shifted (checker, walk, parts[p].first, parts[p].end, place + skipped[p], shift + 1);
}

/* Invariants 7 and 8 for one extent. */
static bool
map_entry (struct checker *checker, const struct checker_tree *tree, uint64_t node, uint64_t key,
           uint64_t value)
{
  struct map_walk *walk = tree->arg;
  struct checker_disk *disk = walk->disk;
  struct checker_where where = { tree->leaf_name, node, disk };
  uint64_t first = key >> KEY_SHIFT, place = value >> 22, length = (value & 0x3fffff) + 1;
  uint64_t limit = disk->size / CHECKER_BLOCK;
  bool is_written = (key & 1) == 0;
  const char *fault = checker_run_fault (checker, place, length, is_written);

  if (fault == NULL && (key & 0x1ffe) != 0)
    fault = "has bits set that must be clear";
  if (fault == NULL && first < walk->end)
    fault = "overlaps the one before it";
  if (fault == NULL && disk->data_end != 0 && place + length > disk->data_end)
    fault = "it lies beyond what the disk node says";
  if (fault != NULL)
    checker_find (checker, CHECKER_DAMAGE, where, "what the disk has there is not to be trusted",
                  "extent of blocks %" PRIu64 "+%" PRIu64 " at place %" PRIu64 ": %s", first,
                  length, place, fault);
  walk->end = first + length;
  disk->found += length;
  if (first + length > limit)
    disk->beyond += first + length - (first > limit ? first : limit);
  /* A run that is not data would be reported again with each of its neighbours. */
  if (checker_run_fault (checker, place, length, false) != NULL)
    return true;
  if (walk->is_replayed)
    map_own_shifted (checker, walk, first, first + length, place, 0);
  else {
    ++checker->extent_count;
    checker_run_add (checker, place, first, length, disk, NULL);
  }
  return true;
}

static void
map_lost (struct checker *checker, const struct checker_tree *tree, uint64_t low, uint64_t high,
          char *consequence, size_t size)
{
  const struct checker_disk *disk = tree->disk;
  uint64_t blocks = disk->size / CHECKER_BLOCK, first = low >> KEY_SHIFT, last = high >> KEY_SHIFT;

  (void) checker;
  if (last >= blocks)
    last = blocks - 1;
  if (blocks == 0 || first >= blocks)
    snprintf (consequence, size, "what of the store it holds is not known");
  else
    snprintf (consequence, size,
              "blocks %" PRIu64 " to %" PRIu64 " of the disk cannot be found", first, last);
}

/* Invariant 10, and the end of invariant 7. */
static void
map_judge (struct checker *checker, const struct checker_disk *disk)
{
  struct checker_where where = { "disk node", disk->node_place, disk };

  if (disk->has_damaged_map)
    return;
  if (disk->found != disk->mapped)
    checker_find (checker, CHECKER_DAMAGE, where, NULL,
                  "says that %" PRIu64 " blocks are mapped, but its map has %" PRIu64,
                  disk->mapped, disk->found);
  if (disk->beyond > 0 && !disk->is_dying)
    checker_find (checker, checker->super.is_clean ? CHECKER_DAMAGE : CHECKER_NOTE,
                  (struct checker_where) { "map", CHECKER_NO_PLACE, disk },
                  checker->super.is_clean ? NULL : "they are freed when the store is opened",
                  "%" PRIu64 " blocks lie beyond the disk's size", disk->beyond);
}

static struct checker_tree
map_tree (struct checker_disk *disk)
{
  return (struct checker_tree) {
    .root_name = "map root",
    .inner_name = "map node",
    .leaf_name = "map leaf",
    .leaf_kind = KIND_MAP_LEAF,
    .inner_kind = KIND_MAP_INNER,
    .owner = disk->id,
    .disk = disk,
    .key_shift = KEY_SHIFT,
    .lost = map_lost,
    .is_damaged = &disk->has_damaged_map,
  };
}

static struct checker_pointer
map_walk (struct checker *checker, struct map_walk *walk)
{
  struct checker_disk *disk = walk->disk;
  struct checker_tree tree = map_tree (disk);

  tree.entry = map_entry;
  tree.arg = walk;
  disk->found = disk->beyond = 0;
  return checker_tree_walk (checker, &tree, disk->map);
}

/* The disk's node, with the root and the count that its map has now. */
static void
map_fix (struct checker *checker, const struct checker_disk *disk, struct checker_pointer root)
{
  uint8_t image[CHECKER_BLOCK];

  if (checker->plan == NULL
      || (root.place == disk->map.place && root.checksum == disk->map.checksum
          && disk->mapped == disk->found)
      || !checker_node_reload (checker, KIND_DISK, disk->id, disk->node_place, image))
    return;
  checker_put (image + 104, root.place, 8);
  checker_put (image + 112, root.checksum, 8);
  checker_put (image + 120, disk->found, 8);
  checker_fix_node (checker, true, disk->node_place, image);
  checker_fix_tell (checker, false, "disk '%s': its map has %" PRIu64 " blocks", disk->name,
                    disk->found);
}

/* What the journal says of a disk, on its own: pieces that it mapped, and DATA (invariant 14). */
static uint64_t
map_own_changes (struct checker *checker, struct map_walk *walk)
{
  struct checker_where where = { "journal", CHECKER_NO_PLACE, walk->disk };
  uint64_t limit = walk->disk->size / CHECKER_BLOCK, data = 0;

  for (size_t i = 0; i < walk->painted_count; ++i) {
    const struct checker_change *change = &walk->painted[i];

    if (change->state != CHECKER_HOLE)
      map_own (checker, walk, change->first, change->end, change->place, change);
  }
  for (size_t i = 0; i < walk->data_count; ++i) {
    const struct checker_change *change = &walk->data[i];

    if (change->state == CHECKER_HOLE)
      continue;
    data += change->end - change->first;
    if (change->end > limit)
      checker_find (checker, CHECKER_DAMAGE, where, NULL,
                    "data for blocks %" PRIu64 " to %" PRIu64 " remains, beyond the disk's size",
                    change->first, change->end - 1);
  }
  return data;
}

/* The map of one disk after the replay. */
static void
map_replay (struct checker *checker, struct checker_disk *disk)
{
  struct map_walk walk = { .disk = disk, .is_replayed = true };
  size_t run_count = checker->run_count;
  uint64_t data;

  walk.painted_count = checker_paint (&checker->map_changes, disk->id, &walk.painted);
  if (!disk->is_forgotten)
    walk.data_count = checker_paint (&checker->data_changes, disk->id, &walk.data);
  data = map_own_changes (checker, &walk);
  checker_report_quiet (checker->report, true);
  map_walk (checker, &walk);
  checker_report_quiet (checker->report, false);
  checker->homeless += data - (walk.data_mapped < data ? walk.data_mapped : data);
  if (disk->is_forgotten && checker->run_count > run_count) {
    checker_find (checker, CHECKER_DAMAGE, (struct checker_where) { "map", CHECKER_NO_PLACE, disk },
                  NULL, "the journal says that the disk is gone, but it still has %zu extents",
                  checker->run_count - run_count);
    checker->run_count = run_count;
  }
  free (walk.painted);
  free (walk.data);
}

/* --- what is mapped at a point of the journal --- */

struct now_walk {
  struct checker_disk *disk;
  uint64_t first, end;
  const struct checker_change *painted;
  size_t painted_count;
  struct checker_changes pieces;
};

static void
now_add (struct now_walk *now, uint64_t first, uint64_t end, uint64_t place,
         enum checker_state state)
{
  if (first < now->first) {
    place += now->first - first;
    first = now->first;
  }
  if (end > now->end)
    end = now->end;
  if (first < end)
    checker_change_add (&now->pieces, (struct checker_change) {
      .first = first, .end = end, .place = place, .state = state,
    });
}

/* An extent of the trees, where it is now: the parts that no change covers. */
static void
now_add_uncovered (struct now_walk *now, uint64_t first, uint64_t end, uint64_t place,
                   enum checker_state state)
{
  size_t i = checker_painted_after (now->painted, now->painted_count, first);

  for (uint64_t at = first; at < end; at = now->painted[i++].end) {
    uint64_t next = i < now->painted_count ? now->painted[i].first : UINT64_MAX;

    if (next > at)
      now_add (now, at, next < end ? next : end, place + (at - first), state);
    if (i == now->painted_count)
      return;
  }
}

/* The same, for an extent that items may have moved: from the SHIFT-th shift on. */
static void
now_add_shifted (struct checker *checker, struct now_walk *now, uint64_t first, uint64_t end,
                 uint64_t place, enum checker_state state, size_t shift)
{
  struct checker_range parts[2];
  uint64_t skipped[2];
  unsigned count;

  while (shift < checker->shift_count && checker->shifts[shift].disk != now->disk->id)
    ++shift;
  if (shift == checker->shift_count) {
    now_add_uncovered (now, first, end, place, state);
    return;
  }
  count = checker_shift_parts (&checker->shifts[shift], first, end, parts, skipped);
  for (unsigned p = 0; p < count; ++p)
    now_add_shifted (checker, now, parts[p].first, parts[p].end, place + skipped[p], state,
                     shift + 1);
}

static bool
now_entry (struct checker *checker, const struct checker_tree *tree, uint64_t node, uint64_t key,
           uint64_t value)
{
  uint64_t first = key >> KEY_SHIFT;

  (void) node;
  now_add_shifted (checker, tree->arg, first, first + (value & 0x3fffff) + 1, value >> 22,
                   key & 1 ? CHECKER_UNWRITTEN : CHECKER_WRITTEN, 0);
  return true;
}

size_t
checker_map_now (struct checker *checker, struct checker_disk *disk, uint64_t first, uint64_t end,
                 struct checker_change **pieces)
{
  struct now_walk now = { .disk = disk, .first = first, .end = end };
  struct checker_set nodes = checker->nodes;
  struct checker_plan *plan = checker->plan;
  uint64_t node_count = checker->node_count;
  struct checker_tree tree = map_tree (disk);
  struct checker_change *painted;

  checker_changes_sort (&checker->map_changes);
  now.painted_count = checker_paint (&checker->map_changes, disk->id, &painted);
  now.painted = painted;
  for (size_t i = 0; i < now.painted_count; ++i)
    if (painted[i].state != CHECKER_HOLE)
      now_add (&now, painted[i].first, painted[i].end, painted[i].place, painted[i].state);
  /* All of it was judged before. */
  checker->nodes = (struct checker_set) { 0 };
  checker->plan = NULL;
  checker_report_quiet (checker->report, true);
  tree.entry = now_entry;
  tree.arg = &now;
  checker_tree_walk (checker, &tree, disk->map);
  checker_report_quiet (checker->report, false);
  checker_set_clear (&checker->nodes);
  checker->nodes = nodes;
  checker->plan = plan;
  checker->node_count = node_count;
  free (painted);
  checker_changes_sort (&now.pieces);
  *pieces = now.pieces.items;
  return now.pieces.count;
}

void
checker_maps (struct checker *checker, bool is_replayed)
{
  for (size_t i = 0; i < checker->disk_count; ++i) {
    struct map_walk walk = { .disk = &checker->disks[i] };
    struct checker_pointer root;

    if (walk.disk->is_stale)
      continue;
    if (is_replayed)
      map_replay (checker, walk.disk);
    else {
      root = map_walk (checker, &walk);
      map_judge (checker, walk.disk);
      map_fix (checker, walk.disk, root);
    }
  }
}
