"""The pages of the browser that ask for something: fields, a button, an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w
from markupsafe import Markup

from saelib.browser import cards, compare
from saelib.browser.controls import WIDE, Pager, State, html, labelled
from saelib.browser.lookup import texts_with
from saelib.browser.notes import Notes
from saelib.browser.render import box, clean, error
from saelib.browser.report import export
from saelib.browser.view import FeatureView, check_feature


class Form(w.VBox):
    """Fields, a button, what went wrong, and the answer.

    Attributes:
        fields: what is typed or chosen. button. wrong: the message (HTML). out: the answer (HTML).
    """

    def __init__(
        self, state: State, fields: list[w.Widget], label: str, answer: Callable[..., Markup]
    ) -> None:
        self.state, self.fields, self.answer = state, fields, answer
        size = w.Layout(width="auto", min_width="150px")
        self.button = w.Button(description=label, layout=size)
        self.wrong, self.out = html(layout=WIDE), html(layout=WIDE)
        rows = w.Box(fields, layout=w.Layout(flex_flow="row wrap", width="100%"))
        super().__init__([rows, w.HBox([self.button]), self.wrong, self.out])
        self.button.on_click(self._run)

    def _run(self, _: object) -> None:
        self.state.busy, self.wrong.value = f"{self.button.description} …", ""
        try:
            self.out.value = box(self.answer(*(field.value for field in self.fields)))
        except (OSError, ValueError, RuntimeError) as problem:
            self.wrong.value = error(str(problem))
        finally:
            self.state.busy = ""


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("type a text first")
    return text


def _area(placeholder: str, height: str) -> w.Textarea:
    return w.Textarea(placeholder=placeholder, layout=w.Layout(width="98%", height=height))


def sentence_page(view: FeatureView, state: State) -> Form:
    """A text taken apart; its strongest feature is shown beside it."""

    def answer(text: str) -> Markup:
        x = view.encode([_filled(text)])[0]
        content, features = cards.taken_apart(view, text, x)
        if features:
            state.feature = features[0]
        return content

    return Form(state, [_area("type or paste a text", "70px")], "show its features", answer)


def pair_page(view: FeatureView, state: State) -> Form:
    """Two texts: why is their cosine what it is?"""
    fields = [_area(name, "55px") for name in ("first text", "second text")]
    answer = lambda first, second: compare.compare_texts(view, _filled(first), _filled(second))
    return Form(state, fields, "compare texts", answer)


def features_page(view: FeatureView, state: State) -> Form:
    """Two features, side by side."""
    other = view.near[state.feature][:1].tolist() or [state.feature]
    first = w.Text(value=str(state.feature), **labelled("160px", description="feature"))
    second = w.Text(value=str(other[0]), **labelled("160px", description="with"))
    answer = lambda a, b: compare.compare_features(view, check_feature(view, a), check_feature(view, b))
    return Form(state, [first, second], "compare features", answer)


def domains_page(view: FeatureView, state: State) -> Form:
    """Two domains: which features tell them apart?"""
    names = [(clean(name), str(name)) for name in view.base_rate.index]
    fields = [
        w.Dropdown(options=names, index=min(i, len(names) - 1), **labelled("300px", description=d))
        for i, d in enumerate(("first", "second"))
    ]
    return Form(state, fields, "compare domains", lambda a, b: compare.compare_domains(view, a, b))


class TextsList(w.VBox):
    """The texts that activate one feature, or two at once; `fields` hold their numbers."""

    def __init__(self, view: FeatureView, state: State) -> None:
        self.view, self.state = view, state
        self.fields = [
            w.Text(placeholder=p, continuous_update=False, **labelled("235px", description=d))
            for p, d in (("the selected one", "texts with feature"), ("any", "and feature"))
        ]
        self.rows, self.pager = html(layout=WIDE), Pager("texts", 8, self.draw)
        for field in self.fields:
            field.observe(self.show, "value")
        super().__init__([w.HBox(self.fields), self.rows, self.pager])

    def show(self, _: object = None) -> None:
        """From the first page."""
        self.pager.page = 0
        self.draw()

    def draw(self) -> None:
        """The page one is at."""
        view = self.view
        try:
            first, second = (field.value.strip() for field in self.fields)
            features = [check_feature(view, first or self.state.feature)]
            features += [check_feature(view, second)] if second else []
        except ValueError as problem:
            self.rows.value = error(str(problem))
            return
        frame, total = texts_with(view, features, self.pager.page, self.pager.size)
        self.pager.show(total)
        self.rows.value = box(cards.text_rows(view, frame, None, nothing="No text activates all of these."))


def export_page(view: FeatureView, state: State, notes: Notes) -> Form:
    """What is known, as files."""
    default = str((view.folder or Path()) / "exports")
    folder = w.Text(value=default, **labelled("420px", description="folder"))

    def run(where: str) -> Markup:
        return Markup("<p>written: {}</p>").format(", ".join(export(view, where, notes.by_feature)))

    return Form(state, [folder], "write CSV, JSON and HTML", run)
