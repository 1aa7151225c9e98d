# SPDX-License-Identifier: BSD-2-Clause
"""NBD byte by byte: a client that sends whatever it is told to, right or wrong, to any server.

It needs nothing but Python, so that the tests that use it say what is on the wire and nothing else.
"""

import socket
import ssl
import struct
import urllib.parse

OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC, CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
EXTENDED_REQUEST_MAGIC, EXTENDED_CHUNK_MAGIC = 0x21E41C71, 0x6E8A278C

(EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META,
 EXTENDED_HEADERS) = range(1, 12)
ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
(ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, ERR_SHUTDOWN, ERR_BLOCK_SIZE_REQD,
 ERR_TOO_BIG, ERR_EXT_HEADER_REQD) = ((1 << 31) + n for n in range(1, 11))
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

(HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF, CAN_MULTI_CONN,
 SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO, STATUS_PAYLOAD) = (1 << n for n in range(13))

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << n for n in range(6))
NONE, OFFSET_DATA, OFFSET_HOLE, STATUS, STATUS_EXT, ERROR, ERROR_OFFSET = 0, 1, 2, 5, 6, 0x8001, 0x8002
DONE = 1
EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108


class Closed(Exception):
    """The server has closed the connection."""


def parse_uri(uri):
    """(family, address, export name)"""
    parts = urllib.parse.urlsplit(uri)
    name = urllib.parse.unquote(parts.path.lstrip("/"))
    if parts.scheme.endswith("+unix"):
        return socket.AF_UNIX, urllib.parse.parse_qs(parts.query)["socket"][0], name
    return socket.AF_INET, (parts.hostname or "127.0.0.1", parts.port or 10809), name


def request(command, offset, length, flags=0, cookie=7):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length)


def extended_request(command, offset, length, flags=0, cookie=7):
    return struct.pack(">IHHQQQ", EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length)


class Wire:
    """A connection that has the server's hello, and has answered it with FLAGS (None: not yet)."""

    def __init__(self, uri, flags=3, timeout=60):
        family, address, self.export = parse_uri(uri)
        self.export = self.export.encode()
        self.is_extended = self.is_structured = False
        self.socket = socket.socket(family)
        # With a timeout it would fail when the backlog is full.
        self.socket.connect(address)
        self.socket.settimeout(timeout)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if flags is not None:
            self.hello = self.get(16)
            self.server_flags, = struct.unpack(">H", self.get(2))
            self.put(struct.pack(">I", flags))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def get(self, length):
        data = bytearray()
        while len(data) < length:
            try:
                piece = self.socket.recv(min(length - len(data), 1 << 20))
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                piece = b""
            if not piece:
                raise Closed(f"{length} bytes were expected, {len(data)} came")
            data += piece
        return bytes(data)

    def put(self, data):
        self.socket.sendall(data)

    def is_closed(self):
        """Reads until the server closes; a server that does not lets it run into the timeout."""
        try:
            while self.socket.recv(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True

    # --- options ---

    def put_option(self, number, data=b"", length=None):
        self.put(struct.pack(">QII", OPTION_MAGIC, number, len(data) if length is None else length) + data)

    def answer(self, number):
        """[(type, data)], up to the last reply."""
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.get(20))
            assert magic == OPTION_REPLY_MAGIC, hex(magic)
            assert option == number, f"a reply to option {option}, not {number}"
            assert length < 1 << 24, length
            replies.append((kind, self.get(length)))
            if kind == ACK or kind >> 31:
                return replies

    def option(self, number, data=b""):
        self.put_option(number, data)
        replies = self.answer(number)
        if replies[-1][0] == ACK and number == STRUCTURED_REPLY:
            self.is_structured = True
        if replies[-1][0] == ACK and number == EXTENDED_HEADERS:
            self.is_structured = self.is_extended = True
        return replies

    def result(self, number, data=b""):
        """The type of the last reply."""
        return self.option(number, data)[-1][0]

    def starttls(self, context):
        """Negotiates TLS; nothing that was negotiated before holds any more."""
        assert self.result(STARTTLS) == ACK
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.is_structured = self.is_extended = False

    def go_data(self, name=None, infos=()):
        name = self.export if name is None else name
        return struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos)

    def go(self, name=None, infos=(), number=GO):
        replies = self.option(number, self.go_data(name, infos))
        for kind, data in replies:
            if kind == REP_INFO and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return replies

    def meta(self, number, *queries, name=None):
        name = self.export if name is None else name
        data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
        for query in queries:
            data += struct.pack(">I", len(query)) + query
        return self.option(number, data)

    def contexts(self, number, *queries, name=None):
        """{name: id}"""
        return {data[4:]: struct.unpack(">I", data[:4])[0]
                for kind, data in self.meta(number, *queries, name=name) if kind == REP_META}

    # --- transmission ---

    def request(self, command, offset, length, flags=0, cookie=7, payload=b""):
        if self.is_extended:
            self.put(extended_request(command, offset, length, flags, cookie) + payload)
        else:
            self.put(request(command, offset, length, flags, cookie) + payload)

    def write(self, offset, data, flags=0):
        self.request(WRITE, offset, len(data), flags | (PAYLOAD_LEN if self.is_extended else 0), payload=data)
        return self.error()

    def simple(self, length=0):
        """(cookie, error, data)"""
        magic, error, cookie = struct.unpack(">IIQ", self.get(16))
        assert magic == SIMPLE_MAGIC, hex(magic)
        return cookie, error, b"" if error else self.get(length)

    def chunk(self, offset=None):
        """(cookie, flags, type, data)"""
        if self.is_extended:
            magic, flags, kind, cookie, at, length = struct.unpack(">IHHQQQ", self.get(32))
            assert magic == EXTENDED_CHUNK_MAGIC, hex(magic)
            assert offset is None or at == offset, f"offset {at}, not {offset}"
        else:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.get(20))
            assert magic == CHUNK_MAGIC, hex(magic)
        assert length <= (64 << 20) + 8, length
        assert not flags & ~DONE, f"chunk flags {flags:#x}"
        assert kind != NONE or (flags & DONE and length == 0), "a chunk of no type with more to come"
        return cookie, flags, kind, self.get(length)

    def chunks(self, offset=None, cookie=7):
        """[(type, data)] of one reply."""
        found = []
        while True:
            got, flags, kind, data = self.chunk(offset)
            assert got == cookie, f"cookie {got}, not {cookie}"
            found.append((kind, data))
            if flags & DONE:
                return found

    def error(self, cookie=7):
        """The error number that a request without data in its reply came to."""
        if self.is_extended:
            return chunks_error(self.chunks(cookie=cookie))
        if self.is_structured:
            magic, = struct.unpack(">I", self.socket_peek(4))
            if magic == CHUNK_MAGIC:
                return chunks_error(self.chunks(cookie=cookie))
        got, error, _ = self.simple()
        assert got == cookie, f"cookie {got}, not {cookie}"
        return error

    def socket_peek(self, length):
        if isinstance(self.socket, ssl.SSLSocket):
            raise NotImplementedError
        data = self.socket.recv(length, socket.MSG_PEEK | socket.MSG_WAITALL)
        if len(data) < length:
            raise Closed()
        return data

    def ask(self, command, offset, length, flags=0, payload=b""):
        """The error number."""
        self.request(command, offset, length, flags, payload=payload)
        if command == READ and self.is_structured:
            return chunks_error(self.chunks())
        if command == READ:
            return self.simple(length)[1]
        if command == BLOCK_STATUS and self.is_structured:
            return chunks_error(self.chunks())
        return self.error()

    def read(self, offset, length, flags=0):
        """The data; AssertionError if it fails or does not come whole."""
        self.request(READ, offset, length, flags)
        if not self.is_structured:
            cookie, error, data = self.simple(length)
            assert (cookie, error) == (7, 0), error
            return data
        return content_of(self.chunks(offset), offset, length)

    def status(self, offset, length, flags=0, payload=b""):
        """{context id: [(length, flags)]}"""
        self.request(BLOCK_STATUS, offset, length, flags, payload=payload)
        found = {}
        for kind, data in self.chunks(offset):
            assert kind == (STATUS_EXT if self.is_extended else STATUS), f"chunk type {kind}: {data}"
            context, = struct.unpack(">I", data[:4])
            assert context not in found
            if self.is_extended:
                count, = struct.unpack(">I", data[4:8])
                assert len(data) == 8 + 16 * count
                found[context] = list(struct.iter_unpack(">QQ", data[8:]))
            else:
                found[context] = list(struct.iter_unpack(">II", data[4:]))
            assert found[context] and all(size > 0 for size, _ in found[context])
        return found


def pieces_of(chunks):
    """[(offset, length, data or None for a hole)], of the chunks of a READ that has not failed."""
    pieces = []
    for kind, payload in chunks:
        if kind == OFFSET_DATA:
            at, = struct.unpack(">Q", payload[:8])
            pieces.append((at, len(payload) - 8, payload[8:]))
        elif kind == OFFSET_HOLE:
            pieces.append((*struct.unpack(">QI", payload), None))
        else:
            assert kind == NONE and not payload, f"chunk type {kind}: {payload}"
    return pieces


def content_of(chunks, offset, length):
    """The data; AssertionError if the chunks, in whatever order, are not of all of it, and each part once."""
    data, at = bytearray(length), offset
    for start, size, piece in sorted(pieces_of(chunks), key=lambda piece: piece[0]):
        assert size > 0 and start == at, f"a chunk at {start}, not {at}"
        if piece is not None:
            data[start - offset:start - offset + size] = piece
        at = start + size
    assert at == offset + length, f"{at - offset} of {length} bytes"
    return bytes(data)


def chunks_error(chunks):
    for kind, data in chunks:
        if kind >> 15:
            error, length = struct.unpack(">IH", data[:6])
            assert error != 0
            assert len(data) == 6 + length + (8 if kind == ERROR_OFFSET else 0), data
            data[6:6 + length].decode()
            return error
    return 0
