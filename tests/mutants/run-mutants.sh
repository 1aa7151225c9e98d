#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# run-mutants.sh [--list] [NAME...]: breaks the engine in one line at a time, and sees that the explorer or the simulator says so.
# Without names: all.  Nothing in the source tree is touched.
set -u

top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
list=$top/tests/mutants/mutants
compiler=${CC:-gcc}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/lacuna-mutants-XXXXXX")

LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-mutants-XXXXXX)
export LACUNA_SHM
trap 'rm -rf "$scratch" "$LACUNA_SHM"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

flags="-std=gnu17 -O1 -g -pthread -D_GNU_SOURCE -DLACUNA_SLOW_CHECKS -I$top/common -I$top/tests/sim"
libraries="-pthread $(pkg-config --libs liburing libxxhash json-c cmocka) $(pkg-config --libs liburcu 2>/dev/null)"

trim() { sed 's/^ *//; s/ *$//'; }

# The engine and the judges as they are, once.
build_base() {
  local source object
  mkdir -p "$scratch/base"
  for source in "$top"/common/{base,device,store}/*.c "$top"/tests/sim/*.c "$top"/tests/explorer/*.c; do
    case ${source##*/} in
    test-kill-reuse.c | test-damaged.c | test-hole.c | test-rot.c | test-counts.c | test-cache.c | test-clone.c | test-shift.c | test-btree.c | test-extent-map.c | test-range-lock.c) ;;
    test-* | starve.c) continue ;;
    esac
    object=${source#"$top"/}
    printf '%s\0%s\0' "$source" "$scratch/base/${object//\//-}.o"
  done | xargs -0 -n 2 -P "$(nproc)" sh -c "$compiler $flags"' -c "$1" -o "$2"' compile || exit 1
}

# What PROGRAM has its own versions of, as the Makefile says.
wraps() {
  local variable=tests_[a-z]*_${1//-/_}_LDFLAGS
  [ "$1" != sim ] || variable=delay_wraps
  sed -n "/^$variable/,/[^\\\\]$/p" "$top/Makefile.am" | grep -o -- '-Wl,[^ ]*'
}

# link OBJECT-DIRECTORY PROGRAM
link() {
  local objects=() object
  for object in "$1"/*.o; do
    case $2:${object##*/} in
    sim:tests-sim-sim.c.o | sim:tests-sim-threads.c.o | sim:tests-sim-delays.c.o) ;;
    explorer:tests-explorer-* | $2:tests-sim-"$2".c.o | $2:common-store-"$2".c.o) ;;
    *:tests-sim-sim.c.o | *:tests-sim-threads.c.o | *:tests-sim-delays.c.o | *:tests-sim-starve.c.o | *:tests-explorer-*) continue ;;
    *:tests-sim-test-* | *:common-store-test-* | *:tests-sim-workloads.c.o) continue ;;
    test-cache:tests-* | test-clone:tests-* | test-shift:tests-* | test-btree:tests-* | test-extent-map:tests-* | test-range-lock:tests-*) continue ;;
    esac
    objects+=("$object")
  done
  $compiler -o "$1/$2" "${objects[@]}" $(wraps "$2") $libraries
}

# run_one NAME FILE EDIT DETECTOR: 0 if the mutant was caught.
run_one() {
  local name=$1 file=$2 edit=$3 detector=$4 dir=$scratch/$1 status begun=$SECONDS
  mkdir -p "$dir"
  ln -s "$scratch"/base/*.o "$dir"
  sed "$edit" "$top/common/$file" >"$dir/${file##*/}"
  if cmp -s "$top/common/$file" "$dir/${file##*/}"; then
    echo "FAIL $name: the edit changes nothing any more"
    return 1
  fi
  rm "$dir/common-${file//\//-}.o"
  if ! $compiler $flags -w -I"$top/common/${file%/*}" -c "$dir/${file##*/}" -o "$dir/common-${file//\//-}.o" || ! link "$dir" "${detector%% *}"; then
    echo "FAIL $name: it does not compile"
    return 1
  fi
  (cd "$dir" && timeout 120 ./$detector) >"$dir/output" 2>/dev/null
  status=$?
  case $status:$detector in
  2:test-kill-reuse* | 2:test-hole*) ;;
  2:test-*) status=1 ;;         # two of cmocka's tests failed
  esac
  case $status in
  0 | 124)
    echo "FAIL $name: survived ($detector)"
    return 1
    ;;
  2 | 126 | 127)
    echo "FAIL $name: not tried: $detector does not run"
    return 1
    ;;
  esac
  printf 'ok %-34s %-21s %-46s %3d s  %s\n' "$name" "$file" "$detector" $((SECONDS - begun)) \
    "$(grep -m1 FAIL "$dir/output" | sed 's/^FAIL[^:]*: //' | cut -c1-100)"
  rm -rf "$dir"
}

if [ "${1-}" = --list ]; then
  grep -v '^#' "$list" | cut -d'|' -f1 | trim | grep .
  exit 0
fi
build_base
failed=0
while read -r line; do
  case $line in '' | '#'*) continue ;; esac
  name=$(cut -d'|' -f1 <<<"$line" | trim)
  file=$(cut -d'|' -f2 <<<"$line" | trim)
  detector=$(sed 's/.*|//' <<<"$line" | trim)
  edit=$(sed 's/^[^|]*|[^|]*|//; s/|[^|]*$//' <<<"$line" | trim)
  if [ $# -gt 0 ]; then
    case " $* " in *" $name "*) ;; *) continue ;; esac
  fi
  run_one "$name" "$file" "$edit" "$detector" || failed=$((failed + 1))
done <"$list"
[ $failed -eq 0 ]
