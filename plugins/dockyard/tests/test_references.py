"""What can be written where an image is meant."""

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import InvalidError
from nanocloud_dockyard.reference import (
    LayoutReference,
    RegistryReference,
    ServiceReference,
    parse_digest,
    parse_host,
    parse_reference,
)

HEX = "0123456789abcdef" * 4
PIN = f"sha256:{HEX}"

_words = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)
_tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: f"sha256:{text}")
_hosts = st.sampled_from(["localhost", "127.0.0.1:5000", "[::1]:5000", "registry.example", "Reg.Example:443"])


@given(_words, _digests)
def test_service_reads_back(service, digest):
    reference = ServiceReference(service=service, digest=digest)
    assert parse_reference(str(reference)) == reference


@given(_hosts, st.lists(_words, min_size=1, max_size=4), _tags, _digests)
def test_registry_reference_reads_back(host, path, tag, digest):
    if tag is None and digest is None:
        tag = "latest"
    reference = RegistryReference(host=host, repository="/".join(path), tag=tag, digest=digest)
    assert parse_reference(str(reference)) == reference


@given(
    st.lists(st.text(string.ascii_letters + string.digits + "._- ", min_size=1), min_size=1),
    _tags,
    _digests,
    st.booleans(),
)
def test_layout_reference_reads_back(parts, tag, digest, archive):
    path = "/" + "/".join(part for part in parts if part != "..")
    reference = LayoutReference(path=path, tag=tag, digest=digest, archive=archive)
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=80) | st.text("abz09./:@-_[]oci sha256", max_size=80))
def test_any_text_is_read_or_refused(text):
    with suppress(InvalidError):
        parsed = parse_reference(text)
        assert parse_reference(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag"),
    [
        ("docker.io/nginx", "docker.io", "library/nginx", "latest"),
        ("index.docker.io/library/nginx:1.25", "docker.io", "library/nginx", "1.25"),
        ("docker.io/grafana/grafana", "docker.io", "grafana/grafana", "latest"),
        ("localhost/a", "localhost", "a", "latest"),
        ("127.0.0.1:5000/a/b_c__d-e.f:v1", "127.0.0.1:5000", "a/b_c__d-e.f", "v1"),
    ],
)
def test_registry_is_filled_in(text, host, repository, tag):
    assert parse_reference(text) == RegistryReference(host=host, repository=repository, tag=tag)


def test_a_pinned_reference_needs_no_tag():
    assert parse_reference(f"quay.io/a/b@{PIN}") == RegistryReference(host="quay.io", repository="a/b", digest=PIN)
    assert parse_reference(f"quay.io/a/b:v1@{PIN}").tag == "v1"
    assert parse_reference(f"mariadb@{PIN}") == ServiceReference(service="mariadb", digest=PIN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a service"),
        ("Nginx", "is not a service"),
        ("nginx:1.25", "is not a service"),
        ("-mariadb", "is not a service"),
        ("a" * 64, "is not a service"),
        ("library/nginx", "'library' is not the host of a registry"),
        ("a.b/UPPER", "'UPPER' is not a repository"),
        ("a.b/../../etc/passwd", "is not a repository"),
        ("a.b//c", "is not a repository"),
        ("a.b/" + "c" * 256, "is not a repository"),
        ("a.b/c:", "'' is not a tag"),
        ("a.b/c:t/d", "'t/d' is not a tag"),
        ("a.b:99999/c", "is not the host"),
        ("a.b:0/c", "is not the host"),
        ("user:pw@a.b/c", "is not the host"),
        ("a.b/c@sha256:beef", "'sha256:beef' is not sha256:<64"),
        (f"a.b/c@sha512:{HEX}", "is not a"),
        (f"a.b/c@sha256:{HEX.upper()}", "is not sha256:<64"),
        ("oci:relative", "must be an absolute path"),
        ("oci:", "must be an absolute path"),
        ("oci:/a/../b", "without .."),
        ("oci:/a:", "'' is not a tag"),
        ("oci:/a\0b", "absolute path"),
        ("x" * 5000, "at most 4096"),
    ],
)
def test_a_bad_reference_is_refused_with_its_reason(text, says):
    with pytest.raises(InvalidError) as caught:
        parse_reference(text)
    assert says in str(caught.value)


def test_a_missing_registry_is_hinted_at():
    with pytest.raises(InvalidError) as caught:
        parse_reference("nginx:1.25")
    assert caught.value.hint == "name the registry too: docker.io/nginx:1.25"


@given(st.text(max_size=40))
def test_hosts_and_digests_hold_nothing_that_could_leave_a_path_or_url(text):
    if parse_host(text):
        assert not set(text) & set("/\\?#@ \0\r\n%")
    assert parse_digest(text) is None
