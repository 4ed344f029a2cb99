"""The binding contract: run one command of a selected service on behalf of a dependant, inside an envelope.

The envelope: the container's namespaces and seccomp filter, a user that is not root, no capabilities, no standard
input, an environment of the provider's own, and a time limit. Which command runs when, over the life of a binding, is
not the provider's business: see ``models/binding.py``.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from nanocloud.providers.runtime import ContainerId, RuntimeProvider


@attrs.frozen(kw_only=True)
class BindingArgument:
    """One argument. A secret one never appears in an argv: the command gets a path to read it from."""

    value: str = attrs.field(repr=False)
    secret: bool = False


@attrs.frozen(kw_only=True)
class BindingCall:
    """One run of a binding command."""

    id: str
    """Idempotency key: ``<namespace>/<bundle>/<binding id>``."""
    command: str
    """A name that the target's image exports, found in ``/usr/lib/nanocloud/bindings``."""
    arguments: tuple[BindingArgument, ...]
    container: ContainerId
    """The running container of the selected service."""
    runtime: RuntimeProvider
    attempt: int


class BindingResult(enum.Enum):
    COMPLETED = "Completed"
    """The command ended with 0."""
    FAILED = "Failed"
    """It ended with another code, or could not be run; then there is no code, and ``output`` says why."""
    TIMEOUT = "Timeout"
    """It was killed at the time limit; there is no code."""


@attrs.frozen(kw_only=True)
class BindingOutcome:
    result: BindingResult
    exit_code: int | None
    output: str
    """Standard output and error together, clipped to 1 MiB, with every secret argument masked."""
    started_at: float
    """Seconds since the epoch."""
    finished_at: float


class BindingProvider(Provider):
    """Runs binding commands. A failure of the command is an outcome, not an exception."""

    @abc.abstractmethod
    async def run(self, call: BindingCall) -> BindingOutcome:
        """Run the command once and report. Cancellation kills it.

        The program is ``/usr/lib/nanocloud/bindings/<command>`` in the container. It gets the arguments in their
        order, each as one word, whatever it holds; in place of a secret one it gets a path. No run outlasts the time
        limit, which is the provider's own, at most 900 seconds; a command that would is killed. A container that does
        not run is a failure of the command.

        Raises:
            InvalidError: the command is no name of ``a-z``, ``0-9``, ``-`` and ``_``; nothing ran.
        """
