"""What every network provider must keep."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import trio

from nanocloud.errors import AlreadyExistsError, InvalidError, PortInUseError, ProviderError
from nanocloud.providers.network import (
    NetworkProvider,
    PortMapping,
    SandboxId,
    SandboxNetwork,
    SandboxNetworkSpec,
)
from nanocloud.testkit.suites import inside
from nanocloud.testkit.suites.base import ProviderSuite
from nanocloud.testkit.suites.cancelling import cancel_at_every_await

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nanocloud.providers.network import IPAddress

WEB, DB = SandboxId("web-0"), SandboxId("db-0")
LOOPBACK = IPv4Address("127.0.0.1")
LIMIT_SECONDS = 60
"""More than any single step takes; a network that hangs fails instead of hanging the run."""


class NetworkProviderSuite(ProviderSuite[NetworkProvider]):
    contract = "network"
    host_port: ClassVar[int] = 28431
    """Free on the machine that runs the suite."""

    def spec(self, sandbox: SandboxId, *ports: PortMapping, owner: str = "") -> SandboxNetworkSpec:
        return SandboxNetworkSpec(sandbox=sandbox, owner=owner or f"default/{sandbox}", ports=ports)

    @property
    def published(self) -> PortMapping:
        return PortMapping(host_port=self.host_port, container_port=80)

    async def resolve(
        self, provider: NetworkProvider, network: SandboxNetwork, name: str
    ) -> tuple[int, set[IPAddress]]:
        """Response code and addresses of a name, asked from inside the sandbox."""
        return await inside.within(network.namespace_path, lambda: inside.ask(network.nameservers[0], name))

    @contextmanager
    def program_at(self, provider: NetworkProvider, port: int) -> Iterator[None]:
        """A program of the host that listens at a TCP port."""
        with socket.create_server(("", port)):
            yield

    # Attaching

    async def test_a_sandbox_is_connected(self, provider: NetworkProvider) -> None:
        """Make the sandbox's network namespace and connect it; all or nothing."""
        spec = self.spec(WEB, self.published)
        web = await provider.attach(spec)
        assert (web.sandbox, web.owner, web.ports) == (WEB, spec.owner, spec.ports)
        assert web.addresses
        assert list(await provider.list()) == [web]

    async def test_no_address_is_given_twice(self, provider: NetworkProvider) -> None:
        """No address is given to two sandboxes."""
        for number in range(6):
            await provider.attach(self.spec(SandboxId(f"web-{number}")))
            if number % 3 == 1:
                await provider.detach(SandboxId(f"web-{number - 1}"))
        addresses = [address for network in await provider.list() for address in network.addresses]
        assert len(set(addresses)) == len(addresses) > 0

    async def test_a_namespace_is_the_sandboxes_own(self, provider: NetworkProvider) -> None:
        """Bind mount of the network namespace; valid until ``detach``."""
        web, db = await provider.attach(self.spec(WEB)), await provider.attach(self.spec(DB))
        assert web.namespace_path.is_absolute()
        assert web.namespace_path != db.namespace_path

    async def test_a_namespace_has_the_address(self, provider: NetworkProvider) -> None:
        """What ``attach`` made."""
        web = await provider.attach(self.spec(WEB))

        def bind() -> None:
            for address in web.addresses:
                family = socket.AF_INET if address.version == 4 else socket.AF_INET6
                with socket.socket(family, socket.SOCK_STREAM) as sock:
                    sock.bind((str(address), 0))  # fails where the address is not the namespace's

        await inside.within(web.namespace_path, bind)

    async def test_same_spec_again_returns_the_same(self, provider: NetworkProvider) -> None:
        """The same spec again returns the same."""
        spec = self.spec(WEB, self.published)
        assert await provider.attach(spec) == await provider.attach(spec)
        assert len(await provider.list()) == 1

    async def test_another_spec_for_a_sandbox_is_refused(self, provider: NetworkProvider) -> None:
        """AlreadyExistsError: the sandbox is attached with another owner or other ports."""
        web = await provider.attach(self.spec(WEB))
        for other in (self.spec(WEB, self.published), self.spec(WEB, owner="default/other")):
            with pytest.raises(AlreadyExistsError, match=WEB):
                await provider.attach(other)
        assert list(await provider.list()) == [web]

    async def test_an_owner_has_one_sandbox_at_a_time(self, provider: NetworkProvider) -> None:
        """ProviderError: the owner has another sandbox, no address is left, or the host refused; the message names the
        step."""
        web = await provider.attach(self.spec(WEB))
        with pytest.raises(ProviderError, match=WEB):
            await provider.attach(self.spec(DB, owner=web.owner))
        assert list(await provider.list()) == [web]

    @pytest.mark.parametrize(
        "changed",
        [
            {"sandbox": "../escape"}, {"sandbox": "Upper"}, {"sandbox": "x" * 64}, {"sandbox": ""},
            {"sandbox": "web\n"}, {"owner": "web"},
            {"ports": (PortMapping(host_port=0, container_port=80),)},
            {"ports": (PortMapping(host_port=80, container_port=65536),)},
        ],
        ids=["path", "upper-case", "too-long", "empty", "line", "owner", "host-port", "container-port"],
    )  # fmt: skip
    async def test_what_cannot_be_is_refused_and_makes_nothing(
        self, provider: NetworkProvider, changed: dict[str, Any]
    ) -> None:
        """InvalidError: an id, owner or port that cannot be."""
        with pytest.raises(InvalidError):
            await provider.attach(attrs.evolve(self.spec(WEB), **changed))
        assert list(await provider.list()) == []

    async def test_the_longest_ids_are_told_apart(self, provider: NetworkProvider) -> None:
        """``[a-z0-9][a-z0-9.-]{0,62}``; one pod sandbox."""
        ids = [SandboxId("long.name-" + "x" * 52 + last) for last in "ab"]
        made = [await provider.attach(self.spec(sandbox)) for sandbox in ids]
        assert [network.sandbox for network in made] == ids
        await provider.detach(ids[0])
        assert list(await provider.list()) == made[1:]

    async def test_sandboxes_are_attached_side_by_side(self, provider: NetworkProvider) -> None:
        """They are safe to call concurrently for different objects."""
        made: list[SandboxNetwork] = []

        async def attach(number: int) -> None:
            made.append(await provider.attach(self.spec(SandboxId(f"web-{number}"))))

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(attach, number)
        addresses = [address for network in made for address in network.addresses]
        assert len(set(addresses)) == len(addresses)
        assert sorted(await provider.list(), key=lambda network: network.sandbox) == sorted(
            made, key=lambda network: network.sandbox
        )

    async def test_a_cancelled_attach_can_be_done_again(self, provider: NetworkProvider) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        spec = self.spec(WEB, self.published)
        first = await provider.attach(spec)
        await provider.detach(WEB)

        async def look() -> None:
            assert list(await provider.list()) in ([], [first])
            assert await provider.attach(spec) == first
            await provider.detach(WEB)
            await provider.attach(self.spec(DB, self.published))  # nothing holds the port
            await provider.detach(DB)
            assert list(await provider.list()) == []

        with trio.fail_after(LIMIT_SECONDS):
            await cancel_at_every_await(lambda: provider.attach(spec), look)

    async def test_a_cancelled_detach_can_be_done_again(self, provider: NetworkProvider) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        spec = self.spec(WEB, self.published)
        first = await provider.attach(spec)

        async def look() -> None:
            assert list(await provider.list()) in ([], [first])
            await provider.detach(WEB)
            assert list(await provider.list()) == []
            await provider.attach(self.spec(DB, self.published))  # nothing holds the port
            await provider.detach(DB)
            assert await provider.attach(spec) == first

        with trio.fail_after(LIMIT_SECONDS):
            await cancel_at_every_await(lambda: provider.detach(WEB), look)

    # Detaching

    async def test_list_gives_what_is_attached(self, provider: NetworkProvider) -> None:
        """Every attached sandbox, with its namespace verified to exist."""
        assert list(await provider.list()) == []
        web = await provider.attach(self.spec(WEB, self.published))
        db = await provider.attach(self.spec(DB))
        assert sorted(await provider.list(), key=lambda network: network.sandbox) == [db, web]
        await provider.detach(WEB)
        assert list(await provider.list()) == [db]

    async def test_detach_repeats_safely(self, provider: NetworkProvider) -> None:
        """Unknown ids are no error."""
        await provider.attach(self.spec(WEB))
        for _ in range(2):
            await provider.detach(WEB)
        await provider.detach(SandboxId("never-came"))
        assert list(await provider.list()) == []

    async def test_detach_keeps_the_address_and_frees_the_rest(self, provider: NetworkProvider) -> None:
        """Remove the namespace, the link, the rules; keep the owner's address reserved."""
        web = await provider.attach(self.spec(WEB, self.published))
        await provider.detach(WEB)
        assert not web.namespace_path.exists()
        db = await provider.attach(self.spec(DB, self.published))
        assert db.ports == (self.published,)
        assert not set(db.addresses) & set(web.addresses)

    async def test_owner_gets_the_same_address_again(self, provider: NetworkProvider) -> None:
        """Addresses are sticky: an ``owner`` gets the same address again while nobody else needs it, so names keep
        their meaning over restarts."""
        before = await provider.attach(self.spec(WEB, owner="default/web"))
        await provider.detach(WEB)
        await provider.attach(self.spec(DB))
        again = await provider.attach(self.spec(SandboxId("web-1"), owner="default/web"))
        assert again.addresses == before.addresses

    async def test_owner_gets_the_same_address_from_the_next_server(
        self, make_provider: Callable[[], NetworkProvider]
    ) -> None:
        """Addresses are sticky: an ``owner`` gets the same address again while nobody else needs it, so names keep
        their meaning over restarts."""

        async def attach_and_detach(provider: NetworkProvider, tell: Callable[[str], None]) -> None:
            tell(repr((await provider.attach(self.spec(WEB))).addresses))
            await provider.detach(WEB)

        [before] = await self.end_abruptly(make_provider, attach_and_detach)
        async with make_provider() as second:
            await second.attach(self.spec(DB))
            assert repr((await second.attach(self.spec(WEB))).addresses) == before

    async def test_release_of_an_unknown_owner_is_no_error(self, provider: NetworkProvider) -> None:
        """Unknown owners are no error."""
        await provider.attach(self.spec(WEB))
        await provider.detach(WEB)
        for _ in range(2):
            await provider.release(f"default/{WEB}")
        await provider.release("default/never-came")
        assert (await provider.attach(self.spec(WEB))).addresses

    async def test_an_address_in_use_is_not_released(self, provider: NetworkProvider) -> None:
        """ProviderError: a sandbox of the owner is attached; names it."""
        web = await provider.attach(self.spec(WEB))
        with pytest.raises(ProviderError, match=WEB):
            await provider.release(web.owner)
        assert not set((await provider.attach(self.spec(DB))).addresses) & set(web.addresses)

    # Host ports

    async def test_a_published_port_leads_to_the_sandbox(self, provider: NetworkProvider) -> None:
        """Traffic to ``host_ip:host_port`` of the node goes to ``container_port`` of the sandbox."""
        web = await provider.attach(self.spec(WEB, self.published))

        def listen() -> socket.socket:
            return socket.create_server(("", 80))

        with await inside.within(web.namespace_path, listen) as listener, trio.fail_after(LIMIT_SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", self.host_port):
                listener.settimeout(LIMIT_SECONDS)
                (await trio.to_thread.run_sync(listener.accept))[0].close()

    async def test_host_port_that_is_held_is_refused_and_nothing_attached(self, provider: NetworkProvider) -> None:
        """PortInUseError: a host port is held by another sandbox or by a program of the host; names port and holder."""
        web = await provider.attach(self.spec(WEB, self.published))
        with pytest.raises(PortInUseError) as caught:
            await provider.attach(self.spec(DB, self.published))
        for named in (str(self.host_port), WEB):
            assert named in str(caught.value)
        assert list(await provider.list()) == [web]

    async def test_one_of_many_who_want_a_host_port_gets_it(self, provider: NetworkProvider) -> None:
        """PortInUseError: a host port is held by another sandbox or by a program of the host; names port and holder."""
        made: list[SandboxNetwork] = []
        refused: list[SandboxId] = []

        async def attach(sandbox: SandboxId) -> None:
            try:
                made.append(await provider.attach(self.spec(sandbox, self.published)))
            except PortInUseError:
                refused.append(sandbox)

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(attach, SandboxId(f"web-{number}"))
        assert (len(made), len(refused)) == (1, 2)
        assert list(await provider.list()) == made

    async def test_a_host_port_of_a_program_is_refused_and_nothing_attached(self, provider: NetworkProvider) -> None:
        """PortInUseError: a host port is held by another sandbox or by a program of the host; names port and holder."""
        with self.program_at(provider, self.host_port), pytest.raises(PortInUseError, match=str(self.host_port)):
            await provider.attach(self.spec(WEB, self.published))
        assert list(await provider.list()) == []
        assert (await provider.attach(self.spec(WEB, self.published))).ports == (self.published,)

    async def test_every_address_is_loopback_too(self, provider: NetworkProvider) -> None:
        """None: every address of the node, loopback too."""
        everywhere, loopback = self.published, attrs.evolve(self.published, host_ip=LOOPBACK)
        for first, second in ((everywhere, loopback), (loopback, everywhere)):
            await provider.attach(self.spec(WEB, first))
            with pytest.raises(PortInUseError, match=WEB):
                await provider.attach(self.spec(DB, second))
            await provider.detach(WEB)

    async def test_one_number_serves_tcp_and_udp(self, provider: NetworkProvider) -> None:
        """A number of one protocol is free while the other one's is held."""
        await provider.attach(self.spec(WEB, self.published))
        udp = attrs.evolve(self.published, protocol="udp")
        assert (await provider.attach(self.spec(DB, udp))).ports == (udp,)

    # Names

    async def test_sandbox_knows_whom_to_ask_for_names(self, provider: NetworkProvider) -> None:
        """What the sandbox's ``/etc/resolv.conf`` must name so that ``set_names`` takes effect."""
        assert (await provider.attach(self.spec(WEB))).nameservers

    async def test_names_are_replaced_as_often_as_they_change(self, provider: NetworkProvider) -> None:
        """Replace the names that sandboxes resolve."""
        web, db = await provider.attach(self.spec(WEB)), await provider.attach(self.spec(DB))
        name, other = "web.default.svc", "web.nanocloud.local"
        for addresses in (web.addresses, db.addresses, db.addresses[:1]):
            await provider.set_names({name: addresses})
            assert await self.resolve(provider, web, name) == (inside.NOERROR, set(addresses))
        await provider.set_names({other: web.addresses})
        assert await self.resolve(provider, db, other) == (inside.NOERROR, set(web.addresses))
        assert await self.resolve(provider, db, name) == (inside.NXDOMAIN, set())

    async def test_unknown_names_of_ours_do_not_exist(self, provider: NetworkProvider) -> None:
        """A known name without an address of the asked family answers NODATA, an unknown name below ``svc`` or
        ``nanocloud.local`` answers NXDOMAIN."""
        web = await provider.attach(self.spec(WEB))
        await provider.set_names({"here.default.svc": ()})
        assert await self.resolve(provider, web, "here.default.svc") == (inside.NOERROR, set())
        for unknown in ("gone.default.svc", "gone.nanocloud.local"):
            assert await self.resolve(provider, web, unknown) == (inside.NXDOMAIN, set())

    # Life

    async def test_networks_outlive_the_server(self, make_provider: Callable[[], NetworkProvider]) -> None:
        """Networks outlive the server: after a crash ``list`` gives back what is attached."""
        spec = self.spec(WEB, self.published)
        seen: list[str] = []

        async def attach(provider: NetworkProvider, tell: Callable[[str], None]) -> None:
            tell(repr(await provider.attach(spec)))

        seen += await self.end_abruptly(make_provider, attach)
        async with make_provider() as second:
            assert [repr(network) for network in await second.list()] == seen
            assert repr(await second.attach(spec)) == seen[0]
            with pytest.raises(PortInUseError):
                await second.attach(self.spec(DB, *spec.ports))

    async def test_what_a_killed_server_attached_is_whole_or_gone(
        self, make_provider: Callable[[], NetworkProvider]
    ) -> None:
        """Entering is idempotent on the host: a node that was killed enters again and finds what it left."""

        async def attach(provider: NetworkProvider, tell: Callable[[str], None]) -> None:
            for number in range(20):
                tell((await provider.attach(self.spec(SandboxId(f"web-{number}")))).sandbox)

        for killed_after in (1, 3):
            told = await self.end_abruptly(make_provider, attach, after=killed_after)
            async with make_provider() as provider:
                left = await provider.list()
                assert {network.sandbox for network in left} >= set(told)
                addresses = [address for network in left for address in network.addresses]
                assert len(set(addresses)) == len(addresses)
                for network in left:
                    assert await provider.attach(self.spec(network.sandbox)) == network
                    await provider.detach(network.sandbox)
                assert list(await provider.list()) == []

    async def test_closing_leaves_networks_alone(self, make_provider: Callable[[], NetworkProvider]) -> None:
        """Leaving must not stop what outlives the server (containers, networks, mounts)."""
        async with make_provider() as first:
            web = await first.attach(self.spec(WEB))
        async with make_provider() as second:
            assert list(await second.list()) == [web]
            await second.detach(WEB)

    async def test_purge_removes_everything(self, make_provider: Callable[[], NetworkProvider]) -> None:
        """Remove every trace, of this provider's life and of earlier ones. Called on a provider that is not open;
        repeats safely."""
        async with make_provider() as first:
            web = await first.attach(self.spec(WEB, self.published))
        await self.purge(make_provider)
        assert not web.namespace_path.exists()
        async with make_provider() as second:
            assert list(await second.list()) == []
            await second.attach(self.spec(DB, self.published))
