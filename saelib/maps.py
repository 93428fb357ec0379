"""The browser's two maps, plotly figures whose points can be clicked, and the state that they share with it.

`feature_map` shows decoder rows (UMAP), `document_map` texts (principal components), coloured by the selected feature.
"""

from __future__ import annotations

import ipywidgets as w
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets

from saelib import views
from saelib.explain import View

LOOK = {
    "template": "plotly_white",
    "autosize": True,
    "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": "#808080"},
    "xaxis": {"visible": False},
    "yaxis": {"visible": False},
}


class State(traitlets.HasTraits):
    """What is selected; every view follows it."""

    feature = traitlets.Int(0)
    document = traitlets.Int(-1)
    message = traitlets.Unicode("")


def feature_map(view: View, state: State) -> go.FigureWidget:
    """Every live feature as a point: size by density, colour and symbol by its domain; a click selects."""
    figure = go.FigureWidget(layout={"height": 460, "dragmode": "pan", **LOOK})
    live = np.flatnonzero(view.stats.n_texts > 0)
    groups = pd.Series(view.stats.top_domain[live] if "top_domain" in view.stats else "all", index=live)

    def click(trace: go.Scattergl, points: object, _: object) -> None:
        if points.point_inds:
            state.feature = int(trace.customdata[points.point_inds[0]])

    for i, (name, part) in enumerate(groups.groupby(groups)):
        ids = part.index.to_numpy()
        size = 4 + 10 * np.sqrt(view.stats.density[ids] / view.stats.density.max())
        look = {"size": size, "color": views.PALETTE[i % len(views.PALETTE)], "symbol": i // len(views.PALETTE)}
        figure.add_scattergl(
            x=view.xy[ids, 0], y=view.xy[ids, 1], mode="markers", marker=look, name=views.plain(name, 30), customdata=ids,
            hovertext=[f"{f}: {views.plain(view.labels[f])} ({view.score(f):.2f})" for f in ids], hoverinfo="text",
        )  # fmt: skip
        figure.data[-1].on_click(click)
    figure._config = figure._config | {"responsive": True}
    return figure


def document_map(view: View, state: State, n_texts: int = 6000) -> list[w.Widget]:
    """A sample of the texts as points, coloured by the selected feature; a click opens the text."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(view.texts))[:n_texts])
    centred = view.embeddings[rows] - view.embeddings[rows].mean(0)
    xy = centred @ np.linalg.svd(centred[rng.permutation(len(rows))[:1500]], full_matrices=False)[2][:2].T
    figure, title = go.FigureWidget(layout={"height": 420, "showlegend": False, **LOOK}), w.HTML()
    figure.add_scattergl(mode="markers", marker={"size": 4, "color": "#bbbbbb"}, hoverinfo="text")
    figure.add_scattergl(mode="markers", marker={"size": 7, "colorscale": "Viridis", "showscale": True}, hoverinfo="text")

    def draw(_: object = None) -> None:
        acts = view.table[:, state.feature].toarray().ravel()[rows]
        with figure.batch_update():
            for trace, here in zip(figure.data, (acts == 0, acts > 0), strict=True):  # grey zeros first
                trace.x, trace.y, trace.customdata = xy[here, 0], xy[here, 1], rows[here]
                trace.hovertext = [f"{r}: {views.plain(view.texts[r])}" for r in rows[here]]
            figure.data[1].marker.color = acts[acts > 0]
        words = f"{len(rows):,} texts (first two principal components), coloured by feature {state.feature}"
        title.value = f"<span class='sae'>{words}</span>"

    def click(trace: go.Scattergl, points: object, _: object) -> None:
        if points.point_inds:
            state.document = int(trace.customdata[points.point_inds[0]])

    for trace in figure.data:
        trace.on_click(click)
    figure._config = figure._config | {"responsive": True}
    state.observe(draw, "feature")
    draw()
    return [title, figure]
