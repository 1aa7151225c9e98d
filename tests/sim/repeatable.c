/* SPDX-License-Identifier: BSD-2-Clause */
/* repeatable.c - random numbers and the time of day, as the engine gets them in these programs:
 * from a seed, so that a run is the same each time, and states can be told to be equal. */
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "random.h"
#include "repeatable.h"

static _Atomic uint64_t draws;

void
repeatable_seed (uint64_t seed)
{
  atomic_store (&draws, seed << 20);
}

/* Instead of the C library's. */
ssize_t
getrandom (void *buffer, size_t length, unsigned flags)
{
  struct random random = { .state = atomic_fetch_add (&draws, 1) };

  (void) flags;
  for (size_t at = 0; at < length; at += sizeof (uint64_t)) {
    uint64_t word = random_next (&random);

    memcpy ((uint8_t *) buffer + at, &word, length - at < sizeof word ? length - at : sizeof word);
  }
  return length;
}

time_t
time (time_t *result)
{
  time_t now = 1700000000;

  if (result != NULL)
    *result = now;
  return now;
}
