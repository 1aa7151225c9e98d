/* SPDX-License-Identifier: BSD-2-Clause */
/* store-internal.h - the engine's own structures: what the ops and the keeper share.
 *
 * Order of waits (an op never waits for something to the left of what it holds; order.h checks it):
 *
 *   admission (in flight, dirty) -> admin lock -> tail room -> range lock -> write-back
 *     -> maps lock -> upgrade of a range -> reservation -> frame being filled -> device -> gate
 *     -> commit
 *
 *   admission    cache_charge, cache_charge_dirty: frames, as numbers.  Those in flight are held to
 *                the end of the request.
 *   admin lock   create, resize, rename, delete: one at a time.
 *   tail room    journal_reserve: bytes of items that the op will append.
 *   range lock   see range-lock.h.  Never waited for while another is held, but by two: write-back,
 *                which has several at once, waits for its first and tries the others; and the
 *                cloning of a range, which is an administrative op, has two QUIESCE.
 *   write-back   keeper_write_back, while a range is held: only one that is held QUIESCE.
 *   maps lock    one op that changes maps in steps, or the checkpoint that has frozen them.  Who
 *                holds it waits for an upgrade or for the device, and for nothing else but, the
 *                checkpoint, for a commit that does not wait for it (commit_join_items).
 *   upgrade      of a QUIESCE: waits for those who hold the range SHARED, and these for the device.
 *   reservation  never waited for while a range lock is held: that is given up, what was freed is
 *                committed, and all is tried again.
 *   gate         a rwlock, held across no wait: publishers {append items, change the map, settle or
 *                drop frames} shared; those who collect {the tail's end, frames for a record,
 *                frozen trees} exclusive.
 *   commit       an op that waits for a commit holds none of the above but its admission, and an
 *                administrative one the admin lock, what it has left of tail room, and, after a
 *                shift, a range in QUIESCE: nobody whom a commit waits for wants them.
 *
 * Mutexes, held across no wait and no call upward: range_lock's, extent_map's, space's, journal's,
 * the cache's (cache-internal.h has their order), disks_mutex, commit's, keeper's.  The gate is
 * taken before any of them.  Two may be held while another is taken: disks_mutex (a map's, or the
 * cache's), a map's (space's, the pool of nodes'), and space's (the pool's).  A context's mailbox
 * is lock-free.
 */
#ifndef LACUNA_STORE_INTERNAL_H
#define LACUNA_STORE_INTERNAL_H

#include <inttypes.h>
#include <pthread.h>

#include "base/checksum.h"
#include "store/arena.h"
#include "store/btree.h"
#include "store/cache.h"
#include "store/extent-map.h"
#include "store/journal.h"
#include "store/order.h"
#include "store/range-lock.h"
#include "store/request-ids.h"
#include "store/space.h"
#include "store/store.h"

/* Blocks that a request's slow path handles at once. */
#define WINDOW_BLOCKS 256
/* Reads in flight for one window. */
#define WINDOW_IOS 32
/* FLUSH with at most this many dirty blocks puts them into the record; more are written to their
 * places first.  256 KiB: as measured (make bench-threshold). */
#define COMMIT_SMALL_BLOCKS 64
/* Blocks in one record, of all that joined it. */
#define COMMIT_BLOCKS_MAX 256
/* Frames in one batch of write-back. */
#define WRITEBACK_BLOCKS_MAX 8192
/* A file without --capacity: 256 TiB of blocks, more than file systems hold in one file. */
#define STORE_UNLIMITED_BLOCKS (UINT64_C (1) << 36)
/* A file grows by multiples of this (64 MiB); it is sparse. */
#define STORE_GROW_BLOCKS (64 * MIB / BLOCK_SIZE)
/* Extents that one step of TRIM, WRITE_ZEROES, shrink or delete touches before others get their
 * turn. */
#define ZERO_STEP_EXTENTS 1024

/* --- disk.c --- */

struct disk {
  /* immutable */
  struct store *store;
  uint64_t id;
  uint8_t uuid[16];
  uint64_t created;

  /* after the opening: immutable; see recovery-damaged.c */
  bool is_damaged;                  /* what it maps is not known; then its map here is empty */
  bool is_stale;                    /* and will not be, whatever can be read again */
  bool has_lost_node;               /* not even its disk node can be read: name and size are not its
                                       own */
  bool is_unreadable;               /* damaged, as far as the device can be read now */
  bool is_given_up;                 /* damaged, and the journal or the arena has changes of it */
  struct format_pointer lost_map;   /* the root that its disk node has, and keeps */
  uint64_t lost_mapped;
  uint64_t lost_end;                /* its data_end (format.h) */

  /* own locks inside */
  struct cache_disk cache;
  struct extent_map map;
  struct range_lock range_lock;

  /* atomic */
  _Atomic uint64_t size;            /* bytes; changed within the gate, range beyond held
                                       exclusive */
  _Atomic uint64_t last_position;   /* journal position after its newest item */
  _Atomic unsigned references;      /* disk_open, and the keeper's work on it */
  _Atomic unsigned readaheads;      /* in flight, for somebody who has it open, or had */
  _Atomic uint64_t placements;      /* how often write-back has given blocks another place, or one */
  _Atomic bool has_write_error;     /* a write-back failed and has not succeeded since */
  _Atomic bool is_changed;          /* its disk node must be written by the next checkpoint */

  /* the admin lock; changed within the gate */
  struct request_ids request_ids;

  /* store->disks_mutex */
  char name[DISK_NAME_MAX + 1];
  unsigned size_holds;              /* disk_hold_size */
  uint64_t shrinks_to;              /* bytes; 0: it does not */
  bool is_dying;                    /* deleted: it has no name any more */
  bool is_deleted;                  /* and that is durable: the keeper may free its extents */
  bool is_forgotten;                /* replay: and that its extents are gone, too */
  struct list link;

  /* the keeper's */
  int write_error;                  /* of the last write-back that failed, */
  uint64_t error_version;           /* and no frame that it failed for is newer */
  uint64_t node_place;              /* of its disk node on the device; 0: never written */
  uint64_t new_node_place;          /* of the checkpoint being written */
  struct list frozen_link;          /* in the checkpoint's list; empty: not frozen */
  uint64_t frozen_size;
  uint64_t frozen_mapped;
  char frozen_name[DISK_NAME_MAX + 1];
  bool frozen_is_dying;
  struct request_ids frozen_request_ids;
};

struct disk *disk_create (struct store *store, uint64_t id, const uint8_t uuid[16],
                          const char *name, uint64_t size, uint64_t created);
void disk_destroy (struct disk *disk);
/* While the store is being opened: a new disk.  False: no memory. */
bool disk_add_opening (struct disk *disk);
void disk_end_opening (struct store *store);
struct disk *disk_find (struct store *store, const char *name);      /* disks_mutex held */
struct disk *disk_find_id (struct store *store, uint64_t id);        /* disks_mutex held, or
                                                                        opening */
/* The disk whose items these are has changed up to POSITION. */
void disk_note_position (struct disk *disk, uint64_t position);
uint64_t disk_blocks (const struct disk *disk);
void disk_space_free (void *store, uint64_t place, uint64_t length); /* an extent_unmapped */
/* Memory for CHANGES changes of the disk's map that unmap RUNS extents.  0 or -ENOMEM. */
int disk_reserve_changes (struct disk *disk, unsigned changes, uint64_t runs);
/* Memory for changing a range of EXTENTS extents, over RUNS runs of the table of shared ones, while
 * there is no checkpoint.  0 or -ENOMEM. */
int disk_reserve_many (struct disk *disk, uint64_t extents, uint64_t runs, bool is_sharing);

/* --- what ops ask of commit and keeper --- */

/* Joins the next record; see commit_join. */
struct commit_request {
  struct waiter *waiter;            /* woken when done */
  struct disk *disk;                /* NULL: items only */
  uint64_t version;                 /* fresh frames of the disk up to this one; 0: none */
  uint64_t first, count;            /* or those of these blocks, if count > 0, */
  uint64_t second;                  /* and of this one, if not 0 (the far edge of a WRITE_ZEROES) */
  bool is_seal;                     /* a record even if there is nothing for it: commit_is_bare */
  bool is_switch;                   /* the checkpoint's: go over to the other half first */
  bool is_items_only;               /* the checkpoint's: see commit_join_items */
  int error;
  struct list link;
};

/* See keeper_write_back. */
struct writeback_request {
  struct waiter *waiter;
  struct disk *disk;                /* NULL: all */
  uint64_t version;                 /* everything published up to here is to be in its place */
  int error;
  struct list link;
};

/* --- fill.c: the slow path of READ, CACHE and partial WRITE --- */

enum fill_state { FILL_KNOWN, FILL_MINE, FILL_BUSY };

struct fill {
  struct list link;                 /* in the store's pool of unused ones */
  struct range_request range;
  struct journal_waiter tail;
  uint64_t first;                   /* block of frames[0] */
  unsigned count;
  uint64_t placements;              /* of the disk, before the map was looked at */
  struct frame **frames;            /* the op's; FRAME_UNKNOWN on entry where it is to be found */
  enum fill_state states[WINDOW_BLOCKS];
  struct extent extents[WINDOW_BLOCKS];
  unsigned extent_count;
  struct op_io ios[WINDOW_IOS];
  unsigned io_first[WINDOW_IOS];    /* index of its first frame */
  unsigned io_count;
  struct iovec segments[WINDOW_BLOCKS];
  struct frame *edge;               /* WRITE: the old content of a partly written block */
  bool needs_space[WINDOW_BLOCKS];  /* WRITE: blocks of the locked range that have none promised */
  struct commit_request commit;
  struct writeback_request writeback;
};

#define FRAME_UNKNOWN ((struct frame *) -1)

struct fill *fill_acquire (struct store *store);                   /* NULL: no memory */
void fill_release (struct store *store, struct fill *fill);
/* Finds out about the FRAME_UNKNOWN among frames[0..count) of blocks FIRST on; range held shared.
 * Frames found or being read are referenced; holes become NULL.  Starts the reads, for which OP
 * waits (op_expect).  Returns how many of COUNT blocks it took on, > 0: fewer if they are very
 * scattered.  BUSY ones are FILLING by others.  With IS_OPTIONAL frames that cannot be had are left
 * FRAME_UNKNOWN. */
unsigned fill_start (struct fill *fill, struct op *op, struct disk *disk, uint64_t first,
                     struct frame **frames, unsigned count, bool is_optional);
/* All reads have ended: publishes the frames.  0, or -EIO.  Those that failed, or were replaced
 * meanwhile, are FRAME_UNKNOWN again. */
int fill_finish (struct fill *fill, struct store *store, struct list *wake);

/* --- commit.c --- */

struct commit {
  pthread_mutex_t mutex;
  struct list queue;                /* of requests that wait for the next record */
  bool is_running;
  /* the running commit's */
  struct op op;
  struct list batch;
  struct op_io io;
  struct op_io flush;
  uint8_t *buffer;                  /* header block and items */
  size_t buffer_bytes;
  struct frame **frames;
  uint32_t frame_count;
  struct iovec segments[COMMIT_BLOCKS_MAX + 1];
  uint64_t position_end;
  uint64_t space_batch;
  uint64_t record_blocks;
  uint64_t record_checksum;
  XXH3_state_t *hash;
  uint32_t small_blocks;            /* COMMIT_SMALL_BLOCKS, less with a tiny journal or cache */
  /* where the next record goes: the running commit's, and the opener's */
  unsigned half;
  uint64_t head;                    /* block in the half */
  uint64_t sequence;
  uint64_t chain;
  uint64_t salt;
  uint64_t half_sequence;           /* of the first record of this half, */
  uint64_t half_chain;              /* and what precedes it */
  uint32_t epoch;                   /* counts the switches of halves */
  bool is_seal;                     /* the record is wanted for its own sake, */
  bool is_empty;                    /* and has nothing in it */
  bool is_items_only;               /* the record is a checkpoint's: the end of the half is for that */
  uint64_t sealed;                  /* `sequence' after the last record that needs none to follow */
  uint64_t tick_sequence;           /* `sequence' when the clock ticked last */
  bool is_waiting;                  /* for the other half (mutex) */
  _Atomic bool other_is_free;
};

int commit_init (struct store *store);
void commit_destroy (struct store *store);
/* Joins the next record.  OP has op_expect'ed; its waiter is woken when it is durable or failed
 * (request->error). */
void commit_join (struct store *store, struct commit_request *request, struct op *op);
/* The same for all items until now, by the checkpoint.  A commit that waits for the checkpoint lets it
 * pass: there is room for that in each half.  If that is not enough, REQUEST ends undone. */
void commit_join_items (struct store *store, struct commit_request *request, struct op *op);
/* A checkpoint freed the other half, or the store failed. */
void commit_half_freed (struct store *store);
/* Once per tick: whether the newest record has been that for a tick, and has something in it.  When
 * there is a record behind it, damage to it can be told from a write that was interrupted. */
bool commit_is_bare (struct store *store);
/* FLUSH and FUA with at most this many blocks put them into the record. */
uint32_t commit_small_blocks (const struct store *store);
/* How full the current half is, 0..100. */
unsigned commit_half_percent (struct store *store);

/* --- writeback.c, checkpoint.c, keeper.c --- */

/* A run of dirty blocks of one disk, locked as one. */
struct writeback_run {
  struct disk *disk;
  uint32_t first, count;            /* in frames[] */
  struct range_request range;
};
/* A part of a run that goes to one place. */
struct writeback_piece {
  struct disk *disk;
  uint64_t block, place;
  uint32_t first, count;            /* in frames[] */
  uint32_t io;
  bool is_new;                      /* allocated for this write: to be mapped */
  bool is_moved;                    /* and mapped elsewhere before, where a write failed */
  bool was_unwritten;               /* mapped: to be marked as written */
};

struct writeback {
  int stage;
  enum collect_kind kind;
  uint64_t version;
  uint32_t epoch;
  struct disk *only;                /* NULL: all disks */
  bool is_checkpoint;               /* may use the last quarter of the tail */
  uint32_t max;                     /* frames in a batch */
  struct frame **frames;
  uint32_t frame_count;
  struct writeback_run *runs;
  uint32_t run_count;
  struct writeback_piece *pieces;
  uint32_t piece_count;
  struct op_io *ios;
  uint32_t io_count;
  struct iovec *segments;
  uint32_t segment_count;
  struct extent extents[WINDOW_BLOCKS];
  struct op_io flush;
  uint64_t tail_bytes;              /* reserved for items, not used yet */
  bool needs_room;                  /* nothing was done: the tail is too full */
  bool has_committed;               /* for room, once per batch */
  struct commit_request commit;
  int error;                        /* of the batch */
};

enum checkpoint_kind {
  CHECKPOINT_RUNNING,               /* while the store is in use */
  CHECKPOINT_OPENING,               /* after a recovery: starts a new journal; nothing was committed
                                       yet */
  CHECKPOINT_FINAL,                 /* of a clean shutdown: everything to its place, marked clean */
};

struct checkpoint {
  int stage;
  enum checkpoint_kind kind;
  struct commit_request commit;
  uint64_t position;                /* the frozen state holds all items before it */
  uint64_t data_end;                /* and no extent beyond this place */
  uint64_t space_batch;
  struct format_superblock *superblock;   /* the new one; a block */
  /* the walk over what is to be written */
  struct list frozen;               /* disks; the table's own order changes with names */
  struct disk *disk;                /* whose map is being written; NULL: the catalogue */
  bool has_maps;                    /* they are written */
  bool is_shared_frozen, is_catalogue_frozen, is_writer_active;
  struct btree_writer writer;
  /* one batch of nodes */
  uint8_t *buffer;
  uint64_t *places;
  unsigned node_count;
  struct op_io *ios;
  struct iovec *segments;
  unsigned io_count;
  struct op_io flush;
  struct iovec superblock_segment;
  /* disk nodes that are not referred to any more when the superblock is durable */
  uint64_t *freed;
  size_t freed_count, freed_max;
  unsigned failed_batches;          /* of write-back, with none between that did not fail */
  bool is_metadata_full;
  bool has_maps_lock;
  int error;
};

/* Nodes written at once. */
#define CHECKPOINT_NODES 256
/* Ticks (seconds) after which dirty blocks go to their places without need. */
#define KEEPER_TICKS_OLD 5
/* So many batches of write-back that fail, one after the other, say that the device takes no data
 * any more. */
#define KEEPER_FAILED_BATCHES 3

enum keeper_activity { KEEPER_CHOOSE, KEEPER_CHECKPOINT, KEEPER_REQUEST, KEEPER_WRITEBACK };

struct keeper {
  struct context *context;
  pthread_t thread;
  bool has_thread;
  _Atomic bool is_stopping;

  /* mutex: */
  pthread_mutex_t mutex;
  bool is_parked, is_kicked;
  struct list requests;             /* writeback_request */
  struct list discard_waiters;      /* struct waiter: for what is being passed down */
  bool is_passing_down;
  bool checkpoint_wanted;
  int checkpoint_now;               /* enum checkpoint_kind + 1: keeper_checkpoint_now's; 0: none */

  /* the keeper's thread: */
  struct op op;
  enum keeper_activity activity;
  struct writeback writeback;
  struct checkpoint checkpoint;
  struct op commit_op;              /* commits for the sake of room and age */
  struct commit_request commit;
  bool is_committing;
  bool is_held;                     /* does nothing but commit */
  struct op discard_op;             /* passes free space down */
  struct op_io discard;
  uint64_t discard_place, discard_length;
  bool is_discarding;
  _Atomic bool is_discard_stuck;    /* what the host holds is promised: not before the next tick */
  bool commit_wanted, seal_wanted;
  uint64_t tick_versions[KEEPER_TICKS_OLD];
  uint64_t old_version;             /* what is older goes to its place without need */
  uint64_t tick_position;
  unsigned backoff_ticks;           /* after an error of write-back */
  unsigned fullness;                /* the highest mark that was passed, percent */
  unsigned failed_batches;          /* of write-back, one after the other */
  uint64_t unmapped_max;            /* dirty blocks that have no place: so many go to one without need;
                                       only tests change it */
  int checkpoint_error;             /* of the last one */
  _Atomic bool is_done;             /* keeper_checkpoint_now */
};

int keeper_init (struct store *store);
void keeper_destroy (struct store *store);
int keeper_start_thread (struct store *store);
void keeper_stop_thread (struct store *store);
/* Runs until nothing of the keeper's own is under way; no thread, no requests.  Blocks. */
void keeper_settle (struct store *store);
/* There may be something to do.  Any thread. */
void keeper_kick (struct store *store);
/* Whether a kick is worth it: cheap.  And for the sake of what is dirty alone: cheaper. */
bool keeper_has_work (struct store *store);
bool keeper_wants_writeback (struct store *store);
/* A period of the keeper's clock (a second) has passed.  On the keeper's thread. */
void keeper_tick (struct store *store);
/* All of DISK up to VERSION to its place; OP has op_expect'ed. */
void keeper_write_back (struct store *store, struct writeback_request *request, struct op *op);
void keeper_want_checkpoint (struct store *store);
/* WAITER is woken when what is being passed down now is free.  False: nothing is. */
bool keeper_wait_discard (struct store *store, struct waiter *waiter);
/* Everything dirty to its place, with commits and checkpoints between; likewise blocking, for a
 * store that nobody uses.  What fails stays dirty. */
void keeper_write_back_all (struct store *store);
/* Runs a checkpoint on the keeper's context from this thread, blocking; the keeper's thread is not
 * running. */
int keeper_checkpoint_now (struct store *store, enum checkpoint_kind kind);
/* Makes all items durable, likewise.  IS_HELD: nothing is allocated meanwhile, and if there is no room
 * for them without a checkpoint nothing is done. */
int keeper_commit_now (struct store *store, bool is_held);

/* One batch: begin, then step (on the keeper's op) until OP_DONE; writeback.frame_count tells how
 * many there were (0: nothing to do), writeback.error whether some could not be written. */
void writeback_begin (struct store *store, enum collect_kind kind, struct disk *only,
                      uint64_t version, uint32_t epoch, bool is_checkpoint);
enum op_next writeback_step (struct store *store, struct op *op);
int writeback_init (struct store *store);
void writeback_destroy (struct store *store);

void checkpoint_begin (struct store *store, enum checkpoint_kind kind);
enum op_next checkpoint_step (struct store *store, struct op *op);
/* A disk node that is not referred to once the next checkpoint is durable.  False: no memory. */
bool checkpoint_note_freed (struct store *store, uint64_t place);
int checkpoint_init (struct store *store);
void checkpoint_destroy (struct store *store);

/* --- recovery.c, replay.c --- */

/* Everything from an open device to a store that can be used, but the keeper's thread.  0, or
 * negative errno with *ERROR (malloc'd).  Blocks.  recovery_look stops before the first change: the
 * disks are known then, and the store can only be abandoned. */
int recovery_look (struct store *store, const struct store_options *options, char **error);
int recovery_open (struct store *store, const struct store_options *options, char **error);

/* replay-data.c: blocks of data found in the journal, in its order, and what makes such void. */
struct replay_block {
  uint64_t disk, block;
  const uint8_t *data;
  uint64_t order;
  uint32_t epoch;                   /* 1: in the half where replay began; 2: in the other */
  bool is_void;
};
struct replay_void {
  uint64_t disk, first, last;       /* blocks of it up to this order */
  uint64_t order;
};
struct replay_data {
  struct replay_block *blocks;
  size_t count, max;
  struct replay_void *voids;
  size_t void_count, void_max;
  uint64_t order;
  uint64_t steps;                   /* that settling took; for tests */
};
/* Zeros are an empty one.  0 or -ENOMEM.  A block that is kept takes the place of an earlier one. */
int replay_data_keep (struct replay_data *data, uint64_t disk, uint64_t block, const uint8_t *bytes,
                      uint32_t epoch);
int replay_data_void (struct replay_data *data, uint64_t disk, uint64_t first, uint64_t last);
/* When all is noted: `blocks' are those that remain, each once, by disk and block. */
int replay_data_settle (struct replay_data *data);
void replay_data_free (struct replay_data *data);

struct replay_run {
  uint64_t place, length;
  bool is_unshared;                 /* one owner is left */
};

struct replay {
  struct store *store;
  struct queue *queue;
  uint8_t *halves;                  /* both, as read */
  bool *is_lost;                    /* which of their blocks could not be, and are zeros */
  uint64_t position;                /* all items before it have been applied */
  uint64_t recorded;                /* where the last record's items end; 0: there was none */
  /* where the next record goes */
  unsigned half;
  uint64_t head, sequence, chain, half_sequence, half_chain;
  uint64_t records, items;
  /* Runs that items of the arena's tail left without an owner, or with one of several: that is not
   * durable yet. */
  bool is_tail, is_out_of_memory;
  struct replay_run *freed;
  size_t freed_count, freed_max;
  struct replay_data data;
  char **error;
};

/* recovery-load.c: from the device into STORE.  0 or negative errno with *ERROR. */
int recovery_load_superblock (struct store *store, struct queue *queue, bool is_read_only,
                              char **error);
int recovery_load_disks (struct store *store, struct queue *queue, char **error);
int recovery_load_shared (struct store *store, struct queue *queue, char **error);

/* recovery-damaged.c.  Those that return int return 0 or negative errno with *ERROR. */
/* Of a node of DISK there is no valid copy; WHY (malloc'd) says of which. */
void recovery_set_damaged (struct disk *disk, char *why);
/* DISK is damaged only now: what its map has become is not known. */
void recovery_forget_map (struct disk *disk);
/* The nodes that the maps of damaged disks have, or may have, are in use.  When those of all others
 * are marked. */
int recovery_mark_damaged_nodes (struct store *store, struct queue *queue, char **error);
/* After the replay: what is to be given up; and names for disks that have none. */
int recovery_judge_damaged (struct replay *replay);
/* When all extents are marked: what may be damaged disks' is not to be used.  False: no memory. */
bool recovery_withhold (struct store *store);
/* Before the first change: marks on the device which disks lose what is given up. */
int recovery_give_up (struct replay *replay);

/* Applies the journal to the maps in memory.  0 or negative errno with *ERROR.  replay_end frees
 * what it holds. */
int replay_journal (struct replay *replay);
/* Applies the arena's items beyond what the journal had. */
int replay_tail (struct replay *replay, struct arena *arena);
/* After both: replay->data has what remains. */
int replay_settle (struct replay *replay);
void replay_end (struct replay *replay);

/* One io, waited for. */
int device_do (struct queue *queue, enum io_kind kind, uint64_t place, void *data, uint64_t length);
/* Reads what can be read; the blocks that cannot are zeros, and marked in IS_LOST.  0, or the error of
 * the last of these. */
int device_read_each (struct queue *queue, uint64_t place, uint8_t *data, uint64_t length,
                      bool *is_lost);
/* Says what was wrong (malloc'd) and returns ERROR. */
int error_set (char **message, int error, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));

/* --- store.c, promise.c --- */

enum counter {
  COUNTER_READS, COUNTER_WRITES, COUNTER_TRIMS, COUNTER_WRITE_ZEROES, COUNTER_FLUSHES,
  COUNTER_CACHES, COUNTER_BLOCK_STATUSES, COUNTER_READ_BYTES, COUNTER_WRITE_BYTES,
  COUNTER_HIT_BLOCKS, COUNTER_MISS_BLOCKS, COUNTER_READAHEAD_BLOCKS, COUNTER_COMMITS,
  COUNTER_COMMIT_BLOCKS, COUNTER_CHECKPOINTS, COUNTER_WRITEBACK_BLOCKS,
  COUNTER_WRITEBACK_ERRORS, COUNTER_DISCARDED_BLOCKS, COUNTER_NODES_WRITTEN,
  COUNTER_COUNT
};

struct op_lock {                    /* one op at a time; the others queue */
  enum order_wait wait;
  enum order_hold hold;
  pthread_mutex_t mutex;
  struct waiter *holder;            /* NULL: nobody */
  struct list waiters;
};
void op_lock_init (struct op_lock *lock, enum order_wait wait, enum order_hold hold);
bool op_lock_acquire (struct op_lock *lock, struct waiter *waiter);  /* false: queued */
void op_lock_release (struct op_lock *lock, struct list *wake);

struct store {
  char *path;
  struct device *device;
  struct device_info device_info;
  struct format_superblock superblock;    /* as on the device */
  struct format_node_identity identity;   /* owner and kinds are filled in per use */
  bool is_read_only;
  bool is_resumed;                        /* with the arena of a process that was killed */
  bool is_abandoned;                      /* its memory goes, whoever still refers to it */
  bool is_marking_wrong;                  /* opening: two owners of one place */
  bool has_damaged;                       /* a disk that is_damaged */
  bool is_opening;                        /* the old journal must not be touched yet */
  _Atomic int mode;                       /* enum store_mode */

  struct arena *arena;
  struct cache *cache;
  struct space *space;
  struct btree_pool *pool;
  struct journal journal;
  struct commit commit;
  struct keeper keeper;
  struct btree catalogue;                 /* the keeper's */
  pthread_rwlock_t gate;

  struct op_lock admin_lock;
  struct op_lock maps_lock;               /* a checkpoint, from freezing to thawing; and whoever
                                             changes a map in several steps that must not be
                                             frozen in between */
  pthread_mutex_t disks_mutex;
  struct list disks;                      /* struct disk, by name */
  struct disk **opening;                  /* the same by id, while it is being opened */
  size_t opening_count, opening_max;
  _Atomic uint64_t disk_count;            /* dying ones included */
  _Atomic uint64_t next_disk_id;
  unsigned window_blocks;                 /* WINDOW_BLOCKS, less with a tiny cache */

  pthread_mutex_t fills_mutex;
  struct list fills;

  _Atomic uint64_t placing;               /* blocks that are being written to places that are not
                                             in their map yet */
  _Atomic int64_t host_room;              /* blocks that the host could still hold;
                                             see store_promise */
  pthread_mutex_t grow_mutex;
  uint64_t length;                        /* of the file, blocks */

  pthread_mutex_t contexts_mutex;
  struct list contexts;
  uint64_t counters[COUNTER_COUNT];       /* of contexts that are gone */
};

_Static_assert (COUNTER_COUNT <= CONTEXT_COUNTERS, "counters of a context");

/* On OP's own thread. */
static inline void
op_count (struct op *op, enum counter counter, uint64_t count)
{
  _Atomic uint64_t *value = &op->context->counters[counter];

  atomic_store_explicit (value, atomic_load_explicit (value, memory_order_relaxed) + count,
                         memory_order_relaxed);
}

/* A write or flush of journal or metadata failed: no change is accepted any more; said once. */
void store_fail (struct store *store, const char *what, int error);
bool store_is_failed (struct store *store);
/* Where the arena of a store is to lie, as an absolute path: whoever opens the store next may be
 * elsewhere.  PATH has room for ARENA_PATH_MAX; false: that is not enough. */
bool store_arena_path_wanted (struct store *store, const struct store_options *options,
                              char *path);
/* Promises COUNT blocks to dirty blocks: in the store's own space, and as far as can be known on
 * the host's file system, where others write too.  0, or as space_reserve.  It may be more than is
 * needed; settle, within the same step, takes back the LEFT of them that were not used. */
int store_promise (struct store *store, uint64_t count);
void store_settle (struct store *store, uint64_t count, uint64_t left);
/* OP was not promised COUNT blocks (ENOSPC), and holds no range.  OP_MORE: they are there by now.
 * OP_YIELD: they may be at once, when others have settled what they were promised.
 * OP_WAIT: it is woken, by FILL's commit or write-back or by a discard, when there may be more: what
 * was freed can be used after a commit, and what has lost its other owners can be written in place;
 * *WAITS counts that, and not more than SPACE_WAITS_MAX times for one request.  OP_DONE: nothing of
 * that is on its way. */
#define SPACE_WAITS_MAX 3
enum op_next store_wait_space (struct store *store, uint64_t count, unsigned *waits,
                               struct fill *fill, struct op *op);
/* Whether what is written to the first blocks of EXTENT, a part of a map or of a hole, goes to a
 * new place: it has none, or not for itself alone.  EXTENT is clipped to those blocks of which the
 * answer is true. */
bool store_needs_space (struct store *store, struct extent *extent);
/* How much the host has left; once per tick. */
void store_look_at_host (struct store *store);
/* Whether there are places for MORE nodes, and for what BLOCKS that are mapped one by one may add.
 * What comes first is left some: deallocating before writing, that before new disks.  FIT_LATER:
 * if nothing were dirty. */
enum node_use { NODES_FOR_HOLES, NODES_FOR_DATA, NODES_FOR_DISKS };
enum node_room { NODES_FIT, NODES_FIT_LATER, NODES_DO_NOT_FIT };
enum node_room store_node_room (struct store *store, uint64_t more, uint64_t blocks,
                                enum node_use use);
/* OP_WAIT: OP, which may hold what WAITS_FOR_WRITE_BACK may, is woken when all that is dirty now has
 * been written back. */
enum op_next store_wait_nodes (struct store *store, struct writeback_request *request,
                               struct op *op);
/* How full the store is: of its capacity, of nodes, or of what the host can still hold, whichever is
 * the fullest.  100 only when nothing is left. */
unsigned store_full_percent (struct store *store);
/* Makes sure the file is at least END blocks long. */
int store_grow (struct store *store, uint64_t end);
/* The identity that nodes of this kind and owner have in superblock SEQUENCE. */
struct format_node_identity store_identity (struct store *store, uint32_t leaf_kind,
                                            uint32_t inner_kind, uint64_t owner, uint64_t sequence);

/* --- op-*.c: the step functions, started by request_start --- */
enum op_next op_read_step (struct op *op);
enum op_next op_cache_step (struct op *op);
enum op_next op_write_step (struct op *op);
enum op_next op_zero_step (struct op *op);
enum op_next op_flush_step (struct op *op);
enum op_next op_status_step (struct op *op);
/* Whether a READ that ended is part of a sequential stream: starts reading ahead. */
void readahead_after (struct request *request);

/* First block that the request touches, and how many. */
uint64_t request_first_block (const struct request *request);
uint64_t request_block_count (const struct request *request);

#endif
