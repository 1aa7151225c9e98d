/* SPDX-License-Identifier: BSD-2-Clause */
/* nbd-errno.c - see nbd-errno.h. */
#include <errno.h>
#include <stddef.h>

#include "nbd/nbd-errno.h"

struct nbd_failure
nbd_failure_of_cause (enum nbd_cause cause)
{
  static const struct nbd_failure failures[] = {
    [NBD_CAUSE_UNKNOWN_COMMAND] = { NBD_EINVAL, "This server does not know the command." },
    [NBD_CAUSE_FLAGS] = { NBD_EINVAL, "The command has no such flag, or it was not offered." },
    [NBD_CAUSE_PAYLOAD_TOO_LONG] = { NBD_EINVAL, "A request may carry at most 32 MiB." },
    [NBD_CAUSE_FLUSH_RANGE] = { NBD_EINVAL, "Offset and length of a flush must be 0." },
    [NBD_CAUSE_NO_CONTEXT] = { NBD_EINVAL, "No metadata context was negotiated." },
    [NBD_CAUSE_READ_ONLY] = { NBD_EPERM, "The disk is served read-only." },
    [NBD_CAUSE_SHUTDOWN] = { NBD_ESHUTDOWN, "The server is shutting down." },
  };

  return failures[cause];
}

enum nbd_error
nbd_error_from_errno (enum nbd_command command, int error)
{
  switch (-error) {
  case 0:
    return NBD_SUCCESS;
  case EPERM:
  case EACCES:
  case EROFS:
    return NBD_EPERM;
  case EINVAL:
    return NBD_EINVAL;
  case ENOSPC:
  case EDQUOT:
  case EFBIG:
    return NBD_ENOSPC;
  case ENOMEM:
    return NBD_ENOMEM;
  case ESHUTDOWN:
    return NBD_ESHUTDOWN;
  case EOVERFLOW:
    return command == NBD_CMD_READ ? NBD_EOVERFLOW : NBD_EINVAL;
  case EOPNOTSUPP:
    return command == NBD_CMD_WRITE_ZEROES ? NBD_ENOTSUP : NBD_EINVAL;
  default:
    return NBD_EIO;
  }
}

/* The sentence for an error that came without one; the first row that fits. */
static const char *
text_of (enum nbd_command command, enum nbd_error error)
{
  static const struct {
    int command;                 /* -1: any */
    enum nbd_error error;
    const char *text;
  } texts[] = {
    { -1, NBD_EPERM, "The store is read-only." },
    { NBD_CMD_READ, NBD_EIO, "The data could not be read from the store." },
    { NBD_CMD_FLUSH, NBD_EIO, "What was written could not be made durable." },
    { -1, NBD_EIO, "The store could not be read or written." },
    { NBD_CMD_WRITE, NBD_ENOSPC, "The store is full." },
    { NBD_CMD_WRITE_ZEROES, NBD_ENOSPC, "The store is full." },
    { -1, NBD_ENOSPC, "There is no space left in the store." },
    { -1, NBD_ENOMEM, "The server has no memory left for this request." },
    { -1, NBD_EOVERFLOW, "The range is too long to be answered in one piece." },
    { -1, NBD_ENOTSUP, "This range cannot be zeroed fast." },
    { -1, NBD_ESHUTDOWN, "The server is shutting down." },
    { -1, NBD_EINVAL, "The request is not valid." },
  };

  for (size_t i = 0; i < ARRAY_COUNT (texts); i++)
    if (texts[i].error == error && (texts[i].command == -1 || texts[i].command == (int) command))
      return texts[i].text;
  return "The request failed.";
}

struct nbd_failure
nbd_failure_of_error (enum nbd_command command, int error)
{
  enum nbd_error number = nbd_error_from_errno (command, error);

  return (struct nbd_failure) { number, text_of (command, number) };
}
