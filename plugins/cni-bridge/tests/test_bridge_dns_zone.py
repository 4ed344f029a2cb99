"""Which names are ours and what they answer."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import dnslib
import pytest

from nanocloud.errors import InvalidError
from nanocloud_cni_bridge.dns_message import parse_query, reply
from nanocloud_cni_bridge.dns_zone import Zone

NETWORKS = (IPv4Network("10.118.0.0/16"), IPv6Network("fd6e:616e:6f63::/64"))
FOUR, SIX = IPv4Address("10.118.0.7"), IPv6Address("fd6e:616e:6f63::7")
NAMES = {
    "mariadb.default.svc": (FOUR, SIX),
    "mariadb.nanocloud.local": (FOUR, SIX),
    "four.default.svc": (FOUR,),
    "intranet.example.com": (FOUR,),
    "empty.default.svc": (),
}
ZONE = Zone(NAMES, NETWORKS)


def ask(name: str, kind: str = "A", zone: Zone = ZONE) -> dnslib.DNSRecord | None:
    query = parse_query(bytes(dnslib.DNSRecord.question(name, kind).pack()))
    answer = zone.lookup(query)
    if answer is None:
        return None
    return dnslib.DNSRecord.parse(reply(query, code=answer.code, answers=answer.records, zone=answer.zone))


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("mariadb.default.svc", "A", [FOUR]),
        ("MariaDB.Default.SVC", "AAAA", [SIX]),
        ("mariadb.nanocloud.local", "ANY", [FOUR, SIX]),
        ("intranet.example.com", "A", [FOUR]),
    ],
)
def test_known_names(name: str, kind: str, found: list[object]) -> None:
    answer = ask(name, kind)
    assert answer is not None
    assert [ip_address(str(rr.rdata)) for rr in answer.rr] == found


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("four.default.svc", "AAAA", "NOERROR"),  # known, but not of that family
        ("four.default.svc", "MX", "NOERROR"),
        ("intranet.example.com", "AAAA", "NOERROR"),
        ("empty.default.svc", "A", "NOERROR"),
        ("default.svc", "A", "NOERROR"),  # has names below it
        ("svc", "A", "NOERROR"),
        ("nanocloud.local", "A", "NOERROR"),
        ("unknown.default.svc", "A", "NXDOMAIN"),
        ("x.mariadb.default.svc", "A", "NXDOMAIN"),
        ("unknown.nanocloud.local", "AAAA", "NXDOMAIN"),
        ("www.google.com.default.svc", "A", "NXDOMAIN"),
    ],
)
def test_what_is_ours_and_has_no_such_record(name: str, kind: str, code: str) -> None:
    answer = ask(name, kind)
    assert answer is not None
    assert (dnslib.RCODE[answer.header.rcode], answer.rr) == (code, [])
    assert [rr.rtype for rr in answer.auth] == [dnslib.QTYPE.SOA]


@pytest.mark.parametrize("name", ["example.com", "svc.example.com", "mysvc", "local", "other.local", "com", "."])
def test_what_is_not_ours(name: str) -> None:
    assert ask(name) is None


def test_addresses_of_sandboxes_have_names() -> None:
    answer = ask("7.0.118.10.in-addr.arpa", "PTR")
    assert answer is not None
    assert str(answer.rr[0].rdata) == "mariadb.default.svc."
    assert ask(SIX.reverse_pointer, "PTR").rr[0].rdata == answer.rr[0].rdata  # type: ignore[union-attr]
    for unknown in ("8.0.118.10.in-addr.arpa", IPv6Address("fd6e:616e:6f63::8").reverse_pointer):
        answer = ask(unknown, "PTR")
        assert answer is not None
        assert answer.header.rcode == dnslib.RCODE.NXDOMAIN
    for foreign in ("8.8.8.8.in-addr.arpa", "118.10.in-addr.arpa", "x.y.z.w.in-addr.arpa", "1.ip6.arpa"):
        assert ask(foreign, "PTR") is None


def test_until_the_names_are_known_askers_are_told_to_come_again() -> None:
    zone = Zone({}, NETWORKS, ready=False)
    for name in ("mariadb.default.svc", "7.0.118.10.in-addr.arpa"):
        answer = ask(name, zone=zone)
        assert answer is not None
        assert answer.header.rcode == dnslib.RCODE.SERVFAIL
    assert ask("example.com", zone=zone) is None


@pytest.mark.parametrize("name", ["", "a.", "A.svc", "a..svc", "x" * 64 + ".svc", "ä.svc"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="cannot be resolved"):
        Zone({name: (FOUR,)}, NETWORKS)


def test_names_can_be_replaced() -> None:
    zone = Zone({}, NETWORKS, ready=False)
    for names in (NAMES, {"mariadb.default.svc": (SIX,), "four.default.svc": (FOUR,)}, {}, NAMES):
        zone.replace(names)
        fresh = Zone(names, NETWORKS)
        for name in (
            *NAMES,
            "default.svc",
            "nanocloud.local",
            "example.com",
            FOUR.reverse_pointer,
            SIX.reverse_pointer,
        ):
            for kind in ("ANY", "A", "PTR"):
                assert shown(ask(name, kind, zone)) == shown(ask(name, kind, fresh)), (names, name, kind)


def shown(answer: dnslib.DNSRecord | None) -> object:
    return answer and (answer.header.rcode, sorted(map(str, answer.rr)), sorted(map(str, answer.auth)))


def test_a_wrong_name_leaves_the_others_as_they_were() -> None:
    zone = Zone({"four.default.svc": (FOUR,)}, NETWORKS)
    with pytest.raises(InvalidError):
        zone.replace({"six.default.svc": (SIX,), "Upper.svc": (FOUR,)})
    answer, other = ask("four.default.svc", zone=zone), ask("six.default.svc", "AAAA", zone=zone)
    assert answer is not None
    assert other is not None
    assert (len(answer.rr), other.header.rcode) == (1, dnslib.RCODE.NXDOMAIN)
