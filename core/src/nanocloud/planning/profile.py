"""A bundle's profile: the options that were decided, the services they select, and which bindings have run.

The profile is what makes restart, update, snapshot and reinstall give the same configuration: a value in it is not
decided again. Its JSON form never holds a secret in plaintext: secret values pass through the caller's ``seal``.

Format (version 1)::

    {"version": 1, "service": "wordpress", "image": "sha256:...",
     "options": {"database": {"value": "mariadb", "source": "choice default"},
                 "database_password": {"sealed": "...", "source": "macro !rand"}},
     "services": {"database": "mariadb"},
     "bindings": {"database.create_user.3f0c...": {"command": "create_user", "target": "mariadb", "attempts": 1,
                  "exitCode": 0, "startedAt": "...Z", "finishedAt": "...Z", "result": "Completed", "sealed": "..."}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from nanocloud.errors import InvalidError
from nanocloud.models.converter import structure, unstructure
from nanocloud.providers.binding import BindingResult
from nanocloud.providers.image import Digest

if TYPE_CHECKING:
    from nanocloud.planning.resolution import Resolution

VERSION = 1

GIVEN = "given"
CHOICE_DEFAULT = "choice default"
PROFILE = "profile"
DEFAULT = "default"
MACRO = "macro !"
IMPORT = "import of "


@attrs.frozen(kw_only=True)
class ResolvedOption:
    """A value that was decided, and by whom.

    ``source`` is ``given``, ``choice default``, ``profile`` (given earlier and not now), ``import of <bundle>``,
    ``default`` or ``macro !<name>``.
    """

    value: str = attrs.field(repr=False)
    source: str
    secret: bool = False

    @property
    def shown(self) -> str:
        """The value as people may see it."""
        return "********" if self.secret else self.value


@attrs.frozen(kw_only=True)
class BindingRecord:
    """The last run of one binding step; times are RFC 3339 UTC."""

    command: str
    target: str
    """The bundle whose container ran it."""
    attempts: int
    result: BindingResult
    exit_code: int | None = None
    started_at: str = ""
    finished_at: str = ""
    fingerprint: str = attrs.field(default="", repr=False)
    """``BindingStep.fingerprint`` of the arguments it ran with; sealed in JSON, for it is made from secrets."""


@attrs.frozen(kw_only=True)
class Profile:
    service: str
    image: Digest
    options: Mapping[str, ResolvedOption] = attrs.field(factory=dict)
    services: Mapping[str, str] = attrs.field(factory=dict)
    """Option that selects a service -> the selected bundle, in the same namespace."""
    bindings: Mapping[str, BindingRecord] = attrs.field(factory=dict)
    """Binding step id -> its last run."""
    version: int = VERSION

    @classmethod
    def of(cls, resolution: Resolution, *, service: str, image: Digest, previous: Profile | None = None) -> Profile:
        """The profile of a fresh resolution; binding records are taken over."""
        return cls(
            service=service,
            image=image,
            options=resolution.options,
            services=resolution.services,
            bindings=previous.bindings if previous else {},
        )

    def record(self, step: str, record: BindingRecord) -> Profile:
        return attrs.evolve(self, bindings={**self.bindings, step: record})


class Seal(Protocol):
    def __call__(self, plaintext: bytes, *, context: str) -> str:
        """Encrypt; ``context`` names the value in its profile and must be the same for ``unseal``."""


class Unseal(Protocol):
    def __call__(self, sealed: str, *, context: str) -> bytes:
        """Decrypt what ``seal`` returned for that context."""


@attrs.frozen(kw_only=True)
class _OptionJson:
    source: str
    value: str | None = None
    sealed: str | None = None


@attrs.frozen(kw_only=True)
class _RecordJson:
    command: str
    target: str
    attempts: int
    result: BindingResult
    exit_code: int | None = None
    started_at: str = ""
    finished_at: str = ""
    sealed: str | None = None


@attrs.frozen(kw_only=True)
class _ProfileJson:
    version: int
    service: str
    image: str
    options: dict[str, _OptionJson] = attrs.field(factory=dict)
    services: dict[str, str] = attrs.field(factory=dict)
    bindings: dict[str, _RecordJson] = attrs.field(factory=dict)


def profile_to_json(profile: Profile, seal: Seal) -> dict[str, Any]:
    """The stored form; calls ``seal`` once for each secret value."""
    stored: dict[str, Any] = unstructure(
        _ProfileJson(
            version=profile.version,
            service=profile.service,
            image=profile.image,
            options={name: _seal_option(name, option, seal) for name, option in profile.options.items()},
            services=dict(profile.services),
            bindings={step: _seal_record(step, record, seal) for step, record in profile.bindings.items()},
        )
    )
    return stored


def profile_from_json(data: object, unseal: Unseal) -> Profile:
    """Read the stored form.

    Raises:
        InvalidError: not the form above, or another version; names each bad field.
    """
    stored = structure(data, _ProfileJson, what="profile")
    if stored.version != VERSION:
        raise InvalidError(f"profile has version {stored.version}; this node reads version {VERSION}")
    return Profile(
        service=stored.service,
        image=Digest(stored.image),
        options={name: _unseal_option(name, option, unseal) for name, option in stored.options.items()},
        services=stored.services,
        bindings={step: _unseal_record(step, record, unseal) for step, record in stored.bindings.items()},
        version=stored.version,
    )


def _seal_option(name: str, option: ResolvedOption, seal: Seal) -> _OptionJson:
    if not option.secret:
        return _OptionJson(source=option.source, value=option.value)
    return _OptionJson(source=option.source, sealed=seal(option.value.encode(), context=f"options/{name}"))


def _unseal_option(name: str, stored: _OptionJson, unseal: Unseal) -> ResolvedOption:
    if (stored.value is None) == (stored.sealed is None):
        raise InvalidError(f"profile is invalid: options.{name}: needs exactly one of value, sealed")
    if stored.value is not None:
        return ResolvedOption(value=stored.value, source=stored.source)
    assert stored.sealed is not None
    value = unseal(stored.sealed, context=f"options/{name}").decode()
    return ResolvedOption(value=value, source=stored.source, secret=True)


def _seal_record(step: str, record: BindingRecord, seal: Seal) -> _RecordJson:
    sealed = seal(record.fingerprint.encode(), context=f"bindings/{step}") if record.fingerprint else None
    return _RecordJson(
        command=record.command,
        target=record.target,
        attempts=record.attempts,
        result=record.result,
        exit_code=record.exit_code,
        started_at=record.started_at,
        finished_at=record.finished_at,
        sealed=sealed,
    )


def _unseal_record(step: str, stored: _RecordJson, unseal: Unseal) -> BindingRecord:
    fingerprint = "" if stored.sealed is None else unseal(stored.sealed, context=f"bindings/{step}").decode()
    return BindingRecord(
        command=stored.command,
        target=stored.target,
        attempts=stored.attempts,
        result=stored.result,
        exit_code=stored.exit_code,
        started_at=stored.started_at,
        finished_at=stored.finished_at,
        fingerprint=fingerprint,
    )
