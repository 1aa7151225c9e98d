#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# record.sh: records what a Linux kernel reads from its disk, for `policies'.
#
#   record.sh files OUTPUT       an ext4 with some 340 MB of files, of which some are read often and most
#                                seldom, and all twice, by a guest that has little memory
#   record.sh boot OUTPUT ROOT   ROOT, the root of a Debian as debootstrap makes it, boots twice with systemd,
#                                from an ext4 on its disk, and does some work each time
#
# The disk is nbdkit's, whose filter `log' writes down each request.  A line for each read: offset and
# length.  Some minutes without KVM.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"
requires_program nbdkit mke2fs

output=${2:?usage: record.sh files OUTPUT | boot OUTPUT ROOT}

# What nbdkit's LOG has of READs; the offset and the length are hexadecimal there.
reads ()
{
  sed -n 's/.* Read id=[0-9]* offset=0x\([0-9a-f]*\) count=0x\([0-9a-f]*\) .*/\1 \2/p' "$1" |
    while read -r offset length; do
      echo "$((16#$offset)) $((16#$length))"
    done
}

disk_start ()
{
  local log=$1
  shift
  rm -f "$tmp/disk"
  nbdkit -f -U "$tmp/disk" --filter=log "$@" logfile="$log" &
  disk_pid=$!
  until [ -S "$tmp/disk" ]; do
    sleep 0.1
  done
  guest_devices=(-m 256 -drive "if=none,id=disk,format=raw,file=nbd+unix:///?socket=$tmp/disk"
    -device "virtio-blk-pci,drive=disk")
}

disk_stop ()
{
  kill "$disk_pid"
  wait "$disk_pid" || true
}

# Of 80 directories the first ones are read most often.
record_files ()
{
  disk_start "$tmp/files.log" memory 2G
  guest_start
  guest "mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && mkdir /mnt/0 && for f in \$(seq 0 15); do \
    dd if=/dev/zero of=/mnt/0/\$f bs=16k count=\$((1 + RANDOM % 32)); done 2>/dev/null"
  guest "for d in \$(seq 79); do cp -r /mnt/0 /mnt/\$d; done; sync"
  for round in 1 2; do
    for _ in $(seq 10); do
      guest "for i in \$(seq 40); do d=\$((RANDOM % 80 * (RANDOM % 80) / 80)); cat /mnt/\$d/* >/dev/null; done"
    done
    guest "find /mnt -type f | xargs cat | wc -c"
    echo "round $round: all files have $guest_output bytes"
  done
  guest "umount /mnt"
  guest_cut_power
  disk_stop
  reads "$tmp/files.log" >"$output"
}

# The guest's first process, which goes on with the disk's.
make_boot_init ()
{
  sed '/^ifconfig/,$d' "$top_srcdir/tests/guest/init"
  echo 'mount /dev/vda /mnt && umount /proc /sys && mount --move /dev /mnt/dev && exec switch_root /mnt /sbin/init'
}

boot_work ()
{
  cat <<'END'
#!/bin/sh
dpkg -l | wc -l
python3 -c 'import json, subprocess, email'
perl -MPOSIX -e 'print 1'
find / -xdev -type f -size -20k | wc -l
cat /usr/bin/* | wc -c
apt-cache policy bash
dpkg -L perl-base coreutils | xargs ls -d
sync
echo o >/proc/sysrq-trigger
END
}

record_boot ()
{
  cp -a "$1" "$tmp/root"
  boot_work >"$tmp/root/work"
  chmod +x "$tmp/root/work"
  cat >"$tmp/root/etc/systemd/system/work.service" <<'END'
[Service]
ExecStart=/work
StandardOutput=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
  ln -s ../work.service "$tmp/root/etc/systemd/system/multi-user.target.wants/work.service"
  mke2fs -q -t ext4 -d "$tmp/root" "$tmp/image" 1G
  mkdir "$tmp/source" "$tmp/source/tests"
  cp -r "$top_srcdir/tests/guest" "$tmp/source/tests"
  make_boot_init >"$tmp/source/tests/guest/init"
  bash "$tmp/source/tests/guest/make-initramfs.sh" "$guest_dir" "$tmp/initramfs"
  disk_start "$tmp/boot.log" file "$tmp/image"
  for boot in 1 2; do
    timeout 600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -nodefaults -no-user-config \
      -display none -no-reboot -kernel "$guest_dir/vmlinuz" -initrd "$tmp/initramfs" \
      -append "console=ttyS0 panic=-1 quiet no_timer_check" "${guest_devices[@]}" -serial "file:$tmp/console-$boot"
    tail -n 3 "$tmp/console-$boot"
  done
  disk_stop
  reads "$tmp/boot.log" >"$output"
}

case $1 in
files) record_files ;;
boot) record_boot "${3:?the root of a Debian}" ;;
esac
wc -l "$output"
