/* SPDX-License-Identifier: BSD-2-Clause */
/* lint.h - rules for each I/O of the engine, judged as it is submitted: a breach is found in every
 * run, not only in those where a crash shows it.
 *
 *   L1 data is written to blocks that are in use, and not freed since
 *   L2 a record says "written" of blocks whose data is durable
 *   L3 what is passed down to the host is in no map
 *   L4 when a FLUSH or FUA is acknowledged, every record of the journal is durable but the one that
 *      is being written
 *   L5 a superblock is written when all nodes are durable, and its second copy when the first is
 *   L6 no two changes of one block are in flight (device-sim.c)
 *   L7 data is read from blocks that are in use, and not freed since
 *   L8 no change that began after the store had failed is acknowledged, and no FLUSH
 */
#ifndef LACUNA_TESTS_LINT_H
#define LACUNA_TESTS_LINT_H

#include "world.h"

struct lint *lint_create (struct world *world);
void lint_destroy (struct lint *lint);
/* A device is being opened: nothing is in flight, and what is there is durable. */
void lint_begin (struct lint *lint);
/* A request was acknowledged that makes durable. */
void lint_acknowledged (struct lint *lint);

#endif
