/* SPDX-License-Identifier: BSD-2-Clause */
/* starve.c - see starve.h. */
#include <errno.h>
#include <stddef.h>

#include "starve.h"

/* The linker's: what is called malloc elsewhere, and the real one. */
void *real_malloc (size_t size) __asm__ ("__real_malloc");
void *real_calloc (size_t count, size_t size) __asm__ ("__real_calloc");
void *real_realloc (void *memory, size_t size) __asm__ ("__real_realloc");
void *real_aligned_alloc (size_t alignment, size_t size) __asm__ ("__real_aligned_alloc");
char *real_strdup (const char *text) __asm__ ("__real_strdup");
void *starved_malloc (size_t size) __asm__ ("__wrap_malloc");
void *starved_calloc (size_t count, size_t size) __asm__ ("__wrap_calloc");
void *starved_realloc (void *memory, size_t size) __asm__ ("__wrap_realloc");
void *starved_aligned_alloc (size_t alignment, size_t size) __asm__ ("__wrap_aligned_alloc");
char *starved_strdup (const char *text) __asm__ ("__wrap_strdup");

static uint64_t left = UINT64_MAX;
static uint64_t failed;
static bool is_forever;

void
starve_after (uint64_t n, bool forever)
{
  left = n;
  is_forever = forever;
  failed = 0;
}

void
starve_end (void)
{
  left = UINT64_MAX;
}

uint64_t
starve_failed (void)
{
  return failed;
}

static bool
is_refused (void)
{
  if (left == UINT64_MAX)
    return false;
  if (left > 0) {
    left--;
    return false;
  }
  if (!is_forever)
    left = UINT64_MAX;
  failed++;
  errno = ENOMEM;
  return true;
}

void *
starved_malloc (size_t size)
{
  return is_refused () ? NULL : real_malloc (size);
}

void *
starved_calloc (size_t count, size_t size)
{
  return is_refused () ? NULL : real_calloc (count, size);
}

void *
starved_realloc (void *memory, size_t size)
{
  return is_refused () ? NULL : real_realloc (memory, size);
}

void *
starved_aligned_alloc (size_t alignment, size_t size)
{
  return is_refused () ? NULL : real_aligned_alloc (alignment, size);
}

char *
starved_strdup (const char *text)
{
  return is_refused () ? NULL : real_strdup (text);
}
