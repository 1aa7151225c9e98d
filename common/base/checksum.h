/* SPDX-License-Identifier: BSD-2-Clause */
/* checksum.h - the checksum of everything Lacuna writes: XXH3, 64 bits.
 *
 * It finds damage, not forgery.  The seed separates uses that must never pass
 * for each other (the journal's records of two openings, say).
 */
#ifndef LACUNA_CHECKSUM_H
#define LACUNA_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

static inline uint64_t
checksum (const void *data, size_t length, uint64_t seed)
{
  return XXH3_64bits_withSeed (data, length, seed);
}

#endif
