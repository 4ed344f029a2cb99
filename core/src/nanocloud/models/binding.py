"""Binding: one command that a bundle has run in a selected service. Kind ``nanocloud.io/v1 Binding``.

A binding has a life: what ``create_<thing>`` made can be verified, rotated and revoked by its companions
``verify_<thing>``, ``rotate_<thing>`` and ``revoke_<thing>``, where the image of the selected service exports them.
Controllers make bindings; users read them.
"""

from __future__ import annotations

import enum

import attrs

from nanocloud.models import schema as schemas
from nanocloud.models.bundle import GROUP
from nanocloud.models.converter import structure
from nanocloud.models.kinds import READ_VERBS, Column, ResourceKind, value_at
from nanocloud.models.meta import Object, name_of
from nanocloud.models.schema import described

CREATE, VERIFY, ROTATE, REVOKE = "create", "verify", "rotate", "revoke"


def companion(command: str, verb: str) -> str | None:
    """The command of the same thing with another verb: ``create_user`` and ``revoke`` give ``revoke_user``.

    None for a command that is not named ``create_<thing>``: it has no companions.
    """
    first, _, thing = command.partition("_")
    return f"{verb}_{thing}" if first == CREATE and thing else None


class BindingAction(enum.Enum):
    """What a Binding does with the thing that its command is named after."""

    CREATE = "Create"
    ROTATE = "Rotate"
    REVOKE = "Revoke"


class BindingPhase(enum.Enum):
    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TIMEOUT = "Timeout"


@attrs.frozen(kw_only=True)
class SecretKeyRef:
    """One value of a Secret in the same namespace."""

    name: str = described("The Secret.")
    key: str = described("The entry of its data.")


@attrs.frozen(kw_only=True)
class BindingValue:
    """One argument: a value in the open, or a reference to a secret one."""

    value: str | None = described("The argument itself.", default=None)
    secret_key_ref: SecretKeyRef | None = described("Where the argument is kept.", default=None)


@attrs.frozen(kw_only=True)
class BindingSpec:
    """What to run where. Written by the bundle's controller."""

    bundle: str = described("The bundle that asks.")
    target: str = described("The bundle of the selected service.")
    target_uid: str = described("Of that bundle: one that was installed anew has other data.", default="")
    binding_id: str = described("Idempotency key within the bundle.")
    provider: str = described("The binding provider.")
    command: str = described("The command as the label names it: an export of the target's image.", maxLength=64)
    action: str = described(
        "Create runs the command itself; Rotate and Revoke run its companions of that verb.",
        default=BindingAction.CREATE.value,
        enum=[action.value for action in BindingAction],
    )
    verify: bool = described("Whether the companion verify_<thing> has to agree before it counts.", default=False)
    revocable: bool = described("Whether the target's image has a companion revoke_<thing>.", default=False)
    arguments: tuple[BindingValue, ...] = described("In order.", factory=tuple, maxItems=64)
    owned: dict[str, str] = described(
        "Position of an argument, from 1, to its value: a name that belongs to this bundle alone.", factory=dict
    )
    run: str = described(
        "Another value asks for another run: a digest of the arguments and the forced run. Empty while what it has "
        "begun is being taken back, and of a revocation.",
        default="",
    )

    @property
    def executable(self) -> str:
        """The command that runs."""
        if self.action == BindingAction.CREATE.value:
            return self.command
        return companion(self.command, self.action.lower()) or self.command

    def shares_names_with(self, other: BindingSpec) -> bool:
        """Whether both would own the same thing of the same target."""
        mine, theirs = set(self.owned.items()), set(other.owned.items())
        return (self.target, self.command) == (other.target, other.command) and bool(mine & theirs)


_STATUS = schemas.fields(
    {
        "phase": schemas.string("Where it stands.", enum=[phase.value for phase in BindingPhase]),
        "attempts": schemas.integer("Runs so far."),
        "exitCode": schemas.integer("Of the last run.", nullable=True),
        "startedAt": schemas.time("When the last run began.") | {"nullable": True},
        "finishedAt": schemas.time("When the last run ended.") | {"nullable": True},
        "output": schemas.string("The end of what the last run printed; secrets are masked."),
        "message": schemas.string("Why it failed."),
        "nextAttemptAt": schemas.time("When it runs again after a failure.") | {"nullable": True},
        "observedGeneration": schemas.integer("The generation that this status answers.", format="int64"),
    },
    "What controllers observed.",
)


def spec_of(binding: Object) -> BindingSpec:
    """The typed spec of a stored Binding."""
    return structure(binding.get("spec", {}), BindingSpec, path="spec", what=f'Binding "{name_of(binding)}"')


def status_of(binding: Object) -> Object:
    """What is known of the run that the spec asks for; empty where the status is of one before."""
    status: Object = binding.get("status") or {}
    generation = binding["metadata"].get("generation")
    return status if status.get("observedGeneration", generation) == generation else {}


BINDING = ResourceKind(
    group=GROUP,
    plural="bindings",
    singular="binding",
    kind="Binding",
    categories=("nanocloud",),
    verbs=READ_VERBS,
    custom=True,
    schema=schemas.fields(
        {"spec": schemas.of_class(BindingSpec), "status": _STATUS},
        "A Binding is one command that a bundle has run in the container of a service it selected.",
        required=("spec",),
    ),
    columns=(
        Column("Bundle", lambda o: value_at(o, "spec.bundle")),
        Column("Target", lambda o: value_at(o, "spec.target")),
        Column("Command", lambda o: value_at(o, "spec.command")),
        Column("Action", lambda o: value_at(o, "spec.action") or BindingAction.CREATE.value),
        Column("Status", lambda o: status_of(o).get("phase") or BindingPhase.PENDING.value),
        Column("Attempts", lambda o: status_of(o).get("attempts") or 0, type="integer"),
        Column("Message", lambda o: status_of(o).get("message"), priority=1),
    ),
    selectable=("spec.bundle", "spec.target", "status.phase"),
)
