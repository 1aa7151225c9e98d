#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The same guest on a disk that nbdkit serves with the plugin.

front_end=plugin
source "${top_srcdir:-.}/tests/guest/test-guest-filesystems.sh"
