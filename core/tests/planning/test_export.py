"""Exported profiles: everything is in them but plaintext secrets, and a changed one is refused whole."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import CorruptError, InvalidError, LimitExceededError
from nanocloud.planning import BindingRecord, Profile, ResolvedOption
from nanocloud.planning.export import (
    MAX_PROFILE_BYTES,
    Exported,
    Imported,
    canonical,
    export_profile,
    import_profile,
    manifest_of,
)
from nanocloud.providers.binding import BindingResult
from nanocloud.providers.image import Digest
from nanocloud.secrets import Envelope, new_key

NODE, OTHER = Envelope(bytes(range(32))), Envelope(bytes(32))
PASSWORD, TOKEN, DERIVED = "pass-word-one", "to-ken-two", "env pass-word-one"
RECORD = BindingRecord(
    command="create_user",
    target="mariadb",
    attempts=2,
    result=BindingResult.COMPLETED,
    exit_code=0,
    started_at="2026-01-02T03:04:05Z",
    finished_at="2026-01-02T03:04:06Z",
    fingerprint="f1ngerpr1nt",
    target_uid="u1",
    arguments=("blog", None),
    owned={"1": "blog"},
    revocable=True,
)
PROFILE = Profile(
    service="wordpress",
    image=Digest("sha256:" + "ab" * 32),
    options={
        "database": ResolvedOption(value="mariadb", source="choice default"),
        "database_password": ResolvedOption(value=PASSWORD, source="macro !rand", secret=True),
        "env_DB_PASSWORD": ResolvedOption(value=DERIVED, source="default", secret=True),
        "admin_token": ResolvedOption(value=TOKEN, source="given", secret=True),
        "title": ResolvedOption(value="Größe 1", source="given"),
    },
    services={"database": "mariadb"},
    bindings={"database-create-user-1": RECORD},
)
EXPORTED = Exported(
    namespace="shop",
    name="blog",
    spec={"service": "wordpress", "deps": False, "start": True, "security": {"seccompProfile": "RuntimeDefault"}},
    given={
        "admin_token": ResolvedOption(value=TOKEN, source="given", secret=True),
        "title": ResolvedOption(value="Größe 1", source="given"),
    },
    profile=PROFILE,
)


def export(exported: Exported = EXPORTED, *, secrets: bool = True, node: Envelope = NODE) -> tuple[bytes, bytes]:
    key = new_key()
    return export_profile(exported, node, Envelope(key), key, secrets=secrets, created_at="2026-02-03T04:05:06Z")


FILES = export()


def read(files: tuple[bytes, bytes], node: Envelope = NODE) -> Imported:
    return import_profile(*files, node, Envelope)


def forged(change: dict[str, Any], *, node: Envelope | None = None) -> tuple[bytes, bytes]:
    """An export with top-level members replaced, its manifest made anew; with ``node`` signed anew, too."""
    document = json.loads(FILES[1]) | change
    if node is not None:
        covered = canonical({key: value for key, value in document.items() if key != "integrity"})
        signature = node.sign(covered, "profile export")
        document["integrity"] = {"sha256": hashlib.sha256(covered).hexdigest(), "hmac": signature}
    return manifest_of(canonical(document)), canonical(document)


def test_with_secrets_everything_comes_back() -> None:
    found = read(export())
    assert found.profile.options == PROFILE.options
    assert attrs.evolve(found.profile, bindings={}) == attrs.evolve(PROFILE, bindings={})
    assert found.given == {"admin_token": TOKEN, "title": "Größe 1"}
    assert (found.namespace, found.name) == ("shop", "blog")
    assert found.spec == {"service": "wordpress", "deps": False, "security": {"seccompProfile": "RuntimeDefault"}}
    assert (found.missing, found.anew) == ((), ())


def test_binding_records_come_back_without_the_claim_that_they_still_hold() -> None:
    record = read(export()).profile.bindings["database-create-user-1"]
    assert record == attrs.evolve(RECORD, fingerprint="", target_uid="", arguments=(), owned={}, revocable=False)


def test_without_secrets_it_says_which_are_missing_and_which_are_decided_anew() -> None:
    found = read(export(secrets=False))
    assert found.missing == ("admin_token",)
    assert found.anew == ("database_password", "env_DB_PASSWORD")
    assert found.profile.options.keys() == {"database", "title"}
    assert found.given == {"title": "Größe 1"}


@pytest.mark.parametrize("secrets", [True, False])
def test_an_export_holds_no_secret_in_plaintext(secrets: bool) -> None:
    text = b"".join(export(secrets=secrets)).decode()
    for secret in (PASSWORD, TOKEN, DERIVED, "f1ngerpr1nt"):
        assert secret not in text
    assert ("sealed" in text, "wrapped" in text) == (secrets, secrets)


def test_every_export_has_a_key_of_its_own() -> None:
    with pytest.raises(CorruptError, match="sealed under another node key"):
        read(forged({"key": json.loads(export()[1])["key"]}, node=NODE))


@given(st.sampled_from([0, 1]), st.integers(min_value=0), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(file: int, position: int, flip: int) -> None:
    changed = [bytearray(data) for data in FILES]
    changed[file][position % len(changed[file])] ^= flip
    with pytest.raises(InvalidError):
        read((bytes(changed[0]), bytes(changed[1])))


def test_not_one_position_of_either_file_can_be_changed() -> None:
    for file, data in enumerate(FILES):
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 1
            pair = (bytes(changed), FILES[1]) if file == 0 else (FILES[0], bytes(changed))
            with pytest.raises(InvalidError):
                read(pair)


@given(st.sampled_from([0, 1]), st.integers(min_value=0), st.binary(min_size=1, max_size=8), st.booleans())
def test_no_added_or_missing_byte_goes_unnoticed(file: int, position: int, more: bytes, cut: bool) -> None:
    changed = list(FILES)
    at = position % len(changed[file])
    changed[file] = changed[file][:at] + (b"" if cut else more) + changed[file][at + len(more) * cut :]
    with pytest.raises(InvalidError):
        read((changed[0], changed[1]))


@pytest.mark.parametrize(
    "change",
    [
        {"secrets": False},
        {"spec": {"service": "mariadb"}},
        {"metadata": {"namespace": "other", "name": "blog", "createdAt": ""}},
        {"profile": {}},
        {"more": 1},
    ],
)
def test_a_new_manifest_does_not_make_a_changed_profile_good(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=r"changed, or is none: integrity\.(sha256|hmac) is wrong"):
        read(forged(change))


def test_a_digest_made_anew_does_not_either() -> None:
    attacker = Envelope(b"\1" * 32)
    with pytest.raises(InvalidError, match=r"integrity\.hmac is wrong"):
        read(forged({"spec": {"service": "mariadb"}}, node=attacker))


def test_another_nodes_export_is_refused_by_name() -> None:
    with pytest.raises(InvalidError, match="was made by another node") as caught:
        read(export(node=OTHER))
    assert "import it on the node that made it" in caught.value.hint
    with pytest.raises(InvalidError):  # whoever writes our key's id into it cannot sign it
        read(forged({"key": json.loads(FILES[1])["key"] | {"id": NODE.key_id}, "secrets": False}, node=OTHER))


@pytest.mark.parametrize("version", [0, 2, 77])
def test_another_version_is_refused_by_its_number(version: int) -> None:
    with pytest.raises(InvalidError, match=f"has version {version}; this node reads version 1"):
        read(forged({"version": version}, node=NODE))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"version":"1"}', b'{"version":true}', b"\xff", b"[" * 9000]
)
def test_what_is_no_export_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError, match="changed, or is none"):
        read((manifest_of(data), data))


def test_a_sealed_value_moved_to_another_option_does_not_open() -> None:
    document = json.loads(FILES[1])
    options = document["profile"]["options"]
    options["env_DB_PASSWORD"]["sealed"] = options["database_password"]["sealed"]
    with pytest.raises(CorruptError, match="belongs elsewhere"):
        read(forged({"profile": document["profile"]}, node=NODE))


def test_a_profile_too_large_to_come_back_is_not_exported() -> None:
    large = {f"o{n}": ResolvedOption(value="x" * 32768, source="given") for n in range(70)}
    with pytest.raises(LimitExceededError, match=f"the limit is {MAX_PROFILE_BYTES}"):
        export(attrs.evolve(EXPORTED, profile=attrs.evolve(PROFILE, options=large)))
