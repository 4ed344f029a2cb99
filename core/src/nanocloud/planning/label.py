"""The label ``io.nanocloud.options``, from text to ImageContract.

Format: a JSON object; each member is one setting (``contract.md``, C)::

    key   = ["?"] name ["=" ["&"] value]
    value = array of tokens: "*option" | "*option=value" | "&command word ..."
            | the default: a literal or "!macro word ..."

The text comes from an image and is hostile until read. Whatever it holds, reading ends in a contract or in a
LabelError that says where: ``io.nanocloud.options["database=&mariadb"][1]: ...``.

Decisions where the grammar is silent: words of a binding or macro are split at whitespace before anything is replaced;
macros do not nest, so a macro's word that looks like one is refused;
a choice holds no default, for its value is its name; an option is either free or a set of choices; ``secret_<n>``
declares and is no option itself; ``volume_size_<n>`` is added to every ``volume_<n>`` that lacks it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

import attrs

from nanocloud.errors import LabelError
from nanocloud.planning.contract import (
    OPTIONS_LABEL,
    REFERENCE,
    BindingTemplate,
    Default,
    ImageContract,
    Import,
    Option,
    Requirement,
    Setting,
)
from nanocloud.planning.reserved import DEFAULT_VOLUME_SIZE, NAME, Reserved, check_value, reserved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_LABEL_BYTES = 64 * 1024
MAX_SETTINGS = 256
MAX_TOKENS = 64
MAX_TOKEN_LENGTH = 4096
MAX_WORDS = 64

COMMAND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
MACRO = re.compile(r"[a-z][a-z0-9_]{0,63}")
SERVICE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MACRO_WORD = re.compile(r"![a-z]")
_SECRET_MACROS = frozenset({"rand"})


def image_contract(labels: Mapping[str, str]) -> ImageContract:
    """The contract of an image; empty without the label. Raises LabelError."""
    text = labels.get(OPTIONS_LABEL)
    return ImageContract() if text is None else parse_options(text)


@lru_cache(maxsize=64)  # bundles are planned again and again, and their labels say the same each time
def parse_options(text: str) -> ImageContract:
    """Read the label's text.

    Raises:
        LabelError: where and why it cannot be used, and what is allowed there.
    """
    members = load_object(OPTIONS_LABEL, text)
    if len(members) > MAX_SETTINGS:
        _fail("", f"has {len(members)} settings; the limit is {MAX_SETTINGS}")
    drafts = [_setting(key, tokens) for key, tokens in members.items()]
    secrets = frozenset(_secret(draft) for draft in drafts if _kind(draft.option) is Reserved.SECRET)
    settings = _with_volume_sizes([draft for draft in drafts if _kind(draft.option) is not Reserved.SECRET])
    options = _options(settings)
    contract = ImageContract(settings=tuple(settings), options=options, imports=_imports(settings, options))
    _check_secrets(drafts, secrets, contract)
    bound = tuple(_bind(setting, contract) for setting in settings)
    _check_volumes(bound, options)
    return ImageContract(
        settings=bound, options=_options(bound), imports=contract.imports, secrets=secrets | _generated(bound)
    )


def load_object(label: str, text: str) -> dict[str, object]:
    """The label's JSON object, with every way in which a hostile text can fail turned into a LabelError."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise LabelError(f"{label}: the member {_shown(key)} stands twice")
            found[key] = value
        return found

    def refuse(constant: str) -> NoReturn:
        raise LabelError(f"{label}: {constant} is not JSON")

    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_LABEL_BYTES:
        raise LabelError(f"{label}: is {size} bytes long; the limit is {MAX_LABEL_BYTES}")
    try:
        data = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except json.JSONDecodeError as exc:
        raise LabelError(f"{label}: line {exc.lineno} column {exc.colno}: is not JSON: {exc.msg}") from exc
    except RecursionError as exc:
        raise LabelError(f"{label}: is nested too deeply") from exc
    except ValueError as exc:  # an integer of thousands of digits
        raise LabelError(f"{label}: is not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise LabelError(f"{label}: must be a JSON object")
    return data


def _setting(key: str, tokens: object) -> Setting:
    place = _place(key)
    _check_text(place, key)
    optional = key.startswith("?")
    name, equals, value = key.removeprefix("?").partition("=")
    if not NAME.fullmatch(name):
        _fail(place, f"{_shown(name)} is not an option name; use a-z, 0-9 and '_', at most 128 characters")
    for prefix in ("env_", "secret_env_"):
        if name.startswith(prefix) and not reserved(name):
            _fail(place, f"{prefix} needs the name of a variable: letters, digits and '_', not first a digit")
    selects = value.startswith("&")
    choice = value.removeprefix("&") if equals else None
    if selects and not SERVICE.fullmatch(choice or ""):
        _fail(place, f"{_shown(choice)} is not a service name; use a-z, 0-9 and '-', at most 63 characters")
    if choice == "":
        _fail(place, "a choice needs a value after '='")
    if choice is not None:
        _check_reserved(place, name, choice)
    draft = Setting(key=key, option=name, optional=optional, choice=choice, selects_service=selects)
    return _with_tokens(draft, tokens)


def _with_tokens(setting: Setting, tokens: object) -> Setting:
    place = _place(setting.key)
    if not isinstance(tokens, list):
        _fail(place, "must be an array of tokens")
    if len(tokens) > MAX_TOKENS:
        _fail(place, f"has {len(tokens)} tokens; the limit is {MAX_TOKENS}")
    requires: list[Requirement] = []
    bindings: list[BindingTemplate] = []
    default: Default | None = None
    for index, token in enumerate(tokens):
        here = _place(setting.key, index)
        if not isinstance(token, str):
            _fail(here, "a token must be a string")
        _check_text(here, token)
        if token.startswith("*"):
            requires.append(_requirement(here, token, requires))
        elif token.startswith("&"):
            bindings.append(_binding(here, token, bindings))
        elif default is not None:
            _fail(here, f"a second default; {_shown(default.text)} stands before it")
        elif setting.choice is not None:
            _fail(here, f"a default does not belong to a choice: the value is {_shown(setting.choice)}")
        else:
            default = _default(here, setting.option, token)
    return attrs.evolve(setting, requires=tuple(requires), bindings=tuple(bindings), default=default)


def _requirement(place: str, token: str, before: Sequence[Requirement]) -> Requirement:
    name, equals, value = token[1:].partition("=")
    if not NAME.fullmatch(name):
        _fail(place, f"{_shown(name)} is not an option name; use a-z, 0-9 and '_'")
    if any(requirement.option == name for requirement in before):
        _fail(place, f"{name} is required twice")
    return Requirement(option=name, value=value if equals else None)


def _binding(place: str, token: str, before: Sequence[BindingTemplate]) -> BindingTemplate:
    words = _words(place, token)
    if not words or not COMMAND.fullmatch(words[0]):
        _fail(place, f"{_shown(words[0] if words else '')} is not a binding command; use a-z, 0-9, '_' and '-'")
    binding = BindingTemplate(command=words[0], words=words[1:], runs_in="")
    if binding in before:
        _fail(place, "the same binding stands before it")
    return binding


def _default(place: str, option: str, token: str) -> Default:
    if not token.startswith("!"):
        return Default(text=token)
    if _kind(option) is Reserved.SECRET:
        _fail(place, "must name an option")
    words = _words(place, token)
    if not words or not MACRO.fullmatch(words[0]):
        _fail(place, f"{_shown(words[0] if words else '')} is not a macro name; use a-z, 0-9 and '_'")
    if nested := next((word for word in words[1:] if _MACRO_WORD.match(word)), None):
        _fail(place, f"{_shown(nested)} would stay text: macros do not nest; give it an option of its own")
    return Default(text=token, macro=words[0], words=words[1:])


def _words(place: str, token: str) -> tuple[str, ...]:
    """What follows the decoration, split at whitespace; empty when whitespace follows it directly."""
    words = token[1:].split()
    if len(words) > MAX_WORDS:
        _fail(place, f"has {len(words)} words; the limit is {MAX_WORDS}")
    return tuple(words) if words and token[1:].startswith(words[0]) else ()


def _secret(setting: Setting) -> str:
    """The option that a ``secret_<n>`` names."""
    place = _place(setting.key)
    named = setting.choice or (setting.default.text if setting.default else "")
    if setting.optional or setting.selects_service or setting.requires or setting.bindings or not named:
        _fail(place, 'only names an option that is secret: "secret_1=password": [] or "secret_1": ["password"]')
    return named


def _check_secrets(drafts: Sequence[Setting], secrets: frozenset[str], contract: ImageContract) -> None:
    seen: set[str] = set()
    for draft in drafts:
        if _kind(draft.option) is not Reserved.SECRET:
            continue
        if draft.option in seen:
            _fail(_place(draft.key), f"{draft.option} is declared twice")
        seen.add(draft.option)
        if (named := _secret(draft)) not in contract.options and named not in contract.imports:
            _fail(_place(draft.key), f"{_shown(named)} is not declared; {_declared(contract)}")


def _with_volume_sizes(settings: list[Setting]) -> list[Setting]:
    names = {setting.option for setting in settings}
    added = []
    for setting in settings:
        found = reserved(setting.option)
        if not found or found[0] is not Reserved.VOLUME or f"volume_size_{found[1]}" in names:
            continue
        name = f"volume_size_{found[1]}"
        names.add(name)
        added.append(
            Setting(
                key="",
                option=name,
                optional=True,
                requires=(Requirement(option=setting.option),),
                default=Default(text=DEFAULT_VOLUME_SIZE),
            )
        )
    return settings + added


def _generated(settings: Sequence[Setting]) -> frozenset[str]:
    return frozenset(s.option for s in settings if s.default and s.default.macro in _SECRET_MACROS)


def _options(settings: Sequence[Setting]) -> dict[str, Option]:
    grouped: dict[str, list[Setting]] = {}
    for setting in settings:
        grouped.setdefault(setting.option, []).append(setting)
    return {name: _option(name, group) for name, group in grouped.items()}


def _option(name: str, group: Sequence[Setting]) -> Option:
    first = group[0]
    choices: dict[str, Setting] = {}
    for setting in group:
        place = _place(setting.key)
        if setting.optional is not first.optional:
            _fail(place, f"{name} is optional in one setting and not in another; write '?' in all or none")
        if len(group) > 1 and (setting.choice is None or first.choice is None):
            _fail(place, f"{name} has a setting without '=value' beside another; it is either free or has choices")
        if setting.choice in choices:
            _fail(place, f"{name} has the choice {_shown(setting.choice)} twice")
        if setting.choice is not None:
            choices[setting.choice] = setting
    return Option(name=name, optional=first.optional, choices=choices, free=None if choices else first)


def _imports(settings: Sequence[Setting], options: Mapping[str, Option]) -> dict[str, Import]:
    """Required names of the form ``<option>_<key>``; of several options the longest name is meant."""
    selecting = sorted((name for name, option in options.items() if option.can_select), key=len, reverse=True)
    found: dict[str, Import] = {}
    for setting in settings:
        for requirement in setting.requires:
            name = requirement.option
            owner = next((o for o in selecting if name.startswith(f"{o}_") and len(name) > len(o) + 1), None)
            if owner is not None:
                found[name] = Import(option=owner, key=name[len(owner) + 1 :])
    return found


def _bind(setting: Setting, contract: ImageContract) -> Setting:
    """Tie the setting's tokens to the options they speak of, now that all are known."""
    for requirement in setting.requires:
        _check_requirement(setting, requirement, contract)
    bindings = tuple(
        attrs.evolve(binding, runs_in=_runs_in(setting, binding, contract)) for binding in setting.bindings
    )
    for binding in bindings:
        for name in sorted(binding.references):
            if name not in contract.options and not setting.requires_option(name):
                why = f"&{binding.command}: ${name} is not declared"
                _fail(_place(setting.key), f"{why}; {_declared(contract)}")
    default = _refer(setting, contract)
    if default and default.macro is None and not default.references:
        _check_reserved(_place(setting.key), setting.option, default.text)
    return attrs.evolve(setting, bindings=bindings, default=default)


def _check_requirement(setting: Setting, requirement: Requirement, contract: ImageContract) -> None:
    place, name = _place(setting.key), requirement.option
    option = contract.options.get(name)
    if option is None and name not in contract.imports:
        _fail(place, f"*{name}: {name} is not declared and no option selects a service for it; {_declared(contract)}")
    if name == setting.option:
        _fail(place, f"*{name}: an option cannot require itself")
    if option and option.choices and requirement.value is not None and requirement.value not in option.choices:
        allowed = ", ".join(option.choices)
        _fail(place, f"*{requirement}: {_shown(requirement.value)} is not a choice of {name}; choices: {allowed}")


def _runs_in(setting: Setting, binding: BindingTemplate, contract: ImageContract) -> str:
    if setting.selects_service:
        return setting.option
    direct = {r.option for r in setting.requires if r.option in contract.options}
    selecting = {name for name in direct if contract.options[name].can_select}
    if not selecting:
        selecting = {contract.imports[r.option].option for r in setting.requires if r.option in contract.imports}
    if len(selecting) != 1:
        found = ", ".join(sorted(selecting)) or "none"
        why = "must require exactly one option that selects a service, so that it is known where it runs"
        _fail(_place(setting.key), f"&{binding.command}: {why}; found: {found}")
    return selecting.pop()


def _refer(setting: Setting, contract: ImageContract) -> Default | None:
    """Note which options the default is made from: ``$name`` that the setting requires, ``name=value`` of a macro."""
    default = setting.default
    if default is None:
        return None
    texts = default.words if default.macro else (default.text,)
    found = {name for text in texts for name in REFERENCE.findall(text) if setting.requires_option(name)}
    if default.macro:
        compared = {word.partition("=")[0] for word in default.words if "=" in word}
        found |= {name for name in compared if name in contract.options or setting.requires_option(name)}
    return attrs.evolve(default, references=frozenset(found))


def _check_volumes(settings: Sequence[Setting], options: Mapping[str, Option]) -> None:
    for setting in settings:
        found = reserved(setting.option)
        if found and found[0] in (Reserved.VOLUME_SIZE, Reserved.VOLUME_ENCRYPTED):
            volume = f"volume_{found[1]}"
            if volume not in options:
                _fail(_place(setting.key), f"there is no {volume}")


def _check_reserved(place: str, name: str, value: str) -> None:
    try:
        check_value(name, value)
    except ValueError as exc:
        _fail(place, f"{name}: {exc}")


def _check_text(place: str, text: str) -> None:
    if len(text) > MAX_TOKEN_LENGTH:
        _fail(place, f"is {len(text)} characters long; the limit is {MAX_TOKEN_LENGTH}")
    for column, character in enumerate(text, 1):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            _fail(place, f"column {column}: the character U+{ord(character):04X} is not allowed")


def _kind(name: str) -> Reserved | None:
    found = reserved(name)
    return found[0] if found else None


def _declared(contract: ImageContract) -> str:
    names = [name for name, option in contract.options.items() if not option.free or option.free.key]
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"declared: {shown or 'nothing'}"


def _place(key: str, index: int | None = None) -> str:
    return f"[{_shown(key)}]" if index is None else f"[{_shown(key)}][{index}]"


def _shown(text: str | None) -> str:
    """Clipped and escaped: an error may end in a terminal or a log."""
    written = json.dumps(text)
    return written if len(written) <= 80 else f'{written[:76]}..."'


def _fail(place: str, why: str) -> NoReturn:
    raise LabelError(f"{OPTIONS_LABEL}{place}: {why}")
