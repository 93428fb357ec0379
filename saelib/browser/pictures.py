"""The map and the page of a feature as matplotlib figures, where neither widgets nor HTML are shown
(GitHub, PDF)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from saelib.browser.atlas import BLUE, domain_looks
from saelib.browser.lookup import band_texts, landmarks
from saelib.browser.render import clean, number
from saelib.browser.view import FeatureView
from saelib.plots import in_legend, plain


def drawn(text: object, limit: int) -> str:
    """Text for a picture: one line, no TeX, only characters that matplotlib's font has (others would
    warn)."""
    line = "".join(c if ord(c) < 0x500 or 0x2010 <= ord(c) <= 0x2026 else "□" for c in clean(text, limit))
    return plain(line)


def atlas_picture(view: FeatureView) -> plt.Figure:
    """The map of the features: colour and shape by domain, size by density, names of the landmarks."""
    live = np.flatnonzero(view.stats.n_texts > 0)
    groups = view.stats.top_domain.to_numpy(str)[live]
    figure, axis = plt.subplots(figsize=(10, 5.6), dpi=80, layout="constrained")
    size = 12 + 260 * view.stats.density.to_numpy()[live] / max(view.stats.density.max(), 1e-9)
    for name, (colour, shape) in domain_looks(list(view.base_rate.index)).items():
        here = groups == name
        look = {"color": colour, "marker": shape.marker, "alpha": 0.75, "linewidths": 0}
        if here.any():
            axis.scatter(*view.xy[live[here]].T, s=size[here], label=drawn(in_legend(name), 34), **look)
    halo = {"facecolor": "white", "alpha": 0.65, "pad": 0.6, "edgecolor": "none"}
    for f in landmarks(view):
        place = {"fontsize": 7.5, "ha": "center", "va": "bottom", "bbox": halo}
        axis.text(*view.xy[f], drawn(view.labels[f], 26), **place)
    if len(live):
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, markerscale=0.7)
    axis.set(xticks=[], yticks=[], title=f"{len(live):,} features: colour is the domain, size the density")
    axis.spines[:].set_visible(False)
    return figure


def feature_picture(view: FeatureView, feature: int, n: int = 8) -> plt.Figure:
    """A feature page: histogram, domains against the base rate, strongest texts."""
    figure = plt.figure(figsize=(10, 5.6), dpi=80, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.35))
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    left.hist(view.table[:, feature].data, bins=36, color=BLUE, log=True)
    left.set(xlabel="activation", ylabel="texts (log scale)")
    _domain_bars(right, view, feature)
    low = figure.add_subplot(grid[1, :])
    texts = band_texts(view, feature, "strongest", size=n)[0]
    for i, (row, act) in enumerate(zip(texts.row, texts.act, strict=True)):
        low.text(0, n - i, f"{act:.2f}   {drawn(view.texts[row], 138)}", fontsize=8)
    low.set(xlim=(0, 1), ylim=(0.5, n + 1))
    low.axis("off")
    trust, words = number(view.trust(feature)), ", ".join(t for t, _ in view.terms(feature))
    title = f"Feature {feature}: {drawn(view.labels[feature], 60)}\n"
    title += f"{view.trust_name} {trust}, density {view.stats.density[feature]:.2%}"
    figure.suptitle(title + (f", keywords {drawn(words, 80)}" if words else ""), fontsize=10)
    return figure


def _domain_bars(axis: Axes, view: FeatureView, feature: int) -> None:
    """Domains of the texts that activate a feature, beside those of the corpus."""
    column = view.table[:, feature]
    here = pd.Series(view.domains[column.indices]).value_counts(normalize=True).head(5)[::-1]
    place = np.arange(len(here))
    axis.barh(place + 0.2, here, 0.4, color=BLUE, label="texts of the feature")
    axis.barh(place - 0.2, view.base_rate[here.index], 0.4, color="#999999", label="corpus")
    axis.set_yticks(place, [drawn(d, 26) for d in here.index], fontsize=8)
    axis.legend(frameon=False, fontsize=8)
    axis.set(xlabel="share")
