/* SPDX-License-Identifier: BSD-2-Clause */
/* test-replay-data.c - which DATA remains, against a naive model; and how many steps it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/test-seed.h"
#include "store/store-internal.h"

#define DISKS 3
#define BLOCKS 40

/* The content of each block, by number; 0: none. */
static uint32_t model[DISKS + 1][BLOCKS];

static const uint8_t *
content (uint32_t number)
{
  return (const uint8_t *) (uintptr_t) number;
}

static void
step (struct replay_data *data, uint32_t number)
{
  uint64_t disk = 1 + random_below (DISKS), first = random_below (BLOCKS);
  uint64_t last = first + random_below (BLOCKS - first);

  if (random_below (3) > 0) {
    model[disk][first] = number;
    assert_int_equal (replay_data_keep (data, disk, first, content (number), 1), 0);
    return;
  }
  memset (&model[disk][first], 0, (last - first + 1) * sizeof model[disk][0]);
  if (last == BLOCKS - 1 && random_below (2) == 0)
    last = UINT64_MAX;
  assert_int_equal (replay_data_void (data, disk, first, last), 0);
}

static void
test_model (void **state)
{
  (void) state;
  for (unsigned round = 0; round < 2000; round++) {
    struct replay_data data = { 0 };
    size_t at = 0;

    memset (model, 0, sizeof model);
    for (uint32_t number = 1 + random_below (3), end = random_below (120); number < end; number++)
      step (&data, number);
    assert_int_equal (replay_data_settle (&data), 0);
    for (uint64_t disk = 1; disk <= DISKS; disk++)
      for (uint64_t block = 0; block < BLOCKS; block++) {
        if (model[disk][block] == 0)
          continue;
        assert_true (at < data.count);
        assert_int_equal (data.blocks[at].disk, disk);
        assert_int_equal (data.blocks[at].block, block);
        assert_ptr_equal (data.blocks[at].data, content (model[disk][block]));
        at++;
      }
    assert_int_equal (at, data.count);
    replay_data_free (&data);
  }
}

/* COUNT blocks and as many voids, each of WIDTH blocks: what a naive replay compares COUNT * COUNT
 * times. */
static void
count_steps (unsigned count, uint64_t width)
{
  struct replay_data data = { 0 };

  for (unsigned i = 0; i < count; i++) {
    uint64_t first = random_below (count);

    assert_int_equal (replay_data_keep (&data, 1 + i % 7, random_below (count), content (1), 1), 0);
    assert_int_equal (replay_data_void (&data, 1 + i % 7, first, first + width - 1), 0);
  }
  assert_int_equal (replay_data_settle (&data), 0);
  print_message ("%u blocks, voids of %llu: %llu steps\n", count, (unsigned long long) width,
                 (unsigned long long) data.steps);
  assert_true (data.steps < UINT64_C (60) * count);
  replay_data_free (&data);
}

static void
test_steps (void **state)
{
  (void) state;
  count_steps (100000, 1);
  count_steps (100000, 1000);
  count_steps (100000, 100000);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_model),
    cmocka_unit_test (test_steps),
  };

  random_state = 1;
  return cmocka_run_group_tests (tests, NULL, NULL);
}
