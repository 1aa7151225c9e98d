#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""All commands at random over four connections, on a disk larger than the cache, against a model of every byte.

LACUNA_SEED=N makes the same choices again; LACUNA_SECONDS=N is how long (default 20, long variant 300).
"""

import os
import random

from harness import LONG, MIB, Server, run_tests
from load import Load

seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
seconds = float(os.environ.get("LACUNA_SECONDS", 300 if LONG else 20))
print(f"LACUNA_SEED={seed}", flush=True)


def test_random_load():
    server = Server({"disk": 128 * MIB}).start()
    load = Load(128 * MIB, seed)
    load.run(server.connect, seconds)
    print(load.counts)
    load.verify(server.connect())
    server.stop()
    server.start()
    load.verify(server.connect())
    server.stop()


run_tests(globals())
