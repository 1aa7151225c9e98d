/* SPDX-License-Identifier: BSD-2-Clause */
/* context.h - what a thread runs ops on: a queue to the device and a mailbox.
 *
 * A context is used by one thread (that which calls context_run).  Other threads
 * reach it only by op_wake and op_start, through the mailbox, a lock-free stack.
 * context_fd is readable when context_run has something to do; a thread that is
 * inside context_run is not signalled.
 *
 * Nothing here waits but context_wait and context_run_until, for threads that
 * have nothing else to do (plugin, keeper, command line).
 */
#ifndef LACUNA_CONTEXT_H
#define LACUNA_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/list.h"
#include "device/device.h"
#include "store/budget.h"
#include "store/op.h"

#define CONTEXT_COUNTERS 32

struct context {
  struct queue *queue;              /* the owner thread's */
  struct list ready;                /* the owner thread's */
  _Atomic (struct op *) mailbox;    /* any thread pushes, the owner takes all */
  _Atomic bool signalled;           /* the event was sent and not yet consumed */
  int event_fd;                     /* mailbox */
  int poll_fd;                      /* epoll: event_fd and the queue's */
  _Atomic unsigned active;          /* ops started and not done */
  struct credit credit;             /* the owner thread's, while it runs our ops: op_credit */
  struct list link;                 /* in the store's contexts */
  _Atomic uint64_t counters[CONTEXT_COUNTERS];  /* the owner thread counts, anyone reads: no
                                       counter is written by two threads */
};

/* NULL with errno if there is no memory, no file descriptor, or no io_uring. */
struct context *context_create (struct device *device);
/* Runs and waits until no op of this context is under way: reading ahead, and commits that it leads
 * for others, outlive the requests that began them. */
void context_drain (struct context *context);
/* Forgets what is in flight and ready, as if the process had been killed; then it may be
 * destroyed. */
void context_abandon (struct context *context);
/* Nothing may be in flight or ready. */
void context_destroy (struct context *context);

int context_fd (struct context *context);

/* Runs all that can run, submits what they asked for, and returns; true if
 * anything ran.  Where an op has had its share and wants more, it returns after one turn of
 * each. */
bool context_run (struct context *context);
/* Whether that is so, or the short ones do not end: whoever has something else to do, such as
 * sockets, should do it before he runs the context again. */
bool context_has_more (const struct context *context);

/* Gives back what was taken to be at hand for the next requests.  A thread that has entered the
 * context (op_enter_context) calls it before it sleeps, but in context_wait, and before it leaves;
 * then ops may be ready. */
void context_rest (struct context *context);

/* Blocks until context_fd is readable or TIMEOUT_MS has passed (-1: no limit). */
void context_wait (struct context *context, int timeout_ms);

/* Ends the owner's context_wait, or its next one, unless there is a context_run before; any
 * thread. */
void context_signal (struct context *context);

/* Runs and waits until *FLAG is true. */
void context_run_until (struct context *context, const _Atomic bool *flag);

/* Hands a runnable op to its context from another thread; op.c's. */
void context_post (struct context *context, struct op *op);

/* For the explorer and the simulator: takes in the mailbox, then the ready ops
 * may be walked (struct op by link), and one of them run for one step. */
void context_collect (struct context *context);
void context_step (struct context *context, struct op *op);

#endif
