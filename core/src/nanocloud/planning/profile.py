"""A bundle's profile: the options that were decided, the services they select, and which bindings have run.

The profile is what makes restart, update, snapshot and reinstall give the same configuration: a value in it is not
decided again. Its JSON form never holds a secret in plaintext: secret values pass through the caller's ``seal``.

Format (version 1)::

    {"version": 1, "service": "wordpress", "image": "sha256:...",
     "options": {"database": {"value": "mariadb", "source": "choice default"},
                 "database_password": {"sealed": "...", "source": "macro !rand"}},
     "services": {"database": "mariadb"},
     "bindings": {"database-create-user-3f0c...": {"command": "create_user", "target": "mariadb", "attempts": 1,
                  "exitCode": 0, "startedAt": "...Z", "finishedAt": "...Z", "result": "Completed", "sealed": "...",
                  "targetUid": "...", "arguments": ["wordpress", "wordpress", null], "revocable": true,
                  "owned": {"1": "wordpress", "2": "wordpress"}}}}
"""

from __future__ import annotations

import base64
import binascii
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
    """The last run of one binding step, and what it takes to undo it; times are RFC 3339 UTC."""

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
    target_uid: str = ""
    arguments: tuple[str | None, ...] = ()
    """What it ran with; None stands for a secret."""
    owned: Mapping[str, str] = attrs.field(factory=dict)
    """Position of an argument, from 1, to its value: names that belong to this bundle in the target."""
    revocable: bool = False
    """Whether the target's image can take it back."""


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

    def forget(self, *steps: str) -> Profile:
        """Without the records of these steps."""
        return attrs.evolve(self, bindings={k: v for k, v in self.bindings.items() if k not in steps})


class Seal(Protocol):
    def __call__(self, plaintext: bytes, context: str, /) -> bytes:
        """Encrypt; ``context`` names the value and must be the same for ``unseal``. ``Envelope.seal`` is one."""


class Unseal(Protocol):
    def __call__(self, sealed: bytes, context: str, /) -> bytes:
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
    target_uid: str = ""
    arguments: tuple[str | None, ...] = ()
    owned: dict[str, str] = attrs.field(factory=dict)
    revocable: bool = False


@attrs.frozen(kw_only=True)
class _ProfileJson:
    version: int
    service: str
    image: str
    options: dict[str, _OptionJson] = attrs.field(factory=dict)
    services: dict[str, str] = attrs.field(factory=dict)
    bindings: dict[str, _RecordJson] = attrs.field(factory=dict)


def profile_to_json(profile: Profile, seal: Seal, *, owner: str) -> dict[str, Any]:
    """The stored form; calls ``seal`` once for each secret value.

    Args:
        owner: ``<namespace>/<bundle>``; a sealed value moved to another bundle's profile does not open.
    """
    stored: dict[str, Any] = unstructure(
        _ProfileJson(
            version=profile.version,
            service=profile.service,
            image=profile.image,
            options={name: _seal_option(name, option, seal, owner) for name, option in profile.options.items()},
            services=dict(profile.services),
            bindings={step: _seal_record(step, record, seal, owner) for step, record in profile.bindings.items()},
        )
    )
    return stored


def profile_from_json(data: object, unseal: Unseal, *, owner: str) -> Profile:
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
        options={name: _unseal_option(name, option, unseal, owner) for name, option in stored.options.items()},
        services=stored.services,
        bindings={step: _unseal_record(step, record, unseal, owner) for step, record in stored.bindings.items()},
        version=stored.version,
    )


def _seal_option(name: str, option: ResolvedOption, seal: Seal, owner: str) -> _OptionJson:
    if not option.secret:
        return _OptionJson(source=option.source, value=option.value)
    return _OptionJson(source=option.source, sealed=_sealed(option.value, seal, _option_context(owner, name)))


def _unseal_option(name: str, stored: _OptionJson, unseal: Unseal, owner: str) -> ResolvedOption:
    if (stored.value is None) == (stored.sealed is None):
        raise InvalidError(f"profile is invalid: options.{name}: needs exactly one of value, sealed")
    if stored.sealed is None:
        assert stored.value is not None
        return ResolvedOption(value=stored.value, source=stored.source)
    value = _unsealed(stored.sealed, unseal, _option_context(owner, name), f"options.{name}")
    return ResolvedOption(value=value, source=stored.source, secret=True)


def _seal_record(step: str, record: BindingRecord, seal: Seal, owner: str) -> _RecordJson:
    return _RecordJson(
        command=record.command,
        target=record.target,
        attempts=record.attempts,
        result=record.result,
        exit_code=record.exit_code,
        started_at=record.started_at,
        finished_at=record.finished_at,
        sealed=_sealed(record.fingerprint, seal, _binding_context(owner, step)) if record.fingerprint else None,
        target_uid=record.target_uid,
        arguments=record.arguments,
        owned=dict(record.owned),
        revocable=record.revocable,
    )


def _unseal_record(step: str, stored: _RecordJson, unseal: Unseal, owner: str) -> BindingRecord:
    fingerprint = ""
    if stored.sealed is not None:
        fingerprint = _unsealed(stored.sealed, unseal, _binding_context(owner, step), f"bindings.{step}")
    return BindingRecord(
        command=stored.command,
        target=stored.target,
        attempts=stored.attempts,
        result=stored.result,
        exit_code=stored.exit_code,
        started_at=stored.started_at,
        finished_at=stored.finished_at,
        fingerprint=fingerprint,
        target_uid=stored.target_uid,
        arguments=stored.arguments,
        owned=stored.owned,
        revocable=stored.revocable,
    )


def _option_context(owner: str, name: str) -> str:
    return f"profile/{owner}/options/{name}"


def _binding_context(owner: str, step: str) -> str:
    return f"profile/{owner}/bindings/{step}"


def _sealed(value: str, seal: Seal, context: str) -> str:
    return base64.b64encode(seal(value.encode(), context)).decode()


def _unsealed(text: str, unseal: Unseal, context: str, field: str) -> str:
    try:
        sealed = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise InvalidError(f"profile is invalid: {field}.sealed: is not base64") from exc
    return unseal(sealed, context).decode()
