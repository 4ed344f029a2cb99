"""The catalogue: recipes as folders of ordinary files, read and checked here.

A recipe is ``catalog/<service>/`` with

- ``Containerfile``: ordinary, ``FROM nanocloud/debian:12``; the folder is its context;
- ``recipe.toml``: ``description``; ``capabilities`` where the service cannot do without; a table ``[[artifact]]`` for
  each file that is fetched by URL and digest (see ``Artifact``);
- ``options.json`` and ``exports.json``: the labels ``io.nanocloud.options`` and ``io.nanocloud.exports``, laid out for
  people. The builder gives them to the image as one line. Their grammar is the planner's business; here only the JSON
  shape is checked, so that a slip shows where it was made;
- ``notes.md``: what the service's page says beyond that (see pages.py); an image does not depend on it.

Folders whose name begins with ``_`` are no services.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.errors import InvalidError, NotFoundError
from nanocloud.models.converter import structure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CATALOG = Path(__file__).with_name("catalog")
NOTES = "notes.md"

_SERVICE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label, as a Bundle's spec.service
_CAPABILITY = re.compile(r"CAP_[A-Z_]{2,40}")
_FILE, _ARGUMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"), re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_URL, _SHA256 = re.compile(r"https://[^\s@/?#]+/[^\s?#]+"), re.compile(r"[0-9a-f]{64}")
_FILES_LIMIT, _BYTES_LIMIT = 1000, 16 * 1024 * 1024
_REQUIRED = ("Containerfile", "recipe.toml", "options.json", "exports.json")


@attrs.frozen(kw_only=True)
class Artifact:
    """A file that the builder fetches; the Containerfile takes it with ``COPY --from=artifacts <file> ...``."""

    file: str
    url: str
    sha256: str
    argument: str | None = None
    """The build argument that names a mirror's URL or a local file instead."""


@attrs.frozen(kw_only=True)
class RecipeSettings:
    """``recipe.toml``."""

    description: str
    capabilities: tuple[str, ...] = ()
    artifact: tuple[Artifact, ...] = ()


@attrs.frozen(kw_only=True)
class Exports:
    """``exports.json``."""

    options: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    owned: dict[str, tuple[int, ...]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Recipe:
    """A service that can be built; everything was read and checked."""

    service: str
    folder: Path
    description: str
    capabilities: tuple[str, ...]
    options: dict[str, list[str]]
    exports: Exports
    artifacts: tuple[Artifact, ...]
    digest: str
    """SHA-256 (hex) over the names and contents of all files that an image can depend on."""

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels, JSON on one line."""
        labels = {
            "io.nanocloud.exports": _compact(
                {name: value for name, value in attrs.asdict(self.exports).items() if value or name != "owned"}
            ),
            "io.nanocloud.options": _compact(self.options),
            "org.opencontainers.image.description": self.description,
            "org.opencontainers.image.title": self.service,
        }
        if self.capabilities:
            labels["io.nanocloud.capabilities"] = _compact(self.capabilities)
        return labels


def services(catalog: Path = CATALOG) -> Sequence[str]:
    """The names of all recipes, sorted."""
    return sorted(
        path.name for path in catalog.iterdir() if _SERVICE.fullmatch(path.name) and (path / "Containerfile").is_file()
    )


def load(service: str, catalog: Path = CATALOG) -> Recipe:
    """Read one recipe.

    Raises:
        NotFoundError: no recipe of that name; lists near matches.
        InvalidError: a file is missing or says something that cannot be; names file and field.
    """
    known = services(catalog)
    if service not in known:
        near = difflib.get_close_matches(service, known, n=3, cutoff=0.5)
        raise NotFoundError(
            f"the catalogue has no recipe {service!r}",
            hint=f"near: {', '.join(near)}" if near else f"it has {', '.join(known) or 'none at all'}",
        )
    folder = catalog / service
    for name in _REQUIRED:
        if not (folder / name).is_file():
            raise InvalidError(f"recipe {service} has no {name}", hint=f"its files are in {folder}")
    settings = structure(_toml(folder / "recipe.toml"), RecipeSettings, what=f"recipe {service}, recipe.toml")
    for capability in settings.capabilities:
        if not _CAPABILITY.fullmatch(capability):
            raise InvalidError(
                f"recipe {service}, recipe.toml: capabilities holds {capability!r}; it must be a name as CAP_CHOWN"
            )
    _check_artifacts(settings.artifact, f"recipe {service}, recipe.toml")
    return Recipe(
        service=service,
        folder=folder,
        description=settings.description,
        capabilities=settings.capabilities,
        options=_options(folder / "options.json"),
        exports=structure(_json(folder / "exports.json"), Exports, what=f"recipe {service}, exports.json"),
        artifacts=settings.artifact,
        digest=folder_digest(folder),
    )


def _check_artifacts(artifacts: Sequence[Artifact], where: str) -> None:
    for artifact in artifacts:
        for field, value, form, allowed in (
            ("file", artifact.file, _FILE, "a plain file name"),
            ("url", artifact.url, _URL, "an https address"),
            ("sha256", artifact.sha256, _SHA256, "64 digits of lower-case hex"),
            ("argument", artifact.argument or "X", _ARGUMENT, "a name of upper-case letters, digits and _"),
        ):
            if not form.fullmatch(value):
                raise InvalidError(f"{where}: artifact {field} is {value!r}; it must be {allowed}")
    for field, values in (
        ("file", [artifact.file for artifact in artifacts]),
        ("argument", [artifact.argument for artifact in artifacts if artifact.argument]),
    ):
        for value in values:
            if values.count(value) > 1:
                raise InvalidError(f"{where}: two artifacts have the {field} {value!r}")


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over a folder's files: names, sizes, contents; not modes or times, which a checkout may change.

    Better words in ``notes.md`` are no reason to build anew.
    """
    digest, size = hashlib.sha256(), 0
    for number, path in enumerate((path for path in _files(folder) if path != folder / NOTES), start=1):
        content = path.read_bytes()
        size += len(content)
        if number > _FILES_LIMIT or size > _BYTES_LIMIT:
            raise InvalidError(f"{folder} holds more than {_FILES_LIMIT} files or {_BYTES_LIMIT} bytes")
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise InvalidError(f"{path} is a symbolic link; a recipe is made of plain files")
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _options(file: Path) -> dict[str, list[str]]:
    data = _json(file)
    if not isinstance(data, dict) or not all(
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens) for tokens in data.values()
    ):
        raise InvalidError(f"{file}: must be one object whose values are lists of strings")
    return data


def _json(file: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise InvalidError(f"{file}: {name!r} stands there twice")
        return dict(pairs)

    try:
        return json.loads(file.read_bytes(), object_pairs_hook=unique)
    except ValueError as exc:
        raise InvalidError(f"{file} is not JSON: {exc}") from exc


def _toml(file: Path) -> Any:
    try:
        return tomllib.loads(file.read_text())
    except ValueError as exc:
        raise InvalidError(f"{file} is not TOML: {exc}") from exc


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
