from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.planning.quantity import parse_bytes
from nanocloud.planning.reserved import (
    MAX_VALUE_LENGTH,
    Encryption,
    Port,
    Reserved,
    SecretReference,
    check_value,
    parse_encryption,
    parse_port,
    parse_secret_reference,
    parse_words,
    reserved,
)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80", Port(container_port=80)),
        ("53/udp", Port(container_port=53, protocol="udp")),
        ("8080->80", Port(container_port=80, host_port=8080)),
        ("8080->80/tcp", Port(container_port=80, host_port=8080)),
        ("127.0.0.1:8080->80", Port(container_port=80, host_port=8080, host_ip="127.0.0.1")),
        ("[::1]:53->53/udp", Port(container_port=53, host_port=53, host_ip="::1", protocol="udp")),
    ],
)
def test_ports(text: str, port: Port) -> None:
    assert parse_port(text) == port
    assert parse_port(str(port)) == port


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "080", "65536", "-1", "80/", "80/TCP", "->80", "80->", ":80->80", "1.2.3:80->80", "::1:80->80"),
        *("[fe80::1%eth0]:80->80", "80->80->80", "80 ", "٨٠", "a:80->80", "80->80\n"),
    ],
)
def test_bad_ports(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|protocol|address"):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1Gi", 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500M", 500_000_000),
        ("1e9", 10**9),
        ("1", 1),
        ("0.1", 1),
        ("7Ei", 7 * 2**60),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1Gi", "1gi", "1 Gi", "Gi", "8Ei", "1e99", "1m", "0x10", "9" * 25, "١Gi"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|outside"):
        parse_bytes(text)


def test_words() -> None:
    assert parse_words("mysqld --user='a b' \"$HOME\"") == ("mysqld", "--user=a b", "$HOME")
    assert parse_words('["a b", "c"]') == ("a b", "c")
    assert parse_words("") == ()


def test_secret_references_and_keys() -> None:
    assert parse_secret_reference("?smtp:password") == SecretReference(secret="smtp", key="password", optional=True)
    assert parse_encryption("data:xfs") == Encryption(key="data", fs_type="xfs")
    assert parse_encryption("data") == Encryption(key="data", fs_type="ext4")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("port_1", (Reserved.PORT, "1")),
        ("volume_size_12", (Reserved.VOLUME_SIZE, "12")),
        ("env_PATH", (Reserved.ENV, "PATH")),
        ("env_http_proxy", (Reserved.ENV, "http_proxy")),
        ("secret_env_A", (Reserved.SECRET_ENV, "A")),
        ("secret_1", (Reserved.SECRET, "1")),
        ("runtime_args", (Reserved.ARGUMENTS, "")),
        ("port_01", None),
        ("port_http", None),
        ("port", None),
        ("secret_key", None),
        ("runtime_args_1", None),
    ],
)
def test_reserved_names(name: str, found: tuple[Reserved, str] | None) -> None:
    assert reserved(name) == found


@pytest.mark.parametrize(
    ("value", "said"),
    [("a\0b", "NUL"), ("\ud800", "Unicode"), ("x" * (MAX_VALUE_LENGTH + 1), "the limit is")],
)
def test_no_option_holds_what_no_process_can_take(value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_value("anything", value)


@given(
    st.sampled_from(
        ["port_1", "volume_1", "volume_size_1", "volume_encrypted_1", "secret_env_A", "runtime_args", "env_A"]
    ),
    st.text() | st.text("0123456789:[]->/.GiMe?"),
)
def test_any_value_is_checked_without_surprise(name: str, value: str) -> None:
    try:
        check_value(name, value)
    except ValueError as error:
        message = str(error)
        assert message.isprintable()
