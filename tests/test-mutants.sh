#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Some wrong lines put into the engine, one at a time: explorer and simulator must say so.  LACUNA_LONG=1: all that
# are in tests/mutants/mutants.

source "${top_srcdir:-.}/tests/functions.sh"

names=(write-back-of-what-was-dropped retire-not-logged freed-by-the-tail-is-free checkpoint-amid-clone)
if [ -n "${LACUNA_LONG-}" ]; then
  names=()
fi
bash "$top_srcdir/tests/mutants/run-mutants.sh" "${names[@]}"
