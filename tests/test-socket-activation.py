#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A listening socket that comes from outside (LISTEN_FDS), as systemd passes it."""

import os
import socket
import sys

import nbd
import harness
from harness import MIB, Server, run_tests


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


run_tests(globals())
