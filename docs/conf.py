"""Sphinx configuration: MyST pages, the furo theme, Google-style docstrings."""

from importlib.metadata import version as installed_version

project = "curricula"
author = "the curricula authors"
release = version = installed_version("curricula")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"curricula {release}"
html_show_copyright = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are fields of the class, not objects of their own
