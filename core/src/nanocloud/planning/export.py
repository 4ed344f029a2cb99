"""A profile as a document that can be carried away and put back: what it holds, and how it is told from a changed one.

``profile.json``, version 1::

    {"version": 1, "metadata": {"namespace": "shop", "name": "wordpress", "createdAt": "...Z"},
     "key": {"id": "<of the node's key>", "wrapped": "<the export's own key, sealed under the node's>"},
     "secrets": true,
     "spec": {"service": "wordpress", "image": null, "deps": true, "start": true, "security": {...},
              "options": {"database": {"value": "mariadb"}, "admin_token": {"sealed": "..."}}},
     "profile": {...},
     "integrity": {"sha256": "...", "hmac": "..."}}

``profile`` is the stored form of ``planning/profile.py``, sealed under the export's key. Without secrets ``wrapped`` is
absent and so is every ``sealed``: such an option says only that it was there. ``integrity`` covers everything else of
the document as canonical JSON (members sorted, no spaces, UTF-8): ``sha256`` for whoever wants to compare, ``hmac`` by
the node's key for the node, which believes nothing that the HMAC does not cover.

``manifest.json`` says the file's digest and size. Both files have exactly one right form for their content, so a file
with one byte changed, added or removed is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from nanocloud.errors import InvalidError, LimitExceededError
from nanocloud.models.converter import structure, unstructure
from nanocloud.planning.profile import Profile, ResolvedOption, profile_from_json, profile_to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from nanocloud.planning.profile import Unseal

    class Cipher(Protocol):
        """``Envelope`` is one."""

        @property
        def key_id(self) -> str: ...
        def sign(self, message: bytes, context: str) -> str: ...
        def seal(self, plaintext: bytes, context: str) -> bytes: ...
        def unseal(self, sealed: bytes, context: str) -> bytes: ...


VERSION = 1
MANIFEST, PROFILE = "manifest.json", "profile.json"
MAX_PROFILE_BYTES = 2 * 1024 * 1024
_MEDIA_TYPE = "application/vnd.nanocloud.profile.v1+json"
_SIGNED, _WRAPPED = "profile export", "profile export key"


@attrs.frozen(kw_only=True)
class Exported:
    """A bundle as it is exported, in plaintext."""

    namespace: str
    name: str
    spec: Mapping[str, Any]
    """Of the Bundle, without its options."""
    given: Mapping[str, ResolvedOption]
    """``spec.options``."""
    profile: Profile


@attrs.frozen(kw_only=True)
class Imported:
    """What a document of this node says."""

    namespace: str
    name: str
    spec: Mapping[str, Any]
    given: Mapping[str, str] = attrs.field(repr=False)
    profile: Profile
    """Its binding records say what was, not what is: whether an account is still there, and still this bundle's, is not
    for the document to say. So every binding runs again, and nothing is taken back on a record's word."""
    missing: tuple[str, ...] = ()
    """Options that were given, are secret, and were left out of the export: they have to be given again."""
    anew: tuple[str, ...] = ()
    """Secret options that were decided, not given, and were left out: they are decided anew."""


@attrs.frozen(kw_only=True)
class _Metadata:
    namespace: str
    name: str
    created_at: str


@attrs.frozen(kw_only=True)
class _Key:
    id: str
    wrapped: str | None = None


@attrs.frozen(kw_only=True)
class _Value:
    value: str | None = None
    sealed: str | None = None


@attrs.frozen(kw_only=True)
class _Spec:
    service: str
    image: str | None = None
    deps: bool = True
    start: bool = True
    security: dict[str, Any] = attrs.field(factory=dict)
    options: dict[str, _Value] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class _Integrity:
    sha256: str
    hmac: str


@attrs.frozen(kw_only=True)
class _Document:
    version: int
    metadata: _Metadata
    key: _Key
    secrets: bool
    spec: _Spec
    profile: dict[str, Any]
    integrity: _Integrity


# ---- writing ---------------------------------------------------------------------------------------------------------


def export_profile(
    exported: Exported, node: Cipher, own: Cipher, own_key: bytes, *, secrets: bool, created_at: str
) -> tuple[bytes, bytes]:
    """``manifest.json`` and ``profile.json``.

    Args:
        node: of the node's key; wraps the export's key and signs.
        own: of the export's key, ``own_key``; seals the secrets.

    Raises:
        LimitExceededError: the profile is larger than an import takes.
    """
    owner = f"{exported.namespace}/{exported.name}"
    given = {name: _value(name, option, own, owner) for name, option in exported.given.items()}
    document: dict[str, Any] = {
        "version": VERSION,
        "metadata": {"namespace": exported.namespace, "name": exported.name, "createdAt": created_at},
        "key": {"id": node.key_id},
        "secrets": secrets,
        "spec": {**exported.spec, "options": given},
        "profile": profile_to_json(exported.profile, own.seal, owner=owner),
    }
    if secrets:
        document["key"]["wrapped"] = base64.b64encode(node.seal(own_key, _WRAPPED)).decode()
    else:
        document = _without_sealed(document)
    document["integrity"] = _integrity(document, node)
    data = canonical(document)
    if len(data) > MAX_PROFILE_BYTES:
        raise LimitExceededError(f"the profile of {owner} has {len(data)} bytes; the limit is {MAX_PROFILE_BYTES}")
    return manifest_of(data), data


def _value(name: str, option: ResolvedOption, own: Cipher, owner: str) -> dict[str, str]:
    if not option.secret:
        return {"value": option.value}
    return {"sealed": base64.b64encode(own.seal(option.value.encode(), _context(owner, name))).decode()}


def _without_sealed(value: Any) -> Any:
    """The document without any ciphertext, wherever it stands."""
    if isinstance(value, dict):
        return {key: _without_sealed(inner) for key, inner in value.items() if key != "sealed"}
    return [_without_sealed(inner) for inner in value] if isinstance(value, list) else value


def canonical(document: Any) -> bytes:
    """The one JSON text of a document."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def manifest_of(data: bytes) -> bytes:
    """``manifest.json`` for that ``profile.json``."""
    described = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "mediaType": _MEDIA_TYPE, "size": len(data)}
    return canonical({"version": VERSION, "files": {PROFILE: described}})


def _integrity(document: Mapping[str, Any], node: Cipher) -> dict[str, str]:
    covered = canonical({key: value for key, value in document.items() if key != "integrity"})
    return {"sha256": hashlib.sha256(covered).hexdigest(), "hmac": node.sign(covered, _SIGNED)}


# ---- reading ---------------------------------------------------------------------------------------------------------


def import_profile(manifest: bytes, data: bytes, node: Cipher, cipher_of: Callable[[bytes], Cipher]) -> Imported:
    """Check the two files, then read them.

    Args:
        cipher_of: makes the cipher of the export's key.

    Raises:
        InvalidError: another version, another node's, or changed; nothing of it was used.
    """
    document = _verified(manifest, data, node)
    owner = f"{document.metadata.namespace}/{document.metadata.name}"
    unseal: Unseal = _never
    if document.key.wrapped is not None:
        unseal = cipher_of(node.unseal(_bytes(document.key.wrapped, "key.wrapped"), _WRAPPED)).unseal
    given = {
        name: option.value if option.value is not None else _opened(option, name, unseal, owner)
        for name, option in document.spec.options.items()
        if option != _Value()
    }
    stored: dict[str, Any] = document.profile
    left_out = {name for name, option in stored["options"].items() if not option.keys() & {"value", "sealed"}}
    missing = document.spec.options.keys() - given.keys()
    stored["options"] = {name: option for name, option in stored["options"].items() if name not in left_out}
    spec = unstructure(attrs.evolve(document.spec, options={}))
    return Imported(
        namespace=document.metadata.namespace,
        name=document.metadata.name,
        spec=spec,
        given=given,
        profile=_unbound(profile_from_json(stored, unseal, owner=owner)),
        missing=tuple(sorted(missing)),
        anew=tuple(sorted(left_out - missing)),
    )


def _verified(manifest: bytes, data: bytes, node: Cipher) -> _Document:
    document = _parsed(data)
    if document["version"] != VERSION:
        raise InvalidError(f"the export has version {document['version']}; this node reads version {VERSION}")
    if not hmac.compare_digest(manifest, manifest_of(data)):
        raise _changed(f"{MANIFEST} does not fit {PROFILE}")
    if data != canonical(document):
        raise _changed(f"{PROFILE} is not as a node writes it")
    key, integrity = document.get("key"), document.get("integrity")
    key_id = key.get("id") if isinstance(key, dict) else None
    if isinstance(key_id, str) and key_id != node.key_id:
        raise InvalidError(
            f"the export was made by another node (key {key_id[:16]!r}; this node's is {node.key_id!r})",
            hint="import it on the node that made it: only that one can tell whether it was changed",
        )
    for name, right in _integrity(document, node).items():
        said = integrity.get(name) if isinstance(integrity, dict) else None
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), right.encode()):
            raise _changed(f"integrity.{name} is wrong")
    return structure(document, _Document, what=PROFILE)


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_PROFILE_BYTES:
        raise LimitExceededError(f"{PROFILE} has {len(data)} bytes; the limit is {MAX_PROFILE_BYTES}")
    try:
        document = orjson.loads(data)
        canonical(document)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        raise _changed(f"{PROFILE} is not JSON") from None
    if not isinstance(document, dict) or type(document.get("version")) is not int:
        raise _changed(f"{PROFILE} says no version")
    return document


def _changed(why: str) -> InvalidError:
    return InvalidError(f"the export was changed, or is none: {why}", hint="export the profile again")


def _opened(option: _Value, name: str, unseal: Unseal, owner: str) -> str:
    return unseal(_bytes(option.sealed or "", f"spec.options.{name}.sealed"), _context(owner, name)).decode()


def _bytes(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InvalidError(f"{PROFILE} is invalid: {field} is not base64") from None


def _never(sealed: bytes, context: str, /) -> bytes:
    raise InvalidError(f"{PROFILE} is invalid: {context} is sealed, and the export has no key")


def _context(owner: str, name: str) -> str:
    return f"export/{owner}/options/{name}"


def _unbound(profile: Profile) -> Profile:
    records = {
        step: attrs.evolve(record, fingerprint="", target_uid="", arguments=(), owned={}, revocable=False)
        for step, record in profile.bindings.items()
    }
    return attrs.evolve(profile, bindings=records)
