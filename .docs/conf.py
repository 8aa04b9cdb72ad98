"""Configuration of the documentation: ``sphinx-build -W .docs .docs/_build``.

``-t gallery`` also runs the examples of the gallery and the notebooks, which takes some minutes.
Nothing in the built pages is loaded from elsewhere, so that they can be read from a folder.
"""

import re
import shutil
import sys
from pathlib import Path

import dimlab

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # for drawing.py
shutil.copytree(ROOT / "notebooks", HERE / "notebooks", dirs_exist_ok=True)
EXECUTE = tags.has("gallery")  # noqa: F821 - Sphinx defines tags

project = "dimlab"
author = "The dimlab authors"
version = release = dimlab.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    ".jupyter_cache",
    "capabilities.md",
    "examples/**.ipynb",
    "gallery",
    "jupyter_execute",
]
suppress_warnings = ["myst.header"]  # analyses/README.md goes from the first to the third level
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "cache" if EXECUTE else "off"
nb_execution_timeout = 300
nb_execution_raise_on_error = True

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = f"dimlab {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # a browser may not fetch another page that is opened as a file
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "getting-started": [], "tour": []}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = "$ "

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"/plot_" if EXECUTE else r"^$",
    "plot_gallery": EXECUTE,
    "download_all_examples": False,
    "remove_config_comments": True,
    "reset_modules": ("drawing.reset",),
    "image_srcset": ["2x"],
    "ignore_repr_types": r"matplotlib\.(axes|legend|text)",
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
    "show_signature": False,
}


def setup(app):
    """Show analyses/README.md as a page; its links are relative to another folder."""

    def read(app, name, source):
        if name == "evidence":
            text = (ROOT / "analyses" / "README.md").read_text(encoding="utf-8")
            # other pages of that folder are no pages of the site
            text = re.sub(r"\[([^]]*)\]\(([^)]*\.md)\)", r"\1 (`analyses/\2`)", text)
            source[0] = re.sub(r"\]\((?!https?:|#)", "](../analyses/", text)

    app.connect("source-read", read)
