#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every interleaving of a few small scenarios, on the real engine.

source "${top_srcdir:-.}/tests/functions.sh"
"$top_builddir/tests/explorer/explorer"
