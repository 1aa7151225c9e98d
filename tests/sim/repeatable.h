/* SPDX-License-Identifier: BSD-2-Clause */
/* repeatable.h - see repeatable.c. */
#ifndef LACUNA_TESTS_REPEATABLE_H
#define LACUNA_TESTS_REPEATABLE_H

#include <stdint.h>

void repeatable_seed (uint64_t seed);

#endif
