/* SPDX-License-Identifier: BSD-2-Clause */
/* btree-io.c - B+trees between memory and the device: freezing, writing, thawing, loading; see
 * btree.h.
 *
 * No I/O is done here: the writer fills blocks that others write, the loader asks for blocks that
 * others read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/btree-internal.h"

/* --- freezing and writing --- */

void
btree_freeze (struct btree *tree)
{
  CHECK (! tree->has_frozen && tree->superseded == NULL);
  tree->frozen = tree->root;
  tree->has_frozen = true;
  tree->generation++;
}

void
btree_writer_init (struct btree_writer *writer, struct btree *tree,
                   const struct format_node_identity *identity, btree_place *place, void *arg)
{
  CHECK (tree->has_frozen);
  memset (writer, 0, sizeof *writer);
  writer->tree = tree;
  writer->identity = *identity;
  writer->place = place;
  writer->arg = arg;
  if (tree->frozen && tree->frozen->place == 0)
    writer->stack[writer->depth++].node = tree->frozen;
}

/* What NODE is on the device, but for its header.  Its children are there already. */
static void
node_to_image (const struct btree_node *node, void *image)
{
  uint8_t *body = (uint8_t *) image + sizeof (struct format_node);

  memset (image, 0, BLOCK_SIZE);
  for (unsigned i = 0; i < node->count; i++)
    if (node->level == 0)
      ((struct format_leaf_entry *) body)[i] = (struct format_leaf_entry) {
        to_le64 (node->entries[i].key), to_le64 (node->entries[i].value) };
    else
      ((struct format_inner_entry *) body)[i] = (struct format_inner_entry) {
        to_le64 (node->entries[i].key),
        { to_le64 (node_child (node, i)->place), to_le64 (node_child (node, i)->checksum) } };
}

bool
btree_writer_next (struct btree_writer *writer, void *image, uint64_t *place)
{
  const struct format_node_identity *identity = &writer->identity;
  struct btree_node *node, *child;
  unsigned i;

  while (writer->depth > 0) {
    node = writer->stack[writer->depth - 1].node;
    i = writer->stack[writer->depth - 1].child++;
    if (node->level > 0 && i < node->count) {
      child = node_child (node, i);
      if (child->place == 0) {
        writer->stack[writer->depth].node = child;
        writer->stack[writer->depth++].child = 0;
      }
      continue;
    }
    *place = writer->place (writer->arg);
    if (*place == 0) {
      writer->error = -ENOSPC;
      writer->depth = 0;
      return false;
    }
    node_to_image (node, image);
    format_node_seal (image, node->level == 0 ? identity->leaf_kind : identity->inner_kind,
                      node->level, node->count, identity, *place);
    node->place = *place;
    node->checksum = from_le64 (((struct format_node *) image)->checksum);
    node->attempt = writer->tree->generation;
    writer->depth--;
    return true;
  }
  return false;
}

void
btree_frozen_root (const struct btree *tree, struct format_pointer *root)
{
  CHECK (tree->has_frozen);
  root->place = to_le64 (tree->frozen ? tree->frozen->place : 0);
  root->checksum = to_le64 (tree->frozen ? tree->frozen->checksum : 0);
}

/* --- thawing --- */

/* Tells and forgets the places given up so far. */
static void
tree_tell_given_up (struct btree *tree, btree_released *released, void *arg)
{
  struct btree_node *list;

  while ((list = tree->given_up) != NULL) {
    for (unsigned i = 0; released && i < list->count; i++)
      released (arg, node_places (list)[i]);
    tree->given_up = list->next;
    btree_pool_give (tree->pool, list);
  }
}

/* Makes the nodes that this attempt gave places to new again.  It had come to some of the nodes
 * below a new one, and to none below a placed one of an earlier attempt. */
static void
tree_undo_places (struct btree *tree, struct btree_node *node, btree_released *released, void *arg)
{
  if (node->place != 0 && node->attempt != tree->generation)
    return;
  if (node->level > 0)
    for (unsigned i = 0; i < node->count; i++)
      tree_undo_places (tree, node_child (node, i), released, arg);
  if (node->place != 0 && released)
    released (arg, node->place);
  node->place = 0;
}

void
btree_thaw (struct btree *tree, bool written, btree_released *released, void *arg)
{
  struct btree_node *node;

  CHECK (tree->has_frozen);
  if (written)
    tree_tell_given_up (tree, released, arg);
  else if (tree->frozen)
    tree_undo_places (tree, tree->frozen, released, arg);
  tree->has_frozen = false;
  tree->frozen = NULL;
  while ((node = tree->superseded) != NULL) {
    tree->superseded = node->next;
    CHECK (! written || node->place != 0);
    if (node->place == 0 || ! btree_give_up (tree, node->place, node))
      btree_pool_give (tree->pool, node);
  }
}

/* --- places --- */

static void
node_visit_places (const struct btree_node *node, btree_released *visit, void *arg)
{
  if (node->place != 0)
    visit (arg, node->place);
  if (node->level > 0)
    for (unsigned i = 0; i < node->count; i++)
      node_visit_places (node_child (node, i), visit, arg);
}

void
btree_visit_places (const struct btree *tree, void (*visit) (void *arg, uint64_t place), void *arg)
{
  if (tree->root)
    node_visit_places (tree->root, visit, arg);
}

void
btree_release_all (struct btree *tree, btree_released *released, void *arg)
{
  CHECK (! tree->has_frozen);
  btree_visit_places (tree, released, arg);
  tree_tell_given_up (tree, released, arg);
  btree_clear (tree);
}

/* --- loading --- */

/* A node that is to be read: where it is, and where it goes. */
struct load_node {
  uint64_t place, checksum;
  uint64_t low, high;          /* its keys lie in [low, high) */
  bool has_high;
  struct btree_node *parent;   /* NULL: it is the root */
  unsigned index;
};

struct load_level {
  struct load_node *nodes;
  size_t count, capacity;
};

struct load {
  struct btree *tree;
  const struct format_node_identity *identity;
  btree_read *read;
  void *arg;
  int level;                   /* of the nodes being read; -1: the root tells */
  struct load_level now, below;
};

static int
load_node_compare (const void *a, const void *b)
{
  uint64_t place_a = ((const struct load_node *) a)->place;
  uint64_t place_b = ((const struct load_node *) b)->place;

  return place_a < place_b ? -1 : place_a > place_b;
}

/* Adds a node to be read with the next level; -ENOMEM. */
static int
load_level_add (struct load_level *level, const struct load_node *node)
{
  struct load_node *nodes;
  size_t capacity;

  if (level->count == level->capacity) {
    capacity = level->capacity ? 2 * level->capacity : INNER_ENTRIES;
    nodes = realloc (level->nodes, capacity * sizeof *nodes);
    if (nodes == NULL)
      return -ENOMEM;
    level->nodes = nodes;
    level->capacity = capacity;
  }
  level->nodes[level->count++] = *node;
  return 0;
}

/* A node's keys, which ascend within what its parent says, and nothing else. */
static bool
load_keys_are_valid (const struct load *load, const struct load_node *from,
                     const struct btree_node *node)
{
  for (unsigned i = 0; i < node->count; i++) {
    uint64_t key = node->entries[i].key;

    if (i > 0 && key <= node->entries[i - 1].key)
      return false;
    if (node->level > 0 && key != (key & load->tree->separator_mask))
      return false;
  }
  return node->entries[0].key >= from->low
         && (! from->has_high || node->entries[node->count - 1].key < from->high);
}

/* Reads the children out of an inner node's image; the links are empty until they are loaded. */
static int
load_inner (struct load *load, const struct load_node *from, struct btree_node *node,
            const struct format_inner_entry *entries)
{
  struct load_node child;
  int error = 0;

  for (unsigned i = 0; i < node->count; i++) {
    node->entries[i].key = from_le64 (entries[i].key);
    node->entries[i].value = 0;
  }
  if (! load_keys_are_valid (load, from, node))
    return -EUCLEAN;
  for (unsigned i = 0; i < node->count && error == 0; i++) {
    child = (struct load_node) {
      .place = from_le64 (entries[i].child.place),
      .checksum = from_le64 (entries[i].child.checksum),
      .low = node->entries[i].key,
      .has_high = i + 1u < node->count || from->has_high,
      .high = i + 1u < node->count ? node->entries[i + 1].key : from->high,
      .parent = node,
      .index = i,
    };
    if (child.place == 0 || child.place > PLACE_MAX)
      return -EUCLEAN;
    error = load_level_add (&load->below, &child);
  }
  return error;
}

/* Makes a node of the image of the I-th of this level and links it into the tree. */
static int
load_take (void *taker, size_t i, const void *image)
{
  struct load *load = taker;
  const struct load_node *from = &load->now.nodes[i];
  const struct format_node *header = (const struct format_node *) image;
  const struct format_leaf_entry *entries = (const void *) (header + 1);
  unsigned level = from_le16 (header->level), count = from_le16 (header->count);
  struct btree_node *node;
  uint32_t kind = level == 0 ? load->identity->leaf_kind : load->identity->inner_kind;

  if (load->level < 0 && level < BTREE_DEPTH_MAX)
    load->level = level;
  if (level != (unsigned) load->level || count == 0 || count > node_capacity (level)
      || format_node_check (image, kind, load->identity->uuid, load->identity->owner, from->place,
                            from->checksum) != NULL)
    return -EUCLEAN;
  /* One node at a time: nothing is held that another thread could be short of. */
  if (btree_pool_ensure (load->tree->pool, 1) < 0)
    return -ENOMEM;
  node = btree_node_new (load->tree, level);
  node->place = from->place;
  node->checksum = from_le64 (header->checksum);
  node->count = count;
  if (from->parent)
    from->parent->entries[from->index].value = (uintptr_t) node;
  else
    load->tree->root = node;
  if (level > 0)
    return load_inner (load, from, node, (const void *) entries);
  for (unsigned at = 0; at < count; at++)
    node->entries[at] = (struct btree_entry) { from_le64 (entries[at].key),
                                               from_le64 (entries[at].value) };
  load->tree->entry_count += count;
  return load_keys_are_valid (load, from, node) ? 0 : -EUCLEAN;
}

/* Reads all nodes of one level. */
static int
load_level (struct load *load)
{
  struct load_node *nodes = load->now.nodes;
  size_t count = load->now.count;
  uint64_t *places, *checksums;
  int error;

  qsort (nodes, count, sizeof *nodes, load_node_compare);
  for (size_t i = 1; i < count; i++)
    if (nodes[i].place == nodes[i - 1].place)
      return -EUCLEAN;
  places = calloc (2 * count, sizeof *places);
  if (places == NULL)
    return -ENOMEM;
  checksums = places + count;
  for (size_t i = 0; i < count; i++) {
    places[i] = nodes[i].place;
    checksums[i] = nodes[i].checksum;
  }
  error = load->read (load->arg, places, checksums, count, load_take, load);
  free (places);
  return error;
}

/* Frees what was loaded of a tree, in which links may be missing. */
static void
load_discard (struct btree *tree, struct btree_node *node)
{
  if (node == NULL)
    return;
  if (node->level > 0)
    for (unsigned i = 0; i < node->count; i++)
      load_discard (tree, node_child (node, i));
  btree_pool_give (tree->pool, node);
}

int
btree_load (struct btree *tree, const struct format_pointer *root,
            const struct format_node_identity *identity, btree_read *read, void *arg)
{
  struct load load = { .tree = tree, .identity = identity, .read = read, .arg = arg, .level = -1 };
  struct load_node first = { .place = from_le64 (root->place),
                             .checksum = from_le64 (root->checksum) };
  struct load_level done;
  int error;

  CHECK (tree->root == NULL && ! tree->has_frozen);
  if (first.place == 0)
    return 0;
  if (first.place > PLACE_MAX)
    return -EUCLEAN;
  error = load_level_add (&load.now, &first);
  while (error == 0 && load.now.count > 0) {
    error = load_level (&load);
    done = load.now;
    load.now = load.below;
    load.below = done;
    load.below.count = 0;
    load.level--;
  }
  if (error) {
    load_discard (tree, tree->root);
    tree->root = NULL;
    tree_count (tree, -(int64_t) tree->node_count);
    tree->entry_count = 0;
  }
  free (load.now.nodes);
  free (load.below.nodes);
  return error;
}
