"""The text of the packet rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest

from nanocloud.providers.network import PortMapping, SandboxId
from nanocloud_cni_bridge.attachment import Attachment
from nanocloud_cni_bridge.rules import elements, ruleset
from nanocloud_cni_bridge.settings import Settings

DUAL = Settings(
    bridge="br7", table="tab7", mtu=1500, network=IPv4Network("10.9.0.0/16"), network6=IPv6Network("fd09::/64")
)
SINGLE = Settings(bridge="br7", table="tab7", mtu=1500, network=IPv4Network("10.9.0.0/16"), network6=None)


def attachment(*ports: PortMapping) -> Attachment:
    return Attachment(
        sandbox=SandboxId("web"),
        owner="default/web",
        address=IPv4Address("10.9.0.7"),
        address6=IPv6Address("fd09::7"),
        ports=ports,
    )


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        (None, [("any4", "tcp . 80 : 10.9.0.7 . 8080"), ("any6", "tcp . 80 : fd09::7 . 8080")]),
        ("0.0.0.0", [("any4", "tcp . 80 : 10.9.0.7 . 8080")]),
        ("::", [("any6", "tcp . 80 : fd09::7 . 8080")]),
        ("192.0.2.1", [("at4", "192.0.2.1 . tcp . 80 : 10.9.0.7 . 8080")]),
        ("2001:db8::1", [("at6", "2001:db8::1 . tcp . 80 : fd09::7 . 8080")]),
    ],
)
def test_a_port_becomes_one_element_a_family(ip: str | None, expected: list[tuple[str, str]]) -> None:
    port = PortMapping(host_port=80, container_port=8080, host_ip=None if ip is None else ip_address(ip))
    assert list(elements(attachment(port), DUAL)) == expected
    assert list(elements(attachment(port), SINGLE)) == [e for e in expected if e[0].endswith("4")]


def test_the_transaction_replaces_the_table_and_holds_all_ports() -> None:
    text = ruleset(DUAL, [attachment(PortMapping(host_port=80, container_port=8080))])
    assert text.startswith("add table inet tab7\ndelete table inet tab7\ntable inet tab7 {\n")
    assert "elements = { tcp . 80 : 10.9.0.7 . 8080 }" in text
    assert 'ip saddr 10.9.0.0/16 oifname != "br7" masquerade' in text
    assert 'ip6 saddr fd09::/64 oifname != "br7" masquerade' in text
    assert text.count("{") == text.count("}")


def test_without_ipv6_no_rule_speaks_of_it() -> None:
    text = ruleset(SINGLE, [])
    assert "ip6" not in text
    assert "elements" not in text
