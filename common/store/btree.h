/* SPDX-License-Identifier: BSD-2-Clause */
/* btree.h - copy-on-write B+trees of 16-byte entries, resident in memory.
 *
 * The base of the extent maps, the catalogue and the table of shared runs.  A leaf in memory is
 * its image on the device (struct format_node, format.h); an inner node's image is made when it is written,
 * from the pointers to its children.  Keys are the first words of the entries, unique,
 * ascending; what the words mean is the caller's.
 *
 * Copy on write: btree_freeze makes the present state immutable in O(1).  A change
 * after that copies the nodes on its path (they are then `new`: not on the device).
 * A frozen state can be written while the tree goes on changing; nodes that the
 * tree no longer uses are kept until btree_thaw.  At most one frozen state per tree.
 *
 * Never does I/O and never waits.  No locks: the caller holds the mutex of what it
 * builds on it (writing a frozen state needs it only in btree_thaw).
 * Memory comes from a pool shared by all trees of a store.  Changes allocate at
 * most BTREE_CHANGE_NODES nodes each, which btree_pool_ensure sets aside beforehand, so that a
 * change itself cannot fail.
 */
#ifndef LACUNA_BTREE_H
#define LACUNA_BTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/format.h"

struct btree_pool;
struct btree_node;

struct btree_entry {
  uint64_t key;
  uint64_t value;
};

struct btree {
  struct btree_pool *pool;
  struct btree_node *root;     /* NULL: empty */
  uint64_t generation;         /* nodes of an older one are frozen */
  uint64_t entry_count;
  uint64_t node_count;
  struct btree_node *frozen;   /* root of the frozen state */
  bool has_frozen;
  struct btree_node *superseded; /* nodes only the frozen state uses; freed by thaw */
  struct btree_node *given_up;   /* places of nodes that no state from the present one on uses */
  uint64_t separator_mask;     /* bits of keys that inner nodes have: all, unless the owner clears
                                  some after btree_init; keys differing in those never coexist */
};

#define BTREE_DEPTH_MAX 12
#define BTREE_CHANGE_NODES (4 * BTREE_DEPTH_MAX)

struct btree_pool *btree_pool_create (void);
void btree_pool_destroy (struct btree_pool *pool);
/* Sets aside memory for CHANGES changes by this thread's next calls.  0 or -ENOMEM.  Thread-safe,
 * as all that the trees do with the pool.  Cheap when the memory is there.  What is set aside is
 * shared by all threads; a margin above it covers what others take in the meantime. */
int btree_pool_ensure (struct btree_pool *pool, unsigned changes);
/* The same for many changes side by side, of which it is known how many NODES they can need. */
int btree_pool_ensure_nodes (struct btree_pool *pool, uint64_t nodes);
/* Nodes in use by all trees of the pool, frozen ones included: what metadata costs. */
uint64_t btree_pool_nodes (const struct btree_pool *pool);
uint64_t btree_pool_bytes (const struct btree_pool *pool);
/* Those of the present states alone: the places that a checkpoint of all of them would take. */
uint64_t btree_pool_present (const struct btree_pool *pool);

void btree_init (struct btree *tree, struct btree_pool *pool);
/* Frees all nodes; nothing may be frozen.  Says nothing of places: see btree_release_all. */
void btree_clear (struct btree *tree);

/* The entry with the largest key <= KEY / the smallest key >= KEY.  False: none. */
bool btree_floor (const struct btree *tree, uint64_t key, struct btree_entry *entry);
bool btree_ceiling (const struct btree *tree, uint64_t key, struct btree_entry *entry);
/* Fills up to MAX entries with keys >= KEY, ascending; how many. */
size_t btree_scan (const struct btree *tree, uint64_t key, struct btree_entry *entries, size_t max);

/* Inserts, or replaces the value of an equal key.  Appending in ascending order leaves full
 * leaves behind. */
void btree_insert (struct btree *tree, struct btree_entry entry);
/* True if there was one. */
bool btree_remove (struct btree *tree, uint64_t key);

/* --- moving keys ---
 *
 * A step of a long move: of at most LEAVES leaves all entries that are to be moved, in place.  True:
 * none is left to be moved.  Between the steps the tree is as good as any, and may be changed where
 * nothing moves.  Nothing may be frozen, so no node is copied; what a step gives up takes memory
 * nevertheless: one node for each NODE_PLACES (btree-internal.h) of the tree's. */

/* All keys >= *FROM become less by DELTA, ascending; there are none in [*FROM - DELTA, *FROM).
 * *FROM goes on to the first that is left. */
bool btree_shift_down (struct btree *tree, uint64_t *from, uint64_t delta, unsigned leaves);
/* All keys in [FROM, *LIMIT) become more by DELTA, descending; there are none in
 * [*LIMIT, *LIMIT + DELTA).  *LIMIT comes down to the last one that was moved. */
bool btree_shift_up (struct btree *tree, uint64_t from, uint64_t *limit, uint64_t delta,
                     unsigned leaves);
/* As btree_pool_ensure, for CHANGES changes and all steps of a move. */
int btree_ensure_shift (struct btree *tree, unsigned changes);

/* --- writing and reading --- */

/* A node's place on the device is not part of the state that was frozen last, nor of the present
 * one: free as soon as a superblock that refers to that frozen state (or to nothing of this tree)
 * is durable.  Under the tree's mutex. */
typedef void btree_released (void *arg, uint64_t place);

/* Where a node goes: called once for each node of the frozen state that is not on the device yet.
 * 0: no room. */
typedef uint64_t btree_place (void *arg);

void btree_freeze (struct btree *tree);

/* Walks the new nodes of the frozen state, children before parents.  Each call fills IMAGE (a
 * block) with the next node, checksummed and ready to be written at *PLACE (and its mirror), and
 * returns true; false: no more, or writer.error is set (-ENOSPC: PLACE had none).  The writer's
 * memory is the caller's.  Needs no mutex. */
struct btree_writer {
  struct btree *tree;
  struct { struct btree_node *node; unsigned child; } stack[BTREE_DEPTH_MAX];
  unsigned depth;
  int error;
  struct format_node_identity identity;     /* store uuid, owner, sequence: see format.h */
  btree_place *place;
  void *arg;
};
void btree_writer_init (struct btree_writer *writer, struct btree *tree,
                        const struct format_node_identity *identity, btree_place *place, void *arg);
bool btree_writer_next (struct btree_writer *writer, void *image, uint64_t *place);
/* The pointer (place, checksum) to the frozen root, for the structure above; place 0: empty tree.
 * After the last next. */
void btree_frozen_root (const struct btree *tree, struct format_pointer *root);

/* The frozen state is no longer needed: frees what only it used.
 * WRITTEN: it is on the device.  RELEASED (may be NULL) is told every place given up before it
 * was frozen, which is what the state written before used and this one does not.  What was
 * superseded since is remembered, and told by the thaw of the next state, since the one just
 * written refers to it.
 * Not WRITTEN: the writing failed.  RELEASED is told the places that the writer gave, and their
 * nodes count as new again; all given up before stays remembered.  So the device's last state
 * must not be this one: after a superblock write that failed, nobody knows, and the places must
 * not be used again before the store is reopened. */
void btree_thaw (struct btree *tree, bool written, btree_released *released, void *arg);

/* The tree is about to be forgotten (its disk is gone): tells RELEASED every place that the last
 * written state uses, and clears it.  Nothing may be frozen.  The places are free when a
 * superblock without this tree is durable. */
void btree_release_all (struct btree *tree, btree_released *released, void *arg);

/* Builds a tree from the device.  READ fetches the blocks at COUNT places (sorted
 * ascending, distinct), verified and mirrored as format.h says, checking each against
 * CHECKSUMS[i], and hands them to TAKE, in any order; 0, or negative errno, also of TAKE.  It is
 * called once for each level, so that reads can be merged, and many be under way while others are
 * taken.  IDENTITY: uuid, owner and kinds that the nodes must have.  Returns 0, what READ returned,
 * -ENOMEM, or -EUCLEAN: the nodes are no tree; TREE (initialized, empty) is then empty. */
typedef int btree_take (void *taker, size_t i, const void *image);
typedef int btree_read (void *arg, const uint64_t *places, const uint64_t *checksums, size_t count,
                        btree_take *take, void *taker);
int btree_load (struct btree *tree, const struct format_pointer *root,
                const struct format_node_identity *identity, btree_read *read, void *arg);
/* Calls VISIT for the place of every node of the present state that is on the device. */
void btree_visit_places (const struct btree *tree, void (*visit) (void *arg, uint64_t place),
                         void *arg);

/* Recounts and checks order, fill, depth, generations; CHECK fails on a bug.  For tests. */
void btree_verify (const struct btree *tree);

#endif
