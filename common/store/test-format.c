/* SPDX-License-Identifier: BSD-2-Clause */
/* test-format.c - seals and checks of what is on the device.
 *
 * LACUNA_SEED=n replays one seed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/test-seed.h"
#include "store/format.h"

static const struct format_node_identity identity = {
  .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 }, .owner = 42, .sequence = 9,
  .leaf_kind = KIND_MAP_LEAF, .inner_kind = KIND_MAP_INNER,
};

static void
fill_random (uint8_t *block)
{
  for (unsigned i = 0; i < BLOCK_SIZE; i++)
    block[i] = random_number ();
}

/* A sealed node is valid for exactly what it was sealed for, and no bit of it may change. */
static void
run_nodes (void)
{
  uint8_t image[BLOCK_SIZE], other_uuid[16] = { 0 };
  const struct format_node *node = (const void *) image;
  uint64_t sum;

  fill_random (image);
  format_node_seal (image, KIND_MAP_LEAF, 0, 7, &identity, 1234);
  sum = from_le64 (node->checksum);
  assert_int_equal (from_le16 (node->count), 7);
  assert_null (format_node_check (image, KIND_MAP_LEAF, identity.uuid, 42, 1234, sum));
  assert_null (format_node_check (image, 0, identity.uuid, 42, 1234, 0));
  assert_non_null (format_node_check (image, KIND_MAP_INNER, identity.uuid, 42, 1234, sum));
  assert_non_null (format_node_check (image, KIND_MAP_LEAF, other_uuid, 42, 1234, sum));
  assert_non_null (format_node_check (image, KIND_MAP_LEAF, identity.uuid, 43, 1234, sum));
  assert_non_null (format_node_check (image, KIND_MAP_LEAF, identity.uuid, 42, 1235, sum));
  assert_non_null (format_node_check (image, KIND_MAP_LEAF, identity.uuid, 42, 1234, sum + 1));
  for (unsigned i = 0; i < 2000; i++) {
    unsigned byte = random_below (i % 2 ? BLOCK_SIZE : sizeof *node), bit = 1 << random_below (8);

    image[byte] ^= bit;
    assert_non_null (format_node_check (image, 0, identity.uuid, 42, 1234, 0));
    image[byte] ^= bit;
  }
  assert_null (format_node_check (image, KIND_MAP_LEAF, identity.uuid, 42, 1234, sum));
}

static void
test_nodes (void **state)
{
  (void) state;
  for_each_seed (run_nodes);
}

union superblock {
  struct format_superblock s;
  uint8_t block[BLOCK_SIZE];
};

static void
superblock_create (union superblock *superblock)
{
  memset (superblock, 0, sizeof *superblock);
  superblock->s.version = to_le32 (FORMAT_VERSION);
  superblock->s.group_blocks = to_le64 (32768);
  superblock->s.meta_blocks = to_le64 (512);
  superblock->s.journal_place = to_le64 (512);
  superblock->s.journal_half_blocks = to_le64 (4096);
  superblock->s.sequence = to_le64 (random_number ());
  format_superblock_seal (&superblock->s, 2);
}

static void
run_superblocks (void)
{
  union superblock superblock;

  superblock_create (&superblock);
  assert_null (format_superblock_check (&superblock.s, 2));
  assert_non_null (format_superblock_check (&superblock.s, 3));
  for (unsigned i = 0; i < 2000; i++) {
    unsigned byte = random_below (i % 2 ? BLOCK_SIZE : 200), bit = 1 << random_below (8);

    superblock.block[byte] ^= bit;
    assert_non_null (format_superblock_check (&superblock.s, 2));
    superblock.block[byte] ^= bit;
  }
}

static void
test_superblocks (void **state)
{
  (void) state;
  for_each_seed (run_superblocks);
}

/* Sealed, but nothing that a store could have. */
static void
test_geometry (void **state)
{
  static const struct { uint64_t group, meta, journal, half, capacity; bool ok; } cases[] = {
    { 32768, 512, 512, 4096, 0, true },
    { 32768, 512, 512, 4096, 8705, true },
    { 32768, 512, 512, 4096, 8704, false },
    { 32768, 512, 512, 4096, UINT64_MAX, false },
    { 32768, 512, 511, 4096, 0, false },
    { 32768, 512, 513, 4096, 0, false },
    { 32768, 512, 512, 16, 0, true },
    { 32768, 512, 512, 15, 0, false },
    { 32768, 16, 16, 4096, 0, true },
    { 32768, 8, 8, 4096, 0, false },
    { 32768, 512, 512, 16128, 0, true },
    { 32768, 512, 512, 16129, 0, false },
    { 32768, 512, 512, UINT64_C (1) << 63, 0, false },
        { 32768, 32768, 32768, 16, 0, false },
    { 32768, 4, 4, 4096, 0, false },
    { 32768, 513, 513, 4096, 0, false },
    { 32767, 512, 512, 4096, 0, false },
    { 0, 0, 0, 0, 0, false },
    { UINT64_C (1) << 63, 512, 512, 4096, 0, false },
  };
  union superblock superblock;

  (void) state;
  for (unsigned i = 0; i < ARRAY_COUNT (cases); i++) {
    superblock_create (&superblock);
    superblock.s.group_blocks = to_le64 (cases[i].group);
    superblock.s.meta_blocks = to_le64 (cases[i].meta);
    superblock.s.journal_place = to_le64 (cases[i].journal);
    superblock.s.journal_half_blocks = to_le64 (cases[i].half);
    superblock.s.capacity = to_le64 (cases[i].capacity);
    format_superblock_seal (&superblock.s, 0);
    assert_int_equal (format_superblock_check (&superblock.s, 0) == NULL, cases[i].ok);
    /* A later version's fields are not judged: it is refused by its version. */
    superblock.s.version = to_le32 (FORMAT_VERSION + 1);
    format_superblock_seal (&superblock.s, 0);
    assert_null (format_superblock_check (&superblock.s, 0));
  }
  superblock_create (&superblock);
  superblock.s.journal_half = to_le32 (2);
  format_superblock_seal (&superblock.s, 0);
  assert_non_null (format_superblock_check (&superblock.s, 0));
  superblock_create (&superblock);
  memset (superblock.s.arena_path, 'x', sizeof superblock.s.arena_path);
  format_superblock_seal (&superblock.s, 0);
  assert_non_null (format_superblock_check (&superblock.s, 0));
}

static void
test_names (void **state)
{
  static const struct { const char *name; bool ok; } cases[] = {
    { "disk", true }, { "a b/c..", true }, { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe", true },
    { "\xf4\x8f\xbf\xbf", true }, { "\xc2\xa0", true },
    { "", false }, { "a\nb", false }, { "\x7f", false }, { "\xc2\x85", false },
    { "\x80", false }, { "\xc0\xaf", false }, { "\xe0\x80\x80", false }, { "\xed\xa0\x80", false },
    { "\xf4\x90\x80\x80", false }, { "\xf8\x88\x80\x80\x80", false }, { "\xc3", false },
    { "\xe2\x82", false }, { "\xff", false },
  };
  char name[DISK_NAME_MAX + 2];
  const char *why;

  (void) state;
  for (unsigned i = 0; i < ARRAY_COUNT (cases); i++) {
    why = NULL;
    assert_int_equal (format_name_is_valid (cases[i].name, &why), cases[i].ok);
    assert_int_equal (why == NULL, cases[i].ok);
    assert_int_equal (format_name_is_valid (cases[i].name, NULL), cases[i].ok);
  }
  memset (name, 'n', sizeof name);
  name[DISK_NAME_MAX] = 0;
  assert_true (format_name_is_valid (name, NULL));
  name[DISK_NAME_MAX] = 'n';
  name[DISK_NAME_MAX + 1] = 0;
  assert_false (format_name_is_valid (name, NULL));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_nodes),
    cmocka_unit_test (test_superblocks),
    cmocka_unit_test (test_geometry),
    cmocka_unit_test (test_names),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
