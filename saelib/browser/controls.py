"""What can be clicked, and how it looks: the state that all views follow, lists laid over tables, pages that open, a text pane.

`Rows` lays native, transparent radio buttons over a table that `views.py` rendered: looks of HTML, keyboard and screen reader of a
control, no script of ours. (Tab and Space pick a row: JupyterLab keeps the arrow keys, which a list would need, for its cells.)
"""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import numpy as np
import traitlets

from saelib.browser import cards as views
from saelib.browser import explain, markup
from saelib.browser import view as lookup
from saelib.browser.view import FeatureView

ROWS_STYLE = """<style>
.sae-rows{position:relative;overflow:hidden;display:block;margin:0;padding:0;width:100%}
.sae-rows>.widget-html{margin:0;width:100%}.sae-rows>.widget-html .widget-html-content{line-height:normal}
.sae-rows>.widget-radio{position:absolute;left:0;right:0;top:0;width:100%;margin:0;padding:0}.sae-rows.sae-head>.widget-radio{top:30px}
.sae-rows .widget-radio>.widget-label{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.sae-rows .widget-radio-box{display:block;width:100%;margin:0!important;padding:0}
.sae-rows .widget-radio-box label{display:block;position:relative;width:100%;margin:0;padding:0;overflow:hidden;font-size:0;
line-height:0;border-radius:3px}.sae-rows.h30 label{height:30px}.sae-rows.h44 label{height:44px}.sae-rows.h64 label{height:64px}
.sae-rows input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:pointer}
.sae-rows label:hover{background:#2a8cc81a}.sae-rows label:has(input:checked){background:#2a8cc82b}
.sae-rows label:has(input:focus-visible){outline:2px solid var(--jp-brand-color1,#2a8cc8);outline-offset:-2px}
</style>"""
BROWSER_STYLE = """<style>
.sae-browser{padding:0 2px}.sae-browser>.widget-box{overflow:visible}
.sae-tools{gap:4px 10px;padding:2px 0 8px;border-bottom:1px solid var(--jp-border-color2,#8885);margin-bottom:8px}
.sae-tools>*{margin:0!important}.sae-tools .widget-label{width:auto!important}
.sae-heads{display:grid!important;grid-template-columns:46px 1fr 52px 64px 48px 52px 54px;width:100%;border-bottom:1px solid var(--jp-border-color2,#8885)}
.sae-heads button{width:auto;min-width:0;margin:0;padding:0 7px 0 0;background:none;font-size:11px;font-weight:600;text-align:right;height:26px;
line-height:26px;overflow:visible}.sae-heads button:nth-child(2){text-align:left;padding-left:7px}
.sae-heads>.widget-html{margin:0}.sae-heads .widget-html-content{line-height:26px}
.sae-left,.sae-right{overflow:visible;padding:0 12px 0 0}.sae-right{padding:0 0 0 12px}
.sae-left .widget-html,.sae-right .widget-html{margin:0}.sae-line{gap:2px 12px;padding:4px 0}
.sae-tabs,.sae-bands{width:100%;margin:0}.sae-tabs{margin:14px 0 4px;border-bottom:1px solid var(--jp-border-color2,#8885)}
.sae-tabs button,.sae-bands button{width:auto;background:none;box-shadow:none!important;margin:0}
.sae-tabs button{font-weight:600;padding:0 14px;opacity:.75;border-bottom:2px solid transparent}
.sae-tabs button.mod-active{opacity:1;background:none;border-bottom-color:var(--jp-brand-color1,#2a8cc8)}
.sae-bands button{font-size:12px;height:24px;line-height:22px;padding:0 10px;border:1px solid var(--jp-border-color2,#8885);border-radius:12px;
margin:0 5px 4px 0}.sae-bands button.mod-active{background:#2a8cc833;border-color:#2a8cc8}
.sae-sections{margin-top:18px;border-top:1px solid var(--jp-border-color2,#8885)}
.sae-sections>button{text-align:left;background:none;box-shadow:none!important;margin:0;font-weight:600;height:36px;line-height:36px;padding:0 6px;
border-bottom:1px solid var(--jp-border-color2,#8885)}.sae-sections>button:hover{background:#8080801f}.sae-sections>button i{width:16px}
.sae-page{padding:10px 4px 18px;overflow:visible;border-bottom:1px solid var(--jp-border-color2,#8885)}
@media(min-width:1000px){.sae-left{position:sticky;top:0;align-self:flex-start}}
</style>"""
WIDE = w.Layout(width="100%")


def auto(**more: str) -> w.Layout:
    """A layout as wide as what it holds."""
    return w.Layout(width="auto", **more)


def labelled(width: str, **settings: object) -> dict:
    """A layout of this width, and a description that is shown whole."""
    return {"layout": w.Layout(width=width), "style": {"description_width": "initial"}, **settings}


class State(traitlets.HasTraits):
    """What is selected; every view follows it.

    `matches`: what a search found, `within`: a lasso on the map, None for all. `page`: title of the open page of the accordion.
    """

    feature = traitlets.Int(0)
    document = traitlets.Int(-1)
    message = traitlets.Unicode("")
    page = traitlets.Unicode("")
    matches = traitlets.Tuple(allow_none=True, default_value=None)
    within = traitlets.Tuple(allow_none=True, default_value=None)


def while_open(state: State, page: str, draw: Callable[[], None], *names: str) -> None:
    """Draw now, and when a trait changes while the page is open, or has changed when it is opened: closed ones cost nothing."""
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
        name: for screen readers. height: of a row in pixels, 30, 44 or 64. pick: called with the value of the row.
        head: the table begins with a row of titles.
    """

    def __init__(self, name: str, height: int, pick: Callable[[int], None], head: bool = False) -> None:
        self.table, self.select, self.height, self.busy = (
            w.HTML(),
            w.RadioButtons(options=[], description=name),
            height,
            False,
        )
        super().__init__([self.table, self.select])
        for name in ("sae-rows", f"h{height}", *(["sae-head"] if head else [])):
            self.add_class(name)
        self.select.observe(lambda c: None if self.busy or c["new"] is None else pick(c["new"]), "value")

    def show(self, table: str, items: list[tuple[str, int]], chosen: int | None = None) -> None:
        """Replace table (HTML) and items (what a screen reader says of the row, its value)."""
        self.busy = True
        self.table.value = markup.box(table)
        with self.select.hold_sync():
            if items != list(self.select.options):
                self.select.options = items
            self.select.value = chosen if chosen in [value for _, value in items] else None
        self.busy = False


class Pager(w.HBox):
    """Back, forward, and where one is. `turn` is called after `page` has changed."""

    def __init__(self, what: str, size: int, turn: Callable[[], None]) -> None:
        self.size, self.page, self.total, self.text = size, 0, 0, w.HTML()
        self.back = w.Button(
            description="‹ back", tooltip=f"previous page of {what}", layout=w.Layout(width="auto")
        )
        self.forward = w.Button(
            description="more ›", tooltip=f"next page of {what}", layout=w.Layout(width="auto")
        )
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

    What ipywidgets calls Accordion, with titles that the Tab key reaches. `open` is the number of the open one, or None.
    """

    def __init__(self, makers: dict[str, Callable[[], list[w.Widget]]], state: State) -> None:
        self.titles, self.pages, self.state = (
            list(makers),
            [w.VBox([], layout=w.Layout(display="none")) for _ in makers],
            state,
        )
        self.makers = dict(enumerate(makers.values()))
        self.buttons = [
            w.ToggleButton(description=title, icon="caret-right", layout=WIDE) for title in self.titles
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


class TextPane(w.VBox):
    """A text taken apart: its features (pick one to see it) and the nearest corpus texts (pick one to open it)."""

    def __init__(self, view: FeatureView, state: State) -> None:
        self.view, self.head, self.rest, self.title = view, w.HTML(layout=WIDE), w.HTML(layout=WIDE), w.HTML()
        self.features = Rows("features of the text", 30, lambda f: setattr(state, "feature", f), head=True)
        self.near = Rows("nearest texts of the corpus", 44, lambda r: setattr(state, "document", r))
        super().__init__([self.head, self.features, self.rest, self.title, self.near])

    def show(self, text: str, x: np.ndarray, where: str = "", but: int = -1) -> None:
        """Take apart an embedding (d_in,); `but`: the text's own row, which is not a neighbour."""
        parts = explain.explain(self.view, x)
        ids = [i for i in parts.index[:15] if isinstance(i, int)]
        rows, rest = views.share_rows(self.view, parts)
        self.head.value = markup.box(
            views.text_head(self.view, text, parts, where) + "<h4>What the SAE sees</h4>"
        )
        self.features.show(
            rows, [(f"{i}: {markup.clean(self.view.labels[i])}, share {parts.share[i]:.1%}", i) for i in ids]
        )
        self.rest.value, self.title.value = (
            markup.box(rest),
            markup.box("<h4>Nearest texts of the corpus (cosine)</h4>"),
        )
        found, cosines = explain.nearest(self.view, x, but=but)
        items = [(f"text {r}: {markup.clean(self.view.texts[r])}", int(r)) for r in found]
        self.near.show(views.near_rows(self.view, found, cosines), items)


def side_card(view: FeatureView, state: State, page: str) -> w.HTML:
    """The selected feature with its strongest texts, to stand beside a map or a text."""
    out = w.HTML(layout=w.Layout(flex="1 1 300px", min_width="260px"))

    def draw() -> None:
        texts = lookup.band_texts(view, state.feature, "strongest", size=4)[0]
        out.value = markup.box(views.card(view, state.feature) + views.text_rows(view, texts, state.feature))

    while_open(state, page, draw, "feature")
    return out


def show_document(view: FeatureView, state: State, pane: TextPane) -> None:
    """The state's document in a pane."""
    row = state.document
    pane.show(
        view.texts[row], view.embeddings[row], f"{markup.safe(view.domains[row], 40)} · text {row}", row
    )
