# SPDX-License-Identifier: BSD-2-Clause
# many.sh - source it with kind=KIND (soak.sh): a quarter of a million simulated requests, and
# thousands of recoveries, judged, by the simulator as fast as it can be built.  (tests/test-simulator.sh runs fewer, with sanitizers; `make soak' more.)

source "${top_srcdir:-.}/tests/functions.sh"

seed=${LACUNA_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
ops=${LACUNA_OPS:-250000}
echo "LACUNA_SEED=$seed"
bash "$top_srcdir/tests/soak.sh" --kind "$kind" --seed "$seed" --ops "$ops" | tee "$tmp/log"
read -r requests openings violations < <(tail -1 "$tmp/log" | awk '{ print $2, $4, $6 }')
[ "$violations" -eq 0 ]
[ "$requests" -ge "$ops" ]
[ "$openings" -ge $((requests / 100)) ]
