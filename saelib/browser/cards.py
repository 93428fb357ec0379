"""What the browser shows of a feature and of a text, as pure functions: data in, HTML out. No widget, no
state.

Figures are inline SVG: they are instant, they print, and they open without a kernel or a network. A link to a
feature is `#feature=33`, to a text `#text=12` (where `opens` is true): the notebook's kernel hears them, the
page's script follows those to features.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from saelib.attribution import explain_embedding
from saelib.browser.lookup import BANDS, band_texts, nearest
from saelib.browser.render import render
from saelib.browser.view import FeatureView


def feature_rows(
    view: FeatureView, features: np.ndarray, *, sort: str = "density", reverse: bool = False,
    scores: np.ndarray | None = None, hits: np.ndarray | None = None, notes: dict[int, str] | None = None,
) -> Markup:  # fmt: skip
    """The feature table: id, name above its domain, trust, density, max, mean; with `scores` a column for the
    similarity; `hits` says which were found by their texts, `notes` which have one."""
    features = [int(f) for f in features]
    stats = {row.Index: row for row in view.stats.iloc[features].itertuples()}
    return render(
        "features.html", view=view, features=features, stats=stats, sort=sort, reverse=reverse, scores=scores,
        hits=hits, notes=notes or {},
    )  # fmt: skip


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
        "histogram.html", bars=height(counts).tolist(), title=title,
        low=edges[0], high=edges[-1],
        ticks=[(t, float(height(t))) for t in (1, 10, 100, 1000, 10_000, 100_000) if t <= most],
        mark=float((mark - edges[0]) / span) if mark else None,
    )  # fmt: skip


def overview(view: FeatureView, feature: int, mark: float | None = None) -> Markup:
    """Card, histogram and domains: what the browser shows of a feature at once."""
    both = Markup('<div class="two"><div>{}</div><div>{}</div></div>')
    return card(view, feature) + both.format(histogram(view, feature, mark), domains(view, feature))


def text_rows(
    view: FeatureView, frame: pd.DataFrame, feature: int | None, marked: int = 0, opens: bool = True,
    nothing: str = "No text activates this feature.",
) -> Markup:  # fmt: skip
    """Texts (columns `row`, `act`, `times`) with their activation as number and bar (of its highest;
    of 1 where there is no feature), words marked in the first `marked` of them."""
    rows = list(zip(frame.row.tolist(), frame.act.tolist(), frame.times.tolist(), strict=True))
    words = {r: highlighted(view, view.texts[r], feature) for r, *_ in rows[:marked]}
    top = 1.0 if feature is None else max(float(view.stats["max"].iloc[feature]), 1e-9)
    return render("texts.html", view=view, rows=rows, marked=words, top=top, opens=opens, nothing=nothing)


def examples(view: FeatureView, feature: int, marked: int = 0) -> Markup:
    """The ten strongest texts (words marked in the first `marked`), five from each quarter of the rest, five
    near misses, one under the other."""
    out = Markup()
    for band in BANDS:
        frame, _ = band_texts(view, feature, band, size=10 if band == "strongest" else 5)
        if len(frame):
            rows = text_rows(view, frame, feature, marked if band == "strongest" else 0, opens=False)
            out += Markup("<h4>{}</h4>{}").format(band, rows)
    return out or Markup("<p>No text activates this feature.</p>")


def highlighted(view: FeatureView, text: str, feature: int) -> Markup:
    """A text with the words that carry the activation marked: each is left out in turn (see
    `word_effects`)."""
    effects = view.words(text, feature)
    top = max((effect for _, effect in effects), default=0)
    share = lambda effect: max(effect, 0) / top if top > 1e-6 else 0.0
    return render("marked.html", words=[(word, effect, share(effect)) for word, effect in effects])


def neighbours(view: FeatureView, feature: int) -> Markup:
    """Nearest features by direction and by co-activation, side by side."""
    there = view.together[feature] >= 0
    cosines = [f"{c:.2f}" for c in view.near_cosine[feature]]
    counts = [f"{c:,}" for c in view.together_count[feature][there]]
    lists = {
        "nearest by direction (cosine)": zip(view.near[feature].tolist(), cosines, strict=True),
        "most often active together (texts)": zip(
            view.together[feature][there].tolist(), counts, strict=True
        ),
    }
    rows = lambda found: render("neighbours.html", rows=list(found), labels=view.labels)
    side = Markup("<div><h4>{}</h4>{}</div>")
    sides = [side.format(title, rows(found)) for title, found in lists.items()]
    return Markup('<div class="two">{}</div>').format(Markup().join(sides))


def family(view: FeatureView, number: int, widest: int = 40) -> Markup:
    """A family as a tree, its strongest branches first, beside the heat map of its members: on which
    share of the rarer one's texts the other is active too. Of more than `widest`, those near the root."""
    tree = view.families[view.families.family == number]
    shown = tree.head(widest).sort_values("weight", ascending=False, kind="stable")
    below, order = shown.groupby("parent").indices, []
    todo = [i for i in range(len(shown)) if shown.parent.iloc[i] < 0]
    while todo:
        order.append(todo.pop())
        todo += reversed(below.get(shown.feature.iloc[order[-1]], []))
    shown = shown.iloc[order]
    on = (view.table[:, shown.feature] > 0).astype(np.float32)
    both, n = (on.T @ on).toarray(), np.asarray(on.sum(0)).ravel()
    w = both / (np.minimum.outer(n, n) + 1)
    rows = list(zip(shown.itertuples(index=False), w.tolist(), strict=True))
    return render("family.html", view=view, number=number, rows=rows, more=len(tree) - len(shown))


def share_rows(view: FeatureView, parts: pd.DataFrame, n: int = 15) -> Markup:
    """An explanation as a waterfall: the n strongest features, and what is left."""
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
    return render("shares.html", steps=rows, labels=view.labels)


def near_rows(view: FeatureView, rows: np.ndarray, cosines: np.ndarray, opens: bool = True) -> Markup:
    """Corpus texts with their cosine."""
    found = list(zip(rows.tolist(), cosines.tolist(), strict=True))
    return render("near_texts.html", view=view, rows=found, opens=opens)


def taken_apart(
    view: FeatureView, text: str, x: np.ndarray, row: int | None = None, opens: bool = True
) -> tuple[Markup, list[int]]:
    """A text with embedding x (d_in,), of the corpus where `row` is given: how much of it can be said in
    words, its features ranked, each with its share, the nearest texts; for a new text also the words that its
    three strongest features hang on. And its features, strongest first."""
    parts = explain_embedding(view.sae, x)
    features = list(parts.index[:-2])
    marks = features[:3] if row is None and view.encoder is not None else []
    content = render(
        "text.html", text=text, row=row, domain="" if row is None else view.domains[row],
        in_words=view.share_in_words(x), shares=share_rows(view, parts),
        marked=[(f, highlighted(view, text, f), view.labels[f]) for f in marks],
        near=near_rows(view, *nearest(view, x, but=-1 if row is None else row), opens),
    )  # fmt: skip
    return content, features


def text_page(view: FeatureView, text: str) -> Markup:
    """`taken_apart` of any text.

    Raises:
        ValueError: there is no encoder.
    """
    return taken_apart(view, text, view.encode([text])[0])[0]


def document_page(view: FeatureView, row: int, opens: bool = True) -> Markup:
    """The same for a text of the corpus, without the encoder."""
    return taken_apart(view, view.texts[row], view.embeddings[row], row, opens)[0]
