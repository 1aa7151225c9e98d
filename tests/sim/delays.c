/* SPDX-License-Identifier: BSD-2-Clause */
/* delays.c - threads that stop for a moment between the steps of ops, and within them where it
 * matters, so that others get between: linked in the place of op_run, and of the functions that
 * lock ranges, look maps up and change them, put frames into the cache and take them out
 * (ld --wrap). */
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "sim.h"
#include "store/store-internal.h"

/* One call in so many is held up, and of these one in so many for long. */
#define DELAY_EVERY 16
#define DELAY_SPINS 2000
#define SLEEP_EVERY 16
#define SLEEP_NS 100000

static _Atomic bool are_on;

void
delays_switch (bool on)
{
  atomic_store (&are_on, on);
}

/* Each thread has other numbers. */
static uint32_t
draw (void)
{
  static _Atomic uint32_t threads;
  static _Thread_local uint32_t state;

  if (state == 0)
    state = (atomic_fetch_add (&threads, 1) + 1) * 2654435761;
  state ^= state << 13;
  state ^= state >> 17;
  return state ^= state << 5;
}

static void
delay (void)
{
  uint32_t number;

  if (!atomic_load_explicit (&are_on, memory_order_relaxed))
    return;
  number = draw ();
  if (number % DELAY_EVERY != 0)
    return;
  number /= DELAY_EVERY;
  if (number % SLEEP_EVERY == 0) {
    struct timespec time = { .tv_nsec = number / SLEEP_EVERY % SLEEP_NS };

    nanosleep (&time, NULL);
    return;
  }
  sched_yield ();
  for (volatile unsigned i = 0; i < number / SLEEP_EVERY % DELAY_SPINS; i++)
    continue;
}

bool __real_op_run (struct op *op, unsigned steps_max);
bool __wrap_op_run (struct op *op, unsigned steps_max);

/* One step: the next one comes after what else is ready. */
bool
__wrap_op_run (struct op *op, unsigned steps_max)
{
  (void) steps_max;
  delay ();
  return __real_op_run (op, 1);
}

#define DELAYED(type, name, parameters, arguments)                                                 \
  type __real_##name parameters;                                                                   \
  type __wrap_##name parameters;                                                                   \
  type __wrap_##name parameters                                                                    \
  {                                                                                                \
    delay ();                                                                                      \
    return __real_##name arguments;                                                                \
  }

DELAYED (bool, range_lock_acquire,
         (struct range_lock *lock, struct range_request *request, uint64_t first, uint64_t last,
          enum range_mode mode, struct waiter *waiter),
         (lock, request, first, last, mode, waiter))
DELAYED (void, range_lock_release,
         (struct range_lock *lock, struct range_request *request, struct list *wake),
         (lock, request, wake))
DELAYED (unsigned, extent_map_scan,
         (struct extent_map *map, uint64_t block, uint64_t length, struct extent *extents,
          unsigned max),
         (map, block, length, extents, max))
DELAYED (void, extent_map_set,
         (struct extent_map *map, const struct extent *extent, extent_unmapped *unmapped,
          void *arg),
         (map, extent, unmapped, arg))
DELAYED (uint64_t, extent_map_clear,
         (struct extent_map *map, uint64_t block, uint64_t length, unsigned extents_max,
          extent_unmapped *unmapped, void *arg),
         (map, block, length, extents_max, unmapped, arg))
DELAYED (enum cache_found, cache_fill_begin,
         (struct cache *cache, struct cache_disk *disk, uint64_t block, struct frame *fresh,
          struct frame **frame),
         (cache, disk, block, fresh, frame))
DELAYED (bool, cache_publish,
         (struct cache *cache, struct cache_disk *disk, uint64_t block, struct frame *fresh,
          struct frame *expected, bool has_token, bool *token_taken, struct list *wake),
         (cache, disk, block, fresh, expected, has_token, token_taken, wake))
DELAYED (void, cache_drop,
         (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
          struct cache_dropped *dropped, struct list *wake),
         (cache, disk, first, last, dropped, wake))
DELAYED (void, cache_invalidate,
         (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
          struct cache_dropped *dropped, struct list *wake),
         (cache, disk, first, last, dropped, wake))
DELAYED (bool, cache_is_current, (struct frame *frame), (frame))
DELAYED (bool, cache_settle,
         (struct cache *cache, struct frame *frame, bool ok, struct list *wake),
         (cache, frame, ok, wake))
