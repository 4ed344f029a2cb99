"""The secure assets: CA, server and admin certificates, the node key. Folder 0700, files 0600.

ca.crt ca.key           the node's certificate authority
server.crt server.key   of the API server
admin.crt admin.key     of the node's own command line (group system:masters)
node.key                seals secrets at rest (32 bytes)
token.key               signs bearer tokens (32 bytes)
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import attrs
from cryptography import x509

from nanocloud.errors import NanocloudError
from nanocloud.files import private_folder, write_durably
from nanocloud.identity.authority import CertificateAuthority, KeyPair
from nanocloud.secrets import create_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ADMIN_GROUP = "system:masters"


@attrs.frozen
class SecureAssets:
    """Where each asset lies."""

    folder: Path

    @property
    def ca_certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def node_key(self) -> Path:
        return self.folder / "node.key"

    @property
    def token_key(self) -> Path:
        return self.folder / "token.key"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def authority(self) -> CertificateAuthority:
        return CertificateAuthority.load(self.ca_certificate, self.key("ca"))

    def prepare(self, *, server_names: Sequence[str] = (), repair: bool = False) -> list[str]:
        """Make what is missing and return what was made; what is there stays, so repeating is safe.

        ``repair`` also issues the server's and the admin's certificates anew, and tightens modes. The CA and the node
        key are never replaced: everything ever issued or sealed hangs on them.
        """
        private_folder(self.folder)
        made = []
        if not self.ca_certificate.exists():
            CertificateAuthority.create().save(self.ca_certificate, self.key("ca"))
            made.append("certificate authority")
        authority = self.authority()
        if repair or not self._usable("server", authority):
            self._save("server", authority.issue_server(default_server_names(server_names)))
            made.append("server certificate")
        if repair or not self._usable("admin", authority):
            self._save("admin", authority.issue_client("admin", [ADMIN_GROUP]))
            made.append("admin certificate")
        for key, what in ((self.node_key, "node key"), (self.token_key, "token key")):
            if not key.exists():
                create_key(key)
                made.append(what)
        for file in self.folder.iterdir():
            file.chmod(0o600)
        return made

    def _usable(self, name: str, authority: CertificateAuthority) -> bool:
        if not (self.certificate(name).exists() and self.key(name).exists()):
            return False
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate(name).read_bytes())
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
        except Exception:  # whatever is wrong with it, a new one mends it
            return False
        return True

    def _save(self, name: str, pair: KeyPair) -> None:
        write_durably(self.key(name), pair.key)
        write_durably(self.certificate(name), pair.certificate)


def default_server_names(additional: Sequence[str] = ()) -> list[str]:
    """What the API server is called by those who ask it."""
    names = ["localhost", "127.0.0.1", "::1", "nanocloud", "kubernetes", "kubernetes.default.svc", socket.gethostname()]
    return list(dict.fromkeys([*names, *additional]))


def require_root() -> None:
    if os.geteuid() != 0:
        raise NanocloudError("this needs root", hint="run it again with sudo")
