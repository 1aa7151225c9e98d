/* SPDX-License-Identifier: BSD-2-Clause */
/* driver.c - runs a fuzz target where there is no libFuzzer:
 *
 *   TARGET [-SECONDS] [FILE...]
 *
 * the files, and then, for so long, inputs of random bytes.  LACUNA_SEED repeats a run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz.h"

#define INPUT_MAX 4096

static void
run_file (const char *path)
{
  static uint8_t data[1 << 20];
  FILE *file = fopen (path, "rb");
  size_t length;

  if (!file) {
    perror (path);
    exit (2);
  }
  length = fread (data, 1, sizeof data, file);
  fclose (file);
  LLVMFuzzerTestOneInput (data, length);
}

static uint64_t
next_random (uint64_t *state)
{
  /* splitmix64 */
  uint64_t z = *state += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ z >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C (0x94d049bb133111eb);
  return z ^ z >> 31;
}

static void
run_random (long seconds)
{
  const char *seed = getenv ("LACUNA_SEED");
  uint64_t state = seed ? strtoull (seed, NULL, 0) : (uint64_t) time (NULL) * 1000003;
  time_t end = time (NULL) + seconds;
  unsigned long count = 0;

  printf ("LACUNA_SEED=%llu\n", (unsigned long long) state);
  fflush (stdout);
  for (; time (NULL) < end; count++) {
    uint8_t data[INPUT_MAX];
    size_t length = next_random (&state) % (next_random (&state) % 4 ? 200 : INPUT_MAX);

    for (size_t i = 0; i < length; i++)
      data[i] = (uint8_t) next_random (&state);
    LLVMFuzzerTestOneInput (data, length);
  }
  printf ("%lu inputs\n", count);
}

int
main (int argc, char **argv)
{
  long seconds = 0;

  for (int i = 1; i < argc; i++)
    if (argv[i][0] == '-')
      seconds = strtol (argv[i] + 1, NULL, 10);
    else
      run_file (argv[i]);
  run_random (seconds);
  return 0;
}
