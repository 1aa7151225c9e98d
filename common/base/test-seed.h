/* SPDX-License-Identifier: BSD-2-Clause */
/* test-seed.h - numbers for the unit tests, all from a seed that is printed; LACUNA_SEED=n replays
 * one.  For a test program of one file, after cmocka.h.
 */
#ifndef LACUNA_TEST_SEED_H
#define LACUNA_TEST_SEED_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

static uint64_t random_state;

static inline uint64_t
random_number (void)
{
  uint64_t z = random_state += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static inline uint64_t
random_below (uint64_t limit)
{
  return random_number () % limit;
}

/* Begins anew with LACUNA_SEED, or with a seed that no run before had; returns it. */
static inline uint64_t
random_seed (void)
{
  const char *one = getenv ("LACUNA_SEED");

  if (one)
    random_state = strtoull (one, NULL, 0);
  else
    assert_int_equal (getrandom (&random_state, sizeof random_state, 0), sizeof random_state);
  print_message ("LACUNA_SEED=%llu\n", (unsigned long long) random_state);
  return random_state;
}

/* Runs TEST with each of the fixed seeds, or with LACUNA_SEED. */
static inline void
for_each_seed (void (*test) (void))
{
  const char *one = getenv ("LACUNA_SEED");

  for (uint64_t seed = one ? strtoull (one, NULL, 0) : 1; ; seed++) {
    print_message ("seed %llu\n", (unsigned long long) seed);
    random_state = seed;
    test ();
    if (one || seed == 4)
      break;
  }
}

#endif
