#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The fuzz targets, for a moment each: on what once broke something, and on random bytes.  Longer, and with libFuzzer, which
# looks for new paths:
#
#   ../configure CC=clang --enable-sanitize=fuzzer --disable-plugin CFLAGS='-O1 -g' && make check TESTS=
#   tests/fuzz/fuzz-nbd -max_total_time=3600 -max_len=4096 -timeout=20 CORPUS ../tests/fuzz/corpus/nbd

source "${top_srcdir:-.}/tests/functions.sh"

for target in access control nbd store tls; do
  [ -x "$top_builddir/tests/fuzz/fuzz-$target" ] || skip "tests/fuzz/fuzz-$target is not built"
  echo "$target"
  found=()
  [ ! -d "$top_srcdir/tests/fuzz/corpus/$target" ] || found=("$top_srcdir/tests/fuzz/corpus/$target"/*)
  "$top_builddir/tests/fuzz/fuzz-$target" -${LACUNA_FUZZ_SECONDS:-2} "${found[@]}"
done
