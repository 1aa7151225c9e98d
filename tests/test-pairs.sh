#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Whatever populates the cache beside whatever deallocates, from real threads that are held up at random; each sector
# that is read says whose it is (tests/pairs).  LACUNA_LONG=1: ten million requests.  LACUNA_OPS=N: so many.

source "${top_srcdir:-.}/tests/functions.sh"

pairs=$top_builddir/tests/pairs/pairs
seed=${LACUNA_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
ops=${LACUNA_OPS:-${LACUNA_LONG:+10000000}}
echo "LACUNA_SEED=$seed"
fails 2 'there is no such pair' "$pairs" read/trip/same
if [ -n "$ops" ]; then
  "$pairs" --seed "$seed" --ops "$ops" --jobs 4
else
  "$pairs" --seed "$seed" --sites 8 --jobs 4
fi
