"""The DNS codec against dnslib as oracle, and against arbitrary bytes."""

from __future__ import annotations

from ipaddress import ip_address

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud_cni_bridge import dns_message
from nanocloud_cni_bridge.dns_message import MalformedError, RefusedQueryError, parse_query, reply, wire_name

LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)
KIND = st.sampled_from(["A", "AAAA", "PTR", "MX", "TXT", "SRV", "ANY", "HTTPS"])


def ask(name: str, kind: str = "A", *, udp_bytes: int = 0, tcp_flags: str = "") -> bytes:
    record = dnslib.DNSRecord.question(name, kind)
    if udp_bytes:
        record.add_ar(dnslib.EDNS0(udp_len=udp_bytes, flags=tcp_flags))
    return bytes(record.pack())


@given(NAME, KIND, st.sampled_from([0, 512, 1232, 4096]))
def test_queries_read_as_dnslib_wrote_them(name: str, kind: str, udp_bytes: int) -> None:
    packet = ask(name, kind, udp_bytes=udp_bytes)
    query = parse_query(packet)
    assert query.id == dnslib.DNSRecord.parse(packet).header.id
    assert query.name == wire_name(name.lower())
    assert query.kind == getattr(dnslib.QTYPE, kind)
    assert (query.edns, query.udp_bytes) == (bool(udp_bytes), max(512, udp_bytes))
    assert [len(s) for s in query.suffixes()] == sorted({len(s) for s in query.suffixes()}, reverse=True)
    assert query.suffixes()[-1] == b"\0"


@given(NAME, st.lists(st.ip_addresses(), max_size=8), st.booleans())
def test_replies_read_in_dnslib_as_they_were_meant(name: str, addresses: list[object], edns: bool) -> None:
    packet = ask(name, udp_bytes=1232 if edns else 0)
    query = parse_query(packet)
    ips = [ip_address(str(a)) for a in addresses]
    found = dnslib.DNSRecord.parse(reply(query, answers=[(1 if a.version == 4 else 28, a.packed) for a in ips]))
    assert (found.header.id, found.header.qr, found.header.ra, found.header.rd) == (query.id, 1, 1, 1)
    assert found.header.aa == bool(ips)
    assert str(found.q.qname).rstrip(".") == name  # in the case it was asked
    assert [ip_address(str(rr.rdata)) for rr in found.rr] == ips
    assert all(str(rr.rname).rstrip(".") == name and rr.ttl == dns_message.TTL_SECONDS for rr in found.rr)
    assert [rr.rtype for rr in found.ar] == ([dnslib.QTYPE.OPT] if edns else [])


def test_a_negative_reply_carries_the_zone() -> None:
    query = parse_query(ask("x.default.svc"))
    found = dnslib.DNSRecord.parse(reply(query, code=dns_message.NXDOMAIN, zone=wire_name("svc")))
    assert (found.header.rcode, found.header.aa, found.rr) == (3, 1, [])
    assert str(found.auth[0].rname) == "svc."
    assert found.auth[0].rdata.times[-1] == dns_message.TTL_SECONDS


@pytest.mark.parametrize(("udp_bytes", "fits"), [(0, 20), (512, 20), (1232, 60), (4096, 60)])
def test_a_reply_that_is_too_large_says_so_and_comes_whole_over_tcp(udp_bytes: int, fits: int) -> None:
    query = parse_query(ask("many.default.svc", udp_bytes=udp_bytes))
    answers = [(1, bytes([10, 0, 0, n])) for n in range(100)]
    small = dnslib.DNSRecord.parse(reply(query, answers=answers[:fits]))
    assert (small.header.tc, len(small.rr)) == (0, fits)
    cut = reply(query, answers=answers)
    assert len(cut) <= 512
    assert (dnslib.DNSRecord.parse(cut).header.tc, dnslib.DNSRecord.parse(cut).rr) == (1, [])
    whole = dnslib.DNSRecord.parse(reply(query, answers=answers, over_tcp=True))
    assert (whole.header.tc, len(whole.rr)) == (0, 100)


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_dropped_or_refused(packet: bytes) -> None:
    refusal = None
    try:
        parse_query(packet)
    except MalformedError:
        return
    except RefusedQueryError as exc:
        refusal = exc.reply
    if refusal is not None:
        assert refusal[:2] == packet[:2]
        assert len(refusal) <= len(packet) + 11  # at most an OPT record more: nothing to amplify


@given(NAME, st.data())
def test_a_damaged_query_is_dropped_or_refused_or_a_query(name: str, data: st.DataObject) -> None:
    packet = bytearray(ask(name, udp_bytes=1232))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(packet[: data.draw(st.integers(0, len(packet)))])
    try:
        query = parse_query(cut)
    except MalformedError:
        return
    except RefusedQueryError as refusal:
        found = refusal.reply
    else:
        found = reply(query)
        assert found[12:].startswith(query.question)
    # Only the header: dnslib refuses labels that are not UTF-8, which the wire allows and a reply repeats.
    header = dnslib.DNSHeader.parse(dnslib.DNSBuffer(found))
    assert (header.id, header.qr) == (int.from_bytes(cut[:2], "big"), 1)


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        pytest.param(ask("a.b", "AXFR"), "REFUSED", id="transfer"),
        pytest.param(ask("a.b")[:-2] + b"\0\x03", "REFUSED", id="class CHAOS"),
        pytest.param(ask("a.b")[:2] + b"\x28" + ask("a.b")[3:], "NOTIMP", id="UPDATE"),
        pytest.param(ask("a.b")[:4] + b"\0\x02" + ask("a.b")[6:], "FORMERR", id="two questions"),
        pytest.param(ask("a.b") + b"x", "FORMERR", id="more than the question"),
        pytest.param(ask("a.b")[:12] + b"\xc0\x0c\0\x01\0\x01", "FORMERR", id="a name that points at itself"),
        pytest.param(ask("a.b")[:-1], "FORMERR", id="less than the question"),
    ],
)
def test_what_is_not_a_plain_query_gets_an_error(packet: bytes, code: str) -> None:
    with pytest.raises(RefusedQueryError) as caught:
        parse_query(packet)
    header = dnslib.DNSRecord.parse(caught.value.reply).header
    assert (dnslib.RCODE[header.rcode], header.id) == (code, int.from_bytes(packet[:2], "big"))


def test_an_unknown_edns_version_is_refused() -> None:
    record = dnslib.DNSRecord.question("a.b")
    record.add_ar(dnslib.EDNS0(version=1, udp_len=4096))
    with pytest.raises(RefusedQueryError) as caught:
        parse_query(bytes(record.pack()))
    found = dnslib.DNSRecord.parse(caught.value.reply)
    assert found.ar[0].ttl >> 24 << 4 | found.header.rcode == dns_message.BADVERS


def test_replies_and_oversized_packets_are_dropped() -> None:
    answer = bytes(dnslib.DNSRecord.parse(ask("a.b")).reply().pack())
    for packet in (answer, b"", ask("a.b")[:12], ask("a.b") + b"\0" * 5000):
        with pytest.raises(MalformedError):
            parse_query(packet)


def test_only_the_reply_to_our_question_counts() -> None:
    asked = ask("Example.com")
    query = parse_query(asked)
    answer = bytes(dnslib.DNSRecord.parse(asked).reply().pack())
    assert dns_message.answers_query(answer, query.id, query.question)
    assert not dns_message.answers_query(answer, query.id ^ 1, query.question)
    assert not dns_message.answers_query(asked, query.id, query.question)
    assert not dns_message.answers_query(answer, query.id, parse_query(ask("example.org")).question)
    assert not dns_message.answers_query(b"", query.id, query.question)


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), "ä.svc"])
def test_names_that_do_not_fit_the_wire(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wire_name(name)
