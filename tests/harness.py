# SPDX-License-Identifier: BSD-2-Clause
"""What the Python tests share: a store in a directory of its own, a server on it, libnbd handles to it.

Everything is removed, and the server killed, when the test ends.  functions.sh says which variables a caller may set;
they mean the same here.
"""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SKIP = 77

try:
    import nbd
except ImportError:
    print("skipped: needs libnbd for /usr/bin/python3 (Debian: python3-libnbd)")
    sys.exit(SKIP)

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
BLOCK = 4096

top_builddir = os.environ.get("top_builddir", os.getcwd())
LACUNA = os.environ.get("LACUNA", os.path.join(top_builddir, "server/lacuna"))
PLUGIN = os.environ.get("LACUNA_PLUGIN", os.path.join(top_builddir, "plugin/.libs/nbdkit-lacuna-plugin.so"))
LONG = bool(os.environ.get("LACUNA_LONG"))

tmp = tempfile.mkdtemp(prefix="lacuna-test-", dir=os.environ.get("LACUNA_TEST_DIR", "/var/tmp"))
arena_dir = tempfile.mkdtemp(prefix="lacuna-test-", dir="/dev/shm")
_servers = []


def _clean_up():
    for server in _servers:
        server.kill()
        server.judge()
    shutil.rmtree(tmp, ignore_errors=True)
    shutil.rmtree(arena_dir, ignore_errors=True)


atexit.register(_clean_up)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: sys.exit(128 + number))


def lacuna(*arguments, status=0):
    """Runs the program; returns what it wrote to stdout."""
    result = subprocess.run([LACUNA, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != status:
        raise AssertionError(f"lacuna {' '.join(arguments)}: status {result.returncode}: {result.stderr}")
    return result.stdout


def require_plugin():
    if not shutil.which("nbdkit") or not os.path.exists(PLUGIN):
        print("skipped: needs nbdkit, and the plugin, which is built where nbdkit is (Debian: nbdkit-plugin-dev)")
        sys.exit(SKIP)


def plugin_environment(plugin=PLUGIN):
    """nbdkit itself knows nothing of the sanitizer that the plugin was built with: see tests/sanitizer-first.c."""
    libraries = subprocess.run(["ldd", plugin], stdout=subprocess.PIPE, text=True, check=True).stdout
    sanitizer = re.search(r"lib[at]san\S* => (\S+)", libraries)
    preload = f"{sanitizer[1]}:{top_builddir}/tests/.libs/sanitizer-first.so" if sanitizer else ""
    suppressions = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nbdkit.supp")
    return {**os.environ, "LD_PRELOAD": preload, "LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0"}


class Server:
    """A store with disks {name: size in bytes}, and a server on it: `lacuna serve', or nbdkit with the plugin."""

    front_end = "server"     # or "plugin"; what start starts
    program, plugin = LACUNA, PLUGIN

    def __init__(self, disks, *options, cache="80M", capacity=None):
        self.path = os.path.join(tmp, f"store{len(_servers)}")
        self.sock = self.path + ".sock"
        self.pidfile = self.path + ".pid"
        self.errors = self.path + ".err"
        self.arena = os.path.join(arena_dir, f"arena{len(_servers)}")
        self.options = options
        self.cache = cache
        self.process = None
        lacuna("init", self.path, *(["--capacity", capacity] if capacity else []))
        for name, size in disks.items():
            lacuna("create", self.path, name, str(size))
        _servers.append(self)

    def start(self, *options):
        if os.path.exists(self.pidfile):
            os.unlink(self.pidfile)
        environment = None
        if self.front_end == "server":
            command = [self.program, "serve", self.path, "--cache", self.cache, "--arena", self.arena]
        else:
            if os.path.exists(self.sock):
                os.unlink(self.sock)
            command = ["nbdkit", "-f", self.plugin, self.path, f"arena={self.arena}"]
            command += [f"cache={self.cache}"] if self.cache else []
            environment = plugin_environment(self.plugin)
        with open(self.errors, "a") as errors:
            self.process = subprocess.Popen(
                [*command, "-U", self.sock, "-P", self.pidfile, *self.options, *options],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=environment)
        deadline = time.monotonic() + 60
        while not (os.path.exists(self.pidfile) and os.path.getsize(self.pidfile)):
            assert self.process.poll() is None, "the server ended before it was ready"
            assert time.monotonic() < deadline, "the server is not ready after 60 s"
            time.sleep(0.01)
        self.pid = int(open(self.pidfile).read())
        return self

    def _wait_for_connections(self):
        """Once nbdkit is told to end, it forgets connections that it has not closed yet, which look like a leak."""
        deadline = time.monotonic() + 60
        while json.loads(lacuna("stat", self.path, "--json"))["counters"]["server_connections"] > 0:
            assert time.monotonic() < deadline, "nbdkit has not closed its connections after 60 s"
            time.sleep(0.01)

    def stop(self):
        if self.front_end == "plugin":
            self._wait_for_connections()
        self.process.terminate()
        status = self.process.wait(120)
        self.process = None
        assert status == 0, f"the server ended with status {status}"

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def last_words(self):
        with open(self.errors) as errors:
            return ([""] + errors.readlines())[-1]

    def judge(self):
        """The exit status of a killed server tells nothing of what a sanitizer found before."""
        said = open(self.errors).read() if os.path.exists(self.errors) else ""
        if said:
            sys.stderr.write(f"--- what the server said ---\n{said[-8000:]}")
        if re.search("ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:", said):
            sys.stderr.write("a sanitizer found something\n")
            sys.stderr.flush()
            shutil.rmtree(tmp, ignore_errors=True)
            shutil.rmtree(arena_dir, ignore_errors=True)
            os._exit(1)

    def connect(self, disk="disk", structured=True, contexts=(nbd.CONTEXT_BASE_ALLOCATION,), strict=False):
        h = nbd.NBD()
        h.set_export_name(disk)
        h.set_request_structured_replies(structured)
        for context in contexts:
            h.add_meta_context(context)
        if not strict:
            h.set_strict_mode(0)
        h.connect_unix(self.sock)
        return h

    def ticks(self):
        """Of the processor's time, what the server has taken."""
        return sum(map(int, open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]))

    def allocated(self):
        return os.stat(self.path).st_blocks * 512

    def status(self, field):
        """A number of /proc/PID/status (kB) or /proc/PID/io (bytes) of the server."""
        for name in ("status", "io"):
            for line in open(f"/proc/{self.pid}/{name}"):
                if line.startswith(field + ":"):
                    return int(line.split()[1])
        raise KeyError(field)


def error_of(function, *arguments):
    """The errno text that FUNCTION fails with, None if it does not fail."""
    try:
        function(*arguments)
    except nbd.Error as error:
        return error.errno or str(error)
    return None


def extents_of(h, offset, length, flags=0, context=nbd.CONTEXT_BASE_ALLOCATION):
    """[(length, flags)] as one BLOCK_STATUS answers."""
    found = []

    def callback(name, at, entries, error):
        if name == context:
            found.extend(zip(entries[::2], entries[1::2]))
        return 0

    h.block_status(length, offset, callback, flags)
    return found


def all_extents_of(h, offset, length):
    """[(offset, length, flags)], neighbours with the same flags merged, exactly the range."""
    merged = []
    end = offset + length
    while offset < end:
        for size, flags in extents_of(h, offset, min(end - offset, 2 * GIB)):
            size = min(size, end - offset)
            if size == 0:
                continue
            if merged and merged[-1][2] == flags:
                merged[-1] = (merged[-1][0], merged[-1][1] + size, flags)
            else:
                merged.append((offset, size, flags))
            offset += size
    return merged


def run_tests(names):
    """Runs every function test_* of a module's globals ()."""
    for name, function in list(names.items()):
        if name.startswith("test_"):
            start = time.monotonic()
            function()
            print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
