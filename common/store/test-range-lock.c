/* SPDX-License-Identifier: BSD-2-Clause */
/* test-range-lock.c - the range lock against a naive model, its fairness, and threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/test-seed.h"
#include "store/range-lock.h"

/* --- against a model --- */

#define REQUESTS 40
#define BLOCKS 24

enum state { FREE, BESIDE, WAITING, HELD, UPGRADING };

struct entry {
  struct range_request request;
  struct waiter waiter;
  enum state state;
  uint64_t first, last, arrival;
  enum range_mode mode;
  bool is_expected;
};

static struct entry entries[REQUESTS];
static uint64_t model_arrivals;

static bool
model_excludes (enum range_mode a, enum range_mode b)
{
  static const char *const rows[] = {
    [RANGE_SHARED] = "...x",
    [RANGE_WRITE] = "..xx",
    [RANGE_QUIESCE] = ".xxx",
    [RANGE_EXCLUSIVE] = "xxxx",
  };

  return rows[a][b] == 'x';
}

static bool
overlaps (const struct entry *a, uint64_t first, uint64_t last)
{
  for (uint64_t block = first; block <= last; block++)
    if (a->first <= block && block <= a->last)
      return true;
  return false;
}

static bool
is_in_line (const struct entry *entry)
{
  return entry->state == WAITING || entry->state == HELD || entry->state == UPGRADING;
}

/* What QUIESCE excludes is not in line as long as there is one. */
static bool
model_is_beside (uint64_t first, uint64_t last, enum range_mode mode)
{
  for (unsigned i = 0; i < REQUESTS; i++)
    if (is_in_line (&entries[i]) && entries[i].mode == RANGE_QUIESCE
        && model_excludes (mode, RANGE_QUIESCE) && overlaps (&entries[i], first, last))
      return true;
  return false;
}

/* The rule itself: nothing that is in line and came before excludes it; and an upgrade waits for
 * SHARED holders, whenever they came. */
static bool
model_may_hold (const struct entry *self, uint64_t arrival, uint64_t first, uint64_t last,
                enum range_mode mode)
{
  for (unsigned i = 0; i < REQUESTS; i++) {
    const struct entry *e = &entries[i];

    if (e == self || !is_in_line (e) || !model_excludes (mode, e->mode)
        || !overlaps (e, first, last))
      continue;
    if (e->arrival < arrival
        || (self->state == UPGRADING && e->mode == RANGE_SHARED && e->state == HELD))
      return false;
  }
  return true;
}

/* Takes those woken, and compares with what the rule says of everybody. */
static void
model_settle (struct list *wake)
{
  struct list *link;

  for (unsigned i = 0; i < REQUESTS; i++)
    entries[i].is_expected = false;
  for (;;) {
    struct entry *next = NULL;

    for (unsigned i = 0; i < REQUESTS; i++)
      if (entries[i].state == BESIDE
          && !model_is_beside (entries[i].first, entries[i].last, entries[i].mode)
          && (next == NULL || entries[i].arrival < next->arrival))
        next = &entries[i];
    if (next == NULL)
      break;
    next->state = WAITING;
    next->arrival = model_arrivals++;
  }
  for (unsigned i = 0; i < REQUESTS; i++) {
    struct entry *e = &entries[i];

    if (e->state == WAITING || e->state == UPGRADING)
      e->is_expected = model_may_hold (e, e->arrival, e->first, e->last, e->mode);
  }
  while ((link = list_take (wake))) {
    struct entry *woken = container_of (container_of (link, struct waiter, link),
                                        struct entry, waiter);

    assert_true (woken->is_expected);
    assert_true (woken->request.is_granted);
    woken->state = HELD;
    woken->is_expected = false;
  }
  for (unsigned i = 0; i < REQUESTS; i++)
    assert_false (entries[i].is_expected);
}

static void
model_release (struct range_lock *lock, struct entry *entry)
{
  struct list wake = LIST_INIT (wake);

  range_lock_release (lock, &entry->request, &wake);
  entry->state = FREE;
  model_settle (&wake);
}

static void
model_upgrade (struct range_lock *lock, struct entry *entry)
{
  struct list wake = LIST_INIT (wake);
  bool is_granted = range_lock_upgrade (lock, &entry->request, &entry->waiter);

  entry->mode = RANGE_EXCLUSIVE;
  entry->state = UPGRADING;
  assert_int_equal (is_granted, model_may_hold (entry, entry->arrival, entry->first, entry->last,
                                                RANGE_EXCLUSIVE));
  if (is_granted)
    entry->state = HELD;
  model_settle (&wake);
}

/* Who waits in line for it stands beside from now on. */
static void
model_downgrade (struct range_lock *lock, struct entry *entry)
{
  struct list wake = LIST_INIT (wake);

  range_lock_downgrade (lock, &entry->request, &wake);
  entry->mode = RANGE_QUIESCE;
  for (unsigned i = 0; i < REQUESTS; i++)
    if (entries[i].state == WAITING && model_excludes (entries[i].mode, RANGE_QUIESCE)
        && overlaps (&entries[i], entry->first, entry->last))
      entries[i].state = BESIDE;
  model_settle (&wake);
}

static void
model_acquire (struct range_lock *lock, struct entry *entry)
{
  static const enum range_mode modes[] = {
    RANGE_SHARED, RANGE_SHARED, RANGE_SHARED, RANGE_WRITE, RANGE_WRITE, RANGE_EXCLUSIVE,
    RANGE_EXCLUSIVE, RANGE_QUIESCE,
  };
  uint64_t first = random_below (BLOCKS);
  uint64_t last = first + random_below (random_below (4) ? 3 : BLOCKS);
  enum range_mode mode = modes[random_below (ARRAY_COUNT (modes))];
  bool is_beside = model_is_beside (first, last, mode);
  bool expected = !is_beside && model_may_hold (entry, model_arrivals, first, last, mode);
  bool is_try = random_below (4) == 0;
  bool is_granted;

  waiter_init (&entry->waiter);
  if (is_try)
    is_granted = range_lock_try (lock, &entry->request, first, last, mode);
  else
    is_granted = range_lock_acquire (lock, &entry->request, first, last, mode,
                                     &entry->waiter);
  assert_int_equal (is_granted, expected);
  if (is_try && !is_granted)
    return;
  entry->first = first;
  entry->last = last;
  entry->mode = mode;
  entry->arrival = model_arrivals++;
  entry->state = is_granted ? HELD : is_beside ? BESIDE : WAITING;
}

/* The mode that each held one satisfies. */
static void
model_is_held (struct range_lock *lock)
{
  static const char *const rows[] = {
    [RANGE_SHARED] = "x...",
    [RANGE_WRITE] = "xx..",
    [RANGE_QUIESCE] = "xxx.",
    [RANGE_EXCLUSIVE] = "xxxx",
  };
  uint64_t first = random_below (BLOCKS);
  uint64_t last = first + random_below (3);

  for (enum range_mode mode = 0; mode < RANGE_MODES; mode++) {
    bool expected = false;

    for (unsigned i = 0; i < REQUESTS; i++) {
      const struct entry *e = &entries[i];
      enum range_mode held = e->state == UPGRADING ? RANGE_QUIESCE : e->mode;

      if ((e->state == HELD || e->state == UPGRADING) && e->first <= first && last <= e->last)
        expected |= rows[held][mode] == 'x';
    }
    assert_int_equal (range_lock_is_held (lock, first, last, mode), expected);
  }
}

/* All go who hold anything but QUIESCE, and so those behind them. */
static void
model_drain_line (struct range_lock *lock)
{
  bool goes_on = true;

  while (goes_on) {
    goes_on = false;
    for (unsigned i = 0; i < REQUESTS; i++)
      if (entries[i].state == HELD && entries[i].mode != RANGE_QUIESCE) {
        model_release (lock, &entries[i]);
        goes_on = true;
      }
  }
}

/* Whatever waits is granted in the end; and without those who hold a QUIESCE doing anything, all
 * but what they exclude. */
static void
model_drain (struct range_lock *lock)
{
  unsigned left = REQUESTS;

  model_drain_line (lock);
  for (unsigned i = 0; i < REQUESTS; i++) {
    assert_true (entries[i].state != WAITING && entries[i].state != UPGRADING);
    if (entries[i].state == BESIDE)
      assert_true (model_is_beside (entries[i].first, entries[i].last, entries[i].mode));
  }
  while (left > 0) {
    left = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
      if (entries[i].state == HELD && entries[i].mode == RANGE_QUIESCE && random_below (2) == 0)
        model_upgrade (lock, &entries[i]);
      else if (entries[i].state == HELD)
        model_release (lock, &entries[i]);
      left += entries[i].state != FREE;
    }
  }
}

static void
test_model (void **state)
{
  struct range_lock lock;

  (void) state;
  random_seed ();
  memset (entries, 0, sizeof entries);
  range_lock_init (&lock);
  for (unsigned step = 1; step <= 60000; step++) {
    struct entry *entry = &entries[random_below (REQUESTS)];

    if (entry->state == FREE)
      model_acquire (&lock, entry);
    else if (entry->state == HELD && entry->mode == RANGE_QUIESCE && random_below (2) == 0)
      model_upgrade (&lock, entry);
    else if (entry->state == HELD && entry->mode == RANGE_EXCLUSIVE && random_below (2) == 0)
      model_downgrade (&lock, entry);
    else if (entry->state == HELD)
      model_release (&lock, entry);
    model_is_held (&lock);
    if (step % 1000 == 0)
      model_drain (&lock);
  }
  model_drain (&lock);
  range_lock_destroy (&lock);
}

/* --- fairness --- */

static void
test_fifo (void **state)
{
  struct range_lock lock;
  struct range_request reader, punch, late, elsewhere, try;
  struct waiter waiters[4];
  struct list wake = LIST_INIT (wake);

  (void) state;
  for (unsigned i = 0; i < ARRAY_COUNT (waiters); i++)
    waiter_init (&waiters[i]);
  range_lock_init (&lock);
  assert_true (range_lock_acquire (&lock, &reader, 0, 9, RANGE_SHARED, &waiters[0]));
  assert_false (range_lock_acquire (&lock, &punch, 5, 19, RANGE_EXCLUSIVE, &waiters[1]));
  /* Held back by the one that waits, also where nobody holds anything. */
  assert_false (range_lock_acquire (&lock, &late, 15, 15, RANGE_SHARED, &waiters[2]));
  assert_false (range_lock_try (&lock, &try, 15, 15, RANGE_SHARED));
  /* Outside of its range nobody waits. */
  assert_true (range_lock_acquire (&lock, &elsewhere, 0, 4, RANGE_SHARED, &waiters[3]));
  assert_int_equal (lock.waits, 2);

  range_lock_release (&lock, &reader, &wake);
  assert_ptr_equal (list_take (&wake), &waiters[1].link);
  assert_true (list_is_empty (&wake));
  assert_true (range_lock_is_held (&lock, 5, 19, RANGE_EXCLUSIVE));
  assert_true (range_lock_is_held (&lock, 5, 5, RANGE_SHARED));
  assert_false (range_lock_is_held (&lock, 4, 5, RANGE_SHARED));
  range_lock_release (&lock, &punch, &wake);
  assert_ptr_equal (list_take (&wake), &waiters[2].link);
  range_lock_release (&lock, &late, &wake);
  range_lock_release (&lock, &elsewhere, &wake);
  assert_true (list_is_empty (&wake));
  range_lock_destroy (&lock);
}

/* A stream of readers that never ends does not starve an exclusive request. */
static void
test_no_starvation (void **state)
{
  struct range_lock lock;
  struct range_request readers[2], punch;
  struct waiter waiters[2], punch_waiter;
  struct list wake = LIST_INIT (wake);

  (void) state;
  waiter_init (&punch_waiter);
  waiter_init (&waiters[0]);
  waiter_init (&waiters[1]);
  range_lock_init (&lock);
  assert_true (range_lock_acquire (&lock, &readers[0], 0, 0, RANGE_SHARED, &waiters[0]));
  assert_false (range_lock_acquire (&lock, &punch, 0, UINT64_MAX, RANGE_EXCLUSIVE,
                                    &punch_waiter));
  assert_false (range_lock_acquire (&lock, &readers[1], 0, 0, RANGE_SHARED, &waiters[1]));
  range_lock_release (&lock, &readers[0], &wake);
  assert_ptr_equal (list_take (&wake), &punch_waiter.link);
  range_lock_release (&lock, &punch, &wake);
  assert_ptr_equal (list_take (&wake), &waiters[1].link);
  range_lock_release (&lock, &readers[1], &wake);
  range_lock_destroy (&lock);
}

/* Write-back on behalf of who holds a QUIESCE gets its blocks, whoever waits for that QUIESCE, or
 * for one who does; the upgrade comes before them all; and after it all is as before. */
static void
test_quiesce (void **state)
{
  struct range_lock lock;
  struct range_request collapse, write, trim, behind, writeback, reader;
  struct waiter waiters[6];
  struct list wake = LIST_INIT (wake);

  (void) state;
  for (unsigned i = 0; i < ARRAY_COUNT (waiters); i++)
    waiter_init (&waiters[i]);
  range_lock_init (&lock);
  assert_true (range_lock_acquire (&lock, &collapse, 10, 19, RANGE_QUIESCE, &waiters[0]));
  assert_false (range_lock_acquire (&lock, &write, 12, 12, RANGE_WRITE, &waiters[1]));
  assert_false (range_lock_acquire (&lock, &trim, 15, 29, RANGE_EXCLUSIVE, &waiters[2]));
  assert_true (range_lock_acquire (&lock, &behind, 25, 39, RANGE_EXCLUSIVE, &waiters[3]));
  assert_true (range_lock_acquire (&lock, &writeback, 16, 24, RANGE_SHARED, &waiters[4]));

  assert_false (range_lock_upgrade (&lock, &collapse, &waiters[0]));
  assert_true (range_lock_is_held (&lock, 10, 19, RANGE_QUIESCE));
  assert_false (range_lock_is_held (&lock, 10, 19, RANGE_EXCLUSIVE));
  assert_false (range_lock_acquire (&lock, &reader, 10, 10, RANGE_SHARED, &waiters[5]));
  range_lock_release (&lock, &behind, &wake);
  assert_true (list_is_empty (&wake));
  range_lock_release (&lock, &writeback, &wake);
  assert_ptr_equal (list_take (&wake), &waiters[0].link);
  assert_true (list_is_empty (&wake));
  assert_true (range_lock_is_held (&lock, 10, 19, RANGE_EXCLUSIVE));

  range_lock_downgrade (&lock, &collapse, &wake);
  assert_ptr_equal (list_take (&wake), &waiters[5].link);
  assert_true (list_is_empty (&wake));
  assert_true (range_lock_is_held (&lock, 10, 19, RANGE_QUIESCE));
  /* Not in line, or it would wait for the QUIESCE by way of `trim'. */
  assert_true (range_lock_acquire (&lock, &writeback, 16, 24, RANGE_SHARED, &waiters[4]));
  range_lock_release (&lock, &writeback, &wake);

  range_lock_release (&lock, &collapse, &wake);
  assert_ptr_equal (list_take (&wake), &waiters[1].link);
  assert_ptr_equal (list_take (&wake), &waiters[2].link);
  assert_true (list_is_empty (&wake));
  range_lock_release (&lock, &reader, &wake);
  range_lock_release (&lock, &write, &wake);
  range_lock_release (&lock, &trim, &wake);
  assert_true (list_is_empty (&wake));
  range_lock_destroy (&lock);
}

/* --- threads --- */

#define THREADS 4

struct sleeper {
  struct waiter waiter;
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  bool is_woken;
};

static struct range_lock shared_lock;
/* What the lock protects; TSan watches.  Contents are changed in EXCLUSIVE, read in any mode; marks
 * are changed in QUIESCE, read in WRITE and EXCLUSIVE. */
static uint64_t contents[BLOCKS], marks[BLOCKS];

static void
wake_all (struct list *wake)
{
  struct list *link;

  while ((link = list_take (wake))) {
    struct sleeper *sleeper = container_of (container_of (link, struct waiter, link),
                                            struct sleeper, waiter);

    pthread_mutex_lock (&sleeper->mutex);
    sleeper->is_woken = true;
    pthread_cond_signal (&sleeper->condition);
    pthread_mutex_unlock (&sleeper->mutex);
  }
}

static void
sleep_until_woken (struct sleeper *sleeper)
{
  pthread_mutex_lock (&sleeper->mutex);
  while (!sleeper->is_woken)
    pthread_cond_wait (&sleeper->condition, &sleeper->mutex);
  sleeper->is_woken = false;
  pthread_mutex_unlock (&sleeper->mutex);
}

static void *
thread_run (void *arg)
{
  uint64_t seed = (uintptr_t) arg;
  struct sleeper sleeper = { .mutex = PTHREAD_MUTEX_INITIALIZER,
                             .condition = PTHREAD_COND_INITIALIZER };
  uint64_t sum = 0;

  waiter_init (&sleeper.waiter);
  for (unsigned step = 0; step < 5000; step++) {
    struct list wake = LIST_INIT (wake);
    struct range_request request;
    enum range_mode mode;
    uint64_t first, last;

    seed = seed * UINT64_C (6364136223846793005) + UINT64_C (1442695040888963407);
    first = (seed >> 33) % BLOCKS;
    last = MIN (first + (seed >> 40) % 6, BLOCKS - 1);
    mode = (seed >> 48) % RANGE_MODES;
    if ((seed >> 52) % 4 == 0) {
      if (!range_lock_try (&shared_lock, &request, first, last, mode))
        continue;
    }
    else if (!range_lock_acquire (&shared_lock, &request, first, last, mode, &sleeper.waiter))
      sleep_until_woken (&sleeper);
    if (mode == RANGE_QUIESCE) {
      if ((seed >> 54) % 2 == 0) {
        if (!range_lock_upgrade (&shared_lock, &request, &sleeper.waiter))
          sleep_until_woken (&sleeper);
        mode = RANGE_EXCLUSIVE;
      }
      else
        for (uint64_t block = first; block <= last; block++)
          marks[block]++;
    }
    for (uint64_t block = first; block <= last; block++) {
      if (mode == RANGE_EXCLUSIVE)
        contents[block]++;
      if (mode == RANGE_WRITE || mode == RANGE_EXCLUSIVE)
        sum += marks[block];
      sum += contents[block];
    }
    if (mode == RANGE_EXCLUSIVE && (seed >> 56) % 2 == 0) {
      range_lock_downgrade (&shared_lock, &request, &wake);
      wake_all (&wake);
      for (uint64_t block = first; block <= last; block++)
        marks[block]++;
    }
    range_lock_release (&shared_lock, &request, &wake);
    wake_all (&wake);
  }
  return (void *) (uintptr_t) (sum & 1);
}

static void
test_threads (void **state)
{
  pthread_t threads[THREADS];

  (void) state;
  range_lock_init (&shared_lock);
  for (uintptr_t i = 0; i < THREADS; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, thread_run, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < THREADS; i++)
    assert_int_equal (pthread_join (threads[i], NULL), 0);
  range_lock_destroy (&shared_lock);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_model),
    cmocka_unit_test (test_fifo),
    cmocka_unit_test (test_no_starvation),
    cmocka_unit_test (test_quiesce),
    cmocka_unit_test (test_threads),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
