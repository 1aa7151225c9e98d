/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-tree.c - nodes with their two copies, and trees of any kind (lacuna-format(5), NODES). */
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store/checker-internal.h"

#define CHECKSUM_AT 8

/* --- the set of places --- */

void
checker_set_clear (struct checker_set *set)
{
  free (set->slots);
  *set = (struct checker_set) { 0 };
}

/* Where PLACE is, or where it would go. */
static size_t
set_slot (const struct checker_set *set, uint64_t place)
{
  size_t slot = XXH3_64bits (&place, sizeof place) & (set->max - 1);

  while (set->slots[slot] != 0 && set->slots[slot] != place)
    slot = (slot + 1) & (set->max - 1);
  return slot;
}

static void
set_grow (struct checker_set *set)
{
  struct checker_set larger = { .max = set->max == 0 ? 256 : 2 * set->max };

  larger.slots = calloc (larger.max, sizeof larger.slots[0]);
  if (larger.slots == NULL) {
    fputs ("lacuna: not enough memory to check the store\n", stderr);
    exit (CHECKER_UNUSABLE);
  }
  for (size_t i = 0; i < set->max; ++i)
    if (set->slots[i] != 0)
      larger.slots[set_slot (&larger, set->slots[i])] = set->slots[i];
  larger.count = set->count;
  free (set->slots);
  *set = larger;
}

bool
checker_set_has (const struct checker_set *set, uint64_t place)
{
  return set->count > 0 && set->slots[set_slot (set, place)] == place;
}

/* False: it was in the set. */
static bool
set_add (struct checker_set *set, uint64_t place)
{
  size_t slot;

  if (2 * (set->count + 1) > set->max)
    set_grow (set);
  slot = set_slot (set, place);
  if (set->slots[slot] == place)
    return false;
  set->slots[slot] = place;
  ++set->count;
  return true;
}

/* --- nodes --- */

/* Invariant 3, but for a place that is named twice. */
static const char *
place_fault (const struct checker *checker, uint64_t place)
{
  const struct checker_superblock *super = &checker->super;
  uint64_t mirror;

  if (place >= CHECKER_PLACE_END)
    return "the place of the node is beyond all stores";
  if (place % super->group_blocks >= super->meta_blocks / 2)
    return "the place of the node is not one for nodes";
  if (place < 4)
    return "the place of the node is a superblock's";
  mirror = place + super->meta_blocks / 2;
  if (super->capacity != 0 && mirror >= super->capacity)
    return "the place of the node is beyond the capacity";
  if (place >= checker->reader->length)
    return "the place of the node is beyond the end of the store: the store is truncated";
  return NULL;
}

struct node_expected {
  uint32_t kind, other_kind;       /* the same if there is only one */
  uint64_t owner;
  uint64_t place;
  const uint64_t *checksum;
};

/* Reads one copy; NULL, or why it is invalid. */
static const char *
copy_fault (struct checker *checker, uint64_t from, const struct node_expected *expected,
            uint8_t *image)
{
  uint32_t kind;
  int error;

  if (from >= checker->reader->length)
    return "is beyond the end of the store";
  error = checker_read (checker, from, image);
  if (error != 0)
    return strerror (-error);
  if (checker_is_zero (image, CHECKER_BLOCK))
    return "is all zeros";
  kind = checker_u32 (image);
  if (checker_checksum (image, CHECKSUM_AT, 8, 0) != checker_u64 (image + CHECKSUM_AT))
    return "the checksum is wrong";
  if (kind != expected->kind && kind != expected->other_kind)
    return "is of another kind";
  if (memcmp (image + 16, checker->super.uuid, 16) != 0)
    return "belongs to another store";
  if (checker_u64 (image + 32) != expected->place)
    return "belongs to another place";
  if (expected->checksum != NULL && checker_u64 (image + CHECKSUM_AT) != *expected->checksum)
    return "is not the node that the pointer means (an old one: a write was lost)";
  if (checker_u64 (image + 48) != expected->owner)
    return "belongs to another disk";
  return NULL;
}

/* Both copies; the valid one, or the newer one, into IMAGE. */
static bool
copies_load (struct checker *checker, struct checker_where where,
             const struct node_expected *expected, const char *consequence, uint8_t *image)
{
  uint8_t second[CHECKER_BLOCK];
  uint64_t mirror = expected->place + checker->super.meta_blocks / 2;
  const char *fault[2] = { copy_fault (checker, expected->place, expected, image),
                           copy_fault (checker, mirror, expected, second) };

  if (fault[0] != NULL && fault[1] != NULL) {
    checker_find (checker, CHECKER_DAMAGE, where, consequence,
                  "both copies are invalid: first %s; second, at place %" PRIu64 ", %s", fault[0],
                  mirror, fault[1]);
    return false;
  }
  if (fault[0] != NULL)
    checker_find (checker, CHECKER_REPAIRABLE, where, "the second copy is valid",
                  "the first copy %s", fault[0]);
  else if (fault[1] != NULL)
    checker_find (checker, CHECKER_REPAIRABLE, where, "the first copy is valid",
                  "the second copy, at place %" PRIu64 ", %s", mirror, fault[1]);
  else if (memcmp (image, second, CHECKER_BLOCK) != 0)
    checker_find (checker, CHECKER_REPAIRABLE, where, "the newer one counts",
                  "the copies differ: a write was lost");
  else
    return true;
  if (fault[0] != NULL
      || (fault[1] == NULL && checker_u64 (second + 40) > checker_u64 (image + 40))) {
    memcpy (image, second, CHECKER_BLOCK);
    mirror = expected->place;
  }
  checker_fix (checker, CHECKER_PHASE_COPIES, mirror, image);
  checker_fix_tell (checker, false, "%s at place %" PRIu64 ": copied from its other copy",
                    where.structure, mirror);
  return true;
}

/* Invariants 3 and 4, but for level and count. */
static bool
node_load (struct checker *checker, struct checker_where where,
           const struct node_expected *expected, const char *consequence, uint8_t *image)
{
  const char *fault = place_fault (checker, expected->place);

  if (fault == NULL && !set_add (&checker->nodes, expected->place))
    fault = "the place of the node is named twice";
  if (fault != NULL) {
    checker_find (checker, CHECKER_DAMAGE, where, consequence, "%s", fault);
    return false;
  }
  if (!copies_load (checker, where, expected, consequence, image))
    return false;
  ++checker->node_count;
  if (checker_u64 (image + 40) > checker->super.sequence)
    checker_find (checker, CHECKER_DAMAGE, where, "the store was copied while it was in use",
                  "is of superblock %" PRIu64 ", newer than the newest, %" PRIu64,
                  checker_u64 (image + 40), checker->super.sequence);
  return true;
}

bool
checker_node_load (struct checker *checker, struct checker_where where, uint32_t kind,
                   uint64_t owner, const uint64_t *checksum, const char *consequence,
                   uint8_t *image)
{
  struct node_expected expected = { kind, kind, owner, where.place, checksum };

  return node_load (checker, where, &expected, consequence, image);
}

bool
checker_node_reload (struct checker *checker, uint32_t kind, uint64_t owner, uint64_t place,
                     uint8_t *image)
{
  struct node_expected expected = { kind, kind, owner, place, NULL };

  return copy_fault (checker, place, &expected, image) == NULL
         || copy_fault (checker, place + checker->super.meta_blocks / 2, &expected, image) == NULL;
}

/* --- trees --- */

/* What a walk knows of a node before it is read. */
struct branch {
  struct checker_pointer pointer;
  uint64_t low, high;              /* its keys, both included */
  unsigned level_max;              /* the root's: the most; else exactly this */
  bool is_root;
};

static uint64_t
entry_key (const struct checker_tree *tree, const uint8_t *at)
{
  return checker_u64 (at) >> tree->key_shift << tree->key_shift;
}

/* Level, count and order (invariants 4 and 5) of a node whose copies are valid. */
static const char *
node_fault (const struct checker_tree *tree, const struct branch *branch, const uint8_t *image)
{
  bool is_leaf = checker_u32 (image) == tree->leaf_kind;
  unsigned level = checker_u16 (image + 4), count = checker_u16 (image + 6);
  unsigned size = is_leaf ? 16 : 24;
  uint64_t before = 0;

  if (is_leaf != (level == 0))
    return "kind and level do not agree";
  if (branch->is_root ? level > branch->level_max : level != branch->level_max)
    return "has a wrong level";
  if (count == 0)
    return "has no entries";
  if (count > (is_leaf ? CHECKER_LEAF_MAX : CHECKER_INNER_MAX))
    return "has more entries than it can hold";
  for (unsigned i = 0; i < count; ++i) {
    const uint8_t *at = image + CHECKER_NODE_HEADER + i * size;
    uint64_t key = entry_key (tree, at);

    if (!is_leaf && key != checker_u64 (at))
      return "its keys have bits set that must be clear";
    if (i > 0 && key <= before)
      return "its keys do not ascend";
    if (key < branch->low || key > branch->high)
      return "its keys are outside the range that its parent gives";
    before = key;
  }
  return NULL;
}

static struct checker_pointer branch_walk (struct checker *checker,
                                           const struct checker_tree *tree,
                                           const struct branch *branch);

/* Walks the children.  Those that cannot be read are left out of IMAGE, and others get the
 * checksums that they are going to have: the pointer to what it becomes, if a repair is planned. */
static struct checker_pointer
children_walk (struct checker *checker, const struct checker_tree *tree,
               const struct branch *branch, uint8_t *image)
{
  unsigned count = checker_u16 (image + 6), kept = 0, level = checker_u16 (image + 4);
  uint8_t old[CHECKER_BLOCK];
  bool is_changed = false;

  memcpy (old, image, sizeof old);
  for (unsigned i = 0; i < count; ++i) {
    const uint8_t *at = old + CHECKER_NODE_HEADER + i * 24;
    uint8_t *to = image + CHECKER_NODE_HEADER + kept * 24;
    struct checker_pointer now;
    struct branch child = {
      .pointer = { checker_u64 (at + 8), checker_u64 (at + 16) },
      .low = entry_key (tree, at),
      .high = i + 1 == count ? branch->high : entry_key (tree, at + 24) - 1,
      .level_max = level - 1U,
    };

    now = branch_walk (checker, tree, &child);
    is_changed |= now.place == 0 || now.checksum != child.pointer.checksum;
    if (now.place == 0)
      continue;
    memcpy (to, at, 24);
    checker_put (to + 16, now.checksum, 8);
    kept++;
  }
  if (!is_changed)
    return branch->pointer;
  if (kept == 0)
    return (struct checker_pointer) { 0, 0 };
  memset (image + CHECKER_NODE_HEADER + kept * 24, 0, (count - kept) * 24);
  checker_put (image + 6, kept, 2);
  checker_fix_node (checker, false, branch->pointer.place, image);
  return (struct checker_pointer) { branch->pointer.place, checker_u64 (image + CHECKSUM_AT) };
}

/* The same for the entries of a leaf. */
static struct checker_pointer
leaf_walk (struct checker *checker, const struct checker_tree *tree, const struct branch *branch,
           uint8_t *image)
{
  unsigned count = checker_u16 (image + 6), kept = 0;

  for (unsigned i = 0; i < count; ++i) {
    const uint8_t *at = image + CHECKER_NODE_HEADER + i * 16;

    if (!tree->entry (checker, tree, branch->pointer.place, checker_u64 (at),
                      checker_u64 (at + 8)))
      continue;
    memmove (image + CHECKER_NODE_HEADER + kept * 16, at, 16);
    kept++;
  }
  if (kept == count)
    return branch->pointer;
  if (kept == 0)
    return (struct checker_pointer) { 0, 0 };
  memset (image + CHECKER_NODE_HEADER + kept * 16, 0, (count - kept) * 16);
  checker_put (image + 6, kept, 2);
  checker_fix_node (checker, false, branch->pointer.place, image);
  return (struct checker_pointer) { branch->pointer.place, checker_u64 (image + CHECKSUM_AT) };
}

/* What cannot be read is left out. */
static struct checker_pointer
branch_drop (struct checker *checker, const struct checker_tree *tree,
             const struct branch *branch, struct checker_where where, const char *consequence)
{
  const char *name = where.disk != NULL ? where.disk->name : "";

  *tree->is_damaged = true;
  if (tree->dropped != NULL)
    tree->dropped (checker, branch->low, branch->high);
  checker_fix_tell (checker, true, "%s at place %" PRIu64 "%s%s%s: left out; %s", where.structure,
                    where.place, *name != '\0' ? " of disk '" : "", name,
                    *name != '\0' ? "'" : "", consequence);
  return (struct checker_pointer) { 0, 0 };
}

static struct checker_pointer
branch_walk (struct checker *checker, const struct checker_tree *tree,
             const struct branch *branch)
{
  bool is_leaf = !branch->is_root && branch->level_max == 0;
  struct node_expected expected = {
    .kind = is_leaf || branch->is_root ? tree->leaf_kind : tree->inner_kind,
    .other_kind = is_leaf ? tree->leaf_kind : tree->inner_kind,
    .owner = tree->owner,
    .place = branch->pointer.place,
    .checksum = &branch->pointer.checksum,
  };
  struct checker_where where = {
    branch->is_root ? tree->root_name : is_leaf ? tree->leaf_name : tree->inner_name,
    branch->pointer.place, tree->disk
  };
  char consequence[256];
  const char *fault;
  uint8_t image[CHECKER_BLOCK];

  tree->lost (checker, tree, branch->low, branch->high, consequence, sizeof consequence);
  if (!node_load (checker, where, &expected, consequence, image))
    return branch_drop (checker, tree, branch, where, consequence);
  fault = node_fault (tree, branch, image);
  if (fault != NULL) {
    checker_find (checker, CHECKER_DAMAGE, where, consequence, "%s", fault);
    return branch_drop (checker, tree, branch, where, consequence);
  }
  if (checker_u16 (image + 4) > 0)
    return children_walk (checker, tree, branch, image);
  return leaf_walk (checker, tree, branch, image);
}

struct checker_pointer
checker_tree_walk (struct checker *checker, const struct checker_tree *tree,
                   struct checker_pointer root)
{
  struct branch branch = {
    .pointer = root,
    .high = UINT64_MAX,
    .level_max = CHECKER_LEVEL_MAX,
    .is_root = true,
  };

  return root.place != 0 ? branch_walk (checker, tree, &branch) : root;
}
