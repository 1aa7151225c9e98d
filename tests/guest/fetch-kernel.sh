#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# fetch-kernel.sh DIR - put Debian's cloud kernel into DIR, unpacked, not installed.
#
# The host's own kernel may have no NBD client, and need not: the guest brings this one.  DIR gets
# `vmlinuz' and `modules'; when they are there already, nothing is done.

set -euo pipefail
dir=${1:?usage: fetch-kernel.sh DIR}
[ -e "$dir/vmlinuz" ] && [ -e "$dir/modules" ] && exit 0

mkdir -p "$dir/unpack"
cd "$dir/unpack"
# The metapackage only depends on the kernel of the day.
package=$(apt-cache depends linux-image-cloud-amd64 |
  sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64 (apt-get update?)" >&2; exit 1; }
# apt's own user may not be able to write here, which it warns about and nothing else.
apt-get download -qq -o APT::Sandbox::User=root "$package"
dpkg-deb -x "$package"_*.deb .
mv lib/modules/*/kernel ../modules.new
mv boot/vmlinuz-* ../vmlinuz.new
cd ..
rm -rf unpack modules vmlinuz
mv modules.new modules
mv vmlinuz.new vmlinuz
