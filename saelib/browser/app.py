"""The feature browser: one state, widgets that show `views.py`, and the same views as one HTML file.

`browse(view)` shows widgets (JupyterLab, Notebook, Colab, Kaggle, Voila); `browse(view, mode="static")` gives HTML
that needs neither kernel nor network. Maps and pages of the sections are built when they are opened.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import ipywidgets as w
import numpy as np
from IPython.display import HTML, display

from saelib.browser import cards as views
from saelib.browser import markup
from saelib.browser import panels as forms
from saelib.browser import report as pages
from saelib.browser import view as lookup
from saelib.browser.controls import (
    BROWSER_STYLE,
    ROWS_STYLE,
    WIDE,
    Pager,
    Rows,
    Sections,
    State,
    TextPane,
    auto,
    labelled,
    show_document,
)
from saelib.browser.maps import document_map, feature_map
from saelib.browser.view import FeatureView

PER_PAGE, EXAMPLES = 12, 10  # rows of the feature table, texts of a page
HEADS = {
    "id": "id",
    "label": "label",
    "label score": "score",
    "density": "density",
    "max": "max",
    "mean": "mean",
}


class Browser:
    """The widgets. Attributes: `state`, `view`, `widget` (what is displayed), and the controls by name."""

    def __init__(
        self, view: FeatureView, notes: str | Path | None = None, feature: int | None = None
    ) -> None:
        self.view, self.notes_file, self.state = view, Path(notes) if notes else None, State()
        self.notes, self.busy, self.reverse = pages.read_notes(self.notes_file), False, False
        tools, left, right = self._make_tools(), self._make_table(), self._make_panes()
        self.sections = self._make_sections()
        body = w.Box([left, right], layout=w.Layout(flex_flow="row wrap", width="100%", overflow="visible"))
        self.error = w.HTML(layout=WIDE)
        style = w.HTML(markup.STYLE + ROWS_STYLE + BROWSER_STYLE, layout=w.Layout(margin="0", height="0"))
        self.widget = w.VBox([style, tools, self.error, body, self.sections])
        self.widget.add_class("sae-browser")
        self.state.observe(self._show_feature, "feature")
        self.state.observe(self._show_document, "document")
        self.state.observe(self._refresh, "within")
        self.state.observe(lambda change: setattr(self.error, "value", markup.error(change.new)), "message")
        self.features = lookup.find(view)
        first = self.features[0] if len(self.features) else 0
        self.state.set_trait("feature", lookup.check_feature(view, first if feature is None else feature))
        self._refresh()
        self._show_feature()

    # controls

    def _make_tools(self) -> w.Box:
        self.search = w.Text(placeholder="a word, e.g. galaxy", **labelled("250px", description="search"))
        self.meaning = w.Checkbox(
            description="by meaning", indent=False, disabled=self.view.encoder is None, layout=auto()
        )
        self.sort = w.Dropdown(options=list(lookup.SORTS), **labelled("160px", description="sort"))
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
        box = w.Box(tools, layout=w.Layout(flex_flow="row wrap", align_items="center"))
        box.add_class("sae-tools")
        return box

    def _make_table(self) -> w.VBox:
        self.heads = {name: w.Button(tooltip=f"sort by {name}; again: the other way round") for name in HEADS}
        for name, button in self.heads.items():
            button.on_click(lambda _, n=name: self._sort_by(n))
        heads = w.Box(
            [
                *self.heads.values(),
                w.HTML(
                    markup.box(
                        '<div class="n" style="padding-right:7px;font-size:11px;line-height:26px;opacity:.75">near</div>'
                    )
                ),
            ]
        )
        heads.add_class("sae-heads")
        self.list = Rows("features", 44, lambda f: setattr(self.state, "feature", f))
        self.pager, self.count = Pager("features", PER_PAGE, self._show_list), w.HTML()
        foot = w.Box([self.pager, self.count], layout=w.Layout(flex_flow="row wrap", align_items="center"))
        foot.add_class("sae-line")
        left = w.VBox([heads, self.list, foot], layout=w.Layout(flex="4 1 400px", min_width="320px"))
        left.add_class("sae-left")
        return left

    def _make_panes(self) -> w.VBox:
        self.card = w.HTML(layout=WIDE)
        shorts = [
            b.replace("quarter", "¼").replace("second", "2nd").replace("third", "3rd") for b in lookup.BANDS
        ]
        self.bands = w.ToggleButtons(
            options=list(zip(shorts, lookup.BANDS, strict=True)),
            tooltips=[f"texts: {b}" for b in lookup.BANDS],
        )
        self.highlight = w.ToggleButton(
            description="highlight words", tooltip="mark the words that carry the activation (each is left out in turn)",
            disabled=self.view.encoder is None, layout=auto(),
        )  # fmt: skip
        self.examples = Rows("example texts", 64, self._open)
        self.example_pager = Pager("examples", EXAMPLES, self._show_examples)
        self.text = TextPane(self.view, self.state)
        self.near = {
            t: Rows(t, 30, lambda f: setattr(self.state, "feature", f)) for t in ("direction", "together")
        }
        self.near_titles = [w.HTML(), w.HTML()]
        self.note = w.Textarea(
            placeholder="your note on this feature", layout=w.Layout(width="98%", height="110px")
        )
        self.save = w.Button(description="save note", tooltip="save the note to a JSON file next to the SAE")
        self.saved = w.HTML()
        self.bands.observe(self._turn_to_first, "value")
        self.highlight.observe(lambda _: self._show_examples(), "value")
        self.save.on_click(self._save_note)
        foot = w.Box(
            [self.example_pager, self.highlight], layout=w.Layout(flex_flow="row wrap", align_items="center")
        )
        foot.add_class("sae-line")
        columns = [
            w.VBox([title, rows], layout=w.Layout(flex="1 1 250px", min_width="240px"))
            for title, rows in zip(self.near_titles, self.near.values(), strict=True)
        ]
        self.panes = {
            "Examples": w.VBox([self.bands, self.examples, foot]),
            "Text": self.text,
            "Neighbours": w.Box(columns, layout=w.Layout(flex_flow="row wrap", width="100%")),
            "Note": w.VBox([self.note, w.HBox([self.save, self.saved])]),
        }
        self.pane = w.ToggleButtons(
            options=list(self.panes), tooltips=[f"show: {name.lower()}" for name in self.panes]
        )
        self.pane.observe(self._show_pane, "value")
        for choice, name in ((self.bands, "sae-bands"), (self.pane, "sae-tabs")):
            choice.style.button_width = "auto"
            choice.add_class(name)
        right = w.VBox(
            [self.card, self.pane, *self.panes.values()], layout=w.Layout(flex="6 1 480px", min_width="320px")
        )
        right.add_class("sae-right")
        return right

    def _make_sections(self) -> Sections:
        makers = {"Feature map": self._map_page, "Document map": self._document_map_page, "Try a sentence": partial(forms.sentence_page, self),
                  "Compare two texts": partial(forms.pair_page, self), "Compare two features": partial(forms.features_page, self),
                  "Compare two domains": partial(forms.domains_page, self), "Export": partial(forms.export_page, self)}  # fmt: skip
        return Sections(makers, self.state)

    # what the controls do

    def _refresh(self, _: object = None) -> None:
        query, meaning = self.search.value, self.meaning.value
        if query.strip() and meaning and "label vectors" not in self.view.cache:
            self.count.value = markup.box(
                "<span class='dim' role='status'>embedding the labels, once …</span>"
            )
        try:
            settings = (
                query,
                meaning,
                self.sort.value,
                self.hide_dead.value,
                self.reverse,
                self.state.within,
            )
            self.features, self.state.message = lookup.find(self.view, *settings), ""
        except ValueError as error:
            self.state.message = str(error)
            return
        found = (
            self.features[:50] if meaning else self.features
        )  # all features have some similarity to a phrase
        self.state.matches = tuple(map(int, found)) if query.strip() else None
        for name, title in HEADS.items():
            mark = " ▾" if name == self.sort.value and not (query.strip() and meaning) else ""
            self.heads[name].description = title + (mark if not self.reverse else mark.replace("▾", "▴"))
        text = f"{len(self.features):,} feature{'s' * (len(self.features) != 1)}" + (
            " inside the lasso" if self.state.within is not None else ""
        )
        text += ", nearest in meaning first" if query.strip() and meaning else ""
        if not len(self.features):
            text = "no label has this in it" + (
                "" if meaning or self.meaning.disabled else ": tick <em>by meaning</em>"
            )
        self.count.value = markup.box(f"<span class='dim' role='status'>{text}</span>")
        self.pager.page = 0
        self._show_list()

    def _show_list(self) -> None:
        start = self.pager.page * PER_PAGE
        here = self.features[start : start + PER_PAGE]
        items = [
            (f"{f}: {markup.clean(self.view.labels[f])}, score {markup.number(self.view.score(f))}", int(f))
            for f in here
        ]
        self.list.show(views.feature_rows(self.view, here), items, self.state.feature)
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
            self.state.feature = lookup.check_feature(self.view, change["new"])
            self.state.message = ""
        except ValueError as error:
            self.state.message = str(error)  # the feature shown before stays

    def _move(self, step: int | None) -> None:
        if not len(self.features):
            return
        if step is None:
            self.state.feature = int(np.random.default_rng().choice(self.features))
            return
        here = np.flatnonzero(self.features == self.state.feature)
        self.state.feature = int(
            self.features[(here[0] + step) % len(self.features)] if len(here) else self.features[0]
        )

    def _open(self, row: int) -> None:
        self.state.document = row
        self.pane.value = "Text"

    def _save_note(self, _: object) -> None:
        self.notes[str(self.state.feature)] = self.note.value
        self.notes = {k: v for k, v in self.notes.items() if v.strip()}
        try:
            pages.write_notes(self.notes_file, self.notes)
            self.saved.value = markup.box(f"saved in {markup.safe(self.notes_file)}")
        except (OSError, ValueError) as error:
            self.state.message = f"the note was not saved: {error}"

    # what follows the state

    def _show_feature(self, _: object = None) -> None:
        f, row = self.state.feature, self.state.document
        mark = float(self.view.by_text[row, f]) if row >= 0 else None
        self.card.value = markup.box(views.overview(self.view, f, mark))
        self.busy = True
        self.number.value = str(f)
        self.busy = False
        self.note.value, self.saved.value = self.notes.get(str(f), ""), ""
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
            lists = views.neighbour_lists(self.view, self.state.feature).items()
            for title, rows, (name, (ids, values)) in zip(
                self.near_titles, self.near.values(), lists, strict=True
            ):
                title.value = markup.box(f"<h4>{name}</h4>")
                items = [(f"{i}: {markup.clean(self.view.labels[i])}", i) for i in ids]
                rows.show(views.neighbour_rows(self.view, ids, values), items)
        elif self.pane.value == "Text" and self.state.document < 0:
            self.text.head.value = markup.box(
                "<p>Pick an example (or a point of the document map): its features are listed here.</p>"
            )

    def _turn_to_first(self, _: object = None) -> None:
        self.example_pager.page = 0
        self._show_examples()

    def _show_examples(self) -> None:
        view, f = self.view, self.state.feature
        frame, total = lookup.band_texts(view, f, self.bands.value, self.example_pager.page, EXAMPLES)
        table = views.text_rows(view, frame, f, self.highlight.value and self.bands.value != "near misses")
        self.examples.show(
            table, [(f"text {r}: {markup.clean(view.texts[r])}", int(r)) for r in frame.row.astype(int)]
        )
        self.example_pager.show(total)

    def _show_document(self, _: object = None) -> None:
        row, f = self.state.document, self.state.feature
        if row >= 0:
            self.card.value = markup.box(views.overview(self.view, f, float(self.view.by_text[row, f])))
            show_document(self.view, self.state, self.text)

    # pages, built when opened

    def _map_page(self) -> list[w.Widget]:
        self.map, page = feature_map(self.view, self.state)
        return page

    def _document_map_page(self) -> list[w.Widget]:
        self.document_map, page = document_map(self.view, self.state)
        return page


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
        view: from `make_view`. feature: the one shown first; None takes the best named. notes: JSON file for your notes.
        mode: "widgets", or "static": one feature's views as HTML when `feature` is given, else the whole page (`limit` features).

    Raises:
        ValueError: an unknown mode or feature, a damaged notes file.
    """
    if mode == "static":
        if feature is None:
            return HTML(pages.page(view, limit=limit))
        f = lookup.check_feature(view, feature)
        return HTML(
            markup.STYLE
            + markup.box(views.overview(view, f) + views.examples(view, f) + views.neighbours(view, f))
        )
    if mode != "widgets":
        raise ValueError(f"mode must be 'widgets' or 'static', not {mode!r}")
    # Colab shows widgets that are not its own (the maps) only where this was said before
    if "google.colab.output" in sys.modules:
        sys.modules["google.colab.output"].enable_custom_widget_manager()
    browser = Browser(view, notes, feature)
    display(browser.widget)
    return browser
