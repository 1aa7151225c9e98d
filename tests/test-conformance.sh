#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# All that the protocol demands; see `conformance', which runs against any server.

source "${top_srcdir:-.}/tests/functions.sh"

make_store disk 256M
"$LACUNA" create "$store" other 1M
start_server --resize
"$top_srcdir/tests/conformance" --strict --uri "nbd+unix:///disk?socket=$sock"
stop_server
"$top_srcdir/tests/make-certificates" "$tmp/certificates"
port=$(free_port)
start_server -p "$port" --tls on --tls-certificates "$tmp/certificates/server"
"$top_srcdir/tests/conformance" --strict --uri "nbd://127.0.0.1:$port/disk"
stop_server
start_server --readonly
"$top_srcdir/tests/conformance" --strict --uri "nbd+unix:///disk?socket=$sock" read_only read_only_error
stop_server
