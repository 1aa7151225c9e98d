#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# survival.sh - what is left of acknowledged writes when the server is killed, and when the power is
# cut; and how often the device is flushed for a FLUSH.  Lacuna beside qemu-nbd with qcow2 and with a
# raw sparse file.
#
# The servers run in a guest, on ext4 on a virtio disk, which counts flushes; the power is cut by
# killing qemu: what the guest's memory had is gone, what it gave to its disk is not.  The client
# (survival.py) is on the host.  `make bench-survival'; a few minutes without KVM.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"
requires_program qemu-nbd qemu-img
requires /usr/bin/python3 -c 'import nbd'

port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
guest_forward=",hostfwd=tcp:127.0.0.1:$port-:10809"
guest_devices=(-drive "if=none,id=disk,format=raw,file=$tmp/disk" -device virtio-blk-pci,drive=disk)

client ()
{
  /usr/bin/python3 "$top_srcdir/tests/bench/survival.py" "$port" "$tmp/tags" "$@"
}

# In the guest, on what the disk has.
server_start ()
{
  case $1 in
  lacuna) set -- lacuna serve -i 0.0.0.0 -p 10809 --cache 96M /mnt/store ;;
  qcow2) set -- qemu-nbd -t -e 4 -x disk -p 10809 --discard=unmap -f qcow2 /mnt/disk.qcow2 ;;
  raw) set -- qemu-nbd -t -e 4 -x disk -p 10809 --discard=unmap -f raw /mnt/disk.raw ;;
  esac
  guest "$* >/dev/console 2>&1 & echo \$! >/tmp/pid"
  client wait
}

server_make ()
{
  case $1 in
  lacuna) guest "lacuna init /mnt/store && lacuna create /mnt/store disk 1G" ;;
  qcow2) guest "qemu-img create -q -f qcow2 /mnt/disk.qcow2 1G" ;;
  raw) guest "truncate -s 1G /mnt/disk.raw" ;;
  esac
}

# Flushes and writes that the device has done.
device_counts ()
{
  guest "cut -c1- /sys/block/vda/stat | awk '{ print \$16, \$5 }'"
  echo "$guest_output"
}

# count NAME WHEN MODE ROUNDS: flushes and writes of the device per FLUSH
count ()
{
  local before after
  guest sync
  read -ra before <<<"$(device_counts)"
  client "$3" "$4"
  read -ra after <<<"$(device_counts)"
  awk -v name="$1" -v when="$2" -v what="$3" -v n="$4" \
    -v f=$((after[0] - before[0])) -v w=$((after[1] - before[1])) \
    'BEGIN { printf "%-8s %-10s %-10s %.2f flushes of the device, %.2f writes\n", name, when, what, f / n, w / n }'
}

mount_disk ()
{
  guest "mount -t ext4 /dev/vda /mnt && mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm"
}

truncate -s 2G "$tmp/disk"
guest_start "$LACUNA" "$(command -v qemu-nbd)" "$(command -v qemu-img)"
for name in lacuna qcow2 raw; do
  guest "mkfs.ext4 -q -F /dev/vda"
  mount_disk
  server_make "$name"
  server_start "$name"
  client fill 0
  # New: the file system of the host notes that places are written which have not been before.
  count "$name" new one 100
  client one 3000
  count "$name" used one 100
  count "$name" used scattered 50
  client flushed 128
  client unflushed 128
  guest 'kill -KILL $(cat /tmp/pid)'
  server_start "$name"
  printf '%-8s kill       ' "$name"
  client judge
  client flushed 128
  client unflushed 128
  guest_cut_power
  guest_boot
  mount_disk
  server_start "$name"
  printf '%-8s power cut  ' "$name"
  client judge
  guest 'kill $(cat /tmp/pid); while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.2; done; umount /dev/shm; umount /mnt'
done
