#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# lacuna check --repair: says what it would do and asks; changes nothing without a yes; then the
# store is clean.  (What can be repaired, block by block: tests/sim/test-rot.c.)

source "${top_srcdir:-.}/tests/functions.sh"

# damage PLACE: most of a sector of that block
damage ()
{
  printf 'rot%.0s' {1..100} | dd of="$store" bs=1 seek=$(($1 * 4096 + 128)) conv=notrunc status=none
}

# expect STATUS COMMAND...: and keeps what it printed
expect ()
{
  local want=$1 status=0
  shift
  "$@" >"$tmp/output" 2>&1 || status=$?
  if [ "$status" -ne "$want" ]; then
    cat "$tmp/output"
    echo "FAIL: $* ended with $status, not $want"
    exit 1
  fi
}

"$LACUNA" init "$store"
"$LACUNA" create "$store" a 1G
"$LACUNA" create "$store" b 64M

expect 0 "$LACUNA" check "$store" --repair
expect 2 "$LACUNA" check "$store" --yes
expect 2 "$LACUNA" check "$store" --json --repair

# One copy: what it had is in the other.
damage 0
expect 1 "$LACUNA" check "$store"
before=$(sha256sum "$store")
expect 1 "$LACUNA" check "$store" --repair </dev/null
grep -q "^repair: superblock copy at place 0" "$tmp/output"
grep -q "nothing was changed" "$tmp/output"
expect 1 "$LACUNA" check "$store" --repair <<<"no"
[ "$before" = "$(sha256sum "$store")" ]
expect 0 "$LACUNA" check "$store" --repair <<<"yes"
expect 0 "$LACUNA" check "$store"

# Both copies of all nodes: the disks are given up, which is said first.
half=$(od -An -tu8 -j88 -N8 "$store" | tr -d ' ')
for place in {4..12}; do
  damage "$place"
  damage $((place + half / 2))
done
expect 1 "$LACUNA" list "$store"
expect 0 "$LACUNA" check "$store" --repair --yes </dev/null
grep -q "^drop: catalogue root .*disks with ids 1 to 2 are lost" "$tmp/output"
expect 0 "$LACUNA" list "$store" --json
[ "$(tr -d '[:space:]' <"$tmp/output")" = "[]" ]
expect 0 "$LACUNA" create "$store" c 1M
