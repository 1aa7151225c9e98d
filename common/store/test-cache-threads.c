/* SPDX-License-Identifier: BSD-2-Clause */
/* test-cache-threads.c - readers, writers, droppers, write-back and commits at once, for ThreadSanitizer
 * as well.
 *
 * LACUNA_SEED=n replays one seed, but threads are not repeatable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "store/test-cache.h"

/* Every second seed: so many frames that threads keep stripes of free ones. */
#define STRESS_FRAMES(seed) ((seed) % 2 != 0 ? 512 : 4096)
#define STRESS_BLOCKS 5000
#define STRESS_WORKERS 4
#define STRESS_STEPS 10000

struct stress_waiter {
  struct waiter waiter;
  _Atomic bool is_woken;
};

static struct {
  struct cache *cache;
  uint64_t blocks;
  struct cache_disk disk;
  pthread_rwlock_t range;
  _Atomic uint64_t stored[STRESS_BLOCKS];  /* stamp in its place; 0: hole */
  _Atomic uint64_t floor[STRESS_BLOCKS];   /* stamps that are not above were dropped */
  _Atomic uint64_t stamp;
  _Atomic unsigned workers;
  pthread_mutex_t mutex;
  struct { uint64_t version, stamp; } last[STRESS_BLOCKS];  /* under mutex */
} stress;

static void
stress_wake (struct list *wake)
{
  struct list *link;

  while ((link = list_take (wake)) != NULL)
    atomic_store (&container_of (link, struct stress_waiter, waiter.link)->is_woken, true);
}

static void
stress_await (struct stress_waiter *waiter)
{
  while (!atomic_load (&waiter->is_woken))
    sched_yield ();
}

/* Before it waits a thread gives its credit back, or they would all wait for each other's. */
static void
stress_charge (struct credit *credit, uint32_t count)
{
  struct stress_waiter waiter = { .is_woken = false };
  struct budget_ticket ticket;
  struct list wake = LIST_INIT (wake);

  if (cache_charge (stress.cache, credit, count, &waiter.waiter, &ticket))
    return;
  credit_settle (credit, true, &wake);
  stress_wake (&wake);
  stress_await (&waiter);
}

static void
stress_charge_dirty (void)
{
  struct stress_waiter waiter = { .is_woken = false };
  struct budget_ticket ticket;

  if (!cache_charge_dirty (stress.cache, 1, &waiter.waiter, &ticket))
    stress_await (&waiter);
}

static void
stress_check (const struct frame *frame, uint64_t block, uint64_t floor)
{
  uint64_t stamp = content_check (frame, 1, block);

  CHECK (stamp == 0 || stamp > floor);
}

static void
stress_read (uint64_t block)
{
  struct list wake = LIST_INIT (wake);
  uint64_t floor = atomic_load (&stress.floor[block]);
  struct frame *frame = cache_get (stress.cache, 1, block), *fresh;
  struct stress_waiter waiter = { .is_woken = false };

  if (frame == NULL) {
    fresh = cache_allocate (stress.cache);
    CHECK (fresh != NULL);
    pthread_rwlock_rdlock (&stress.range);
    floor = atomic_load (&stress.floor[block]);
    switch (cache_fill_begin (stress.cache, &stress.disk, block, fresh, &frame)) {
    case CACHE_YOURS:
      content_set (frame, 1, block, atomic_load (&stress.stored[block]));
      cache_fill_end (stress.cache, frame, true, &wake);
      stress_wake (&wake);
      break;
    case CACHE_BUSY:
      cache_put (stress.cache, fresh);
      if (cache_wait_fill (stress.cache, frame, &waiter.waiter))
        stress_await (&waiter);
      break;
    case CACHE_FOUND:
      cache_put (stress.cache, fresh);
      break;
    }
    stress_check (frame, block, floor);
    pthread_rwlock_unlock (&stress.range);
  } else
    stress_check (frame, block, floor);
  cache_put (stress.cache, frame);
}

static void
stress_write (uint64_t block)
{
  struct list wake = LIST_INIT (wake);
  struct frame *fresh;
  uint64_t stamp;

  stress_charge_dirty ();
  fresh = cache_allocate (stress.cache);
  CHECK (fresh != NULL);
  pthread_rwlock_rdlock (&stress.range);
  stamp = atomic_fetch_add (&stress.stamp, 1) + 1;
  content_set (fresh, 1, block, stamp);
  CHECK (cache_publish (stress.cache, &stress.disk, block, fresh, NULL, false, NULL, &wake));
  mutex_lock (&stress.mutex);
  if (stress.last[block].version < fresh->version) {
    stress.last[block].version = fresh->version;
    stress.last[block].stamp = stamp;
  }
  mutex_unlock (&stress.mutex);
  pthread_rwlock_unlock (&stress.range);
  cache_put (stress.cache, fresh);
  stress_wake (&wake);
}

static void
stress_drop (uint64_t first, uint64_t last, bool may_stay)
{
  struct list wake = LIST_INIT (wake);
  struct cache_dropped dropped = { 0 };
  uint64_t stamp;

  pthread_rwlock_wrlock (&stress.range);
  stamp = atomic_load (&stress.stamp);
  if (may_stay)
    cache_invalidate (stress.cache, &stress.disk, first, last, &dropped, &wake);
  else
    cache_drop (stress.cache, &stress.disk, first, last, &dropped, &wake);
  for (uint64_t at = first; at <= MIN (last, stress.blocks - 1); at++) {
    atomic_store (&stress.stored[at], 0);
    atomic_store (&stress.floor[at], stamp);
    stress.last[at].stamp = 0;
    stress.last[at].version = cache_version (stress.cache);
  }
  pthread_rwlock_unlock (&stress.range);
  stress_wake (&wake);
}

static void *
stress_worker (void *arg)
{
  uint64_t state = (uintptr_t) arg;
  struct list wake = LIST_INIT (wake);
  struct cache_stats stats;
  struct credit credit;
  uint32_t count;

  cache_get_stats (stress.cache, &stats);
  cache_lend (stress.cache, &credit);

  for (unsigned step = 0; step < STRESS_STEPS; step++) {
    uint64_t r = cache_hash (1, state += UINT64_C (0x9e3779b97f4a7c15));
    uint64_t block = (r >> 8) % ((r & 64) != 0 ? 10 : stress.blocks);

    /* Two of the large ones are all there is. */
    count = (r >> 20) % 16 == 0 ? stats.in_flight_max / 2 : 1 + (r >> 32) % 3;
    stress_charge (&credit, count);
    if (r % 256 == 0)
      stress_drop (block, (r >> 40) % 8 == 0 ? UINT64_MAX >> 12 : block + (r >> 40) % 64,
                   (r >> 46) % 4 != 0);
    else if (r % 4 == 0)
      stress_write (block);
    else
      stress_read (block);
    cache_uncharge (stress.cache, &credit, count, &wake);
    stress_wake (&wake);
  }
  credit_settle (&credit, true, &wake);
  stress_wake (&wake);
  atomic_fetch_sub (&stress.workers, 1);
  return NULL;
}

static void *
stress_keeper (void *arg)
{
  struct frame *frames[16];
  struct list wake = LIST_INIT (wake);

  (void) arg;
  while (atomic_load (&stress.workers) != 0) {
    uint32_t count = cache_collect (stress.cache, &stress.disk, COLLECT_OLDEST, UINT64_MAX, 0,
                                    frames, 16);

    if (count == 0)
      sched_yield ();
    pthread_rwlock_rdlock (&stress.range);
    for (uint32_t i = 0; i < count; i++) {
      bool is_current = cache_is_current (frames[i]);
      uint64_t block = frame_block (frames[i]);

      if (is_current)
        atomic_store (&stress.stored[block], content_check (frames[i], 1, block));
      cache_settle (stress.cache, frames[i], is_current, &wake);
      cache_put (stress.cache, frames[i]);
    }
    pthread_rwlock_unlock (&stress.range);
    stress_wake (&wake);
  }
  return NULL;
}

static void *
stress_committer (void *arg)
{
  struct frame *frames[16];
  uint32_t epoch = 0;

  (void) arg;
  while (atomic_load (&stress.workers) != 0) {
    uint32_t count = cache_collect_fresh (stress.cache, &stress.disk,
                                          cache_version (stress.cache), ++epoch, frames, 16);

    sched_yield ();
    for (uint32_t i = 0; i < count; i++) {
      cache_committed (stress.cache, frames[i], epoch % 8 != 0);
      cache_put (stress.cache, frames[i]);
    }
  }
  return NULL;
}

static void
stress_run (void)
{
  uint64_t seed = random_state;
  struct arena *arena = arena_make (STRESS_FRAMES (seed));
  struct cache_stats stats;
  pthread_t threads[STRESS_WORKERS + 2];

  memset (&stress, 0, sizeof stress);
  stress.cache = cache_create (arena);
  stress.blocks = arena->frame_count * 6 / 5;
  cache_disk_init (&stress.disk, 1);
  pthread_rwlock_init (&stress.range, NULL);
  pthread_mutex_init (&stress.mutex, NULL);
  atomic_store (&stress.workers, STRESS_WORKERS);
  for (uintptr_t i = 0; i < STRESS_WORKERS; i++)
    pthread_create (&threads[i], NULL, stress_worker, (void *) (seed * 16 + i));
  pthread_create (&threads[STRESS_WORKERS], NULL, stress_keeper, NULL);
  pthread_create (&threads[STRESS_WORKERS + 1], NULL, stress_committer, NULL);
  for (unsigned i = 0; i < STRESS_WORKERS + 2; i++)
    pthread_join (threads[i], NULL);

  cache_verify (stress.cache);
  for (uint64_t block = 0; block < stress.blocks; block++) {
    struct frame *frame = cache_peek (stress.cache, 1, block);
    uint64_t stamp = frame != NULL ? content_check (frame, 1, block)
                                   : atomic_load (&stress.stored[block]);

    assert_true (stamp == stress.last[block].stamp);
    if (frame != NULL)
      cache_put (stress.cache, frame);
  }
  stress_drop (0, stress.blocks - 1, false);
  cache_verify (stress.cache);
  cache_get_stats (stress.cache, &stats);
  assert_int_equal (stats.in_flight, 0);
  cache_disk_destroy (&stress.disk);
  cache_destroy (stress.cache, false);
  pthread_rwlock_destroy (&stress.range);
  arena_free (arena);
}

static void
test_threads (void **state)
{
  (void) state;
  for_each_seed (stress_run);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_threads),
  };

  return cmocka_run_group_tests_name ("cache-threads", tests, NULL, NULL);
}
