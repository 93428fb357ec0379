"""The feature browser: one state, widgets that show `views.py`, and the same views as one HTML file.

`browse(view)` shows widgets (JupyterLab, Notebook, Colab, Kaggle, Voila); `browse(view, mode="static")` gives HTML
that needs neither kernel nor network. The map and the document map are built when they are opened.
"""

from __future__ import annotations

import html
from pathlib import Path

import ipywidgets as w
import numpy as np
from IPython.display import HTML, display

from saelib import explain, views
from saelib.explain import View
from saelib.maps import State, document_map, feature_map
from saelib.pages import export, page, read_notes, write_notes

SORTS = ["label score", "density", "max", "id"]
SHOWN = 300  # rows of the list: more is slow to send and nobody scrolls them
LIST_STYLE = "<style>.sae-browser select{font-family:ui-monospace,monospace;font-size:12px}.sae-browser .sae-error{color:#b00020;font-weight:600}</style>"


class Browser:
    """The widgets. Attributes: `state`, `view`, `widget` (what is displayed), and the controls by name."""

    def __init__(self, view: View, notes: str | Path | None = None, feature: int | None = None) -> None:
        self.view, self.notes_file, self.state = view, Path(notes) if notes else None, State()
        self.notes = read_notes(self.notes_file)
        self._make_controls()
        self._make_pages()
        self.state.observe(self._show_feature, "feature")
        self.state.observe(self._show_document, "document")
        self.state.observe(lambda change: setattr(self.error, "value", _error(change.new)), "message")
        self._refresh_list()
        first = self.features[0] if len(self.features) else 0
        self.state.feature = explain.check_feature(view, first if feature is None else feature)
        self._show_feature()

    def _make_controls(self) -> None:
        small, self.busy = w.Layout(width="auto"), False
        self.number = w.Text(description="feature id", continuous_update=False, layout=w.Layout(width="170px"))
        self.search = w.Text(
            description="search", placeholder="a word, e.g. galaxy", continuous_update=True, layout=w.Layout(width="260px")
        )
        self.meaning = w.Checkbox(
            value=False, description="by meaning", indent=False, layout=small, disabled=self.view.encoder is None
        )
        self.sort = w.Dropdown(options=SORTS, description="sort", layout=w.Layout(width="190px"))
        self.hide_dead = w.Checkbox(value=True, description="hide dead", indent=False, layout=small)
        names = ("previous", "next", "random")
        self.buttons = {n: w.Button(description=n, tooltip=f"{n} feature", layout=small) for n in names}
        self.error = w.HTML()
        self.list = w.Select(rows=24, layout=w.Layout(width="98%"), description="")
        self.list.tooltip = "features: label, detection score, density"
        self.count = w.HTML()
        self.number.observe(self._type_number, "value")
        for control in (self.search, self.meaning, self.sort, self.hide_dead):
            control.observe(lambda _: self._refresh_list(), "value")
        self.list.observe(self._pick, "value")
        for name, step in (("previous", -1), ("next", 1)):
            self.buttons[name].on_click(lambda _, s=step: self._move(s))
        self.buttons["random"].on_click(lambda _: self._move(None))

    def _make_pages(self) -> None:
        wide = w.Layout(width="100%")
        self.card, self.histogram, self.examples, self.neighbours = (w.HTML(layout=wide) for _ in range(4))
        self.highlight = w.ToggleButton(
            description="highlight words", tooltip="mark the words that carry the activation", disabled=self.view.encoder is None
        )
        self.highlight.observe(self._show_feature, "value")
        self.open_text = w.Dropdown(description="open text", options=[("choose an example …", -1)], layout=wide)
        self.open_text.observe(
            lambda change: setattr(self.state, "document", change.new) if change.new is not None and change.new >= 0 else None,
            "value",
        )
        self.document = w.HTML(layout=wide)
        self.go_near = w.Dropdown(description="go to", layout=wide, options=[("choose a neighbour …", -1)])
        self.go_near.observe(
            lambda change: setattr(self.state, "feature", change.new) if change.new is not None and change.new >= 0 else None,
            "value",
        )
        self.note = w.Textarea(
            placeholder="your note on this feature", layout=w.Layout(width="98%", height="60px"), description="note"
        )
        self.save = w.Button(description="save note", tooltip="save the note to a JSON file next to the SAE")
        self.saved = w.HTML()
        self.save.on_click(self._save_note)
        pages = {"Feature map": self._map_page, "Document map": self._document_map_page, "Try a sentence": self._sentence_page,
                 "Compare two texts": self._pair_page, "Compare two features": self._features_page,
                 "Compare two domains": self._domains_page, "Export": self._export_page}  # fmt: skip
        self.pages = [w.VBox([w.HTML("…")]) for _ in pages]
        self.accordion = w.Accordion(self.pages, titles=list(pages), selected_index=None)
        makers = list(pages.values())

        def build(change: dict) -> None:
            if change["new"] is not None and makers[change["new"]] is not None:
                self.pages[change["new"]].children = makers[change["new"]]()
                makers[change["new"]] = None

        self.accordion.observe(build, "selected_index")
        row = w.Layout(flex_flow="row wrap", align_items="center")
        tools = [self.number, *self.buttons.values(), self.search, self.meaning, self.sort, self.hide_dead]
        left = w.VBox(
            [self.list, self.count, self.note, w.HBox([self.save, self.saved])],
            layout=w.Layout(flex="1 1 360px", min_width="300px"),
        )
        middle = [self.card, self.histogram, w.HBox([self.highlight, self.open_text], layout=row), self.document, self.examples]
        right = w.VBox([*middle, self.go_near, self.neighbours], layout=w.Layout(flex="2 1 460px", min_width="300px"))
        body = w.Box([left, right], layout=w.Layout(flex_flow="row wrap", display="flex", width="100%"))
        style = w.HTML(views.STYLE + LIST_STYLE)
        self.widget = w.VBox([style, w.Box(tools, layout=row), self.error, body, self.accordion])
        self.widget.add_class("sae-browser")

    # what the controls do

    def _refresh_list(self) -> None:
        try:
            self.features = explain.find(self.view, self.search.value, self.meaning.value, self.sort.value, self.hide_dead.value)
            self.state.message = ""
        except ValueError as error:
            self.state.message = str(error)
            return
        lines = [
            (f"{f:>5} {_cell(self.view.labels[f], 34)} {self.view.score(f):4.2f} {self.view.stats.density[f]:6.2%}", int(f))
            for f in self.features[:SHOWN]
        ]
        self.busy = True
        self.list.options = lines
        if self.state.feature in self.features[:SHOWN]:
            self.list.value = self.state.feature
        self.busy = False
        more = f", the first {SHOWN} listed" if len(self.features) > SHOWN else ""
        text = f"{len(self.features):,} features{more}: id, label, detection, density"
        if not len(self.features):
            text = "no label has this in it" + ("" if self.meaning.value or self.meaning.disabled else ": tick <em>by meaning</em>")
        self.count.value = f"<span class='sae dim' role='status'>{text}</span>"

    def _pick(self, change: dict) -> None:
        if not self.busy and change["new"] is not None:
            self.state.feature = change["new"]

    def _type_number(self, change: dict) -> None:
        if self.busy or not str(change["new"]).strip():
            return
        try:
            self.state.feature = explain.check_feature(self.view, change["new"])
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
        self.state.feature = int(self.features[(here[0] + step) % len(self.features)] if len(here) else self.features[0])

    def _save_note(self, _: object) -> None:
        self.notes[str(self.state.feature)] = self.note.value
        self.notes = {k: v for k, v in self.notes.items() if v.strip()}
        try:
            write_notes(self.notes_file, self.notes)
            self.saved.value = f"saved in {html.escape(str(self.notes_file))}"
        except (OSError, ValueError) as error:
            self.state.message = f"the note was not saved: {error}"

    # what follows the state

    def _show_feature(self, _: object = None) -> None:
        view, f = self.view, self.state.feature
        self.card.value = views.box(views.card(view, f))
        self.histogram.value = views.box(views.histogram(view, f))
        rows = explain.example_rows(view, f)
        self.examples.value = views.box(views.examples(view, f, self.highlight.value))
        self.neighbours.value = views.box(views.neighbours(view, f))
        self.busy = True
        self.number.value = str(f)
        self.list.value = f if f in self.features[:SHOWN] else None
        self.open_text.options = [("choose an example …", -1)] + [(f"{r}: {_cell(view.texts[r], 70)}", int(r)) for r in rows.row]
        near = [i for i in [*view.near[f], *view.together[f]] if i >= 0]
        self.go_near.options = [("choose a neighbour …", -1)] + [
            (f"{i}: {_cell(view.labels[i], 60)}", int(i)) for i in dict.fromkeys(near)
        ]
        self.note.value, self.saved.value = self.notes.get(str(f), ""), ""
        self.busy = False

    def _show_document(self, _: object = None) -> None:
        row, f = self.state.document, self.state.feature
        self.document.value = views.box(views.document_page(self.view, row)) if row >= 0 else ""
        self.histogram.value = views.box(views.histogram(self.view, f, float(self.view.by_text[row, f]) if row >= 0 else None))

    # pages, built when opened

    def _map_page(self) -> list[w.Widget]:
        self.map = feature_map(self.view, self.state)
        text = "size: density; colour and shape: the domain most over-represented; click a point to select it"
        return [self.map, w.HTML(f"<span class='sae dim'>{text}</span>")]

    def _document_map_page(self) -> list[w.Widget]:
        return document_map(self.view, self.state)

    def _form(self, fields: list[w.Widget], render: callable, label: str) -> list[w.Widget]:
        out, button = w.HTML(layout=w.Layout(width="100%")), w.Button(description=label)

        def run(_: object) -> None:
            try:
                out.value = views.box(render())
            except ValueError as error:
                out.value = _error(str(error))

        button.on_click(run)
        return [*fields, button, out]

    def _sentence_page(self) -> list[w.Widget]:
        self.sentence = w.Textarea(
            placeholder="type or paste a text", description="text", layout=w.Layout(width="100%", height="70px")
        )
        return self._form([self.sentence], lambda: views.text_page(self.view, _filled(self.sentence.value)), "show its features")

    def _pair_page(self) -> list[w.Widget]:
        self.pair = [w.Textarea(description=d, layout=w.Layout(width="100%", height="55px")) for d in ("first", "second")]
        return self._form(
            self.pair, lambda: views.compare_texts(self.view, *(_filled(p.value) for p in self.pair)), "compare texts"
        )

    def _features_page(self) -> list[w.Widget]:
        self.two = [
            w.Text(description=d, value=str(v))
            for d, v in (("feature", self.state.feature), ("with", int(self.view.near[self.state.feature][0])))
        ]
        return self._form(
            self.two,
            lambda: views.compare_features(self.view, *(explain.check_feature(self.view, t.value) for t in self.two)),
            "compare features",
        )

    def _domains_page(self) -> list[w.Widget]:
        names = sorted(set(map(str, self.view.domains)))
        self.two_domains = [
            w.Dropdown(description=d, options=names, index=min(i, len(names) - 1)) for i, d in enumerate(("first", "second"))
        ]
        return self._form(
            self.two_domains, lambda: views.compare_domains(self.view, *(d.value for d in self.two_domains)), "compare domains"
        )

    def _export_page(self) -> list[w.Widget]:
        self.folder = w.Text(description="folder", value="exports")

        def run() -> str:
            files = export(self.view, self.folder.value)
            return "<p>written: " + ", ".join(views.safe(f) for f in files) + "</p>"

        return self._form([self.folder], run, "write CSV, JSON and HTML")


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("type a text first")
    return text


def _cell(text: object, width: int) -> str:
    return views.HIDDEN.sub("�", str(text).replace("\n", " "))[:width].ljust(width)


def _error(message: str) -> str:
    return f'<div class="sae sae-error" role="alert">{html.escape(message)}</div>' if message else ""


def browse(
    view: View, *, feature: int | None = None, notes: str | Path | None = None, mode: str = "widgets", limit: int = 300
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
            return HTML(page(view, limit=limit))
        f = explain.check_feature(view, feature)
        parts = views.card(view, f) + views.histogram(view, f) + views.examples(view, f) + views.neighbours(view, f)
        return HTML(views.STYLE + views.box(parts))
    if mode != "widgets":
        raise ValueError(f"mode must be 'widgets' or 'static', not {mode!r}")
    browser = Browser(view, notes, feature)
    display(browser.widget)
    return browser
