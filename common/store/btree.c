/* SPDX-License-Identifier: BSD-2-Clause */
/* btree.c - B+trees in memory: looking up and changing; see btree.h.
 *
 * A change goes down once, making the path its own (tree_touch), and comes up as far as nodes
 * overflow or run empty.  Leaves and inner nodes differ in capacity only: both hold entries of 16
 * bytes, an inner node's value being the child.  A key below an inner node's first one belongs to
 * its first child.
 *
 * A full node first shares with a sibling, which keeps random filling near four fifths; one that
 * is appended to is left full.
 */
#include <string.h>

#include "base/check.h"
#include "store/btree-internal.h"

/* A sibling with less room is not shared with: each sharing makes a second node dirty. */
#define SHARE_ROOM 16

/* From a leaf up to the root: path.nodes[level], and which child of it comes next (an index in
 * the leaf). */
struct path {
  struct btree_node *nodes[BTREE_DEPTH_MAX];
  unsigned index[BTREE_DEPTH_MAX];
};

/* --- nodes --- */

struct btree_node *
btree_node_new (struct btree *tree, unsigned level)
{
  struct btree_node *node = btree_pool_take (tree->pool);

  CHECK (level < BTREE_DEPTH_MAX);
  node->generation = tree->generation;
  node->place = 0;
  node->checksum = 0;
  node->attempt = 0;
  node->next = NULL;
  node->level = level;
  node->count = 0;
  tree_count (tree, 1);
  return node;
}

static bool
node_is_frozen (const struct btree *tree, const struct btree_node *node)
{
  return tree->has_frozen && node->generation < tree->generation;
}

bool
btree_give_up (struct btree *tree, uint64_t place, struct btree_node *node)
{
  struct btree_node *list = tree->given_up;
  bool is_used = false;

  if (list == NULL || list->count == NODE_PLACES) {
    is_used = node != NULL;
    list = is_used ? node : btree_pool_take (tree->pool);
    list->count = 0;
    list->next = tree->given_up;
    tree->given_up = list;
  }
  node_places (list)[list->count++] = place;
  return is_used;
}

/* NODE is to be changed: returns it if it may be, else a copy to be put in its place. */
static struct btree_node *
tree_touch (struct btree *tree, struct btree_node *node)
{
  struct btree_node *copy;

  if (! node_is_frozen (tree, node)) {
    if (node->place != 0) {
      btree_give_up (tree, node->place, NULL);
      node->place = 0;
    }
    node->generation = tree->generation;
    return node;
  }
  copy = btree_node_new (tree, node->level);
  copy->count = node->count;
  memcpy (copy->entries, node->entries, node->count * sizeof node->entries[0]);
  node->next = tree->superseded;
  tree->superseded = node;
  tree_count (tree, -1);
  return copy;
}

static struct btree_node *
tree_touch_child (struct btree *tree, struct btree_node *parent, unsigned i)
{
  struct btree_node *child = tree_touch (tree, node_child (parent, i));

  parent->entries[i].value = (uintptr_t) child;
  return child;
}

/* The tree has no use for a node any more. */
static void
tree_drop (struct btree *tree, struct btree_node *node)
{
  tree_count (tree, -1);
  if (node_is_frozen (tree, node)) {
    node->next = tree->superseded;
    tree->superseded = node;
    return;
  }
  if (node->place == 0 || ! btree_give_up (tree, node->place, node))
    btree_pool_give (tree->pool, node);
}

/* The first entry whose key is > KEY. */
static unsigned
node_upper_bound (const struct btree_node *node, uint64_t key)
{
  unsigned low = 0, high = node->count, middle;

  while (low < high) {
    middle = (low + high) / 2;
    if (node->entries[middle].key <= key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The child that KEY belongs to. */
static unsigned
node_child_index (const struct btree_node *node, uint64_t key)
{
  unsigned i = node_upper_bound (node, key);

  return i > 0 ? i - 1 : 0;
}

static void
node_insert (struct btree_node *node, unsigned i, struct btree_entry entry)
{
  memmove (node->entries + i + 1, node->entries + i, (node->count - i) * sizeof entry);
  node->entries[i] = entry;
  node->count++;
}

static void
node_remove (struct btree_node *node, unsigned i)
{
  node->count--;
  memmove (node->entries + i, node->entries + i + 1, (node->count - i) * sizeof node->entries[0]);
}

/* --- looking up --- */

/* Fills PATH down to the leaf that KEY belongs to. */
static void
path_descend (struct path *path, const struct btree *tree, uint64_t key)
{
  struct btree_node *node = tree->root;

  for (;;) {
    path->nodes[node->level] = node;
    if (node->level == 0)
      break;
    path->index[node->level] = node_child_index (node, key);
    node = node_child (node, path->index[node->level]);
  }
  path->index[0] = node_upper_bound (node, key);
}

/* Moves PATH to the first entry of the next leaf; false: there is none. */
static bool
path_next_leaf (struct path *path, const struct btree *tree)
{
  unsigned level;

  for (level = 1; level <= tree->root->level; level++)
    if (path->index[level] + 1 < path->nodes[level]->count)
      break;
  if (level > tree->root->level)
    return false;
  path->index[level]++;
  for (; level > 0; level--) {
    path->nodes[level - 1] = node_child (path->nodes[level], path->index[level]);
    path->index[level - 1] = 0;
  }
  return true;
}

/* Moves PATH behind the last entry of the leaf before; false: there is none. */
static bool
path_previous_leaf (struct path *path, const struct btree *tree)
{
  unsigned level;

  for (level = 1; level <= tree->root->level; level++)
    if (path->index[level] > 0)
      break;
  if (level > tree->root->level)
    return false;
  path->index[level]--;
  for (; level > 0; level--) {
    path->nodes[level - 1] = node_child (path->nodes[level], path->index[level]);
    path->index[level - 1] = path->nodes[level - 1]->count - (level > 1);
  }
  return true;
}

bool
btree_floor (const struct btree *tree, uint64_t key, struct btree_entry *entry)
{
  struct path path;

  if (tree->root == NULL)
    return false;
  path_descend (&path, tree, key);
  /* A separator may be less than all that its child still has. */
  if (path.index[0] == 0 && ! path_previous_leaf (&path, tree))
    return false;
  *entry = path.nodes[0]->entries[path.index[0] - 1];
  return true;
}

bool
btree_ceiling (const struct btree *tree, uint64_t key, struct btree_entry *entry)
{
  return btree_scan (tree, key, entry, 1) == 1;
}

size_t
btree_scan (const struct btree *tree, uint64_t key, struct btree_entry *entries, size_t max)
{
  struct path path;
  struct btree_node *leaf;
  size_t count = 0, part;
  unsigned i;

  if (tree->root == NULL || max == 0)
    return 0;
  path_descend (&path, tree, key);
  i = path.index[0];
  if (i > 0 && path.nodes[0]->entries[i - 1].key == key)
    path.index[0]--;
  do {
    leaf = path.nodes[0];
    part = MIN (max - count, (size_t) leaf->count - path.index[0]);
    memcpy (entries + count, leaf->entries + path.index[0], part * sizeof *entries);
    count += part;
  } while (count < max && path_next_leaf (&path, tree));
  return count;
}

/* --- changing --- */

/* As path_descend, and the path may be changed afterwards.  Keys below all others lower the first
 * separators on the way if one is to be inserted. */
static void
path_descend_to_change (struct path *path, struct btree *tree, uint64_t key, bool is_insert)
{
  struct btree_node *node = tree->root = tree_touch (tree, tree->root);
  uint64_t separator = key & tree->separator_mask;
  unsigned i;

  for (;;) {
    path->nodes[node->level] = node;
    if (node->level == 0)
      break;
    i = path->index[node->level] = node_child_index (node, key);
    if (is_insert && separator < node->entries[i].key)
      node->entries[i].key = separator;
    node = tree_touch_child (tree, node, i);
  }
  path->index[0] = node_upper_bound (node, key);
}

static uint64_t
node_separator (const struct btree *tree, const struct btree_node *node)
{
  return node->entries[0].key & tree->separator_mask;
}

/* Gives LEFT and RIGHT, neighbours with ENTRY to be inserted at I of both together (UINT_MAX:
 * none), halves of all. */
static void
node_share (struct btree_node *left, struct btree_node *right, unsigned i,
            struct btree_entry entry)
{
  struct btree_entry all[2 * LEAF_ENTRIES + 1];
  unsigned count = left->count + right->count, half;

  memcpy (all, left->entries, left->count * sizeof all[0]);
  memcpy (all + left->count, right->entries, right->count * sizeof all[0]);
  if (i <= count) {
    memmove (all + i + 1, all + i, (count - i) * sizeof all[0]);
    all[i] = entry;
    count++;
  }
  half = count - count / 2;
  memcpy (left->entries, all, half * sizeof all[0]);
  memcpy (right->entries, all + half, (count - half) * sizeof all[0]);
  left->count = half;
  right->count = count - half;
}

/* Whether PATH leads to the last entry of all, from LEVEL on. */
static bool
path_is_last (const struct path *path, const struct btree *tree, unsigned level)
{
  for (level++; level <= tree->root->level; level++)
    if (path->index[level] + 1 < path->nodes[level]->count)
      return false;
  return true;
}

/* Inserts ENTRY at I of the full node at LEVEL of PATH by sharing with a sibling, if one has
 * room. */
static bool
path_share (struct path *path, struct btree *tree, unsigned level, unsigned i,
            struct btree_entry entry)
{
  struct btree_node *node = path->nodes[level], *parent = path->nodes[level + 1], *sibling;
  unsigned at = path->index[level + 1], limit = node_capacity (level) - SHARE_ROOM;

  if (at > 0 && node_child (parent, at - 1)->count <= limit) {
    sibling = tree_touch_child (tree, parent, at - 1);
    node_share (sibling, node, sibling->count + i, entry);
    parent->entries[at].key = node_separator (tree, node);
    return true;
  }
  if (at + 1 < parent->count && node_child (parent, at + 1)->count <= limit) {
    sibling = tree_touch_child (tree, parent, at + 1);
    node_share (node, sibling, i, entry);
    parent->entries[at + 1].key = node_separator (tree, sibling);
    return true;
  }
  return false;
}

/* Whether ENTRY, to go behind the last one of a full node, is to begin a node of its own.  It is
 * so where keys ascend; not if that could leave many nodes nearly empty, as keys descending
 * towards this node would. */
static bool
path_is_append (const struct path *path, const struct btree *tree, unsigned level, unsigned i)
{
  const struct btree_node *parent = path->nodes[level + 1];
  unsigned at = path->index[level + 1];

  if (i < path->nodes[level]->count)
    return false;
  if (at + 1 < parent->count)
    return node_child (parent, at + 1)->count >= node_fill_min (level);
  return path_is_last (path, tree, level);
}

/* Inserts ENTRY at I of the node at LEVEL of PATH. */
static void
path_insert (struct path *path, struct btree *tree, unsigned level, unsigned i,
             struct btree_entry entry)
{
  struct btree_node *node, *sibling;
  struct btree_entry up;

  for (;; level++, i = path->index[level] + 1, entry = up) {
    node = path->nodes[level];
    if (node->count < node_capacity (level)) {
      node_insert (node, i, entry);
      return;
    }
    if (node == tree->root) {
      tree->root = path->nodes[level + 1] = btree_node_new (tree, level + 1);
      path->index[level + 1] = 0;
      up = (struct btree_entry) { node_separator (tree, node), (uintptr_t) node };
      node_insert (tree->root, 0, up);
    }
    if (path_is_append (path, tree, level, i)) {
      sibling = btree_node_new (tree, level);
      node_insert (sibling, 0, entry);
    } else {
      if (path_share (path, tree, level, i, entry))
        return;
      sibling = btree_node_new (tree, level);
      node_share (node, sibling, i, entry);
    }
    up = (struct btree_entry) { node_separator (tree, sibling), (uintptr_t) sibling };
  }
}

void
btree_insert (struct btree *tree, struct btree_entry entry)
{
  struct path path;
  unsigned i;

  if (tree->root == NULL)
    tree->root = btree_node_new (tree, 0);
  path_descend_to_change (&path, tree, entry.key, true);
  i = path.index[0];
  if (i > 0 && path.nodes[0]->entries[i - 1].key == entry.key) {
    path.nodes[0]->entries[i - 1].value = entry.value;
    return;
  }
  path_insert (&path, tree, 0, i, entry);
  tree->entry_count++;
}

/* The root has lost an entry: a tree without entries has no nodes, and a root has not one child, unless
 * a repair left it that. */
static void
tree_shrink (struct btree *tree)
{
  struct btree_node *root = tree->root;

  while (root->level > 0 && root->count == 1) {
    tree->root = node_child (root, 0);
    tree_drop (tree, root);
    root = tree->root;
  }
  if (root->count == 0) {
    tree_drop (tree, root);
    tree->root = NULL;
  }
}

/* The node at LEVEL of PATH has too few entries: joins it with a sibling, or fills it from one.
 * True: the node above has one entry less now. */
static bool
path_join (struct path *path, struct btree *tree, unsigned level)
{
  struct btree_node *parent = path->nodes[level + 1], *left, *right;
  unsigned at = path->index[level + 1], sum;

  if (path->nodes[level]->count == 0) {
    node_remove (parent, at);
    tree_drop (tree, path->nodes[level]);
    return true;
  }
  if (parent->count == 1)
    return true;
  at -= at > 0;
  left = tree_touch_child (tree, parent, at);
  right = node_child (parent, at + 1);
  sum = left->count + right->count;
  /* Some room is left, so that what was joined is not split by the next insertion. */
  if (sum <= node_capacity (level) / 8 * 7) {
    memcpy (left->entries + left->count, right->entries, right->count * sizeof right->entries[0]);
    left->count = sum;
    node_remove (parent, at + 1);
    tree_drop (tree, right);
    return true;
  }
  right = tree_touch_child (tree, parent, at + 1);
  node_share (left, right, UINT32_MAX, (struct btree_entry) { 0, 0 });
  parent->entries[at + 1].key = node_separator (tree, right);
  return false;
}

bool
btree_remove (struct btree *tree, uint64_t key)
{
  struct path path;
  unsigned level, i;

  if (tree->root == NULL)
    return false;
  /* Looked up first: a tree that does not have the key is not changed. */
  path_descend (&path, tree, key);
  i = path.index[0];
  if (i == 0 || path.nodes[0]->entries[i - 1].key != key)
    return false;
  path_descend_to_change (&path, tree, key, false);
  node_remove (path.nodes[0], i - 1);
  tree->entry_count--;
  for (level = 0; level < tree->root->level; level++) {
    if (path.nodes[level]->count >= node_fill_min (level) || ! path_join (&path, tree, level))
      return true;
  }
  tree_shrink (tree);
  return true;
}

/* --- moving keys --- */

int
btree_ensure_shift (struct btree *tree, unsigned changes)
{
  uint64_t lists = tree->node_count / NODE_PLACES + 1;

  return btree_pool_ensure (tree->pool, changes + divide_up (lists, BTREE_CHANGE_NODES));
}

/* The first key of PATH's leaf has changed, within what is free between its neighbours. */
static void
path_separate (struct path *path, struct btree *tree)
{
  uint64_t separator = node_separator (tree, path->nodes[0]);

  for (unsigned level = 1; level <= tree->root->level; level++) {
    path->nodes[level]->entries[path->index[level]].key = separator;
    if (path->index[level] > 0)
      return;
  }
}

bool
btree_shift_down (struct btree *tree, uint64_t *from, uint64_t delta, unsigned leaves)
{
  struct btree_entry entry;
  struct path path;

  CHECK (! tree->has_frozen);
  for (; btree_ceiling (tree, *from, &entry); leaves--) {
    struct btree_node *leaf;
    unsigned first;

    if (leaves == 0)
      return false;
    path_descend_to_change (&path, tree, entry.key, false);
    leaf = path.nodes[0];
    first = path.index[0] - 1;
    *from = leaf->entries[leaf->count - 1].key + 1;
    for (unsigned i = first; i < leaf->count; i++)
      leaf->entries[i].key -= delta;
    if (first == 0)
      path_separate (&path, tree);
  }
  return true;
}

bool
btree_shift_up (struct btree *tree, uint64_t from, uint64_t *limit, uint64_t delta,
                unsigned leaves)
{
  struct btree_entry entry;
  struct path path;

  CHECK (! tree->has_frozen);
  for (; *limit > from && btree_floor (tree, *limit - 1, &entry) && entry.key >= from; leaves--) {
    struct btree_node *leaf;
    unsigned i;

    if (leaves == 0)
      return false;
    path_descend_to_change (&path, tree, entry.key, false);
    leaf = path.nodes[0];
    for (i = path.index[0]; i > 0 && leaf->entries[i - 1].key >= from; i--) {
      *limit = leaf->entries[i - 1].key;
      leaf->entries[i - 1].key += delta;
    }
    if (i == 0)
      path_separate (&path, tree);
  }
  return true;
}

/* --- the whole --- */

void
btree_init (struct btree *tree, struct btree_pool *pool)
{
  memset (tree, 0, sizeof *tree);
  tree->pool = pool;
  tree->generation = 1;
  tree->separator_mask = UINT64_MAX;
}

/* Frees NODE and what is below it. */
static void
tree_free (struct btree *tree, struct btree_node *node)
{
  if (node->level > 0)
    for (unsigned i = 0; i < node->count; i++)
      tree_free (tree, node_child (node, i));
  btree_pool_give (tree->pool, node);
}

void
btree_clear (struct btree *tree)
{
  struct btree_node *list;

  CHECK (! tree->has_frozen && tree->superseded == NULL);
  if (tree->root)
    tree_free (tree, tree->root);
  while ((list = tree->given_up) != NULL) {
    tree->given_up = list->next;
    btree_pool_give (tree->pool, list);
  }
  tree->root = NULL;
  tree_count (tree, -(int64_t) tree->node_count);
  tree->entry_count = 0;
}

/* What a walk over all nodes counts. */
struct verify {
  const struct btree *tree;
  uint64_t entries, nodes;
  uint64_t last_key;
  bool has_last;
};

static void
verify_node (struct verify *verify, const struct btree_node *node, uint64_t low, bool is_placed)
{
  CHECK (node->count > 0 && node->count <= node_capacity (node->level));
  CHECK (node->generation <= verify->tree->generation);
  /* Invariant: below a node that is on the device, all are. */
  CHECK (verify->tree->has_frozen || ! is_placed || node->place != 0);
  if (! verify->tree->has_frozen)
    is_placed = node->place != 0;
  verify->nodes++;
  for (unsigned i = 0; i < node->count; i++) {
    uint64_t key = node->entries[i].key;

    CHECK (key >= low);
    if (node->level > 0) {
      CHECK (i == 0 || key > node->entries[i - 1].key);
      CHECK (key == (key & verify->tree->separator_mask));
      CHECK (! verify->has_last || key > verify->last_key);
      CHECK (node_child (node, i)->level == node->level - 1);
      verify_node (verify, node_child (node, i), key, is_placed);
      continue;
    }
    CHECK (! verify->has_last || key > verify->last_key);
    verify->last_key = key;
    verify->has_last = true;
    verify->entries++;
  }
}

void
btree_verify (const struct btree *tree)
{
  struct verify verify = { .tree = tree };

  if (tree->root)
    verify_node (&verify, tree->root, 0, tree->root->place != 0);
  CHECK (verify.entries == tree->entry_count);
  CHECK (verify.nodes == tree->node_count);
}
