"""Everything the network does to the node, in an order that a ``kill -9`` at any line does not break.

Attaching writes the record last; detaching removes it first. What bears our mark without a record is removed when the
node opens the network again. All of this blocks; ``network.py`` calls it in worker threads.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import NanocloudError, ProviderError
from nanocloud_cni_bridge import attachment as records
from nanocloud_cni_bridge import hostports, links, netns, rules, sysctls, veth
from nanocloud_cni_bridge.records import RecordFolder
from nanocloud_cni_bridge.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from nanocloud_cni_bridge.attachment import Attachment
    from nanocloud_cni_bridge.config import BridgeConfig

log = logging.getLogger(__name__)


@attrs.frozen
class Folders:
    state_dir: Path
    run_dir: Path

    @property
    def reservations(self) -> RecordFolder:
        return RecordFolder(self.state_dir / "network")

    @property
    def attached(self) -> RecordFolder:
        return RecordFolder(self.run_dir / "network" / "attached")

    @property
    def node(self) -> RecordFolder:
        return RecordFolder(self.run_dir / "network" / "node")

    @property
    def namespaces(self) -> Path:
        return self.run_dir / "netns"


@contextmanager
def step(what: str) -> Iterator[None]:
    """Name the step in whatever the kernel refuses."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NanocloudError:
        raise
    except (OSError, NetlinkError) as exc:
        reason = os.strerror(exc.code) if isinstance(exc, NetlinkError) else str(exc)
        raise ProviderError(f"{what} failed: {reason}") from exc


class Host:
    """One open network on this node."""

    def __init__(self, settings: Settings, folders: Folders) -> None:
        self.settings, self.folders = settings, folders
        self.rules = rules.Rules(settings)
        self.bridge_index = 0
        self._bridge_lock = threading.Lock()

    @classmethod
    def open(cls, config: BridgeConfig, folders: Folders) -> tuple[Host, list[Attachment]]:
        """Prepare the node and recover from whatever happened; the sandboxes that are attached.

        Raises:
            ProviderError: the node lacks something, or the subnet is taken; says what to do.
        """
        if os.geteuid() != 0:
            raise ProviderError("the network needs root: it makes interfaces and packet rules")
        rules.require_nft()
        with step("preparing the network of this node"):
            settings = Settings.of(config, ipv6=sysctls.ipv6_enabled(), mtu=links.default_mtu())
            host = cls(settings, folders)
            folders.attached.open()
            folders.node.open()
            netns.prepare(folders.namespaces)
            attached = list(host._recorded())
            host._refuse_overlaps(attached)
            sysctls.NodeSettings(folders.node).apply(dual=settings.dual)
            host.ensure_bridge()
            host._collect({a.sandbox for a in attached})
            for attachment in attached:
                host._mend_or_warn(attachment)
            host.rules.replace(attached)
        return host, attached

    def namespace(self, sandbox: str) -> Path:
        return self.folders.namespaces / sandbox

    def ensure_bridge(self) -> None:
        with self._bridge_lock:
            self.bridge_index = links.ensure_bridge(self.settings)

    def set_up(self, attachment: Attachment, reserve: Callable[[], None]) -> None:
        """Attach, all or nothing. ``reserve`` puts the address's reservation on disk."""
        path = self.namespace(attachment.sandbox)
        with step(f"sandbox {attachment.sandbox}: trying its host ports"):
            hostports.probe(attachment.ports, dual=self.settings.dual, gateways=self.settings.gateways)
        try:
            with step(f"sandbox {attachment.sandbox}: reserving its address"):
                reserve()
            with step(f"sandbox {attachment.sandbox}: connecting it to {self.settings.bridge}"):
                netns.remove(path)
                try:
                    veth.create(attachment, path, self.bridge_index, self.settings)
                except veth.BridgeGoneError:
                    self.mend(attachment)
            with step(f"sandbox {attachment.sandbox}: publishing its ports"):
                self.rules.publish(attachment)
            with step(f"sandbox {attachment.sandbox}: recording it"):
                self.folders.attached.write(attachment.sandbox, records.to_record(attachment))
        except BaseException:
            self.tear_down(attachment)
            raise

    def mend(self, attachment: Attachment) -> None:
        """Bring an attached sandbox's links back to what they should be."""
        with step(f"sandbox {attachment.sandbox}: mending its link"):
            try:
                veth.mend(attachment, self.namespace(attachment.sandbox), self.bridge_index, self.settings)
            except veth.BridgeGoneError:
                self.ensure_bridge()
                veth.mend(attachment, self.namespace(attachment.sandbox), self.bridge_index, self.settings)

    def tear_down(self, attachment: Attachment) -> None:
        with step(f"sandbox {attachment.sandbox}: detaching it"):
            self.folders.attached.remove(attachment.sandbox)
            self.rules.withdraw(attachment)
        self.sweep(attachment.sandbox)

    def sweep(self, sandbox: str) -> None:
        """Remove what a sandbox of that id may have left, known or not."""
        with step(f"sandbox {sandbox}: removing its link and namespace"):
            # The link first: a process that still holds the namespace would keep its end, and so both.
            links.delete_link(records.link_name(sandbox))
            netns.remove(self.namespace(sandbox))

    def lost_links(self, attached: Iterable[Attachment]) -> list[Attachment]:
        """Sandboxes whose link is gone or hangs on nothing."""
        whole = {info.name for info in links.our_links() if info.master == self.bridge_index}
        return [attachment for attachment in attached if attachment.link not in whole]

    def _recorded(self) -> Iterator[Attachment]:
        """The recorded sandboxes whose namespace still is one; other records are dropped."""
        for name, record in self.folders.attached.load():
            try:
                found = records.from_record(record)
                if found.sandbox != name:
                    raise ValueError(f"names sandbox {found.sandbox}")
            except (KeyError, ValueError, TypeError, NanocloudError) as exc:
                self.folders.attached.discard(name, repr(exc))
                continue
            if netns.is_namespace(self.namespace(found.sandbox)):
                yield found
            else:
                self.folders.attached.remove(name)

    def _refuse_overlaps(self, attached: list[Attachment]) -> None:
        for a in attached:
            strays = [ip for ip in a.addresses if not any(ip in n for n in self.settings.networks) and ip.version == 4]
            if strays:
                raise ProviderError(
                    f"sandbox {a.sandbox} is attached as {strays[0]}, outside subnet {self.settings.network}",
                    hint="set the former subnet in [cni-bridge] of the configuration, or remove the sandboxes first",
                )
        for overlap in links.overlaps(self.settings):
            if not attached:
                raise ProviderError(
                    f"subnet {overlap}", hint="set a free range as subnet in [cni-bridge] of the configuration"
                )
            log.warning("subnet %s; sandboxes are attached, so it stays", overlap)

    def _collect(self, attached: set[str]) -> None:
        """Remove links and namespaces that nobody recorded."""
        known = {records.link_name(sandbox) for sandbox in attached}
        for info in links.our_links():
            if info.name not in known:
                log.info("removing link %s, left over from a sandbox that was never attached", info.name)
                links.delete_link(info.name)
        for path in self.folders.namespaces.iterdir():
            if path.name not in attached:
                log.info("removing network namespace %s, left over", path)
                netns.remove(path)

    def _mend_or_warn(self, attachment: Attachment) -> None:
        # One broken sandbox must not keep the node from starting; its pod will fail its probes and be replaced.
        try:
            self.mend(attachment)
        except ProviderError as exc:
            log.warning("%s", exc)


def purge(config: BridgeConfig, folders: Folders) -> None:
    """Remove every trace of the network; repeats safely."""
    with step("removing the network"):
        for info in links.our_links():
            links.delete_link(info.name)
        netns.purge(folders.namespaces)
        if links.is_our_bridge(config.bridge):
            links.delete_link(config.bridge)
        if folders.node.path.exists():
            sysctls.NodeSettings(folders.node).restore()
        for folder in (folders.attached, folders.node, folders.reservations):
            folder.purge()
        shutil.rmtree(folders.attached.path.parent, ignore_errors=True)
        rules.delete_table(config.table)
