"""The feature browser: one state, widgets that show what `cards.py` renders, the same views as one HTML file.

`browse(view)` shows widgets (JupyterLab, Notebook, Colab, Kaggle, Voila); `browse(view, mode="static")` gives
HTML that needs neither kernel nor network. Maps and pages of the sections are built when they are opened.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ipywidgets as w
import numpy as np
from IPython.display import HTML, display
from markupsafe import Markup

from saelib.browser import cards, panels
from saelib.browser.controls import WIDE, WRAPPED, Pager, Rows, Sections, State, auto, classed, labelled
from saelib.browser.lookup import SORTS, find
from saelib.browser.maps import DocumentMap, FeatureMap
from saelib.browser.notes import Notes
from saelib.browser.panes import ExamplesPane, NeighboursPane, NotePane, TextPane
from saelib.browser.render import box, clean, dim, error, number, style, styled
from saelib.browser.report import framed, page
from saelib.browser.view import FeatureView, check_feature

PER_PAGE = 12  # rows of the feature table


class Browser:
    """The widgets. Attributes: `state`, `view`, `widget` (what is displayed), and the controls by name."""

    def __init__(
        self, view: FeatureView, notes: str | Path | None = None, feature: int | None = None
    ) -> None:
        self.view, self.state, self.notes = view, State(), Notes(notes)
        self.busy, self.reverse = False, False
        self.features = find(view)
        first = self.features[0] if len(self.features) else 0
        self.state.set_trait("feature", check_feature(view, first if feature is None else feature))
        tools, left, right = self._make_tools(), self._make_table(), self._make_right()
        self.sections = self._make_sections()
        body = w.Box([left, right], layout=w.Layout(flex_flow="row wrap", width="100%", overflow="visible"))
        self.error = w.HTML(layout=WIDE)
        css = w.HTML(f"<style>{style()}</style>", layout=w.Layout(margin="0", height="0"))
        self.widget = w.VBox([css, tools, self.error, body, self.sections])
        self.widget.add_class("sae-browser")
        self.state.observe(self._show_feature, "feature")
        self.state.observe(self._show_document, "document")
        self.state.observe(self._refresh, "within")
        self.state.observe(lambda change: setattr(self.error, "value", error(change.new)), "message")
        self._refresh()
        self._show_feature()

    # controls

    def _make_tools(self) -> w.Box:
        self.search = w.Text(placeholder="a word, e.g. galaxy", **labelled("250px", description="search"))
        no_encoder = self.view.encoder is None
        self.meaning = w.Checkbox(description="by meaning", indent=False, disabled=no_encoder, layout=auto())
        sorts = [(self.view.trust_name if name == "trust" else name, name) for name in SORTS]
        self.sort = w.Dropdown(options=sorts, **labelled("160px", description="sort"))
        self.hide_dead = w.Checkbox(value=True, description="hide dead", indent=False, layout=auto())
        self.number = w.Text(continuous_update=False, **labelled("130px", description="feature id"))
        steps = {"previous": -1, "next": 1, "random": None}
        self.buttons = {
            n: w.Button(description=n, tooltip=f"{n} feature of the list", layout=auto()) for n in steps
        }
        self.number.observe(self._type_number, "value")
        self.sort.observe(lambda _: setattr(self, "reverse", False), "value")
        for control in (self.search, self.meaning, self.sort, self.hide_dead):
            control.observe(self._refresh, "value")
        for name, step in steps.items():
            self.buttons[name].on_click(lambda _, s=step: self._move(s))
        tools = [self.search, self.meaning, self.sort, self.hide_dead, self.number, *self.buttons.values()]
        return classed(w.Box(tools, layout=w.Layout(**WRAPPED)), "sae-tools")

    def _make_table(self) -> w.VBox:
        self.heads = {}
        for name in ("id", "label", "trust", "density", "max", "mean"):
            self.heads[name] = w.Button(tooltip=f"sort by {name}; again: the other way round")
            self.heads[name].on_click(lambda _, n=name: self._sort_by(n))
        near = w.HTML(box(Markup('<div class="n near">near</div>')))
        heads = classed(w.Box([*self.heads.values(), near]), "sae-heads")
        self.list = Rows("features", 44, lambda f: setattr(self.state, "feature", f))
        self.pager, self.count = Pager("features", PER_PAGE, self._show_list), w.HTML()
        foot = classed(w.Box([self.pager, self.count], layout=w.Layout(**WRAPPED)), "sae-line")
        left = w.VBox([heads, self.list, foot], layout=w.Layout(flex="4 1 400px", min_width="320px"))
        return classed(left, "sae-left")

    def _make_right(self) -> w.VBox:
        view, state = self.view, self.state
        self.card, self.text = w.HTML(layout=WIDE), TextPane(view, state)
        self.examples, self.neighbours = ExamplesPane(view, state, self._open), NeighboursPane(view, state)
        self.note = NotePane(state, self.notes)
        self.panes = {
            "Examples": self.examples, "Text": self.text, "Neighbours": self.neighbours, "Note": self.note,
        }  # fmt: skip
        tips = [f"show: {name.lower()}" for name in self.panes]
        self.pane = classed(w.ToggleButtons(options=list(self.panes), tooltips=tips), "sae-tabs")
        self.pane.style.button_width = "auto"
        self.pane.observe(self._show_pane, "value")
        parts = [self.card, self.pane, *self.panes.values()]
        return classed(w.VBox(parts, layout=w.Layout(flex="6 1 480px", min_width="320px")), "sae-right")

    def _make_sections(self) -> Sections:
        view, state = self.view, self.state
        makers = {
            "Feature map": self._map_page,
            "Document map": self._document_map_page,
            "Try a sentence": lambda: [panels.sentence_page(view, state)],
            "Compare two texts": lambda: [panels.pair_page(view, state)],
            "Compare two features": lambda: [panels.features_page(view, state)],
            "Compare two domains": lambda: [panels.domains_page(view, state)],
            "Export": lambda: [panels.export_page(view, self.notes)],
        }
        return Sections(makers, state)

    # what the controls do

    def _refresh(self, _: object = None) -> None:
        query, within = self.search.value.strip(), self.state.within
        meaning = bool(query) and self.meaning.value
        if meaning and self.view.vectors is None:
            self.count.value = dim("embedding the labels, once …", "status")
        order = {"sort": self.sort.value, "reverse": self.reverse, "hide_dead": self.hide_dead.value}
        try:
            self.features = find(self.view, query, by_meaning=self.meaning.value, within=within, **order)
            self.state.message = ""
        except ValueError as problem:
            self.state.message = str(problem)
            return
        found = self.features[:50] if meaning else self.features  # every feature is a little like a phrase
        self.state.matches = tuple(map(int, found)) if query else None
        for name, button in self.heads.items():
            mark = "" if name != self.sort.value or meaning else " ▴" if self.reverse else " ▾"
            button.description = (self.view.trust_name if name == "trust" else name) + mark
        self.count.value = dim(self._count(meaning), "status")
        self.pager.page = 0
        self._show_list()

    def _count(self, meaning: bool) -> str:
        """What the list under it holds, in words."""
        n, within = len(self.features), self.state.within is not None
        if not n:
            advice = "" if meaning or self.meaning.disabled else ": tick “by meaning”"
            return f"no label has this in it{advice}"
        text = f"{n:,} feature{'s' * (n != 1)}" + (" inside the lasso" if within else "")
        return text + (", nearest in meaning first" if meaning else "")

    def _show_list(self) -> None:
        start = self.pager.page * PER_PAGE
        here = self.features[start : start + PER_PAGE].tolist()
        trusts = [f"{self.view.trust_name} {number(self.view.trust(f))}" for f in here]
        items = [(f"{f}: {clean(self.view.labels[f])}, {t}", f) for f, t in zip(here, trusts, strict=True)]
        self.list.show(cards.feature_rows(self.view, here), items, self.state.feature)
        self.pager.show(len(self.features))

    def _sort_by(self, name: str) -> None:
        if self.sort.value != name:
            self.sort.value = name
        else:
            self.reverse = not self.reverse
            self._refresh()

    def _type_number(self, change: dict) -> None:
        if self.busy or not str(change["new"]).strip():
            return
        try:
            self.state.feature = check_feature(self.view, change["new"])
            self.state.message = ""
        except ValueError as problem:
            self.state.message = str(problem)  # the feature shown before stays

    def _move(self, step: int | None) -> None:
        if not len(self.features):
            return
        if step is None:
            self.state.feature = int(np.random.default_rng().choice(self.features))
            return
        here = np.flatnonzero(self.features == self.state.feature)
        place = (here[0] + step) % len(self.features) if len(here) else 0
        self.state.feature = int(self.features[place])

    def _open(self, row: int) -> None:
        self.state.document = row
        self.pane.value = "Text"

    # what follows the state

    def _show_card(self) -> None:
        f, row = self.state.feature, self.state.document
        mark = float(self.view.by_text[row, f]) if row >= 0 else None
        self.card.value = box(cards.overview(self.view, f, mark))

    def _show_feature(self, _: object = None) -> None:
        self._show_card()
        self.busy = True
        self.number.value = str(self.state.feature)
        self.busy = False
        here = np.flatnonzero(self.features == self.state.feature)
        self.pager.page = int(here[0]) // PER_PAGE if len(here) else self.pager.page
        self._show_list()
        self.note.show()
        self.examples.pager.page = 0
        self._show_pane()

    def _show_pane(self, _: object = None) -> None:
        """Only the chosen pane is drawn: a selection is answered sooner."""
        for name, pane in self.panes.items():
            pane.layout.display = None if name == self.pane.value else "none"
        if self.pane.value in ("Examples", "Neighbours") or self.state.document < 0:
            self.panes[self.pane.value].show()

    def _show_document(self, _: object = None) -> None:
        if self.state.document >= 0:
            self._show_card()
            self.text.show()

    # pages, built when opened

    def _map_page(self) -> list[w.Widget]:
        self.map = FeatureMap(self.view, self.state)
        return [self.map.page]

    def _document_map_page(self) -> list[w.Widget]:
        self.document_map = DocumentMap(self.view, self.state)
        return [self.document_map.page]


def browse(
    view: FeatureView,
    *,
    feature: int | None = None,
    notes: str | Path | None = None,
    mode: str = "widgets",
    limit: int = 300,
) -> Browser | HTML:
    """Open the browser.

    Args:
        view: from `make_view`. feature: the one shown first; None takes the best named. notes: JSON file for
            your notes.
        mode: "widgets", or "static": one feature's views as HTML when `feature` is given, else the whole page
            (`limit` features) in a frame.

    Raises:
        ValueError: an unknown mode or feature, a damaged notes file.
    """
    if mode == "static":
        if feature is None:
            return HTML(framed(page(view, limit=limit, notes=Notes(notes).by_feature)))
        f = check_feature(view, feature)
        parts = (cards.overview(view, f), cards.examples(view, f), cards.neighbours(view, f))
        return HTML(styled(Markup().join(parts)))
    if mode != "widgets":
        raise ValueError(f"mode must be 'widgets' or 'static', not {mode!r}")
    # Colab shows widgets that are not its own (the maps) only where this was said before
    if "google.colab.output" in sys.modules:
        sys.modules["google.colab.output"].enable_custom_widget_manager()
    browser = Browser(view, notes, feature)
    shown = browser.widget._repr_mimebundle_() | {
        "text/plain": "the feature browser: run this cell to open it"
    }
    display(shown, raw=True)
    return browser
