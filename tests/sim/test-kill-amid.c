/* SPDX-License-Identifier: BSD-2-Clause */
/* test-kill-amid.c - a process is killed in the middle of a step: before and after each change of what
 * the next one takes over, or builds anew from that: items of the tail, frames, maps.
 *
 * The explorer and the simulator end a process between two steps.  But kill -9 does not wait for the
 * end of one, and the arena has what was done until then.
 *
 * Each op is run to its first change, then to its second, and so on to its end; what the next process
 * finds is judged, and what is found after a power cut behind that.  The functions below are wrapped
 * (ld --wrap); where the process ends, longjmp leaves it.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

#define BLOCKS(n) ((n) * UINT64_C (4096))
#define MOMENTS_MAX 2000

/* Stores are abandoned, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

static jmp_buf end_of_process;
static bool is_armed;
static unsigned moments, last_moment;

static void
moment (void)
{
  if (is_armed && ++moments == last_moment) {
    is_armed = false;
    longjmp (end_of_process, 1);
  }
}

/* RESULT NAME (PARAMETERS), which is called with ARGUMENTS. */
#define WRAP(result, name, parameters, arguments)                                                  \
  result __real_##name parameters;                                                                 \
  result __wrap_##name parameters;                                                                 \
  result __wrap_##name parameters                                                                  \
  {                                                                                                \
    result value;                                                                                  \
                                                                                                   \
    moment ();                                                                                     \
    value = __real_##name arguments;                                                               \
    moment ();                                                                                     \
    return value;                                                                                  \
  }

WRAP (uint64_t, journal_append,
      (struct journal *journal, enum format_item_kind kind, uint32_t flags, uint64_t disk,
       uint64_t block, uint64_t length, uint64_t place, const void *extra, size_t extra_bytes),
      (journal, kind, flags, disk, block, length, place, extra, extra_bytes))
WRAP (bool, cache_publish,
      (struct cache *cache, struct cache_disk *disk, uint64_t block, struct frame *fresh,
       struct frame *expected, bool has_token, bool *token_taken, struct list *wake),
      (cache, disk, block, fresh, expected, has_token, token_taken, wake))
WRAP (bool, cache_settle,
      (struct cache *cache, struct frame *frame, bool ok, struct list *wake),
      (cache, frame, ok, wake))

#define WRAP_DROP(name)                                                                           \
  void __real_##name (struct cache *cache, struct cache_disk *disk, uint64_t first,               \
                      uint64_t last, struct cache_dropped *dropped, struct list *wake);           \
  void __wrap_##name (struct cache *cache, struct cache_disk *disk, uint64_t first,               \
                      uint64_t last, struct cache_dropped *dropped, struct list *wake);           \
  void                                                                                            \
  __wrap_##name (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,     \
                 struct cache_dropped *dropped, struct list *wake)                                \
  {                                                                                               \
    moment ();                                                                                    \
    __real_##name (cache, disk, first, last, dropped, wake);                                      \
    moment ();                                                                                    \
  }

WRAP_DROP (cache_drop)
WRAP_DROP (cache_invalidate)

/* --- what is done --- */

static bool
request (struct world *world, unsigned disk, enum request_kind kind, unsigned flags, uint64_t block,
         uint64_t count)
{
  return world_request (world, 0, disk, kind, flags, BLOCKS (block), BLOCKS (count))
         && world_settle (world);
}

/* In each of two disks of eight blocks: four that are in their places; one of them was overwritten
 * since and is in the journal, another one is dirty; so are one over a hole, and one over an extent that is not
 * written. */
static bool
prepare (struct world *world, bool is_shared)
{
  bool is_ok = true;

  for (unsigned d = 0; d < 2 && is_ok; d++)
    is_ok = world_create_disk (world, d, BLOCKS (8)) && world_settle (world)
            && request (world, d, REQUEST_WRITE, 0, 0, 4) && world_sync (world)
            && world_settle (world);
  if (is_shared)
    is_ok = is_ok && world_clone_range (world, 0, 0, BLOCKS (4), 1, 0) && world_settle (world);
  for (unsigned d = 0; d < 2 && is_ok; d++)
    is_ok = request (world, d, REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE, 6, 1)
            && request (world, d, REQUEST_WRITE, REQUEST_FUA, 1, 1)
            && request (world, d, REQUEST_WRITE, 0, 2, 1)
            && request (world, d, REQUEST_WRITE, 0, 5, 2);
  return is_ok;
}

struct deed {
  const char *name;
  enum request_kind kind;
  unsigned flags;
  uint64_t block, count;
  bool (*admin) (struct world *world);
};

static bool
do_clone (struct world *world)
{
  return world_clone_range (world, 0, 0, BLOCKS (7), 1, BLOCKS (1));
}

static bool
do_collapse (struct world *world)
{
  return world_shift_range (world, 0, ADMIN_COLLAPSE, BLOCKS (1), BLOCKS (1));
}

static bool
do_insert (struct world *world)
{
  return world_shift_range (world, 0, ADMIN_INSERT, BLOCKS (1), BLOCKS (2));
}

static bool
do_shrink (struct world *world)
{
  return world_resize_disk (world, 0, BLOCKS (2));
}

static bool
do_checkpoint (struct world *world)
{
  keeper_want_checkpoint (world->store);
  return world_sync (world);
}

static const struct deed deeds[] = {
  { .name = "WRITE", .kind = REQUEST_WRITE, .block = 0, .count = 8 },
  { .name = "WRITE, FUA", .kind = REQUEST_WRITE, .flags = REQUEST_FUA, .block = 0, .count = 8 },
  { .name = "FLUSH", .kind = REQUEST_FLUSH },
  { .name = "TRIM", .kind = REQUEST_TRIM, .block = 0, .count = 8 },
  { .name = "WRITE_ZEROES", .kind = REQUEST_WRITE_ZEROES, .flags = REQUEST_FUA, .block = 1,
    .count = 6 },
  { .name = "WRITE_ZEROES, NO_HOLE", .kind = REQUEST_WRITE_ZEROES, .flags = REQUEST_NO_HOLE,
    .block = 0, .count = 8 },
  { .name = "clone", .admin = do_clone },
  { .name = "collapse", .admin = do_collapse },
  { .name = "insert", .admin = do_insert },
  { .name = "shrink", .admin = do_shrink },
  { .name = "checkpoint", .admin = do_checkpoint },
};

static bool
do_deed (struct world *world, const struct deed *deed)
{
  bool is_ok = deed->admin != NULL
                 ? deed->admin (world)
                 : world_request (world, 0, 0, deed->kind, deed->flags, BLOCKS (deed->block),
                                  BLOCKS (deed->count));

  return is_ok && world_settle (world);
}

/* What prepare makes takes so many blocks, with what is promised. */
#define PREPARED_BLOCKS 12

/* Kills it at its MOMENT-th moment.  *IS_OVER: it ended before that.  IS_FULL: the store has no more
 * room than what is prepared takes. */
static bool
kill_at (const struct deed *deed, bool is_shared, bool is_full, unsigned moment_number,
         bool *is_over)
{
  struct world_options options = {
    .seed = 1 + moment_number,
    .geometry = { .group_blocks = 512, .meta_blocks = 64, .journal_half_blocks = 32,
                  .capacity = is_full ? 64 + 2 * 32 + PREPARED_BLOCKS : 0 },
    .device_blocks = 64, .device_blocks_max = 4096,
    .cache_bytes = 64 * BLOCK_SIZE, .tail_bytes = 16 * KIB, .request_bytes_max = 64 * BLOCK_SIZE,
    .contexts = 1, .has_arena = true, .is_plain = true, .is_tight = is_full,
    .step_weight = 1, .io_weight = 1,
  };
  struct world *world = world_create (&options);
  bool is_ok = !world->is_failed && prepare (world, is_shared);

  moments = 0;
  last_moment = moment_number;
  *is_over = false;
  if (is_ok && setjmp (end_of_process) == 0) {
    is_armed = true;
    is_ok = do_deed (world, deed);
    is_armed = false;
    *is_over = true;
  }
  is_ok = is_ok && world_crash (world, CRASH_KILL, 0) && world_verify (world)
          && world_crash (world, CRASH_POWER, 0) && world_verify (world);
  if (!is_ok)
    printf ("FAIL test-kill-amid: %s%s%s, moment %u\n", deed->name, is_shared ? " of a clone" : "",
            is_full ? " in a full store" : "", moment_number);
  world_destroy (world);
  return is_ok;
}

int
main (void)
{
  unsigned kills = 0;

  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  for (unsigned d = 0; d < ARRAY_COUNT (deeds); d++)
    for (unsigned how = 0; how < 4; how++) {
      bool is_over = false;

      for (unsigned at = 1; !is_over; at++, kills++) {
        CHECK (at < MOMENTS_MAX);
        if (!kill_at (&deeds[d], how & 1, how & 2, at, &is_over))
          return EXIT_FAILURE;
      }
    }
  printf ("ok test-kill-amid: %u kills\n", kills);
  return EXIT_SUCCESS;
}
