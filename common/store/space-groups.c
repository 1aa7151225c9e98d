/* SPDX-License-Identifier: BSD-2-Clause */
/* space-groups.c - bitmaps of single groups; see space-groups.h.
 *
 * A group has bitmaps only while it is neither all free nor all in use, or while the host holds some
 * of what is free in it, and not all.  The lengths of its longest runs are kept as upper bounds:
 * freeing raises them to the most, a search in vain makes them exact, so that each state of a group
 * is searched in vain at most once.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/space-groups.h"

/* --- bits --- */

static bool
bit_get (const uint64_t *words, uint32_t i)
{
  return words[i / 64] >> (i % 64) & 1;
}

/* Sets or clears the bits of [start, start + length). */
static void
bits_set (uint64_t *words, uint32_t start, uint32_t length, bool value)
{
  uint32_t part;
  uint64_t mask;

  for (; length > 0; start += part, length -= part) {
    part = MIN (length, 64 - start % 64);
    mask = (part == 64 ? UINT64_MAX : (UINT64_C (1) << part) - 1) << (start % 64);
    if (value)
      words[start / 64] |= mask;
    else
      words[start / 64] &= ~mask;
  }
}

/* The first bit of VALUE in [start, end), END if there is none. */
static uint32_t
bits_next (const uint64_t *words, uint32_t start, uint32_t end, bool value)
{
  uint64_t flip = value ? 0 : UINT64_MAX, word;
  uint32_t i = start / 64;

  if (start >= end)
    return end;
  word = (words[i] ^ flip) & (UINT64_MAX << (start % 64));
  while (word == 0) {
    if (++i * 64 >= end)
      return end;
    word = words[i] ^ flip;
  }
  return MIN (end, i * 64 + (uint32_t) __builtin_ctzll (word));
}

static uint32_t
bits_count (const uint64_t *words, uint32_t start, uint32_t end)
{
  uint32_t count = 0, at, to;

  for (at = bits_next (words, start, end, true); at < end; at = bits_next (words, to, end, true)) {
    to = bits_next (words, at, end, false);
    count += to - at;
  }
  return count;
}

/* The first run of WANTED bits of VALUE that begins in [start, limit) and ends by END; END if
 * there is none.  Raises *LONGEST to that of the runs it saw. */
static uint32_t
bits_find_run (const uint64_t *words, uint32_t start, uint32_t limit, uint32_t end, bool value,
               uint32_t wanted, uint32_t *longest)
{
  uint32_t at, to;

  for (at = bits_next (words, start, end, value); at < limit;
       at = bits_next (words, to, end, value)) {
    to = bits_next (words, at, MIN (end, at + wanted), ! value);
    if (to - at == wanted)
      return at;
    *longest = MAX (*longest, to - at);
  }
  return end;
}

/* --- where data is --- */

uint32_t
group_data_first (const struct space *space, uint64_t number)
{
  const struct space_geometry *geometry = &space->geometry;

  return number == 0 ? MAX (geometry->meta_blocks, geometry->first_data) : geometry->meta_blocks;
}

uint32_t
group_data_end (const struct space *space, uint64_t number)
{
  const struct space_geometry *geometry = &space->geometry;

  return MIN (geometry->group_blocks, geometry->capacity - number * geometry->group_blocks);
}

static uint32_t
group_data (const struct space *space, uint64_t number)
{
  return group_data_end (space, number) - group_data_first (space, number);
}

bool
run_is_data (const struct space *space, uint64_t place, uint64_t length)
{
  uint64_t number = place_group (space, place);
  uint32_t start = place_in_group (space, place);

  return length > 0 && number < space->group_count && start >= group_data_first (space, number)
         && start < group_data_end (space, number)
         && length <= group_data_end (space, number) - start;
}

/* --- knowing, opening, closing --- */

bool
group_know (struct space *space, uint64_t number)
{
  struct group *groups;
  uint64_t room;

  CHECK (number < space->group_count);
  if (number >= space->groups_room) {
    room = MIN (MAX (number + 1, 2 * space->groups_room), space->group_count);
    groups = realloc (space->groups, room * sizeof *groups);
    if (groups == NULL)
      return false;
    space->groups = groups;
    space->groups_room = room;
  }
  for (; space->groups_known <= number; space->groups_known++) {
    struct group *group = &space->groups[space->groups_known];

    memset (group, 0, sizeof *group);
    group->free = group->longest = group_data (space, space->groups_known);
    group->next = group_data_first (space, space->groups_known);
    space->run_bound = MAX (space->run_bound, group->longest);
  }
  return true;
}

static uint64_t *
bitmap_create (const struct space *space)
{
  return calloc (divide_up (space->geometry.group_blocks, 64), sizeof (uint64_t));
}

/* Of an open group: all of it, or nothing any more where there is no memory for a bitmap: then the
 * host keeps the space until the blocks are used again, and no harm is done. */
static void
group_open_held (struct space *space, struct group *group, uint32_t first, uint32_t end)
{
  if (group->held_count == 0)
    return;
  group->held = bitmap_create (space);
  if (group->held) {
    bits_set (group->held, first, end - first, true);
    return;
  }
  space->counts.undiscarded -= group->held_count;
  group->held_count = group->held_longest = 0;
}

bool
group_open (struct space *space, uint64_t number)
{
  struct group *group = &space->groups[number];
  uint32_t first = group_data_first (space, number), end = group_data_end (space, number);

  if (group->busy)
    return true;
  group->busy = bitmap_create (space);
  if (group->busy == NULL)
    return false;
  bits_set (group->busy, 0, space->geometry.group_blocks, true);
  if (group->free > 0) {
    CHECK (group->free == end - first);
    bits_set (group->busy, first, end - first, false);
    space->opened_free += group->free;
    group_open_held (space, group, first, end);
  }
  return true;
}

void
group_close (struct space *space, uint64_t number)
{
  struct group *group = &space->groups[number];
  bool is_mixed = group->free > 0 && group->free < group_data (space, number);

  if (group->held && group->held_count == 0) {
    free (group->held);
    group->held = NULL;
  }
  if (group->busy == NULL || is_mixed || (group->held && group->held_count < group->free))
    return;
  /* Reserved blocks must be allocatable without memory. */
  if (group->free > 0 && space->opened_free - group->free < space->counts.reserved)
    return;
  if (group->free > 0) {
    group->next = group_data_first (space, number);
    space->open_hint = MIN (space->open_hint, number);
  }
  space->opened_free -= group->free;
  free (group->busy);
  free (group->held);
  group->busy = group->held = NULL;
}

/* --- looking --- */

bool
group_is_free (const struct space *space, uint64_t number, uint32_t start, uint32_t length)
{
  const struct group *group = &space->groups[number];

  if (group->busy == NULL)
    return group->free > 0;
  return bits_next (group->busy, start, start + length, true) == start + length;
}

bool
group_is_busy (const struct space *space, uint64_t number, uint32_t start, uint32_t length)
{
  const struct group *group = &space->groups[number];

  if (group->busy == NULL)
    return group->free == 0;
  return bits_next (group->busy, start, start + length, false) == start + length;
}

uint32_t
group_free_at (const struct space *space, uint64_t number, uint32_t start, uint32_t max)
{
  const struct group *group = &space->groups[number];
  uint32_t end = MIN (group_data_end (space, number), start + max);

  if (group->busy == NULL)
    return group->free > 0 ? end - start : 0;
  return bits_next (group->busy, start, end, true) - start;
}

uint32_t
group_busy_at (const struct space *space, uint64_t number, uint32_t start, uint32_t max)
{
  const struct group *group = &space->groups[number];
  uint32_t end = MIN (group_data_end (space, number), start + max);

  if (group->busy == NULL)
    return group->free > 0 ? 0 : end - start;
  return bits_next (group->busy, start, end, false) - start;
}

uint32_t
group_held_at (const struct space *space, uint64_t number, uint32_t start, uint32_t max)
{
  const struct group *group = &space->groups[number];
  uint32_t end = MIN (group_data_end (space, number), start + max);

  if (group->busy == NULL)
    return group->held_count > 0 ? end - start : 0;
  return group->held ? bits_next (group->held, start, end, false) - start : 0;
}

/* As group_find, in one of the two bitmaps.  *LONGEST: the bound for it. */
static bool
group_find_in (const struct space *space, uint64_t number, const uint64_t *words, bool value,
               uint32_t wanted, uint32_t *longest, uint32_t *start)
{
  uint32_t first = group_data_first (space, number), end = group_data_end (space, number);
  uint32_t next = space->groups[number].next, seen = 0;

  if (*longest < wanted || words == NULL)
    return false;
  *start = bits_find_run (words, next, end, end, value, wanted, &seen);
  if (*start == end)
    *start = bits_find_run (words, first, next, end, value, wanted, &seen);
  if (*start == end)
    *longest = seen;
  return *start < end;
}

bool
group_find (struct space *space, uint64_t number, uint32_t wanted, bool is_held, uint32_t *start)
{
  struct group *group = &space->groups[number];

  CHECK (group->busy && wanted > 0);
  if (group_find_in (space, number, group->held, true, wanted, &group->held_longest, start))
    return true;
  return ! is_held
         && group_find_in (space, number, group->busy, false, wanted, &group->longest, start);
}

/* --- changing --- */

static void
group_unhold (struct space *space, struct group *group, uint32_t start, uint32_t length)
{
  uint32_t count;

  if (group->held == NULL)
    return;
  count = bits_count (group->held, start, start + length);
  bits_set (group->held, start, length, false);
  group->held_count -= count;
  group->held_longest = MIN (group->held_longest, group->held_count);
  space->counts.undiscarded -= count;
}

void
group_take (struct space *space, uint64_t number, uint32_t start, uint32_t length)
{
  struct group *group = &space->groups[number];

  CHECK (group->busy && length <= group->free);
  CHECK_SLOW (group_is_free (space, number, start, length));
  bits_set (group->busy, start, length, true);
  group_unhold (space, group, start, length);
  group->free -= length;
  space->opened_free -= length;
  space->counts.free -= length;
  group_close (space, number);
}

void
group_hold (struct space *space, uint64_t number, uint32_t start, uint32_t end)
{
  struct group *group = &space->groups[number];
  uint32_t at, to, held;

  CHECK (group->busy);
  if (group->held == NULL)
    group->held = bitmap_create (space);
  /* Without memory the host keeps the space until the blocks are used again: no harm is done. */
  if (group->held == NULL)
    return;
  for (at = bits_next (group->busy, start, end, false); at < end;
       at = bits_next (group->busy, to, end, false)) {
    to = bits_next (group->busy, at, end, true);
    held = to - at - bits_count (group->held, at, to);
    bits_set (group->held, at, to - at, true);
    group->held_count += held;
    space->counts.undiscarded += held;
  }
  group->held_longest = group->held_count;
  space->discard_bound = UINT64_MAX;
}

void
group_hold_all (struct space *space, uint64_t number)
{
  struct group *group = &space->groups[number];

  CHECK (group->busy == NULL && group->free == group_data (space, number));
  space->counts.undiscarded += group->free - group->held_count;
  group->held_count = group->held_longest = group->free;
  space->discard_bound = UINT64_MAX;
}

bool
group_put (struct space *space, uint64_t number, uint32_t start, uint32_t length, bool held)
{
  struct group *group = &space->groups[number];

  if (! group_open (space, number))
    return false;
  CHECK_SLOW (group_is_busy (space, number, start, length));
  bits_set (group->busy, start, length, false);
  group->free += length;
  group->longest = group->free;
  space->opened_free += length;
  space->counts.free += length;
  space->run_bound = UINT64_MAX;
  if (held)
    group_hold (space, number, start, start + length);
  group_close (space, number);
  return true;
}

/* --- tests --- */

void
group_verify (const struct space *space, uint64_t number)
{
  const struct group *group = &space->groups[number];
  uint32_t first = group_data_first (space, number), end = group_data_end (space, number), at, to;

  if (group->busy == NULL) {
    CHECK (group->held == NULL && (group->held_count == 0 || group->held_count == group->free));
    CHECK (group->free == 0 || group->free == end - first);
    CHECK (group->free == 0 || group->longest == group->free);
    return;
  }
  CHECK (group->held_count == (group->held ? bits_count (group->held, first, end) : 0));
  CHECK (group->free == end - first - bits_count (group->busy, first, end));
  CHECK (bits_next (group->busy, 0, first, false) == first);
  CHECK (bits_next (group->busy, end, space->geometry.group_blocks, false)
         == space->geometry.group_blocks);
  for (at = bits_next (group->busy, first, end, false); at < end;
       at = bits_next (group->busy, to, end, false)) {
    to = bits_next (group->busy, at, end, true);
    CHECK (to - at <= group->longest && to - at <= space->run_bound);
  }
  for (uint32_t i = first; group->held && i < end; i++)
    CHECK (! bit_get (group->held, i) || ! bit_get (group->busy, i));
}
