"""The browser without widgets: one HTML file, CSV and JSON, and the notes beside the SAE.

`page(view)` has all views of `views.py` in one file that needs neither kernel nor network and holds no script.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from saelib import explain, views
from saelib.explain import View


def read_notes(file: Path | None) -> dict[str, str]:
    """Notes by feature; an absent file holds none, a damaged one is an error and is not overwritten."""
    if file is None or not file.exists():
        return {}
    try:
        return {str(k): str(v) for k, v in json.loads(file.read_text(encoding="utf-8")).items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of notes ({error}): move it away, or repair it") from error


def write_notes(file: Path | None, notes: dict[str, str]) -> None:
    """Write the notes whole, or not at all."""
    if file is None:
        raise ValueError("this browser was opened without a notes file: pass notes=… to browse")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(notes, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, file)


def export(view: View, folder: str | Path) -> list[str]:
    """Write features.csv, features.json and browser.html; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame = view.stats.assign(label=view.labels).join(
        view.names.drop(columns=["label", "density", "top_rows", *view.stats.columns], errors="ignore")
    )
    frame.to_csv(folder / "features.csv")
    frame.to_json(folder / "features.json", orient="index")
    (folder / "browser.html").write_text(page(view), encoding="utf-8")
    return [str(folder / name) for name in ("features.csv", "features.json", "browser.html")]


def page(view: View, features: np.ndarray | None = None, limit: int = 300) -> str:
    """All views as one HTML file: a map, a list, a card per feature (the best-named `limit` of them) and three texts."""
    features = explain.find(view) if features is None else np.asarray(features)
    kept, all_kept = features[:limit], set(map(int, features[:limit]))
    parts = [
        f"<h1>What is in these embeddings</h1><p>{len(features):,} live features; the {len(kept)} best-named ones have a page below.</p>"
    ]
    parts.append(views.map_svg(view, all_kept))
    lines = "".join(
        f'<tr><td class="n"><a href="#f{f}">{f}</a></td><td>{views.safe(view.labels[f], 80)}</td>'
        f'<td class="n">{view.score(f):.2f}</td><td class="n">{view.stats.density[f]:.2%}</td></tr>' for f in kept
    )  # fmt: skip
    head = "<tr><th class='n'>id</th><th>label</th><th class='n'>detection</th><th class='n'>density</th></tr>"
    parts.append(f"<details open><summary>Feature table</summary><table>{head}{lines}</table></details>")
    for f in kept:
        inner = views.card(view, f) + views.histogram(view, f) + views.examples(view, f) + views.neighbours(view, f)
        parts.append(f'<details id="f{f}"><summary>{f}: {views.safe(view.labels[f], 80)}</summary>{inner}</details>')
    rows = [int(view.rows[f][0]) for f in kept[:3] if view.rows[f][0] >= 0]
    parts.append("<h2>Three texts and their features</h2>" + "".join(views.document_page(view, r) for r in rows))
    if len(kept) > 1:
        parts.append("<h2>Two features</h2>" + views.compare_features(view, int(kept[0]), int(view.near[kept[0]][0])))
    if len(rows) > 1:
        parts.append("<h2>Two texts</h2>" + views.compare_embeddings(view, view.embeddings[rows[0]], view.embeddings[rows[1]]))
    names = pd.Series(view.domains).value_counts().index
    if len(names) > 1:
        parts.append("<h2>Two domains</h2>" + views.compare_domains(view, names[0], names[1]))
    look = "<style>body{max-width:1000px;margin:1em auto;padding:0 1em;color-scheme:light dark}details{margin:.3em 0}summary{cursor:pointer}</style>"
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    top = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy}<meta name="viewport" content="width=device-width">'
    )
    return f"{top}<title>Feature browser</title>{views.STYLE}{look}</head><body><main class='sae'>{''.join(parts)}</main></body></html>"
