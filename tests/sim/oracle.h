/* SPDX-License-Identifier: BSD-2-Clause */
/* oracle.h - what a disk may hold, after a history of requests and crashes.
 *
 * The oracle is told when each change began and ended, and judges what reads return.  Per sector of
 * 512 bytes it keeps those changes that can still be seen: by a read now, or after a power cut.
 * All data that is written comes from oracle_pattern, so that every sector says which change it is
 * from.
 *
 * Times are numbers that only grow, each used once.  Single thread.  Nothing here knows the engine.
 *
 * What is demanded (numbers as in the design's list for the oracle):
 *   - a value read comes from a change of this disk, incarnation and place, or is zero; else
 *     FOREIGN, TORN
 *   - not one that ended before another, which ended before the read began, was begun; and reads
 *     that follow each other never see new, then old
 *   - after a kill: all that was acknowledged; what was not, sector by sector, old or new, and then
 *     stays so
 *   - after a power cut: all that was acknowledged and flushed, or had FUA
 */
#ifndef LACUNA_TESTS_ORACLE_H
#define LACUNA_TESTS_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR_SIZE 512
#define NEVER UINT64_MAX

enum entry_flags {
  ENTRY_ZERO = 1,
  ENTRY_OK = 2,          /* acknowledged */
  ENTRY_DURABLE = 4,     /* survives a power cut whatever comes */
};

/* A change as one sector sees it. */
struct oracle_entry {
  uint64_t change;       /* number; 0: what was there at first, or was found after a crash */
  uint64_t pattern;      /* the change whose pattern the data is (unless ZERO), */
  uint64_t incarnation;  /* of this disk, */
  uint64_t origin;       /* and this sector: it came here by a clone, if they are not its own */
  uint64_t begun, ended; /* ended: NEVER while it runs */
  uint64_t seen_first;   /* when the first read that saw it ended; NEVER */
  uint64_t seen_last;    /* when the last read that saw it began; 0 */
  uint16_t from, to;     /* bytes of the sector */
  uint16_t flags;
};

struct oracle_sector {
  struct oracle_entry *entries;   /* none: zeros since ever, durable */
  uint32_t count, max;
};

struct oracle_disk {
  uint64_t incarnation;           /* never used twice */
  uint64_t sector_max;            /* room for that many */
  struct oracle_sector *sectors;
  uint64_t flushed;               /* what ended before this is durable */
  uint64_t oldest_read;           /* the owner says: no read runs that began before */
};

struct oracle {
  uint64_t changes;
  uint64_t incarnations;
  char message[512];              /* of the last violation */
};

enum crash_kind { CRASH_KILL, CRASH_POWER };

void oracle_disk_init (struct oracle *oracle, struct oracle_disk *disk, uint64_t size_max);
void oracle_disk_clear (struct oracle_disk *disk);
/* TO need not be initialised. */
void oracle_disk_copy (struct oracle_disk *to, const struct oracle_disk *from);

/* Of all that is known of the disk: equal for disks of which the same is demanded. */
uint64_t oracle_disk_hash (const struct oracle_disk *disk);

/* The bytes that CHANGE writes at OFFSET of the disk. */
void oracle_pattern (uint64_t incarnation, uint64_t change, uint64_t offset, void *data,
                     size_t length);

uint64_t oracle_change (struct oracle *oracle);     /* a new number, from 1 on */
/* [offset, offset + length) is being written with CHANGE's pattern, or zeroed. */
void oracle_begin (struct oracle_disk *disk, uint64_t change, bool is_zero, uint64_t offset,
                   uint64_t length, uint64_t now);
/* It ended: acknowledged (FUA or not), or with an error (it may have been done, in part, or
 * not). */
void oracle_end (struct oracle_disk *disk, uint64_t change, uint64_t offset, uint64_t length,
                 bool is_ok, bool is_fua, uint64_t now);
/* From NOW until CHANGE ends, [offset, offset + length), whole sectors, becomes what SOURCE has
 * from byte FROM on at some moment meanwhile. */
void oracle_clone_begin (struct oracle_disk *disk, uint64_t change, uint64_t offset,
                         uint64_t length, const struct oracle_disk *source, uint64_t from,
                         uint64_t now);
/* And it may be what ADDED, which has just begun, changes there.  BEGUN: when CHANGE did. */
void oracle_clone_add (struct oracle_disk *disk, uint64_t change, uint64_t begun, uint64_t offset,
                       uint64_t length, const struct oracle_disk *source, uint64_t from,
                       uint64_t added, uint64_t now);
/* After a crash, DATA was found at OFFSET: whether that says that CHANGE, a clone which was cut off
 * then, was done or not; before it is judged.  It cannot have been both. */
void oracle_clone_found (const struct oracle_disk *disk, enum crash_kind kind, uint64_t change,
                         uint64_t offset, uint64_t length, const uint8_t *data, uint64_t now,
                         bool *was_done, bool *was_not_done);
/* A FLUSH that began at BEGUN was acknowledged. */
void oracle_flushed (struct oracle_disk *disk, uint64_t begun);
/* From SIZE on nothing of before can be seen any more, by whatever way (the disk was shorter
 * meanwhile). */
void oracle_forget (struct oracle_disk *disk, uint64_t size);

/* A READ returned DATA.  False: that must not be; oracle->message says why. */
bool oracle_judge (struct oracle *oracle, struct oracle_disk *disk, uint64_t offset,
                   uint64_t length, const uint8_t *data, uint64_t begun, uint64_t ended);
/* The process or the machine ended at NOW: what was running has ended, nobody knows how. */
void oracle_crash (struct oracle_disk *disk, uint64_t now);
/* After recovery DATA was found at OFFSET (sector-aligned): judges it, and takes it as what the
 * sectors hold from now on. */
bool oracle_judge_recovered (struct oracle *oracle, struct oracle_disk *disk, enum crash_kind kind,
                             uint64_t offset, uint64_t length, const uint8_t *data, uint64_t now);
/* The history of the sector that holds OFFSET, to stderr. */
void oracle_print (const struct oracle_disk *disk, uint64_t offset);

#endif
