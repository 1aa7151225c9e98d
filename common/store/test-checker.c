/* SPDX-License-Identifier: BSD-2-Clause */
/* test-checker.c - the checker against stores written by hand from lacuna-format(5), whole and
 * damaged.
 *
 * The small store, in blocks: groups of 256, meta areas of 32 (second copies 16 further on),
 * journal halves of 16 from 32 on, data from 64 on, capacity 512.  Its nodes:
 *
 *    9 catalogue root -> 10 leaf -> 4 disk 1 'alpha' -> 6 map root -> 7, 8 leaves
 *                                   5 disk 3 'beta'  -> 256 map root (a leaf)
 *                                  12 disk 4 (dying) -> 257 map root (a leaf)
 *   11 shared runs (a leaf)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <cmocka.h>
#include <json-c/json.h>
#include <xxhash.h>

#include "base/test-seed.h"
#include "store/checker-internal.h"

#define BLOCKS 512
#define MIRROR 16
#define SALT UINT64_C (0x5a17)

static uint8_t image[BLOCKS][4096];
static uint64_t image_length;
static uint64_t failing_place;         /* reads of it give EIO; 0: none */
static char *output;

static void
put (uint64_t place, unsigned offset, unsigned size, uint64_t value)
{
  for (unsigned i = 0; i < size; ++i)
    image[place][offset + i] = value >> 8 * i;
}

static uint64_t
get (uint64_t place, unsigned offset, unsigned size)
{
  return checker_number (image[place] + offset, size);
}

/* --- writing --- */

/* From the bottom up: where the checksum of each node goes in the one above (0: nowhere). */
static const struct { uint64_t place, above; unsigned offset; } nodes[] = {
  { 7, 6, 64 + 16 }, { 8, 6, 64 + 24 + 16 }, { 6, 4, 112 }, { 256, 5, 112 }, { 257, 12, 112 },
  { 4, 0, 0 }, { 5, 0, 0 }, { 12, 0, 0 }, { 10, 9, 64 + 16 }, { 9, 3, 136 }, { 11, 3, 152 },
};
#define NODES (sizeof nodes / sizeof nodes[0])

static void
seal_superblock (uint64_t place, uint64_t sequence)
{
  memcpy (image[place], image[3], 4096);
  put (place, 64, 8, sequence);
  put (place, 72, 8, place);
  put (place, 8, 8, 0);
  put (place, 8, 8, XXH3_64bits_withSeed (image[place], 4096, 0));
}

/* Both copies of one node. */
static uint64_t
node_seal (uint64_t place)
{
  put (place, 8, 8, 0);
  put (place, 8, 8, XXH3_64bits_withSeed (image[place], 4096, 0));
  memcpy (image[place + MIRROR], image[place], 4096);
  return get (place, 8, 8);
}

/* Makes all checksums and copies right again; place 3 has the superblock's content. */
static void
seal (void)
{
  uint64_t sequence = get (3, 64, 8);

  for (size_t i = 0; i < NODES; ++i) {
    uint64_t sum = node_seal (nodes[i].place);

    if (nodes[i].above != 0)
      put (nodes[i].above, nodes[i].offset, 8, sum);
  }
  seal_superblock (0, sequence - 1);
  seal_superblock (1, sequence - 1);
  seal_superblock (2, sequence);
  seal_superblock (3, sequence);
}

static void
make_node (uint64_t place, const char *kind, unsigned level, unsigned count, uint64_t owner)
{
  memset (image[place], 0, 4096);
  memcpy (image[place], kind, 4);
  put (place, 4, 2, level);
  put (place, 6, 2, count);
  memset (image[place] + 16, 0xab, 16);
  put (place, 32, 8, place);
  put (place, 40, 8, 5);
  put (place, 48, 8, owner);
}

static void
make_disk (uint64_t place, uint64_t id, const char *name, uint64_t blocks, uint64_t root,
           uint64_t mapped)
{
  make_node (place, "Disk", 0, 1, id);
  put (place, 80, 8, blocks * 4096);
  put (place, 88, 8, name[0] == '\0');
  put (place, 104, 8, root);
  put (place, 120, 8, mapped);
  put (place, 128, 2, strlen (name));
  memcpy (image[place] + 130, name, strlen (name));
}

static void
make_extent (uint64_t leaf, unsigned i, uint64_t block, uint64_t place, uint64_t length,
             bool is_unwritten)
{
  put (leaf, 64 + 16 * i, 8, block << 13 | is_unwritten);
  put (leaf, 64 + 16 * i + 8, 8, place << 22 | (length - 1));
}

static void
make_superblock (void)
{
  static const uint64_t geometry[] = { 256, 32, 32, 16, 512, 1700000000 };

  memset (image[3], 0, 4096);
  memcpy (image[3], "LACUNA\r\n", 8);
  put (3, 16, 4, 1);
  put (3, 20, 4, 1);
  memset (image[3] + 48, 0xab, 16);
  put (3, 64, 8, 7);
  for (unsigned i = 0; i < 6; ++i)
    put (3, 80 + 8 * i, 8, geometry[i]);
  put (3, 128, 8, 9);
  put (3, 144, 8, 11);
  put (3, 160, 8, 5);
  put (3, 168, 8, 1000);
  put (3, 176, 8, 50);
  put (3, 184, 4, 1);
  put (3, 192, 8, SALT);
  put (3, 200, 8, 0xc4a1);
}

static void
make_store (void)
{
  memset (image, 0, sizeof image);
  image_length = BLOCKS;
  failing_place = 0;
  make_superblock ();
  make_node (9, "CatI", 1, 1, 0);
  put (9, 64 + 8, 8, 10);
  make_node (10, "CatL", 0, 3, 0);
  for (unsigned i = 0; i < 3; ++i) {
    put (10, 64 + 16 * i, 8, (uint64_t[]) { 1, 3, 4 }[i]);
    put (10, 64 + 16 * i + 8, 8, (uint64_t[]) { 4, 5, 12 }[i]);
  }
  make_disk (4, 1, "alpha", 1000, 6, 10 + 5 + 8 + 4);
  make_disk (5, 3, "beta \xc3\xa9", 100, 256, 4 + 3);
  make_disk (12, 4, "", 0, 257, 6);
  make_node (6, "MapI", 1, 2, 1);
  put (6, 64 + 8, 8, 7);
  put (6, 64 + 24, 8, UINT64_C (500) << 13);
  put (6, 64 + 24 + 8, 8, 8);
  make_node (7, "MapL", 0, 2, 1);
  make_extent (7, 0, 0, 64, 10, false);
  make_extent (7, 1, 20, 80, 5, true);
  make_node (8, "MapL", 0, 2, 1);
  make_extent (8, 0, 500, 300, 8, false);
  make_extent (8, 1, 900, 320, 4, false);
  make_node (256, "MapL", 0, 2, 3);
  make_extent (256, 0, 2, 320, 4, false);           /* shared with alpha's 900 */
  make_extent (256, 1, 97, 100, 3, false);
  make_node (257, "MapL", 0, 1, 4);
  make_extent (257, 0, 30, 400, 6, false);
  make_node (11, "ShrL", 0, 1, 0);
  put (11, 64, 8, 320);
  put (11, 64 + 8, 8, UINT64_C (4) << 32 | 2);
  seal ();
}

/* --- the journal's writer --- */

struct writer {
  uint64_t place, sequence, previous, position;
  uint8_t items[8192];
  size_t bytes, tail_bytes, data_count;
};

static struct writer writer;

static void
item (unsigned kind, unsigned flags, uint64_t disk, uint64_t block, uint64_t length,
      uint64_t place)
{
  uint64_t words[] = { kind | 40 << 16 | (uint64_t) flags << 32, disk, block, length, place };

  memcpy (writer.items + writer.bytes, words, 40);
  writer.bytes += 40;
  if (kind == CHECKER_DATA)
    writer.data_count += length;
  else
    writer.tail_bytes += 40;
}

static void
item_named (unsigned kind, uint64_t disk, const char *name, uint64_t size)
{
  uint8_t *at = writer.items + writer.bytes;
  size_t bytes = (74 + strlen (name) + 7) / 8 * 8;

  item (kind, 0, disk, 0, 0, 0);
  memset (at + 40, 0, bytes - 40);
  at[2] = bytes;
  memcpy (at + 56, &size, 8);
  at[72] = strlen (name);
  memcpy (at + 74, name, strlen (name));
  writer.bytes += bytes - 40;
  writer.tail_bytes += bytes - 40;
}

/* COLLAPSE or INSERT, with a request's id. */
static void
item_shift (unsigned kind, uint64_t disk, uint64_t block, uint64_t length)
{
  item (kind, 0, disk, block, length, 0);
  writer.items[writer.bytes - 40 + 2] = 56;
  memset (writer.items + writer.bytes, 0x1d, 16);
  writer.bytes += 16;
  writer.tail_bytes += 16;
}

static void
item_clone (uint64_t disk, uint64_t block, uint64_t length, uint64_t source, uint64_t from)
{
  uint8_t *at = writer.items + writer.bytes;

  item (CHECKER_CLONE, 0, disk, block, length, 0);
  memset (at + 40, 0x1d, 32);
  at[2] = 72;
  memcpy (at + 40, &source, 8);
  memcpy (at + 48, &from, 8);
  writer.bytes += 32;
  writer.tail_bytes += 32;
}

static void
record_begin (void)
{
  writer.bytes = writer.tail_bytes = writer.data_count = 0;
}

/* Puts the checksums of the record at PLACE right. */
static void
record_seal (uint64_t place)
{
  uint64_t header, whole;

  memset (image[place] + 8, 0, 16);
  header = XXH3_64bits_withSeed (image[place], 4096, SALT);
  whole = XXH3_64bits_withSeed (image[place], 4096 * get (place, 4, 4), SALT);
  put (place, 8, 8, header);
  put (place, 16, 8, whole);
}

static void
record_end (void)
{
  uint64_t p = writer.place, front = (96 + writer.bytes + 4095) / 4096;

  memset (image[p], 0, front * 4096);
  memset (image[p + front], 0x77, writer.data_count * 4096);
  put (p, 0, 4, 0x6c6e724a);
  put (p, 4, 4, front + writer.data_count);
  memset (image[p] + 24, 0xab, 16);
  put (p, 40, 8, writer.sequence);
  put (p, 48, 8, writer.previous);
  put (p, 56, 8, p);
  put (p, 64, 8, writer.position);
  put (p, 72, 4, writer.bytes);
  put (p, 76, 4, writer.data_count);
  put (p, 80, 4, front);
  put (p, 84, 4, writer.tail_bytes);
  memcpy (image[p] + 96, writer.items, writer.bytes);
  record_seal (p);
  writer.place += front + writer.data_count;
  writer.previous = get (p, 16, 8);
  writer.position += writer.tail_bytes;
  ++writer.sequence;
  record_begin ();
}

/* The store, not closed in order; three records at 48, 52, and, in the other half, at 32. */
static void
make_journalled_store (void)
{
  make_store ();
  put (3, 20, 4, 0);
  seal ();
  writer = (struct writer) { .place = 48, .sequence = 50, .previous = 0xc4a1, .position = 960 };
  item (CHECKER_MAP, 2, 1, 0, 10, 64);                 /* before 1000: known to the trees */
  item_named (CHECKER_CREATE, 5, "gamma", 50 * 4096);
  item (CHECKER_MAP, 2, 5, 7, 2, 340);
  item (CHECKER_DATA, 0, 5, 0, 1, 0);
  item (CHECKER_DATA, 0, 1, 20, 2, 0);
  record_end ();
  item (CHECKER_UNMAP, 0, 1, 2, 5, 0);
  item (CHECKER_RETIRE, 0, 1, 20, 1, 0);
  item (CHECKER_FORGET, 0, 4, 0, 0, 0);
  writer.bytes -= 40;
  item (CHECKER_UNMAP, 0, 4, 30, 6, 0);
  writer.tail_bytes -= 40;
  item (CHECKER_FORGET, 0, 4, 0, 0, 0);
  record_end ();
  writer.place = 32;
  item (CHECKER_MAP, 1, 5, 20, 5, 66);                 /* where alpha's 2..6 were */
  item_named (CHECKER_RENAME, 5, "delta", 50 * 4096);
  item (CHECKER_RESIZE, 0, 5, 0, 25 * 4096, 0);
  record_end ();
}

/* --- judging --- */

static int
image_read (void *arg, uint64_t place, void *block)
{
  (void) arg;
  assert_true (place < image_length);
  if (failing_place != 0 && place == failing_place)
    return -5;
  memcpy (block, image[place], 4096);
  return 0;
}

static int
check_as (bool json)
{
  struct checker_reader reader = { .read = image_read, .length = image_length };
  size_t size;
  FILE *out;
  int verdict;

  free (output);
  out = open_memstream (&output, &size);
  verdict = checker_run_reader (&reader, out, json);
  fclose (out);
  return verdict;
}

/* Fails unless the verdict is this one and the output has TEXT. */
static void
expect (int verdict, const char *text)
{
  int got = check_as (false);

  if (got != verdict || strstr (output, text) == NULL)
    fail_msg ("verdict %d, expected %d and \"%s\":\n%s", got, verdict, text, output);
}

static void
test_whole (void **state)
{
  (void) state;
  make_store ();
  expect (CHECKER_CLEAN, "\nclean\n");
  assert_non_null (strstr (output, "2 disks, 7 extents, 36 blocks in use, 11 nodes"));
  assert_null (strstr (output, "note"));
}

static void
damage_block (uint64_t place, unsigned how)
{
  switch (how) {
  case 0:
    memset (image[place], 0, 4096);
    break;
  case 1:
    memset (image[place], 0xe5, 4096);
    break;
  case 2:
    image[place][random_below (500)] ^= 1U << random_below (8);
    break;
  case 3:                                              /* a write that went astray */
    memcpy (image[place], image[place % MIRROR == 7 ? 8 : 7], 4096);
    break;
  case 4:
    failing_place = place == 0 ? 1 : place;
    break;
  }
}

static void
test_each_block (void **state)
{
  char text[64];

  (void) state;
  for (unsigned how = 0; how < 5; ++how) {
    for (uint64_t place = how == 4; place < 4; ++place) {
      make_store ();
      damage_block (place, how);
      snprintf (text, sizeof text, "repairable: superblock copy at place %u", (unsigned) place);
      expect (CHECKER_DAMAGED, text);
    }
    for (size_t i = 0; i < NODES; ++i)
      for (unsigned copy = 0; copy < 2; ++copy) {
        make_store ();
        damage_block (nodes[i].place + copy * MIRROR, how);
        snprintf (text, sizeof text, " at place %u", (unsigned) (nodes[i].place));
        expect (CHECKER_DAMAGED, text);
        assert_non_null (strstr (output, "\n1 problem\n"));
        assert_non_null (strstr (output, copy == 0 ? "the first copy" : "the second copy"));
        assert_true (strncmp (output, "repairable: ", 12) == 0);
      }
  }
}

static void
test_both_copies (void **state)
{
  static const char *const texts[NODES] = {
    "map leaf at place 7 of disk 'alpha': both copies are invalid",
    "blocks 500 to 999 of the disk cannot be found",
    "map root at place 6 of disk 'alpha'",
    "map root at place 256 of disk 'beta",
    "map root at place 257 of deleted disk 4",
    "disk node at place 4: both copies are invalid",
    "disk 3 is lost",
    "disk 4 is lost",
    "disks with ids 1 to 4 are lost",
    "catalogue root at place 9",
    "root of the shared runs at place 11",
  };

  (void) state;
  for (size_t i = 0; i < NODES; ++i) {
    make_store ();
    damage_block (nodes[i].place, i % 4);
    damage_block (nodes[i].place + MIRROR, (i + 1) % 4);
    expect (CHECKER_DAMAGED, texts[i]);
    assert_non_null (strstr (output, "\n1 problem\n"));
  }
}

static void
test_superblocks (void **state)
{
  (void) state;
  make_store ();
  memset (image[2], 0, 8192);
  expect (CHECKER_DAMAGED, "2 problems");
  /* An interrupted write leaves older copies; in the newest's places they are two behind. */
  make_store ();
  seal_superblock (2, 5);
  expect (CHECKER_CLEAN, "note: superblock copy at place 2: is older");
  make_store ();
  seal_superblock (1, 4);
  expect (CHECKER_DAMAGED, "sequence is 4 where 6 was expected");
  make_store ();
  image[0][300] = 'x';                                 /* the arena's path is short: never torn */
  expect (CHECKER_DAMAGED, "superblock copy at place 0: the checksum is wrong");
  make_store ();
  memset (image[3] + 248, 'a', 400);
  seal ();
  memset (image[0] + 512, 'b', 100);                   /* it is long */
  expect (CHECKER_CLEAN, "as after an interrupted write");
  make_store ();
  for (unsigned i = 0; i < 4; ++i)
    image[i][100] ^= 1;
  expect (CHECKER_DAMAGED, "superblock: no copy is valid");
  memset (image, 0, 4 * 4096);
  expect (CHECKER_UNUSABLE, "unusable: is not a Lacuna store\n");
  memset (image, 'x', 4 * 4096);
  expect (CHECKER_UNUSABLE, "is not a Lacuna store");
}

/* One field wrong, all checksums right. */
static const struct edit {
  uint64_t place;
  unsigned offset, size;
  uint64_t value;
  int verdict;
  const char *text;
} edits[] = {
  { 3, 16, 4, 2, 2, "unusable: has format version 2" },
  { 3, 24, 8, 4, 2, "incompat bits 0x4" },
  { 3, 32, 8, 2, 0, "note: superblock at place 0: has features that this program does not know" },
  { 3, 40, 8, 1, 0, "clean" },
  { 3, 80, 8, 255, 1, "group_blocks is no power of 2" },
  { 3, 80, 8, UINT64_C (1) << 31, 1, "group_blocks is no power of 2, or too large" },
  { 3, 88, 8, 256, 1, "meta_blocks is out of its limits" },
  { 3, 96, 8, 31, 1, "the journal does not lie behind the meta area" },
  { 3, 96, 8, 33, 1, "the journal does not lie behind the meta area" },
  { 3, 104, 8, 113, 1, "the journal does not lie behind the meta area" },
  { 3, 104, 8, 15, 1, "the journal is too short" },
  { 3, 112, 8, 64, 1, "the capacity is out of its limits" },
  { 3, 112, 8, 1024, 1, "less than the capacity of 1024" },
  { 3, 112, 8, 303, 1, "extent of blocks 500+8 at place 300: it lies beyond the capacity" },
  { 3, 128, 8, 40, 1, "the place of the node is not one for nodes" },
  { 3, 128, 8, 2, 1, "the place of the node is a superblock's" },
  { 3, 160, 8, 4, 1, "has disk 4, an id that was not given yet" },
  { 3, 184, 4, 2, 1, "journal_half is neither 0 nor 1" },
  { 4, 80, 8, 4097, 1, "disk 'alpha': the size is out of its limits" },
  { 4, 80, 8, 901 * 4096, 1, "map of disk 'alpha': 3 blocks lie beyond the disk's size" },
  { 4, 88, 8, 4, 1, "has unknown flags" },
  { 4, 88, 8, 2, 1, "could not be read when the store was in use" },
  { 4, 88, 8, 1, 1, "is dying but has a name or a size" },
  { 4, 120, 8, 26, 1, "says that 26 blocks are mapped, but its map has 27" },
  { 4, 128, 2, 0, 1, "the name is empty" },
  { 4, 128, 2, 256, 1, "the name is too long" },
  { 4, 130, 1, 0xc3, 1, "the name is not UTF-8" },
  { 4, 130, 1, 7, 1, "the name has control characters" },
  { 4, 40, 8, 8, 1, "newer than the newest, 7; the store was copied while it was in use" },
  { 5, 104, 8, 258, 1, "both copies are invalid: first is all zeros; second, at place 274, is" },
  { 5, 104, 8, 9, 1, "the place of the node is named twice" },
  { 6, 4, 2, 2, 1, "map node at place 7" },
  { 6, 4, 2, 12, 1, "has a wrong level" },
  { 6, 4, 2, 0, 1, "kind and level do not agree" },
  { 6, 6, 2, 0, 1, "has no entries" },
  { 6, 6, 2, 169, 1, "has more entries than it can hold" },
  { 6, 64, 8, 1, 1, "map root at place 6 of disk 'alpha': its keys have bits set" },
  { 6, 88, 8, UINT64_C (20) << 13, 1, "its keys are outside the range that its parent gives" },
  { 7, 80, 8, 0, 1, "its keys do not ascend" },
  { 7, 80, 8, UINT64_C (9) << 13, 1, "extent of blocks 9+5 at place 80: overlaps the one before" },
  { 7, 80, 8, UINT64_C (20) << 13 | 8, 1, "has bits set that must be clear" },
  { 7, 88, 8, UINT64_C (300) << 22 | 4, 1, "belong to its block 20 and to block 500" },
  { 7, 88, 8, UINT64_C (102) << 22 | 4, 1, "belong to its block" },
  { 7, 88, 8, UINT64_C (260) << 22 | 4, 1, "it lies in the meta area of a group" },
  { 7, 88, 8, UINT64_C (60) << 22 | 4, 1, "it lies in the journal" },
  { 7, 88, 8, UINT64_C (254) << 22 | 4, 1, "it reaches into the meta area of the next group" },
  { 7, 88, 8, UINT64_C (510) << 22 | 4, 1, "it lies beyond the capacity" },
  { 7, 48, 8, 3, 1, "map leaf at place 7 of disk 'alpha': both copies are invalid: first belongs" },
  { 7, 16, 1, 0, 1, "belongs to another store" },
  { 7, 32, 8, 8, 1, "belongs to another place" },
  { 10, 72, 8, 9, 1, "the place of the node is named twice" },
  { 10, 72, 8, 5, 1, "disk node at place 5: both copies are invalid: first belongs to another" },
  { 11, 72, 8, UINT64_C (4) << 32 | 3, 1, "4 blocks have 2 owners, not 3; this is corrected" },
  { 11, 72, 8, UINT64_C (4) << 32 | UINT32_C (1) << 31, 1, "has more owners than there can be" },
  { 11, 72, 8, UINT64_C (5) << 32 | 2, 1, "1 blocks have 0 owners, not 2" },
  { 11, 72, 8, UINT64_C (3) << 32 | 2, 1, "data at place 323 of disk 'alpha': 1 blocks belong" },
  { 11, 72, 8, UINT64_C (4) << 32 | 1, 1, "has fewer than 2 owners" },
  { 11, 72, 8, 2, 1, "has length 0" },
  { 11, 64, 8, 3, 1, "shared run 3+4: it lies in the meta area" },
};

static void
test_wrong_fields (void **state)
{
  uint8_t block[4096];

  (void) state;
  for (size_t i = 0; i < sizeof edits / sizeof edits[0]; ++i) {
    make_store ();
    put (edits[i].place, edits[i].offset, edits[i].size, edits[i].value);
    seal ();
    expect (edits[i].verdict, edits[i].text);
  }
  make_store ();
  make_disk (5, 3, "alpha", 100, 256, 7);
  seal ();
  expect (CHECKER_DAMAGED, "another disk has the same name");
  make_store ();                                       /* valid by itself, but another one */
  put (256, 56, 8, 1);
  node_seal (256);
  expect (CHECKER_DAMAGED, "first is not the node that the pointer means");
  make_store ();
  memcpy (block, image[5], 4096);
  put (5, 40, 8, 4);                                   /* one copy of a disk node is older */
  put (5, 120, 8, 99);
  node_seal (5);
  memcpy (image[5 + MIRROR], block, 4096);
  expect (CHECKER_DAMAGED, "repairable: disk node at place 5: the copies differ");
  assert_non_null (strstr (output, "\n1 problem\n"));
}

static void
test_truncated (void **state)
{
  (void) state;
  make_store ();
  put (3, 112, 8, 0);                                  /* no limit: a file */
  seal ();
  expect (CHECKER_CLEAN, "clean");
  for (image_length = BLOCKS; image_length >= 406; --image_length)
    expect (CHECKER_CLEAN, "clean");
  for (; image_length > 4; --image_length)
    expect (CHECKER_DAMAGED, "the store is truncated");
  for (; image_length > 0; --image_length)
    assert_int_not_equal (check_as (false), CHECKER_CLEAN);
  image_length = 64;
  expect (CHECKER_DAMAGED, "the store is truncated");
  assert_null (strstr (output, "damage: journal"));
  image_length = 63;
  expect (CHECKER_DAMAGED, "damage: journal: it lies beyond the end of the store");
  image_length = 0;
  expect (CHECKER_UNUSABLE, "is not a Lacuna store");
}

/* --- journal --- */

static void
test_replay (void **state)
{
  (void) state;
  make_journalled_store ();
  expect (CHECKER_CLEAN, "3 records are to be replayed");
  assert_non_null (strstr (output, "3 disks, 7 extents, 32 blocks in use"));
  /* Closed in order, and yet a journal. */
  put (3, 20, 4, 1);
  seal ();
  expect (CHECKER_DAMAGED, "but 3 records wait to be replayed");
}

static void
test_torn_tail (void **state)
{
  (void) state;
  make_journalled_store ();
  image[32][2000] ^= 1;
  expect (CHECKER_CLEAN, "2 records are to be replayed");
  make_journalled_store ();
  put (3, 20, 4, 0);
  memset (image[32], 0, 4096);
  memset (image[52], 0, 4096);
  expect (CHECKER_CLEAN, "1 records are to be replayed");
  memset (image[50], 0, 512);                          /* a block of the first one's data */
  expect (CHECKER_CLEAN, "the last record, 50, is not whole");
}

static void
test_broken_chain (void **state)
{
  static const uint64_t places[] = { 48, 49, 50, 51, 52 };

  (void) state;
  for (unsigned how = 0; how < 5; ++how)
    for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) {
      if (how == 2 && places[i] == 48)
        continue;
      make_journalled_store ();
      damage_block (places[i], how);
      expect (CHECKER_DAMAGED, places[i] < 52 ? "record 50 is invalid, but 2 later ones exist"
                                              : "record 51 is invalid, but 1 later ones exist");
    }
}

/* The journalled store with one more record; the test adds items before. */
static void
expect_items (int verdict, const char *text)
{
  struct writer added = writer;

  make_journalled_store ();
  memcpy (writer.items, added.items, sizeof added.items);
  writer.bytes = added.bytes;
  writer.tail_bytes = added.tail_bytes;
  writer.data_count = added.data_count;
  record_end ();
  expect (verdict, text);
}

static void
test_items (void **state)
{
  (void) state;
  record_begin ();
  item (CHECKER_MAP, 2, 3, 50, 4, 304);
  expect_items (CHECKER_DAMAGED, "4 blocks belong to its block 504 and to block 50 of disk 3");
  item (CHECKER_UNMAP, 0, 1, 504, 4, 0);
  item (CHECKER_MAP, 2, 3, 50, 4, 304);
  expect_items (CHECKER_CLEAN, "clean");
  item (CHECKER_MAP, 2, 3, 50, 4, 20);
  expect_items (CHECKER_DAMAGED, "it lies in the meta area of a group");
  item (CHECKER_MAP, 2, 3, 98, 4, 350);
  expect_items (CHECKER_DAMAGED, "it lies beyond the disk's size");
  item (CHECKER_MAP, 3, 3, 50, 4, 350);
  expect_items (CHECKER_DAMAGED, "its flags are wrong");
  item (CHECKER_MAP, 2, 3, 50, 0, 350);
  expect_items (CHECKER_DAMAGED, "its range is empty or too long");
  item (CHECKER_MAP, 2, 9, 50, 1, 350);
  expect_items (CHECKER_DAMAGED, "item MAP of disk 9, block 50, length 1, place 350: there is no");
  item (CHECKER_MAP, 2, 4, 50, 1, 350);
  expect_items (CHECKER_DAMAGED, "the disk is gone");
  item (13, 0, 1, 0, 1, 0);
  expect_items (CHECKER_DAMAGED, "is of an unknown kind");
  item (CHECKER_FORGET, 0, 1, 0, 0, 0);
  expect_items (CHECKER_DAMAGED, "the disk was not deleted");
  item (CHECKER_DELETE, 0, 1, 0, 0, 0);
  item (CHECKER_FORGET, 0, 1, 0, 0, 0);
  expect_items (CHECKER_CLEAN, "2 disks");
  item (CHECKER_DELETE, 0, 5, 0, 0, 0);
  item (CHECKER_FORGET, 0, 5, 0, 0, 0);
  expect_items (CHECKER_CLEAN, "2 disks");
  item_named (CHECKER_CREATE, 6, "delta", 4096);
  expect_items (CHECKER_DAMAGED, "another disk has the same name");
  item_named (CHECKER_CREATE, 3, "zeta", 4096);
  expect_items (CHECKER_DAMAGED, "the id was given before");
  item_named (CHECKER_CREATE, 6, "zeta", 4095);
  expect_items (CHECKER_DAMAGED, "the size is out of its limits");
  item_named (CHECKER_RENAME, 3, "ze\nta", 0);
  expect_items (CHECKER_DAMAGED, "the name has control characters");
  item (CHECKER_RESIZE, 0, 1, 0, 1, 0);
  expect_items (CHECKER_DAMAGED, "the size is out of its limits");
  item (CHECKER_DATA, 0, 3, 99, 2, 0);
  expect_items (CHECKER_DAMAGED, "data for blocks 99 to 100 remains, beyond the disk's size");
  item (CHECKER_DATA, 0, 8, 0, 1, 0);
  expect_items (CHECKER_DAMAGED, "data for 1 blocks remains of disk 8, which does not exist");
  item (CHECKER_DATA, 0, 3, 0, 1, 0);
  writer.data_count = 2;
  expect_items (CHECKER_DAMAGED, "its DATA items cover 1 blocks, it has 2");
  item (CHECKER_DATA, 0, 3, 0, 1, 0);
  item (CHECKER_RETIRE, 0, 3, 0, 1, 0);
  expect_items (CHECKER_DAMAGED, "it stands behind DATA");
}

/* What the trees map, and what items map, is where it was moved to. */
static void
test_shifts (void **state)
{
  (void) state;
  record_begin ();
  item_shift (CHECKER_COLLAPSE, 1, 500, 2);
  item (CHECKER_MAP, 2, 3, 50, 4, 304);
  expect_items (CHECKER_DAMAGED, "4 blocks belong to its block 502 and to block 50 of disk 3");
  item_shift (CHECKER_COLLAPSE, 1, 500, 2);
  item (CHECKER_UNMAP, 0, 1, 502, 4, 0);
  item (CHECKER_MAP, 2, 3, 50, 4, 304);
  expect_items (CHECKER_CLEAN, "clean");
  item_shift (CHECKER_COLLAPSE, 1, 503, 3);
  item (CHECKER_MAP, 2, 3, 50, 2, 304);
  expect_items (CHECKER_CLEAN, "clean");
  item_shift (CHECKER_INSERT, 1, 506, 2);
  item (CHECKER_UNMAP, 0, 1, 504, 2, 0);
  item (CHECKER_UNMAP, 0, 1, 508, 2, 0);
  item (CHECKER_MAP, 2, 3, 50, 4, 304);
  expect_items (CHECKER_CLEAN, "clean");
  /* Twice, and with what was mapped before them. */
  item (CHECKER_MAP, 2, 3, 50, 4, 350);
  item_shift (CHECKER_COLLAPSE, 3, 40, 5);
  item_shift (CHECKER_INSERT, 3, 47, 10);
  item (CHECKER_UNMAP, 0, 3, 45, 2, 0);
  item (CHECKER_MAP, 2, 3, 70, 2, 350);
  expect_items (CHECKER_CLEAN, "clean");
  item (CHECKER_MAP, 2, 3, 50, 4, 350);
  item_shift (CHECKER_COLLAPSE, 3, 40, 5);
  item_shift (CHECKER_INSERT, 3, 47, 10);
  item (CHECKER_MAP, 2, 3, 70, 2, 352);
  expect_items (CHECKER_DAMAGED, "2 blocks belong to its block 57 and to block 70 of disk 3");
  /* DATA behind it is void; and it is of what is there afterwards. */
  item (CHECKER_DATA, 0, 3, 99, 1, 0);
  expect_items (CHECKER_CLEAN, "clean");
  item_shift (CHECKER_COLLAPSE, 3, 90, 1);
  item (CHECKER_DATA, 0, 3, 99, 1, 0);
  expect_items (CHECKER_DAMAGED, "data for blocks 99 to 99 remains, beyond the disk's size");
  item_shift (CHECKER_COLLAPSE, 3, 98, 3);
  expect_items (CHECKER_DAMAGED, "it lies beyond the disk's size");
  item_shift (CHECKER_INSERT, 3, 101, 3);
  expect_items (CHECKER_DAMAGED, "it lies beyond the disk's size");
  item_shift (CHECKER_INSERT, 3, 0, UINT64_C (1) << 51);
  expect_items (CHECKER_DAMAGED, "the size is out of its limits");
  item (CHECKER_COLLAPSE, 0, 3, 0, 1, 0);
  expect_items (CHECKER_DAMAGED, "its length is wrong");
  item_shift (CHECKER_COLLAPSE, 4, 0, 1);
  expect_items (CHECKER_DAMAGED, "the disk is gone");
}

/* After the replay blocks may have more owners than the table says, by cloning alone. */
static void
test_clone (void **state)
{
  (void) state;
  record_begin ();
  /* What the trees map, a hole and all, and the clone of a clone. */
  item_clone (3, 40, 20, 1, 500);
  item_clone (5, 0, 20, 3, 40);
  expect_items (CHECKER_CLEAN, "clean");
  /* The source goes on; what it had stays the target's. */
  item_clone (3, 40, 20, 1, 500);
  item (CHECKER_UNMAP, 0, 1, 500, 20, 0);
  expect_items (CHECKER_CLEAN, "clean");
  item_clone (3, 40, 20, 1, 500);
  item (CHECKER_UNMAP, 0, 1, 500, 20, 0);
  item (CHECKER_MAP, 2, 3, 70, 4, 304);
  expect_items (CHECKER_DAMAGED, "4 blocks belong to ");
  item_clone (3, 40, 20, 1, 500);
  item (CHECKER_UNMAP, 0, 1, 500, 20, 0);
  item (CHECKER_UNMAP, 0, 3, 40, 20, 0);
  item (CHECKER_MAP, 2, 3, 70, 4, 304);
  expect_items (CHECKER_CLEAN, "clean");
  /* It clears the target's range. */
  item (CHECKER_MAP, 2, 3, 70, 4, 350);
  item_clone (3, 68, 8, 3, 80);
  item (CHECKER_MAP, 2, 3, 60, 4, 350);
  expect_items (CHECKER_CLEAN, "clean");
  /* And its DATA: of the source there must be none. */
  item_clone (3, 40, 1, 1, 20);
  expect_items (CHECKER_CLEAN, "clean");
  item_clone (1, 15, 10, 3, 60);
  item_clone (3, 40, 2, 1, 20);
  expect_items (CHECKER_CLEAN, "clean");
  item_clone (3, 40, 2, 1, 20);
  expect_items (CHECKER_DAMAGED, "there is data of the source that it does not have");
  item_clone (3, 90, 20, 1, 500);
  expect_items (CHECKER_DAMAGED, "it lies beyond a disk's size");
  item_clone (3, 40, 20, 1, UINT64_C (1) << 60);
  expect_items (CHECKER_DAMAGED, "it lies beyond a disk's size");
  item_clone (3, 40, 20, 9, 0);
  expect_items (CHECKER_DAMAGED, "there is no such disk as its source");
  item_clone (3, 40, 20, 3, 59);
  expect_items (CHECKER_DAMAGED, "the two ranges overlap");
  item (CHECKER_CLONE, 0, 3, 40, 20, 0);
  expect_items (CHECKER_DAMAGED, "its length is wrong");
}

/* The trees were written while a shrink went on: what it freed later belongs to another disk. */
static void
test_shrink_and_grow (void **state)
{
  (void) state;
  for (unsigned is_reused = 0; is_reused < 2; ++is_reused) {
    make_store ();
    put (3, 20, 4, 0);
    put (4, 80, 8, 502 * 4096);
    seal ();
    expect (CHECKER_CLEAN, "note: map of disk 'alpha': 10 blocks lie beyond the disk's size");
    writer = (struct writer) { .place = 48, .sequence = 50, .previous = 0xc4a1, .position = 1000 };
    record_begin ();
    item (CHECKER_RESIZE, 0, 1, 0, 600 * 4096, 0);
    item (CHECKER_MAP, 2, 1, 508, 1, 350);
    item (CHECKER_RETIRE, 0, 3, 2, 4, 0);
    item (CHECKER_UNMAP, 0, 3, 2, 4, 0);
    if (is_reused)
      item (CHECKER_MAP, 2, 3, 10, 4, 303);
    record_end ();
    expect (CHECKER_CLEAN, "\nclean\n");
  }
}

static void
test_record_fields (void **state)
{
  static const struct edit wrong[] = {
    { 52, 64, 8, 2000, 1, "its items begin at position 2000, not at" },
    { 52, 64, 8, 968, 1, "its items begin at position 968, not at" },
    { 52, 84, 4, 0, 1, "tail_bytes is wrong" },
    { 52, 72, 4, 124, 1, "item_bytes is no multiple of 8" },
    { 52, 4, 4, 2, 1, "its lengths do not agree" },
    { 32, 80, 4, 9, 1, "its lengths do not agree" },
    { 48, 64, 8, 1008, 1, "items are missing" },
  };

  (void) state;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    make_journalled_store ();
    put (wrong[i].place, wrong[i].offset, wrong[i].size, wrong[i].value);
    record_seal (wrong[i].place);
    expect (wrong[i].verdict, wrong[i].text);
  }
}

/* All blocks are mapped but the last, or that too; one block of DATA has no place yet. */
static void
test_no_room (void **state)
{
  static const struct { uint64_t place, end; } unused[] = {
    { 74, 80 }, { 85, 100 }, { 103, 256 }, { 288, 300 }, { 308, 320 }, { 324, 340 }, { 342, 405 },
  };

  (void) state;
  for (unsigned is_full = 0; is_full < 2; ++is_full) {
    make_journalled_store ();
    put (3, 112, 8, 406);
    seal ();
    for (unsigned i = 0; i < 7; ++i)
      item (CHECKER_MAP, 2, 1, unused[i].place - 40, unused[i].end - unused[i].place,
            unused[i].place);
    if (is_full)
      item (CHECKER_MAP, 1, 3, 50, 1, 405);
    record_end ();
    if (is_full)
      expect (CHECKER_DAMAGED, "has data for 1 blocks that are not mapped, and the store has no");
    else
      expect (CHECKER_CLEAN, "clean");
  }
}

/* --- painting against a naive model --- */

static void
test_paint (void **state)
{
  enum { SIZE = 64 };

  (void) state;
  for (unsigned round = 0; round < 2000; ++round) {
    struct checker_change model[SIZE] = { 0 }, items[40], *painted;
    struct checker_changes changes = { items, 1 + random_below (40), 40 };
    size_t count, k = 0;

    for (size_t i = 0; i < changes.count; ++i) {
      struct checker_change *change = &items[i];

      *change = (struct checker_change) {
        .disk = 1 + random_below (2), .first = random_below (SIZE), .order = i + 1,
        .place = 1000 * (i + 1), .state = random_below (3),
      };
      change->end = change->first + 1 + random_below (SIZE - change->first);
      for (uint64_t b = change->first; b < change->end && change->disk == 2; ++b) {
        model[b] = *change;
        model[b].place += b - change->first;
      }
    }
    checker_changes_sort (&changes);
    count = checker_paint (&changes, 2, &painted);
    for (uint64_t b = 0; b < SIZE; ++b) {
      k = checker_painted_after (painted, count, b);
      if (model[b].order == 0) {
        assert_true (k == count || painted[k].first > b);
        continue;
      }
      assert_true (k < count && painted[k].first <= b);
      assert_int_equal (painted[k].state, model[b].state);
      if (model[b].state != CHECKER_HOLE)
        assert_int_equal (painted[k].place + (b - painted[k].first), model[b].place);
    }
    free (painted);
  }
}

/* --- anything at all --- */

/* Random damage, with checksums put right again so that it goes deep: no crash, and an end. */
static void
test_random_damage (void **state)
{
  (void) state;
  for (unsigned round = 0; round < 3000; ++round) {
    make_journalled_store ();
    for (unsigned i = 0; i <= random_below (4); ++i) {
      static const uint64_t places[] = { 3, 48, 52, 32 };
      uint64_t at = random_below (NODES + 4);
      uint64_t place = at < NODES ? nodes[at].place : places[at - NODES];
      unsigned end = place == 3 ? 216 : 200;

      put (place, random_below (end), 1 + random_below (8),
           random_below (2) == 0 ? random_below (300) : random_below (UINT64_MAX));
      if (place >= 32 && place < 64 && get (place, 4, 4) < 64 - place)
        record_seal (place);
    }
    memcpy (image[3], "LACUNA\r\n", 8);
    if (get (3, 64, 8) < 2)
      put (3, 64, 8, 7);
    seal ();
    check_as (round % 2);
  }
}

static void
test_json (void **state)
{
  struct json_object *object, *findings, *value;

  (void) state;
  make_store ();
  memset (image[7], 0, 4096);
  assert_int_equal (check_as (true), CHECKER_DAMAGED);
  object = json_tokener_parse (output);
  assert_non_null (object);
  assert_true (json_object_object_get_ex (object, "status", &value));
  assert_string_equal (json_object_get_string (value), "damaged");
  assert_true (json_object_object_get_ex (object, "findings", &findings));
  assert_int_equal (json_object_array_length (findings), 1);
  assert_true (json_object_object_get_ex (json_object_array_get_idx (findings, 0), "place",
                                          &value));
  assert_int_equal (json_object_get_int (value), 7);
  json_object_put (object);
  memset (image, 0, sizeof image);
  assert_int_equal (check_as (true), CHECKER_UNUSABLE);
  object = json_tokener_parse (output);
  assert_non_null (object);
  json_object_put (object);
}

/* --- files --- */

/* As JSON, which has all in one place. */
static int
check_path (const char *path)
{
  size_t size;
  FILE *out;
  int verdict;

  free (output);
  out = open_memstream (&output, &size);
  verdict = checker_run (path, out, true);
  fclose (out);
  return verdict;
}

static void
test_files (void **state)
{
  char path[] = "/tmp/lacuna-test-XXXXXX";
  int fd = mkstemp (path), other;

  (void) state;
  assert_true (fd >= 0);
  make_store ();
  assert_int_equal (check_path (path), CHECKER_UNUSABLE);      /* empty */
  assert_non_null (strstr (output, "is not a Lacuna store"));
  assert_int_equal (write (fd, image, sizeof image), sizeof image);
  assert_int_equal (check_path (path), CHECKER_CLEAN);
  other = open (path, O_RDWR);
  assert_int_equal (flock (other, LOCK_EX | LOCK_NB), 0);
  assert_int_equal (check_path (path), CHECKER_UNUSABLE);
  assert_non_null (strstr (output, "is open in another process"));
  close (other);
  assert_int_equal (ftruncate (fd, 300 * 4096 + 17), 0);
  assert_int_equal (check_path (path), CHECKER_DAMAGED);
  close (fd);
  unlink (path);
  assert_int_equal (check_path (path), CHECKER_UNUSABLE);
  assert_non_null (strstr (output, "No such file or directory"));
  assert_int_equal (check_path ("/dev/null"), CHECKER_UNUSABLE);
  assert_int_equal (check_path ("/tmp"), CHECKER_UNUSABLE);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_whole),
    cmocka_unit_test (test_each_block),
    cmocka_unit_test (test_both_copies),
    cmocka_unit_test (test_superblocks),
    cmocka_unit_test (test_wrong_fields),
    cmocka_unit_test (test_truncated),
    cmocka_unit_test (test_replay),
    cmocka_unit_test (test_torn_tail),
    cmocka_unit_test (test_broken_chain),
    cmocka_unit_test (test_items),
    cmocka_unit_test (test_shifts),
    cmocka_unit_test (test_clone),
    cmocka_unit_test (test_shrink_and_grow),
    cmocka_unit_test (test_record_fields),
    cmocka_unit_test (test_no_room),
    cmocka_unit_test (test_paint),
    cmocka_unit_test (test_random_damage),
    cmocka_unit_test (test_json),
    cmocka_unit_test (test_files),
  };
  int failed;

  random_seed ();
  failed = cmocka_run_group_tests (tests, NULL, NULL);
  free (output);
  return failed;
}
