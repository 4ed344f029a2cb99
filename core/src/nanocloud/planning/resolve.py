"""Resolution: given options, an image's contract and the selected services become decided values.

Order: given options; what the profile keeps; defaults of choices; imports from selected services; then defaults and
macros for what is still missing, each once everything it requires or is made from is known; last a check that every
required value holds. Rules that the order alone does not say:

- A value in the profile is not decided again. A default is, when a value it was made from has changed.
- Given values are never expanded; what replaces ``$option`` in a default is not looked at again.
- A value that contains a secret is secret; so is one whose name the label declares secret, whoever gives it.
- An optional setting whose requirement does not hold falls away. One that is not optional is an error.
- All bad options are reported in one InvalidError, by ``spec.options.<name>``; no message holds a secret. What is
  missing only because of one of them is not reported besides.

Pure but for ``expand``, and deterministic: options are visited in the label's order.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nanocloud.errors import FieldError, InvalidError, UnavailableError
from nanocloud.planning.contract import REFERENCE, Default, ImageContract, Option, Requirement, Setting
from nanocloud.planning.exports import HOST
from nanocloud.planning.profile import (
    CHOICE_DEFAULT,
    DEFAULT,
    GIVEN,
    IMPORT,
    MACRO,
    PROFILE,
    Profile,
    ResolvedOption,
)
from nanocloud.planning.reserved import Reserved, check_value, reserved
from nanocloud.planning.resolution import Expand, Resolution, ResolveRequest
from nanocloud.planning.substitution import substitute
from nanocloud.providers.macro import MacroContext

if TYPE_CHECKING:
    from nanocloud.planning.workload import Target

MAX_TOTAL_LENGTH = 1024 * 1024
"""Of all names and values: they become one pod, one Secret and one profile, and the kernel bounds an environment."""

_LONGEST_MESSAGE = 500
_REQUIRED, _UNSUPPORTED, _FORBIDDEN = "FieldValueRequired", "FieldValueNotSupported", "FieldValueForbidden"


def select_services(
    contract: ImageContract, given: Mapping[str, str], previous: Profile | None = None
) -> dict[str, str]:
    """Which service each option selects: what has to be installed, or known, before ``resolve``.

    Raises:
        InvalidError: a given option that is unknown or holds a value outside its choices.
    """
    state = _State(ResolveRequest(namespace="", bundle="", contract=contract, given=given, previous=previous))
    state.take_given()
    state.choose()
    state.raise_problems()
    return state.services


async def resolve(request: ResolveRequest, *, expand: Expand) -> Resolution:
    """Decide every option of the bundle.

    Raises:
        InvalidError: lists every bad option with what is allowed.
        UnavailableError: a selected service is not among ``request.targets`` although a value of it is needed.
    """
    state = _State(request)
    state.take_given()
    state.choose()
    state.raise_problems()
    state.check_services()
    await state.decide(expand)
    state.check_requirements()
    state.check_imports()
    state.check_size()
    state.raise_problems()
    return Resolution(options=dict(sorted(state.values.items())), services=state.services)


class _State:
    """One resolution under way. A name is decided when it is in ``values`` or in ``absent``."""

    def __init__(self, request: ResolveRequest) -> None:
        self.request = request
        self.contract = request.contract
        self.kept: Mapping[str, ResolvedOption] = request.previous.options if request.previous else {}
        self.values: dict[str, ResolvedOption] = {}
        self.absent: set[str] = set()
        self.services: dict[str, str] = {}
        self.problems: list[FieldError] = []
        self.refused: set[str] = set()
        """Options with a problem, and those that lack a value only because of one; the first is told alone."""

    # What people and profiles say

    def take_given(self) -> None:
        for name in sorted(self.request.given):
            value = self.request.given[name]
            if name not in self.contract.options and name not in self.contract.imports:
                self._problem(name, _unknown(name, self.contract), _UNSUPPORTED)
                continue
            option = self.contract.options.get(name)
            if option and option.choices and option.optional and value == "":
                self.absent.add(name)
            elif option and option.choices and value not in option.choices:
                self._refuse(name, f"{self._shown(name, value)} is not a choice; {_choices(option)}", _UNSUPPORTED)
            else:
                self._put(name, value, GIVEN)

    def choose(self) -> None:
        """Settle the options that have choices; only they can select services."""
        for name, option in self.contract.options.items():
            if not option.choices or name in self.absent:
                continue
            if name not in self.values:
                self._choose(name, option)
            if (chosen := self.values.get(name)) and option.choices[chosen.value].selects_service:
                self.services[name] = chosen.value

    def _choose(self, name: str, option: Option) -> None:
        kept = self.kept.get(name)
        if kept and not kept.source.startswith(IMPORT):
            if kept.value in option.choices:
                self._keep(name)
            else:
                shown = self._shown(name, kept.value)
                self._problem(
                    name, f"is {shown} in the profile and no longer a choice; {_choices(option)}", _UNSUPPORTED
                )
        elif option.optional:
            self.absent.add(name)
        else:
            self._put(name, next(iter(option.choices)), CHOICE_DEFAULT)

    def check_services(self) -> None:
        for name, bundle in self.services.items():
            target = self.request.targets.get(bundle)
            if bundle == self.request.bundle:
                self._problem(name, f"{bundle} cannot select itself")
            elif target and target.namespace != self.request.namespace:
                why = f"{bundle} is in namespace {target.namespace}"
                self._problem(name, f"{why}; a service can be selected only in {self.request.namespace}", _FORBIDDEN)
        self.raise_problems()

    # Imports, defaults and macros

    async def decide(self, expand: Expand) -> None:
        pending = [name for name in self.contract.options if not self._decided(name)]
        while pending:
            waiting = [
                name
                for name in pending
                if not self._decided(name) and not await self._try(self.contract.options[name], expand)
            ]
            if len(waiting) == len(pending) and not self._settle_one(waiting):
                self._report_cycle(waiting)
                return
            pending = waiting

    async def _try(self, option: Option, expand: Expand) -> bool:
        """Decide a free option; False while something it depends on is not decided."""
        name, setting = option.name, option.free
        assert setting is not None  # options with choices were settled before
        if self._import(name):
            return True
        for requirement in setting.requires:
            if not self._ready(requirement.option):
                return False
            if not self._holds(requirement):
                self._fall_away(setting, requirement)
                return True
        references = setting.default.references if setting.default else frozenset()
        if self._given_before(name):
            self._keep(name)
            return True
        if not all(self._ready(reference) for reference in sorted(references)):
            return False
        if (kept := self.kept.get(name)) and self._still_good(kept, references):
            self._keep(name)
        elif setting.default:
            await self._apply_default(name, setting.default, expand)
        else:
            self._miss(option)
        return True

    def _settle_one(self, waiting: list[str]) -> bool:
        """A value given earlier breaks a cycle, as it did then; whether its requirements hold is checked at the end."""
        name = next((name for name in waiting if self._given_before(name)), None)
        if name is not None:
            self._keep(name)
        return name is not None

    def _given_before(self, name: str) -> bool:
        return name in self.kept and self.kept[name].source in (GIVEN, PROFILE)

    def _keep(self, name: str) -> None:
        kept, setting = self.kept[name], self.contract.options[name].free
        made_of_secrets = not self._given_before(name) and self._made_of_secrets(setting.default if setting else None)
        source = PROFILE if kept.source == GIVEN else kept.source
        self._put(name, kept.value, source, secret=kept.secret or made_of_secrets)

    def _decided(self, name: str) -> bool:
        return name in self.values or name in self.absent

    def _ready(self, name: str) -> bool:
        """Whether it is known if the option has a value; imports it when it comes from a service alone."""
        if not self._decided(name) and name not in self.contract.options:
            self._import(name)
            if not self._decided(name):
                self.absent.add(name)
        return self._decided(name)

    def _import(self, name: str) -> bool:
        """Take the value from the selected service's profile; False when it offers none and the label has its own."""
        source = self.contract.imports.get(name)
        bundle = self.services.get(source.option) if source else None
        if source is None or bundle is None:
            return False
        declared = name in self.contract.options
        found = self._exported(bundle, source.key)
        if isinstance(found, ResolvedOption):
            self._put(name, found.value, f"{IMPORT}{bundle}", secret=found.secret)
            return True
        if not declared:
            self._refuse(name, f"{bundle}, selected by {source.option}, {found}", _FORBIDDEN)
        return not declared

    def _exported(self, bundle: str, key: str) -> ResolvedOption | str:
        """The target's value for ``key``, or why there is none."""
        target = self._target(bundle)
        if key not in target.exports.options:
            allowed = ", ".join(sorted(target.exports.options)) or "nothing"
            return f"does not export {key}; it exports {allowed}"
        if key == HOST:
            return ResolvedOption(value=target.host, source="")
        return target.options.get(key) or f"has no value for {key}"

    def _target(self, bundle: str) -> Target:
        try:
            return self.request.targets[bundle]
        except KeyError:
            raise UnavailableError(f"service {bundle} is not installed in {self.request.namespace} yet") from None

    def _still_good(self, kept: ResolvedOption, references: frozenset[str]) -> bool:
        if kept.source != DEFAULT and not kept.source.startswith(MACRO):
            return False
        return all(self._value(name) == _value(self.kept.get(name)) for name in references)

    async def _apply_default(self, name: str, default: Default, expand: Expand) -> None:
        secret = self._made_of_secrets(default)
        known = {reference: value.value for reference in default.references if (value := self.values.get(reference))}
        try:
            if default.macro is None:
                self._put(name, substitute(default.text, known), DEFAULT, secret=secret)
                return
            arguments = tuple(substitute(word, known) for word in default.words)
            made = await expand(default.macro, arguments, self._context(name))
        except (InvalidError, ValueError) as exc:
            # A macro quotes its arguments, and those may hold a secret.
            self._refuse(name, f"{default.text[:80]!r} cannot be expanded" if secret else _shown(str(exc)))
            return
        if made.value == "" and self._may_be_absent(name):
            self.absent.add(name)
        else:
            self._put(name, made.value, f"{MACRO}{default.macro}", secret=secret or made.secret)

    def _may_be_absent(self, name: str) -> bool:
        """``!if`` may give nothing: no port, no volume. Only in the environment is empty a value too."""
        found = reserved(name)
        return self.contract.options[name].optional and found is not None and found[0] is not Reserved.ENV

    def _context(self, name: str) -> MacroContext:
        return MacroContext(
            namespace=self.request.namespace,
            bundle=self.request.bundle,
            option=name,
            options={key: self.values[key].value for key in sorted(self.values)},
        )

    def _made_of_secrets(self, default: Default | None) -> bool:
        if default is None:
            return False
        texts = default.words if default.macro else (default.text,)
        named = {name for text in texts for name in REFERENCE.findall(text)} & default.references
        return any((value := self.values.get(name)) and value.secret for name in named)

    def _miss(self, option: Option) -> None:
        if option.optional:
            self.absent.add(option.name)
        else:
            self._refuse(option.name, "is required and has no default", _REQUIRED)

    def _fall_away(self, setting: Setting, requirement: Requirement) -> None:
        if setting.optional:
            self.absent.add(setting.option)
        elif requirement.option in self.refused:
            self.absent.add(setting.option)
            self.refused.add(setting.option)
        else:
            self._refuse(setting.option, self._unmet(requirement))

    # Checks

    def check_requirements(self) -> None:
        """Of the values that were not made under a requirement: given ones and choices."""
        for name in list(self.values):
            option = self.contract.options.get(name)
            setting = option.setting(self.values[name].value) if option else None
            for requirement in setting.requires if setting else ():
                if requirement.option in self.refused:
                    continue
                if self._ready(requirement.option) and not self._holds(requirement):
                    self._problem(name, self._unmet(requirement))

    def check_imports(self) -> None:
        """A value of our own where the selected service has one too: they must agree."""
        for name, source in self.contract.imports.items():
            value, bundle = self.values.get(name), self.services.get(source.option)
            if value is None or value.source.startswith(IMPORT):
                continue
            if bundle is None:
                if name not in self.contract.options:
                    why = f"comes from the service that {source.option} selects, and it selects none"
                    self._problem(name, f"{why}; leave {name} out", _FORBIDDEN)
                continue
            found = self._exported(bundle, source.key)
            if isinstance(found, ResolvedOption) and found.value != value.value:
                secret = found.secret or value.secret
                ours, theirs = ("the value", "another") if secret else (repr(value.value), repr(found.value))
                self._problem(name, f"{ours} conflicts with the profile of {bundle}, which has {theirs}")
            elif isinstance(found, str) and name not in self.contract.options:
                self._problem(name, f"{bundle}, selected by {source.option}, {found}", _FORBIDDEN)

    def check_size(self) -> None:
        total = sum(len(name) + len(option.value) for name, option in self.values.items())
        if total > MAX_TOTAL_LENGTH:
            largest = max(self.values, key=lambda name: len(self.values[name].value))
            why = f"all options together have {total} characters; the limit is {MAX_TOTAL_LENGTH}"
            self._problem(largest, f"{why}, and this is the largest", "FieldValueTooLong")

    def raise_problems(self) -> None:
        if self.problems:
            shown = "; ".join(f"{p.field.removeprefix('spec.options.')}: {p.message}" for p in self.problems)
            raise InvalidError(f"options are invalid: {shown}", self.problems)

    def _holds(self, requirement: Requirement) -> bool:
        value = self._value(requirement.option)
        return value is not None and requirement.value in (None, value)

    def _unmet(self, requirement: Requirement) -> str:
        value = self.values.get(requirement.option)
        if value is None:
            return f"requires {requirement.option}, which has no value"
        state = "has another value" if value.secret else f"is {value.value!r}"
        return f"requires {requirement}; {requirement.option} {state}"

    def _report_cycle(self, waiting: list[str]) -> None:
        name = waiting[0]
        seen: list[str] = []
        while name not in seen:
            seen.append(name)
            setting = self.contract.options[name].free
            assert setting is not None
            named = [r.option for r in setting.requires] + sorted(setting.default.references if setting.default else ())
            name = next(other for other in named if other in waiting)
        cycle = seen[seen.index(name) :]
        self._problem(cycle[0], f"depends on itself: {' -> '.join([*cycle, name])}; give one of them a value")

    # Small things

    def _value(self, name: str) -> str | None:
        return _value(self.values.get(name))

    def _put(self, name: str, value: str, source: str, *, secret: bool = False) -> None:
        """Decide a value; the only way into ``values``, so that every value was checked."""
        secret = secret or name in self.contract.secrets
        try:
            check_value(name, value)
        except ValueError as exc:
            self._refuse(name, "has not the form that its name asks for" if secret else str(exc))
            return
        if secret and (found := reserved(name)) and found[0] is not Reserved.ENV:
            self._refuse(name, "holds a secret, which would be seen in the pod; a secret can go into env_<VAR>")
            return
        self.values[name] = ResolvedOption(value=value, source=source, secret=secret)

    def _refuse(self, name: str, message: str, reason: str = "FieldValueInvalid") -> None:
        self.absent.add(name)
        self._problem(name, message, reason)

    def _shown(self, name: str, value: str) -> str:
        return "the value" if name in self.contract.secrets else repr(value[:80])

    def _problem(self, name: str, message: str, reason: str = "FieldValueInvalid") -> None:
        self.refused.add(name)
        self.problems.append(FieldError(_field(name), message, reason))


def _shown(text: str) -> str:
    """What somebody else says of a label or a value: on one line that can be shown."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_LONGEST_MESSAGE])
    return plain if len(text) <= _LONGEST_MESSAGE else f"{plain}..."


def _value(option: ResolvedOption | None) -> str | None:
    return option.value if option else None


def _field(name: str) -> str:
    return f"spec.options.{name}"


def _choices(option: Option) -> str:
    return f"choices: {', '.join(option.choices)}"


def _unknown(name: str, contract: ImageContract) -> str:
    known = sorted(contract.options)
    near = difflib.get_close_matches(name, known, n=3)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"is not an option of this service{meant}; options: {', '.join(known) or 'none'}"
