#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The engine over a simulated device, killed and cut off at any step, judged by the oracle.  Each run has a seed of its
# own; what fails prints it.  LACUNA_SEED=N: where the seeds begin.  LACUNA_RUNS=N: how many of each kind.

source "${top_srcdir:-.}/tests/functions.sh"

seed=${LACUNA_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
runs=${LACUNA_RUNS:-${LACUNA_LONG:+2000}}
runs=${runs:-40}
echo "LACUNA_SEED=$seed"
# Arenas: none stays behind, however the simulator ends.
LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-test-XXXXXX)
cleanup_fn rm -rf "$LACUNA_SHM"
export LACUNA_SHM
for kind in kill power mixed; do
  "$top_builddir/tests/sim/sim" --kind $kind --seed "$seed" --runs "$runs"
done
"$top_builddir/tests/sim/sim" --faults --seed "$seed" --runs "$runs"
