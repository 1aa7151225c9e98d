/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-superblock.c - which of the four copies counts, what is wrong with the others, and
 * whether its geometry can be (lacuna-format(5), SUPERBLOCK). */
#include <inttypes.h>

#include "store/checker-internal.h"

#define COPIES 4
#define CHECKSUM_AT 8
#define FIELDS_END 1272
#define SECTOR 512

enum copy_state {
  COPY_VALID,
  COPY_BLANK,          /* zeros */
  COPY_FOREIGN,        /* no trace of a superblock */
  COPY_DAMAGED,        /* was one */
};

struct copy {
  enum copy_state state;
  const char *fault;
  uint8_t block[CHECKER_BLOCK];
  struct checker_superblock super;
};

static struct checker_pointer
pointer_at (const uint8_t *at)
{
  return (struct checker_pointer) { checker_u64 (at), checker_u64 (at + 8) };
}

static void
superblock_decode (const uint8_t *b, struct checker_superblock *super)
{
  super->version = checker_u32 (b + 16);
  super->is_clean = checker_u32 (b + 20);
  super->incompat = checker_u64 (b + 24);
  super->ro_compat = checker_u64 (b + 32);
  memcpy (super->uuid, b + 48, 16);
  super->sequence = checker_u64 (b + 64);
  super->group_blocks = checker_u64 (b + 80);
  super->meta_blocks = checker_u64 (b + 88);
  super->journal_place = checker_u64 (b + 96);
  super->journal_half_blocks = checker_u64 (b + 104);
  super->capacity = checker_u64 (b + 112);
  super->catalogue = pointer_at (b + 128);
  super->shared = pointer_at (b + 144);
  super->next_disk_id = checker_u64 (b + 160);
  super->journal_position = checker_u64 (b + 168);
  super->journal_sequence = checker_u64 (b + 176);
  super->journal_half = checker_u32 (b + 184);
  super->journal_durable = checker_u32 (b + 188);
  super->journal_salt = checker_u64 (b + 192);
  super->journal_chain = checker_u64 (b + 200);
  super->opened = checker_u64 (b + 208);
  memcpy (super->arena_path, b + 248, CHECKER_PATH_MAX);
  super->arena_path[CHECKER_PATH_MAX] = '\0';
}

static void
copy_read (struct checker *checker, uint64_t place, struct copy *copy)
{
  int error = checker_read (checker, place, copy->block);

  copy->state = COPY_DAMAGED;
  if (error != 0) {
    copy->fault = strerror (-error);
    return;
  }
  if (checker_is_zero (copy->block, CHECKER_BLOCK)) {
    copy->state = COPY_BLANK;
    copy->fault = "is all zeros";
  } else if (memcmp (copy->block, "LACUNA\n", 7) == 0)
    copy->fault = "line ends were converted, as by a transfer in text mode";
  else if (memcmp (copy->block, "LACUNA\r\n", 8) != 0) {
    copy->state = COPY_FOREIGN;
    copy->fault = "is no superblock";
  } else if (checker_checksum (copy->block, CHECKSUM_AT, 8, 0)
             != checker_u64 (copy->block + CHECKSUM_AT))
    copy->fault = "the checksum is wrong";
  else if (checker_u64 (copy->block + 72) != place)
    copy->fault = "belongs to another place";
  else {
    copy->state = COPY_VALID;
    superblock_decode (copy->block, &copy->super);
  }
}

/* The path of the arena, in the old or in the new state, goes on behind the first sector: then a
 * torn write can leave an invalid copy. */
static bool
copy_may_be_torn (const struct copy *copies, unsigned i)
{
  bool is_long = copies[i].block[SECTOR - 1] != 0 || copies[i].block[SECTOR] != 0;

  for (unsigned c = 0; c < COPIES; ++c)
    is_long |= copies[c].state == COPY_VALID && copies[c].block[SECTOR] != 0;
  return is_long && checker_is_zero (copies[i].block + FIELDS_END, CHECKER_BLOCK - FIELDS_END);
}

/* From the other copy of its slot, if that is the one that belongs there; else a new superblock in
 * this slot puts it right. */
static void
copy_fix (struct checker *checker, const struct copy *copies, unsigned i)
{
  const struct copy *other = &copies[i ^ 1];
  unsigned behind = i / 2 == checker->super.sequence % 2 ? 0 : 1;
  uint8_t block[CHECKER_BLOCK];

  if (other->state != COPY_VALID || memcmp (other->super.uuid, checker->super.uuid, 16) != 0
      || other->super.sequence + behind != checker->super.sequence) {
    if (!checker->needs_superblock)
      checker_fix_tell (checker, true, "superblocks at places %u and %u: written anew; if they had"
                        " a newer state than %" PRIu64 ", that is given up", i & 2, (i & 2) + 1,
                        checker->super.sequence);
    checker->needs_superblock = true;
    return;
  }
  memcpy (block, other->block, sizeof block);
  checker_put (block + 72, i, 8);
  checker_seal (block);
  checker_fix (checker, CHECKER_PHASE_COPIES, i, block);
  checker_fix_tell (checker, false, "superblock copy at place %u: copied from the other one", i);
}

/* The trees' roots are those that they have now; a journal that was cut has just what could be
 * read. */
void
checker_superblock_fix (struct checker *checker)
{
  uint8_t block[CHECKER_BLOCK];
  uint64_t sequence = checker->super.sequence + 1;

  if (checker->plan == NULL || !checker->needs_superblock)
    return;
  memcpy (block, checker->super_block, sizeof block);
  checker_put (block + 64, sequence, 8);
  checker_put (block + 128, checker->super.catalogue.place, 8);
  checker_put (block + 136, checker->super.catalogue.checksum, 8);
  checker_put (block + 144, checker->super.shared.place, 8);
  checker_put (block + 152, checker->super.shared.checksum, 8);
  if (checker->is_cut) {
    checker_put (block + 188, checker->record_count, 4);
    /* What the arena has goes on where the journal was cut. */
    memset (block + 216, 0, 16);
  }
  for (unsigned copy = 0; copy < 2; ++copy) {
    uint64_t place = sequence % 2 * 2 + copy;

    checker_put (block + 72, place, 8);
    checker_seal (block);
    checker_fix (checker, copy == 0 ? CHECKER_PHASE_SUPERBLOCK : CHECKER_PHASE_SECONDS, place,
                 block);
  }
}

static void
copy_judge_invalid (struct checker *checker, const struct copy *copies, unsigned i)
{
  const struct copy *copy = &copies[i];
  struct checker_where where = { "superblock copy", i, NULL };

  if (copy->state != COPY_BLANK || checker->super.sequence > 2)
    copy_fix (checker, copies, i);
  if (copy->state == COPY_BLANK && checker->super.sequence <= 2)
    checker_find (checker, CHECKER_NOTE, where, "it is a new store", "was not written yet");
  else if (copy->state == COPY_DAMAGED && copy_may_be_torn (copies, i))
    checker_find (checker, CHECKER_NOTE, where, "another copy counts",
                  "%s, as after an interrupted write", copy->fault);
  else
    checker_find (checker, CHECKER_REPAIRABLE, where, "another copy counts", "%s", copy->fault);
}

/* Invariant 1, for a valid copy beside the one that counts. */
static void
copy_judge_valid (struct checker *checker, const struct copy *copies, unsigned i)
{
  const struct checker_superblock *super = &copies[i].super, *newest = &checker->super;
  struct checker_where where = { "superblock copy", i, NULL };
  uint64_t behind = newest->sequence - super->sequence;
  bool is_own = i / 2 == newest->sequence % 2;

  if (memcmp (super->uuid, newest->uuid, 16) != 0)
    checker_find (checker, CHECKER_DAMAGE, where,
                  "it is of an older store, or this one was partly overwritten",
                  "belongs to another store");
  else if (memcmp (&super->group_blocks, &newest->group_blocks, 5 * sizeof (uint64_t)) != 0)
    checker_find (checker, CHECKER_DAMAGE, where, NULL, "has another geometry");
  else if (super->sequence % 2 != i / 2) {
    checker_find (checker, CHECKER_REPAIRABLE, where, "another copy counts",
                  "sequence %" PRIu64 " does not belong here", super->sequence);
    copy_fix (checker, copies, i);
  }
  else if (is_own && behind == 2)
    checker_find (checker, CHECKER_NOTE, where, "another copy counts",
                  "is older, as after an interrupted write");
  else if (behind != (is_own ? 0 : 1)) {
    checker_find (checker, CHECKER_REPAIRABLE, where, "another copy counts",
                  "sequence is %" PRIu64 " where %" PRIu64 " was expected: a write was lost",
                  super->sequence, newest->sequence - (is_own ? 0 : 1));
    copy_fix (checker, copies, i);
  }
  else if (is_own && memcmp (copies[i].block + 80, copies[i ^ 1].block + 80,
                             CHECKER_BLOCK - 80) != 0
           && copies[i ^ 1].state == COPY_VALID && copies[i ^ 1].super.sequence == super->sequence)
    checker_find (checker, CHECKER_DAMAGE, where, "two states claim to be the newest",
                  "differs from the other copy of sequence %" PRIu64, super->sequence);
}

/* Invariant 2; NULL, or what is wrong. */
static const char *
geometry_fault (const struct checker *checker)
{
  const struct checker_superblock *s = &checker->super;
  uint64_t half = s->journal_half_blocks;

  if (s->group_blocks == 0 || (s->group_blocks & (s->group_blocks - 1)) != 0
      || s->group_blocks > CHECKER_GROUP_MAX)
    return "group_blocks is no power of 2, or too large";
  if (s->meta_blocks < 16 || (s->meta_blocks & (s->meta_blocks - 1)) != 0
      || s->meta_blocks >= s->group_blocks)
    return "meta_blocks is out of its limits";
  if (s->journal_place != s->meta_blocks || half > (s->group_blocks - s->journal_place) / 2)
    return "the journal does not lie behind the meta area within group 0";
  if (half < CHECKER_HALF_MIN)
    return "the journal is too short";
  if (s->capacity > CHECKER_PLACE_END
      || (s->capacity != 0 && s->capacity <= s->journal_place + 2 * half))
    return "the capacity is out of its limits";
  if (s->journal_half > 1)
    return "journal_half is neither 0 nor 1";
  if (s->is_clean > 1)
    return "is_clean is neither 0 nor 1";
  return NULL;
}

static const char *
features_judge (struct checker *checker)
{
  static char text[160];
  const struct checker_superblock *s = &checker->super;

  if (s->version > 1) {
    snprintf (text, sizeof text, "has format version %u; this program knows version 1",
              (unsigned) s->version);
    return text;
  }
  if (s->incompat != 0) {
    snprintf (text, sizeof text,
              "needs features that this program does not know: incompat bits %#" PRIx64,
              s->incompat);
    return text;
  }
  if (s->ro_compat != 0)
    checker_find (checker, CHECKER_NOTE, (struct checker_where) { "superblock", 0, NULL },
                  "what they stand for is not checked",
                  "has features that this program does not know: ro_compat bits %#" PRIx64,
                  s->ro_compat);
  return NULL;
}

/* No copy is valid: what is it then? */
static const char *
copies_none (const struct copy *copies, bool *is_damage)
{
  for (unsigned i = 0; i < COPIES; ++i)
    if (copies[i].state == COPY_DAMAGED && memcmp (copies[i].block, "LACUNA", 6) == 0) {
      *is_damage = true;
      return "no copy is valid";
    }
  *is_damage = false;
  return "is not a Lacuna store";
}

const char *
checker_superblocks (struct checker *checker, bool *is_damage)
{
  static struct copy copies[COPIES];
  struct copy *newest = NULL;
  const char *why;

  for (unsigned i = 0; i < COPIES; ++i) {
    copy_read (checker, i, &copies[i]);
    if (copies[i].state == COPY_VALID
        && (newest == NULL || copies[i].super.sequence > newest->super.sequence))
      newest = &copies[i];
  }
  if (newest == NULL)
    return copies_none (copies, is_damage);
  checker->super = newest->super;
  memcpy (checker->super_block, newest->block, CHECKER_BLOCK);
  *is_damage = false;
  why = features_judge (checker);
  if (why != NULL)
    return why;
  for (unsigned i = 0; i < COPIES; ++i)
    if (copies[i].state != COPY_VALID)
      copy_judge_invalid (checker, copies, i);
    else if (&copies[i] != newest)
      copy_judge_valid (checker, copies, i);
  *is_damage = true;
  why = checker->super.version == 0 ? "the version is 0" : geometry_fault (checker);
  if (why != NULL)
    return why;
  if (!checker->reader->is_growing && checker->super.capacity > checker->reader->length)
    checker_find (checker, CHECKER_DAMAGE, (struct checker_where) { "superblock", 0, NULL },
                  "what lay beyond its end is lost",
                  "the device has %" PRIu64 " blocks, less than the capacity of %" PRIu64,
                  checker->reader->length, checker->super.capacity);
  return NULL;
}
