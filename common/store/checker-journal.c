/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-journal.c - follows the chain of records, and looks for more of it behind its end
 * (lacuna-format(5), JOURNAL). */
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store/checker-internal.h"

#define MAGIC 0x6c6e724a
#define HEADER 96
#define CHECKSUMS_AT 8               /* header_checksum and checksum */
#define CHECKSUMS_SIZE 16

struct record {
  uint64_t place;
  uint64_t block_count;
  uint64_t checksum;
  uint64_t sequence, previous, position;
  uint64_t item_bytes, data_count, data_offset, tail_bytes;
};

/* Where the next record is expected, and what it must say. */
struct chain {
  unsigned half;
  uint64_t head;                     /* block in the half */
  uint64_t sequence, previous;
  uint64_t position;
};

static uint64_t
chain_place (const struct checker *checker, unsigned half, uint64_t head)
{
  return checker->super.journal_place + half * checker->super.journal_half_blocks + head;
}

/* A header of this store and opening at PLACE?  (Nothing is said of what follows it.) */
static bool
record_header (struct checker *checker, uint64_t place, uint8_t *block, struct record *record)
{
  if (place >= checker->reader->length || checker_read (checker, place, block) != 0
      || checker_u32 (block) != MAGIC || memcmp (block + 24, checker->super.uuid, 16) != 0
      || checker_u64 (block + 56) != place
      || checker_checksum (block, CHECKSUMS_AT, CHECKSUMS_SIZE, checker->super.journal_salt)
           != checker_u64 (block + CHECKSUMS_AT))
    return false;
  *record = (struct record) {
    .place = place,
    .block_count = checker_u32 (block + 4),
    .checksum = checker_u64 (block + 16),
    .sequence = checker_u64 (block + 40),
    .previous = checker_u64 (block + 48),
    .position = checker_u64 (block + 64),
    .item_bytes = checker_u32 (block + 72),
    .data_count = checker_u32 (block + 76),
    .data_offset = checker_u32 (block + 80),
    .tail_bytes = checker_u32 (block + 84),
  };
  return true;
}

/* Invariant 12, as far as the header tells. */
static const char *
record_lengths_fault (const struct checker *checker, const struct record *record, uint64_t head)
{
  uint64_t front = (HEADER + record->item_bytes + CHECKER_BLOCK - 1) / CHECKER_BLOCK;

  if (record->item_bytes % 8 != 0)
    return "item_bytes is no multiple of 8";
  if (record->data_offset != front || record->block_count != front + record->data_count)
    return "its lengths do not agree";
  if (record->block_count > checker->super.journal_half_blocks - head)
    return "it reaches beyond its half of the journal";
  return NULL;
}

/* Reads all of it, the items into ITEMS; false: it is not whole. */
static bool
record_body (struct checker *checker, const struct record *record, const uint8_t *header,
             uint8_t *items)
{
  XXH3_state_t *state = XXH3_createState ();
  uint8_t block[CHECKER_BLOCK];
  uint64_t done = 0, checksum;
  bool is_read = true;

  XXH3_64bits_reset_withSeed (state, checker->super.journal_salt);
  for (uint64_t i = 0; i < record->block_count && is_read; ++i) {
    unsigned skip = i == 0 ? HEADER : 0;
    uint64_t count = CHECKER_BLOCK - skip;

    memcpy (block, header, sizeof block);
    if (i == 0)
      memset (block + CHECKSUMS_AT, 0, CHECKSUMS_SIZE);
    else
      is_read = record->place + i < checker->reader->length
                && checker_read (checker, record->place + i, block) == 0;
    XXH3_64bits_update (state, block, sizeof block);
    if (count > record->item_bytes - done)
      count = record->item_bytes - done;
    memcpy (items + done, block + skip, count);
    done += count;
  }
  checksum = XXH3_64bits_digest (state);
  XXH3_freeState (state);
  return is_read && checksum == record->checksum;
}

/* Positions go on where the record before ended.  Those that the trees have may be left out. */
static void
record_judge_position (struct checker *checker, const struct chain *chain,
                       const struct record *record, struct checker_where where)
{
  uint64_t known = checker->super.journal_position;
  uint64_t least = checker->record_count == 0 ? 0 : chain->position;
  uint64_t most = least > known ? least : known;

  if (record->position < least || record->position > most)
    checker_find (checker, CHECKER_DAMAGE, where, "items are missing, or there twice",
                  "its items begin at position %" PRIu64 ", not at %" PRIu64, record->position,
                  most);
}

/* Whether a record is about a disk that cannot be read: it could not be replayed then.  (It may well be
 * about one that has been forgotten since.) */
static bool
record_is_orphan (struct checker *checker, const uint8_t *items, size_t bytes)
{
  for (size_t at = 0; at + 40 <= bytes;) {
    size_t length = checker_u16 (items + at + 2);
    bool is_clone = checker_u16 (items + at) == CHECKER_CLONE && at + 48 <= bytes;

    if (checker_disk_is_lost (checker, checker_u64 (items + at + 8))
        || (is_clone && checker_disk_is_lost (checker, checker_u64 (items + at + 40))))
      return true;
    if (length < 40)
      return false;
    at += length;
  }
  return false;
}

enum record_state {
  RECORD_NONE,                       /* nothing that would continue the chain */
  RECORD_TORN,                       /* begins it, but is not whole */
  RECORD_ORPHAN,                     /* a repair ends the journal before it */
  RECORD_VALID,
};

/* Is there the next record of the chain at block HEAD of HALF?  Takes it in if so. */
static enum record_state
record_take (struct checker *checker, struct chain *chain, unsigned half, uint64_t head)
{
  struct checker_where where = { "journal record", chain_place (checker, half, head), NULL };
  uint8_t header[CHECKER_BLOCK], *items;
  struct record record;
  const char *fault;

  if (head >= checker->super.journal_half_blocks
      || !record_header (checker, where.place, header, &record)
      || record.sequence != chain->sequence || record.previous != chain->previous)
    return RECORD_NONE;
  fault = record_lengths_fault (checker, &record, head);
  if (fault != NULL) {
    checker_find (checker, CHECKER_DAMAGE, where, "the journal ends here", "%s", fault);
    checker->has_broken_chain = true;
    return RECORD_NONE;
  }
  items = malloc (record.item_bytes + 1);
  if (items == NULL) {
    fputs ("lacuna: not enough memory to check the store\n", stderr);
    exit (CHECKER_UNUSABLE);
  }
  if (!record_body (checker, &record, header, items)) {
    free (items);
    return RECORD_TORN;
  }
  if (checker->plan != NULL && checker->has_damaged_catalogue
      && record_is_orphan (checker, items, record.item_bytes)) {
    free (items);
    return RECORD_ORPHAN;
  }
  record_judge_position (checker, chain, &record, where);
  if (record.tail_bytes
      != record.item_bytes - checker_data_item_bytes (items, record.item_bytes))
    checker_find (checker, CHECKER_DAMAGE, where, NULL, "tail_bytes is wrong");
  ++checker->record_count;
  checker_replay_record (checker, record.place, record.position, items, record.item_bytes,
                         record.data_count);
  free (items);
  *chain = (struct chain) {
    .half = half,
    .head = head + record.block_count,
    .sequence = record.sequence + 1,
    .previous = record.checksum,
    .position = record.position + record.tail_bytes,
  };
  return RECORD_VALID;
}

/* The repair: what cannot be reached must not be found. */
static void
chain_cut (struct checker *checker, const struct chain *chain)
{
  static const uint8_t zeros[CHECKER_BLOCK];
  uint64_t blocks = 2 * checker->super.journal_half_blocks, count = 0;
  uint8_t block[CHECKER_BLOCK];
  struct record record;

  checker->has_broken_chain = checker->is_cut = checker->needs_superblock = true;
  for (uint64_t i = 0; i < blocks && checker->plan != NULL; ++i)
    if (record_header (checker, chain_place (checker, 0, i), block, &record)
        && record.sequence >= chain->sequence) {
      checker_fix (checker, CHECKER_PHASE_NODES, record.place, zeros);
      count++;
    }
  checker_fix_tell (checker, true, "journal: ends before record %" PRIu64 "; that, and what is"
                    " behind it (%" PRIu64 " records that could be read), is given up: what was"
                    " acknowledged since, and what a killed process left in its arena",
                    chain->sequence, count);
}

/* Invariant 11: the superblock tells of records that are not there. */
static void
chain_judge_durable (struct checker *checker, const struct chain *chain)
{
  const struct checker_superblock *super = &checker->super;
  struct checker_where where
    = { "journal record", chain_place (checker, chain->half, chain->head), NULL };

  if (chain->sequence - super->journal_sequence >= super->journal_durable)
    return;
  chain_cut (checker, chain);
  checker_find (checker, CHECKER_DAMAGE, where,
                "what they hold, writes that were acknowledged as durable, is lost",
                "record %" PRIu64 " is invalid, but %" PRIu32
                " were durable when the superblock was written, from %" PRIu64 " on",
                chain->sequence, super->journal_durable, super->journal_sequence);
}

/* Invariant 11: looks in both halves for records that can only have been written after the one that
 * is missing; tells of the first of them. */
static void
chain_judge_rest (struct checker *checker, const struct chain *chain)
{
  uint64_t blocks = 2 * checker->super.journal_half_blocks, found = 0, place = 0;
  uint8_t block[CHECKER_BLOCK];
  struct record record;

  for (uint64_t i = 0; i < blocks; ++i) {
    if (chain_place (checker, 0, i) >= checker->reader->length)
      break;
    if (!record_header (checker, chain_place (checker, 0, i), block, &record)
        || record.sequence <= chain->sequence)
      continue;
    if (found++ == 0)
      place = record.place;
  }
  if (found == 0) {
    chain_judge_durable (checker, chain);
    return;
  }
  chain_cut (checker, chain);
  checker_find (checker, CHECKER_DAMAGE,
                (struct checker_where) { "journal record",
                                         chain_place (checker, chain->half, chain->head), NULL },
                "what they hold, writes that were acknowledged as durable, is lost",
                "record %" PRIu64 " is invalid, but %" PRIu64
                " later ones exist, one at place %" PRIu64,
                chain->sequence, found, place);
}

void
checker_journal (struct checker *checker)
{
  const struct checker_superblock *super = &checker->super;
  struct chain chain = {
    .half = super->journal_half,
    .sequence = super->journal_sequence,
    .previous = super->journal_chain,
  };
  struct checker_where where = { "journal", CHECKER_NO_PLACE, NULL };
  enum record_state state, other = RECORD_NONE;

  if (chain_place (checker, 0, 2 * super->journal_half_blocks) > checker->reader->length)
    checker_find (checker, CHECKER_DAMAGE, where, "the store cannot be opened",
                  "it lies beyond the end of the store: the store is truncated");
  do {
    state = record_take (checker, &chain, chain.half, chain.head);
    if (state != RECORD_VALID && checker->record_count > 0 && !checker->has_broken_chain)
      other = record_take (checker, &chain, !chain.half, 0);
  } while (state == RECORD_VALID || other == RECORD_VALID);
  if (state == RECORD_ORPHAN || other == RECORD_ORPHAN)
    chain_cut (checker, &chain);
  if (!checker->has_broken_chain)
    chain_judge_rest (checker, &chain);
  if (super->is_clean) {
    if (checker->record_count > 0)
      checker_find (checker, CHECKER_DAMAGE, where, "the superblock is older than the journal",
                    "the store was closed in order, but %" PRIu64 " records wait to be replayed",
                    checker->record_count);
    return;
  }
  checker_find (checker, CHECKER_NOTE, where, "opening it replays them",
                "the store was not closed in order; %" PRIu64 " records are to be replayed",
                checker->record_count);
  if ((state == RECORD_TORN || other == RECORD_TORN) && !checker->has_broken_chain)
    checker_find (checker, CHECKER_NOTE, where, "it was never acknowledged",
                  "the last record, %" PRIu64 ", is not whole", chain.sequence);
}
