"""The built-in binding provider: the command runs in the selected service's container, inside an envelope.

The envelope: uid and gid 65534, no capabilities, the container's seccomp filter and namespaces, standard input closed,
a fixed environment, 90 s after which the process group is killed, output clipped to 1 MiB. The table ``[binding-exec]``
of the configuration gives another user, who cannot be root, or another time. A secret argument is a
memory file of the command's own: it gets the path ``/dev/fd/3`` (4, ...) to read it from, so no argv ever shows it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.ambient import wall_clock
from nanocloud.concurrency import unwrapped
from nanocloud.errors import InvalidError, NanocloudError
from nanocloud.providers.binding import BindingOutcome, BindingProvider, BindingResult
from nanocloud.providers.runtime import ExecSpec

if TYPE_CHECKING:
    from nanocloud.providers.binding import BindingCall

FOLDER = "/usr/lib/nanocloud/bindings"
ENVIRONMENT = {
    "PATH": f"{FOLDER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
}
OUTPUT_LIMIT_BYTES = 1024 * 1024
_FIRST_SECRET_DESCRIPTOR = 3
_COMMAND = re.compile(r"[a-z][a-z0-9_-]{0,63}")


_LARGEST_ID = 2**31 - 1
_LONGEST_SECONDS = 900


def _identity(config: BindingConfig, attribute: attrs.Attribute[int], value: int) -> None:
    if not 1 <= value <= _LARGEST_ID:
        raise ValueError(f"{attribute.name} is {value}; it must be from 1 to {_LARGEST_ID}: commands never run as root")


def _seconds(config: BindingConfig, attribute: attrs.Attribute[int], value: int) -> None:
    if not 1 <= value <= _LONGEST_SECONDS:
        raise ValueError(f"{attribute.name} is {value}; it must be from 1 to {_LONGEST_SECONDS}")


@attrs.frozen(kw_only=True)
class BindingConfig:
    """The table ``[binding-exec]``."""

    uid: int = attrs.field(default=65534, validator=_identity)
    """Who runs the commands; never root."""
    gid: int = attrs.field(default=65534, validator=_identity)
    timeout_seconds: int = attrs.field(default=90, validator=_seconds)


@attrs.frozen(kw_only=True)
class ExecBinding(BindingProvider):
    """Runs binding commands by ``RuntimeProvider.exec``."""

    config: BindingConfig = attrs.field(factory=BindingConfig)
    clock: Callable[[], float] = wall_clock

    @property
    def name(self) -> str:
        return "exec"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def run(self, call: BindingCall) -> BindingOutcome:
        if not _COMMAND.fullmatch(call.command):
            raise InvalidError(f"binding command {call.command!r} is not a name of a-z, 0-9, '-' and '_'")
        secrets = tuple(argument.value.encode() for argument in call.arguments if argument.secret)
        started, output = self.clock(), bytearray()
        code: int | None = None
        result = BindingResult.TIMEOUT
        try:
            with unwrapped(), trio.move_on_after(self.config.timeout_seconds):
                code = await self._run(call, secrets, output)
                result = BindingResult.COMPLETED if code == 0 else BindingResult.FAILED
        except NanocloudError as exc:
            result = BindingResult.FAILED
            output += str(exc).encode()
        return BindingOutcome(
            result=result,
            exit_code=code,
            output=mask(_whole(output, secrets), [a.value for a in call.arguments if a.secret]),
            started_at=started,
            finished_at=self.clock(),
        )

    def envelope(self, spec: ExecSpec) -> ExecSpec:
        """A process of somebody else's in the envelope of a binding command."""
        return attrs.evolve(
            spec,
            environment=ENVIRONMENT,
            working_directory="/",
            user=f"{self.config.uid}:{self.config.gid}",
            capabilities=frozenset(),
        )

    async def _run(self, call: BindingCall, secrets: tuple[bytes, ...], output: bytearray) -> int:
        words, descriptor = [f"{FOLDER}/{call.command}"], _FIRST_SECRET_DESCRIPTOR
        for argument in call.arguments:
            if argument.secret:
                words.append(f"/dev/fd/{descriptor}")
                descriptor += 1
            else:
                words.append(argument.value)
        spec = self.envelope(ExecSpec(argv=tuple(words), secrets=secrets))
        async with call.runtime.exec(call.container, spec) as session:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, session.stdout, output)
                if session.stderr is not None:
                    nursery.start_soon(_collect, session.stderr, output)
            return await session.wait()


async def _collect(stream: trio.abc.ReceiveStream, output: bytearray) -> None:
    """Keep the first megabyte and read on: a full pipe would stop the command."""
    async for piece in stream:
        output += piece[: max(0, OUTPUT_LIMIT_BYTES - len(output))]


def _whole(output: bytearray, secrets: tuple[bytes, ...]) -> str:
    """Text of the output; where it was clipped, without the end, which may be the beginning of a secret."""
    if len(output) >= OUTPUT_LIMIT_BYTES:
        del output[OUTPUT_LIMIT_BYTES - max(map(len, secrets), default=0) :]
    return output.decode(errors="replace")


def mask(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets; the longest first, for one may hold another."""
    for secret in sorted({secret.strip() for secret in secrets} - {""}, key=len, reverse=True):
        text = text.replace(secret, "********")
    return text
