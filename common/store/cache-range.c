/* SPDX-License-Identifier: BSD-2-Clause */
/* cache-range.c - what is done with ranges of blocks: dropping their frames, looking for dirty ones.
 *
 * A range costs what is cached of it.  Counters tell which of its regions may have frames; in those
 * it goes from group to group of BUCKETS_PER_LINE blocks, whose buckets are one line under one lock.
 * A range of more regions than there are frames is looked for among all frames instead, or, for
 * dirty ones, in the disk's lists.
 */
#include "store/cache-internal.h"

#define REGION_GROUPS (REGION_BLOCKS / BUCKETS_PER_LINE)

/* --- regions --- */

/* Looks for the first region that may hold something counted, from *BLOCK on, not beyond LAST.
 * True: *BLOCK is the first block to look at, *END the last one of its region. */
static bool
region_next (const struct cache *cache, _Atomic uint32_t *counters, uint64_t disk,
             uint64_t *block, uint64_t last, uint64_t *end)
{
  for (uint64_t at = *block;;) {
    uint64_t region_last = at | (REGION_BLOCKS - 1);
    const _Atomic uint32_t *counter = region_counter (cache, counters, disk, at);

    if (atomic_load_explicit (counter, memory_order_relaxed) != 0) {
      *block = at;
      *end = MIN (region_last, last);
      return true;
    }
    if (region_last >= last)
      return false;
    at = region_last + 1;
  }
}

/* Whether it costs less to look at all frames than at all regions of a range. */
static bool
range_is_long (const struct cache *cache, uint64_t first, uint64_t last)
{
  return (last >> REGION_SHIFT) - (first >> REGION_SHIFT) > cache->frame_count;
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
  struct frame *frames[REGION_BLOCKS];
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
drop_group (struct cache *cache, struct cache_disk *disk, _Atomic uint32_t *line, uint64_t first,
            uint64_t last, struct drop *drop, struct cache_dropped *dropped)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk->id, first);

  for (unsigned i = 0; i < BUCKETS_PER_LINE; i++) {
    _Atomic uint32_t *slot = &line[i];
    uint32_t number;

    while ((number = atomic_load_explicit (slot, memory_order_relaxed)) != 0) {
      struct frame *frame = &cache->frames[number - 1];

      if (!frame_is_in (frame, disk->id, first, last)) {
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
      frame->owner = NULL;
      drop->frames[drop->count++] = frame;
    }
  }
  mutex_unlock (lock);
}

/* What was dropped of the region of BLOCK is counted, and loses the index' references. */
static void
drop_end (struct cache *cache, struct cache_disk *disk, uint64_t block, struct drop *drop,
          struct cache_dropped *dropped)
{
  if (drop->count == 0)
    return;
  dropped->frames += drop->count;
  atomic_fetch_sub_explicit (region_counter (cache, cache->cached_regions, disk->id, block),
                             drop->count, memory_order_relaxed);
  /* The last touch: whoever reads zero may destroy the disk. */
  atomic_fetch_sub_explicit (&disk->frame_count, drop->count, memory_order_release);
  cache_put_all (cache, drop->frames, drop->count);
}

/* [first, last] is within one region.  Nobody puts frames into it meanwhile, so that it has no more
 * of them than are counted. */
static void
drop_region (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
             struct cache_dropped *dropped)
{
  _Atomic uint32_t *lines[REGION_GROUPS + 1];
  uint32_t counted
    = atomic_load_explicit (region_counter (cache, cache->cached_regions, disk->id, first),
                            memory_order_relaxed);
  unsigned count = 0;
  struct drop drop;

  drop.count = 0;
  for (uint64_t at = first; at <= last; at = group_last (at) + 1) {
    lines[count] = group_line (cache, disk->id, at);
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

/* [first, last] of a disk that is much larger than the cache: a group at a time. */
static void
drop_all_frames (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
                 struct cache_dropped *dropped)
{
  for (uint32_t i = 0; i < cache->frame_count; i++) {
    const struct frame *frame = &cache->frames[i];
    uint64_t block = frame_block (frame);

    if (frame_is_in (frame, disk->id, first, last) && !frame_has (frame, FRAME_IS_ORPHAN))
      drop_region (cache, disk, MAX (block & ~(uint64_t) (BUCKETS_PER_LINE - 1), first),
                   MIN (group_last (block), last), dropped);
  }
}

void
cache_drop (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
            struct cache_dropped *dropped, struct list *wake)
{
  uint64_t dirty = dropped->dirty;
  uint64_t end;

  CHECK (first <= last);
  if (atomic_load_explicit (&disk->frame_count, memory_order_acquire) == 0)
    return;
  if (range_is_long (cache, first, last))
    drop_all_frames (cache, disk, first, last, dropped);
  else
    for (uint64_t block = first;
         region_next (cache, cache->cached_regions, disk->id, &block, last, &end);
         block = end + 1) {
      drop_region (cache, disk, block, end, dropped);
      if (end == last)
        break;
    }
  if (dropped->dirty > dirty)
    budget_release (&cache->dirty, NULL, dropped->dirty - dirty, wake);
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
    last = block + cache->frame_count * REGION_BLOCKS - 1;
  for (; region_next (cache, cache->cached_regions, disk->id, &at, last, &end); at = end + 1) {
    const _Atomic uint32_t *counter = region_counter (cache, cache->cached_regions, disk->id, at);

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
