"""Required options that were not given: asked for on a terminal, listed in one error elsewhere.

Which are missing the node says when it plans, for that depends on the other options; how each looks (form, choices,
secret or not) is in the schema that the catalogue serves.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import typer

from nanocloud.client.api import CATALOGUE_PATH, ApiError
from nanocloud.errors import UsageError
from nanocloud.output import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nanocloud.client.api import Api

_REQUIRED, _PREFIX = "FieldValueRequired", "spec.options."
_UNKNOWN = {"x-nanocloud-secret": True}
"""The schema of an option that nobody describes: what is typed might be a secret."""


class MissingOptionsError(UsageError):
    """Options that must be given, and nobody to ask."""


def missing_options(error: ApiError) -> list[str]:
    """The options that an answer says are missing; none where something else is wrong as well."""
    causes = (error.cause.get("details") or {}).get("causes") or []
    names = [str(cause.get("field", "")).removeprefix(_PREFIX) for cause in causes]
    alone = all(cause.get("reason") == _REQUIRED for cause in causes)
    return names if alone and all(str(cause.get("field", "")).startswith(_PREFIX) for cause in causes) else []


def supply(server: Api, service: str, image: str | None, names: Sequence[str]) -> dict[str, str]:
    """Values for options that are missing.

    Raises:
        MissingOptionsError: this is no terminal; lists every option with what is allowed.
    """
    properties = _properties(server, service, image)
    schemas = {name: properties.get(name) or _UNKNOWN for name in names}
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise _listed(service, schemas)
    typer.echo(f"{service} needs {_count(names)}", err=True)
    return {name: _ask(name, schema) for name, schema in schemas.items()}


def _properties(server: Api, service: str, image: str | None) -> Mapping[str, Any]:
    """Empty for a service that the catalogue does not know: it was installed from an image once."""
    try:
        if image is None:
            answer = server.request("GET", f"{CATALOGUE_PATH}/{service}")
        else:
            answer = server.request("POST", CATALOGUE_PATH, body={"spec": {"image": image}})
    except ApiError as exc:
        if exc.code != 404:
            raise
        return {}
    found: Mapping[str, Any] = answer["status"]["schema"]["properties"]
    return found


def _listed(service: str, schemas: Mapping[str, Mapping[str, Any]]) -> MissingOptionsError:
    shown = ", ".join(f"{name} ({_form(schema)})" for name, schema in schemas.items())
    words = [
        f"--option-file {name}=FILE" if _is_secret(schema) else f"--option {name}=VALUE"
        for name, schema in schemas.items()
    ]
    return MissingOptionsError(f"{service} needs {_count(schemas)}: {shown}", hint=f"add {' '.join(words)}")


def _ask(name: str, schema: Mapping[str, Any]) -> str:
    """Until the answer is one that the schema allows."""
    while True:
        value: str = typer.prompt(
            f"{name} ({_form(schema)})", hide_input=_is_secret(schema), err=True, default="", show_default=False
        )
        if (wrong := _refusal(value, schema)) is None:
            return value
        typer.echo(f"  {wrong}", err=True)


def _refusal(value: str, schema: Mapping[str, Any]) -> str | None:
    if not value:
        return "a value is needed"
    if "enum" in schema and value not in schema["enum"]:
        return f"choose one of: {', '.join(map(printable, schema['enum']))}"
    if len(value) > schema.get("maxLength", len(value)):
        return f"is longer than {schema['maxLength']} characters"
    if not re.search(schema.get("pattern", ""), value):
        return f"write {schema.get('description', 'it in another form')}"
    return None


def _form(schema: Mapping[str, Any]) -> str:
    if _is_secret(schema):
        return "secret"
    if "enum" in schema:
        return "one of " + ", ".join(printable(choice) for choice in schema["enum"])
    return str(schema.get("description", "any text"))


def _is_secret(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("x-nanocloud-secret"))


def _count(names: Sequence[str] | Mapping[str, Any]) -> str:
    return "one option that has no default" if len(names) == 1 else f"{len(names)} options that have no default"
