#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every read, write, flush, discard and allocation of a script that uses all operations fails, one
# after the other, and the oracle judges; tests/sim/test-faults.c.  LACUNA_LONG=1: all of them; else
# every fifth, another fifth each time.

source "${top_srcdir:-.}/tests/functions.sh"

stride=${LACUNA_LONG:+1}
stride=${stride:-5}
first=${LACUNA_FIRST:-$((RANDOM % stride))}
echo "LACUNA_FIRST=$first"
LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-test-XXXXXX)
cleanup_fn rm -rf "$LACUNA_SHM"
export LACUNA_SHM
"$top_builddir/tests/sim/test-faults" --stride "$stride" --first "$first"
