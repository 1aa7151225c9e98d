# SPDX-License-Identifier: BSD-2-Clause
# guest.sh - a real Linux kernel as the client.  Source it after ../functions.sh.
#
# The guest runs under qemu without KVM (it may be missing on the host, or broken), sees the host's
# loopback as 10.0.2.2, and does what `guest' tells it: so a test reads from top to bottom, and can
# stop the server or measure the store between two steps of the guest.

guest_dir=${LACUNA_GUEST_DIR:-$top_builddir/guest}
guest_programs=(nbd-client mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_repair xfs_growfs fstrim
  blkdiscard blockdev)

guest_devices=()                # of qemu, more than it has anyway
guest_forward=                  # ,hostfwd=...: a port of the guest's on the host's loopback

# guest_start PROGRAM...: boot it, with more programs (or directories, laid over its root) if the test
# brings some; skip where it cannot run.
guest_start ()
{
  local name programs=() PATH=$PATH:/usr/sbin:/sbin
  requires_program qemu-system-x86_64 busybox cpio "${guest_programs[@]}"
  [ -e "$guest_dir/vmlinuz" ] || skip "no guest kernel: tests/guest/fetch-kernel.sh $guest_dir"
  for name in "${guest_programs[@]}"; do
    programs+=("$(command -v "$name")")
  done
  bash "$top_srcdir/tests/guest/make-initramfs.sh" "$guest_dir" "$tmp/initramfs" \
    "${programs[@]}" "$@"

  mkfifo "$tmp/guest.in" "$tmp/guest.out"
  exec {guest_to}<>"$tmp/guest.in" {guest_from}<>"$tmp/guest.out"
  cleanup_fn guest_stop
  guest_boot
}

# Also again, after its power was cut.  (no_timer_check: on a busy host the timer comes late, and the kernel would take it for
# broken.)
guest_boot ()
{
  qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 640 \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$guest_dir/vmlinuz" -initrd "$tmp/initramfs" -append "console=ttyS0 panic=-1 quiet no_timer_check" \
    -netdev "user,id=net$guest_forward" -device virtio-net-pci,netdev=net,romfile= "${guest_devices[@]}" \
    -serial "file:$tmp/console" -serial "pipe:$tmp/guest" </dev/null 2>"$tmp/qemu.err" &
  guest_pid=$!
  guest_answer "boot" 180
}

# What it has in memory, its page cache too, is lost.
guest_cut_power ()
{
  kill -KILL "$guest_pid"
  wait "$guest_pid" 2>/dev/null || true
}

guest_stop ()
{
  local status=$?
  kill -KILL "${guest_pid:-}" 2>/dev/null
  wait "${guest_pid:-}" 2>/dev/null
  # The console tells the story of the test: `make check' shows it if the test fails.
  cat "$tmp/qemu.err" "$tmp/console"
  return $status
}

# Wait for the end of what was sent before.  $guest_output is the last line of its output.
guest_answer ()
{
  local line status
  IFS= read -r -t "${2:-150}" line <&"$guest_from" || fail "the guest did not answer: $1"
  line=${line%$'\r'}
  [[ $line == "= "* ]] || fail "the guest said: $line"
  line=${line#= }
  status=${line%% *}
  guest_output=${line#* }
  [ "$status" = 0 ] || fail "in the guest, status $status: $1"
}

# guest COMMAND: a shell command line; it must succeed.
guest ()
{
  guest_send "$1"
  guest_answer "$1"
}

# guest_send COMMAND, and guest_answer later: for what the host does meanwhile.
guest_send ()
{
  printf '%s\n' "$1" >&"$guest_to"
}
