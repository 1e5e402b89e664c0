"""How Sphinx builds the reading edition: the settings of `make site`.

Sphinx reads the repository itself, so a page stands in the site where its file stands here, and a
link that breaks is a warning. The lessons are never executed.
"""

from importlib.metadata import distribution

from sphinx.application import Sphinx

from tools.site import pages

project = "Data Poisoning from Scratch"
author = "The Data Poisoning from Scratch authors"
copyright = f"{author}. Text: CC BY 4.0. Code: MIT"
html_title = project

extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["*.md", "data/README.md", "notebooks/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "site", "notebooks/workshop"]

nb_execution_mode = "off"
nb_custom_formats = {".ipynb": "tools.site.pages.read_lesson"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["style.css", "search.js"]
html_css_files = ["style.css"]
html_js_files = ["search.js"]
html_extra_path = ["index.html"]
html_copy_source = False
html_use_index = False

# MathJax as one file, with its fonts: a page shows its formulas without a network.
mathjax = "sphinx-mathjax-offline"
html_static_path.append(
    str(distribution(mathjax).locate_file(f"{mathjax}/static/mathjax/tex-svg.js"))
)
mathjax_path = "tex-svg.js"


def setup(app: Sphinx) -> None:
    app.connect("source-read", pages.link_folders)
    app.connect("source-read", pages.add_contents)
    app.connect("doctree-read", pages.describe_figures)
