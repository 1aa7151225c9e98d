/* SPDX-License-Identifier: BSD-2-Clause */
/* op.c - the loop that runs ops, and how they are woken; see op.h. */
#include <stddef.h>

#include "base/check.h"
#include "store/context.h"
#include "store/op.h"

/* The context whose ops this thread is running: a wake from here needs no mailbox. */
static _Thread_local struct context *running_context;

void
op_init (struct op *op, struct context *context, const char *name, int stage,
         enum op_next (*step) (struct op *), void (*done) (struct op *))
{
  op->magic = OP_MAGIC;
  op->stage = stage;
  op->name = name;
  op->step = step;
  op->done = done;
  op->context = context;
  atomic_init (&op->pending, 0);
  op->error = 0;
  waiter_init (&op->waiter);
  list_init (&op->link);
  op->mail_next = NULL;
}

/* Puts an op that may run where its context finds it. */
static void
op_schedule (struct op *op)
{
  if (running_context == op->context)
    list_append (&op->context->ready, &op->link);
  else
    context_post (op->context, op);
}

void
op_start (struct op *op)
{
  CHECK (op->magic == OP_MAGIC);
  CHECK (atomic_load (&op->pending) == 0);
  /* Nobody else knows the op yet; a mailbox makes it known with what it holds. */
  atomic_store_explicit (&op->pending, 1, memory_order_relaxed);
  atomic_fetch_add_explicit (&op->context->active, 1, memory_order_relaxed);
  op_schedule (op);
}

void
op_expect (struct op *op)
{
  unsigned before = atomic_fetch_add (&op->pending, 1);

  CHECK (before >= 1);
}

/* The op counts as running (1) from the wake that makes it ready on: what is woken
 * twice would be found by the CHECK. */
void
op_wake (struct op *op)
{
  CHECK (op->magic == OP_MAGIC);
  unsigned before = atomic_fetch_sub (&op->pending, 1);

  CHECK (before >= 1);
  if (before == 1) {
    atomic_store (&op->pending, 1);
    op_schedule (op);
  }
}

void
op_wake_all (struct list *waiters)
{
  struct list *link;

  while ((link = list_take (waiters)) != NULL)
    op_wake (container_of (container_of (link, struct waiter, link), struct op, waiter));
}

static void
op_io_done (struct io *io)
{
  op_wake (container_of (io, struct op_io, io)->op);
}

void
op_submit (struct op *op, struct op_io *io)
{
  io->op = op;
  io->io.done = op_io_done;
  op_expect (op);
  io_submit (op->context->queue, &io->io);
}

bool
op_run (struct op *op, unsigned steps_max)
{
  struct context *outer = running_context, *context = op->context;
  bool has_had_share = false;

  running_context = context;
  for (unsigned steps = 1; !has_had_share; steps++) {
    CHECK (op->magic == OP_MAGIC);
    enum op_next next = op->step (op);

    if (next == OP_DONE) {
      CHECK (atomic_load (&op->pending) == 1 && op->waiter.holds == 0);
      /* All wakes have been: nobody else looks at it any more. */
      atomic_store_explicit (&op->pending, 0, memory_order_relaxed);
      atomic_fetch_sub_explicit (&context->active, 1, memory_order_relaxed);
      op->done (op);
      break;
    }
    if (next == OP_WAIT) {
      /* If all that it waits for has ended meanwhile, it goes on. */
      if (atomic_fetch_sub (&op->pending, 1) != 1)
        break;
      atomic_store (&op->pending, 1);
    }
    CHECK (atomic_load (&op->pending) == 1);
    has_had_share = next == OP_YIELD || steps == steps_max;
  }
  /* Others get their turn; it stays runnable. */
  if (has_had_share)
    list_append (&context->ready, &op->link);
  running_context = outer;
  return has_had_share;
}

struct context *
op_enter_context (struct context *context)
{
  struct context *outer = running_context;

  running_context = context;
  return outer;
}

bool
op_is_within (const struct context *context)
{
  return running_context == context;
}

struct credit *
op_credit (const struct op *op)
{
  return op_is_within (op->context) ? &op->context->credit : NULL;
}
