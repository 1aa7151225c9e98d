/* SPDX-License-Identifier: BSD-2-Clause */
/* random.h - the tests' numbers, all from a seed (splitmix64). */
#ifndef LACUNA_TESTS_RANDOM_H
#define LACUNA_TESTS_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
  uint64_t state;
};

static inline uint64_t
random_next (struct random *random)
{
  uint64_t z = random->state += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* 0 .. limit - 1 */
static inline uint64_t
random_below (struct random *random, uint64_t limit)
{
  return random_next (random) % limit;
}

static inline uint64_t
random_between (struct random *random, uint64_t first, uint64_t last)
{
  return first + random_below (random, last - first + 1);
}

static inline bool
random_chance (struct random *random, unsigned percent)
{
  return random_below (random, 100) < percent;
}

#endif
