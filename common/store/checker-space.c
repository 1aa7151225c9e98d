/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-space.c - where data may lie, and that each block has the owners it should have. */
#include <inttypes.h>
#include <stdlib.h>

#include "store/checker-internal.h"

/* Data never lies below. */
static uint64_t
first_data (const struct checker *checker)
{
  return checker->super.journal_place + 2 * checker->super.journal_half_blocks;
}

const char *
checker_run_fault (struct checker *checker, uint64_t place, uint64_t length, bool is_written)
{
  const struct checker_superblock *super = &checker->super;
  uint64_t in_group = place % super->group_blocks;

  if (place >= CHECKER_PLACE_END || length > CHECKER_PLACE_END - place)
    return "it lies beyond all stores";
  if (super->capacity != 0 && place + length > super->capacity)
    return "it lies beyond the capacity";
  if (in_group < super->meta_blocks)
    return "it lies in the meta area of a group";
  if (place < first_data (checker))
    return "it lies in the journal";
  if (length > super->group_blocks - in_group)
    return "it reaches into the meta area of the next group";
  if (is_written && place + length > checker->reader->length)
    return "it lies beyond the end of the store: the store is truncated";
  return NULL;
}

void
checker_run_add (struct checker *checker, uint64_t place, uint64_t block, uint64_t length,
                 const struct checker_disk *disk, const struct checker_change *change)
{
  checker->runs = checker_array_add (checker->runs, &checker->run_count, &checker->run_max,
                                     sizeof *checker->runs);
  checker->runs[checker->run_count - 1] = (struct checker_run) {
    .place = place,
    .block = block,
    .length = length,
    .disk = disk - checker->disks,
    .origin = change != NULL ? change->origin : CHECKER_BY_TREE,
    .order = change != NULL ? change->order : 0,
  };
}

uint64_t
checker_data_blocks (const struct checker *checker)
{
  const struct checker_superblock *super = &checker->super;
  uint64_t whole = super->capacity / super->group_blocks;
  uint64_t rest = super->capacity % super->group_blocks, blocks;

  if (super->capacity == 0)
    return UINT64_MAX;
  blocks = whole * (super->group_blocks - super->meta_blocks);
  if (rest > super->meta_blocks)
    blocks += rest - super->meta_blocks;
  return blocks - (first_data (checker) - super->meta_blocks);
}

/* --- owners --- */

/* Goes over the runs by place.  `active` holds those that cover the place it is at: a heap by
 * end. */
struct sweep {
  struct checker *checker;
  bool is_replayed;
  uint32_t *active;
  size_t count, max;
  size_t shared;                   /* the first run of the table that ends behind the place */
  bool may_lack;                   /* not all owners are known */
};

static uint64_t
run_end (const struct sweep *sweep, size_t i)
{
  const struct checker_run *run = &sweep->checker->runs[sweep->active[i]];

  return run->place + run->length;
}

static void
sweep_swap (struct sweep *sweep, size_t a, size_t b)
{
  uint32_t run = sweep->active[a];

  sweep->active[a] = sweep->active[b];
  sweep->active[b] = run;
}

static void
sweep_push (struct sweep *sweep, uint32_t run)
{
  size_t i;

  sweep->active
    = checker_array_add (sweep->active, &sweep->count, &sweep->max, sizeof *sweep->active);
  i = sweep->count - 1;
  sweep->active[i] = run;
  for (; i > 0 && run_end (sweep, i) < run_end (sweep, (i - 1) / 2); i = (i - 1) / 2)
    sweep_swap (sweep, i, (i - 1) / 2);
}

static void
sweep_pop (struct sweep *sweep)
{
  size_t i = 0;

  sweep->active[0] = sweep->active[--sweep->count];
  for (;;) {
    size_t least = i;

    for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < sweep->count; ++child)
      if (run_end (sweep, child) < run_end (sweep, least))
        least = child;
    if (least == i)
      return;
    sweep_swap (sweep, i, least);
    i = least;
  }
}

/* Two owners of blocks that the table does not have. */
static void
report_overlap (struct sweep *sweep, uint64_t from, uint64_t to)
{
  struct checker *checker = sweep->checker;
  const struct checker_run *a = &checker->runs[sweep->active[0]];
  const struct checker_run *b = &checker->runs[sweep->active[1]];
  struct checker_where where = { "data", from, &checker->disks[a->disk] };

  checker_find (checker, CHECKER_DAMAGE, where, "a write to one of them changes the other",
                "%" PRIu64 " blocks belong to its block %" PRIu64 " and to block %" PRIu64
                " of disk %" PRIu64 " '%s'%s%s",
                to - from, a->block + (from - a->place), b->block + (from - b->place),
                checker->disks[b->disk].id, checker->disks[b->disk].name,
                sweep->count > 2 ? ", and more" : "",
                sweep->is_replayed ? ", after the replay" : "");
}

/* [from, to) is or is not in one run of the table (SHARED NULL). */
static void
judge_piece (struct sweep *sweep, uint64_t from, uint64_t to, const struct checker_shared *shared)
{
  struct checker_where where = { "shared run", from, NULL };

  sweep->checker->is_shared_wrong |= shared != NULL ? sweep->count != shared->owners
                                                    : sweep->count > 1;
  if (sweep->count > 1 && sweep->checker->is_planning)
    checker_shared_count (sweep->checker, from, to - from, sweep->count);
  if (shared == NULL) {
    if (sweep->count > 1 && !sweep->checker->has_damaged_shared)
      report_overlap (sweep, from, to);
  } else if (sweep->count > shared->owners)
    checker_find (sweep->checker, CHECKER_DAMAGE, where,
                  "the blocks are freed while they are in use",
                  "%" PRIu64 " blocks have %zu owners, not %" PRIu64, to - from, sweep->count,
                  shared->owners);
  else if (sweep->count < shared->owners && !sweep->may_lack)
    checker_find (sweep->checker, CHECKER_REPAIRABLE, where,
                  "this is corrected when the store is opened for writing",
                  "%" PRIu64 " blocks have %zu owners, not %" PRIu64, to - from, sweep->count,
                  shared->owners);
}

/* After the replay the table is behind.  More owners than it says come of cloning alone; and a
 * place that an item MAP gave away had none left, so who has it too has it by a clone since. */
static void
judge_replayed (struct sweep *sweep, uint64_t from, uint64_t to,
                const struct checker_shared *shared)
{
  const struct checker_run *mapped = NULL;
  size_t in_trees = 0;
  bool is_wrong = false;

  if (sweep->count < 2 || sweep->checker->has_damaged_shared)
    return;
  for (size_t i = 0; i < sweep->count; ++i) {
    const struct checker_run *run = &sweep->checker->runs[sweep->active[i]];

    in_trees += run->origin == CHECKER_BY_TREE;
    if (run->origin != CHECKER_BY_MAP)
      continue;
    is_wrong |= mapped != NULL;
    mapped = run;
  }
  for (size_t i = 0; i < sweep->count && mapped != NULL; ++i)
    is_wrong |= sweep->checker->runs[sweep->active[i]].order < mapped->order;
  if (is_wrong || in_trees > (shared != NULL ? shared->owners : 1))
    report_overlap (sweep, from, to);
}

/* Invariant 9 for [from, to), which has the owners in `active`. */
static void
judge_segment (struct sweep *sweep, uint64_t from, uint64_t to)
{
  const struct checker *checker = sweep->checker;

  if (sweep->count > 0)
    sweep->checker->owned += to - from;
  while (from < to) {
    const struct checker_shared *shared = NULL;
    uint64_t end = to;

    while (sweep->shared < checker->shared_count
           && checker->shared[sweep->shared].place + checker->shared[sweep->shared].length <= from)
      ++sweep->shared;
    if (sweep->shared < checker->shared_count) {
      const struct checker_shared *next = &checker->shared[sweep->shared];
      uint64_t border = next->place > from ? next->place : next->place + next->length;

      if (next->place <= from)
        shared = next;
      if (border < end)
        end = border;
    }
    if (sweep->is_replayed)
      judge_replayed (sweep, from, end, shared);
    else
      judge_piece (sweep, from, end, shared);
    from = end;
  }
}

static int
run_compare (const void *a, const void *b)
{
  const struct checker_run *x = a, *y = b;

  return x->place < y->place ? -1 : x->place > y->place;
}

void
checker_owners (struct checker *checker, bool is_replayed)
{
  struct sweep sweep = {
    .checker = checker,
    .is_replayed = is_replayed,
    .may_lack = checker->has_damaged_catalogue,
  };
  uint64_t at = 0;

  for (size_t i = 0; i < checker->disk_count; ++i)
    sweep.may_lack |= checker->disks[i].has_damaged_map;
  checker->owned = 0;
  if (checker->run_count > 0)
    qsort (checker->runs, checker->run_count, sizeof *checker->runs, run_compare);
  for (size_t i = 0; i < checker->run_count || sweep.count > 0;) {
    uint64_t next = i < checker->run_count ? checker->runs[i].place : UINT64_MAX;

    if (sweep.count > 0 && run_end (&sweep, 0) < next)
      next = run_end (&sweep, 0);
    judge_segment (&sweep, at, next);
    at = next;
    while (sweep.count > 0 && run_end (&sweep, 0) <= at)
      sweep_pop (&sweep);
    for (; i < checker->run_count && checker->runs[i].place == at; ++i)
      sweep_push (&sweep, i);
  }
  judge_segment (&sweep, at, CHECKER_PLACE_END);
  free (sweep.active);
  checker->run_count = 0;
}
