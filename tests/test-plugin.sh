#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How the plugin behaves towards who starts nbdkit: what it tells of itself, what is wrong and when that is said, commands and
# resizes while it serves, the end of it.

source "${top_srcdir:-.}/tests/functions.sh"
requires_plugin
requires_program nbdinfo qemu-io jq

front_end=plugin

# nbdkit with these arguments; in the foreground or not is theirs to say.
plugin ()
{
  local command
  nbdkit_command "$@"
  timeout -k 5 60 "${command[@]}"
}

# --- what it tells of itself ---

plugin --dump-plugin >"$tmp/dump"
for line in name=lacuna api_version=2 max_thread_model=parallel thread_model=parallel magic_config_key=store \
  errno_is_preserved=0 lacuna_format_version=1 lacuna_block_size=4096 lacuna_request_max=32M lacuna_cache_default=256M \
  lacuna_cache_min=80M lacuna_incompat_features=0x lacuna_ro_compat_features=0x lacuna_features=; do
  grep -q "^$line" "$tmp/dump" || { cat "$tmp/dump"; fail "--dump-plugin does not tell $line"; }
done
same "lacuna $(sed -n 's/^lacuna_version=//p' "$tmp/dump")" "$("$LACUNA" --version)"
for callback in open close get_size block_size can_write can_flush is_rotational can_trim can_zero can_fast_zero can_fua \
  can_multi_conn can_extents can_cache pread pwrite flush trim zero extents cache list_exports default_export \
  export_description dump_plugin config config_complete config_help get_ready after_fork cleanup load unload; do
  grep -q "^has_$callback=1" "$tmp/dump" || fail "there is no callback $callback"
done
plugin --help >"$tmp/help"
for text in 'store=\]STORE' 'disk=NAME' 'cache=SIZE' 'arena=PATH|off' 'default 256M'; do
  grep -q "$text" "$tmp/help" || { cat "$tmp/help"; fail "--help does not tell $text"; }
done

# --- what is wrong is said before the fork: status 1, nothing goes on in the background ---

refused ()
{
  local text=$1 command
  shift
  nbdkit_command -U "$sock" -P "$tmp/refused.pid" "$@"
  fails 1 "$text" timeout -k 5 60 "${command[@]}"
  [ ! -e "$tmp/refused.pid" ] || fail "it went into the background: $*"
  rm -f "$sock"
}

make_store disk 64M
arena=arena=$arena_dir/arena
refused 'which store'
refused "unknown parameter 'disc'" "$store" disc=disk
refused 'was given before' "$store" "$store"
refused 'cache=1M: at least 80M' "$store" cache=1M
refused 'cache=much:' "$store" cache=much
refused 'disk=: the value is empty' "$store" disk=
refused "$tmp/missing: No such file or directory" "$tmp/missing"
refused 'there is no disk of this name' "$store" disk=other
refused 'neither a regular file nor a block device' "$tmp"
refused 'cannot be made: No such file' "$store" arena=/dev/shm/no/such/place
refused 'MiB are free there' "$store" "$arena" cache=1P
echo "this is something else" >"$tmp/text"
refused 'this is not a Lacuna store' "$tmp/text"
truncate -s 2M "$tmp/zeros"
refused 'not a Lacuna store\|no valid superblock\|damaged' "$tmp/zeros"
front_end=server
start_server
refused 'another process has it open' "$store" "$arena"
stop_server
front_end=plugin
[ -z "$(ls "$arena_dir")" ] || fail "something was left in place of the arena"

# --- a daemon; --run ---

nbdkit_command -U "$sock" -P "$tmp/pid" "$store" cache=80M "$arena"
"${command[@]}" 2>>"$tmp/server.err"
server_pid=$(cat "$tmp/pid")
qemu-io -f raw -c 'write -P 7 0 1M' "$(uri disk)" >/dev/null
kill -TERM "$server_pid"
while kill -0 "$server_pid" 2>/dev/null; do
  sleep 0.02
done
server_pid=
"$LACUNA" check "$store" | grep -q 'closed in order' || fail "SIGTERM did not close the store in order"

export ASAN_OPTIONS=detect_leaks=0     # of the shell that --run starts
plugin -U - "$store" cache=80M "$arena" --run 'unset LD_PRELOAD; qemu-io -f raw -c "read -P 7 0 1M" -c "write -P 8 1M 1M" "$uri"; exit 9' \
  >"$tmp/run.out" || same $? 9
not grep -q failed "$tmp/run.out"
"$LACUNA" check "$store" | grep -q 'closed in order' || fail "--run did not close the store in order"
unset ASAN_OPTIONS

# The end, while a client is there and writes.
start_server
nbdinfo --size "$(uri disk)" >/dev/null
qemu-io -f raw -c 'write -P 9 2M 32M' -c 'read 0 64M' -c 'sleep 60000' "$(uri disk)" >/dev/null 2>&1 &
client=$!
until [ "$("$LACUNA" stat "$store" --json | jq .counters.server_received_bytes)" -ge $((32 << 20)) ]; do
  sleep 0.02
done
kill -TERM "$server_pid"
# nbdkit waits for a client that asks for nothing; then it does not close the connection, but forgets it: a leak of its own.
kill -KILL "$client"
wait "$server_pid" || true
server_pid=
! grep -A2 'leak of' "$tmp/server.err" | grep -q lacuna-plugin || fail "the plugin has lost memory"
rm -f "$tmp/server.err"
"$LACUNA" check "$store" | grep -q 'closed in order' || fail "a client that was there kept the store from being closed"

# --- commands ---

start_server disk=disk
lacuna ()
{
  "$LACUNA" "$@"
}
server="nbd+unix://?socket=$sock"
same "$(nbdinfo --size "$server")" $((64 << 20))
lacuna create "$store" second 1G
same "$(lacuna list "$store" --json | jq -c '[.[] | .name]')" '["disk","second"]'
same "$(nbdinfo --size "$(uri second)")" $((1 << 30))
same "$(nbdinfo --json "$(uri disk)" | jq -r '.exports[0].description')" '64 MiB, 34 MiB allocated'
lacuna map "$store" disk >/dev/null
lacuna info "$store" disk --json | jq -e .size >/dev/null
lacuna stat "$store" --json | jq -e '.counters.server_connections_accepted > 0 and .counters.server_requests >= 0' >/dev/null
lacuna rename "$store" second third
lacuna delete "$store" third
not nbdinfo "$(uri third)" 2>/dev/null

# --- a disk that is resized meanwhile ---

/usr/bin/python3 - "$LACUNA" "$store" "$sock" <<'END'
import subprocess, sys
import nbd

lacuna, store, sock = sys.argv[1:]
MIB = 1 << 20


def connect():
    h = nbd.NBD()
    h.set_export_name("disk")
    h.set_strict_mode(0)
    h.connect_unix(sock)
    return h


def resize(size, *options):
    return subprocess.run([lacuna, "resize", store, "disk", size, *options], stderr=subprocess.PIPE, text=True)


old = connect()
assert old.get_size() == 64 * MIB
assert resize("96M").returncode == 0
new = connect()
assert (old.get_size(), new.get_size()) == (64 * MIB, 96 * MIB)
new.pwrite(b"new", 80 * MIB)
try:
    old.pread(3, 80 * MIB)
    raise AssertionError("the old connection reads beyond its end")
except nbd.Error as error:
    assert error.errno == "EINVAL", error
result = resize("80M", "--shrink")
assert result.returncode == 1 and "cannot shrink while it has clients" in result.stderr, result
result = subprocess.run([lacuna, "collapse-range", store, "disk", "0", "1M"], stderr=subprocess.PIPE, text=True)
assert result.returncode == 1 and "cannot shrink while it has clients" in result.stderr, result
result = subprocess.run([lacuna, "delete", store, "disk"], stderr=subprocess.PIPE, text=True)
assert result.returncode == 1 and "in use" in result.stderr, result
new.shutdown()
old.shutdown()
END
until [ "$(lacuna stat "$store" --json | jq .counters.server_connections)" = 0 ]; do
  sleep 0.02
done
lacuna resize "$store" disk 48M --shrink
same "$(nbdinfo --size "$(uri disk)")" $((48 << 20))

# --- errors have their numbers ---

/usr/bin/python3 - "$sock" <<'END'
import sys
import nbd

h = nbd.NBD()
h.set_export_name("disk")
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_strict_mode(0)
h.connect_unix(sys.argv[1])
SIZE = 48 << 20
MIB = 1 << 20


def extents(offset, length, flags=0):
    found = []
    h.block_status(length, offset, lambda context, at, entries, error: found.extend(zip(entries[::2], entries[1::2])), flags)
    return found


# More than the engine takes at once, and all that nbdkit lets through.
data = bytes(range(256)) * (40 << 12)
h.pwrite(data, 4096)
assert h.pread(len(data), 4096) == data
# What keeps its space is no hole.
h.zero(MIB, 0, nbd.CMD_FLAG_NO_HOLE)
h.zero(MIB, MIB, nbd.CMD_FLAG_FAST_ZERO)
h.trim(MIB, 2 * MIB, nbd.CMD_FLAG_FUA)
h.cache(MIB, 3 * MIB)
assert extents(0, 4 * MIB) == [(MIB, 2), (2 * MIB, 3), (MIB, 0)], extents(0, 4 * MIB)
assert extents(4096, 4 * MIB, nbd.CMD_FLAG_REQ_ONE) == [(MIB - 4096, 2)]
assert h.pread(4 * MIB, 0) == bytes(3 * MIB) + data[3 * MIB - 4096:4 * MIB - 4096]
for function, expected in (lambda: h.pwrite(b"x", SIZE), "ENOSPC"), (lambda: h.pread(1, SIZE), "EINVAL"):
    try:
        function()
        raise AssertionError("beyond the end")
    except nbd.Error as error:
        assert error.errno == expected, error
h.shutdown()
END
stop_server
"$LACUNA" check "$store"

# A store that is full: ENOSPC, and that a write fails, not the server.
rm "$store"
"$LACUNA" init "$store" --capacity 64M
"$LACUNA" create "$store" disk 1G
start_server
/usr/bin/python3 - "$sock" <<'END'
import sys
import nbd

h = nbd.NBD()
h.set_export_name("disk")
h.connect_unix(sys.argv[1])
written = 0
try:
    while True:
        h.pwrite(b"x" * (1 << 20), written << 20)
        written += 1
except nbd.Error as error:
    assert error.errno == "ENOSPC" and written >= 56, (error, written)
h.trim(written << 20, 0)
h.flush()
h.pwrite(b"again", 0)
h.shutdown()
END
stop_server
grep -q 'write of 1048576 bytes at .* full\|no space' "$tmp/server.err" || fail "nbdkit was not told why"

# --- a store that can only be read ---

if [ "$(id -u)" != 0 ]; then
  chmod 0444 "$store"
  start_server
  nbdinfo --is read-only "$(uri disk)"
  stop_server
fi
