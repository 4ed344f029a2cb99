"""The secure assets: CA, server and admin certificates, the node key. Folder 0700, files 0600.

ca.crt ca.key           the node's certificate authority
server.crt server.key   of the API server
admin.crt admin.key     of the node's own command line (group system:masters)
node.key                seals secrets at rest (32 bytes)
token.key               signs bearer tokens (32 bytes)
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nanocloud.ambient import wall_clock
from nanocloud.errors import CorruptError, NanocloudError
from nanocloud.files import PRIVATE_FILE, private_folder, write_durably
from nanocloud.identity.authority import CertificateAuthority, KeyPair
from nanocloud.secrets import create_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ADMIN_GROUP = "system:masters"
_RENEW_BEFORE = dt.timedelta(days=30)


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

        A certificate that does not fit its key, or ends within a month, or lacks one of ``server_names``, is issued
        anew; ``repair`` does so in any case. The server keeps every name it ever had. The CA and the node key are never
        replaced: everything ever issued or sealed hangs on them.

        Raises:
            CorruptError: the authority's key is lost or broken.
            InvalidError: one of ``server_names`` is no name.
        """
        private_folder(self.folder)
        made = []
        for left in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink()
        if not self.ca_certificate.exists():
            CertificateAuthority.create(key=self._old_key()).save(self.ca_certificate, self.key("ca"))
            made.append("certificate authority")
        elif not self.key("ca").exists():
            raise CorruptError(
                f"{self.key('ca')} is missing, the key of {self.ca_certificate}",
                hint="restore it from a backup; without it a new node has to be made: nanocloud reset, nanocloud setup",
            )
        authority = self.authority()
        server = self._usable("server", authority)
        known = _names_of(server) if server is not None else ()
        wanted = default_server_names([*known, *server_names])
        if repair or not known or not set(server_names) <= set(known):
            self._save("server", authority.issue_server(wanted))
            made.append("server certificate")
        if repair or self._usable("admin", authority) is None:
            self._save("admin", authority.issue_client("admin", [ADMIN_GROUP]))
            made.append("admin certificate")
        for key, what in ((self.node_key, "node key"), (self.token_key, "token key")):
            if not key.exists():
                create_key(key)
                made.append(what)
        for file in self.folder.iterdir():
            if file.is_file() and not file.is_symlink():
                file.chmod(PRIVATE_FILE)
        return made

    def _old_key(self) -> ec.EllipticCurvePrivateKey | None:
        """The authority's key where only its certificate is gone."""
        try:
            key = serialization.load_pem_private_key(self.key("ca").read_bytes(), password=None)
        except (OSError, ValueError):
            return None
        return key if isinstance(key, ec.EllipticCurvePrivateKey) else None

    def _usable(self, name: str, authority: CertificateAuthority) -> x509.Certificate | None:
        """The certificate, if it is of the authority, of the key beside it, and good for a while yet."""
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate(name).read_bytes())
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
            key = serialization.load_pem_private_key(self.key(name).read_bytes(), password=None)
        except Exception:  # whatever is wrong with it, a new one mends it
            return None
        left = certificate.not_valid_after_utc - dt.datetime.fromtimestamp(wall_clock(), dt.UTC)
        return certificate if key.public_key() == certificate.public_key() and left > _RENEW_BEFORE else None

    def _save(self, name: str, pair: KeyPair) -> None:
        write_durably(self.key(name), pair.key)
        write_durably(self.certificate(name), pair.certificate)


def _names_of(certificate: x509.Certificate) -> list[str]:
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in alternatives]


def default_server_names(additional: Sequence[str] = ()) -> list[str]:
    """What the API server is called by those who ask it."""
    names = ["localhost", "127.0.0.1", "::1", "nanocloud", "kubernetes", "kubernetes.default.svc", socket.gethostname()]
    return list(dict.fromkeys([*names, *additional]))


def require_root() -> None:
    if os.geteuid() != 0:
        raise NanocloudError("this needs root", hint="run it again with sudo")
