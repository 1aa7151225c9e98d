/* SPDX-License-Identifier: BSD-2-Clause */
/* request-ids.c - see request-ids.h. */
#include <string.h>

#include "store/request-ids.h"

bool
request_id_is_given (const uint8_t id[REQUEST_ID_BYTES])
{
  static const uint8_t none[REQUEST_ID_BYTES];

  return memcmp (id, none, sizeof none) != 0;
}

bool
request_ids_has (const struct request_ids *done, const uint8_t id[REQUEST_ID_BYTES])
{
  if (!request_id_is_given (id))
    return false;
  for (unsigned i = 0; i < DISK_REQUEST_IDS; i++)
    if (memcmp (done->ids[i], id, REQUEST_ID_BYTES) == 0)
      return true;
  return false;
}

void
request_ids_add (struct request_ids *done, const uint8_t id[REQUEST_ID_BYTES])
{
  if (!request_id_is_given (id))
    return;
  memmove (done->ids[1], done->ids[0], sizeof done->ids - sizeof done->ids[0]);
  memcpy (done->ids[0], id, REQUEST_ID_BYTES);
}
