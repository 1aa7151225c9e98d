#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What is trimmed comes back to the host: du of the store shrinks while the server runs, and stays so.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program qemu-io

MiB=$((1024 * 1024))
make_store disk 4G
# The journal's.
base=$(allocated "$store")
start_server

io ()
{
  qemu-io -f raw --discard=unmap "${@/#/-c}" "$(uri disk)" >"$tmp/qemu-io"
  ! grep -qi 'fail\|error' "$tmp/qemu-io" || { cat "$tmp/qemu-io"; fail "qemu-io"; }
}

# below MIB WHAT: it lags behind, since what is freed must be durable before it is punched.
below ()
{
  local deadline=$((SECONDS + 30))
  while [ "$(allocated "$store")" -ge $((base + $1 * MiB)) ]; do
    [ $SECONDS -lt $deadline ] || fail "$2: the store still takes $(($(allocated "$store") / MiB)) MiB"
    sleep 0.1
  done
  echo "$2: $(($(allocated "$store") / 1024)) KiB"
}

io "write -P 1 0 32M" "write -P 2 1G 32M" "write -P 3 2G 32M" "write -P 4 3G 32M" flush
[ "$(allocated "$store")" -ge $((base + 128 * MiB)) ] || fail "128 MiB were flushed, but the store takes $(allocated "$store") bytes"
echo "after 128 MiB: $(($(allocated "$store") / 1024)) KiB"
io "discard 1G 32M" flush
below 112 "after TRIM of 32 MiB"
io "write -z -u 2G 32M" flush
below 80 "after WRITE_ZEROES of 32 MiB"
"$LACUNA" punch "$store" disk 0 1G
below 48 "after lacuna punch of 32 MiB"
io "read -P 4 3G 32M" "read -P 0 0 32M" "read -P 0 1G 32M" "read -P 0 2G 32M"
stop_server
below 48 "after the server has ended"
start_server
io "read -P 4 3G 32M" "read -P 0 0 32M" "discard 3G 32M" flush
below 16 "after TRIM of the rest"
stop_server
