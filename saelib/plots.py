"""One style for every figure: Okabe–Ito colours, labelled axes, a title that states the finding."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"]

plt.rcParams.update({
    "axes.prop_cycle": plt.cycler(color=OKABE_ITO),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.figsize": (7, 3.4),
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
})  # fmt: skip


def training_curves(history: pd.DataFrame, title: str, target_l0: float | None = None) -> plt.Figure:
    """FVU and L0 on held-out embeddings against the step; history as `train` gives it."""
    figure, (left, right) = plt.subplots(1, 2)
    left.plot(history["step"], history["fvu"], marker="o")
    left.set(xlabel="step", ylabel="held-out FVU", ylim=(0, 1.08 * history["fvu"].max()))
    right.plot(history["step"], history["l0"], marker="o", color=OKABE_ITO[1])
    if target_l0:
        right.axhline(target_l0, color="black", linestyle=":", label=f"target {target_l0:g}")
        right.legend()
    right.set(xlabel="step", ylabel="held-out L0", ylim=(0, 1.08 * history["l0"].max()))
    figure.suptitle(title)
    return figure


def density_histogram(density: np.ndarray, title: str) -> plt.Figure:
    """How many features are active on which share of texts (log scale); dead ones are counted apart."""
    density = np.asarray(density)
    figure, axis = plt.subplots()
    axis.hist(np.log10(density[density > 0]), bins=30)
    axis.set(xlabel="log10 density (share of texts)", ylabel="features", title=title)
    axis.text(
        0.98,
        0.95,
        f"{int((density == 0).sum())} never active",
        ha="right",
        va="top",
        transform=axis.transAxes,
    )
    return figure


def bars(values: pd.Series, xlabel: str, title: str) -> plt.Figure:
    """Horizontal bars, largest on top; text is shown as it is, never as TeX."""
    figure, axis = plt.subplots(figsize=(7, 0.32 * len(values) + 1))
    ordered = values.sort_values()
    axis.barh([str(name).replace("$", r"\$")[:60] for name in ordered.index], ordered.to_numpy())
    axis.set(xlabel=xlabel, title=title)
    return figure


def sentence_features(parts: dict[str, pd.DataFrame], n: int = 6) -> plt.Figure:
    """Sentences and the named features they activate, strongest on top; the colour says how far to trust a name.

    Args:
        parts: sentence → a frame with `label`, `act` and `auroc` (NaN where the name was not judged), strongest first.
    """
    parts = {text: frame.head(n) for text, frame in parts.items()}
    heights = [len(frame) + 1.2 for frame in parts.values()]
    figure, axes = plt.subplots(
        len(parts),
        1,
        figsize=(7.5, 0.29 * sum(heights) + 0.6),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
    )
    for axis, (text, frame) in zip(axes[:, 0], parts.items(), strict=True):
        sure = (frame.auroc >= 0.9).to_numpy()
        bars = axis.barh(
            range(len(frame)), frame.act, color=np.where(sure, OKABE_ITO[0], "#b0b0b0"), height=0.72
        )
        labels = [f"{a:.2f}" if np.isfinite(a) else "not judged" for a in frame.auroc]
        axis.bar_label(bars, labels, padding=4, fontsize=8, color="#555555")
        axis.set_yticks(range(len(frame)), [str(name).replace("$", r"\$")[:48] for name in frame.label])
        axis.invert_yaxis()
        axis.tick_params(left=False)
        axis.set_title(
            "“" + text.replace("$", r"\$")[:95] + "”", loc="left", fontsize=10, x=-0.45, style="italic"
        )
    axes[-1, 0].set_xlabel("activation   (at the bar: detection by the name; blue from 0.90)", fontsize=9)
    return figure


def domain_map(xy: np.ndarray, domains: np.ndarray, title: str) -> plt.Figure:
    """Points (n, 2) coloured by domain."""
    figure, axis = plt.subplots(figsize=(7.5, 4.2))
    colours = plt.get_cmap("tab20").colors
    for i, name in enumerate(sorted(set(domains))):
        here = np.asarray(domains) == name
        axis.scatter(*xy[here].T, s=4, color=colours[i % 20], label=name, alpha=0.7)
    axis.legend(markerscale=3, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set(xlabel="component 1", ylabel="component 2", title=title)
    return figure
