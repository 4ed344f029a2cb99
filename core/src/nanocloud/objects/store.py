"""The object store: typed-by-kind create, read, update, delete and watch over the keyspace.

Every write is a compare-and-set on the entry it was decided on, so two writers never lose each other's work. An
object's ``metadata.resourceVersion`` is the revision of its last write. A write that changes nothing writes nothing.
"""

from __future__ import annotations

import enum
import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from nanocloud.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from nanocloud.keyspace import ChangeKind, Compare, Put
from nanocloud.models.core import NAMESPACE
from nanocloud.models.meta import Object, is_deleting, name_of, namespace_of, revision_of, uid_of
from nanocloud.objects import rules
from nanocloud.objects.codec import Codec, Key, Seal, copy, key_of, prefix_of
from nanocloud.objects.errors import ObjectExistsError, ObjectNotFoundError, PreconditionError, StaleObjectError
from nanocloud.objects.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from nanocloud.keyspace import Change, Entry, Index, Keyspace, Watcher
    from nanocloud.models.kinds import KindRegistry, ResourceKind
    from nanocloud.objects.grouping import Grouping

T = TypeVar("T")

DEFAULT_NAMESPACE, SYSTEM_NAMESPACE = "default", "kube-system"
_PERMANENT = (DEFAULT_NAMESPACE, SYSTEM_NAMESPACE)
_PAGE = 500
_ATTEMPTS = 100


class WatchType(enum.Enum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@attrs.frozen
class WatchEvent:
    """One change. ``object`` is the new state, of a deletion the last one, at ``revision``."""

    type: WatchType
    object: Object
    previous: Object | None
    revision: int


@attrs.frozen
class ObjectList(Generic[T]):
    """Objects sorted by namespace and name, all as they were at ``revision``."""

    items: list[T]
    revision: int
    after: Key | None = None
    """Where the next page begins; None when this is the last."""


class ObjectWatcher:
    """Iterates the changes of one kind in order, without gaps."""

    def __init__(self, kind: ResourceKind, watcher: Watcher, codec: Codec) -> None:
        self._kind, self._watcher, self._codec = kind, watcher, codec

    def __aiter__(self) -> ObjectWatcher:
        return self

    async def __anext__(self) -> WatchEvent:
        return self._event(await self._watcher.__anext__())

    async def next_json(self) -> tuple[WatchType, bytes]:
        """Like ``__anext__``, with the object as JSON and not decoded: for readers that only pass it on."""
        change = await self._watcher.__anext__()
        kind = _type_of(change)
        state = change.previous if kind is WatchType.DELETED else change.entry
        assert state is not None, "a deletion without the state it deleted"
        return kind, self._codec.json(self._kind, state, revision=change.revision)

    def progress(self) -> int:
        """The revision up to which every change has been given out: what a bookmark says."""
        return self._watcher.progress()

    def _event(self, change: Change) -> WatchEvent:
        previous = self._codec.decode(self._kind, change.previous) if change.previous else None
        kind = _type_of(change)
        state = change.previous if kind is WatchType.DELETED else change.entry
        assert state is not None, "a deletion without the state it deleted"
        return WatchEvent(
            kind, self._codec.decode(self._kind, state, revision=change.revision), previous, change.revision
        )


def _type_of(change: Change) -> WatchType:
    if change.kind is ChangeKind.DELETE:
        return WatchType.DELETED
    return WatchType.MODIFIED if change.previous else WatchType.ADDED


class ObjectStore:
    """All objects of the node. ``registry`` says which kinds there are.

    ``seal`` and ``unseal`` encrypt the fields that a kind marks as encrypted.
    """

    def __init__(self, keyspace: Keyspace, registry: KindRegistry, *, seal: Seal, unseal: Seal) -> None:
        self.keyspace, self.registry = keyspace, registry
        self._codec = Codec(seal, unseal)
        self._turns = Turns()
        self._indexes: dict[Grouping, Index] = {}

    @property
    def revision(self) -> int:
        """Of the last write of anyone."""
        return self.keyspace.revision

    async def ensure_namespaces(self, names: Sequence[str] = _PERMANENT) -> None:
        """Make the namespaces that exist from the start."""
        for name in names:
            try:
                await self.create(NAMESPACE, {"metadata": {"name": name}})
            except ObjectExistsError:
                continue

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def get(self, kind: ResourceKind, namespace: str, name: str, *, revision: int | None = None) -> Object:
        """Raises ObjectNotFoundError, or CompactedError for a forgotten revision."""
        return self._codec.decode(kind, await self._entry(kind, namespace, name, revision=revision))

    async def get_json(self, kind: ResourceKind, namespace: str, name: str) -> bytes:
        """Like ``get``, as JSON and not decoded."""
        return self._codec.json(kind, await self._entry(kind, namespace, name))

    async def find(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """Like ``get``, None where there is none."""
        try:
            return await self.get(kind, namespace, name)
        except ObjectNotFoundError:
            return None

    async def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        *,
        matches: Callable[[Object], bool] | None = None,
        limit: int | None = None,
        after: Key | None = None,
        revision: int | None = None,
    ) -> ObjectList[Object]:
        """Objects of a kind, of one namespace or of all, as they were at one revision.

        Args:
            matches: keeps only those; ``limit`` counts what it keeps.
            after: ``ObjectList.after`` of the page before, with its ``revision``.

        Raises:
            CompactedError: ``revision`` is forgotten.
        """
        return await self._page(
            kind, namespace, functools.partial(self._codec.decode, kind), matches, limit, after, revision
        )

    async def list_json(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        *,
        bare: bool = False,
        limit: int | None = None,
        after: Key | None = None,
        revision: int | None = None,
    ) -> ObjectList[bytes]:
        """Like ``list``, as JSON and not decoded; ``bare`` without apiVersion and kind."""
        read = functools.partial(self._codec.json, kind, bare=bare)
        return await self._page(kind, namespace, read, None, limit, after, revision)

    async def _page(
        self,
        kind: ResourceKind,
        namespace: str | None,
        read: Callable[[Entry], T],
        matches: Callable[[T], bool] | None,
        limit: int | None,
        after: Key | None,
        revision: int | None,
    ) -> ObjectList[T]:
        prefix = prefix_of(kind, namespace)
        items: list[T] = []
        while True:
            page = await self.keyspace.list(prefix, after=after, limit=_PAGE, revision=revision)
            revision = page.revision
            for position, entry in enumerate(page.entries):
                item = read(entry)
                if matches is not None and not matches(item):
                    continue
                items.append(item)
                if len(items) == limit:
                    is_last = position == len(page.entries) - 1 and not page.more
                    return ObjectList(items, revision, None if is_last else entry.key)
            if not page.more:
                return ObjectList(items, revision)
            after = page.entries[-1].key

    async def names(self, grouping: Grouping, namespace: str, group: str) -> set[str]:
        """Names of the objects of a namespace that are in a group; costs what they are, not what there is."""
        index = self._indexes.get(grouping)
        if index is None:
            index = self._indexes[grouping] = self._index(grouping)
        return {key[-1] for key in await index.members(_group(namespace, group))}

    async def members(self, grouping: Grouping, namespace: str, group: str) -> Sequence[Object]:
        """The objects of a namespace that are in a group, sorted by name; as ``names``."""
        names = await self.names(grouping, namespace, group)
        found = [await self.find(grouping.kind, namespace, name) for name in sorted(names)]
        return [obj for obj in found if obj is not None and group in grouping.groups_of(obj)]

    def _index(self, grouping: Grouping) -> Index:
        def groups_of(entry: Entry) -> Iterator[str]:
            obj = self._codec.peek(entry)
            return (_group(namespace_of(obj), group) for group in grouping.groups_of(obj))

        return self.keyspace.index(prefix_of(grouping.kind), groups_of)

    @asynccontextmanager
    async def watch(
        self, kind: ResourceKind, namespace: str | None = None, *, after: int
    ) -> AsyncIterator[ObjectWatcher]:
        """Changes after a revision, usually that of a list.

        Raises (on entering or while iterating):
            CompactedError: the revision is forgotten: list again.
            FutureRevisionError: there is no such revision yet.
        """
        async with self.keyspace.watch(prefix_of(kind, namespace), after=after) as watcher:
            yield ObjectWatcher(kind, watcher, self._codec)

    # ---- writing -----------------------------------------------------------------------------------------------------

    async def create(
        self, kind: ResourceKind, obj: Object, *, dry_run: bool = False, also: Sequence[Put] = ()
    ) -> Object:
        """Store a new object; uid, times and defaults are the server's.

        Args:
            also: what is no object and is written with it, in the same transaction.

        Raises:
            InvalidError, BadRequestError: what is wrong with it.
            ObjectExistsError: the name is taken.
            ObjectNotFoundError: its namespace does not exist.
            ForbiddenError: its namespace is going away.
        """
        made = rules.new_object(kind, obj)
        key = key_of(kind, namespace_of(made), name_of(made))
        for _ in range(_ATTEMPTS):
            compares = [Compare(key, 0)]
            if kind.namespaced:
                compares.append(await self._namespace_stays(namespace_of(made), name_of(made), kind))
            if await self.keyspace.get(key) is not None:
                raise ObjectExistsError(kind, name_of(made))
            if dry_run:
                return made
            try:
                put = Put(key, self._codec.encode(kind, made), ttl_seconds=kind.ttl_seconds)
                revision = await self.keyspace.transact(compares, [put, *also])
            except ConflictError:
                continue
            made["metadata"]["resourceVersion"] = str(revision)
            return made
        raise _too_busy(kind, name_of(made))

    async def update(
        self, kind: ResourceKind, obj: Object, *, subresource: str | None = None, dry_run: bool = False
    ) -> Object:
        """Replace an object, or its status only with ``subresource="status"``.

        With ``metadata.resourceVersion`` the write happens only if that is still the stored one. Removing the last
        finalizer of a deleted object removes the object.

        Raises:
            StaleObjectError: it changed since.
            PreconditionError: ``metadata.uid`` is another object's.
            ObjectNotFoundError, InvalidError, BadRequestError
        """
        name, expected = name_of(obj), revision_of(obj)
        for _ in range(_ATTEMPTS):
            entry = await self._entry(kind, namespace_of(obj), name)
            if expected and expected != entry.mod_revision:
                raise StaleObjectError(kind, name, expected=expected, actual=entry.mod_revision)
            current = self._codec.decode(kind, entry)
            if uid_of(obj) and uid_of(obj) != uid_of(current):
                raise PreconditionError(kind, name, "UID", wanted=uid_of(obj), actual=uid_of(current))
            made = rules.changed_object(kind, current, obj, subresource)
            if made == current or dry_run:
                return made
            try:
                return await self._replace(kind, entry, made)
            except ConflictError:
                continue
        raise _too_busy(kind, name)

    async def modify(
        self,
        kind: ResourceKind,
        namespace: str,
        name: str,
        change: Callable[[Object], Object | None],
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Read, change and write back, again from the start whenever someone else wrote in between.

        ``change`` alters the object in place, or returns another one. It may be called many times.
        """
        key = key_of(kind, namespace, name)
        await self._turns.acquire(key)
        try:
            for _ in range(_ATTEMPTS):
                obj = await self.get(kind, namespace, name)
                changed = change(obj) or obj
                changed["metadata"]["resourceVersion"] = str(revision_of(changed) or revision_of(obj))
                try:
                    return await self.update(kind, changed, subresource=subresource, dry_run=dry_run)
                except StaleObjectError:
                    if revision_of(changed) != revision_of(obj):
                        raise  # the change itself asked for a revision
                    await trio.lowlevel.checkpoint()
            raise _too_busy(kind, name)
        finally:
            self._turns.release(key)

    async def delete(
        self,
        kind: ResourceKind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: int | None = None,
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> tuple[Object, bool]:
        """Delete an object, or mark it where finalizers or its grace hold it.

        Returns:
            The object, and whether it is gone.

        Raises:
            ObjectNotFoundError
            PreconditionError: it is not the object of that ``uid`` or ``resource_version``.
            ForbiddenError: a namespace that always exists.
        """
        for _ in range(_ATTEMPTS):
            entry = await self._entry(kind, namespace, name)
            current = self._codec.decode(kind, entry)
            _check_identity(kind, current, uid, resource_version)
            if kind is NAMESPACE and name in _PERMANENT:
                raise ForbiddenError(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
            grace = rules.grace_of(kind, current, grace_seconds)
            try:
                if not grace and not current["metadata"].get("finalizers"):
                    if not dry_run:
                        await self.keyspace.delete(entry.key, expect=entry.mod_revision)
                    return current, True
                marked = rules.marked_object(kind, current, grace)
                if marked is None or dry_run:
                    return marked or current, False
                return await self._replace(kind, entry, marked), False
            except (ConflictError, NotFoundError):
                continue
        raise _too_busy(kind, name)

    async def _replace(self, kind: ResourceKind, entry: Entry, made: Object) -> Object:
        """Write the next state over ``entry``, or remove it when nothing holds it any more."""
        if rules.is_released(made):
            revision = await self.keyspace.delete(entry.key, expect=entry.mod_revision)
        else:
            value = self._codec.encode(kind, made)
            put = await self.keyspace.put(entry.key, value, expect=entry.mod_revision, ttl_seconds=kind.ttl_seconds)
            revision = put.mod_revision
        written = copy(made)
        written["metadata"]["resourceVersion"] = str(revision)
        return written

    async def _entry(self, kind: ResourceKind, namespace: str, name: str, *, revision: int | None = None) -> Entry:
        entry = await self.keyspace.get(key_of(kind, namespace, name), revision=revision)
        if entry is None:
            raise ObjectNotFoundError(kind, name)
        return entry

    async def _namespace_stays(self, namespace: str, name: str, kind: ResourceKind) -> Compare:
        """A condition that holds while the namespace is as it is now: there, and not going away."""
        entry = await self._entry(NAMESPACE, "", namespace)
        if is_deleting(self._codec.decode(NAMESPACE, entry)):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise ForbiddenError(f'{kind.resource} "{name}" is forbidden: {why}')
        return Compare(entry.key, entry.mod_revision)


def _group(namespace: str, group: str) -> str:
    return f"{namespace}/{group}"


def _check_identity(kind: ResourceKind, current: Object, uid: str | None, resource_version: int | None) -> None:
    name = name_of(current)
    if uid is not None and uid != uid_of(current):
        raise PreconditionError(kind, name, "UID", wanted=uid, actual=uid_of(current))
    if resource_version is not None and resource_version != revision_of(current):
        wanted, actual = str(resource_version), str(revision_of(current))
        raise PreconditionError(kind, name, "ResourceVersion", wanted=wanted, actual=actual)


def _too_busy(kind: ResourceKind, name: str) -> UnavailableError:
    return UnavailableError(f'{kind.resource} "{name}": {_ATTEMPTS} attempts to write met other writers; try again')
