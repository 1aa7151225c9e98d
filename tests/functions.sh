# SPDX-License-Identifier: BSD-2-Clause
# functions.sh - what the shell tests share.  Source it first:
#
#   source "${top_srcdir:-.}/tests/functions.sh"
#
# It gives a test its own directory ($tmp) on a disk, and one on tmpfs for arenas; both are removed
# when the test ends, and a server it still runs is killed then.  A test that passes ends with 0, one
# that cannot run here ends with 77 (skip), anything else is a failure.
#
# Variables that the caller of a test may set:
#   LACUNA            the program under test
#   LACUNA_PLUGIN     the nbdkit plugin under test
#   LACUNA_TEST_DIR   where $tmp is made (default /var/tmp); not tmpfs, or O_DIRECT is not tested
#   LACUNA_LONG       not empty: the long variant, with the sizes a release is judged by

set -euo pipefail

top_srcdir=${top_srcdir:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
top_builddir=${top_builddir:-$PWD}
LACUNA=${LACUNA:-$top_builddir/server/lacuna}
LACUNA_PLUGIN=${LACUNA_PLUGIN:-$top_builddir/plugin/.libs/nbdkit-lacuna-plugin.so}
export top_srcdir top_builddir LACUNA LACUNA_PLUGIN

tmp=$(mktemp -d "${LACUNA_TEST_DIR:-/var/tmp}/lacuna-test-XXXXXX")
arena_dir=$(mktemp -d /dev/shm/lacuna-test-XXXXXX)
store=$tmp/store
sock=$tmp/sock
server_pid=
front_end=${front_end:-server}  # what start_server starts: server, or plugin (nbdkit with it)
filters=()                      # plugin: --filter=NAME ..., and parameters of filters in filter_parameters
filter_parameters=()
cleanups=()

# cleanup_fn COMMAND ARGS...: run it when the test ends, however it ends; last in, first out.
cleanup_fn ()
{
  local quoted
  printf -v quoted '%q ' "$@"
  cleanups=("$quoted" "${cleanups[@]}")
}

run_cleanups ()
{
  local status=$? command
  trap - EXIT
  set +e
  for command in "${cleanups[@]}"; do
    eval "$command"
  done
  if [ -n "$server_pid" ]; then
    kill -KILL "$server_pid" 2>/dev/null
    wait "$server_pid" 2>/dev/null
  fi
  # Cannot be judged by exit status alone: a server that is killed on purpose may have said something before.
  if grep -qsE 'ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:' "$tmp"/server.err; then
    echo "a sanitizer found something" >&2
    [ "$status" = 0 ] && status=1
  fi
  if [ "$status" != 0 ] && [ "$status" != 77 ] && [ -s "$tmp/server.err" ]; then
    echo "--- what the server said ---" >&2
    tail -n 100 "$tmp/server.err" >&2
  fi
  rm -rf "$tmp" "$arena_dir"
  exit "$status"
}
trap run_cleanups EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

skip ()
{
  echo "skipped: $*"
  exit 77
}

fail ()
{
  echo "FAILED: $*" >&2
  exit 1
}

# requires COMMAND ARGS...: skip the test unless it succeeds.
requires ()
{
  "$@" >/dev/null 2>&1 || skip "needs: $*"
}

# requires_program NAME...
requires_program ()
{
  local name
  for name; do
    command -v "$name" >/dev/null || skip "needs the program $name"
  done
}

# uri DISK: where start_server serves it.
uri ()
{
  echo "nbd+unix:///$1?socket=$sock"
}

requires_plugin ()
{
  requires_program nbdkit
  [ -e "$LACUNA_PLUGIN" ] || skip "needs the plugin, which was not built (Debian: nbdkit-plugin-dev)"
}

# nbdkit itself knows nothing of the sanitizer that the plugin was built with: it is loaded before it, with a library that
# wakes it up in time (tests/sanitizer-first.c).
plugin_preload ()
{
  local sanitizer
  sanitizer=$(ldd "$LACUNA_PLUGIN" | sed -n 's/.*lib[at]san[^ ]* => \([^ ]*\).*/\1/p')
  [ -z "$sanitizer" ] || echo "$sanitizer:$top_builddir/tests/.libs/sanitizer-first.so"
}

# nbdkit_command ARGUMENTS...: sets `command' to what runs nbdkit with the plugin and these arguments, in one process.
nbdkit_command ()
{
  command=(env LD_PRELOAD="$(plugin_preload)" LSAN_OPTIONS="suppressions=$top_srcdir/tests/nbdkit.supp:print_suppressions=0"
    nbdkit "${filters[@]}" "$LACUNA_PLUGIN" "$@")
}

# make_store DISK SIZE: a new store with one disk.
make_store ()
{
  "$LACUNA" init "$store"
  "$LACUNA" create "$store" "$1" "$2"
}

# start_server OPTIONS...: serve $store, on $sock unless OPTIONS name a port; come back when it is ready.
# OPTIONS are those of the front end; both understand --readonly and --threads N.
start_server ()
{
  local where=(-U "$sock") option command
  for option; do
    case $option in
      -p | --port | -p?* | --port=*) where=() ;;
    esac
  done
  rm -f "$tmp/pid"
  if [ $front_end = server ]; then
    command=("$LACUNA" serve "$store" --cache "${cache:-80M}" --arena "$arena_dir/arena")
  else
    rm -f "$sock"
    nbdkit_command -f "$store" cache="${cache:-80M}" arena="$arena_dir/arena" "${filter_parameters[@]}"
  fi
  "${command[@]}" "${where[@]}" -P "$tmp/pid" "$@" >>"$tmp/server.out" 2>>"$tmp/server.err" &
  server_pid=$!
  wait_for_server
}

wait_for_server ()
{
  local deadline=$((SECONDS + 60))
  # nbdkit listens and writes the file before it opens the store: a client waits then, but a command would not.
  until [ -s "$tmp/pid" ] && { [ $front_end = server ] || [ ${#where[@]} = 0 ] ||
                                 nbdinfo --list "nbd+unix://?socket=$sock" >/dev/null 2>&1; }; do
    if ! kill -0 "$server_pid" 2>/dev/null; then
      wait "$server_pid" || true
      server_pid=
      fail "the server ended before it was ready"
    fi
    [ $SECONDS -lt $deadline ] || fail "the server is not ready after 60 s"
    sleep 0.02
  done
}

# As a user would: everything is durable, and the exit status is 0.
stop_server ()
{
  local status=0
  # Once nbdkit is told to end, it forgets connections that it has not closed yet, which look like a leak.
  if [ $front_end = plugin ]; then
    until [ "$("$LACUNA" stat "$store" --json | jq .counters.server_connections)" = 0 ]; do
      sleep 0.02
    done
  fi
  kill -TERM "$server_pid"
  wait "$server_pid" || status=$?
  server_pid=
  [ $status = 0 ] || fail "the server ended with status $status"
}

# As the kernel would.  The arena stays, for the next start_server to take over.
kill_server ()
{
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# not COMMAND...: it must fail (`set -e' does not see what `!' turns round).
not ()
{
  if "$@"; then
    fail "should not succeed: $*"
  fi
}

# same GOT EXPECTED
same ()
{
  [ "$1" = "$2" ] || fail "got \`$1', not \`$2'"
}

# fails STATUS TEXT COMMAND...: it ends with this status, and says TEXT (a basic regular expression) on stderr.
fails ()
{
  local status=$1 text=$2 got=0
  shift 2
  "$@" >"$tmp/fails.out" 2>"$tmp/fails.err" || got=$?
  if [ "$got" != "$status" ]; then
    cat "$tmp/fails.err" >&2
    fail "\`$*' ended with status $got, not $status"
  fi
  if ! grep -q -- "$text" "$tmp/fails.err"; then
    cat "$tmp/fails.err" >&2
    fail "\`$*' did not say \`$text'"
  fi
}

# allocated FILE: bytes that the host has given to it.
allocated ()
{
  echo $(($(stat -c '%b * %B' "$1")))
}

# free_port: a TCP port that nobody listens on.
free_port ()
{
  /usr/bin/python3 -c 'import socket; s = socket.socket (); s.bind (("127.0.0.1", 0)); print (s.getsockname ()[1])'
}
