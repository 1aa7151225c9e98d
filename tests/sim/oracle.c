/* SPDX-License-Identifier: BSD-2-Clause */
/* oracle.c - see oracle.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "oracle.h"

/* From so many entries on a sector is looked through for those that cannot be seen any more. */
#define PRUNE_FROM 4

/* --- the pattern: cells of 16 bytes, each says change and place, and proves it --- */

#define CELL 16

static uint64_t
mix (uint64_t a, uint64_t b)
{
  uint64_t z = a + (b + 1) * UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static void
cell_make (uint64_t incarnation, uint64_t change, uint64_t number, uint64_t words[2])
{
  uint64_t tag = incarnation << 40 | change;

  words[0] = tag ^ mix (incarnation, number);
  words[1] = mix (tag, number);
}

void
oracle_pattern (uint64_t incarnation, uint64_t change, uint64_t offset, void *data, size_t length)
{
  uint8_t *to = data;

  while (length > 0) {
    uint64_t words[2];
    size_t from = offset % CELL, part = MIN (CELL - from, length);

    cell_make (incarnation, change, offset / CELL, words);
    memcpy (to, (uint8_t *) words + from, part);
    to += part;
    offset += part;
    length -= part;
  }
}

/* --- disks and their sectors --- */

void
oracle_disk_init (struct oracle *oracle, struct oracle_disk *disk, uint64_t size_max)
{
  memset (disk, 0, sizeof *disk);
  disk->incarnation = ++oracle->incarnations;
  disk->sector_max = divide_up (size_max, SECTOR_SIZE);
  disk->sectors = calloc (disk->sector_max, sizeof *disk->sectors);
  CHECK (disk->sectors != NULL || disk->sector_max == 0);
}

void
oracle_disk_clear (struct oracle_disk *disk)
{
  for (uint64_t s = 0; s < disk->sector_max; s++)
    free (disk->sectors[s].entries);
  free (disk->sectors);
  memset (disk, 0, sizeof *disk);
}

void
oracle_disk_copy (struct oracle_disk *to, const struct oracle_disk *from)
{
  *to = *from;
  to->sectors = calloc (from->sector_max, sizeof *to->sectors);
  CHECK (to->sectors != NULL || from->sector_max == 0);
  for (uint64_t s = 0; s < from->sector_max; s++) {
    const struct oracle_sector *sector = &from->sectors[s];

    if (sector->count == 0)
      continue;
    to->sectors[s].entries = malloc (sector->count * sizeof *sector->entries);
    CHECK (to->sectors[s].entries != NULL);
    memcpy (to->sectors[s].entries, sector->entries, sector->count * sizeof *sector->entries);
    to->sectors[s].count = to->sectors[s].max = sector->count;
  }
}

uint64_t
oracle_disk_hash (const struct oracle_disk *disk)
{
  uint64_t hash = checksum (&disk->incarnation, sizeof disk->incarnation, disk->flushed);

  for (uint64_t s = 0; s < disk->sector_max; s++)
    for (uint32_t i = 0; i < disk->sectors[s].count; i++) {
      const struct oracle_entry *entry = &disk->sectors[s].entries[i];
      uint64_t words[] = {
        s, entry->change, entry->pattern, entry->incarnation, entry->origin, entry->begun,
        entry->ended, entry->seen_first,
        entry->seen_last,
        (uint64_t) entry->from << 32 | (uint64_t) entry->to << 16 | entry->flags,
      };

      hash = checksum (words, sizeof words, hash);
    }
  return hash;
}

static bool
is_durable (const struct oracle_disk *disk, const struct oracle_entry *entry)
{
  return (entry->flags & ENTRY_DURABLE) != 0
         || ((entry->flags & ENTRY_OK) != 0 && entry->ended < disk->flushed);
}

static bool
covers (const struct oracle_entry *entry, unsigned from, unsigned to)
{
  return entry->from <= from && entry->to >= to;
}

/* Whether LATER, if it is there, hides ENTRY from whoever looks at bytes [from, to). */
static bool
hides (const struct oracle_entry *later, const struct oracle_entry *entry, unsigned from,
       unsigned to)
{
  return later != entry && covers (later, from, to) && entry->ended < later->begun;
}

/* Drops what nobody can see any more, not even reads that began long ago (those before BEFORE). */
static void
sector_prune (const struct oracle_disk *disk, struct oracle_sector *sector, uint64_t before)
{
  unsigned kept = 0;

  /* Chains of hiding end at one that is kept: what hides is later, and never hidden by what it
   * hides. */
  for (unsigned j = 0; j < sector->count; j++) {
    const struct oracle_entry *later = &sector->entries[j];

    if ((later->flags & ENTRY_OK) == 0 || later->ended >= before || !is_durable (disk, later))
      continue;
    for (unsigned i = 0; i < sector->count; i++) {
      struct oracle_entry *entry = &sector->entries[i];

      if (hides (later, entry, entry->from, entry->to))
        entry->change = NEVER;
    }
  }
  for (unsigned i = 0; i < sector->count; i++)
    if (sector->entries[i].change != NEVER)
      sector->entries[kept++] = sector->entries[i];
  sector->count = kept;
}

static struct oracle_entry *
sector_add (struct oracle_sector *sector)
{
  if (sector->count == sector->max) {
    sector->max = MAX (4, 2 * sector->max);
    sector->entries = realloc (sector->entries, sector->max * sizeof *sector->entries);
    CHECK (sector->entries != NULL);
  }
  return &sector->entries[sector->count++];
}

/* Of a sector of DISK. */
static struct oracle_entry
entry_make (const struct oracle_disk *disk, uint64_t sector, uint64_t change, unsigned flags,
            uint64_t begun, uint64_t ended, unsigned from, unsigned to)
{
  return (struct oracle_entry) {
    .change = change, .pattern = change, .incarnation = disk->incarnation, .origin = sector,
    .flags = flags, .begun = begun, .ended = ended, .seen_first = NEVER, .from = from, .to = to,
  };
}

/* Zeros since ever become an entry like others. */
static void
sector_begin (const struct oracle_disk *disk, uint64_t number)
{
  struct oracle_sector *sector = &disk->sectors[number];

  if (sector->count == 0)
    *sector_add (sector) = entry_make (disk, number, 0, ENTRY_ZERO | ENTRY_OK | ENTRY_DURABLE, 0, 0,
                                       0, SECTOR_SIZE);
}

/* Calls for each sector of a range, with the bytes of it that are meant. */
#define for_each_sector(s, from, to, offset, length)                                           \
  for (uint64_t s = (offset) / SECTOR_SIZE, end_ = (offset) + (length), from, to;              \
       s * SECTOR_SIZE < end_                                                                  \
       && (from = s * SECTOR_SIZE < (offset) ? (offset) % SECTOR_SIZE : 0,                     \
           to = MIN (end_ - s * SECTOR_SIZE, SECTOR_SIZE), true);                              \
       s++)

uint64_t
oracle_change (struct oracle *oracle)
{
  return ++oracle->changes;
}

void
oracle_begin (struct oracle_disk *disk, uint64_t change, bool is_zero, uint64_t offset,
              uint64_t length, uint64_t now)
{
  CHECK (divide_up (offset + length, SECTOR_SIZE) <= disk->sector_max);
  for_each_sector (s, from, to, offset, length) {
    struct oracle_sector *sector = &disk->sectors[s];

    sector_begin (disk, s);
    if (sector->count >= PRUNE_FROM)
      sector_prune (disk, sector, disk->oldest_read);
    *sector_add (sector) = entry_make (disk, s, change, is_zero ? ENTRY_ZERO : 0, now, NEVER, from,
                                       to);
  }
}

void
oracle_end (struct oracle_disk *disk, uint64_t change, uint64_t offset, uint64_t length, bool is_ok,
            bool is_fua, uint64_t now)
{
  for_each_sector (s, from, to, offset, length) {
    struct oracle_sector *sector = &disk->sectors[s];

    for (unsigned i = 0; i < sector->count; i++) {
      struct oracle_entry *entry = &sector->entries[i];

      if (entry->change == change && entry->ended == NEVER && entry->from >= from
          && entry->to <= to) {
        entry->ended = now;
        entry->flags |= (is_ok ? ENTRY_OK : 0) | (is_ok && is_fua ? ENTRY_DURABLE : 0);
      }
    }
  }
}

void
oracle_flushed (struct oracle_disk *disk, uint64_t begun)
{
  disk->flushed = MAX (disk->flushed, begun);
}

void
oracle_forget (struct oracle_disk *disk, uint64_t size)
{
  for (uint64_t s = size / SECTOR_SIZE; s < disk->sector_max; s++)
    disk->sectors[s].count = 0;
}

/* --- judging --- */

enum view { VIEW_LIVE, VIEW_KILL, VIEW_POWER };

struct look {
  const struct oracle_disk *disk;
  enum view view;
  uint64_t begun, ended;       /* of the read */
};

/* Whether whoever looks at [from, to) may see ENTRY. */
static bool
may_see (const struct look *look, const struct oracle_sector *sector,
         const struct oracle_entry *entry, unsigned from, unsigned to)
{
  if (!covers (entry, from, to) || entry->begun > look->ended)
    return false;
  for (unsigned j = 0; j < sector->count; j++) {
    const struct oracle_entry *later = &sector->entries[j];

    if (!hides (later, entry, from, to))
      continue;
    if (look->view == VIEW_POWER ? is_durable (look->disk, later)
                                 : (later->flags & ENTRY_OK) != 0 && later->ended < look->begun)
      return false;
  }
  return true;
}

static bool
is_zero (const uint8_t *data, size_t length)
{
  return length == 0 || (data[0] == 0 && memcmp (data, data + 1, length - 1) == 0);
}

/* Whether DATA, from byte FROM of the sector on, is what ENTRY put there. */
static bool
has_content (const struct oracle_entry *entry, unsigned from, const uint8_t *data, unsigned length)
{
  uint8_t expected[SECTOR_SIZE];

  if (entry->flags & ENTRY_ZERO)
    return is_zero (data, length);
  /* The first byte says no most of the time, and sooner. */
  oracle_pattern (entry->incarnation, entry->pattern, entry->origin * SECTOR_SIZE + from, expected,
                  1);
  if (expected[0] != data[0])
    return false;
  oracle_pattern (entry->incarnation, entry->pattern, entry->origin * SECTOR_SIZE + from, expected,
                  length);
  return memcmp (expected, data, length) == 0;
}

/* Says what the data is that should not be there. */
static bool
complain (struct oracle *oracle, const struct oracle_disk *disk, uint64_t offset,
          const uint8_t *data, unsigned length, const char *what)
{
  uint64_t words[2], tag;
  unsigned skip = -offset % CELL;
  int at = snprintf (oracle->message, sizeof oracle->message,
                     "disk #%" PRIu64 " bytes %" PRIu64 "+%u: %s; found ",
                     disk->incarnation, offset, length, what);
  char *end = oracle->message + at;
  size_t room = sizeof oracle->message - at;

  if (is_zero (data, length)) {
    snprintf (end, room, "zeros");
    return false;
  }
  if (skip + CELL > length) {
    snprintf (end, room, "%02x %02x.. (too short to tell)", data[0], data[length - 1]);
    return false;
  }
  /* Whose is it: at this place of any disk? */
  for (uint64_t incarnation = 1; incarnation <= oracle->incarnations; incarnation++) {
    memcpy (words, data + skip, CELL);
    tag = words[0] ^ mix (incarnation, (offset + skip) / CELL);
    if (words[1] == mix (tag, (offset + skip) / CELL)) {
      snprintf (end, room, "change %" PRIu64 " of disk #%" PRIu64 "%s",
                tag & ((UINT64_C (1) << 40) - 1), tag >> 40,
                tag >> 40 != disk->incarnation ? ": FOREIGN" : "");
      return false;
    }
    for (uint64_t cell = 0; cell < disk->sector_max * SECTOR_SIZE / CELL; cell++) {
      tag = words[0] ^ mix (incarnation, cell);
      if (words[1] == mix (tag, cell)) {
        snprintf (end, room, "change %" PRIu64 " of disk #%" PRIu64 ", from offset %" PRIu64
                  ": MISPLACED", tag & ((UINT64_C (1) << 40) - 1), tag >> 40, cell * CELL);
        return false;
      }
    }
  }
  snprintf (end, room, "%02x%02x%02x%02x.. : GARBAGE", data[0], data[1], data[2], data[3]);
  return false;
}

/* The next byte after FROM where a partial change begins or ends. */
static unsigned
segment_end (const struct oracle_sector *sector, unsigned from, unsigned to)
{
  for (unsigned i = 0; i < sector->count; i++) {
    const struct oracle_entry *entry = &sector->entries[i];

    if (entry->from > from && entry->from < to)
      to = entry->from;
    if (entry->to > from && entry->to < to)
      to = entry->to;
  }
  return to;
}

static bool
is_whole (const struct oracle_sector *sector)
{
  for (unsigned i = 0; i < sector->count; i++)
    if (sector->entries[i].from != 0 || sector->entries[i].to != SECTOR_SIZE)
      return false;
  return true;
}

/* Two changes with data of their own are out of order if each was over, or seen, before the other
 * was last (Gibbons and Korach's zones, for a register whose values are unique). */
static bool
zones_conflict (const struct oracle_entry *a, const struct oracle_entry *b)
{
  uint64_t a_first = MIN (a->flags & ENTRY_OK ? a->ended : NEVER, a->seen_first);
  uint64_t b_first = MIN (b->flags & ENTRY_OK ? b->ended : NEVER, b->seen_first);

  return a_first < MAX (b->begun, b->seen_last) && b_first < MAX (a->begun, a->seen_last);
}

/* Whether the sector has had what SEEN put there before, by another clone of it: then a read does
 * not say which it saw. */
static bool
is_repeated (const struct oracle_sector *sector, const struct oracle_entry *seen)
{
  for (unsigned i = 0; i < sector->count; i++) {
    const struct oracle_entry *entry = &sector->entries[i];

    if (entry != seen && entry->pattern == seen->pattern && entry->origin == seen->origin
        && entry->incarnation == seen->incarnation && !(entry->flags & ENTRY_ZERO))
      return true;
  }
  return false;
}

static bool
note_seen (struct oracle_sector *sector, struct oracle_entry *seen, uint64_t begun, uint64_t ended)
{
  if ((seen->flags & ENTRY_ZERO) || !is_whole (sector) || is_repeated (sector, seen))
    return true;
  seen->seen_first = MIN (seen->seen_first, ended);
  seen->seen_last = MAX (seen->seen_last, begun);
  for (unsigned j = 0; j < sector->count; j++)
    if (&sector->entries[j] != seen && zones_conflict (seen, &sector->entries[j]))
      return false;
  return true;
}

/* Finds the entry that [from, to) of a sector shows; the latest of those that it may be. */
static struct oracle_entry *
find_seen (const struct look *look, struct oracle_sector *sector, unsigned from,
           unsigned to, const uint8_t *data, bool *exists)
{
  struct oracle_entry *found = NULL;

  *exists = false;
  for (unsigned i = 0; i < sector->count; i++) {
    struct oracle_entry *entry = &sector->entries[i];

    if (!covers (entry, from, to)
        || !has_content (entry, from, data, to - from))
      continue;
    *exists = true;
    if (may_see (look, sector, entry, from, to) && (found == NULL || found->begun < entry->begun))
      found = entry;
  }
  return found;
}

/* --- clones --- */

/* Adds what may be seen now of a sector of SOURCE, as a whole or only what change ADDED did (0:
 * all), to what CHANGE, begun at BEGUN, may bring to sector NUMBER of DISK. */
static void
clone_sector (struct oracle_disk *disk, uint64_t number, uint64_t change, uint64_t begun,
              const struct oracle_disk *source, uint64_t origin, uint64_t added, uint64_t now)
{
  const struct look look = { .disk = source, .view = VIEW_LIVE, .begun = now, .ended = now };
  const struct oracle_sector *from = &source->sectors[origin];

  for (unsigned at = 0, next; at < SECTOR_SIZE; at = next) {
    next = segment_end (from, at, SECTOR_SIZE);
    for (unsigned i = 0; i < from->count; i++) {
      struct oracle_entry copy = from->entries[i];

      if ((added != 0 && copy.change != added) || !may_see (&look, from, &copy, at, next))
        continue;
      copy = entry_make (disk, number, change, copy.flags & ENTRY_ZERO, begun, NEVER, at, next);
      copy.pattern = from->entries[i].pattern;
      copy.incarnation = from->entries[i].incarnation;
      copy.origin = from->entries[i].origin;
      *sector_add (&disk->sectors[number]) = copy;
    }
  }
}

void
oracle_clone_begin (struct oracle_disk *disk, uint64_t change, uint64_t offset, uint64_t length,
                    const struct oracle_disk *source, uint64_t from, uint64_t now)
{
  CHECK ((offset | length | from) % SECTOR_SIZE == 0);
  for (uint64_t i = 0; i < length / SECTOR_SIZE; i++) {
    uint64_t number = offset / SECTOR_SIZE + i;
    struct oracle_sector *sector = &disk->sectors[number];

    sector_begin (source, from / SECTOR_SIZE + i);
    sector_begin (disk, number);
    if (sector->count >= PRUNE_FROM)
      sector_prune (disk, sector, disk->oldest_read);
    clone_sector (disk, number, change, now, source, from / SECTOR_SIZE + i, 0, now);
  }
}

void
oracle_clone_add (struct oracle_disk *disk, uint64_t change, uint64_t begun, uint64_t offset,
                  uint64_t length, const struct oracle_disk *source, uint64_t from, uint64_t added,
                  uint64_t now)
{
  for (uint64_t i = 0; i < length / SECTOR_SIZE; i++)
    clone_sector (disk, offset / SECTOR_SIZE + i, change, begun, source, from / SECTOR_SIZE + i,
                  added, now);
}

/* What a part of a sector says of the clone: content that only it could bring, or that it would
 * have hidden. */
static void
clone_found_part (const struct look *look, const struct oracle_sector *sector, uint64_t change,
                  unsigned from, unsigned to, const uint8_t *data, bool *was_done,
                  bool *was_not_done)
{
  const struct oracle_entry *clone = NULL;
  unsigned new = 0, old = 0, other = 0;

  for (unsigned i = 0; i < sector->count; i++)
    if (sector->entries[i].change == change)
      clone = &sector->entries[i];
  if (clone == NULL)
    return;
  for (unsigned i = 0; i < sector->count; i++) {
    const struct oracle_entry *entry = &sector->entries[i];

    if (!has_content (entry, from, data, to - from) || !may_see (look, sector, entry, from, to))
      continue;
    new += entry->change == change;
    old += entry->change != change && entry->ended < clone->begun;
    other += entry->change != change && entry->ended >= clone->begun;
  }
  if (other > 0 || (new > 0) == (old > 0))
    return;
  *(new > 0 ? was_done : was_not_done) = true;
}

void
oracle_clone_found (const struct oracle_disk *disk, enum crash_kind kind, uint64_t change,
                    uint64_t offset, uint64_t length, const uint8_t *data, uint64_t now,
                    bool *was_done, bool *was_not_done)
{
  struct look look = {
    .disk = disk, .view = kind == CRASH_POWER ? VIEW_POWER : VIEW_KILL, .begun = now, .ended = now,
  };

  for (uint64_t at = offset; at < offset + length; at += SECTOR_SIZE) {
    const struct oracle_sector *sector = &disk->sectors[at / SECTOR_SIZE];

    for (unsigned from = 0, to; from < SECTOR_SIZE; from = to) {
      to = segment_end (sector, from, SECTOR_SIZE);
      clone_found_part (&look, sector, change, from, to, data + (at - offset) + from, was_done,
                        was_not_done);
    }
  }
}

bool
oracle_judge (struct oracle *oracle, struct oracle_disk *disk, uint64_t offset, uint64_t length,
              const uint8_t *data, uint64_t begun, uint64_t ended)
{
  struct look look = { .disk = disk, .view = VIEW_LIVE, .begun = begun, .ended = ended };

  for_each_sector (s, from, to, offset, length) {
    struct oracle_sector *sector = &disk->sectors[s];
    const uint8_t *part = data + (s * SECTOR_SIZE + from - offset);

    if (sector->count == 0) {
      if (!is_zero (part, to - from))
        return complain (oracle, disk, s * SECTOR_SIZE + from, part, to - from, "never written");
      continue;
    }
    for (unsigned at = from, next; at < to; part += next - at, at = next) {
      struct oracle_entry *seen;
      bool exists;

      next = segment_end (sector, at, to);
      seen = find_seen (&look, sector, at, next, part, &exists);
      if (seen == NULL)
        return complain (oracle, disk, s * SECTOR_SIZE + at, part, next - at,
                         exists ? "READ saw what is over" : "READ saw what cannot be there");
      if (from == 0 && to == SECTOR_SIZE && !note_seen (sector, seen, begun, ended))
        return complain (oracle, disk, s * SECTOR_SIZE + at, part, next - at, "new, then old");
    }
  }
  return true;
}

void
oracle_crash (struct oracle_disk *disk, uint64_t now)
{
  for (uint64_t s = 0; s < disk->sector_max; s++)
    for (unsigned i = 0; i < disk->sectors[s].count; i++)
      if (disk->sectors[s].entries[i].ended == NEVER)
        disk->sectors[s].entries[i].ended = now;
}

/* What was found becomes, after a kill, one more change, acknowledged and not durable; after a
 * power cut it is all there is. */
static bool
sector_recover (struct oracle *oracle, const struct look *look, struct oracle_sector *sector,
                uint64_t number, const uint8_t *data, uint64_t now)
{
  unsigned before = sector->count;

  for (unsigned from = 0, to; from < SECTOR_SIZE; from = to) {
    struct oracle_sector old = { .entries = sector->entries, .count = before };
    struct oracle_entry *seen, found;
    bool exists;

    to = segment_end (&old, from, SECTOR_SIZE);
    seen = find_seen (look, &old, from, to, data + from, &exists);
    if (seen == NULL)
      return complain (oracle, look->disk, number * SECTOR_SIZE + from, data + from, to - from,
                       !exists ? "after recovery: cannot be there"
                       : look->view == VIEW_POWER
                         ? "power cut brought back what was over, or lost what was durable"
                         : "kill brought back what was over, or lost what was acknowledged");
    found = entry_make (look->disk, number, 0, (seen->flags & ENTRY_ZERO) | ENTRY_OK, now, now,
                        from, to);
    found.pattern = seen->pattern;
    found.incarnation = seen->incarnation;
    found.origin = seen->origin;
    *sector_add (sector) = found;
  }
  if (look->view == VIEW_POWER) {
    sector->count -= before;
    memmove (sector->entries, sector->entries + before, sector->count * sizeof *sector->entries);
    for (unsigned i = 0; i < sector->count; i++)
      sector->entries[i].flags |= ENTRY_DURABLE;
    if (sector->count == 1 && (sector->entries[0].flags & ENTRY_ZERO))
      sector->count = 0;
  }
  return true;
}

bool
oracle_judge_recovered (struct oracle *oracle, struct oracle_disk *disk, enum crash_kind kind,
                        uint64_t offset, uint64_t length, const uint8_t *data, uint64_t now)
{
  struct look look = {
    .disk = disk, .view = kind == CRASH_POWER ? VIEW_POWER : VIEW_KILL, .begun = now, .ended = now,
  };

  for_each_sector (s, from, to, offset, length) {
    struct oracle_sector *sector = &disk->sectors[s];
    const uint8_t *part = data + (s * SECTOR_SIZE - offset);

    CHECK (from == 0 && to == SECTOR_SIZE);
    if (sector->count == 0) {
      if (!is_zero (part, SECTOR_SIZE))
        return complain (oracle, disk, s * SECTOR_SIZE, part, SECTOR_SIZE,
                         "never written, after recovery");
      continue;
    }
    if (!sector_recover (oracle, &look, sector, s, part, now))
      return false;
    if (sector->count >= PRUNE_FROM)
      sector_prune (disk, sector, now);
  }
  return true;
}

void
oracle_print (const struct oracle_disk *disk, uint64_t offset)
{
  const struct oracle_sector *sector = &disk->sectors[offset / SECTOR_SIZE];

  fprintf (stderr, "history of sector %" PRIu64 " (block %" PRIu64 ") of disk #%" PRIu64
           ", flushed up to %" PRIu64 ":\n", offset / SECTOR_SIZE, offset / BLOCK_SIZE,
           disk->incarnation, disk->flushed);
  for (unsigned i = 0; i < sector->count; i++) {
    const struct oracle_entry *e = &sector->entries[i];

    fprintf (stderr, "  change %" PRIu64 " (pattern %" PRIu64 " of #%" PRIu64 " sector %" PRIu64
             ") [%u,%u) %" PRIu64 "..%" PRId64 "%s%s%s seen %" PRId64 "..%" PRIu64 "\n", e->change,
             e->pattern, e->incarnation, e->origin, e->from, e->to, e->begun, (int64_t) e->ended,
             e->flags & ENTRY_ZERO ? " zero" : "",
             e->flags & ENTRY_OK ? " ok" : "", is_durable (disk, e) ? " durable" : "",
             (int64_t) e->seen_first, e->seen_last);
  }
}
