"""What can be clicked: the state that all views follow, links in HTML that the kernel hears, pages that
open."""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import ipywidgets as w
import traitlets

from saelib.browser.render import script

# shared by all that look so: every model of its own is a message to the page before it is drawn
WIDE, AUTO = w.Layout(width="100%"), w.Layout(width="auto")
PLAIN, BUTTON = w.HTML().style, w.ButtonStyle()
WRAPPED = {"flex_flow": "row wrap", "align_items": "center"}


def html(value: str = "", layout: w.Layout = AUTO) -> w.HTML:
    """HTML as wide as what it holds, or WIDE."""
    return w.HTML(value, layout=layout, style=PLAIN)


def button(description: str, tooltip: str) -> w.Button:
    """A button as wide as its words."""
    return w.Button(description=description, tooltip=tooltip, layout=AUTO, style=BUTTON)


def labelled(width: str, **settings: object) -> dict:
    """A layout of this width, and a description that is shown whole."""
    return {"layout": w.Layout(width=width), "style": {"description_width": "initial"}, **settings}


def classed(widget: w.DOMWidget, name: str) -> w.DOMWidget:
    """The widget, with a class of the style sheet."""
    widget.add_class(name)
    return widget


class State(traitlets.HasTraits):
    """What is selected; every view follows it.

    `document`: row of a text, −1 for none. `matches`: what a search found, `within`: a lasso on the map, None
    for all. `page`: title of the open page. `busy`: what takes a while, in words.
    """

    feature = traitlets.Int(0)
    document = traitlets.Int(-1)
    message = traitlets.Unicode("")
    busy = traitlets.Unicode("")
    page = traitlets.Unicode("")
    matches = traitlets.Tuple(allow_none=True, default_value=None)
    within = traitlets.Tuple(allow_none=True, default_value=None)

    def __init__(self, feature: int) -> None:
        super().__init__(feature=feature)
        self.trail, self.at, self.walking = [(feature, -1)], 0, False
        self.observe(self._remember, ["feature", "document"])

    def _remember(self, _: dict) -> None:
        if not self.walking:
            self.trail[self.at + 1 :] = [(self.feature, self.document)]
            self.at += 1

    def walk(self, step: int) -> None:
        """Back (−1) or forward (1) in what was selected."""
        if 0 <= self.at + step < len(self.trail):
            self.at, self.walking = self.at + step, True
            with self.hold_trait_notifications():
                self.feature, self.document = self.trail[self.at]
            self.walking = False


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


class Links(anywidget.AnyWidget):
    """Hears clicks on links and on heads of columns, anywhere in the browser's HTML.

    Args:
        hear: called with "feature", "text", "family" or "sort", and the number or name that was clicked.
    """

    _esm = script("links.js")

    def __init__(self, hear: Callable[[str, object], None]) -> None:
        super().__init__(layout=w.Layout(height="0", margin="0"))
        self.on_msg(lambda _, content, __: [hear(kind, value) for kind, value in content.items()])

    def show_card(self) -> None:
        """Bring the top of the card into view."""
        self.send({"top": True})


class Pager(w.HBox):
    """Back, forward, and where one is. `turn` is called after `page` has changed."""

    def __init__(self, what: str, size: int, turn: Callable[[], None]) -> None:
        self.size, self.page, self.total, self.text = size, 0, 0, html()
        self.back = button("‹ back", f"previous page of {what}")
        self.forward = button("more ›", f"next page of {what}")
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


class Tabs(w.VBox):
    """Pages, one at a time; one is built when it is first opened. `titles`: the row of titles, to stand above
    (its `value` is the open one).

    Args:
        makers: title → what builds the page. verb: for the tooltips. opened: called with the title.
    """

    def __init__(self, makers: dict[str, Callable[[], w.Widget]], verb: str, opened: Callable) -> None:
        self.makers, self.opened, self.pages = makers, opened, {}
        tooltips = [f"{verb}: {title.lower()}" for title in makers]
        self.titles = classed(w.ToggleButtons(options=list(makers), tooltips=tooltips), "sae-tabs")
        self.titles.style.button_width = "auto"
        self.titles.observe(lambda change: self.turn_to(change["new"]), "value")
        super().__init__([], layout=WIDE)

    def page(self, name: str) -> w.Widget:
        """A page, built if it was not."""
        if name not in self.pages:
            self.pages[name] = self.makers[name]()
            self.pages[name].layout.display = "none"
            self.children = [*self.children, self.pages[name]]
        return self.pages[name]

    def turn_to(self, name: str) -> None:
        """Show a page, and hide the others."""
        if self.titles.value != name:
            self.titles.value = name  # calls this again
            return
        self.page(name)
        for title, page in self.pages.items():
            page.layout.display = None if title == name else "none"
        self.opened(name)
