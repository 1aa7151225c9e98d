#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Workloads of two acts, cut off at every step, and some killed at every step: others each time.
# LACUNA_LONG=1: all.  tests/sim/workloads.c explains.

source "${top_srcdir:-.}/tests/functions.sh"

first=${LACUNA_FIRST:-$RANDOM}
echo "LACUNA_FIRST=$first"
LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-test-XXXXXX)
cleanup_fn rm -rf "$LACUNA_SHM"
export LACUNA_SHM
if [ -n "${LACUNA_LONG-}" ]; then
  "$top_builddir/tests/sim/workloads"
  "$top_builddir/tests/sim/workloads" --kill
else
  "$top_builddir/tests/sim/workloads" --stride 15 --first $((first % 15))
  "$top_builddir/tests/sim/workloads" --kill --stride 699 --first $((first % 699))
fi
