/* SPDX-License-Identifier: BSD-2-Clause */
/* cache-replace.c - which frames are free, and which clean ones make room: S3-FIFO.
 *
 * New clean frames enter the small queue, a tenth of all.  What was used more than once when it
 * comes to the end of it goes on to the main queue; the rest is evicted, and its key remembered in
 * the ghost table: if the block comes back soon, it enters the main queue at once.  So a long scan
 * flows through the small queue and leaves the main one alone.  In the main queue a frame goes
 * round as often as it was used (up to 3 times) since it came round last.
 *
 * Frames that somebody references go round, too.  A frame that becomes an orphan stays where it is
 * until its last reference goes: so a frame is in a queue only while it has references, and who
 * holds one may put it into a queue without asking whether it is an orphan by now.
 *
 * Free frames lie in the pool, and a few of them in stripes, each used by some of the threads.  The
 * pool gives those first that come first in memory.  So what is written in one piece mostly lies in
 * one piece, and leaves such a piece when it is written again; and what was never used is only
 * touched when it is needed, which costs a page fault each.  To take those that became free last
 * would have the second, not the first.
 */
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "store/cache-internal.h"

#define GHOST_WAYS 4
#define EVICT_BATCH_MAX 16
/* So many used frames are given another round before one is evicted nevertheless: a bound for the
 * time under the mutex when all of a big main queue was used. */
#define PATIENCE 256
#define STRIPE_FRAMES_MAX 128
/* So many frames get their space at once: 1 MiB takes the kernel some 0.25 ms. */
#define GROW_FRAMES 256

/* --- the ghost, under replacement.mutex --- */

static bool
ghost_init (struct ghost *ghost, uint64_t frame_count)
{
  uint64_t sets = 16;

  while (sets * GHOST_WAYS < frame_count)
    sets *= 2;
  ghost->entries = calloc (sets * GHOST_WAYS, sizeof *ghost->entries);
  ghost->set_mask = sets - 1;
  ghost->sequence = 0;
  ghost->age_max = (uint32_t) (frame_count - frame_count / 10);
  return ghost->entries != NULL;
}

static struct ghost_entry *
ghost_set (struct ghost *ghost, const struct frame *frame, uint32_t *fingerprint)
{
  uint64_t hash = cache_hash (frame_disk (frame), frame_block (frame));

  *fingerprint = (uint32_t) (hash >> 32);
  return &ghost->entries[(hash & ghost->set_mask) * GHOST_WAYS];
}

static void
ghost_insert (struct ghost *ghost, const struct frame *frame)
{
  uint32_t fingerprint;
  struct ghost_entry *set = ghost_set (ghost, frame, &fingerprint);
  struct ghost_entry *victim = &set[0];

  ghost->sequence++;
  if (ghost->sequence == 0)
    ghost->sequence = 1;
  for (unsigned i = 0; i < GHOST_WAYS; i++) {
    if (set[i].inserted == 0 || set[i].fingerprint == fingerprint) {
      victim = &set[i];
      break;
    }
    if (ghost->sequence - set[i].inserted > ghost->sequence - victim->inserted)
      victim = &set[i];
  }
  *victim = (struct ghost_entry) { fingerprint, ghost->sequence };
}

/* True if the block left the small queue not long ago; forgets that. */
static bool
ghost_take (struct ghost *ghost, const struct frame *frame)
{
  uint32_t fingerprint;
  struct ghost_entry *set = ghost_set (ghost, frame, &fingerprint);

  for (unsigned i = 0; i < GHOST_WAYS; i++)
    if (set[i].inserted != 0 && set[i].fingerprint == fingerprint) {
      bool is_recent = ghost->sequence - set[i].inserted < ghost->age_max;

      set[i].inserted = 0;
      return is_recent;
    }
  return false;
}

/* --- the queues, under replacement.mutex --- */

static void
queue_append (struct replacement *replacement, struct frame *frame, enum frame_queue queue)
{
  if (queue == QUEUE_SMALL) {
    list_append (&replacement->small, &frame->queue_link);
    replacement->small_count++;
  } else {
    list_append (&replacement->main, &frame->queue_link);
    replacement->main_count++;
  }
  atomic_store_explicit (&frame->queue, (uint8_t) queue, memory_order_relaxed);
}

static void
queue_remove (struct replacement *replacement, struct frame *frame)
{
  list_remove (&frame->queue_link);
  if (atomic_load_explicit (&frame->queue, memory_order_relaxed) == QUEUE_SMALL)
    replacement->small_count--;
  else
    replacement->main_count--;
  atomic_store_explicit (&frame->queue, QUEUE_NONE, memory_order_relaxed);
}

/* From the small queue to the main one, never seen in none: whoever drops the last reference of an
 * orphan asks without the mutex whether it is in a queue. */
static void
queue_promote (struct replacement *replacement, struct frame *frame)
{
  list_remove (&frame->queue_link);
  replacement->small_count--;
  queue_append (replacement, frame, QUEUE_MAIN);
}

static void
queue_rotate (struct list *queue, struct frame *frame)
{
  list_remove (&frame->queue_link);
  list_append (queue, &frame->queue_link);
}

/* References a frame that nobody but the index references. */
static bool
victim_claim (struct frame *frame)
{
  uint32_t expected = 1;

  return atomic_compare_exchange_strong_explicit (&frame->references, &expected, 2,
                                                  memory_order_acquire, memory_order_relaxed);
}

static struct frame *
victim_from_small (struct replacement *replacement)
{
  for (uint64_t steps = replacement->small_count; steps > 0; steps--) {
    struct frame *frame = container_of (replacement->small.next, struct frame, queue_link);

    if (atomic_load_explicit (&frame->frequency, memory_order_relaxed) > 1) {
      atomic_store_explicit (&frame->frequency, 0, memory_order_relaxed);
      queue_promote (replacement, frame);
    } else if (victim_claim (frame)) {
      queue_remove (replacement, frame);
      ghost_insert (&replacement->ghost, frame);
      return frame;
    } else
      queue_rotate (&replacement->small, frame);
  }
  return NULL;
}

static struct frame *
victim_from_main (struct replacement *replacement)
{
  unsigned patience = PATIENCE;

  for (uint64_t steps = replacement->main_count + PATIENCE; steps > 0; steps--) {
    struct frame *frame;
    uint8_t frequency;

    if (list_is_empty (&replacement->main))
      return NULL;
    frame = container_of (replacement->main.next, struct frame, queue_link);
    frequency = atomic_load_explicit (&frame->frequency, memory_order_relaxed);
    if (frequency > 0 && patience > 0) {
      patience--;
      atomic_store_explicit (&frame->frequency, frequency - 1, memory_order_relaxed);
    } else if (victim_claim (frame)) {
      queue_remove (replacement, frame);
      return frame;
    }
    queue_rotate (&replacement->main, frame);
  }
  return NULL;
}

static struct frame *
victim_pick (struct replacement *replacement)
{
  uint64_t all = replacement->small_count + replacement->main_count;
  struct frame *frame;

  if (replacement->small_count * 10 >= all) {
    frame = victim_from_small (replacement);
    return frame != NULL ? frame : victim_from_main (replacement);
  }
  frame = victim_from_main (replacement);
  return frame != NULL ? frame : victim_from_small (replacement);
}

/* Takes a victim out of the index, unless somebody uses it again: then it has shown that it is
 * worth to stay.  The caller's reference stays his. */
static void
victim_evict (struct cache *cache, struct frame *frame)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
  bool is_orphan = frame_has (frame, FRAME_IS_ORPHAN);
  bool is_idle = !is_orphan
                 && atomic_load_explicit (&frame->references, memory_order_relaxed) == 2;

  CHECK (frame_state (frame) == FRAME_CLEAN);
  if (is_idle)
    index_remove (cache, frame);
  mutex_unlock (lock);

  if (is_idle) {
    atomic_fetch_add_explicit (&cache->replacement.evictions, 1, memory_order_relaxed);
    cache_put (cache, frame);
  } else if (!is_orphan) {
    mutex_lock (&cache->replacement.mutex);
    queue_append (&cache->replacement, frame, QUEUE_MAIN);
    mutex_unlock (&cache->replacement.mutex);
  }
}

/* Evicts a few clean frames that are valid; how many were tried. */
static unsigned
evict_valid (struct cache *cache)
{
  struct replacement *replacement = &cache->replacement;
  struct frame *victims[EVICT_BATCH_MAX];
  unsigned count = 0;

  mutex_lock (&replacement->mutex);
  while (count < cache->evict_batch) {
    victims[count] = victim_pick (replacement);
    if (victims[count] == NULL)
      break;
    count++;
  }
  mutex_unlock (&replacement->mutex);
  for (unsigned i = 0; i < count; i++)
    victim_evict (cache, victims[i]);
  cache_put_all (cache, victims, count);
  return count;
}

/* Evicts a few clean frames, the invalid ones first; false: there was not one to try. */
static bool
evict (struct cache *cache)
{
  struct replacement *replacement = &cache->replacement;
  bool is_done;

  atomic_fetch_add (&replacement->evict_begun, 1);
  is_done = invalid_reclaim (cache) > 0 || evict_valid (cache) > 0;
  atomic_fetch_add (&replacement->evict_ended, 1);
  return is_done;
}

void
replacement_enter (struct cache *cache, struct frame *frame)
{
  struct replacement *replacement = &cache->replacement;
  bool is_warm;

  mutex_lock (&replacement->mutex);
  is_warm = ghost_take (&replacement->ghost, frame) || frame->is_warm;
  queue_append (replacement, frame, is_warm ? QUEUE_MAIN : QUEUE_SMALL);
  mutex_unlock (&replacement->mutex);
}

/* --- free frames --- */

static struct free_stripe *
stripe_of_thread (struct cache *cache)
{
  static _Atomic unsigned threads;
  static _Thread_local unsigned number;   /* + 1; 0: this thread has none yet */

  if (number == 0)
    number = 1 + atomic_fetch_add_explicit (&threads, 1, memory_order_relaxed) % FREE_STRIPES;
  return &cache->stripes[number - 1];
}

static bool
pool_init (struct pool *pool, uint32_t frame_count)
{
  uint32_t words = (uint32_t) divide_up (frame_count, 64);

  CHECK (pthread_mutex_init (&pool->mutex, NULL) == 0);
  pool->summary_words = (uint32_t) divide_up (words, 64);
  pool->lowest = pool->summary_words;
  pool->words = calloc (words, sizeof *pool->words);
  pool->summary = calloc (pool->summary_words, sizeof *pool->summary);
  atomic_init (&pool->count, 0);
  return pool->words != NULL && pool->summary != NULL;
}

static void
pool_destroy (struct pool *pool)
{
  pthread_mutex_destroy (&pool->mutex);
  free (pool->words);
  free (pool->summary);
}

/* Frame INDEX is in the pool from now on, whose state says so.  Under its mutex, as all but pool_join
 * and pool_take. */
static void
pool_add (struct pool *pool, uint32_t index)
{
  uint32_t word = index / 64;

  pool->words[word] |= UINT64_C (1) << index % 64;
  pool->summary[word / 64] |= UINT64_C (1) << word % 64;
  pool->lowest = MIN (pool->lowest, word / 64);
}

static void
pool_put (struct cache *cache, struct frame *frame)
{
  pool_add (&cache->pool, frame_index (cache, frame));
  atomic_store_explicit (&frame->queue, QUEUE_POOL, memory_order_relaxed);
  atomic_fetch_add_explicit (&cache->pool.count, 1, memory_order_relaxed);
}

/* Frames that were never used, and have their space. */
static void
pool_join (struct pool *pool, uint32_t first, uint32_t count)
{
  mutex_lock (&pool->mutex);
  for (uint32_t i = 0; i < count; i++)
    pool_add (pool, first + i);
  atomic_fetch_add_explicit (&pool->count, count, memory_order_relaxed);
  mutex_unlock (&pool->mutex);
  atomic_fetch_add_explicit (&pool->joined, count, memory_order_release);
}

static void
pool_remove (struct cache *cache, struct frame *frame)
{
  struct pool *pool = &cache->pool;
  uint32_t index = frame_index (cache, frame), word = index / 64;

  CHECK (atomic_load_explicit (&frame->queue, memory_order_relaxed) == QUEUE_POOL);
  pool->words[word] &= ~(UINT64_C (1) << index % 64);
  if (pool->words[word] == 0)
    pool->summary[word / 64] &= ~(UINT64_C (1) << word % 64);
  atomic_store_explicit (&frame->queue, QUEUE_NONE, memory_order_relaxed);
  atomic_fetch_sub_explicit (&pool->count, 1, memory_order_relaxed);
}

/* The first one in memory; NULL: there is none. */
static struct frame *
pool_first (struct cache *cache)
{
  struct pool *pool = &cache->pool;
  uint64_t word;

  while (pool->lowest < pool->summary_words && pool->summary[pool->lowest] == 0)
    pool->lowest++;
  if (pool->lowest == pool->summary_words)
    return NULL;
  word = pool->lowest * UINT64_C (64) + (unsigned) __builtin_ctzll (pool->summary[pool->lowest]);
  return &cache->frames[word * 64 + (unsigned) __builtin_ctzll (pool->words[word])];
}

/* Up to MAX frames; how many. */
static uint32_t
pool_take (struct cache *cache, struct frame **frames, uint32_t max)
{
  uint32_t count = 0;
  struct frame *frame;

  mutex_lock (&cache->pool.mutex);
  while (count < max && (frame = pool_first (cache)) != NULL) {
    pool_remove (cache, frame);
    frames[count++] = frame;
  }
  mutex_unlock (&cache->pool.mutex);
  return count;
}

static struct frame *
stripe_take (struct free_stripe *stripe)
{
  struct list *link = list_take (&stripe->frames);

  if (link == NULL)
    return NULL;
  atomic_fetch_sub_explicit (&stripe->count, 1, memory_order_relaxed);
  return container_of (link, struct frame, queue_link);
}

/* A free frame from the thread's stripe, which is filled from the pool if it is empty. */
static struct frame *
free_take (struct cache *cache)
{
  struct free_stripe *stripe = stripe_of_thread (cache);
  struct frame *frames[1 + STRIPE_FRAMES_MAX / 2], *frame;
  uint32_t count = 0;

  mutex_lock (&stripe->mutex);
  if (list_is_empty (&stripe->frames)
      && atomic_load_explicit (&cache->pool.count, memory_order_relaxed) > 0)
    count = pool_take (cache, frames, 1 + cache->stripe_max / 2);
  for (uint32_t i = 0; i < count; i++)
    list_append (&stripe->frames, &frames[i]->queue_link);
  atomic_fetch_add_explicit (&stripe->count, count, memory_order_relaxed);
  frame = stripe_take (stripe);
  mutex_unlock (&stripe->mutex);
  return frame;
}

/* The same from any stripe. */
static struct frame *
free_steal (struct cache *cache)
{
  for (unsigned i = 0; i < FREE_STRIPES; i++) {
    struct free_stripe *stripe = &cache->stripes[i];
    struct frame *frame;

    if (atomic_load_explicit (&stripe->count, memory_order_relaxed) == 0)
      continue;
    mutex_lock (&stripe->mutex);
    frame = stripe_take (stripe);
    mutex_unlock (&stripe->mutex);
    if (frame != NULL)
      return frame;
  }
  return free_take (cache);
}

static void
frame_becomes_free (struct frame *frame)
{
  CHECK (list_is_empty (&frame->waiters) && list_is_empty (&frame->dirty_link));
  CHECK (frame_has (frame, FRAME_IS_ORPHAN) && !frame_has (frame, FRAME_HAS_TOKEN));
  frame_set_state (frame, FRAME_FREE);
}

void
replacement_free (struct cache *cache, struct frame *frame)
{
  struct free_stripe *stripe = stripe_of_thread (cache);

  frame_becomes_free (frame);
  if (atomic_load_explicit (&frame->queue, memory_order_relaxed) != QUEUE_NONE) {
    mutex_lock (&cache->replacement.mutex);
    queue_remove (&cache->replacement, frame);
    mutex_unlock (&cache->replacement.mutex);
  }
  mutex_lock (&stripe->mutex);
  list_prepend (&stripe->frames, &frame->queue_link);
  if (atomic_fetch_add_explicit (&stripe->count, 1, memory_order_relaxed) >= cache->stripe_max) {
    mutex_lock (&cache->pool.mutex);
    for (uint32_t i = 0; i <= cache->stripe_max / 2; i++)
      pool_put (cache, stripe_take (stripe));
    mutex_unlock (&cache->pool.mutex);
  }
  mutex_unlock (&stripe->mutex);
}

void
replacement_free_all (struct cache *cache, struct frame **frames, uint32_t count)
{
  mutex_lock (&cache->replacement.mutex);
  for (uint32_t i = 0; i < count; i++) {
    frame_becomes_free (frames[i]);
    if (atomic_load_explicit (&frames[i]->queue, memory_order_relaxed) != QUEUE_NONE)
      queue_remove (&cache->replacement, frames[i]);
  }
  mutex_unlock (&cache->replacement.mutex);
  mutex_lock (&cache->pool.mutex);
  for (uint32_t i = 0; i < count; i++)
    pool_put (cache, frames[i]);
  mutex_unlock (&cache->pool.mutex);
}

static void
frame_renew (struct cache *cache, struct frame *frame)
{
  if (frame_is_new (frame)) {
    frame->data = cache->arena->data + frame_index (cache, frame) * (uint64_t) BLOCK_SIZE;
    list_init (&frame->dirty_link);
    list_init (&frame->waiters);
  }
  CHECK (atomic_load_explicit (&frame->references, memory_order_relaxed) == 0);
  CHECK (frame_state (frame) == FRAME_FREE);
  atomic_store_explicit (&frame->frequency, 0, memory_order_relaxed);
  atomic_store_explicit (&frame->flags, FRAME_IS_ORPHAN, memory_order_relaxed);
  frame->is_warm = false;
  frame->copy_epoch = 0;
  frame->copy_version = 0;
  frame->version = frame->since = 0;
  frame->owner = NULL;
  atomic_store_explicit (&frame->references, 1, memory_order_release);
}

/* --- until the arena has all of its space --- */

/* Some more free frames; false: there are all that there will be. */
static bool
grow (struct cache *cache)
{
  struct pool *pool = &cache->pool;
  uint32_t count, first;

  if (atomic_load_explicit (&pool->joined, memory_order_acquire) == cache->frame_count)
    return false;
  first = atomic_load_explicit (&pool->claimed, memory_order_relaxed);
  do {
    count = MIN (GROW_FRAMES, cache->frame_count - first);
    if (count == 0) {
      sched_yield ();           /* others get the last ones just now */
      return true;
    }
  } while (!atomic_compare_exchange_weak_explicit (&pool->claimed, &first, first + count,
                                                   memory_order_relaxed, memory_order_relaxed));
  arena_allocate (cache->arena, first, count);
  pool_join (pool, first, count);
  return true;
}

static void *
grow_thread (void *arg)
{
  struct cache *cache = arg;

  /* Of this thread alone: those that serve come first, and help themselves where they need to. */
  setpriority (PRIO_PROCESS, 0, 19);
  while (!atomic_load (&cache->pool.is_stopping) && grow (cache))
    ;
  return NULL;
}

int
cache_start_growing (struct cache *cache)
{
  struct pool *pool = &cache->pool;
  int error;

  CHECK (!pool->has_thread);
  if (atomic_load (&pool->joined) == cache->frame_count)
    return 0;
  error = pthread_create (&pool->thread, NULL, grow_thread, cache);
  pool->has_thread = error == 0;
  return error;
}

void
replacement_stop_growing (struct cache *cache)
{
  struct pool *pool = &cache->pool;

  if (!pool->has_thread)
    return;
  atomic_store (&pool->is_stopping, true);
  CHECK (pthread_join (pool->thread, NULL) == 0);
  pool->has_thread = false;
}

/* --- what others ask for --- */

struct frame *
cache_allocate (struct cache *cache)
{
  struct frame *frame;

  for (;;) {
    uint64_t ended = atomic_load (&cache->replacement.evict_ended);

    frame = free_take (cache);
    if (frame != NULL)
      break;
    if (grow (cache) || evict (cache))
      continue;
    frame = free_steal (cache);
    if (frame != NULL)
      break;
    /* Another thread that evicts at the same time may have had in its hands, for a moment, what
     * would have done: only if none has, the search was complete. */
    if (atomic_load (&cache->replacement.evict_begun) == ended + 1)
      return NULL;
    sched_yield ();
  }
  frame_renew (cache, frame);
  return frame;
}

void
cache_allocate_all (struct cache *cache, struct frame **frames, uint32_t count)
{
  uint32_t taken = count > STRIPE_FRAMES_MAX ? pool_take (cache, frames, count) : 0;

  for (uint32_t i = 0; i < taken; i++)
    frame_renew (cache, frames[i]);
  for (; taken < count; taken++) {
    frames[taken] = cache_allocate (cache);
    CHECK (frames[taken] != NULL);     /* what is admitted finds a frame */
  }
}

void
replacement_claim (struct cache *cache, struct frame *frame)
{
  mutex_lock (&cache->pool.mutex);
  pool_remove (cache, frame);
  mutex_unlock (&cache->pool.mutex);
  frame_renew (cache, frame);
}

/* --- the whole --- */

bool
replacement_init (struct cache *cache)
{
  struct replacement *replacement = &cache->replacement;
  uint32_t count = cache->frame_count;

  if (!ghost_init (&replacement->ghost, count) || !pool_init (&cache->pool, count))
    return false;
  CHECK (pthread_mutex_init (&replacement->mutex, NULL) == 0);
  list_init (&replacement->small);
  list_init (&replacement->main);
  /* What lies in the stripes, and in the hands of those who evict, must not matter. */
  cache->stripe_max = MIN (STRIPE_FRAMES_MAX, count / 1024);
  cache->evict_batch = MAX (1, MIN (EVICT_BATCH_MAX, count / 1024));
  for (unsigned i = 0; i < FREE_STRIPES; i++) {
    CHECK (pthread_mutex_init (&cache->stripes[i].mutex, NULL) == 0);
    list_init (&cache->stripes[i].frames);
  }
  CHECK (cache->arena->frames_at_start <= count);
  atomic_init (&cache->pool.claimed, (uint32_t) cache->arena->frames_at_start);
  pool_join (&cache->pool, 0, (uint32_t) cache->arena->frames_at_start);
  return true;
}

void
replacement_destroy (struct cache *cache)
{
  for (unsigned i = 0; i < FREE_STRIPES; i++)
    pthread_mutex_destroy (&cache->stripes[i].mutex);
  pool_destroy (&cache->pool);
  pthread_mutex_destroy (&cache->replacement.mutex);
  free (cache->replacement.ghost.entries);
}

uint64_t
replacement_free_count (struct cache *cache)
{
  uint64_t count = atomic_load_explicit (&cache->pool.count, memory_order_relaxed);

  for (unsigned i = 0; i < FREE_STRIPES; i++)
    count += atomic_load_explicit (&cache->stripes[i].count, memory_order_relaxed);
  return count;
}

uint64_t
replacement_clean_count (struct cache *cache)
{
  uint64_t count;

  mutex_lock (&cache->replacement.mutex);
  count = cache->replacement.small_count + cache->replacement.main_count;
  mutex_unlock (&cache->replacement.mutex);
  return count;
}

static uint64_t
queue_verify (const struct list *list, enum frame_queue queue)
{
  uint64_t count = 0;

  list_for_each (link, list) {
    const struct frame *frame = container_of (link, struct frame, queue_link);

    CHECK (atomic_load (&frame->queue) == queue);
    CHECK ((atomic_load (&frame->references) == 0) == (queue == QUEUE_NONE));
    CHECK (frame_state (frame) == (queue == QUEUE_NONE ? FRAME_FREE : FRAME_CLEAN));
    count++;
  }
  return count;
}

static uint64_t
pool_verify (struct cache *cache)
{
  const struct pool *pool = &cache->pool;
  uint32_t joined = atomic_load (&pool->joined);
  uint64_t count = 0;

  for (uint32_t i = 0; i < cache->frame_count; i++) {
    const struct frame *frame = &cache->frames[i];
    uint64_t word = pool->words[i / 64];
    bool is_here = (word >> i % 64 & 1) != 0;

    if (i >= joined) {
      CHECK (!is_here && frame_is_new (frame));
      continue;
    }
    CHECK (is_here == (atomic_load (&frame->queue) == QUEUE_POOL));
    CHECK (!is_here || (frame_state (frame) == FRAME_FREE && atomic_load (&frame->references) == 0));
    CHECK ((word != 0) == ((pool->summary[i / 4096] >> i / 64 % 64 & 1) != 0));
    CHECK (!is_here || pool->lowest <= i / 4096);
    count += is_here;
  }
  return count;
}

void
replacement_verify (struct cache *cache)
{
  struct replacement *replacement = &cache->replacement;

  CHECK (atomic_load (&replacement->evict_begun) == atomic_load (&replacement->evict_ended));
  CHECK (queue_verify (&replacement->small, QUEUE_SMALL) == replacement->small_count);
  CHECK (queue_verify (&replacement->main, QUEUE_MAIN) == replacement->main_count);
  CHECK (pool_verify (cache) == atomic_load (&cache->pool.count));
  for (unsigned i = 0; i < FREE_STRIPES; i++)
    CHECK (queue_verify (&cache->stripes[i].frames, QUEUE_NONE)
           == atomic_load (&cache->stripes[i].count));
}
