"""What leaves the notebook: one HTML file with everything, CSV and JSON.

`page(view)` has all views in one file that needs neither kernel nor network. The pages of the features are
rendered (and escaped) here, compressed, and unpacked by the page's own script when they are asked for; its
content security policy lets no other script run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from saelib.browser import cards, compare
from saelib.browser.lookup import Keep, find, first_shown
from saelib.browser.maps import feature_data
from saelib.browser.render import HIDDEN, clean, render, script, style, visible
from saelib.browser.view import FeatureView
from saelib.corpus import mended
from saelib.files import resolved
from saelib.store import row_numbers

IN_PART = 48  # pages of features that are compressed together
REACH = 80  # rows of the table that are drawn, more as one scrolls: thousands would keep the card waiting
PATIENCE = 3500  # texts to embed so that words are marked in a page: ten to thirty seconds on two cores


def page(
    view: FeatureView, features: np.ndarray | None = None, notes: dict[str, str] | None = None,
    mark: int | None = None,
) -> str:  # fmt: skip
    """All views as one HTML file: map and table at the left, at the right the page of the feature clicked.

    Args:
        features: which, in this order (numbers, or a mask); None for all by density. notes: by feature.
            mark: in how many of the strongest texts of each feature the words are marked that carry it; each
            needs as many embeddings as it has words. None: up to three, as many as `PATIENCE` allows.

    Raises:
        ValueError, IndexError: features that the SAE does not have.
    """
    some = find(view, keep=Keep(dead=True)) if features is None else features
    features = row_numbers(some, view.sae.d_sae)
    known = {int(f): note for f, note in (notes or {}).items() if note and str(f).isdecimal()}
    mark = _affordable(view, features) if mark is None else mark
    first, table = first_shown(view, features), cards.feature_rows(view, features, notes=known)
    ahead = [first, *(f for f in features if f != first)] if len(features) else []  # it is read first
    content = {str(f): _feature_page(view, int(f), known.get(int(f), ""), mark) for f in ahead}
    content["home"] = _home(view, features[:3])
    if view.families is not None:
        content |= {f"family={i}": cards.family(view, int(i)) for i in view.families.family.unique()}
    keys = list(content)
    head, *rows, end = re.split("(?=<tr data-f=|</tbody>)", table)  # texts in it are escaped
    parts = [{k: content[k] for k in keys[i : i + IN_PART]} for i in range(0, len(keys), IN_PART)]
    packed = [_packed(part) for part in ({"map": feature_data(view), "rows": rows}, *parts)]
    kind = view.names["kind"].reindex(features).fillna("") if "kind" in view.names else [""] * len(features)
    data = {
        "first": first, "reach": REACH,
        "part": {"map": 0, "rows": 0} | {k: 1 + i // IN_PART for i, k in enumerate(keys)},
        "families": [(i, clean(name, 60)) for i, name in view.family_menu],
        "rows": {
            "id": [int(f) for f in features], "label": [clean(view.labels[f], 200).lower() for f in features],
            "words": [clean(view.names_to_search[f], 400) for f in features], "kind": list(map(clean, kind)),
            "domain": [visible(d) for d in view.stats.top_domain.iloc[features]],
            "families": [view.kin[f].families if f in view.kin else [] for f in map(int, features)],
            "trust": view.trusts.iloc[features].round(3).fillna(-1).tolist(),
            **{name: view.stats[column].iloc[features].round(5).tolist()
               for name, column in (("density", "density"), ("max", "max"), ("mean", "mean_active"))},
        },
    }  # fmt: skip
    code = script("map.js", "page.js")
    content = render(
        "page.html", css=Markup(style("style.css", "page.css")), code=Markup(code), data=data, packed=packed,
        code_hash=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(), view=view,
        live=int((view.stats.n_texts > 0).sum()),
        table=Markup("".join([head, *rows[:REACH], end])),
    )  # fmt: skip
    return str(content)


def _packed(part: dict) -> str:
    """What the page unpacks when it is asked for."""
    return base64.b64encode(gzip.compress(json.dumps(part).encode("utf-8", "replace"))).decode()


def _affordable(view: FeatureView, features: np.ndarray, most: int = 3) -> int:
    """In how many texts of each feature words can be marked with at most `PATIENCE` texts to embed."""
    if view.encoder is None:
        return 0
    for n in range(most, 0, -1):
        texts = {view.texts[r] for r in np.unique(view.rows[features, :n]) if r >= 0} - set(view.effects)
        if sum(min(len(text.split()), 60) + 1 for text in texts) <= PATIENCE:
            return n
    return 0


def _feature_page(view: FeatureView, f: int, note: str, mark: int) -> Markup:
    """Everything about a feature."""
    note = Markup("<h4>Note</h4><p><bdi>{}</bdi></p>").format(clean(note, 5000)) if note else ""
    return cards.overview(view, f) + note + cards.examples(view, f, mark) + cards.neighbours(view, f)


def _home(view: FeatureView, first: np.ndarray) -> Markup:
    """A text taken apart, and one comparison of each sort."""
    rows = [int(view.rows[f][0]) for f in first if view.rows[f][0] >= 0]
    found = [("A text and its features", cards.document_page(view, r, opens=False)) for r in rows[:1]]
    if len(first) and len(view.near[first[0]]):
        pair = int(first[0]), int(view.near[first[0]][0])
        found.append(("Two features", compare.compare_features(view, *pair, opens=False)))
    if len(rows) > 1:
        found.append(("Two texts", compare.compare_embeddings(view, *view.embeddings[rows[:2]])))
    if len(view.base_rate) > 1:
        found.append(("Two domains", compare.compare_domains(view, *view.base_rate.index[:2])))
    return Markup().join(Markup("<h2>{}</h2>{}").format(title, content) for title, content in found)


def framed(content: str, height: int = 760) -> str:
    """A whole page as a frame for the output of a cell: its links stay inside, its script reaches nothing
    outside. Where no frames are shown (GitHub), the line under it says what to do."""
    inner = content.replace("<head>", '<head><base href="about:srcdoc">', 1)
    size = f"width:100%;height:{height}px;border:1px solid #8885"
    frame = Markup(
        '<div><iframe title="feature browser" sandbox="allow-scripts" style="{}" srcdoc="{}"></iframe>'
        "<small>The feature browser. Where nothing stands above, frames are not shown here: write "
        "saelib.browser.report.page(view) to a file and open it.</small></div>"
    )
    return frame.format(size, inner)


def plain_cell(value: object) -> object:
    """A value for a spreadsheet: lists as text, hidden characters shown, nothing that begins like a
    formula."""
    if isinstance(value, (list, tuple, np.ndarray)):
        value = ", ".join(map(str, value))
    if not isinstance(value, str):
        return value
    value = HIDDEN.sub("\ufffd", value)
    return f"'{value}" if value.lstrip()[:1] in ("=", "+", "-", "@") else value


def export(view: FeatureView, folder: str | Path, notes: dict[str, str] | None = None) -> list[str]:
    """Write features.csv, features.json and browser.html, with the notes; returns the paths. A .gitignore
    keeps the corpus' texts in them out of a repository."""
    folder = resolved(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = ["label", "density", "top_rows", *view.stats.columns]
    frame = view.stats.assign(label=view.labels).join(view.names.drop(columns=known, errors="ignore"))
    notes = {str(f): mended(note or "") for f, note in (notes or {}).items()}
    frame["user_note"] = [notes.get(str(f), "") for f in frame.index]
    words = frame.select_dtypes(exclude="number")
    cells: pd.DataFrame = frame.assign(**{c: words[c].map(plain_cell) for c in words})
    cells.to_csv(folder / "features.csv", errors="replace")
    frame.to_json(folder / "features.json", orient="index")
    content = page(view, notes=notes)
    (folder / "browser.html").write_text(content, encoding="utf-8", errors="replace")
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n")
    return [str(folder / name) for name in ("features.csv", "features.json", "browser.html")]
