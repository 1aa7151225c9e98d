#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A Linux kernel on a disk that nbdkit serves with the plugin: a file system, written, trimmed, left, and found again.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"
requires_plugin
requires_program nbdinfo jq

MiB=$((1024 * 1024))
front_end=plugin
port=$(free_port)
make_store disk 1G
start_server -p "$port"
guest_start

guest "nbd-client 10.0.2.2 $port /dev/nbd0 -N disk -C 2 && test \$(blockdev --getsize64 /dev/nbd0) = $((1024 * MiB))"
guest "mkfs.ext4 -q /dev/nbd0 && mount -o nodiscard /dev/nbd0 /mnt"
guest "dd if=/dev/urandom of=/mnt/keep bs=1M count=8 && dd if=/dev/urandom of=/mnt/gone bs=1M count=40 && sync"
guest "cd /mnt && sha256sum keep >/tmp/sum && cd /"
before=$(allocated "$store")
[ "$before" -ge $((48 * MiB)) ] || fail "48 MiB were written and synced, the store takes $before bytes"
guest "rm /mnt/gone && umount /mnt && mount -o nodiscard /dev/nbd0 /mnt && fstrim -v /mnt"
deadline=$((SECONDS + 60))
while [ "$(allocated "$store")" -ge $((before - 36 * MiB)) ]; do
  [ $SECONDS -lt $deadline ] || fail "after fstrim the store still takes $(($(allocated "$store") / MiB)) MiB"
  sleep 0.2
done
echo "store before fstrim $((before / MiB)) MiB, after $(($(allocated "$store") / MiB)) MiB"
guest "umount /mnt && nbd-client -d /dev/nbd0"
stop_server
"$LACUNA" check "$store"

# What the plugin has left, the server has.
front_end=server
start_server -p "$port"
guest "nbd-client 10.0.2.2 $port /dev/nbd0 -N disk && e2fsck -fn /dev/nbd0 && mount /dev/nbd0 /mnt && cd /mnt && \
  sha256sum -c /tmp/sum && cd / && umount /mnt && nbd-client -d /dev/nbd0"
stop_server
