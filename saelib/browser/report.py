"""What leaves the notebook: one HTML file with everything, CSV and JSON.

`page(view)` has all views in one file that needs neither kernel nor network and holds no script: links and
CSS do the work.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from saelib.browser import atlas, cards, compare
from saelib.browser.lookup import find, landmarks
from saelib.browser.render import HIDDEN, render, style
from saelib.browser.view import FeatureView


def map_svg(view: FeatureView, linked: Collection[int], size: int = 620) -> Markup:
    """The map without a kernel: colour and shape by domain, size by density, titled with names."""
    live = np.flatnonzero(view.stats.n_texts > 0)
    if not len(live):
        return Markup("<p>No feature is active.</p>")
    at = np.zeros((len(view.xy), 2))
    at[live] = 12 + atlas.unit_square(view.xy[live]) * (size - 24)
    at[:, 1] = size - at[:, 1]
    looks, density = atlas.domain_looks(list(view.base_rate.index)), view.stats.density.to_numpy()
    radius, groups = 2.5 + 5 * np.sqrt(density / density.max()), view.stats.top_domain
    dots = [
        {"feature": int(f), "x": round(at[f, 0], 1), "y": round(at[f, 1], 1), "r": round(radius[f], 1),
         "trust": view.trust(f), "colour": looks[groups[f]][0], "path": looks[groups[f]][1].path}
        for f in live
    ]  # fmt: skip
    side = lambda x: "start" if x < 80 else "end" if x > size - 80 else "middle"  # nothing is cut at the edge
    words = [(round(x), round(y - 8), side(x), view.labels[f]) for f in landmarks(view) for x, y in [at[f]]]
    count = groups[live].value_counts()
    key = [(d, colour, shape.sign, count[d]) for d, (colour, shape) in looks.items() if d in count]
    return render("map.html", size=size, dots=dots, words=words, key=key, labels=view.labels, linked=linked)


def page(
    view: FeatureView,
    features: np.ndarray | None = None,
    limit: int = 300,
    notes: dict[str, str] | None = None,
) -> str:
    """All views as one HTML file: the table at the left, at the right the map or the page of the feature
    clicked.

    Args:
        features: which, best first; None for all live ones by trust in their names. limit: how many get a
        page. notes: by feature.
    """
    features = find(view) if features is None else np.asarray(features)
    kept = [int(f) for f in features[:limit]]
    linked = frozenset(kept)
    pages = [
        {"feature": f, "note": (notes or {}).get(str(f), ""), "overview": cards.overview(view, f),
         "examples": cards.examples(view, f), "neighbours": cards.neighbours(view, f, linked)}
        for f in kept
    ]  # fmt: skip
    heads = ("id", "name, keywords", view.trust_name, "density", "max", "mean", "near")
    content = render(
        "page.html", css=Markup(style("style.css", "page.css")), live=f"{len(features):,}",
        order=view.trust_name,
        table=cards.feature_rows(view, kept, linked, heads), pages=pages, home=_home(view, kept, linked),
    )  # fmt: skip
    return str(content)


def _home(view: FeatureView, kept: list[int], linked: Collection[int]) -> list[tuple[str, Markup]]:
    """What is shown before a feature is clicked: the map, some texts, and one comparison of each sort."""
    rows = [int(view.rows[f][0]) for f in kept[:3] if view.rows[f][0] >= 0]
    home = [("Map (click a point)", map_svg(view, linked))]
    home += [("A text and its features", cards.document_page(view, r, linked=linked)) for r in rows]
    if kept and len(view.near[kept[0]]):
        pair = kept[0], int(view.near[kept[0]][0])
        home.append(("Two features", compare.compare_features(view, *pair, linked)))
    if len(rows) > 1:
        two = compare.compare_embeddings(view, *view.embeddings[rows[:2]], linked=linked)
        home.append(("Two texts", two))
    if len(view.base_rate) > 1:
        two = compare.compare_domains(view, *view.base_rate.index[:2], linked=linked)
        home.append(("Two domains", two))
    return home


def framed(content: str, height: int = 720) -> str:
    """A whole page as a frame for the output of a cell; its links stay inside, and it may run nothing."""
    inner = content.replace("<head>", '<head><base href="about:srcdoc">', 1)
    size = f"width:100%;height:{height}px;border:1px solid #8885"
    frame = Markup('<div><iframe title="feature browser" sandbox="" style="{}" srcdoc="{}"></iframe></div>')
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
    """Write features.csv, features.json and browser.html, with the notes; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = ["label", "density", "top_rows", *view.stats.columns]
    frame = view.stats.assign(label=view.labels).join(view.names.drop(columns=known, errors="ignore"))
    frame["user_note"] = [(notes or {}).get(str(f), "") for f in frame.index]
    words = frame.select_dtypes(exclude="number")
    cells: pd.DataFrame = frame.assign(**{c: words[c].map(plain_cell) for c in words})
    cells.to_csv(folder / "features.csv", errors="replace")
    frame.to_json(folder / "features.json", orient="index")
    content = page(view, notes=notes)
    (folder / "browser.html").write_text(content, encoding="utf-8", errors="replace")
    return [str(folder / name) for name in ("features.csv", "features.json", "browser.html")]
