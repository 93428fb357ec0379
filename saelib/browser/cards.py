"""What the browser shows of a feature and of a text, as pure functions: data in, HTML out. No widget, no
state.

Figures are inline SVG: they are instant, they print, and they open without a kernel or a network. Rows of
tables have a fixed height (class h30, h44, h64), because `controls.Rows` lays native controls over them.
`linked` holds the features that have a page of their own to link to.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from markupsafe import Markup

from saelib.attribution import explain_embedding
from saelib.browser.lookup import BANDS, band_texts, nearest
from saelib.browser.render import render
from saelib.browser.view import FeatureView


def feature_rows(
    view: FeatureView, features: np.ndarray, linked: Collection[int] = (), heads: tuple[str, ...] = ()
) -> Markup:
    """The feature table: id, name above its keywords, trust, density, max, mean, nearest feature."""
    features = [int(f) for f in features]
    return render("features.html", view=view, features=features, linked=linked, heads=heads)


def card(view: FeatureView, feature: int) -> Markup:
    """Name, keywords with scores, honest words (dead, dense, weak name, kind), trust, statistics."""
    return render("card.html", view=view, f=feature, stats=view.stats.loc[feature])


def domains(view: FeatureView, feature: int, n: int = 5) -> Markup:
    """Share of each domain among the texts that activate, beside its share of the corpus."""
    column, base = view.table[:, feature], view.base_rate
    if not column.nnz or len(base) < 2:
        return Markup()
    here = pd.Series(view.domains[column.indices]).value_counts(normalize=True).head(n)
    rows = [(name, share, base[name]) for name, share in here.items()]
    return render("domains.html", rows=rows, top=max(here.iloc[0], base[here.index].max()))


def histogram(view: FeatureView, feature: int, mark: float | None = None, bins: int = 36) -> Markup:
    """Non-zero activations, log counts, as SVG; `mark` draws one text's activation."""
    values = view.table[:, feature].data
    if not len(values):
        return Markup("<p>No activation to draw.</p>")
    counts, edges = np.histogram(values, bins=bins)
    most, span = counts.max(), max(edges[-1] - edges[0], 1e-9)
    height = lambda count: np.log10(count + 1) / np.log10(most + 1)
    title = f"{len(values):,} activations of feature {feature}, log scale, highest bar {most:,}"
    return render(
        "histogram.html", width=9 * bins, bars=height(counts).tolist(), title=title,
        low=edges[0], high=edges[-1],
        ticks=[(t, float(height(t))) for t in (1, 10, 100, 1000, 10_000, 100_000) if t <= most],
        mark=round(9 * bins * (mark - edges[0]) / span) if mark else None,
    )  # fmt: skip


def overview(view: FeatureView, feature: int, mark: float | None = None) -> Markup:
    """Card, histogram and domains: what the browser shows of a feature at once."""
    both = Markup('<div class="two"><div>{}</div><div>{}</div></div>')
    return card(view, feature) + both.format(histogram(view, feature, mark), domains(view, feature))


def text_rows(view: FeatureView, frame: pd.DataFrame, feature: int, highlight: bool = False) -> Markup:
    """Texts (columns `row`, `act`) with their activation as number and bar; words marked where asked for."""
    rows = list(zip(frame.row.astype(int), frame.act.astype(float), strict=True))
    marked = {r: highlighted(view, view.texts[r], feature) for r, _ in rows} if highlight else {}
    top = max(float(view.stats["max"].iloc[feature]), 1e-9)
    return render("texts.html", view=view, rows=rows, marked=marked, top=top)


def examples(view: FeatureView, feature: int) -> Markup:
    """The ten strongest texts, five from each quarter of the rest, five near misses, one under the other."""
    out = Markup()
    for band in BANDS:
        frame, _ = band_texts(view, feature, band, size=10 if band == "strongest" else 5)
        if len(frame):
            out += Markup("<h4>{}</h4>{}").format(band, text_rows(view, frame, feature))
    return out or Markup("<p>No text activates this feature.</p>")


def highlighted(view: FeatureView, text: str, feature: int) -> Markup:
    """A text with the words that carry the activation marked: each is left out in turn (see
    `word_effects`)."""
    effects = view.words(text, feature)
    top = max((effect for _, effect in effects), default=0)
    share = lambda effect: max(effect, 0) / top if top > 1e-6 else 0.0
    return render("marked.html", words=[(word, effect, share(effect)) for word, effect in effects])


def neighbour_rows(
    view: FeatureView, ids: list[int], values: list[str], linked: Collection[int] = ()
) -> Markup:
    """Features with a number each."""
    return render(
        "neighbours.html", rows=list(zip(ids, values, strict=True)), labels=view.labels, linked=linked
    )


def neighbour_lists(view: FeatureView, feature: int) -> dict[str, tuple[list[int], list[str]]]:
    """Title → (features, their numbers): nearest by direction, and by co-activation."""
    there = view.together[feature] >= 0
    return {
        "nearest by direction (cosine)": (
            view.near[feature].tolist(),
            [f"{c:.2f}" for c in view.near_cosine[feature]],
        ),
        "most often active together (texts)": (
            view.together[feature][there].tolist(),
            [f"{c:,}" for c in view.together_count[feature][there]],
        ),
    }


def neighbours(view: FeatureView, feature: int, linked: Collection[int] = ()) -> Markup:
    """Nearest features by direction and by co-activation, side by side."""
    side = Markup("<div><h4>{}</h4>{}</div>")
    lists = neighbour_lists(view, feature).items()
    sides = [side.format(title, neighbour_rows(view, *found, linked)) for title, found in lists]
    return Markup('<div class="two">{}</div>').format(Markup().join(sides))


def share_rows(
    view: FeatureView, parts: pd.DataFrame, n: int = 15, linked: Collection[int] = ()
) -> tuple[Markup, Markup]:
    """An explanation as a waterfall: (the n strongest features, what is left)."""
    shown, weaker = parts.iloc[:-2].head(n), parts.iloc[n:-2]
    steps = [(f, "", part.act, part.share) for f, part in shown.iterrows()]
    if len(weaker):
        steps.append((None, f"weaker features: {len(weaker)}", np.nan, weaker.share.sum()))
    steps += [(None, name, np.nan, parts.share[name]) for name in ("bias", "not explained")]
    shares = np.array([s for *_, s in steps], dtype=float)
    end = np.cumsum(shares)
    low = min(end.min(), 0)
    span = max(end.max(), 1) - low
    left = np.minimum(end, end - shares) - low
    rows = [
        {"feature": f, "name": name, "act": act, "share": share, "left": at / span, "width": abs(share) /
         span, "kind": "nothing" if f is None else "plus" if share >= 0 else "minus"} for (f, name, act,
         share), at in zip(steps, left, strict=True)
    ]  # fmt: skip
    fill = lambda some, heads: render(
        "shares.html", steps=some, heads=heads, labels=view.labels, linked=linked
    )
    return fill(rows[: len(shown)], True), fill(rows[len(shown) :], False)


def near_rows(view: FeatureView, rows: np.ndarray, cosines: np.ndarray) -> Markup:
    """Corpus texts with their cosine."""
    return render("near_texts.html", view=view, rows=list(zip(rows.tolist(), cosines.tolist(), strict=True)))


def text_head(
    view: FeatureView, text: str, parts: pd.DataFrame, row: int | None = None, mark: bool = True
) -> Markup:
    """A text (with its row where it is of the corpus), and the words its three strongest features hang on."""
    top = list(parts.index[:-2][:3]) if mark and view.encoder is not None else []
    marked = [(f, highlighted(view, text, f), view.labels[f]) for f in top]
    domain = "" if row is None else view.domains[row]
    return render("text_head.html", text=text, row=row, domain=domain, marked=marked)


def text_page(view: FeatureView, text: str, n: int = 15) -> Markup:
    """A text's active features ranked, each with its share of the embedding; and the nearest corpus texts.

    Raises:
        ValueError: there is no encoder.
    """
    return _explained(view, text, view.encode([text])[0], n)


def document_page(view: FeatureView, row: int, n: int = 15, linked: Collection[int] = ()) -> Markup:
    """The same for a text of the corpus, without the encoder."""
    return _explained(view, view.texts[row], view.embeddings[row], n, row, linked)


def _explained(
    view: FeatureView, text: str, x: np.ndarray, n: int, row: int | None = None, linked: Collection[int] = ()
) -> Markup:
    parts = explain_embedding(view.sae, x)
    near = near_rows(view, *nearest(view, x, but=-1 if row is None else row))
    body = Markup("{}<h4>What the SAE sees</h4>{}{}<h4>Nearest texts of the corpus (cosine)</h4>{}")
    return body.format(
        text_head(view, text, parts, row, row is None), *share_rows(view, parts, n, linked), near
    )
