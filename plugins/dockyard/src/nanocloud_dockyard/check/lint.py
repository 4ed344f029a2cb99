"""What an image's labels, configuration and files say, held against what the platform asks of a service.

Nothing of the image is run.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from nanocloud.errors import InvalidError, LabelError
from nanocloud.models.binding import CREATE, REVOKE, ROTATE, VERIFY, companion
from nanocloud.planning.contract import CAPABILITIES_LABEL, Exports, ImageContract
from nanocloud.planning.exports import HOST, image_exports
from nanocloud.planning.label import image_contract
from nanocloud.planning.plan import capability_label
from nanocloud.planning.reserved import Reserved, parse_port, reserved
from nanocloud.planning.workload import READY_COMMAND
from nanocloud_dockyard.check import scripts
from nanocloud_dockyard.check.findings import Finding
from nanocloud_dockyard.check.subject import BINDINGS, Subject

MIB = 1024 * 1024
MAX_SIZE_BYTES = 1024 * MIB
MAX_AGE_DAYS = 90
_SECRET_NAME = re.compile(r"(?i)(^|_)(password|passwd|secret|token|api_?key|private_?key)(_|$)")
_DAY_SECONDS = 86400


def lint(subject: Subject, *, now: float | None = None) -> list[Finding]:
    """Everything that can be said without running the image."""
    contract, exports, found = _labels(subject)
    user = _user(subject, found)
    for rule in _RULES:
        found += rule(subject, contract, exports, user)
    found += _age(subject, time.time() if now is None else now)
    return found


_User = tuple[int, int]
_Check = Callable[[Subject, ImageContract, Exports, _User], Iterator[Finding]]


def _labels(subject: Subject) -> tuple[ImageContract, Exports, list[Finding]]:
    contract, exports, found = ImageContract(), Exports(), list[Finding]()
    try:
        contract = image_contract(subject.labels)
    except LabelError as exc:
        found.append(_label(exc))
    try:
        exports = image_exports(subject.labels)
    except LabelError as exc:
        found.append(_label(exc))
    if not found and not contract.options:
        found.append(Finding("no-options", "io.nanocloud.options", "is absent or empty"))
    return contract, exports, found


def _label(exc: LabelError) -> Finding:
    where, _, message = str(exc).partition(": ")
    return Finding("label", where, message)


def _user(subject: Subject, found: list[Finding]) -> _User:
    text = subject.image.config.user
    try:
        return _numeric(subject, text)
    except InvalidError as exc:
        found.append(Finding("user-unknown", "USER", str(exc)))
        return 0, 0


def _numeric(subject: Subject, text: str) -> _User:
    name, _, group = text.partition(":")
    if not name:
        return 0, 0
    entry = _entry(subject, "passwd", name)
    if entry is None and not name.isdecimal():
        raise InvalidError(f"the image has no user {name[:80]!r} in /etc/passwd")
    uid, gid = (int(entry[2]), int(entry[3])) if entry else (int(name), 0)
    if group:
        named = _entry(subject, "group", group)
        if named is None and not group.isdecimal():
            raise InvalidError(f"the image has no group {group[:80]!r} in /etc/group")
        gid = int(named[2]) if named else int(group)
    return uid, gid


def _entry(subject: Subject, file: str, wanted: str) -> list[str] | None:
    text = (subject.tree.read(f"/etc/{file}") or b"").decode(errors="replace")
    rows = [line.split(":") for line in text.splitlines()]
    numbers = slice(2, 4) if file == "passwd" else slice(2, 3)
    good = [row for row in rows if len(row) > 3 and all(field.isdecimal() for field in row[numbers])]
    return next((row for row in good if wanted in (row[0], row[2])), None)


# ---- labels ----------------------------------------------------------------------------------------------------------


def _exports(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    for option in sorted(exports.options - contract.options.keys() - {HOST}):
        yield Finding("export-option", "io.nanocloud.exports", f"exports {option}, which is no option")
    files = subject.tree.names(BINDINGS)
    for command in sorted(exports.bindings - set(files)):
        yield Finding("export-binding", f"{BINDINGS}/{command}", "is exported and not in the image")
    for command in files:
        path = f"{BINDINGS}/{command}"
        if command not in exports.bindings:
            yield Finding("binding-unexported", path, "is not exported, so nobody can use it")
        yield from scripts.look_at(subject.tree, path, uid=scripts.NOBODY, gid=scripts.NOBODY)


def _companions(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    for command in sorted(exports.bindings):
        verb, _, thing = command.partition("_")
        where = f"{BINDINGS}/{command}"
        if verb in (VERIFY, ROTATE, REVOKE) and thing and f"{CREATE}_{thing}" not in exports.bindings:
            yield Finding("companion-alone", where, f"there is no {CREATE}_{thing}")
        if companion(command, VERIFY) is None:
            continue
        if companion(command, VERIFY) not in exports.bindings:
            yield Finding("no-verify", where, f"there is no {VERIFY}_{thing}")
        if companion(command, REVOKE) not in exports.bindings:
            yield Finding("no-revoke", where, f"there is no {REVOKE}_{thing}")
        if command not in exports.owned:
            yield Finding("binding-owned", where, "owns no name, so two dependants can take each other's over")


def _capabilities(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    try:
        asked = capability_label(subject.labels.get(CAPABILITIES_LABEL, ""))
    except LabelError as exc:
        yield _label(exc)
        return
    if asked:
        yield Finding("capabilities", CAPABILITIES_LABEL, f"asks for {', '.join(sorted(asked))}")


def _secrets(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    for option in contract.options.values():
        default = option.free.default if option.free else None
        if default is None or default.macro is not None or default.references or not default.text:
            continue
        named = reserved(option.name)
        plain = option.name if named is None else named[1] if named[0] is Reserved.ENV else ""
        if option.name in contract.secrets or _SECRET_NAME.search(plain):
            yield Finding("default-secret", option.name, "has a default that everyone knows")
    for name, value in subject.image.config.environment.items():
        if value and _SECRET_NAME.search(name):
            yield Finding("environment-secret", f"ENV {name}", "is set in the image")


def _ports(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    listed = _defaults(contract, Reserved.PORT)
    if any(value is None for value in listed):
        return  # made from another option: only resolution knows
    parsed = [parse_port(value) for value in listed if value]
    open_ports = {f"{port.container_port}/{port.protocol}" for port in parsed}
    for exposed in subject.image.config.exposed_ports:
        port, _, protocol = exposed.partition("/")
        if f"{port}/{protocol or 'tcp'}" not in open_ports:
            yield Finding("port-undeclared", f"EXPOSE {exposed}", "is no port_<n>")


def _defaults(contract: ImageContract, kind: Reserved) -> list[str | None]:
    """Literal defaults of the options of a reserved kind; None for one that is made from others."""
    found: list[str | None] = []
    for option in contract.options.values():
        named = reserved(option.name)
        if named is None or named[0] is not kind or option.free is None or option.free.default is None:
            continue
        default = option.free.default
        found.append(None if default.macro or default.references else default.text)
    return found


# ---- configuration and files -----------------------------------------------------------------------------------------


def _start(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    config = subject.image.config
    words = (*config.entrypoint, *config.command)
    if "runtime_command" in contract.options:
        return  # the command is the options' business
    if not words:
        yield Finding("start-command", "ENTRYPOINT", "is not set, nor is CMD")
        return
    name = words[0] if "/" not in words[0] else posixpath.join(config.working_directory, words[0])
    path = scripts.program(subject.tree, name)
    if path is None:
        yield Finding("start-command", words[0][:120], "is not in the image")
        return
    yield from scripts.look_at(subject.tree, path, uid=user[0], gid=user[1])


def _ready(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    if subject.tree.find(READY_COMMAND) is None:
        yield Finding("no-ready-script", READY_COMMAND, "is absent: the service counts as ready once it runs")
    else:
        yield from scripts.look_at(subject.tree, READY_COMMAND, uid=user[0], gid=user[1])


def _identity(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    if user[0] == 0 and not _is_unknown(subject):
        yield Finding("user-root", "USER", "is root, or not set")
    if not subject.has_stop_signal:
        yield Finding("stop-signal", "STOPSIGNAL", "is not set; the service gets SIGTERM")


def _is_unknown(subject: Subject) -> bool:
    try:
        _numeric(subject, subject.image.config.user)
    except InvalidError:
        return True
    return False


def _volumes(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    mounted = _defaults(contract, Reserved.VOLUME)
    for path in filter(None, mounted):
        entry = subject.tree.find(path)
        if entry is None or not entry.is_folder:
            yield Finding("volume-path", path, "is no folder in the image")
        elif entry.state.st_uid != user[0]:
            yield Finding("volume-path", path, f"belongs to user {entry.state.st_uid}, and the service is {user[0]}")
    if None in mounted:
        return
    for path in subject.image.config.volumes:
        if posixpath.normpath(path) not in {posixpath.normpath(each) for each in mounted if each}:
            yield Finding("volume-undeclared", f"VOLUME {path}", "is no volume_<n>")


def _size(subject: Subject, contract: ImageContract, exports: Exports, user: _User) -> Iterator[Finding]:
    size = subject.image.size_bytes
    if size > MAX_SIZE_BYTES:
        limit = MAX_SIZE_BYTES // MIB
        yield Finding("image-size", "layers", f"have {size // MIB} MiB compressed; {limit} MiB is a lot already")


def _age(subject: Subject, now: float) -> Iterator[Finding]:
    try:
        made = datetime.fromisoformat(subject.created).timestamp()
    except (ValueError, OverflowError):
        return  # nobody says when
    days = int((now - made) / _DAY_SECONDS)
    if days > MAX_AGE_DAYS:
        yield Finding("image-age", "created", f"was {days} days ago; {MAX_AGE_DAYS} are a long time without updates")


_RULES: tuple[_Check, ...] = (
    _exports,
    _companions,
    _capabilities,
    _secrets,
    _ports,
    _start,
    _ready,
    _identity,
    _volumes,
    _size,
)
