"""The pages of the browser that ask for something: fields, a button, an answer.

Each takes the browser, leaves its fields on it by name, and returns the widgets of the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as w

from saelib.browser import markup
from saelib.browser import report as pages
from saelib.browser import view as lookup
from saelib.browser.controls import WIDE, TextPane, auto, labelled, side_card

if TYPE_CHECKING:
    from saelib.browser.app import Browser


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("type a text first")
    return text


def _form(
    fields: list[w.Widget], answer: Callable[[], str | None], label: str, out: w.Widget | None = None
) -> list[w.Widget]:
    """Fields, a button, what went wrong, and the answer: HTML, or a widget that `answer` fills itself."""
    wrong, button = w.HTML(layout=WIDE), w.Button(description=label, layout=auto(min_width="150px"))
    shown = w.HTML(layout=WIDE) if out is None else out

    def run(_: object) -> None:
        try:
            content = answer()
            wrong.value = ""
            if out is None:
                shown.value = markup.box(content)
        except (OSError, ValueError) as error:
            wrong.value = markup.error(str(error))

    button.on_click(run)
    return [*fields, w.HBox([button]), wrong, shown]


def sentence_page(browser: Browser) -> list[w.Widget]:
    """A text taken apart."""
    browser.sentence = w.Textarea(
        placeholder="type or paste a text", layout=w.Layout(width="98%", height="70px")
    )
    browser.sentence_pane = TextPane(browser.view, browser.state)
    browser.sentence_pane.layout = w.Layout(flex="2 1 480px", min_width="300px")
    both = w.Box(
        [browser.sentence_pane, side_card(browser.view, browser.state, "Try a sentence")],
        layout=w.Layout(flex_flow="row wrap", width="100%"),
    )

    def answer() -> None:
        text = _filled(browser.sentence.value)
        if browser.view.encoder is None:
            raise ValueError("the encoder is not loaded: pass encoder=… to make_view")
        browser.sentence_pane.show(text, browser.view.encoder.encode([text])[0])

    return _form([browser.sentence], answer, "show its features", both)


def pair_page(browser: Browser) -> list[w.Widget]:
    """Two texts: why is their cosine what it is?"""
    names = ("first text", "second text")
    browser.pair = [
        w.Textarea(placeholder=name, layout=w.Layout(width="98%", height="55px")) for name in names
    ]
    return _form(
        browser.pair,
        lambda: pages.compare_texts(browser.view, *(_filled(p.value) for p in browser.pair)),
        "compare texts",
    )


def features_page(browser: Browser) -> list[w.Widget]:
    """Two features, side by side."""
    pair = zip(
        ("feature", "with"),
        (browser.state.feature, int(browser.view.near[browser.state.feature][0])),
        strict=True,
    )
    browser.two = [w.Text(value=str(v), **labelled("200px", description=d)) for d, v in pair]
    return _form(
        [w.HBox(browser.two)],
        lambda: pages.compare_features(
            browser.view, *(lookup.check_feature(browser.view, t.value) for t in browser.two)
        ),
        "compare features",
    )


def domains_page(browser: Browser) -> list[w.Widget]:
    """Two domains: which features tell them apart?"""
    names = [(markup.clean(name), str(name)) for name in browser.view.base_rate.index]
    browser.two_domains = [
        w.Dropdown(options=names, index=min(i, len(names) - 1), **labelled("340px", description=d))
        for i, d in enumerate(("first", "second"))
    ]
    return _form(
        [w.HBox(browser.two_domains, layout=w.Layout(flex_flow="row wrap"))],
        lambda: pages.compare_domains(browser.view, *(d.value for d in browser.two_domains)), "compare domains",
    )  # fmt: skip


def export_page(browser: Browser) -> list[w.Widget]:
    """What is known, as files."""
    browser.folder = w.Text(value="exports", **labelled("420px", description="folder"))

    def run() -> str:
        files = pages.export(browser.view, browser.folder.value, browser.notes)
        return "<p>written: " + ", ".join(markup.safe(f) for f in files) + "</p>"

    return _form([browser.folder], run, "write CSV, JSON and HTML")
