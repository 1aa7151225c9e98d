#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A disk that is written from end to end, with 64 requests in flight in any order, is in few extents.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program nbdcopy jq

MiB=256
[ -z "${LACUNA_LONG:-}" ] || MiB=1024
make_store disk ${MiB}M
start_server
head -c ${MiB}M /dev/urandom >"$tmp/image"
nbdcopy --connections=1 --requests=64 --flush "$tmp/image" "$(uri disk)"
extents=$("$LACUNA" info "$store" disk --json | jq '.extents // .disks[0].extents')
echo "$MiB MiB in $extents extents"
[ "$extents" -le 16 ] || fail "more than 16 extents"
stop_server
