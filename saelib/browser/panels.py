"""The pages of the browser that ask for something: fields, a button, an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w
from markupsafe import Markup

from saelib.browser import compare
from saelib.browser.controls import WIDE, State, auto, labelled
from saelib.browser.notes import Notes
from saelib.browser.panes import TextPane, side_card
from saelib.browser.render import box, clean, error
from saelib.browser.report import export
from saelib.browser.view import FeatureView, check_feature

ROW = {"flex_flow": "row wrap", "width": "100%"}


class Form(w.VBox):
    """Fields, a button, what went wrong, and the answer.

    Attributes:
        fields: what is typed or chosen. button. wrong: the message (HTML). out: the answer (HTML, or the
        widget given, which `answer` fills itself).
    """

    def __init__(
        self,
        fields: list[w.Widget],
        label: str,
        answer: Callable[..., Markup | None],
        out: w.Widget | None = None,
    ) -> None:
        self.fields, self.answer, self.own = fields, answer, out is None
        self.button = w.Button(description=label, layout=auto(min_width="150px"))
        self.wrong, self.out = w.HTML(layout=WIDE), out or w.HTML(layout=WIDE)
        rows = w.Box(fields, layout=w.Layout(**ROW))
        super().__init__([rows, w.HBox([self.button]), self.wrong, self.out])
        self.button.on_click(self._run)

    def _run(self, _: object) -> None:
        try:
            content = self.answer(*(field.value for field in self.fields))
            self.wrong.value = ""
            if self.own:
                self.out.value = box(content)
        except (OSError, ValueError) as problem:
            self.wrong.value = error(str(problem))


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("type a text first")
    return text


def _area(placeholder: str, height: str) -> w.Textarea:
    return w.Textarea(placeholder=placeholder, layout=w.Layout(width="98%", height=height))


def sentence_page(view: FeatureView, state: State) -> Form:
    """A text taken apart; its strongest feature is shown beside it."""
    pane = TextPane(view, state)
    pane.layout = w.Layout(flex="2 1 480px", min_width="300px")
    both = w.Box([pane, side_card(view, state, "Try a sentence")], layout=w.Layout(**ROW))

    def answer(text: str) -> None:
        features = pane.take_apart(_filled(text), view.encode([text])[0])
        if features:
            state.feature = features[0]

    return Form([_area("type or paste a text", "70px")], "show its features", answer, both)


def pair_page(view: FeatureView, state: State) -> Form:
    """Two texts: why is their cosine what it is?"""
    fields = [_area(name, "55px") for name in ("first text", "second text")]
    answer = lambda first, second: compare.compare_texts(view, _filled(first), _filled(second))
    return Form(fields, "compare texts", answer)


def features_page(view: FeatureView, state: State) -> Form:
    """Two features, side by side."""
    other = view.near[state.feature][:1].tolist() or [state.feature]
    first = w.Text(value=str(state.feature), **labelled("200px", description="feature"))
    second = w.Text(value=str(other[0]), **labelled("200px", description="with"))
    answer = lambda a, b: compare.compare_features(view, check_feature(view, a), check_feature(view, b))
    return Form([first, second], "compare features", answer)


def domains_page(view: FeatureView, state: State) -> Form:
    """Two domains: which features tell them apart?"""
    names = [(clean(name), str(name)) for name in view.base_rate.index]
    fields = [
        w.Dropdown(options=names, index=min(i, len(names) - 1), **labelled("340px", description=d))
        for i, d in enumerate(("first", "second"))
    ]
    return Form(fields, "compare domains", lambda a, b: compare.compare_domains(view, a, b))


def export_page(view: FeatureView, notes: Notes) -> Form:
    """What is known, as files."""
    default = str((view.folder or Path()) / "exports")
    folder = w.Text(value=default, **labelled("420px", description="folder"))

    def run(where: str) -> Markup:
        return Markup("<p>written: {}</p>").format(", ".join(export(view, where, notes.by_feature)))

    return Form([folder], "write CSV, JSON and HTML", run)
