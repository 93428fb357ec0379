"""One style for every figure: Okabe–Ito colours, labelled axes, a title that states the finding.

Text from a corpus (names, sentences, domains) is shown whole, wrapped, and never read as TeX.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"]
CATEGORIES = [*OKABE_ITO, "#882255", "#999999", "#332288", "#88AA00"]  # for up to twelve domains
MARKERS = "os^DvPX"
BLUES = ["#c6dbef", "#85b8dd", "#3d8dc4", "#0b559f"]  # weak to strong

plt.rcParams.update({
    "axes.prop_cycle": plt.cycler(color=OKABE_ITO),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "figure.figsize": (7, 3.4),
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
})  # fmt: skip


def plain(text: object) -> str:
    """Any text as a figure may show it: "$" does not start TeX."""
    return str(text).replace("$", r"\$")


def wrapped(text: object, width: int) -> str:
    """The same in lines of at most `width` characters."""
    return plain(textwrap.fill(str(text), width))


def in_legend(label: str) -> str:
    """A label for a legend, which leaves out what is empty or begins with "_"."""
    return f" {label}" if label[:1] in ("", "_") else label


def training_curves(history: pd.DataFrame, title: str, target_l0: float | None = None) -> plt.Figure:
    """FVU on held-out embeddings against the step, and L0 where it moves; history as `train` gives it."""
    moves = np.ptp(history["l0"]) > 0.02 * history["l0"].max()
    figure, axes = plt.subplots(1, 1 + moves, squeeze=False)
    axes[0, 0].plot(history["step"], history["fvu"], marker="o")
    axes[0, 0].set(xlabel="step", ylabel="held-out FVU", ylim=(0, 1.08 * history["fvu"].max()))
    if moves:
        axes[0, 1].plot(history["step"], history["l0"], marker="o", color=OKABE_ITO[1])
        axes[0, 1].set(xlabel="step", ylabel="held-out L0", ylim=(0, 1.08 * history["l0"].max()))
        if target_l0:
            axes[0, 1].axhline(target_l0, color="black", linestyle=":", label=f"target {target_l0:g}")
            axes[0, 1].legend()
    figure.suptitle(plain(title))
    return figure


def density_ecdf(density: np.ndarray | Mapping[str, np.ndarray], title: str) -> plt.Figure:
    """The share of features that are active on at most so many percent of the texts, one curve per SAE.

    Args:
        density: shares of texts (0 to 1), one per feature; or name → shares. Features that are never active
            are counted in the legend and left out of the curve, whose axis is logarithmic.
    """
    curves = density if isinstance(density, Mapping) else {"": density}
    figure, axis = plt.subplots()
    for name, values in curves.items():
        percent = 100 * np.asarray(values)
        label = in_legend(plain(f"{name}: ")) if name else ""
        axis.ecdf(percent[percent > 0], label=f"{label}{(percent == 0).sum()} of {len(percent)} never active")
    axis.set(xscale="log", xlabel="active on at most … % of the texts", ylabel="share of the live features")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_title(plain(title))
    axis.legend(frameon=False)
    return figure


def bars(values: pd.Series, xlabel: str, title: str) -> plt.Figure:
    """Horizontal bars, largest on top; their labels are the series' index."""
    ordered = values.sort_values()
    labels = [wrapped(name, 60) for name in ordered.index]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure, axis = plt.subplots(figsize=(7, 0.24 * lines + 0.1 * len(labels) + 0.9))
    axis.barh(range(len(ordered)), ordered.to_numpy())
    axis.set_yticks(range(len(ordered)), labels)
    axis.set(xlabel=plain(xlabel))
    figure.suptitle(plain(title))
    return figure


def sentence_features(parts: dict[str, pd.DataFrame], n: int = 6, title: str = "") -> plt.Figure:
    """Sentences and the named features they activate, strongest on top, with how far to trust each name.

    At the bar stands the name's `trust` where the frame has it, else its `auroc`. Where the frame has
    `quartile`, the colour says into which quarter of its feature's activations this one falls (4: the
    strongest), since a name fits the strongest best; elsewhere it says the level of the score itself.

    Args:
        parts: sentence → a frame, strongest first: `label`, `act`, `auroc` or `trust` (NaN where not judged).
        n: features shown of each sentence.
    """
    parts = {text: frame.head(n) for text, frame in parts.items()}
    heights = [len(frame) + 1.0 + 0.8 * wrapped(text, 95).count("\n") for text, frame in parts.items()]
    size = (7.5, 0.3 * sum(heights) + 1.3)
    figure, axes = plt.subplots(
        len(parts), 1, figsize=size, height_ratios=heights, sharex=True, squeeze=False
    )
    for axis, (text, frame) in zip(axes[:, 0], parts.items(), strict=True):
        score = frame["trust"] if "trust" in frame else frame["auroc"]
        drawn = axis.barh(range(len(frame)), frame["act"], color=_shades(frame), height=0.74)
        labels = ["not judged" if np.isnan(s) else f"{s:.2f}" for s in score]
        axis.bar_label(drawn, labels, padding=4, fontsize=8, color="#444444")
        axis.set_yticks(range(len(frame)), [wrapped(name, 46) for name in frame["label"]])
        axis.invert_yaxis()
        axis.tick_params(left=False)
        axis.margins(x=0.12)
        axis.annotate(
            f"“{wrapped(text, 95)}”",
            xy=(0, 1),
            xycoords=("figure fraction", "axes fraction"),
            xytext=(8, 5),
            textcoords="offset points",
            style="italic",
        )
    any_frame = next(iter(parts.values()))
    number = "trust in the name" if "trust" in any_frame else "detection AUROC of the name"
    axes[-1, 0].set_xlabel(f"activation   (number at the bar: {number})")
    by_quartile = "quartile" in any_frame
    meanings = (
        ["weakest quarter of the feature's texts", "second", "third", "strongest quarter"]
        if by_quartile
        else ["score under 0.5, or none", "0.5 to 0.75", "0.75 to 0.9", "0.9 and more"]
    )
    handles = [Line2D([], [], color=c, linewidth=7, label=m) for c, m in zip(BLUES, meanings, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(plain(title) or "What a sentence says, in named features")
    return figure


def _shades(frame: pd.DataFrame) -> list[str]:
    """A blue per row: by `quartile` (1 to 4), else by the level of trust or AUROC."""
    if "quartile" in frame:
        return [BLUES[int(q) - 1] if q >= 1 else "#b0b0b0" for q in frame["quartile"]]
    score = frame["trust"] if "trust" in frame else frame["auroc"]
    return [
        BLUES[int(np.searchsorted([0.5, 0.75, 0.9], s, side="right"))] if s >= 0 else BLUES[0] for s in score
    ]


def domain_map(xy: np.ndarray, domains: np.ndarray, title: str) -> plt.Figure:
    """Points (n, 2) by domain: each its own colour (beyond twelve its own pair of colour and marker)."""
    figure, axis = plt.subplots(figsize=(7.5, 4.2))
    given = [None] * len(xy) if domains is None else domains
    domains = np.array(["(none)" if pd.isna(name) else str(name) for name in given], dtype=object)
    for i, name in enumerate(sorted(set(domains))):
        here = domains == name
        style = {"color": CATEGORIES[i % len(CATEGORIES)], "marker": MARKERS[i % len(MARKERS)]}
        axis.scatter(*xy[here].T, s=7, label=in_legend(wrapped(name, 32)), alpha=0.6, linewidths=0, **style)
    axis.legend(markerscale=2.5, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set(xlabel="component 1", ylabel="component 2", title=plain(title))
    return figure


def sankey(
    nodes: list[tuple[int, str]], links: list[tuple[int, int, float]], stages: list[str], title: str
) -> plt.Figure:
    """What becomes of what: ribbons from left to right.

    Args:
        nodes: (stage, label), in the order in which they are stacked. links: (from, to, width), numbers of
            nodes of neighbouring stages. stages: names of the columns.
    """
    into, out = np.zeros(len(nodes)), np.zeros(len(nodes))
    for a, b, width in links:
        out[a] += width
        into[b] += width
    height, gap = np.maximum(into, out), 0.25 * max(w for *_, w in links)
    stage, foot = np.array([s for s, _ in nodes]), np.zeros(len(nodes))
    for s in range(len(stages)):
        own = np.flatnonzero(stage == s)
        foot[own] = np.cumsum(height[own] + gap) - height[own] - gap
        foot[own] -= (foot[own[-1]] + height[own[-1]]) / 2  # each column is centred
    figure, axis = plt.subplots(figsize=(8, max(2.6, 0.24 * np.bincount(stage).max() + 0.9)))
    left, right, t = foot.copy(), foot.copy(), np.linspace(0, 1, 40)
    curve = t**2 * (3 - 2 * t)
    for a, b, width in links:
        low = left[a] + (right[b] - left[a]) * curve
        colour = OKABE_ITO[b % 6]
        axis.fill_between(stage[a] + 0.03 + 0.94 * t, low, low + width, color=colour, alpha=0.35, linewidth=0)
        left[a] += width
        right[b] += width
    axis.bar(stage, height, 0.06, bottom=foot, color="#444444")
    for (s, label), y in zip(nodes, foot + height / 2, strict=True):
        side = {"ha": "right", "x": s - 0.05} if s == 0 else {"ha": "left", "x": s + 0.05}
        axis.text(y=y, s=wrapped(label, 40), va="center", fontsize=8, **side)
    axis.set(xlim=(-0.6, len(stages) - 0.4), yticks=[], title=plain(title), xlabel="features of the SAE")
    axis.set_xticks(range(len(stages)), [plain(stage) for stage in stages])
    axis.spines["left"].set_visible(False)
    axis.invert_yaxis()
    return figure
