/* SPDX-License-Identifier: BSD-2-Clause */
/* delays.c - threads that stop for a moment at the steps that matter, so that others get between
 * them: linked in the place of the functions that lock ranges, look maps up and change them, put
 * frames into the cache and take them out (ld --wrap). */
#include <sched.h>
#include <stdatomic.h>

#include "sim.h"
#include "store/store-internal.h"

/* One call in so many is held up. */
#define DELAY_EVERY 16
#define DELAY_SPINS 2000

static _Atomic bool are_on;

void
delays_switch (bool on)
{
  atomic_store (&are_on, on);
}

static void
delay (void)
{
  static _Thread_local uint32_t state = 2463534242;

  if (!atomic_load_explicit (&are_on, memory_order_relaxed))
    return;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  if (state % DELAY_EVERY != 0)
    return;
  sched_yield ();
  for (volatile unsigned i = 0; i < state / DELAY_EVERY % DELAY_SPINS; i++)
    continue;
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
DELAYED (bool, cache_is_current, (struct frame *frame), (frame))
DELAYED (bool, cache_settle,
         (struct cache *cache, struct frame *frame, bool ok, struct list *wake),
         (cache, frame, ok, wake))
