#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""TLS: who gets in and who does not, by certificate and by key; what holds before and after STARTTLS; new certificates
without a restart; and real clients."""

import ctypes
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import nbd
from harness import KIB, MIB, Server, lacuna, run_tests, tmp
from tlswire import GnuTLS, OpenSSL, key_of, new_keys_beside_requests
from wire import *

SIZE = 64 * MIB
here = os.path.dirname(os.path.abspath(__file__))
certificates = os.path.join(tmp, "certificates")
subprocess.run([os.path.join(here, "make-certificates"), certificates], check=True)
own = os.path.join(certificates, "server")
with_certificates = ["--tls-certificates", own]
with_both = [*with_certificates, "--tls-verify-peer", "--tls-psk", own + "/keys.psk"]

server = Server({"disk": SIZE}, "--tls", "require", *with_both).start()


def plain(at=server):
    return Wire(f"nbd+unix:///disk?socket={at.sock}", timeout=60)


def context_of(name, version=None):
    context = ssl.create_default_context(cafile=os.path.join(certificates, "ca-cert.pem"))
    if version:
        context.minimum_version = context.maximum_version = version
    if name:
        context.load_cert_chain(*(os.path.join(certificates, name, f"client-{what}.pem") for what in ("cert", "key")))
    return context


def secure(name="alice", version=None, at=server):
    c = plain(at)
    c.starttls(context_of(name, version))
    return c


def libnbd(at=server, user=None, key=None, name=None):
    h = nbd.NBD()
    h.set_tls(nbd.TLS_REQUIRE)
    h.set_export_name("disk")
    if user:
        h.set_tls_username(user)
        h.set_tls_psk_file(os.path.join(certificates, key or user + ".psk"))
    else:
        h.set_tls_certificates(os.path.join(certificates, name))
    h.connect_unix(at.sock)
    return h


def is_refused(function, *arguments):
    """A client with TLS 1.3 learns only at its first reply that the server does not take its certificate."""
    try:
        c = function(*arguments)
        c.option(LIST)
    except (ssl.SSLError, Closed, ConnectionError, nbd.Error):
        return True
    return False


def test_before_tls():
    c = plain()
    for option in (LIST, STRUCTURED_REPLY, EXTENDED_HEADERS, 99):
        assert c.result(option) == ERR_TLS_REQD, option
    for option in (INFO, GO):
        assert c.result(option, c.go_data()) == ERR_TLS_REQD
        assert c.result(option, c.go_data(b"nothing")) == ERR_TLS_REQD, "the same as for one that is there"
    for option in (LIST_META, SET_META):
        assert c.meta(option, b"base:allocation")[-1][0] == ERR_TLS_REQD
    assert c.result(STARTTLS, b"data") == ERR_INVALID
    assert c.result(ABORT) == ACK
    c = plain()
    assert c.result(99, bytes(100000)) == ERR_TLS_REQD, "what is too long to be looked at, too"
    c = plain()
    c.put_option(EXPORT_NAME, b"disk")
    assert c.is_closed()
    # TLS is for those who have agreed on the fixed newstyle negotiation: others are not told of it, and not served without.
    for flags in (0, 2):
        c = Wire(f"nbd+unix:///disk?socket={server.sock}", flags)
        assert c.result(STARTTLS) == ERR_POLICY
        c.put_option(GO, c.go_data())
        assert c.is_closed()


def test_versions():
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        c = secure(version=version)
        assert c.socket.version() == version.name.replace("_", ".")
        assert c.result(STARTTLS) == ERR_INVALID, "a second time"
        assert c.option(LIST)[0][1][4:] == b"disk"
        assert c.go()[-1][0] == ACK
        data = random.randbytes(3 * MIB + 7)
        assert c.write(MIB - 5, data) == 0
        assert c.read(MIB - 5, len(data)) == data
        c.request(DISC, 0, 0)
        c.socket.suppress_ragged_eofs = False
        assert c.socket.recv(1) == b"", "TLS is ended, then the connection"


def test_state_is_reset():
    on = Server({"disk": SIZE}, "--tls", "on", *with_certificates).start()
    for option in (STRUCTURED_REPLY, EXTENDED_HEADERS):
        c = plain(on)
        assert c.result(option) == ACK
        c.meta(SET_META, b"base:allocation")
        c.starttls(context_of(None))
        assert c.meta(SET_META, b"base:allocation")[-1][0] == ERR_INVALID, "replies are simple again"
        assert c.go()[-1][0] == ACK and not c.flags & SEND_DF
        assert c.read(0, 512) == bytes(512)
    c = plain(on)
    c.option(STRUCTURED_REPLY)
    c.meta(SET_META, b"base:allocation")
    c.starttls(context_of(None))
    c.option(STRUCTURED_REPLY)
    c.go()
    assert c.ask(BLOCK_STATUS, 0, 512) == EINVAL, "the context was chosen in the clear"
    # Somebody in between adds to what the client sends in the clear (CVE-2021-3716).
    c = plain(on)
    c.put(struct.pack(">QII", OPTION_MAGIC, STARTTLS, 0) + struct.pack(">QII", OPTION_MAGIC, STRUCTURED_REPLY, 0)
          + struct.pack(">QII", OPTION_MAGIC, ABORT, 0))
    assert c.answer(STARTTLS) == [(ACK, b"")]
    c.socket = context_of(None).wrap_socket(c.socket, server_hostname="localhost")
    assert c.meta(SET_META, b"base:allocation")[-1][0] == ERR_INVALID
    assert c.go()[-1][0] == ACK and c.read(0, 512) == bytes(512)
    # With `on' the clear is as good.
    c = plain(on)
    assert c.go()[-1][0] == ACK and c.read(0, 512) == bytes(512)
    on.stop()
    off = Server({"disk": SIZE}).start()
    assert plain(off).result(STARTTLS) == ERR_UNSUP
    off.stop()


def test_certificates():
    for name in ("alice", "bob"):
        assert secure(name).go()[-1][0] == ACK
    for name in ("mallory", "carol", "dave", None):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert is_refused(secure, name, version), name
    # Without --tls-verify-peer nobody is asked.
    lax = Server({"disk": SIZE}, "--tls", "require", *with_certificates).start()
    for name in ("mallory", None):
        assert secure(name, at=lax).go()[-1][0] == ACK
    lax.stop()


def test_keys():
    for user in ("alice", "bob"):
        h = libnbd(user=user)
        h.pwrite(user.encode(), 0)
        assert h.pread(5, 0)[:len(user)] == user.encode()
        h.shutdown()
    for user, key in (("alice", "mallory.psk"), ("mallory", "mallory.psk")):
        with open(os.path.join(certificates, key)) as file:
            line = file.read()
        # libnbd looks for its user in its file.
        with open(os.path.join(certificates, "wrong.psk"), "w") as file:
            file.write(user + line[line.index(":"):])
        assert is_refused(libnbd, server, user, "wrong.psk"), user
    only = Server({"disk": SIZE}, "--tls", "require", "--tls-psk", own + "/keys.psk").start()
    libnbd(only, user="alice").shutdown()
    assert is_refused(secure, "alice", None, only)
    only.stop()


def test_no_handshake():
    """Whatever comes instead of a handshake, others are served."""
    for data in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.0\r\n\r\n", bytes(100000),
                 b"\xff" * 100000, struct.pack(">QII", OPTION_MAGIC, LIST, 0)):
        c = plain()
        c.result(STARTTLS)
        try:
            c.put(data)
            c.socket.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        assert c.is_closed()
    assert secure().go()[-1][0] == ACK


def test_many_at_once():
    """Records end where they like: requests in one piece, answers nobody reads for a while."""
    c = secure()
    c.go()
    c.put(b"".join(request(WRITE, i * 8192, 8192, cookie=i) + bytes([i]) * 8192 for i in range(200)))
    assert sorted(c.simple()[:2] for _ in range(200)) == [(i, 0) for i in range(200)]
    c.put(b"".join(request(READ, 0, 2 * MIB, cookie=i) for i in range(32)))
    other = secure("bob")
    other.go()
    for i in range(50):
        assert other.read(8192 * i, 1) == bytes([i])
    assert sorted(c.simple(2 * MIB)[0] for _ in range(32)) == list(range(32))
    for byte in request(WRITE, SIZE - 20, 20) + b"slow as can be......" + request(READ, SIZE - 20, 20, cookie=8):
        c.put(bytes([byte]))
    assert c.simple()[:2] == (7, 0)
    assert c.simple(20) == (8, 0, b"slow as can be......")
    # A payload that is thrown away, and one that comes with nothing behind it.
    assert c.ask(WRITE, 0, 33 * MIB, payload=bytes(33 * MIB)) == EINVAL
    assert c.write(0, random.randbytes(32 * MIB)) == 0


def test_real_clients():
    image = os.path.join(tmp, "image")
    with open(image, "wb") as file:
        file.write(random.randbytes(20 * MIB))
        file.truncate(SIZE)
    by_name = f"nbds+unix:///disk?socket={server.sock}&tls-certificates={certificates}/alice"
    by_key = f"nbds+unix://alice@/disk?socket={server.sock}&tls-psk-file={certificates}/alice.psk"
    copy = os.path.join(tmp, "copy")
    for there, back in ((by_name, by_key), (by_key, by_name)):
        subprocess.run(["nbdcopy", image, there], check=True)
        subprocess.run(["nbdcopy", back, copy], check=True)
        subprocess.run(["cmp", image, copy], check=True)
        lacuna("punch", server.path, "disk", "0", str(SIZE))
    keys = os.path.join(certificates, "alice-keys")
    os.makedirs(keys)
    shutil.copy(os.path.join(certificates, "alice.psk"), keys + "/keys.psk")
    for object in (f"tls-creds-x509,id=tls,dir={certificates}/alice,endpoint=client",
                   f"tls-creds-psk,id=tls,dir={keys},endpoint=client,username=alice"):
        disk = f"driver=nbd,server.type=unix,server.path={server.sock},export=disk,tls-creds=tls,tls-hostname=localhost"
        subprocess.run(["qemu-img", "convert", "--object", object, "-f", "raw", "-n", "--target-image-opts", image, disk],
                       check=True)
        subprocess.run(["qemu-img", "compare", "--object", object, "--image-opts", f"driver=file,filename={image}", disk],
                       check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["qemu-io", "--object", object, "--image-opts", disk, "-c", "read -P 0 20M 40M", "-c",
                        "discard 0 20M", "-c", "read -P 0 0 20M", "-c", "write -P 7 1 5M", "-c", "read -P 7 1 5M"],
                       check=True, stdout=subprocess.DEVNULL)
    said = subprocess.run(["nbdkit", "-U", "-", "nbd", f"socket={server.sock}", "export=disk", "tls=require",
                           f"tls-psk={certificates}/alice.psk", "tls-username=alice", "--run", 'nbdinfo --json "$uri"'],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    assert f'"export-size": {SIZE}' in said, said


def test_answers_nobody_takes():
    """TLS 1.3 lets a client ask again and again for a new key of the server's: one who does, and takes no answer, neither
    keeps the server busy nor anybody waiting."""
    libssl = ctypes.CDLL("libssl.so.3")
    for function in (libssl.TLS_client_method, libssl.SSL_CTX_new, libssl.SSL_new):
        function.restype = ctypes.c_void_p
    lax = Server({"disk": SIZE}, "--tls", "require", *with_certificates).start()
    for is_attached in (False, True):
        c = plain(lax)
        c.option(STARTTLS)
        c.socket.setblocking(True)
        own = ctypes.c_void_p(libssl.SSL_new(ctypes.c_void_p(libssl.SSL_CTX_new(ctypes.c_void_p(libssl.TLS_client_method())))))
        assert libssl.SSL_set_fd(own, c.socket.fileno()) == 1 and libssl.SSL_connect(own) == 1
        if is_attached:
            data = struct.pack(">QII", OPTION_MAGIC, EXPORT_NAME, 4) + b"disk"
            assert libssl.SSL_write(own, data, len(data)) == len(data)
            assert libssl.SSL_read(own, ctypes.create_string_buffer(10), 10) == 10
        c.socket.setblocking(False)
        stuck = 0
        while stuck < 100:
            if stuck == 0:
                assert libssl.SSL_key_update(own, 1) == 1
            if libssl.SSL_do_handshake(own) == 1:
                stuck = 0
            else:
                stuck += 1
                time.sleep(0.005)
        before = lax.ticks()
        time.sleep(1)
        # What a thread that spins takes is all of a second, or what there is of it.
        taken = lax.ticks() - before
        assert taken < 10, f"the server takes {taken} ticks of a second"
        assert secure(None, at=lax).go()[-1][0] == ACK
        c.close()
    lax.stop()


def test_new_keys():
    """TLS 1.3 lets a client change its key at any time, in the middle of a request, too, and demand a new one of the server's."""
    both = Server({"disk": SIZE}, "-i", "127.0.0.1", "-p", "0", "--tls", "require", *with_certificates, "--tls-psk", own + "/keys.psk").start()
    tcp = next(line.split()[1] for line in open(both.errors) if "127.0.0.1" in line).replace("nbds:", "nbd:") + "/disk"
    alice = key_of(own + "/keys.psk", "alice")
    for uri in (tcp, f"nbd+unix:///disk?socket={both.sock}"):
        for library in (OpenSSL, GnuTLS, lambda socket: GnuTLS(socket, "alice", alice)):
            c = Wire(uri)
            assert c.result(STARTTLS) == ACK
            c.socket = library(c.socket)
            c.socket.new_key(True)
            assert c.go()[-1][0] == ACK
            new_keys_beside_requests(c)
            c.close()
    both.stop()


def test_reload():
    directory = os.path.join(certificates, "reloaded")
    shutil.copytree(own, directory)
    files = ["--tls-certificates", directory, "--tls-verify-peer", "--tls-psk", directory + "/keys.psk"]
    reloaded = Server({"disk": SIZE}, "--tls", "require", *files).start()

    def reload(text):
        before = os.path.getsize(reloaded.errors)
        os.kill(reloaded.pid, signal.SIGHUP)
        deadline = time.monotonic() + 60
        while text not in open(reloaded.errors).read()[before:]:
            assert time.monotonic() < deadline, "the server does not say that it has read its files again"
            time.sleep(0.01)

    old = secure(at=reloaded)
    serial = old.socket.getpeercert()["serialNumber"]
    old.go()
    assert old.write(0, b"old") == 0
    # Another certificate, and bob is not known any more.
    for what in ("cert", "key"):
        shutil.copy(os.path.join(certificates, "renewed", f"server-{what}.pem"), directory)
    shutil.copy(os.path.join(certificates, "alice.psk"), directory + "/keys.psk")
    libnbd(reloaded, user="bob").shutdown()
    reload("have been read again")
    assert secure(at=reloaded).socket.getpeercert()["serialNumber"] != serial
    assert is_refused(libnbd, reloaded, "bob")
    libnbd(reloaded, user="alice").shutdown()
    assert old.read(0, 3) == b"old" and old.write(0, b"new") == 0
    # What cannot be read changes nothing.
    for name in ("keys.psk", "server-key.pem", "server-cert.pem", "ca-cert.pem", "ca-crl.pem"):
        path = os.path.join(directory, name)
        good = open(path).read()
        for bad in ("", "nonsense\n"):
            with open(path, "w") as file:
                file.write(bad)
            reload("stay as they were")
        with open(path, "w") as file:
            file.write(good)
    assert secure(at=reloaded).go()[-1][0] == ACK
    assert old.read(0, 3) == b"new"
    reload("have been read again")
    reloaded.stop()


def test_reload_beside_handshakes():
    """Certificates and keys change under those who are in the middle of showing theirs: all get in."""
    failed, stop = [], threading.Event()
    busy = Server({"disk": SIZE}, "--tls", "require", *with_both, "--threads", "2").start()

    def come_and_go(connect):
        try:
            while not stop.is_set():
                c = connect()
                if isinstance(c, Wire):
                    assert c.go()[-1][0] == ACK and c.read(0, 512) == bytes(512)
                    c.close()
                else:
                    assert c.pread(512, 0) == bytes(512)
                    c.shutdown()
                come.append(0)
        except Exception as error:
            failed.append(error)

    come = []
    threads = [threading.Thread(target=come_and_go, args=(connect,)) for connect in
               (lambda: secure("alice", at=busy), lambda: secure("bob", ssl.TLSVersion.TLSv1_2, busy), lambda: libnbd(busy, user="alice"))]
    for thread in threads:
        thread.start()
    while len(come) < 60 and not failed:
        os.kill(busy.pid, signal.SIGHUP)
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed, failed
    busy.stop()


def test_bad_files_and_options():
    def fails(text, *options, status=1):
        result = subprocess.run([os.environ.get("LACUNA", "server/lacuna"), "serve", server.path + "-none", *options],
                                input="secret\n", start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert result.returncode == status and text in result.stderr, (options, result.stderr)

    fails("--tls needs", "--tls", "on", status=2)
    fails("not off, on or require", "--tls", "maybe", status=2)
    fails("need --tls", "--tls-psk", own + "/keys.psk", status=2)
    fails("need --tls", *with_certificates, "--tls=off", status=2)
    fails("needs --tls-certificates", "--tls=on", "--tls-psk", own + "/keys.psk", "--tls-verify-peer", status=2)
    fails("server-cert.pem: No such file", "--tls=on", "--tls-certificates", tmp)
    fails("missing: No such file", "--tls=on", "--tls-psk", tmp + "/missing")
    # No password is asked for, neither at a terminal nor on standard input.
    encrypted = os.path.join(certificates, "encrypted")
    shutil.copytree(own, encrypted)
    subprocess.run(["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", own + "/server-key.pem", "-out",
                    encrypted + "/server-key.pem"], check=True)
    fails("server-key.pem: it is encrypted", "--tls=on", "--tls-certificates", encrypted)
    for text, why in (("x:1234\n", "16 to 64 bytes"), ("x:" + "1" * 33, "USER:KEY"), ("x" * 129 + ":" + "1" * 32, "longer"),
                      ("x:" + "1" * 30 + "zz", "hexadecimal"), ("", "no key"), ("# none\n\n", "no key"),
                      (":" + "1" * 32, "USER:KEY"), ("x:" + "1" * 32 + "\nx:" + "2" * 32, "already")):
        path = os.path.join(tmp, "bad.psk")
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o600)
        fails(why, "--tls=on", "--tls-psk", path)


run_tests(globals())
server.stop()
