#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""growth.py - what grows with what: Lacuna alone, with more and more extents, connections and disks.

Nothing may grow by more than a logarithm but what is counted in extents: opening, memory, and a TRIM of all of them,
whose figures are per extent.  Costs are the server's CPU time, with server and client on one processor: the steadiest
figure that there is.

Writes RESULT.json, RESULT.txt (a table) and RESULT.svg.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import bench       # noqa: E402
import servers     # noqa: E402

KIB = 1024


class ManyExtents(servers.Lacuna):
    """Begins with extents of a block each and holes between them: mapped in memory, and not written, so that ten million
    take seconds (opening.c)."""

    def make(self, size):
        subprocess.run([os.path.join(self.bench.options.build, "tests/bench/opening"), self.file, str(size // (8 * KIB)),
                        "make"], check=True, stdout=subprocess.DEVNULL)


class Growth:
    def __init__(self, run):
        self.run = run
        self.figures = {}        # {figure: [(number, value)]}

    @contextlib.contextmanager
    def server(self, size, kind=servers.Lacuna):
        server = kind(self.run)
        server.cache = "128M"
        try:
            server.create(size)
            yield server
        finally:
            server.destroy()

    def note(self, figure, number, value):
        self.figures.setdefault(figure, []).append((number, value))
        print(f"{figure}: {number:,}: {value:.3g}", file=sys.stderr)

    def cost(self, server, *arguments):
        """Microseconds of the server's CPU per request; the least of three, as neighbours only add to it."""
        costs = []
        server.pin(self.run.processors("same")[0])
        for _ in range(3):
            before = server.cpu_seconds()
            result = self.run.load(server, *arguments, pin="same")
            costs.append((server.cpu_seconds() - before) * 1e6 / result["requests_in_all"])
        return min(costs)

    def empty(self):
        """Memory of a server that has nothing."""
        with self.server(1 << 20) as server:
            server.start("same")
            self.run.load(server, "-n", "1", "--zeros", "read")
            return server.memory()

    def extents(self, count):
        size = count * 8 * KIB
        empty = self.empty()
        with self.server(size, ManyExtents) as server:
            began = time.monotonic()
            server.start("same")
            self.run.load(server, "-n", "1", "--zeros", "read")
            opened = time.monotonic() - began
            if count >= 100_000:
                self.note("memory per extent, bytes", count, (server.memory() - empty) / count)
                self.note("opening, us per extent", count, opened * 1e6 / count)
            self.note("opening, ms", count, opened * 1e3)
            requests = ("-q", "32", "-l", str(size), "-n", "200000")
            self.note("READ 4k of no data, CPU us", count, self.cost(server, *requests, "--zeros", "read"))
            self.note("BLOCK_STATUS of one extent, CPU us", count,
                      self.cost(server, "-b", str(min(size, 4095 << 20)), "-n", str(min(2 * count, 50_000)), "--one",
                                "status"))
            self.note("WRITE_ZEROES 4k anywhere, CPU us", count,
                      self.cost(server, *requests[:-1], "50000", "--no-hole", "zeroes"))
            pieces = max(16, -(-size // (2 << 30)))  # a request has less than 4 GiB
            length = size // pieces // 4096 * 4096
            before = server.cpu_seconds()
            self.run.load(server, "-b", str(length), "-l", str(pieces * length), "-n", str(pieces), "--sequential",
                          "trim", pin="same")
            if count >= 100_000:
                self.note("TRIM of all, CPU us per extent", count, (server.cpu_seconds() - before) * 1e6 / count)

    def connections(self, count):
        with self.server(64 << 20) as server:
            server.start("same")
            self.run.load(server, "-b", "1m", "-q", "4", "-n", "64", "--sequential", "write")
            depth = max(1, 128 // count)
            self.note("READ 4k, 128 or one each in flight, CPU us", count,
                      self.cost(server, "-c", str(count), "-q", str(depth), "-n", "200000", "read"))
            self.note("memory with connections, MB", count, self.memory_with(server, count))

    def memory_with(self, server, count):
        """While they are there."""
        with self.run.background(server, "-c", str(count), "-r", "10", "-n", "10", "read"):
            time.sleep(0.7)
            return server.memory() / 1e6

    def disks(self, count):
        with self.server(64 << 20) as server:
            server.start("same")
            for number in range(1, count):
                subprocess.run([self.run.lacuna, "create", server.file, f"disk{number}", str(64 << 20)], check=True)
            server.stop()
            began = time.monotonic()
            server.start("same")
            self.run.load(server, "-n", "1", "--zeros", "read")
            self.note("opening with disks, ms", count, (time.monotonic() - began) * 1e3)
            self.note("memory with disks, MB", count, server.memory() / 1e6)
            self.run.load(server, "-b", "1m", "-q", "4", "-n", "64", "--sequential", "write")
            self.note("READ 4k QD32 among disks, CPU us", count, self.cost(server, "-q", "32", "-n", "200000", "read"))


# --- plots ---

WIDTH, HEIGHT, LEFT, TOP, COLUMNS = 320, 150, 16, 60, 3


def plot(x, y, figure, points):
    """The numbers on a scale of powers of ten, the values from zero on."""
    low, high = math.log10(points[0][0]), math.log10(max(points[-1][0], points[0][0] * 10))
    most = max(value for _, value in points) * 1.15 or 1
    at = [(x + 30 + (math.log10(number) - low) / (high - low) * (WIDTH - 70), y + HEIGHT - value / most * (HEIGHT - 34))
          for number, value in points]
    parts = [f'<text x="{x}" y="{y + 12}" class="title">{figure}</text>',
             f'<path d="M{x + 24} {y + 30}V{y + HEIGHT}H{x + WIDTH - 24}" class="axis"/>',
             '<path d="M' + "L".join(f"{px:.1f} {py:.1f}" for px, py in at) + '" class="line"/>']
    for (px, py), (number, value) in zip(at, points):
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>',
                  f'<text x="{px:.1f}" y="{py - 7:.1f}" class="value">{value:.3g}</text>',
                  f'<text x="{px:.1f}" y="{y + HEIGHT + 14}" class="value">{short(number)}</text>']
    return parts


def short(number):
    for letter, unit in ("M", 10**6), ("k", 10**3):
        if number >= unit:
            return f"{number / unit:g}{letter}"
    return str(number)


def write(name, machine, figures):
    about = f"{machine['date']}, Linux {machine['kernel']}, {machine['processors']} x {machine['processor']}, " \
            f"load {machine['load']:.1f}"
    with open(name + ".json", "w") as file:
        json.dump({"machine": machine, "figures": figures}, file, indent=1)
    lines = [about, ""]
    for figure, points in figures.items():
        lines.append(f"{figure:45}" + "".join(f"{short(number):>7}: {value:<8.3g}" for number, value in points))
    with open(name + ".txt", "w") as file:
        file.write("\n".join(lines) + "\n")
    parts = []
    for i, (figure, points) in enumerate(figures.items()):
        parts += plot(LEFT + i % COLUMNS * (WIDTH + 16), TOP + i // COLUMNS * (HEIGHT + 50), figure, points)
    width, height = LEFT + COLUMNS * (WIDTH + 16), TOP + -(-len(figures) // COLUMNS) * (HEIGHT + 50)
    with open(name + ".svg", "w") as file:
        file.write("\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
            "<style>text{font-family:sans-serif;font-size:10px;fill:#222}.title{font-weight:bold;font-size:13px}"
            ".value{fill:#666;text-anchor:middle}.axis{stroke:#999;fill:none}.head{font-size:18px;font-weight:bold}"
            ".line{stroke:#1b6ca8;stroke-width:2;fill:none}circle{fill:#1b6ca8}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            '<text x="16" y="26" class="head">Lacuna: what grows with what</text>',
            f'<text x="16" y="44">{about}</text>', *parts, "</svg>", ""]))
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description="Measures how Lacuna's costs grow.")
    parser.add_argument("--build", default=".", help="where it was built")
    parser.add_argument("--dir", default="/var/tmp", help="where disks are made")
    parser.add_argument("--extents", type=int, default=10_000_000, help="up to so many")
    parser.add_argument("--connections", type=int, default=1000, help="up to so many")
    parser.add_argument("--disks", type=int, default=1000, help="up to so many")
    parser.add_argument("--output", default="growth", help="RESULT: what is written is RESULT.json, .txt, .svg")
    options = parser.parse_args()
    options.quick, options.seconds, options.repeats = False, 1, 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    run = bench.Run(options)
    machine = bench.describe(run)
    growth = Growth(run)
    try:
        for measure, first, most in ((growth.extents, 1000, options.extents),
                                     (growth.connections, 1, options.connections),
                                     (growth.disks, 1, options.disks)):
            count = first
            while count <= most:
                measure(count)
                count *= 10
    finally:
        run.close()
        write(options.output, machine, growth.figures)


if __name__ == "__main__":
    main()
