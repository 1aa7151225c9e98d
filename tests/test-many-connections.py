#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""As many connections as the server allows, with the limit of open files that a shell has: all are served, one more
is turned away, and the command line still gets its answer."""

import json
import resource
import socket
import struct
import sys

from harness import MIB, SKIP, Server, lacuna, run_tests

CONNECTIONS = 4096

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if hard < 2 * CONNECTIONS:
    print(f"skipped: only {hard} files may be open")
    sys.exit(SKIP)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
server = Server({"disk": MIB}).start()
resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CONNECTIONS, hard))


def get(client, length):
    data = b""
    while len(data) < length:
        piece = client.recv(length - len(data))
        if not piece:
            break
        data += piece
    return data


def connect():
    """A connection that has chosen the disk; None: it was turned away."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(server.sock)
    try:
        if not get(client, 18):
            return None
        client.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 4) + b"disk")
        assert len(get(client, 10)) == 10
    except ConnectionError:
        return None
    return client


def test_all():
    clients = [connect() for _ in range(CONNECTIONS)]
    assert None not in clients, f"{clients.count(None)} were turned away"
    assert connect() is None
    info = json.loads(lacuna("info", server.path, "disk", "--json"))
    assert info["connections"] == CONNECTIONS, info
    for client in clients:
        client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 16))
    for client in clients:
        assert get(client, 32)[4:] == struct.pack(">IQ", 0, 7) + bytes(16)
        client.close()


run_tests(globals())
server.stop()
