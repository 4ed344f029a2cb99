"""Profiles out of the node and back: an export is one small archive, an import makes the bundle that it was of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.errors import FieldError, InvalidError, UnavailableError
from nanocloud.models.bundle import BUNDLE, spec_of
from nanocloud.models.meta import now
from nanocloud.planning.archive import pack, unpack
from nanocloud.planning.export import MANIFEST, PROFILE, Exported, Imported, export_profile, import_profile
from nanocloud.planning.profile import GIVEN, ResolvedOption
from nanocloud.secrets import Envelope, new_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.models.meta import Object
    from nanocloud.objects import EventRecorder, ObjectStore
    from nanocloud.planning.profile import Profile

_KEPT = ("service", "image", "deps", "start", "security")
"""Fields of a Bundle's spec that are exported beside its options. A forced run of bindings was of its time."""


@attrs.frozen(kw_only=True)
class ProfileTransfer:
    """Exports and imports profiles under the node's key."""

    store: ObjectStore
    profiles: ProfileStore
    events: EventRecorder
    envelope: Envelope

    async def export(self, namespace: str, name: str, *, secrets: bool) -> bytes:
        """The archive of a bundle's profile; secrets are in it as ciphertext, or not at all.

        Raises:
            NotFoundError: no such bundle.
            UnavailableError: it has no profile yet.
            LimitExceededError: the profile is too large to be imported again.
        """
        bundle = await self.store.get(BUNDLE, namespace, name)
        profile = await self.profiles.get(namespace, name)
        if profile is None:
            raise UnavailableError(
                f"bundle {name!r} has no profile yet", hint=f"what it waits for: nanocloud status {name} -n {namespace}"
            )
        exported = Exported(
            namespace=namespace,
            name=name,
            spec={field: bundle["spec"][field] for field in _KEPT if bundle["spec"].get(field) is not None},
            given=_given(spec_of(bundle).options, profile),
            profile=profile,
        )
        key = new_key()
        files = export_profile(exported, self.envelope, Envelope(key), key, secrets=secrets, created_at=now())
        held = "with its secrets, encrypted" if secrets else "without secrets"
        await self.events.record(bundle, reason="ProfileExported", message=f"the profile was exported {held}")
        return pack(dict(zip((MANIFEST, PROFILE), files, strict=True)))

    def read(self, archive: bytes) -> Imported:
        """What an archive of this node holds.

        Raises:
            InvalidError: it was changed, comes from another node, or has a version that is not known.
            LimitExceededError: a file in it is too large.
        """
        files = unpack(archive, (MANIFEST, PROFILE))
        return import_profile(files[MANIFEST], files[PROFILE], self.envelope, Envelope)

    async def restore(self, bundle: Object, imported: Imported, *, dry_run: bool = False) -> Object:
        """Store the Bundle and its profile, both or none.

        Raises:
            AlreadyExistsError: a bundle of that name is there.
        """
        meta = bundle["metadata"]
        entry = self.profiles.entry(meta["namespace"], meta["name"], imported.profile)
        made = await self.store.create(BUNDLE, bundle, dry_run=dry_run, also=(entry,))
        if not dry_run:
            source = f"{imported.namespace}/{imported.name}"
            message = f"the profile of {source} was imported"
            await self.events.record(made, reason="ProfileImported", message=message)
        return made


def bundle_of(imported: Imported, namespace: str, name: str, given: Mapping[str, str]) -> Object:
    """The Bundle that an import makes; ``given`` is laid over the options of the export.

    Raises:
        InvalidError: secrets that were given once, are not in the export and are not given now.
    """
    missing = [option for option in imported.missing if option not in given]
    if missing:
        why = "was given as a secret and is not in this export; give it again"
        shown = ", ".join(missing)
        raise InvalidError(
            f"options that were given as secrets are not in this export: {shown}",
            [FieldError(f"spec.options.{option}", why, "FieldValueRequired") for option in missing],
            hint=" ".join(f"--option {option}=..." for option in missing),
        )
    spec: dict[str, Any] = {**imported.spec, "options": {**imported.given, **given}}
    return {
        "apiVersion": BUNDLE.api_version,
        "kind": BUNDLE.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }


def _given(options: Mapping[str, str], profile: Profile) -> dict[str, ResolvedOption]:
    """``spec.options``; what the profile does not know yet counts as secret, unless it is empty."""
    found = {}
    for name, value in options.items():
        known = profile.options.get(name)
        secret = known.secret if known is not None else bool(value)
        found[name] = ResolvedOption(value=value, source=GIVEN, secret=secret)
    return found
