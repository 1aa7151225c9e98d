/* SPDX-License-Identifier: BSD-2-Clause */
/* sim.h - what sim.c calls in threads.c. */
#ifndef LACUNA_TESTS_SIM_H
#define LACUNA_TESTS_SIM_H

#include <stdint.h>

/* RUNS stores, each used by COUNT real threads for OPS requests; an exit status. */
int threads_run (unsigned count, uint64_t seed, uint64_t runs, uint64_t ops);

#endif
