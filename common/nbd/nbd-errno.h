/* SPDX-License-Identifier: BSD-2-Clause */
/* nbd-errno.h - what a client is told when a request fails: a number of the protocol and a
 * sentence.
 *
 * Two tables.  One is for what the server refuses before the engine sees it, by cause; the other
 * for what the engine answered, by command and errno.  Texts are static, UTF-8, and shorter than
 * 990 bytes, because QEMU drops a connection that sends it a longer chunk; they end in ".",
 * because nbd-client overwrites the last byte.  Any thread.
 */
#ifndef LACUNA_NBD_ERRNO_H
#define LACUNA_NBD_ERRNO_H

#include "nbd/nbd-protocol.h"

struct nbd_failure {
  enum nbd_error error;
  const char *text;
};

/* Why the server refuses a request itself. */
enum nbd_cause {
  NBD_CAUSE_UNKNOWN_COMMAND,
  NBD_CAUSE_FLAGS,               /* a flag that this command does not have, or was not negotiated */
  NBD_CAUSE_PAYLOAD_TOO_LONG,    /* a WRITE that was read and thrown away */
  NBD_CAUSE_FLUSH_RANGE,         /* FLUSH with an offset or a length */
  NBD_CAUSE_NO_CONTEXT,          /* BLOCK_STATUS, and no metadata context was negotiated */
  NBD_CAUSE_READ_ONLY,           /* this server was told to change nothing */
  NBD_CAUSE_SHUTDOWN,
};
struct nbd_failure nbd_failure_of_cause (enum nbd_cause cause);

/* ERROR: negative errno, as an op or request_validate gives it. */
struct nbd_failure nbd_failure_of_error (enum nbd_command command, int error);

/* The number alone.  EOVERFLOW and ENOTSUP exist for READ and WRITE_ZEROES only. */
enum nbd_error nbd_error_from_errno (enum nbd_command command, int error);

#endif
