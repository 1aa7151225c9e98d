/* SPDX-License-Identifier: BSD-2-Clause */
/* test-counter.h - one of a store's counters, by its name. */
#ifndef LACUNA_TEST_COUNTER_H
#define LACUNA_TEST_COUNTER_H

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/store.h"

static inline uint64_t
store_counter (struct store *store, const char *name)
{
  struct store_counter counters[64];
  size_t count = store_get_counters (store, counters, ARRAY_COUNT (counters));

  for (size_t i = 0; i < count; i++)
    if (strcmp (counters[i].name, name) == 0)
      return counters[i].value;
  CHECK (false);
}

#endif
