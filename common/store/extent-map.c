/* SPDX-License-Identifier: BSD-2-Clause */
/* extent-map.c - which blocks of a disk lie where; see extent-map.h.
 *
 * An extent is one entry of a B+tree, packed as format.h says.  The state is bit 0 of the key,
 * which makes a written and an unwritten extent at one block two different keys: they never
 * coexist, since whatever is mapped is cut out first, and the tree's separators leave the bit out.
 */
#include <errno.h>

#include "base/check.h"
#include "store/extent-map.h"

/* Entries copied out of the tree at a time by walks. */
#define WALK_ENTRIES 64

/* Of the tree's changes, so many can allocate in one call: a cut on each side, the new extent, and
 * what was in between goes leaf by leaf. */
#define CHANGES_PER_CALL 3

#define BLOCK_LIMIT (UINT64_C (1) << (64 - MAP_KEY_SHIFT))

/* --- packing --- */

static uint64_t
entry_block (const struct btree_entry *entry)
{
  return entry->key >> MAP_KEY_SHIFT;
}

static uint64_t
entry_length (const struct btree_entry *entry)
{
  return (entry->value & MAP_VALUE_LENGTH_MASK) + 1;
}

static uint64_t
entry_end (const struct btree_entry *entry)
{
  return entry_block (entry) + entry_length (entry);
}

static uint64_t
entry_place (const struct btree_entry *entry)
{
  return entry->value >> MAP_VALUE_PLACE_SHIFT;
}

static enum extent_state
entry_state (const struct btree_entry *entry)
{
  return entry->key & MAP_KEY_UNWRITTEN ? EXTENT_UNWRITTEN : EXTENT_WRITTEN;
}

/* The last key that an extent which begins at BLOCK can have. */
static uint64_t
block_last_key (uint64_t block)
{
  return block << MAP_KEY_SHIFT | MAP_KEY_UNWRITTEN;
}

static struct btree_entry
entry_pack (uint64_t block, uint64_t length, uint64_t place, enum extent_state state)
{
  CHECK (length > 0 && length <= EXTENT_LENGTH_MAX);
  return (struct btree_entry) {
    block << MAP_KEY_SHIFT | (state == EXTENT_UNWRITTEN ? MAP_KEY_UNWRITTEN : 0),
    place << MAP_VALUE_PLACE_SHIFT | (length - 1),
  };
}

/* The part of an entry from BLOCK to END, which it overlaps. */
static struct extent
entry_part (const struct btree_entry *entry, uint64_t block, uint64_t end)
{
  uint64_t from = MAX (block, entry_block (entry));

  return (struct extent) {
    .block = from,
    .length = MIN (end, entry_end (entry)) - from,
    .place = entry_place (entry) + (from - entry_block (entry)),
    .state = entry_state (entry),
  };
}

/* --- the map --- */

void
extent_map_init (struct extent_map *map, struct btree_pool *pool)
{
  pthread_mutex_init (&map->mutex, NULL);
  btree_init (&map->tree, pool);
  map->tree.separator_mask = ~MAP_KEY_UNWRITTEN;
  map->mapped = 0;
}

void
extent_map_destroy (struct extent_map *map)
{
  btree_clear (&map->tree);
  pthread_mutex_destroy (&map->mutex);
}

int
extent_map_reserve (struct extent_map *map, unsigned changes)
{
  return btree_pool_ensure (map->tree.pool, changes * CHANGES_PER_CALL);
}

uint64_t
extent_map_change_nodes (unsigned changes)
{
  return (uint64_t) changes * CHANGES_PER_CALL * BTREE_CHANGE_NODES;
}

uint64_t
extent_map_row_nodes (uint64_t extents)
{
  /* New leaves are half full at least, but for the borders; lists of places given up are larger. */
  return extents / (LEAF_ENTRIES / 4) + extent_map_change_nodes (2);
}

/* --- walking --- */

/* Extents that overlap a range, in order.  Under the map's mutex from first to last; the tree
 * must not change. */
struct walk {
  const struct btree *tree;
  uint64_t end;
  unsigned at, count, batch;
  struct btree_entry entries[WALK_ENTRIES];
};

/* BATCH: how many entries are expected to be wanted. */
static void
walk_begin (struct walk *walk, const struct btree *tree, uint64_t block, uint64_t end,
            unsigned batch)
{
  walk->tree = tree;
  walk->end = end;
  walk->at = walk->count = 0;
  walk->batch = MIN (MAX (batch, 1u), (unsigned) WALK_ENTRIES);
  if (block >= end)
    return;
  if (btree_floor (tree, block_last_key (block), &walk->entries[0])
      && entry_end (&walk->entries[0]) > block)
    walk->count = 1;
  else
    walk->count = btree_scan (tree, block << MAP_KEY_SHIFT, walk->entries, walk->batch);
}

/* The next one, NULL: no more.  Valid until the next call. */
static const struct btree_entry *
walk_next (struct walk *walk)
{
  const struct btree_entry *entry;

  if (walk->at == walk->count) {
    if (walk->count == 0)
      return NULL;
    walk->count = btree_scan (walk->tree, walk->entries[walk->count - 1].key + 1, walk->entries,
                              walk->batch);
    walk->at = 0;
    if (walk->count == 0)
      return NULL;
  }
  entry = &walk->entries[walk->at++];
  return entry_block (entry) < walk->end ? entry : NULL;
}

/* The end of a range that may reach beyond all blocks. */
static uint64_t
range_end (uint64_t block, uint64_t length)
{
  CHECK (block < BLOCK_LIMIT);
  return block + MIN (length, BLOCK_LIMIT - block);
}

unsigned
extent_map_scan (struct extent_map *map, uint64_t block, uint64_t length, struct extent *extents,
                 unsigned max)
{
  uint64_t end = block + length;
  const struct btree_entry *entry;
  struct walk walk;
  unsigned count = 0;

  CHECK (length > 0 && max > 0 && end > block && end <= BLOCK_LIMIT);
  pthread_mutex_lock (&map->mutex);
  walk_begin (&walk, &map->tree, block, end, max);
  while (count < max && block < end && (entry = walk_next (&walk)) != NULL) {
    if (entry_block (entry) > block) {
      extents[count++] = (struct extent) { block, entry_block (entry) - block, 0, EXTENT_HOLE };
      if (count == max)
        break;
    }
    extents[count] = entry_part (entry, block, end);
    block = extents[count].block + extents[count].length;
    count++;
  }
  pthread_mutex_unlock (&map->mutex);
  if (count < max && block < end)
    extents[count++] = (struct extent) { block, end - block, 0, EXTENT_HOLE };
  return count;
}

void
extent_map_lookup (struct extent_map *map, uint64_t block, uint64_t length, struct extent *extent)
{
  extent_map_scan (map, block, length, extent, 1);
}

uint64_t
extent_map_step (struct extent_map *map, uint64_t block, uint64_t length, unsigned extents_max)
{
  uint64_t end = range_end (block, length), result = length;
  const struct btree_entry *entry;
  struct walk walk;

  pthread_mutex_lock (&map->mutex);
  walk_begin (&walk, &map->tree, block, end, extents_max + 1);
  for (unsigned count = 0; (entry = walk_next (&walk)) != NULL; count++)
    if (count == extents_max) {
      result = MAX (entry_block (entry), block) - block;
      break;
    }
  pthread_mutex_unlock (&map->mutex);
  return result;
}

uint64_t
extent_map_mapped_in (struct extent_map *map, uint64_t block, uint64_t length)
{
  uint64_t end = range_end (block, length), mapped = 0;
  const struct btree_entry *entry;
  struct walk walk;

  pthread_mutex_lock (&map->mutex);
  walk_begin (&walk, &map->tree, block, end, WALK_ENTRIES);
  while ((entry = walk_next (&walk)) != NULL)
    mapped += entry_part (entry, block, end).length;
  pthread_mutex_unlock (&map->mutex);
  return mapped;
}

uint64_t
extent_map_mapped (struct extent_map *map)
{
  uint64_t mapped;

  pthread_mutex_lock (&map->mutex);
  mapped = map->mapped;
  pthread_mutex_unlock (&map->mutex);
  return mapped;
}

uint64_t
extent_map_extents (struct extent_map *map)
{
  uint64_t count;

  pthread_mutex_lock (&map->mutex);
  count = map->tree.entry_count;
  pthread_mutex_unlock (&map->mutex);
  return count;
}

/* --- changing --- */

/* The first extent that overlaps [block, end). */
static bool
map_first (const struct extent_map *map, uint64_t block, uint64_t end, struct btree_entry *entry)
{
  if (block >= end)
    return false;
  if (btree_floor (&map->tree, block_last_key (block), entry) && entry_end (entry) > block)
    return true;
  return btree_ceiling (&map->tree, block << MAP_KEY_SHIFT, entry) && entry_block (entry) < end;
}

/* Cuts [block, end) out of an entry that overlaps it: what remains on either side stays mapped. */
static struct extent
map_cut (struct extent_map *map, const struct btree_entry *entry, uint64_t block, uint64_t end)
{
  struct extent part = entry_part (entry, block, end);
  uint64_t part_end = part.block + part.length;

  if (part.block > entry_block (entry))
    btree_insert (&map->tree, entry_pack (entry_block (entry), part.block - entry_block (entry),
                                          entry_place (entry), part.state));
  else
    btree_remove (&map->tree, entry->key);
  if (part_end < entry_end (entry))
    btree_insert (&map->tree, entry_pack (part_end, entry_end (entry) - part_end,
                                          part.place + part.length, part.state));
  map->mapped -= part.length;
  return part;
}

/* Tells of a part that NEW takes the place of, unless it stays where it is. */
static void
part_tell (const struct extent *part, const struct extent *new, extent_unmapped *unmapped,
           void *arg)
{
  if (unmapped && part->place != new->place + (part->block - new->block))
    unmapped (arg, part->place, part->length);
}

/* Inserts an extent where nothing is mapped, joined with the neighbours that it continues. */
static void
map_insert (struct extent_map *map, struct extent new)
{
  struct btree_entry entry;

  map->mapped += new.length;
  if (new.block > 0 && btree_floor (&map->tree, block_last_key (new.block - 1), &entry)
      && entry_end (&entry) == new.block && entry_state (&entry) == new.state
      && entry_place (&entry) + entry_length (&entry) == new.place
      && entry_length (&entry) + new.length <= EXTENT_LENGTH_MAX) {
    new.block = entry_block (&entry);
    new.length += entry_length (&entry);
    new.place = entry_place (&entry);
  }
  if (btree_ceiling (&map->tree, (new.block + new.length) << MAP_KEY_SHIFT, &entry)
      && entry_block (&entry) == new.block + new.length && entry_state (&entry) == new.state
      && entry_place (&entry) == new.place + new.length
      && entry_length (&entry) + new.length <= EXTENT_LENGTH_MAX) {
    btree_remove (&map->tree, entry.key);
    new.length += entry_length (&entry);
  }
  /* Replaces the value of the neighbour in front, if it was joined: their keys are equal. */
  btree_insert (&map->tree, entry_pack (new.block, new.length, new.place, new.state));
}

void
extent_map_set (struct extent_map *map, const struct extent *extent, extent_unmapped *unmapped,
                void *arg)
{
  uint64_t end = extent->block + extent->length;
  struct btree_entry entry;
  struct extent part, piece = *extent;

  CHECK (extent->state != EXTENT_HOLE && extent->length > 0 && extent->place > 0);
  CHECK (end > extent->block && end < BLOCK_LIMIT);
  CHECK (extent->place + extent->length - 1 <= PLACE_MAX);
  pthread_mutex_lock (&map->mutex);
  while (map_first (map, extent->block, end, &entry)) {
    part = map_cut (map, &entry, extent->block, end);
    part_tell (&part, extent, unmapped, arg);
  }
  for (; piece.block < end; piece.block += piece.length, piece.place += piece.length) {
    piece.length = MIN (end - piece.block, EXTENT_LENGTH_MAX);
    map_insert (map, piece);
  }
  pthread_mutex_unlock (&map->mutex);
}

uint64_t
extent_map_clear (struct extent_map *map, uint64_t block, uint64_t length, unsigned extents_max,
                  extent_unmapped *unmapped, void *arg)
{
  uint64_t end = range_end (block, length), result = length;
  struct btree_entry entry;
  struct extent part;

  pthread_mutex_lock (&map->mutex);
  for (unsigned count = 0; map_first (map, block, end, &entry); count++) {
    if (count == extents_max) {
      result = MAX (entry_block (&entry), block) - block;
      break;
    }
    part = map_cut (map, &entry, block, end);
    if (unmapped)
      unmapped (arg, part.place, part.length);
  }
  pthread_mutex_unlock (&map->mutex);
  return result;
}

/* --- moving --- */

int
extent_map_reserve_shift (struct extent_map *map, unsigned changes)
{
  int error;

  pthread_mutex_lock (&map->mutex);
  error = btree_ensure_shift (&map->tree, (changes + 1) * CHANGES_PER_CALL);
  pthread_mutex_unlock (&map->mutex);
  return error;
}

/* What begins at BLOCK may continue what has become its neighbour. */
static void
map_join (struct extent_map *map, uint64_t block)
{
  struct btree_entry entry;

  if (! btree_ceiling (&map->tree, block << MAP_KEY_SHIFT, &entry) || entry_block (&entry) != block)
    return;
  btree_remove (&map->tree, entry.key);
  map->mapped -= entry_length (&entry);
  map_insert (map, entry_part (&entry, 0, UINT64_MAX));
}

bool
extent_map_shift_down (struct extent_map *map, uint64_t block, uint64_t length, unsigned leaves,
                       uint64_t *at)
{
  uint64_t from = MAX (*at, (block + length) << MAP_KEY_SHIFT);
  struct btree_entry entry;
  bool is_done;

  pthread_mutex_lock (&map->mutex);
  CHECK (*at > 0 || ! map_first (map, block, block + length, &entry));
  is_done = btree_shift_down (&map->tree, &from, length << MAP_KEY_SHIFT, leaves);
  *at = from;
  if (is_done)
    map_join (map, block);
  pthread_mutex_unlock (&map->mutex);
  return is_done;
}

/* Moves the part from BLOCK on of an extent that begins before it.  Done last, and together with
 * the last entries: until then who maps the block before may join it with what begins at BLOCK. */
static void
map_split_up (struct extent_map *map, uint64_t block, uint64_t length)
{
  struct btree_entry entry;
  struct extent part;

  if (block == 0 || ! btree_floor (&map->tree, block_last_key (block - 1), &entry)
      || entry_end (&entry) <= block)
    return;
  part = map_cut (map, &entry, block, UINT64_MAX);
  part.block += length;
  map_insert (map, part);
}

bool
extent_map_shift_up (struct extent_map *map, uint64_t block, uint64_t length, unsigned leaves,
                     uint64_t *at)
{
  uint64_t limit = *at > 0 ? *at : UINT64_MAX;
  bool is_done;

  pthread_mutex_lock (&map->mutex);
  is_done = btree_shift_up (&map->tree, block << MAP_KEY_SHIFT, &limit, length << MAP_KEY_SHIFT,
                            leaves);
  *at = limit;
  if (is_done)
    map_split_up (map, block, length);
  pthread_mutex_unlock (&map->mutex);
  return is_done;
}

/* --- opening --- */

static bool
entry_is_valid (const struct btree_entry *entry, uint64_t block_min, uint64_t size_blocks)
{
  uint64_t flags = entry->key & ((UINT64_C (1) << MAP_KEY_SHIFT) - 1);

  return (flags & ~MAP_KEY_UNWRITTEN) == 0
         && entry_block (entry) >= block_min
         && entry_end (entry) <= MIN (size_blocks, BLOCK_LIMIT - 1)
         && entry_place (entry) > 0
         && entry_place (entry) + entry_length (entry) - 1 <= PLACE_MAX;
}

int
extent_map_check (struct extent_map *map, uint64_t size_blocks, extent_visit *visit, void *arg)
{
  struct btree_entry entries[WALK_ENTRIES];
  uint64_t block = 0, mapped = 0, key = 0;
  struct extent extent;
  size_t count;
  int error;

  do {
    pthread_mutex_lock (&map->mutex);
    count = btree_scan (&map->tree, key, entries, WALK_ENTRIES);
    pthread_mutex_unlock (&map->mutex);
    for (size_t i = 0; i < count; i++) {
      if (! entry_is_valid (&entries[i], block, size_blocks))
        return -EUCLEAN;
      block = entry_end (&entries[i]);
      mapped += entry_length (&entries[i]);
      extent = entry_part (&entries[i], 0, UINT64_MAX);
      error = visit ? visit (arg, &extent) : 0;
      if (error)
        return error;
      key = entries[i].key + 1;
    }
  } while (count == WALK_ENTRIES);
  pthread_mutex_lock (&map->mutex);
  map->mapped = mapped;
  pthread_mutex_unlock (&map->mutex);
  return 0;
}
