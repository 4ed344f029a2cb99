"""What the node knows of one attached sandbox, as data; and the names that follow from a sandbox id.

An attachment's record is written last when attaching and removed first when detaching. So a record means "complete",
and whatever carries our mark without a record is left over from a crash. The mark is the name below (``nc`` and ten
hex digits of the sandbox id's SHA-256) for the namespace file's link, and the interface group GROUP.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, cast

import attrs

from nanocloud.errors import InvalidError
from nanocloud.providers.network import IPAddress, PortMapping, SandboxId, SandboxNetworkSpec

GROUP = 0x6E63
"""Interface group of every link we make; the kernel sets it in the same step that creates the link."""

_SANDBOX = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_OWNER = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MAX_PORTS = 256


@attrs.frozen(kw_only=True)
class Attachment:
    sandbox: SandboxId
    owner: str
    address: IPv4Address
    address6: IPv6Address | None
    ports: tuple[PortMapping, ...]

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return (self.address,) if self.address6 is None else (self.address, self.address6)

    @property
    def link(self) -> str:
        return link_name(self.sandbox)

    @property
    def spec(self) -> SandboxNetworkSpec:
        return SandboxNetworkSpec(sandbox=self.sandbox, owner=self.owner, ports=self.ports)


def link_name(sandbox: str) -> str:
    """The host's end of the sandbox's veth pair."""
    return "nc" + hashlib.sha256(sandbox.encode()).hexdigest()[:10]


def check_sandbox(sandbox: str) -> None:
    """Ids become file names: nothing but the contract's characters gets past here."""
    if not _SANDBOX.fullmatch(sandbox):
        raise InvalidError(f"sandbox id {sandbox[:80]!r} must match {_SANDBOX.pattern}")


def check_owner(owner: str) -> None:
    if not _OWNER.fullmatch(owner):
        raise InvalidError(f"owner {owner[:400]!r} must be <namespace>/<pod>, both DNS names in lower case")


def check_spec(spec: SandboxNetworkSpec) -> None:
    """Raise InvalidError for anything that must not reach the kernel."""
    check_sandbox(spec.sandbox)
    check_owner(spec.owner)
    if len(spec.ports) > _MAX_PORTS:
        raise InvalidError(f"sandbox {spec.sandbox} publishes {len(spec.ports)} ports; {_MAX_PORTS} are allowed")
    for port in spec.ports:
        for field in ("host_port", "container_port"):
            if not 1 <= getattr(port, field) <= 65535:
                raise InvalidError(f"sandbox {spec.sandbox}: {field} is {getattr(port, field)}; it must be 1 to 65535")
        if port.protocol not in ("tcp", "udp"):
            raise InvalidError(f"sandbox {spec.sandbox}: protocol is {port.protocol!r}; it must be tcp or udp")


def to_record(attachment: Attachment) -> dict[str, Any]:
    return {
        "sandbox": attachment.sandbox,
        "owner": attachment.owner,
        "addresses": [str(address) for address in attachment.addresses],
        "ports": [
            [p.host_port, p.container_port, p.protocol, None if p.host_ip is None else str(p.host_ip)]
            for p in attachment.ports
        ],
    }


def from_record(record: dict[str, Any]) -> Attachment:
    """Raises KeyError, ValueError, TypeError or InvalidError for a record that we did not write."""
    addresses = [ip_address(text) for text in record["addresses"]]
    four = [address for address in addresses if isinstance(address, IPv4Address)]
    six = [address for address in addresses if isinstance(address, IPv6Address)]
    if len(four) != 1 or len(six) > 1:
        raise ValueError(f"addresses are {record['addresses']}")
    ports = tuple(
        PortMapping(
            host_port=int(host),
            container_port=int(container),
            protocol=cast("Literal['tcp', 'udp']", protocol),
            host_ip=None if ip is None else ip_address(ip),
        )
        for host, container, protocol, ip in record["ports"]
    )
    found = Attachment(
        sandbox=SandboxId(str(record["sandbox"])),
        owner=str(record["owner"]),
        address=four[0],
        address6=six[0] if six else None,
        ports=ports,
    )
    check_spec(found.spec)
    return found
