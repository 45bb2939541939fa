"""The site: Sphinx with furo, Markdown pages, formulas as MathML; nothing is fetched to build it or to read it.

- `make docs` builds it into build/docs; `tests/test_docs.py` builds it the same way and allows no warning
- `site_parts.py` has what is ours: MathML, links into the repository, the command reference
"""

import sys
from pathlib import Path

from biwaa import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "biwaa"
author = "the authors of biwaa"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_parts"]
exclude_patterns = ["_build"]
language = "en_GB"

html_theme = "furo"
html_title = "biwaa"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_math_renderer = "mathml"

default_role = "code"
"""Docstrings mark code by single backticks."""
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_ipywidgets_js = {}
"""Otherwise a page with a widget would load scripts from elsewhere."""
nb_output_stderr = "remove"
