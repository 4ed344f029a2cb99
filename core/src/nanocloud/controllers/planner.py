"""Gathers what planning needs, then plans: the one way from a Bundle to a workload plan, for dry runs and for real.

Reading is all it does. Selected services that are not installed are planned as if they were, so that a dry run shows
the whole of what would happen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import FieldError, InvalidError, NotFoundError, UnavailableError
from nanocloud.kubelet.binding_order import BY_MARK, has_begun, owned_mark
from nanocloud.models.binding import BindingAction
from nanocloud.models.bundle import BUNDLE, BundleSpec, spec_of
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM
from nanocloud.models.meta import name_of, namespace_of, uid_of
from nanocloud.objects import Grouping
from nanocloud.planning.exports import image_exports
from nanocloud.planning.label import image_contract
from nanocloud.planning.plan import plan
from nanocloud.planning.profile import Profile
from nanocloud.planning.resolution import ResolveRequest
from nanocloud.planning.resolve import resolve, select_services
from nanocloud.planning.volumes import refuse_other_volumes
from nanocloud.planning.workload import DesiredBundle, Inventory, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.images import ImageSources
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore
    from nanocloud.planning.contract import Exports, ImageContract
    from nanocloud.planning.resolution import Expand
    from nanocloud.planning.workload import BindingStep, WorkloadPlan
    from nanocloud.providers.image import Digest, Image

_DEEPEST = 8


@attrs.frozen(kw_only=True)
class PlannedBundle:
    plan: WorkloadPlan
    profile: Profile
    additions: tuple[PlannedBundle, ...] = ()
    """Plans of the services that would be installed first, in order."""


@attrs.frozen(kw_only=True)
class Planner:
    store: ObjectStore
    profiles: ProfileStore
    images: ImageSources
    expand: Expand

    async def plan(
        self,
        bundle: Object,
        *,
        imagine: bool = False,
        others: Mapping[str, Object] | None = None,
        _chain: tuple[str, ...] = (),
    ) -> PlannedBundle:
        """Plan a Bundle object, stored or not.

        Args:
            imagine: also plan on services that are missing or not prepared yet (dry run).
            others: bundles of the namespace as they shall be, by name, instead of what is stored (with ``imagine``).

        Raises:
            InvalidError, LabelError: what is wrong with options or label.
            NotFoundError, ImageError: the image.
            UnpreparedServiceError: a selected service is not prepared yet (never with ``imagine``).
            MissingServicesError: selected services have to be installed first (never with ``imagine``).
        """
        namespace, name, spec = namespace_of(bundle), name_of(bundle), spec_of(bundle)
        if name in _chain or len(_chain) >= _DEEPEST:
            raise InvalidError(f"services select each other in a circle: {' -> '.join([*_chain, name])}")
        previous = await self.profiles.get(namespace, name)
        image = await self._image(bundle, spec, previous)
        contract = image_contract(image.config.labels)
        selected = select_services(contract, spec.options, previous)
        chain, wanted = (*_chain, name), others or {}
        targets, additions = await self._targets(namespace, spec, selected, wanted if imagine else None, chain)
        request = ResolveRequest(
            namespace=namespace, bundle=name, contract=contract, given=spec.options, previous=previous, targets=targets
        )
        resolution = await resolve(request, expand=self.expand)
        profile = Profile.of(resolution, service=spec.service, image=image.digest, previous=previous)
        return PlannedBundle(
            plan=await self._plan(bundle, spec, profile, contract, image, targets),
            profile=profile,
            additions=additions,
        )

    async def _image(self, bundle: Object, spec: BundleSpec, previous: Profile | None) -> Image:
        """The image of the profile, for a restart must not become an update; a changed ``spec.image`` is asked anew."""
        reference = spec.image or spec.service
        changed = bundle["metadata"].get("generation") != (bundle.get("status") or {}).get("observedGeneration")
        if previous is not None and not (spec.image and changed):
            try:
                return attrs.evolve((await self.images.local(previous.image)).image, reference=reference)
            except NotFoundError:
                pass  # never fetched, or collected: ask where it came from
        image = await self.images.resolve(reference)
        return attrs.evolve(image, reference=reference)

    async def _targets(
        self,
        namespace: str,
        spec: BundleSpec,
        selected: Mapping[str, str],
        others: Mapping[str, Object] | None,
        chain: tuple[str, ...],
    ) -> tuple[dict[str, Target], tuple[PlannedBundle, ...]]:
        """What the selected services offer; ``others`` is None where only what is there and prepared counts."""
        targets: dict[str, Target] = {}
        additions: list[PlannedBundle] = []
        missing: list[str] = []
        for option, bundle in selected.items():
            if bundle in targets:
                continue
            installed = await self.store.find(BUNDLE, namespace, bundle)
            coming = (others or {}).get(bundle)
            if installed is None and coming is None and not spec.deps:
                raise RefusedServiceError(namespace, bundle, option)
            profile = await self.profiles.get(namespace, bundle) if installed and not coming else None
            if profile is not None:
                assert installed is not None
                exports = await self._exports(profile.image, installed)
                targets[bundle] = Target.of(bundle, namespace, profile, exports, uid=uid_of(installed))
            elif others is not None:
                wanted = coming or installed or _addition(namespace, bundle)
                planned = await self._plan_addition(wanted, option, others, chain)
                additions += [*planned.additions, planned]
                exports = await self._exports(planned.plan.digest, wanted)
                uid = uid_of(installed) if installed and coming else ""
                targets[bundle] = Target.of(bundle, namespace, planned.profile, exports, uid=uid)
            elif installed is None:
                missing.append(bundle)
            else:
                raise UnpreparedServiceError(bundle)
        if missing:
            raise MissingServicesError(missing)
        return targets, tuple(additions)

    async def _plan_addition(
        self, wanted: Object, option: str, others: Mapping[str, Object], chain: tuple[str, ...]
    ) -> PlannedBundle:
        """Plan a service that comes first; its own bad options are told as its own, not as those of this bundle."""
        try:
            return await self.plan(wanted, imagine=True, others=others, _chain=chain)
        except InvalidError as exc:
            if not exc.causes:
                raise
            service = name_of(wanted)
            message = f"service {service}, which comes first: {exc}"
            hint = exc.hint or f"install {service} by itself first, with its options"
            raise InvalidError(message, [FieldError(f"spec.options.{option}", message)], hint=hint) from exc

    async def _exports(self, digest: Digest, bundle: Object) -> Exports:
        try:
            image = (await self.images.local(digest)).image
        except NotFoundError:
            spec = spec_of(bundle)
            image = await self.images.resolve(spec.image or spec.service)
        return image_exports(image.config.labels)

    async def _plan(
        self,
        bundle: Object,
        spec: BundleSpec,
        profile: Profile,
        contract: ImageContract,
        image: Image,
        targets: Mapping[str, Target],
    ) -> WorkloadPlan:
        stored = await self.store.names(_BY_NAMESPACE, namespace_of(bundle), "")
        if spec.security.seccomp_profile == "Localhost":
            message = "Localhost seccomp profiles are not loaded on this node yet; allowed: Baseline, RuntimeDefault"
            raise InvalidError(message, [FieldError("spec.security.seccompProfile", message)])
        desired = DesiredBundle(
            namespace=namespace_of(bundle),
            name=name_of(bundle),
            service=spec.service,
            security=spec.security,
            force_bindings=spec.force_bindings not in (None, (bundle.get("status") or {}).get("forcedBindings")),
        )
        inventory = Inventory(installed=frozenset(stored - {desired.name}), targets=targets)
        planned = plan(desired, profile, contract, image, inventory)
        for claim in planned.claims:
            if claim.encryption_key is not None:
                message = "volumes are not encrypted on this node yet"
                field = f"spec.options.{claim.volume.replace('volume-', 'volume_encrypted_')}"
                raise InvalidError(f"{field}: {message}", [FieldError(field, message)])
        await self._check_names(planned)
        await self._check_volumes(planned)
        return planned

    async def _check_volumes(self, planned: WorkloadPlan) -> None:
        """A volume that exists keeps its size and encryption."""
        found = {
            claim.name: stored
            for claim in planned.claims
            if (stored := await self.store.find(PERSISTENT_VOLUME_CLAIM, planned.namespace, claim.name))
        }
        refuse_other_volumes(planned.claims, found)

    async def _check_names(self, planned: WorkloadPlan) -> None:
        """What another bundle owns in a selected service stays its own."""
        problems, owners = [], set()
        for step in planned.pending_bindings:
            for position, value in step.owned.items():
                if owner := await self._owner(planned, step, position):
                    owners.add(owner)
                    word = step.words[int(position) - 1].removeprefix("$")
                    message = f"{value!r} in {step.target} belongs to {owner} already; give another name"
                    problems.append(FieldError(f"spec.options.{word}", message, "FieldValueDuplicate"))
        if problems:
            raise NameTakenError(problems, owners)

    async def _owner(self, planned: WorkloadPlan, step: BindingStep, position: str) -> str | None:
        mark = owned_mark(step.target, step.command, position, step.owned[position])
        for binding in await self.store.members(BY_MARK, planned.namespace, mark):
            spec = binding["spec"]
            is_other = spec["bundle"] != planned.bundle and spec.get("action") != BindingAction.REVOKE.value
            if is_other and has_begun(binding):
                return str(spec["bundle"])
        return None


_BY_NAMESPACE = Grouping(BUNDLE, lambda _: [""])


def _addition(namespace: str, service: str) -> Object:
    """The bundle that is made for a service that another one selects."""
    return {"metadata": {"name": service, "namespace": namespace}, "spec": {"service": service}}


class RefusedServiceError(InvalidError):
    """A selected service is not installed, and the bundle wants none installed for it."""

    waits_for: frozenset[str]
    """Bundles whose change may mend it."""

    def __init__(self, namespace: str, service: str, option: str) -> None:
        message = f"service {service!r} is not installed in namespace {namespace!r}, and dependencies are off"
        super().__init__(message, [FieldError(f"spec.options.{option}", message)])
        self.waits_for = frozenset({service})


class NameTakenError(InvalidError):
    """The bundle would own in a selected service what belongs to another bundle."""

    waits_for: frozenset[str]

    def __init__(self, problems: list[FieldError], owners: set[str]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems), problems)
        self.waits_for = frozenset(owners)


class UnpreparedServiceError(UnavailableError):
    """A selected service is there, and has no profile yet."""

    def __init__(self, service: str) -> None:
        super().__init__(f"service {service!r} is not prepared yet")
        self.service = service


class MissingServicesError(UnavailableError):
    """Services that have to be installed first."""

    def __init__(self, services: list[str]) -> None:
        super().__init__(f"these services are installed first: {', '.join(services)}")
        self.services = services
