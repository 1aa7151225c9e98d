#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Many simulated histories, with both: see many.sh.

kind=mixed
source "${top_srcdir:-.}/tests/many.sh"
