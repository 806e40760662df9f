"""The reverse proxy as it is shipped, `deploy/nginx.conf`, on ports and in a directory of this run, with a certificate."""

import ipaddress
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.processes import ROOT, ServerProcess, free_port

NAME = "controlplane.example.com"
CONFIGURATION = ROOT / "deploy" / "nginx.conf"
#: Where Debian's nginx keeps bodies and answers; in the configuration only because a test has a place of its own.
TEMPORARY = "".join(
    f"    {kind}_temp_path {{directory}}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


class NginxMissingError(Exception):
    """There is no nginx on this machine; the message says how to get it."""


def nginx_program() -> str:
    """The path of nginx, which Debian keeps where only root looks."""
    program = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if not program:
        message = "The shipped reverse proxy is tried with nginx. On Debian and Ubuntu: apt-get install nginx-light"
        raise NginxMissingError(message)
    return program


class Proxy:
    """nginx with the shipped configuration in front of the service on these ports of this machine."""

    process: ServerProcess

    def __init__(self, directory: Path, service_port: int, other_service_port: int | None = None) -> None:
        self.directory = directory
        self.port, self.plain_port = free_port(), free_port()
        self.service_ports = service_port, other_service_port or free_port()
        directory.mkdir()
        write_certificate(directory)
        self.trust = ssl.create_default_context(cafile=str(directory / "tls.crt"))
        self.configuration = directory / "nginx.conf"
        self.configuration.write_text(
            configuration_for(directory, ports=(self.port, self.plain_port), service_ports=self.service_ports)
        )
        self._command = [nginx_program(), "-e", str(directory / "error.log"), "-c", str(self.configuration)]

    def check(self) -> subprocess.CompletedProcess[str]:
        """What nginx itself says of the configuration."""
        return subprocess.run([*self._command, "-t"], capture_output=True, text=True, check=False)  # noqa: S603

    def start(self) -> None:
        """Starts it and returns once it accepts connections."""
        command = [*self._command, "-g", "daemon off;"]
        self.process = ServerProcess(command, log=self.directory / "nginx")
        self.process.wait_until(self._accepts)

    def stop(self) -> None:
        """Ends it."""
        self.process.stop()

    def connection(self) -> HTTPSConnection:
        """A caller's connection, the certificate checked against the service's name."""
        return _Connection(NAME, self.port, context=self.trust, timeout=30)

    def connect(self) -> ssl.SSLSocket:
        """A bare connection after its handshake."""
        return self.trust.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 30), server_hostname=NAME)

    def sockets(self) -> int:
        """How many sockets its processes hold open."""
        return sum(_sockets_of(pid) for pid in self.process.descendants())

    def _accepts(self) -> bool:
        with suppress(OSError):
            self.connect().close()
            return True
        return False


class _Connection(HTTPSConnection):
    """To this machine under the service's name, as if DNS led here."""

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


def configuration_for(directory: Path, *, ports: tuple[int, int], service_ports: tuple[int, int]) -> str:
    """The shipped configuration with nothing but its places and ports replaced; each must still be there."""
    account = pwd.getpwuid(os.geteuid()).pw_name
    text = CONFIGURATION.read_text()
    for pattern, replacement in (
        (r"^user www-data;", f"user {account};"),
        (r"/run/nginx\.pid", f"{directory}/nginx.pid"),
        (r"/var/log/nginx", str(directory)),
        (r"/etc/nginx/tls", str(directory)),
        (r"^    default_type ", TEMPORARY.format(directory=directory) + "    default_type "),
        (r"^ *listen \[::\]:.*\n", ""),
        (r"listen 443 ", f"listen 127.0.0.1:{ports[0]} "),
        (r"listen 80 ", f"listen 127.0.0.1:{ports[1]} "),
        (r"127\.0\.0\.1:8000", f"127.0.0.1:{service_ports[0]}"),
        (r"127\.0\.0\.1:8001", f"127.0.0.1:{service_ports[1]}"),
    ):
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if not count:
            message = f"deploy/nginx.conf no longer has {pattern}."
            raise AssertionError(message)
    return text


def write_certificate(directory: Path) -> None:
    """A self-signed certificate for the service's name and its key, as tls.crt and tls.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _sockets_of(pid: int) -> int:
    found = 0
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found += str(descriptor.readlink()).startswith("socket:")
    return found
