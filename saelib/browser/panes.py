"""What stands under the card of a feature: examples, a text taken apart, neighbours, a note. Each has
`show`."""

from __future__ import annotations

import ipywidgets as w

from saelib.browser import cards
from saelib.browser.controls import AUTO, WIDE, WRAPPED, Pager, State, button, classed, html
from saelib.browser.lookup import BANDS, band_texts
from saelib.browser.notes import Notes
from saelib.browser.render import box, dim
from saelib.browser.view import FeatureView

EXAMPLES = 10  # texts of a page
SHORT = dict(zip(BANDS, ("strongest", "upper ¼", "2nd ¼", "3rd ¼", "lowest ¼", "near misses"), strict=True))


class ExamplesPane(w.VBox):
    """The texts of a feature, a band at a time."""

    def __init__(self, view: FeatureView, state: State) -> None:
        self.view, self.state = view, state
        choices = {"options": [(SHORT[b], b) for b in BANDS], "tooltips": [f"texts: {b}" for b in BANDS]}
        self.bands = classed(w.ToggleButtons(**choices), "sae-bands")
        self.bands.style.button_width = "auto"
        why = "mark the words that carry the activation: each is left out in turn"
        off = {"disabled": view.encoder is None, "layout": AUTO}
        self.highlight = w.ToggleButton(description="highlight words", tooltip=why, **off)
        self.rows = html(layout=WIDE)
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
        self.pager.show(total)
        marked = self.highlight.value and band != "near misses"
        if not marked:
            self.rows.value = box(cards.text_rows(view, frame, f))
            return
        for i in range(len(frame)):  # text by text: the first is seen while others are embedded
            self.state.busy = f"embedding the words of text {i + 1} of {len(frame)} …"
            view.words(view.texts[int(frame.row.iloc[i])], f)
            self.rows.value = box(cards.text_rows(view, frame, f, marked=i + 1))
        self.state.busy = ""


class TextPane(w.HTML):
    """A text taken apart: its features and the nearest texts of the corpus."""

    def __init__(self, view: FeatureView, state: State) -> None:
        super().__init__(layout=w.Layout(width="100%"))
        self.view, self.state = view, state

    def show(self) -> None:
        """The state's text."""
        row = self.state.document
        advice = dim("Pick an example, or a point of the map of texts: its features stand here.")
        self.value = advice if row < 0 else box(cards.document_page(self.view, row))


class NeighboursPane(w.HTML):
    """The features nearest to the selected one, by direction and by co-activation."""

    def __init__(self, view: FeatureView, state: State) -> None:
        super().__init__(layout=w.Layout(width="100%"))
        self.view, self.state = view, state

    def show(self) -> None:
        """Of the selected feature."""
        self.value = box(cards.neighbours(self.view, self.state.feature))


class FamilyPane(w.HTML):
    """A family as a tree: the one that was asked for, as long as the selected feature is in it."""

    def __init__(self, view: FeatureView, state: State) -> None:
        super().__init__(layout=w.Layout(width="100%"))  # its own: panes are hidden by it
        self.view, self.state, self.asked = view, state, -1

    def show(self, family: int | None = None) -> None:
        """A family by its number, else that of the selected feature."""
        kin = self.view.kin.get(self.state.feature)
        if family in set(self.view.families.family):
            self.asked = family
        elif not kin:
            self.asked = -1
        elif self.asked not in kin.families:
            self.asked = kin.families[0]
        no = dim("This feature is in no family.")
        self.value = no if self.asked < 0 else box(cards.family(self.view, self.asked))


class NotePane(w.VBox):
    """Your note on the selected feature; it is kept when the field is left."""

    def __init__(self, state: State, notes: Notes) -> None:
        self.state, self.notes, self.feature = state, notes, state.feature
        size = w.Layout(width="98%", height="110px")
        self.field = w.Textarea(placeholder="your note on this feature", continuous_update=False, layout=size)
        self.save = button("save note", "save the note to a JSON file next to the SAE")
        self.saved = html()
        self.field.observe(self._keep, "value")
        self.save.on_click(self._keep)
        super().__init__([self.field, w.HBox([self.save, self.saved])])

    def show(self) -> None:
        """The note on the selected feature."""
        self.feature, self.saved.value = self.state.feature, ""
        self.field.value = self.notes.get(self.feature)

    def _keep(self, _: object) -> None:
        changed = self.field.value != self.notes.get(self.feature)
        if not changed and self.notes.file is not None:
            return
        try:
            self.notes.set(self.feature, self.field.value)
            self.state.message = ""
        except (OSError, ValueError) as problem:
            self.state.message = f"the note was not saved: {problem}"
            return
        if self.notes.file is None:
            remedy = "this browser was opened without a notes file: pass notes=… to browse"
            self.state.message = f"the note was not saved: {remedy}"
        else:
            self.saved.value = dim(f"saved in {self.notes.file}", "status")
