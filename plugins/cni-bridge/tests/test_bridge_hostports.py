"""Host ports: who may have which, and which programs of the host are in the way."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address, ip_address
from typing import Literal

import pytest

from nanocloud.errors import PortInUseError, ProviderError
from nanocloud.providers.network import PortMapping, SandboxId
from nanocloud_cni_bridge.attachment import Attachment
from nanocloud_cni_bridge.hostports import PortTable, probe, sockets


def mapping(port: int, ip: str | None = None, protocol: Literal["tcp", "udp"] = "tcp") -> PortMapping:
    return PortMapping(
        host_port=port, container_port=80, protocol=protocol, host_ip=None if ip is None else ip_address(ip)
    )


def sandbox(name: str, *ports: PortMapping) -> Attachment:
    return Attachment(
        sandbox=SandboxId(name), owner=f"default/{name}", address=IPv4Address("10.9.0.2"), address6=None, ports=ports
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(80), mapping(80)),
        (mapping(80), mapping(80, "192.0.2.1")),
        (mapping(80, "192.0.2.1"), mapping(80)),
        (mapping(80, "192.0.2.1"), mapping(80, "192.0.2.1")),
        (mapping(80, "0.0.0.0"), mapping(80, "127.0.0.1")),
        (mapping(80), mapping(80, "2001:db8::1")),
        (mapping(80, "::"), mapping(80)),
    ],
)
def test_overlapping_ports_are_refused_and_named(first: PortMapping, second: PortMapping) -> None:
    table = PortTable(dual=True)
    table.take(sandbox("one", first))
    with pytest.raises(PortInUseError, match=r"host port 80/tcp.* is held by sandbox one \(default/one\)"):
        table.take(sandbox("two", second))
    table.drop(sandbox("one", first))
    table.take(sandbox("two", second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(80), mapping(81)),
        (mapping(80), mapping(80, protocol="udp")),
        (mapping(80, "192.0.2.1"), mapping(80, "192.0.2.2")),
        (mapping(80, "0.0.0.0"), mapping(80, "::")),
    ],
)
def test_ports_that_do_not_overlap_live_side_by_side(first: PortMapping, second: PortMapping) -> None:
    table = PortTable(dual=True)
    table.take(sandbox("one", first))
    table.take(sandbox("two", second))


def test_a_refused_sandbox_holds_none_of_its_ports() -> None:
    table = PortTable(dual=False)
    table.take(sandbox("one", mapping(81)))
    with pytest.raises(PortInUseError):
        table.take(sandbox("two", mapping(80), mapping(81)))
    table.take(sandbox("three", mapping(80)))


def test_a_sandbox_cannot_map_a_port_twice() -> None:
    twice = PortMapping(host_port=80, container_port=81)
    with pytest.raises(PortInUseError, match=r"sandbox one .* maps host port 80/tcp twice"):
        PortTable(dual=False).take(sandbox("one", mapping(80), twice))


def test_ipv6_is_refused_where_there_is_none() -> None:
    with pytest.raises(ProviderError, match="no IPv6"):
        PortTable(dual=False).take(sandbox("one", mapping(80, "2001:db8::1")))
    with pytest.raises(ProviderError, match=r"use 127\.0\.0\.1"):
        PortTable(dual=True).take(sandbox("one", mapping(80, "::1")))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("wanted", [None, "127.0.0.1", "0.0.0.0"])
def test_a_program_that_holds_the_port_is_named(protocol: Literal["tcp", "udp"], wanted: str | None) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            held.listen()
        port = held.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"host port {port}/{protocol}.* \(pid {os.getpid()}\)"):
            probe([mapping(port, wanted, protocol)], dual=False, gateways=())
    probe([mapping(port, wanted, protocol)], dual=False, gateways=())


def test_a_bound_socket_that_does_not_listen_is_in_the_way_too() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(PortInUseError, match="without listening"):
            probe([mapping(held.getsockname()[1])], dual=False, gateways=())


def test_dying_connections_are_not_in_the_way() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # who closes first keeps the address in TIME_WAIT
            client.recv(1)
    assert any(row.port == port and row.dying for row in sockets("tcp"))
    probe([mapping(port)], dual=False, gateways=())


def test_a_foreign_host_address_is_refused() -> None:
    with pytest.raises(ProviderError, match=r"192\.0\.2\.77 is no address of this node"):
        probe([mapping(4711, "192.0.2.77")], dual=False, gateways=())
