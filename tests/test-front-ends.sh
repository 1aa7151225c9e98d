#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Real clients do the same to the server and to nbdkit with the plugin, and see the same.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program qemu-img nbdcopy nbdinfo jq
requires_plugin

make_image ()
{
  /usr/bin/python3 -c '
import random, sys
rng = random.Random (7)
with open (sys.argv[1], "wb") as image:
    image.truncate (128 << 20)
    for _ in range (60):
        image.seek (rng.randrange (0, (128 << 20) - (1 << 20)))
        image.write (rng.randbytes (rng.randrange (1, 1 << 19)))
' "$tmp/image"
}

types ()
{
  nbdinfo --map --json "$1" | jq -c '[.[] | [.offset, .length, .type]]'
}

check_info ()
{
  local server="nbd+unix://?socket=$sock" what
  same "$(nbdinfo --size "$(uri one)")" $((128 << 20))
  same "$(nbdinfo --list --json "$server" | jq -c '[.exports[] | [.["export-name"], .["export-size"]]] | sort')" \
    "[[\"one\",$((128 << 20))],[\"zwei Platten\",$((2 << 40))]]"
  for what in cache connect df fast-zero flush fua multi-conn read trim write zero; do
    nbdinfo --can $what "$(uri one)" || fail "it cannot $what"
  done
  not nbdinfo --is read-only "$(uri one)"
  not nbdinfo --is rotational "$(uri one)"
  nbdinfo --json "$(uri one)" |
    jq -e '.exports[0] | (.contexts | index ("base:allocation") != null) and .block_size_minimum == 1
                         and .block_size_preferred == 4096 and .block_size_maximum == 33554432' >/dev/null
  same "$(types "$(uri zwei%20Platten)")" "[[0,$((2 << 40)),3]]"
  not nbdinfo "$(uri missing)" 2>"$tmp/err"
  not nbdinfo "$server" 2>"$tmp/err"
}

check_copies ()
{
  qemu-img convert -n -f raw -O raw "$tmp/image" "$(uri one)"
  qemu-img convert -f raw -O raw "$(uri one)" "$tmp/copy"
  cmp "$tmp/image" "$tmp/copy"
  types "$(uri one)" >"$tmp/map.$front_end"
  nbdcopy --connections=4 --flush "$tmp/image" "$(uri one)"
  nbdcopy --connections=4 "$(uri one)" "$tmp/copy"
  cmp "$tmp/image" "$tmp/copy"
  rm "$tmp/copy"
}

check_fio ()
{
  if ! fio --enghelp 2>/dev/null | grep -qw nbd; then
    echo "no fio with an nbd engine: left out"
    return
  fi
  fio --output="$tmp/fio" --ioengine=nbd --uri="$(uri one)" --iodepth=16 --size=16m --group_reporting \
    --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed="${LACUNA_SEED:-$RANDOM}" \
    --name=small --offset=0 --rw=randwrite --bs=4k \
    --name=mixed --offset=32m --rw=randwrite --bsrange=512-128k --bs_unaligned=0 --blockalign=512 --norandommap=0 \
    --name=long --offset=64m --rw=write --bs=1m || { cat "$tmp/fio"; fail "fio"; }
}

make_image
for front_end in server plugin; do
  rm -f "$store"
  make_store one 128M
  "$LACUNA" create "$store" "zwei Platten" 2T
  start_server
  check_info
  check_copies
  check_fio
  stop_server
  "$LACUNA" check "$store"
  start_server --readonly
  nbdinfo --is read-only "$(uri one)"
  not nbdinfo --can write "$(uri one)"
  stop_server
done
cmp "$tmp/map.server" "$tmp/map.plugin" || fail "the two tell different maps of the same image"
