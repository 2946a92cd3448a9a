"""How Sphinx builds the site: from the documents of the repository, where they are, and from docstrings.

`make docs` builds it. Sphinx's source folder is the root of the repository, so there is one copy of each document, and
a relative link means the same on the site and on the repository's pages.
"""

import sys
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))  # autodoc imports the code

project = "PoseTune"
root_doc = "docs/index"
include_patterns = ["*.md", "tune_runs/*.md", "cluster/*.md", "cluster/launch/*.md", "docs/**"]
# Sphinx would walk through these folders, and find nothing.
exclude_patterns = [".*", "build", "data", "results", "tests", "**/__pycache__"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True  # a reference to something that is not there is a warning, and warnings are errors
nitpick_ignore_regex = [
    ("py:.*", r"(collections|torch|numpy|pyarrow|os|pathlib|types|typing)\..*"),  # they have sites of their own
    ("py:exc", r"\w+"),  # after "Raises", docstrings name errors without their modules
    ("py:class", r".*\.[A-Z]"),  # type variables
]

myst_enable_extensions: list[str] = []  # what GitHub's Markdown has
myst_heading_anchors = 4  # the anchors that GitHub gives to headings
nb_execution_mode = "off"  # a quick build; `make docs` runs the tutorial, and shows its output
nb_execution_in_temp = True  # it writes files
nb_execution_timeout = 300
nb_execution_raise_on_error = True
NotebookClient.coalesce_streams = True  # a cell's output arrives in pieces, which may end within a line

default_role = "code"  # `name` in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # the docstring of a class describes its attributes
napoleon_attr_annotations = False  # the signature has their types
highlight_language = "none"

html_theme = "furo"
html_title = "PoseTune"
html_extra_path = ["site_root"]  # the first page of the site is in a folder
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Is called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_first_line, priority=400)  # before that of Napoleon


def keep_first_line(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Stops Napoleon from taking the words before a colon for a type, since types are annotations here."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")  # an escaped line break, which is nothing
