"""The certificate authority and the folder of secure assets."""

from __future__ import annotations

import datetime as dt
import os
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nanocloud.errors import CorruptError, InvalidError, NotFoundError
from nanocloud.identity import assets as assets_module
from nanocloud.identity.assets import SecureAssets
from nanocloud.identity.authority import CertificateAuthority, new_request

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def assets(tmp_path: Path) -> SecureAssets:
    return SecureAssets(tmp_path / "secure_assets")


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create()


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def content(assets: SecureAssets) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in assets.folder.iterdir()}


def test_everything_is_made_once_and_private(assets: SecureAssets) -> None:
    made = assets.prepare()
    assert made == ["certificate authority", "server certificate", "admin certificate", "node key", "token key"]
    first = content(assets)
    assert assets.prepare() == []
    assert content(assets) == first
    assert assets.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in assets.folder.iterdir()} == {0o600}


def test_wider_rights_are_taken_back(assets: SecureAssets) -> None:
    assets.prepare()
    assets.folder.chmod(0o755)
    assets.node_key.chmod(0o644)
    assets.prepare()
    assert assets.folder.stat().st_mode & 0o777 == 0o700
    assert assets.node_key.stat().st_mode & 0o777 == 0o600


def test_repair_issues_certificates_anew_and_keeps_keys_that_everything_hangs_on(assets: SecureAssets) -> None:
    assets.prepare(server_names=["cloud.example", "192.0.2.7"])
    before = content(assets)
    assert assets.prepare(repair=True) == ["server certificate", "admin certificate"]
    after = content(assets)
    assert {name for name in before if before[name] == after[name]} == {"ca.crt", "ca.key", "node.key", "token.key"}
    assert {"cloud.example", "192.0.2.7", "localhost"} <= names(read(after["server.crt"]))


def test_another_name_of_the_server_is_added_to_those_it_has(assets: SecureAssets) -> None:
    assets.prepare(server_names=["one.example"])
    assert assets.prepare(server_names=["two.example"]) == ["server certificate"]
    assert {"one.example", "two.example", "127.0.0.1"} <= names(read(assets.certificate("server").read_bytes()))
    assert assets.prepare(server_names=["two.example"]) == []


@pytest.mark.parametrize("name", ["ümlaut.example", "", "a b", "-x", "a..b", "x" * 254])
def test_what_is_no_name_of_a_server_is_refused(assets: SecureAssets, name: str) -> None:
    with pytest.raises(InvalidError, match="neither a DNS name nor an address"):
        assets.prepare(server_names=[name])


@pytest.mark.parametrize("broken", ["server.crt", "server.key", "admin.crt"])
def test_a_broken_or_mismatched_pair_is_mended(assets: SecureAssets, broken: str) -> None:
    assets.prepare()
    path = assets.folder / broken
    other = CertificateAuthority.load(assets.ca_certificate, assets.key("ca")).issue_client("x", [])
    for wrong in (b"", b"garbage", other.key if broken.endswith("key") else other.certificate):
        path.write_bytes(wrong)
        assert assets.prepare() == [f"{broken.partition('.')[0]} certificate"]
        context = ssl.create_default_context(cafile=assets.ca_certificate)
        context.load_cert_chain(path.with_suffix(".crt"), path.with_suffix(".key"))


def test_a_certificate_is_renewed_before_it_ends(assets: SecureAssets, monkeypatch: pytest.MonkeyPatch) -> None:
    assets.prepare()
    monkeypatch.setattr(assets_module, "_RENEW_BEFORE", dt.timedelta(days=400))
    assert assets.prepare() == ["server certificate", "admin certificate"]


def test_a_lost_root_certificate_is_made_again_over_its_key(assets: SecureAssets) -> None:
    assets.prepare()
    assets.ca_certificate.unlink()
    assert assets.prepare() == ["certificate authority"]
    root = read(assets.ca_certificate.read_bytes())
    read(assets.certificate("server").read_bytes()).verify_directly_issued_by(root)


def test_a_lost_root_key_is_told_and_nothing_is_replaced(assets: SecureAssets) -> None:
    assets.prepare()
    assets.key("ca").unlink()
    before = content(assets)
    with pytest.raises(CorruptError, match=r"ca\.key is missing"):
        assets.prepare(repair=True)
    assert content(assets) == before


def test_what_a_killed_setup_left_goes(assets: SecureAssets) -> None:
    assets.prepare()
    (assets.folder / ".node.key.1234.tmp").write_bytes(b"half")
    assets.prepare()
    assert not list(assets.folder.glob(".*"))


def test_a_machine_that_is_no_node_says_how_to_make_it_one(assets: SecureAssets) -> None:
    with pytest.raises(NotFoundError) as caught:
        assets.authority()
    assert caught.value.hint == "run: nanocloud setup"


def test_a_root_that_is_not_of_its_key_is_refused(assets: SecureAssets) -> None:
    assets.prepare()
    CertificateAuthority.create().save(assets.folder / "other.crt", assets.key("ca"))
    with pytest.raises(CorruptError, match="is not the key of"):
        assets.authority()
    assets.key("ca").write_bytes(b"garbage")
    with pytest.raises(CorruptError, match="is broken"):
        assets.authority()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_link_in_the_folder_is_not_followed(assets: SecureAssets, tmp_path: Path) -> None:
    assets.prepare()
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    victim.chmod(0o644)
    (assets.folder / "link").symlink_to(victim)
    assets.prepare()
    assert victim.stat().st_mode & 0o777 == 0o644


# ---- what the authority signs ----------------------------------------------------------------------------------------


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, name: str = "someone") -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            ]
        )
    )
    wishes = x509.BasicConstraints(ca=True, path_length=None)
    return (
        builder.add_extension(wishes, critical=True).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )


def test_a_request_gives_its_key_and_nothing_else(authority: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    signed = read(authority.sign_request(request(key), "alice", ["developers"]))
    assert signed.subject.rfc4514_string() == "CN=alice,O=developers"
    assert signed.public_key() == key.public_key()
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    signed.verify_directly_issued_by(read(authority.certificate))


def _broken_signature() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    text = x509.load_pem_x509_csr(request(key)).public_bytes(serialization.Encoding.DER)
    at = text.index(b"someone")
    changed = text[:at] + b"anybody" + text[at + 7 :]
    return x509.load_der_x509_csr(changed).public_bytes(serialization.Encoding.PEM)


_EMPTY_PEM = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (b"", "no PEM certificate request"),
        (
            b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "no PEM certificate request",
        ),
        (_broken_signature(), "not signed by its own key"),
        (request(rsa.generate_private_key(65537, 2048)), "an elliptic curve key is needed"),
        (request(ec.generate_private_key(ec.SECP192R1())), "allowed: P-256, P-384, P-521"),
    ],
    ids=["empty", "garbage", "changed", "rsa", "weak"],
)
def test_a_request_that_cannot_be_certified(authority: CertificateAuthority, pem: bytes, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        authority.sign_request(pem, "alice", [])


def test_a_new_request_can_be_signed(authority: CertificateAuthority) -> None:
    key, pem = new_request("alice")
    signed = read(authority.sign_request(pem, "alice", []))
    private = serialization.load_pem_private_key(key, password=None)
    assert private.public_key() == signed.public_key()


def test_serial_numbers_differ(authority: CertificateAuthority) -> None:
    assert len({read(authority.issue_client("a", []).certificate).serial_number for _ in range(5)}) == 5


def test_a_private_key_is_not_shown(authority: CertificateAuthority) -> None:
    assert "PRIVATE KEY" not in repr(authority.issue_client("a", []))
