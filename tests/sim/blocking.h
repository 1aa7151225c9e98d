/* SPDX-License-Identifier: BSD-2-Clause */
/* blocking.h - requests and administrative ops of threads that wait for each, on a context of their
 * own.  The `done' of both is is_done; the owner is used here.
 */
#ifndef LACUNA_TESTS_BLOCKING_H
#define LACUNA_TESTS_BLOCKING_H

#include <stdatomic.h>

#include "store/context.h"
#include "store/store.h"

static inline void
request_is_done (struct request *request)
{
  atomic_store ((_Atomic bool *) request->owner, true);
}

static inline void
admin_is_done (struct admin *admin)
{
  atomic_store ((_Atomic bool *) admin->owner, true);
}

/* A WRITE's payload may be filled in then. */
static inline void
request_admit_wait (struct request *request)
{
  _Atomic bool is_admitted = false;

  request->owner = (void *) &is_admitted;
  request->admitted = request_is_done;
  if (!request_admit (request))
    context_run_until (request->op.context, &is_admitted);
}

/* Returns its error; the caller releases it. */
static inline int
request_run (struct request *request)
{
  _Atomic bool is_done = false;

  request->owner = (void *) &is_done;
  request_start (request);
  context_run_until (request->op.context, &is_done);
  return request->op.error;
}

/* Returns its error. */
static inline int
admin_run (struct admin *admin)
{
  _Atomic bool is_done = false;

  admin->owner = (void *) &is_done;
  admin_start (admin);
  context_run_until (admin->op.context, &is_done);
  return admin->op.error;
}

#endif
