#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# One opener: not a second one by the same path, a hard link, or a bind mount in a mount namespace
# of its own; and a copy of a store that is open does not get at the original's arena.

source "${top_srcdir:-.}/tests/functions.sh"

command -v qemu-io >/dev/null || exit 77

"$LACUNA" init "$store"
"$LACUNA" create "$store" disk 16M
"$LACUNA" serve "$store" -U "$sock" -P "$tmp/pid" --cache 80M --arena "$arena_dir/arena" 2>"$tmp/log" &
server_pid=$!
for _ in {1..600}; do
  [ -s "$tmp/pid" ] && break
  sleep 0.1
done
[ -s "$tmp/pid" ]

# refused PATH TEXT
refused ()
{
  if "$LACUNA" serve "$1" -U "$tmp/second" --cache 80M --arena "$arena_dir/second" \
       --run true >"$tmp/output" 2>&1; then
    echo "FAIL: a second opener of $1"
    exit 1
  fi
  cat "$tmp/output"
  grep -q "$2" "$tmp/output"
}

qemu-io -f raw "nbd+unix:///disk?socket=$sock" -c "write -P 7 0 1M" >/dev/null
refused "$store" "another process"
ln "$store" "$tmp/link"
refused "$tmp/link" "another process"
touch "$tmp/bound"
if unshare -m true 2>/dev/null; then
  export -f refused
  export tmp arena_dir
  unshare -m bash -c "set -e; mount --bind '$store' '$tmp/bound'; refused '$tmp/bound' 'another process'"
fi
cp "$store" "$tmp/copy"
refused "$tmp/copy" "copy of a store that is open"

# Nobody was disturbed.
qemu-io -f raw "nbd+unix:///disk?socket=$sock" -c "read -P 7 0 1M" | tee "$tmp/output"
! grep -q "verification failed" "$tmp/output"
kill "$server_pid"
wait "$server_pid"
server_pid=
"$LACUNA" check "$store"
