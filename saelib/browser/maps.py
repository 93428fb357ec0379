"""The two maps, as plotly figures: `FeatureMap` shows decoder rows, `DocumentMap` texts (principal
components)."""

from __future__ import annotations

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from matplotlib.path import Path
from plotly.callbacks import BoxSelector, LassoSelector

from saelib.browser.atlas import RED, domain_looks, drawing_order
from saelib.browser.controls import State, auto, while_open
from saelib.browser.lookup import landmarks
from saelib.browser.panes import TextPane, side_card
from saelib.browser.render import box, clean, dim, hover, number
from saelib.browser.view import FeatureView

CLEAR, GREY = "rgba(0,0,0,0)", "#888888"  # grey: legible on light and on dark
LOOK = {
    "template": "none", "autosize": True, "margin": {"l": 4, "r": 4, "t": 28, "b": 4}, "showlegend": False,
    "paper_bgcolor": CLEAR, "plot_bgcolor": CLEAR, "font": {"color": GREY},
    "xaxis": {"visible": False}, "yaxis": {"visible": False},
    "hoverlabel": {"bgcolor": "#222222", "font": {"color": "#ffffff"}},
    "modebar": {"bgcolor": CLEAR, "color": GREY, "activecolor": "#2a8cc8"},
}  # fmt: skip
CONFIG = {  # the data stay here: no icon sends them anywhere, and there is nowhere to send them to
    "responsive": True, "displaylogo": False, "scrollZoom": True,
    "showSendToCloud": False, "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud", "toImage", "autoScale2d"],
}  # fmt: skip
CROWD = 6000  # points drawn at once: what a computer without a graphics card still moves smoothly
PILL = {"showarrow": False, "yshift": 11, "bgcolor": "rgba(30,30,30,.7)", "borderpad": 1,
        "font": {"size": 10, "color": "#ffffff"}}  # fmt: skip
RING = {"size": 20, "symbol": "circle-open", "color": RED, "line": {"width": 3}}
SCALE = {"thickness": 10, "len": 0.5}


def empty_figure(height: int) -> go.FigureWidget:
    """A figure in the look of the browser, whose toolbar sends nothing."""
    figure = go.FigureWidget(layout={"height": height, "dragmode": "pan", **LOOK})
    figure._config = figure._config | CONFIG
    return figure


def beside(left: list[w.Widget], right: list[w.Widget]) -> w.Box:
    """A map, and what stands at its side (below it where it is narrow)."""
    left = w.VBox(left, layout=w.Layout(flex="2 1 520px", min_width="300px"))
    right = w.VBox(right, layout=w.Layout(flex="1.2 1 320px", min_width="260px"))
    return w.Box([left, right], layout=w.Layout(flex_flow="row wrap", width="100%"))


def inside(selector: LassoSelector | BoxSelector, xy: np.ndarray) -> np.ndarray:
    """Which points (n, 2) a lasso or a box holds: (n,) bool."""
    if isinstance(selector, BoxSelector):
        low, high = np.sort(np.array([selector.xrange, selector.yrange]), axis=1).T
        return ((xy >= low) & (xy <= high)).all(1)
    return Path(np.column_stack([selector.xs, selector.ys])).contains_points(xy)


def colours(view: FeatureView, live: np.ndarray, by: str) -> tuple[dict, Markup]:
    """How points are coloured (plotly marker) by "domain", "trust" or "density", and the key to it as
    HTML."""
    if by == "domain":
        groups, looks = view.stats.top_domain[live], domain_looks(list(view.base_rate.index))
        line = Markup(
            '<div><span style="color:{}">{}</span> <bdi>{}</bdi> <span class="dim">{:,}</span></div>'
        )
        count = groups.value_counts()
        key = [
            line.format(colour, shape.sign, clean(name, 40), count[name])
            for name, (colour, shape) in looks.items()
            if name in count
        ]
        look = {
            "color": np.array([looks[g][0] for g in groups]),
            "symbol": np.array([looks[g][1].plotly for g in groups]),
        }
        return look | {"showscale": False}, Markup().join(key)
    density = np.log10(view.stats.density.to_numpy()[live])
    value = view.trusts.to_numpy()[live] if by == "trust" else density
    low, high = (np.nanmin(value), np.nanmax(value)) if np.isfinite(value).any() else (0.0, 1.0)
    title = view.trust_name if by == "trust" else "log10 density"
    look = {"color": np.nan_to_num(value, nan=low), "colorscale": "Cividis", "cmin": low, "cmax": high}
    return look | {
        "symbol": "circle",
        "showscale": True,
        "colorbar": SCALE | {"title": {"text": title}},
    }, Markup()


class FeatureMap:
    """Every live feature as a point: size by density; hover shows name and trust, a click selects, a lasso
    filters.

    A map of more than `CROWD` features draws the first so many of the window, in an order that covers it
    evenly, and those that a search found before all others: what is hidden lies under other points and
    comes out when one zooms in.

    Attributes:
        figure: traces are the points and a ring around the selected one; landmarks are annotations.
        page: the widgets to show.
    """

    def __init__(self, view: FeatureView, state: State) -> None:
        self.view, self.state, self.figure, self.look = view, state, empty_figure(540), {}
        self.live = np.flatnonzero(view.stats.n_texts > 0)
        self.xy, density = view.xy[self.live], view.stats.density.to_numpy()[self.live]
        self.crowded = len(self.live) > CROWD
        self.order = drawing_order(self.xy, density) if self.crowded else np.arange(len(self.live))
        least, more = (2, 4) if self.crowded else (4, 10)
        self.size = least + more * np.sqrt(density / max(density.max(initial=0), 1e-9))
        trusts, groups = view.trusts.to_numpy(), view.stats.top_domain.to_numpy()
        self.hover = [
            f"{f}: {hover(view.labels[f])} ({number(trusts[f])}) · {hover(groups[f], 30)}" for f in self.live
        ]
        self._make_traces()
        self.page = beside(self._make_tools(), [self.key, side_card(view, state, "Feature map")])
        self.paint()
        while_open(state, "Feature map", self.ring, "feature")
        while_open(state, "Feature map", self.highlight, "matches", "within")

    def _make_traces(self) -> None:
        figure, view = self.figure, self.view
        dimmed = {"selected": {"marker": {"opacity": 0.95}}, "unselected": {"marker": {"opacity": 0.2}}}
        marker = {"opacity": 0.8, "line": {"width": 0}}
        figure.add_scattergl(mode="markers", hoverinfo="text", marker=marker, **dimmed)
        figure.add_scattergl(mode="markers", marker=RING, hoverinfo="skip")
        figure.layout.annotations = [
            {"x": view.xy[f, 0], "y": view.xy[f, 1], "text": hover(view.labels[f], 26), **PILL}
            for f in landmarks(view)
        ]
        self.points = figure.data[0]
        self.points.on_click(self._click)
        self.points.on_selection(self._select)
        self.points.on_deselect(self._clear)
        if self.crowded:
            margin = 0.03 * np.ptp(self.xy, axis=0)
            window = np.column_stack([self.xy.min(0) - margin, self.xy.max(0) + margin]).tolist()
            figure.layout.xaxis.range, figure.layout.yaxis.range = window
            figure.layout.on_change(self.draw, "xaxis.range", "yaxis.range")

    def _make_tools(self) -> list[w.Widget]:
        self.key = w.HTML(layout=w.Layout(max_height="250px", overflow="auto"))
        by = [("domain", "domain"), (self.view.trust_name, "trust"), ("density", "density")]
        self.by = w.Dropdown(options=by, description="colour by", layout=w.Layout(width="210px"))
        names = w.Checkbox(value=True, description="names on the map", indent=False, layout=auto())
        self.clear = w.Button(
            description="clear lasso", tooltip="list all features again", disabled=True, layout=auto()
        )
        self.clear.on_click(self._clear)
        self.by.observe(self.paint, "value")
        names.observe(lambda change: self.figure.update_annotations(visible=change["new"]), "value")
        advice = "Size: density. A click selects, a lasso lists only what is inside, a search dims the rest."
        if self.crowded:
            advice += (
                f" Of {len(self.live):,} features {CROWD:,} are drawn at a time: zoom in to see the others."
            )
        tools = w.HBox(
            [self.by, names, self.clear], layout=w.Layout(align_items="center", flex_flow="row wrap")
        )
        return [tools, self.figure, w.HTML(dim(advice))]

    def found(self) -> tuple | None:
        """What a search found, else what a lasso holds; None for all."""
        return self.state.matches if self.state.matches is not None else self.state.within

    def wanted(self) -> np.ndarray:
        """Positions in `live` to draw: what was found first, then the window with half of its size around
        it."""
        if not self.crowded:
            return self.order
        near = np.ones(len(self.live), dtype=bool)
        for i, window in enumerate((self.figure.layout.xaxis.range, self.figure.layout.yaxis.range)):
            near &= np.abs(self.xy[:, i] - sum(window) / 2) <= abs(window[1] - window[0])
        first = np.isin(self.live[self.order], self.found() or ())
        return np.concatenate([self.order[first], self.order[~first & near[self.order]]])[
            : max(CROWD, first.sum())
        ]

    def draw(self, *_: object, again: bool = False) -> None:
        """Draw what is wanted, dim what was not found; the look is as `paint` left it."""
        some, points = self.wanted(), self.points
        if again or not np.array_equal(points.customdata, self.live[some]):
            look = {name: v[some] if isinstance(v, np.ndarray) else v for name, v in self.look.items()}
            texts = [self.hover[i] for i in some]
            with self.figure.batch_update():
                points.update(
                    x=self.xy[some, 0], y=self.xy[some, 1], customdata=self.live[some], hovertext=texts
                )
                points.marker.update(look | {"size": self.size[some]})
        chosen = self.found()
        here = None if chosen is None else np.flatnonzero(np.isin(points.customdata, chosen)).tolist()
        points.selectedpoints = here

    def paint(self, _: object = None) -> None:
        """Colour by what is chosen."""
        self.look, key = colours(self.view, self.live, self.by.value)
        self.key.value = box(key)
        self.draw(again=True)

    def highlight(self) -> None:
        """Follow the search and the lasso."""
        self.draw()
        self.clear.disabled = self.state.within is None

    def ring(self) -> None:
        """Follow the selected feature."""
        here = self.view.xy[[self.state.feature]]
        self.figure.data[1].update(x=here[:, 0], y=here[:, 1])

    def _click(self, _: go.Scattergl, hit: object, __: object) -> None:
        if hit.point_inds:
            self.state.feature = int(self.points.customdata[hit.point_inds[0]])

    def _select(self, _: go.Scattergl, __: object, selector: LassoSelector | BoxSelector) -> None:
        self.state.within = tuple(int(f) for f in self.live[inside(selector, self.xy)]) or None

    def _clear(self, *_: object) -> None:
        self.state.within = None


class DocumentMap:
    """A sample of the texts as points, coloured by the selected feature; a click opens the text beside the
    map.

    Attributes: `figure` (traces: texts without the feature, with it), `page`.
    """

    def __init__(self, view: FeatureView, state: State, n_texts: int = 6000) -> None:
        self.view, self.state, self.pane = view, state, TextPane(view, state)
        self.rows = np.sort(np.random.default_rng(0).permutation(len(view.texts))[:n_texts])
        centred = view.embeddings[self.rows] - view.embeddings[self.rows].mean(0)
        self.xy = centred @ np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]  # two principal components
        self.figure, self.title = empty_figure(520), w.HTML()
        grey = {"size": 4, "color": "#999999", "opacity": 0.4}
        scale = {
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": SCALE | {"title": {"text": "activation"}},
        }
        for marker in (grey, {"size": 8, **scale}):
            self.figure.add_scattergl(mode="markers", marker=marker, hoverinfo="text")
        for trace in self.figure.data:
            trace.on_click(self._click)
        self.page = beside([self.title, self.figure], [self.pane])
        while_open(state, "Document map", self.draw, "feature")
        while_open(state, "Document map", self.pane.show, "document")

    def draw(self) -> None:
        """Follow the selected feature: grey zeros first."""
        view, feature = self.view, self.state.feature
        acts = view.table[:, [feature]].toarray().ravel()[self.rows]
        with self.figure.batch_update():
            for trace, here in zip(self.figure.data, (acts == 0, acts > 0), strict=True):
                trace.x, trace.y, trace.customdata = self.xy[here, 0], self.xy[here, 1], self.rows[here]
                trace.hovertext = [f"{r}: {hover(view.texts[r])}" for r in self.rows[here]]
        # not in the batch: it would take the other trace's colour away
        self.figure.data[1].marker.color = acts[acts > 0]
        words = f"coloured by feature {feature}: {view.labels[feature][:60]}"
        self.title.value = dim(f"{len(self.rows):,} texts (first two principal components), {words}")

    def _click(self, trace: go.Scattergl, points: object, _: object) -> None:
        if points.point_inds:
            self.state.document = int(trace.customdata[points.point_inds[0]])
