"""How fast the browser is: what its limits say, measured.

Run: python tests/benchmarks/browser.py                   3,072 features × 36,000 texts (synthetic), in Python and in Chromium
     python tests/benchmarks/browser.py --size 16384x200000
     python tests/benchmarks/browser.py --encoder          with the real encoder, on data/sae and the wiki-vital sentences:
                                                           words of a text of 200 marked, a page with marked words written
Prints seconds of `make_view` and the peak memory of the process, milliseconds from a selection to the card (31 of them;
in Chromium: to the frame that shows it), seconds to the first paint, size of the page, how soon it paints and shows its first card.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "browser")]


def milliseconds(call, over) -> list[float]:
    took = []
    for value in over:
        began = time.perf_counter()
        call(value)
        took.append(1000 * (time.perf_counter() - began))
    return took


def in_python(size: str) -> None:
    """`make_view`, the widgets, selections, the page: what the kernel does."""
    import test_in_chromium as walk

    from saelib.browser.app import Browser
    from saelib.browser.report import page

    folder = tempfile.mkdtemp()
    code = (
        walk.SETUP.replace("ROOT", repr(str(ROOT)))
        .replace("FOLDER", repr(folder))
        .replace("SIZE", repr(size))
    )
    before, call = code.split("view = make_view(")
    names: dict = {}
    exec(before, names)
    began = time.perf_counter()
    exec("view = make_view(" + call, names)
    seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{size}: make_view {seconds:.1f} s, peak {peak:.1f} GB (with making the texts)")
    (first,) = milliseconds(lambda f: names.update(browser=Browser(names["view"], feature=f)), [5])
    (second,) = milliseconds(lambda f: names.update(browser=Browser(names["view"], feature=f)), [6])
    took = milliseconds(lambda f: setattr(names["browser"].state, "feature", f), range(100, 131))
    print(
        f"widgets made in {first:.0f} ms, again in {second:.0f} ms; a selection {statistics.median(took):.1f} ms, {max(took):.1f} at most"
    )
    if names["d_sae"] > 4096:  # a page is for fewer
        return
    began = time.perf_counter()
    content = page(names["view"], mark=0).encode("utf-8", "replace")
    print(
        f"page of {names['d_sae']:,} features: {len(content) / 1e6:.1f} MB in {time.perf_counter() - began:.1f} s"
    )
    (Path(folder) / "browser.html").write_bytes(content)
    painted, card = openings(Path(folder) / "browser.html")
    print(
        f"opened in Chromium, it paints after {painted:.2f} s, its first card stands there after {card:.2f} s"
    )


WATCH = """
const card = new MutationObserver(() => {
  if (document.querySelector("#card h3")) { window.card = performance.now(); card.disconnect(); }
});
card.observe(document, { childList: true, subtree: true });
"""


def openings(file: Path, times: int = 5) -> tuple[float, float]:
    """Seconds until a written page, opened in a new tab, paints its first contents, and until its first card is
    in the document: medians, by the page's own clock."""
    import test_in_chromium as walk
    from playwright.sync_api import sync_playwright

    took = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=walk.CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1366, "height": 768})
            tab.add_init_script(WATCH)
            tab.goto(file.as_uri())
            walk.until(tab, "window.card")
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            took.append(tab.evaluate(f"[{paint}, window.card]"))
    painted, card = (statistics.median(column) / 1000 for column in zip(*took, strict=True))
    return painted, card


def in_chromium(size: str) -> None:
    """The first tests of the walk in JupyterLab, at this size."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BROWSER_SIZE": size, "SCREENSHOTS": folder}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:xdist",
            str(ROOT / "tests/browser/test_in_chromium.py"),
            "-k",
            "test_figures",
        ]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        print("in Chromium:", json.loads((Path(folder) / "figures.json").read_text()), flush=True)


def with_the_encoder() -> None:
    """What needs embeddings: marked words."""
    import saelib as sl
    from saelib.browser import cards
    from saelib.browser.lookup import find
    from saelib.browser.report import page

    encoder = sl.load_encoder()
    store = sl.EmbeddingStore.extract(ROOT / "data" / "stores" / "all", sl.load_corpus(), encoder)
    sae, names, _ = sl.from_pretrained(ROOT / "data" / "sae")
    view = sl.make_view(sae, sl.read_texts(sae, store), names, encoder=encoder)
    words = " ".join(view.texts[:40]).split()
    texts = [" ".join(words[i : i + 200]) for i in range(0, 7 * 40, 40)]
    took = milliseconds(lambda text: cards.highlighted(view, text, 5), texts)
    print(f"words of a text of 200 marked: {statistics.median(took):.0f} ms, {max(took):.0f} at most")
    for features in (find(view)[:256], find(view)):
        for mark in (0, 1, 3, None):
            view.effects.clear()
            began = time.perf_counter()
            size = len(page(view, features, mark=mark).encode()) / 1e6
            print(
                f"page of {len(features)} features, words marked in {mark} texts of each: {time.perf_counter() - began:.1f} s, {size:.1f} MB",
                flush=True,
            )


def main() -> None:
    """One of the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="3072x36000")
    parser.add_argument("--encoder", action="store_true")
    given = parser.parse_args()
    if given.encoder:
        with_the_encoder()
        return
    in_chromium(given.size)
    in_python(given.size)


if __name__ == "__main__":
    main()
