"""Binding steps: the commands of a bundle's active settings, with their arguments, checked against what targets export.

A step's id is made from what the label says, so a recorded success is found again after restarts and reinstalls; its
fingerprint is made from the values and the target, so changed credentials, and a target that was installed again, are
bound again.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import FieldError
from nanocloud.models.binding import REVOKE, ROTATE, VERIFY, BindingAction, companion
from nanocloud.planning.contract import REFERENCE, BindingTemplate, ImageContract, Setting
from nanocloud.planning.substitution import substitute
from nanocloud.planning.workload import BindingStep, Target
from nanocloud.providers.binding import BindingArgument, BindingResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.planning.profile import Profile, ResolvedOption


def binding_steps(
    contract: ImageContract,
    profile: Profile,
    targets: Mapping[str, Target],
    *,
    force: bool,
    problems: list[FieldError],
) -> tuple[BindingStep, ...]:
    """The steps in the label's order; what cannot be bound is added to ``problems``."""
    found = []
    for setting in active_settings(contract, profile.options):
        for template in setting.bindings:
            step = _step(setting, template, profile, targets, force)
            if isinstance(step, str):
                problems.append(FieldError(f"spec.options.{setting.option}", f"&{template.command}: {step}"))
            else:
                found.append(step)
    return tuple(found)


def active_settings(contract: ImageContract, options: Mapping[str, ResolvedOption]) -> list[Setting]:
    """The settings that hold with these values, in the label's order."""
    return [s for s in contract.settings if (o := options.get(s.option)) and s.choice in (None, o.value)]


def _step(
    setting: Setting, template: BindingTemplate, profile: Profile, targets: Mapping[str, Target], force: bool
) -> BindingStep | str:
    target = profile.services.get(template.runs_in)
    if target is None:
        return f"runs in the service that {template.runs_in} selects, and it selects none"
    if target not in targets:
        return f"service {target} is not installed"
    exports = targets[target].exports.bindings
    if template.command not in exports:
        return f"{target} does not export this binding; it exports {', '.join(sorted(exports)) or 'none'}"
    missing = sorted(template.references - profile.options.keys())
    if missing:
        return f"${missing[0]} has no value"
    step = _id(setting, template, target)
    try:
        arguments = tuple(_argument(word, profile.options) for word in template.words)
    except ValueError as exc:
        return str(exc)
    uid = targets[target].uid
    fingerprint = _digest([uid, *(argument.value for argument in arguments)])
    record = profile.bindings.get(step)
    if record is not None and record.result is not BindingResult.COMPLETED:
        record = None
    made = BindingStep(
        id=step,
        option=setting.option,
        target=target,
        command=template.command,
        words=template.words,
        arguments=arguments,
        secret_keys=tuple(
            _secret_key(step, index, word) if argument.secret else None
            for index, (word, argument) in enumerate(zip(template.words, arguments, strict=True))
        ),
        fingerprint=fingerprint,
        pending=force or record is None or record.fingerprint != fingerprint,
        target_uid=uid,
        verify=companion(template.command, VERIFY) in exports,
        revocable=companion(template.command, REVOKE) in exports,
        owned=_owned(targets[target].exports.owned.get(template.command, ()), arguments),
    )
    only_secrets_differ = record is not None and (record.target_uid, record.arguments) == (uid, made.shown_arguments)
    if only_secrets_differ and not force and companion(template.command, ROTATE) in exports:
        return attrs.evolve(made, action=BindingAction.ROTATE)
    return made


def _owned(positions: tuple[int, ...], arguments: tuple[BindingArgument, ...]) -> dict[str, str]:
    """A name that is secret cannot be compared, and so not be owned."""
    found = {position: arguments[position - 1] for position in positions if position <= len(arguments)}
    return {str(position): argument.value for position, argument in found.items() if not argument.secret}


def _argument(word: str, options: Mapping[str, ResolvedOption]) -> BindingArgument:
    names = REFERENCE.findall(word)
    value = substitute(word, {name: options[name].value for name in names})
    return BindingArgument(value=value, secret=any(options[name].secret for name in names))


def _secret_key(step: str, index: int, word: str) -> str:
    match = REFERENCE.fullmatch(word)
    return match[1] if match else f"{step}.{index}"


def _id(setting: Setting, template: BindingTemplate, target: str) -> str:
    named = f"{setting.option[:20]}-{template.command[:24]}".lower().replace("_", "-")
    return f"{named}-{_digest([setting.option, target, template.command, *template.words])[:12]}"


def _digest(values: list[str]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
