"""Addresses: sticky by owner, never given twice, taken away only when the subnet is full."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import ProviderError
from nanocloud_cni_bridge.addresses import AddressPool
from nanocloud_cni_bridge.records import RecordFolder

SMALL = IPv4Network("10.9.0.0/29")  # indexes 2 to 6: five addresses


def opened(path: Path, network: IPv4Network = SMALL) -> AddressPool:
    pool = AddressPool(network, RecordFolder(path))
    pool.open()
    return pool


def take(pool: AddressPool, owner: str, *attached: str) -> IPv4Address:
    index, loser = pool.reserve(owner, attached=attached)
    if loser is not None:
        pool.forget(loser)
    pool.remember(owner, pool.address(index))
    return pool.address(index)


def test_an_owner_gets_the_same_address_again_also_after_a_restart(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    first = {owner: take(pool, owner) for owner in ("default/a", "default/b")}
    assert len(set(first.values())) == 2
    again = opened(tmp_path)
    assert {owner: take(again, owner) for owner in ("default/b", "default/a")} == first


def test_network_gateway_and_broadcast_are_never_handed_out(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    given_out = {take(pool, f"default/{n}") for n in range(5)}
    assert given_out == {IPv4Address(f"10.9.0.{n}") for n in range(2, 7)}


def test_a_full_subnet_takes_from_the_least_recently_used_owner_that_is_not_attached(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    had = {f"default/{n}": take(pool, f"default/{n}") for n in range(5)}
    take(pool, "default/1")  # 0 is attached, 1 was just used: 2 has waited longest
    assert take(pool, "default/new", "default/0") == had["default/2"]
    assert not pool.reserved("default/2")
    assert not opened(tmp_path).reserved("default/2")


def test_no_address_left_says_so(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    owners = [f"default/{n}" for n in range(5)]
    for owner in owners:
        take(pool, owner)
    with pytest.raises(ProviderError, match=r"no address is left in 10\.9\.0\.0/29 for default/x"):
        pool.reserve("default/x", attached=owners)
    assert take(pool, owners[0], *owners)


def test_a_released_address_rests_before_it_is_given_again(tmp_path: Path) -> None:
    pool = opened(tmp_path, IPv4Network("10.9.0.0/24"))
    gone = take(pool, "default/a")
    pool.release("default/a")
    pool.forget("default/a")
    assert take(pool, "default/b") != gone
    assert not opened(tmp_path).reserved("default/a")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"owner": "default/x"}', '{"owner": "default/x", "address": "10.8.0.3"}',
     '{"owner": "default/x", "address": "10.9.0.1"}', '{"owner": "default/x", "address": "nonsense"}'],
)  # fmt: skip
def test_an_unusable_reservation_is_dropped(tmp_path: Path, content: str) -> None:
    (tmp_path / "0.json").write_text(content)
    (tmp_path / "1.json.new").write_text('{"owner"')
    pool = opened(tmp_path)
    assert not pool.reserved("default/x")
    assert list(tmp_path.iterdir()) == []


def test_of_two_reservations_of_one_address_one_stays(tmp_path: Path) -> None:
    folder = RecordFolder(tmp_path)
    folder.write("a", {"owner": "default/a", "address": "10.9.0.3"})
    folder.write("b", {"owner": "default/b", "address": "10.9.0.3"})
    pool = opened(tmp_path)
    assert [pool.reserved(o) for o in ("default/a", "default/b")].count(True) == 1
    assert len(list(tmp_path.iterdir())) == 1


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["attach", "detach", "release"])), max_size=60))
def test_no_two_attached_owners_ever_share_an_address(steps: list[tuple[str, str]]) -> None:
    pool = AddressPool(SMALL, RecordFolder(Path("/nonexistent")))
    attached: dict[str, int] = {}
    last: dict[str, int] = {}
    for owner, action in steps:
        if action == "attach" and owner not in attached:
            if len(attached) == 5:
                with pytest.raises(ProviderError):
                    pool.reserve(owner, attached=attached)
                continue
            sticky = pool.reserved(owner)
            index, loser = pool.reserve(owner, attached=attached)
            assert loser not in attached
            assert not sticky or last[owner] == index
            attached[owner] = last[owner] = index
        elif action == "detach":
            attached.pop(owner, None)
        elif action == "release" and owner not in attached:
            pool.release(owner)
            assert not pool.reserved(owner)
        assert len(set(attached.values())) == len(attached)
        assert all(2 <= index <= 6 for index in attached.values())
