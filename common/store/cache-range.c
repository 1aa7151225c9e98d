/* SPDX-License-Identifier: BSD-2-Clause */
/* cache-range.c - what is done with ranges of blocks: dropping their frames, or making them
 * invalid; looking for dirty ones.
 *
 * A range costs what is cached of it.  Counters tell which of its regions may have frames; in those
 * it goes from group to group of BUCKETS_PER_LINE blocks, whose buckets are one line under one lock.
 * A range of more regions than there are frames is looked for among all frames instead, or, for
 * dirty ones, in the disk's lists.
 */
#include "store/cache-internal.h"

#define REGION_GROUPS_MAX (REGION_BLOCKS_MAX / BUCKETS_PER_LINE)

/* So many invalid regions are looked at for one that has frames left, when frames are wanted. */
#define RECLAIM_TRIES 64

/* --- regions --- */

static uint64_t
region_blocks (const struct cache *cache)
{
  return UINT64_C (1) << cache->region_shift;
}

static uint64_t
region_last (const struct cache *cache, uint64_t block)
{
  return block | (region_blocks (cache) - 1);
}

/* Looks for the first region that may hold something counted, from *BLOCK on, not beyond LAST.
 * True: *BLOCK is the first block to look at, *END the last one of its region. */
static bool
region_next (const struct cache *cache, _Atomic uint32_t *counters, uint64_t disk,
             uint64_t *block, uint64_t last, uint64_t *end)
{
  for (uint64_t at = *block;;) {
    uint64_t end_of_region = region_last (cache, at);
    const _Atomic uint32_t *counter = region_counter (cache, counters, disk, at);

    if (atomic_load_explicit (counter, memory_order_relaxed) != 0) {
      *block = at;
      *end = MIN (end_of_region, last);
      return true;
    }
    if (end_of_region >= last)
      return false;
    at = end_of_region + 1;
  }
}

/* Whether it costs less to look at all frames than at all regions of a range. */
static bool
range_is_long (const struct cache *cache, uint64_t first, uint64_t last)
{
  return (last >> cache->region_shift) - (first >> cache->region_shift) > cache->frame_count;
}

/* --- groups --- */

static uint64_t
group_last (uint64_t block)
{
  return block | (BUCKETS_PER_LINE - 1);
}

/* The buckets of all blocks of the group of BLOCK. */
static _Atomic uint32_t *
group_line (const struct cache *cache, uint64_t disk, uint64_t block)
{
  return &cache->buckets[bucket_number (cache, disk, block) & ~(uint64_t) (BUCKETS_PER_LINE - 1)];
}

/* A frame that is there for sure cannot be in a line that is empty. */
static bool
line_is_empty (_Atomic uint32_t *line)
{
  uint32_t all = 0;

  for (unsigned i = 0; i < BUCKETS_PER_LINE; i++)
    all |= atomic_load_explicit (&line[i], memory_order_relaxed);
  return all == 0;
}

static bool
frame_is_in (const struct frame *frame, uint64_t disk, uint64_t first, uint64_t last)
{
  uint64_t block = frame_block (frame);

  return block >= first && block <= last && frame_disk (frame) == disk;
}

/* --- dropping --- */

/* Frames that have left the index, at most a region's. */
struct drop {
  bool only_invalid;
  struct cache_disk *owner;      /* of all; set with the first one */
  struct frame *frames[REGION_BLOCKS_MAX];
  uint32_t count;
};

/* Who drops a region waits for memory most of the time, if it is not asked for in advance. */
static void
line_prefetch (const struct cache *cache, _Atomic uint32_t *line)
{
  for (unsigned i = 0; i < BUCKETS_PER_LINE; i++) {
    uint32_t number = atomic_load_explicit (&line[i], memory_order_relaxed);

    if (number != 0)
      frame_prefetch (&cache->frames[number - 1]);
  }
}

/* Takes the frames of [first, last], all of one group, out of their chains, as index_remove does,
 * but leaves the counting to drop_end. */
static void
drop_group (struct cache *cache, uint64_t disk, _Atomic uint32_t *line, uint64_t first,
            uint64_t last, struct drop *drop, struct cache_dropped *dropped)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk, first);

  for (unsigned i = 0; i < BUCKETS_PER_LINE; i++) {
    _Atomic uint32_t *slot = &line[i];
    uint32_t number;

    while ((number = atomic_load_explicit (slot, memory_order_relaxed)) != 0) {
      struct frame *frame = &cache->frames[number - 1];

      if (!frame_is_in (frame, disk, first, last)
          || (drop->only_invalid && !frame_is_invalid (cache, frame))) {
        slot = &frame->next;
        continue;
      }
      CHECK (frame_state (frame) != FRAME_FILLING);
      if (frame_state (frame) == FRAME_DIRTY) {
        unsigned flags = dirty_leave (cache, frame);

        dropped->tokens += (flags & FRAME_HAS_TOKEN) != 0;
        dropped->copies += (flags & FRAME_HAS_COPY) != 0;
        dropped->dirty++;
      }
      atomic_store_explicit (slot, atomic_load_explicit (&frame->next, memory_order_relaxed),
                             memory_order_release);
      frame_change_flags (frame, 0, FRAME_IS_ORPHAN);
      drop->owner = frame->owner;
      frame->owner = NULL;
      drop->frames[drop->count++] = frame;
    }
  }
  mutex_unlock (lock);
}

/* What was dropped of the region of BLOCK is counted, and loses the index' references. */
static void
drop_end (struct cache *cache, uint64_t disk, uint64_t block, struct drop *drop,
          struct cache_dropped *dropped)
{
  if (drop->count == 0)
    return;
  dropped->frames += drop->count;
  atomic_fetch_sub_explicit (region_counter (cache, cache->cached_regions, disk, block),
                             drop->count, memory_order_relaxed);
  /* The last touch: whoever reads zero may destroy the disk. */
  atomic_fetch_sub_explicit (&drop->owner->frame_count, drop->count, memory_order_release);
  cache_put_all (cache, drop->frames, drop->count);
}

/* [first, last] is within one region.  ONLY_INVALID: no range is locked.  Else nobody puts frames
 * into it meanwhile, so that it has no more of them than are counted. */
static void
drop_region (struct cache *cache, uint64_t disk, uint64_t first, uint64_t last, bool only_invalid,
             struct cache_dropped *dropped)
{
  _Atomic uint32_t *lines[REGION_GROUPS_MAX + 1];
  uint32_t counted
    = atomic_load_explicit (region_counter (cache, cache->cached_regions, disk, first),
                            memory_order_relaxed);
  unsigned count = 0;
  struct drop drop;

  drop.only_invalid = only_invalid;
  drop.count = 0;
  for (uint64_t at = first; at <= last; at = group_last (at) + 1) {
    lines[count] = group_line (cache, disk, at);
    __builtin_prefetch (lines[count++], 1);
  }
  lines[count] = lines[count - 1];
  line_prefetch (cache, lines[0]);
  for (unsigned i = 0; i < count && drop.count < counted; i++, first = group_last (first) + 1) {
    line_prefetch (cache, lines[i + 1]);
    if (!line_is_empty (lines[i]))
      drop_group (cache, disk, lines[i], first, MIN (group_last (first), last), &drop, dropped);
  }
  drop_end (cache, disk, last, &drop, dropped);
}

/* [first, last] of a disk that is much larger than the cache: a group, or region, at a time. */
static void
drop_all_frames (struct cache *cache, uint64_t disk, uint64_t first, uint64_t last,
                 struct cache_dropped *dropped)
{
  uint64_t mask = MIN (region_blocks (cache), BUCKETS_PER_LINE) - 1;

  for (uint32_t i = 0; i < cache->frame_count; i++) {
    const struct frame *frame = &cache->frames[i];
    uint64_t block = frame_block (frame);

    if (frame_is_in (frame, disk, first, last) && !frame_has (frame, FRAME_IS_ORPHAN))
      drop_region (cache, disk, MAX (block & ~mask, first), MIN (block | mask, last), false,
                   dropped);
  }
}

/* --- invalidating --- */

/* Whether the frames of [first, last], of one region, may become invalid all at once, and should:
 * what is cached of a region that has hardly anything is dropped as easily. */
static bool
region_is_invalidated (const struct cache *cache, uint64_t disk, uint64_t first, uint64_t last)
{
  const _Atomic uint32_t *dirty = region_counter (cache, cache->dirty_regions, disk, first);
  const _Atomic uint32_t *cached = region_counter (cache, cache->cached_regions, disk, first);

  return last - first == region_blocks (cache) - 1
         && atomic_load_explicit (dirty, memory_order_relaxed) == 0
         && atomic_load_explicit (cached, memory_order_relaxed) >= region_blocks (cache) / 4
         && atomic_load_explicit (&cache->invalid.count, memory_order_relaxed)
              < INVALID_RANGES_MAX;
}

/* The frames of a region, which are invalid, are to be reclaimed; false: too much is already. */
static bool
invalid_note (struct invalid *invalid, uint64_t disk, uint64_t first, uint64_t last)
{
  bool is_noted = true;
  uint32_t count;

  mutex_lock (&invalid->mutex);
  count = atomic_load_explicit (&invalid->count, memory_order_relaxed);
  if (count > 0 && invalid->ranges[count - 1].disk == disk
      && invalid->ranges[count - 1].last + 1 == first)
    invalid->ranges[count - 1].last = last;
  else if (count < INVALID_RANGES_MAX) {
    invalid->ranges[count] = (struct invalid_range) { disk, first, last };
    atomic_store_explicit (&invalid->count, count + 1, memory_order_relaxed);
  } else
    is_noted = false;
  mutex_unlock (&invalid->mutex);
  return is_noted;
}

/* False: drop them. */
static bool
region_invalidate (struct cache *cache, uint64_t disk, uint64_t first, uint64_t last)
{
  if (!region_is_invalidated (cache, disk, first, last))
    return false;
  atomic_fetch_add_explicit (region_counter (cache, cache->region_epochs, disk, first), 1,
                             memory_order_acq_rel);
  return invalid_note (&cache->invalid, disk, first, last);
}

/* Takes a region, *FIRST to *LAST, from the list. */
static bool
invalid_take (struct cache *cache, uint64_t *disk, uint64_t *first, uint64_t *last)
{
  struct invalid *invalid = &cache->invalid;
  uint32_t count;

  if (atomic_load_explicit (&invalid->count, memory_order_relaxed) == 0)
    return false;
  mutex_lock (&invalid->mutex);
  count = atomic_load_explicit (&invalid->count, memory_order_relaxed);
  if (count > 0) {
    struct invalid_range *range = &invalid->ranges[count - 1];

    *disk = range->disk;
    *first = range->first;
    *last = region_last (cache, range->first);
    if (*last == range->last)
      atomic_store_explicit (&invalid->count, count - 1, memory_order_relaxed);
    else
      range->first = *last + 1;
  }
  mutex_unlock (&invalid->mutex);
  return count > 0;
}

uint32_t
invalid_reclaim (struct cache *cache)
{
  struct cache_dropped dropped = { 0 };
  uint64_t disk, first, last;

  for (unsigned i = 0;
       i < RECLAIM_TRIES && dropped.frames == 0 && invalid_take (cache, &disk, &first, &last); i++)
    drop_region (cache, disk, first, last, true, &dropped);
  CHECK (dropped.dirty == 0);
  return (uint32_t) dropped.frames;
}

/* --- ranges --- */

static void
drop_range (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
            bool may_stay, struct cache_dropped *dropped, struct list *wake)
{
  uint64_t dirty = dropped->dirty;
  uint64_t end;

  CHECK (first <= last);
  if (atomic_load_explicit (&disk->frame_count, memory_order_acquire) == 0)
    return;
  if (range_is_long (cache, first, last))
    drop_all_frames (cache, disk->id, first, last, dropped);
  else
    for (uint64_t block = first;
         region_next (cache, cache->cached_regions, disk->id, &block, last, &end);
         block = end + 1) {
      if (!may_stay || !region_invalidate (cache, disk->id, block, end))
        drop_region (cache, disk->id, block, end, false, dropped);
      if (end == last)
        break;
    }
  if (dropped->dirty > dirty)
    budget_release (&cache->dirty, NULL, dropped->dirty - dirty, wake);
}

void
cache_drop (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
            struct cache_dropped *dropped, struct list *wake)
{
  drop_range (cache, disk, first, last, false, dropped, wake);
}

void
cache_invalidate (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
                  struct cache_dropped *dropped, struct list *wake)
{
  drop_range (cache, disk, first, last, true, dropped, wake);
}

uint64_t
cache_step (struct cache *cache, struct cache_disk *disk, uint64_t block, uint64_t length,
            uint64_t frames_max)
{
  uint64_t last = block + length - 1, frames = 0, at = block, end;

  CHECK (length > 0 && last >= block);
  if (atomic_load_explicit (&disk->frame_count, memory_order_relaxed) <= frames_max)
    return length;
  if (range_is_long (cache, block, last))
    last = block + cache->frame_count * region_blocks (cache) - 1;
  for (; region_next (cache, cache->cached_regions, disk->id, &at, last, &end); at = end + 1) {
    const _Atomic uint32_t *counter = region_counter (cache, cache->cached_regions, disk->id, at);

    /* Where it is one act it costs little more than a frame. */
    if (region_is_invalidated (cache, disk->id, at, end))
      frames++;
    else
      frames += atomic_load_explicit (counter, memory_order_relaxed);
    if (end == last || frames >= frames_max)
      return end - block + 1;
  }
  return last - block + 1;
}

/* --- looking for dirty frames of some kind --- */

/* The first block of [first, last], all of one group, whose dirty frame has FLAG. */
static bool
find_in_group (struct cache *cache, uint64_t disk, uint64_t first, uint64_t last, unsigned flag,
               uint64_t *found)
{
  _Atomic uint32_t *line = group_line (cache, disk, first);
  bool is_found = false;
  pthread_mutex_t *lock;

  if (line_is_empty (line))
    return false;
  lock = bucket_lock (cache, disk, first);
  for (uint64_t block = first; block <= last && !is_found; block++) {
    const struct frame *frame = index_find (cache, disk, block);

    is_found = frame != NULL && frame_state (frame) == FRAME_DIRTY && frame_has (frame, flag);
    if (is_found)
      *found = block;
  }
  mutex_unlock (lock);
  return is_found;
}

/* The first block of [first, last] whose dirty frame has FLAG, by walking through the lists; under
 * their mutex, in which a frame hands on its FLAG to the one that replaces it. */
static bool
find_in_lists (struct cache_disk *disk, uint64_t first, uint64_t last, unsigned flag,
               uint64_t *found)
{
  const struct list *lists[] = { &disk->fresh, &disk->logged };
  bool is_found = false;

  mutex_lock (&disk->mutex);
  for (unsigned i = 0; i < ARRAY_COUNT (lists); i++)
    list_for_each (link, lists[i]) {
      const struct frame *frame = container_of (link, struct frame, dirty_link);
      uint64_t block = frame_block (frame);

      if (block >= first && block <= last && frame_has (frame, flag)
          && (!is_found || block < *found)) {
        *found = block;
        is_found = true;
      }
    }
  mutex_unlock (&disk->mutex);
  return is_found;
}

/* What has FLAG is dirty. */
static bool
find_flag (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
           unsigned flag, uint64_t *found)
{
  uint64_t end;

  if (range_is_long (cache, first, last))
    return find_in_lists (disk, first, last, flag, found);
  for (uint64_t block = first;
       region_next (cache, cache->dirty_regions, disk->id, &block, last, &end); block = end + 1) {
    for (uint64_t at = block; at <= end; at = group_last (at) + 1)
      if (find_in_group (cache, disk->id, at, MIN (group_last (at), end), flag, found))
        return true;
    if (end == last)
      break;
  }
  return false;
}

bool
cache_has_copies (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last)
{
  uint64_t found;

  return atomic_load_explicit (&disk->copy_count, memory_order_acquire) > 0
         && find_flag (cache, disk, first, last, FRAME_HAS_COPY, &found);
}

bool
cache_find_dirty (struct cache *cache, struct cache_disk *disk, uint64_t block,
                     uint64_t length, uint64_t *run_block, uint64_t *run_length)
{
  uint64_t last = block + length - 1;
  uint64_t end, found;

  CHECK (length > 0 && last >= block);
  if (atomic_load_explicit (&disk->dirty_count, memory_order_acquire) == 0
      || !find_flag (cache, disk, block, last, FRAME_IS_DIRTY, run_block))
    return false;
  end = *run_block;
  while (end < last
         && find_in_group (cache, disk->id, end + 1, end + 1, FRAME_IS_DIRTY, &found))
    end++;
  *run_length = end - *run_block + 1;
  return true;
}
