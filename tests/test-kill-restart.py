#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""kill -9 in the middle of a random load, restart, again and again: every acknowledged request counts, flushed or not;
what was in flight is done or not, sector by sector.

LACUNA_SEED=N makes the same choices again; LACUNA_KILLS=N is how often (default 100, long variant 1000).
"""

import os
import random

from harness import LONG, MIB, Server, run_tests
from load import Load

seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
kills = int(os.environ.get("LACUNA_KILLS", 1000 if LONG else 100))
print(f"LACUNA_SEED={seed}", flush=True)


def test_kill_restart():
    rng = random.Random(seed)
    server = Server({"disk": 32 * MIB}).start()
    load = Load(32 * MIB, seed)
    for i in range(kills):
        load.run(server.connect, rng.uniform(0.02, 0.4), kill=server.kill)
        server.start()
        h = server.connect()
        settled = load.settle(h)
        load.verify(h)
        h.shutdown()
        print(f"kill {i}: {settled} changes were in flight, {sum(load.counts.values())} requests answered", flush=True)
    server.stop()
    server.start()
    load.verify(server.connect())
    server.stop()


run_tests(globals())
