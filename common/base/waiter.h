/* SPDX-License-Identifier: BSD-2-Clause */
/* waiter.h - a place in a queue, for whoever has to wait without a thread.
 *
 * The memory belongs to the one who waits.  Modules that let others wait keep
 * waiters in lists, and hand back the list of those to be woken after their
 * mutex is released; they never call anybody.
 */
#ifndef LACUNA_WAITER_H
#define LACUNA_WAITER_H

#include <stdint.h>

#include "base/list.h"

struct waiter {
  struct list link;
  uint32_t holds;               /* what its owner holds; store/order.h's, the owner's thread */
};

static inline void
waiter_init (struct waiter *waiter)
{
  list_init (&waiter->link);
  waiter->holds = 0;
}

#endif
