# SPDX-License-Identifier: BSD-2-Clause
# The commands but for serve: what they do, the same with and without a server, and what they refuse.
# A refused command leaves everything as it was.

source "${top_srcdir:-.}/tests/functions.sh" || exit 1
requires_program "$LACUNA" flock /usr/bin/python3

lacuna ()
{
  "$LACUNA" "$@"
}

# refused TEXT COMMAND...: status 1, TEXT on stderr behind the store's name, and nothing changed.
refused ()
{
  local text=$1 before after
  shift
  before=$(lacuna list "$store" --json)
  fails 1 "$text" "$LACUNA" "$@"
  grep -q "^lacuna: $2: " "$tmp/fails.err" || fail "\`$*' does not name the store"
  [ "$(wc -l <"$tmp/fails.err")" = 1 ] || fail "\`$*' says more than one line"
  after=$(lacuna list "$store" --json)
  [ "$before" = "$after" ] || fail "\`$*' changed something"
}

names ()
{
  lacuna list "$store" | tail -n +2 | awk '{ print $1 }' | paste -sd ' '
}

# json COMMAND... -- EXPRESSION: what the Python expression gives for its output, as `d`.
json ()
{
  local command=()
  while [ "$1" != -- ]; do
    command+=("$1")
    shift
  done
  lacuna "${command[@]}" --json | /usr/bin/python3 -c "import json, sys; d = json.load (sys.stdin); print ($2)"
}

equal ()
{
  [ "$1" = "$2" ] || fail "\`$1', not \`$2'"
}

check_usage ()
{
  local command
  equal "$(lacuna --version | cut -d ' ' -f 1)" lacuna
  lacuna --help | grep -q '^Usage: lacuna'
  for command in init create list info map resize rename delete punch collapse-range insert-range clone-range check stat serve; do
    lacuna --help | grep -q "^  $command " || fail "--help does not name $command"
    lacuna $command --help | grep -q "lacuna $command" || fail "$command --help"
  done
  fails 2 Usage "$LACUNA"
  fails 2 'unknown command' "$LACUNA" frobnicate
  fails 2 'unknown option' "$LACUNA" --frobnicate
  for command in init create list info map resize rename delete punch collapse-range insert-range clone-range check stat; do
    fails 2 missing "$LACUNA" $command
    fails 2 'too many' "$LACUNA" $command "$store" 1 2 3 4 5 6
    fails 2 'unknown option' "$LACUNA" $command "$store" --frobnicate
  done
  fails 2 'unknown option' "$LACUNA" create "$store" new 1G --shrink
  fails 2 'needs a value' "$LACUNA" init "$tmp/new" --capacity
  fails 2 'needs a value' "$LACUNA" insert-range "$store" disk 0 4K --request-id
  fails 2 'takes no value' "$LACUNA" list "$store" --json=yes
  [ ! -e "$tmp/new" ]
}

# Every kind of answer once, in both ways.
check_commands ()
{
  local where
  lacuna create "$store" one 1G
  lacuna create "$store" two 8192
  lacuna create "$store" 'drei ä' 4K
  equal "$(json list "$store" -- '[x["name"] for x in d]')" "['drei ä', 'one', 'two']"
  equal "$(json list "$store" -- '[x["size"] for x in d]')" '[4096, 1073741824, 8192]'
  lacuna list "$store" | grep -q '^one *1 GiB *0 B$'
  equal "$(json info "$store" -- 'd["disks"]')" 3
  equal "$(json info "$store" one -- 'd["name"], d["size"], d["allocated"], d["connections"]')" \
    'one 1073741824 0 0'
  lacuna info "$store" | grep -q '^disks: *3$'
  lacuna info "$store" one | grep -q '^size: *1 GiB (1073741824 bytes)$'
  equal "$(json map "$store" one -- d)" "[{'offset': 0, 'length': 1073741824, 'type': 'hole'}]"
  equal "$(lacuna map "$store" one | tail -n +2 | xargs)" '0 1073741824 hole'
  lacuna resize "$store" one +1G
  equal "$(json info "$store" one -- 'd["size"]')" 2147483648
  lacuna resize "$store" one -512M --shrink
  equal "$(json info "$store" one -- 'd["size"]')" 1610612736
  lacuna resize "$store" one 8E --shrink 2>/dev/null && fail '8 EiB'
  lacuna resize "$store" one 9223372036854771712
  equal "$(json map "$store" one -- 'd[0]["length"]')" 9223372036854771712
  lacuna resize "$store" one --shrink -- -9223372036854767616
  equal "$(json info "$store" one -- 'd["size"]')" 4096
  lacuna rename "$store" two zwei
  lacuna punch "$store" zwei 1 8190
  lacuna delete "$store" 'drei ä'
  equal "$(names)" 'one zwei'
  equal "$(json stat "$store" -- 'sorted (d)')" "['counters', 'server', 'store']"
  equal "$(json stat "$store" -- 'd["store"]["mode"]')" ok
  equal "$(json info "$store" -- 'd["mode"]')" ok
  where=$(json stat "$store" -- 'd["server"]["pid"]')
  equal "$where" "${server_pid:-None}"
  lacuna delete "$store" one
  lacuna delete "$store" zwei
  equal "$(names)" ''
}

check_names ()
{
  local long
  long=$(printf '%0255d' 0)
  lacuna create "$store" disk 1M
  lacuna create "$store" "$long" 1M
  lacuna delete "$store" "$long"
  lacuna create "$store" -- -disk 1M
  lacuna delete "$store" -- -disk
  refused 'empty' create "$store" '' 1M
  refused 'longer' create "$store" "0$long" 1M
  refused 'UTF-8' create "$store" $'\xff\xfe' 1M
  refused 'UTF-8' create "$store" $'\xed\xa0\x80' 1M
  refused 'control' create "$store" $'a\nb' 1M
  refused 'exists\|taken\|already' create "$store" disk 2M
  refused 'empty' rename "$store" disk ''
  refused 'UTF-8' rename "$store" disk $'\xff'
  lacuna create "$store" other 1M
  refused 'exists\|taken\|already' rename "$store" disk other
  lacuna delete "$store" other
  for command in info map delete; do
    refused 'no disk' $command "$store" nobody
  done
  refused 'no disk' resize "$store" nobody 1G
  refused 'no disk' rename "$store" nobody somebody
  refused 'no disk' punch "$store" nobody 0 4096
  refused 'no disk' collapse-range "$store" nobody 0 4096
  refused 'empty' map "$store" ''
  lacuna delete "$store" disk
}

check_sizes ()
{
  local size
  lacuna create "$store" disk 1M
  for size in 0 0K; do
    refused 'greater than zero' create "$store" new $size
    refused 'greater than zero' resize "$store" disk $size --shrink
  done
  refused 'negative' create "$store" new -4096
  for size in '' ten 1.5G 1Q 1GG 0x1000 ' 4096' 4096B +4096 1e9; do
    refused "SIZE \"$size\": " create "$store" new "$size"
  done
  refused '8K$' create "$store" new 4097
  refused '4K$' create "$store" new 1
  refused '1M$' resize "$store" disk 1048575 --shrink
  for size in 8E 9223372036854775807 9223372036854775808 16E 99999999999999999999999; do
    refused 'too large' create "$store" new $size
    refused 'too large' resize "$store" disk $size
  done
  refused 'too large' resize "$store" disk +9223372036854771712
  refused 'cannot shrink by that much' resize "$store" disk -1M --shrink
  refused 'cannot shrink by that much' resize "$store" disk -2M --shrink
  refused '--shrink' resize "$store" disk 4096
  refused '--shrink' resize "$store" disk -4096
  refused '"": ' resize "$store" disk +
  refused 'greater than zero' punch "$store" disk 0 0
  refused 'beyond' punch "$store" disk 0 1048577
  refused 'beyond' punch "$store" disk 1048577 1
  refused 'beyond' punch "$store" disk 18446744073709551615 18446744073709551615
  refused 'negative' punch "$store" disk -1 4096
  refused 'OFFSET' punch "$store" disk x 4096
  refused 'LENGTH' punch "$store" disk 0 x
  lacuna delete "$store" disk
}

# COMMAND must fail on the store at $1 with TEXT $2, for each command, and leave the file as it was.
check_store ()
{
  local path=$1 text=$2 before command
  before=$(md5sum "$path" 2>/dev/null || true)
  for command in list info stat 'create DISK 1M' 'delete DISK' 'map DISK' 'punch DISK 0 4096' 'insert-range DISK 0 4K'; do
    set -- $command
    fails 1 "^lacuna: $path: .*\($text\)" "$LACUNA" "$1" "$path" "${@:2}"
  done
  fails 1 "\($text\)" "$LACUNA" serve "$path" -U "$sock"
  equal "$(md5sum "$path" 2>/dev/null || true)" "$before"
}

check_stores ()
{
  local path=$tmp/other
  check_store "$path" 'No such file'
  fails 2 '' "$LACUNA" check "$path"
  : >"$path"
  check_store "$path" 'not a .*store\|no store\|empty'
  head -c 1000000 /dev/urandom >"$path"
  check_store "$path" 'not a .*store\|no store'
  fails 2 '' "$LACUNA" check "$path"
  fails 1 'exists\|not empty' "$LACUNA" init "$path"
  fails 1 'directory\|neither\|not a' "$LACUNA" list "$tmp"
  fails 1 'No such file' "$LACUNA" init "$tmp/nowhere/store"
  fails 1 'exists\|already' "$LACUNA" init "$store"
  rm "$path"
  fails 1 'greater than zero' "$LACUNA" init "$path" --capacity 0
  fails 1 'negative' "$LACUNA" init "$path" --capacity -1G
  fails 1 'not a size' "$LACUNA" init "$path" --capacity much
  fails 1 . "$LACUNA" init "$path" --capacity 4096
  fails 1 'less than 16 PiB' "$LACUNA" init "$path" --capacity 16P
  [ ! -e "$path" ] || fail 'a refused init left a file'
  lacuna init "$path" --capacity 1G
  equal "$(json info "$path" -- 'd["capacity"] <= 1 << 30')" True
  lacuna check "$path"

  # Open elsewhere, by something that has no control socket.
  flock --no-fork -x "$path" sleep 60 &
  local holder=$!
  while flock -n "$path" true; do
    kill -0 $holder
  done
  fails 1 'control socket' "$LACUNA" list "$path"
  fails 1 'open' "$LACUNA" serve "$path" -U "$sock"
  fails 2 '' "$LACUNA" check "$path"
  kill $holder
  wait $holder || true

  cp --sparse=always "$path" "$path.copy"
  local length
  for length in 20000 12288 5000 4096; do
    truncate -s $length "$path.copy"
    check_store "$path.copy" damaged
  done
  # A newer format, and an unknown feature: sealed as a future version would.
  reseal "$path" 16 '<I' 99
  check_store "$path" 'newer\|version'
  fails 2 '' "$LACUNA" check "$path"
  reseal "$path" 16 '<I' 1
  reseal "$path" 24 '<Q' 0x4000
  check_store "$path" 'feature'
  reseal "$path" 24 '<Q' 0
  lacuna list "$path"
}

# reseal STORE OFFSET FORMAT VALUE: sets a field of all superblocks that there are, with a right checksum.
reseal ()
{
  /usr/bin/python3 - "$@" <<'END'
import ctypes, struct, sys
hash64 = ctypes.CDLL ("libxxhash.so.0").XXH3_64bits_withSeed
hash64.restype = ctypes.c_uint64
hash64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
path, offset, form, value = sys.argv[1], int (sys.argv[2]), sys.argv[3], int (sys.argv[4], 0)
with open (path, "r+b") as store:
    for place in range (4):
        store.seek (place * 4096)
        block = bytearray (store.read (4096))
        if block[:6] != b"LACUNA":
            continue
        struct.pack_into (form, block, offset, value)
        block[8:16] = bytes (8)
        block[8:16] = struct.pack ("<Q", hash64 (bytes (block), 4096, 0))
        store.seek (place * 4096)
        store.write (block)
END
}

# A read-only file system: what only reads works, the rest says what is wrong.
check_read_only ()
{
  if [ "$(id -u)" != 0 ] || ! unshare -m true 2>/dev/null; then
    echo 'not root: no read-only file system'
    return
  fi
  lacuna create "$store" disk 1M
  export -f fails fail
  export store tmp LACUNA
  # The file system that holds the store, bound to itself read-only, in a mount namespace of its own.
  unshare -m bash -euc '
    mount --bind "$tmp" "$tmp"
    mkdir -p "$tmp/out"
    mount -t tmpfs tmpfs "$tmp/out"
    mount -o remount,bind,ro "$tmp"
    cd "$tmp/out"
    ro=$tmp
    tmp=$tmp/out
    "$LACUNA" list "$store" | grep -q "^disk "
    "$LACUNA" info "$store" disk | grep -q "^size:"
    "$LACUNA" map "$store" disk | grep -q hole
    fails 1 "[Rr]ead-only" "$LACUNA" create "$store" new 1M
    fails 1 "[Rr]ead-only" "$LACUNA" delete "$store" disk
    fails 1 "[Rr]ead-only" "$LACUNA" init "$ro/new"
  '
  rmdir "$tmp/out"
  lacuna delete "$store" disk
}

lacuna init "$store"
check_usage
for with_server in false true; do
  if $with_server; then
    start_server
  fi
  check_commands
  check_names
  check_sizes
  if $with_server; then
    fails 2 'serves it' "$LACUNA" check "$store"
    fails 1 'open' "$LACUNA" serve "$store" -U "$tmp/sock2"
    stop_server
  fi
  lacuna check "$store"
done
check_stores
check_read_only
lacuna check "$store"
