"""What the browser shows, as pure functions: data in, HTML out. No widget, no state, no JavaScript.

Everything that comes from a corpus or a label passes through `safe`, so whatever it holds is shown as text.
Figures are inline SVG: they are instant, they print, and they open without a kernel or a network.
"""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from saelib.explain import View, cosine_parts, domain_contrast, example_rows, explain, word_effects

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito
PALETTE = [BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#B8A000", "#666666"]
HIDDEN = re.compile("[\u0000-\u0008\u000b-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
STYLE = """<style>
.sae{font:14px/1.45 system-ui,sans-serif;color:inherit;overflow-wrap:anywhere}
.sae h3{margin:.2em 0 .3em;font-size:1.15em}.sae h4{margin:.8em 0 .2em;font-size:1em}
.sae table{border-collapse:collapse;width:100%}.sae td,.sae th{padding:2px 6px;text-align:left;vertical-align:top;background:none}
.sae tr{border-bottom:1px solid #8884}.sae .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.sae .b{display:inline-block;height:.7em;background:#0072B2}.sae .bad{border:1px solid;border-radius:4px;padding:0 5px;margin-right:4px;font-size:.85em}
.sae .dim{opacity:.7}.sae mark{color:inherit;border-radius:3px;padding:0 1px}.sae svg{max-width:100%;height:auto}.sae svg text{fill:currentColor}
</style>"""


def safe(text: object, limit: int = 400) -> str:
    """Any text as harmless HTML: escaped, cut at `limit`, invisible and direction-changing characters shown as ␣-like signs."""
    text = str(text)
    cut = text[:limit] + ("…" if len(text) > limit else "")
    return f"<bdi>{html.escape(HIDDEN.sub('�', cut), quote=True)}</bdi>"


def plain(text: object, limit: int = 60) -> str:
    """The same for widgets and hover texts, which show HTML or not as they please: escaped, without tags of ours."""
    return html.escape(HIDDEN.sub("�", str(text)[:limit]).replace("\n", " "), quote=True)


def _number(value: float, digits: int = 2) -> str:
    return "absent" if np.isnan(value) else f"{value:.{digits}f}"


def _bar(share: float, width: int = 120, colour: str = BLUE) -> str:
    share = float(np.clip(np.nan_to_num(share), 0, 1))
    return f'<span class="b" style="width:{share * width:.0f}px;background:{colour}" role="presentation"></span>'


def badges(view: View, feature: int) -> str:
    """Honest words about a feature: dead, dense, weak label, its kind."""
    stats, out = view.stats.loc[feature], []
    if stats.n_texts == 0:
        out.append("dead: active on none of these texts")
    if stats.density > 0.1:
        out.append("dense: active on over 10% of the texts")
    score = view.score(feature)
    if not np.isnan(score) and score < 0.8:
        out.append("weak label")
    if "kind" in view.names and feature in view.names.index and view.names.at[feature, "kind"] != "concept":
        note = view.names.at[feature, "note"] if "note" in view.names else ""
        out.append(f"kind: {view.names.at[feature, 'kind']}{', ' + str(note) if note else ''}")
    return "".join(f'<span class="bad">{html.escape(b)}</span>' for b in out)


def card(view: View, feature: int) -> str:
    """Label, scores, density, domain make-up against the base rate."""
    stats = view.stats.loc[feature]
    scores = [
        ("detection", "auroc"),
        ("against near texts", "auroc_near"),
        ("BM25", "auroc_bm25"),
        ("F1 of its words", "f1"),
        ("stability", "stability_label_cosine"),
    ]
    cells = "".join(f'<tr><td>{name}</td><td class="n">{_number(view.score(feature, c))}</td></tr>' for name, c in scores)
    low, high = view.score(feature, "low"), view.score(feature, "high")
    interval = "" if np.isnan(low) else f" <span class='dim'>(95% interval of the detection {low:.2f} to {high:.2f})</span>"
    out = f"<h3>Feature {feature}: {safe(view.label(feature))}</h3>{badges(view, feature)}"
    if view.label(feature) == "unnamed" and feature in view.names.index:
        out += f"<p class='dim'>Its best candidate did not pass: {safe(view.names.at[feature, 'label'])}</p>"
    out += (
        f"<p>Active on {int(stats.n_texts):,} texts (density {stats.density:.2%}), strongest {stats['max']:.2f}, "
        f"mean when active {stats.mean_active:.2f}.{interval}</p>"
    )
    if "term_scores" in view.names and feature in view.names.index:
        row = view.names.loc[feature]
        words = "".join(
            f'<tr><td>{safe(t, 60)}</td><td class="n">{s:.2f}</td></tr>' for t, s in zip(row.terms, row.term_scores, strict=True)
        )
        cells += f"<tr><th>keyword by itself</th><th class='n'>detection</th></tr>{words}"
    return f"{out}<table><tr><th>trust in the label</th><th class='n'>score</th></tr>{cells}</table>" + domains(view, feature)


def domains(view: View, feature: int, n: int = 5) -> str:
    """Share of each domain among the texts that activate, beside its share of the corpus."""
    column = view.table[:, feature]
    if not column.nnz or len(np.unique(view.domains)) < 2:
        return ""
    here = pd.Series(view.domains[column.indices]).value_counts(normalize=True)
    base = pd.Series(view.domains).value_counts(normalize=True)
    lines = "".join(
        f'<tr><td>{safe(d, 40)}</td><td>{_bar(share, 90)}<br>{_bar(base[d], 90, "#888")}</td>'
        f'<td class="n">{share:.0%} <span class="dim">of {base[d]:.0%}</span></td></tr>' for d, share in here.head(n).items()
    )  # fmt: skip
    return f"<h4>Domains (blue: here; grey: corpus)</h4><table>{lines}</table>"


def histogram(view: View, feature: int, mark: float | None = None, bins: int = 40) -> str:
    """Non-zero activations, log counts, as SVG; `mark` draws one text's activation."""
    values = view.table[:, feature].data
    if not len(values):
        return "<p>No activation to draw.</p>"
    counts, edges = np.histogram(values, bins=bins)
    height = np.log10(counts + 1) / max(np.log10(counts.max() + 1), 1e-9) * 90
    bars = "".join(
        f'<rect x="{30 + 9 * i}" y="{100 - h:.1f}" width="8" height="{h:.1f}" fill="{BLUE}"/>' for i, h in enumerate(height)
    )
    if mark is not None and mark > 0:
        x = 30 + 9 * bins * (mark - edges[0]) / max(edges[-1] - edges[0], 1e-9)
        bars += f'<line x1="{x:.0f}" x2="{x:.0f}" y1="4" y2="100" stroke="{RED}" stroke-width="2"/>'
    axis = f'<text x="30" y="114" font-size="10">{edges[0]:.2f}</text><text x="{30 + 9 * bins}" y="114" font-size="10" text-anchor="end">{edges[-1]:.2f}</text>'
    title = f"{len(values):,} activations, log scale, highest bar {counts.max():,}"
    side = f'<text x="2" y="14" font-size="10">{counts.max():,}</text><text x="2" y="100" font-size="10">0</text>'
    return f'<h4>Activations ({title})</h4><svg viewBox="0 0 {40 + 9 * bins} 118" width="{40 + 9 * bins}" role="img" aria-label="{title}">{bars}{axis}{side}</svg>'


def examples(view: View, feature: int, highlight: bool = False) -> str:
    """The example texts with their activation as bar and number; highlighted words where asked for."""
    frame = example_rows(view, feature)
    if frame.empty:
        return "<p>No text activates this feature.</p>"
    top, out = max(frame.act.max(), 1e-9), ""
    for band, part in frame.groupby("band", sort=False):
        lines = ""
        for row, act in zip(part.row, part.act, strict=True):
            text = highlighted(view, view.texts[row], feature) if highlight and band == "strongest" else safe(view.texts[row])
            where = f"<span class='dim'>{safe(view.domains[row], 40)}, text {row}</span>"
            lines += f'<tr><td class="n">{act:.2f}<br>{_bar(act / top, 60)}</td><td>{text}<br>{where}</td></tr>'
        out += f"<h4>{band}</h4><table>{lines}</table>"
    return out


def highlighted(view: View, text: str, feature: int) -> str:
    """A text with the words that carry the activation marked (and underlined: not by colour alone)."""
    effects = word_effects(view, text, feature)
    top = max((e for _, e in effects), default=0)
    out = []
    for word, effect in effects:
        share = max(effect, 0) / top if top > 1e-6 else 0
        style = f"background:rgba(230,159,0,{0.75 * share:.2f})" + (";text-decoration:underline" if share > 0.5 else "")
        out.append(f'<mark style="{style}" title="{effect:+.2f}">{html.escape(HIDDEN.sub("�", word[:200]))}</mark>')
    return "<bdi>" + " ".join(out) + "</bdi>"


def neighbours(view: View, feature: int) -> str:
    """Nearest features by direction and by co-activation."""

    def table(ids: np.ndarray, values: list[str], what: str) -> str:
        lines = "".join(
            f'<tr><td class="n">{i}</td><td>{safe(view.label(i), 80)}</td><td class="n">{v}</td></tr>'
            for i, v in zip(ids, values, strict=True)
            if i >= 0
        )
        return f"<h4>{what}</h4><table>{lines or '<tr><td>none</td></tr>'}</table>"

    return table(view.near[feature], [f"{c:.2f}" for c in view.near_cosine[feature]], "Nearest by direction (cosine)") + table(
        view.together[feature], [f"{c:,}" for c in view.together_count[feature]], "Most often active together (texts)"
    )


def waterfall(view: View, parts: pd.DataFrame, n: int = 15) -> str:
    """Active features, strongest first, with bars that begin where the one before ended."""
    lines, level = "", 0.0
    for i, (name, part) in enumerate(parts.iterrows()):
        if isinstance(name, int) and i >= n:
            continue
        low, high = sorted((level, level + part.share))
        level += part.share
        colour = GREEN if part.share >= 0 else RED
        bar = f'<span class="b" style="margin-left:{max(low, 0) * 160:.0f}px;width:{max((high - max(low, 0)) * 160, 1):.0f}px;background:{colour if isinstance(name, int) else "#888"}"></span>'
        label = safe(view.label(name), 80) if isinstance(name, int) else name
        act = f"{part.act:.2f}" if isinstance(name, int) else ""
        lines += f'<tr><td class="n">{name if isinstance(name, int) else ""}</td><td>{label}</td><td class="n">{act}</td><td style="min-width:165px">{bar}</td><td class="n">{part.share:+.1%}</td></tr>'
    more = len(parts) - 2 - n
    note = f"<p class='dim'>{more} weaker features are not listed.</p>" if more > 0 else ""
    head = "<tr><th class='n'>id</th><th>feature</th><th class='n'>activation</th><th>share of the embedding explained</th><th></th></tr>"
    return f"<h4>What the SAE sees</h4><table>{head}{lines}</table>{note}"


def text_page(view: View, text: str, n: int = 15) -> str:
    """A text's active features ranked, each with its share of the embedding, as a waterfall; and the nearest corpus texts."""
    x = view.encoder.encode([text])[0] if view.encoder is not None else None
    if x is None:
        raise ValueError("the encoder is not loaded: pass encoder=… to browse")
    return waterfall(view, explain(view, x), n) + nearest_texts(view, x)


def document_page(view: View, row: int, n: int = 15) -> str:
    """The same for a text of the corpus, without the encoder."""
    where = f"<p>{safe(view.texts[row], 2000)}<br><span class='dim'>{safe(view.domains[row], 40)}, text {row}</span></p>"
    return where + waterfall(view, explain(view, view.embeddings[row]), n)


def nearest_texts(view: View, x: np.ndarray, n: int = 5) -> str:
    """The corpus texts nearest to an embedding."""
    cosine = view.embeddings @ x
    rows = np.argsort(-cosine)[:n]
    lines = "".join(f'<tr><td class="n">{cosine[r]:.2f}</td><td>{safe(view.texts[r])}</td></tr>' for r in rows)
    return f"<h4>Nearest texts of the corpus (cosine)</h4><table>{lines}</table>"


def compare_texts(view: View, first: str, second: str, n: int = 12) -> str:
    """Two texts: shared features, separating ones, and the sum that is their cosine."""
    if view.encoder is None:
        raise ValueError("the encoder is not loaded: pass encoder=… to browse")
    return compare_embeddings(view, *view.encoder.encode([first, second]), n)


def compare_embeddings(view: View, x: np.ndarray, y: np.ndarray, n: int = 12) -> str:
    """The same for two embeddings (d_in,), unit norm."""
    parts, out = cosine_parts(view, x, y), f"<h4>Cosine {x @ y:.3f}, as a sum</h4>"
    features = parts[[isinstance(i, int) for i in parts.index]]
    both = (features["first"] > 0) & (features["second"] > 0)
    groups = {
        "shared": features[both],
        "only in the first": features[~both & (features["first"] > 0)],
        "only in the second": features[~both & (features["second"] > 0)],
    }
    for name, group in groups.items():
        lines = "".join(
            f'<tr><td class="n">{i}</td><td>{safe(view.label(i), 80)}</td><td class="n">{p["first"]:.2f} / {p["second"]:.2f}</td><td class="n">{p.contribution:+.3f}</td></tr>'
            for i, p in group.head(n).iterrows()
        )
        out += f"<h4>{name} (sum {group.contribution.sum():+.3f})</h4><table>{lines or '<tr><td>none</td></tr>'}</table>"
    rest = "".join(
        f"<tr><td>{i}</td><td class='n'>{parts.contribution[i]:+.3f}</td></tr>" for i in ("common part", "not explained")
    )
    return out + f"<table>{rest}<tr><th>sum = cosine</th><th class='n'>{parts.contribution.sum():+.3f}</th></tr></table>"


def compare_features(view: View, a: int, b: int) -> str:
    """Two features: how often together, rank correlation where both are on, shared examples, and a scatter."""
    one, two = (view.table[:, f].toarray().ravel() for f in (a, b))
    both = np.flatnonzero((one > 0) & (two > 0))
    either = int(((one > 0) | (two > 0)).sum())
    cosine = float(view.sae.W_dec[a].detach() @ view.sae.W_dec[b].detach())
    some = np.flatnonzero((one > 0) | (two > 0))
    some = some[np.linspace(0, len(some) - 1, min(len(some), 500)).astype(int)] if len(some) else some
    top = [max(v.max(), 1e-9) for v in (one, two)]
    dots = "".join(
        f'<circle cx="{30 + 200 * one[r] / top[0]:.0f}" cy="{215 - 200 * two[r] / top[1]:.0f}" r="3" fill="{BLUE}" fill-opacity=".5"/>'
        for r in some
    )
    axes = f'<text x="130" y="232" font-size="11" text-anchor="middle">feature {a}</text><text x="12" y="110" font-size="11" transform="rotate(-90 12 110)" text-anchor="middle">feature {b}</text>'
    svg = f'<svg viewBox="0 0 240 236" width="300" role="img" aria-label="activations of feature {a} against feature {b}"><rect x="28" y="12" width="205" height="206" fill="none" stroke="#888"/>{dots}{axes}</svg>'
    rows = both[np.argsort(-(one[both] / top[0] + two[both] / top[1]))[:5]]
    shared = "".join(f'<tr><td class="n">{one[r]:.2f} / {two[r]:.2f}</td><td>{safe(view.texts[r])}</td></tr>' for r in rows)
    head = f"<h4>{a}: {safe(view.label(a), 80)} &nbsp;·&nbsp; {b}: {safe(view.label(b), 80)}</h4>"
    facts = f"<p>Decoder cosine {cosine:.2f}; together on {len(both):,} texts, Jaccard {len(both) / max(either, 1):.3f}.</p>"
    return f"{head}{facts}{svg}<h4>Texts that activate both</h4><table>{shared or '<tr><td>none</td></tr>'}</table>"


def compare_domains(view: View, first: str, second: str, n: int = 8) -> str:
    """The sparse compare: what one domain has more of than the other."""
    frame = domain_contrast(view, first, second)
    sure = frame[frame.q < 0.05]
    out = f"<p>{len(sure)} of {len(frame)} features differ at q &lt; 0.05 (Wald test, Benjamini–Hochberg).</p>"
    for name, part in ((first, sure[sure.log_odds > 0].head(n)), (second, sure[sure.log_odds < 0].tail(n)[::-1])):
        lines = "".join(
            f'<tr><td class="n">{f}</td><td>{safe(view.label(f), 80)}</td><td class="n">{p.share_first:.1%} / {p.share_second:.1%}</td>'
            f'<td class="n">{p.log_odds:+.2f} [{p.low:+.2f}, {p.high:+.2f}]</td></tr>' for f, p in part.iterrows()
        )  # fmt: skip
        head = (
            "<tr><th class='n'>id</th><th>feature</th><th class='n'>share in each</th><th class='n'>log odds ratio, 95%</th></tr>"
        )
        out += f"<h4>More in {safe(name, 60)}</h4><table>{head}{lines}</table>"
    return out


def map_svg(view: View, linked: set[int], size: int = 560) -> str:
    """The atlas without a kernel: points coloured by domain and sized by density, linked to their pages, titled with their label."""
    live = np.flatnonzero(view.stats.n_texts > 0)
    low, span = view.xy[live].min(0), np.maximum(np.ptp(view.xy[live], axis=0), 1e-9)
    at = 12 + (view.xy - low) / span * (size - 24)
    groups = view.stats.top_domain if "top_domain" in view.stats else pd.Series("all", index=view.stats.index)
    names = sorted(set(groups[live]))
    dots = []
    for f in live:
        colour = PALETTE[names.index(groups[f]) % len(PALETTE)]
        radius = 2.5 + 5 * np.sqrt(view.stats.density[f] / view.stats.density.max())
        dot = f'<circle cx="{at[f, 0]:.1f}" cy="{at[f, 1]:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity=".75"><title>{f}: {plain(view.labels[f])}</title></circle>'
        dots.append(f'<a href="#f{f}">{dot}</a>' if int(f) in linked else dot)
    key = " ".join(f'<span style="color:{PALETTE[i % len(PALETTE)]}">●</span> {safe(n, 40)}' for i, n in enumerate(names))
    return f'<svg viewBox="0 0 {size} {size}" width="{size}" role="img" aria-label="map of {len(live)} features">{"".join(dots)}</svg><p class="dim">{key}</p>'


def box(content: str) -> str:
    """Content in the frame that `STYLE` is for."""
    return f'<div class="sae">{content}</div>'
