"""Builders for tests that plan: labels as dicts, macros that say the same every time, wordpress and mariadb.

Settings are the label's object as Python data; ``resolve_label`` and ``plan_label`` go the whole way from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import attrs

from nanocloud.errors import InvalidError
from nanocloud.planning import (
    DesiredBundle,
    ImageContract,
    Inventory,
    Profile,
    Resolution,
    ResolveRequest,
    Target,
    WorkloadPlan,
    image_contract,
    image_exports,
    plan,
    resolve,
)
from nanocloud.providers.image import Image
from nanocloud.providers.macro import MacroContext, MacroValue
from nanocloud.testkit.specs import DIGEST, labelled_image

Settings = Mapping[str, object]

WORDPRESS: Settings = {
    "database=&mariadb": ["*database_host", "&create_user $database_name $database_user $database_password"],
    "database_name": ["wordpress"],
    "database_user": ["wordpress"],
    "database_password": ["!rand 32 alnum"],
    "?database_transport=plain": [],
    "?database_transport=tls": ["*database", "&require_tls $database_user"],
    "env_DB_HOST": ["*database_host", "$database_host"],
    "env_DB_NAME": ["*database_name", "$database_name"],
    "env_DB_PASSWORD": ["*database_password", "$database_password"],
    "?env_DB_CA": ["*database_transport=tls", "!tls ca"],
    "port_1": ["8080->80"],
    "volume_1": ["/var/www/html"],
}
MARIADB: Settings = {
    "root_password": ["!rand 32 alnum"],
    "env_MARIADB_ROOT_PASSWORD": ["*root_password", "$root_password"],
    "port": ["3306"],
    "port_1": ["3306"],
    "volume_1": ["/var/lib/mysql"],
    "volume_size_1": ["10Gi"],
}
MARIADB_EXPORTS: Settings = {"options": ["host", "port"], "bindings": ["create_user", "require_tls"]}


def labels_of(settings: Settings, exports: Settings | None = None) -> dict[str, str]:
    """The labels of an image with these settings and exports."""
    labels = {"io.nanocloud.options": json.dumps(settings)}
    return labels if exports is None else labels | {"io.nanocloud.exports": json.dumps(exports)}


def contract_of(settings: Settings) -> ImageContract:
    return image_contract(labels_of(settings))


def image_of(name: str, settings: Settings, labels: Mapping[str, str] | None = None) -> Image:
    return labelled_image(f"{name}:1", labels_of(settings) | dict(labels or {}))


@attrs.define
class FakeMacros:
    """An expander; remembers what was asked. ``!rand`` gives ``random1``, ``random2``, ... and ``!echo`` its words."""

    calls: list[tuple[str, tuple[str, ...], MacroContext]] = attrs.field(factory=list)

    async def __call__(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        self.calls.append((macro, tuple(arguments), context))
        match macro:
            case "rand":
                return MacroValue(value=f"random{len(self.calls)}", secret=True)
            case "tls":
                return MacroValue(value=f"/run/nanocloud/tls/{arguments[0]}.crt")
            case "echo":
                return MacroValue(value=" ".join(arguments))
            case "if":
                option, _, wanted = arguments[0].partition("=")
                chosen = context.options.get(option) == wanted
                return MacroValue(value=arguments[1] if chosen else "".join(arguments[2:]))
            case _:
                raise InvalidError(f"!{macro} {' '.join(arguments)} is not a known macro")


def profile_of(resolution: Resolution, *, service: str = "wordpress", previous: Profile | None = None) -> Profile:
    return Profile.of(resolution, service=service, image=DIGEST, previous=previous)


async def resolve_label(
    settings: Settings,
    given: Mapping[str, str] | None = None,
    *,
    previous: Resolution | None = None,
    targets: Sequence[Target] = (),
    macros: FakeMacros | None = None,
) -> Resolution:
    """Resolve ``default/wordpress`` with these settings."""
    request = ResolveRequest(
        namespace="default",
        bundle="wordpress",
        contract=contract_of(settings),
        given=given or {},
        previous=None if previous is None else profile_of(previous),
        targets={target.bundle: target for target in targets},
    )
    return await resolve(request, expand=macros or FakeMacros())


def values(resolution: Resolution) -> dict[str, str]:
    return {name: option.value for name, option in resolution.options.items()}


async def target(
    bundle: str = "mariadb",
    settings: Settings = MARIADB,
    exports: Settings = MARIADB_EXPORTS,
    *,
    namespace: str = "default",
) -> Target:
    """An installed service with its resolved profile."""
    request = ResolveRequest(namespace=namespace, bundle=bundle, contract=contract_of(settings))
    profile = profile_of(await resolve(request, expand=FakeMacros()), service=bundle)
    return Target.of(bundle, namespace, profile, image_exports({"io.nanocloud.exports": json.dumps(exports)}))


def plan_label(
    settings: Settings,
    resolution: Resolution,
    targets: Sequence[Target] = (),
    *,
    profile: Profile | None = None,
    desired: DesiredBundle | None = None,
    installed: Sequence[str] = (),
    own_secrets: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> WorkloadPlan:
    """Plan ``default/wordpress`` with these settings."""
    return plan(
        desired or DesiredBundle(namespace="default", name="wordpress", service="wordpress"),
        profile or profile_of(resolution),
        contract_of(settings),
        image_of("wordpress", settings, labels),
        Inventory(
            installed=frozenset(installed),
            targets={target.bundle: target for target in targets},
            own_secrets=frozenset(own_secrets),
        ),
    )
