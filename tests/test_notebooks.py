"""Every notebook is fit to be read. That it runs top to bottom is what `pytest --nbmake notebooks` tests."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

sys.path.insert(0, str(FOLDER))
from badges import address, badges  # noqa: E402

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path, kind=None):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if kind is None or cell.cell_type == kind]


def prose(path):
    """The Markdown of a notebook without its fenced code, whose comments are no headings."""
    text = "\n".join(cell.source for cell in read(path, "markdown"))
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def test_the_curriculum_is_numbered_without_gaps():
    assert len(NOTEBOOKS) >= 8 and [int(path.name[:2]) for path in NOTEBOOKS] == list(range(len(NOTEBOOKS)))
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)


@every_notebook
def test_file(path):
    book = nbformat.read(path, as_version=4)
    assert path.stat().st_size <= 500_000, "over 500 kB"
    assert "widgets" not in book.metadata and book.metadata.kernelspec.name == "python3"
    assert not any("execution" in cell.metadata for cell in book.cells), (
        "times of execution: run `make outputs`"
    )


@every_notebook
def test_headings(path):
    levels = [len(line.split()[0]) for line in prose(path).splitlines() if re.match("#+ ", line)]
    assert levels[0] == 1 and levels.count(1) == 1, "one H1, and it comes first"
    skips = [(a, b) for a, b in zip(levels, levels[1:], strict=False) if b > a + 1]
    assert not skips, f"headings skip a level: {skips}"


@every_notebook
def test_cells(path):
    for cell in read(path):
        assert cell.source.strip(), "an empty cell"
        if cell.cell_type == "code":
            lines = len(cell.source.splitlines())
            assert lines <= 25, f"{lines} lines in one cell: {cell.source[:60]}"
            assert cell.execution_count, f"not executed: {cell.source[:60]}"
            bad = [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
            assert not bad, f"an error or stderr in the output: {bad}"
            widgets = [
                o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})
            ]
            assert not widgets, "a widget, which nobody sees in a committed notebook"


@every_notebook
def test_links(path):
    linked = re.findall(r"\]\(([^)\s]+\.ipynb)\)", prose(path))
    here = [link for link in linked if not link.startswith("https://")]
    missing = [link for link in here if not (FOLDER / link).exists()]
    assert not missing, f"links to notebooks that are not there: {missing}"
    assert here or path == NOTEBOOKS[-1], "no link to the next notebook"


@every_notebook
def test_badges_open_this_file(path):
    assert badges(address(), path.name) in read(path)[0].source, "run `make badges`"
    assert len(re.findall(r"blob/main/notebooks/\S+?\.ipynb", prose(path))) == 2


@every_notebook
def test_the_set_up_cell_is_the_same_everywhere(path):
    assert read(path, "code")[0].source == read(NOTEBOOKS[0], "code")[0].source
    assert f'"{address()}"' in read(path, "code")[0].source, "another address than pyproject.toml's"
    assert "sl.start(seed=0)" in read(path, "code")[1].source
