#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What nbdinfo says of a server and its disks.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program nbdinfo jq

make_store first 1G
"$LACUNA" create "$store" "zweite Platte" 2T
start_server
server="nbd+unix://?socket=$sock"

same "$(nbdinfo --size "$(uri first)")" $((1 << 30))
same "$(nbdinfo --list --json "$server" | jq -c '[.exports[] | [.["export-name"], .["export-size"]]] | sort')" \
  "[[\"first\",$((1 << 30))],[\"zweite Platte\",$((2 << 40))]]"
for what in cache connect df fast-zero flush fua multi-conn read trim write zero; do
  nbdinfo --can $what "$(uri first)" || fail "it cannot $what"
done
not nbdinfo --is read-only "$(uri first)"
not nbdinfo --is rotational "$(uri first)"
same "$(nbdinfo --map --totals --json "$(uri first)" | jq -c '[.[] | [.size, .type]]')" "[[$((1 << 30)),3]]"
nbdinfo --json "$(uri first)" |
  jq -e '.exports[0] | .contexts == ["base:allocation", "qemu:allocation-depth"] and .block_size_minimum == 1 and .block_size_preferred == 4096
                       and .block_size_maximum == 33554432'
not nbdinfo "$(uri missing)" 2>"$tmp/err"
cat "$tmp/err"
stop_server

start_server --readonly
nbdinfo --is read-only "$(uri first)"
not nbdinfo --can write "$(uri first)"
stop_server
