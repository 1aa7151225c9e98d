/* SPDX-License-Identifier: BSD-2-Clause */
/* btree-internal.h - what the files of the B+tree share: nodes, their life, the pool's two calls.
 *
 * A node is in one of three lives:
 *   new      place == 0.  All nodes above it are new, too.  Changed in place unless it is frozen.
 *   placed   place != 0: the device has this content there; all nodes below it are placed.  A
 *   change
 *            gives the place up (it makes the node new).
 *   frozen   the tree has a frozen state and the node's generation is older than the tree's.  Never
 *            changed: a change copies it, and puts it on `superseded`.
 *
 * While a state is frozen its writer reads frozen nodes without the tree's mutex and sets their
 * place, checksum and attempt.  Nobody else reads or writes these three in a frozen node before
 * btree_thaw, and the writer touches neither `next` nor anything in the tree that changes.
 */
#ifndef LACUNA_BTREE_INTERNAL_H
#define LACUNA_BTREE_INTERNAL_H

#include "store/btree.h"

struct btree_node {
  uint64_t generation;         /* the tree's when it was made or changed; immutable while frozen */
  uint64_t place;              /* the writer's while frozen */
  uint64_t checksum;           /* the writer's while frozen; valid if place != 0 */
  uint64_t attempt;            /* the writer's while frozen: the generation that gave place */
  struct btree_node *next;     /* superseded nodes, free nodes, lists of places */
  uint16_t level;              /* 0: leaf */
  uint16_t count;
  uint32_t padding;
  /* A leaf's entries; an inner node's first keys of its children (or less) and the children
   * themselves. */
  struct btree_entry entries[LEAF_ENTRIES];
};

#define NODE_BYTES 4096
_Static_assert (sizeof (struct btree_node) <= NODE_BYTES,
                "a node in memory is no larger than on the device");

/* On a node taken for a list of places, `entries` is this. */
#define NODE_PLACES (LEAF_ENTRIES * 2)

static inline uint64_t *
node_places (struct btree_node *node)
{
  return &node->entries[0].key;
}

static inline struct btree_node *
node_child (const struct btree_node *node, unsigned i)
{
  return (struct btree_node *) (uintptr_t) node->entries[i].value;
}

static inline unsigned
node_capacity (unsigned level)
{
  return level == 0 ? LEAF_ENTRIES : INNER_ENTRIES;
}

/* Nodes with less are merged, or filled from a sibling. */
static inline unsigned
node_fill_min (unsigned level)
{
  return node_capacity (level) / 3;
}

/* A node of the pool; cannot fail within what btree_pool_ensure set aside. */
struct btree_node *btree_pool_take (struct btree_pool *pool);
void btree_pool_give (struct btree_pool *pool, struct btree_node *node);

/* Present nodes of all trees: so many more. */
void btree_pool_count (struct btree_pool *pool, int64_t change);

static inline void
tree_count (struct btree *tree, int64_t change)
{
  tree->node_count += change;
  btree_pool_count (tree->pool, change);
}

struct btree_node *btree_node_new (struct btree *tree, unsigned level);

/* Notes that PLACE is given up.  If that needs memory, NODE is used for it if there is one (then
 * true). */
bool btree_give_up (struct btree *tree, uint64_t place, struct btree_node *node);

#endif
