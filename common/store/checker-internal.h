/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-internal.h - what the files of the checker share.
 *
 *   checker.c             opening, order of work, summary
 *   checker-report.c      findings, for people and as JSON
 *   checker-superblock.c  the four copies, geometry
 *   checker-tree.c        nodes and trees of any kind
 *   checker-disk.c        catalogue, disk nodes, maps, shared runs
 *   checker-space.c       who owns which blocks
 *   checker-shared.c      the table of shared runs, made anew
 *   checker-journal.c     the chain of records
 *   checker-replay.c      what the records do
 *   checker-repair.c      what is to be written to put it right
 *
 * "Invariant n" in comments is that of lacuna-format(5).
 */
#ifndef LACUNA_CHECKER_INTERNAL_H
#define LACUNA_CHECKER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "store/checker.h"

/* --- the page's constants, once more --- */

enum {
  CHECKER_BLOCK = 4096,
  CHECKER_NODE_HEADER = 64,
  CHECKER_LEAF_MAX = 252,
  CHECKER_INNER_MAX = 168,
  CHECKER_LEVEL_MAX = 11,
  CHECKER_NAME_MAX = 255,
  CHECKER_PATH_MAX = 1024,
  CHECKER_HALF_MIN = 16,
  CHECKER_GROUP_MAX = 1 << 30,
};
#define CHECKER_PLACE_END (UINT64_C (1) << 42)
#define CHECKER_SIZE_MAX ((UINT64_C (1) << 63) - CHECKER_BLOCK)
#define CHECKER_NO_PLACE UINT64_MAX

enum checker_item_kind {
  CHECKER_MAP = 1, CHECKER_UNMAP, CHECKER_RETIRE, CHECKER_CREATE, CHECKER_RENAME, CHECKER_RESIZE,
  CHECKER_DELETE, CHECKER_FORGET, CHECKER_DATA, CHECKER_COLLAPSE, CHECKER_INSERT, CHECKER_CLONE,
};

static inline uint64_t
checker_number (const uint8_t *bytes, unsigned count)
{
  uint64_t value = 0;

  while (count-- > 0)
    value = value << 8 | bytes[count];
  return value;
}

static inline uint16_t checker_u16 (const uint8_t *at) { return checker_number (at, 2); }
static inline uint32_t checker_u32 (const uint8_t *at) { return checker_number (at, 4); }
static inline uint64_t checker_u64 (const uint8_t *at) { return checker_number (at, 8); }

/* --- what has been read --- */

struct checker_pointer {
  uint64_t place;
  uint64_t checksum;
};

struct checker_superblock {
  uint32_t version;
  uint32_t is_clean;
  uint64_t incompat, ro_compat;
  uint8_t uuid[16];
  uint64_t sequence;
  uint64_t group_blocks, meta_blocks, journal_place, journal_half_blocks, capacity;
  struct checker_pointer catalogue, shared;
  uint64_t next_disk_id;
  uint64_t journal_position, journal_sequence;
  uint32_t journal_half, journal_durable;
  uint64_t journal_salt, journal_chain;
  uint64_t opened;
  char arena_path[CHECKER_PATH_MAX + 1];
};

struct checker_disk {
  uint64_t id;
  uint64_t node_place;             /* CHECKER_NO_PLACE: only the journal knows it */
  uint64_t size;                   /* bytes */
  struct checker_pointer map;
  uint64_t mapped;                 /* blocks, as the disk node says */
  uint64_t data_end;               /* where its extents end; 0: the disk node does not say */
  uint64_t found;                  /* blocks, as the map says */
  uint64_t beyond;                 /* of these, beyond the disk's size */
  bool is_dying;
  bool is_forgotten;               /* by the journal */
  bool has_damaged_map;
  bool is_stale;                   /* its map does not count */
  char name[CHECKER_NAME_MAX + 1]; /* "" if dying */
};

struct checker_shared {
  uint64_t place, length;
  uint64_t owners;
};

/* What made an extent the owner of its blocks. */
enum checker_origin { CHECKER_BY_TREE, CHECKER_BY_MAP, CHECKER_BY_CLONE };

/* One owner of a run of the store. */
struct checker_run {
  uint64_t place;
  uint64_t block;                  /* of the disk */
  uint32_t length;
  uint32_t disk : 30;              /* index */
  uint32_t origin : 2;
  uint64_t order;                  /* of the item that made it so; 0: the trees */
};

enum checker_state { CHECKER_HOLE, CHECKER_UNWRITTEN, CHECKER_WRITTEN };

/* What one item does to [first, end) of a disk: to its map, or to DATA (then WRITTEN means that
 * there is data, HOLE that what was there is void). */
struct checker_change {
  uint64_t disk;                   /* id */
  uint64_t first, end;
  uint64_t place;
  uint64_t order;                  /* later ones win */
  enum checker_state state;
  enum checker_origin origin;      /* of what is mapped */
};

struct checker_range {
  uint64_t first, end;
};

struct checker_changes {
  struct checker_change *items;
  size_t count, max;
};

/* What a COLLAPSE or INSERT does to whatever was there before it: from BLOCK + LENGTH on it moves down
 * by LENGTH, and what lies below that, from BLOCK on, goes; or from BLOCK on it moves up. */
struct checker_shift {
  uint64_t disk;                   /* id */
  uint64_t block, length;
  bool is_up;
};

/* Places of nodes seen; open addressing, 0 is free (place 0 is no node). */
struct checker_set {
  uint64_t *slots;
  size_t count, max;
};

struct checker_report;
struct checker_plan;

struct checker {
  const struct checker_reader *reader;
  struct checker_report *report;
  struct checker_plan *plan;       /* NULL: nothing is to be repaired */
  bool is_planning;                /* the first walk */

  struct checker_superblock super;
  uint8_t super_block[CHECKER_BLOCK];   /* as read */
  bool needs_superblock;           /* a new one, of the next sequence */
  bool is_cut;                     /* because of the journal */

  struct checker_disk *disks;
  size_t disk_count, disk_max;
  size_t disk_last;                /* found last */
  bool has_damaged_catalogue;      /* there may be more disks */
  struct checker_range *lost;      /* the ids that they may have, the last ones included */
  size_t lost_count, lost_max;
  bool has_damaged_shared;
  struct checker_shared *shared;
  size_t shared_count, shared_max;
  bool is_shared_wrong;            /* it does not agree with the maps */
  struct checker_shared *counted;  /* what it should be, if a repair is planned */
  size_t counted_count, counted_max;

  struct checker_set nodes;
  uint64_t node_count;
  uint64_t extent_count;
  struct checker_run *runs;        /* of the state under judgement */
  size_t run_count, run_max;
  uint64_t owned;                  /* blocks with an owner, in it */

  /* the journal */
  bool has_broken_chain;           /* what follows the break is not known */
  uint64_t record_count, item_count;
  uint64_t homeless;               /* blocks of DATA that are not mapped */
  struct checker_changes map_changes, data_changes;
  struct checker_shift *shifts;    /* in order; the changes are moved already, the trees are not */
  size_t shift_count, shift_max;
};

/* --- checker-report.c --- */

enum checker_severity { CHECKER_NOTE, CHECKER_REPAIRABLE, CHECKER_DAMAGE };

/* Where something was found; unknown parts are NULL or CHECKER_NO_PLACE. */
struct checker_where {
  const char *structure;           /* "map leaf", "journal record" ... */
  uint64_t place;
  const struct checker_disk *disk;
};

/* PATH: the store's, for the message that it is unusable, which then goes to stderr; NULL: to
 * OUT. */
struct checker_report *checker_report_create (const char *path, FILE *out, bool json);
/* CONSEQUENCE: what follows from it; NULL: nothing more. */
void checker_find (struct checker *checker, enum checker_severity severity,
                   struct checker_where where, const char *consequence, const char *format, ...)
  __attribute__ ((format (printf, 5, 6)));
/* While quiet, nothing is reported: the same trees are walked once more. */
void checker_report_quiet (struct checker_report *report, bool is_quiet);
/* Writes the end (and, as JSON, everything), frees REPORT, and returns the verdict. */
int checker_report_end (struct checker *checker, struct checker_report *report);
/* As checker_report_end, for a store that cannot be checked. */
int checker_report_unusable (struct checker_report *report, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

/* --- checker-repair.c --- */

/* Each is on the device before the next one begins. */
enum checker_phase {
  CHECKER_PHASE_COPIES,            /* of what is valid elsewhere */
  CHECKER_PHASE_NODES,             /* first copies of nodes that change */
  CHECKER_PHASE_ROOTS,             /* and of disk nodes, which nothing has a checksum of */
  CHECKER_PHASE_SUPERBLOCK,
  CHECKER_PHASE_SECONDS,           /* second copies of all these */
};

struct checker_plan *checker_plan_create (void);
void checker_plan_free (struct checker_plan *plan);
/* BLOCK is to be written to PLACE. */
void checker_fix (struct checker *checker, enum checker_phase phase, uint64_t place,
                  const uint8_t *block);
/* Both copies of a node that has changed; seals it. */
void checker_fix_node (struct checker *checker, bool is_disk_node, uint64_t place, uint8_t *image);
/* What is done, for people. */
void checker_fix_tell (struct checker *checker, bool is_dropped, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));
void checker_put (uint8_t *at, uint64_t value, unsigned bytes);
/* Puts its checksum into a node or superblock. */
void checker_seal (uint8_t *block);
/* How many blocks there are to be written. */
size_t checker_plan_print (const struct checker_plan *plan, FILE *out);
/* 0 or negative errno. */
int checker_plan_apply (struct checker_plan *plan, const struct checker_reader *reader);

/* --- checker.c --- */

/* Room for one more element at *COUNT; ends the process if there is no memory. */
void *checker_array_add (void *array, size_t *count, size_t *max, size_t size);
/* Reads a block; beyond the end there are zeros.  0 or negative errno. */
int checker_read (struct checker *checker, uint64_t place, uint8_t *block);
bool checker_is_zero (const uint8_t *bytes, size_t count);
/* XXH3 of BLOCK with SIZE bytes at OFFSET as zeros. */
uint64_t checker_checksum (const uint8_t *block, unsigned offset, unsigned size, uint64_t seed);

/* --- checker-superblock.c --- */

/* NULL: the newest valid one is in checker->super.  Else why there is none to work with;
 * *IS_DAMAGE tells a damaged store from something else. */
const char *checker_superblocks (struct checker *checker, bool *is_damage);
/* Plans the new superblock, if one is needed. */
void checker_superblock_fix (struct checker *checker);

/* --- checker-tree.c --- */

struct checker_tree {
  const char *root_name, *inner_name, *leaf_name;
  uint32_t leaf_kind, inner_kind;
  uint64_t owner;
  struct checker_disk *disk;       /* NULL: none */
  unsigned key_shift;              /* bits of the key that are no part of the order */
  /* Each entry, in the order of the tree (which may be wrong, if that was reported).  False: it
   * leads to nothing that could be read, and a repair leaves it out. */
  bool (*entry) (struct checker *checker, const struct checker_tree *tree, uint64_t place,
                 uint64_t key, uint64_t value);
  /* Says what follows if the keys [low, high] cannot be read. */
  void (*lost) (struct checker *checker, const struct checker_tree *tree, uint64_t low,
                uint64_t high, char *consequence, size_t size);
  bool *is_damaged;                /* set if any of it cannot be read */
  /* The keys [low, high] cannot be read; NULL: nobody wants to know. */
  void (*dropped) (struct checker *checker, uint64_t low, uint64_t high);
  void *arg;                       /* for entry */
};

/* Returns the pointer to the root as it is to be: another one only where nodes were lost and a
 * repair is planned, which leaves them out. */
struct checker_pointer checker_tree_walk (struct checker *checker, const struct checker_tree *tree,
                                          struct checker_pointer root);
/* The two copies of one node into IMAGE; false: neither is valid (reported, with CONSEQUENCE).
 * CHECKSUM NULL: no pointer has one. */
bool checker_node_load (struct checker *checker, struct checker_where where, uint32_t kind,
                        uint64_t owner, const uint64_t *checksum, const char *consequence,
                        uint8_t *image);
/* Likewise for a node that has been loaded before; says nothing. */
bool checker_node_reload (struct checker *checker, uint32_t kind, uint64_t owner, uint64_t place,
                          uint8_t *image);
void checker_set_clear (struct checker_set *set);
bool checker_set_has (const struct checker_set *set, uint64_t place);

/* --- checker-disk.c --- */

void checker_disks (struct checker *checker);
void checker_shared_runs (struct checker *checker);
/* Walks the maps of all disks and fills checker->runs: with what the trees say, or, IS_REPLAYED,
 * with what they say after the journal's changes. */
void checker_maps (struct checker *checker, bool is_replayed);
/* What the journal's changes so far leave mapped of [first, end) of a disk, ascending; *PIECES is
 * malloc'd. */
size_t checker_map_now (struct checker *checker, struct checker_disk *disk, uint64_t first,
                        uint64_t end, struct checker_change **pieces);
struct checker_disk *checker_disk_find (struct checker *checker, uint64_t id);
/* Whether there may have been such a disk in what of the catalogue, and of disk nodes, cannot be read. */
bool checker_disk_is_lost (struct checker *checker, uint64_t id);
/* NULL, or what is wrong with a name. */
const char *checker_name_fault (const uint8_t *name, size_t length);
/* The living disk with this name, other than EXCEPT; NULL: none. */
struct checker_disk *checker_disk_named (struct checker *checker, const char *name,
                                         const struct checker_disk *except);

/* --- checker-space.c --- */

/* NULL, or why a run cannot hold data (invariant 8). */
const char *checker_run_fault (struct checker *checker, uint64_t place, uint64_t length,
                               bool is_written);
/* CHANGE: the journal's that mapped it; NULL: the trees have it. */
void checker_run_add (struct checker *checker, uint64_t place, uint64_t block, uint64_t length,
                      const struct checker_disk *disk, const struct checker_change *change);
/* Judges checker->runs (invariant 9), and empties it. */
void checker_owners (struct checker *checker, bool is_replayed);
/* Blocks that can hold data at all; UINT64_MAX: not limited. */
uint64_t checker_data_blocks (const struct checker *checker);

/* --- checker-shared.c --- */

/* A run has so many owners, 2 or more, by the maps.  In the order of places. */
void checker_shared_count (struct checker *checker, uint64_t place, uint64_t length,
                           uint64_t owners);
/* Plans a new table, if the one that there is is wrong. */
void checker_shared_fix (struct checker *checker);

/* --- checker-journal.c --- */

void checker_journal (struct checker *checker);

/* --- checker-replay.c --- */

/* Takes in the items of one record. */
void checker_replay_record (struct checker *checker, uint64_t place, uint64_t position,
                            const uint8_t *items, size_t bytes, uint64_t data_count);
/* Blocks of DATA in ITEMS' last items: how many bytes of items these take. */
size_t checker_data_item_bytes (const uint8_t *items, size_t bytes);
void checker_change_add (struct checker_changes *changes, struct checker_change change);
/* Makes the changes of one disk disjoint and ascending, the latest on top; *RESULT is malloc'd. */
size_t checker_paint (const struct checker_changes *changes, uint64_t disk,
                      struct checker_change **result);
void checker_changes_sort (struct checker_changes *changes);
/* The parts of [first, end) that SHIFT leaves, where it puts them: *PARTS, and in *SKIPPED how far
 * behind FIRST each began; how many, at most 2. */
unsigned checker_shift_parts (const struct checker_shift *shift, uint64_t first, uint64_t end,
                              struct checker_range parts[2], uint64_t skipped[2]);
/* The first of COUNT painted changes that ends after BLOCK; COUNT: none. */
size_t checker_painted_after (const struct checker_change *painted, size_t count, uint64_t block);
/* Judges the maps after the replay (second walk), and what remains of DATA. */
void checker_replay_end (struct checker *checker);

#endif
