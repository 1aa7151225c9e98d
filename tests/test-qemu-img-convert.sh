#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A real ext4 image goes in with qemu-img and comes out with qemu-img and nbdcopy, equal; and the store takes no more room
# than what the image really holds.

source "${top_srcdir:-.}/tests/functions.sh"
PATH=$PATH:/usr/sbin:/sbin
requires_program qemu-img nbdcopy mkfs.ext4 e2fsck

size=1G
files=200                       # MiB
if [ -n "${LACUNA_LONG:-}" ]; then
  size=4G
  files=1024
fi

# A real tree: what fits of /usr.
mkdir "$tmp/tree"
(cd /usr && find bin lib share sbin -xdev -type f -size -8192k -print0 2>/dev/null) |
  /usr/bin/python3 -c '
import os, sys
left = int (sys.argv[1]) << 20
for name in sys.stdin.buffer.read ().split (b"\0"):
    try:
        left -= os.stat (b"/usr/" + name).st_size if name else 0
    except OSError:
        continue
    if left < 0:
        break
    sys.stdout.buffer.write (name + b"\0")
' "$files" | (cd /usr && tar --null --files-from=- --create --file=- 2>/dev/null) | tar -C "$tmp/tree" --extract --no-same-owner
mkfs.ext4 -q -d "$tmp/tree" "$tmp/image" $size
rm -rf "$tmp/tree"

# The data that the image really holds: blocks of 4 KiB that are not zero.
held=$(/usr/bin/python3 -c '
import sys
held = 0
zero = bytes (4096)
with open (sys.argv[1], "rb") as image:
    while piece := image.read (1 << 20):
        if any (piece):
            held += sum (4096 for i in range (0, len (piece), 4096) if piece[i:i + 4096] != zero)
print (held)
' "$tmp/image")

make_store disk $size
# The journal's.
base=$(allocated "$store")
start_server
qemu-img convert -n -f raw -O raw "$tmp/image" "$(uri disk)"
# qemu-img asks for no flush; whoever stops the server does.
stop_server
taken=$(($(allocated "$store") - base))
echo "the image holds $held bytes in blocks that are not zero, the store takes $taken beside its journal: $((taken * 1000 / held)) per mille"

start_server
qemu-img convert -f raw -O raw "$(uri disk)" "$tmp/copy"
cmp "$tmp/image" "$tmp/copy"
rm "$tmp/copy"
nbdcopy "$(uri disk)" "$tmp/copy"
cmp "$tmp/image" "$tmp/copy"
e2fsck -fn "$tmp/copy"
stop_server

[ $taken -le $((held * 103 / 100)) ] || fail "the store takes more than 3 % above what the image holds"
[ $taken -ge $held ] || fail "the store takes less than the image holds"
