"""What must hold of every write, looked at in the moment it becomes durable; nothing is asked of the server.

Each promise is a function from one change to what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from nanocloud.keyspace.keys import decode
from nanocloud.models.meta import uid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nanocloud.models.meta import Object
    from nanocloud.providers.storage import RecordChange
    from nanocloud.testkit.simulation.services import Databases

_GENERATED = ("bundles", "pods")


@attrs.frozen
class Write:
    """One write of an object."""

    key: tuple[str, ...]
    before: Object | None
    after: Object | None


class History:
    """An observer of the disk. ``complain`` is told the promise and what broke it."""

    def __init__(self, databases: Databases, note: Callable[[str], None], complain: Callable[[str, str], None]) -> None:
        self._databases, self._note, self._complain = databases, note, complain
        self._revision = 0
        self._uids: dict[str, tuple[str, ...]] = {}
        self._installed: dict[str, str] = {}  # bundles that are not being uninstalled, and their uids
        self.writes = 0

    def __call__(self, changes: Sequence[RecordChange]) -> None:
        keys, revision = [decode(change.key) for change in changes], changes[0].revision
        self._note(f"commit {revision}: {' '.join(map(_shown, changes, keys))}")
        if revision != self._revision + 1:
            self._complain("revisions_grow_by_one", f"revision {revision} after {self._revision}")
        self._revision = revision
        self.writes += len(changes)
        for key, change in zip(keys, changes, strict=True):
            write = Write(key, _object(change.previous), _object(change.record))
            for promise in self._promises(key[0]):
                for problem in promise(write):
                    self._complain(promise.__name__.lstrip("_"), f"{'/'.join(key)} at {revision}: {problem}")

    def _promises(self, root: str) -> Sequence[Callable[[Write], Iterator[str]]]:
        if root == "profiles":
            return (self._a_binding_recorded_is_a_binding_done,)
        if root == "registry":
            return (
                self._uid_is_never_used_again,
                _generation_follows_the_spec,
                _status_answers_a_known_generation,
                _status_shows_the_options_it_answers,
            )
        return ()

    def _a_binding_recorded_is_a_binding_done(self, write: Write) -> Iterator[str]:
        if write.after is None:
            return
        before = (write.before or {}).get("bindings", {})
        for step, record in write.after.get("bindings", {}).items():
            if record == before.get(step) or self._installed.get(record["target"]) != record["targetUid"]:
                continue
            database, user = record["arguments"][:2]
            account = self._databases.of(record["target"]).users.get(user)
            if account is None or database not in account.databases:
                yield f"{step} is recorded as done, and {record['target']} knows no {user} in {database}"

    def _uid_is_never_used_again(self, write: Write) -> Iterator[str]:
        self._remember(write)
        if write.after is None:
            return
        uid = uid_of(write.after)
        if write.before is None:
            if uid in self._uids:
                yield f"uid {uid} was of {'/'.join(self._uids[uid])} before"
            self._uids[uid] = write.key
        elif uid_of(write.before) != uid:
            yield f"uid {uid_of(write.before)} became {uid}"

    def _remember(self, write: Write) -> None:
        if write.key[2] != "bundles":
            return
        if write.after is None or _is_marked(write.after):
            self._installed.pop(write.key[4], None)
        else:
            self._installed[write.key[4]] = uid_of(write.after)


def _generation_follows_the_spec(write: Write) -> Iterator[str]:
    if write.before is None or write.after is None or write.key[2] not in _GENERATED:
        return
    grown = _generation(write.after) - _generation(write.before)
    changed = write.before["spec"] != write.after["spec"]
    marked = _is_marked(write.after) and not _is_marked(write.before)
    if grown != int(changed or marked):
        yield f"the generation grew by {grown} where the spec {'changed' if changed else 'stayed'}"


def _status_answers_a_known_generation(write: Write) -> Iterator[str]:
    if write.after is not None and write.key[2] == "bundles":
        observed = (write.after.get("status") or {}).get("observedGeneration", 0)
        if observed > _generation(write.after):
            yield f"generation {observed} is observed of {_generation(write.after)}"


def _status_shows_the_options_it_answers(write: Write) -> Iterator[str]:
    """A status that says it has seen the spec, and is fine, was made from that spec."""
    if write.after is None or write.key[2] != "bundles":
        return
    status: dict[str, Any] = write.after.get("status") or {}
    if status.get("phase") != "Running" or status.get("observedGeneration") != _generation(write.after):
        return
    shown = status.get("options") or {}
    for option, value in (write.after["spec"].get("options") or {}).items():
        if shown.get(option) not in (value, "********"):
            yield f"it is Running with {option}={shown.get(option)!r} where {value!r} was asked for"


def _generation(obj: Object) -> int:
    return int(obj["metadata"].get("generation", 0))


def _is_marked(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _object(record: Any) -> Object | None:
    return None if record is None else orjson.loads(record.value)


def _shown(change: RecordChange, key: tuple[str, ...]) -> str:
    """The key, with ``+`` where it is new and ``-`` where it goes."""
    return "/".join(key) + ("-" if change.record is None else "+" if change.previous is None else "")
