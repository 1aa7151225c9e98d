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

[ "$(nbdinfo --size -- [ "${serve[@]}" --single ])" = 67108864 ] || fail "--single"
[ "$(nbdinfo --map -- [ "${serve[@]}" -s ] | awk '$3 == 0 { sum += $2 } END { print sum }')" = 1048576 ] || fail "--single: map"
