#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The server is killed with SIGKILL and started again, again and again, while a Linux kernel writes.
# Nothing that the kernel was told is written may be lost; and a file system whose kernel waits for
# the server sees no error at all.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"

kills=${LACUNA_KILLS:-4}
port=$(free_port)
requires_program cc
make_store disk 4G
start_server -p "$port"
cc -std=gnu17 -O1 -static -o "$tmp/nbd-keep" "$top_srcdir/tests/guest/nbd-keep.c"
guest_start "$tmp/nbd-keep" "$top_srcdir/tests/guest/write-load"

# load KIND: the writer runs; meanwhile the server dies and comes back.
load ()
{
  local i
  guest "rm -f /tmp/enough; : >/tmp/acknowledged; write-load $1 >/dev/null 2>&1 & writer=\$!"
  for ((i = 1; i <= kills; i++)); do
    guest "n=\$(wc -l </tmp/acknowledged); t=0; \
      while [ \$(wc -l </tmp/acknowledged) -lt \$((n + 20)) ]; do \
        sleep 0.1; t=\$((t + 1)); [ \$t -lt 900 ] || break; \
      done; [ \$t -lt 900 ]"
    kill_server
    start_server -p "$port"
  done
  guest "touch /tmp/enough; wait \$writer"
}

# What nbd-client offers is -persist, which gives up when a server is killed (as do all of 3.24's
# modes): its device returns errors then, and must be attached again.
guest "(until [ -e /tmp/detached ]; do \
    nbd-client 10.0.2.2 $port /dev/nbd0 -N disk -persist -nonetlink -nofork; sleep 0.2; \
  done) >/tmp/nbd-client.log 2>&1 &"
guest "until nbd-client -c /dev/nbd0; do sleep 0.1; done"
load raw
guest "cat /tmp/nbd-client.log >&2"
guest "write-load verify 2>/dev/null"
echo "nbd-client: $kills kills, $guest_output writes of 64 KiB acknowledged, all there"
guest "touch /tmp/detached; nbd-client -d /dev/nbd0"

# What the kernel offers: it waits for the server, and sends again what had no answer.
guest "nbd-keep 10.0.2.2 $port disk 1 2 >/tmp/nbd-keep.log 2>&1 & \
  until [ -s /tmp/nbd-keep.log ]; do sleep 0.1; done; ! grep -v attached /tmp/nbd-keep.log"
guest "mkfs.ext4 -q /dev/nbd1 && mount /dev/nbd1 /mnt && dmesg -c >/dev/null"
load files
guest "cat /tmp/nbd-keep.log >&2; dmesg | grep -v block.nbd1 >&2; ! dmesg | grep -i 'error'"
guest "umount /mnt && nbd-client -d /dev/nbd1 && nbd-client 10.0.2.2 $port /dev/nbd0 -N disk -C 2"
guest "e2fsck -fn /dev/nbd0 && mount /dev/nbd0 /mnt && cd /mnt && \
  sha256sum -c /tmp/acknowledged >/tmp/checked; s=\$?; \
  cd /; umount /mnt; wc -l </tmp/checked; [ \$s = 0 ]"
echo "nbd-keep: $kills kills, $guest_output files written and synced, all there, no I/O error"
guest "touch /tmp/detached; nbd-client -d /dev/nbd0"
stop_server
