/* SPDX-License-Identifier: BSD-2-Clause */
/* cache.h - the frames: cached blocks of disks, in the arena.
 *
 * A frame is found by (disk id, block), never by its place in the store: a place gets new owners, a
 * disk id never does.
 *
 *   FREE -> FILLING (someone reads it from the device) -> CLEAN
 *   FREE -> DIRTY (written by a client; the store's copy is older) -> CLEAN (written back)
 *
 * The content of a frame never changes once it is CLEAN or DIRTY: a write makes a new frame, which
 * takes the old one's place in the index.  So a frame may be sent to a socket, written to the
 * device and overwritten by a client at the same time.  References count: being in the index is
 * one, each cache_get / pin is one; the last to go frees the frame.  A frame that is in the index
 * no more is an *orphan*; it stays valid for those who hold it.
 *
 * The hit path (cache_get, cache_put) takes no lock and writes nothing shared but the frame's
 * reference count and, at most a few times, its frequency.  It may miss a frame that is being
 * replaced just then; the miss path looks again under the bucket's lock.
 *
 * Who may call what (the cache checks what it can, range locks are the caller's):
 *   cache_fill_begin .. cache_fill_end   holding the range shared
 *   cache_publish                        holding the range shared
 *   cache_drop, cache_invalidate         holding the range exclusive: then nothing in it is FILLING
 *                                        (CHECKed), and what write-back has picked is not written
 *
 * Does no I/O, calls nobody: waiters that can go on are appended to the caller's WAKE list.  Never
 * waits, but for the kernel's memory, some 0.3 ms at a time, in the fraction of a second until the
 * arena has all of its space (cache_start_growing).  Thread-safe.  Replacement: S3-FIFO (Yang et al., "FIFO queues are all you need for cache
 * eviction", SOSP 2023): a small queue, a main one, and a ghost table of keys that left the small
 * one.  Dirty frames are in no queue.
 *
 * With an arena the headers of dirty frames outlive the process: see arena.h.  cache_publish makes
 * the new frame's header valid before it clears that of the one it replaces; the higher version
 * counts.
 */
#ifndef LACUNA_CACHE_H
#define LACUNA_CACHE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/waiter.h"
#include "store/arena.h"
#include "store/budget.h"

struct cache;

enum frame_state { FRAME_FREE, FRAME_FILLING, FRAME_CLEAN, FRAME_DIRTY };

enum frame_flags {               /* changed under the bucket's lock */
  FRAME_IS_ORPHAN = 1,           /* not in the index (any more) */
  FRAME_HAS_TOKEN = 2,           /* dirty, its block has no place of its own: it owns one reserved
                                    block */
  FRAME_HAS_COPY = 4,            /* dirty, and the journal on the device holds a copy of this
                                    block, of this content or an older one */
  FRAME_IS_LOGGED = 8,           /* dirty, and the journal holds this content (implies HAS_COPY):
                                    FLUSH need not care */
  FRAME_IN_WRITEBACK = 16,       /* picked by write-back, not settled yet */
  FRAME_IN_COMMIT = 32,          /* part of the record being written */
  FRAME_IS_UNMAPPED = 64,        /* dirty, and the map shows a hole, or a place that it shares:
                                    HAS_TOKEN, or write-back took the token and has not settled
                                    yet */
  FRAME_IS_DIRTY = 128,          /* dirty and in the index, as the state says */
  FRAME_KEEPS_PLACE = 256,       /* orphan, IN_WRITEBACK: it stands in owner->fresh where what has
                                    replaced it will belong */
};

/* One disk as the cache sees it; lies in struct disk. */
struct cache_disk {
  uint64_t id;
  pthread_mutex_t mutex;         /* protects the lists and counts; leaf below the bucket locks */
  struct list fresh;             /* dirty, not in the journal; in order of `since` */
  struct list logged;            /* dirty, IS_LOGGED; in order of `since` */
  /* Read without the mutex: what counts a block does so all the time, also while its frame is
   * replaced, or goes from one list to the other. */
  _Atomic uint64_t fresh_count;
  _Atomic uint64_t dirty_count;  /* in either list, but for those that only keep a place */
  _Atomic uint64_t copy_count;   /* of them: HAS_COPY */
  _Atomic uint64_t frame_count;  /* in the index */
  _Atomic uint64_t unmapped_count; /* dirty, IS_UNMAPPED: blocks that the map does not show yet */
};

/* What a hit looks at is the first of two cache lines. */
struct frame {
  _Atomic uint64_t disk;         /* key */
  _Atomic uint64_t block;
  _Atomic uint32_t references;
  _Atomic uint32_t next;         /* in its bucket: index + 1; 0: end */
  _Atomic uint8_t state;         /* enum frame_state */
  _Atomic uint8_t frequency;     /* 0..3 */
  _Atomic uint16_t flags;
  _Atomic uint8_t queue;         /* which replacement queue; changed under the queue mutex */
  bool is_warm;                  /* its block was in the main queue when it was written */
  void *data;                    /* BLOCK_SIZE bytes, aligned to it */
  _Atomic uint32_t epoch;        /* CLEAN: of its region, when it became so (cache-internal.h) */
  uint32_t copy_epoch;           /* HAS_COPY: checkpoint epoch of the newest copy; changed under
                                    the bucket's lock and owner->mutex */
  uint64_t copy_version;         /* HAS_COPY: version of the content of that copy; likewise */
  uint64_t version;              /* dirty: order of publication over the whole store */
  uint64_t since;                /* dirty: version of the oldest content of this block that is
                                    neither in the journal nor in its place, see below; orphan that
                                    was dirty: version of what replaced it */
  struct cache_disk *owner;      /* while in the index, or keeping a place */
  struct list queue_link;        /* replacement queue or free list */
  struct list dirty_link;        /* owner->fresh or ->logged */
  struct list waiters;           /* for FILLING to end */
} __attribute__ ((aligned (64)));

struct cache_stats {             /* hits and misses are counted by the ops: they know them anyway;
                                    clean are also those that are invalid */
  uint64_t evictions, frames, clean, dirty, free, in_flight, dirty_max, in_flight_max,
    in_flight_large_max;         /* of in_flight_max */
};

/* The cache over ARENA's frames.  NULL: no memory. */
struct cache *cache_create (struct arena *arena);
/* Nothing may be referenced but what is in the index; the disks' parts are destroyed after it.
 * IS_ABANDONED: whatever is referenced, the memory goes, as when a process is killed (the arena
 * keeps what it has). */
void cache_destroy (struct cache *cache, bool is_abandoned);
/* Starts a thread that has space allocated for those of the arena's frames that have none yet, in
 * order, and ends then, or when the cache is destroyed.  Who needs a frame before it has got there
 * does the same, without it too.  0, or errno. */
int cache_start_growing (struct cache *cache);
void cache_get_stats (struct cache *cache, struct cache_stats *stats);

void cache_disk_init (struct cache_disk *disk, uint64_t id);
void cache_disk_destroy (struct cache_disk *disk);

/* --- admission: numbers, so that what is admitted always finds a frame --- */

/* Charges COUNT frames for a request in flight (received payload, pinned replies), to CREDIT as far
 * as that has some; NULL: to the budget.  True: charged.  False: TICKET is queued (first come, first
 * served), and WAITER handed back by the uncharge that makes room; it is charged then.  COUNT <=
 * in_flight_max (cache_get_stats): a quarter of all frames, of a small cache up to half.  Requests
 * of more than CACHE_SMALL_MAX frames have a share of their own (where the cache is large enough
 * for the longest one), and a queue, so that they hold up none of the others. */
#define CACHE_SMALL_MAX 256      /* 1 MiB: a window */
#define CACHE_LARGE_MAX 8194     /* 32 MiB, not aligned */
bool cache_charge (struct cache *cache, struct credit *credit, uint32_t count,
                   struct waiter *waiter, struct budget_ticket *ticket);
/* As charge, without queueing. */
bool cache_try_charge (struct cache *cache, struct credit *credit, uint32_t count);
/* What was charged, in one; after the frames were put: whom this lets in must find them free. */
void cache_uncharge (struct cache *cache, struct credit *credit, uint32_t count,
                     struct list *wake);
/* A credit, empty at first, for requests in flight of up to CACHE_SMALL_MAX frames. */
void cache_lend (struct cache *cache, struct credit *credit);

/* Room for COUNT more dirty frames, as charge; COUNT <= dirty_max: all frames but an eighth and
 * those in flight, that is 5/8, of a small cache 3/8.  A dirty frame gives its place back when it
 * is cleaned or dropped; a replaced one at once.  What was charged and not published is given back
 * by cache_undirty. */
bool cache_charge_dirty (struct cache *cache, uint32_t count, struct waiter *waiter,
                         struct budget_ticket *ticket);
void cache_undirty (struct cache *cache, uint32_t count, struct list *wake);
/* There will be no room: those who wait for it are handed back, refused; with FOR_EVER all later
 * ones are refused, too. */
void cache_refuse_dirty (struct cache *cache, bool for_ever, struct list *wake);
/* Takes a queued ticket back (its op was cancelled).  False: too late, it is charged and its waiter
 * is being woken. */
bool cache_charge_cancel (struct cache *cache, struct budget_ticket *ticket, struct list *wake);
/* Frames that are dirty now, and the most that may be; those of blocks that the map does not show
 * yet; and: somebody waits in charge_dirty. */
uint64_t cache_dirty_count (struct cache *cache);
uint64_t cache_dirty_max (struct cache *cache);
uint64_t cache_unmapped_count (struct cache *cache);
bool cache_dirty_wanted (struct cache *cache);

/* A frame for the caller, referenced once, FREE, content undefined.  Evicts a clean one if none is
 * free.  NULL only if the caller was not admitted (optional populators) and nothing can be
 * evicted. */
struct frame *cache_allocate (struct cache *cache);
/* COUNT at once, for a caller that was admitted; side by side in memory, as far as there are such:
 * a long payload is received and sent in fewer and longer pieces. */
void cache_allocate_all (struct cache *cache, struct frame **frames, uint32_t count);
/* One more reference on a frame that the caller (or the index, under the caller's protection)
 * references. */
void cache_reference (struct frame *frame);
/* Drops a reference; the last one frees. */
void cache_put (struct cache *cache, struct frame *frame);

/* --- lookup and fill --- */

/* The CLEAN or DIRTY frame of a block, referenced, counted as a use; NULL: miss.  No lock. */
struct frame *cache_get (struct cache *cache, uint64_t disk, uint64_t block);
/* The block will be looked for soon: has its frame, if there is one, fetched from memory. */
void cache_prefetch (struct cache *cache, uint64_t disk, uint64_t block);
/* FRESH will soon be published as the block's. */
void cache_prefetch_publish (struct cache *cache, uint64_t disk, uint64_t block,
                             const struct frame *fresh);
/* So many blocks ahead, in a loop over many: what memory takes for one is done by then. */
#define CACHE_AHEAD 8
/* As get, but not a use (write-back's and block status' look): no frequency; exact: looks under the
 * bucket's lock. */
struct frame *cache_peek (struct cache *cache, uint64_t disk, uint64_t block);

enum cache_found {
  CACHE_FOUND,      /* *FRAME is valid, referenced */
  CACHE_BUSY,       /* somebody else fills it: *FRAME is FILLING, referenced; see cache_wait_fill */
  CACHE_YOURS,      /* FRESH is in the index, FILLING, with one more reference (the caller keeps its
                       own): fill it, then cache_fill_end */
};
/* FRESH is from cache_allocate; it stays the caller's (FREE) if the answer is not YOURS. */
enum cache_found cache_fill_begin (struct cache *cache, struct cache_disk *disk, uint64_t block,
                                   struct frame *fresh, struct frame **frame);
/* OK: the frame becomes CLEAN, and true.  Not OK, or a write has replaced it meanwhile: false, it
 * is not in the index any more, and its waiters find it failed (frame state FREE).  What was read
 * after the write had replaced it may be anybody's: write-back may have taken the block
 * elsewhere. */
bool cache_fill_end (struct cache *cache, struct frame *frame, bool ok, struct list *wake);
/* The frame is FILLING: queues WAITER and returns true.  False: it is not (any more). */
bool cache_wait_fill (struct cache *cache, struct frame *frame, struct waiter *waiter);

/* --- writing --- */

/* Puts FRESH, content complete, into the index as the DIRTY frame of BLOCK.  The caller's
 * reference stays his.  EXPECTED: NULL, any; else publish only if this frame is the current one of
 * the block (a partial write that merged from it), false if it is not.  EXPECTED == CACHE_NONE:
 * only if there is none.  HAS_TOKEN: the caller owns a reserved block for it; a frame that replaces
 * a dirty one inherits that one's token (or lack of one), and the caller keeps his (*TOKEN_TAKEN
 * false).  HAS_COPY, copy_epoch are inherited from the replaced one, and `since` if that one is
 * not LOGGED.  Whether a block needs a token: ask the cache for a dirty frame first, the map second
 * (write-back changes the map first and settles then). */
#define CACHE_NONE ((struct frame *) -1)
bool cache_publish (struct cache *cache, struct cache_disk *disk, uint64_t block,
                    struct frame *fresh, struct frame *expected, bool has_token,
                    bool *token_taken, struct list *wake);

/* The highest version published so far: what a FLUSH that starts now must cover. */
uint64_t cache_version (struct cache *cache);

/* --- dropping --- */
struct cache_dropped {
  uint64_t frames;
  uint64_t dirty;        /* of them */
  uint64_t tokens;       /* reserved blocks that nobody owns now: the caller unreserves them */
  uint64_t copies;       /* frames that had a copy in the journal: the caller must log the change
                            even where nothing is mapped */
};
/* Takes all frames of [first, last] out of the index, cost bounded by min (range, cached frames).
 * Adds to *DROPPED. */
void cache_drop (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
                 struct cache_dropped *dropped, struct list *wake);
/* The same for all who look for them.  But clean frames may stay in the index, invalid, until
 * frames are wanted: regions that are cached to a good part, and have no dirty frame, cost the same
 * however many frames they have.  These are not in *DROPPED. */
void cache_invalidate (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last,
                       struct cache_dropped *dropped, struct list *wake);
/* How many blocks from BLOCK on, up to LENGTH, have some FRAMES_MAX cached frames that
 * cache_invalidate would drop one by one: the bound of one step of a long change. */
uint64_t cache_step (struct cache *cache, struct cache_disk *disk, uint64_t block, uint64_t length,
                     uint64_t frames_max);
/* Whether any dirty frame with a copy in the journal lies in the range (before dropping; range
 * held exclusive). */
bool cache_has_copies (struct cache *cache, struct cache_disk *disk, uint64_t first, uint64_t last);

/* --- what block status asks --- */
/* Dirty blocks (data, whatever the map shows), as runs: the first such run at or after BLOCK within
 * LENGTH blocks: *RUN_LENGTH, and true; false: none. Skips by region counters; cost about min
 * (LENGTH / 256, frames).  Range held shared; call it before looking at the map: what it does not
 * report any more is in the map by then.  It may report a block that has just been cleaned. */
bool cache_find_dirty (struct cache *cache, struct cache_disk *disk, uint64_t block,
                          uint64_t length, uint64_t *run_block, uint64_t *run_length);

/* Dirty frames are collected by `since`, not by version: a FLUSH that must cover version V needs
 * all blocks with since <= V.  If F was written before the FLUSH and replaced by G after it
 * started, G stands for F: only G can bring this block to where F should be.  So G inherits F's
 * `since`; when F itself gets durable nevertheless (it was in a commit, or in write-back), G's
 * `since` moves on to what replaced F, so that a block that is written all the time cannot hold a
 * FLUSH for ever. */

/* --- write-back (one at a time, the keeper; a batch is small against frames / 8, for the frames it
 * holds may have become orphans, which nobody is charged for) --- */
enum collect_kind {
  COLLECT_OLDEST,        /* any dirty frame with since <= VERSION, oldest first */
  COLLECT_COPIES,        /* those with a copy of an epoch <= EPOCH, wherever they are */
};
/* Picks up to MAX frames, references them (the caller's, to be put after settle) and sets
 * IN_WRITEBACK; how many.  Frames that are IN_WRITEBACK already are passed over. */
uint32_t cache_collect (struct cache *cache, struct cache_disk *disk, enum collect_kind kind,
                        uint64_t version, uint32_t epoch, struct frame **frames, uint32_t max);
/* Under the range lock: still the current frame of its block? (a TRIM may have dropped it, a write
 * replaced it) */
bool cache_is_current (struct frame *frame);
/* Takes the frame's token (true) to allocate with; it has a place, or was dropped: false. */
bool cache_take_token (struct cache *cache, struct frame *frame);
/* A failed write-back gives a token back to whatever frame is dirty for this block now; false:
 * none is, caller unreserves. */
bool cache_give_token (struct cache *cache, struct cache_disk *disk, uint64_t block);
/* The block is dirty, by FRAME or by what replaced it, and the journal has a copy of it that is not
 * newer than FRAME: to be retired before FRAME is settled (under the gate both). */
bool cache_has_copy (struct cache *cache, struct frame *frame);
/* OK: its content is durable in its place, and the map says so.  Clears IN_WRITEBACK; if it is
 * current it becomes CLEAN.  True: it still owned a token, which the caller unreserves (its block
 * was mapped all the time).  Not OK: it stays dirty, in its list.  The caller's reference stays
 * his. */
bool cache_settle (struct cache *cache, struct frame *frame, bool ok, struct list *wake);

/* --- commit (one at a time) --- */
/* As collect, from `fresh` only: since <= VERSION; sets IN_COMMIT, HAS_COPY and copy_epoch =
 * EPOCH. */
uint32_t cache_collect_fresh (struct cache *cache, struct cache_disk *disk, uint64_t version,
                              uint32_t epoch, struct frame **frames, uint32_t max);
/* The one fresh frame of a block, the same way (for FUA): true if there was one. */
bool cache_collect_block (struct cache *cache, struct cache_disk *disk, uint64_t block,
                          uint32_t epoch, struct frame **frame);
/* The record is durable: if current, it is LOGGED now.  Not OK: back to fresh (HAS_COPY stays: the
 * device may have it). */
void cache_committed (struct cache *cache, struct frame *frame, bool ok);

/* --- opening --- */
/* Takes frame INDEX, found dirty in the arena with VERSION, into the index, without charge.  In
 * ascending order of VERSION (CHECKed): of two of the same block the second replaces the first,
 * whose header is cleared.  Before anything else is done with the cache; the header of a frame
 * that is not adopted must be cleared (disk = 0) by the caller. */
void cache_adopt (struct cache *cache, struct cache_disk *disk, uint64_t block, uint32_t index,
                  uint64_t version);
/* Marks the dirty frame of a block as having a copy in the journal; false: there is no dirty
 * frame. */
bool cache_mark_copy (struct cache *cache, struct cache_disk *disk, uint64_t block, uint32_t epoch);
/* Gives the dirty frame of a block a token (its reserve is the caller's). */
void cache_mark_token (struct cache *cache, struct cache_disk *disk, uint64_t block);

/* For tests, nobody else being inside: every dirty frame in one list, counts right, references
 * plausible, headers in the arena as they should be. */
void cache_verify (struct cache *cache);

#endif
