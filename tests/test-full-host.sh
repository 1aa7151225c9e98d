#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The file system under a sparse store runs full: a WRITE is refused with ENOSPC when it comes, nothing that was
# accepted is lost, what is trimmed can be written again, and the server ends in order.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program qemu-io mount
[ "$(id -u)" = 0 ] || skip "needs root to mount a small file system"
mkdir "$tmp/host"
mount -t tmpfs -o size=128M none "$tmp/host" || skip "cannot mount a tmpfs"
cleanup_fn umount -l "$tmp/host"
store=$tmp/host/store

make_store disk 1G
start_server

io ()
{
  qemu-io -f raw --discard=unmap "${@/#/-c}" "$(uri disk)" >"$tmp/qemu-io" 2>&1
  ! grep -qi 'fail\|error' "$tmp/qemu-io"
}

for at in $(seq 0 8 200); do
  io "write -P $((at % 250 + 1)) ${at}M 8M" flush || { full=$at; break; }
done
[ -n "${full:-}" ] || fail "128 MiB were never full"
grep -q 'No space left on device' "$tmp/qemu-io" || { cat "$tmp/qemu-io"; fail "not ENOSPC"; }
[ "$full" -ge 64 ] || fail "full after $full MiB already"
echo "full after $full MiB of 128"
for at in $(seq 0 8 $((full - 8))); do
  io "read -P $((at % 250 + 1)) ${at}M 8M" || fail "what was accepted at ${at}M is not there"
done
io "discard 0 32M" flush || fail "TRIM on a full host"
deadline=$((SECONDS + 30))
until io "write -P 99 0 8M" flush; do
  [ $SECONDS -lt $deadline ] || fail "what was given back cannot be written"
  sleep 0.2
done
io "read -P 99 0 8M" "read -P 0 8M 24M" || fail "reading after TRIM"
stop_server
"$LACUNA" check "$store"
start_server
io "read -P 99 0 8M" "read -P 33 32M 8M" || fail "reading after the restart"
stop_server

# A file system that cannot say how full it is (and has no O_DIRECT, which is said once) is not full.
umount -l "$tmp/host"
mount -t ramfs none "$tmp/host"
make_store disk 1G
start_server
io "write -P 7 0 8M" flush || fail "ENOSPC on ramfs"
io "read -P 7 0 8M" "discard 0 4M" flush "read -P 0 0 4M" "read -P 7 4M 4M" || fail "on ramfs"
stop_server
[ "$(grep -c 'no O_DIRECT' "$tmp/server.err")" = 1 ] || fail "buffered I/O, and not said once"
"$LACUNA" check "$store"
