#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# soak-workloads.sh [--parts N] [--seconds N] [--append FILE] [-- ARGUMENTS]: runs tests/sim/workloads with ARGUMENTS (--length 3,
# --kill) in N parts (default 100), on as many processors as LACUNA_JOBS says (default: 1).  Each line is a part, which takes
# every Nth workload; the last one is the sum, and says whether all is well:
#
#   sum: PARTS of N parts, WORKLOADS workloads, CUTS cut off, VIOLATIONS violations
#
# --append FILE: adds each part to FILE, and leaves out those that are there: it can be interrupted, and goes on.
# --seconds N: no part is begun later.
set -u

top_builddir=${top_builddir:-$PWD}
parts=100 seconds= file=
while [ $# -gt 0 ]; do
  case $1 in
  --parts) parts=$2 ;;
  --seconds) seconds=$2 ;;
  --append) file=$2 ;;
  --) shift; break ;;
  *)
    sed -n '3,11s/^# \?//p' "$0" >&2
    exit 2
    ;;
  esac
  shift 2
done
# Arenas: none stays behind, however the program ends.
LACUNA_SHM=$(mktemp -d /dev/shm/lacuna-soak-XXXXXX)
export LACUNA_SHM
log=${file:-$LACUNA_SHM/log}
trap 'rm -rf "$LACUNA_SHM"' EXIT
# Each part is a process group, all of which ends.
set -m
stop ()
{
  local job
  for job in $(jobs -p); do
    kill -- "-$job" 2>/dev/null
  done
  wait
  exit "$1"
}
trap 'stop 143' TERM
trap 'stop 130' INT
touch "$log"

# part NUMBER ARGUMENTS: one, whose line, with what it has found, goes to the log when it has ended.
part ()
{
  local number=$1 said
  shift
  said=$("$top_builddir/tests/sim/workloads" "$@" --stride "$parts" --first "$number" | grep '^FAIL workload\|workloads of') ||
    said="FAIL 0 of 0 workloads, it has ended with a signal"
  echo "part $* $number/$parts: $(tail -n 1 <<<"$said")"
  grep '^FAIL workload' <<<"$said"
}

for number in $(seq 0 $((parts - 1))); do
  grep -q "^part $* $number/$parts: ok" "$log" && continue
  [ -z "$seconds" ] || [ $SECONDS -lt "$seconds" ] || break
  while [ "$(jobs -rp | wc -l)" -ge "${LACUNA_JOBS:-1}" ]; do
    wait -n
  done
  part "$number" "$@" | tee -a "$log" &
done
wait
grep "^part $* [0-9]*/$parts: " "$log" | awk -v parts="$parts" '
  { for (i = 2; i <= NF; i++) {
      if ($i == "ok") { ok++; workloads += $(i + 1) }
      if ($i ~ /^cuts|^kills/) cuts += $(i - 2 + ($i ~ /^kills/))
      if ($i ~ /^violations/) violations += $(i - 1)
    }
    failed += / FAIL /
  }
  END { printf "sum: %d of %d parts, %d workloads, %d cut off, %d violations\n", ok, parts, workloads, cuts, violations
        exit failed > 0 }'
