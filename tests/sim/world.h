/* SPDX-License-Identifier: BSD-2-Clause */
/* world.h - a store on a simulated device, its clients, and the scheduler, in one thread.
 *
 * Nothing happens by itself: world_turn runs one step of one op, or completes one I/O, or lets a
 * period of the keeper's clock pass, as the seed says.  The clients' requests carry data that the
 * oracle knows; what comes back is judged at once.  A violation is printed, and world->is_failed
 * set; the world is of no use then.
 *
 * The world crashes the store (kill: the arena stays; power cut: it goes) and opens it again; then
 * all disks are read and judged.
 */
#ifndef LACUNA_TESTS_WORLD_H
#define LACUNA_TESTS_WORLD_H

#include "device/device-sim.h"
#include "oracle.h"
#include "random.h"
#include "store/store.h"

#define WORLD_CONTEXTS 4
#define WORLD_DISKS 4
#define WORLD_CLIENTS 24

struct world;

struct world_options {
  uint64_t seed;
  struct store_geometry geometry;
  uint64_t device_blocks, device_blocks_max;
  uint64_t cache_bytes, tail_bytes;
  uint64_t request_bytes_max;   /* longer ones are never asked for; 0: the engine's limit */
  unsigned contexts;
  bool has_arena;               /* a file; else private memory, and a kill is like a power cut */
  bool has_lints;               /* lint.h */
  bool is_tight;                /* so small that ENOSPC is to be expected */
  bool places_late;             /* what has no place is not written back without need */
  bool is_traced;
  bool is_plain;                /* requests start and end at once, clients do not die (explorer) */
  /* NULL: faults end with each opening.  Else they go on, and this ends them where an opening has
   * failed, or what was recovered cannot be read. */
  void (*end_faults) (struct world *world);
  /* how often what is chosen */
  unsigned step_weight, io_weight, tick_weight;
};

struct world_disk {
  bool exists;
  char name[DISK_NAME_MAX + 1];
  uint64_t size;
  struct oracle_disk oracle;
  unsigned users;               /* requests that hold it open */
  uint64_t shrunk;              /* time of the last shrink's end; NEVER while one runs */
  uint64_t shift_id;            /* of the last collapse or insertion that was done; 0: none */
  bool is_damaged;              /* it is to be there, and damaged: not used, not judged */
};

enum client_state { CLIENT_FREE, CLIENT_ADMITTING, CLIENT_ADMITTED, CLIENT_RUNNING, CLIENT_HELD };

struct world_client {
  struct request request;
  struct world *world;
  enum client_state state;
  unsigned disk;
  uint64_t change, begun, ended;
  uint64_t size;                /* of the disk when it began */
  bool is_late;                 /* the store had failed when it began */
  uint64_t sum;                 /* HELD: checksum of what was read */
  uint64_t zero_from, zero_to;  /* TRIM: what it zeroes */
  bool is_recovery;             /* READ by world_read_all: not judged as live */
  struct read_stream stream;
  struct status_extent extents[16];
};

/* Where a clone puts what; kept after the crash that cuts it off until all has been read. */
struct world_clone {
  bool is_running, is_cut;
  unsigned source, target;
  uint64_t change, from, to, length;
  bool was_done, was_not_done;
};

struct world_admin {
  struct admin admin;
  bool is_running;
  bool is_again;                /* a collapse or insertion that was done before */
  bool is_unknown;              /* it failed by a device fault, or was cut off: done or not */
  unsigned disk;
  uint64_t change, begun;
  uint64_t size;
};

struct world_totals {
  uint64_t requests, errors, enospc, admins, shifts, kills, power_cuts, open_crashes, opens, closes;
  uint64_t steps, ios, ticks, faults;
};

struct world {
  struct world_options options;
  struct random random;
  struct oracle oracle;
  struct sim_image *image;
  struct store *store;
  struct context *contexts[WORLD_CONTEXTS];
  struct world_disk disks[WORLD_DISKS];
  struct world_client clients[WORLD_CLIENTS];
  struct world_admin admin;
  struct world_clone clone;
  unsigned busy;                /* clients that are not FREE */
  uint64_t replies;             /* of all that were given, a number that tells them apart */
  uint64_t now;
  unsigned names;
  char directory[128];          /* of the arena; "": none */
  char arena_path[160];
  bool is_arena_lent;           /* by world_use_arena */
  bool reads_ahead;             /* is_plain: READs are parts of streams */
  bool is_faulty;               /* device faults were switched on since it was opened */
  bool is_starved;              /* allocations fail */
  bool may_lose_space;          /* for want of memory; until it is opened again */
  bool may_refuse, is_refused;  /* a damaged store: it may be refused; and it was */
  bool is_cut_off;              /* it could not be closed in order, for such a fault */
  bool is_failed;
  uint8_t *buffer;              /* of the largest request */
  uint64_t buffer_bytes;
  struct world_totals totals;
  struct lint *lint;            /* NULL: none */
};

/* Makes image and store, and opens it. */
struct world *world_create (const struct world_options *options);
/* Makes image and store, and leaves it closed. */
struct world *world_create_closed (const struct world_options *options);
/* A second world with a clone of the image and of the model, as they are now; no store is open in
 * it. */
struct world *world_clone (struct world *world, uint64_t seed);
/* Of image and model: worlds with the same are not to be told from each other after a power cut. */
uint64_t world_hash (struct world *world);
/* Gives a clone, which has none, an arena, at a path that is always the same; to one at a time. */
void world_use_arena (struct world *world);
bool world_open (struct world *world);
/* Whatever ends the program, no arena stays behind (but for SIGKILL).  Arenas lie in $LACUNA_SHM,
 * else in /dev/shm. */
void world_handle_signals (void);
/* What the engine logs goes nowhere. */
void world_log_nothing (void);
/* What is to be said if a check of the engine ends the program. */
void world_note (const char *format, ...) __attribute__ ((format (printf, 1, 2)));
/* Settles, closes the store in order, and has the image checked. */
bool world_close (struct world *world);
/* Whatever state it is in. */
void world_destroy (struct world *world);

/* Prints a violation. */
void world_fail (struct world *world, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));
void world_trace (struct world *world, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

/* One thing happens.  False: nothing can, but the clock. */
bool world_turn (struct world *world);
/* Takes in what has become ready everywhere; how many ops there are.  Then: the INDEX-th of
 * them. */
unsigned world_collect (struct world *world);
struct op *world_ready_op (struct world *world, unsigned index);
void world_step (struct world *world, struct op *op);
void world_complete (struct world *world, unsigned index);
/* Until all requests have ended (the clock runs too).  False: they do not end. */
bool world_settle (struct world *world);
/* What nobody waits for (reading ahead, the keeper) runs to its end; the clock stands still. */
bool world_drain (struct world *world);

/* Starts a request (WRITE: gets memory, starts later, in a turn).  False: no client is free, or it
 * was refused. */
bool world_request (struct world *world, unsigned context, unsigned disk, enum request_kind kind,
                    unsigned flags, uint64_t offset, uint64_t length);
bool world_create_disk (struct world *world, unsigned disk, uint64_t size);
bool world_delete_disk (struct world *world, unsigned disk);
bool world_resize_disk (struct world *world, unsigned disk, uint64_t size);
bool world_rename_disk (struct world *world, unsigned disk);
bool world_sync (struct world *world);
/* [offset, offset + length) of SOURCE appears in TARGET at TO, as far as that is within both. */
bool world_clone_range (struct world *world, unsigned source, uint64_t offset, uint64_t length,
                        unsigned target, uint64_t to);

/* ADMIN_COLLAPSE or ADMIN_INSERT. */
bool world_shift_range (struct world *world, unsigned disk, enum admin_kind kind, uint64_t offset,
                        uint64_t length);
/* The last one of this disk that was done, once more, under its id. */
bool world_shift_again (struct world *world, unsigned disk);

/* Reads all disks through the store, and judges as after a crash. */
bool world_read_all (struct world *world, enum crash_kind kind);

/* What must be true of the engine's structures when nothing runs. */
bool world_verify (struct world *world);

/* Ends the process, or the machine, now (if a store is open); then opens the store again, which may
 * be cut off OPEN_CRASHES times.  False: a violation. */
bool world_crash (struct world *world, enum crash_kind kind, unsigned open_crashes);
/* Settles, closes the store in order, checks the image, opens it again, and looks at everything. */
bool world_reopen (struct world *world);

#endif
