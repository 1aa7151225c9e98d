#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The engine from real threads; with --enable-sanitize=thread this is what finds races between them.

source "${top_srcdir:-.}/tests/functions.sh"

seed=${LACUNA_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
runs=${LACUNA_RUNS:-${LACUNA_LONG:+200}}
echo "LACUNA_SEED=$seed"
"$top_builddir/tests/sim/sim" --threads 4 --seed "$seed" --runs "${runs:-5}"
