"""The two maps, as plotly figures: `feature_map` shows decoder rows (UMAP), `document_map` texts (principal components)."""

from __future__ import annotations

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
from matplotlib.path import Path
from plotly.callbacks import BoxSelector, LassoSelector

from saelib.browser import markup
from saelib.browser import view as lookup
from saelib.browser.controls import State, TextPane, show_document, side_card, while_open
from saelib.browser.view import FeatureView

LOOK = {
    "template": "none",
    "autosize": True,
    "margin": {"l": 4, "r": 4, "t": 28, "b": 4},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": "#888888"},  # legible on light and on dark
    "xaxis": {"visible": False},
    "yaxis": {"visible": False},
    "showlegend": False,
    "hoverlabel": {"bgcolor": "#222222", "font": {"color": "#ffffff"}},
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#888888", "activecolor": "#2a8cc8"},
}
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "scrollZoom": True,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d"],
}
CROWD = 6000  # points drawn at once: what a computer without a graphics card still moves smoothly


def _figure(height: int) -> go.FigureWidget:
    figure = go.FigureWidget(layout={"height": height, "dragmode": "pan", **LOOK})
    figure._config = figure._config | CONFIG
    return figure


def landmarks(view: FeatureView, n: int = 4) -> np.ndarray:
    """Features whose labels are written on the map: the best-named of each of n × n cells, none over another."""
    live = lookup.find(view)
    live = live[[view.labels[f] not in ("unnamed", "(no label)") for f in live]] if len(live) else live
    if not len(live):
        return live
    unit, letters = _unit(view.xy[live]), np.array([len(markup.plain(view.labels[f], 26)) for f in live])
    score = np.nan_to_num([view.score(f) for f in live]) + view.stats.density.to_numpy()[live]
    order = np.argsort(-score, kind="stable")
    kept: list[int] = []
    for i in order[
        _first_of_cells(unit[order], n)
    ]:  # a letter is about 0.8% of the width, a line 4% of the height
        apart = np.abs(unit[kept] - unit[i])
        if not ((apart[:, 0] < 0.004 * (letters[kept] + letters[i])) & (apart[:, 1] < 0.04)).any():
            kept.append(int(i))
    return live[kept]


def _unit(xy: np.ndarray) -> np.ndarray:
    """Points (n, 2) within [0, 1)²."""
    return (xy - xy.min(0)) / np.maximum(np.ptp(xy, axis=0), 1e-9) * (1 - 1e-6)


def _first_of_cells(unit: np.ndarray, n: int) -> np.ndarray:
    """Positions, ascending, of the first point in each of n × n cells; `unit` from `_unit`."""
    return np.sort(np.unique((unit * n).astype(int) @ [n, 1], return_index=True)[1])


def drawing_order(xy: np.ndarray, weight: np.ndarray, levels: int = 10) -> np.ndarray:
    """Positions 0 … n − 1 such that any first part covers the map evenly: the heaviest point, then the heaviest of each of 2 × 2
    cells, of 4 × 4, …; xy (n, 2), weight (n,)."""
    unit, left, parts = _unit(xy), np.argsort(-weight, kind="stable"), []
    for level in range(levels):
        first = _first_of_cells(unit[left], 2**level)
        parts.append(left[first])
        left = np.delete(left, first)
    return np.concatenate([*parts, left])


def inside(selector: LassoSelector | BoxSelector, xy: np.ndarray) -> np.ndarray:
    """Which points (n, 2) a lasso or a box holds: (n,) bool."""
    if isinstance(selector, BoxSelector):
        low, high = np.sort(np.array([selector.xrange, selector.yrange]), axis=1).T
        return ((xy >= low) & (xy <= high)).all(1)
    return Path(np.column_stack([selector.xs, selector.ys])).contains_points(xy)


def colours(view: FeatureView, live: np.ndarray, by: str) -> tuple[dict, str]:
    """How points are coloured (plotly marker) by "domain", "label score" or "density", and the key to it as HTML."""
    if by == "domain" and "top_domain" in view.stats:
        names, codes = np.unique(view.stats.top_domain.to_numpy(str)[live], return_inverse=True)
        palette = [markup.PALETTE[i % len(markup.PALETTE)] for i in range(len(names))]
        scale = [[(i + end) / len(names), colour] for i, colour in enumerate(palette) for end in (0, 1)]
        signs = "●■◆✚✖▲"
        key = "".join(
            f'<div><span style="color:{palette[i]}">{signs[i // 8 % 6]}</span> {markup.safe(name, 40)} '
            f'<span class="dim">{(codes == i).sum():,}</span></div>' for i, name in enumerate(names)
        )  # fmt: skip
        shapes = np.array(["circle", "square", "diamond", "cross", "x", "triangle-up"])
        symbol = shapes[codes // 8 % 6] if len(names) > 8 else "circle"
        look = {"color": codes, "colorscale": scale, "cmin": -0.5, "cmax": len(names) - 0.5, "symbol": symbol}
        return look | {"showscale": False}, key
    value = (
        np.array([view.score(f) for f in live])
        if by == "label score"
        else np.log10(view.stats.density.to_numpy()[live])
    )
    low, high = (np.nanmin(value), np.nanmax(value)) if np.isfinite(value).any() else (0.0, 1.0)
    look = {
        "color": np.nan_to_num(value, nan=low),
        "colorscale": "Cividis",
        "cmin": low,
        "cmax": high,
        "symbol": "circle",
    }
    bar = {"thickness": 10, "len": 0.5, "title": {"text": by if by == "label score" else "log10 density"}}
    return look | {"showscale": True, "colorbar": bar}, ""


def feature_map(view: FeatureView, state: State) -> tuple[go.FigureWidget, list[w.Widget]]:
    """Every live feature as a point: size by density; hover shows label and score, a click selects, a lasso filters the list.

    A map of more than `CROWD` features draws the first so many of the window, in an order that covers it evenly, and those that
    a search found before all others: what is hidden lies under other points and comes out when one zooms in.

    Returns:
        the figure (traces: points, the selected one; landmarks are annotations), and the widgets of the page.
    """
    figure, live = _figure(540), np.flatnonzero(view.stats.n_texts > 0)
    xy, density, crowded = view.xy[live], view.stats.density.to_numpy()[live], len(live) > CROWD
    order = drawing_order(xy, density) if crowded else np.arange(len(live))
    least, more = (2, 4) if crowded else (4, 10)
    size = least + more * np.sqrt(density / max(density.max(initial=0), 1e-9))
    groups = view.stats.top_domain.to_numpy(str)[live] if "top_domain" in view.stats else [""] * len(live)
    hover = [
        f"{f}: {markup.plain(view.labels[f])} ({markup.number(view.score(f))}) · {markup.plain(g, 30)}"
        for f, g in zip(live, groups, strict=True)
    ]
    figure.add_scattergl(
        mode="markers", hoverinfo="text", marker={"opacity": 0.8, "line": {"width": 0}}, selected={"marker": {"opacity": 0.95}},
        unselected={"marker": {"opacity": 0.06}},
    )  # fmt: skip
    pill = {
        "showarrow": False,
        "yshift": 11,
        "bgcolor": "rgba(30,30,30,.7)",
        "font": {"size": 10, "color": "#ffffff"},
        "borderpad": 1,
    }
    figure.layout.annotations = [
        {"x": view.xy[f, 0], "y": view.xy[f, 1], "text": markup.plain(view.labels[f], 26), **pill}
        for f in landmarks(view)
    ]
    ring = {"size": 20, "symbol": "circle-open", "color": markup.RED, "line": {"width": 3}}
    figure.add_scattergl(mode="markers", marker=ring, hoverinfo="skip")
    points, key = figure.data[0], w.HTML(layout=w.Layout(max_height="250px", overflow="auto"))
    by = w.Dropdown(
        options=["domain", "label score", "density"], description="colour by", layout=w.Layout(width="210px")
    )
    names = w.Checkbox(
        value=True, description="names on the map", indent=False, layout=w.Layout(width="auto")
    )
    clear = w.Button(
        description="clear lasso",
        tooltip="list all features again",
        disabled=True,
        layout=w.Layout(width="auto"),
    )

    look: dict = {}

    def found() -> tuple | None:
        return state.matches if state.matches is not None else state.within

    def wanted() -> np.ndarray:
        """Positions in `live` to draw: what was found first, then the window with half of its size around it."""
        if not crowded:
            return order
        near = np.ones(len(live), dtype=bool)
        for i, window in enumerate((figure.layout.xaxis.range, figure.layout.yaxis.range)):
            near &= np.abs(xy[:, i] - sum(window) / 2) <= abs(window[1] - window[0])
        first = np.isin(live[order], found() or ())
        return np.concatenate([order[first], order[~first & near[order]]])[: max(CROWD, first.sum())]

    def draw(*_: object, again: bool = False) -> None:
        some = wanted()
        if again or not np.array_equal(points.customdata, live[some]):
            cut = {name: v[some] if isinstance(v, np.ndarray) else v for name, v in look.items()}
            with figure.batch_update():
                points.update(
                    x=xy[some, 0], y=xy[some, 1], customdata=live[some], hovertext=[hover[i] for i in some]
                )
                points.marker.update(cut | {"size": size[some]})
        chosen = found()
        points.selectedpoints = (
            None if chosen is None else np.flatnonzero(np.isin(points.customdata, chosen)).tolist()
        )

    def paint(_: object = None) -> None:
        new, words = colours(view, live, by.value)
        look.clear()
        look.update(new)
        key.value = markup.box(words)
        draw(again=True)

    def highlight() -> None:
        draw()
        clear.disabled = state.within is None

    def ring_it() -> None:
        figure.data[1].update(x=view.xy[[state.feature], 0], y=view.xy[[state.feature], 1])

    def click(_: go.Scattergl, hit: object, __: object) -> None:
        if hit.point_inds:
            state.feature = int(points.customdata[hit.point_inds[0]])

    def select(_: go.Scattergl, __: object, selector: LassoSelector | BoxSelector) -> None:
        state.within = tuple(int(f) for f in live[inside(selector, xy)]) or None

    points.on_click(click)
    points.on_selection(select)
    points.on_deselect(lambda *_: setattr(state, "within", None))
    clear.on_click(lambda _: setattr(state, "within", None))
    by.observe(paint, "value")
    names.observe(lambda change: figure.update_annotations(visible=change["new"]), "value")
    if crowded:
        margin = 0.03 * np.ptp(xy, axis=0)
        figure.layout.xaxis.range, figure.layout.yaxis.range = np.column_stack(
            [xy.min(0) - margin, xy.max(0) + margin]
        ).tolist()
        figure.layout.on_change(draw, "xaxis.range", "yaxis.range")
    paint()
    while_open(state, "Feature map", ring_it, "feature")
    while_open(state, "Feature map", highlight, "matches", "within")
    tools = w.HBox([by, names, clear], layout=w.Layout(align_items="center", flex_flow="row wrap"))
    advice = "Size: density. A click selects; a lasso (bar above the map) lists only what is inside; a search dims the rest."
    if crowded:
        advice += f" Of {len(live):,} features the map draws {CROWD:,} at a time: zoom in to see the others."
    left = [tools, figure, w.HTML(markup.box(f'<span class="dim">{advice}</span>'))]
    left = w.VBox(left, layout=w.Layout(flex="2 1 520px", min_width="300px"))
    right = w.VBox(
        [key, side_card(view, state, "Feature map")], layout=w.Layout(flex="1 1 300px", min_width="260px")
    )
    return figure, [w.Box([left, right], layout=w.Layout(flex_flow="row wrap", width="100%"))]


def document_map(
    view: FeatureView, state: State, n_texts: int = 6000
) -> tuple[go.FigureWidget, list[w.Widget]]:
    """A sample of the texts as points, coloured by the selected feature; a click opens the text beside the map."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(view.texts))[:n_texts])
    centred = view.embeddings[rows] - view.embeddings[rows].mean(0)
    xy = centred @ np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]  # first two principal components
    figure, title, pane = _figure(520), w.HTML(), TextPane(view, state)
    bar = {
        "colorscale": "Viridis",
        "showscale": True,
        "colorbar": {"thickness": 10, "len": 0.5, "title": {"text": "activation"}},
    }
    figure.add_scattergl(
        mode="markers", marker={"size": 4, "color": "#999999", "opacity": 0.4}, hoverinfo="text"
    )
    figure.add_scattergl(mode="markers", marker={"size": 8, **bar}, hoverinfo="text")

    def draw() -> None:
        acts = view.table[:, state.feature].toarray().ravel()[rows]
        with figure.batch_update():
            for trace, here in zip(figure.data, (acts == 0, acts > 0), strict=True):  # grey zeros first
                trace.x, trace.y, trace.customdata = xy[here, 0], xy[here, 1], rows[here]
                trace.hovertext = [f"{r}: {markup.plain(view.texts[r])}" for r in rows[here]]
        figure.data[1].marker.color = acts[
            acts > 0
        ]  # not in the batch: it would take the other trace's colour away
        words = f"coloured by feature {state.feature}: {markup.safe(view.labels[state.feature], 60)}"
        title.value = markup.box(
            f'<span class="dim">{len(rows):,} texts (first two principal components), {words}</span>'
        )

    def click(trace: go.Scattergl, points: object, _: object) -> None:
        if points.point_inds:
            state.document = int(trace.customdata[points.point_inds[0]])

    def open_text() -> None:
        if state.document >= 0:
            show_document(view, state, pane)

    for trace in figure.data:
        trace.on_click(click)
    while_open(state, "Document map", draw, "feature")
    while_open(state, "Document map", open_text, "document")
    left = w.VBox([title, figure], layout=w.Layout(flex="2 1 520px", min_width="300px"))
    right = w.VBox([pane], layout=w.Layout(flex="1.4 1 340px", min_width="300px"))
    return figure, [w.Box([left, right], layout=w.Layout(flex_flow="row wrap", width="100%"))]
