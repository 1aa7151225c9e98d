# SPDX-License-Identifier: BSD-2-Clause
"""The servers that are compared: how each is started on a new disk, and what it costs while it runs.

A server is started for a disk of a size, on a Unix socket or a TCP port, pinned to processors as the measurement wants
it, and stopped.  What it stores lies in a directory of its own, which is removed with it.
"""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


def descendants(pid):
    """The process PID and all that came from it."""
    found = [pid]
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            for child in open(task).read().split():
                found += descendants(int(child))
        except OSError:
            pass
    return found


def process_stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def version_of(*command):
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    except OSError:
        return None
    found = re.search(r"\d+\.\d+[.\d]*", said)
    return found.group() if found else "?"


class Server:
    """One of the servers; a class for each, which says how it is started."""

    name = None
    stores = True            # what it is given is there when it starts again
    trims = True             # TRIM and WRITE_ZEROES mean something
    has_status = True
    speaks_tls = True        # with certificates in a directory
    cache = "1G"             # Lacuna's, for what follows

    def __init__(self, bench):
        self.bench = bench
        self.process = None
        self.directory = None
        self.port = None
        self.certificates = None

    def version(self):
        """None: it is not installed."""
        raise NotImplementedError

    def make(self, size):
        """Makes a new disk."""

    def command(self, size):
        """The command that serves it, in the foreground."""
        raise NotImplementedError

    def export(self):
        return ""

    # --- running ---

    def create(self, size, prefix=None):
        """A new disk, nothing served yet."""
        # What is left of the one before, blocks to be discarded to begin with, is not this one's to wait for.
        os.sync()
        self.size = size
        self.directory = tempfile.mkdtemp(prefix=f"lacuna-bench-{self.name}-", dir=self.bench.directory)
        self.socket = os.path.join(self.directory, "socket")
        self.file = os.path.join(self.directory, "disk")
        self.make(size)

    def start(self, pin="free", tcp=False, certificates=None):
        """CERTIFICATES: a directory; TLS is required."""
        self.port = free_port() if tcp else None
        self.certificates = certificates
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.log = open(os.path.join(self.directory, "log"), "w")
        self.process = subprocess.Popen(self.command(self.size), stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, cwd=self.directory,
                                        preexec_fn=lambda: os.sched_setaffinity(0, self.bench.processors(pin)[0]))
        self.wait()

    def wait(self):
        deadline = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended: {open(self.log.name).read()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start")
            time.sleep(0.002)

    def answers(self):
        with socket.socket(socket.AF_INET if self.port else socket.AF_UNIX) as probe:
            try:
                probe.connect(("127.0.0.1", self.port) if self.port else self.socket)
                return True
            except OSError:
                return False

    def pid(self):
        return self.process.pid

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
            self.log.close()

    def destroy(self):
        self.stop()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.directory = None

    def where(self):
        """Arguments of load that lead here."""
        place = ["-p", str(self.port)] if self.port else ["-u", self.socket]
        return [*place, "-e", self.export(), *(["--tls"] if self.certificates else [])]

    def uri(self):
        if self.port:
            return f"nbd://127.0.0.1:{self.port}/{self.export()}"
        return f"nbd+unix:///{self.export()}?socket={self.socket}"

    # --- what it costs ---

    def pin(self, processors):
        for pid in descendants(self.pid()):
            for task in glob.glob(f"/proc/{pid}/task/*"):
                try:
                    os.sched_setaffinity(int(os.path.basename(task)), processors)
                except OSError:      # it has ended
                    pass

    def cpu_seconds(self):
        """Of all its processes and threads, those that have ended too."""
        ticks = 0
        for pid in descendants(self.pid()):
            try:
                stat = process_stat(pid)
                ticks += sum(int(field) for field in (stat[11:15] if pid == self.pid() else stat[11:13]))
            except OSError:
                pass
        return ticks / TICK

    def memory(self):
        """Resident bytes, without what is shared: neither the page cache counts, nor an arena."""
        total = 0
        for pid in descendants(self.pid()):
            try:
                for line in open(f"/proc/{pid}/status"):
                    if line.startswith(("RssAnon:", "RssFile:")):
                        total += int(line.split()[1]) * 1024
            except OSError:
                pass
        return total

    def allocated(self):
        """Bytes that the host has given to the disk's file."""
        return os.stat(self.file).st_blocks * 512

    def forget_pages(self):
        """The page cache lets go of the disk's file."""
        fd = os.open(self.file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class Lacuna(Server):
    name = "lacuna"

    def version(self):
        return version_of(self.bench.lacuna, "--version")

    def make(self, size):
        subprocess.run([self.bench.lacuna, "init", self.file], check=True)
        subprocess.run([self.bench.lacuna, "create", self.file, "disk", str(size)], check=True)

    def command(self, size):
        place = ["-p", str(self.port)] if self.port else ["-U", self.socket]
        tls = ["--tls", "require", "--tls-certificates", self.certificates] if self.certificates else []
        return [self.bench.lacuna, "serve", self.file, *place, "--cache", self.cache, "--arena", self.arena(), *tls]

    def arena(self):
        return f"/dev/shm/{os.path.basename(self.directory)}.arena"

    def destroy(self):
        arena = self.directory and self.arena()
        super().destroy()
        if arena and os.path.exists(arena):
            os.unlink(arena)

    def export(self):
        return "disk"


def nbdkit_tls(certificates):
    return ["--tls=require", f"--tls-certificates={certificates}"] if certificates else []


class LacunaNbdkit(Lacuna):
    name = "lacuna-nbdkit"

    def version(self):
        return version_of(self.bench.lacuna, "--version") if os.path.exists(self.bench.plugin) else None

    def command(self, size):
        place = ["-i", "127.0.0.1", "-p", str(self.port)] if self.port else ["-U", self.socket]
        return ["nbdkit", "-f", *place, *nbdkit_tls(self.certificates), self.bench.plugin, self.file, "disk=disk",
                f"cache={self.cache}", f"arena={self.arena()}"]


class NbdkitFile(Server):
    name = "nbdkit-file"
    plugin = "file"

    def version(self):
        return version_of("nbdkit", "--version")

    def make(self, size):
        with open(self.file, "wb") as file:
            file.truncate(size)

    def command(self, size):
        place = ["-i", "127.0.0.1", "-p", str(self.port)] if self.port else ["-U", self.socket]
        return ["nbdkit", "-f", *place, *nbdkit_tls(self.certificates), self.plugin, self.argument(size)]

    def argument(self, size):
        return self.file


class NbdkitMemory(NbdkitFile):
    name = "nbdkit-memory"
    plugin = "memory"
    stores = False

    def make(self, size):
        pass

    def argument(self, size):
        return str(size)


class QemuNbd(Server):
    name = "qemu-nbd"
    image_format = "raw"
    options = ()

    def version(self):
        return version_of("qemu-nbd", "--version")

    def make(self, size):
        subprocess.run(["qemu-img", "create", "-q", "-f", self.image_format, self.file, str(size)], check=True)

    def command(self, size):
        place = ["-b", "127.0.0.1", "-p", str(self.port)] if self.port else ["-k", self.socket]
        tls = ["--object", f"tls-creds-x509,id=tls0,endpoint=server,verify-peer=no,dir={self.certificates}",
               "--tls-creds", "tls0"] if self.certificates else []
        return ["qemu-nbd", "-t", "-e", "64", *place, *tls, "-f", self.image_format, "--discard=unmap", *self.options,
                self.file]


class QemuNbdDirect(QemuNbd):
    name = "qemu-nbd-direct"
    options = ("--cache=none", "--aio=io_uring")


class QemuNbdQcow2(QemuNbd):
    name = "qemu-nbd-qcow2"
    image_format = "qcow2"


class NbdServer(Server):
    """Forks a process for each connection, and goes to the background."""

    name = "nbd-server"
    has_status = False
    speaks_tls = False

    def version(self):
        return version_of("nbd-server", "--version")

    def make(self, size):
        with open(self.file, "wb") as file:
            file.truncate(size)

    def command(self, size):
        self.pidfile = os.path.join(self.directory, "pid")
        config = os.path.join(self.directory, "config")
        with open(config, "w") as file:
            file.write("[generic]\nallowlist = true\n")
            file.write(f"listenaddr = 127.0.0.1\nport = {self.port}\n" if self.port else
                       f"unixsock = {self.socket}\nlistenaddr = 127.0.0.1\nport = {free_port()}\n")
            file.write(f"[disk]\nexportname = {self.file}\nflush = true\nfua = true\ntrim = true\n")
        return ["nbd-server", "-C", config, "-p", self.pidfile]

    def export(self):
        return "disk"

    def wait(self):
        self.process.wait()
        deadline = time.monotonic() + 60
        while not self.answers() or not os.path.exists(self.pidfile):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start: {open(self.log.name).read()}")
            time.sleep(0.002)
        self.daemon = int(open(self.pidfile).read())

    def pid(self):
        return self.daemon

    def stop(self):
        if not self.process:
            return
        for pid in descendants(self.daemon):
            try:
                os.kill(pid, signal.SIGTERM)
            except OSError:
                pass
        deadline = time.monotonic() + 60
        while os.path.exists(f"/proc/{self.daemon}") and process_stat(self.daemon)[0] != "Z" \
                and time.monotonic() < deadline:
            time.sleep(0.01)
        self.process = None
        self.log.close()


class Floor(Server):
    """No server: what the sockets cost."""

    name = "floor"
    stores = trims = has_status = speaks_tls = False

    def version(self):
        return "-"

    def command(self, size):
        place = ["-p", str(self.port)] if self.port else ["-u", self.socket]
        return [self.bench.floor, *place, str(size)]


ALL = (Lacuna, LacunaNbdkit, QemuNbd, QemuNbdDirect, QemuNbdQcow2, NbdkitFile, NbdkitMemory, NbdServer, Floor)
