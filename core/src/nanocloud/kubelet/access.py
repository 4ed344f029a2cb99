"""How the API server reaches into pods: logs, and processes run by request."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from nanocloud.bindings import ExecBinding
from nanocloud.errors import BadRequestError, NotFoundError
from nanocloud.kubelet.logs import LogOptions, read_log
from nanocloud.kubelet.status import ID_SCHEME
from nanocloud.kubelet.translate import log_folder
from nanocloud.models.meta import name_of
from nanocloud.models.pod import POD
from nanocloud.providers.runtime import ContainerId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.providers.runtime import ExecSession, ExecSpec


class PodAccess:
    """Logs and exec of the pods of this node."""

    def __init__(self, parts: KubeletParts) -> None:
        self._parts = parts

    @asynccontextmanager
    async def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
        previous: bool = False,
        limit_bytes: int | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The log of one container. ``previous`` is the run before the present one.

        Raises:
            NotFoundError: no such pod.
            BadRequestError: no such container, or no run of it (yet).
        """
        found = await self._parts.store.get(POD, namespace, pod)
        status = _container_status(found, container)
        attempt = int(status.get("restartCount", 0)) - (1 if previous else 0)
        path = log_folder(self._parts.logs, found, status["name"]) / f"{max(attempt, 0)}.log"
        if attempt < 0 or (previous and not path.exists()):
            raise BadRequestError(f'previous terminated container "{status["name"]}" in pod "{pod}" not found')
        if not path.exists() and attempt > 0:
            path = path.with_name(f"{attempt - 1}.log")  # it waits to start again: show how it ended
        if not path.exists():
            waiting = (status.get("state") or {}).get("waiting") or {}
            reason = waiting.get("message") or waiting.get("reason") or "ContainerCreating"
            raise BadRequestError(f'container "{status["name"]}" in pod "{pod}" is waiting to start: {reason}')
        options = LogOptions(
            follow=follow and not previous,
            tail_lines=tail_lines,
            since=since,
            timestamps=timestamps,
            limit_bytes=limit_bytes,
        )
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_ended, _container_id(status), ended)
            async with aclosing(read_log(path, options, ended=ended)) as pieces:
                yield pieces
            nursery.cancel_scope.cancel()

    async def _until_ended(self, container: ContainerId | None, ended: trio.Event) -> None:
        if container is not None:
            try:
                await self._parts.runtime.wait(container)
            except NotFoundError:
                pass
        ended.set()

    @asynccontextmanager
    async def exec(
        self, namespace: str, pod: str, container: str | None, spec: ExecSpec, *, as_binding: bool = False
    ) -> AsyncIterator[ExecSession]:
        """Run one more process in a container of the pod; ``as_binding`` as a binding command runs there.

        Raises:
            NotFoundError: no such pod.
            BadRequestError: no such container, or it does not run; or the node's binding provider runs none in it.
        """
        if as_binding:
            if not isinstance(self._parts.binding, ExecBinding):
                raise BadRequestError(f"the binding provider {self._parts.binding.name} runs nothing in containers")
            spec = self._parts.binding.envelope(spec)
        found = await self._parts.store.get(POD, namespace, pod)
        status = _container_status(found, container)
        identifier = _container_id(status)
        if identifier is None or "running" not in (status.get("state") or {}):
            raise BadRequestError(f'container "{status["name"]}" in pod "{name_of(found)}" is not running')
        session: AbstractAsyncContextManager[ExecSession] = self._parts.runtime.exec(identifier, spec)
        async with session as entered:
            yield entered


def _container_status(pod: Object, container: str | None) -> dict[str, Any]:
    names = [c["name"] for c in pod["spec"]["containers"]]
    wanted = container or names[0]
    if wanted not in names:
        raise BadRequestError(f"container {wanted} is not valid for pod {name_of(pod)}; it has: {', '.join(names)}")
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return next((s for s in statuses if s["name"] == wanted), {"name": wanted})


def _container_id(status: dict[str, Any]) -> ContainerId | None:
    text = status.get("containerID", "")
    return ContainerId(text.removeprefix(ID_SCHEME)) if text else None
