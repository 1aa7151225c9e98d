/* SPDX-License-Identifier: BSD-2-Clause */
/* clock.h - the clock that only ever goes on, in nanoseconds; from when on does not matter. */
#ifndef LACUNA_CLOCK_H
#define LACUNA_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t
clock_ns (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return (uint64_t) now.tv_sec * UINT64_C (1000000000) + (uint64_t) now.tv_nsec;
}

#endif
