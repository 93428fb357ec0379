"""Execute notebooks in place, in a fresh kernel each, and keep plain outputs only: what `make outputs` does.

    python notebooks/outputs.py                        all of them, in reading order
    python notebooks/outputs.py 03_topk_batchtopk      some of them

The last figure of the quick start becomes README's picture. A notebook whose cell raises stays as it was on disk.
"""

import base64
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
PICTURE = FOLDER / "figures" / "overview.png"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def is_bar(output: nbformat.NotebookNode) -> bool:
    """A progress bar as it stood at the start."""
    return "0%|          | 0/" in output.get("data", {}).get("text/plain", "")


def stripped(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without widget state, times of execution and what was written to stderr."""
    book.metadata.pop("widgets", None)
    book.metadata["kernelspec"] = KERNEL
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not is_bar(o)]
            for output in cell.outputs:  # a widget keeps its text: nobody sees it without a kernel
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return book


def last_figure(book: nbformat.NotebookNode) -> bytes:
    """The PNG that the last drawing cell shows."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return base64.b64decode(figures[-1])


def execute(path: Path) -> None:
    """Run every cell, with the notebook's folder as working directory and no limit on time."""
    began, book = time.perf_counter(), nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=None, resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(stripped(book), path)
    if path.stem == "00_quickstart":
        PICTURE.write_bytes(last_figure(book))
    print(
        f"{path.name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True
    )


if __name__ == "__main__":
    for path in [FOLDER / f"{Path(name).stem}.ipynb" for name in sys.argv[1:]] or sorted(
        FOLDER.glob("*.ipynb")
    ):
        execute(path)
