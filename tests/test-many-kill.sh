#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Many simulated histories, whose process is killed: see many.sh.

kind=kill
source "${top_srcdir:-.}/tests/many.sh"
