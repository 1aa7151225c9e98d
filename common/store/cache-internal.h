/* SPDX-License-Identifier: BSD-2-Clause */
/* cache-internal.h - what the parts of the frame cache share; nobody else includes it.
 *
 * Locks, in this order:
 *   bucket lock (striped)    the chains, state and flags of the frames in them, their headers in
 *                            the arena
 *   cache_disk.mutex         the dirty lists, `since`, `version`, copy_epoch
 * and leaves, never taken while a bucket lock is held:
 *   replacement.mutex        the queues and the ghost
 *   free_stripe.mutex        one part of the free frames; then pool.mutex, the rest of them
 *   invalid.mutex            the list of invalid regions
 *   budget.mutex             those who wait for room
 *
 * Frames are an array as long as the cache lives, so a pointer or index to one is always safe to
 * follow, whatever it has become meanwhile.  A lookup without lock therefore needs no RCU: it
 * takes a reference only where there is one already, and then looks again at key, state and flags,
 * which cannot become another block's as long as it holds the reference.
 *
 * A region of a disk can lose all its clean frames at once.  It has an epoch, and a frame notes
 * which one it is when it becomes CLEAN; when the region's goes up, its clean frames are *invalid*:
 * still in the index, but everybody takes them for not there, and whoever wants a frame for the
 * block replaces them.  They are counted as cached, and are the first to be evicted.
 *
 *   The epoch goes up while the range is locked exclusive.  A frame becomes CLEAN while its range
 *   is locked shared: so it was before that, and is invalid, or after it, and holds what is valid
 *   then.  FILLING frames there are none meanwhile; where there may be dirty ones, which own much
 *   that must be undone, the frames are dropped one by one.
 *
 * Epochs are hashed, as the counters are: another region's frames may become invalid as well, which
 * is as if they had been evicted.
 */
#ifndef LACUNA_CACHE_INTERNAL_H
#define LACUNA_CACHE_INTERNAL_H

#include "base/bytes.h"
#include "base/check.h"
#include "store/cache.h"
#include "store/order.h"

#define CACHE_LINE 64

/* Neighbouring blocks share a line of bucket heads, and a line of region counters. */
#define BUCKETS_PER_LINE 16
#define REGIONS_PER_LINE 16
#define REGION_SHIFT_MAX 8
#define REGION_BLOCKS_MAX (UINT64_C (1) << REGION_SHIFT_MAX)

#define BUCKET_LOCKS_MAX 1024
#define FREE_STRIPES 16

/* A frame that was never used is all zeros: so it is in the pool. */
enum frame_queue { QUEUE_POOL, QUEUE_NONE, QUEUE_SMALL, QUEUE_MAIN };

struct bucket_lock {
  pthread_mutex_t mutex;
} __attribute__ ((aligned (CACHE_LINE)));

/* A key that left the small queue not long ago: half a hash, and when. */
struct ghost_entry {
  uint32_t fingerprint;
  uint32_t inserted;                /* ghost.sequence then; 0: empty */
};

struct ghost {
  struct ghost_entry *entries;      /* sets of GHOST_WAYS */
  uint64_t set_mask;
  uint32_t sequence;
  uint32_t age_max;                 /* older ones do not count */
};

struct replacement {
  pthread_mutex_t mutex;
  struct list small, main;          /* the oldest first */
  uint64_t small_count, main_count;
  struct ghost ghost;
  _Atomic uint64_t evict_begun;     /* while they differ, threads hold victims */
  _Atomic uint64_t evict_ended;
  _Atomic uint64_t evictions;
} __attribute__ ((aligned (CACHE_LINE)));

/* Free frames in no stripe.  Those that the arena has no space for yet are not in it: whoever makes
 * `claimed` grow gets the space of what he claimed, puts it here, and counts it in `joined`. */
struct pool {
  pthread_mutex_t mutex;
  uint64_t *words;                  /* a bit for each frame: it is here */
  uint64_t *summary;                /* a bit for each word: it is not 0 */
  uint32_t lowest, summary_words;   /* those of the summary before LOWEST are 0 */
  _Atomic uint64_t count;
  _Atomic uint32_t claimed, joined; /* frames; in the end all */
  _Atomic bool is_stopping;         /* `thread`, which claims them, too */
  bool has_thread;
  pthread_t thread;
} __attribute__ ((aligned (CACHE_LINE)));

/* A few free frames for the threads of one stripe, so that they seldom meet at the pool. */
struct free_stripe {
  pthread_mutex_t mutex;
  struct list frames;
  _Atomic uint32_t count;
} __attribute__ ((aligned (CACHE_LINE)));

/* Regions in a row whose clean frames became invalid, and have not been taken out of the index. */
struct invalid_range {
  uint64_t disk, first, last;       /* blocks; the first one of a region, the last one of another */
};

#define INVALID_RANGES_MAX 1024

struct invalid {
  pthread_mutex_t mutex;
  _Atomic uint32_t count;
  struct invalid_range ranges[INVALID_RANGES_MAX];
} __attribute__ ((aligned (CACHE_LINE)));

struct cache {
  /* immutable */
  struct arena *arena;
  void *memory[5];                  /* of the tables below, before it was aligned */
  struct frame *frames;             /* all zeros until it is used for the first time */
  uint32_t frame_count;
  uint64_t bucket_mask;             /* of lines */
  uint64_t lock_mask;
  uint64_t region_mask;             /* of lines */
  unsigned region_shift;            /* blocks of a region: 2 to the power of this */
  uint32_t stripe_max;              /* frames in a stripe; 0: stripes are not used */
  uint32_t evict_batch;
  _Atomic uint32_t *buckets;        /* index + 1 of the first frame; 0: empty */
  struct bucket_lock *locks;
  /* How many frames (dirty frames) of a region of a disk are in the index.  Hashed: a
   * counter may count other regions too, so only its zero tells something. */
  _Atomic uint32_t *cached_regions;
  _Atomic uint32_t *dirty_regions;
  _Atomic uint32_t *region_epochs;  /* hashed likewise */

  _Atomic uint64_t version __attribute__ ((aligned (CACHE_LINE)));
  _Atomic uint64_t dirty_count;
  _Atomic uint64_t unmapped_count;  /* of them: IS_UNMAPPED */
  struct budget in_flight, in_flight_large, dirty;
  struct replacement replacement;
  struct invalid invalid;
  struct pool pool;
  struct free_stripe stripes[FREE_STRIPES];
};

static inline void
mutex_lock (pthread_mutex_t *mutex)
{
  CHECK (pthread_mutex_lock (mutex) == 0);
}

static inline void
mutex_unlock (pthread_mutex_t *mutex)
{
  CHECK (pthread_mutex_unlock (mutex) == 0);
}

/* Well mixed in all bits. */
static inline uint64_t
cache_hash (uint64_t disk, uint64_t number)
{
  uint64_t h = number + disk * UINT64_C (0x9e3779b97f4a7c15);

  h = (h ^ h >> 32) * UINT64_C (0xd6e8feb86659fd93);
  h = (h ^ h >> 32) * UINT64_C (0xd6e8feb86659fd93);
  return h ^ h >> 32;
}

static inline uint32_t
frame_index (const struct cache *cache, const struct frame *frame)
{
  return (uint32_t) (frame - cache->frames);
}

static inline struct arena_frame *
frame_header (const struct cache *cache, const struct frame *frame)
{
  return &cache->arena->frames[frame_index (cache, frame)];
}

static inline enum frame_state
frame_state (const struct frame *frame)
{
  return atomic_load_explicit (&frame->state, memory_order_acquire);
}

static inline void
frame_set_state (struct frame *frame, enum frame_state state)
{
  atomic_store_explicit (&frame->state, (uint8_t) state, memory_order_release);
}

static inline bool
frame_has (const struct frame *frame, unsigned flag)
{
  return (atomic_load_explicit (&frame->flags, memory_order_acquire) & flag) != 0;
}

/* Never used, so that its lists are not even initialised. */
static inline bool
frame_is_new (const struct frame *frame)
{
  return frame->data == NULL;
}

/* Both lines of it, to be written to. */
static inline void
frame_prefetch (const struct frame *frame)
{
  __builtin_prefetch (frame, 1);
  __builtin_prefetch ((const char *) frame + CACHE_LINE, 1);
}

/* Under the bucket's lock, or before the frame is in the index. */
static inline void
frame_change_flags (struct frame *frame, unsigned clear, unsigned set)
{
  unsigned flags = atomic_load_explicit (&frame->flags, memory_order_relaxed);

  atomic_store_explicit (&frame->flags, (uint16_t) ((flags & ~clear) | set), memory_order_release);
}

static inline uint64_t
frame_disk (const struct frame *frame)
{
  return atomic_load_explicit (&frame->disk, memory_order_relaxed);
}

static inline uint64_t
frame_block (const struct frame *frame)
{
  return atomic_load_explicit (&frame->block, memory_order_relaxed);
}

/* --- cache.c: the index --- */

/* Which line of BUCKETS_PER_LINE buckets, and which of them: the blocks of a group of 16 lie side
 * by side in one line, but rotated, lest every 16th block of a disk meet in the same buckets. */
static inline uint64_t
bucket_number (const struct cache *cache, uint64_t disk, uint64_t block)
{
  uint64_t hash = cache_hash (disk, block / BUCKETS_PER_LINE);

  return (hash & cache->bucket_mask) * BUCKETS_PER_LINE
         + (block + (hash >> 60)) % BUCKETS_PER_LINE;
}

/* The lock of a block's bucket, taken. */
pthread_mutex_t *bucket_lock (struct cache *cache, uint64_t disk, uint64_t block);
/* The bucket of a frame whose key does not change, as the caller references it. */
pthread_mutex_t *bucket_lock_frame (struct cache *cache, const struct frame *frame);
/* The frame of a block, in whatever state, not referenced; NULL: none.  Under the bucket's lock, as
 * all below. */
struct frame *index_find (struct cache *cache, uint64_t disk, uint64_t block);
/* Makes FRAME an orphan; the index' reference becomes the caller's. */
void index_remove (struct cache *cache, struct frame *frame);

/* cache_put for each of COUNT frames, with one lock for all whose last reference that was; the
 * array is used up. */
void cache_put_all (struct cache *cache, struct frame **frames, uint32_t count);

/* cache_publish; VERSION 0: the next one. */
bool publish_frame (struct cache *cache, struct cache_disk *disk, uint64_t block,
                    struct frame *fresh, uint64_t version, struct frame *expected, bool has_token,
                    bool *token_taken, struct list *wake);

/* Counters of a region, see struct cache. */
static inline _Atomic uint32_t *
region_counter (const struct cache *cache, _Atomic uint32_t *counters, uint64_t disk,
                uint64_t block)
{
  uint64_t region = block >> cache->region_shift;
  uint64_t line = cache_hash (disk, region / REGIONS_PER_LINE) & cache->region_mask;

  return &counters[line * REGIONS_PER_LINE + region % REGIONS_PER_LINE];
}

static inline uint32_t
region_epoch (const struct cache *cache, uint64_t disk, uint64_t block)
{
  return atomic_load_explicit (region_counter (cache, cache->region_epochs, disk, block),
                               memory_order_acquire);
}

/* FRAME, in the index, becomes CLEAN, its range being locked shared. */
static inline void
frame_set_clean (const struct cache *cache, struct frame *frame)
{
  atomic_store_explicit (&frame->epoch,
                         region_epoch (cache, frame_disk (frame), frame_block (frame)),
                         memory_order_relaxed);
  frame_set_state (frame, FRAME_CLEAN);
}

/* Whether the frame of a block is CLEAN, but of a former epoch: as if there were none. */
static inline bool
frame_is_invalid (const struct cache *cache, const struct frame *frame)
{
  return frame_state (frame) == FRAME_CLEAN
         && atomic_load_explicit (&frame->epoch, memory_order_relaxed)
              != region_epoch (cache, frame_disk (frame), frame_block (frame));
}

/* --- cache-range.c --- */

/* Takes some invalid frames out of the index; how many.  0: there are hardly any. */
uint32_t invalid_reclaim (struct cache *cache);

/* --- cache-replace.c: which frames are free, and which will be --- */

bool replacement_init (struct cache *cache);      /* false: no memory */
/* No thread claims frames any more; before anything of the cache is destroyed. */
void replacement_stop_growing (struct cache *cache);
void replacement_destroy (struct cache *cache);
/* CLEAN now, and referenced by the caller: may be evicted from now on. */
void replacement_enter (struct cache *cache, struct frame *frame);
/* Nobody references FRAME any more. */
void replacement_free (struct cache *cache, struct frame *frame);
void replacement_free_all (struct cache *cache, struct frame **frames, uint32_t count);
/* Takes a given frame out of the pool, referenced once. */
void replacement_claim (struct cache *cache, struct frame *frame);
uint64_t replacement_free_count (struct cache *cache);
uint64_t replacement_clean_count (struct cache *cache);
/* Recounts the queues and the free frames. */
void replacement_verify (struct cache *cache);

/* --- cache-dirty.c: dirty frames, and room for them --- */

void budgets_init (struct cache *cache);

/* FRESH, in the index with its key, becomes the dirty frame of its block in place of OLD (dirty, or
 * NULL), whose list and belongings it takes over: version, list, header in the arena.
 * BRINGS_TOKEN: of its own.  VERSION 0: the next one.  Under the bucket's lock, as all below. */
void dirty_enter (struct cache *cache, struct cache_disk *disk, struct frame *fresh,
                  uint64_t version, struct frame *old, bool brings_token);
/* A dirty frame in the index ceases to be one; the flags that tell what it owned are cleared and
 * returned.  Its place in the number of dirty frames is the caller's, to be released. */
unsigned dirty_leave (struct cache *cache, struct frame *frame);
void dirty_verify (struct cache *cache);

#endif
