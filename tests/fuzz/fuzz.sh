#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# fuzz.sh [--seconds N] [--append FILE] [--corpus DIRECTORY] [TARGET...]: libFuzzer on each target (default: all) until
# it has had so much processor time (default: an hour each).  LACUNA_JOBS targets at once (default: 1).
#
# What it learns stays in DIRECTORY/TARGET (default: fuzz-corpus), what breaks something in DIRECTORY/TARGET-found.
# --append FILE: adds each part, of five minutes, to FILE, and counts what is there already: a run can be interrupted,
# and goes on.  The last lines are sums, a target each, and the exit status says whether nothing was found:
#
#   sum: TARGET: SECONDS seconds of processor time, INPUTS inputs, N findings
set -u

top_srcdir=${top_srcdir:-.}
top_builddir=${top_builddir:-.}
seconds=3600 log= corpus=fuzz-corpus targets=()
while [ $# -gt 0 ]; do
  case $1 in
  --seconds) seconds=$2; shift ;;
  --append) log=$2; shift ;;
  --corpus) corpus=$2; shift ;;
  -*)
    sed -n '3,11s/^# \?//p' "$0" >&2
    exit 2
    ;;
  *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || targets=(access control nbd store tls)

LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-fuzz-XXXXXX)
export LACUNA_SHM
trap 'rm -rf "$LACUNA_SHM"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 143' TERM
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 130' INT
log=${log:-$LACUNA_SHM/log}
touch "$log"

# sum TARGET FIELD: of its parts
sum() {
  awk -v target="$1" -v field="$2" '$1 == target { total += $field } END { printf "%d", total }' "$log"
}

# part TARGET: five minutes of it, which end early with what breaks something
part() {
  local found=$corpus/$1-found said=$LACUNA_SHM/$1 known=() findings=0
  mkdir -p "$corpus/$1" "$found"
  [ ! -d "$top_srcdir/tests/fuzz/corpus/$1" ] || known=("$top_srcdir/tests/fuzz/corpus/$1")
  TIMEFORMAT='%U %S'
  trap 'kill $!; exit 143' TERM
  { time {
    "$top_builddir/tests/fuzz/fuzz-$1" -max_total_time=$((seconds < 300 ? seconds : 300)) -max_len=4096 -timeout=60 \
      -rss_limit_mb=6000 -print_final_stats=1 -artifact_prefix="$found/" "$corpus/$1" "${known[@]}" >"$said" 2>&1 &
    wait $!
  }; } 2>"$said.time" || findings=1
  awk -v target="$1" -v said="$said" -v findings=$findings '
    BEGIN {
      while ((getline line < said) > 0)
        if (split (line, words) > 1 && words[1] == "stat::number_of_executed_units:")
          inputs = words[2]
        else if (match (line, /cov: [0-9]+/))
          edges = substr (line, RSTART + 5, RLENGTH - 5)
    }
    { printf "%s %d %d %d findings, %d edges\n", target, $1 + $2, inputs, findings, edges }' "$said.time" >>"$log"
  [ $findings = 0 ] || tail -n 40 "$said" >&2
}

goes_on() {
  [ "$(sum "$1" 2)" -lt "$seconds" ] && [ "$(sum "$1" 4)" = 0 ]
}

while :; do
  is_done=true
  for target in "${targets[@]}"; do
    goes_on "$target" || continue
    is_done=false
    part "$target" &
    while [ "$(jobs -pr | wc -l)" -ge "${LACUNA_JOBS:-1}" ]; do wait -n; done
  done
  wait
  ! $is_done || break
done
status=0
for target in "${targets[@]}"; do
  echo "sum: $target: $(sum "$target" 2) seconds of processor time, $(sum "$target" 3) inputs, $(sum "$target" 4) findings"
  [ "$(sum "$target" 4)" = 0 ] || status=1
done
exit $status
