"""Build the documentation as a site: ``python docs/sphinx/build.py [FOLDER]``; a warning is an error.

FOLDER (``.cache/site``) gets ``source``, the pages as the generator reads them, and ``html``, the site. Both are made
anew each time: nothing is kept that could hide a page that is no more.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

import pages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def build(folder: Path) -> int:
    """0 where the site is in ``folder``; else the reasons stand on standard error."""
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    for name, text in pages.collect(ROOT).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    options = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(HERE), "-d", str(folder / "doctrees")]
    return build_main([*options, str(source), str(folder / "html")])


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".cache" / "site"))
