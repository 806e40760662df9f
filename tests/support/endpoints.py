"""Real servers on this machine that behave well or badly, and certificates for them."""

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: Is looked for in everything that a verification says or logs.
KEY = "sk-sekrit-0123456789"

type Handler = Callable[[socket.socket], object]


class Endpoint:
    """A server that hands each connection to a handler in a thread; ends with its context."""

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self._handler, self._tls, self.address = handler, tls, address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.host = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="endpoint")]
        self._threads[0].start()

    def stop(self) -> None:
        """Closes everything and waits for the threads; safe to call again."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self.connections:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=[connection], name="endpoint")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with ExitStack() as stack, suppress(OSError):
            stack.enter_context(connection)
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
                self.connections.append(connection)
            self._handler(connection)


@contextmanager
def firewalled() -> Generator[str]:
    """An address at which packets get lost: nobody takes what waits at this listener, so the kernel answers no more."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(address)
        with stack.enter_context(socket.socket()) as late, pytest.raises(TimeoutError):
            late.settimeout(0.2)
            late.connect(address)
        yield "{}:{}".format(*address)


@contextmanager
def no_new_threads() -> Generator[None]:
    """Fails if a thread of Python is left that was not there before, but for those of the servers above."""
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name != "endpoint"] == []


# --- Handlers --------------------------------------------------------------------------------------------------------


def request_of(connection: socket.socket) -> str:
    """The head of an HTTP request."""
    head = b""
    while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
        head += more
    return head.decode("latin-1")


def answering(status: str, *headers: str, body: bytes = b"") -> Handler:
    """Answers every HTTP request in the same way, repeating in reason, header and body what it was told."""

    return lambda connection: answer(connection, request_of(connection), status, *headers, body=body)


def answer(connection: socket.socket, request: str, status: str, *headers: str, body: bytes = b"") -> None:
    """Answers a request that was read."""
    told = next((line for line in request.splitlines() if line.startswith("Authorization")), "")
    lines = [f"HTTP/1.1 {status} {told}", f"X-Told: {told}", *headers, "", told]
    connection.sendall("\r\n".join(lines).encode() + body)


def silent(connection: socket.socket) -> None:
    """Accepts, reads, and never answers."""
    while connection.recv(4096):
        pass


def dripping(text: bytes) -> Handler:
    """Sends a byte of a text again and again, so that no single read takes long."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(text)
        pause = threading.Event()
        while not pause.wait(0.1):
            connection.sendall(b"x")

    return handle


def grpc_status(number: int) -> Handler:
    """A server of HTTP/2 whose answer to every call is a gRPC status."""

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            stream.read(24)
            connection.sendall(_frame(4, 0, 0))
            while head := stream.read(9):
                stream.read(int.from_bytes(head[:3]))
                number_of_stream = int.from_bytes(head[5:])
                if head[3] == 4 and not head[4]:
                    connection.sendall(_frame(4, 1, 0))
                elif head[3] == 1:
                    connection.sendall(_frame(1, 5, number_of_stream, block))

    fields = {"content-type": "application/grpc", "grpc-status": str(number), "grpc-message": f"no {KEY}"}
    block = b"\x88" + b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return handle


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


# --- Certificates ----------------------------------------------------------------------------------------------------


#: Python's strict verification asks an authority's certificate for it.
USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": True,
    "crl_sign": True,
    "encipher_only": False,
    "decipher_only": False,
}


class Authority:
    """Signs certificates for servers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = directory / "authority.pem"
        self.certificate.write_bytes(self._sign(self._name, self._key, authority=True))

    def context_for(self, name: str, *protocols: str) -> ssl.SSLContext:
        """The TLS context of a server with a certificate for a name or address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        file = self._directory / f"{key.private_numbers().private_value}.pem"
        private = serialization.PrivateFormat.PKCS8
        file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
            + self._sign(subject, key, name=name)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(protocols)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, name: str = "", authority: bool = False
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if authority:
            builder = builder.add_extension(x509.KeyUsage(**USAGE), critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
