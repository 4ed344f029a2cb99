"""Sphinx's configuration; ``build.py`` runs it on the pages that ``pages.py`` makes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Nanocloud"
extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings"]
html_theme = "furo"
html_title = "Nanocloud"
html_copy_source = False
html_show_copyright = False

# The anchors of headings are those that others who show Markdown make of them.
myst_heading_anchors = 5

# Docstrings: everything public in the order of the source, types as they are written.
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
# As they stand in the source: their values may be the environment of whoever builds the site.
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
add_module_names = False
