#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# run-mutants.sh [--list] [--by DETECTOR] [NAME...]: breaks the engine in one line at a time, and sees that the explorer,
# the simulator or a unit test says so.  Without names: all.  --by: that DETECTOR shall, whatever the list says.
# LACUNA_JOBS: so many at a time (default: 1).  Nothing in the source tree is touched.
set -u

top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
list=$top/tests/mutants/mutants
compiler=${CC:-gcc}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/lacuna-mutants-XXXXXX")

LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-mutants-XXXXXX)
export LACUNA_SHM
trap 'rm -rf "$scratch" "$LACUNA_SHM"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 143' TERM
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT

flags="-std=gnu17 -O1 -g -pthread -D_GNU_SOURCE -DLACUNA_SLOW_CHECKS -I$top/common -I$top/tests/sim"
libraries="-pthread $(pkg-config --libs liburing libxxhash json-c cmocka) $(pkg-config --libs liburcu 2>/dev/null)"

trim() { sed 's/^ *//; s/ *$//'; }

# The engine and the judges as they are, once.
build_base() {
  local source object programs
  programs=$({ sed 's/.*|//' "$list" && echo "$by"; } | trim | cut -d' ' -f1 | sort -u)
  mkdir -p "$scratch/base"
  for source in "$top"/common/{base,device,store}/*.c "$top"/tests/{sim,explorer,pairs}/*.c; do
    object=${source#"$top"/}
    case $object in
    */test-* | */starve.c | */workloads.c) grep -qx "$(basename "$source" .c)" <<<"$programs" || continue ;;
    esac
    printf '%s\0%s\0' "$source" "$scratch/base/${object//\//-}.o"
  done | xargs -0 -n 2 -P "$(nproc)" sh -c "$compiler $flags"' -c "$1" -o "$2"' compile || exit 1
  archive engine 'common-*'
  archive world 'tests-sim-*'
}

# archive NAME PATTERN: of the objects, but for those that only one program has.
archive() {
  find "$scratch/base" -name "$2.o" ! -name '*-test-*' ! -name '*-workloads.c.o' ! -name 'tests-sim-sim.c.o' ! -name 'tests-sim-threads.c.o' \
    ! -name 'tests-sim-delays.c.o' -exec ar rc "$scratch/$1.a" {} +
}

# What PROGRAM has its own versions of, as the Makefile says.
wraps() {
  local variable=tests_[a-z]*_${1//-/_}_LDFLAGS
  case $1 in sim | pairs) variable=delay_wraps ;; esac
  sed -n "/^$variable/,/[^\\\\]$/p" "$top/Makefile.am" | grep -o -- '-Wl,[^ ]*'
}

# link OBJECT PROGRAM: what OBJECT defines comes before the engine's own.
link() {
  local base=$scratch/base own archives=("$scratch/world.a" "$scratch/engine.a")
  case $2 in
  explorer) own=("$base"/tests-explorer-*.o) ;;
  sim) own=("$base"/tests-sim-{sim,threads,delays}.c.o) ;;
  pairs) own=("$base"/tests-pairs-*.o "$base"/tests-sim-delays.c.o) archives=("$scratch/engine.a") ;;
  *) own=("$base"/*-"$2".c.o) ;;
  esac
  # Unit tests have a world of their own.
  case ${own[0]##*/} in common-*) archives=("$scratch/engine.a") ;; esac
  $compiler -o "${1%/*}/$2" "$1" "${own[@]}" $(wraps "$2") -Wl,--start-group "${archives[@]}" -Wl,--end-group $libraries
}

# run_one NAME FILE EDIT DETECTOR: 0 if the mutant was caught.
run_one() {
  local name=$1 file=$2 edit=$3 detector=$4 dir=$scratch/$1 status begun=$SECONDS first=
  mkdir -p "$dir"
  sed "$edit" "$top/common/$file" >"$dir/${file##*/}"
  if cmp -s "$top/common/$file" "$dir/${file##*/}"; then
    echo "FAIL $name: the edit changes nothing any more"
    return 1
  fi
  if ! $compiler $flags -w -I"$top/common/${file%/*}" -c "$dir/${file##*/}" -o "$dir/mutant.o" || ! link "$dir/mutant.o" "${detector%% *}"; then
    echo "FAIL $name: it does not compile"
    return 1
  fi
  # The first scenario or history that says so is enough.
  case $detector in explorer* | sim\ *) first=--first ;; esac
  { (cd "$dir" && timeout 120 ./$detector $first) >"$dir/output"; } 2>/dev/null
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
by=
if [ "${1-}" = --by ]; then
  by=$2
  shift 2
fi
for name; do
  bash "$0" --list | grep -qx -- "$name" || { echo "FAIL there is no mutant $name" >&2; exit 2; }
done
build_base
failed=0
running=0
# Until at most so many are running.
wait_until() {
  while [ $running -gt "$1" ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
  done
}
while read -r line; do
  case $line in '' | '#'*) continue ;; esac
  name=$(cut -d'|' -f1 <<<"$line" | trim)
  file=$(cut -d'|' -f2 <<<"$line" | trim)
  detector=${by:-$(sed 's/.*|//' <<<"$line" | trim)}
  edit=$(sed 's/^[^|]*|[^|]*|//; s/|[^|]*$//' <<<"$line" | trim)
  if [ $# -gt 0 ]; then
    case " $* " in *" $name "*) ;; *) continue ;; esac
  fi
  run_one "$name" "$file" "$edit" "$detector" </dev/null &
  running=$((running + 1))
  wait_until $((${LACUNA_JOBS:-1} - 1))
done <"$list"
wait_until 0
[ $failed -eq 0 ]
