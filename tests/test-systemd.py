#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What systemd is told, and the units that are installed for it."""

import os
import shutil
import signal
import socket
import subprocess

import harness
from harness import MIB, Server, run_tests, tmp
from wire import *

path = os.path.join(tmp, "notify")
messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
messages.bind(path)
messages.settimeout(60)


def message():
    return dict(line.split("=", 1) for line in messages.recv(4096).decode().split("\n") if line)


def wait_for(key):
    while key not in (found := message()):
        pass
    return found


def test_life():
    rules = os.path.join(tmp, "rules")
    with open(rules, "w") as file:
        file.write("write * any\n")
    server = Server({"one": MIB, "two": MIB}, "--access", rules)
    os.environ.update(NOTIFY_SOCKET=path, WATCHDOG_USEC="400000")
    server.start()
    del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
    assert message() == {"READY": "1", "STATUS": "2 disks, 0 connections"}
    c = Wire(f"nbd+unix:///one?socket={server.sock}")
    c.go()
    for _ in range(5):
        assert wait_for("WATCHDOG")["WATCHDOG"] == "1"
    while wait_for("STATUS")["STATUS"] != "2 disks, 1 connections":
        pass
    # One that hangs is not fed; one that goes on is.
    os.kill(server.pid, signal.SIGSTOP)
    messages.settimeout(1)
    try:
        while True:
            message()
    except TimeoutError:
        pass
    os.kill(server.pid, signal.SIGCONT)
    messages.settimeout(60)
    wait_for("WATCHDOG")
    os.kill(server.pid, signal.SIGHUP)
    assert int(wait_for("RELOADING")["MONOTONIC_USEC"]) > 0
    assert message()["READY"] == "1"
    server.process.terminate()
    wait_for("STOPPING")
    assert c.is_closed()
    assert server.process.wait(60) == 0
    server.process = None


def test_units():
    if not shutil.which("systemd-analyze"):
        print("no systemd-analyze: the units are not checked")
        return
    source = os.path.join(os.environ.get("top_srcdir", os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "server")
    bin = os.path.join(tmp, "bin")
    os.mkdir(bin)
    os.symlink(harness.LACUNA, os.path.join(bin, "lacuna"))
    units = os.path.join(tmp, "units")
    os.mkdir(units)
    with open(os.path.join(source, "lacuna@.service.in")) as unit, open(units + "/lacuna@x.service", "w") as out:
        out.write(unit.read().replace("@bindir@", bin))
    shutil.copy(os.path.join(source, "lacuna@.socket"), units + "/lacuna@x.socket")
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", units + "/lacuna@x.service", units + "/lacuna@x.socket"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = [line for line in result.stdout.splitlines() if units in line or "lacuna" in line]
    assert not said, result.stdout


run_tests(globals())
