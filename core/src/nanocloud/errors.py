"""Every error that crosses a module boundary. Callers branch on class and fields, never on text.

``reason`` is the Kubernetes ``Status.reason``; only ``apiserver/status.py`` maps it to an HTTP code. A message is one
line that names the object and what was expected; ``hint`` is the second line: what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class NanocloudError(Exception):
    """Something a user or a caller can act on. The text never holds a secret."""

    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class FieldError(NamedTuple):
    """One bad field: ``field`` is its path (``spec.options.database``), ``message`` says what is allowed.

    No attrs class: every command imports this module, and attrs would be an eighth of the time of a short one.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"  # Kubernetes cause type: FieldValueRequired, FieldValueNotSupported, ...


class InvalidError(NanocloudError):
    """Input that was understood and refused; lists every bad field."""

    reason = "Invalid"

    def __init__(self, message: str, causes: Sequence[FieldError] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.causes = tuple(causes)


class UsageError(InvalidError):
    """Words of a command that cannot be read; nothing was asked of the server."""


class BadRequestError(NanocloudError):
    """Input that could not be understood (broken JSON, unknown selector syntax, ...)."""

    reason = "BadRequest"


class NotFoundError(NanocloudError):
    """The named thing does not exist."""

    reason = "NotFound"


class AlreadyExistsError(NanocloudError):
    """A thing of that name exists already."""

    reason = "AlreadyExists"


class ConflictError(NanocloudError):
    """The object changed after the caller read it: read it again, then retry the write."""

    reason = "Conflict"

    def __init__(self, key: str, *, expected: int, actual: int) -> None:
        super().__init__(f"{key} is at revision {actual}; the write expected revision {expected}")
        self.key, self.expected, self.actual = key, expected, actual


class CompactedError(NanocloudError):
    """History up to ``compacted`` is forgotten: list again and watch from there."""

    reason = "Expired"

    def __init__(self, *, requested: int, compacted: int) -> None:
        super().__init__(f"too old resource version: {requested} ({compacted})")
        self.requested, self.compacted = requested, compacted


class FutureRevisionError(NanocloudError):
    """A revision that the keyspace has not reached yet."""

    reason = "Timeout"

    def __init__(self, *, requested: int, current: int) -> None:
        super().__init__(f"Too large resource version: {requested}, current: {current}")
        self.requested, self.current = requested, current


class UnauthorizedError(NanocloudError):
    """No credentials, or credentials that are not known."""

    reason = "Unauthorized"


class ForbiddenError(NanocloudError):
    """Known credentials that do not permit the request."""

    reason = "Forbidden"


class UnavailableError(NanocloudError):
    """Cannot be served now; the same request may succeed later."""

    reason = "ServiceUnavailable"


class LockedError(NanocloudError):
    """Another process holds the state folder."""

    reason = "ServiceUnavailable"


class CorruptError(NanocloudError):
    """Stored data that does not read back as it was written."""


class LimitExceededError(NanocloudError):
    """More bytes, entries or depth than allowed; the message names the limit."""

    reason = "RequestEntityTooLarge"


class ConfigError(NanocloudError):
    """A configuration value that cannot be used; names the file or variable, the field and what is allowed."""

    reason = "Invalid"


class PluginError(NanocloudError):
    """A plugin is missing, broken, duplicate, ambiguous or incompatible; names its distribution."""


class ProviderError(NanocloudError):
    """A provider could not do what was asked; names the object and the step that failed."""


class CommandError(ProviderError):
    """A program that a provider ran failed; keeps its argv, exit code and the last lines of stderr."""

    def __init__(self, argv: Sequence[str], exit_code: int, stderr: str = "") -> None:
        tail = " | ".join(stderr.strip().splitlines()[-3:])
        super().__init__(f"{argv[0]} exited with {exit_code}" + (f": {tail}" if tail else ""))
        self.argv, self.exit_code, self.stderr = tuple(argv), exit_code, stderr


class PortInUseError(ProviderError):
    """A host port that something else holds."""

    reason = "Conflict"


class VolumeFullError(ProviderError):
    """No room for the volume that was asked for."""


class ImageError(ProviderError):
    """An image that cannot be used: missing, wrong digest, or broken; names the reference."""


class LabelError(NanocloudError):
    """A label that does not parse; says where and why."""

    reason = "Invalid"
