/* SPDX-License-Identifier: BSD-2-Clause */
/* sim.h - what sim.c calls in threads.c, and that in delays.c. */
#ifndef LACUNA_TESTS_SIM_H
#define LACUNA_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

/* RUNS stores, each used by COUNT real threads for OPS requests; an exit status. */
int threads_run (unsigned count, uint64_t seed, uint64_t runs, uint64_t ops);

/* delays.c: from now on (not any more) threads are held up now and then. */
void delays_switch (bool on);

#endif
