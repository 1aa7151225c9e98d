#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# soak.sh [--seed N] [--ops N] [--openings N] [--kind KIND]: runs the simulator, killed, cut off, with faults, and
# mixed, until so many requests were judged (default: 10^8), in so many openings (default: 0; there are some 15 to a thousand
# requests), on as many processors as LACUNA_JOBS
# says (default: 1).  Each line is a part; the last one is the sum, and says whether all is well:
#
#   sum: REQUESTS requests, OPENINGS openings, VIOLATIONS violations
#
# --kind kill, power, mixed or faults: that alone.
# --append FILE: adds each part to FILE, and counts what is there already: a soak can be
# interrupted, and goes on.
set -u

top_builddir=${top_builddir:-$PWD}
sim=$top_builddir/tests/sim/sim-fast
seed=1 ops=100000000 openings=0 file= kind=
while [ $# -gt 0 ]; do
  case $1 in
  --seed) seed=$2 ;;
  --ops) ops=$2 ;;
  --openings) openings=$2 ;;
  --append) file=$2 ;;
  --kind) kind=$2 ;;
  *)
    sed -n '3,14s/^# \?//p' "$0" >&2
    exit 2
    ;;
  esac
  shift 2
done
# Arenas: none stays behind, however the simulator ends.
LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-soak-XXXXXX)
export LACUNA_SHM
log=${file:-$LACUNA_SHM/log}
trap 'rm -rf "$LACUNA_SHM"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 143' TERM
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT
touch "$log"

# sum WORD: of the numbers before it, in all parts
sum() {
  awk -v word="$1" '/^(ok|FAIL) seeds/ {
    for (i = 2; i <= NF; i++)
      if ($i ~ "^" word ",?$") { gsub (/[^0-9]/, "", $(i - 1)); total += $(i - 1); break }
  } END { printf "%d", total }' "$log"
}

kinds=(kill power mixed faults)
runs=$((ops / 1600 + 1))
[ "$runs" -gt 1000 ] && runs=1000
part=$(grep -c '^\(ok\|FAIL\) seeds' "$log")
while [ "$(sum requests)" -lt "$ops" ] || [ "$(sum openings)" -lt "$openings" ]; do
  before=$(grep -c '^\(ok\|FAIL\) seeds' "$log")
  for _ in $(seq "${LACUNA_JOBS:-1}"); do
    # Each part has seeds of its own.
    what=${kind:-${kinds[part % 4]}}
    case $what in faults) what=--faults ;; *) what="--kind $what" ;; esac
    "$sim" $what --seed $((seed + part * 1000)) --runs "$runs" --ops 400 >>"$log" &
    part=$((part + 1))
  done
  wait
  tail -n "${LACUNA_JOBS:-1}" "$log"
  if [ "$(grep -c '^\(ok\|FAIL\) seeds' "$log")" -ne $((before + ${LACUNA_JOBS:-1})) ]; then
    echo "FAIL: a part has ended before it had a result" >&2
    exit 1
  fi
done
echo "sum: $(sum requests) requests, $(sum openings) openings, $(sum violations) violations"
[ "$(sum violations)" = 0 ]
