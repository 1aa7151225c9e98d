#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What `serve' is asked and cannot do: a message that says what, the right status, and nothing changed.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program nbdinfo

serve=("$LACUNA" serve "$store" --cache 80M --arena "$arena_dir/arena")
make_store disk 64M
sum=$(sha256sum <"$store")
unchanged ()
{
  [ "$(sha256sum <"$store")" = "$sum" ] || fail "the store was changed: $1"
}

fails 1 "nothing-here.*No such file" "$LACUNA" serve "$tmp/nothing-here" -U "$sock"
head -c 1M /dev/zero >"$tmp/zeros"
fails 1 "zeros: .*not a .*store" "$LACUNA" serve "$tmp/zeros" -U "$sock"
[ "$(tr -d '\000' <"$tmp/zeros" | wc -c)" = 0 ] || fail "what is no store was written to"
fails 1 "neither a regular file nor a block device" "$LACUNA" serve "$tmp" -U "$sock"
fails 2 "" "$LACUNA" serve
fails 2 "no-such-option" "${serve[@]}" --no-such-option
for port in 0x nought 65536 -1; do
  fails 2 "port\|$port" "${serve[@]}" -p "$port"
done
fails 2 "" "${serve[@]}" -U "$sock" --cache nonsense
unchanged "wrong options"
# From here on the store is opened, which its superblock notes; the disks stay as they are.
fails 1 "there is no\|no disk\|no such disk" "${serve[@]}" -U "$sock" --export "not there"
fails 1 "not-a-directory\|No such file" "${serve[@]}" -U "$tmp/not-a-directory/sock"
"$LACUNA" list "$store" | grep -q '^disk  *64 MiB' || fail "the disk is not what it was"

# A port in use.
port=$(free_port)
start_server -p "$port"
"$LACUNA" init "$tmp/second"
fails 1 "$port.*in use" "$LACUNA" serve "$tmp/second" -p "$port" --cache 80M --arena "$arena_dir/second"
# A store that is open.
fails 1 "store: .*open" "$LACUNA" serve "$store" -U "$sock" --cache 80M --arena "$arena_dir/third"
nbdinfo "nbd://127.0.0.1:$port/disk" >/dev/null || fail "the first server did not live through the second"
stop_server

# An arena on a disk does its work, and the user is told.
if [ "$(stat --file-system --format=%T "$tmp")" != tmpfs ]; then
  "$LACUNA" serve "$store" --cache 80M --arena "$tmp/arena" --run true 2>"$tmp/said"
  grep -q "arena $tmp/arena is not on tmpfs" "$tmp/said" || fail "an arena on a disk, and nothing was said"
fi
"${serve[@]}" --run true 2>"$tmp/said"
[ ! -s "$tmp/said" ] || fail "something was said of an arena in /dev/shm"

# A server that died leaves a socket behind; the next one takes it.
start_server
kill_server
[ -S "$sock" ] || fail "no socket"
start_server
stop_server

# Who is started without standard descriptors does not take the store for one of them (on tmpfs, where any byte can be
# written).
"$LACUNA" init "$arena_dir/store"
rm -f "$tmp/pid"
"$LACUNA" serve "$arena_dir/store" -U "$sock" --cache 80M --arena off -P "$tmp/pid" 0<&- 1>&- 2>&- &
server_pid=$!
where=()
wait_for_server
stop_server
"$LACUNA" check "$arena_dir/store" >"$tmp/said" || fail "something was written over the store: $(cat "$tmp/said")"
fails 1 "standard output" sh -c '"$1" list "$2" >&-' - "$LACUNA" "$arena_dir/store"

# A read-only file system: it can be read from, and says so to clients, with --readonly only.
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
  sum=$(sha256sum <"$store")
  readonly_mount=(unshare --mount sh -c 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"' - "$tmp")
  fails 1 "store: .*[Rr]ead-only" "${readonly_mount[@]}" "${serve[@]}" -p "$port"
  unchanged "read-only file system"
fi
