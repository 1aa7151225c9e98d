/* SPDX-License-Identifier: BSD-2-Clause */
/* pairs.h - the pairs of the explorer's tables, from real threads: whatever populates the cache or
 * uses mappings beside whatever deallocates.
 *
 * Rounds, each at a site of its own: three blocks of a disk that nobody has touched since the store
 * was opened.  One thread populates, one invalidates; a third one reads there meanwhile; and where
 * the store has no other space, a fourth one writes to another disk as soon as the invalidator has
 * ended, gets the block that was freed, and has it written back.  All are held up at random between
 * steps, and within (../sim/delays.c).  After the last site the store is closed, checked from
 * outside, opened, and read.
 *
 * Each sector that is written tells of which store, disk, address and operation it is.  The model
 * keeps that for each sector of three small disks, as one number, a stamp; 0 stands for zeros.  Two
 * acts that run at the same time may be seen by a READ as not done, as one done, or both, in either
 * order, sector by sector; when both have ended, as done in one order or the other, block by block.
 * An act that failed may have been done or not.
 *
 * As in the explorer, a site's block 0 is in nobody's way, and the invalidator's is block 1, or
 * block 2 if it cuts off the end.
 */
#ifndef LACUNA_TESTS_PAIRS_H
#define LACUNA_TESTS_PAIRS_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../sim/random.h"
#include "base/bytes.h"
#include "base/check.h"
#include "device/device-sim.h"
#include "store/store.h"

#define SITES_MAX 32            /* rounds in one store */
#define SITE_BLOCKS 3
#define DISKS 3
#define DISK_BLOCKS_MAX (SITES_MAX * SITE_BLOCKS + SITES_MAX)   /* each round may insert one */
#define DEVICE_BLOCKS 4096
#define SECTOR 512
#define BLOCK_SECTORS (BLOCK_SIZE / SECTOR)
#define BLOCKS(n) ((n) * BLOCK_SIZE)

/* --- acts --- */

/* The disk that both act on; the one that clones come from and go to; the one that gets what is
 * freed. */
enum pair_disk { SUBJECT, PARTNER, CHASER };

enum act_what {
  ACT_REQUEST, ACT_READ_AHEAD, ACT_WRITE_BACK, ACT_RESIZE, ACT_DELETE, ACT_COLLAPSE, ACT_INSERT,
  ACT_CLONE,
};

struct act {
  enum act_what what;
  enum request_kind kind;       /* REQUEST */
  unsigned flags;
  unsigned disk;                /* CLONE: the source */
  uint64_t offset, length;      /* bytes; RESIZE: OFFSET is the new size */
  unsigned target;              /* CLONE */
  uint64_t target_offset;
  uint32_t number;              /* WRITE: what its sectors tell */
};

#define REQUEST(...) { .what = ACT_REQUEST, __VA_ARGS__ }

/* --- table.c --- */

/* Acts are relative to the block, or (invalidators) to the site. */
struct populator {
  const char *name;
  struct act act;
  bool needs_dirty;             /* the block is dirty before; others: in one of four rounds */
};

struct invalidator {
  const char *name;
  struct act act;
  uint64_t block;               /* of the site, that it deallocates */
  bool is_without_space;        /* wants a store that has none left */
  bool ends_blocks;             /* requests may find the disk too short, or gone */
};

/* On one block; on two of one extent; and on one block that another disk gets. */
enum place { PLACE_SAME, PLACE_NEIGHBOUR, PLACE_REUSE, PLACES };

struct pair {
  const struct populator *populator;
  const struct invalidator *invalidator;
  enum place place;
  char name[64];
};

unsigned pair_count (void);
void pair_get (unsigned number, struct pair *pair);
void print_rows (void);

bool pair_is_scarce (const struct pair *pair);
bool pair_deletes (const struct pair *pair);
/* Nothing is written before: who fails and the other disk want the same block. */
bool pair_begins_empty (const struct pair *pair);
bool pair_has_partner_data (const struct pair *pair);
/* Of the site, that is populated. */
uint64_t pair_block (const struct pair *pair);

/* --- model.c: sectors --- */

#define STAMP_UNKNOWN UINT64_MAX

/* What a sector of a WRITE with this NUMBER is. */
void sector_fill (uint8_t *sector, uint64_t store, unsigned disk, uint64_t at, uint32_t number);
/* False: it was written by nobody, to another store, or is torn. */
bool sector_read (const uint8_t *sector, uint64_t store, uint64_t *stamp);
/* In words; returns BUFFER. */
const char *stamp_print (uint64_t stamp, char buffer[64]);

/* --- model.c: states --- */

struct image {
  bool exists;
  uint64_t blocks;
  uint64_t stamps[DISK_BLOCKS_MAX * BLOCK_SECTORS];
};

struct model {
  struct image disks[DISKS];
};

/* All that two acts may make of a state. */
enum { MODELS_MAX = 5 };

struct outcomes {
  struct model models[MODELS_MAX];
  bool are_ends[MODELS_MAX];    /* it may be what is left when both have ended */
};

void model_apply (struct model *model, const struct act *act);
void outcomes_find (struct outcomes *outcomes, const struct model *before, const struct act *a,
                    const struct act *b);
/* A, B, or both failed. */
void outcomes_fail (struct outcomes *outcomes, bool a, bool b);
/* Who looked beside both may find STAMP there. */
bool outcomes_allow (const struct outcomes *outcomes, unsigned disk, uint64_t sector,
                     uint64_t stamp);
/* Both have ended: STAMPS is what was found in the block; MODEL takes it. */
bool outcomes_settle (const struct outcomes *outcomes, unsigned disk, uint64_t block,
                      const uint64_t stamps[BLOCK_SECTORS], struct model *model);

/* --- one store, and who is at work on it --- */

enum role { INVALIDATES, POPULATES, READS, CHASES, ROLES };

struct worker {
  pthread_t thread;
  struct run *run;
  enum role role;
  struct random random;
  struct context *context;
  struct request request;
  struct read_stream stream;
  uint64_t requests, sectors;
  int error;                    /* of its act */
};

struct run {
  const struct pair *pair;
  uint64_t store_number, sites;
  struct sim_image *image;
  struct store *store;
  struct worker workers[ROLES]; /* the first one is the run's own thread, and leads the rounds */
  unsigned worker_count;
  pthread_barrier_t barrier;
  uint32_t number;              /* of the last WRITE */
  uint64_t refused;             /* for want of space, or of the disk */
  _Atomic bool is_failed;
  /* Of the round: set by its leader before the others begin. */
  uint64_t site;
  struct act acts[ROLES];
  struct outcomes outcomes;
  struct model model;
  _Atomic unsigned acting;      /* who populates, who invalidates */
  sem_t is_invalidated;
};

void run_fail (struct run *run, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

/* --- act.c --- */

/* Where the site begins, in its disk. */
uint64_t site_offset (const struct run *run);
struct act act_write (struct run *run, unsigned disk, uint64_t offset, uint64_t length);
struct act act_read (unsigned disk, uint64_t offset, uint64_t length);
/* All return 0 or negative errno.  STAMPS: of a READ or BLOCK_STATUS, or NULL. */
int run_act (struct worker *worker, const struct act *act, uint64_t *stamps);
int run_admin (struct worker *worker, enum admin_kind kind, const struct act *act);
/* What the keeper does by itself when something has been dirty for long. */
void run_write_back (struct run *run);
/* Nobody else is at work: it is done, and in the model, or refused. */
int run_alone (struct worker *worker, const struct act *act);

/* --- round.c --- */

/* What a site holds before anything happens there. */
struct act site_write (const struct run *run);
void *worker_main (void *worker);
/* The leader's part of the round at RUN's site, and its judgement. */
void run_round (struct worker *leader);

/* --- store.c --- */

/* Makes a store on RUN's image, and runs all rounds. */
void run_store (struct run *run);

#endif
