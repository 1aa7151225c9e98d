/* SPDX-License-Identifier: BSD-2-Clause */
/* table.c - the rows, as in the explorer's tables.c: tests/test-tables.sh compares their names. */
#include <stdio.h>

#include "pairs.h"

static const struct populator populators[] = {
  { "read", REQUEST (.kind = REQUEST_READ, .length = BLOCKS (1)), false },
  /* What follows is read ahead: nothing of the block itself is asked for. */
  { "read-ahead", { .what = ACT_READ_AHEAD, .offset = -512, .length = 512 }, false },
  { "cache", REQUEST (.kind = REQUEST_CACHE, .length = BLOCKS (1)), false },
  { "partial-write", REQUEST (.kind = REQUEST_WRITE, .offset = 512, .length = 512), false },
  { "write", REQUEST (.kind = REQUEST_WRITE, .length = BLOCKS (1)), false },
  { "write-back", { .what = ACT_WRITE_BACK }, true },
  { "status", REQUEST (.kind = REQUEST_BLOCK_STATUS, .length = BLOCKS (1)), false },
  { "clone-source", { .what = ACT_CLONE, .length = BLOCKS (1), .target = PARTNER }, false },
};

static const struct invalidator invalidators[] = {
  { "trim", REQUEST (.kind = REQUEST_TRIM, .offset = BLOCKS (1), .length = BLOCKS (1)), 1, false,
    false },
  { "zeroes", REQUEST (.kind = REQUEST_WRITE_ZEROES, .offset = BLOCKS (1), .length = BLOCKS (1)),
    1, false, false },
  { "zeroes-kept", REQUEST (.kind = REQUEST_WRITE_ZEROES, .flags = REQUEST_NO_HOLE,
                            .offset = BLOCKS (1), .length = BLOCKS (1)), 1, false, false },
  { "trim-edge", REQUEST (.kind = REQUEST_TRIM, .offset = BLOCKS (1), .length = BLOCKS (1) + 1024),
    1, false, false },
  { "zeroes-edge", REQUEST (.kind = REQUEST_WRITE_ZEROES, .offset = BLOCKS (1),
                            .length = BLOCKS (1) + 1024), 1, false, false },
  { "shrink", { .what = ACT_RESIZE, .offset = BLOCKS (2) }, 2, false, true },
  { "delete", { .what = ACT_DELETE }, 1, false, true },
  /* Two blocks, of which one is a hole. */
  { "failed-write", REQUEST (.kind = REQUEST_WRITE, .offset = BLOCKS (1), .length = BLOCKS (2)), 1,
    true, false },
  { "collapse", { .what = ACT_COLLAPSE, .offset = BLOCKS (1), .length = BLOCKS (1) }, 1, false,
    true },
  { "insert", { .what = ACT_INSERT, .offset = BLOCKS (1), .length = BLOCKS (1) }, 1, false, false },
  { "clone-target", { .what = ACT_CLONE, .disk = PARTNER, .length = BLOCKS (1), .target = SUBJECT,
                      .target_offset = BLOCKS (1) }, 1, false, false },
};

static const char *const place_names[] = { "same", "neighbour", "reuse" };

unsigned
pair_count (void)
{
  return ARRAY_COUNT (populators) * ARRAY_COUNT (invalidators) * PLACES;
}

void
pair_get (unsigned number, struct pair *pair)
{
  pair->place = number % PLACES;
  pair->invalidator = &invalidators[number / PLACES % ARRAY_COUNT (invalidators)];
  pair->populator = &populators[number / PLACES / ARRAY_COUNT (invalidators)];
  snprintf (pair->name, sizeof pair->name, "%s/%s/%s", pair->populator->name,
            pair->invalidator->name, place_names[pair->place]);
}

void
print_rows (void)
{
  for (unsigned p = 0; p < ARRAY_COUNT (populators); p++)
    printf ("populator %s\n", populators[p].name);
  for (unsigned i = 0; i < ARRAY_COUNT (invalidators); i++)
    printf ("invalidator %s\n", invalidators[i].name);
}

bool
pair_is_scarce (const struct pair *pair)
{
  return pair->place == PLACE_REUSE || pair->invalidator->is_without_space;
}

bool
pair_deletes (const struct pair *pair)
{
  return pair->invalidator->act.what == ACT_DELETE;
}

bool
pair_begins_empty (const struct pair *pair)
{
  return pair->place == PLACE_REUSE && pair->invalidator->is_without_space;
}

bool
pair_has_partner_data (const struct pair *pair)
{
  return pair->invalidator->act.disk == PARTNER;
}

uint64_t
pair_block (const struct pair *pair)
{
  return pair->place == PLACE_NEIGHBOUR ? 3 - pair->invalidator->block : pair->invalidator->block;
}
