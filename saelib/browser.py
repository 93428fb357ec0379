"""The feature browser: one state, widgets that show `views.py`, and the same views as one HTML file.

`browse(view)` shows widgets (JupyterLab, Notebook, Colab, Kaggle, Voila); `browse(view, mode="static")` gives HTML
that needs neither kernel nor network. The map and the document map are built when they are opened.
"""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

import ipywidgets as w
import numpy as np
import pandas as pd
import traitlets
from IPython.display import HTML, display

from saelib import explain, views
from saelib.explain import View

SORTS = ["label score", "density", "max", "id"]
SHOWN = 300  # rows of the list: more is slow to send and nobody scrolls them
LIST_STYLE = "<style>.sae-browser select{font-family:ui-monospace,monospace;font-size:12px}.sae-browser .sae-error{color:#b00020;font-weight:600}</style>"
LOOK = {
    "template": "plotly_white",
    "autosize": True,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": "#808080"},
}


class State(traitlets.HasTraits):
    """What is selected; every view follows it."""

    feature = traitlets.Int(0)
    document = traitlets.Int(-1)
    message = traitlets.Unicode("")


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
        self.count.value = f"<span class='sae dim'>{len(self.features):,} features{more}: id, label, detection, density</span>"

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
        self.card.value = _box(views.card(view, f))
        self.histogram.value = _box(views.histogram(view, f))
        rows = explain.example_rows(view, f)
        self.examples.value = _box(views.examples(view, f, self.highlight.value))
        self.neighbours.value = _box(views.neighbours(view, f))
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
        self.document.value = _box(views.document_page(self.view, row)) if row >= 0 else ""
        self.histogram.value = _box(views.histogram(self.view, f, float(self.view.by_text[row, f]) if row >= 0 else None))

    # pages, built when opened

    def _map_page(self) -> list[w.Widget]:
        import plotly.graph_objects as go

        view = self.view
        live = np.flatnonzero(view.stats.n_texts > 0)
        figure = go.FigureWidget(
            layout={"height": 460, "margin": {"l": 10, "r": 10, "t": 10, "b": 10}, **LOOK, "dragmode": "pan"}
        )
        self.traces = []
        groups = pd.Series(view.stats.top_domain[live] if "top_domain" in view.stats else "all", index=live)
        for i, (name, part) in enumerate(groups.groupby(groups)):
            ids = part.index.to_numpy()
            size = 4 + 10 * np.sqrt(view.stats.density[ids] / view.stats.density.max())
            hover = [f"{f}: {views.plain(view.labels[f])} ({view.score(f):.2f})" for f in ids]
            look = {"size": size, "color": views.PALETTE[i % len(views.PALETTE)], "symbol": i // len(views.PALETTE)}
            figure.add_scattergl(
                x=view.xy[ids, 0],
                y=view.xy[ids, 1],
                mode="markers",
                marker=look,
                name=views.plain(name, 30),
                customdata=ids,
                hovertext=hover,
                hoverinfo="text",
            )
            trace = figure.data[-1]
            trace.on_click(lambda trace, points, _: self._click(trace, points))
            self.traces.append(trace)
        figure._config = figure._config | {"responsive": True}
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        self.map = figure
        return [
            figure,
            w.HTML(
                "<span class='sae dim'>size: density; colour and shape: the domain most over-represented; click a point to select it</span>"
            ),
        ]

    def _click(self, trace: object, points: object) -> None:
        if points.point_inds:
            self.state.feature = int(trace.customdata[points.point_inds[0]])

    def _document_map_page(self) -> list[w.Widget]:
        import plotly.graph_objects as go

        view, rng = self.view, np.random.default_rng(0)
        rows = np.sort(rng.permutation(len(view.texts))[:6000])
        centred = view.embeddings[rows] - view.embeddings[rows].mean(0)
        xy = centred @ np.linalg.svd(centred[rng.permutation(len(rows))[:1500]], full_matrices=False)[2][:2].T
        figure = go.FigureWidget(
            layout={
                "height": 420,
                "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
                **LOOK,
                "showlegend": False,
            }
        )
        figure.add_scattergl(mode="markers", marker={"size": 4, "color": "#bbbbbb"}, hoverinfo="text")
        figure.add_scattergl(mode="markers", marker={"size": 7, "colorscale": "Viridis", "showscale": True}, hoverinfo="text")
        title = w.HTML()

        def draw(_: object = None) -> None:
            acts = view.table[:, self.state.feature].toarray().ravel()[rows]
            with figure.batch_update():
                for trace, here in zip(figure.data, (acts == 0, acts > 0), strict=True):  # grey zeros first
                    trace.x, trace.y, trace.customdata = xy[here, 0], xy[here, 1], rows[here]
                    trace.hovertext = [f"{r}: {views.plain(view.texts[r])}" for r in rows[here]]
                figure.data[1].marker.color = acts[acts > 0]
            title.value = f"<span class='sae'>{len(rows):,} texts (first two principal components), coloured by feature {self.state.feature}</span>"

        for trace in figure.data:
            trace.on_click(
                lambda trace, points, _: (
                    setattr(self.state, "document", int(trace.customdata[points.point_inds[0]])) if points.point_inds else None
                )
            )
        figure._config = figure._config | {"responsive": True}
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        self.state.observe(draw, "feature")
        draw()
        return [title, figure]

    def _form(self, fields: list[w.Widget], render: callable, label: str) -> list[w.Widget]:
        out, button = w.HTML(layout=w.Layout(width="100%")), w.Button(description=label)

        def run(_: object) -> None:
            try:
                out.value = _box(render())
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


def _box(content: str) -> str:
    return f'<div class="sae">{content}</div>'


def _error(message: str) -> str:
    return f'<div class="sae sae-error" role="alert">{html.escape(message)}</div>' if message else ""


def read_notes(file: Path | None) -> dict[str, str]:
    """Notes by feature; an absent file holds none, a damaged one is an error and is not overwritten."""
    if file is None or not file.exists():
        return {}
    try:
        return {str(k): str(v) for k, v in json.loads(file.read_text(encoding="utf-8")).items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of notes ({error}): move it away, or repair it") from error


def write_notes(file: Path | None, notes: dict[str, str]) -> None:
    """Write the notes whole, or not at all."""
    if file is None:
        raise ValueError("this browser was opened without a notes file: pass notes=… to browse")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(notes, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, file)


def export(view: View, folder: str | Path) -> list[str]:
    """Write features.csv, features.json and browser.html; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame = view.stats.assign(label=view.labels).join(
        view.names.drop(columns=["label", "density", "top_rows", *view.stats.columns], errors="ignore")
    )
    frame.to_csv(folder / "features.csv")
    frame.to_json(folder / "features.json", orient="index")
    (folder / "browser.html").write_text(page(view), encoding="utf-8")
    return [str(folder / name) for name in ("features.csv", "features.json", "browser.html")]


def page(view: View, features: np.ndarray | None = None, limit: int = 300) -> str:
    """All views as one HTML file: a map, a list, a card per feature (the best-named `limit` of them) and three texts."""
    features = explain.find(view) if features is None else np.asarray(features)
    kept, all_kept = features[:limit], set(map(int, features[:limit]))
    parts = [
        f"<h1>What is in these embeddings</h1><p>{len(features):,} live features; the {len(kept)} best-named ones have a page below.</p>"
    ]
    parts.append(views.map_svg(view, all_kept))
    lines = "".join(
        f'<tr><td class="n"><a href="#f{f}">{f}</a></td><td>{views.safe(view.labels[f], 80)}</td>'
        f'<td class="n">{view.score(f):.2f}</td><td class="n">{view.stats.density[f]:.2%}</td></tr>' for f in kept
    )  # fmt: skip
    head = "<tr><th class='n'>id</th><th>label</th><th class='n'>detection</th><th class='n'>density</th></tr>"
    parts.append(f"<details open><summary>Feature table</summary><table>{head}{lines}</table></details>")
    for f in kept:
        inner = views.card(view, f) + views.histogram(view, f) + views.examples(view, f) + views.neighbours(view, f)
        parts.append(f'<details id="f{f}"><summary>{f}: {views.safe(view.labels[f], 80)}</summary>{inner}</details>')
    rows = [int(view.rows[f][0]) for f in kept[:3] if view.rows[f][0] >= 0]
    parts.append("<h2>Three texts and their features</h2>" + "".join(views.document_page(view, r) for r in rows))
    if len(kept) > 1:
        parts.append("<h2>Two features</h2>" + views.compare_features(view, int(kept[0]), int(view.near[kept[0]][0])))
    if len(rows) > 1:
        parts.append("<h2>Two texts</h2>" + views.compare_embeddings(view, view.embeddings[rows[0]], view.embeddings[rows[1]]))
    names = pd.Series(view.domains).value_counts().index
    if len(names) > 1:
        parts.append("<h2>Two domains</h2>" + views.compare_domains(view, names[0], names[1]))
    look = "<style>body{max-width:1000px;margin:1em auto;padding:0 1em;color-scheme:light dark}details{margin:.3em 0}summary{cursor:pointer}</style>"
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    top = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy}<meta name="viewport" content="width=device-width">'
    )
    return f"{top}<title>Feature browser</title>{views.STYLE}{look}</head><body><main class='sae'>{''.join(parts)}</main></body></html>"


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
        return HTML(views.STYLE + _box(parts))
    if mode != "widgets":
        raise ValueError(f"mode must be 'widgets' or 'static', not {mode!r}")
    browser = Browser(view, notes, feature)
    display(browser.widget)
    return browser
