/* SPDX-License-Identifier: BSD-2-Clause */
/* store.h - the engine, as server, plugin, command line and tests see it.  The only header of
 * common/store that others include (with context.h and op.h, which it brings).
 *
 * Open a store, make a context per thread, then start requests on contexts.  Everything that takes
 * time is an op: it is started on a context, never blocks the thread, and ends by a callback on
 * that same context, never inside the call that started it.  The few calls that do block say so.
 *
 * Sizes and offsets are bytes here; disks are multiples of BLOCK_SIZE; requests may be any byte
 * range.
 */
#ifndef LACUNA_STORE_H
#define LACUNA_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "store/cache.h"
#include "store/context.h"
#include "store/format.h"
#include "store/journal.h"
#include "store/op.h"

struct store;
struct disk;
struct disk_info;
struct range_request;
struct commit_request;
struct writeback_request;
struct fill;
struct frame;
struct clone;

/* --- stores --- */

#define STORE_CACHE_DEFAULT (256 * MIB)
#define STORE_CACHE_MIN (80 * MIB)         /* half of it may be in flight: one request of 32 MiB */
#define STORE_CAPACITY_MIN (64 * MIB)
#define STORE_REQUEST_MAX (32 * MIB)       /* longest READ and WRITE */
#define STORE_LOCK_WAIT_MS 3000            /* a process that was killed may hold it for a moment */

/* Makes a new store.  PATH: a file that does not exist yet or is empty, or a block device that
 * is empty (zeros in its first MiB; used whole, CAPACITY must be 0).  With FORCE whatever is there
 * is overwritten.  CAPACITY in bytes, 0: no limit.  Blocks.  0, or negative errno with *ERROR
 * (malloc'd, without path). */
int store_init (const char *path, uint64_t capacity, bool force, char **error);

/* Geometry of a store made by tests on a device of their own; blocks. */
struct store_geometry {
  uint64_t group_blocks, meta_blocks, journal_half_blocks, capacity;
};
int store_init_device (struct device *device, const struct store_geometry *geometry,
                       const uint8_t uuid[16], char **error);

struct store_options {
  const char *path;             /* unless DEVICE is set */
  struct device *device;        /* a device opened by the caller (tests); closed by store_close */
  const char *arena_path;       /* NULL: /dev/shm/lacuna-UUID.arena; "off": private memory */
  uint64_t cache_bytes;         /* 0: STORE_CACHE_DEFAULT */
  uint64_t tail_bytes;          /* 0: 2 MiB; power of 2 (tests) */
  bool is_read_only;            /* nothing is written; refused (-EUCLEAN) if the store must be
                                   recovered first */
  bool has_own_keeper;          /* tests: the caller runs store_keeper_context itself; else a thread
                                   does */
  unsigned lock_wait_ms;        /* for another opener to end; a killed process' I/O may take a
                                   moment */
};

/* Opens and recovers.  Blocks.  0, or negative errno with *ERROR (malloc'd: what was wrong and what
 * to do, without the path):
 *   -EBUSY  another process has it open       -ENOENT, -EACCES, -EROFS ...  as open(2)
 *   -EMEDIUMTYPE  not a store
 *   -EUCLEAN  damaged, or must be recovered and is_read_only
 *   -EPROTONOSUPPORT  a newer format or an unknown feature (named)
 *   -ENOSPC, -ENOMEM  the arena could not be allocated */
int store_open (const struct store_options *options, struct store **store, char **error);

/* Whether store_open with the same options would succeed, as far as that can be known without
 * changing anything: takes the lock, reads what store_open reads, judges the place of the arena,
 * and lets go of all again.  For who must say what is wrong before the store may be opened (a
 * daemon, before it forks): no thread is started.  *DISKS (malloc'd): the *COUNT disks, by name.
 * Blocks.  Errors as store_open. */
int store_look (const struct store_options *options, struct disk_info **disks, size_t *count,
                char **error);

/* Makes all durable, writes a checkpoint, marks the store clean, removes the arena.  No request may
 * be running and no context but the keeper's be left; blocks.  Returns negative errno if something
 * acknowledged could not be made durable (the arena is then kept). */
int store_close (struct store *store, char **error);

/* Lets go of everything without writing anything: what kill -9 does (the arena stays).  Tests. */
void store_abandon (struct store *store);

struct context *store_context_create (struct store *store);
void store_context_destroy (struct store *store, struct context *context);
struct context *store_keeper_context (struct store *store);

enum store_mode { STORE_OK, STORE_READ_ONLY, STORE_FAILED };   /* from good to bad; compare */

struct store_info {
  uint8_t uuid[16];
  enum store_mode mode;
  uint32_t format_version;
  uint64_t capacity;            /* bytes that data may use; UINT64_MAX: no limit */
  uint64_t used;                /* bytes of data in use (mapped), however often */
  uint64_t shared;              /* of these, mapped more than once */
  uint64_t free;                /* bytes that can be promised now; UINT64_MAX: no limit */
  uint64_t reserved;            /* promised to dirty blocks */
  uint64_t pending;             /* freed, not durable yet */
  uint64_t undiscarded;         /* free, the host still holds it */
  uint64_t withheld;            /* may be a damaged disk's: neither used nor free */
  uint64_t metadata;            /* bytes of nodes on the device, both copies */
  uint64_t allocated;           /* bytes that the host gave to the file */
  uint64_t disks;
  uint64_t opened;
  bool is_block_device, is_direct;
};
void store_get_info (struct store *store, struct store_info *info);
const char *store_path (struct store *store);
const char *store_arena_path (struct store *store);   /* NULL: off */

/* Frames that requests of up to CACHE_SMALL_MAX frames may hold together, and longer ones. */
void store_get_in_flight_max (struct store *store, uint64_t *small, uint64_t *large);

/* Live counters, since the store was opened; see lacuna-stat in lacuna(1).  NAME is in lower_case
 * with the unit last. */
struct store_counter { const char *name; uint64_t value; };
size_t store_get_counters (struct store *store, struct store_counter *counters, size_t max);

/* --- disks --- */

struct disk_info {
  char name[DISK_NAME_MAX + 1];
  uint8_t uuid[16];
  uint64_t id;
  uint64_t size;
  uint64_t mapped;              /* bytes in extents */
  uint64_t unmapped_dirty;      /* bytes written, not placed yet (delayed allocation) */
  uint64_t extents;
  uint64_t created;             /* seconds since 1970 */
  unsigned open_count;          /* connections */
  bool is_damaged;              /* as disk_is_damaged; `mapped' is what it had, `extents' is 0 */
};

/* The disk of this name, referenced (open); NULL: there is none.  "" is not resolved here.  Any
 * thread. */
struct disk *disk_open (struct store *store, const char *name);
void disk_close (struct disk *disk);
/* Whether a part of its map cannot be read.  Then it can be deleted, and nothing else: all requests
 * are -EIO.  As long as the store is open that stays as it is.  Any thread. */
bool disk_is_damaged (const struct disk *disk);
uint64_t disk_size (const struct disk *disk);             /* now; any thread */
void disk_get_info (struct disk *disk, struct disk_info *info);
/* For who promises a client the size once and for all, as nbdkit does: the size now, and until
 * disk_release_size the disk becomes no smaller (ADMIN_RESIZE: -EBUSY).  It may grow.  Any
 * thread. */
uint64_t disk_hold_size (struct disk *disk);
void disk_release_size (struct disk *disk);
/* Fills up to MAX, ordered by name; returns how many there are in all. */
size_t store_list_disks (struct store *store, struct disk_info *infos, size_t max);

/* --- requests --- */

enum request_kind {
  REQUEST_READ, REQUEST_WRITE, REQUEST_TRIM, REQUEST_WRITE_ZEROES, REQUEST_FLUSH, REQUEST_CACHE,
  REQUEST_BLOCK_STATUS,
};
enum request_flags {
  REQUEST_FUA = 1,              /* any kind; durable before it is done */
  REQUEST_NO_HOLE = 2,          /* WRITE_ZEROES: space stays reserved */
  REQUEST_FAST_ZERO = 4,        /* WRITE_ZEROES: always fast here */
  REQUEST_ONE_EXTENT = 8,       /* BLOCK_STATUS */
  REQUEST_TELL_SHARED = 16,     /* BLOCK_STATUS: with STATUS_SHARED */
};
/* HOLE and ZERO are NBD_STATE_HOLE and NBD_STATE_ZERO.  SHARED: data in a place that others share, so
 * that a write takes space, and may get ENOSPC. */
enum status_flags { STATUS_HOLE = 1, STATUS_ZERO = 2, STATUS_SHARED = 4 };

struct status_extent {
  uint64_t length;              /* bytes */
  uint32_t flags;
};

#define REQUEST_FRAMES_INLINE 34   /* up to 132 KiB without allocation */

/* Sequential readers are noticed here: one per connection (or other stream of requests), zeroed by
 * its owner.  Readers on several contexts may share it: what it says is a hint. */
struct read_stream {
  struct context *context;      /* reads ahead; NULL: the reader's own does */
  _Atomic uint64_t next_offset; /* where the last READ ended */
  _Atomic uint64_t ahead_end;   /* read ahead up to here */
  _Atomic uint32_t window_blocks;
};

struct request {
  struct op op;                 /* op.error: the result */
  struct disk *disk;            /* referenced by the owner as long as the request lives */
  enum request_kind kind;
  unsigned flags;
  uint64_t offset, length;      /* bytes */
  void (*done) (struct request *request);
  void (*admitted) (struct request *request);
  void *owner;                  /* the caller's */

  /* BLOCK_STATUS: where the answer goes (the caller's memory), and how many were filled, >= 1 if no
   * error.  They start at OFFSET, are contiguous, do not pass the request's end, and may cover less
   * of it. */
  struct status_extent *extents;
  uint32_t extent_max, extent_count;

  struct read_stream *stream;   /* READ: may be NULL */

  /* The engine's own. */
  struct frame **frames;        /* one per block; NULL: a hole (READ).  READ: what to send; WRITE:
                                   the payload */
  struct frame *frames_inline[REQUEST_FRAMES_INLINE];
  uint32_t frame_count;
  struct budget_ticket ticket;   /* its place in the queue for admission */
  uint32_t charged;             /* frames charged in flight */
  uint32_t charged_dirty;
  uint64_t at;                  /* how far it has come: block, or what the op says */
  struct fill *fill;            /* slow path */
  uint64_t version;             /* FLUSH: what it covers */
  uint64_t end;                 /* TRIM, WRITE_ZEROES: block after the last whole one */
  unsigned space_waits;         /* WRITE, WRITE_ZEROES */

  bool is_admitted, is_started;
};

/* What is wrong with a request before any work: 0, or negative errno as NBD has them (proto.md,
 * "Error values"): -EINVAL READ, TRIM, CACHE, BLOCK_STATUS beyond the end; -ENOSPC WRITE,
 * WRITE_ZEROES beyond the end; -EPERM change on a read-only store; -EINVAL longer than
 * STORE_REQUEST_MAX (READ, WRITE); length 0 of BLOCK_STATUS.  *WHY: a sentence for the client. */
int request_validate (struct disk *disk, enum request_kind kind, unsigned flags, uint64_t offset,
                      uint64_t length, const char **why);

/* Prepares a request that request_validate accepts.  DONE is called on CONTEXT when it ends, never
 * inside request_start.  Afterwards the result stays until request_release. */
void request_init (struct request *request, struct context *context, struct disk *disk,
                   enum request_kind kind, unsigned flags, uint64_t offset, uint64_t length,
                   void (*done) (struct request *));

/* WRITE, before request_start: gets memory for the payload.  True: it is there (or op.error is
 * -ENOMEM: then request_segments gives nothing, and the payload is to be skipped).  False: all
 * memory for payloads is in use; ADMITTED (set it before) will be called on the request's context
 * when it is there.  Until then the caller reads nothing more from this client: that is the
 * back-pressure. */
bool request_admit (struct request *request);
/* Where payload bytes from FROM on go (WRITE, admitted), or come from (READ, done): fills up to MAX
 * segments, at most up to the request's end, and returns how many; *BYTES what they hold
 * together. */
unsigned request_segments (struct request *request, uint64_t from, struct iovec *segments,
                           unsigned max, uint64_t *bytes);
/* READ, done: whether [from, from + *LENGTH) is a hole as far as known: true, and *LENGTH how long;
 * else false, and *LENGTH how long the data. */
bool request_is_hole (struct request *request, uint64_t from, uint64_t *length);

void request_start (struct request *request);
/* Gives back frames and budget: after DONE, or instead of request_start (a client that died within
 * its payload).  Not while it waits for admission: let ADMITTED come first (it does, others
 * end). */
void request_release (struct request *request);

/* --- changes to disks --- */

enum admin_kind {
  ADMIN_CREATE, ADMIN_RESIZE, ADMIN_RENAME, ADMIN_DELETE, ADMIN_SYNC, ADMIN_COLLAPSE, ADMIN_INSERT,
  ADMIN_CLONE,
};

struct admin {
  struct op op;                     /* op.error: 0 or negative errno */
  struct store *store;
  enum admin_kind kind;
  char name[DISK_NAME_MAX + 1];
  char new_name[DISK_NAME_MAX + 1]; /* RENAME; CLONE: the target, which may be NAME */
  uint64_t disk_id;                 /* of NAME, -ENOENT if another disk has it; 0: whichever */
  uint64_t size;                    /* CREATE, RESIZE: bytes, multiple of BLOCK_SIZE */
  bool may_shrink;                  /* RESIZE */
  uint64_t offset, length;          /* COLLAPSE, INSERT, CLONE: bytes, multiples of BLOCK_SIZE */
  uint64_t target_offset;           /* CLONE */
  uint8_t request_id[REQUEST_ID_BYTES];   /* COLLAPSE, INSERT, CLONE: one that the (target) disk
                                             remembers is not done again; zeros: none
                                             (request-ids.h) */
  void (*done) (struct admin *admin);
  void *owner;
  char message[512];                /* if error: what was wrong and what to do; without store and
                                       disk names */
  bool was_done;                    /* before: its request_id was known */
  /* the engine's own */
  struct disk *disk;
  struct range_request *range;
  struct commit_request *commit;
  struct writeback_request *writeback;
  struct journal_waiter tail;
  uint64_t tail_left;               /* bytes reserved and not used */
  uint64_t at;
  uint64_t size_before;
  struct clone *clone;
};

/* Atomic, and durable when done.  -EEXIST, -ENOENT, -EINVAL (name, size, range), -EBUSY (delete
 * while open, shrink while the size is held), -EPERM (shrink without may_shrink; read-only store),
 * -EIO.  ADMIN_SYNC: all that was acknowledged is durable.  ADMIN_COLLAPSE: the range goes, and
 * what lies behind it moves down; ADMIN_INSERT: what lies from OFFSET on moves up, and leaves a
 * hole (op-shift.c).  ADMIN_CLONE: a range of NAME appears in the target, and shares its blocks
 * until one of the two is written to (op-clone.c).  Requests of clients that run meanwhile are
 * before it or after it, block by block. */
void admin_init (struct admin *admin, struct context *context, struct store *store,
                 enum admin_kind kind, const char *name, void (*done) (struct admin *));
void admin_start (struct admin *admin);

#endif
