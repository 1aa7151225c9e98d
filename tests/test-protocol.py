#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The protocol byte by byte, where libnbd would never go: options out of order, EXPORT_NAME with its zeros, unknown
commands, many requests in one piece, one request in many pieces, clients that vanish."""

import socket
import struct

from harness import BLOCK, GIB, KIB, MIB, Server, run_tests
from wire import *

SIZE = 64 * MIB
server = Server({"disk": SIZE}).start()
uri = f"nbd+unix:///disk?socket={server.sock}"


def Raw(flags=3):
    return Wire(uri, flags, timeout=20)


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
    assert c.meta(LIST_META, b"qemu:")[0][1][4:] == b"qemu:allocation-depth"
    assert c.meta(LIST_META, b"other:") == [(ACK, b"")]
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
        c.put_option(EXPORT_NAME, b"disk")
        assert struct.unpack(">Q", c.get(8)) == (SIZE,)
        c.get(2)
        assert c.get(zeroes) == bytes(zeroes)
        c.request(READ, 0, 512, cookie=99)
        assert c.simple(512) == (99, 0, bytes(512))
    c = Raw()
    c.put_option(EXPORT_NAME, b"nothing")
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


def extended(*contexts):
    c = Raw()
    assert c.result(EXTENDED_HEADERS, b"x") == ERR_INVALID
    assert c.result(EXTENDED_HEADERS) == ACK
    assert c.result(EXTENDED_HEADERS) == ERR_INVALID
    assert c.result(STRUCTURED_REPLY) == ERR_EXT_HEADER_REQD
    ids = c.contexts(SET_META, *contexts)
    assert set(ids) == set(contexts) and 0 not in ids.values()
    assert c.go()[-1][0] == ACK
    return c, ids


def test_extended_negotiation():
    c, _ = extended()
    assert not c.flags & STATUS_PAYLOAD, "there is nothing to be filtered"
    c, _ = extended(b"base:allocation")
    assert c.flags & STATUS_PAYLOAD and c.flags & SEND_DF
    c = Raw()
    c.option(EXTENDED_HEADERS)
    c.put_option(EXPORT_NAME, b"disk")
    assert c.is_closed(), "EXPORT_NAME after EXTENDED_HEADERS"
    c = Raw()
    c.option(STRUCTURED_REPLY)
    c.meta(SET_META, b"base:allocation")
    assert c.result(EXTENDED_HEADERS) == ACK, "structured replies first"
    c.go()
    assert c.status(0, MIB) == {1: [(MIB, 3)]}
    c.put(request(READ, 0, 512))
    c.put(bytes(4))
    assert c.is_closed(), "a compact request"


def test_extended_commands():
    c, _ = extended(b"base:allocation")
    assert c.write(MIB, b"extended" * 512) == 0
    assert c.read(MIB - 4096, 12288) == bytes(4096) + b"extended" * 512 + bytes(4096)
    c.request(READ, MIB - 4096, 12288, DF)
    assert [(kind, len(data)) for kind, data in c.chunks(MIB - 4096)] == [(OFFSET_DATA, 8 + 12288)]
    c.request(READ, MIB - 4096, 12288)
    assert [kind for kind, _ in c.chunks(MIB - 4096)] == [OFFSET_HOLE, OFFSET_DATA, OFFSET_HOLE]
    assert c.status(0, SIZE)[1] == [(MIB, 3), (4096, 0), (SIZE - MIB - 4096, 3)]
    for command in (TRIM, WRITE_ZEROES, CACHE, FLUSH):
        assert c.ask(command, 0, 0 if command == FLUSH else SIZE, FUA) == 0
    assert c.read(MIB, 4096) == bytes(4096)
    assert c.ask(READ, 0, 0) == 0 and c.ask(WRITE, 0, 0, PAYLOAD_LEN) == 0


def test_extended_lengths():
    """Lengths of 64 bits: of a disk of 4 EiB, in one request, in no time."""
    size = 1 << 62
    big = Server({"big": size}).start()
    c = Wire(f"nbd+unix:///big?socket={big.sock}")
    c.option(EXTENDED_HEADERS)
    c.meta(SET_META, b"base:allocation")
    c.go()
    assert c.write(size - 4096, b"x" * 4096) == 0
    assert c.status(0, size)[1] == [(size - 4096, 3), (4096, 0)]
    assert c.status(0, size, REQ_ONE)[1] == [(size - 4096, 3)]
    assert c.ask(CACHE, 0, size) == 0
    assert c.ask(WRITE_ZEROES, 4096, size - 4096) == 0
    assert c.read(size - 4096, 4096) == bytes(4096)
    assert c.write(size - 4096, b"x" * 4096) == 0
    assert c.ask(TRIM, 0, size) == 0
    assert c.status(0, size)[1] == [(size, 3)]
    for command, error in ((TRIM, EINVAL), (CACHE, EINVAL), (BLOCK_STATUS, EINVAL), (WRITE_ZEROES, ENOSPC)):
        for offset, length in ((0, size + 1), (1, size), (1, (1 << 64) - 1), ((1 << 64) - 1, (1 << 64) - 1)):
            for flags in (0, NO_HOLE, NO_HOLE | FAST_ZERO) if command == WRITE_ZEROES else (0,):
                assert c.ask(command, offset, length, flags) == error, (command, offset, length, flags)
    assert c.ask(READ, 0, 1 << 40) == EOVERFLOW
    # To take space for exabytes would be work for hours, and memory for as many extents.
    assert c.ask(WRITE_ZEROES, 0, size, NO_HOLE) == EINVAL and c.ask(WRITE_ZEROES, 0, 1 << 40, NO_HOLE) == 0
    assert c.ask(WRITE_ZEROES, 0, size, NO_HOLE | FAST_ZERO) == ENOTSUP, "what is not fast says so"
    assert c.ask(TRIM, 0, size) == 0
    # The same with compact headers: what an extent cannot express is told in pieces.
    c = Wire(f"nbd+unix:///big?socket={big.sock}")
    c.option(STRUCTURED_REPLY)
    c.meta(SET_META, b"base:allocation")
    c.go()
    assert c.status(0, 0xFFFFFFFF)[1] == [(0xFFFFFFFF, 3)]
    assert c.ask(TRIM, 0, 0xFFFFFE00) == 0
    big.stop()


def test_extended_payloads():
    c, _ = extended(b"base:allocation")
    # What takes no payload gets one: it is thrown away, whatever the command.
    for command in (READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, 99):
        for length in (1, 4096, 3 * MIB):
            assert c.ask(command, 0, length, PAYLOAD_LEN, payload=bytes(length)) == EINVAL, command
    assert c.ask(WRITE, 0, 4096) == EINVAL, "no flag, so no payload"
    assert c.write(SIZE, b"beyond") == ENOSPC
    assert c.write(0, b"flags", NO_HOLE) == EINVAL
    assert c.read(0, 4096) == bytes(4096)
    for command in (WRITE, READ):
        c, _ = extended()
        c.request(command, 0, 32 * MIB + 1, PAYLOAD_LEN)
        assert c.is_closed(), "a payload beyond the maximum"
    c, _ = extended()
    c.request(WRITE, 0, (1 << 64) - 1, PAYLOAD_LEN)
    assert c.is_closed()
    c = Raw()
    c.go()
    assert c.ask(WRITE, 0, 4, PAYLOAD_LEN, payload=b"lost") == EINVAL, "no such flag in a compact header"
    assert c.read(0, 4) == bytes(4)


def test_too_long_and_beyond_the_end():
    """Who asks for less of what is not there gets it no more than who asks for much."""
    for structured in (False, True):
        c = Raw()
        if structured:
            c.option(STRUCTURED_REPLY)
        c.go()
        assert c.ask(READ, 0, 40 * MIB) == (EOVERFLOW if structured else EINVAL)
        assert c.ask(READ, SIZE - 4096, 40 * MIB) == EINVAL
        assert c.ask(WRITE, SIZE - 4096, 33 * MIB, payload=bytes(33 * MIB)) == ENOSPC
        assert c.read(SIZE - 4096, 4096) == bytes(4096)


def filter_of(length, *ids):
    return struct.pack(f">Q{len(ids)}I", length, *ids)


def test_status_filter():
    c, ids = extended(b"base:allocation", b"qemu:allocation-depth")
    base, depth = ids[b"base:allocation"], ids[b"qemu:allocation-depth"]
    c.write(8192, b"x" * 4096)
    both = {base: [(8192, 3), (4096, 0), (4096, 3)], depth: [(8192, 0), (4096, 1), (4096, 0)]}
    assert c.status(0, 16384) == both
    for chosen in ([base], [depth], [base, depth], [depth, base]):
        payload = filter_of(16384, *chosen)
        assert c.status(0, len(payload), PAYLOAD_LEN, payload) == {id: both[id] for id in chosen}
    payload = filter_of(1 << 20, depth)
    assert c.status(0, len(payload), PAYLOAD_LEN | REQ_ONE, payload) == {depth: [(8192, 0)]}
    for payload in (filter_of(4096), filter_of(4096, 0), filter_of(4096, 99), filter_of(4096, base, base),
                    filter_of(4096, base, depth, base), filter_of(4096, base) + b"x", b"short", filter_of(0, base),
                    filter_of(SIZE + 1, base), filter_of(1 << 63, base), filter_of(4096, *range(100000))):
        assert c.ask(BLOCK_STATUS, 0, len(payload), PAYLOAD_LEN, payload) == EINVAL, payload[:30]
    assert c.status(0, 16384) == both
    # Byte by byte, with the next request behind it.
    payload = filter_of(4096, base)
    for byte in (extended_request(BLOCK_STATUS, 0, len(payload), PAYLOAD_LEN) + payload
                 + extended_request(READ, 8192, 4, cookie=8)):
        c.put(bytes([byte]))
    assert c.chunks() == [(STATUS_EXT, struct.pack(">IIQQ", base, 1, 4096, 3))]
    assert c.chunks(cookie=8) == [(OFFSET_DATA, struct.pack(">Q", 8192) + b"xxxx")]
    # What this connection has not chosen is not known to it, whatever others may have.
    for name, other in ((b"base:allocation", depth), (b"qemu:allocation-depth", base)):
        c, ids = extended(name)
        for chosen in ([other], [ids[name], other], [other, ids[name]]):
            for flags in (0, REQ_ONE):
                payload = filter_of(SIZE, *chosen)
                assert c.ask(BLOCK_STATUS, 0, len(payload), PAYLOAD_LEN | flags, payload) == EINVAL, (name, chosen)
        payload = filter_of(16384, ids[name])
        assert c.status(0, len(payload), PAYLOAD_LEN, payload) == {ids[name]: both[ids[name]]}
    c.ask(TRIM, 0, SIZE)
    c, _ = extended()
    payload = filter_of(4096, 1)
    assert c.ask(BLOCK_STATUS, 0, len(payload), PAYLOAD_LEN, payload) == EINVAL
    assert c.ask(BLOCK_STATUS, 0, 4096) == EINVAL, "no context"


def test_depth_is_one_extent():
    """What differs in one context and not in the other."""
    c = Raw()
    c.option(STRUCTURED_REPLY)
    ids = c.contexts(SET_META, b"qemu:allocation-depth", b"base:allocation")
    c.go()
    c.write(0, b"x" * 8192)
    assert c.ask(WRITE_ZEROES, 8192, 8192, NO_HOLE) == 0
    status = c.status(0, 32768)
    assert status[ids[b"base:allocation"]] == [(8192, 0), (8192, 2), (16384, 3)]
    assert status[ids[b"qemu:allocation-depth"]] == [(16384, 1), (16384, 0)]
    assert c.status(0, 32768, REQ_ONE)[ids[b"qemu:allocation-depth"]] == [(8192, 1)]
    assert c.ask(TRIM, 0, SIZE) == 0


def resized(server, extended=False):
    c = Wire(f"nbd+unix:///disk?socket={server.sock}")
    if extended:
        c.option(EXTENDED_HEADERS)
    assert c.go()[-1][0] == ACK
    assert c.flags & SEND_RESIZE
    return c


def test_resize():
    for is_extended in (False, True):
        own = Server({"disk": 1 * MIB}, "--resize").start()
        c = resized(own, is_extended)
        assert c.write(MIB - 4096, b"end." * 1024) == 0
        assert c.write(MIB, b"beyond") == ENOSPC and c.ask(TRIM, MIB, 1) == EINVAL
        # It grows: at once for others, too; those who negotiate later are told.
        other = resized(own)
        assert c.ask(RESIZE, 8 * MIB, 0) == 0
        assert other.write(7 * MIB, b"other") == 0 and c.read(7 * MIB, 5) == b"other"
        assert c.read(MIB - 4, 8) == b"end." + bytes(4)
        assert resized(own).size == 8 * MIB
        # It shrinks: not while others use it.
        assert c.ask(RESIZE, 4 * MIB, 0) == EPERM
        other.request(DISC, 0, 0)
        other.is_closed()
        while (error := c.ask(RESIZE, 4 * MIB, 0)) == EPERM:
            pass
        assert error == 0
        # What was a part of it gets ENOSPC, what never was one the usual answer.
        for command in (READ, WRITE_ZEROES, TRIM, CACHE):
            assert c.ask(command, 4 * MIB - 1, 2) == ENOSPC, command
            assert c.ask(command, 8 * MIB - 1, 2) == (ENOSPC if command == WRITE_ZEROES else EINVAL), command
        assert c.write(7 * MIB, b"other") == ENOSPC
        # It grows again, and nothing comes back.
        assert c.ask(RESIZE, 8 * MIB, 0) == 0
        assert c.read(7 * MIB, 5) == bytes(5)
        assert c.write(7 * MIB, b"again") == 0
        # It is no size; the size it has; the largest, and back.
        for size in (0, 1, 4095, MIB + 512, 1 << 63, (1 << 64) - 4096):
            assert c.ask(RESIZE, size, 0) == EINVAL, size
        assert c.ask(RESIZE, 8 * MIB, 0) == 0
        assert c.ask(RESIZE, (1 << 63) - 4096, 0) == 0 and c.ask(RESIZE, 8 * MIB, 0) == 0
        assert c.ask(RESIZE, 8 * MIB, 0, NO_HOLE) == EINVAL
        # Durable, without a FLUSH; and many in flight.
        c.put(b"".join((extended_request if is_extended else request)(RESIZE, (i + 16) * MIB, 0) for i in range(20)))
        assert [c.error() for _ in range(20)] == [0] * 20
        assert c.ask(RESIZE, 16 * MIB, 0, FUA) == 0
        own.kill()
        own.start()
        c = resized(own, is_extended)
        assert c.size == 16 * MIB and c.read(7 * MIB, 5) == b"again"
        # A client that is gone before the answer.
        c.request(RESIZE, 32 * MIB, 0)
        c.close()
        own.stop()


def test_resize_beside_reading_ahead():
    """What the server reads ahead for a client is nobody else who uses the disk."""
    own = Server({"disk": SIZE}, "--resize").start()
    c = resized(own)
    for i in range(32):
        assert c.write(i * MIB, bytes([i + 1]) * MIB) == 0
    c.close()
    own.stop()
    own.start()
    c = resized(own)
    for i in range(200):
        c.put(request(READ, i * 128 * KIB, 128 * KIB))
        assert c.simple(128 * KIB)[:2] == (7, 0)
        assert c.ask(RESIZE, SIZE - (i + 1) * BLOCK, 0) == 0, i
    c.close()
    own.stop()


def test_resize_is_not_for_all():
    c = Raw()
    c.go()
    assert not c.flags & SEND_RESIZE
    assert c.ask(RESIZE, 2 * SIZE, 0) == EPERM
    own = Server({"disk": MIB}, "--resize", "--readonly").start()
    c = Wire(f"nbd+unix:///disk?socket={own.sock}")
    c.go()
    assert not c.flags & SEND_RESIZE and c.flags & READ_ONLY
    assert c.ask(RESIZE, 2 * MIB, 0) == EPERM
    own.stop()


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
    # Nor is what it reads held: whoever deallocates that does not wait for it.
    other.request(TRIM, 0, 2 * MIB, cookie=50)
    assert other.simple()[:2] == (50, 0)
    assert sorted(slow.simple(2 * MIB)[0] for _ in range(32)) == list(range(32))


run_tests(globals())
server.stop()
