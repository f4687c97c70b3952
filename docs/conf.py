"""Sphinx's configuration of the site.

    uv run --group docs sphinx-build -M html docs docs/_build -W

Nothing is fetched: pages, fonts and scripts come from installed packages. `-D run_notebooks=0` leaves the notebooks as
the last build ran them, which is enough to read one's own words.
"""

import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

from tools import api, cards, citation, command_line, formats, links, notebooks, tables  # noqa: E402

import braincorl  # noqa: E402

project = "braincorl"
author = "The braincorl contributors"
version = release = braincorl.__version__
project_copyright = author

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "reference/tables/*", "results/*", "tools"]
root_doc = "index"
smartquotes_action = "qe"  # quotes and ellipses, but never a dash of `--option`
templates_path = ["_templates"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tools/notebooks.py has run them
nb_merge_streams = True
suppress_warnings = ["myst.header"]  # cards begin where their folder's page ends

autosummary_generate = [api.PAGE]  # it is written before autosummary looks
autodoc_typehints = "none"  # numpydoc says types, with shapes and units
numpydoc_show_class_members = False
copybutton_exclude = ".linenos, .gp, .go"

# Links to other projects' names need the network, so only where pages are published.
intersphinx_mapping = {
    name: (url, None)
    for name, url in {
        "numpy": "https://numpy.org/doc/stable/",
        "sklearn": "https://scikit-learn.org/stable/",
        "nilearn": "https://nilearn.github.io/stable/",
    }.items()
    if os.environ.get("READTHEDOCS")
}

html_theme = "pydata_sphinx_theme"
html_title = "braincorl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sourcelink_suffix = ""
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
html_theme_options = {
    "logo": {"text": "braincorl"},
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc", "download"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 4,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Pages without pages below them have nothing to list beside them.
html_sidebars = {path.stem: [] for path in FOLDER.glob("*.md")}
html_context = {"default_mode": "auto"}


def only_ours(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what classes inherit from scikit-learn and torch: it is described there."""
    home = getattr(getattr(thing, "fget", thing), "__module__", None) or ""
    return True if home and not home.startswith("braincorl") else None


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", only_ours)
    app.add_config_value("run_notebooks", True, "env", bool)
    app.connect("builder-inited", cards.write_pages, priority=100)
    app.connect("builder-inited", citation.write_pages, priority=100)
    app.connect("builder-inited", command_line.write_pages, priority=100)
    app.connect("builder-inited", formats.write_pages, priority=100)
    app.connect("builder-inited", api.write_pages, priority=100)
    app.connect("builder-inited", notebooks.write_gallery, priority=100)
    app.connect("doctree-read", tables.mark_numbers)
    app.connect("build-finished", links.check_site)
