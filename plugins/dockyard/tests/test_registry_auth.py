"""Challenges and stored credentials."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import ConfigError
from nanocloud_dockyard.auth import CredentialFile, parse_challenges


def test_a_bearer_challenge_is_read():
    header = 'Bearer realm="https://auth.example/token",service="reg, example",scope="repository:a/b:pull,push"'
    (challenge,) = parse_challenges(header)
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {
        "realm": "https://auth.example/token",
        "service": "reg, example",
        "scope": "repository:a/b:pull,push",
    }


def test_several_challenges_are_told_apart():
    header = 'Basic realm="a \\"quoted\\" name", BEARER Realm=plain , Service = "s", Negotiate'
    assert [(c.scheme, c.parameters) for c in parse_challenges(header)] == [
        ("basic", {"realm": 'a "quoted" name'}),
        ("bearer", {"realm": "plain", "service": "s"}),
        ("negotiate", {}),
    ]


@given(st.text(max_size=60) | st.text('Bearer realm="=,\\ ', max_size=60))
def test_any_header_is_read_without_failing(header):
    for challenge in parse_challenges(header):
        assert challenge.scheme


@pytest.fixture
def credential_file(tmp_path):
    def write(auths):
        path = tmp_path / "auth.json"
        path.write_text(auths if isinstance(auths, str) else json.dumps({"auths": auths}))
        return CredentialFile(path)

    return write


def test_credentials_are_those_of_the_host(credential_file):
    file = credential_file(
        {
            "a.example:5000": {"auth": base64.b64encode(b"user:pass:word").decode()},
            "https://index.docker.io/v1/": {"username": "hub", "password": "secret"},
        }
    )
    found = file.of("a.example:5000")
    assert (found.username, found.password) == ("user", "pass:word")
    assert file.of("docker.io").username == "hub"
    assert file.of("a.example") is None
    assert "secret" not in repr(file.of("docker.io"))


@pytest.mark.parametrize(
    "auths", ["{", "[]", {"a": {"auth": "not base64"}}, {"a": {"auth": "bm9jb2xvbg=="}}, {"a": "secret"}]
)
def test_a_broken_file_is_refused_without_showing_it(credential_file, auths):
    with pytest.raises(ConfigError, match=r"auth_file .*: the entry of a is not of the form") as caught:
        credential_file(auths).of("a")
    assert "secret" not in str(caught.value)


def test_without_a_file_nobody_has_credentials():
    assert CredentialFile(None).of("a") is None
