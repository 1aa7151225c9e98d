/* SPDX-License-Identifier: BSD-2-Clause */
/* own-thread.c - the plugin's own thread.
 *
 * It runs a libev loop and a context, as a worker of the server does.  Commands of the control
 * socket (server/control.h) run there, and what is read ahead of nbdkit's readers is read there:
 * their own threads go back to nbdkit with the answer, and must leave nothing under way.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include <ev.h>

#include "base/check.h"
#include "base/log.h"
#include "plugin.h"
#include "server/control.h"

struct own_thread {
  struct store *store;
  pthread_t thread;
  sem_t started;
  int start_error;                 /* errno; valid once `started` was posted */
  struct ev_loop *loop;
  struct context *context;
  struct control *control;         /* NULL: there is none */
  ev_io context_watcher;
  ev_prepare prepare;              /* runs the engine before the loop sleeps */
  ev_idle idle;                    /* active while the engine has more to do */
  ev_async stop;
};

/* --- the loop --- */

static void
on_prepare (struct ev_loop *loop, ev_prepare *watcher, int events)
{
  struct own_thread *thread = watcher->data;

  bool has_run = context_run (thread->context);

  (void) events;
  if (!has_run)
    context_rest (thread->context);
  if (has_run || context_has_more (thread->context))
    ev_idle_start (loop, &thread->idle);
  else
    ev_idle_stop (loop, &thread->idle);
}

/* The loop need only wake up: on_prepare does the work. */
static void
on_context (struct ev_loop *loop, ev_io *watcher, int events)
{
  (void) loop;
  (void) watcher;
  (void) events;
}

static void
on_idle (struct ev_loop *loop, ev_idle *watcher, int events)
{
  (void) loop;
  (void) watcher;
  (void) events;
}

static void
on_stop (struct ev_loop *loop, ev_async *watcher, int events)
{
  (void) watcher;
  (void) events;
  ev_break (loop, EVBREAK_ALL);
}

/* --- the thread --- */

/* What `lacuna stat` shows beside the store's own counters, named as the server's. */
static size_t
on_counters (void *owner, struct store_counter *counters, size_t max)
{
  const struct store_counter all[] = {
    { "server_connections", atomic_load (&plugin.connections_now) },
    { "server_connections_accepted", atomic_load (&plugin.connections) },
    { "server_requests", atomic_load (&plugin.requests) },
    { "server_received_bytes", atomic_load (&plugin.received_bytes) },
    { "server_sent_bytes", atomic_load (&plugin.sent_bytes) },
  };
  size_t count = MIN (max, ARRAY_COUNT (all));

  (void) owner;
  memcpy (counters, all, count * sizeof *all);
  return count;
}

/* Clients are served without it, too. */
static void
start_control (struct own_thread *thread)
{
  char *message = NULL;

  thread->control = control_start (thread->store, thread->loop, thread->context, on_counters,
                                   NULL, &message);
  if (thread->control == NULL)
    log_warning ("%s: %s; other commands cannot work on the store while it is served",
                 store_path (thread->store), message != NULL ? message : strerror (ENOMEM));
  free (message);
}

/* On the thread itself: what an io_uring has under way belongs to the thread that submitted it. */
static bool
thread_begin (struct own_thread *thread)
{
  thread->context = store_context_create (thread->store);
  if (thread->context == NULL)
    return false;
  op_enter_context (thread->context);
  ev_io_init (&thread->context_watcher, on_context, context_fd (thread->context), EV_READ);
  ev_io_start (thread->loop, &thread->context_watcher);
  ev_prepare_init (&thread->prepare, on_prepare);
  thread->prepare.data = thread;
  ev_prepare_start (thread->loop, &thread->prepare);
  ev_idle_init (&thread->idle, on_idle);
  start_control (thread);
  return true;
}

static void *
thread_main (void *argument)
{
  struct own_thread *thread = argument;
  bool has_begun = thread_begin (thread);

  thread->start_error = has_begun ? 0 : errno;
  sem_post (&thread->started);
  if (!has_begun)
    return NULL;
  ev_run (thread->loop, 0);
  if (thread->control != NULL)
    control_stop (thread->control);
  op_enter_context (NULL);
  store_context_destroy (thread->store, thread->context);
  return NULL;
}

static void
thread_free (struct own_thread *thread)
{
  ev_loop_destroy (thread->loop);
  sem_destroy (&thread->started);
  free (thread);
}

struct own_thread *
own_thread_start (struct store *store)
{
  struct own_thread *thread = calloc (1, sizeof *thread);
  int error;

  if (thread == NULL)
    return NULL;
  thread->loop = ev_loop_new (EVFLAG_AUTO);
  if (thread->loop == NULL) {
    free (thread);
    errno = ENOMEM;
    return NULL;
  }
  thread->store = store;
  sem_init (&thread->started, 0, 0);
  ev_async_init (&thread->stop, on_stop);
  ev_async_start (thread->loop, &thread->stop);
  error = pthread_create (&thread->thread, NULL, thread_main, thread);
  if (error == 0) {
    while (sem_wait (&thread->started) == -1)
      CHECK (errno == EINTR);
    error = thread->start_error;
    if (error == 0)
      return thread;
    pthread_join (thread->thread, NULL);
  }
  thread_free (thread);
  errno = error;
  return NULL;
}

void
own_thread_stop (struct own_thread *thread)
{
  ev_async_send (thread->loop, &thread->stop);
  pthread_join (thread->thread, NULL);
  thread_free (thread);
}

struct context *
own_thread_context (struct own_thread *thread)
{
  return thread->context;
}
