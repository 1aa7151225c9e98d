#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A Linux kernel makes file systems on a disk, fills them, deletes, trims, leaves and comes back.
# What it trims must come back to the host.  The server serves, or nbdkit (test-guest-plugin.sh);
# what either leaves the server has.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"
if [ $front_end = plugin ]; then
  requires_plugin
  requires_program nbdinfo jq
fi

MiB=$((1024 * 1024))
port=$(free_port)
make_store disk 4G
# The journal's.
base=$(allocated "$store")
start_server -p "$port"
guest_start

attach ()
{
  guest "nbd-client 10.0.2.2 $port /dev/nbd0 -N disk $* && \
    test \$(blockdev --getsize64 /dev/nbd0) = $((4096 * MiB))"
}

detach ()
{
  guest "nbd-client -d /dev/nbd0 && ! nbd-client -c /dev/nbd0"
}

# The store lags behind the guest: what is freed must become durable before it is punched.
allocated_below ()
{
  local limit=$1 deadline=$((SECONDS + 60))
  while [ "$(allocated "$store")" -ge "$limit" ]; do
    [ $SECONDS -lt $deadline ] ||
      fail "$2: the store still takes $(($(allocated "$store") / MiB)) MiB"
    sleep 0.2
  done
}

# Half of what is written is deleted again, and trimmed.
exercise ()
{
  local what=$1 before
  guest "mount -o nodiscard /dev/nbd0 /mnt"
  guest "dd if=/dev/urandom of=/mnt/keep bs=1M count=32 && \
    dd if=/dev/urandom of=/mnt/gone bs=1M count=96 && sync"
  guest "cd /mnt && sha256sum keep >/tmp/sum && cd /"
  before=$(allocated "$store")
  [ "$before" -ge $((128 * MiB)) ] ||
    fail "$what: 128 MiB were written and synced, the store takes $before bytes"
  # xfs gives a deleted file's extents up in the background, when neither sync nor fstrim wait for
  # it; umount does.
  guest "rm /mnt/gone && umount /mnt && mount -o nodiscard /dev/nbd0 /mnt && fstrim -v /mnt"
  allocated_below $((before - 90 * MiB)) "$what, after fstrim"
  echo "$what: store before fstrim $((before / MiB)) MiB," \
    "after $(($(allocated "$store") / MiB)) MiB"
  guest "cd /mnt && sha256sum -c /tmp/sum && cd / && umount /mnt"
}

attach
guest "mkfs.ext4 -q /dev/nbd0"
exercise ext4
detach
attach -C 4
guest "e2fsck -fn /dev/nbd0 && mount /dev/nbd0 /mnt && cd /mnt && sha256sum -c /tmp/sum && \
  cd / && umount /mnt"

guest "blkdiscard /dev/nbd0 && sync"
allocated_below $((base + 16 * MiB)) "after blkdiscard"
echo "after blkdiscard: store $(($(allocated "$store") / 1024)) KiB"
guest "dd if=/dev/nbd0 bs=1M count=64 | tr -d '\\000' | wc -c"
[ "$guest_output" = 0 ] || fail "after blkdiscard there is data: $guest_output bytes"

guest "mkfs.xfs -q -f /dev/nbd0"
exercise xfs
detach
stop_server
"$LACUNA" check "$store"
front_end=server
start_server -p "$port"
attach -C 4
guest "xfs_repair -n /dev/nbd0 && mount /dev/nbd0 /mnt && cd /mnt && sha256sum -c /tmp/sum && \
  cd / && umount /mnt"
detach
stop_server
