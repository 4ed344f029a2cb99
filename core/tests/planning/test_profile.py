from __future__ import annotations

import json
from typing import Any

import pytest

from nanocloud.errors import InvalidError
from nanocloud.planning import BindingRecord, Profile, profile_from_json, profile_to_json
from nanocloud.providers.binding import BindingResult
from nanocloud.testkit.planning import MARIADB, profile_of, resolve_label

OWNER = "default/mariadb"


def seal(plaintext: bytes, context: str, /) -> bytes:
    return context.encode() + b"|" + plaintext[::-1]


def unseal(sealed: bytes, context: str, /) -> bytes:
    head, _, body = sealed.partition(b"|")
    assert head == context.encode()
    return body[::-1]


@pytest.fixture
async def profile() -> Profile:
    record = BindingRecord(
        command="create_user",
        target="mariadb",
        attempts=2,
        result=BindingResult.COMPLETED,
        exit_code=0,
        started_at="2026-01-02T03:04:05Z",
        finished_at="2026-01-02T03:04:06Z",
        fingerprint="f1ngerpr1nt",
    )
    return profile_of(await resolve_label(MARIADB), service="mariadb").record("database-create-user-1", record)


async def test_a_profile_comes_back_as_it_was(profile: Profile) -> None:
    stored = json.loads(json.dumps(profile_to_json(profile, seal, owner=OWNER)))
    assert profile_from_json(stored, unseal, owner=OWNER) == profile


async def test_no_secret_is_in_the_json(profile: Profile) -> None:
    stored = profile_to_json(profile, seal, owner=OWNER)
    assert stored["options"]["root_password"].keys() == {"sealed", "source"}
    assert stored["options"]["port"] == {"value": "3306", "source": "default"}
    text = json.dumps(stored)
    assert "random1" not in text
    assert "f1ngerpr1nt" not in text
    assert "random1" not in repr(profile)
    assert "f1ngerpr1nt" not in repr(profile)


async def test_a_sealed_value_moved_to_another_option_or_bundle_does_not_open(profile: Profile) -> None:
    stored = profile_to_json(profile, seal, owner=OWNER)
    with pytest.raises(AssertionError):
        profile_from_json(stored, unseal, owner="default/other")
    options = stored["options"]
    options["env_MARIADB_ROOT_PASSWORD"], options["root_password"] = (
        options["root_password"],
        options["env_MARIADB_ROOT_PASSWORD"],
    )
    with pytest.raises(AssertionError):
        profile_from_json(stored, unseal, owner=OWNER)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "profile has version 2; this node reads version 1"),
        ({"more": 1}, 'unknown field "more"'),
        ({"options": {"a": {"source": "given"}}}, "options.a: needs exactly one of value, sealed"),
        ({"options": {"a": {"source": "given", "value": "1", "sealed": "MQ=="}}}, "needs exactly one"),
        ({"options": {"a": {"source": "given", "value": 1}}}, "options.a.value: expected a string, got 1"),
        ({"options": {"a": {"source": "given", "sealed": "*"}}}, "options.a.sealed: is not base64"),
        ({"bindings": {"b": {"command": "x", "target": "t", "attempts": 1, "result": "Maybe"}}}, "Maybe"),
    ],
)
async def test_a_bad_profile_is_refused(profile: Profile, change: dict[str, Any], said: str) -> None:
    stored = profile_to_json(profile, seal, owner=OWNER) | change
    with pytest.raises(InvalidError) as caught:
        profile_from_json(stored, unseal, owner=OWNER)
    assert said in str(caught.value)


async def test_binding_records_are_taken_over(profile: Profile) -> None:
    resolution = await resolve_label(MARIADB)
    assert profile_of(resolution, previous=profile).bindings == profile.bindings
