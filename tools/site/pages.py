"""What the reading edition changes in a page: tools/site/conf.py names these functions."""

import posixpath
import re

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from sphinx.application import Sphinx

from tools.badges import public_address
from tools.figures import stored
from tools.lessons import FOLDED, has_tag

ADDRESS = public_address()
BADGE = re.compile(r"(?:\w[\w ]*)?\[!\[([^]]*)\]\(http[^)]*\)\]")
FOLDER = re.compile(r"\]\(([\w./-]+)/\)")
CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{names}
```
"""


def read_lesson(text: str) -> NotebookNode:
    """Read a lesson: badges become links that need no network, what JupyterLab folds is folded."""
    nb = nbformat.reads(text, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub(r"[\1]", cell.source)
            continue
        for tag, name in FOLDED.items():
            if has_tag(cell, tag):
                cell.metadata.tags.append("hide-input")
                prompts = {"show": f"Show the {name}", "hide": f"Hide the {name}"}
                cell.metadata.mystnb = {f"code_prompt_{way}": text for way, text in prompts.items()}
        cell.metadata.alternatives = [
            stored(output) for output in cell.outputs if "image/png" in output.get("data", {})
        ]
    return nb


def link_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a folder leads to the public repository: the site has only pages."""

    def address(link: re.Match) -> str:
        folder = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[1]))
        return f"]({ADDRESS}/tree/main/{folder})"

    source[0] = FOLDER.sub(address, source[0])


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the list of all pages, which the sidebar shows, at the end of the first page."""
    if page != app.config.root_doc:
        return
    lessons = sorted(name for name in app.env.found_docs if is_lesson(app, name))
    others = sorted(app.env.found_docs - {page, *lessons})
    for caption, names in (("Lessons", lessons), ("More", others)):
        source[0] += CONTENTS.format(caption=caption, names="\n".join(names))


def is_lesson(app: Sphinx, page: str) -> bool:
    """Whether a page is made from a notebook."""
    return app.env.doc2path(page).suffix == ".ipynb"


def describe_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Give each figure of a lesson the alternative text that is stored with it."""
    for cell in doctree.findall(nodes.container):
        texts = cell.get("cell_metadata", {}).get("alternatives", [])
        for image, text in zip(cell.findall(nodes.image), texts, strict=False):
            image["alt"] = text
