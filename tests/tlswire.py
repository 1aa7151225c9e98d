# SPDX-License-Identifier: BSD-2-Clause
"""TLS for wire.py by the libraries themselves: what Python's ssl does not know, new keys (TLS 1.3) and pre-shared ones.

Both are used as a socket is; the socket must be blocking, and has a deadline.  They do not look at the server's certificate."""

import ctypes
import random
import socket
import struct
import time

from wire import *

DEADLINE = 60
_openssl, _gnutls = ctypes.CDLL("libssl.so.3"), ctypes.CDLL("libgnutls.so.30")
_pointer = ctypes.c_void_p
for _function in (_openssl.TLS_client_method, _openssl.SSL_CTX_new, _openssl.SSL_new):
    _function.restype = _pointer
_gnutls.gnutls_record_send.restype = _gnutls.gnutls_record_recv.restype = ctypes.c_ssize_t


def _prepare(plain):
    plain.setblocking(True)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        plain.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", DEADLINE, 0))


class OpenSSL:
    def __init__(self, plain):
        _prepare(plain)
        self.plain = plain
        self.context = _pointer(_openssl.SSL_CTX_new(_pointer(_openssl.TLS_client_method())))
        self.own = _pointer(_openssl.SSL_new(self.context))
        assert _openssl.SSL_set_fd(self.own, plain.fileno()) == 1
        if _openssl.SSL_connect(self.own) != 1:
            raise ConnectionError("OpenSSL: no handshake")

    def sendall(self, data):
        if data and _openssl.SSL_write(self.own, bytes(data), len(data)) != len(data):
            raise ConnectionError("OpenSSL: not sent")

    def recv(self, length):
        data = ctypes.create_string_buffer(length)
        got = _openssl.SSL_read(self.own, data, length)
        if got < 0:
            raise ConnectionError("OpenSSL: nothing received")
        return data.raw[:got]

    def new_key(self, is_asked):
        """Of the client; with IS_ASKED the server shall have one, too."""
        assert _openssl.SSL_key_update(self.own, int(is_asked)) == 1
        if _openssl.SSL_do_handshake(self.own) != 1:
            raise ConnectionError("OpenSSL: no new key")

    def close(self):
        _openssl.SSL_free(self.own)
        _openssl.SSL_CTX_free(self.context)
        self.plain.close()


class GnuTLS:
    """With USER and KEY (hexadecimal) by these, else by certificates."""

    CLIENT, CERTIFICATE, PSK, KEY_HEX, AGAIN = 2, 1, 4, 1, -28

    def __init__(self, plain, user=None, key=None):
        _prepare(plain)
        self.plain = plain
        self.own, self.credentials = _pointer(), _pointer()
        self.by_key = user is not None
        self.asked = []
        self.check(_gnutls.gnutls_init(ctypes.byref(self.own), self.CLIENT))
        priority = b"NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK" if self.by_key else b"NORMAL"
        self.check(_gnutls.gnutls_priority_set_direct(self.own, priority, None))
        if self.by_key:
            class Datum(ctypes.Structure):
                _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_uint)]
            self.check(_gnutls.gnutls_psk_allocate_client_credentials(ctypes.byref(self.credentials)))
            datum = Datum(key.encode(), len(key))
            self.check(_gnutls.gnutls_psk_set_client_credentials(self.credentials, user.encode(), ctypes.byref(datum), self.KEY_HEX))
        else:
            self.check(_gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(self.credentials)))
        self.check(_gnutls.gnutls_credentials_set(self.own, self.PSK if self.by_key else self.CERTIFICATE, self.credentials))
        _gnutls.gnutls_transport_set_int2(self.own, plain.fileno(), plain.fileno())
        self.check(_gnutls.gnutls_handshake(self.own))

    @staticmethod
    def check(result):
        if result < 0:
            raise ConnectionError(f"GnuTLS: error {result}")
        return result

    def sendall(self, data):
        data, at = bytes(data), 0
        while at < len(data):
            piece = data[at:at + 16384]
            at += self.check(_gnutls.gnutls_record_send(self.own, piece, ctypes.c_size_t(len(piece))))

    def recv(self, length):
        data = ctypes.create_string_buffer(length)
        until, got = time.monotonic() + DEADLINE, self.AGAIN
        # Also when what came was a new key and nothing else.
        while got == self.AGAIN and time.monotonic() < until:
            got = _gnutls.gnutls_record_recv(self.own, data, ctypes.c_size_t(length))
        self.check(got)
        return data.raw[:got]

    def new_key(self, is_asked):
        # It takes no more than eight of the peer's in a second.
        now = time.monotonic()
        is_asked = is_asked and sum(now - at < 2 for at in self.asked) < 6
        self.asked += [now] if is_asked else []
        self.check(_gnutls.gnutls_session_key_update(self.own, int(is_asked)))

    def close(self):
        _gnutls.gnutls_deinit(self.own)
        (_gnutls.gnutls_psk_free_client_credentials if self.by_key else _gnutls.gnutls_certificate_free_credentials)(self.credentials)
        self.plain.close()


def key_of(path, user):
    """USER's line of a file of keys."""
    return next(line.split(":")[1].strip() for line in open(path) if line.startswith(user + ":"))


def new_keys_beside_requests(c, rounds=20):
    """New keys of either side, at any place; the connection has chosen its disk, of 16 MiB at least, and has simple replies."""
    size = 256 << 10
    for i in range(rounds):
        data, at = random.randbytes(size), i % 16 << 20
        message = request(WRITE, at, size) + data
        # Not all of what was asked for is there yet when the keys change.
        cuts = [0, *sorted(random.sample(range(len(message)), 3)), len(message)]
        for begin, end in zip(cuts, cuts[1:]):
            c.put(message[begin:end])
            c.socket.new_key(random.choice((False, True)))
        assert c.error() == 0
        c.put(b"".join(request(READ, at + j * 65536, 65536, cookie=j) for j in range(4)))
        c.socket.new_key(True)
        answers = dict(c.simple(65536)[::2] for _ in range(4))
        assert b"".join(answers[j] for j in range(4)) == data
