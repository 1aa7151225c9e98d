#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""kill -9 in the middle of a random load on two disks, restart, again and again: every acknowledged request counts,
flushed or not; what was in flight is done or not, sector by sector.

  test-kill-restart.py [--kills N] [--with PATH]... [--append FILE]

Who goes on after a kill is drawn from the server, and each --with: another build's server, or a plugin (a name that ends
with .so), which nbdkit serves.  --append: a line for each kill is added to FILE, and those that are there count, so that a
long run can be interrupted, and goes on.

LACUNA_SEED=N makes the same choices again; LACUNA_KILLS=N is how often (default 100, long variant 1000).
"""

import argparse
import os
import random
import re
import time

from harness import LACUNA, LONG, MIB, Server, run_tests
from load import Load

parser = argparse.ArgumentParser()
parser.add_argument("--kills", type=int, default=int(os.environ.get("LACUNA_KILLS", 1000 if LONG else 100)))
parser.add_argument("--with", action="append", default=[], dest="others")
parser.add_argument("--append")
options = parser.parse_args()
LINE = re.compile(r"kill: .*, (\d+) changes were in flight, (\d+) requests answered$")

done = []
if options.append and os.path.exists(options.append):
    done = [line for line in open(options.append) if LINE.match(line)]
seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
print(f"LACUNA_SEED={seed}", flush=True)


def tell(line):
    print(line, flush=True)
    if options.append:
        with open(options.append, "a") as file:
            file.write(line + "\n")
    done.append(line)


class Storm:
    """A server that changes, and a load for each of its disks."""

    def __init__(self, sizes):
        self.rng = random.Random(seed)
        self.server = Server(sizes)
        self.loads = {disk: Load(size, f"{seed} {disk}") for disk, size in sizes.items()}
        self.answered = 0
        self.start()

    def start(self):
        self.who = self.rng.choice([LACUNA, *options.others])
        self.server.front_end = "plugin" if self.who.endswith(".so") else "server"
        self.server.program = self.server.plugin = self.who
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.server.start()
            except AssertionError:
                # Earlier versions do not wait until the kernel has given up the arena of who was killed.
                if self.who not in options.others or "another process uses it" not in self.server.last_words():
                    raise
                assert time.monotonic() < deadline, "the arena is still in use"

    def run(self):
        """Until it is killed."""
        for disk, load in self.loads.items():
            load.begin(lambda disk=disk: self.server.connect(disk))
        time.sleep(self.rng.uniform(0.02, 0.4))
        for load in self.loads.values():
            load.expect_kill()
        self.server.kill()
        for load in self.loads.values():
            load.end()

    def verify(self):
        settled = 0
        for disk, load in self.loads.items():
            h = self.server.connect(disk)
            settled += load.settle(h)
            load.verify(h)
            h.shutdown()
        answered = sum(sum(load.counts.values()) for load in self.loads.values())
        before, self.answered = self.answered, answered
        return settled, answered - before


def test_kill_restart():
    storm = Storm({"disk": 32 * MIB, "other": 8 * MIB})
    while len(done) < options.kills:
        before = storm.who
        storm.run()
        storm.start()
        settled, answered = storm.verify()
        tell(f"kill: {before} then {storm.who}, {settled} changes were in flight, {answered} requests answered")
    storm.server.stop()
    storm.start()
    storm.verify()
    storm.server.stop()
    found = [[int(number) for number in LINE.match(line).groups()] for line in done]
    print(f"sum: {len(found)} kills, {sum(answered for _, answered in found)} requests answered,"
          f" {sum(settled for settled, _ in found)} changes were in flight, 0 violations")


run_tests(globals())
