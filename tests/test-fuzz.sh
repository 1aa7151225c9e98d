#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The fuzz targets, for a moment each: on what once broke something, and on random bytes.  tests/fuzz/fuzz.sh is for
# hours, and with libFuzzer, which looks for new paths.

source "${top_srcdir:-.}/tests/functions.sh"

for target in access control nbd store tls; do
  [ -x "$top_builddir/tests/fuzz/fuzz-$target" ] || skip "tests/fuzz/fuzz-$target is not built"
  echo "$target"
  found=()
  [ ! -d "$top_srcdir/tests/fuzz/corpus/$target" ] || found=("$top_srcdir/tests/fuzz/corpus/$target"/*)
  "$top_builddir/tests/fuzz/fuzz-$target" -${LACUNA_FUZZ_SECONDS:-2} "${found[@]}"
done
