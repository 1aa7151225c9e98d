#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A listening socket that comes from outside (LISTEN_FDS), as systemd passes it."""

import os
import shutil
import socket
import subprocess

import harness
from harness import MIB, Server, run_tests, tmp
from wire import *


def test_socket_activation():
    server = Server({"disk": 64 * MIB})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(server.sock)
    listener.listen(5)
    # The client is first: it waits in the queue until the server takes over.
    pid = os.fork()
    if pid == 0:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        try:
            os.execv(harness.LACUNA, [harness.LACUNA, "serve", server.path, "--cache", "80M", "--arena", server.arena])
        finally:
            os._exit(127)
    listener.close()
    try:
        h = server.connect()
        h.pwrite(b"x" * 512, 0)
        assert h.pread(512, 0) == b"x" * 512
        h.shutdown()
    finally:
        os.kill(pid, 15)
        status = os.waitpid(pid, 0)[1]
    assert status == 0, status


def activate(server, listeners, *options):
    """systemd's own program: it listens, and becomes the server when the first client comes."""
    command = ["systemd-socket-activate", *(f"--listen={path}" for path in listeners), *options]
    command += [part for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LD_LIBRARY_PATH") if name in os.environ for part in ("-E", name)]
    process = subprocess.Popen([*command, harness.LACUNA, "serve", server.path, "--cache", "80M", "--arena", server.arena],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for path in listeners:
        while not os.path.exists(path):
            assert process.poll() is None, process.stdout.read()
    return process


def test_systemd_socket_activate():
    if not shutil.which("systemd-socket-activate"):
        print("no systemd-socket-activate: systemd's own program is not tried")
        return
    server = Server({"disk": MIB})
    paths = [os.path.join(tmp, name) for name in ("first", "second")]
    process = activate(server, paths, "--fdname=first:second")
    for path in paths:
        c = Wire(f"nbd+unix:///disk?socket={path}")
        assert c.go()[-1][0] == ACK and c.write(0, path.encode()) == 0 and c.read(0, len(path)) == path.encode()
        c.close()
    process.terminate()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert said.count("ready: nbd+unix:///?socket=") == 2 and all(path in said for path in paths), said
    assert all(os.path.exists(path) for path in paths), "the sockets are systemd's"
    # What cannot be listened on is named as its unit names it.
    journal = os.path.join(tmp, "journal")
    process = activate(server, [journal], "--datagram", "--fdname=journal")
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(journal)
    s.send(b"hello")
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "descriptor 3 (journal) is not a listening socket" in said, said


run_tests(globals())
