"""The documentation: every option and every name is in it, nothing in it leads nowhere; the site itself where Sphinx is there."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import saelib
from saelib.trainer import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")

sys.path.insert(0, str(DOCS))
from check import problems  # noqa: E402


def pages():
    """The pages that are written, in order, and those that the toctrees name."""
    trees = re.findall(
        r"```\{toctree\}(.*?)```", "\n".join(p.read_text() for p in sorted(DOCS.glob("*.md"))), re.S
    )
    named = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    return {p.stem for p in DOCS.glob("*.md")} - {"CONTRIBUTING", "CHANGELOG"}, named


def test_every_page_is_in_the_order_of_reading():
    written, named = pages()
    assert written - {"index"} <= set(named)
    assert "notebooks/*" in named, "notebooks of any number, in the order of their names"
    copied = ast.literal_eval(
        re.search(r"^COPIED = (\(.*?\))\n", (DOCS / "conf.py").read_text(), re.MULTILINE)[1]
    )
    for name in set(named) - written - {"notebooks/*"}:
        assert f"{name}.md" in copied and (ROOT / f"{name}.md").is_file()


def test_pages_that_begin_with_a_section_of_readme():
    """A page with README's heading gets README's text: the headings have to be there."""
    headings = re.findall(r"^#{1,2} (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    titles = {p.stem: p.read_text().partition("\n")[0][2:] for p in DOCS.glob("*.md")}
    own = {"browser", "api", "CONTRIBUTING", "CHANGELOG"}
    missing = [title for name, title in titles.items() if name not in own and title not in headings]
    assert not missing, f"README has no section {missing}"
    assert not set(headings) - set(titles.values()), "a section of README that is on no page"


def test_every_option_of_training_is_documented():
    rows = re.findall(
        r"^\| `(\w+)` \| `([^`]+)` \| (.+?) \| (.+?) \|$", (DOCS / "training.md").read_text(), re.MULTILINE
    )
    assert [name for name, *_ in rows] == [field.name for field in fields(TrainConfig)]
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    for name, default, *_ in rows:
        assert eval(default) == defaults[name], f"{name} is {defaults[name]}, not {default}"


def test_figures_of_the_ablations_are_those_that_notebook_07_prints():
    section = (DOCS / "training.md").read_text().split("## What the ablations say")[1]
    said = re.findall(r"0\.\d{3}", section.split("\n## Every option")[0])
    book = json.loads((ROOT / "notebooks" / "07_comparing_saes.ipynb").read_text())
    printed = json.dumps([cell.get("outputs") for cell in book["cells"]])
    assert len(said) > 15 and not [number for number in said if number not in printed]


def test_every_name_of_the_front_door_is_in_the_reference():
    text = (DOCS / "api.md").read_text()
    named = set(re.findall(r"^\.\. auto\w+:: (?:saelib[\w.]*\.)?(\w+)", text, re.MULTILINE))
    assert not set(saelib.__all__) - named, sorted(set(saelib.__all__) - named)


def test_the_checker_sees_what_is_wrong(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">b</a><a href="b.html#gone">b</a><a href="c.html">c</a><a href="https://else.where">ok</a>'
        '<img src="https://else.where/x.png"><script src="//else.where/x.js"></script><img src="none.png"><p id="own">'
        '<a href="#own">own</a><link rel="stylesheet" href="a.css"><link rel="canonical" href="https://else.where">'
    )
    (tmp_path / "b.html").write_text('<h2 id="here">x</h2>')
    (tmp_path / "a.css").write_text(
        "@import 'https://else.where/y.css'; a { background: url(data:image/png;base64,x) }"
    )
    found = problems(tmp_path)
    assert len(found) == 6, found
    for said in ("#gone", "c.html, which", "loads https://else.where/x.png", "x.js", "none.png", "y.css"):
        assert any(said in line for line in found), said
    assert problems(tmp_path / "nothing") == [f"no page in {tmp_path / 'nothing'}"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(
            f"the site is not built: {', '.join(missing)} not installed (pip install -r docs/requirements.txt)"
        )
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_site_has_no_link_into_nothing_and_loads_nothing(site):
    found = [p for p in problems(site) if "feature_browser.html" not in p]  # made by a step of its own
    assert not found, found[:20]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert (site / "notebooks" / f"{path.stem}.html").is_file()


def test_the_site_in_a_browser(site):
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium, or set CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width in (390, 1366):
            page = browser.new_page(viewport={"width": width, "height": 800})
            errors, asked = [], []
            page.on(
                "console", lambda m, to=errors: to.append(m.text) if m.type in ("error", "warning") else None
            )
            page.on("pageerror", lambda e, to=errors: to.append(str(e)))
            page.on("request", lambda r, to=asked: to.append(r.url))
            for name in (
                "index",
                "training",
                "results",
                "api",
                "sae_models",
                "notebooks/02_sae_from_scratch",
            ):
                page.goto((site / f"{name}.html").as_uri())
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} is {wide} px wide on a screen of {width}"
            assert not errors, errors
            assert all(url.startswith(("file://", "data:")) for url in asked)
        page.goto((site / "sae_models.html").as_uri())
        page.wait_for_selector("mjx-container svg", state="attached")
        assert page.locator("mjx-container svg").count() > 20, "mathematics is set"
        page.goto((site / "search.html").as_uri() + "?q=batchtopk")
        page.wait_for_selector("#search-results li", timeout=30_000)
        browser.close()
