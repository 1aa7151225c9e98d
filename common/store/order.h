/* SPDX-License-Identifier: BSD-2-Clause */
/* order.h - what an op may hold while it waits, as a table, checked at each wait.
 *
 * store-internal.h tells the order and its reasons.  A circle of ops that wait for each other needs
 * one that waits for something to the left of what it holds; so the module that makes an op wait,
 * or might, asks first, whether or not it comes to that this time.  What an op holds is counted in
 * its waiter, by those modules too: it is the op's own, changed on its thread only, and costs no
 * lock.
 *
 * Not counted: admission, which everything may be waited for with but itself; tail room, which is
 * given back in parts; and the ranges that range_lock_try gives.
 *
 * Nor are the gate and the mutexes.  They are a thread's, not an op's, and are let go before the step
 * ends that took them, so no wait can come between: waiting is what a step returns.  One that returned
 * with one of them would stop the simulator and the explorer for good, which have one thread for
 * everything; and in which order threads take them is what ThreadSanitizer watches
 * (lock-order-inversion) in all that is run under it.  A count of their own would cost each WRITE some
 * twenty changes of a thread's variable, to find the same.
 */
#ifndef LACUNA_ORDER_H
#define LACUNA_ORDER_H

#include "base/check.h"
#include "base/waiter.h"

/* Has it, or stands in the queue for it. */
enum order_hold {
  HOLDS_ADMIN_LOCK,
  HOLDS_QUIESCE,                    /* ranges in this mode: neither commit nor write-back want
                                       them */
  HOLDS_RANGE,                      /* ranges in another one */
  HOLDS_MAPS_LOCK,
};

/* The byte of struct waiter's `holds' that counts it. */
#define HOLD(what) (UINT32_C (0xff) << 8 * (what))

enum order_wait {
  WAITS_FOR_ADMISSION,
  WAITS_FOR_ADMIN_LOCK,
  WAITS_FOR_TAIL,
  WAITS_FOR_RANGE,
  WAITS_FOR_WRITE_BACK,
  WAITS_FOR_MAPS_LOCK,
  WAITS_FOR_UPGRADE,
  WAITS_FOR_DISCARD,
  WAITS_FOR_FILL,
  WAITS_FOR_COMMIT,
  WAITS_FOR_ITEMS,                  /* the checkpoint, for a commit that does not wait for it */
};

/* WAITER's op is going to wait for this. */
static inline void
order_wait (const struct waiter *waiter, enum order_wait wait)
{
  static const uint32_t may_hold[] = {
    [WAITS_FOR_ADMISSION] = 0,
    [WAITS_FOR_ADMIN_LOCK] = 0,
    [WAITS_FOR_TAIL] = HOLD (HOLDS_ADMIN_LOCK),
    [WAITS_FOR_RANGE] = HOLD (HOLDS_ADMIN_LOCK) | HOLD (HOLDS_QUIESCE),
    [WAITS_FOR_WRITE_BACK] = HOLD (HOLDS_ADMIN_LOCK) | HOLD (HOLDS_QUIESCE),
    [WAITS_FOR_MAPS_LOCK] = HOLD (HOLDS_ADMIN_LOCK) | HOLD (HOLDS_QUIESCE),
    [WAITS_FOR_UPGRADE] = HOLD (HOLDS_ADMIN_LOCK) | HOLD (HOLDS_QUIESCE) | HOLD (HOLDS_MAPS_LOCK),
    [WAITS_FOR_DISCARD] = 0,
    [WAITS_FOR_FILL] = HOLD (HOLDS_RANGE),
    [WAITS_FOR_COMMIT] = HOLD (HOLDS_ADMIN_LOCK) | HOLD (HOLDS_QUIESCE),
    [WAITS_FOR_ITEMS] = HOLD (HOLDS_MAPS_LOCK),
  };

  CHECK ((waiter->holds & ~may_hold[wait]) == 0);
}

static inline void
order_take (struct waiter *waiter, enum order_hold what)
{
  CHECK ((waiter->holds & HOLD (what)) != HOLD (what));
  waiter->holds += UINT32_C (1) << 8 * what;
}

static inline void
order_drop (struct waiter *waiter, enum order_hold what)
{
  CHECK ((waiter->holds & HOLD (what)) != 0);
  waiter->holds -= UINT32_C (1) << 8 * what;
}

#endif
