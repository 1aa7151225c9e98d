#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench.py - Lacuna beside every peer, and the floor.

All servers take turns: each session (works.py) is run with every server before the next one, all sessions before any is
repeated, the order moves on by one each time, and what is reported are medians with minimum and maximum.  A short run of the
first session, which wakes the machine up, is thrown away.  A separate round counts system calls and context switches
with perf, which would disturb times.

Writes RESULT.json, RESULT.txt (a table) and RESULT.svg.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import report      # noqa: E402
import servers     # noqa: E402
import works       # noqa: E402


class Run:
    """One run of the benchmark: what the sessions call, and all results."""

    def __init__(self, options):
        build = os.path.abspath(options.build)
        self.options = options
        self.seconds = options.seconds
        self.directory = tempfile.mkdtemp(prefix="lacuna-bench-", dir=options.dir)
        self.lacuna = os.path.join(build, "server/lacuna")
        self.plugin = os.path.join(build, "plugin/.libs/nbdkit-lacuna-plugin.so")
        self.floor = os.path.join(build, "tests/bench/floor")
        self.client = os.path.join(build, "tests/bench/load")
        self.results = {}        # (work, pin) -> {"unit", "servers": {name: {"values", "cpu_us", ...}}}
        self.is_discarded = False
        self.is_counting = False
        self.last = {}

    # --- the machine ---

    def processors(self, pin):
        """Of the server, and of the client."""
        every = sorted(os.sched_getaffinity(0))
        if pin == "same" or (pin == "split" and len(every) == 1):
            return {every[0]}, {every[0]}
        if pin == "split":
            return {every[0]}, {every[1]}
        return set(every), set(every)

    def certificates(self):
        """A directory with what a TLS server needs, under the names that all of them look for."""
        directory = os.path.join(self.directory, "certificates")
        if not os.path.exists(directory):
            os.mkdir(directory)
            for name, subject, more in (
                    ("ca", "authority", ["-addext", "keyUsage=critical,keyCertSign"]),
                    ("server", "localhost", ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-addext",
                                             "basicConstraints=critical,CA:FALSE", "-addext",
                                             "keyUsage=critical,digitalSignature"])):
                subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                                "-nodes", "-subj", f"/CN={subject}", "-days", "2", "-keyout", f"{name}-key.pem",
                                "-out", f"{name}-cert.pem", *more], cwd=directory, check=True,
                               stderr=subprocess.DEVNULL)
        return directory

    def scale(self, amount):
        return amount if not self.options.quick else amount // 4 // 4096 * 4096

    # --- load ---

    def load(self, server, *arguments, pin="split"):
        processors = self.processors(pin)[1]
        result = subprocess.run([self.client, *server.where(), *arguments], stdout=subprocess.PIPE, timeout=300,
                                preexec_fn=lambda: os.sched_setaffinity(0, processors))
        if result.returncode != 0:
            raise RuntimeError(f"load {' '.join(arguments)} on {server.name} has failed")
        return json.loads(result.stdout)

    @contextlib.contextmanager
    def background(self, server, *arguments):
        process = subprocess.Popen([self.client, *server.where(), *arguments], stdout=subprocess.DEVNULL)
        yield
        if process.wait() != 0:
            raise RuntimeError(f"load {' '.join(arguments)} on {server.name} has failed")

    def measure(self, server, work, pin, unit, figure, *arguments, counts=True, reuse=None):
        """Puts a load on a server, and notes FIGURE (of the result) as WORK's.  REUSE: of that work's result."""
        if reuse and (reuse, pin) in self.last:
            self.note(server, work, unit, figure(self.last[reuse, pin]), pin)
            return
        if self.is_counting:
            if counts and not reuse:
                self.count(server, work, pin, *arguments)
            return
        if "-n" not in arguments:
            arguments = ("-t", str(self.seconds), "-w", str(self.seconds / 5), *arguments)
        server.pin(self.processors(pin)[0])
        before = server.cpu_seconds()
        result = self.load(server, *arguments, pin=pin)
        cpu = (server.cpu_seconds() - before) * 1e6 / max(result["requests_in_all"], 1)
        self.last[work, pin] = result
        self.note(server, work, unit, figure(result), pin, cpu_us=cpu, client_cpu_us=result["client_cpu_us"])

    def note(self, server, work, unit, value, pin="split", **more):
        if self.is_discarded or self.is_counting:
            return
        row = self.results.setdefault((work, pin), {"unit": unit, "servers": {}})
        of_server = row["servers"].setdefault(server.name if isinstance(server, servers.Server) else server,
                                              {"values": []})
        of_server["values"].append(value)
        for name, figure in more.items():
            of_server.setdefault(name, []).append(figure)

    def count(self, server, work, pin, *arguments):
        """System calls and context switches per request, of the server."""
        if (work, pin) not in self.results:
            return
        server.pin(self.processors(pin)[0])
        counted = os.path.join(self.directory, "counted")
        pids = ",".join(str(pid) for pid in servers.descendants(server.pid()))
        perf = subprocess.Popen(["perf", "stat", "-x", ",", "-o", counted, "-e",
                                 "raw_syscalls:sys_enter,context-switches", "-p", pids], stderr=subprocess.DEVNULL)
        time.sleep(0.2)
        result = self.load(server, *(arguments if "-n" in arguments else ("-t", str(self.seconds / 2), *arguments)), pin=pin)
        perf.send_signal(2)
        perf.wait()
        counts = {}
        for line in open(counted):
            fields = line.split(",")
            if len(fields) > 2 and fields[0].isdigit():
                counts[fields[2]] = int(fields[0]) / max(result["requests_in_all"], 1)
        found = self.results[work, pin]["servers"].get(server.name)
        if found is not None and counts:
            found["syscalls"] = counts.get("raw_syscalls:sys_enter")
            found["switches"] = counts.get("context-switches")

    def device(self, server, work, unit, figure, kind, *options):
        """What the device itself can do, on the same file: FIGURE of requests per second."""
        if self.is_counting or server.name != "nbdkit-file":
            return
        fio = subprocess.run(["fio", "--name=device", f"--filename={server.file}", f"--rw=rand{kind}", "--direct=1",
                              "--time_based", f"--runtime={max(1, round(self.seconds))}", "--output-format=json",
                              *options], stdout=subprocess.PIPE)
        if fio.returncode == 0:
            self.note("fio", work, unit, figure(json.loads(fio.stdout)["jobs"][0][kind]["iops"]))

    def image(self):
        """An ext4 image of 4 GiB with 1.3 GB of data."""
        path = os.path.join(self.directory, "image")
        if not os.path.exists(path):
            tree = os.path.join(self.directory, "tree")
            os.mkdir(tree)
            for number in range(130):
                with open(os.path.join(tree, str(number)), "wb") as file:
                    file.write(os.urandom(10_000_000))
            subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path, "4G"], check=True,
                           env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
            subprocess.run(["rm", "-r", tree], check=True)
            # The system is not to write it while others are measured.
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        return path

    # --- the whole ---

    def session(self, session, takes_part, number):
        everyone = [kind for kind in servers.ALL
                    if kind(self).version() and takes_part(kind)
                    and (not self.options.servers or kind.name in self.options.servers.split(","))]
        turn = number % len(everyone) if everyone else 0
        for kind in everyone[turn:] + everyone[:turn]:
            server = kind(self)
            began = time.monotonic()
            self.last = {}
            try:
                session(self, server)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                self.say(f"{session.__name__}: {error}")
            finally:
                server.destroy()
            self.say(f"{session.__name__} {number}{' (not counted)' if self.is_discarded else ''}"
                     f"{' (counting)' if self.is_counting else ''}: {kind.name}: {time.monotonic() - began:.1f} s")

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def run(self):
        """Round by round, so that what time there is not enough for is a repetition of all, not all of something."""
        began = time.monotonic()
        sessions = [(session, takes_part)
                    for session, takes_part in (works.QUICK_SESSIONS if self.options.quick else works.SESSIONS)
                    if not self.options.sessions or session.__name__ in self.options.sessions.split(",")]
        if not self.options.quick and sessions[0][0] is works.cached:
            self.is_discarded, seconds, self.seconds = True, self.seconds, 0.1
            self.session(*sessions[0], 0)
            self.is_discarded, self.seconds = False, seconds
        for number in range(self.options.repeats):
            for session, takes_part in sessions:
                if number > 0 and time.monotonic() - began > self.options.minutes * 60:
                    self.say(f"{session.__name__} {number}: left out, time is up")
                    continue
                self.session(session, takes_part, number)
        if self.options.count:
            self.is_counting = True
            for session, takes_part in sessions:
                if session in works.COUNTED_SESSIONS:
                    self.session(session, takes_part, 0)

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def describe(run):
    """What the figures are figures of."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "kernel": platform.release(),
        "processor": cpu,
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "seconds": run.options.seconds,
        "repeats": run.options.repeats,
        "versions": {kind.name: kind(run).version() for kind in servers.ALL if kind(run).version()},
    }


def main():
    parser = argparse.ArgumentParser(description="Measures Lacuna beside other NBD servers.")
    parser.add_argument("--build", default=".", help="where it was built")
    parser.add_argument("--dir", default="/var/tmp", help="where disks are made")
    parser.add_argument("--quick", action="store_true", help="the most telling works and servers only")
    parser.add_argument("--repeats", type=int, help="how often each session is run")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=20, help="after which nothing is repeated any more")
    parser.add_argument("--servers", help="only these, separated by commas")
    parser.add_argument("--sessions", help="only these, separated by commas")
    parser.add_argument("--no-count", dest="count", action="store_false", help="no round with perf")
    parser.add_argument("--output", default="bench", help="RESULT: what is written is RESULT.json, .txt, .svg")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.repeats = options.repeats or (2 if options.quick else 3)
    options.seconds = options.seconds or (0.25 if options.quick else 1.0)
    options.count = options.count and subprocess.run(
        ["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL).returncode == 0
    run = Run(options)
    machine = describe(run)
    began = time.monotonic()
    try:
        run.run()
    finally:
        run.close()
        machine["load at the end"] = os.getloadavg()[0]
        machine["took"] = time.monotonic() - began
        report.write(options.output, machine, run.results)


if __name__ == "__main__":
    main()
