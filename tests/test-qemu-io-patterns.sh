#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# qemu-io writes patterns, zeroes with and without unmapping, and discards; each command waits for its answer, a pattern
# that is not there is an error.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program qemu-io

make_store disk 1G
start_server

# qemu-io ends with 0 although a pattern did not match.
io ()
{
  local command arguments=()
  for command; do
    arguments+=(-c "$command")
  done
  qemu-io -f raw --discard=unmap "${arguments[@]}" "$(uri disk)" | tee "$tmp/qemu-io"
  ! grep -qi 'fail\|error' "$tmp/qemu-io" || fail "qemu-io"
}

io "write -P 1 0 64k" "write -P 2 1000k 3M" "write -P 3 512 1024" "read -P 1 0 512" "read -P 3 512 1024" \
   "read -P 1 1536 62k" "read -P 0 64k 936k" "read -P 2 1000k 3M"
io "write -z 1M 64k" "read -P 0 1M 64k" "write -z -u 2M 1M" "read -P 0 2M 1M" "discard 3M 512k" "read -P 0 3M 512k" \
   "read -P 2 1000k 24k"
io "write -f -P 4 8M 1M" "aio_write -P 5 16M 4M" "aio_write -P 6 20M 4M" "aio_flush" "read -P 5 16M 4M" "read -P 6 20M 4M" \
   "read -P 4 8M 1M" "write -z -u 0 1G" "read -P 0 0 32M" "flush"
stop_server
start_server
io "read -P 0 0 32M" "write -P 7 1023M 1M" "read -P 7 1023M 1M"
stop_server
