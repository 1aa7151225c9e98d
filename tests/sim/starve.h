/* SPDX-License-Identifier: BSD-2-Clause */
/* starve.h - memory that runs out, for the engine alone.
 *
 * A program that uses this is linked with --wrap for each function that allocates (Makefile.am);
 * the sources of the judges are compiled to call the real ones.  So what fails is what the engine
 * asks for, one allocation counted after the other.
 */
#ifndef LACUNA_TESTS_STARVE_H
#define LACUNA_TESTS_STARVE_H

#include <stdbool.h>
#include <stdint.h>

/* The N-th allocation from now on (0: the next) fails; FOREVER: all from then on. */
void starve_after (uint64_t n, bool forever);
void starve_end (void);
/* How many failed since starve_after. */
uint64_t starve_failed (void);

#endif
