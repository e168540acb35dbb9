"""A Redis that speaks TLS, and certificates that are right or wrong in one way each."""

import shutil
import subprocess
from pathlib import Path
from typing import Literal

from .servers import START_SECONDS, ServerError, TestServer, find_binary, missing_reason

#: Who signs, and from when to when: the server is shown with one of these.
Certificate = Literal["valid", "expired", "stranger", "elsewhere"]

_OPENSSL_CONFIG = """\
[ca]
default_ca = ours
[ours]
database = index
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[leaf]
subjectAltName = IP:127.0.0.1, DNS:localhost
[elsewhere]
subjectAltName = DNS:elsewhere.example
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
"""


class Certificates:
    """Two authorities, and what they signed.

    `server` and `client` are valid, `expired` is no longer, `stranger` is signed by nobody we trust, `elsewhere` is for another host.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        (directory / "index").touch()
        (directory / "config").write_text(_OPENSSL_CONFIG)
        for authority in ("ca", "other-ca"):
            self._request(authority)
            self._sign(authority, "-selfsign", "-extensions", "authority", "-keyfile", self.key(authority))
        for name, authority in {
            "server": "ca",
            "client": "ca",
            "expired": "ca",
            "stranger": "other-ca",
            "elsewhere": "ca",
        }.items():
            self._request(name)
            end = ("-enddate", "20200202000000Z") if name == "expired" else ()
            signer = (
                "-extensions",
                "elsewhere" if name == "elsewhere" else "leaf",
                "-cert",
                self.path(authority),
                "-keyfile",
                self.key(authority),
            )
            self._sign(name, *signer, *end)

    def path(self, name: str) -> str:
        """Return where the certificate of this name is."""
        return str(self._directory / f"{name}.pem")

    def key(self, name: str) -> str:
        """Return where its private key is."""
        return str(self._directory / f"{name}.key")

    def _request(self, name: str) -> None:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.key(name))
        self._openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-config", "config", "-out", f"{name}.csr")

    def _sign(self, name: str, *how: str) -> None:
        dates = ("-startdate", "20200101000000Z") + (() if "-enddate" in how else ("-days", "10000"))
        self._openssl("ca", "-batch", "-notext", "-config", "config", "-in", f"{name}.csr", "-out", self.path(name), *dates, *how)

    def _openssl(self, *words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=self._directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerError(f"openssl {' '.join(words)}:\n{done.stderr}")


class TlsServer(TestServer):
    """Redis that speaks TLS only. It shows the certificate asked for; with `client_auth` it asks every client for one."""

    __test__ = False

    def __init__(self, *args: str, certificate: Certificate = "valid", client_auth: bool = False) -> None:
        reason = tls_missing_reason()
        if reason is not None:
            raise ServerError(reason)
        super().__init__("redis", *args)
        self._shown = "server" if certificate == "valid" else certificate
        self._client_auth = client_auth
        self.certificates = Certificates(self.directory / "certificates")

    @property
    def url(self) -> str:
        """Where it is and whose signature to trust, as a rediss:// URL."""
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificates.path('ca')}"

    @property
    def client_url(self) -> str:
        """The same with the client's own certificate."""
        certificate, key = self.certificates.path("client"), self.certificates.key("client")
        return f"{self.url}&ssl_certfile={certificate}&ssl_keyfile={key}"

    def _options(self) -> dict[str, str]:
        return super()._options() | {
            "--port": "0",
            "--tls-port": str(self.port),
            "--tls-cert-file": self.certificates.path(self._shown),
            "--tls-key-file": self.certificates.key(self._shown),
            "--tls-ca-cert-file": self.certificates.path("ca"),
            "--tls-auth-clients": "yes" if self._client_auth else "no",
        }


def tls_missing_reason() -> str | None:
    """Say what is missing to have a server that speaks TLS; None where nothing is."""
    binary = find_binary("redis")
    if binary is None:
        return missing_reason("redis")
    if shutil.which("openssl") is None:
        return "no openssl in PATH (Debian: apt-get install openssl)"
    # Told to listen nowhere it ends at once; without TLS it does not get that far.
    tried = subprocess.run(
        [binary, "--port", "0", "--tls-port", "0"], capture_output=True, text=True, check=False, timeout=START_SECONDS
    )
    return f"{binary} is built without TLS" if "Bad directive" in tried.stdout + tried.stderr else None
