/* SPDX-License-Identifier: BSD-2-Clause */
/* arena.h - one shared mapping that outlives the process: frames, their headers, the journal's
 * tail.
 *
 * It lies in a file on tmpfs (mode 0600).  Whether there is room for all of it is asked when it is
 * made: a full tmpfs is an error then.  To allocate all of it takes some 0.25 s per GiB, so that its
 * maker has only the beginning allocated, and asks for the frames behind that in pieces
 * (arena_allocate), right after.  A frame must not be touched before: that would be a SIGBUS on a
 * tmpfs that others have filled meanwhile, where arena_allocate ends the process, and says why.
 *
 * The next opener of the store takes it over, so that after kill -9 nothing
 * acknowledged is lost.  It is taken over only if it belongs to this store, this boot, and this
 * state of the store (arena_id in the superblock).  "off": private memory, nothing outlives.
 *
 * What lies in it is written so that it is right after any instruction: content first, then the
 * word that makes it valid, with release order.  After power loss it is gone; nothing in it may be
 * trusted then (boot id).  Who uses it has it locked (flock), and so has the kernel while I/O of a
 * process that has died is under way in its frames (device_keep_memory).
 *
 * Layout: header block | frame headers | tail ring | (to 4096) | frames.
 */
#ifndef LACUNA_ARENA_H
#define LACUNA_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

/* "Lcarena1": the digit is the layout's, and counts up with each change of what lies in an arena. */
#define ARENA_MAGIC UINT64_C (0x31616e657261634c)

/* A dirty frame: valid if and only if disk != 0.  disk is stored last and cleared first. */
struct arena_frame {
  _Atomic uint64_t disk;
  uint64_t block;
  uint64_t version;
};

struct arena_header {          /* in the first block */
  uint64_t magic;
  uint64_t checksum;           /* of what follows up to `live` */
  uint8_t store_uuid[16];
  uint8_t arena_id[16];
  uint8_t boot_id[16];
  uint64_t frame_count;
  uint64_t tail_bytes;         /* power of 2 */
  uint64_t length;             /* of the file */
  /* `live`: changed while open; not part of the checksum */
  _Atomic uint64_t tail_end;   /* position: all item bytes before it are complete (journal.h) */
  _Atomic uint64_t tail_start; /* position: those before it are durable on the device */
  _Atomic uint64_t durable;    /* sequence: the journal's records before it are durable, */
  _Atomic uint64_t durable_check;   /* if this is its complement */
};

struct arena {
  struct arena_header *header;
  struct arena_frame *frames;  /* headers */
  uint8_t *tail;
  uint8_t *data;               /* frame i at data + i * BLOCK_SIZE */
  uint64_t frame_count;
  uint64_t tail_bytes;
  uint64_t length;
  uint64_t frames_at_start;    /* have their space since this was made or taken over */
  char *path;                  /* NULL: off */
  int fd;
};

struct arena_identity {
  uint8_t store_uuid[16];
  uint8_t arena_id[16];
  uint8_t boot_id[16];
};

/* Makes an arena at PATH (NULL: private memory, which is all there at once), the first FRAMES_AT_START
 * of its frames with their space, or all if they are fewer.  An existing file there is replaced only if
 * REPLACE, and if it is an arena of this store, or one that was never finished.  NULL with *ERROR
 * (malloc'd, says what to do) set. */
struct arena *arena_create (const char *path, const struct arena_identity *identity,
                            uint64_t frame_count, uint64_t frames_at_start, uint64_t tail_bytes,
                            bool replace, char **error);
/* The space of COUNT more frames from FIRST on, beyond those at start.  Any thread; blocks for some
 * 0.3 us per KiB.  If the space that was free when the arena was made is not any more, it says so
 * and ends the process: requests have been promised these frames, so there is no going on without,
 * and nothing is lost, as after kill -9: what is needed lies in the file. */
void arena_allocate (struct arena *arena, uint64_t first, uint64_t count);
/* What arena_create would be refused, as far as that can be known without making anything: 0, or
 * negative errno with *ERROR. */
int arena_check (const char *path, const struct arena_identity *identity, uint64_t frame_count,
                 uint64_t tail_bytes, char **error);
/* Maps an existing one, with the space of all frames, if it is whole and IDENTITY is its own; NULL with *WHY (static text)
 * otherwise.  Then errno is 0 if there is nothing to be had; else it may be the one, but could not
 * be looked at or mapped.  Waits up to LOCK_WAIT_MS for its lock: the kernel gives up that of a
 * process that was killed when none of its I/O fills or reads frames any more, and a moment later. */
struct arena *arena_take_over (const char *path, const struct arena_identity *identity,
                               unsigned lock_wait_ms, const char **why);
/* The journal's records before SEQUENCE are durable.  And: what is known of that; 0: nothing. */
void arena_note_durable (struct arena *arena, uint64_t sequence);
uint64_t arena_durable (const struct arena *arena);
/* Unmaps; with REMOVE deletes the file (a clean shutdown). */
void arena_close (struct arena *arena, bool remove);
/* This boot: /proc/sys/kernel/random/boot_id as bytes. */
void arena_boot_id (uint8_t id[16]);

#endif
