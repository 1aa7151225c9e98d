/* SPDX-License-Identifier: BSD-2-Clause */
/* context.c - see context.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "store/context.h"

/* Steps an op may make before others get their turn. */
#define CONTEXT_STEPS_MAX 64

/* Rounds over the ready ops before the thread does other things, where all of them are short. */
#define CONTEXT_ROUNDS_MAX 8

struct context *
context_create (struct device *device)
{
  struct context *context = calloc (1, sizeof *context);
  struct epoll_event event = { .events = EPOLLIN };

  if (context == NULL)
    return NULL;
  list_init (&context->ready);
  context->event_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (context->event_fd < 0)
    goto error1;
  context->queue = queue_create (device);
  if (context->queue == NULL)
    goto error2;
  context->poll_fd = epoll_create1 (EPOLL_CLOEXEC);
  if (context->poll_fd < 0)
    goto error3;
  if (epoll_ctl (context->poll_fd, EPOLL_CTL_ADD, context->event_fd, &event) < 0
      || epoll_ctl (context->poll_fd, EPOLL_CTL_ADD, queue_fd (context->queue), &event) < 0)
    goto error4;
  return context;

error4:
  close (context->poll_fd);
error3:
  queue_destroy (context->queue);
error2:
  close (context->event_fd);
error1:
  free (context);
  return NULL;
}

void
context_destroy (struct context *context)
{
  CHECK (atomic_load (&context->active) == 0);
  CHECK (list_is_empty (&context->ready));
  CHECK (atomic_load (&context->mailbox) == NULL);
  CHECK (context->credit.count == 0);
  close (context->poll_fd);
  queue_destroy (context->queue);
  close (context->event_fd);
  free (context);
}

void
context_abandon (struct context *context)
{
  list_init (&context->ready);
  atomic_store (&context->mailbox, NULL);
  atomic_store (&context->active, 0);
  context->credit.count = 0;
}

void
context_drain (struct context *context)
{
  for (;;) {
    context_run (context);
    context_rest (context);
    if (atomic_load (&context->active) == 0)
      return;
    context_wait (context, -1);
  }
}

int
context_fd (struct context *context)
{
  return context->poll_fd;
}

/* Makes context_fd readable; once for all that happens until the owner looks. */
void
context_signal (struct context *context)
{
  uint64_t one = 1;

  if (!atomic_exchange (&context->signalled, true)) {
    ssize_t written = write (context->event_fd, &one, sizeof one);

    CHECK (written == sizeof one);
  }
}

void
context_post (struct context *context, struct op *op)
{
  struct op *head = atomic_load_explicit (&context->mailbox, memory_order_relaxed);

  do
    op->mail_next = head;
  while (!atomic_compare_exchange_weak (&context->mailbox, &head, op));
  context_signal (context);
}

/* The mailbox is a stack: reversed, so that who was woken first runs first. */
static void
context_take_mail (struct context *context)
{
  struct op *mail, *first = NULL;

  if (atomic_load_explicit (&context->signalled, memory_order_acquire)) {
    uint64_t count;

    /* Consumed before the mailbox is taken: what is posted after that signals again.  Where the
     * writer has announced its write and not done it yet, it stays announced, or its event would
     * never be read. */
    if (read (context->event_fd, &count, sizeof count) == sizeof count)
      atomic_store (&context->signalled, false);
    else
      CHECK (errno == EAGAIN);
  }
  if (atomic_load (&context->mailbox) == NULL)
    return;
  mail = atomic_exchange (&context->mailbox, NULL);
  while (mail != NULL) {
    struct op *next = mail->mail_next;

    mail->mail_next = first;
    first = mail;
    mail = next;
  }
  while (first != NULL) {
    struct op *next = first->mail_next;

    list_append (&context->ready, &first->link);
    first = next;
  }
}

void
context_collect (struct context *context)
{
  struct context *outer = op_enter_context (context);

  context_take_mail (context);
  queue_poll (context->queue);
  op_enter_context (outer);
}

/* No credit is kept from those who wait, nor by a thread that does not rest. */
static void
context_settle (struct context *context, bool is_resting)
{
  struct list wake = LIST_INIT (wake);

  credit_settle (&context->credit, is_resting, &wake);
  op_wake_all (&wake);
}

void
context_rest (struct context *context)
{
  context_settle (context, true);
}

bool
context_run (struct context *context)
{
  bool ran = false, is_long = false;

  for (unsigned round = 0; round < CONTEXT_ROUNDS_MAX && !is_long; round++) {
    struct list *link;
    struct list batch = LIST_INIT (batch);

    context_collect (context);
    if (list_is_empty (&context->ready))
      break;
    /* One turn for each that is ready now; what becomes ready meanwhile comes after. */
    list_splice (&batch, &context->ready);
    while ((link = list_take (&batch)) != NULL)
      is_long |= op_run (container_of (link, struct op, link), CONTEXT_STEPS_MAX);
    ran = true;
    queue_kick (context->queue);
  }
  queue_kick (context->queue);
  context_settle (context, !op_is_within (context));
  if (!list_is_empty (&context->ready))
    context_signal (context);
  return ran;
}

bool
context_has_more (const struct context *context)
{
  return !list_is_empty (&context->ready);
}

void
context_step (struct context *context, struct op *op)
{
  CHECK (op->context == context);
  list_remove (&op->link);
  op_run (op, 1);
  queue_kick (context->queue);
  /* Its thread would sleep if there was nothing else. */
  context_settle (context, list_is_empty (&context->ready));
}

void
context_wait (struct context *context, int timeout_ms)
{
  struct pollfd poll_fd = { .fd = context->poll_fd, .events = POLLIN };

  context_rest (context);
  if (list_is_empty (&context->ready)) {
    queue_kick (context->queue);
    if (context->queue->device->is_stepped && context->queue->in_flight > 0)
      queue_wait (context->queue);
    else
      (void) poll (&poll_fd, 1, timeout_ms);
  }
}

void
context_run_until (struct context *context, const _Atomic bool *flag)
{
  for (;;) {
    context_run (context);
    if (atomic_load (flag))
      return;
    context_wait (context, -1);
  }
}
