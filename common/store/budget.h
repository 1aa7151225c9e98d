/* SPDX-License-Identifier: BSD-2-Clause */
/* budget.h - a number of frames that may be used at once, and the queue of those who want some.
 *
 * First come, first served: whoever waits is let in before all who come later, and in order.
 *
 * A word that each request changes twice is fetched from another processor's cache twice, by all of
 * them.  So a context keeps a credit: it charges more than is asked for, and has the rest for the
 * next ones.  What is in a credit is charged, so the bound is what it was; but somebody may wait
 * for it.  Therefore a credit is given back
 *
 *   when others wait: at the next release, or when its context has run (context_run);
 *   before its context's thread sleeps or does something else (context_rest), whether or not
 *   somebody waits: what comes later could not tell it.
 *
 * A budget allocates nothing and never waits.  Any thread; a credit is its context's thread's.
 */
#ifndef LACUNA_BUDGET_H
#define LACUNA_BUDGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/waiter.h"

struct budget {
  _Atomic uint64_t used __attribute__ ((aligned (64)));
  /* Looked at by all, seldom changed: not in the line of `used'. */
  _Atomic uint32_t waiting __attribute__ ((aligned (64)));   /* length of the queue, and those
                                                               about to enter it */
  uint32_t batch;                   /* what a credit takes at once; 0: nothing is lent */
  uint64_t max;
  pthread_mutex_t mutex;
  struct list queue;                /* of struct budget_ticket */
  bool is_closed;                   /* nobody gets in any more (mutex) */
};

/* What a context has of a budget, and does not use. */
struct credit {
  struct budget *budget;            /* NULL: there is none */
  uint64_t count;
};

/* The place of one that waits; lies in the op, which need not prepare it. */
struct budget_ticket {
  struct list link;
  struct waiter *waiter;
  uint32_t count;
  bool is_refused;                  /* nothing was charged (never cleared) */
};

void budget_init (struct budget *budget, uint64_t max);
/* Nobody may wait. */
void budget_destroy (struct budget *budget);

/* In all of these CREDIT may be NULL, or of another budget: then it is not looked at. */

/* Charges COUNT, if there is room and nobody waits. */
bool budget_try (struct budget *budget, struct credit *credit, uint32_t count);
/* True: charged, or refused (the ticket says so).  False: TICKET is queued, and WAITER handed back
 * by the release that charges it, or by a refusal. */
bool budget_charge (struct budget *budget, struct credit *credit, uint32_t count,
                    struct waiter *waiter, struct budget_ticket *ticket);
void budget_release (struct budget *budget, struct credit *credit, uint64_t count,
                     struct list *wake);
/* Takes a queued ticket back.  False: too late, it is charged and its waiter is being woken; or it
 * is not this budget's. */
bool budget_cancel (struct budget *budget, struct budget_ticket *ticket, struct list *wake);
/* Those who wait are handed back, refused; with FOR_EVER all later ones are refused, too. */
void budget_refuse (struct budget *budget, bool for_ever, struct list *wake);
bool budget_is_wanted (struct budget *budget);

/* Gives back what CREDIT has, if others wait, or if its context's thread IS_RESTING. */
void credit_settle (struct credit *credit, bool is_resting, struct list *wake);

#endif
