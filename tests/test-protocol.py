#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The protocol byte by byte, where libnbd would never go: options out of order, EXPORT_NAME with its zeros, unknown
commands, many requests in one piece, one request in many pieces, clients that vanish."""

import socket
import struct

from harness import BLOCK, KIB, MIB, Server, run_tests

SIZE = 64 * MIB
server = Server({"disk": SIZE}).start()

OPTION_MAGIC = 0x49484156454F5054
ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR_UNSUP, ERR_INVALID, ERR_UNKNOWN = (1 << 31) + 1, (1 << 31) + 3, (1 << 31) + 6
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, 8, 9, 10
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
EINVAL = 22


class Raw:
    def __init__(self, flags=3):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(server.sock)
        assert self.get(16) == b"NBDMAGICIHAVEOPT"
        assert struct.unpack(">H", self.get(2)) == (3,)
        self.put(struct.pack(">I", flags))

    def get(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            assert piece, "the server closed the connection"
            data += piece
        return data

    def put(self, data):
        self.socket.sendall(data)

    def is_closed(self):
        try:
            while self.socket.recv(4096):
                pass
            return True
        except ConnectionResetError:
            return True

    def option(self, number, data=b""):
        """[(type, data)], up to the last reply."""
        self.put(struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.get(20))
            assert magic == 0x3E889045565A9 and option == number, (hex(magic), option)
            replies.append((kind, self.get(length)))
            if kind == ACK or kind >> 31:
                return replies

    def go(self, name=b"disk", infos=(), number=GO):
        return self.option(number, struct.pack(">I", len(name)) + name
                           + struct.pack(f">H{len(infos)}H", len(infos), *infos))

    def meta(self, number, *queries, name=b"disk"):
        data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
        for query in queries:
            data += struct.pack(">I", len(query)) + query
        return self.option(number, data)

    def request(self, command, offset, length, flags=0, cookie=7, payload=b""):
        self.put(request(command, offset, length, flags, cookie) + payload)

    def simple(self, length=0):
        """(cookie, error, data)"""
        magic, error, cookie = struct.unpack(">IIQ", self.get(16))
        assert magic == 0x67446698, hex(magic)
        return cookie, error, b"" if error else self.get(length)

    def chunk(self):
        """(cookie, flags, type, data)"""
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.get(20))
        assert magic == 0x668E33EF, hex(magic)
        return cookie, flags, kind, self.get(length)


def request(command, offset, length, flags=0, cookie=7):
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length)


def test_options():
    c = Raw()
    assert c.option(99, b"what is this")[0][0] == ERR_UNSUP
    assert c.option(4)[0][0] == ERR_UNSUP
    assert c.option(LIST, b"x")[0][0] == ERR_INVALID
    assert c.option(LIST) == [(REP_SERVER, struct.pack(">I", 4) + b"disk"), (ACK, b"")]
    assert c.meta(SET_META, b"base:allocation")[0][0] == ERR_INVALID, "before STRUCTURED_REPLY"
    assert c.option(STRUCTURED_REPLY, b"x")[0][0] == ERR_INVALID
    assert c.option(STRUCTURED_REPLY) == [(ACK, b"")]
    assert c.go(b"nothing")[0][0] == ERR_UNKNOWN
    assert c.option(GO, b"short")[0][0] == ERR_INVALID
    assert c.meta(LIST_META)[0] == (REP_META, struct.pack(">I", 0) + b"base:allocation")
    assert c.meta(LIST_META, b"base:")[0][1][4:] == b"base:allocation"
    assert c.meta(LIST_META, b"qemu:") == [(ACK, b"")]
    assert c.meta(SET_META, b"other:context") == [(ACK, b"")]
    assert c.meta(SET_META, b"base:allocation", b"other:context")[0][1][4:] == b"base:allocation"
    first = c.go(infos=(3, 99), number=INFO)
    again = c.go(infos=(3, 99))
    assert first == again and again[-1] == (ACK, b"")
    infos = {struct.unpack(">H", data[:2])[0]: data for kind, data in again if kind == REP_INFO}
    assert struct.unpack(">HQ", infos[0][:10]) == (0, SIZE)
    assert struct.unpack(">HIII", infos[3]) == (3, 1, 4096, 32 * MIB)
    c.request(READ, 0, 512)
    assert c.chunk()[0] == 7


def test_abort():
    c = Raw()
    assert c.option(ABORT) == [(ACK, b"")]
    assert c.is_closed()


def test_export_name():
    for flags, zeroes in ((1, 124), (3, 0)):
        c = Raw(flags)
        c.put(struct.pack(">QII", OPTION_MAGIC, EXPORT_NAME, 4) + b"disk")
        assert struct.unpack(">Q", c.get(8)) == (SIZE,)
        c.get(2)
        assert c.get(zeroes) == bytes(zeroes)
        c.request(READ, 0, 512, cookie=99)
        assert c.simple(512) == (99, 0, bytes(512))
    c = Raw()
    c.put(struct.pack(">QII", OPTION_MAGIC, EXPORT_NAME, 7) + b"nothing")
    assert c.is_closed()
    c = Raw(0x80)
    assert c.is_closed(), "unknown client flags"


def test_go_without_zeroes():
    c = Raw(1)
    assert c.go()[-1] == (ACK, b"")
    c.request(READ, 0, 1)
    assert c.simple(1) == (7, 0, b"\0")


def test_unknown_commands():
    c = Raw()
    c.go()
    for command in (99, 0xFFFF):
        c.request(command, 0, 512)
        assert c.simple()[:2] == (7, EINVAL)
    c.request(WRITE, 0, 4, flags=0x4000, payload=b"lost")
    assert c.simple()[:2] == (7, EINVAL)
    c.request(READ, 0, 4)
    assert c.simple(4) == (7, 0, bytes(4))


def test_errors_of_read_are_structured():
    c = Raw()
    c.option(STRUCTURED_REPLY)
    c.go()
    for offset, length, flags in ((SIZE, 1, 0), (SIZE - 1, 2, 0), (0, 1, 2), (1 << 63, 1, 0), ((1 << 64) - 1, 2, 0)):
        c.request(READ, offset, length, flags)
        cookie, chunk_flags, kind, data = c.chunk()
        assert (cookie, chunk_flags, kind >> 15) == (7, 1, 1), (offset, length, flags)
        error, size = struct.unpack(">IH", data[:6])
        assert error == EINVAL and len(data) < 1000 and data[6:6 + size].decode().strip(), data
    c.request(READ, 0, 4)
    assert c.chunk()[0] == 7


def test_in_one_piece():
    c = Raw()
    c.go()
    c.put(b"".join(request(WRITE, i * BLOCK, BLOCK, cookie=i) + bytes([i]) * BLOCK for i in range(200)))
    assert sorted(c.simple()[:2] for _ in range(200)) == [(i, 0) for i in range(200)]
    c.put(b"".join(request(READ, i * BLOCK, BLOCK, cookie=i) for i in range(200)))
    for _ in range(200):
        cookie, error, data = c.simple(BLOCK)
        assert error == 0 and data == bytes([cookie]) * BLOCK, cookie
    c.request(TRIM, 0, 200 * BLOCK)
    assert c.simple() == (7, 0, b"")


def test_byte_by_byte():
    c = Raw()
    c.go()
    c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for byte in request(WRITE, 1 * MIB, 20) + b"slow as can be......" + request(READ, 1 * MIB, 20, cookie=8):
        c.put(bytes([byte]))
    assert c.simple()[:2] == (7, 0)
    assert c.simple(20) == (8, 0, b"slow as can be......")


def test_bad_magic():
    c = Raw()
    c.go()
    c.put(struct.pack(">IHHQQI", 0x25609514, 0, READ, 7, 0, 512))
    assert c.is_closed()
    c = Raw()
    c.put(struct.pack(">QII", 1234, LIST, 0))
    assert c.is_closed()


def test_vanish():
    # In the middle of the greeting, of an option, of a request, of a payload, and before the replies.
    for pieces in ([], [struct.pack(">QI", OPTION_MAGIC, GO)]):
        c = Raw()
        for piece in pieces:
            c.put(piece)
        c.socket.close()
    for piece in (request(WRITE, 0, 4)[:20], request(WRITE, 2 * MIB, 64 * KIB) + b"x" * 1000,
                  b"".join(request(READ, 0, MIB, cookie=i) for i in range(100)), request(FLUSH, 0, 0)):
        c = Raw()
        c.go()
        c.put(piece)
        c.socket.close()
    # Written, and DISC at once: it is there.
    c = Raw()
    c.go()
    c.put(request(WRITE, 3 * MIB, 5) + b"there" + request(DISC, 0, 0))
    assert c.simple()[:2] == (7, 0)
    assert c.is_closed()
    c = Raw()
    c.go()
    c.request(READ, 3 * MIB, 5)
    assert c.simple(5) == (7, 0, b"there")
    c.request(READ, 2 * MIB, 1000)
    assert c.simple(1000) == (7, 0, bytes(1000)), "a write without its payload's end changed something"


def test_slow_reader():
    """64 MiB of replies that nobody reads: the server waits for this one, and goes on with others."""
    slow = Raw()
    slow.go()
    slow.put(b"".join(request(READ, 0, 2 * MIB, cookie=i) for i in range(32)))
    other = Raw()
    other.go()
    for i in range(50):
        other.request(READ, 0, 4096, cookie=i)
        assert other.simple(4096)[:2] == (i, 0)
    assert sorted(slow.simple(2 * MIB)[0] for _ in range(32)) == list(range(32))


run_tests(globals())
server.stop()
