"""Whole pages: comparisons, one HTML file with everything, CSV and JSON, pictures, and the notes beside the SAE.

`page(view)` has all views in one file that needs neither kernel nor network and holds no script: links and CSS do the work.
`atlas_picture` and `feature_picture` stand in where neither widgets nor HTML are shown (GitHub, PDF).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from saelib.browser import cards as views
from saelib.browser import explain, markup
from saelib.browser import view as lookup
from saelib.browser.maps import landmarks
from saelib.browser.view import FeatureView


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


def export(view: FeatureView, folder: str | Path, notes: dict[str, str] | None = None) -> list[str]:
    """Write features.csv, features.json and browser.html, with the notes; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame = view.stats.assign(label=view.labels).join(
        view.names.drop(columns=["label", "density", "top_rows", *view.stats.columns], errors="ignore")
    )
    frame["user_note"] = [(notes or {}).get(str(f), "") for f in frame.index]
    frame.to_csv(folder / "features.csv", errors="replace")
    frame.to_json(folder / "features.json", orient="index")
    (folder / "browser.html").write_text(page(view, notes=notes), encoding="utf-8", errors="replace")
    return [str(folder / name) for name in ("features.csv", "features.json", "browser.html")]


def compare_texts(view: FeatureView, first: str, second: str, n: int = 12) -> str:
    """Two texts: shared features, separating ones, and the sum that is their cosine."""
    if view.encoder is None:
        raise ValueError("the encoder is not loaded: pass encoder=… to make_view")
    return compare_embeddings(view, *view.encoder.encode([first, second]), n)


def compare_embeddings(view: FeatureView, x: np.ndarray, y: np.ndarray, n: int = 12) -> str:
    """The same for two embeddings (d_in,), unit norm."""
    parts = explain.cosine_parts(view, x, y)
    features = parts[[isinstance(i, int) for i in parts.index]]
    top = max(float(parts.contribution.abs().max()), 1e-9)
    both = (features["first"] > 0) & (features["second"] > 0)
    groups = {
        "shared": features[both],
        "only in the first": features[~both & (features["first"] > 0)],
        "only in the second": features[~both & (features["second"] > 0)],
    }
    widths, out = ("58px", "38%", "110px", "", "76px"), f"<h3>Cosine {x @ y:.3f}, as a sum</h3>"

    def line(name: object, label: str, acts: str, value: float, colour: str = "") -> str:
        colour = colour or (markup.GREEN if value >= 0 else markup.RED)
        return (
            f'<tr><td class="n"><span class="dim">{name}</span></td><td>{label}</td><td class="n">{acts}</td><td>{markup.bar(abs(value) / top, colour)}</td>'
            f'<td class="n">{value:+.3f}</td></tr>'
        )

    for name, group in groups.items():
        rows = [
            line(i, views.named(view, i), f"{p['first']:.2f} / {p['second']:.2f}", p.contribution)
            for i, p in group.head(n).iterrows()
        ]
        if len(group) > n:
            rows.append(line("", f"{len(group) - n} more", "", group.contribution.iloc[n:].sum()))
        out += f"<h4>{name}: {group.contribution.sum():+.3f}</h4>{markup.table(rows, 30, widths)}"
    rest = [line("", i, "", parts.contribution[i], "#888") for i in ("common part", "not explained")]
    rest.append(
        f'<tr><th></th><th colspan="3">sum = cosine</th><th class="n">{parts.contribution.sum():+.3f}</th></tr>'
    )
    return f"{out}<h4>what no feature says</h4>{markup.table(rest, 30, widths)}"


def compare_features(view: FeatureView, a: int, b: int) -> str:
    """Two features: how often together, cosine of their directions, shared examples, and a scatter."""
    one, two = (view.table[:, f].toarray().ravel() for f in (a, b))
    both, some = np.flatnonzero((one > 0) & (two > 0)), np.flatnonzero((one > 0) | (two > 0))
    facts = (
        f"<p>Decoder cosine {float(view.sae.W_dec[a].detach() @ view.sae.W_dec[b].detach()):.2f}; together on "
        f"{len(both):,} texts, Jaccard {len(both) / max(len(some), 1):.3f}.</p>"
    )
    some = some[np.linspace(0, len(some) - 1, min(len(some), 500)).astype(int)] if len(some) else some
    top = [max(v.max(), 1e-9) for v in (one, two)]
    dots = "".join(
        f'<circle cx="{30 + 200 * one[r] / top[0]:.0f}" cy="{215 - 200 * two[r] / top[1]:.0f}" r="3" fill="#2a8cc8" fill-opacity=".6"/>'
        for r in some
    )
    axes = f'<text x="130" y="232" text-anchor="middle">feature {a}</text><text x="12" y="110" transform="rotate(-90 12 110)" text-anchor="middle">feature {b}</text>'
    svg = f'<svg viewBox="0 0 240 236" width="300" role="img" aria-label="activations of feature {a} against feature {b}"><rect x="28" y="12" width="205" height="206" fill="none" stroke="#888"/>{dots}{axes}</svg>'
    rows = both[np.argsort(-(one[both] / top[0] + two[both] / top[1]))[:5]]
    shared = [
        f'<tr><td class="n">{one[r]:.2f} / {two[r]:.2f}</td><td><div class="two-lines">{markup.safe(view.texts[r])}</div></td></tr>'
        for r in rows
    ]
    head = f"<h3>{a}: {views.named(view, a)} &nbsp;·&nbsp; {b}: {views.named(view, b)}</h3>"
    texts = f"<h4>EncodedTexts that activate both</h4>{markup.table(shared, 44, ('110px', ''))}"
    return f'{head}{facts}<div class="two"><div>{svg}</div><div>{texts}</div></div>'


def compare_domains(view: FeatureView, first: str, second: str, n: int = 8) -> str:
    """The sparse compare: what one domain has more of than the other."""
    frame = explain.domain_contrast(view, first, second)
    sure, out = frame[frame.q < 0.05], ""
    head = ("id#", "feature", "share in each#", "log odds ratio, 95%#")
    for name, part in (
        (first, sure[sure.log_odds > 0].head(n)),
        (second, sure[sure.log_odds < 0].tail(n)[::-1]),
    ):
        rows = [
            f'<tr><td class="n"><span class="dim">{f}</span></td><td>{views.named(view, f)}</td><td class="n">{p.share_first:.1%} / {p.share_second:.1%}</td>'
            f'<td class="n">{p.log_odds:+.2f} [{p.low:+.2f}, {p.high:+.2f}]</td></tr>' for f, p in part.iterrows()
        ]  # fmt: skip
        out += f"<h4>More in {markup.safe(name, 60)}</h4>{markup.table(rows, 30, ('58px', '', '120px', '170px'), head)}"
    return f"<p>{len(sure)} of {len(frame)} features differ at q &lt; 0.05 (Wald test, Benjamini–Hochberg).</p>{out}"


def map_svg(view: FeatureView, linked: set[int], size: int = 620) -> str:
    """The atlas without a kernel: points coloured by domain, sized by density, titled with their label, linked to their pages."""
    live = np.flatnonzero(view.stats.n_texts > 0)
    if not len(live):
        return "<p>No feature is active.</p>"
    low, span = view.xy[live].min(0), np.maximum(np.ptp(view.xy[live], axis=0), 1e-9)
    at = 12 + (view.xy - low) / span * (size - 24)
    groups = view.stats.top_domain if "top_domain" in view.stats else pd.Series("all", index=view.stats.index)
    names, dots = sorted(set(groups[live])), []
    for f in live:
        colour = markup.PALETTE[names.index(groups[f]) % len(markup.PALETTE)]
        radius = 2.5 + 5 * np.sqrt(view.stats.density[f] / view.stats.density.max())
        title = f"<title>{f}: {markup.plain(view.labels[f])} ({markup.number(view.score(f))})</title>"
        where = f'cx="{at[f, 0]:.1f}" cy="{size - at[f, 1]:.1f}" r="{radius:.1f}"'
        dot = f'<circle {where} fill="{colour}" fill-opacity=".8">{title}</circle>'
        dots.append(f'<a href="#f{f}">{dot}</a>' if int(f) in linked else dot)
    words = "".join(
        f'<text class="halo" x="{at[f, 0]:.0f}" y="{size - at[f, 1] - 8:.0f}" text-anchor="middle">{markup.plain(view.labels[f], 26)}</text>'
        for f in landmarks(view)
    )
    key = " ".join(
        f'<span class="chip"><span style="color:{markup.PALETTE[i % len(markup.PALETTE)]}">●</span> {markup.safe(n, 40)}</span>'
        for i, n in enumerate(names)
    )
    label = f"map of {len(live)} features"
    svg = f'<svg viewBox="0 0 {size} {size}" width="{size}" role="img" aria-label="{label}">{"".join(dots)}{words}</svg>'
    return f"{svg}<p>{key}</p>"


PAGE_STYLE = """<style>
:root{color-scheme:light dark}body{margin:0;background:Canvas;color:CanvasText}
.sae main{display:grid;grid-template-columns:minmax(340px,40%) 1fr;gap:0 28px;max-width:1500px;margin:0 auto;padding:0 20px}
.sae header{grid-column:1/-1;padding:14px 0 8px;border-bottom:1px solid var(--line)}.sae h1{font-size:22px;margin:0 0 2px}
.sae nav{position:sticky;top:0;height:100vh;overflow:auto}.sae nav tr:first-child th{position:sticky;top:0;background:Canvas;opacity:1}
.sae section{padding:10px 0 40px;display:none}.sae section:target,.sae section.home{display:block}
.sae div:has(>section:target)>section.home{display:none}.sae tr:has(a:focus-visible) td{background:#2a8cc826}
@media(max-width:800px){.sae main{display:block}.sae nav{position:static;height:50vh}}
@media print{.sae section,.sae div:has(>section:target)>section.home{display:block}.sae nav{height:auto;position:static}}
</style>"""
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


def page(
    view: FeatureView,
    features: np.ndarray | None = None,
    limit: int = 300,
    notes: dict[str, str] | None = None,
) -> str:
    """All views as one HTML file: the table at the left, at the right the map or the page of the feature that was clicked.

    Args:
        features: which, best first; None for all live ones by label score. limit: how many get a page. notes: by feature.
    """
    features = lookup.find(view) if features is None else np.asarray(features)
    kept, linked = features[:limit], set(map(int, features[:limit]))
    rows = [int(view.rows[f][0]) for f in kept[:3] if view.rows[f][0] >= 0]
    home = [f"<h4>Map (click a point)</h4>{map_svg(view, linked)}"]
    home += [f"<h2>A text and its features</h2>{views.document_page(view, r, linked=linked)}" for r in rows]
    if len(kept) > 1:
        home.append(
            "<h2>Two features</h2>" + compare_features(view, int(kept[0]), int(view.near[kept[0]][0]))
        )
    if len(rows) > 1:
        home.append(
            "<h2>Two texts</h2>"
            + compare_embeddings(view, view.embeddings[rows[0]], view.embeddings[rows[1]])
        )
    if len(view.base_rate) > 1:
        home.append("<h2>Two domains</h2>" + compare_domains(view, *view.base_rate.index[:2]))
    pages = []
    for f in map(int, kept):
        note = (notes or {}).get(str(f), "")
        note = f"<h4>Note</h4><p>{markup.safe(note, 5000)}</p>" if note else ""
        inner = views.overview(view, f) + note + views.examples(view, f) + views.neighbours(view, f, linked)
        pages.append(f'<section id="f{f}"><a href="#home">← map and comparisons</a>{inner}</section>')
    head = markup.table([], 30, views.FEATURE_COLUMNS, FEATURE_HEAD, "")
    nav = f"<nav aria-label='features'>{head}{views.feature_rows(view, kept, linked=linked)}</nav>"
    title = f"<h1>What is in these embeddings</h1><div class='dim'>{len(features):,} live features; pages for {len(kept):,}, best-named first. \
Find in page (Ctrl+F) searches the table.</div>"
    body = f"<main><header>{title}</header>{nav}<div>{''.join(pages)}<section class='home' id='home'>{''.join(home)}</section></div></main>"
    top = f'<!doctype html><html lang="en"><head><meta charset="utf-8">{POLICY}<meta name="viewport" content="width=device-width">'
    return f'{top}<title>Feature browser</title>{markup.STYLE}{PAGE_STYLE}</head><body class="sae">{body}</body></html>'


FEATURE_HEAD = ("id#", "label, keywords", "score#", "density#", "max#", "mean#", "near#")


def _drawn(text: object, limit: int) -> str:
    """Text for a picture: one line, only characters that matplotlib's font has (others would warn and show as boxes)."""
    line = markup.clean(text, limit) + ("…" if len(str(text)) > limit else "")
    return "".join(c if ord(c) < 0x500 or 0x2010 <= ord(c) <= 0x2026 else "□" for c in line)


def atlas_picture(view: FeatureView) -> plt.Figure:
    """The map of the features as a picture: colour and shape by domain, size by density, names of the landmarks."""
    live = np.flatnonzero(view.stats.n_texts > 0)
    groups = (
        view.stats.top_domain.to_numpy(str)[live] if "top_domain" in view.stats else np.full(len(live), "all")
    )
    figure, axis = plt.subplots(figsize=(10, 5.6), dpi=90, layout="constrained")
    size = 12 + 260 * view.stats.density.to_numpy()[live] / max(view.stats.density.max(), 1e-9)
    for i, name in enumerate(sorted(set(groups))):
        here = groups == name
        look = {
            "color": markup.PALETTE[i % len(markup.PALETTE)],
            "marker": "osD^"[i // len(markup.PALETTE) % 4],
        }
        axis.scatter(
            *view.xy[live[here]].T, s=size[here], alpha=0.75, linewidths=0, label=_drawn(name, 34), **look
        )
    for f in landmarks(view):
        halo = {"facecolor": "white", "alpha": 0.65, "pad": 0.6, "edgecolor": "none"}
        axis.text(
            *view.xy[f],
            _drawn(view.labels[f], 26),
            fontsize=7.5,
            ha="center",
            va="bottom",
            parse_math=False,
            bbox=halo,
        )
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, markerscale=0.7)
    axis.set(xticks=[], yticks=[], title=f"{len(live):,} features: colour is the domain, size the density")
    axis.spines[:].set_visible(False)
    return figure


def feature_picture(view: FeatureView, feature: int, n: int = 8) -> plt.Figure:
    """A feature page as a picture: histogram, domains against the base rate, strongest texts."""
    figure = plt.figure(figsize=(10, 5.6), dpi=90, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.35))
    left, right, low = (
        figure.add_subplot(grid[0, 0]),
        figure.add_subplot(grid[0, 1]),
        figure.add_subplot(grid[1, :]),
    )
    column = view.table[:, feature]
    left.hist(column.data, bins=36, color=markup.BLUE, log=True)
    left.set(xlabel="activation", ylabel="texts")
    here = pd.Series(view.domains[column.indices]).value_counts(normalize=True).head(5)[::-1]
    names, place = [_drawn(d, 26) for d in here.index], np.arange(len(here))
    right.barh(place + 0.2, here, 0.4, color=markup.BLUE, label="texts of the feature")
    right.barh(place - 0.2, view.base_rate[here.index], 0.4, color="#999999", label="corpus")
    right.set_yticks(place, names, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    right.set(xlabel="share")
    texts = lookup.band_texts(view, feature, "strongest", size=n)[0]
    for i, (row, act) in enumerate(zip(texts.row, texts.act, strict=True)):
        low.text(0, n - i, f"{act:.2f}   {_drawn(view.texts[row], 138)}", fontsize=8, parse_math=False)
    low.set(xlim=(0, 1), ylim=(0.5, n + 1))
    low.axis("off")
    words = ", ".join(t for t, _ in view.terms(feature))
    title = f"Feature {feature}: {_drawn(view.labels[feature], 60)}\ndetection {markup.number(view.score(feature))}, density {view.stats.density[feature]:.2%}"
    figure.suptitle(
        title + (f", keywords {_drawn(words, 80)}" if words else ""), fontsize=10, parse_math=False
    )
    return figure
