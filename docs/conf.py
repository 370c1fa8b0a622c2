"""The site: `make docs` writes it to docs/_build/html.

Pages that follow from the code are written before Sphinx reads: the reference (_ext/reference.py),
the gallery (_ext/gallery.py) and, by `loraone_theory.site.write`, those of the claims. None of them
is committed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

import loraone_theory.site  # noqa: E402

project = "loraone_theory"
author = "the authors of loraone_theory"
project_copyright = "the authors of loraone_theory, Apache-2.0"
version = release = loraone_theory.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "formulas",
    "indices",
    "anchors",
    "access",
    "rootpages",
    "reference",
    "gallery",
    "claimlinks",
]
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]

# Markdown as GitHub reads it, so that the same files are readable in both places.
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4
# The tutorial is run when its cells have changed since they were last run.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Reference", "returns_style")]
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"loraone_theory {release}"
html_static_path = ["_static"]
html_css_files = ["site.css", "claims.css"]
html_js_files = [("claims.js", {"defer": "defer"})]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

loraone_theory.site.write(HERE / "claims")
