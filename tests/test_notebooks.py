"""Every notebook runs top to bottom (nbmake, on the preset that readers get) and is fit to be read."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_form(path):
    book = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 500_000, "over 500 kB"
    assert "widgets" not in book.metadata and book.metadata.kernelspec.name == "python3"
    headings = [
        line
        for c in book.cells
        if c.cell_type == "markdown"
        for line in c.source.splitlines()
        if line.startswith("#")
    ]
    assert sum(h.startswith("# ") for h in headings) == 1
    for cell in book.cells:
        assert cell.source.strip(), "an empty cell"
        assert "execution" not in cell.metadata
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 25
            assert all(o.output_type != "error" and o.get("name") != "stderr" for o in cell.outputs)


@pytest.mark.timeout(1200)
def test_they_run():
    assert len(NOTEBOOKS) >= 6
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbmake",
        "--nbmake-timeout=400",
        "--timeout=600",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, *map(str, NOTEBOOKS)], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
