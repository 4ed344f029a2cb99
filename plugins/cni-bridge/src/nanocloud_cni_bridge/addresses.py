"""Who has which address: sticky by owner, handed to somebody else only when the subnet is full.

A reservation is an index into the subnets, so the IPv4 and the IPv6 address of an owner stand and fall together and
IPv6 can be turned on or off at any time. The first addresses are not handed out: 0 is the network, 1 the bridge; nor
is the last, the broadcast address.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from nanocloud.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Container

    from nanocloud_cni_bridge.records import RecordFolder

FIRST_INDEX = 2


class AddressPool:
    """Reservations of one subnet. Not thread-safe; ``remember`` and ``forget`` write the files and may run anywhere."""

    def __init__(self, network: IPv4Network, folder: RecordFolder) -> None:
        self._network, self._folder = network, folder
        self._last = network.num_addresses - 2
        self._size = self._last - FIRST_INDEX + 1
        self._by_owner: dict[str, int] = {}  # least recently used first
        self._by_index: dict[int, str] = {}
        self._cursor = FIRST_INDEX

    def open(self) -> None:
        """Load what is reserved. A file of another subnet, or one that repeats an address, is dropped."""
        self._folder.open()
        for name, record in self._folder.load():
            try:
                owner, address = str(record["owner"]), IPv4Address(record["address"])
                self.adopt(owner, address)
            except (KeyError, ValueError, ProviderError) as exc:
                self._folder.discard(name, str(exc) or type(exc).__name__)
        self._cursor = max(self._by_index, default=FIRST_INDEX - 1) + 1

    def adopt(self, owner: str, address: IPv4Address) -> None:
        """Take over a reservation found on disk or at an attached sandbox."""
        index = int(address) - int(self._network.network_address)
        if not FIRST_INDEX <= index <= self._last:
            raise ProviderError(f"address {address} of {owner} is not one to hand out in {self._network}")
        holder = self._by_index.get(index, owner)
        if holder != owner or self._by_owner.get(owner, index) != index:
            raise ProviderError(f"address {address} of {owner} is reserved for {holder}, too")
        self._by_owner[owner], self._by_index[index] = index, owner

    def reserve(self, owner: str, *, attached: Container[str]) -> tuple[int, str | None]:
        """The index of ``owner``, and the owner that lost it where the subnet was full.

        Args:
            attached: owners whose address is in use and cannot be taken.
        """
        if owner in self._by_owner:
            index = self._by_owner.pop(owner)
            self._by_owner[owner] = index  # now the most recently used
            return index, None
        loser = None
        if len(self._by_index) == self._size:
            loser = next((other for other in self._by_owner if other not in attached), None)
            if loser is None:
                raise ProviderError(
                    f"no address is left in {self._network} for {owner}: all {self._size} are attached",
                    hint="set a larger subnet in [cni-bridge] of the configuration",
                )
            index = self._by_owner.pop(loser)
        else:
            index = self._free()
        self._by_owner[owner], self._by_index[index] = index, owner
        return index, loser

    def release(self, owner: str) -> None:
        index = self._by_owner.pop(owner, None)
        if index is not None:
            del self._by_index[index]

    def reserved(self, owner: str) -> bool:
        return owner in self._by_owner

    def address(self, index: int) -> IPv4Address:
        return self._network[index]

    def remember(self, owner: str, address: IPv4Address) -> None:
        """Put the reservation on disk; where it is there already, mark it as used just now."""
        try:
            self._folder.touch(_file(owner))
        except FileNotFoundError:
            self._folder.write(_file(owner), {"owner": owner, "address": str(address)})

    def forget(self, owner: str) -> None:
        self._folder.remove(_file(owner))

    def _free(self) -> int:
        """The next free index behind the last one given: an address rests as long as possible before it is reused."""
        while True:
            index = self._cursor if self._cursor <= self._last else FIRST_INDEX
            self._cursor = index + 1
            if index not in self._by_index:
                return index


def _file(owner: str) -> str:
    # An owner has up to 317 characters and a slash; a file name has up to 255 and none.
    return hashlib.sha256(owner.encode()).hexdigest()[:32]
