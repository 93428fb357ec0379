"""Sphinx's settings: the site from README's sections, the executed notebooks and the docstrings.

    make docs        everything, into build/site

A page that has the title of a section of README begins with that section, so nothing is written twice. The
notebooks and READMEs that the pages link to are copied beside them, where README's own links find them.
Whatever a page loads, it loads from the site: MathJax is copied into it from a wheel.
"""

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

from badges import BADGES, address  # noqa: E402

COPIED = ("CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "data/sae/README.md", "data/readers/README.md")
README = (ROOT / "README.md").read_text("utf-8")

# ---- what is built ----

project = "saelib"
author = copyright = "the saelib authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["requirements.txt"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # no widget is committed: none has to be shown
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True

# ---- how it looks ----

html_theme = "sphinx_book_theme"
html_title = "What do my sentence embeddings mean?"
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", str(MATHJAX)]
mathjax_path = MATHJAX.name
html_css_files = ["site.css"]
html_extra_path = [str(p) for p in [ROOT / "build" / "browser" / "page"] if p.is_dir()]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "repository_url": address(ROOT),
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 2,
    "show_toc_level": 2,
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}


def sections() -> dict[str, str]:
    """README by its headings: title → Markdown. Its own title has what stands before the first heading."""
    parts = re.split(r"^(#{1,2} .+)$", BADGES.sub("", README), flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {title.lstrip("# ").strip(): text.strip() for title, text in pairs}


def collect() -> None:
    """Copy what lies elsewhere in the repository to where README's links point, seen from these pages."""
    (HERE / "notebooks").mkdir(exist_ok=True)
    for old in (HERE / "notebooks").glob("*.ipynb"):
        old.unlink()
    shutil.copytree(ROOT / "notebooks" / "figures", HERE / "notebooks" / "figures", dirs_exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        links = re.findall(r"\]\((https://[^)]+/notebooks/[^)]+)\)", book.cells[0].source)
        hosts = zip(("Colab", "Kaggle"), links, strict=True)
        line = " · ".join(f"[Open in {host}]({link})" for host, link in hosts)
        book.cells[0].source = BADGES.sub("", book.cells[0].source).replace("\n", f"\n\n{line}\n", 1)
        nbformat.write(book, HERE / "notebooks" / path.name)
    for name in COPIED:
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)
        (HERE / name).write_text(text, "utf-8")


def readme_first(app: object, name: str, source: list[str]) -> None:
    """A page with the title of a section of README: that section, then what the page has of its own."""
    title, _, rest = source[0].partition("\n")
    if title.startswith("# ") and (text := sections().get(title[2:].strip())):
        source[0] = f"{title}\n\n{text}\n\n{rest}"
    if "/" not in name:  # README lies above these pages, which are read on GitHub too
        source[0] = source[0].replace("](../", "](").replace("](docs/", "](")


def as_written(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """|x| in a docstring is an absolute value, not a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app: object) -> None:
    """What Sphinx calls first."""
    app.connect("autodoc-process-docstring", as_written)
    app.connect("source-read", readme_first)


collect()
