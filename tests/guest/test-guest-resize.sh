#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A disk grows while a Linux kernel has it attached, by TLS, and writes to it: on the server, in the kernel, in its file
# system.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"

GiB=$((1 << 30))
port=$(free_port)
make_store disk 64M
"$LACUNA" create "$store" other 1G
"$top_srcdir/tests/make-certificates" "$tmp/certificates"
start_server -p "$port" --tls on --tls-certificates "$tmp/certificates/server" --tls-verify-peer
# As programs, they are in /sbin of the guest.
guest_start "$LACUNA" "$tmp/certificates"/alice/{ca-cert,client-cert,client-key}.pem

guest "nbd-client 10.0.2.2 $port /dev/nbd0 -N disk -enable-tls -certfile /sbin/client-cert.pem -keyfile /sbin/client-key.pem -cacertfile /sbin/ca-cert.pem -tlshostname localhost"
guest "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt && lacuna --version"
guest "(i=0; until [ -e /tmp/enough ]; do dd if=/dev/urandom of=/mnt/\$((i % 8)) bs=64k count=16 conv=fsync 2>/dev/null || exit 1; echo \$((i = i + 1)) >/tmp/count; done) & writer=\$!"
guest "until [ -s /tmp/count ]; do sleep 0.1; done"

"$LACUNA" resize "$store" disk 512M
guest "lacuna attach-resize /dev/nbd0 512M && blockdev --getsize64 /dev/nbd0"
same "$guest_output" $((GiB / 2))
guest "resize2fs /dev/nbd0"
guest "n=\$(cat /tmp/count); until [ \$(cat /tmp/count) -ge \$((n + 2)) ]; do kill -0 \$writer || break; sleep 0.1; done; touch /tmp/enough; wait \$writer"
guest "df -k /mnt | awk 'END { print (\$2 > 450000) }'"
same "$guest_output" 1
# There is room for what would not have fitted.
guest "dd if=/dev/zero of=/mnt/big bs=1M count=56 conv=fsync && umount /mnt && e2fsck -fn /dev/nbd0"
guest "lacuna attach-resize /dev/nbd0 1000 2>&1; [ \$? = 1 ]"
guest "nbd-client -d /dev/nbd0"

# What was attached by ioctl is told by ioctl; what is not attached, not at all.
guest "nbd-client 10.0.2.2 $port /dev/nbd1 -N other -nonetlink"
"$LACUNA" resize "$store" other 3G
guest "until nbd-client -c /dev/nbd1; do sleep 0.1; done; lacuna attach-resize /dev/nbd1 3G && blockdev --getsize64 /dev/nbd1"
same "$guest_output" $((3 * GiB))
guest "echo end | dd of=/dev/nbd1 bs=1M seek=3071 conv=notrunc,fsync && nbd-client -d /dev/nbd1"
guest "! lacuna attach-resize /dev/nbd2 1G"
guest "! lacuna attach-resize /dev/null 1G"
stop_server
