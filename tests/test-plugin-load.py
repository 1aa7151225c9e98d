#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The random load of test-random-load.py through the plugin, whose requests come from sixteen threads for each connection;
kill -9 of nbdkit and of the server, each taking over from the other; and the two in turn, with `lacuna check' between.

LACUNA_SEED=N makes the same choices again; LACUNA_SECONDS=N is how long (default 5, long variant 300).
"""

import os
import random

from harness import LONG, MIB, Server, lacuna, require_plugin, run_tests
from load import Load

seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
seconds = float(os.environ.get("LACUNA_SECONDS", 300 if LONG else 5))
require_plugin()
print(f"LACUNA_SEED={seed}", flush=True)


def test_random_load():
    server = Server({"disk": 128 * MIB})
    server.front_end = "plugin"
    server.start()
    load = Load(128 * MIB, seed)
    load.run(server.connect, seconds, depth=16)
    print(load.counts)
    load.verify(server.connect())
    server.stop()
    server.start()
    load.verify(server.connect())
    server.stop()


def test_kill_and_take_over():
    rng = random.Random(seed)
    server = Server({"disk": 64 * MIB})
    load = Load(64 * MIB, seed)
    server.front_end = "plugin"
    server.start()
    for front_end in ["server", "plugin", "plugin"] * (20 if LONG else 1):
        load.run(server.connect, rng.uniform(0.1, 1.5), kill=server.kill)
        killed, server.front_end = server.front_end, front_end
        server.start()
        h = server.connect()
        settled = load.settle(h)
        load.verify(h)
        h.shutdown()
        print(f"{killed} killed, {front_end} took over: {settled} changes were in flight", flush=True)
    server.stop()
    lacuna("check", server.path)


def test_in_turn():
    server = Server({"disk": 32 * MIB})
    load = Load(32 * MIB, seed)
    for server.front_end in ["server", "plugin", "server"]:
        server.start()
        h = server.connect()
        load.verify(h)
        load.run(server.connect, 1)
        load.verify(h)
        h.shutdown()
        server.stop()
        lacuna("check", server.path)


run_tests(globals())
