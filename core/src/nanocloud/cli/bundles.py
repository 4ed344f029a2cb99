"""``bundle``: services as files. ``apply`` makes the node have what a file says, ``diff`` shows what would change.

A file holds YAML or JSON, one or more Bundles, also as the ``items`` of a List. What only the server writes
(``status``, ``uid`` and the like) is passed over, so what ``kubectl get bundle -o yaml`` printed can be applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanocloud.cli import plans, profiles
from nanocloud.cli.follow import wait_until
from nanocloud.cli.inputs import read_input
from nanocloud.cli.options import Curl, api, parse_duration
from nanocloud.client.api import Api, ApiError, CurlPrinted, bundles_path
from nanocloud.errors import NanocloudError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

app = typer.Typer(help="Services as files.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)
File = Annotated[str, typer.Option("--file", "-f", help="YAML or JSON file; - is standard input.", show_default=False)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace of bundles that name none; default where it is not given."),
]
_MAX_FILE_BYTES = 3 * 1024 * 1024
_MEMBERS = ("apiVersion", "kind", "metadata", "spec", "status")
_INSTALLED_FOR = "nanocloud.io/installed-for"
_STRICT = {"fieldValidation": "Strict"}
_CONFLICTS = 10


app.command("export")(profiles.export)
app.command("import")(profiles.import_)


@app.callback()
def _bundle() -> None:
    """Services as files."""


@app.command()
def apply(
    file: File,
    namespace: Namespace = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait for each: 90s, 10m.")] = "10m",
    curl: Curl = False,
) -> None:
    """Create or change services as a file says. Those that others select come first."""
    limit, wanted, server = parse_duration(timeout), read_bundles(file, namespace), api(curl=curl)
    if curl:
        _show(server, wanted)
        return
    mine = {_key(bundle): bundle for bundle in wanted}
    # All are planned before the first is stored: what cannot be is refused while nothing has happened.
    ordered: dict[tuple[str, str], dict[str, Any]] = {}
    for key, is_own, planned in _plan_all(server, wanted):
        if key in mine and (is_own or key not in ordered):
            ordered[key] = planned
    for key, planned in ordered.items():
        plans.tell_what_stays_behind(planned)
        typer.echo(f"{key[1]}: {_put(server, mine[key])}")
    for key in ordered if wait else ():
        goal = "Ready" if mine[key]["spec"].get("start", True) else "Stopped"
        wait_until(server, *key, goal, limit)
        typer.echo(f"{key[1]} is {goal.lower()}")


@app.command()
def diff(file: File, namespace: Namespace = None, output: plans.Output = "text", curl: Curl = False) -> int:
    """Show what apply would change. The exit status is 0 for nothing, 2 for something, 1 for an error."""
    plans.check_output(output)
    wanted, server = read_bundles(file, namespace), api(curl=curl)
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for key, is_own, planned in _plan_all(server, wanted):
        # A service that the file brings itself is shown by its own plan, not as another one would add it.
        if is_own or key not in shown:
            shown[key] = planned
    return plans.show(list(shown.values()), output)


def read_bundles(file: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """The Bundles of a file, each with name and namespace.

    Raises:
        UsageError: the file cannot be read, or holds something else; names the document.
        BadRequestError: it is not YAML; names line and column.
    """
    from nanocloud.models.manifest import load_yaml

    found = [_bundle_of(where, data, namespace) for where, data in _items(load_yaml(read_input(file, _MAX_FILE_BYTES)))]
    if not found:
        raise UsageError(f"{file} holds no Bundle")
    for index, bundle in enumerate(found):
        if _key(bundle) in map(_key, found[:index]):
            raise UsageError(f"{file}: bundle {'/'.join(_key(bundle))} stands there twice")
    return found


def _items(documents: list[Any]) -> Iterator[tuple[str, Any]]:
    """Every object with its place; a List is what it holds."""
    for number, document in enumerate(documents, 1):
        where = f"document {number}"
        if isinstance(document, dict) and str(document.get("kind")).endswith("List"):
            items = document.get("items")
            if not isinstance(items, list):
                raise UsageError(f"{where}: items must be an array")
            yield from ((f"{where}, item {index}", item) for index, item in enumerate(items, 1))
        else:
            yield where, document


def _bundle_of(where: str, data: Any, namespace: str | None) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UsageError(f"{where} is not an object")
    for field, expected in (("apiVersion", "nanocloud.io/v1"), ("kind", "Bundle")):
        if data.get(field) != expected:
            raise UsageError(f"{where}: {field} is {data.get(field)!r}; it must be {expected}")
    for member in data:
        if member not in _MEMBERS:
            raise UsageError(f"{where}: unknown field {member!r}; known: {', '.join(_MEMBERS)}")
    meta, spec = data.get("metadata"), data.get("spec")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        raise UsageError(f"{where}: metadata.name is required")
    if not isinstance(spec, dict):
        raise UsageError(f"{where}: spec is required")
    place = meta.get("namespace") or namespace or "default"
    if namespace is not None and place != namespace:
        raise UsageError(f"{where}: metadata.namespace is {place!r}, and --namespace {namespace!r}")
    kept = {field: meta[field] for field in ("labels", "annotations") if meta.get(field)}
    return {
        "apiVersion": data["apiVersion"],
        "kind": data["kind"],
        "metadata": {"name": meta["name"], "namespace": place, **kept},
        "spec": spec,
    }


def _key(bundle: Mapping[str, Any]) -> tuple[str, str]:
    return bundle["metadata"]["namespace"], bundle["metadata"]["name"]


def _plan_all(server: Api, wanted: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, str], bool, dict[str, Any]]]:
    """Plans of all, each after those of services that it selects: (namespace, name), whether it is the plan of the one
    that was asked for, and the plan. The others of the file are taken to be there.
    """
    for bundle in wanted:
        namespace, name = _key(bundle)
        beside = [other for other in wanted if _key(other)[0] == namespace and other is not bundle]
        body = {"apiVersion": "v1", "kind": "List", "items": [bundle, *beside]}
        answer = server.request("POST", bundles_path(namespace, name, "plan"), body=body, query=_STRICT)
        for planned in answer["status"]["bundles"]:
            yield (namespace, planned["name"]), planned["name"] == name, planned


def _put(server: Api, bundle: dict[str, Any]) -> str:
    """Create or change one; says which."""
    for _ in range(_CONFLICTS):
        stored = _find(server, bundle)
        try:
            if stored is None:
                server.request("POST", bundles_path(_key(bundle)[0]), body=bundle, query=_STRICT)
                return "created"
            path = bundles_path(*_key(bundle))
            made = server.request("PUT", path, body=_laid_over(stored, bundle), query=_STRICT)
        except ApiError as exc:
            if exc.code != 409:
                raise
            continue  # it was made, or changed, in between
        version = stored["metadata"]["resourceVersion"]
        return "unchanged" if made["metadata"]["resourceVersion"] == version else "changed"
    raise NanocloudError(f"bundle {'/'.join(_key(bundle))} keeps changing; apply the file again")


def _show(server: Api, wanted: list[dict[str, Any]]) -> None:
    """The requests that create them."""
    for bundle in wanted:
        try:
            server.request("POST", bundles_path(_key(bundle)[0]), body=bundle, query=_STRICT)
        except CurlPrinted:
            continue


def _find(server: Api, bundle: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = server.request("GET", bundles_path(*_key(bundle)))
    except ApiError as exc:
        if exc.code != 404:
            raise
        return None
    return found


def _laid_over(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The spec is the file's; labels and annotations are added to those that are there."""
    meta = dict(stored["metadata"])
    for field in ("labels", "annotations"):
        merged = {**(meta.get(field) or {}), **(wanted["metadata"].get(field) or {})}
        # From now on it is the user's own, and stays when the service that it was once installed for goes.
        merged.pop(_INSTALLED_FOR, None)
        meta[field] = merged
    return {**stored, "metadata": meta, "spec": wanted["spec"]}
