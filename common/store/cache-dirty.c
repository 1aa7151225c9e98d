/* SPDX-License-Identifier: BSD-2-Clause */
/* cache-dirty.c - dirty frames: room for them, their lists, collecting and settling them.
 *
 * Each disk has two lists, both in order of `since` (cache.h tells what that is): `fresh`, what a
 * FLUSH must care for, and `logged`.  A frame is in one of them exactly while it is DIRTY and in
 * the index, so that who holds cache_disk.mutex may reference what he finds there.  But for those
 * that keep a place: when a frame that write-back has picked is replaced, its heir stands for it,
 * with its age and in its place.  The frame itself goes to the end of the list: there the heir will
 * belong when the frame has got to the device, and need not be looked for then.
 *
 * Collecting goes against the lock order (lists first, then flags under the bucket's lock).  So it
 * references frames under the disk's mutex, lets go, and sets their flags one by one, leaving out
 * what became an orphan in between.
 */
#include "store/cache-internal.h"

/* In flight, in frames: two of the longest requests, and as much of others (40 MiB). */
#define IN_FLIGHT_MIN 10240

/* --- admission --- */

/* What is in flight is in frames for as long as its client and the device take, which has little to
 * do with the cache's size; what is dirty stays, and the more there may be, the more of it is
 * overwritten before it is written back.  The rest is for write-back's orphans. */
void
budgets_init (struct cache *cache)
{
  uint64_t count = cache->frame_count, large = 0;
  uint64_t all = MIN (count / 2, MAX (count / 4, IN_FLIGHT_MIN));

  /* Half for each; of a small cache more for the large ones, or none. */
  if (all >= CACHE_LARGE_MAX + 4 * CACHE_SMALL_MAX)
    large = MAX (all / 2, CACHE_LARGE_MAX);
  budget_init (&cache->in_flight, all - large);
  budget_init (&cache->in_flight_large, large);
  budget_init (&cache->dirty, count - all - divide_up (count, 8));
}

/* Which of them a request of COUNT frames is charged to. */
static struct budget *
in_flight_of (struct cache *cache, uint32_t count)
{
  return count > CACHE_SMALL_MAX && cache->in_flight_large.max > 0 ? &cache->in_flight_large
                                                                   : &cache->in_flight;
}

void
cache_lend (struct cache *cache, struct credit *credit)
{
  *credit = (struct credit) { .budget = &cache->in_flight };
}

bool
cache_charge (struct cache *cache, struct credit *credit, uint32_t count, struct waiter *waiter,
              struct budget_ticket *ticket)
{
  return budget_charge (in_flight_of (cache, count), credit, count, waiter, ticket);
}

bool
cache_try_charge (struct cache *cache, struct credit *credit, uint32_t count)
{
  return budget_try (in_flight_of (cache, count), credit, count);
}

void
cache_uncharge (struct cache *cache, struct credit *credit, uint32_t count, struct list *wake)
{
  budget_release (in_flight_of (cache, count), credit, count, wake);
}

bool
cache_charge_dirty (struct cache *cache, uint32_t count, struct waiter *waiter,
                    struct budget_ticket *ticket)
{
  return budget_charge (&cache->dirty, NULL, count, waiter, ticket);
}

void
cache_undirty (struct cache *cache, uint32_t count, struct list *wake)
{
  budget_release (&cache->dirty, NULL, count, wake);
}

void
cache_refuse_dirty (struct cache *cache, bool for_ever, struct list *wake)
{
  budget_refuse (&cache->dirty, for_ever, wake);
}

bool
cache_charge_cancel (struct cache *cache, struct budget_ticket *ticket, struct list *wake)
{
  return budget_cancel (&cache->in_flight, ticket, wake)
         || budget_cancel (&cache->in_flight_large, ticket, wake)
         || budget_cancel (&cache->dirty, ticket, wake);
}

uint64_t
cache_dirty_count (struct cache *cache)
{
  return atomic_load_explicit (&cache->dirty_count, memory_order_relaxed);
}

uint64_t
cache_unmapped_count (struct cache *cache)
{
  return atomic_load_explicit (&cache->unmapped_count, memory_order_relaxed);
}

uint64_t
cache_dirty_max (struct cache *cache)
{
  return cache->dirty.max;
}

bool
cache_dirty_wanted (struct cache *cache)
{
  return budget_is_wanted (&cache->dirty);
}

uint64_t
cache_version (struct cache *cache)
{
  return atomic_load (&cache->version);
}

/* --- the lists of a disk, under its mutex --- */

void
cache_disk_init (struct cache_disk *disk, uint64_t id)
{
  CHECK (id != 0);
  disk->id = id;
  CHECK (pthread_mutex_init (&disk->mutex, NULL) == 0);
  list_init (&disk->fresh);
  list_init (&disk->logged);
  atomic_init (&disk->fresh_count, 0);
  atomic_init (&disk->dirty_count, 0);
  atomic_init (&disk->copy_count, 0);
  atomic_init (&disk->frame_count, 0);
  atomic_init (&disk->unmapped_count, 0);
}

void
cache_disk_destroy (struct cache_disk *disk)
{
  CHECK (atomic_load (&disk->frame_count) == 0);
  CHECK (list_is_empty (&disk->fresh) && list_is_empty (&disk->logged));
  pthread_mutex_destroy (&disk->mutex);
}

static struct frame *
dirty_frame (struct list *link)
{
  return container_of (link, struct frame, dirty_link);
}

/* Most frames belong at the end, or near to it. */
static void
dirty_insert_by_age (struct list *list, struct frame *frame)
{
  struct list *at = list->prev;

  while (at != list && dirty_frame (at)->since > frame->since)
    at = at->prev;
  list_prepend (at, &frame->dirty_link);
}

static void
count_change (_Atomic uint64_t *count, int change)
{
  atomic_fetch_add_explicit (count, (uint64_t) (int64_t) change, memory_order_release);
}

/* --- entering and leaving, under the bucket's lock --- */

static unsigned
frame_flags (const struct frame *frame)
{
  return atomic_load_explicit (&frame->flags, memory_order_relaxed);
}

static void
unmapped_change (struct cache *cache, struct frame *frame, int change)
{
  count_change (&frame->owner->unmapped_count, change);
  count_change (&cache->unmapped_count, change);
}

/* The block became dirty, or is not any more. */
static void
region_change (struct cache *cache, const struct frame *frame, int change)
{
  atomic_fetch_add_explicit (region_counter (cache, cache->dirty_regions, frame_disk (frame),
                                             frame_block (frame)),
                             (uint32_t) change, memory_order_relaxed);
}

/* The header in the arena is right after each store: content first, `disk` last. */
static void
header_store (struct cache *cache, struct frame *frame)
{
  struct arena_frame *header = frame_header (cache, frame);

  header->version = frame->version;
  header->block = frame_block (frame);
  atomic_store_explicit (&header->disk, frame_disk (frame), memory_order_release);
}

static void
header_clear (struct cache *cache, struct frame *frame)
{
  atomic_store_explicit (&frame_header (cache, frame)->disk, 0, memory_order_release);
}

/* The flags that tell what a frame owns, and what it hands on to the one that replaces it. */
#define FLAGS_HEIR (FRAME_HAS_TOKEN | FRAME_HAS_COPY | FRAME_IS_UNMAPPED)
#define FLAGS_OWNED (FLAGS_HEIR | FRAME_IS_LOGGED | FRAME_IS_DIRTY)

/* OLD leaves its list, as what was published with VERSION is there for it.  Under the disk's
 * mutex. */
static void
dirty_replace (struct cache_disk *disk, struct frame *old, uint64_t version)
{
  unsigned flags = frame_flags (old);
  bool keeps_place = (flags & (FRAME_IN_WRITEBACK | FRAME_IS_LOGGED)) == FRAME_IN_WRITEBACK;

  list_remove (&old->dirty_link);
  old->since = version;
  if ((flags & FRAME_IS_LOGGED) == 0)
    count_change (&disk->fresh_count, -1);
  frame_change_flags (old, FLAGS_OWNED, keeps_place ? FRAME_KEEPS_PLACE : 0);
  if (keeps_place)
    list_append (&disk->fresh, &old->dirty_link);
}

void
dirty_enter (struct cache *cache, struct cache_disk *disk, struct frame *fresh,
             uint64_t version, struct frame *old, bool brings_token)
{
  unsigned old_flags = old != NULL ? frame_flags (old) : 0;
  unsigned flags = (old_flags & FLAGS_HEIR) | FRAME_IS_DIRTY;

  if (old == NULL)
    region_change (cache, fresh, 1);
  if (brings_token) {
    flags |= FRAME_HAS_TOKEN | FRAME_IS_UNMAPPED;
    unmapped_change (cache, fresh, 1);
  }
  frame_change_flags (fresh, 0, flags);
  mutex_lock (&disk->mutex);
  if (version == 0)
    version = atomic_fetch_add (&cache->version, 1) + 1;
  else
    atomic_store (&cache->version, version);
  fresh->version = fresh->since = version;
  if (old != NULL) {
    fresh->copy_epoch = old->copy_epoch;
    fresh->copy_version = old->copy_version;
  }
  if (old != NULL && (old_flags & FRAME_IS_LOGGED) == 0) {
    fresh->since = old->since;
    list_insert_before (&fresh->dirty_link, &old->dirty_link);
  } else
    list_append (&disk->fresh, &fresh->dirty_link);
  count_change (&disk->fresh_count, 1);
  if (old != NULL)
    dirty_replace (disk, old, version);
  else
    count_change (&disk->dirty_count, 1);
  mutex_unlock (&disk->mutex);

  if (old == NULL)
    atomic_fetch_add_explicit (&cache->dirty_count, 1, memory_order_relaxed);
  header_store (cache, fresh);
}

unsigned
dirty_leave (struct cache *cache, struct frame *frame)
{
  struct cache_disk *disk = frame->owner;
  unsigned flags = frame_flags (frame);

  mutex_lock (&disk->mutex);
  list_remove (&frame->dirty_link);
  if ((flags & FRAME_IS_LOGGED) == 0)
    count_change (&disk->fresh_count, -1);
  if ((flags & FRAME_HAS_COPY) != 0)
    count_change (&disk->copy_count, -1);
  count_change (&disk->dirty_count, -1);
  mutex_unlock (&disk->mutex);
  if ((flags & FRAME_IS_UNMAPPED) != 0)
    unmapped_change (cache, frame, -1);
  region_change (cache, frame, -1);
  frame_change_flags (frame, FLAGS_OWNED, 0);
  atomic_fetch_sub_explicit (&cache->dirty_count, 1, memory_order_relaxed);
  header_clear (cache, frame);
  return flags;
}

/* --- collecting --- */

/* References up to MAX frames of a list that have a copy of EPOCH or older and are not in
 * write-back; *LEFT, those with a copy in this list and those to come, counts down. */
static uint32_t
pick_copies (struct list *list, uint64_t *left, uint32_t epoch, struct frame **frames,
             uint32_t max)
{
  uint32_t count = 0;

  for (struct list *at = list->next; at != list && *left > 0 && count < max; at = at->next) {
    struct frame *frame = dirty_frame (at);

    if (!frame_has (frame, FRAME_HAS_COPY))
      continue;
    --*left;
    if (frame->copy_epoch <= epoch && !frame_has (frame, FRAME_IN_WRITEBACK)) {
      cache_reference (frame);
      frames[count++] = frame;
    }
  }
  return count;
}

/* References the MAX oldest frames of A and B, up to VERSION, that have not FLAG. */
static uint32_t
pick_oldest (struct list *a, struct list *b, uint64_t version, unsigned flag,
             struct frame **frames, uint32_t max)
{
  struct list *at_a = a->next, *at_b = b->next;
  uint32_t count = 0;

  while (count < max && (at_a != a || at_b != b)) {
    struct list **at = &at_a;
    struct frame *frame;

    if (at_a == a || (at_b != b && dirty_frame (at_b)->since < dirty_frame (at_a)->since))
      at = &at_b;
    frame = dirty_frame (*at);
    if (frame->since > version)
      break;
    if (!frame_has (frame, flag | FRAME_KEEPS_PLACE)) {
      cache_reference (frame);
      frames[count++] = frame;
    }
    *at = (*at)->next;
  }
  return count;
}

/* Under the bucket's lock: a dirty frame has a copy of EPOCH from now on, and FLAGS. */
static void
mark_copy (struct frame *frame, uint32_t epoch, unsigned flags)
{
  struct cache_disk *disk = frame->owner;

  mutex_lock (&disk->mutex);
  if (!frame_has (frame, FRAME_HAS_COPY))
    count_change (&disk->copy_count, 1);
  frame->copy_epoch = epoch;
  frame->copy_version = frame->version;
  frame_change_flags (frame, 0, flags | FRAME_HAS_COPY);
  mutex_unlock (&disk->mutex);
}

/* Marks those of COUNT picked frames that are current and not FLAG yet, and forgets the others. */
static uint32_t
mark_picked (struct cache *cache, struct frame **frames, uint32_t count, unsigned flag,
             uint32_t epoch)
{
  uint32_t kept = 0;

  for (uint32_t i = 0; i < count; i++) {
    struct frame *frame = frames[i];
    pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
    bool is_wanted = !frame_has (frame, FRAME_IS_ORPHAN | flag)
                     && frame_state (frame) == FRAME_DIRTY;

    if (is_wanted && flag == FRAME_IN_COMMIT)
      is_wanted = !frame_has (frame, FRAME_IS_LOGGED);
    if (is_wanted && flag == FRAME_IN_COMMIT)
      mark_copy (frame, epoch, FRAME_IN_COMMIT);
    else if (is_wanted)
      frame_change_flags (frame, 0, flag);
    mutex_unlock (lock);
    if (is_wanted)
      frames[kept++] = frame;
    else
      cache_put (cache, frame);
  }
  return kept;
}

uint32_t
cache_collect (struct cache *cache, struct cache_disk *disk, enum collect_kind kind,
               uint64_t version, uint32_t epoch, struct frame **frames, uint32_t max)
{
  uint32_t count = 0, picked;

  do {
    struct frame **to = frames + count;

    mutex_lock (&disk->mutex);
    if (kind == COLLECT_OLDEST)
      picked = pick_oldest (&disk->fresh, &disk->logged, version, FRAME_IN_WRITEBACK, to,
                            max - count);
    else {
      uint64_t left = atomic_load (&disk->copy_count);

      picked = pick_copies (&disk->logged, &left, epoch, to, max - count);
      picked += pick_copies (&disk->fresh, &left, epoch, to + picked, max - count - picked);
    }
    mutex_unlock (&disk->mutex);
    count += mark_picked (cache, to, picked, FRAME_IN_WRITEBACK, 0);
  } while (picked > 0 && count < max);
  return count;
}

uint32_t
cache_collect_fresh (struct cache *cache, struct cache_disk *disk, uint64_t version,
                     uint32_t epoch, struct frame **frames, uint32_t max)
{
  struct list none = LIST_INIT (none);
  uint32_t count = 0, picked;

  do {
    mutex_lock (&disk->mutex);
    picked = pick_oldest (&disk->fresh, &none, version, FRAME_IN_COMMIT, frames + count,
                          max - count);
    mutex_unlock (&disk->mutex);
    count += mark_picked (cache, frames + count, picked, FRAME_IN_COMMIT, epoch);
  } while (picked > 0 && count < max);
  return count;
}

bool
cache_collect_block (struct cache *cache, struct cache_disk *disk, uint64_t block,
                     uint32_t epoch, struct frame **frame)
{
  *frame = cache_peek (cache, disk->id, block);
  return *frame != NULL && mark_picked (cache, frame, 1, FRAME_IN_COMMIT, epoch) == 1;
}

/* --- settling --- */

bool
cache_is_current (struct frame *frame)
{
  return !frame_has (frame, FRAME_IS_ORPHAN);
}

bool
cache_take_token (struct cache *cache, struct frame *frame)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
  bool has_token = frame_has (frame, FRAME_HAS_TOKEN);

  frame_change_flags (frame, FRAME_HAS_TOKEN, 0);
  mutex_unlock (lock);
  return has_token;
}

/* The dirty frame of a block, under its bucket's lock. */
static struct frame *
find_dirty (struct cache *cache, uint64_t disk, uint64_t block)
{
  struct frame *frame = index_find (cache, disk, block);

  return frame != NULL && frame_state (frame) == FRAME_DIRTY ? frame : NULL;
}

/* Whether the copy of the block that DIRTY is the frame of tells nothing any more
 * once FRAME's content is durable. */
static bool
copy_is_superseded (const struct frame *dirty, const struct frame *frame)
{
  return frame_has (dirty, FRAME_HAS_COPY) && dirty->copy_version <= frame->version;
}

bool
cache_has_copy (struct cache *cache, struct frame *frame)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
  const struct frame *dirty = find_dirty (cache, frame_disk (frame), frame_block (frame));
  bool has_copy = dirty != NULL && copy_is_superseded (dirty, frame);

  mutex_unlock (lock);
  return has_copy;
}

bool
cache_give_token (struct cache *cache, struct cache_disk *disk, uint64_t block)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk->id, block);
  struct frame *frame = find_dirty (cache, disk->id, block);
  bool is_given = frame != NULL && !frame_has (frame, FRAME_HAS_TOKEN);

  if (is_given) {
    if (!frame_has (frame, FRAME_IS_UNMAPPED))
      unmapped_change (cache, frame, 1);
    frame_change_flags (frame, 0, FRAME_HAS_TOKEN | FRAME_IS_UNMAPPED);
  }
  mutex_unlock (lock);
  return is_given;
}

/* ORPHAN, replaced meanwhile, is durable nevertheless: what is due for its block is only what came
 * after it.  Under the bucket's lock. */
static void
heir_advance (struct frame *orphan, struct frame *heir)
{
  struct cache_disk *disk = heir->owner;

  if (frame_has (heir, FRAME_IS_LOGGED))
    return;
  mutex_lock (&disk->mutex);
  if (heir->since <= orphan->version) {
    list_remove (&heir->dirty_link);
    heir->since = orphan->since;
    if (frame_has (orphan, FRAME_KEEPS_PLACE))
      list_insert_before (&heir->dirty_link, &orphan->dirty_link);
    else
      dirty_insert_by_age (&disk->fresh, heir);
  }
  mutex_unlock (&disk->mutex);
}

/* ORPHAN is in its place, and a copy that is not newer was retired.  A newer one stays: replay
 * would put it over what is in its place, so the heir is still due until that copy is known to be
 * durable.  Under the bucket's lock. */
static void
heir_settle (struct cache *cache, struct frame *orphan, struct frame *heir)
{
  struct cache_disk *disk = heir->owner;

  if (copy_is_superseded (heir, orphan)) {
    mutex_lock (&disk->mutex);
    frame_change_flags (heir, FRAME_HAS_COPY, 0);
    count_change (&disk->copy_count, -1);
    mutex_unlock (&disk->mutex);
  }
  if (!frame_has (heir, FRAME_HAS_COPY))
    heir_advance (orphan, heir);
  if ((frame_flags (heir) & (FRAME_HAS_TOKEN | FRAME_IS_UNMAPPED)) == FRAME_IS_UNMAPPED) {
    unmapped_change (cache, heir, -1);
    frame_change_flags (heir, FRAME_IS_UNMAPPED, 0);
  }
}

/* The place is not needed any more.  Under the bucket's lock. */
static void
place_leave (struct frame *orphan)
{
  struct cache_disk *disk = orphan->owner;

  mutex_lock (&disk->mutex);
  list_remove (&orphan->dirty_link);
  frame_change_flags (orphan, FRAME_KEEPS_PLACE, 0);
  mutex_unlock (&disk->mutex);
  orphan->owner = NULL;
}

bool
cache_settle (struct cache *cache, struct frame *frame, bool ok, struct list *wake)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);
  bool is_cleaned = false;
  unsigned flags = 0;

  CHECK (frame_has (frame, FRAME_IN_WRITEBACK) && frame_state (frame) == FRAME_DIRTY);
  frame_change_flags (frame, FRAME_IN_WRITEBACK, 0);
  if (ok && !frame_has (frame, FRAME_IS_ORPHAN)) {
    flags = dirty_leave (cache, frame);
    frame_set_clean (cache, frame);
    is_cleaned = true;
  } else if (ok) {
    struct frame *heir = find_dirty (cache, frame_disk (frame), frame_block (frame));

    if (heir != NULL)
      heir_settle (cache, frame, heir);
  }
  if (frame_has (frame, FRAME_KEEPS_PLACE))
    place_leave (frame);
  mutex_unlock (lock);

  if (is_cleaned) {
    replacement_enter (cache, frame);
    budget_release (&cache->dirty, NULL, 1, wake);
  }
  return (flags & FRAME_HAS_TOKEN) != 0;
}

void
cache_committed (struct cache *cache, struct frame *frame, bool ok)
{
  pthread_mutex_t *lock = bucket_lock_frame (cache, frame);

  CHECK (frame_has (frame, FRAME_IN_COMMIT));
  frame_change_flags (frame, FRAME_IN_COMMIT, 0);
  if (ok && frame_has (frame, FRAME_IS_ORPHAN)) {
    struct frame *heir = find_dirty (cache, frame_disk (frame), frame_block (frame));

    if (heir != NULL)
      heir_advance (frame, heir);
  } else if (ok && frame_state (frame) == FRAME_DIRTY) {
    struct cache_disk *disk = frame->owner;

    mutex_lock (&disk->mutex);
    list_remove (&frame->dirty_link);
    count_change (&disk->fresh_count, -1);
    frame_change_flags (frame, 0, FRAME_IS_LOGGED);
    dirty_insert_by_age (&disk->logged, frame);
    mutex_unlock (&disk->mutex);
  }
  mutex_unlock (lock);
}

/* --- opening --- */

void
cache_adopt (struct cache *cache, struct cache_disk *disk, uint64_t block, uint32_t index,
             uint64_t version)
{
  struct frame *frame = &cache->frames[index];
  struct list wake = LIST_INIT (wake);

  CHECK (index < cache->frame_count && version > atomic_load (&cache->version));
  replacement_claim (cache, frame);
  atomic_fetch_add (&cache->dirty.used, 1);
  publish_frame (cache, disk, block, frame, version, NULL, false, NULL, &wake);
  CHECK (list_is_empty (&wake));
  cache_put (cache, frame);
}

bool
cache_mark_copy (struct cache *cache, struct cache_disk *disk, uint64_t block, uint32_t epoch)
{
  pthread_mutex_t *lock = bucket_lock (cache, disk->id, block);
  struct frame *frame = find_dirty (cache, disk->id, block);

  if (frame != NULL)
    mark_copy (frame, epoch, 0);
  mutex_unlock (lock);
  return frame != NULL;
}

void
cache_mark_token (struct cache *cache, struct cache_disk *disk, uint64_t block)
{
  CHECK (cache_give_token (cache, disk, block));
}

/* --- verifying --- */

static void
dirty_verify_frame (struct cache *cache, struct frame *frame)
{
  struct cache_disk *disk = frame->owner;
  bool is_logged = frame_has (frame, FRAME_IS_LOGGED);
  const struct list *list = is_logged ? &disk->logged : &disk->fresh;
  struct list *next = frame->dirty_link.next;
  const struct arena_frame *header = frame_header (cache, frame);

  CHECK (next != &frame->dirty_link && frame->since <= frame->version);
  CHECK (next == list || (dirty_frame (next)->since >= frame->since
                          && frame_has (dirty_frame (next), FRAME_IS_LOGGED) == is_logged));
  CHECK (!is_logged || frame_has (frame, FRAME_HAS_COPY));
  CHECK (!frame_has (frame, FRAME_HAS_TOKEN) || frame_has (frame, FRAME_IS_UNMAPPED));
  CHECK (atomic_load (&header->disk) == disk->id && header->block == frame_block (frame)
         && header->version == frame->version);
}

void
dirty_verify (struct cache *cache)
{
  uint64_t dirty = 0, indexed = 0, regions = 0, dirty_regions = 0, unmapped = 0;

  for (uint32_t i = 0; i < cache->frame_count; i++) {
    struct frame *frame = &cache->frames[i];
    bool is_orphan = frame_is_new (frame) || frame_has (frame, FRAME_IS_ORPHAN);

    indexed += !is_orphan;
    if (!is_orphan && frame_state (frame) == FRAME_DIRTY) {
      dirty_verify_frame (cache, frame);
      dirty++;
      unmapped += frame_has (frame, FRAME_IS_UNMAPPED);
      CHECK (frame_has (frame, FRAME_IS_DIRTY));
    } else {
      bool keeps_place = frame_has (frame, FRAME_KEEPS_PLACE);

      CHECK (frame_is_new (frame) || list_is_empty (&frame->dirty_link) != keeps_place);
      CHECK (!keeps_place || (is_orphan && frame_has (frame, FRAME_IN_WRITEBACK)));
      CHECK ((frame_flags (frame) & FLAGS_OWNED) == 0);
      CHECK (atomic_load (&frame_header (cache, frame)->disk) == 0);
    }
  }
  for (uint64_t i = 0; i < (cache->region_mask + 1) * REGIONS_PER_LINE; i++) {
    regions += atomic_load (&cache->cached_regions[i]);
    dirty_regions += atomic_load (&cache->dirty_regions[i]);
  }
  CHECK (regions == indexed && dirty_regions == dirty);
  CHECK (unmapped == cache_unmapped_count (cache));
  CHECK (dirty == cache_dirty_count (cache) && dirty <= atomic_load (&cache->dirty.used));
}
