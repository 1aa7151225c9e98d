/* SPDX-License-Identifier: BSD-2-Clause */
/* test-cache.h - what the tests of the cache share: an arena in plain memory, and content that says
 * whose it is.
 */
#ifndef LACUNA_TEST_CACHE_H
#define LACUNA_TEST_CACHE_H

#include <stdlib.h>

#include "base/test-seed.h"
#include "store/cache-internal.h"

static inline struct arena *
arena_make (uint64_t frame_count)
{
  struct arena *arena = calloc (1, sizeof *arena);

  arena->frame_count = arena->frames_at_start = frame_count;
  arena->frames = calloc (frame_count, sizeof *arena->frames);
  arena->data = aligned_alloc (BLOCK_SIZE, frame_count * BLOCK_SIZE);
  return arena;
}

static inline void
arena_free (struct arena *arena)
{
  free (arena->frames);
  free (arena->data);
  free (arena);
}

/* A block's content here: its key, and a stamp at both ends. */
static inline void
content_set (struct frame *frame, uint64_t disk, uint64_t block, uint64_t stamp)
{
  uint64_t *words = frame->data;

  words[0] = words[511] = stamp;
  words[1] = disk;
  words[2] = block;
}

static inline uint64_t
content_check (const struct frame *frame, uint64_t disk, uint64_t block)
{
  const uint64_t *words = frame->data;

  CHECK (words[0] == words[511] && words[1] == disk && words[2] == block);
  return words[0];
}

#endif
