#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Who sees and may change which disk: by certificate, key, user of the host, and address; and what a changed file does."""

import ctypes
import os
import signal
import ssl
import subprocess
import time

from harness import MIB, Server, run_tests, tmp
from wire import *
import nbd

here = os.path.dirname(os.path.abspath(__file__))
certificates = os.path.join(tmp, "certificates")
subprocess.run([os.path.join(here, "make-certificates"), certificates], check=True)
rules = os.path.join(tmp, "rules")
SIZE = 8 * MIB
DISKS = ("alice-1", "alice-2", "common", "local", "secret", "uid")

RULES = f"""
# who may do what
resize  alice-1  dn:CN=alice,O=Lacuna
write   alice-*  email:alice@lacuna.example
read    common   dns:alice.example psk:bob
write   common   psk:bob+uid:{os.getuid()}
read    local    net:127.0.0.0/8
write   secret   psk:alice+net:192.0.2.0/24
read    uid      uid:{os.getuid()}
"""


def write_rules(text):
    with open(rules + ".new", "w") as file:
        file.write(text)
    os.rename(rules + ".new", rules)


write_rules(RULES)
server = Server({name: SIZE for name in DISKS}, "-i", "127.0.0.1", "-p", "0", "--tls", "on", "--tls-certificates",
                certificates + "/server", "--tls-verify-peer", "--tls-psk", certificates + "/server/keys.psk",
                "--access", rules).start()
tcp = next(line.split()[1] for line in open(server.errors) if "127.0.0.1" in line)
local = f"nbd+unix:///?socket={server.sock}"


def connect(uri=local, name=None):
    c = Wire(uri)
    if name:
        context = ssl.create_default_context(cafile=certificates + "/ca-cert.pem")
        context.load_cert_chain(*(f"{certificates}/{name}/client-{what}.pem" for what in ("cert", "key")))
        c.starttls(context)
    return c


def listed(c):
    return [data[4:].decode() for kind, data in c.option(LIST) if kind == REP_SERVER]


def may(c, disk):
    """none, read, write or resize: what the flags say."""
    replies = c.go(disk.encode(), number=INFO)
    if replies[-1][0] != ACK:
        return "none"
    if c.flags & READ_ONLY:
        assert not c.flags & (SEND_TRIM | SEND_WRITE_ZEROES | SEND_RESIZE)
        return "read"
    return "resize" if c.flags & SEND_RESIZE else "write"


def test_who_sees_what():
    for c, rights in ((connect(), {"uid": "read"}), (connect(tcp), {"local": "read"}),
                      (connect(tcp, "alice"), {"alice-1": "resize", "alice-2": "write", "common": "read", "local": "read"}),
                      (connect(local, "alice"), {"alice-1": "resize", "alice-2": "write", "common": "read", "uid": "read"}),
                      (connect(local, "bob"), {"uid": "read"})):
        assert listed(c) == sorted(rights)
        assert {disk: may(c, disk) for disk in DISKS} == {disk: rights.get(disk, "none") for disk in DISKS}


def test_keys():
    for uri, rights in ((f"nbds+unix://bob@/NAME?socket={server.sock}", {"common": "write", "uid": "read"}),
                        (tcp.replace("nbd://", "nbds://bob@") + "/NAME?", {"common": "read", "local": "read"})):
        for disk in DISKS:
            h = nbd.NBD()
            h.set_uri_allow_local_file(True)
            try:
                h.connect_uri(uri.replace("NAME", disk) + f"&tls-psk-file={certificates}/bob.psk")
                got = "read" if h.is_read_only() else "write"
                h.shutdown()
            except nbd.Error:
                got = "none"
            assert got == rights.get(disk, "none"), (uri, disk)


class Liar:
    """TLS 1.3 with alice's certificate, and bob's name beside a key that is not his."""

    def __init__(self, sock, ciphers):
        lib, pointer = ctypes.CDLL("libssl.so.3"), ctypes.c_void_p
        for function in (lib.TLS_client_method, lib.SSL_CTX_new, lib.SSL_new):
            function.restype = pointer

        @ctypes.CFUNCTYPE(ctypes.c_uint, pointer, ctypes.c_char_p, pointer, ctypes.c_uint, pointer, ctypes.c_uint)
        def on_key(ssl, hint, identity, identity_max, key, key_max):
            ctypes.memmove(identity, b"bob\0", 4)
            ctypes.memmove(key, bytes(32), 32)
            return 32

        context = pointer(lib.SSL_CTX_new(pointer(lib.TLS_client_method())))
        assert lib.SSL_CTX_set_ciphersuites(context, ciphers) == 1
        for what, function in (("cert", lib.SSL_CTX_use_certificate_file), ("key", lib.SSL_CTX_use_PrivateKey_file)):
            assert function(context, f"{certificates}/alice/client-{what}.pem".encode(), 1) == 1
        lib.SSL_CTX_set_psk_client_callback(context, on_key)
        self.lib, self.socket, self.on_key = lib, sock, on_key
        self.ssl = pointer(lib.SSL_new(context))
        sock.setblocking(True)
        assert lib.SSL_set_fd(self.ssl, sock.fileno()) == 1
        self.is_in = lib.SSL_connect(self.ssl) == 1

    def sendall(self, data):
        assert self.lib.SSL_write(self.ssl, data, len(data)) == len(data)

    def recv(self, length):
        data = ctypes.create_string_buffer(length)
        got = self.lib.SSL_read(self.ssl, data, length)
        return data.raw[:max(0, got)]

    def close(self):
        self.socket.close()


def test_keys_are_not_only_named():
    """Where the ciphers do not fit the key, TLS 1.3 leaves it out, and the proof that the client has it: the certificate
    counts then, and that alone.  Where they do, it is all over."""
    for ciphers, is_in in ((b"TLS_AES_256_GCM_SHA384", True), (b"TLS_AES_128_GCM_SHA256", False)):
        c = connect()
        assert c.result(STARTTLS) == ACK
        c.socket = Liar(c.socket, ciphers)
        assert c.socket.is_in == is_in
        if is_in:
            assert {disk: may(c, disk) for disk in DISKS if may(c, disk) != "none"} == {
                "alice-1": "resize", "alice-2": "write", "common": "read", "uid": "read"}


def test_not_allowed_is_not_there():
    """The very same bytes, whatever is asked; and the empty name tells nothing."""
    for name, error in ((None, ERR_TLS_REQD), ("bob", ERR_UNKNOWN)):
        for option in (INFO, GO):
            c = connect(name=name)
            c.option(STRUCTURED_REPLY)
            replies = [c.go(disk, number=option) for disk in (b"secret", b"no-such-disk", b"")]
            assert replies[0] == replies[1] and replies[0][-1][0] == error
            assert replies[2][-1][0] == error
        c = connect(name=name)
        c.option(STRUCTURED_REPLY)
        for option in (LIST_META, SET_META):
            replies = [c.meta(option, b"base:allocation", name=disk) for disk in (b"secret", b"no-such-disk")]
            assert replies[0] == replies[1] and replies[0][-1][0] == ERR_UNKNOWN
        for disk in (b"secret", b"no-such-disk"):
            c = connect(name=name)
            c.put_option(EXPORT_NAME, disk)
            assert c.is_closed()
    # Nor does it count: more options may follow for each disk that LIST has named, and for no other.
    c = connect()
    assert listed(c) == ["uid"]
    count = 1
    try:
        while True:
            c.result(99)
            count += 1
    except (Closed, ConnectionError):
        pass
    assert count == 64 + 2, count


def test_read_only_is_enforced():
    c = connect()
    c.go(b"uid")
    assert c.read(0, 512) == bytes(512)
    assert c.write(0, b"no") == EPERM
    for command in (TRIM, WRITE_ZEROES):
        assert c.ask(command, 0, 4096) == EPERM
    assert c.ask(RESIZE, 2 * SIZE, 0) == EPERM
    assert c.ask(FLUSH, 0, 0) == 0
    c = connect(name="alice")
    c.go(b"alice-2")
    assert c.write(0, b"yes") == 0
    assert c.ask(RESIZE, 2 * SIZE, 0) == EPERM
    c = connect(name="alice")
    c.go(b"alice-1")
    assert c.ask(RESIZE, 2 * SIZE, 0) == 0


def reload(text, answer):
    write_rules(text)
    before = os.path.getsize(server.errors)
    os.kill(server.pid, signal.SIGHUP)
    deadline = time.monotonic() + 60
    while answer not in open(server.errors).read()[before:]:
        assert time.monotonic() < deadline, f"the server does not say: {answer}"
        time.sleep(0.01)


def test_reload():
    reader, writer, stays = connect(), connect(name="alice"), connect(name="alice")
    assert reader.go(b"uid")[-1][0] == ACK and writer.go(b"alice-2")[-1][0] == ACK
    assert stays.go(b"alice-1")[-1][0] == ACK
    reload("nonsense", "could before")
    assert listed(connect()) == ["uid"]
    reload(RULES + "read secret any\n", "rules has been read again")
    assert listed(connect()) == ["secret", "uid"]
    for c in (reader, writer, stays):
        c.read(0, 512)
    # What is taken away ends those who have it, and nobody else.
    reload("resize alice-1 tls\nread alice-2 any\nread secret any\n", "rules has been read again")
    assert reader.is_closed() and writer.is_closed()
    assert stays.write(0, b"still") == 0
    assert listed(connect()) == ["alice-2", "secret"]
    reload("", "rules has been read again")
    assert stays.is_closed()
    assert listed(connect()) == []
    reload(RULES, "rules has been read again")


def test_start():
    def refused(text, options, why):
        write_rules(text)
        result = subprocess.run([os.environ.get("LACUNA", "server/lacuna"), "serve", "none", "--access", rules, *options],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert result.returncode in (1, 2) and why in result.stderr, result.stderr

    refused("read x psk:alice", [], "need --tls-psk")
    refused("read x dn:alice", [], "need --tls-verify-peer")
    refused("read x", [], "line 1: who may do that?")
    refused("read x any", ["--resize"], "its file says who may resize")
    os.unlink(rules)
    result = subprocess.run([os.environ.get("LACUNA", "server/lacuna"), "serve", "none", "--access", rules],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "No such file" in result.stderr
    # --readonly is stronger.
    write_rules("resize * any")
    own = Server({"disk": SIZE}, "--access", rules, "--readonly").start()
    assert may(connect(f"nbd+unix:///?socket={own.sock}"), "disk") == "read"
    own.stop()


run_tests(globals())
server.stop()
