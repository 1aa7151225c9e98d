#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A server for one command (--run), and for one client on stdin and stdout (--single).

source "${top_srcdir:-.}/tests/functions.sh"
requires_program nbdinfo qemu-io

make_store disk 64M
serve=("$LACUNA" serve "$store" --cache 80M --arena "$arena_dir/arena")

"${serve[@]}" -U "$sock" --run 'nbdinfo --size "$uri" && test -S "$unixsocket"' | tee "$tmp/out"
[ "$(tail -n 1 "$tmp/out")" = 67108864 ] || fail "--run: nbdinfo said something else"
[ ! -e "$sock" ] || fail "--run left its socket behind"

# The status is the command's, and what it wrote stays.
"${serve[@]}" -U "$sock" --run 'qemu-io -f raw -c "write -P 9 1M 1M" "$uri"' || fail "--run: qemu-io"
status=0
"${serve[@]}" -U "$sock" --run 'exit 42' || status=$?
[ $status = 42 ] || fail "--run: status $status, not 42"

# libnbd's [ COMMAND ] passes a listening socket (LISTEN_FDS), its connect_command stdin and stdout.
[ "$(nbdinfo --size -- [ "${serve[@]}" ] | tail -n 1)" = 67108864 ] || fail "a socket from outside"
/usr/bin/python3 -c '
import nbd, sys
h = nbd.NBD ()
h.connect_command (sys.argv[1:] + ["--single"])
assert h.get_size () == 67108864
assert h.pread (1 << 20, 1 << 20) == b"\x09" * (1 << 20)
h.pwrite (b"single", 0)
h.shutdown ()
' "${serve[@]}" || fail "--single"
# It ends with its client, and keeps what that one wrote.
"${serve[@]}" -U "$sock" --run 'qemu-io -f raw -c "read -v 0 512" "$uri"' | grep -q "single" || fail "--single kept nothing"
