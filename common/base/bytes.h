/* SPDX-License-Identifier: BSD-2-Clause */
/* bytes.h - byte order, alignment, and the arithmetic of blocks.
 *
 * Numbers on the device are little-endian and have types of their own, so that
 * one cannot be used as a number without a conversion; numbers on the wire are
 * big-endian (NBD, proto.md, "Values").
 */
#ifndef LACUNA_BYTES_H
#define LACUNA_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct { uint16_t raw; } __attribute__ ((packed)) le16;
typedef struct { uint32_t raw; } __attribute__ ((packed)) le32;
typedef struct { uint64_t raw; } __attribute__ ((packed)) le64;
typedef struct { uint16_t raw; } __attribute__ ((packed)) be16;
typedef struct { uint32_t raw; } __attribute__ ((packed)) be32;
typedef struct { uint64_t raw; } __attribute__ ((packed)) be64;

static inline uint16_t from_le16 (le16 v) { return le16toh (v.raw); }
static inline uint32_t from_le32 (le32 v) { return le32toh (v.raw); }
static inline uint64_t from_le64 (le64 v) { return le64toh (v.raw); }
static inline le16 to_le16 (uint16_t v) { return (le16) { htole16 (v) }; }
static inline le32 to_le32 (uint32_t v) { return (le32) { htole32 (v) }; }
static inline le64 to_le64 (uint64_t v) { return (le64) { htole64 (v) }; }
static inline uint16_t from_be16 (be16 v) { return be16toh (v.raw); }
static inline uint32_t from_be32 (be32 v) { return be32toh (v.raw); }
static inline uint64_t from_be64 (be64 v) { return be64toh (v.raw); }
static inline be16 to_be16 (uint16_t v) { return (be16) { htobe16 (v) }; }
static inline be32 to_be32 (uint32_t v) { return (be32) { htobe32 (v) }; }
static inline be64 to_be64 (uint64_t v) { return (be64) { htobe64 (v) }; }

/* The unit of mapping, caching and allocation, in bytes. */
#define BLOCK_SIZE UINT64_C (4096)
#define BLOCK_SHIFT 12

#define KIB UINT64_C (1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_COUNT(array) (sizeof (array) / sizeof ((array)[0]))

static inline bool
is_power_of_2 (uint64_t v)
{
  return v != 0 && (v & (v - 1)) == 0;
}

static inline uint64_t
divide_up (uint64_t v, uint64_t by)
{
  return v / by + (v % by != 0);
}

static inline uint64_t
align_up (uint64_t v, uint64_t to)
{
  return divide_up (v, to) * to;
}

static inline uint64_t
align_down (uint64_t v, uint64_t to)
{
  return v / to * to;
}

#endif
