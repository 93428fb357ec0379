"""Write the repository's address everywhere it has to stand: what `make badges REPO=owner/name` does.

Its one place is `[project.urls]` in pyproject.toml; from there it goes into CITATION.cff, the set-up cell of every
notebook, and the Colab and Kaggle badges under the title of every notebook and of README.md.

    python notebooks/badges.py owner/name      a new address
    python notebooks/badges.py                 the address that pyproject.toml has
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]*\w")
BADGES = re.compile(r"^\[!\[Open in Colab\].*\n?", re.MULTILINE)


def address(root: Path = ROOT) -> str:
    """The repository's address as pyproject.toml has it."""
    return ADDRESS.search((root / "pyproject.toml").read_text("utf-8")).group()


def badges(repository: str, notebook: str) -> str:
    """One line of Markdown: this notebook on Colab and on Kaggle."""
    at = f"{repository.removeprefix('https://')}/blob/main/notebooks/{notebook}"
    colab = f"https://colab.research.google.com/{at.replace('github.com', 'github', 1)}"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://{at}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]({kaggle})"
    )


def under_title(text: str, line: str) -> str:
    """`line` as the paragraph after the H1 that `text` begins with, in place of badges that are there."""
    title, _, rest = BADGES.sub("", text).partition("\n")
    return "\n\n".join(part for part in (title, line, rest.lstrip("\n")) if part)


def write(repository: str, root: Path = ROOT) -> None:
    """Put the address into every file that shows it."""
    for name in ("pyproject.toml", "CITATION.cff"):
        file = root / name
        file.write_text(ADDRESS.sub(repository, file.read_text("utf-8")), "utf-8")
    readme = root / "README.md"
    readme.write_text(
        under_title(readme.read_text("utf-8"), badges(repository, "00_quickstart.ipynb")), "utf-8"
    )
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        title = book.cells[0]
        title.source = under_title(title.source, badges(repository, path.name))
        for cell in book.cells:
            if cell.cell_type == "code" and "REPOSITORY = " in cell.source:
                cell.source = ADDRESS.sub(repository, cell.source)
                break
        nbformat.write(book, path)


if __name__ == "__main__":
    wanted = sys.argv[1].removeprefix("https://github.com/").strip("/") if sys.argv[1:] else None
    if wanted is not None and not re.fullmatch(r"[\w.-]+/[\w.-]*\w", wanted):
        sys.exit(f"the repository is named owner/name, not {sys.argv[1]!r}")
    write(f"https://github.com/{wanted}" if wanted else address())
    print(f"address written: {address()}")
