"""The node's certificate authority: an ECDSA P-256 root that signs the server, its clients and its services.

Private keys are PEM (PKCS #8) in files of mode 0600 and never leave the secure assets, except keys of services, which
are made for them and live in Secrets. Serial numbers are random (RFC 5280, section 4.1.2.2).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nanocloud.ambient import wall_clock
from nanocloud.errors import CorruptError, InvalidError, NotFoundError
from nanocloud.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_ROOT_DAYS, _SERVER_DAYS, CLIENT_DAYS, SERVICE_DAYS = 3650, 397, 365, 397
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
"""As hosts are called in practice; a wildcard stands first and alone."""
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_BACKDATE = dt.timedelta(minutes=5)  # clocks of clients differ a little


@attrs.frozen
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = attrs.field(repr=False)


class CertificateAuthority:
    """Signs certificates. ``certificate`` is the PEM that clients and services trust."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._root, self._key = certificate, key
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(
        cls, *, common_name: str = "nanocloud node CA", key: ec.EllipticCurvePrivateKey | None = None
    ) -> CertificateAuthority:
        """A new root. Over the ``key`` of a lost one, what that one signed goes on to hold."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        root = (
            _builder(name, name, key.public_key(), days=_ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signing=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(root, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> CertificateAuthority:
        """Raises NotFoundError where the node was not set up, CorruptError where key and certificate do not match."""
        try:
            root = x509.load_pem_x509_certificate(certificate.read_bytes())
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        except FileNotFoundError as exc:
            raise NotFoundError(f"{exc.filename} does not exist", hint="run: nanocloud setup") from None
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise CorruptError(
                f"{certificate} or {key} is broken: {exc}", hint="run: nanocloud setup --repair"
            ) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != root.public_key():
            raise CorruptError(f"{key} is not the key of {certificate}")
        return cls(root, private)

    def save(self, certificate: Path, key: Path) -> None:
        """Key first: a certificate without its key would be taken for a set-up node."""
        write_durably(key, _pem(self._key))
        write_durably(certificate, self.certificate)

    def issue_server(self, names: Iterable[str]) -> KeyPair:
        """For the API server; ``names`` are DNS names and addresses."""
        return self._issue("nanocloud-apiserver", (), names, _SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH)

    def issue_service(self, name: str, names: Iterable[str]) -> KeyPair:
        """For a service's own TLS, as server and as client."""
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(name, (), names, SERVICE_DAYS, *usages)

    def issue_client(self, user: str, groups: Sequence[str]) -> KeyPair:
        """Kubernetes convention: the common name is the user, organizations are the groups."""
        return self._issue(user, groups, (), CLIENT_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH)

    def sign_request(self, request_pem: bytes, user: str, groups: Sequence[str]) -> bytes:
        """Certify the public key of a PKCS #10 request for ``user``; everything else the request asks is ignored.

        Raises:
            InvalidError: not a request, a bad signature, or a key of another kind than ECDSA on P-256, P-384 or P-521.
        """
        try:
            request = x509.load_pem_x509_csr(request_pem)
            sound = request.is_signature_valid
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as exc:
            raise InvalidError(f"spec.request is no PEM certificate request: {exc}") from None
        if not sound:
            raise InvalidError("spec.request is not signed by its own key")
        public = request.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise InvalidError(f"spec.request has a {type(public).__name__}; an elliptic curve key is needed")
        if not isinstance(public.curve, _CURVES):
            raise InvalidError(f"spec.request has a key on {public.curve.name}; allowed: P-256, P-384, P-521")
        return self._sign(public, user, groups, (), CLIENT_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self, name: str, groups: Sequence[str], names: Iterable[str], days: int, *usages: x509.ObjectIdentifier
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        return KeyPair(self._sign(key.public_key(), name, groups, names, days, *usages), _pem(key))

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        common_name: str,
        groups: Sequence[str],
        names: Iterable[str],
        days: int,
        *usages: x509.ObjectIdentifier,
    ) -> bytes:
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]))
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(x509.Name(subject), self._root.subject, public, days=days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signing=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(authority, critical=False)
        )
        alternatives = [_general_name(name) for name in names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_request(user: str) -> tuple[bytes, bytes]:
    """A fresh private key and a certificate request for it, both PEM; for a client that redeems a token."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return _pem(key), request.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.fromtimestamp(wall_clock(), dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    """Raises InvalidError: neither an address nor a name that can stand in a certificate."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name) or len(name) > 253:
        raise InvalidError(f"{name[:80]!r} is neither a DNS name nor an address")
    return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
