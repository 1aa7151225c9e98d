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
/* To be called before the oracle of DISK is told of a change. */
void world_set_oldest_read (struct world *world, unsigned disk);
/* A change of a disk has begun: if the range is being cloned it may be part of that. */
void world_clone_note (struct world *world, unsigned disk, uint64_t change, uint64_t offset,
                       uint64_t length);
/* What was read after a crash, before it is judged: a clone is done as a whole, or not at all. */
void world_clone_look (struct world *world, unsigned disk, enum crash_kind kind, uint64_t offset,
                       uint64_t length, const uint8_t *data);
/* The store lists the disks that there must be. */
bool world_match_disks (struct world *world);

#endif
