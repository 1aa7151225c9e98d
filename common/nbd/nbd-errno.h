/* SPDX-License-Identifier: BSD-2-Clause */
/* nbd-errno.h - what a client is told when a request fails: a number of the protocol and a
 * sentence.
 *
 * One table, by command and cause, has all that a server ever answers.  Texts are static, UTF-8,
 * and shorter than 990 bytes, because QEMU drops a connection that sends it a longer chunk; they
 * end in ".", because nbd-client overwrites the last byte.  Any thread.
 */
#ifndef LACUNA_NBD_ERRNO_H
#define LACUNA_NBD_ERRNO_H

#include "nbd/nbd-protocol.h"

struct nbd_failure {
  enum nbd_error error;
  const char *text;
};

enum nbd_cause {
  NBD_CAUSE_NONE,                /* success */

  /* The server refuses. */
  NBD_CAUSE_UNKNOWN_COMMAND,
  NBD_CAUSE_FLAGS,               /* a flag that this command does not have, or was not negotiated */
  NBD_CAUSE_PAYLOAD,             /* that the command does not take; or none where there must be */
  NBD_CAUSE_TOO_LONG,            /* READ or WRITE (a payload was read and thrown away), or
                                    WRITE_ZEROES with NO_HOLE */
  NBD_CAUSE_NOT_FAST,            /* the same with FAST_ZERO */
  NBD_CAUSE_TOO_LONG_TO_SPLIT,   /* READ whose client negotiated DF, so that it knows EOVERFLOW */
  NBD_CAUSE_FLUSH_RANGE,         /* FLUSH with an offset or a length */
  NBD_CAUSE_NO_CONTEXT,          /* BLOCK_STATUS, and no metadata context was negotiated */
  NBD_CAUSE_FILTER,              /* BLOCK_STATUS of contexts that were not, or of one twice */
  NBD_CAUSE_NO_STATUS,           /* BLOCK_STATUS of no bytes */
  NBD_CAUSE_READ_ONLY,           /* this client, or this server, may change nothing */
  NBD_CAUSE_BEYOND_END,
  NBD_CAUSE_CUT_OFF,             /* beyond the end, and it was not before the disk shrank */
  NBD_CAUSE_SHUTDOWN,

  /* RESIZE only. */
  NBD_CAUSE_RESIZE_FORBIDDEN,
  NBD_CAUSE_RESIZE_SHARED,       /* it would shrink, and others use the disk */
  NBD_CAUSE_RESIZE_SIZE,         /* no size that a disk can have */

  /* The engine failed: nbd_cause_of_errno. */
  NBD_CAUSE_STORE_READ_ONLY,
  NBD_CAUSE_INVALID,
  NBD_CAUSE_NO_SPACE,
  NBD_CAUSE_NO_MEMORY,
  NBD_CAUSE_IO,
};

struct nbd_failure nbd_failure (unsigned command, enum nbd_cause cause);

/* ERROR: negative errno, as an op or request_validate gives it. */
enum nbd_cause nbd_cause_of_errno (int error);

#endif
