"""The documentation builds as a site without a warning, and its reference is what the code says."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from documents import pages_below

from nanocloud import errors, hookspecs

ROOT = Path(__file__).parents[1]
SECRET = "hidden-from-readers"
CONTRACTS = sorted(path.stem for path in (ROOT / "core/src/nanocloud/providers").glob("[a-z]*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built. A link, a docstring or a page without a place in the navigation fails it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / "docs" / "sphinx" / "build.py", folder]
    environment = os.environ | {"OF_THE_BUILDER": SECRET}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "html"


def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    for file in pages_below("docs"):
        page = file.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / (page.with_name("index.html") if page.stem == "README" else page)).exists()
    for fragment in (ROOT / "changes").glob("[0-9]*.md"):
        heading = fragment.read_text().partition("\n")[0].removeprefix("# ").replace("`", "")
        assert heading.split(",")[0] in without_tags(site / "changes.html"), fragment


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_contract_has_a_page_of_reference(site: Path, contract: str) -> None:
    assert f'id="nanocloud.providers.{contract}.' in (site / "reference" / f"{contract}.html").read_text()


def test_hooks_and_errors_are_in_the_reference(site: Path) -> None:
    hooks = {name for name, value in vars(hookspecs).items() if hasattr(value, "nanocloud_spec")}
    page = (site / "reference" / "hooks.html").read_text()
    assert {name for name in hooks if f'id="nanocloud.hookspecs.{name}"' not in page} == set()
    page = (site / "reference" / "errors.html").read_text()
    assert {name for name in dir(errors) if name.endswith("Error") and f"nanocloud.errors.{name}" not in page} == set()


def test_nothing_of_who_builds_the_site_is_on_it(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.js")]
    assert len(pages) > 50
    foreign = (SECRET, str(ROOT), " at 0x")
    assert [(page.name, word) for page in pages for word in foreign if word in page.read_text()] == []


def test_raises_sections_are_fields_and_attributes_keep_their_colons(site: Path) -> None:
    page = without_tags(site / "reference" / "storage.html")
    assert "UnavailableError – it did not happen as far as this process can tell" in page
    assert "Writes since creation: 1 for a new key." in page


def without_tags(page: Path) -> str:
    """Its text, with straight quotes: the site has those of print."""
    text = html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
