/* SPDX-License-Identifier: BSD-2-Clause */
/* extent-map.h - which blocks of a disk lie where in the store.
 *
 * Extents are runs of blocks, `written` or `unwritten` (space is taken, reads as zeros); where
 * there is none is a hole.  Neighbours that continue each other in both block and place, in one
 * state, are kept as one extent (up to EXTENT_LENGTH_MAX).
 *
 * Thread-safe: one leaf mutex inside, held across no wait.  Does no I/O and knows nothing of
 * locks on ranges: callers hold the range lock as range-lock.h says.  A change never
 * fails; extent_map_reserve sets its memory aside beforehand.
 */
#ifndef LACUNA_EXTENT_MAP_H
#define LACUNA_EXTENT_MAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/btree.h"

enum extent_state { EXTENT_HOLE, EXTENT_UNWRITTEN, EXTENT_WRITTEN };

struct extent {
  uint64_t block;       /* first block, of the disk */
  uint64_t length;      /* blocks */
  uint64_t place;       /* first block, of the store; 0 for a hole */
  enum extent_state state;
};

/* Blocks; 22 bits in an entry (format.h). */
#define EXTENT_LENGTH_MAX (UINT64_C (1) << 22)

struct extent_map {
  pthread_mutex_t mutex;
  struct btree tree;
  uint64_t mapped;      /* blocks in extents of either state */
};

/* Told each run of the store that a change unmapped; under the map's mutex, must not call back. */
typedef void extent_unmapped (void *arg, uint64_t place, uint64_t length);

void extent_map_init (struct extent_map *map, struct btree_pool *pool);
void extent_map_destroy (struct extent_map *map);

/* Memory for CHANGES calls of set or clear, each touching up to 1024 extents.  0 or -ENOMEM. */
int extent_map_reserve (struct extent_map *map, unsigned changes);
/* The most nodes that so many calls can need, or any number of calls, side by side, that change
 * EXTENTS extents while the map is not frozen. */
uint64_t extent_map_change_nodes (unsigned changes);
uint64_t extent_map_row_nodes (uint64_t extents);

/* The extent or hole at BLOCK, clipped to begin there and to LENGTH blocks. */
void extent_map_lookup (struct extent_map *map, uint64_t block, uint64_t length,
                        struct extent *extent);

/* As lookup, several at once, from BLOCK on, contiguous (holes included), up to MAX of them or
 * LENGTH blocks; how many. */
unsigned extent_map_scan (struct extent_map *map, uint64_t block, uint64_t length,
                          struct extent *extents, unsigned max);

/* Maps a run, in place of whatever was there.  What was there and is not the same place is told
 * to UNMAPPED (a change of state only, as written -> unwritten at one place, tells nothing). */
void extent_map_set (struct extent_map *map, const struct extent *extent,
                     extent_unmapped *unmapped, void *arg);

/* Unmaps [block, block + length), at most EXTENTS_MAX extents of it; returns how many blocks from
 * BLOCK on are clear now (LENGTH if all are). */
uint64_t extent_map_clear (struct extent_map *map, uint64_t block, uint64_t length,
                           unsigned extents_max,
                           extent_unmapped *unmapped, void *arg);

/* How many blocks from BLOCK on, up to LENGTH, hold at most EXTENTS_MAX extents: the bound of one
 * step of a long change. */
uint64_t extent_map_step (struct extent_map *map, uint64_t block, uint64_t length,
                          unsigned extents_max);

/* What lies from BLOCK on is moved by LENGTH blocks, in steps of LEAVES leaves (of up to 252
 * extents), each under the mutex: down to BLOCK (and what [BLOCK, BLOCK + LENGTH) mapped must have been cleared), or up from
 * it, where an extent that BLOCK is in the middle of is split.  *AT is 0 for the first step; true:
 * that was the last one.  Until then nobody may look at or change anything from BLOCK on, nor
 * freeze the tree; extent_map_reserve_shift has set aside memory for it all, and for CHANGES
 * changes. */
int extent_map_reserve_shift (struct extent_map *map, unsigned changes);
bool extent_map_shift_down (struct extent_map *map, uint64_t block, uint64_t length,
                            unsigned leaves, uint64_t *at);
bool extent_map_shift_up (struct extent_map *map, uint64_t block, uint64_t length, unsigned leaves,
                          uint64_t *at);

/* Told each extent, in order; not 0 ends the walk.  Not under the map's mutex. */
typedef int extent_visit (void *arg, const struct extent *extent);

/* After btree_load of map->tree: checks every entry (form, order, no overlap, within SIZE_BLOCKS;
 * UINT64_MAX: any), counts `mapped`, and tells VISIT each.  0, -EUCLEAN, or what VISIT returned. */
int extent_map_check (struct extent_map *map, uint64_t size_blocks, extent_visit *visit, void *arg);

uint64_t extent_map_mapped (struct extent_map *map);      /* blocks */
uint64_t extent_map_extents (struct extent_map *map);     /* entries */
/* Blocks mapped within [block, block + length); O(extents touched). */
uint64_t extent_map_mapped_in (struct extent_map *map, uint64_t block, uint64_t length);

#endif
