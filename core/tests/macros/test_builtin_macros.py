from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

import pytest

from nanocloud.errors import InvalidError, ProviderError
from nanocloud.macros import CHARSETS, BuiltinMacros, first_address, first_nameserver
from nanocloud.providers.macro import MacroValue
from nanocloud.testkit.specs import macro_context
from nanocloud.testkit.suites.macro import MacroProviderSuite

CONTEXT = macro_context(mode="tls", empty="")


async def expand(text: str, provider: BuiltinMacros | None = None) -> MacroValue:
    macro, *arguments = text.split()
    async with provider or BuiltinMacros() as macros:
        return await macros.expand(macro, arguments, CONTEXT)


@pytest.mark.parametrize("charset", CHARSETS)
async def test_rand_gives_secret_characters_of_the_set(charset: str) -> None:
    found = await expand(f"rand 500 {charset}")
    assert found.secret
    assert len(found.value) == 500
    assert set(found.value) <= set(CHARSETS[charset])
    assert found != await expand(f"rand 500 {charset}")
    assert found.value not in repr(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("bundle", "web"),
        ("tls key", "/run/nanocloud/tls/tls.key"),
        ("tls cert", "/run/nanocloud/tls/tls.crt"),
        ("tls ca", "/run/nanocloud/tls/ca.crt"),
        ("if mode=tls on off", "on"),
        ("if mode=plain on off", "off"),
        ("if mode=plain on", ""),
        ("if absent=x on off", "off"),
        ("if absent= on off", "off"),
        ("if empty= on off", "on"),
        ("if mode=tls a=b", "a=b"),
    ],
)
async def test_tls_and_if(text: str, value: str) -> None:
    assert await expand(text) == MacroValue(value=value)


@pytest.mark.parametrize(
    "text",
    [
        *("rand", "rand 0 hex", "rand 4097 hex", "rand -1 hex", "rand ٣ hex", "rand 1e3 hex", "rand 8", "rand 8 emoji"),
        *("rand 8 hex more", "tls", "tls keys", "tls key ca", "if", "if mode=tls", "if mode on off", "if a=b c d e"),
        *("bundle 1", "dns 1", "local_ip eth0", "other"),
    ],
)
async def test_wrong_arguments_are_refused_as_written(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        await expand(text)
    assert f"!{text}" in str(caught.value)


def test_the_first_address_is_not_loopback() -> None:
    assert not ipaddress.ip_address(first_address()).is_loopback


async def test_local_ip() -> None:
    assert (await expand("local_ip", BuiltinMacros(local_address=lambda: "192.0.2.7"))).value == "192.0.2.7"


def test_the_first_name_server(tmp_path: Path) -> None:
    file, stub = tmp_path / "resolv.conf", tmp_path / "stub.conf"
    lines = ["# nameserver 9.9.9.9", "search x", "nameserver", "nameserver nonsense", "nameserver fe80::1%eth0"]
    file.write_text("\n".join([*lines, "nameserver 192.0.2.2", "nameserver 192.0.2.3"]))
    assert first_nameserver(file, stub) == "192.0.2.2"
    file.write_text("nameserver 127.0.0.53\n")
    assert first_nameserver(file, stub) == "127.0.0.53"
    stub.write_text("nameserver 192.0.2.53\n")
    assert first_nameserver(file, stub) == "192.0.2.53"


async def test_no_name_server_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    macros = BuiltinMacros(resolv_conf=tmp_path / "resolv.conf", stub_upstream=tmp_path / "none")
    with pytest.raises(ProviderError, match=r"resolv\.conf names no name server"):
        await expand("dns", macros)


class TestBuiltinMacros(MacroProviderSuite):
    examples = ("bundle", "dns", "if port=8080 a b", "local_ip", "rand 4096 hex", "tls key")
    mistakes = ("rand 8 emoji", "tls nothing", "if port", "bundle 1", "dns 1", "local_ip 1")

    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], BuiltinMacros]:
        file = tmp_path / "resolv.conf"
        file.write_text("nameserver 192.0.2.2\n")
        return lambda: BuiltinMacros(resolv_conf=file, local_address=lambda: "192.0.2.7")
