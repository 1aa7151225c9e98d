/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-shared.c - makes the table of shared runs anew, from what the maps say.
 *
 * The table can be told from the maps, so that it is never lost as long as they are there; where
 * parts of them are left out by the same repair, their owners are gone.  The new tree lies where
 * nothing is in use, and counts when the superblock does.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "store/checker-internal.h"

#define KIND_SHARED_LEAF 0x4c726853
#define KIND_SHARED_INNER 0x49726853

void
checker_shared_count (struct checker *checker, uint64_t place, uint64_t length, uint64_t owners)
{
  struct checker_shared *last
    = checker->counted_count > 0 ? &checker->counted[checker->counted_count - 1] : NULL;

  if (last != NULL && last->place + last->length == place && last->owners == owners
      && last->length + length <= UINT32_MAX) {
    last->length += length;
    return;
  }
  checker->counted = checker_array_add (checker->counted, &checker->counted_count,
                                        &checker->counted_max, sizeof *checker->counted);
  checker->counted[checker->counted_count - 1] = (struct checker_shared) { place, length, owners };
}

/* The first place from *AT on where a node can be; false: there is none. */
static bool
next_free (const struct checker *checker, uint64_t *at)
{
  const struct checker_superblock *super = &checker->super;
  uint64_t half = super->meta_blocks / 2;

  for (;; ++*at) {
    if (*at % super->group_blocks >= half)
      *at += super->group_blocks - *at % super->group_blocks;
    if (*at + half >= checker->reader->length
        || (super->capacity != 0 && *at + half >= super->capacity))
      return false;
    if (*at >= 4 && !checker_set_has (&checker->nodes, *at))
      return true;
  }
}

/* What the nodes of one level have for the level above. */
struct child {
  uint64_t key;
  struct checker_pointer pointer;
};

/* One node of entries [first, first + count), both copies. */
static void
write_node (struct checker *checker, const struct child *below, unsigned level, size_t first,
            size_t count, uint64_t place, struct child *child)
{
  uint8_t image[CHECKER_BLOCK] = { 0 }, *at = image + CHECKER_NODE_HEADER;

  checker_put (image, level == 0 ? KIND_SHARED_LEAF : KIND_SHARED_INNER, 4);
  checker_put (image + 4, level, 2);
  checker_put (image + 6, count, 2);
  memcpy (image + 16, checker->super.uuid, 16);
  checker_put (image + 32, place, 8);
  checker_put (image + 40, checker->super.sequence, 8);
  for (size_t i = first; i < first + count; ++i)
    if (level == 0) {
      const struct checker_shared *run = &checker->counted[i];

      checker_put (at, run->place, 8);
      checker_put (at + 8, run->length << 32 | run->owners, 8);
      at += 16;
    } else {
      checker_put (at, below[i].key, 8);
      checker_put (at + 8, below[i].pointer.place, 8);
      checker_put (at + 16, below[i].pointer.checksum, 8);
      at += 24;
    }
  checker_seal (image);
  *child = (struct child) {
    level == 0 ? checker->counted[first].place : below[first].key,
    { place, checker_u64 (image + 8) },
  };
  checker_fix (checker, CHECKER_PHASE_COPIES, place, image);
  checker_fix (checker, CHECKER_PHASE_COPIES, place + checker->super.meta_blocks / 2, image);
}

/* All nodes, level by level, those of a level as full as each other.  False: no room. */
static bool
write_tree (struct checker *checker, struct checker_pointer *root)
{
  struct child *below = NULL, *now = NULL;
  uint64_t place = 0;
  size_t count = checker->counted_count;
  bool is_ok = true;

  for (unsigned level = 0; is_ok && (level == 0 || count > 1); ++level) {
    size_t max = level == 0 ? CHECKER_LEAF_MAX : CHECKER_INNER_MAX;
    size_t nodes = (count + max - 1) / max;

    now = calloc (nodes, sizeof *now);
    if (now == NULL) {
      fputs ("lacuna: not enough memory to plan the repair\n", stderr);
      exit (CHECKER_UNUSABLE);
    }
    for (size_t i = 0; i < nodes && is_ok; ++i) {
      size_t first = count * i / nodes, end = count * (i + 1) / nodes;

      is_ok = next_free (checker, &place);
      if (is_ok)
        write_node (checker, below, level, first, end - first, place++, &now[i]);
    }
    free (below);
    below = now;
    count = nodes;
  }
  *root = below[0].pointer;
  free (below);
  return is_ok;
}

void
checker_shared_fix (struct checker *checker)
{
  struct checker_pointer root = { 0, 0 };

  if (checker->plan == NULL || !(checker->is_shared_wrong || checker->has_damaged_shared))
    return;
  if (checker->counted_count > 0 && !write_tree (checker, &root)) {
    checker_find (checker, CHECKER_DAMAGE,
                  (struct checker_where) { "shared runs", CHECKER_NO_PLACE, NULL }, NULL,
                  "they cannot be counted anew: there is no room for nodes");
    return;
  }
  checker->super.shared = root;
  checker->needs_superblock = true;
  checker_fix_tell (checker, false,
                    "the table of shared runs: counted anew from the maps, %zu runs",
                    checker->counted_count);
}
