/* SPDX-License-Identifier: BSD-2-Clause */
/* test-cache.c - the frame cache against a naive model; admission; adoption; what is looked at
 * without a lock.
 *
 * LACUNA_SEED=n replays one seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/test-cache.h"

/* --- the model --- */

#define MODEL_FRAMES 96
#define MODEL_DISKS 2
#define MODEL_BLOCKS 700
#define PICKS_MAX 12

struct model_block {
  uint64_t stored;             /* stamp in its place; 0: a hole */
  uint64_t dirty;              /* stamp of the dirty frame; 0: none */
  uint64_t version, since;
  uint64_t copy_version;       /* of the newest copy in the journal */
  uint32_t epoch;
  bool token, unmapped, copy, logged;
  struct frame *filling;       /* referenced */
};

struct pick {                  /* a frame in write-back or commit */
  struct frame *frame;
  unsigned disk;
  uint64_t block, version, successor;
  bool took_token;
};

static struct {
  struct arena *arena;
  struct cache *cache;
  struct cache_disk disks[MODEL_DISKS];
  struct model_block blocks[MODEL_DISKS][MODEL_BLOCKS];
  struct pick writeback[PICKS_MAX], commit[PICKS_MAX];
  unsigned writeback_count, commit_count;
  uint64_t stamp, version;
  uint32_t epoch;
  uint64_t reserved;           /* tokens out there */
  struct list wake;
} model;

static struct frame *
model_allocate (void)
{
  struct frame *frame = cache_allocate (model.cache);

  assert_non_null (frame);
  return frame;
}

static uint64_t
model_content (const struct model_block *b)
{
  return b->dirty != 0 ? b->dirty : b->stored;
}

static void
model_end_fill (unsigned d, uint64_t block)
{
  struct model_block *b = &model.blocks[d][block];

  if (b->filling == NULL)
    return;
  cache_fill_end (model.cache, b->filling, random_below (4) != 0, &model.wake);
  cache_put (model.cache, b->filling);
  b->filling = NULL;
}

static void
model_read (unsigned d, uint64_t block)
{
  struct model_block *b = &model.blocks[d][block];
  struct frame *frame = cache_get (model.cache, model.disks[d].id, block), *fresh;
  enum cache_found found;

  if (frame != NULL) {
    assert_true (content_check (frame, model.disks[d].id, block) == model_content (b));
    cache_put (model.cache, frame);
    return;
  }
  assert_true (b->dirty == 0);
  fresh = model_allocate ();
  found = cache_fill_begin (model.cache, &model.disks[d], block, fresh, &frame);
  if (found == CACHE_BUSY) {
    struct waiter waiter;

    assert_ptr_equal (frame, b->filling);
    if (random_below (2) == 0) {
      waiter_init (&waiter);
      assert_true (cache_wait_fill (model.cache, frame, &waiter));
      content_set (frame, model.disks[d].id, block, b->stored);
      cache_fill_end (model.cache, frame, true, &model.wake);
      assert_ptr_equal (list_take (&model.wake), &waiter.link);
      cache_put (model.cache, frame);
      b->filling = NULL;
    }
    cache_put (model.cache, frame);
    cache_put (model.cache, fresh);
    return;
  }
  assert_int_equal (found, CACHE_YOURS);
  if (b->filling != NULL) {
    /* A write replaced it; that frame was cleaned and evicted since. */
    assert_false (cache_is_current (b->filling));
    model_end_fill (d, block);
  }
  content_set (frame, model.disks[d].id, block, b->stored);
  if (random_below (8) == 0)
    b->filling = frame;
  else {
    cache_fill_end (model.cache, frame, random_below (8) != 0, &model.wake);
    cache_put (model.cache, frame);
  }
}

static void
picks_replaced (struct pick *picks, unsigned count, unsigned d, uint64_t block,
                uint64_t old_version, uint64_t version)
{
  for (unsigned i = 0; i < count; i++)
    if (picks[i].disk == d && picks[i].block == block && picks[i].version == old_version)
      picks[i].successor = version;
}

static void
model_write (unsigned d, uint64_t block)
{
  struct model_block *b = &model.blocks[d][block];
  bool needs_token = b->dirty == 0 && b->stored == 0, taken = !needs_token;
  bool offers_token = needs_token || random_below (4) == 0;
  struct frame *expected = NULL, *fresh;
  struct budget_ticket ticket;
  struct waiter waiter;

  waiter_init (&waiter);
  if (!cache_charge_dirty (model.cache, 1, &waiter, &ticket)) {
    assert_true (cache_dirty_wanted (model.cache));
    assert_true (cache_charge_cancel (model.cache, &ticket, &model.wake));
    return;
  }
  fresh = model_allocate ();
  if (random_below (3) == 0) {
    expected = cache_peek (model.cache, model.disks[d].id, block);
    assert_true (expected != NULL || b->dirty == 0);
    assert_true (expected == NULL || frame_state (expected) != FRAME_FILLING);
    if (expected == NULL && b->filling == NULL)
      expected = CACHE_NONE;
  }
  if (random_below (16) == 0)
    assert_false (cache_publish (model.cache, &model.disks[d], block, fresh, fresh, false, NULL,
                                 &model.wake));
  content_set (fresh, model.disks[d].id, block, ++model.stamp);
  if (!needs_token && b->dirty == 0)
    offers_token = false;
  assert_true (cache_publish (model.cache, &model.disks[d], block, fresh, expected, offers_token,
                              &taken, &model.wake));
  assert_int_equal (taken, needs_token);
  model.version++;
  assert_true (fresh->version == model.version && cache_version (model.cache) == model.version);
  if (b->dirty != 0) {
    picks_replaced (model.writeback, model.writeback_count, d, block, b->version, model.version);
    picks_replaced (model.commit, model.commit_count, d, block, b->version, model.version);
  }
  if (needs_token) {
    b->token = b->unmapped = true;
    model.reserved++;
  }
  if (b->dirty == 0 || b->logged)
    b->since = model.version;
  b->logged = false;
  b->dirty = model.stamp;
  b->version = model.version;
  if (expected != NULL && expected != CACHE_NONE)
    cache_put (model.cache, expected);
  cache_put (model.cache, fresh);
}

static void
model_block_clear (struct model_block *b)
{
  uint64_t stored = b->stored;
  struct frame *filling = b->filling;

  memset (b, 0, sizeof *b);
  b->stored = stored;
  b->filling = filling;
}

static void
model_drop (unsigned d, uint64_t first, uint64_t last)
{
  struct cache_dropped dropped = { 0 };
  uint64_t tokens = 0, copies = 0;
  uint64_t end = MIN (last, MODEL_BLOCKS - 1);

  /* Write-back holds the range from taking a token until it has settled. */
  for (unsigned i = 0; i < model.writeback_count; i++)
    if (model.writeback[i].took_token && model.writeback[i].disk == d
        && model.writeback[i].block >= first && model.writeback[i].block <= last)
      return;
  for (uint64_t at = first; at <= end; at++) {
    struct model_block *b = &model.blocks[d][at];

    model_end_fill (d, at);
    tokens += b->token;
    copies += b->copy;
    b->stored = 0;
    model_block_clear (b);
  }
  assert_int_equal (cache_has_copies (model.cache, &model.disks[d], first, last), copies > 0);
  if (random_below (2) == 0)
    cache_drop (model.cache, &model.disks[d], first, last, &dropped, &model.wake);
  else
    cache_invalidate (model.cache, &model.disks[d], first, last, &dropped, &model.wake);
  assert_true (dropped.tokens == tokens && dropped.copies == copies);
  model.reserved -= tokens;
  for (uint64_t at = first; at <= end; at++)
    assert_null (cache_get (model.cache, model.disks[d].id, at));
}

static bool
is_picked (const struct pick *picks, unsigned count, unsigned d, uint64_t block,
           uint64_t version)
{
  for (unsigned i = 0; i < count; i++)
    if (picks[i].disk == d && picks[i].block == block && picks[i].version == version)
      return true;
  return false;
}

/* The block that collect should name next: the oldest above AFTER. */
static struct model_block *
model_oldest (unsigned d, uint64_t after, uint64_t version, bool fresh_only, uint64_t *block)
{
  struct model_block *best = NULL;

  for (uint64_t at = 0; at < MODEL_BLOCKS; at++) {
    struct model_block *b = &model.blocks[d][at];
    bool picked = fresh_only
      ? is_picked (model.commit, model.commit_count, d, at, b->version)
      : is_picked (model.writeback, model.writeback_count, d, at, b->version);

    if (b->dirty == 0 || b->since > version || b->since <= after || picked
        || (fresh_only && b->logged))
      continue;
    if (best == NULL || b->since < best->since) {
      best = b;
      *block = at;
    }
  }
  return best;
}

static void
model_collect (unsigned d, bool fresh_only)
{
  struct pick *picks = fresh_only ? model.commit : model.writeback;
  unsigned *pick_count = fresh_only ? &model.commit_count : &model.writeback_count;
  struct frame *frames[PICKS_MAX];
  uint32_t max = (uint32_t) random_below (PICKS_MAX + 1 - *pick_count), count;
  uint64_t version = model.version - random_below (MIN (model.version, 30) + 1), after = 0, at;

  if (fresh_only)
    count = cache_collect_fresh (model.cache, &model.disks[d], version, ++model.epoch, frames,
                                 max);
  else
    count = cache_collect (model.cache, &model.disks[d], COLLECT_OLDEST, version, 0, frames, max);
  for (uint32_t i = 0; i < max; i++) {
    struct model_block *b = model_oldest (d, after, version, fresh_only, &at);

    if (b == NULL) {
      assert_int_equal (i, count);
      return;
    }
    assert_true (i < count && frame_block (frames[i]) == at);
    after = b->since;
    if (fresh_only) {
      b->copy = true;
      b->copy_version = b->version;
      b->epoch = model.epoch;
    }
    picks[(*pick_count)++] = (struct pick) { frames[i], d, at, b->version, 0, false };
  }
  assert_int_equal (count, max);
}

static void
model_collect_copies (unsigned d)
{
  struct frame *frames[PICKS_MAX];
  uint32_t max = PICKS_MAX - model.writeback_count, count, expected = 0;
  uint32_t epoch = model.epoch - (uint32_t) random_below (MIN (model.epoch, 10) + 1);

  for (uint64_t at = 0; at < MODEL_BLOCKS; at++) {
    struct model_block *b = &model.blocks[d][at];

    expected += b->copy && b->epoch <= epoch
                && !is_picked (model.writeback, model.writeback_count, d, at, b->version);
  }
  count = cache_collect (model.cache, &model.disks[d], COLLECT_COPIES, 0, epoch, frames, max);
  assert_int_equal (count, MIN (max, expected));
  for (uint32_t i = 0; i < count; i++) {
    struct model_block *b = &model.blocks[d][frame_block (frames[i])];

    assert_true (b->copy && b->epoch <= epoch && cache_has_copy (model.cache, frames[i]));
    model.writeback[model.writeback_count++]
      = (struct pick) { frames[i], d, frame_block (frames[i]), b->version, 0, false };
  }
}

static void
model_advance (struct model_block *b, const struct pick *pick)
{
  if (b->dirty != 0 && !b->logged && b->since <= pick->version)
    b->since = pick->successor;
}

static void
model_take_token (struct pick *pick)
{
  struct model_block *b = &model.blocks[pick->disk][pick->block];
  bool is_current = b->dirty != 0 && b->version == pick->version;

  assert_int_equal (cache_is_current (pick->frame), is_current);
  assert_int_equal (cache_take_token (model.cache, pick->frame), is_current && b->token);
  if (is_current && b->token) {
    b->token = false;
    pick->took_token = true;
  }
}

static void
model_settle (void)
{
  struct pick pick;
  struct model_block *b;
  bool is_current, retires, ok = random_below (4) != 0;

  if (model.writeback_count == 0)
    return;
  model_take_token (&model.writeback[random_below (model.writeback_count)]);
  pick = model.writeback[random_below (model.writeback_count)];
  for (unsigned i = 0; i < model.writeback_count; i++)
    if (model.writeback[i].frame == pick.frame)
      model.writeback[i] = model.writeback[--model.writeback_count];
  b = &model.blocks[pick.disk][pick.block];
  is_current = b->dirty != 0 && b->version == pick.version;
  /* An orphan that was dropped is not written; one that was replaced may have been. */
  if (!is_current && (pick.successor == 0 || b->dirty == 0 || b->since > pick.version))
    ok = false;
  /* One batch at a time: while one holds the block's token, a later one has not begun. */
  for (unsigned i = 0; i < model.writeback_count; i++)
    if (model.writeback[i].took_token && model.writeback[i].disk == pick.disk
        && model.writeback[i].block == pick.block)
      ok = false;
  if (ok)
    model_take_token (&pick);
  if (pick.took_token && ok)
    model.reserved--;
  else if (pick.took_token) {
    assert_true (cache_give_token (model.cache, &model.disks[pick.disk], pick.block));
    b->token = b->unmapped = true;
  }
  retires = b->copy && b->copy_version <= pick.version;
  assert_int_equal (cache_has_copy (model.cache, pick.frame), retires);
  assert_false (cache_settle (model.cache, pick.frame, ok, &model.wake));
  if (ok && (is_current || !b->token))
    b->stored = content_check (pick.frame, model.disks[pick.disk].id, pick.block);
  if (ok && is_current) {
    model_block_clear (b);
  } else if (ok) {
    /* The heir stays due if the journal has a newer copy, which may not be durable yet. */
    if (retires)
      b->copy = false;
    if (!b->copy)
      model_advance (b, &pick);
    if (!b->token)
      b->unmapped = false;
  }
  cache_put (model.cache, pick.frame);
}

static void
model_committed (void)
{
  struct pick pick;
  struct model_block *b;
  bool ok = random_below (4) != 0;

  if (model.commit_count == 0)
    return;
  pick = model.commit[--model.commit_count];
  b = &model.blocks[pick.disk][pick.block];
  cache_committed (model.cache, pick.frame, ok);
  if (ok && b->dirty != 0 && b->version == pick.version)
    b->logged = true;
  else if (ok && pick.successor != 0)
    model_advance (b, &pick);
  cache_put (model.cache, pick.frame);
}

static void
model_collect_block (unsigned d, uint64_t block)
{
  struct model_block *b = &model.blocks[d][block];
  struct frame *frame;
  bool expected = b->dirty != 0 && !b->logged
                  && !is_picked (model.commit, model.commit_count, d, block, b->version);

  if (model.commit_count == PICKS_MAX)
    return;
  assert_int_equal (cache_collect_block (model.cache, &model.disks[d], block, ++model.epoch,
                                         &frame), expected);
  if (expected) {
    b->copy = true;
    b->copy_version = b->version;
    b->epoch = model.epoch;
    model.commit[model.commit_count++] = (struct pick) { frame, d, block, b->version, 0, false };
  }
}

static void
model_find_dirty (unsigned d, uint64_t block, uint64_t length)
{
  uint64_t first = block, end, run_block, run_length;
  uint64_t stop = MIN (block + length, MODEL_BLOCKS);

  while (first < stop && model.blocks[d][first].dirty == 0)
    first++;
  for (end = first; end < stop && model.blocks[d][end].dirty != 0;)
    end++;
  assert_int_equal (cache_find_dirty (model.cache, &model.disks[d], block, length, &run_block,
                                         &run_length), end > first);
  if (end > first)
    assert_true (run_block == first && run_length == end - first);
}

static void
model_counts (unsigned d)
{
  uint64_t fresh = 0, dirty = 0, copies = 0;

  for (uint64_t at = 0; at < MODEL_BLOCKS; at++) {
    const struct model_block *b = &model.blocks[d][at];

    fresh += b->dirty != 0 && !b->logged;
    dirty += b->dirty != 0;
    copies += b->dirty != 0 && b->copy;
  }
  assert_true (atomic_load (&model.disks[d].fresh_count) == fresh);
  assert_true (atomic_load (&model.disks[d].dirty_count) == dirty);
  assert_true (atomic_load (&model.disks[d].copy_count) == copies);
}

static void
model_step (void)
{
  unsigned d = (unsigned) random_below (MODEL_DISKS);
  /* Most of the work in few blocks, so that they meet. */
  uint64_t block = random_below (random_below (2) == 0 ? 20 : MODEL_BLOCKS);
  uint64_t length = 1 + random_below (random_below (2) == 0 ? 8 : MODEL_BLOCKS);

  switch (random_below (20)) {
  case 0 ... 4: model_read (d, block); break;
  case 5 ... 9: model_write (d, block); break;
  case 10: model_end_fill (d, block); break;
  case 11:
    if (random_below (4) == 0)
      model_drop (d, block, random_below (8) == 0 ? UINT64_MAX >> 12 : block + length - 1);
    break;
  case 12: model_collect (d, false); break;
  case 13: model_collect (d, true); break;
  case 14: model_collect_copies (d); break;
  case 15: case 16: model_settle (); break;
  case 17: model_committed (); break;
  case 18: model_collect_block (d, block); break;
  case 19:
    model_find_dirty (d, block, random_below (8) == 0 ? UINT64_MAX >> 13 : length);
    break;
  }
}

static void
model_run (void)
{
  memset (&model, 0, sizeof model);
  model.arena = arena_make (MODEL_FRAMES);
  model.cache = cache_create (model.arena);
  list_init (&model.wake);
  for (unsigned d = 0; d < MODEL_DISKS; d++)
    cache_disk_init (&model.disks[d], d + 1);
  for (unsigned step = 0; step < 60000; step++) {
    unsigned fills = 0;

    model_step ();
    assert_true (list_is_empty (&model.wake));
    for (unsigned d = 0; d < MODEL_DISKS; d++)
      for (uint64_t at = 0; at < MODEL_BLOCKS && step % 64 == 0; at++)
        if (model.blocks[d][at].filling != NULL && ++fills > 8)
          model_end_fill (d, at);
    if (step % 256 == 0) {
      cache_verify (model.cache);
      for (unsigned d = 0; d < MODEL_DISKS; d++)
        model_counts (d);
    }
  }
  while (model.writeback_count > 0)
    model_settle ();
  while (model.commit_count > 0)
    model_committed ();
  for (unsigned d = 0; d < MODEL_DISKS; d++) {
    model_drop (d, 0, UINT64_MAX >> 12);
    cache_disk_destroy (&model.disks[d]);
  }
  assert_true (model.reserved == 0 && cache_dirty_count (model.cache) == 0);
  cache_verify (model.cache);
  cache_destroy (model.cache, false);
  arena_free (model.arena);
}

static void
test_model (void **state)
{
  (void) state;
  for_each_seed (model_run);
}

/* --- admission, adoption --- */

static void
test_admission_order (void **state)
{
  struct arena *arena = arena_make (64);
  struct cache *cache = cache_create (arena);
  struct budget_ticket tickets[3];
  struct waiter waiters[3];
  struct list wake = LIST_INIT (wake);

  (void) state;
  for (unsigned i = 0; i < ARRAY_COUNT (waiters); i++)
    waiter_init (&waiters[i]);
  assert_true (cache_charge (cache, NULL, 30, NULL, NULL));
  assert_false (cache_charge (cache, NULL, 10, &waiters[0], &tickets[0]));
  assert_false (cache_charge (cache, NULL, 1, &waiters[1], &tickets[1]));
  assert_false (cache_charge (cache, NULL, 1, &waiters[2], &tickets[2]));
  assert_false (cache_try_charge (cache, NULL, 1));
  cache_uncharge (cache, NULL, 1, &wake);
  assert_true (list_is_empty (&wake));
  assert_true (cache_charge_cancel (cache, &tickets[0], &wake));
  assert_ptr_equal (list_take (&wake), &waiters[1].link);
  assert_ptr_equal (list_take (&wake), &waiters[2].link);
  assert_false (cache_charge_cancel (cache, &tickets[1], &wake));
  assert_true (cache_try_charge (cache, NULL, 1));
  assert_false (cache_try_charge (cache, NULL, 1));
  cache_uncharge (cache, NULL, 32, &wake);
  cache_destroy (cache, false);
  arena_free (arena);
}

/* Leaves a cache as a killed process would, with two headers for block 7, and takes it over. */
static void
test_adopt (void **state)
{
  struct arena *arena = arena_make (64);
  struct cache *cache = cache_create (arena);
  struct cache_disk disk;
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  struct frame *frame;

  (void) state;
  cache_disk_init (&disk, 5);
  cache_adopt (cache, &disk, 7, 3, 100);
  cache_adopt (cache, &disk, 8, 9, 101);
  cache_adopt (cache, &disk, 7, 60, 250);
  content_set (&cache->frames[60], 5, 7, 42);
  cache_verify (cache);
  assert_true (arena->frames[3].disk == 0 && arena->frames[60].disk == 5);
  assert_true (cache_version (cache) == 250 && cache_dirty_count (cache) == 2);
  frame = cache_get (cache, 5, 7);
  assert_true (frame == &cache->frames[60] && content_check (frame, 5, 7) == 42);
  cache_put (cache, frame);
  assert_true (cache_mark_copy (cache, &disk, 8, 1));
  assert_false (cache_mark_copy (cache, &disk, 9, 1));
  cache_mark_token (cache, &disk, 7);
  cache_verify (cache);
  cache_drop (cache, &disk, 0, 100, &dropped, &wake);
  assert_true (dropped.frames == 2 && dropped.tokens == 1 && dropped.copies == 1);
  cache_disk_destroy (&disk);
  cache_destroy (cache, false);
  arena_free (arena);
}

/* --- what is looked at without a lock --- */

/* One that another process can look into. */
static struct cache_disk *
sight_map_disk (void)
{
  struct cache_disk *disk = mmap (NULL, sizeof *disk, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  assert_true (disk != MAP_FAILED);
  cache_disk_init (disk, 1);
  return disk;
}

/* Block 7 is written, and goes into the journal. */
static void
sight_write (struct cache *cache, struct cache_disk *disk)
{
  struct list wake = LIST_INIT (wake);
  struct frame *fresh = cache_allocate (cache), *picked;
  struct budget_ticket ticket;
  struct waiter waiter;

  waiter_init (&waiter);
  CHECK (cache_charge_dirty (cache, 1, &waiter, &ticket));
  CHECK (cache_publish (cache, disk, 7, fresh, NULL, false, NULL, &wake));
  CHECK (cache_collect_block (cache, disk, 7, 1, &picked));
  cache_committed (cache, picked, true);
  cache_put (cache, picked);
  cache_put (cache, fresh);
}

static void
sight_write_traced (struct cache *cache, struct cache_disk *disk)
{
  if (ptrace (PTRACE_TRACEME, 0, NULL, NULL) != 0)
    _exit (1);
  raise (SIGSTOP);
  sight_write (cache, disk);
  _exit (0);
}

/* A block that is dirty, and in the journal, is written and committed once more.  After no
 * instruction of that does a disk look as if it had no such block. */
static void
test_sight (void **state)
{
  struct arena *arena = arena_make (64);
  struct cache *cache = cache_create (arena);
  struct cache_disk *disk = sight_map_disk ();
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  unsigned steps = 0;
  int status;
  pid_t child;

  (void) state;
  sight_write (cache, disk);
  child = fork ();
  assert_true (child >= 0);
  if (child == 0)
    sight_write_traced (cache, disk);
  while (assert_int_equal (waitpid (child, &status, 0), child), WIFSTOPPED (status)) {
    assert_int_equal (atomic_load (&disk->dirty_count), 1);
    assert_int_equal (atomic_load (&disk->copy_count), 1);
    assert_int_equal (ptrace (PTRACE_SINGLESTEP, child, NULL, NULL), 0);
    steps++;
  }
  assert_true (WIFEXITED (status));
  print_message ("%u instructions\n", steps);
  cache_drop (cache, disk, 0, 100, &dropped, &wake);
  cache_disk_destroy (disk);
  munmap (disk, sizeof *disk);
  cache_destroy (cache, false);
  arena_free (arena);
  if (WEXITSTATUS (status) != 0)
    skip ();
}

#define SCAN_FRAMES 4096
#define SCAN_LOOKS 20000

static struct {
  struct cache *cache;
  struct cache_disk disk;
  struct frame *held[SCAN_FRAMES];
  _Atomic bool is_over;
} scan;

/* Leaves two frames to be used, that are far from each other. */
static void
scan_hold_frames (void)
{
  for (unsigned i = 0; i < SCAN_FRAMES; i++) {
    struct frame *frame = cache_allocate (scan.cache);

    scan.held[frame_index (scan.cache, frame)] = frame;
  }
  cache_put (scan.cache, scan.held[0]);
  cache_put (scan.cache, scan.held[SCAN_FRAMES - 1]);
}

static void
scan_put_frames (void)
{
  for (unsigned i = 1; i < SCAN_FRAMES - 1; i++)
    cache_put (scan.cache, scan.held[i]);
}

static void *
scan_writer (void *arg)
{
  while (!atomic_load (&scan.is_over))
    sight_write (scan.cache, &scan.disk);
  return arg;
}

/* A dirty block is found in a range that is longer than the cache, whatever frame it goes to
 * meanwhile. */
static void
test_scan (void **state)
{
  struct arena *arena = arena_make (SCAN_FRAMES);
  struct cache_dropped dropped = { 0 };
  struct list wake = LIST_INIT (wake);
  unsigned missed = 0;
  pthread_t writer;

  (void) state;
  scan.cache = cache_create (arena);
  cache_disk_init (&scan.disk, 1);
  scan_hold_frames ();
  sight_write (scan.cache, &scan.disk);
  assert_int_equal (pthread_create (&writer, NULL, scan_writer, NULL), 0);
  for (unsigned i = 0; i < SCAN_LOOKS; i++) {
    uint64_t run, length;

    missed += !cache_find_dirty (scan.cache, &scan.disk, 0,
                                 2 * SCAN_FRAMES * REGION_BLOCKS_MAX, &run, &length);
  }
  atomic_store (&scan.is_over, true);
  assert_int_equal (pthread_join (writer, NULL), 0);
  assert_int_equal (missed, 0);
  cache_drop (scan.cache, &scan.disk, 0, 100, &dropped, &wake);
  scan_put_frames ();
  cache_disk_destroy (&scan.disk);
  cache_destroy (scan.cache, false);
  arena_free (arena);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_model),
    cmocka_unit_test (test_admission_order),
    cmocka_unit_test (test_adopt),
    cmocka_unit_test (test_sight),
    cmocka_unit_test (test_scan),
  };

  return cmocka_run_group_tests_name ("cache", tests, NULL, NULL);
}
