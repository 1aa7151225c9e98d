/* SPDX-License-Identifier: BSD-2-Clause */
/* bridge.c - contexts for nbdkit's threads; see plugin.h. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "plugin.h"

/* A context has three descriptors, of which a process has 1024 unless it is told otherwise.  More
 * than this at once make nothing faster. */
#define CONTEXTS_MAX 128

struct bridge {
  struct store *store;
  pthread_mutex_t mutex;           /* leaf; protects: */
  pthread_cond_t given;            /* a context was given back */
  unsigned made;                   /* or being made */
  unsigned idle_count;
  struct context *idle[CONTEXTS_MAX];   /* last in, first out: its memory is warm */
};

struct bridge *
bridge_create (struct store *store)
{
  struct bridge *bridge = calloc (1, sizeof *bridge);

  if (bridge == NULL)
    return NULL;
  bridge->store = store;
  bridge->idle[0] = store_context_create (store);
  if (bridge->idle[0] == NULL) {
    free (bridge);
    return NULL;
  }
  bridge->made = bridge->idle_count = 1;
  pthread_mutex_init (&bridge->mutex, NULL);
  pthread_cond_init (&bridge->given, NULL);
  return bridge;
}

void
bridge_destroy (struct bridge *bridge)
{
  CHECK (bridge->idle_count == bridge->made);
  for (unsigned i = 0; i < bridge->made; i++)
    store_context_destroy (bridge->store, bridge->idle[i]);
  pthread_cond_destroy (&bridge->given);
  pthread_mutex_destroy (&bridge->mutex);
  free (bridge);
}

/* One more; NULL: there are as many as there can be.  The mutex is held, but not meanwhile. */
static struct context *
bridge_make (struct bridge *bridge)
{
  struct context *context;

  if (bridge->made == CONTEXTS_MAX)
    return NULL;
  bridge->made++;
  pthread_mutex_unlock (&bridge->mutex);
  context = store_context_create (bridge->store);
  pthread_mutex_lock (&bridge->mutex);
  if (context == NULL)
    bridge->made--;
  return context;
}

struct context *
bridge_take (struct bridge *bridge)
{
  struct context *context = NULL;

  pthread_mutex_lock (&bridge->mutex);
  if (bridge->idle_count == 0)
    context = bridge_make (bridge);
  while (context == NULL && bridge->idle_count == 0)
    pthread_cond_wait (&bridge->given, &bridge->mutex);
  if (context == NULL)
    context = bridge->idle[--bridge->idle_count];
  pthread_mutex_unlock (&bridge->mutex);
  op_enter_context (context);
  return context;
}

void
bridge_give (struct bridge *bridge, struct context *context)
{
  CHECK (atomic_load (&context->active) == 0);
  context_rest (context);
  op_enter_context (NULL);
  pthread_mutex_lock (&bridge->mutex);
  bridge->idle[bridge->idle_count++] = context;
  pthread_cond_signal (&bridge->given);
  pthread_mutex_unlock (&bridge->mutex);
}
