/* SPDX-License-Identifier: BSD-2-Clause */
/* test-hole.c - two threads, the first of which is held up between two lines of a step.
 *
 * Hole: both write parts of one block that has no place yet.  The first has found neither a frame
 * nor a place, and is about to put zeros into the cache for the rest of the block.  Meanwhile the
 * second writes its part, and that is written back, and evicted.  The first must see that the block
 * is no hole any more.
 *
 * Freed: the first was refused space, and is about to look whether there will be some.  Meanwhile
 * the second gives back what it has, durably.  The first must not fail: least of all as if it were
 * memory that is missing, since there is space.
 *
 * Over: the first overwrites what is dirty, and is promised a block too many for a moment; or it
 * makes it unwritten, and has two promises until it has dropped it.  Meanwhile the second wants the
 * last block of the store.  It must wait, and get it.
 *
 * Moved: the first reads a block that a clone shares, and has looked up where it lies; or it is about
 * to ask the device for that.  Meanwhile the second writes the block, which is written back to a
 * place of its own, and evicted; and the clone is trimmed, so that the old place is another block's,
 * and has its data.  The first must read what the block was or is, and leave nothing else in the
 * cache.
 *
 * The threads take turns; the first one waits in the place of cache_fill_begin, of op_submit, or,
 * after space_reserve, of space_get_counts, or right there (ld --wrap).
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store-internal.h"
#include "world.h"

#define BLOCKS 400
#define TURNS_MAX 200000

static struct world *world;
static void *(*beside_fill) (void *);    /* what runs before cache_fill_begin of block 0, */
static void *(*beside_submit) (void *);  /* and before a READ is submitted */
static bool is_freeing;         /* for what is freed */
static unsigned refusals;       /* of promises, one after the other */
static bool is_over;            /* a promise is more than is needed */

/* The store is abandoned at the end, as a kill does: what it had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

/* The frame of a block; disk ids begin at 1. */
static struct frame *
peek (unsigned disk, uint64_t block)
{
  struct frame *frame = cache_peek (world->store->cache, disk + 1, block);

  if (frame != NULL)
    cache_put (world->store->cache, frame);
  return frame;
}

static bool
frame_is_dirty (unsigned disk, uint64_t block)
{
  struct frame *frame = peek (disk, block);

  return frame != NULL && atomic_load (&frame->state) == FRAME_DIRTY;
}

/* One request of the second thread, to its end. */
static void
do_request (unsigned disk, enum request_kind kind, unsigned flags, uint64_t offset,
            uint64_t length)
{
  unsigned others = world->busy;

  CHECK (world_request (world, 1, disk, kind, flags, offset, length));
  for (unsigned turns = 0; world->busy > others; turns++)
    CHECK (turns < TURNS_MAX && world_turn (world));
}

static void
let_second_run (void *(*main) (void *))
{
  pthread_t second;

  CHECK (pthread_create (&second, NULL, main, NULL) == 0);
  CHECK (pthread_join (second, NULL) == 0);
}

/* --- hole --- */

/* A WRITE in BLOCK, which is written back. */
static void
write_out (unsigned disk, uint64_t block, uint64_t from, uint64_t length)
{
  do_request (disk, REQUEST_WRITE, 0, block * BLOCK_SIZE + from, length);
  CHECK (frame_is_dirty (disk, block));
  world->store->keeper.old_version = cache_version (world->store->cache);
  keeper_kick (world->store);
  for (unsigned turns = 0; frame_is_dirty (disk, block); turns++)
    CHECK (turns < TURNS_MAX && world_turn (world));
}

/* Block 0 of disk 0, by reading others. */
static void
evict (void)
{
  for (unsigned reads = 0; peek (0, 0) != NULL; reads++) {
    CHECK (reads < 20 * BLOCKS);
    do_request (0, REQUEST_READ, 0, (1 + reads % (BLOCKS - 1)) * BLOCK_SIZE, BLOCK_SIZE);
  }
}

static void *
write_beside (void *arg)
{
  write_out (0, 0, 1024, 512);
  evict ();
  return arg;
}

enum cache_found __real_cache_fill_begin (struct cache *cache, struct cache_disk *disk,
                                          uint64_t block, struct frame *fresh,
                                          struct frame **found);
enum cache_found __wrap_cache_fill_begin (struct cache *cache, struct cache_disk *disk,
                                          uint64_t block, struct frame *fresh,
                                          struct frame **found);

enum cache_found
__wrap_cache_fill_begin (struct cache *cache, struct cache_disk *disk, uint64_t block,
                         struct frame *fresh, struct frame **found)
{
  void *(*beside) (void *) = beside_fill;

  if (beside != NULL && block == 0) {
    beside_fill = NULL;
    let_second_run (beside);
  }
  return __real_cache_fill_begin (cache, disk, block, fresh, found);
}

/* A disk whose blocks from FIRST on are written. */
static bool
make_world (uint64_t capacity, unsigned first)
{
  struct world_options options = {
    .seed = 1,
    .geometry = { .group_blocks = 4096, .meta_blocks = 256, .journal_half_blocks = 64,
                  .capacity = capacity },
    .device_blocks = 64, .device_blocks_max = 8192, .cache_bytes = 64 * BLOCK_SIZE,
    .tail_bytes = 64 * KIB, .request_bytes_max = 64 * BLOCK_SIZE, .contexts = 2,
    .is_plain = true, .step_weight = 1, .io_weight = 1,
  };
  bool is_ok;

  world = world_create (&options);
  is_ok = !world->is_failed && world_create_disk (world, 0, BLOCKS * BLOCK_SIZE)
          && world_settle (world);
  for (unsigned block = first; block < BLOCKS && is_ok; block++)
    is_ok = world_request (world, 0, 0, REQUEST_WRITE, 0, block * BLOCK_SIZE, BLOCK_SIZE)
            && world_settle (world);
  return is_ok;
}

static bool
test_hole (void)
{
  bool is_ok = make_world (0, 1) && world_reopen (world);

  beside_fill = write_beside;
  is_ok = is_ok && world_request (world, 0, 0, REQUEST_WRITE, 0, 512, 512) && world_settle (world);
  CHECK (!is_ok || beside_fill == NULL);
  is_ok = is_ok && world_request (world, 0, 0, REQUEST_READ, 0, 0, BLOCK_SIZE)
          && world_settle (world) && world_reopen (world);
  world_destroy (world);
  return is_ok;
}

/* --- moved --- */

/* All space but one block is taken, so the clone's second block gets the place that its first one
 * shared. */
static void *
move_beside (void *arg)
{
  write_out (0, 0, 0, BLOCK_SIZE);
  do_request (1, REQUEST_TRIM, REQUEST_FUA, 0, BLOCK_SIZE);
  write_out (1, 1, 0, BLOCK_SIZE);
  evict ();
  return arg;
}

void __real_op_submit (struct op *op, struct op_io *io);
void __wrap_op_submit (struct op *op, struct op_io *io);

void
__wrap_op_submit (struct op *op, struct op_io *io)
{
  void *(*beside) (void *) = beside_submit;

  if (beside != NULL && io->io.kind == IO_READ) {
    beside_submit = NULL;
    let_second_run (beside);
  }
  __real_op_submit (op, io);
}

static bool
test_moved (bool is_submitted)
{
  bool is_ok = make_world (256 + 2 * 64 + BLOCKS + 1, 0)
               && world_create_disk (world, 1, 2 * BLOCK_SIZE) && world_settle (world)
               && world_clone_range (world, 0, 0, BLOCK_SIZE, 1, 0) && world_settle (world)
               && world_reopen (world);

  *(is_submitted ? &beside_submit : &beside_fill) = move_beside;
  is_ok = is_ok && world_request (world, 0, 0, REQUEST_READ, 0, 0, BLOCK_SIZE)
          && world_settle (world);
  CHECK (!is_ok || (beside_fill == NULL && beside_submit == NULL));
  is_ok = is_ok && world_request (world, 0, 0, REQUEST_READ, 0, 0, BLOCK_SIZE)
          && world_settle (world) && world_reopen (world);
  CHECK (!is_ok || world->totals.errors == 0);
  world_destroy (world);
  return is_ok;
}

/* --- freed, over --- */

/* A store with room for BLOCKS blocks, and a disk of two, the first of which is dirty. */
static bool
make_small_world (unsigned blocks)
{
  struct world_options options = {
    .seed = 1,
    .geometry = { .group_blocks = 512, .meta_blocks = 64, .journal_half_blocks = 32,
                  .capacity = 64 + 2 * 32 + blocks },
    .device_blocks = 64, .device_blocks_max = 4096, .cache_bytes = 64 * BLOCK_SIZE,
    .tail_bytes = 16 * KIB, .request_bytes_max = 64 * BLOCK_SIZE, .contexts = 2,
    .is_plain = true, .is_tight = true, .step_weight = 1, .io_weight = 1,
  };

  world = world_create (&options);
  return !world->is_failed && world_create_disk (world, 0, 2 * BLOCK_SIZE) && world_settle (world)
         && world_request (world, 0, 0, REQUEST_WRITE, 0, 0, BLOCK_SIZE) && world_settle (world);
}

static void *
free_block (void *arg)
{
  CHECK (world_request (world, 1, 0, REQUEST_TRIM, REQUEST_FUA, 0, BLOCK_SIZE));
  for (unsigned turns = 0; world->busy > 1; turns++)
    CHECK (turns < TURNS_MAX && world_turn (world));
  return arg;
}

/* The second block, as far as that goes without the first thread. */
static void *
write_last_block (void *arg)
{
  CHECK (world_request (world, 1, 0, REQUEST_WRITE, 0, BLOCK_SIZE, BLOCK_SIZE));
  for (unsigned turns = 0; turns < 1000 && world->busy > 1; turns++)
    CHECK (world_turn (world));
  return arg;
}

static int
promised (int error)
{
  refusals = error != 0 ? refusals + 1 : 0;
  if (is_over && error == 0) {
    is_over = false;
    let_second_run (write_last_block);
  }
  return error;
}

int __real_space_reserve (struct space *space, uint64_t count);
int __wrap_space_reserve (struct space *space, uint64_t count);
int __real_space_reserve_unsettled (struct space *space, uint64_t count);
int __wrap_space_reserve_unsettled (struct space *space, uint64_t count);

int
__wrap_space_reserve (struct space *space, uint64_t count)
{
  return promised (__real_space_reserve (space, count));
}

int
__wrap_space_reserve_unsettled (struct space *space, uint64_t count)
{
  return promised (__real_space_reserve_unsettled (space, count));
}

void __real_space_get_counts (struct space *space, struct space_counts *counts);
void __wrap_space_get_counts (struct space *space, struct space_counts *counts);

void
__wrap_space_get_counts (struct space *space, struct space_counts *counts)
{
  /* Of the rough count and of the exact one. */
  if (is_freeing && refusals == 2) {
    is_freeing = false;
    let_second_run (free_block);
  }
  __real_space_get_counts (space, counts);
}

static bool
test_freed (void)
{
  bool is_ok = make_small_world (1) && world_reopen (world);

  is_freeing = true;
  is_ok = is_ok && world_request (world, 0, 0, REQUEST_WRITE, 0, BLOCK_SIZE, BLOCK_SIZE)
          && world_settle (world);
  CHECK (!is_ok || !is_freeing);
  if (is_ok && world->totals.errors > 0) {
    printf ("FAIL test-hole: a WRITE fails for which there is space\n");
    is_ok = false;
  }
  world_destroy (world);
  return is_ok;
}

static bool
test_over (enum request_kind kind, unsigned flags)
{
  bool is_ok = make_small_world (2);

  is_over = true;
  is_ok = is_ok && world_request (world, 0, 0, kind, flags, 0, BLOCK_SIZE) && world_settle (world);
  CHECK (!is_ok || !is_over);
  if (is_ok && world->totals.enospc > 0) {
    printf ("FAIL test-hole: a WRITE is refused the last block\n");
    is_ok = false;
  }
  is_ok = is_ok && world_reopen (world);
  world_destroy (world);
  return is_ok;
}

int
main (void)
{
  bool is_ok;

  setvbuf (stdout, NULL, _IOLBF, 0);
  world_log_nothing ();
  world_handle_signals ();
  is_ok = test_hole () && test_moved (false) && test_moved (true) && test_freed ()
          && test_over (REQUEST_WRITE, 0)
          && test_over (REQUEST_WRITE_ZEROES, REQUEST_NO_HOLE);
  printf ("%s test-hole\n", is_ok ? "ok" : "FAIL");
  return is_ok ? 0 : 1;
}
