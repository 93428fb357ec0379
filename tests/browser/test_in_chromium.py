"""The browser in JupyterLab in a real Chromium: the walk-through a reader takes, hostile texts, and how long answers take.

Needs Debian's chromium (`apt-get install chromium`) or CHROMIUM=/path; skipped, with that reason, where there is none.
Screenshots are left in data/screenshots/ (or $SCREENSHOTS).
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / "data" / "screenshots"))
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium, or set CHROMIUM"),
    pytest.mark.timeout(600),
]

SETUP = """
import sys, time
sys.path[:0] = [ROOT, ROOT + "/tests"]
import numpy as np, pandas as pd, torch
from scipy import sparse
from conftest import WordEncoder
from test_browser import EVIL
from saelib.browser import browse
from saelib.explain import make_view
from saelib.training import make_sae

rng, words = np.random.default_rng(0), ["river", "castle", "violin", "galaxy", "bread", "tiger"]
d_sae, n = 3072, 36_000
texts = [*EVIL, *(" ".join(rng.choice(words, 4)) + f" number{i}" for i in range(n - len(EVIL)))]
encoder = WordEncoder()
x = rng.normal(size=(n, 48)).astype(np.float32)
x /= np.linalg.norm(x, axis=1, keepdims=True)
x[:6] = encoder.encode([t[:500] for t in EVIL])
sae = make_sae("topk", 48, d_sae, 16)
sae.fit_normalizer(torch.from_numpy(x))
with torch.no_grad():
    table = sparse.vstack([sparse.csr_matrix(sae.encode(torch.from_numpy(c)).numpy()) for c in np.array_split(x, 20)])
table = table.multiply((np.arange(d_sae) != 3071)[None]).tocsr()
table.eliminate_zeros()
labels = [f"{words[i % 6]}, feature{i}" for i in range(d_sae)]
for r, evil in enumerate(EVIL):
    labels[int(table[r].indices[0])] = evil[:300]
names = pd.DataFrame({"label": labels, "auroc": np.linspace(1, 0.5, d_sae), "kind": "concept", "note": "", "shown": True}).rename_axis("feature")
import pathlib
folder = pathlib.Path(FOLDER)
np.save(folder / "map.npy", rng.normal(size=(d_sae, 2)).astype(np.float32))
view = make_view(sae, texts, rng.choice(["art", "physics", "<b>evil</b>"], n), x, table, names, encoder, folder)
"""
SHOW = """
began = time.perf_counter()
browser = browse(view, notes=folder / "notes.json", feature=5)
print("hostile:", *sorted({int(f) for r in range(6) for f in table[r].indices}))
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A JupyterLab page on loopback with the notebook open and its cells run."""
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("lab")
    setup = SETUP.replace("ROOT", repr(str(ROOT))).replace("FOLDER", repr(str(folder)))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(setup), nbformat.v4.new_code_cell(SHOW)])
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(book, folder / "walk.ipynb")
    port, token = free_port(), "walk"
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}",
               f"--ServerApp.root_dir={folder}", "--allow-root", "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        with sync_playwright() as p:
            flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # fmt: skip
            chromium = p.chromium.launch(executable_path=CHROMIUM, args=flags)
            page = chromium.new_page(viewport={"width": 1366, "height": 900})
            page.requests = []
            page.on("request", lambda r: page.requests.append(r.url))
            page.goto(f"http://127.0.0.1:{port}/lab/tree/walk.ipynb?token={token}")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
            page.wait_for_function(
                "() => document.querySelector('.jp-Notebook-ExecutionIndicator, .jp-NotebookPanel-toolbar') !== null"
            )
            time.sleep(3)
            for label in ("No", "Close", "Dismiss"):  # a question about news, if it is asked
                for button in page.get_by_role("button", name=label, exact=True).all():
                    if button.is_visible():
                        button.click()
            page.locator(".jp-CodeCell .cm-content").first.click()
            page.keyboard.press("Shift+Enter")
            page.wait_for_function(
                "() => document.querySelectorAll('.jp-InputPrompt')[0].innerText.includes('[1]')", timeout=180_000
            )
            page.locator(".jp-CodeCell .cm-content").nth(1).click()
            page.began = time.perf_counter()
            page.keyboard.press("Shift+Enter")
            page.wait_for_selector(".sae-browser h3", timeout=60_000)
            page.first_paint = time.perf_counter() - page.began
            SHOTS.mkdir(parents=True, exist_ok=True)
            page.keyboard.press("Escape")
            page.keyboard.press("Control+b")  # hide the side bar: a 13-inch screen
            yield page
            chromium.close()
    finally:
        server.terminate()
        server.wait(20)


def heading(page):
    return page.locator(".sae-browser h3").first.inner_text()


def wait_heading(page, text):
    page.wait_for_function("t => document.querySelector('.sae-browser h3')?.innerText.includes(t)", arg=text, timeout=20_000)


def control(page, name):
    return page.locator(f".sae-browser .widget-label:text-is('{name}') + *").first


def shot(page, name):
    page.locator(".sae-browser").first.evaluate("e => e.scrollIntoView()")
    time.sleep(0.3)
    page.screenshot(path=SHOTS / f"{name}.png")


def test_walk(page):
    assert "Feature 5" in heading(page)  # labelled, live, without a click
    shot(page, "1-first")
    search = page.get_by_placeholder("a word, e.g. galaxy")
    search.fill("galaxy")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.sae-browser select')][1].options.length > 5 && [...[...document.querySelectorAll('.sae-browser select')][1].options].every(o => o.text.includes('galaxy'))",
        timeout=20_000,
    )
    page.get_by_role("button", name="next", exact=True).click()
    page.wait_for_function("() => document.querySelector('.sae-browser h3').innerText.includes('galaxy')")
    shot(page, "2-search")
    number = control(page, "feature id")
    number.fill("999999")
    number.press("Enter")
    page.wait_for_selector(".sae-error:has-text('0 to 3071')")
    assert "galaxy" in heading(page)
    number.fill("3071")
    number.press("Enter")
    wait_heading(page, "(dead)")
    assert page.locator(".sae-browser").get_by_text("No text activates this feature.").count() == 1
    shot(page, "3-dead")
    number.fill("7")
    number.press("Enter")
    wait_heading(page, "Feature 7")


def test_map_point_text_sentence_note(page):
    page.get_by_text("Feature map", exact=True).click()
    page.wait_for_selector(".sae-browser .js-plotly-plot .nsewdrag", state="attached", timeout=60_000)
    time.sleep(2)
    plot = page.locator(".sae-browser .js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    time.sleep(0.5)
    page.screenshot(path=SHOTS / "4-map.png")
    before = heading(page)
    box = plot.locator(".nsewdrag").first.bounding_box()
    for dx, dy in [(0.5, 0.5), (0.45, 0.55), (0.55, 0.45), (0.4, 0.5), (0.5, 0.4), (0.48, 0.52), (0.52, 0.47)]:
        page.mouse.move(box["x"] + box["width"] * dx, box["y"] + box["height"] * dy)
        time.sleep(0.4)
        page.mouse.down()
        page.mouse.up()
        time.sleep(0.8)
        if heading(page) != before:
            break
    assert heading(page) != before, "a click on the map selects a feature"
    page.get_by_text("Try a sentence", exact=True).click()
    page.get_by_placeholder("type or paste a text").fill("<img src=x onerror=window.hacked=1> river castle galaxy")
    page.get_by_role("button", name="show its features").click()
    page.wait_for_selector(".sae-browser h4:has-text('What the SAE sees')", timeout=20_000)
    page.get_by_role("button", name="show its features").scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "5-sentence.png")
    note = page.get_by_placeholder("your note on this feature")
    note.fill("a <b>note</b>")
    note.press("Tab")
    page.get_by_role("button", name="save note").click()
    page.get_by_text("saved in").wait_for(timeout=20_000)


def test_pages_of_texts_and_hostile_ones(page):
    number = control(page, "feature id")
    page.locator(".jp-CodeCell .cm-content").last.click()
    select = page.locator(".sae-browser select")
    opener = page.locator(".sae-browser .widget-label:text-is('open text') + select")
    for value in ("1", "2"):
        opener.select_option(index=int(value))
        page.wait_for_selector(".sae-browser h4:has-text('What the SAE sees')", timeout=20_000)
    assert select.count() >= 4
    # every feature that a hostile text activates is shown once
    page.evaluate("window.hacked = 0")
    printed = page.locator(".jp-OutputArea-output pre").filter(has_text="hostile:").last.inner_text()
    hostile = [int(f) for f in printed.split("hostile:")[1].split()]
    assert len(hostile) > 20
    for feature in hostile[::3]:
        number.fill(str(feature))
        number.press("Enter")
        wait_heading(page, f"Feature {feature}:")
    assert page.evaluate("window.hacked") == 0 and page.locator(".sae-browser script").count() == 0
    assert page.locator(".sae-browser img").count() == 0
    shot(page, "6-hostile")


def test_keyboard_reaches_the_controls_and_figures(page):
    control(page, "feature id").focus()
    wanted = {"previous", "next", "random", "a word, e.g. galaxy", "checkbox", "SELECT", "your note on this feature", "save note",
              "highlight words", "Feature map", "Export"}  # fmt: skip
    name = "() => { const e = document.activeElement; return e.innerText && e.tagName != 'SELECT' ? e.innerText : e.placeholder || (e.type == 'checkbox' ? e.type : e.tagName) }"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate(name).strip()[:30])
    assert wanted <= seen, f"not reached by the Tab key: {wanted - seen}; reached: {seen}"
    times = []
    number = control(page, "feature id")
    for feature in range(100, 121):
        number.fill(str(feature))
        began = time.perf_counter()
        number.press("Enter")
        wait_heading(page, f"Feature {feature}:")
        times.append(time.perf_counter() - began)
    figures = {
        "first paint s": page.first_paint,
        "selection median ms": 1000 * statistics.median(times),
        "selection max ms": 1000 * max(times),
    }
    (SHOTS / "figures.json").write_text(json.dumps(figures, indent=1))
    print(figures)
    assert figures["first paint s"] < 20 and figures["selection median ms"] < 2000  # a machine in trouble, not the figure
    outside = [u for u in page.requests if not u.startswith(("http://127.0.0.1", "data:", "blob:"))]
    assert not [u for u in outside if "x" == u.rsplit("/", 1)[-1]], outside
