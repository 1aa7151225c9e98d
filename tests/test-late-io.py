#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A process that was killed has I/O under way in the kernel.  Nobody opens the store before that has ended, and nobody has
the arena that it fills and reads: not even by way of a copy of the store, which has another lock.

The I/O is held up by the kernel's throttling of a loop device for the server's control group: so it needs root, and
either version of control groups with the block device controller.
"""

import atexit
import os
import shutil
import subprocess
import sys
import time

import nbd
import harness
from harness import BLOCK, KIB, MIB, SKIP, Server, run_tests

os.environ["PATH"] += ":/usr/sbin:/sbin"
STALLED = 20                 # looks, 20 ms apart, at which nothing has moved


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIP)


class Throttle:
    """A control group whose I/O to one device can be stopped, and let go on."""

    def __init__(self, device):
        self.device = open(f"/sys/block/{os.path.basename(device)}/dev").read().strip()
        self.group = None
        homes = {names: path for _, names, path in (line.strip().split(":", 2) for line in open("/proc/self/cgroup"))}
        for line in open("/proc/mounts"):
            _, where, kind, options = line.split()[:4]
            name = f"{where}/lacuna-test-{os.getpid()}"
            try:
                if kind == "cgroup" and "blkio" in options.split(","):
                    self.home = where + next(path for names, path in homes.items() if "blkio" in names.split(","))
                    os.mkdir(name)
                    self.group, self.is_old = name, True
                    self.limits = [f"{name}/blkio.throttle.{which}_bps_device" for which in ("read", "write")]
                    open(self.limits[1]).close()
                    return
                if kind == "cgroup2" and "io" in open(f"{where}/cgroup.controllers").read().split():
                    self.home = where + homes[""]
                    with open(f"{where}/cgroup.subtree_control", "w") as file:
                        file.write("+io")
                    os.mkdir(name)
                    self.group, self.is_old = name, False
                    open(f"{name}/io.max").close()
                    return
            except OSError:
                self.remove()

    def __enter__(self):
        """What is started within is held up."""
        with open(f"{self.group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    def __exit__(self, *_):
        with open(f"{self.home}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    def _limit(self, value):
        if self.is_old:
            for name in self.limits:
                with open(name, "w") as file:
                    file.write(f"{self.device} {value}")
        else:
            with open(f"{self.group}/io.max", "w") as file:
                file.write(f"{self.device} rbps={value or 'max'} wbps={value or 'max'}")

    def hold(self):
        self._limit(1)

    def release(self):
        self._limit(0)

    def remove(self):
        deadline = time.monotonic() + 60
        while self.group:
            try:
                os.rmdir(self.group)
                self.group = None
            except OSError:
                assert time.monotonic() < deadline, "the control group is not empty"
                time.sleep(0.05)


def in_flight(pid):
    """How far the kernel is with each io_uring of a process that has something under way."""
    found = []
    directory = f"/proc/{pid}/fdinfo"
    for name in os.listdir(directory):
        try:
            lines = dict(line.split(":", 1) for line in open(f"{directory}/{name}") if ":" in line)
        except OSError:
            continue
        if "SqHead" in lines and int(lines["SqHead"]) != int(lines["CqTail"]):
            found.append((name, int(lines["SqHead"]), int(lines["CqTail"])))
    return sorted(found)


def wait_until_stalled(pid, count):
    """COUNT requests at least are in the kernel, and stay there."""
    deadline = time.monotonic() + 60
    before, looks = None, 0
    while looks < STALLED:
        now = in_flight(pid)
        looks = looks + 1 if now == before and sum(head - tail for _, head, tail in now) >= count else 0
        before = now
        assert time.monotonic() < deadline, f"the requests are not in flight: {now}"
        time.sleep(0.02)


def refused(server, texts):
    """`lacuna serve' of each path says so, and changes nothing."""
    tries = [(path, text, subprocess.Popen(
        [harness.LACUNA, "serve", path, "--cache", server.cache, "--arena", server.arena, "--run", "true", "-U", f"{path}.refused"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) for path, text in texts.items()]
    for path, text, process in tries:
        said = process.communicate()[0]
        assert process.returncode == 1 and text in said, (path, said)


def die_with_io(server, throttle):
    """The server ends with a commit, and reads, in the kernel.  The commit was not acknowledged; the writes were."""
    h = server.connect()
    h.pwrite(b"kept" * KIB, 0)
    h.flush()
    throttle.hold()
    h.pwrite(b"last" * KIB, BLOCK)
    h.aio_flush()
    buffers = [nbd.Buffer(BLOCK) for _ in range(4)]
    for i, buffer in enumerate(buffers):
        h.aio_pread(buffer, (41 + 2 * i) * MIB)
    h.poll(0)
    wait_until_stalled(server.pid, 5)
    server.kill()


def check_content(server):
    h = server.connect()
    for offset, expected in ((0, b"kept"), (BLOCK, b"last"), *(((40 + i) * MIB, b"cold") for i in range(10))):
        assert h.pread(BLOCK, offset) == expected * KIB, offset
    h.shutdown()


def live_and_die(server, throttle, has_copy):
    """One that dies, those that come too early, and one that goes on with all there is."""
    h = server.start().connect()
    for i in range(10):
        h.pwrite(b"cold" * KIB, (40 + i) * MIB)
    h.shutdown()
    server.stop()
    with throttle:
        server.start()                 # with nothing in the cache
    die_with_io(server, throttle)
    try:
        texts = {server.path: "another process has it open"}
        if has_copy:
            shutil.copyfile(server.path, f"{tmp}/copy")
            texts[f"{tmp}/copy"] = "another process uses it"
        refused(server, texts)
    finally:
        throttle.release()
    # What it had in the kernel comes over nothing that is newer.
    for _ in range(2):
        server.start()
        check_content(server)
        server.kill()
    server.start()
    check_content(server)
    server.stop()
    assert "as after a power cut" not in open(server.errors).read()


def loop_device(size):
    backing = f"{tmp}/backing"
    with open(backing, "wb") as file:
        file.truncate(size)
    result = subprocess.run(["losetup", "--find", "--show", backing], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        skip("needs a loop device")
    return result.stdout.strip()


def test_block_device():
    os.symlink(device, f"{tmp}/store0")
    live_and_die(Server({"disk": 64 * MIB}), throttle, False)


def test_file():
    subprocess.run(["mkfs.ext4", "-qF", device], check=True)
    os.mkdir(f"{tmp}/mounted")
    if subprocess.run(["mount", device, f"{tmp}/mounted"]).returncode != 0:
        print("skipped: nothing can be mounted here")
        return
    try:
        harness.tmp = f"{tmp}/mounted"
        live_and_die(Server({"disk": 64 * MIB}), throttle, True)
    finally:
        harness.tmp = tmp
        subprocess.run(["umount", "-l", f"{tmp}/mounted"], check=True)


if os.geteuid() != 0 or not shutil.which("losetup") or not shutil.which("mkfs.ext4"):
    skip("needs root, losetup and mkfs.ext4")
tmp = harness.tmp
device = loop_device(300 * MIB)
atexit.register(subprocess.run, ["losetup", "--detach", device])
throttle = Throttle(device)
atexit.register(throttle.remove)
if not throttle.group:
    skip("needs a control group that can throttle a block device")
run_tests(globals())
