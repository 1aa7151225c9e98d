/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-store.h - a store for a benchmark of the engine by itself. */
#ifndef LACUNA_BENCH_STORE_H
#define LACUNA_BENCH_STORE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

/* A new one in DIRECTORY (NULL: /var/tmp), without an arena, with a cache of so many bytes; its file has
 * no name any more.  NULL after a message in the name of PROGRAM. */
static inline struct store *
bench_store_open (const char *program, const char *directory, uint64_t cache_bytes)
{
  struct store_options options = { .arena_path = "off", .cache_bytes = cache_bytes };
  char path[4096], *error = NULL;
  struct store *store = NULL;
  int result;

  snprintf (path, sizeof path, "%s/lacuna-%s-%d", directory != NULL ? directory : "/var/tmp",
            program, getpid ());
  options.path = path;
  result = store_init (path, 0, false, &error);
  if (result == 0) {
    result = store_open (&options, &store, &error);
    unlink (path);
  }
  if (result == 0)
    return store;
  fprintf (stderr, "%s: %s: %s\n", program, path, error != NULL ? error : strerror (-result));
  free (error);
  return NULL;
}

#endif
