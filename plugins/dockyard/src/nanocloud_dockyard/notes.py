"""``notes.md`` of a recipe: what a service's page says beyond its labels. It is no part of the image.

- Text before the first heading introduces the service.
- The list below ``## Options`` says what options mean: ``- `name`: what it is``, with following lines indented.
- Every other section closes the page as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from nanocloud.errors import InvalidError
from nanocloud.planning.label import image_contract
from nanocloud_dockyard.recipes import NOTES, Recipe

_OPTIONS = "## Options\n"
_ENTRY = re.compile(r"- `([a-z][a-z0-9_]*)`: (.+(?:\n  .+)*)")


@attrs.frozen(kw_only=True)
class Notes:
    """``notes.md``, taken apart."""

    intro: str = ""
    meanings: Mapping[str, str] = attrs.field(factory=dict)
    """Option -> what it means, on one line."""
    rest: str = ""


def read_notes(recipe: Recipe) -> Notes:
    """Read ``notes.md``; empty without the file.

    Raises:
        InvalidError: an entry below "Options" that is no entry, or names no option of the recipe.
    """
    file = recipe.folder / NOTES
    if not file.exists():
        return Notes()
    intro, *sections = re.split(r"^(?=## )", file.read_text(), flags=re.MULTILINE)
    meanings: dict[str, str] = {}
    for section in sections:
        if section.startswith(_OPTIONS):
            meanings |= _meanings(str(file), section.removeprefix(_OPTIONS).strip())
    unknown = sorted(meanings.keys() - image_contract(recipe.labels).options.keys())
    if unknown:
        raise InvalidError(f"{file} explains {', '.join(unknown)}; the recipe has no such option")
    rest = "".join(section for section in sections if not section.startswith(_OPTIONS))
    return Notes(intro=intro.strip(), meanings=meanings, rest=rest.strip())


def _meanings(file: str, text: str) -> dict[str, str]:
    found = {}
    for entry in re.split(r"\n(?=- )", text):
        match = _ENTRY.fullmatch(entry)
        if not match:
            raise InvalidError(f"{file}: {entry[:60]!r} is not of the form - `option`: what it means")
        found[match[1]] = " ".join(match[2].split())
    return found
