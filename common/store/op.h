/* SPDX-License-Identifier: BSD-2-Clause */
/* op.h - one request, or one piece of background work, as a state machine.
 *
 * An op is a stage and a step function.  op_run calls the step again and again:
 *   OP_MORE  go on with op->stage at once
 *   OP_YIELD go on with it after all others that can run, and what has come meanwhile: the step was
 *            a long one
 *   OP_WAIT  park; something that op_expect announced will call op_wake
 *   OP_DONE  finished; op->done is called, and the op's memory is the caller's
 * The step sets the stage to go on with *before* it waits.
 *
 * Waiting counts.  Each thing to wait for is announced by op_expect and ended
 * by exactly one op_wake; the op goes on, on its own context, when all have
 * ended.  A wake may come from any thread, and before the step has returned.
 *
 * An op belongs to one context and runs on that context's thread only.  No
 * thread is ever blocked by an op, and nothing is called back inside a submit
 * or under a mutex: modules that make ops wait hold struct waiter in their
 * queues and hand back a list of those to wake, which op_wake_all does after
 * their mutex is released.
 */
#ifndef LACUNA_OP_H
#define LACUNA_OP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/waiter.h"
#include "device/device.h"

enum op_next { OP_MORE, OP_YIELD, OP_WAIT, OP_DONE };

struct context;
struct credit;

#define OP_MAGIC 0x6f70a11eU

struct op {
  uint32_t magic;
  int stage;
  const char *name;                        /* for messages and the explorer */
  enum op_next (*step) (struct op *op);
  void (*done) (struct op *op);            /* on the op's context */
  struct context *context;
  _Atomic unsigned pending;                /* what it waits for, and 1 while it runs */
  int error;                               /* 0 or negative errno: the result */
  struct waiter waiter;                    /* in the one queue it waits in, I/O aside */
  struct list link;                        /* in the context's ready list */
  struct op *mail_next;                    /* in the context's mailbox */
};

/* An io that belongs to an op: op_submit expects it, its completion wakes. */
struct op_io {
  struct io io;
  struct op *op;
};

/* Prepares OP for CONTEXT; it does not run yet. */
void op_init (struct op *op, struct context *context, const char *name, int stage,
              enum op_next (*step) (struct op *), void (*done) (struct op *));

/* Makes a new op runnable.  On its own context's thread, or any other. */
void op_start (struct op *op);

void op_expect (struct op *op);
void op_wake (struct op *op);              /* any thread */
void op_wake_all (struct list *waiters);   /* of struct waiter; empties the list */

/* op_expect, and submit to the queue of the op's context. */
void op_submit (struct op *op, struct op_io *io);

/* This thread runs CONTEXT's ops from now on (NULL: none any more): what it starts and wakes there
 * needs no mailbox.  Returns the one before.  A thread that serves one context calls it once, at
 * its start. */
struct context *op_enter_context (struct context *context);

/* Whether it does. */
bool op_is_within (const struct context *context);
/* What OP's context has at hand of the frames for requests in flight; NULL: this is another
 * thread. */
struct credit *op_credit (const struct op *op);

/* One step, or steps until the op waits, is done, or has had its share: true, and it
 * goes to the end of the ready list.  Called by the context only. */
bool op_run (struct op *op, unsigned steps_max);

#endif
