/* SPDX-License-Identifier: BSD-2-Clause */
/* world-internal.h - what world.c and world-clients.c share. */
#ifndef LACUNA_TESTS_WORLD_INTERNAL_H
#define LACUNA_TESTS_WORLD_INTERNAL_H

#include "world.h"

/* The CHOICE-th client that has something to do by itself: sends its payload, dies, or lets go of
 * what it read. */
void world_client_turn (struct world *world, unsigned choice);
/* The clients of a store that is gone. */
void world_clients_crash (struct world *world);
void world_print_clients (struct world *world);
/* The store lists the disks that there must be. */
bool world_match_disks (struct world *world);

#endif
