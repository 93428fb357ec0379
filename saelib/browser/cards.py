"""What the browser shows, as pure functions: data in, HTML out. No widget, no state, no JavaScript.

Everything that comes from a corpus or a label passes through `safe` or `plain`, so whatever it holds is shown as text.
Figures are inline SVG: they are instant, they print, and they open without a kernel or a network. Rows of tables have a
fixed height (class h30, h44, h64), because `controls.Rows` lays native controls over them.
"""

from __future__ import annotations

import html

import numpy as np
import pandas as pd

from saelib.browser import explain
from saelib.browser import view as lookup
from saelib.browser.markup import GREEN, HIDDEN, RED, bar, number, percent, plain, safe, table
from saelib.browser.view import FeatureView


def named(view: FeatureView, feature: int, linked: frozenset[int] | set[int] = frozenset()) -> str:
    """The label of a feature; as a link to its page where there is one."""
    label = safe(view.labels[feature], 80)
    return f'<a href="#f{feature}">{label}</a>' if feature in linked else label


def feature_rows(
    view: FeatureView, features: np.ndarray, linked: frozenset[int] | set[int] = frozenset()
) -> str:
    """The feature table: id, label above its keywords with their scores, label score, density, max, mean, nearest feature."""
    rows = []
    for f in map(int, features):
        stats, score = view.stats.iloc[f], view.score(f)
        words = " · ".join(f"{safe(t, 40)} {number(s).lstrip('0')}" for t, s in view.terms(f)[:3])
        near = int(view.near[f][0])
        rows.append(
            f'<tr><td class="n"><span class="dim">{f}</span></td><td><div class="one-line">{named(view, f, linked)}</div>'
            f'<div class="one-line dim">{words}</div></td><td class="n">{number(score)}{bar(2 * score - 1)}</td>'
            f'<td class="n">{percent(stats.density)}</td><td class="n">{number(stats["max"])}</td><td class="n">{number(stats.mean_active)}</td>'
            f'<td class="n" title="{plain(view.labels[near])}">{near}</td></tr>'
        )
    return table(rows, 44, FEATURE_COLUMNS, none="no feature to list")


FEATURE_COLUMNS = ("46px", "", "52px", "64px", "48px", "52px", "54px")


def badges(view: FeatureView, feature: int) -> str:
    """Honest words about a feature: dead, dense, weak label, its kind."""
    stats, out = view.stats.loc[feature], []
    if stats.n_texts == 0:
        out.append("dead: active on none of these texts")
    if stats.density > 0.1:
        out.append("dense: active on over 10% of the texts")
    score = view.score(feature)
    if stats.n_texts and not np.isnan(score) and score < 0.8:
        out.append("weak label")
    if "kind" in view.names and feature in view.names.index and view.names.at[feature, "kind"] != "concept":
        note = view.names.at[feature, "note"] if "note" in view.names else ""
        out.append(f"kind: {view.names.at[feature, 'kind']}{', ' + str(note) if note else ''}")
    return "".join(f'<span class="bad">{html.escape(HIDDEN.sub("�", b))}</span>' for b in out)


TRUST = {"auroc": "detection", "auroc_near": "near texts", "auroc_bm25": "BM25", "f1": "F1 of words",
         "stability_label_cosine": "stability"}  # fmt: skip


def card(view: FeatureView, feature: int) -> str:
    """Label, keywords with scores, badges, trust in the label, statistics."""
    stats = view.stats.loc[feature]
    out = f'<div><span class="eye">Feature {feature}</span>{badges(view, feature)}</div><h3>{safe(view.labels[feature])}</h3>'
    if view.labels[feature] == "unnamed" and feature in view.names.index:
        out += f"<p class='dim'>Its best candidate did not pass: {safe(view.names.at[feature, 'label'])}</p>"
    chips = "".join(
        f'<span class="chip">{safe(t, 60)} <b>{number(s)}</b></span>' for t, s in view.terms(feature)
    )
    tiles = [(f"{int(stats.n_texts):,}", "texts"), (percent(stats.density), "density"), (number(stats["max"]), "max"),
             (number(stats.mean_active), "mean on")]  # fmt: skip
    tiles += [
        (number(view.score(feature, c)), name)
        for c, name in TRUST.items()
        if not np.isnan(view.score(feature, c))
    ]
    absent = [name for c, name in TRUST.items() if np.isnan(view.score(feature, c))]
    low, high = view.score(feature, "low"), view.score(feature, "high")
    notes = [] if np.isnan(low) else [f"95% interval of the detection {low:.2f} to {high:.2f}"]
    notes += [f"absent: {', '.join(absent)}"] if absent else []
    cells = "".join(f'<div><b>{value}</b><span class="dim">{name}</span></div>' for value, name in tiles)
    return f'{out}<div>{chips}</div><div class="tiles">{cells}</div><p class="dim">{"; ".join(notes)}</p>'


def domains(view: FeatureView, feature: int, n: int = 5) -> str:
    """Share of each domain among the texts that activate, beside its share of the corpus."""
    column, base = view.table[:, feature], view.base_rate
    if not column.nnz or len(base) < 2:
        return ""
    here = pd.Series(view.domains[column.indices]).value_counts(normalize=True)
    top = max(here.iloc[0], base[here.index[:n]].max())
    rows = [
        f"<tr><td>{safe(d, 40)}</td><td style='overflow:visible'>{bar(share / top, tick=base[d] / top)}</td>"
        f'<td class="n">{share:.0%} <span class="dim">of {base[d]:.0%}</span></td></tr>' for d, share in here.head(n).items()
    ]  # fmt: skip
    return f"<h4>Domains (mark: corpus)</h4>{table(rows, 30, ('44%', '', '98px'))}"


def histogram(view: FeatureView, feature: int, mark: float | None = None, bins: int = 36) -> str:
    """Non-zero activations, log counts, as SVG; `mark` draws one text's activation."""
    values = view.table[:, feature].data
    if not len(values):
        return "<p>No activation to draw.</p>"
    counts, edges = np.histogram(values, bins=bins)
    top = np.log10(counts.max() + 1)
    bars = "".join(
        f'<rect x="{32 + 9 * i}" y="{112 - 100 * h:.1f}" width="8" height="{100 * h:.1f}" fill="#2a8cc8"/>'
        for i, h in enumerate(np.log10(counts + 1) / top)
    )
    for tick in (1, 10, 100, 1000, 10_000):
        if tick <= counts.max():
            y = 112 - 100 * np.log10(tick + 1) / top
            bars += f'<line x1="30" x2="{32 + 9 * bins}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8885" stroke-width=".5"/>'
            bars += f'<text x="26" y="{y + 3:.1f}" text-anchor="end">{tick}</text>'
    if mark is not None and mark > 0:
        x = 32 + 9 * bins * (mark - edges[0]) / max(edges[-1] - edges[0], 1e-9)
        side = f'x="{x - 4:.0f}" text-anchor="end"' if x > 220 else f'x="{x + 4:.0f}"'
        bars += f'<line x1="{x:.0f}" x2="{x:.0f}" y1="2" y2="112" stroke="{RED}" stroke-width="2"/><text {side} y="9">this text</text>'
    ends = f'<text x="32" y="125">{edges[0]:.2f}</text><text x="{32 + 9 * bins}" y="125" text-anchor="end">{edges[-1]:.2f}</text>'
    title = f"{len(values):,} activations of feature {feature}, log scale, highest bar {counts.max():,}"
    svg = f'<svg viewBox="0 0 {40 + 9 * bins} 128" width="100%" role="img" aria-label="{title}">{bars}{ends}</svg>'
    return f"<h4>Activations (log scale)</h4>{svg}"


def overview(view: FeatureView, feature: int, mark: float | None = None) -> str:
    """Card, histogram and domains: what the browser shows of a feature at once."""
    return (
        card(view, feature)
        + f'<div class="two"><div>{histogram(view, feature, mark)}</div><div>{domains(view, feature)}</div></div>'
    )


def text_rows(view: FeatureView, frame: pd.DataFrame, feature: int, highlight: bool = False) -> str:
    """Texts (columns `row`, `act`) with their activation as number and bar; highlighted words where asked for."""
    top, rows = max(float(view.stats["max"].iloc[feature]), 1e-9), []
    for row, act in zip(frame.row.astype(int), frame.act, strict=True):
        text = highlighted(view, view.texts[row], feature) if highlight else safe(view.texts[row])
        rows.append(
            f'<tr><td class="n">{act:.2f}{bar(act / top)}</td><td><div class="two-lines">{text}</div>'
            f'<div class="one-line dim">{safe(view.domains[row], 40)} · text {row}</div></td></tr>'
        )
    return table(rows, 64, ("72px", ""), none="No text activates this feature.")


def examples(view: FeatureView, feature: int) -> str:
    """The example texts of every band, one under the other."""
    frame = lookup.example_rows(view, feature)
    if frame.empty:
        return "<p>No text activates this feature.</p>"
    return "".join(
        f"<h4>{band}</h4>{text_rows(view, part, feature)}" for band, part in frame.groupby("band", sort=False)
    )


def highlighted(view: FeatureView, text: str, feature: int) -> str:
    """A text with the words that carry the activation marked (and underlined: not by colour alone)."""
    effects = explain.word_effects(view, text, feature)
    top = max((e for _, e in effects), default=0)
    out = []
    for word, effect in effects:
        share = max(effect, 0) / top if top > 1e-6 else 0
        style = f"background:rgba(230,159,0,{0.7 * share:.2f})" + (
            ";text-decoration:underline" if share > 0.5 else ""
        )
        out.append(f'<mark style="{style}" title="{effect:+.2f}">{html.escape(HIDDEN.sub("�", word))}</mark>')
    return "<bdi>" + " ".join(out) + "</bdi>"


def neighbour_rows(
    view: FeatureView, ids: list[int], values: list[str], linked: frozenset[int] | set[int] = frozenset()
) -> str:
    """Features with a number each."""
    rows = [
        f'<tr><td class="n"><span class="dim">{i}</span></td><td>{named(view, i, linked)}</td><td class="n">{v}</td></tr>'
        for i, v in zip(ids, values, strict=True)
    ]
    return table(rows, 30, ("58px", "", "76px"))


def neighbour_lists(view: FeatureView, feature: int) -> dict[str, tuple[list[int], list[str]]]:
    """Title → (features, their numbers): nearest by direction, and by co-activation."""
    together = [
        (int(i), f"{c:,}")
        for i, c in zip(view.together[feature], view.together_count[feature], strict=True)
        if i >= 0
    ]
    return {
        "nearest by direction (cosine)": (
            view.near[feature].tolist(),
            [f"{c:.2f}" for c in view.near_cosine[feature]],
        ),
        "most often active together (texts)": ([i for i, _ in together], [c for _, c in together]),
    }


def neighbours(view: FeatureView, feature: int, linked: frozenset[int] | set[int] = frozenset()) -> str:
    """Nearest features by direction and by co-activation, side by side."""
    lists = neighbour_lists(view, feature).items()
    return f'<div class="two">{"".join(f"<div><h4>{t}</h4>{neighbour_rows(view, *found, linked)}</div>" for t, found in lists)}</div>'


def share_rows(
    view: FeatureView, parts: pd.DataFrame, n: int = 15, linked: frozenset[int] | set[int] = frozenset()
) -> tuple[str, str]:
    """An explanation as a waterfall: (the n strongest features, what is left), bars begin where the one before ended."""
    end = np.cumsum(parts.share.to_numpy())
    low, high = min(end.min(), 0), max(end.max(), 1)
    rows, rest, level = [], [], 0.0
    listed = parts.index.tolist()[: min(n, len(parts) - 2)]
    for name, part in parts.iterrows():
        is_feature, share = name in listed, float(part.share)
        if not is_feature and name not in ("bias", "not explained"):
            continue
        if name == "bias" and len(parts) - 2 > n:  # weaker features, in one step
            weaker = float(parts.share.iloc[n:-2].sum())
            rest.append(
                _step("", f"weaker features: {len(parts) - 2 - n}", "", level, weaker, low, high, "#888")
            )
            level += weaker
        colour = (GREEN if share >= 0 else RED) if is_feature else "#888"
        label, act = (named(view, name, linked), f"{part.act:.2f}") if is_feature else (name, "")
        (rows if is_feature else rest).append(
            _step(name if is_feature else "", label, act, level, share, low, high, colour)
        )
        level += share
    widths = ("58px", "38%", "80px", "", "70px")
    head = ("id#", "feature", "activation#", "waterfall", "share#")
    return table(rows, 30, widths, head, "no active feature"), table(rest, 30, widths)


def _step(
    name: object, label: str, act: str, level: float, share: float, low: float, high: float, colour: str
) -> str:
    left, width = (min(level, level + share) - low) / (high - low), abs(share) / (high - low)
    bar = f'<span class="b" style="margin-left:{100 * left:.1f}%;width:max(2px,{100 * width:.1f}%);background:{colour}"></span>'
    return f'<tr><td class="n"><span class="dim">{name}</span></td><td>{label}</td><td class="n">{act}</td><td>{bar}</td><td class="n">{share:+.1%}</td></tr>'


def near_rows(view: FeatureView, rows: np.ndarray, cosines: np.ndarray) -> str:
    """Corpus texts with their cosine."""
    lines = [
        f'<tr><td class="n">{c:.2f}</td><td><div class="one-line">{safe(view.texts[r])}</div>'
        f'<div class="one-line dim">{safe(view.domains[r], 40)} · text {r}</div></td></tr>' for r, c in zip(rows, cosines, strict=True)
    ]  # fmt: skip
    return table(lines, 44, ("58px", ""))


def text_head(view: FeatureView, text: str, parts: pd.DataFrame, where: str = "") -> str:
    """A text, and what its three strongest features hang on: the text with their words marked (where it can be encoded)."""
    out = f'<div class="text">{safe(text, 2000)}</div><div class="dim">{where}</div>'
    top = [f for f in parts.index[:3] if isinstance(f, int)]
    if view.encoder is None or not top:
        return out
    lines = [
        f'<p>{highlighted(view, text, f)}<br><span class="dim">{f}: {safe(view.labels[f], 60)}</span></p>'
        for f in top
    ]
    return f"{out}<h4>Words that carry its strongest features</h4>{''.join(lines)}"


def text_page(view: FeatureView, text: str, n: int = 15) -> str:
    """A text's active features ranked, each with its share of the embedding, as a waterfall; and the nearest corpus texts.

    Raises:
        ValueError: there is no encoder.
    """
    if view.encoder is None:
        raise ValueError("the encoder is not loaded: pass encoder=… to make_view")
    return _explained(view, text, view.encoder.encode([text])[0], n)


def document_page(
    view: FeatureView, row: int, n: int = 15, linked: frozenset[int] | set[int] = frozenset()
) -> str:
    """The same for a text of the corpus, without the encoder."""
    where = f"{safe(view.domains[row], 40)} · text {row}"
    return _explained(view, view.texts[row], view.embeddings[row], n, where, row, linked)


def _explained(
    view: FeatureView,
    text: str,
    x: np.ndarray,
    n: int,
    where: str = "",
    but: int = -1,
    linked: object = frozenset(),
) -> str:
    parts = explain.explain(view, x)
    head = (
        text_head(view, text, parts, where)
        if but < 0
        else f'<div class="text">{safe(text, 2000)}</div><div class="dim">{where}</div>'
    )
    near = near_rows(view, *explain.nearest(view, x, but=but))
    return f"{head}<h4>What the SAE sees</h4>{''.join(share_rows(view, parts, n, linked))}<h4>Nearest texts of the corpus (cosine)</h4>{near}"
