#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# nbdcopy in and out over four connections, and from one disk to another; holes stay holes.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program nbdcopy nbdinfo jq

/usr/bin/python3 -c '
import os, random, sys
rng = random.Random (7)
with open (sys.argv[1], "wb") as image:
    image.truncate (512 << 20)
    for _ in range (300):
        image.seek (rng.randrange (0, (512 << 20) - (1 << 20)))
        image.write (rng.randbytes (rng.randrange (1, 1 << 19)))
' "$tmp/image"

make_store one 512M
"$LACUNA" create "$store" two 512M
start_server
nbdcopy --connections=4 --flush "$tmp/image" "$(uri one)"
nbdcopy --connections=4 "$(uri one)" "$tmp/copy"
cmp "$tmp/image" "$tmp/copy"
nbdcopy --connections=4 --flush "$(uri one)" "$(uri two)"
nbdcopy "$(uri two)" "$tmp/copy"
cmp "$tmp/image" "$tmp/copy"

holes ()
{
  nbdinfo --map --json "$1" | jq '[.[] | select (.type == 3) | .length] | add'
}
one=$(holes "$(uri one)")
two=$(holes "$(uri two)")
echo "holes: $one bytes in one, $two in two"
[ "$one" -gt $((256 << 20)) ] || fail "a sparse image became thick"
[ "$two" -ge "$one" ] || fail "holes were lost from disk to disk"
stop_server
