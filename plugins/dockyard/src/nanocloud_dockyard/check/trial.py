"""Installs an image on the running node, with each choice of its options, in a namespace of its own; then takes it off.

Measured are the time from the pod's making to its readiness and the memory a few seconds later. Services that a choice
selects are installed with it and kept until the end, so that the accounts made in them can be asked about once the
image is gone. Ports are not published: what runs on the machine already keeps them.
"""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.client.api import Api, ApiError, bundles_path, core_path
from nanocloud.planning.reserved import Reserved, reserved
from nanocloud_dockyard.check.accounts import Account, accounts_of
from nanocloud_dockyard.check.findings import Finding
from nanocloud_dockyard.check.following import condition, find, follow
from nanocloud_dockyard.check.memory import memory_of
from nanocloud_dockyard.check.residue import objects_left, traces_left
from nanocloud_dockyard.check.variations import shown, variations

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig
    from nanocloud.planning.contract import ImageContract

SETTLE_SECONDS = 5.0
SLOW_READY_SECONDS = 30.0
MANY_IDLE_BYTES = 512 * 1024 * 1024
_GONE_SECONDS = 120.0
_NOT_FOUND = 404


@attrs.frozen(kw_only=True)
class Measured:
    """One installation. None: it did not come to that, or the kernel does not say."""

    options: str
    ready_seconds: float | None = None
    idle_bytes: int | None = None


@attrs.define(kw_only=True)
class Trial:
    server: Api
    config: NodeConfig
    service: str
    image: str | None
    """Reference, None for the catalogue's."""
    contract: ImageContract
    given: Mapping[str, str]
    seconds: float
    tell: Callable[[str], None]
    namespace: str = attrs.field(factory=lambda: f"check-{random.token_hex(4)}")
    findings: list[Finding] = attrs.field(factory=list[Finding])
    measured: list[Measured] = attrs.field(factory=list[Measured])
    _traces: set[str] = attrs.field(factory=set[str])
    """Names that must be nowhere on the machine at the end."""

    def run(self) -> None:
        """Try everything; whatever happens, take it all off again."""
        with self._own_namespace():
            for options in variations(self.contract, self.given):
                self.tell(f"installing with {shown(options)}")
                self._try(options)
        left = traces_left(self.config, self._traces | {self.namespace})
        for trace in left[:10]:
            self._find("residue", trace, "is left on the machine")

    # One installation

    def _try(self, options: dict[str, str]) -> None:
        where = shown(options)
        try:
            self._create({**self._unpublished(options), **options})
        except ApiError as exc:
            unbuilt = exc.code == _NOT_FOUND and options != self.given
            self._find("not-tried" if unbuilt else "install", where, str(exc))
            return
        accounts: list[Account] = []
        if self._becomes_ready(where):
            time.sleep(SETTLE_SECONDS)  # what a service does after its start is over by then
            self._measure_memory(where)
            accounts = self._accounts(where)
        self._remember_names()
        self._uninstall(where)
        for account in accounts:
            if account.works(self.namespace):
                self._find("account-left", where, f"{account.command} of {account.target} still succeeds")

    def _unpublished(self, options: Mapping[str, str]) -> dict[str, str]:
        """The ports of the plan, without the machine's side. Plans first, so that bad options are told in full."""
        answer = self.server.request("POST", self._path("plan"), body=self._bundle(options))
        planned: Mapping[str, Any] = answer["status"]["bundles"][-1]["plan"]["options"]
        found = {}
        for name, option in planned.items():
            named = reserved(name)
            if named is not None and named[0] is Reserved.PORT and "->" in option["value"]:
                found[name] = option["value"].rpartition("->")[2]
        return found

    def _create(self, options: Mapping[str, str]) -> None:
        self.server.request("POST", bundles_path(self.namespace), body=self._bundle(options))

    def _bundle(self, options: Mapping[str, str]) -> dict[str, Any]:
        spec: dict[str, Any] = {"service": self.service, "options": dict(options)}
        if self.image is not None:
            spec["image"] = self.image
        meta = {"name": self.service, "namespace": self.namespace}
        return {"apiVersion": "nanocloud.io/v1", "kind": "Bundle", "metadata": meta, "spec": spec}

    def _becomes_ready(self, where: str) -> bool:
        began: list[float] = []

        def is_settled(bundle: dict[str, Any] | None) -> bool:
            if not began and condition(bundle, "Bound"):  # the pod is made now
                began.append(time.monotonic())
            return condition(bundle, "Ready") or ((bundle or {}).get("status") or {}).get("phase") == "Failed"

        bundle, _ = follow(self.server, bundles_path(self.namespace), self.service, is_settled, seconds=self.seconds)
        if not condition(bundle, "Ready"):
            status = (bundle or {}).get("status") or {}
            why = self._last_warning() or status.get("message") or "no reason known"
            how = "failed" if status.get("phase") == "Failed" else f"is not ready after {self.seconds:g} s"
            self._find("install", where, f"{how}: {why}")
            self.measured.append(Measured(options=where))
            return False
        took = time.monotonic() - began[0]
        self.measured.append(Measured(options=where, ready_seconds=round(took, 2)))
        if took > SLOW_READY_SECONDS:
            self._find("slow-ready", where, f"was ready after {took:.0f} s; the limit is {SLOW_READY_SECONDS:.0f}")
        return True

    def _last_warning(self) -> str:
        """What the node last complained about of the bundle or its pod."""
        events = self.server.request("GET", core_path(self.namespace, "events"))["items"]
        mine = (self.service, f"{self.service}-0")
        found = [e for e in events if e["type"] == "Warning" and e["involvedObject"]["name"] in mine]
        found.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return str(found[-1].get("message", "")) if found else ""

    def _measure_memory(self, where: str) -> None:
        pod = find(self.server, core_path(self.namespace, "pods", f"{self.service}-0")) or {}
        containers = [c.get("containerID", "") for c in (pod.get("status") or {}).get("containerStatuses") or []]
        used = [memory_of(container.rpartition("/")[2]) for container in containers if container]
        if not used or None in used:
            return
        total = sum(filter(None, used))
        self.measured[-1] = attrs.evolve(self.measured[-1], idle_bytes=total)
        if total > MANY_IDLE_BYTES:
            mib = 1024 * 1024
            self._find("idle-memory", where, f"uses {total // mib} MiB idle; the limit is {MANY_IDLE_BYTES // mib}")

    def _accounts(self, where: str) -> list[Account]:
        """Those that can be asked about, asked once while they have to work."""
        found = []
        for account in accounts_of(self.server, self.namespace, self.service):
            works = account.works(self.namespace)
            if works is None:
                self._find("account-unseen", where, f"{account.target} has no {account.command}")
            elif works:
                found.append(account)
            else:
                self._find("account-refused", where, f"{account.command} of {account.target} fails")
        return found

    def _uninstall(self, where: str) -> None:
        """The image's bundle alone goes; selected services stay for the next round."""
        note = {"metadata": {"annotations": {"nanocloud.io/keep-services": "true"}}}
        path = self._path()
        self.server.request("PATCH", path, body=note, content_type="application/merge-patch+json")
        if not self._remove(self.service):
            self._find("residue", where, f"is not uninstalled after {_GONE_SECONDS:g} s")
        for left in objects_left(self.server, self.namespace, self.service):
            self._find("residue", where, f"{left} is left")

    # The whole

    @contextmanager
    def _own_namespace(self) -> Iterator[None]:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.server.request("POST", core_path(None, "namespaces"), body=body)
        try:
            yield
        finally:
            self._remember_names()
            for bundle in self.server.request("GET", bundles_path(self.namespace))["items"]:
                self._remove(bundle["metadata"]["name"])
            self.server.request("DELETE", core_path(None, "namespaces", self.namespace))
            collection = core_path(None, "namespaces")
            _, gone = follow(
                self.server, collection, self.namespace, lambda found: found is None, seconds=_GONE_SECONDS
            )
            if not gone:
                self._find("residue", self.namespace, f"the namespace is still there after {_GONE_SECONDS:g} s")

    def _remove(self, bundle: str) -> bool:
        """True once it is gone."""
        if find(self.server, bundles_path(self.namespace, bundle)) is not None:
            self.server.request("DELETE", bundles_path(self.namespace, bundle))
        collection = bundles_path(self.namespace)
        return follow(self.server, collection, bundle, lambda found: found is None, seconds=_GONE_SECONDS)[1]

    def _remember_names(self) -> None:
        """What pods, containers and volumes of the namespace are called on the machine."""
        for pod in self.server.request("GET", core_path(self.namespace, "pods"))["items"]:
            self._traces.add(pod["metadata"]["uid"])
            for container in (pod.get("status") or {}).get("containerStatuses") or []:
                if identifier := container.get("containerID", "").rpartition("/")[2]:
                    self._traces.add(identifier)
        for claim in self.server.request("GET", core_path(self.namespace, "persistentvolumeclaims"))["items"]:
            self._traces.add(claim["metadata"]["uid"])
            if volume := (claim.get("spec") or {}).get("volumeName"):
                self._traces.add(volume)

    def _path(self, *more: str) -> str:
        return bundles_path(self.namespace, self.service, *more)

    def _find(self, rule: str, where: str, message: str) -> None:
        self.findings.append(Finding(rule, where, message))
