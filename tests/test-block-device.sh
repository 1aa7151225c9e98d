#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A store on a block device: init does not overwrite what lies there, the device is used whole, what is trimmed is
# discarded, and a full device says so.

source "${top_srcdir:-.}/tests/functions.sh"
PATH=$PATH:/usr/sbin:/sbin
requires_program qemu-io losetup mkfs.ext4
[ "$(id -u)" = 0 ] || skip "needs root for a loop device"

MiB=$((1024 * 1024))
backing=$tmp/backing
truncate -s 600M "$backing"
device=$(losetup --find --show "$backing" 2>/dev/null) || skip "needs a loop device"
cleanup_fn losetup --detach "$device"
store=$device

# refused WHAT COMMAND...
refused ()
{
  local what=$1 status=0
  shift
  "$@" 2>"$tmp/refused" || status=$?
  [ "$status" = 1 ] || fail "$what: exit status $status"
  grep -q "^lacuna: $device: .*$what" "$tmp/refused" || { cat "$tmp/refused"; fail "$what: message"; }
}

mkfs.ext4 -q -F "$device"
sum=$(sha256sum <"$device")
refused "not empty" "$LACUNA" init "$device"
refused "without --capacity" "$LACUNA" init "$device" --capacity 100M --force
[ "$(sha256sum <"$device")" = "$sum" ] || fail "what was refused has changed the device"
"$LACUNA" init "$device" --force
refused "holds a store already" "$LACUNA" init "$device"
"$LACUNA" create "$device" disk 2G

io ()
{
  qemu-io -f raw --discard=unmap "${@/#/-c}" "$(uri disk)" >"$tmp/qemu-io"
  ! grep -qi 'fail\|error' "$tmp/qemu-io"
}

start_server
io "write -P 1 0 32M" "write -P 2 1G 32M" flush || fail "writing"
refused "another process has it open" "$LACUNA" init "$device" --force
before=$(allocated "$backing")
[ "$before" -ge $((64 * MiB)) ] || fail "64 MiB were flushed, but the device holds less"
io "discard 0 32M" flush || fail "discarding"
deadline=$((SECONDS + 30))
while [ "$(allocated "$backing")" -gt $((before - 31 * MiB)) ]; do
  [ $SECONDS -lt $deadline ] || fail "the device still holds $(allocated "$backing") bytes"
  sleep 0.1
done
echo "after TRIM of 32 of 64 MiB the device holds $(($(allocated "$backing") / 1024)) KiB, before $((before / 1024))"

# More than there is: refused, and what was there stays.
for at in $(seq 100 32 900); do
  io "write -P 3 ${at}M 32M" || { full=$at; break; }
done
[ -n "${full:-}" ] || fail "600 MiB were never full"
io "read -P 2 1G 32M" "read -P 0 0 32M" "read -P 3 100M 32M" || fail "reading on a full device"
io "discard 100M 320M" flush || fail "discarding on a full device"
io "write -P 4 0 32M" flush "read -P 4 0 32M" || fail "writing into what was given back"
stop_server
"$LACUNA" check "$device"
