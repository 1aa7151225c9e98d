/* SPDX-License-Identifier: BSD-2-Clause */
/* test-cache-replace.c - which frames stay: a long scan, and a block's standing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "store/test-cache.h"

/* True: it was there. */
static bool
scan_read (struct cache *cache, struct cache_disk *disk, uint64_t block)
{
  struct list wake = LIST_INIT (wake);
  struct frame *frame = cache_get (cache, disk->id, block), *fresh;
  bool hit = frame != NULL;

  if (!hit) {
    fresh = cache_allocate (cache);
    assert_int_equal (cache_fill_begin (cache, disk, block, fresh, &frame), CACHE_YOURS);
    content_set (frame, disk->id, block, 1);
    cache_fill_end (cache, frame, true, &wake);
  }
  cache_put (cache, frame);
  return hit;
}

/* Frames of a long request lie side by side, and leave such a piece, whoever else has taken some, and
 * in whatever order the requests end. */
static void
test_side_by_side (void **state)
{
  enum { FRAMES = 1 << 17, LENGTH = 256 };
  struct arena *arena = arena_make (FRAMES);
  struct cache *cache = cache_create (arena);
  struct frame *frames[2][LENGTH], *single[64];

  (void) state;
  for (unsigned round = 0; round < 3; round++) {
    for (unsigned i = 0; i < ARRAY_COUNT (single); i++)
      single[i] = cache_allocate (cache);
    for (unsigned half = 0; half < 2; half++)
      cache_allocate_all (cache, frames[half], LENGTH);
    for (unsigned half = 0; half < 2; half++) {
      unsigned breaks = 0;

      for (unsigned i = 1; i < LENGTH; i++)
        breaks += (uint8_t *) frames[half][i]->data
                  != (uint8_t *) frames[half][i - 1]->data + BLOCK_SIZE;
      assert_true (breaks <= 2);
    }
    for (unsigned i = 0; i < ARRAY_COUNT (single); i++)
      cache_put (cache, single[i]);
    for (unsigned half = 2; half-- > 0;)
      for (unsigned i = 0; i < LENGTH; i++)
        cache_put (cache, frames[half][i]);
    cache_verify (cache);
  }
  cache_destroy (cache, false);
  arena_free (arena);
}

static void
test_scan (void **state)
{
  enum { FRAMES = 4096, HOT = 1500 };
  struct arena *arena = arena_make (FRAMES);
  struct cache *cache = cache_create (arena);
  struct cache_disk disk;
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  struct timespec before, after;
  unsigned hits = 0;

  (void) state;
  cache_disk_init (&disk, 1);
  for (unsigned round = 0; round < 4; round++)
    for (uint64_t i = 0; i < HOT; i++)
      scan_read (cache, &disk, i * 37);
  for (uint64_t block = 1000000; block < 1000000 + 20 * FRAMES; block++) {
    scan_read (cache, &disk, block);
    if (block % 4 == 0)
      scan_read (cache, &disk, block);
  }
  for (uint64_t i = 0; i < HOT; i++)
    hits += scan_read (cache, &disk, i * 37);
  print_message ("%u of %u hot blocks survived a scan of 20 times the cache\n", hits, HOT);
  assert_true (hits >= HOT * 95 / 100);
  cache_verify (cache);

  clock_gettime (CLOCK_MONOTONIC, &before);
  for (unsigned i = 0; i < 10000; i++)
    cache_drop (cache, &disk, 1 << 22, (1 << 22) + 8191, &dropped, &wake);
  clock_gettime (CLOCK_MONOTONIC, &after);
  print_message ("dropping 32 MiB of nothing: %lld ns\n",
                 (long long) ((after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec
                              - before.tv_nsec) / 10000);
  assert_true (dropped.frames == 0);
  cache_drop (cache, &disk, 0, UINT64_MAX >> 12, &dropped, &wake);
  assert_true (dropped.frames > FRAMES * 9 / 10);
  cache_disk_destroy (&disk);
  cache_destroy (cache, false);
  arena_free (arena);
}

/* A step of a long change ends with the region that has the last of so many frames. */
static void
test_step (void **state)
{
  struct arena *arena = arena_make (16384);
  struct cache *cache = cache_create (arena);
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  struct cache_disk disk;

  (void) state;
  cache_disk_init (&disk, 1);
  assert_int_equal (cache_step (cache, &disk, 0, UINT64_C (1) << 40, 1), UINT64_C (1) << 40);
  for (uint64_t region = 0; region < 10; region += 2)
    scan_read (cache, &disk, region * 256 + 17);
  assert_int_equal (cache_step (cache, &disk, 0, 4096, 5), 4096);
  assert_int_equal (cache_step (cache, &disk, 0, 4096, 2), 3 * 256);
  assert_int_equal (cache_step (cache, &disk, 700, 4096, 2), 5 * 256 - 700);
  assert_int_equal (cache_step (cache, &disk, 700, 900, 3), 900);
  assert_int_equal (cache_step (cache, &disk, 0, UINT64_C (1) << 40, 4), 7 * 256);
  cache_drop (cache, &disk, 0, 3 * 256 - 1, &dropped, &wake);
  assert_int_equal (dropped.frames, 2);
  cache_drop (cache, &disk, 0, UINT64_C (1) << 40, &dropped, &wake);
  assert_int_equal (dropped.frames, 5);
  cache_verify (cache);
  cache_disk_destroy (&disk);
  cache_destroy (cache, false);
  arena_free (arena);
}

/* Regions whose frames become invalid at once: nobody finds them, and what is there at the edges,
 * or dirty, goes by itself. */
static void
test_invalidate (void **state)
{
  struct arena *arena = arena_make (16384);
  struct cache *cache = cache_create (arena);
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  struct frame *frame, *held, *taken[16384];
  struct cache_disk disk, other;
  struct cache_stats stats;

  (void) state;
  cache_disk_init (&disk, 1);
  cache_disk_init (&other, 2);
  for (uint64_t block = 0; block < 16 * 256; block++)
    scan_read (cache, &disk, block);
  for (uint64_t block = 0; block < 512; block++)
    scan_read (cache, &other, block);
  frame = cache_allocate (cache);
  assert_true (cache_charge_dirty (cache, 1, NULL, NULL));
  assert_true (cache_publish (cache, &disk, 5 * 256, frame, NULL, false, NULL, &wake));
  cache_put (cache, frame);
  held = cache_get (cache, 1, 700);
  cache_get_stats (cache, &stats);

  assert_int_equal (cache_step (cache, &disk, 0, 16 * 256, 300), 16 * 256);
  assert_int_equal (cache_step (cache, &disk, 1, 16 * 256 - 1, 300), 6 * 256 - 1);
  cache_invalidate (cache, &disk, 0, 4 * 256 - 1, &dropped, &wake);
  cache_invalidate (cache, &disk, 4 * 256, 15 * 256 + 99, &dropped, &wake);
  assert_true (dropped.dirty == 1 && dropped.frames == 256 + 100);
  assert_int_equal (replacement_free_count (cache), stats.free + dropped.frames);
  for (uint64_t block = 0; block < 15 * 256 + 100; block++) {
    assert_null (cache_get (cache, 1, block));
    assert_null (cache_peek (cache, 1, block));
  }
  for (uint64_t block = 15 * 256 + 100; block < 16 * 256; block++)
    assert_true (scan_read (cache, &disk, block));
  assert_true (cache_is_current (held));

  /* Block 700 is read again, block 701 written: by those who expect nothing there. */
  assert_false (scan_read (cache, &disk, 700));
  assert_true (scan_read (cache, &disk, 700));
  assert_false (cache_is_current (held));
  cache_put (cache, held);
  frame = cache_allocate (cache);
  assert_true (cache_charge_dirty (cache, 1, NULL, NULL));
  assert_true (cache_publish (cache, &disk, 701, frame, CACHE_NONE, false, NULL, &wake));
  cache_put (cache, frame);
  cache_verify (cache);

  /* Whoever wants frames gets these, and none that are valid go. */
  cache_get_stats (cache, &stats);
  for (unsigned i = 0; i < stats.free + 14 * 256 - 2; i++)
    taken[i] = cache_allocate (cache);
  assert_int_equal (atomic_load (&cache->replacement.evictions), 0);
  assert_int_equal (replacement_free_count (cache), 0);
  for (uint64_t block = 0; block < 512; block++)
    assert_true (scan_read (cache, &other, block));
  assert_true (scan_read (cache, &disk, 700) && scan_read (cache, &disk, 701));
  for (unsigned i = 0; i < stats.free + 14 * 256 - 2; i++)
    cache_put (cache, taken[i]);
  cache_verify (cache);
  cache_drop (cache, &disk, 0, UINT64_MAX >> 12, &dropped, &wake);
  cache_drop (cache, &other, 0, UINT64_MAX >> 12, &dropped, &wake);
  cache_disk_destroy (&disk);
  cache_disk_destroy (&other);
  cache_destroy (cache, false);
  arena_free (arena);
}

/* A block that comes back soon after it left the small queue, and one that is written and was in
 * the main queue, go to the main queue. */
static void
test_standing (void **state)
{
  struct arena *arena = arena_make (64);
  struct cache *cache = cache_create (arena);
  struct cache_disk disk;
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  struct frame *frame;

  (void) state;
  cache_disk_init (&disk, 1);
  for (uint64_t block = 0; block < 80; block++)
    scan_read (cache, &disk, block);
  assert_null (cache_peek (cache, 1, 0));
  scan_read (cache, &disk, 0);
  frame = cache_get (cache, 1, 0);
  assert_int_equal (frame->queue, QUEUE_MAIN);
  cache_put (cache, frame);
  for (uint64_t block = 79; block <= 80; block++) {
    frame = cache_allocate (cache);
    assert_true (cache_charge_dirty (cache, 1, NULL, NULL));
    assert_true (cache_publish (cache, &disk, block == 80 ? 0 : block, frame, NULL, false, NULL,
                                &wake));
    cache_put (cache, frame);
    assert_int_equal (frame->queue, QUEUE_NONE);
    assert_int_equal (cache_collect (cache, &disk, COLLECT_OLDEST, UINT64_MAX, 0, &frame, 1), 1);
    assert_false (cache_settle (cache, frame, true, &wake));
    assert_int_equal (frame->queue, block == 80 ? QUEUE_MAIN : QUEUE_SMALL);
    cache_put (cache, frame);
  }
  cache_verify (cache);
  cache_drop (cache, &disk, 0, 100, &dropped, &wake);
  cache_disk_destroy (&disk);
  cache_destroy (cache, false);
  arena_free (arena);
}

#define GROW_FRAMES_ALL 5000
#define GROW_THREADS 4

static struct cache *growing;

/* Takes its part of all frames there will be, in pieces, writes to each, and gives them back. */
static void *
grow_user (void *arg)
{
  struct frame *frames[GROW_FRAMES_ALL / GROW_THREADS];
  uint32_t count = 0;

  while (count < ARRAY_COUNT (frames))
    if (count % 2 == 0 && ARRAY_COUNT (frames) - count > 300) {
      cache_allocate_all (growing, frames + count, 300);
      count += 300;
    } else {
      frames[count] = cache_allocate (growing);
      CHECK (frames[count] != NULL);
      count++;
    }
  for (uint32_t i = 0; i < count; i++)
    content_set (frames[i], (uintptr_t) arg, i, 1);
  sched_yield ();
  for (uint32_t i = 0; i < count; i++) {
    content_check (frames[i], (uintptr_t) arg, i);
    cache_put (growing, frames[i]);
  }
  return NULL;
}

/* An arena that has little of its space yet: who needs frames gets them all, with a thread beside that
 * does the same, and without. */
static void
test_grow (void **state)
{
  struct arena_identity identity = { .store_uuid = { 1 } };
  char path[64];

  (void) state;
  snprintf (path, sizeof path, "/dev/shm/lacuna-test-grow-%d", (int) getpid ());
  for (unsigned round = 0; round < 8; round++) {
    char *error;
    struct arena *arena = arena_create (path, &identity, GROW_FRAMES_ALL, round % 4 * 256 + 7, 65536,
                                        true, &error);
    pthread_t threads[GROW_THREADS];
    struct frame *all[GROW_FRAMES_ALL];
    struct cache_stats stats;

    assert_non_null (arena);
    growing = cache_create (arena);
    assert_non_null (growing);
    cache_get_stats (growing, &stats);
    assert_int_equal (stats.free, arena->frames_at_start);
    cache_verify (growing);
    if (round >= 4)
      assert_int_equal (cache_start_growing (growing), 0);
    for (uintptr_t i = 0; i < GROW_THREADS; i++)
      assert_int_equal (pthread_create (&threads[i], NULL, grow_user, (void *) (i + 1)), 0);
    for (unsigned i = 0; i < GROW_THREADS; i++)
      assert_int_equal (pthread_join (threads[i], NULL), 0);
    cache_verify (growing);
    for (unsigned i = 0; i < GROW_FRAMES_ALL; i++) {
      all[i] = cache_allocate (growing);
      assert_non_null (all[i]);
      assert_ptr_equal (all[i]->data, arena->data + (uint64_t) (all[i] - growing->frames) * BLOCK_SIZE);
    }
    assert_null (cache_allocate (growing));
    for (unsigned i = 0; i < GROW_FRAMES_ALL; i++)
      cache_put (growing, all[i]);
    cache_get_stats (growing, &stats);
    assert_int_equal (stats.free, GROW_FRAMES_ALL);
    assert_int_equal (stats.evictions, 0);
    cache_verify (growing);
    cache_destroy (growing, false);
    arena_close (arena, true);
  }
  /* Nobody needs them: it is destroyed while its thread is at work. */
  for (unsigned round = 0; round < 8; round++) {
    char *error;
    struct arena *arena = arena_create (path, &identity, 16 * GROW_FRAMES_ALL, 7, 65536, true, &error);

    growing = cache_create (arena);
    assert_int_equal (cache_start_growing (growing), 0);
    cache_destroy (growing, false);
    arena_close (arena, true);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_side_by_side),
    cmocka_unit_test (test_scan),
    cmocka_unit_test (test_step),
    cmocka_unit_test (test_invalidate),
    cmocka_unit_test (test_standing),
    cmocka_unit_test (test_grow),
  };

  return cmocka_run_group_tests_name ("cache-replace", tests, NULL, NULL);
}
