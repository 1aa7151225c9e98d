#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Many simulated histories, whose power is cut: see many.sh.

kind=power
source "${top_srcdir:-.}/tests/many.sh"
