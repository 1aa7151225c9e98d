#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# One opener: not a second one by the same path, another name, a bind mount, a mount namespace of its own, a loop device;
# a copy of a store that is open does not get at the original's arena, nor another version at one with another layout; and
# what a server or nbdkit has started, and lives longer, has nothing of the store.  (What is in the kernel yet when a process dies: test-late-io.py; a child that was
# forked and runs no other program: test-device-uring.c.)

source "${top_srcdir:-.}/tests/functions.sh"
PATH=$PATH:/usr/sbin:/sbin
requires_program qemu-io

# What waits for a lock waits for seconds: all of them at the same time.
# refused PATH TEXT [COMMAND...]: begins it; judged by all_refused.
refusals=()
refused ()
{
  local path=$1 text=$2 number=${#refusals[@]}
  shift 2
  "$@" "$LACUNA" serve "$path" -U "$tmp/second$number" --cache 80M --arena "$arena_dir/second$number" \
    --run true >"$tmp/refused$number" 2>&1 &
  refusals+=("$! $text")
}

all_refused ()
{
  local number status
  for number in "${!refusals[@]}"; do
    status=0
    wait "${refusals[number]%% *}" || status=$?
    cat "$tmp/refused$number"
    [ $status = 1 ] && grep -q "${refusals[number]#* }" "$tmp/refused$number" || fail "a second opener was not refused"
  done
  refusals=()
}

# has_nothing PID: of its descriptors none leads to the store, its arena, or the kernel's I/O.
has_nothing ()
{
  ! ls -l "/proc/$1/fd" | grep "$store\|$arena_dir/\|io_uring"
}

make_store disk 16M
start_server
qemu-io -f raw "$(uri disk)" -c "write -P 7 0 1M" >/dev/null

refused "$store" "another process has it open"
ln "$store" "$tmp/link"
refused "$tmp/link" "another process has it open"
ln -s "$store" "$tmp/symbolic"
refused "$tmp/symbolic" "another process has it open"
refused "/proc/$$/root$store" "another process has it open"
if unshare -m true 2>/dev/null; then
  touch "$tmp/bound"
  refused "$tmp/bound" "another process has it open" unshare -m sh -c "mount --bind '$store' '$tmp/bound'; exec \"\$@\"" sh
fi
# These have locks of their own; the arena has not.
cp "$store" "$tmp/copy"
refused "$tmp/copy" "copy of a store that is open"
if [ "$(id -u)" = 0 ] && device=$(losetup --find --show "$store" 2>/dev/null); then
  cleanup_fn losetup --detach "$device"
  refused "$device" "copy of a store that is open"
fi
all_refused

# holds PATTERN: what was acknowledged is there.
holds ()
{
  qemu-io -f raw "$(uri disk)" -c "read -P $1 0 1M" | tee "$tmp/output"
  ! grep -q "verification failed" "$tmp/output" || fail "what was acknowledged is lost"
}

# Nobody was disturbed.
holds 7
stop_server
"$LACUNA" check "$store"

# What --run has started may stay when the server ends, in order or not.
serve=("$LACUNA" serve "$store" --cache 80M --arena "$arena_dir/arena")
"${serve[@]}" -U "$sock" --run "sleep 1000 >/dev/null 2>&1 & echo \$! >'$tmp/sleeper'; qemu-io -f raw -c 'write -P 8 0 1M' \"\$uri\""
sleeper=$(cat "$tmp/sleeper")
cleanup_fn kill "$sleeper"
has_nothing "$sleeper"
start_server
stop_server

# What --run has started has done its part, and sleeps.
wait_for_child ()
{
  local deadline=$((SECONDS + 60))
  until [ -s "$tmp/child" ]; do
    [ $SECONDS -lt $deadline ] || fail "--run has not done anything after 60 s: $(cat "$tmp/run.out")"
    sleep 0.02
  done
  child=$(cat "$tmp/child")
}

# outlived PID: a process has been killed, and what it has started has not.
outlived ()
{
  wait_for_child
  kill -KILL "$1"
  wait "$1" || true
  kill -0 "$child"
  has_nothing "$child"
  start_server
  holds 9
  stop_server
  kill "$child"
  rm "$tmp/child"
}

# An arena of another version, with another layout, is not given up: nothing is changed, and that version takes it over.
start_server
qemu-io -f raw "$(uri disk)" -c "write -P 6 0 1M" >/dev/null
kill_server
sum=$(sha256sum <"$store")
printf 2 | dd of="$arena_dir/arena" bs=1 seek=7 conv=notrunc status=none
fails 1 "another version of lacuna has made it" "${serve[@]}" -U "$sock" --run true
[ "$(sha256sum <"$store")" = "$sum" ] || fail "what was refused has changed the store"
printf 1 | dd of="$arena_dir/arena" bs=1 seek=7 conv=notrunc status=none
start_server
holds 6
stop_server

run="unset LD_PRELOAD; qemu-io -f raw -c 'write -P 9 0 1M' \"\$uri\"; echo \$\$ >'$tmp/child.new'; mv '$tmp/child.new' '$tmp/child'; exec sleep 1000"
"${serve[@]}" -U "$sock" --run "$run" >"$tmp/run.out" 2>&1 &
outlived $!

# nbdkit runs the command in the parent, and serves in the child.
if command -v nbdkit >/dev/null && [ -e "$LACUNA_PLUGIN" ]; then
  nbdkit_command "$store" cache=80M arena="$arena_dir/arena" -P "$tmp/pid" -e disk -U "$tmp/nbdkit" --run "$run"
  rm -f "$tmp/pid"
  "${command[@]}" >"$tmp/run.out" 2>&1 &
  front=$!
  wait_for_child
  kill -KILL "$(cat "$tmp/pid")"
  has_nothing "$child"
  start_server
  holds 9
  stop_server
  kill "$child"
  wait "$front" || true
fi
