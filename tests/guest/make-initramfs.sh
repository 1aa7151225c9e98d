#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# make-initramfs.sh KERNEL_DIR OUTPUT PROGRAM... - the guest's root: busybox, `init' beside this
# script, the modules, and each PROGRAM with the libraries it needs.  One that is a directory is laid
# over the root.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kernel=$1
output=$2
shift 2
root=$(mktemp -d)
# Not only root comes in.
umask 022
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,mnt,modules,etc,lib64}
cp "$(command -v busybox)" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/init" "$root/init"
chmod +x "$root/init"
ln -s /proc/mounts "$root/etc/mtab"

# In the order in which they must be loaded: the name begins with a number.
number=10
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
              failover net_failover virtio_net virtio_blk nbd tls gf128mul ghash-generic ctr gcm libcrc32c xfs; do
  file=$(find "$kernel/modules" -name "$module.ko")
  [ -n "$file" ] || continue   # built in
  cp "$file" "$root/modules/$number-$module.ko"
  number=$((number + 1))
done

for program; do
  if [ -d "$program" ]; then
    cp -R "$program"/. "$root"
    continue
  fi
  # Statically linked ones make ldd fail, and need nothing.
  { ldd "$program" 2>/dev/null || true; } | sed -n 's|^[^/]*\(/[^ ]*\).*|\1|p' |
    while read -r library; do
      mkdir -p "$root$(dirname "$library")"
      cp -nL "$library" "$root$library"
    done
  cp -L "$program" "$root/sbin/"
done

(cd "$root" && find . -print0 | cpio --null --quiet --create --format=newc --owner=0:0) |
  gzip -1 >"$output.new"
mv "$output.new" "$output"
