"""What can be clicked: the state that all views follow, lists laid over tables, pages that open.

`Rows` lays native, transparent radio buttons over a table that `cards.py` rendered: looks of HTML, keyboard
and screen reader of a control, no script of ours. (Tab and Space pick a row: JupyterLab keeps the arrow
keys, which a list would need, for its cells.)
"""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import traitlets
from markupsafe import Markup

from saelib.browser.render import box

WIDE = w.Layout(width="100%")
WRAPPED = {"flex_flow": "row wrap", "align_items": "center"}


def auto(**more: str) -> w.Layout:
    """A layout as wide as what it holds."""
    return w.Layout(width="auto", **more)


def labelled(width: str, **settings: object) -> dict:
    """A layout of this width, and a description that is shown whole."""
    return {"layout": w.Layout(width=width), "style": {"description_width": "initial"}, **settings}


def classed(widget: w.DOMWidget, name: str) -> w.DOMWidget:
    """The widget, with a class of the style sheet."""
    widget.add_class(name)
    return widget


class State(traitlets.HasTraits):
    """What is selected; every view follows it.

    `matches`: what a search found, `within`: a lasso on the map, None for all. `page`: title of the open
    page of the accordion.
    """

    feature = traitlets.Int(0)
    document = traitlets.Int(-1)
    message = traitlets.Unicode("")
    page = traitlets.Unicode("")
    matches = traitlets.Tuple(allow_none=True, default_value=None)
    within = traitlets.Tuple(allow_none=True, default_value=None)


def while_open(state: State, page: str, draw: Callable[[], None], *names: str) -> None:
    """Draw now, and when a trait changes while the page is open, or has changed when it is opened: closed
    ones cost nothing."""
    late = []

    def change(what: dict) -> None:
        if state.page == page and (late or what["name"] != "page"):
            late.clear()
            draw()
        elif what["name"] != "page":
            late[:] = [True]

    state.observe(change, [*names, "page"])
    draw()


class Rows(w.Box):
    """A table whose rows can be picked, by mouse or with Tab and Space.

    Args:
        name: for screen readers. height: of a row in pixels, 30, 44 or 64. pick: called with the value of
        the row. head: the table begins with a row of titles.
    """

    def __init__(self, name: str, height: int, pick: Callable[[int], None], head: bool = False) -> None:
        self.table, self.select = w.HTML(), w.RadioButtons(options=[], description=name)
        self.height, self.busy = height, False
        super().__init__([self.table, self.select])
        for name in ("sae-rows", f"h{height}", *(["sae-head"] if head else [])):
            self.add_class(name)
        self.select.observe(lambda c: None if self.busy or c["new"] is None else pick(c["new"]), "value")

    def show(self, table: str, items: list[tuple[str, int]], chosen: int | None = None) -> None:
        """Replace table (HTML) and items (what a screen reader says of the row, its value)."""
        self.busy = True
        self.table.value = box(Markup(table))
        with self.select.hold_sync():
            if items != list(self.select.options):
                self.select.options = items
            self.select.value = chosen if chosen in [value for _, value in items] else None
        self.busy = False


class Pager(w.HBox):
    """Back, forward, and where one is. `turn` is called after `page` has changed."""

    def __init__(self, what: str, size: int, turn: Callable[[], None]) -> None:
        self.size, self.page, self.total, self.text = size, 0, 0, w.HTML()
        self.back = w.Button(description="‹ back", tooltip=f"previous page of {what}", layout=auto())
        self.forward = w.Button(description="more ›", tooltip=f"next page of {what}", layout=auto())
        super().__init__([self.back, self.forward, self.text], layout=w.Layout(align_items="center"))
        self.add_class("sae-line")

        def go(step: int) -> None:
            self.page += step
            turn()

        self.back.on_click(lambda _: go(-1))
        self.forward.on_click(lambda _: go(1))

    def show(self, total: int) -> None:
        """Say where one is among `total`."""
        self.total, first = total, self.page * self.size
        self.back.disabled, self.forward.disabled = self.page == 0, first + self.size >= total
        span = f"{first + 1:,}–{min(first + self.size, total):,} of {total:,}" if total else "none"
        self.text.value = f'<span class="sae dim" role="status">{span}</span>'


class Sections(w.VBox):
    """Titles that open a page below them, one at a time; a page is built when it is first opened.

    What ipywidgets calls Accordion, with titles that the Tab key reaches. `open` is the number of the open
    one, or None.
    """

    def __init__(self, makers: dict[str, Callable[[], list[w.Widget]]], state: State) -> None:
        self.titles, self.makers, self.state = list(makers), dict(enumerate(makers.values())), state
        self.pages = [w.VBox([], layout=w.Layout(display="none")) for _ in makers]
        self.buttons = [
            w.ToggleButton(description=t, icon="caret-right", tooltip=f"open: {t}", layout=WIDE)
            for t in self.titles
        ]
        for i, (button, page) in enumerate(zip(self.buttons, self.pages, strict=True)):
            button.observe(lambda change, i=i: self.show(i if change["new"] else None, i), "value")
            page.add_class("sae-page")
        super().__init__([part for both in zip(self.buttons, self.pages, strict=True) for part in both])
        self.add_class("sae-sections")

    def show(self, number: int | None, changed: int | None = None) -> None:
        """Open a page and close the others; None closes the one that `changed`."""
        if number is None and self.state.page != self.titles[changed]:
            return
        self.state.page = "" if number is None else self.titles[number]
        for i, (button, page) in enumerate(zip(self.buttons, self.pages, strict=True)):
            button.value, button.icon = i == number, "caret-down" if i == number else "caret-right"
            page.layout.display = None if i == number else "none"
        if number in self.makers:
            self.pages[number].children = self.makers.pop(number)()
