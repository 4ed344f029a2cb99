"""Which names are ours, and what they resolve to: a table that changes with the names.

Ours are the names that were set, everything below ``svc`` and ``nanocloud.local``, and the reverse names of the
sandboxes' subnets. All else is somebody else's, and ``Zone.lookup`` says so with None.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import InvalidError
from nanocloud_cni_bridge.dns_message import AAAA, ANY, NOERROR, NXDOMAIN, PTR, SERVFAIL, A, wire_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nanocloud.providers.network import IPAddress
    from nanocloud_cni_bridge.dns_message import Query

_ZONES = (wire_name("svc"), wire_name("nanocloud.local"))
_REVERSE4, _REVERSE6 = wire_name("in-addr.arpa"), wire_name("ip6.arpa")


@attrs.frozen
class Answer:
    code: int
    records: tuple[tuple[int, bytes], ...] = ()
    zone: bytes | None = None


class Zone:
    """Not ``ready`` means that the names are not known yet: ours get SERVFAIL, so that clients try again."""

    def __init__(
        self,
        names: Mapping[str, Sequence[IPAddress]],
        networks: Iterable[IPv4Network | IPv6Network],
        *,
        ready: bool = True,
    ) -> None:
        """Raises InvalidError for a name that is none."""
        self._ready = ready
        self._networks = tuple(networks)
        self._names: dict[str, tuple[IPAddress, ...]] = {}
        self._records: dict[bytes, tuple[tuple[int, bytes], ...]] = {}
        self._inner: Counter[bytes] = Counter()  # names that have names below them, and how many
        self._pointers: dict[IPAddress, list[tuple[int, bytes]]] = {}
        self._replace(names)

    def replace(self, names: Mapping[str, Sequence[IPAddress]]) -> None:
        """Make these the names, and be ready; only what differs costs more than a comparison.

        Raises:
            InvalidError: a name that is none; then nothing is changed.
        """
        self._replace(names)
        self._ready = True

    def _replace(self, names: Mapping[str, Sequence[IPAddress]]) -> None:
        fresh = {name: addresses for name, addresses in names.items() if self._names.get(name) != addresses}
        wires = {name: _checked(name) for name in fresh}
        for name in [name for name in self._names if name not in names or name in fresh]:
            self._drop(name)
        for name, wire in wires.items():
            self._put(name, wire, tuple(dict.fromkeys(fresh[name])))

    def _put(self, name: str, wire: bytes, addresses: tuple[IPAddress, ...]) -> None:
        self._names[name] = addresses
        self._records[wire] = tuple((A if a.version == 4 else AAAA, a.packed) for a in addresses)
        self._inner.update(_parents(wire))
        for address in addresses:
            self._pointers.setdefault(address, []).append((PTR, wire))

    def _drop(self, name: str) -> None:
        wire, addresses = wire_name(name), self._names.pop(name)
        del self._records[wire]
        for parent in _parents(wire):
            self._inner[parent] -= 1
            if not self._inner[parent]:
                del self._inner[parent]
        for address in addresses:
            self._pointers[address].remove((PTR, wire))
            if not self._pointers[address]:
                del self._pointers[address]

    def lookup(self, query: Query) -> Answer | None:
        """The answer to ``query``; None: ask the node's resolvers."""
        records = self._records.get(query.name)
        suffixes = query.suffixes()
        zone = next((zone for zone in _ZONES if zone in suffixes), None)
        if records is not None:
            matching = tuple(r for r in records if query.kind in (r[0], ANY))
            return Answer(NOERROR, matching, None if matching else zone or query.name)
        if zone is not None:
            if not self._ready:
                return Answer(SERVFAIL)
            known = query.name in self._inner or query.name == zone
            return Answer(NOERROR if known else NXDOMAIN, zone=zone)
        return self._reverse(query, suffixes)

    def _reverse(self, query: Query, suffixes: list[bytes]) -> Answer | None:
        address: IPAddress | None
        if _REVERSE4 in suffixes:
            base, address = _REVERSE4, _reversed4(suffixes)
        elif _REVERSE6 in suffixes:
            base, address = _REVERSE6, _reversed6(suffixes)
        else:
            return None
        if address is None or not any(address in network for network in self._networks):
            return None
        if not self._ready:
            return Answer(SERVFAIL)
        records = self._pointers.get(address)
        if records is None:
            return Answer(NXDOMAIN, zone=base)
        return Answer(NOERROR, tuple(records), None) if query.kind in (PTR, ANY) else Answer(NOERROR, zone=base)


def _checked(name: str) -> bytes:
    try:
        if name != name.lower() or not name or name.endswith("."):
            raise ValueError("it must be in lower case, without a final dot")
        return wire_name(name)
    except ValueError as exc:
        raise InvalidError(f"name {name[:300]!r} cannot be resolved: {exc}") from exc


def _parents(wire: bytes) -> Iterable[bytes]:
    at = wire[0] + 1
    while wire[at]:
        yield wire[at:]
        at += wire[at] + 1


def _labels(suffixes: list[bytes], base_labels: int) -> list[str]:
    """The labels in front of the base, the last first, which is the order of the address."""
    count = len(suffixes) - 1 - base_labels
    return [suffixes[i][1 : 1 + suffixes[i][0]].decode("latin-1") for i in reversed(range(count))]


def _reversed4(suffixes: list[bytes]) -> IPv4Address | None:
    labels = _labels(suffixes, 2)
    try:
        return IPv4Address(".".join(labels)) if len(labels) == 4 else None
    except ValueError:
        return None


def _reversed6(suffixes: list[bytes]) -> IPv6Address | None:
    labels = _labels(suffixes, 2)
    if len(labels) != 32 or any(len(label) != 1 for label in labels):
        return None
    try:
        return IPv6Address(bytes.fromhex("".join(labels)))
    except ValueError:
        return None
