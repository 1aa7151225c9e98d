#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# All that the protocol demands; see `conformance', which runs against any server.

source "${top_srcdir:-.}/tests/functions.sh"

make_store disk 256M
"$LACUNA" create "$store" other 1M
start_server --resize
"$top_srcdir/tests/conformance" --strict --uri "nbd+unix:///disk?socket=$sock"
stop_server
port=$(free_port)
start_server -p "$port"
"$top_srcdir/tests/conformance" --strict --uri "nbd://127.0.0.1:$port/disk"
stop_server
