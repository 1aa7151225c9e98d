/* SPDX-License-Identifier: BSD-2-Clause */
/* nbd-errno.c - see nbd-errno.h. */
#include <errno.h>
#include <stddef.h>

#include "base/check.h"
#include "nbd/nbd-errno.h"

#define ANY (-1)

/* The first row that fits; the last one of each cause fits all commands that can have it. */
static const struct row {
  int command;
  enum nbd_cause cause;
  struct nbd_failure failure;
} rows[] = {
  { ANY, NBD_CAUSE_NONE, { NBD_SUCCESS, NULL } },
  { ANY, NBD_CAUSE_UNKNOWN_COMMAND, { NBD_EINVAL, "This server does not know the command." } },
  { ANY, NBD_CAUSE_FLAGS,
    { NBD_EINVAL, "The command has no such flag, or it was not offered." } },
  { NBD_CMD_WRITE, NBD_CAUSE_PAYLOAD,
    { NBD_EINVAL, "With extended headers a write must say that it has a payload." } },
  { ANY, NBD_CAUSE_PAYLOAD, { NBD_EINVAL, "The command takes no payload." } },
  { NBD_CMD_READ, NBD_CAUSE_TOO_LONG, { NBD_EINVAL, "At most 32 MiB can be read at once." } },
  { NBD_CMD_WRITE_ZEROES, NBD_CAUSE_TOO_LONG,
    { NBD_EINVAL, "At most 1 TiB can be zeroed at once without making a hole." } },
  { ANY, NBD_CAUSE_TOO_LONG, { NBD_EINVAL, "A request may carry at most 32 MiB." } },
  { ANY, NBD_CAUSE_TOO_LONG_TO_SPLIT,
    { NBD_EOVERFLOW, "At most 32 MiB can be read at once." } },
  { ANY, NBD_CAUSE_FLUSH_RANGE, { NBD_EINVAL, "Offset and length of a flush must be 0." } },
  { ANY, NBD_CAUSE_NO_CONTEXT, { NBD_EINVAL, "No metadata context was negotiated." } },
  { ANY, NBD_CAUSE_FILTER,
    { NBD_EINVAL, "The payload must be a length and the ids of contexts that were negotiated, each"
                  " at most once." } },
  { ANY, NBD_CAUSE_NO_STATUS, { NBD_EINVAL, "The status of no bytes was asked for." } },
  { ANY, NBD_CAUSE_READ_ONLY, { NBD_EPERM, "The disk is served read-only." } },
  { NBD_CMD_WRITE, NBD_CAUSE_BEYOND_END,
    { NBD_ENOSPC, "The write reaches beyond the end of the disk." } },
  { NBD_CMD_WRITE_ZEROES, NBD_CAUSE_BEYOND_END,
    { NBD_ENOSPC, "The range to be zeroed reaches beyond the end of the disk." } },
  { ANY, NBD_CAUSE_BEYOND_END,
    { NBD_EINVAL, "The request reaches beyond the end of the disk." } },
  { ANY, NBD_CAUSE_CUT_OFF,
    { NBD_ENOSPC, "The disk has become shorter, and the request reaches beyond its new end." } },
  { ANY, NBD_CAUSE_SHUTDOWN, { NBD_ESHUTDOWN, "The server is shutting down." } },

  { ANY, NBD_CAUSE_RESIZE_FORBIDDEN,
    { NBD_EPERM, "This disk may not be resized by its clients." } },
  { ANY, NBD_CAUSE_RESIZE_SHARED,
    { NBD_EPERM, "The disk cannot be made shorter while other connections use it." } },
  { ANY, NBD_CAUSE_RESIZE_SIZE,
    { NBD_EINVAL, "The size of a disk is a multiple of 4096, not 0, and less than 8 EiB." } },

  { ANY, NBD_CAUSE_STORE_READ_ONLY, { NBD_EPERM, "The store is read-only." } },
  { ANY, NBD_CAUSE_INVALID, { NBD_EINVAL, "The request is not valid." } },
  { NBD_CMD_WRITE, NBD_CAUSE_NO_SPACE, { NBD_ENOSPC, "The store is full." } },
  { NBD_CMD_WRITE_ZEROES, NBD_CAUSE_NO_SPACE, { NBD_ENOSPC, "The store is full." } },
  { ANY, NBD_CAUSE_NO_SPACE, { NBD_ENOSPC, "There is no space left in the store." } },
  { ANY, NBD_CAUSE_NO_MEMORY,
    { NBD_ENOMEM, "The server has no memory left for this request." } },
  /* The number exists for this command alone. */
  { NBD_CMD_WRITE_ZEROES, NBD_CAUSE_NOT_FAST,
    { NBD_ENOTSUP, "This range cannot be zeroed fast." } },
  { ANY, NBD_CAUSE_NOT_FAST, { NBD_EINVAL, "The request is not valid." } },
  { NBD_CMD_READ, NBD_CAUSE_IO, { NBD_EIO, "The data could not be read from the store." } },
  { NBD_CMD_FLUSH, NBD_CAUSE_IO, { NBD_EIO, "What was written could not be made durable." } },
  { ANY, NBD_CAUSE_IO, { NBD_EIO, "The store could not be read or written." } },
};

struct nbd_failure
nbd_failure (unsigned command, enum nbd_cause cause)
{
  size_t i = 0;

  while (rows[i].cause != cause || (rows[i].command != ANY && rows[i].command != (int) command)) {
    i++;
    CHECK (i < ARRAY_COUNT (rows));
  }
  return rows[i].failure;
}

enum nbd_cause
nbd_cause_of_errno (int error)
{
  switch (-error) {
  case 0:
    return NBD_CAUSE_NONE;
  case EPERM:
  case EACCES:
  case EROFS:
    return NBD_CAUSE_STORE_READ_ONLY;
  case EINVAL:
    return NBD_CAUSE_INVALID;
  case ENOSPC:
  case EDQUOT:
  case EFBIG:
    return NBD_CAUSE_NO_SPACE;
  case ENOMEM:
    return NBD_CAUSE_NO_MEMORY;
  case ESHUTDOWN:
    return NBD_CAUSE_SHUTDOWN;
  default:
    return NBD_CAUSE_IO;
  }
}
