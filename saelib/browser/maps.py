"""The two maps: `feature_map` shows decoder rows, `TextMap` texts (principal components).

What is drawn, and how one moves in it, is static/map.js, in the notebook and in the page; here are the data.
"""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import numpy as np
import pandas as pd
import traitlets

from saelib.browser.atlas import OTHER, domain_looks, drawing_order, unit_square
from saelib.browser.controls import State, while_open
from saelib.browser.lookup import by_weight
from saelib.browser.render import clean, script
from saelib.browser.view import FeatureView

COLOURED = 40  # families with a colour and shape of their own
SMALLER, NONE = -2, -1  # what stands for the others


class PointMap(anywidget.AnyWidget):
    """Points on a canvas. Their data follow when the page has drawn everything else and asks for them.

    Args:
        make: gives `data`. hear: what is done when the page sends a message of this name.

    Attributes: `data`, see static/map.js; `chosen`, the ringed one; `found`, those not dimmed, None for all;
    `within`, what a lasso holds; `values`: [name, places, numbers] of the points that have a number.
    """

    _esm = script("map.js", "map_widget.js")
    data = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    found = traitlets.List(allow_none=True, default_value=None).tag(sync=True)
    within = traitlets.List(allow_none=True, default_value=None).tag(sync=True)
    values = traitlets.List().tag(sync=True)
    lasso = traitlets.Bool(False).tag(sync=True)

    def __init__(self, make: Callable[[], dict], hear: dict[str, Callable], **more: object) -> None:
        super().__init__(**more)
        hear = {"ready": lambda _: setattr(self, "data", self.data or make()), **hear}
        self.on_msg(lambda _, content, __: [hear[kind](value) for kind, value in content.items()])


def point_data(noun: str, ids: np.ndarray, xy: np.ndarray, labels: list[str], **more: object) -> dict:
    """What static/map.js draws: points (n, 2) in the unit square, `more` over the defaults."""
    n, columns = len(ids), xy.round(4).T.tolist() if len(ids) else ([], [])
    data = {"noun": noun, "ids": ids.tolist(), "x": columns[0], "y": columns[1], "r": [3.5] * n}
    data |= {
        "labels": labels,
        "kinds": {},
        "values": {},
        "order": list(range(n)),
        "named": [],
    }
    return data | more


def _kinds(keys: pd.Series, order: list, called: Callable[[object], str], rest: dict | None = None) -> dict:
    """Which colour and shape each point has (`group`), and what these stand for (`looks`), in this order.

    Args:
        keys: of each point. rest: keys that are drawn in a grey, and their names.
    """
    looks = domain_looks(order) | dict.fromkeys(rest or {}, OTHER)
    count, names = keys.value_counts(), {key: called(key) for key in order} | (rest or {})
    place = {key: i for i, key in enumerate(key for key in looks if key in count)}
    shown = [
        {"name": clean(names[key], 40), "colour": looks[key][0], "path": looks[key][1].path,
         "sign": looks[key][1].sign, "count": int(count[key]), "dim": key == NONE} for key in place
    ]  # fmt: skip
    return {"group": keys.map(place).tolist(), "looks": shown}


def feature_data(view: FeatureView) -> dict:
    """The live features as points: place by decoder row, size by density, colour by domain or family."""
    live = np.flatnonzero(view.stats.n_texts > 0)
    if not len(live):
        return point_data("features", live, view.xy, [])
    density, xy = view.stats.density.to_numpy()[live], unit_square(view.xy[live])
    kinds = {"domain": _kinds(view.stats.top_domain.iloc[live], list(view.base_rate.index), str)}
    if view.kin:
        family = pd.Series([view.kin[f].families[0] if f in view.kin else NONE for f in live])
        large = family[family != NONE].value_counts().index[:COLOURED].tolist()
        family = family.where(family.isin([*large, NONE]), SMALLER)
        rest = {SMALLER: "smaller families", NONE: "in no family"}
        kinds["family"] = _kinds(family, large, view.family_name, rest)
    least, more = (1.5, 3) if len(live) > 6000 else (2, 4) if len(live) > 1000 else (3, 5)
    trusts = [None if np.isnan(t) else round(t, 3) for t in view.trusts.iloc[live]]
    at = np.full(view.sae.d_sae, -1)
    at[live] = np.arange(len(live))
    named = at[by_weight(view)]
    return point_data(
        "features", live, xy, [clean(view.labels[f], 80) for f in live],
        r=(least + more * np.sqrt(density / density.max())).round(1).tolist(),
        kinds=kinds,
        values={view.trust_name: trusts, "log10 density": np.log10(density).round(3).tolist()},
        order=drawing_order(xy, density).tolist(), named=named[named >= 0].tolist(),
    )  # fmt: skip


def feature_map(view: FeatureView, state: State, page: str) -> PointMap:
    """Every live feature as a point: a click selects, a lasso filters, a search dims the rest."""
    hear = {
        "pick": lambda f: setattr(state, "feature", int(f)),
        "lasso": lambda ids: setattr(state, "within", None if ids is None else tuple(map(int, ids))),
    }
    points = PointMap(lambda: feature_data(view), hear, lasso=True)

    def found() -> None:
        some = state.matches if state.matches is not None else state.within
        points.within = None if state.within is None else list(state.within)
        points.found = None if some is None else list(some)

    while_open(state, page, lambda: setattr(points, "chosen", state.feature), "feature")
    while_open(state, page, found, "matches", "within")
    return points


class TextMap:
    """A sample of the texts as points, coloured by the selected feature; a click opens the text.

    Attributes: `points`, the widget; `rows`, which texts are drawn.
    """

    def __init__(self, view: FeatureView, state: State, page: str, n_texts: int = 6000) -> None:
        self.view, self.state = view, state
        self.rows = np.sort(np.random.default_rng(0).permutation(len(view.texts))[:n_texts])
        centred = view.embeddings[self.rows] - view.embeddings[self.rows].mean(0)
        xy = unit_square(centred @ np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1])
        labels = [clean(view.texts[r], 90) for r in self.rows]
        values = {"activation": [0] * len(self.rows)}
        data = point_data("texts", self.rows, xy, labels, values=values, sparse=True)
        self.points = PointMap(lambda: data, {"pick": lambda r: setattr(state, "document", int(r))})
        while_open(state, page, self.draw, "feature")
        while_open(state, page, lambda: setattr(self.points, "chosen", state.document), "document")

    def draw(self) -> None:
        """Follow the selected feature."""
        acts = self.view.table[:, [self.state.feature]].toarray().ravel()[self.rows]
        on = np.flatnonzero(acts > 0)
        self.points.values = ["activation", on.tolist(), acts[on].round(3).tolist()]
