"""Sphinx: the pages of this folder, those made from the code, and how they look."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402

generate.write(HERE / "generated")

project = "subtune_jax"
copyright = "the authors of subtune_jax"
extensions = ["myst_parser", "sphinx.ext.mathjax"]
highlight_language = "none"
html_theme = "furo"
html_title = "subtune_jax"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
exclude_patterns = ["_build", "generated/parts"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
add_module_names = False
python_use_unqualified_type_names = True
suppress_warnings = ["config.cache"]
