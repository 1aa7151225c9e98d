#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The benchmark's client and floor do what they say: each kind of load on Lacuna, with the data compared, and on the floor.
# No bounds on speed.
source "${top_srcdir:-.}/tests/functions.sh"

load=$top_builddir/tests/bench/load
floor=$top_builddir/tests/bench/floor
[ -x "$load" ] && [ -x "$floor" ] || skip "needs tests/bench/load and floor"

make_store disk 64M
start_server
of_disk=(-u "$sock" -e disk)

# loads REQUESTS ARGS...: it ends well, and has done so many requests.
loads ()
{
  local requests=$1
  shift
  "$load" "$@" >"$tmp/load.out" || fail "load $*"
  grep -q "\"requests_in_all\": $requests," "$tmp/load.out" || fail "load $*: $(cat "$tmp/load.out")"
}

loads 64 "${of_disk[@]}" -b 1m -q 4 -n 64 --sequential --final-flush write
loads 1000 "${of_disk[@]}" -q 32 -n 1000 write
loads 2000 "${of_disk[@]}" -c 3 -q 32 -n 2000 --structured read
loads 64 "${of_disk[@]}" -b 1m -q 8 -n 64 --sequential read
loads 320 "${of_disk[@]}" -q 32 -n 320 -F 32 write
loads 5 "${of_disk[@]}" -n 5 --fua write
loads 50 "${of_disk[@]}" -b 64k -r 1000 -n 50 churn
loads 20 "${of_disk[@]}" -b 64k -n 20 zeroes
loads 20 "${of_disk[@]}" -b 64k -q 16 -n 20 trim
loads 100 "${of_disk[@]}" -b 64m -n 100 --one status
loads 500 "${of_disk[@]}" -q 8 -n 500 --zeros --structured read
# What is not what was written is noticed.
fails 1 "wrong data at offset" "$load" "${of_disk[@]}" -q 8 -n 100000 read
fails 1 "error 22" "$load" "${of_disk[@]}" -n 1 --fua --no-hole trim
stop_server

# By TLS: many replies in a record, and a reply in many.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 2 \
  -keyout "$tmp/server-key.pem" -out "$tmp/server-cert.pem" 2>/dev/null || fail "openssl req"
cp "$tmp/server-cert.pem" "$tmp/ca-cert.pem"
start_server --tls require --tls-certificates "$tmp"
loads 64 "${of_disk[@]}" --tls -b 1m -q 4 -n 64 --sequential --final-flush write
loads 1000 "${of_disk[@]}" --tls -q 32 -n 1000 write
loads 1000 "${of_disk[@]}" --tls -q 32 -n 1000 --structured read
loads 64 "${of_disk[@]}" --tls -b 1m -q 8 -n 64 --sequential read
fails 1 "the server refuses" "$load" "${of_disk[@]}" -n 1 read
stop_server

rm -f "$sock"
"$floor" -u "$sock" $((64 << 20)) &
server_pid=$!
deadline=$((SECONDS + 60))
until "$load" -u "$sock" -n 1 write >/dev/null 2>&1; do
  kill -0 "$server_pid" 2>/dev/null || fail "the floor has ended"
  [ $SECONDS -lt $deadline ] || fail "the floor does not start"
  sleep 0.02
done
loads 64 -u "$sock" -b 1m -q 4 -n 64 --sequential write
loads 2000 -u "$sock" -c 2 -q 32 -n 2000 read
loads 64 -u "$sock" -b 1m -q 8 -n 64 --sequential read
loads 1000 -u "$sock" -q 32 -n 1000 write
