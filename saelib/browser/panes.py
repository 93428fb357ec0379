"""What stands beside the feature table: examples, a text taken apart, neighbours, a note. Each has `show`."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import numpy as np
from markupsafe import Markup

from saelib.attribution import explain_embedding
from saelib.browser import cards
from saelib.browser.controls import WIDE, WRAPPED, Pager, Rows, State, auto, classed, while_open
from saelib.browser.lookup import BANDS, band_texts, nearest
from saelib.browser.notes import Notes
from saelib.browser.render import box, clean, dim
from saelib.browser.view import FeatureView

EXAMPLES = 10  # texts of a page
SHORT = dict(zip(BANDS, ("strongest", "upper ¼", "2nd ¼", "3rd ¼", "lowest ¼", "near misses"), strict=True))


def side_card(view: FeatureView, state: State, page: str) -> w.HTML:
    """The selected feature with its strongest texts, to stand beside a map or a text."""
    out = w.HTML(layout=w.Layout(flex="1 1 300px", min_width="260px"))

    def draw() -> None:
        texts = band_texts(view, state.feature, "strongest", size=4)[0]
        out.value = box(cards.card(view, state.feature) + cards.text_rows(view, texts, state.feature))

    while_open(state, page, draw, "feature")
    return out


class ExamplesPane(w.VBox):
    """The texts of a feature, a band at a time; `pick` is called with the row of a text."""

    def __init__(self, view: FeatureView, state: State, pick: Callable[[int], None]) -> None:
        self.view, self.state = view, state
        choices = {"options": [(SHORT[b], b) for b in BANDS], "tooltips": [f"texts: {b}" for b in BANDS]}
        self.bands = classed(w.ToggleButtons(**choices), "sae-bands")
        self.bands.style.button_width = "auto"
        why = "mark the words that carry the activation"
        off = {"disabled": view.encoder is None, "layout": auto()}
        self.highlight = w.ToggleButton(description="highlight words", tooltip=why, **off)
        self.rows = Rows("example texts", 64, pick)
        self.pager = Pager("examples", EXAMPLES, self.draw)
        self.bands.observe(self.show, "value")
        self.highlight.observe(self.draw, "value")
        foot = w.Box([self.pager, self.highlight], layout=w.Layout(**WRAPPED))
        super().__init__([self.bands, self.rows, classed(foot, "sae-line")])

    def show(self, _: object = None) -> None:
        """From the first page."""
        self.pager.page = 0
        self.draw()

    def draw(self, _: object = None) -> None:
        """The page one is at."""
        view, f, band = self.view, self.state.feature, self.bands.value
        frame, total = band_texts(view, f, band, self.pager.page, EXAMPLES)
        marked = self.highlight.value and band != "near misses"
        items = [(f"text {r}: {clean(view.texts[r])}", int(r)) for r in frame.row.astype(int)]
        self.rows.show(cards.text_rows(view, frame, f, marked), items)
        self.pager.show(total)


class TextPane(w.VBox):
    """A text taken apart: its features and the nearest corpus texts; what is picked is shown or opened."""

    def __init__(self, view: FeatureView, state: State) -> None:
        self.view, self.state = view, state
        self.head, self.rest, self.title = (w.HTML(layout=WIDE) for _ in range(3))
        self.features = Rows("features of the text", 30, lambda f: setattr(state, "feature", f), head=True)
        self.near = Rows("nearest texts of the corpus", 44, lambda r: setattr(state, "document", r))
        super().__init__([self.head, self.features, self.rest, self.title, self.near])

    def take_apart(self, text: str, x: np.ndarray, row: int | None = None) -> list[int]:
        """Show an embedding (d_in,), of the corpus where `row` is given; its features, strongest first."""
        view, parts = self.view, explain_embedding(self.view.sae, x)
        ids = list(parts.index[:-2][:15])
        rows, rest = cards.share_rows(view, parts)
        head = Markup("{}<h4>What the SAE sees</h4>").format(cards.text_head(view, text, parts, row))
        self.head.value, self.rest.value = box(head), box(rest)
        said = [f"{i}: {clean(view.labels[i])}, share {parts.share[i]:.1%}" for i in ids]
        self.features.show(rows, list(zip(said, ids, strict=True)))
        self.title.value = box(Markup("<h4>Nearest texts of the corpus (cosine)</h4>"))
        found, cosines = nearest(view, x, but=-1 if row is None else row)
        items = [(f"text {r}: {clean(view.texts[r])}", int(r)) for r in found]
        self.near.show(cards.near_rows(view, found, cosines), items)
        return ids

    def show(self) -> None:
        """The state's document."""
        row = self.state.document
        if row >= 0:
            self.take_apart(self.view.texts[row], self.view.embeddings[row], row)
        else:
            self.head.value = dim(
                "Pick an example (or a point of the document map): its features stand here."
            )


class NeighboursPane(w.Box):
    """The features nearest to the selected one, by direction and by co-activation."""

    def __init__(self, view: FeatureView, state: State) -> None:
        self.view, self.state = view, state
        pick = lambda feature: setattr(state, "feature", feature)
        self.lists = {name: Rows(name, 30, pick) for name in ("direction", "together")}
        self.titles = [w.HTML(), w.HTML()]
        wide = {"flex": "1 1 250px", "min_width": "240px"}
        both = zip(self.titles, self.lists.values(), strict=True)
        columns = [w.VBox([title, rows], layout=w.Layout(**wide)) for title, rows in both]
        super().__init__(columns, layout=w.Layout(flex_flow="row wrap", width="100%"))

    def show(self) -> None:
        """Of the selected feature."""
        found = cards.neighbour_lists(self.view, self.state.feature).items()
        places = zip(self.titles, self.lists.values(), strict=True)
        for (title, rows), (name, (ids, values)) in zip(places, found, strict=True):
            title.value = box(Markup("<h4>{}</h4>").format(name))
            items = [(f"{i}: {clean(self.view.labels[i])}", i) for i in ids]
            rows.show(cards.neighbour_rows(self.view, ids, values), items)


class NotePane(w.VBox):
    """Your note on the selected feature; what was typed is kept when another feature is selected."""

    def __init__(self, state: State, notes: Notes) -> None:
        self.state, self.notes, self.feature = state, notes, state.feature
        size = w.Layout(width="98%", height="110px")
        self.field = w.Textarea(placeholder="your note on this feature", layout=size)
        self.save = w.Button(description="save note", tooltip="save the note to a JSON file next to the SAE")
        self.saved = w.HTML()
        self.save.on_click(self._save)
        super().__init__([self.field, w.HBox([self.save, self.saved])])

    def show(self) -> None:
        """Keep the note that was there, and show that of the selected feature."""
        if self.feature != self.state.feature and self.field.value != self.notes.get(self.feature):
            self._keep()
        self.feature, self.saved.value = self.state.feature, ""
        self.field.value = self.notes.get(self.feature)

    def _keep(self) -> None:
        try:
            self.notes.set(self.feature, self.field.value)
        except (OSError, ValueError) as problem:
            self.state.message = f"the note was not saved: {problem}"

    def _save(self, _: object) -> None:
        self._keep()
        if self.notes.file is None:
            remedy = "this browser was opened without a notes file: pass notes=… to browse"
            self.state.message = f"the note was not saved: {remedy}"
        elif not self.state.message:
            self.saved.value = dim(f"saved in {self.notes.file}")
