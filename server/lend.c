/* SPDX-License-Identifier: BSD-2-Clause */
/* lend.c - frames that clients hold for as long as they like.
 *
 * A payload that is received straight into frames holds them until the client has sent all of it,
 * and a READ until the client has taken its reply.  Whoever stops in the middle holds them on.  So
 * no more than a part of what requests share is lent that way.  When all of that is lent, requests
 * go in pieces through memory of their connection's own (transmit.c), and hold frames only while
 * the engine works: then nobody waits for a client.
 *
 * Requests of up to CACHE_SMALL_MAX frames share three quarters of what such requests may have in
 * flight; of the longer ones, all of which are lent or come in pieces, it is all.
 *
 * A worker has some in stock, so that small requests on different threads touch nothing in common.
 */
#include "base/check.h"
#include "server.h"

#define STOCK_MAX 32               /* frames */

void
lend_open (struct server *server)
{
  uint64_t small, large;

  store_get_in_flight_max (server->store, &small, &large);
  server->lend_small = (int64_t) (small - small / 4);
  server->lend_large = (int64_t) large;
}

static bool
take (_Atomic int64_t *left, int64_t frames)
{
  int64_t before = atomic_load_explicit (left, memory_order_relaxed);

  while (before >= frames)
    if (atomic_compare_exchange_weak (left, &before, before - frames))
      return true;
  return false;
}

static bool
take_small (struct worker *worker, int64_t frames)
{
  struct server *server = worker->server;
  int64_t missing = frames - worker->lend_stock;

  if (missing > 0) {
    if (take (&server->lend_small, missing + STOCK_MAX))
      worker->lend_stock += missing + STOCK_MAX;
    else if (take (&server->lend_small, missing))
      worker->lend_stock += missing;
    else
      return false;
  }
  worker->lend_stock -= frames;
  return true;
}

bool
lend_take (struct slot *slot, uint64_t offset, uint64_t length)
{
  struct worker *worker = slot->connection->worker;
  uint64_t frames = divide_up (offset % BLOCK_SIZE + length, BLOCK_SIZE);

  CHECK (slot->lent == 0);
  if (frames > CACHE_SMALL_MAX ? take (&worker->server->lend_large, (int64_t) frames)
                               : take_small (worker, (int64_t) frames))
    slot->lent = (uint32_t) frames;
  return slot->lent > 0;
}

void
lend_give_back (struct slot *slot)
{
  struct worker *worker = slot->connection->worker;

  if (slot->lent > CACHE_SMALL_MAX)
    atomic_fetch_add (&worker->server->lend_large, slot->lent);
  else
    worker->lend_stock += slot->lent;
  slot->lent = 0;
  if (worker->lend_stock > 2 * STOCK_MAX) {
    atomic_fetch_add (&worker->server->lend_small, worker->lend_stock - STOCK_MAX);
    worker->lend_stock = STOCK_MAX;
  }
}
