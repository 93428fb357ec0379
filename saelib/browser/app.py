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
from saelib.browser.controls import WIDE, Pager, Rows, Sections, State, TextPane, auto, labelled
from saelib.browser.lookup import BANDS, SORTS, band_texts, find
from saelib.browser.maps import DocumentMap, FeatureMap
from saelib.browser.notes import Notes
from saelib.browser.render import box, clean, dim, error, number, style, styled
from saelib.browser.report import framed, page
from saelib.browser.view import FeatureView, check_feature

PER_PAGE, EXAMPLES = 12, 10  # rows of the feature table, texts of a page
WRAPPED = {"flex_flow": "row wrap", "align_items": "center"}
SHORT = dict(zip(BANDS, ("strongest", "upper ¼", "2nd ¼", "3rd ¼", "lowest ¼", "near misses"), strict=True))


class Browser:
    """The widgets. Attributes: `state`, `view`, `widget` (what is displayed), and the controls by name."""

    def __init__(
        self, view: FeatureView, notes: str | Path | None = None, feature: int | None = None
    ) -> None:
        self.view, self.state, self.notes = view, State(), Notes(notes)
        self.busy, self.reverse, self.noted = False, False, 0
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
        return _classed(w.Box(tools, layout=w.Layout(**WRAPPED)), "sae-tools")

    def _make_table(self) -> w.VBox:
        self.heads = {}
        for name in ("id", "label", "trust", "density", "max", "mean"):
            self.heads[name] = w.Button(tooltip=f"sort by {name}; again: the other way round")
            self.heads[name].on_click(lambda _, n=name: self._sort_by(n))
        near = w.HTML(box(Markup('<div class="n near">near</div>')))
        heads = _classed(w.Box([*self.heads.values(), near]), "sae-heads")
        self.list = Rows("features", 44, lambda f: setattr(self.state, "feature", f))
        self.pager, self.count = Pager("features", PER_PAGE, self._show_list), w.HTML()
        foot = _classed(w.Box([self.pager, self.count], layout=w.Layout(**WRAPPED)), "sae-line")
        left = w.VBox([heads, self.list, foot], layout=w.Layout(flex="4 1 400px", min_width="320px"))
        return _classed(left, "sae-left")

    def _make_right(self) -> w.VBox:
        self.card, self.text = w.HTML(layout=WIDE), TextPane(self.view, self.state)
        self.panes = {
            "Examples": self._make_examples(),
            "Text": self.text,
            "Neighbours": self._make_neighbours(),
            "Note": self._make_note(),
        }
        names = [f"show: {name.lower()}" for name in self.panes]
        self.pane = _classed(w.ToggleButtons(options=list(self.panes), tooltips=names), "sae-tabs")
        self.pane.style.button_width = "auto"
        self.pane.observe(self._show_pane, "value")
        parts = [self.card, self.pane, *self.panes.values()]
        return _classed(w.VBox(parts, layout=w.Layout(flex="6 1 480px", min_width="320px")), "sae-right")

    def _make_examples(self) -> w.VBox:
        choices = {"options": [(SHORT[b], b) for b in BANDS], "tooltips": [f"texts: {b}" for b in BANDS]}
        self.bands = _classed(w.ToggleButtons(**choices), "sae-bands")
        self.bands.style.button_width = "auto"
        self.highlight = w.ToggleButton(
            description="highlight words", tooltip="mark the words that carry the activation",
            disabled=self.view.encoder is None, layout=auto(),
        )  # fmt: skip
        self.examples = Rows("example texts", 64, self._open)
        self.example_pager = Pager("examples", EXAMPLES, self._show_examples)
        self.bands.observe(self._turn_to_first, "value")
        self.highlight.observe(lambda _: self._show_examples(), "value")
        foot = w.Box([self.example_pager, self.highlight], layout=w.Layout(**WRAPPED))
        return w.VBox([self.bands, self.examples, _classed(foot, "sae-line")])

    def _make_neighbours(self) -> w.Box:
        pick = lambda feature: setattr(self.state, "feature", feature)
        self.near = {name: Rows(name, 30, pick) for name in ("direction", "together")}
        self.near_titles = [w.HTML(), w.HTML()]
        wide = {"flex": "1 1 250px", "min_width": "240px"}
        both = zip(self.near_titles, self.near.values(), strict=True)
        columns = [w.VBox([title, rows], layout=w.Layout(**wide)) for title, rows in both]
        return w.Box(columns, layout=w.Layout(flex_flow="row wrap", width="100%"))

    def _make_note(self) -> w.VBox:
        size = w.Layout(width="98%", height="110px")
        self.note = w.Textarea(placeholder="your note on this feature", layout=size)
        self.save = w.Button(description="save note", tooltip="save the note to a JSON file next to the SAE")
        self.saved = w.HTML()
        self.save.on_click(self._save_note)
        return w.VBox([self.note, w.HBox([self.save, self.saved])])

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
            return "no label has this in it" + (
                "" if meaning or self.meaning.disabled else ": tick “by meaning”"
            )
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

    def _save_note(self, _: object = None) -> None:
        try:
            self.notes.set(self.noted, self.note.value)
        except (OSError, ValueError) as problem:
            self.state.message = f"the note was not saved: {problem}"
            return
        if self.notes.file is None:
            self.state.message = (
                "the note was not saved: this browser was opened without a notes file: pass notes=… to browse"
            )
        else:
            self.saved.value = dim(f"saved in {self.notes.file}")

    # what follows the state

    def _show_feature(self, _: object = None) -> None:
        f, row = self.state.feature, self.state.document
        if self.noted != f and self.note.value != self.notes.get(self.noted):
            self._save_note()  # of the feature that is left
        mark = float(self.view.by_text[row, f]) if row >= 0 else None
        self.card.value = box(cards.overview(self.view, f, mark))
        self.busy = True
        self.number.value = str(f)
        self.busy = False
        self.noted, self.note.value, self.saved.value = f, self.notes.get(f), ""
        here = np.flatnonzero(self.features == f)
        self.pager.page = int(here[0]) // PER_PAGE if len(here) else self.pager.page
        self._show_list()
        self.example_pager.page = 0
        self._show_pane()

    def _show_pane(self, _: object = None) -> None:
        """Only the chosen pane is drawn: a selection is answered sooner."""
        for name, pane in self.panes.items():
            pane.layout.display = None if name == self.pane.value else "none"
        if self.pane.value == "Examples":
            self._show_examples()
        elif self.pane.value == "Neighbours":
            self._show_neighbours()
        elif self.pane.value == "Text" and self.state.document < 0:
            self.text.head.value = dim(
                "Pick an example (or a point of the document map): its features are listed here."
            )

    def _show_neighbours(self) -> None:
        lists = cards.neighbour_lists(self.view, self.state.feature).items()
        places = zip(self.near_titles, self.near.values(), strict=True)
        for (title, rows), (name, (ids, values)) in zip(places, lists, strict=True):
            title.value = box(Markup("<h4>{}</h4>").format(name))
            items = [(f"{i}: {clean(self.view.labels[i])}", i) for i in ids]
            rows.show(cards.neighbour_rows(self.view, ids, values), items)

    def _turn_to_first(self, _: object = None) -> None:
        self.example_pager.page = 0
        self._show_examples()

    def _show_examples(self) -> None:
        view, f, band = self.view, self.state.feature, self.bands.value
        frame, total = band_texts(view, f, band, self.example_pager.page, EXAMPLES)
        marked = self.highlight.value and band != "near misses"
        items = [(f"text {r}: {clean(view.texts[r])}", int(r)) for r in frame.row.astype(int)]
        self.examples.show(cards.text_rows(view, frame, f, marked), items)
        self.example_pager.show(total)

    def _show_document(self, _: object = None) -> None:
        row, f = self.state.document, self.state.feature
        if row >= 0:
            self.card.value = box(cards.overview(self.view, f, float(self.view.by_text[row, f])))
            self.text.show_document()

    # pages, built when opened

    def _map_page(self) -> list[w.Widget]:
        self.map = FeatureMap(self.view, self.state)
        return [self.map.page]

    def _document_map_page(self) -> list[w.Widget]:
        self.document_map = DocumentMap(self.view, self.state)
        return [self.document_map.page]


def _classed(widget: w.DOMWidget, name: str) -> w.DOMWidget:
    """The widget, with a class of the style sheet."""
    widget.add_class(name)
    return widget


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
    display(browser.widget)
    return browser
