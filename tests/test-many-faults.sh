#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Many simulated histories, with faults of the device: see many.sh.

kind=faults
source "${top_srcdir:-.}/tests/many.sh"
