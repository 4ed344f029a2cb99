"""What every network provider must keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
import trio

from nanocloud.errors import PortInUseError
from nanocloud.providers.network import (
    NetworkProvider,
    PortMapping,
    SandboxId,
    SandboxNetwork,
    SandboxNetworkSpec,
)
from nanocloud.testkit.suites.base import ProviderSuite

if TYPE_CHECKING:
    from collections.abc import Callable

WEB, DB = SandboxId("web-0"), SandboxId("db-0")


class NetworkProviderSuite(ProviderSuite[NetworkProvider]):
    contract = "network"
    host_port: ClassVar[int] = 28431
    """Free on the machine that runs the suite."""

    def spec(self, sandbox: SandboxId, *ports: PortMapping, owner: str = "") -> SandboxNetworkSpec:
        return SandboxNetworkSpec(sandbox=sandbox, owner=owner or f"default/{sandbox}", ports=ports)

    async def test_sandboxes_get_addresses_of_their_own(self, provider: NetworkProvider) -> None:
        """Make the sandbox's network namespace and connect it."""
        web, db = await provider.attach(self.spec(WEB)), await provider.attach(self.spec(DB))
        assert web.addresses
        assert not set(web.addresses) & set(db.addresses)
        assert web.namespace_path.is_absolute()
        assert web.namespace_path != db.namespace_path

    async def test_sandbox_knows_whom_to_ask_for_names(self, provider: NetworkProvider) -> None:
        """What the sandbox's resolv.conf must name so that set_names takes effect."""
        assert (await provider.attach(self.spec(WEB))).nameservers

    async def test_same_spec_again_returns_the_same(self, provider: NetworkProvider) -> None:
        """The same spec again returns the same."""
        spec = self.spec(WEB, PortMapping(host_port=self.host_port, container_port=80))
        assert await provider.attach(spec) == await provider.attach(spec)
        assert len(await provider.list()) == 1

    async def test_sandboxes_attached_side_by_side_do_not_share(self, provider: NetworkProvider) -> None:
        """Its methods are safe to call concurrently for different objects."""
        made: list[SandboxNetwork] = []

        async def attach(number: int) -> None:
            made.append(await provider.attach(self.spec(SandboxId(f"web-{number}"))))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(attach, number)
        addresses = [address for network in made for address in network.addresses]
        assert len(set(addresses)) == len(addresses)

    async def test_list_gives_what_is_attached(self, provider: NetworkProvider) -> None:
        """Every attached sandbox."""
        assert list(await provider.list()) == []
        web = await provider.attach(self.spec(WEB, PortMapping(host_port=self.host_port, container_port=80)))
        db = await provider.attach(self.spec(DB))
        assert sorted(await provider.list(), key=lambda network: network.sandbox) == [db, web]
        await provider.detach(WEB)
        assert list(await provider.list()) == [db]

    async def test_detach_repeats_safely(self, provider: NetworkProvider) -> None:
        """Remove the namespace, the link, the rules. Unknown ids are no error."""
        await provider.attach(self.spec(WEB))
        for _ in range(2):
            await provider.detach(WEB)
        await provider.detach(SandboxId("never-came"))
        assert list(await provider.list()) == []

    async def test_owner_gets_the_same_address_again(self, provider: NetworkProvider) -> None:
        """An owner gets the same address again while nobody else needs it."""
        before = await provider.attach(self.spec(WEB, owner="default/web"))
        await provider.detach(WEB)
        other = await provider.attach(self.spec(DB))
        again = await provider.attach(self.spec(SandboxId("web-1"), owner="default/web"))
        assert again.addresses == before.addresses
        assert not set(other.addresses) & set(again.addresses)

    async def test_release_of_an_unknown_owner_is_no_error(self, provider: NetworkProvider) -> None:
        """Forget the address reserved for the owner. Unknown owners are no error."""
        await provider.attach(self.spec(WEB))
        await provider.detach(WEB)
        for _ in range(2):
            await provider.release(f"default/{WEB}")
        await provider.release("default/never-came")
        assert (await provider.attach(self.spec(WEB))).addresses

    async def test_host_port_that_is_held_is_refused_and_nothing_attached(self, provider: NetworkProvider) -> None:
        """PortInUseError: a host port is held by another sandbox; names both."""
        port = PortMapping(host_port=self.host_port, container_port=80)
        web = await provider.attach(self.spec(WEB, port))
        with pytest.raises(PortInUseError) as caught:
            await provider.attach(self.spec(DB, port))
        for named in (str(self.host_port), WEB, DB):
            assert named in str(caught.value)
        assert list(await provider.list()) == [web]

    async def test_host_port_is_free_after_detach(self, provider: NetworkProvider) -> None:
        """Remove the namespace, the link, the rules."""
        port = PortMapping(host_port=self.host_port, container_port=80)
        await provider.attach(self.spec(WEB, port))
        await provider.detach(WEB)
        assert (await provider.attach(self.spec(DB, port))).ports == (port,)

    async def test_one_number_serves_tcp_and_udp(self, provider: NetworkProvider) -> None:
        """A host port is a number and a protocol."""
        await provider.attach(self.spec(WEB, PortMapping(host_port=self.host_port, container_port=53)))
        udp = PortMapping(host_port=self.host_port, container_port=53, protocol="udp")
        assert (await provider.attach(self.spec(DB, udp))).ports == (udp,)

    async def test_names_are_replaced_as_often_as_they_change(self, provider: NetworkProvider) -> None:
        """Replace the names that sandboxes resolve."""
        web = await provider.attach(self.spec(WEB))
        await provider.set_names({"web.default.svc": web.addresses, "web.nanocloud.local": web.addresses})
        await provider.set_names({"web.default.svc": web.addresses[:1]})
        await provider.set_names({})

    async def test_networks_outlive_the_server(self, make_provider: Callable[[], NetworkProvider]) -> None:
        """Networks outlive the server: after a crash list gives back what is attached."""
        spec = self.spec(WEB, PortMapping(host_port=self.host_port, container_port=80))
        async with make_provider() as first:
            before = await first.attach(spec)
        async with make_provider() as second:
            assert list(await second.list()) == [before]
            assert await second.attach(spec) == before
            with pytest.raises(PortInUseError):
                await second.attach(self.spec(DB, *spec.ports))
            await second.detach(WEB)
