#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# fio writes at random over several connections, 16 requests deep, trims, and verifies the checksum of every block.

source "${top_srcdir:-.}/tests/functions.sh"
requires_program fio
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"

size=${LACUNA_LONG:+1g}
make_store disk 2G
start_server
fio --output="$tmp/fio" --ioengine=nbd --uri="$(uri disk)" --iodepth=16 --size="${size:-64m}" --group_reporting \
  --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed="${LACUNA_SEED:-$RANDOM}" \
  --name=small --offset=0 --rw=randwrite --bs=4k \
  --name=mixed --offset=512m --rw=randwrite --bsrange=512-128k --bs_unaligned=0 --blockalign=512 --norandommap=0 \
  --name=long --offset=1g --rw=write --bs=1m || { cat "$tmp/fio"; fail "fio"; }
cat "$tmp/fio"
fio --output="$tmp/fio" --ioengine=nbd --uri="$(uri disk)" --iodepth=16 --size=64m \
  --name=trim --rw=randtrimwrite --bs=64k --name=read --rw=randread --bs=8k || { cat "$tmp/fio"; fail "fio with trim"; }
stop_server
