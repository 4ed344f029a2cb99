"""Which kernel announcements concern us; the bytes are as a kernel sends them."""

from __future__ import annotations

import struct

from nanocloud_cni_bridge.netlink import messages
from nanocloud_cni_bridge.watch import link_concerns, rules_concern

UP = 1


def attribute(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def link(name: str, index: int, *, flags: int = UP, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 1, index, flags, 0) + attribute(3, name)


def concerns(kind: int, body: bytes) -> bool:
    return link_concerns(kind, body, bridge="nanocloud0", index=7, links=lambda name: name == "nc0123456789")


def test_links() -> None:
    assert concerns(17, link("nanocloud0", 7))
    assert concerns(17, link("nc0123456789", 9))
    assert concerns(16, link("nanocloud0", 7, flags=0))  # taken down
    assert not concerns(16, link("nanocloud0", 7))
    assert not concerns(17, link("nc9999999999", 9))
    assert not concerns(17, link("nc0123456789", 9, family=7))  # left the bridge's port list, as when detached
    assert not concerns(17, link("eth0", 2))


def test_addresses() -> None:
    assert concerns(21, struct.pack("=BBBBI", 2, 16, 0, 0, 7))
    assert not concerns(21, struct.pack("=BBBBI", 2, 16, 0, 0, 8))
    assert not concerns(20, struct.pack("=BBBBI", 2, 16, 0, 0, 7))


def test_rules() -> None:
    def body(table: str) -> bytes:
        return struct.pack("=BBH", 1, 0, 0) + attribute(1, table)

    deleted_table, new_element = 10 << 8 | 2, 10 << 8 | 12
    assert rules_concern(deleted_table, body("nanocloud"), table="nanocloud")
    assert not rules_concern(deleted_table, body("docker"), table="nanocloud")
    assert not rules_concern(new_element, body("nanocloud"), table="nanocloud")
    assert not rules_concern(1 << 8 | 2, body("nanocloud"), table="nanocloud")


def test_messages_are_split_and_nonsense_ends() -> None:
    one = struct.pack("=IHHII", 19, 17, 0, 0, 0) + b"abc"
    two = struct.pack("=IHHII", 16, 16, 0, 0, 0)
    assert list(messages(one + b"\0" + two)) == [(17, 0, b"abc"), (16, 0, b"")]
    assert list(messages(struct.pack("=IHHII", 3, 17, 0, 0, 0))) == []
