/* SPDX-License-Identifier: BSD-2-Clause */
/* btree-pool.c - the memory of all B+trees of a store.
 *
 * Nodes come from slabs of 2 MiB, so that a node costs exactly its 4096 bytes, and pages that no
 * node was in yet cost nothing.  Slabs are given back with the pool only: what a store needed
 * once, it will need again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/check.h"
#include "store/btree-internal.h"

#define SLAB_BYTES (2 * MIB)
#define SLAB_NODES (SLAB_BYTES / NODE_BYTES)

/* What is set aside is not tied to a thread: ensure keeps this many nodes more than asked for,
 * which is what changes of other threads can take in the meantime (each takes a dozen at most in
 * a tree of four levels). */
#define POOL_MARGIN SLAB_NODES
/* When the system gives no more, changes go on with the margin, down to this. */
#define POOL_MARGIN_LEAST (SLAB_NODES / 4)

struct slab {
  struct slab *next;
  void *memory;
  /* What had not been used of some slab when this one was the newest and another was made. */
  struct slab *next_rest;
  char *rest;
  uint64_t rest_count;
};

struct btree_pool {
  pthread_mutex_t mutex;            /* protects all below */
  struct slab *slabs;
  struct slab *rests;               /* those with a rest */
  struct btree_node *free_nodes;    /* given back */
  char *fresh;                      /* nodes side by side, never used: not even touched */
  uint64_t fresh_count;
  uint64_t slab_count;
  /* Changed under the mutex; read without it where an estimate does. */
  _Atomic uint64_t free_count;      /* fresh ones included */
  _Atomic uint64_t used_count;
  _Atomic uint64_t present_count;   /* the sum of all trees' node_count; no mutex */
};

void
btree_pool_destroy (struct btree_pool *pool)
{
  if (pool == NULL)
    return;
  for (struct slab *slab = pool->slabs, *next; slab; slab = next) {
    next = slab->next;
    munmap (slab->memory, SLAB_BYTES);
    free (slab);
  }
  pthread_mutex_destroy (&pool->mutex);
  free (pool);
}

/* Under the mutex, and only when a slab more is due. */
static bool
pool_grow (struct btree_pool *pool)
{
  struct slab *slab = calloc (1, sizeof *slab);

  if (slab == NULL)
    return false;
  slab->memory = mmap (NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
  if (slab->memory == MAP_FAILED) {
    free (slab);
    return false;
  }
  /* What is left of the slab before is noted, not touched: it takes no memory yet. */
  if (pool->fresh_count > 0) {
    pool->slabs->rest = pool->fresh;
    pool->slabs->rest_count = pool->fresh_count;
    pool->slabs->next_rest = pool->rests;
    pool->rests = pool->slabs;
  }
  slab->next = pool->slabs;
  pool->slabs = slab;
  pool->slab_count++;
  pool->fresh = slab->memory;
  pool->fresh_count = SLAB_NODES;
  pool->free_count += SLAB_NODES;
  return true;
}

struct btree_pool *
btree_pool_create (void)
{
  struct btree_pool *pool = calloc (1, sizeof *pool);

  if (pool == NULL)
    return NULL;
  pthread_mutex_init (&pool->mutex, NULL);
  /* The margin, from the start. */
  if (btree_pool_ensure (pool, 1) == 0)
    return pool;
  btree_pool_destroy (pool);
  return NULL;
}

int
btree_pool_ensure (struct btree_pool *pool, unsigned changes)
{
  return btree_pool_ensure_nodes (pool, (uint64_t) changes * BTREE_CHANGE_NODES);
}

int
btree_pool_ensure_nodes (struct btree_pool *pool, uint64_t nodes)
{
  uint64_t wanted = nodes + POOL_MARGIN;
  bool ok = true;

  if (atomic_load_explicit (&pool->free_count, memory_order_relaxed) >= wanted)
    return 0;
  pthread_mutex_lock (&pool->mutex);
  while (ok && pool->free_count < wanted)
    ok = pool_grow (pool);
  ok = ok || pool->free_count >= wanted - POOL_MARGIN + POOL_MARGIN_LEAST;
  pthread_mutex_unlock (&pool->mutex);
  return ok ? 0 : -ENOMEM;
}

struct btree_node *
btree_pool_take (struct btree_pool *pool)
{
  struct btree_node *node;

  pthread_mutex_lock (&pool->mutex);
  node = pool->free_nodes;
  if (node)
    pool->free_nodes = node->next;
  else {
    if (pool->fresh_count == 0 && pool->rests) {
      pool->fresh = pool->rests->rest;
      pool->fresh_count = pool->rests->rest_count;
      pool->rests = pool->rests->next_rest;
    }
    /* Beyond what was set aside: better to ask the system than to give up. */
    if (pool->fresh_count == 0)
      CHECK (pool_grow (pool));
    node = (struct btree_node *) pool->fresh;
    pool->fresh += NODE_BYTES;
    pool->fresh_count--;
  }
  pool->free_count--;
  pool->used_count++;
  pthread_mutex_unlock (&pool->mutex);
  return node;
}

void
btree_pool_give (struct btree_pool *pool, struct btree_node *node)
{
  pthread_mutex_lock (&pool->mutex);
  CHECK (pool->used_count > 0);
  node->next = pool->free_nodes;
  pool->free_nodes = node;
  pool->free_count++;
  pool->used_count--;
  pthread_mutex_unlock (&pool->mutex);
}

uint64_t
btree_pool_nodes (const struct btree_pool *pool)
{
  return pool->used_count;
}

uint64_t
btree_pool_bytes (const struct btree_pool *pool)
{
  return pool->used_count * NODE_BYTES;
}

void
btree_pool_count (struct btree_pool *pool, int64_t change)
{
  atomic_fetch_add_explicit (&pool->present_count, change, memory_order_relaxed);
}

uint64_t
btree_pool_present (const struct btree_pool *pool)
{
  return atomic_load_explicit (&pool->present_count, memory_order_relaxed);
}
