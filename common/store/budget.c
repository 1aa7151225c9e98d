/* SPDX-License-Identifier: BSD-2-Clause */
/* budget.c - see budget.h. */
#include "base/bytes.h"
#include "base/check.h"
#include "store/budget.h"
#include "store/order.h"

/* A credit takes a window at most, and a small part of the budget. */
#define BATCH_MAX 256
#define BATCH_PART 64

void
budget_init (struct budget *budget, uint64_t max)
{
  atomic_init (&budget->used, 0);
  atomic_init (&budget->waiting, 0);
  budget->batch = MIN (max / BATCH_PART, BATCH_MAX);
  budget->max = max;
  budget->is_closed = false;
  CHECK (pthread_mutex_init (&budget->mutex, NULL) == 0);
  list_init (&budget->queue);
}

void
budget_destroy (struct budget *budget)
{
  CHECK (list_is_empty (&budget->queue));
  pthread_mutex_destroy (&budget->mutex);
}

bool
budget_is_wanted (struct budget *budget)
{
  return atomic_load (&budget->waiting) != 0;
}

/* --- the shared word --- */

static bool
budget_take (struct budget *budget, uint64_t count)
{
  uint64_t used = atomic_load (&budget->used);

  while (used + count <= budget->max)
    if (atomic_compare_exchange_weak (&budget->used, &used, used + count))
      return true;
  return false;
}

/* Lets in whom there is room for, in order.  Under the mutex. */
static void
budget_grant (struct budget *budget, struct list *wake)
{
  while (!list_is_empty (&budget->queue)) {
    struct budget_ticket *ticket = container_of (budget->queue.next, struct budget_ticket, link);

    if (!budget_take (budget, ticket->count))
      break;
    list_remove (&ticket->link);
    atomic_fetch_sub (&budget->waiting, 1);
    list_append (wake, &ticket->waiter->link);
  }
}

static void
budget_give (struct budget *budget, uint64_t count, struct list *wake)
{
  uint64_t before = atomic_fetch_sub (&budget->used, count);

  CHECK (before >= count);
  if (!budget_is_wanted (budget))
    return;
  pthread_mutex_lock (&budget->mutex);
  budget_grant (budget, wake);
  pthread_mutex_unlock (&budget->mutex);
}

/* --- credits --- */

static bool
credit_is_of (const struct credit *credit, const struct budget *budget)
{
  return credit != NULL && credit->budget == budget;
}

static bool
credit_take (struct credit *credit, uint64_t count)
{
  struct budget *budget = credit->budget;

  if (credit->count < count) {
    uint64_t lacks = count - credit->count;

    if (budget_take (budget, lacks + budget->batch))
      credit->count += lacks + budget->batch;
    else if (budget_take (budget, lacks))
      credit->count += lacks;
    else
      return false;
  }
  credit->count -= count;
  return true;
}

void
credit_settle (struct credit *credit, bool is_resting, struct list *wake)
{
  uint64_t count = credit->count;

  if (count == 0 || (!is_resting && !budget_is_wanted (credit->budget)))
    return;
  credit->count = 0;
  budget_give (credit->budget, count, wake);
}

/* --- requests --- */

bool
budget_try (struct budget *budget, struct credit *credit, uint32_t count)
{
  if (budget_is_wanted (budget))
    return false;
  return credit_is_of (credit, budget) ? credit_take (credit, count)
                                       : budget_take (budget, count);
}

/* `waiting` is raised before the room is looked at for the last time, and looked at after room was
 * made: so either the one or the other sees that they belong together. */
bool
budget_charge (struct budget *budget, struct credit *credit, uint32_t count,
               struct waiter *waiter, struct budget_ticket *ticket)
{
  bool is_charged, is_refused;

  CHECK (count <= budget->max);
  if (budget_try (budget, credit, count))
    return true;
  pthread_mutex_lock (&budget->mutex);
  atomic_fetch_add (&budget->waiting, 1);
  is_charged = list_is_empty (&budget->queue) && budget_take (budget, count);
  is_refused = !is_charged && budget->is_closed;
  if (is_charged || is_refused)
    atomic_fetch_sub (&budget->waiting, 1);
  if (!is_charged)
    ticket->is_refused = is_refused;
  if (!is_charged && !is_refused) {
    order_wait (waiter, WAITS_FOR_ADMISSION);
    ticket->waiter = waiter;
    ticket->count = count;
    list_append (&budget->queue, &ticket->link);
  }
  pthread_mutex_unlock (&budget->mutex);
  return is_charged || is_refused;
}

void
budget_release (struct budget *budget, struct credit *credit, uint64_t count, struct list *wake)
{
  if (!credit_is_of (credit, budget)) {
    budget_give (budget, count, wake);
    return;
  }
  credit->count += count;
  credit_settle (credit, credit->count > 2 * budget->batch, wake);
}

bool
budget_cancel (struct budget *budget, struct budget_ticket *ticket, struct list *wake)
{
  bool is_queued = false;

  pthread_mutex_lock (&budget->mutex);
  list_for_each_safe (link, &budget->queue)
    if (link == &ticket->link) {
      list_remove (link);
      atomic_fetch_sub (&budget->waiting, 1);
      is_queued = true;
    }
  /* It may have been the one that the others did not fit in behind. */
  budget_grant (budget, wake);
  pthread_mutex_unlock (&budget->mutex);
  return is_queued;
}

void
budget_refuse (struct budget *budget, bool for_ever, struct list *wake)
{
  struct list *link;

  pthread_mutex_lock (&budget->mutex);
  budget->is_closed |= for_ever;
  while ((link = list_take (&budget->queue)) != NULL) {
    struct budget_ticket *ticket = container_of (link, struct budget_ticket, link);

    ticket->is_refused = true;
    atomic_fetch_sub (&budget->waiting, 1);
    list_append (wake, &ticket->waiter->link);
  }
  pthread_mutex_unlock (&budget->mutex);
}
