"""The feature browser: one state, widgets that show what `cards.py` renders, the same views as one HTML file.

`browse(view)` shows widgets (JupyterLab, Notebook, Colab, Kaggle, Voila); `browse(view, mode="static")` gives
HTML that needs neither kernel nor network. Maps and pages are built when they are opened.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ipywidgets as w
import numpy as np
from IPython.display import HTML, display
from markupsafe import Markup

from saelib.browser import cards, panels
from saelib.browser.controls import (
    AUTO,
    WIDE,
    WRAPPED,
    Links,
    Pager,
    State,
    Tabs,
    button,
    classed,
    html,
    labelled,
)
from saelib.browser.filters import Filters
from saelib.browser.lookup import SORTS, Keep, find, first_shown, similarity, word_hits
from saelib.browser.maps import TextMap, feature_map
from saelib.browser.notes import Notes
from saelib.browser.panes import ExamplesPane, FamilyPane, NeighboursPane, NotePane, TextPane
from saelib.browser.render import box, dim, error, render, style, styled
from saelib.browser.report import framed, page
from saelib.browser.view import FeatureView, check_feature

MARKED = "background:#2a8cc82b!important"  # rows of the selected feature, in every list
PER_PAGE = 8  # rows of the feature table


class Browser:
    """The widgets. Attributes: `state`, `view`, `widget` (what is displayed), and the controls by name."""

    def __init__(
        self, view: FeatureView, notes: str | Path | None = None, feature: int | None = None
    ) -> None:
        self.view, self.notes = view, Notes(notes)
        self.sort, self.reverse = "density", False
        self.features = find(view)
        first = first_shown(view, self.features) if feature is None else feature
        self.state = State(check_feature(view, first))
        self.links = Links(self._hear)
        tools, self.filters = self._make_tools(), Filters(view, self.notes, self._refresh)
        right = self._make_right()
        self.tabs = self._make_tabs()
        left = classed(w.VBox([self.tabs], layout=w.Layout(flex="1 1 480px", min_width="0")), "sae-left")
        self.body = classed(
            w.Box([left, right], layout=w.Layout(flex_flow="row wrap", width="100%")), "sae-body"
        )
        self.error, self.busy, self.chosen = html(layout=WIDE), classed(html(), "sae-busy"), html()
        css = w.HTML(f"<style>{style()}</style>", layout=w.Layout(margin="0", height="0"))
        live = int((view.stats.n_texts > 0).sum())
        about = html(box(render("about.html", view=view, live=live)), WIDE)
        gone = box(Markup('<div class="gone">The kernel is gone: run the cell again to go on.</div>'))
        top = [css, self.chosen, self.links, about, html(gone), tools, self.filters, self.tabs.titles]
        parts = [*top, self.error, self.body, self.busy]
        self.widget = classed(w.VBox(parts), "sae-browser")
        state = self.state
        state.observe(self._show_feature, "feature")
        state.observe(self._show_document, "document")
        state.observe(self._refresh, "within")
        state.observe(lambda change: setattr(self.error, "value", error(change.new)), "message")
        state.observe(lambda c: setattr(self.busy, "value", dim(c.new, "status") if c.new else ""), "busy")
        self._refresh()
        self._show_feature()
        self.tabs.turn_to("Features")

    # controls

    def _make_tools(self) -> w.Box:
        where = "a name, or a word of texts"
        self.search = w.Text(placeholder=where, **labelled("260px", description="search"))
        no_encoder = self.view.encoder is None
        self.meaning = w.Checkbox(description="by meaning", indent=False, disabled=no_encoder, layout=AUTO)
        self.more = w.ToggleButton(
            description="filters", tooltip="by domain, kind, trust, density", layout=AUTO
        )
        self.number = w.Text(continuous_update=False, **labelled("130px", description="feature id"))
        steps = {
            "‹ back": ("where you were before", lambda: self.state.walk(-1)),
            "forward ›": ("and on again", lambda: self.state.walk(1)),
            "previous": ("previous feature of the list", lambda: self._move(-1)),
            "next": ("next feature of the list", lambda: self._move(1)),
            "random": ("any feature of the list", lambda: self._move(None)),
        }
        self.buttons = {n: button(n, tip) for n, (tip, _) in steps.items()}
        for name, (_, act) in steps.items():
            self.buttons[name].on_click(lambda _, act=act: act())
        self.number.observe(self._type_number, "value")
        self.more.observe(lambda change: self.filters.show(change["new"]), "value")
        for control in (self.search, self.meaning):
            control.observe(self._refresh, "value")
        tools = [self.search, self.meaning, self.more, self.number, *self.buttons.values()]
        return classed(w.Box(tools, layout=w.Layout(**WRAPPED)), "sae-tools")

    def _make_tabs(self) -> Tabs:
        view, state = self.view, self.state
        makers = {
            "Features": self._features_page,
            "Texts": self._texts_page,
            "Try a sentence": lambda: panels.sentence_page(view, state),
            "Two texts": lambda: panels.pair_page(view, state),
            "Two features": lambda: panels.features_page(view, state),
            "Two domains": lambda: panels.domains_page(view, state),
            "Export": lambda: panels.export_page(view, state, self.notes),
        }
        self.list, self.pager = html(layout=WIDE), Pager("features", PER_PAGE, self._show_list)
        self.count = html()
        pages = Tabs(makers, "open", lambda name: setattr(state, "page", name))
        classed(pages.titles, "sae-top")
        return pages

    def _features_page(self) -> w.VBox:
        self.map = feature_map(self.view, self.state, "Features")
        foot = classed(w.Box([self.pager, self.count], layout=w.Layout(**WRAPPED)), "sae-line")
        return w.VBox([self.map, self.list, foot])

    def _texts_page(self) -> w.VBox:
        self.text_map = TextMap(self.view, self.state, "Texts")
        self.text_list = panels.TextsList(self.view, self.state)
        self.text_list.show()
        return w.VBox([self.text_map.points, self.text_list])

    def _make_right(self) -> w.VBox:
        view, state = self.view, self.state
        makers = {
            "Examples": lambda: ExamplesPane(view, state),
            "Text": lambda: TextPane(view, state),
            "Neighbours": lambda: NeighboursPane(view, state),
            **({"Family": lambda: FamilyPane(view, state)} if view.families is not None else {}),
            "Note": self._note_pane,
        }
        self.card, self.panes = html(layout=WIDE), Tabs(makers, "show", self._show_pane)
        parts = [self.card, self.panes.titles, self.panes]
        return classed(w.VBox(parts, layout=w.Layout(flex="1 1 420px", min_width="0")), "sae-right")

    def _note_pane(self) -> NotePane:
        pane = NotePane(self.state, self.notes)
        pane.field.observe(lambda _: self._show_list(), "value")
        return pane

    # what the controls do

    def _hear(self, kind: str, value: object) -> None:
        """What was clicked in HTML: the page sends numbers and names, which are checked here."""
        try:
            if kind == "feature":
                self.state.feature = check_feature(self.view, value)
                self.links.show_card()
            elif kind == "text" and 0 <= int(value) < len(self.view.texts):
                self.state.document = int(value)
                self.panes.turn_to("Text")
            elif kind == "family" and "Family" in self.panes.makers:
                self.panes.turn_to("Family")
                self.panes.page("Family").show(int(value))
            elif kind == "sort" and value in SORTS:
                self.reverse, self.sort = value == self.sort and not self.reverse, str(value)
                self._refresh()
        except (TypeError, ValueError) as problem:
            self.state.message = str(problem)

    def _refresh(self, _: object = None) -> None:
        query, within = self.search.value.strip(), self.state.within
        meaning = bool(query) and self.meaning.value
        if meaning and self.view.vectors is None:
            self.state.busy = "embedding the names, once …"
        how = {"sort": self.sort, "reverse": self.reverse, "within": within, "keep": self.filters.keep()}
        try:
            self.features = find(self.view, query, by_meaning=meaning, **how)
            self.scores = similarity(self.view, query) if meaning else None
            self.hits = word_hits(self.view, query) if query and not meaning else None
            self.state.message = ""
        except (OSError, ValueError, RuntimeError) as problem:
            self.state.message = str(problem)
            return
        finally:
            self.state.busy = ""
        everything = not query and how["keep"] == Keep()
        self.state.matches = None if everything else tuple(map(int, self.features))
        self.count.value = dim(self._count(meaning), "status")
        self.pager.page = 0
        self._show_list()

    def _count(self, meaning: bool) -> str:
        """What the list holds, in words."""
        n, within = len(self.features), self.state.within is not None
        if not n:
            advice = "" if meaning or self.meaning.disabled else ": tick “by meaning”"
            return "nothing is like this" if meaning else f"no name and no text has this{advice}"
        text = f"{n:,} feature{'s' * (n != 1)}" + (" inside the lasso" if within else "")
        return text + (", nearest in meaning first" if meaning else "")

    def _show_list(self) -> None:
        start = self.pager.page * PER_PAGE
        here = self.features[start : start + PER_PAGE]
        more = {"scores": self.scores, "hits": self.hits, "notes": self.notes.known()}
        self.list.value = box(
            cards.feature_rows(self.view, here, sort=self.sort, reverse=self.reverse, **more)
        )
        self.pager.show(len(self.features))

    def _type_number(self, change: dict) -> None:
        if not str(change["new"]).strip():
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

    # what follows the state

    def _show_card(self) -> None:
        f, row = self.state.feature, self.state.document
        mark = float(self.view.by_text[row, f]) if row >= 0 else None
        self.card.value = box(cards.overview(self.view, f, mark))

    def _show_feature(self, _: object = None) -> None:
        f = self.state.feature
        self._show_card()
        self.chosen.value = f"<style>.sae-browser tr[data-f='{f}'] td {{{MARKED}}}</style>"
        self.number.value = str(f)
        here = np.flatnonzero(self.features == f)
        if len(here) and int(here[0]) // PER_PAGE != self.pager.page:
            self.pager.page = int(here[0]) // PER_PAGE
            self._show_list()
        self.panes.turn_to(self.panes.titles.value)

    def _show_pane(self, name: str) -> None:
        """Only the open pane is drawn: a selection is answered sooner. A text stays what it is."""
        if name != "Text" or self.state.document < 0:
            self.panes.page(name).show()

    def _show_document(self, _: object = None) -> None:
        if self.state.document >= 0:
            self._show_card()
            self.panes.page("Text").show()
            self.panes.turn_to("Text")


def browse(
    view: FeatureView, *, feature: int | None = None, notes: str | Path | None = None, mode: str = "widgets"
) -> Browser | HTML:
    """Open the browser.

    Args:
        view: from `make_view`. feature: the one shown first; None: the densest with a name. notes: a JSON
            file for your notes.
        mode: "widgets", or "static": one feature's views as HTML when `feature` is given, else the whole page
            in a frame.

    Raises:
        ValueError: an unknown mode or feature, a damaged notes file.
    """
    if mode == "static":
        if feature is None:
            return HTML(framed(page(view, notes=Notes(notes).by_feature)))
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
