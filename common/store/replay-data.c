/* SPDX-License-Identifier: BSD-2-Clause */
/* replay-data.c - DATA of the journal, kept aside until all that could make it void is known.
 *
 * Blocks and what makes blocks void are noted in the order of the journal.  In the end the blocks
 * are sorted, of each the last one stays, and the voids are looked at from the last to the first:
 * the first one that comes to a block decides whether it stays, and those that come later pass over
 * it (`next').  So each costs a search, and each block is decided once.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "store/store-internal.h"

/* Room for one more; false: no memory. */
static bool
array_room (void **array, size_t count, size_t *max, size_t size)
{
  size_t more = MAX (256, 2 * *max);
  void *larger;

  if (count < *max)
    return true;
  larger = reallocarray (*array, more, size);
  if (larger == NULL)
    return false;
  *array = larger;
  *max = more;
  return true;
}

int
replay_data_keep (struct replay_data *data, uint64_t disk, uint64_t block, const uint8_t *bytes,
                  uint32_t epoch)
{
  if (!array_room ((void **) &data->blocks, data->count, &data->max, sizeof *data->blocks))
    return -ENOMEM;
  data->blocks[data->count++] = (struct replay_block) {
    .disk = disk, .block = block, .data = bytes, .epoch = epoch, .order = ++data->order,
  };
  return 0;
}

int
replay_data_void (struct replay_data *data, uint64_t disk, uint64_t first, uint64_t last)
{
  struct replay_void *before
    = data->void_count > 0 ? &data->voids[data->void_count - 1] : NULL;

  if (data->count == 0)
    return 0;
  if (before != NULL && before->order == data->order && before->disk == disk
      && before->last < UINT64_MAX && before->last + 1 == first) {
    before->last = last;
    return 0;
  }
  if (!array_room ((void **) &data->voids, data->void_count, &data->void_max,
                   sizeof *data->voids))
    return -ENOMEM;
  data->voids[data->void_count++]
    = (struct replay_void) { .disk = disk, .first = first, .last = last, .order = data->order };
  return 0;
}

/* --- the end --- */

static int
block_compare (const void *left, const void *right)
{
  const struct replay_block *a = left, *b = right;

  if (a->disk != b->disk)
    return a->disk < b->disk ? -1 : 1;
  if (a->block != b->block)
    return a->block < b->block ? -1 : 1;
  return a->order < b->order ? -1 : a->order > b->order;
}

/* Of each block the last one. */
static void
blocks_newest (struct replay_data *data)
{
  size_t kept = 0;

  for (size_t i = 0; i < data->count; i++) {
    const struct replay_block *block = &data->blocks[i];

    if (i + 1 < data->count && block[1].disk == block->disk && block[1].block == block->block)
      continue;
    data->blocks[kept++] = *block;
  }
  data->count = kept;
}

/* The first of all blocks that is not before BLOCK of DISK. */
static size_t
blocks_from (struct replay_data *data, uint64_t disk, uint64_t block)
{
  struct replay_block wanted = { .disk = disk, .block = block };
  size_t low = 0, high = data->count;

  while (low < high) {
    size_t middle = low + (high - low) / 2;

    data->steps++;
    if (block_compare (&data->blocks[middle], &wanted) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The first block from I on that is not decided. */
static size_t
next_undecided (struct replay_data *data, size_t *next, size_t i)
{
  while (next[i] != i) {
    data->steps++;
    next[i] = next[next[i]];
    i = next[i];
  }
  return i;
}

static void
decide (struct replay_data *data, size_t *next, const struct replay_void *what)
{
  for (size_t i = next_undecided (data, next, blocks_from (data, what->disk, what->first));
       i < data->count; i = next_undecided (data, next, i)) {
    struct replay_block *block = &data->blocks[i];

    if (block->disk != what->disk || block->block > what->last)
      return;
    block->is_void = block->order <= what->order;
    next[i] = i + 1;
  }
}

int
replay_data_settle (struct replay_data *data)
{
  size_t *next, kept = 0;

  if (data->count > 0)
    qsort (data->blocks, data->count, sizeof *data->blocks, block_compare);
  blocks_newest (data);
  next = malloc ((data->count + 1) * sizeof *next);
  if (next == NULL)
    return -ENOMEM;
  for (size_t i = 0; i <= data->count; i++)
    next[i] = i;
  while (data->void_count > 0)
    decide (data, next, &data->voids[--data->void_count]);
  free (next);
  for (size_t i = 0; i < data->count; i++)
    if (!data->blocks[i].is_void)
      data->blocks[kept++] = data->blocks[i];
  data->count = kept;
  return 0;
}

void
replay_data_free (struct replay_data *data)
{
  free (data->blocks);
  free (data->voids);
}
