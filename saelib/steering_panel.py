"""The search that a person steers, as widgets: a query, sliders for its features, the ranking that follows.

A slider is in units of what is typical for its feature (`steering.typical`): 0 is off, 1 as active as on a
strong text. Whatever moves, the ranking is made anew by `ranking`, which needs no widget and can be tested
and timed.
"""

from __future__ import annotations

from typing import NamedTuple

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import display
from markupsafe import Markup

from saelib import steering
from saelib.activations import EncodedTexts
from saelib.browser.render import clean, visible
from saelib.encoder import Encode
from saelib.sae import SAE


class Ranking(NamedTuple):
    """A steered search: `hits`; `came`, those the query alone did not find; `went`, those that only it finds;
    `why`, of `steering.why`, a row per hit."""

    hits: steering.Hits
    came: np.ndarray
    went: np.ndarray
    why: pd.DataFrame


class SteeredSearch:
    """A query and what is asked of its features; `ranking` is what a moved slider costs.

    Args:
        texts: what is searched, of `read_texts`. encode: the encoder that made the embeddings, for queries.
        names: index feature, what each is called.
        families: index family's name, values lists of features, or None.
    """

    def __init__(
        self, sae: SAE, texts: EncodedTexts, encode: Encode, names: pd.Series,
        families: dict[str, list[int]] | None = None, n: int = 10,
    ) -> None:  # fmt: skip
        self.sae, self.texts, self.encode, self.names, self.n = sae, texts, encode, names, n
        self.families, typical = families or {}, steering.typical(texts.table)
        self.typical = np.where(typical > 0, typical, 1)  # where no text has the feature, any number does
        self.by_feature = texts.table.tocsc()
        self.ask("")

    def ask(self, query: str) -> None:
        """Take up a query: its embedding and features, every level as it is. One that the encoder gives no
        vector for is the mean of the texts."""
        x = np.nan_to_num(self.encode([query.strip() or "."])[0])
        self.x = x if x.any() else self.texts.embeddings.mean(0)
        self.now = steering.query_features(self.sae, self.x)
        self.plain = steering.search(self.texts.embeddings, self.x, self.n)

    def ranking(
        self, strengths: dict[int, float], must: tuple[int, ...] = (), must_not: tuple[int, ...] = ()
    ) -> Ranking:
        """The n best texts with these features at so many times their typical activation."""
        levels = {f: s * float(self.typical[f]) for f, s in strengths.items()}
        edited = steering.edit(self.sae, self.x, levels)
        fits = steering.allowed(self.by_feature, must, must_not) if must or must_not else None
        hits = steering.search(self.texts.embeddings, edited.x, self.n, fits)
        came = np.setdiff1d(hits.rows, self.plain.rows)
        went = np.setdiff1d(self.plain.rows, hits.rows)
        why = steering.why(edited, self.sae, self.x, self.texts.embeddings[hits.rows])
        return Ranking(hits, came, went, why)

    def called(self, feature: int) -> str:
        return f"{self.names.get(feature, 'unnamed')} ({feature})"

    def shown(self, found: Ranking) -> Markup:
        """A ranking as HTML: + for a text that came, why its score moved, below them those that went."""
        row = Markup('<tr><td>{}</td><td>{:.3f}</td><td>{}</td><td style="color:#666">{}</td></tr>')
        moved = found.why.drop(columns=["before", "after"])
        lines = []
        for i, (r, score) in enumerate(zip(*found.hits, strict=True)):
            parts = moved.iloc[i][moved.iloc[i].abs() > 0.005].sort_values(key=np.abs, ascending=False)[:3]
            said = [f"{part:+.2f} {f if f == 'length' else self.called(f)}" for f, part in parts.items()]
            sign = "+" if r in found.came else ""
            text = clean(self.texts.texts[r], 160)
            lines.append(row.format(sign, score, text, visible(", ".join(said))))
        gone = [Markup("<li>{}</li>").format(clean(self.texts.texts[r], 110)) for r in found.went]
        table = Markup("<table>{}</table>").format(Markup("").join(lines))
        return table + Markup("<p>went: {}</p><ul>{}</ul>").format(len(gone), Markup("").join(gone))


class SteeringPanel:
    """The widgets over a `SteeredSearch`; `widget` holds them all, `sliders` feature → slider."""

    def __init__(self, search: SteeredSearch, query: str) -> None:
        self.search, self.sliders = search, {}
        named = [(search.called(f), f) for f in search.names.index if search.names[f] != "unnamed"]
        self.query = w.Text(query, description="query", continuous_update=False, layout=w.Layout(width="60%"))
        labels = [label for label, _ in named]
        self.add = w.Combobox(options=labels, placeholder="add a feature", ensure_option=True)
        self.family = w.Dropdown(options=["turn a family up", *search.families])
        self.must, self.must_not = (
            w.SelectMultiple(options=named, description=text, rows=4) for text in ("must have", "must not")
        )
        self.dials, self.result = w.VBox(), w.HTML()
        self.by_label = dict(named)
        self.query.observe(self.ask, "value")
        self.add.observe(self.added, "value")
        self.family.observe(self.turned, "value")
        for box in (self.must, self.must_not):
            box.observe(self.update, "value")
        top = w.HBox([self.query, self.add, self.family])
        self.widget = w.VBox([top, w.HBox([self.dials, self.must, self.must_not]), self.result])
        self.ask()

    def ask(self, _: object = None) -> None:
        self.search.ask(self.query.value)
        self.sliders = {}
        for feature, act in self.search.now.items():
            self.dial(feature, act / float(self.search.typical[feature]))
        self.update()

    def dial(self, feature: int, strength: float) -> None:
        label = clean(self.search.called(feature), 40)
        slider = w.FloatSlider(
            strength, min=0, max=max(3.0, strength), step=0.05, description=label,
            style={"description_width": "240px"}, layout=w.Layout(width="520px"),
        )  # fmt: skip
        slider.observe(self.update, "value")
        self.sliders[feature] = slider
        self.dials.children = tuple(self.sliders.values())

    def added(self, _: object = None) -> None:
        feature = self.by_label.get(self.add.value)
        if feature is not None and feature not in self.sliders:
            self.dial(feature, 1.0)
            self.update()

    def turned(self, _: object = None) -> None:
        members = self.search.families.get(self.family.value, [])
        levels = steering.family_levels(self.search.now, members, 1.5, self.search.typical)
        for feature, level in levels.items():
            strength = level / float(self.search.typical[feature])
            if feature not in self.sliders:
                self.dial(feature, strength)
            elif (slider := self.sliders[feature]).value < strength:
                slider.max = max(slider.max, strength)
                slider.value = strength
        self.update()

    def update(self, _: object = None) -> None:
        strengths = {f: s.value for f, s in self.sliders.items()}
        found = self.search.ranking(strengths, self.must.value, self.must_not.value)
        self.result.value = str(self.search.shown(found))


def steer(search: SteeredSearch, query: str) -> SteeringPanel:
    """Show the panel (a line of text where widgets cannot run) and return it."""
    panel = SteeringPanel(search, query)
    text = {"text/plain": "the steering panel: run this cell to open it"}
    display(panel.widget._repr_mimebundle_() | text, raw=True)
    return panel
