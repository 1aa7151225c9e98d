/* SPDX-License-Identifier: BSD-2-Clause */
/* request-ids.h - which of the requests for a change that must not be made twice were done.
 *
 * A collapse that is repeated, because its answer was lost, would remove what had moved up.  So who
 * asks for such a change may give it an id of 16 random bytes.  The item that makes the change
 * carries the id, and the disk that was changed remembers the last ones, in its node too: the same
 * id again is answered, and nothing done.  An id of zeros is none.
 *
 * Belongs to a struct disk: read with the admin lock, changed with it and within the gate, so that
 * a checkpoint has the change and its id, or neither.
 */
#ifndef LACUNA_REQUEST_IDS_H
#define LACUNA_REQUEST_IDS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/format.h"

struct request_ids {
  uint8_t ids[DISK_REQUEST_IDS][REQUEST_ID_BYTES];    /* newest first */
};

bool request_id_is_given (const uint8_t id[REQUEST_ID_BYTES]);
/* False for an id that is none. */
bool request_ids_has (const struct request_ids *done, const uint8_t id[REQUEST_ID_BYTES]);
/* Forgets the oldest.  Does nothing for an id that is none. */
void request_ids_add (struct request_ids *done, const uint8_t id[REQUEST_ID_BYTES]);

#endif
