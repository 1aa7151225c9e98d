#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every interleaving of small scenarios, on the real engine; and that the explorer counts them right: it recognises
# states that it has been in, and must find the same without.  LACUNA_LONG=1: also those that take minutes.

source "${top_srcdir:-.}/tests/functions.sh"
# Arenas: none stays behind, however the explorer ends.
LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-test-XXXXXX)
cleanup_fn rm -rf "$LACUNA_SHM"
export LACUNA_SHM
fails 2 'there is no scenario read-trip' "$top_builddir/tests/explorer/explorer" read-trip
if [ -n "${LACUNA_LONG-}" ]; then
  "$top_builddir/tests/explorer/explorer" --long --compare 40000
else
  "$top_builddir/tests/explorer/explorer" --compare 1000
fi
