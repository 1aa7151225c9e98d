/* SPDX-License-Identifier: BSD-2-Clause */
/* cache.c - the index of the frames: lookup, fill, publish. */
#include <stdlib.h>
#include <string.h>

#include "store/cache-internal.h"

/* No chain is that long; a lookup without lock that has strayed into chains that change under its
 * feet gives up. */
#define CHAIN_STEPS_MAX 64

#define FREQUENCY_MAX 3

/* Regions of the largest size that a cache has frames for, at least. */
#define REGIONS_MIN 64

/* --- buckets --- */

pthread_mutex_t *
bucket_lock (struct cache *cache, uint64_t disk, uint64_t block)
{
  uint64_t line = bucket_number (cache, disk, block) / BUCKETS_PER_LINE;
  pthread_mutex_t *mutex = &cache->locks[line & cache->lock_mask].mutex;

  mutex_lock (mutex);
  return mutex;
}

pthread_mutex_t *
bucket_lock_frame (struct cache *cache, const struct frame *frame)
{
  return bucket_lock (cache, frame_disk (frame), frame_block (frame));
}

/* --- the index --- */

/* Where the number of FRAME, which is in the index, is stored: the head of its chain, or the `next`
 * before it. */
static _Atomic uint32_t *
index_slot (struct cache *cache, const struct frame *frame)
{
  uint32_t wanted = frame_index (cache, frame) + 1;
  _Atomic uint32_t *slot
    = &cache->buckets[bucket_number (cache, frame_disk (frame), frame_block (frame))];

  for (;;) {
    uint32_t number = atomic_load_explicit (slot, memory_order_relaxed);

    CHECK (number != 0);
    if (number == wanted)
      return slot;
    slot = &cache->frames[number - 1].next;
  }
}

struct frame *
index_find (struct cache *cache, uint64_t disk, uint64_t block)
{
  uint32_t number = atomic_load_explicit (&cache->buckets[bucket_number (cache, disk, block)],
                                          memory_order_relaxed);

  while (number != 0) {
    struct frame *frame = &cache->frames[number - 1];

    if (frame_block (frame) == block && frame_disk (frame) == disk)
      return frame;
    number = atomic_load_explicit (&frame->next, memory_order_relaxed);
  }
  return NULL;
}

/* FRESH gets its key, an owner and the index' reference; nobody finds it yet. */
static void
index_prepare (struct cache_disk *disk, uint64_t block, struct frame *fresh)
{
  CHECK (frame_state (fresh) == FRAME_FREE && frame_has (fresh, FRAME_IS_ORPHAN));
  CHECK (fresh->owner == NULL && disk->id != 0);
  atomic_store_explicit (&fresh->disk, disk->id, memory_order_relaxed);
  atomic_store_explicit (&fresh->block, block, memory_order_relaxed);
  fresh->owner = disk;
  cache_reference (fresh);
  frame_change_flags (fresh, FRAME_IS_ORPHAN, 0);
}

/* STATE is set last: until then those who look without lock find nothing, and look again. */
static void
index_insert (struct cache *cache, struct frame *frame, enum frame_state state)
{
  uint64_t disk = frame_disk (frame), block = frame_block (frame);
  _Atomic uint32_t *head = &cache->buckets[bucket_number (cache, disk, block)];

  atomic_fetch_add_explicit (region_counter (cache, cache->cached_regions, disk, block), 1,
                             memory_order_relaxed);
  atomic_fetch_add_explicit (&frame->owner->frame_count, 1, memory_order_relaxed);
  atomic_store_explicit (&frame->next, atomic_load_explicit (head, memory_order_relaxed),
                         memory_order_relaxed);
  atomic_store_explicit (head, frame_index (cache, frame) + 1, memory_order_release);
  frame_set_state (frame, state);
}

/* Puts FRESH in the place of OLD, the present frame of its block, which becomes an orphan. */
static void
index_replace (struct cache *cache, struct frame *old, struct frame *fresh,
               enum frame_state state)
{
  _Atomic uint32_t *slot = index_slot (cache, old);

  atomic_store_explicit (&fresh->next, atomic_load_explicit (&old->next, memory_order_relaxed),
                         memory_order_relaxed);
  atomic_store_explicit (slot, frame_index (cache, fresh) + 1, memory_order_release);
  frame_change_flags (old, 0, FRAME_IS_ORPHAN);
  if (!frame_has (old, FRAME_KEEPS_PLACE))
    old->owner = NULL;
  frame_set_state (fresh, state);
}

/* The orphan keeps its `next` for those who are just passing by it. */
void
index_remove (struct cache *cache, struct frame *frame)
{
  uint64_t disk = frame_disk (frame), block = frame_block (frame);
  struct cache_disk *owner = frame->owner;

  CHECK (!frame_has (frame, FRAME_IS_ORPHAN));
  atomic_store_explicit (index_slot (cache, frame),
                         atomic_load_explicit (&frame->next, memory_order_relaxed),
                         memory_order_release);
  frame_change_flags (frame, 0, FRAME_IS_ORPHAN);
  frame->owner = NULL;
  atomic_fetch_sub_explicit (region_counter (cache, cache->cached_regions, disk, block), 1,
                             memory_order_relaxed);
  /* The last touch: whoever reads zero may destroy the disk. */
  atomic_fetch_sub_explicit (&owner->frame_count, 1, memory_order_release);
}

/* --- references and lookup --- */

void
cache_reference (struct frame *frame)
{
  uint32_t before = atomic_fetch_add_explicit (&frame->references, 1, memory_order_relaxed);

  CHECK (before != 0 && before != UINT32_MAX);
}

void
cache_put (struct cache *cache, struct frame *frame)
{
  uint32_t before = atomic_fetch_sub_explicit (&frame->references, 1, memory_order_acq_rel);

  CHECK (before != 0);
  if (before == 1)
    replacement_free (cache, frame);
}

void
cache_put_all (struct cache *cache, struct frame **frames, uint32_t count)
{
  uint32_t dead = 0;

  for (uint32_t i = 0; i < count; i++) {
    uint32_t before
      = atomic_fetch_sub_explicit (&frames[i]->references, 1, memory_order_acq_rel);

    CHECK (before != 0);
    if (before == 1)
      frames[dead++] = frames[i];
  }
  if (dead > 0)
    replacement_free_all (cache, frames, dead);
}

/* References FRAME unless its last reference has gone already. */
static bool
frame_try_reference (struct frame *frame)
{
  uint32_t count = atomic_load_explicit (&frame->references, memory_order_relaxed);

  while (count != 0)
    if (atomic_compare_exchange_weak_explicit (&frame->references, &count, count + 1,
                                               memory_order_acquire, memory_order_relaxed))
      return true;
  return false;
}

static bool
state_is_valid (enum frame_state state)
{
  return state == FRAME_CLEAN || state == FRAME_DIRTY;
}

struct frame *
cache_get (struct cache *cache, uint64_t disk, uint64_t block)
{
  uint32_t number = atomic_load_explicit (&cache->buckets[bucket_number (cache, disk, block)],
                                          memory_order_acquire);

  for (unsigned steps = 0; number != 0 && steps < CHAIN_STEPS_MAX; steps++) {
    struct frame *frame = &cache->frames[number - 1];

    if (frame_block (frame) == block && frame_disk (frame) == disk
        && frame_try_reference (frame)) {
      if (state_is_valid (frame_state (frame)) && frame_block (frame) == block
          && frame_disk (frame) == disk && !frame_has (frame, FRAME_IS_ORPHAN)
          && !frame_is_invalid (cache, frame)) {
        uint8_t frequency = atomic_load_explicit (&frame->frequency, memory_order_relaxed);

        if (frequency < FREQUENCY_MAX)
          atomic_store_explicit (&frame->frequency, frequency + 1, memory_order_relaxed);
        return frame;
      }
      cache_put (cache, frame);
    }
    number = atomic_load_explicit (&frame->next, memory_order_acquire);
  }
  return NULL;
}

void
cache_prefetch (struct cache *cache, uint64_t disk, uint64_t block)
{
  uint32_t number = atomic_load_explicit (&cache->buckets[bucket_number (cache, disk, block)],
                                          memory_order_relaxed);

  if (number != 0)
    frame_prefetch (&cache->frames[number - 1]);
}

void
cache_prefetch_publish (struct cache *cache, uint64_t disk, uint64_t block,
                        const struct frame *fresh)
{
  uint32_t number = atomic_load_explicit (&cache->buckets[bucket_number (cache, disk, block)],
                                          memory_order_relaxed);

  frame_prefetch (fresh);
  __builtin_prefetch (frame_header (cache, fresh), 1);
  if (number != 0) {
    frame_prefetch (&cache->frames[number - 1]);
    __builtin_prefetch (&cache->arena->frames[number - 1], 1);
  }
}

struct frame *
cache_peek (struct cache *cache, uint64_t disk, uint64_t block)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk, block);
  struct frame *frame = index_find (cache, disk, block);

  if (frame != NULL
      && (!state_is_valid (frame_state (frame)) || frame_is_invalid (cache, frame)))
    frame = NULL;
  if (frame != NULL)
    cache_reference (frame);
  mutex_unlock (lock);
  return frame;
}

/* --- fill --- */

enum cache_found
cache_fill_begin (struct cache *cache, struct cache_disk *disk, uint64_t block,
                  struct frame *fresh, struct frame **found)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk->id, block);
  struct frame *frame = index_find (cache, disk->id, block), *invalid = NULL;
  enum cache_found answer = CACHE_YOURS;

  if (frame != NULL && frame_is_invalid (cache, frame))
    invalid = frame;
  if (invalid != NULL) {
    index_prepare (disk, block, fresh);
    index_replace (cache, invalid, fresh, FRAME_FILLING);
  } else if (frame != NULL) {
    answer = frame_state (frame) == FRAME_FILLING ? CACHE_BUSY : CACHE_FOUND;
    cache_reference (frame);
  } else {
    index_prepare (disk, block, fresh);
    index_insert (cache, fresh, FRAME_FILLING);
  }
  mutex_unlock (lock);
  if (invalid != NULL)
    cache_put (cache, invalid);
  *found = answer == CACHE_YOURS ? fresh : frame;
  return answer;
}

bool
cache_fill_end (struct cache *cache, struct frame *frame, bool ok, struct list *wake)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
  bool is_orphan = frame_has (frame, FRAME_IS_ORPHAN);

  CHECK (frame_state (frame) == FRAME_FILLING);
  ok = ok && !is_orphan;
  if (ok)
    frame_set_clean (cache, frame);
  else
    frame_set_state (frame, FRAME_FREE);
  if (!ok && !is_orphan)
    index_remove (cache, frame);
  list_splice (wake, &frame->waiters);
  mutex_unlock (lock);

  if (is_orphan)
    return false;
  if (ok)
    replacement_enter (cache, frame);
  else
    cache_put (cache, frame);
  return ok;
}

bool
cache_wait_fill (struct cache *cache, struct frame *frame, struct waiter *waiter)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
  bool is_filling = frame_state (frame) == FRAME_FILLING;

  if (is_filling) {
    order_wait (waiter, WAITS_FOR_FILL);
    list_append (&frame->waiters, &waiter->link);
  }
  mutex_unlock (lock);
  return is_filling;
}

/* --- publish --- */

/* What is written is used: a frame inherits the standing of the one it replaces. */
static void
frame_inherit_standing (struct frame *fresh, struct frame *old)
{
  uint8_t frequency = atomic_load_explicit (&old->frequency, memory_order_relaxed);
  uint8_t queue = atomic_load_explicit (&old->queue, memory_order_relaxed);

  atomic_store_explicit (&fresh->frequency, MIN (frequency + 1, FREQUENCY_MAX),
                         memory_order_relaxed);
  fresh->is_warm = old->is_warm || queue == QUEUE_MAIN;
}

bool
publish_frame (struct cache *cache, struct cache_disk *disk, uint64_t block, struct frame *fresh,
               uint64_t version, struct frame *expected, bool has_token, bool *token_taken,
               struct list *wake)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk->id, block);
  struct frame *old = index_find (cache, disk->id, block);
  bool is_invalid = old != NULL && frame_is_invalid (cache, old);
  bool was_dirty = old != NULL && frame_state (old) == FRAME_DIRTY;
  bool takes_token = has_token && !was_dirty;

  if (expected != NULL
      && (is_invalid ? NULL : old) != (expected == CACHE_NONE ? NULL : expected)) {
    mutex_unlock (lock);
    return false;
  }
  index_prepare (disk, block, fresh);
  if (old != NULL && !is_invalid)
    frame_inherit_standing (fresh, old);
  dirty_enter (cache, disk, fresh, version, was_dirty ? old : NULL, takes_token);
  if (old != NULL)
    index_replace (cache, old, fresh, FRAME_DIRTY);
  else
    index_insert (cache, fresh, FRAME_DIRTY);
  if (was_dirty)
    atomic_store_explicit (&frame_header (cache, old)->disk, 0, memory_order_release);
  mutex_unlock (lock);

  if (token_taken != NULL)
    *token_taken = takes_token;
  if (old != NULL)
    cache_put (cache, old);
  if (was_dirty)
    budget_release (&cache->dirty, NULL, 1, wake);
  return true;
}

bool
cache_publish (struct cache *cache, struct cache_disk *disk, uint64_t block, struct frame *fresh,
               struct frame *expected, bool has_token, bool *token_taken, struct list *wake)
{
  return publish_frame (cache, disk, block, fresh, 0, expected, has_token, token_taken, wake);
}

/* --- the whole --- */

/* A table of so many cache lines, all zeros, none of which is in memory before it is used: an idle
 * server has next to nothing of them. */
static void *
cache_allocate_table (void **memory, uint64_t lines)
{
  *memory = calloc (lines + 1, CACHE_LINE);
  return *memory != NULL ? (void *) align_up ((uintptr_t) *memory, CACHE_LINE) : NULL;
}

static bool
cache_allocate_tables (struct cache *cache)
{
  uint64_t lines = 4, locks, count = cache->frame_count;

  while (lines * BUCKETS_PER_LINE < count)
    lines *= 2;
  locks = MIN (lines, BUCKET_LOCKS_MAX);
  cache->bucket_mask = lines - 1;
  cache->lock_mask = locks - 1;
  /* Twice as many as frames: even with all frames in different regions most counters are 0. */
  cache->region_mask = 2 * lines - 1;
  /* Small caches have small regions, too. */
  while (cache->region_shift < REGION_SHIFT_MAX && count >> cache->region_shift >= 2 * REGIONS_MIN)
    cache->region_shift++;
  cache->frames
    = cache_allocate_table (&cache->memory[0], count * (sizeof *cache->frames / CACHE_LINE));
  cache->buckets = cache_allocate_table (&cache->memory[1], lines);
  cache->cached_regions = cache_allocate_table (&cache->memory[2], 2 * lines);
  cache->dirty_regions = cache_allocate_table (&cache->memory[3], 2 * lines);
  cache->region_epochs = cache_allocate_table (&cache->memory[4], 2 * lines);
  cache->locks = aligned_alloc (CACHE_LINE, locks * sizeof *cache->locks);
  if (cache->frames == NULL || cache->buckets == NULL || cache->cached_regions == NULL
      || cache->dirty_regions == NULL || cache->region_epochs == NULL || cache->locks == NULL)
    return false;
  for (uint64_t i = 0; i < locks; i++)
    CHECK (pthread_mutex_init (&cache->locks[i].mutex, NULL) == 0);
  return true;
}

static void
cache_free_tables (struct cache *cache)
{
  for (unsigned i = 0; i < ARRAY_COUNT (cache->memory); i++)
    free (cache->memory[i]);
  free (cache->locks);
  free (cache);
}

struct cache *
cache_create (struct arena *arena)
{
  struct cache *cache = aligned_alloc (CACHE_LINE, sizeof *cache);
  uint64_t count = arena->frame_count;

  _Static_assert (BUCKETS_PER_LINE * sizeof (uint32_t) == CACHE_LINE, "a line of buckets");
  _Static_assert (sizeof (struct frame) == 2 * CACHE_LINE, "see cache.h");
  CHECK (count >= 8 && count < UINT32_MAX);
  if (cache == NULL)
    return NULL;
  memset (cache, 0, sizeof *cache);
  cache->arena = arena;
  cache->frame_count = (uint32_t) count;
  if (!cache_allocate_tables (cache)) {
    cache_free_tables (cache);
    return NULL;
  }
  if (!replacement_init (cache)) {
    cache_free_tables (cache);
    return NULL;
  }
  CHECK (pthread_mutex_init (&cache->invalid.mutex, NULL) == 0);
  budgets_init (cache);
  return cache;
}

void
cache_destroy (struct cache *cache, bool is_abandoned)
{
  replacement_stop_growing (cache);
  for (uint32_t i = 0; i < cache->frame_count && !is_abandoned; i++)
    CHECK (frame_is_new (&cache->frames[i])
           || atomic_load (&cache->frames[i].references)
                == !frame_has (&cache->frames[i], FRAME_IS_ORPHAN));
  if (is_abandoned) {
    cache_free_tables (cache);
    return;
  }
  budget_destroy (&cache->in_flight);
  budget_destroy (&cache->in_flight_large);
  budget_destroy (&cache->dirty);
  replacement_destroy (cache);
  pthread_mutex_destroy (&cache->invalid.mutex);
  for (uint64_t i = 0; i <= cache->lock_mask; i++)
    pthread_mutex_destroy (&cache->locks[i].mutex);
  cache_free_tables (cache);
}

void
cache_get_stats (struct cache *cache, struct cache_stats *stats)
{
  *stats = (struct cache_stats) {
    .evictions = atomic_load (&cache->replacement.evictions),
    .frames = cache->frame_count,
    .clean = replacement_clean_count (cache),
    .dirty = cache_dirty_count (cache),
    .free = replacement_free_count (cache),
    .in_flight = atomic_load (&cache->in_flight.used) + atomic_load (&cache->in_flight_large.used),
    .dirty_max = cache->dirty.max,
    .in_flight_max = cache->in_flight.max + cache->in_flight_large.max,
    .in_flight_large_max = cache->in_flight_large.max,
  };
}

void
cache_verify (struct cache *cache)
{
  uint64_t in_index = 0, in_chains = 0;

  for (uint32_t i = 0; i < cache->frame_count; i++) {
    struct frame *frame = &cache->frames[i];

    if (frame_is_new (frame) || frame_has (frame, FRAME_IS_ORPHAN))
      continue;
    in_index++;
    CHECK (atomic_load (&frame->references) > 0);
    CHECK (frame->owner != NULL && frame->owner->id == frame_disk (frame));
    CHECK (index_find (cache, frame_disk (frame), frame_block (frame)) == frame);
    CHECK (frame_state (frame) != FRAME_FREE);
    CHECK ((frame_state (frame) == FRAME_CLEAN)
           == (atomic_load (&frame->queue) != QUEUE_NONE));
  }
  for (uint64_t b = 0; b < (cache->bucket_mask + 1) * BUCKETS_PER_LINE; b++)
    for (uint32_t number = atomic_load (&cache->buckets[b]); number != 0;
         number = atomic_load (&cache->frames[number - 1].next)) {
      CHECK (!frame_has (&cache->frames[number - 1], FRAME_IS_ORPHAN));
      in_chains++;
    }
  CHECK (in_index == in_chains);
  replacement_verify (cache);
  dirty_verify (cache);
}
