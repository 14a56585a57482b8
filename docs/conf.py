"""How Sphinx makes the documentation: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import pbnn  # noqa: E402

project = "pbnn"
author = "The pbnn developers"
copyright = "The pbnn developers, MIT licence"
version = release = pbnn.__version__
html_title = f"pbnn {version}"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "site_tools",
]
exclude_patterns = ["_build", "examples", "**/GALLERY_HEADER.rst"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pbnn.css"]
html_copy_source = False
html_math_renderer = "mathml"

# Docstrings write `name` for what may be an argument or an object: a link where there is one.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache", "myst.header"]

linkcheck_timeout = 20
linkcheck_workers = 4

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/[a-z]\w*\.py$",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 0,
    "remove_config_comments": True,
    "download_all_examples": False,
    "reset_modules": ("matplotlib",),
}
