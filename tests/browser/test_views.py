"""The browser without a browser: numbers that add up, state that follows the controls, and nothing that can run."""

import json
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from plotly.callbacks import BoxSelector, LassoSelector
from scipy import sparse

from saelib.activations import EncodedTexts
from saelib.browser import atlas, cards
from saelib.browser.app import Browser, browse
from saelib.browser.compare import compare_domains, compare_features, compare_texts
from saelib.browser.controls import State
from saelib.browser.lookup import BANDS, band_texts, find, label_vectors, landmarks, nearest
from saelib.browser.maps import CONFIG, CROWD, FeatureMap, colours, inside
from saelib.browser.notes import Notes, read_notes
from saelib.browser.pictures import atlas_picture, feature_picture
from saelib.browser.render import clean, error, hover, render, visible
from saelib.browser.report import export, map_svg, page
from saelib.browser.view import make_view
from saelib.sae import make_sae

EVIL = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><svg onload=window.hacked=1>',
    "\u202edesrever \u0000 NUL \u200b zero",
    "😀 emoji " + "x" * 100_000,
    "</textarea><b>bold</b> &amp; $x^2$",
]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.handlers, self.tags = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.tags.append((tag, attrs))
        self.handlers += [k for k, v in attrs if k.startswith("on") or "javascript:" in (v or "")]


def tags(content):
    parser = Tags()
    parser.feed(content)
    assert not parser.handlers, parser.handlers
    return parser.found


@pytest.fixture
def view(words, tmp_path):
    texts = EVIL + [f"{w} number{i}" for i in range(60) for w in ("river", "castle", "violin")]
    x = words.encode(texts)
    sae = make_sae("topk", 48, 24, 4)
    sae.fit_normalizer(torch.from_numpy(x))
    table = sparse.csr_matrix(sae.encode(torch.from_numpy(x)).detach().numpy())
    table = table.multiply((np.arange(24) != 23)[None]).tocsr()  # feature 23 is dead
    table.eliminate_zeros()
    domains = np.array(["evil <b>"] * len(EVIL) + ["plain", "other"] * 90)
    labels = [f"name{i}" for i in range(24)]
    labels[:2] = ["<script>window.hacked=2</script>", "galaxy, stars"]
    names = pd.DataFrame(
        {
            "label": labels,
            "auroc": np.linspace(0.5, 1, 24),
            "shown": np.arange(24) != 2,
            "kind": "concept",
            "note": "",
        }
    )
    names["terms"] = [[label, f"keyword{i}"] for i, label in enumerate(labels)]
    names["term_scores"] = [[0.9, float("nan")]] * 24
    np.save(
        atlas.map_file(sae, tmp_path), np.random.default_rng(0).normal(size=(24, 2))
    )  # UMAP has its own test
    encoded = EncodedTexts(table, texts, x, domains)
    return make_view(sae, encoded, names.rename_axis("feature"), encoder=words, folder=tmp_path)


ALLOWED = {
    "h3",
    "h4",
    "p",
    "br",
    "b",
    "div",
    "table",
    "colgroup",
    "col",
    "tr",
    "td",
    "th",
    "span",
    "bdi",
    "mark",
}
ALLOWED |= {"svg", "rect", "text", "line", "circle", "path", "thead", "tbody"}


def test_everything_shown_is_text(view):
    for f in range(24):
        content = cards.overview(view, f, 1.0) + cards.examples(view, f) + cards.neighbours(view, f)
        assert tags(content + cards.feature_rows(view, np.arange(24))) <= ALLOWED
        assert len(content) < 60_000  # a text of 100 kB is cut
    for text in EVIL:
        assert tags(cards.text_page(view, text)) <= ALLOWED
        assert tags(compare_texts(view, text, EVIL[0])) <= ALLOWED
        assert tags(cards.highlighted(view, text, 3)) <= {"bdi", "mark"}
    for r in range(len(EVIL)):
        assert tags(cards.document_page(view, r)) <= ALLOWED
    assert tags(compare_domains(view, "evil <b>", "plain") + compare_features(view, 0, 1)) <= ALLOWED
    assert "<" not in hover(EVIL[0]) and hover('The "red" door') == 'The "red" door'
    assert tags(error("<script>\u202e")) <= ALLOWED and "\u202e" not in error("\u202e")
    assert clean("half \udfff", 60).encode() and clean("x" * 61) == "x" * 60 + "…"


def test_hidden_characters_are_signs_and_joiners_stay(view):
    hidden = "\u202e\u0000\u200b\ud800\ufeff\x85"
    for content in (
        render("neighbours.html", rows=[(0, "1")], labels=[f"a{hidden}"], linked={0}),
        visible(hidden),
    ):
        assert not set(hidden) & set(content) and content.count("\ufffd") == 6
    assert visible("کتاب‌ها 👨‍👩‍👧") == "کتاب‌ها 👨‍👩‍👧" and visible("Dear\r\nteam") == "Dear\nteam"
    view.texts[30] = f"river {hidden[:3]} <b>castle</b>"
    content = cards.document_page(view, 30) + cards.highlighted(view, view.texts[30], 3)
    assert not set(hidden) & set(content) and "<b>castle" not in content and "&lt;b&gt;castle" in content


def test_the_page_is_self_contained(view):
    content = page(view, limit=10, notes={"22": "my <b>note</b>"})
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "nav",
        "section",
        "h1",
        "h2",
        "a",
    }
    assert tags(content) <= ALLOWED | allowed
    assert "http" not in content.replace("http-equiv", "") and "default-src 'none'" in content
    assert content.count("<section id=") == 10 and "Two texts" in content and "Two domains" in content
    assert (
        "my &lt;b&gt;note" in content and content.count('href="#f22"') >= 2
    )  # from the table and from the map


def test_pictures_for_where_nothing_else_is_shown(view, recwarn):
    for figure in (atlas_picture(view), feature_picture(view, 1), feature_picture(view, 23)):
        figure.canvas.draw()  # $ and _ in a text are not TeX, foreign characters do not warn
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_neighbours_and_co_activation_by_brute_force(view):
    W, on = view.sae.W_dec.detach().numpy(), view.table.toarray() > 0
    for f in (0, 5, 11):
        cosine = W @ W[f]
        cosine[f] = -2
        assert set(view.near[f]) == set(np.argsort(-cosine)[:10])
        both = (on & on[:, [f]]).sum(0)
        both[f] = 0
        assert view.together_count[f].tolist() == sorted(both, reverse=True)[:10]


def test_words_are_embedded_once_for_every_feature(view, words):
    text = "river castle number7"
    first = view.words(text, 3)
    assert [word for word, _ in first] == text.split()
    words.seen.clear()
    view.words(text, 4)
    assert not words.seen


def test_find_by_word_meaning_and_order(view):
    assert find(view, "galaxy").tolist() == [1]
    assert find(view, "keyword7").tolist() == [7]  # keywords count, not the label alone
    assert find(view, "name5", by_meaning=True)[0] == 5
    assert 23 not in find(view) and 23 in find(view, hide_dead=False)
    by_density = view.stats.density[find(view, sort="density")].to_numpy()
    assert (np.diff(by_density) <= 0).all()
    assert find(view)[0] == 22 and find(view, sort="id").tolist() == list(range(23))
    assert find(view, reverse=True)[0] == 0 and find(view, sort="id", reverse=True)[0] == 22
    by_label = [view.labels[f] for f in find(view, sort="label")]
    assert by_label == sorted(by_label, key=str.lower)
    assert find(view, within=(3, 9, 23)).tolist() == [9, 3]
    view.names.loc[22, "auroc"] = np.nan
    assert find(view)[-1] == 22 and find(view, reverse=True)[-1] == 22  # absent scores come last
    with pytest.raises(ValueError, match="sort must be one of"):
        find(view, sort="beauty")


def test_label_vectors_are_kept_for_these_labels(view, words, tmp_path):
    view.folder = tmp_path
    first = label_vectors(view)
    view.vectors = None
    words.seen.clear()
    assert (label_vectors(view) == first).all() and not words.seen
    view.vectors = None
    view.labels[3] = "another label"
    assert not np.allclose(label_vectors(view)[3], first[3])


def test_bands_go_through_all_texts(view):
    f = int(view.stats.n_texts.idxmax())
    acts = view.by_text[:, f].toarray().ravel()
    seen, page_number = [], 0
    while len(part := band_texts(view, f, "strongest", page_number)[0]):
        assert np.allclose(part.act, acts[part.row])
        seen, page_number = seen + part.act.tolist(), page_number + 1
    assert len(seen) == view.stats.n_texts[f] and seen == sorted(seen, reverse=True)
    quarters = [band_texts(view, f, band, size=10_000)[0] for band in BANDS[1:5]]
    assert pd.concat(quarters).act.tolist() == seen[10:]
    near, total = band_texts(view, f, "near misses")
    assert (acts[near.row] == 0).all() and len(near) == 10 and total == min(50, (acts == 0).sum())
    centre = view.embeddings[band_texts(view, f, "strongest")[0].row].mean(0)
    similarity = np.nan_to_num(view.embeddings @ centre, nan=-2)
    similarity[acts > 0] = -2
    assert np.isclose(similarity[near.row[0]], similarity.max())
    assert all(len(band_texts(view, 23, band)[0]) == 0 for band in BANDS)


def test_nearest_texts_by_brute_force(view):
    x = view.embeddings[20]
    cosine = view.embeddings @ x
    rows, values = nearest(view, x, 5, but=20)
    cosine[20] = -2
    assert 20 not in rows and np.allclose(values, np.sort(cosine[~np.isnan(cosine)])[::-1][:5])


def test_absent_scores_are_shown_as_absent(view):
    bare = view.names[["label"]].copy()
    view = replace(view, names=bare)
    assert "nan" not in cards.card(view, 3) + cards.feature_rows(
        view, np.arange(24)
    ) and "absent" in cards.card(view, 3)
    view = replace(view, names=bare.assign(auroc=np.nan, terms=[["a"]] * 24))
    b = Browser(view)
    b.sections.show(0)
    assert "nan" not in b.card.value + b.list.table.value + b.map.figure.data[0].hovertext[0]
    assert len(find(view)) == 23 and "<section id=" in page(view, limit=3)


def test_the_map_is_computed_once(view, tmp_path):
    xy = atlas.feature_xy(view.sae, tmp_path / "new")
    assert xy.shape == (24, 2) and np.isfinite(xy).all()
    file = atlas.map_file(view.sae, tmp_path / "new")
    began = file.stat().st_mtime_ns
    assert (atlas.feature_xy(view.sae, tmp_path / "new") == xy).all() and file.stat().st_mtime_ns == began
    other = make_sae("topk", 48, 24, 4, seed=1)
    assert (
        atlas.map_file(other, tmp_path / "new") != file
    )  # another SAE of the same size does not get this map


@pytest.fixture
def crowd(view):
    """The view with a map of 65,000 features."""
    n, some = 65_000, np.arange(65_000) % 23
    stats, names = view.stats.iloc[some].reset_index(drop=True), view.names.iloc[some].reset_index(drop=True)
    xy = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return replace(view, sae=SimpleNamespace(d_sae=n), stats=stats, names=names, xy=xy)


def test_map_colours_and_landmarks(view):
    live = np.flatnonzero(view.stats.n_texts > 0)
    look, key = colours(view, live, "domain")
    assert len(look["color"]) == len(live) and "evil &lt;b&gt;" in key
    assert np.allclose(colours(view, live, "trust")[0]["color"], view.names.auroc[live])
    marks = landmarks(view)
    assert 3 <= len(marks) <= 25 and 23 not in marks and 2 not in marks  # neither dead nor unnamed


def test_colab_is_asked_to_show_the_maps(view, monkeypatch):
    asked = []
    monkeypatch.setitem(
        sys.modules,
        "google.colab.output",
        SimpleNamespace(enable_custom_widget_manager=lambda: asked.append(1)),
    )
    browse(view)
    assert asked


def test_a_crowded_map_draws_an_even_part_and_the_rest_on_zooming_in(crowd):
    view, state = crowd, State(page="Feature map")
    figure = FeatureMap(view, state).figure
    points = figure.data[0]
    assert len(points.x) == len(points.marker.size) == len(points.hovertext) == CROWD
    unit = (view.xy - view.xy.min(0)) / np.ptp(view.xy, axis=0)
    cells = lambda ids: set(map(tuple, np.minimum(unit[ids] * 64, 63).astype(int)))
    assert cells(points.customdata) == cells(np.arange(len(view.xy)))  # no part of the map is left blank
    with figure.batch_update():
        figure.layout.xaxis.range, figure.layout.yaxis.range = [0, 0.2], [0.2, 0]
    here = np.flatnonzero(((view.xy > 0) & (view.xy < 0.2)).all(1))
    assert set(here) <= set(points.customdata) and len(here) > 100  # zoomed in, all of them
    hidden = int(np.flatnonzero(~np.isin(np.arange(len(view.xy)), points.customdata))[0])
    state.matches = (hidden,)
    assert points.customdata[0] == hidden and list(points.selectedpoints) == [
        0
    ]  # what is searched for is drawn
    state.matches = None
    points._select_callbacks[0](points, None, LassoSelector(xs=[0, 9, 9, 0], ys=[0, 0, 9, 9]))
    assert set(state.within) == set(np.flatnonzero((view.xy > 0).all(1)))  # drawn or not


def test_a_lasso_and_the_order_of_drawing():
    xy = np.random.default_rng(0).random((3000, 2))
    triangle = LassoSelector(xs=[0, 1, 0], ys=[0, 0, 1])
    np.testing.assert_array_equal(inside(triangle, xy), xy.sum(1) < 1)
    order = atlas.drawing_order(xy, weight := np.arange(3000))
    assert sorted(order) == list(weight) and order[0] == 2999  # the heaviest first
    assert len(set(map(tuple, (xy[order[:21]] * 3.999).astype(int)))) == 16  # then one in each of 4 × 4 cells


def test_controls_and_views_follow_one_state(view, tmp_path):
    b = Browser(view, notes=tmp_path / "notes.json")
    assert b.state.feature == 22 and "Feature 22<" in b.card.value  # something is shown without a click
    b.search.value = "galaxy"
    assert [v for _, v in b.list.select.options] == [1]
    b.buttons["next"].click()
    assert b.state.feature == 1 and "galaxy" in b.card.value and b.number.value == "1"
    b.search.value = "no label has these words"
    assert not b.list.select.options and "by meaning" in b.count.value
    b.search.value = ""
    b.number.value = "999999"
    assert b.state.feature == 1 and "0 to 23" in b.error.value
    b.number.value = "23"
    assert "dead" in b.card.value and "No text activates" in b.examples.rows.table.value and not b.error.value
    b.pager.page = 0
    b._show_list()
    b.list.select.value = 16
    assert "Feature 16<" in b.card.value
    row = b.examples.rows.select.options[1][1]
    b.examples.rows.select.value = row
    assert b.pane.value == "Text" and b.state.document == row and "this text" in b.card.value
    assert "What the SAE sees" in b.text.head.value and b.text.near.select.options
    other = b.text.features.select.options[-1][1]
    b.text.features.select.value = other
    assert b.state.feature == other and b.text.layout.display is None
    b.text.near.select.value = b.text.near.select.options[0][1]
    assert b.state.document != row
    b.number.value = "16"
    b.pane.value = "Neighbours"
    near = b.neighbours.lists["direction"].select.options[0][1]
    b.neighbours.lists["direction"].select.value = near
    assert b.state.feature == near == view.near[16][0]
    b.state.feature = 7
    b.note.field.value = "my <b>note</b>"
    b.note.save.click()
    assert json.loads((tmp_path / "notes.json").read_text()) == {"7": "my <b>note</b>"}
    b.buttons["random"].click()
    b.state.feature = 7
    assert b.note.field.value == "my <b>note</b>"
    assert Browser(view, notes=tmp_path / "notes.json", feature=7).note.field.value == "my <b>note</b>"


def test_every_feature_is_reached_by_paging_and_sorting(view):
    b, seen = Browser(view), []
    while True:
        seen += [v for _, v in b.list.select.options]
        if b.pager.forward.disabled:
            break
        b.pager.forward.click()
    assert seen == find(view).tolist() and "13–23 of 23" in b.pager.text.value
    b.heads["density"].click()
    assert (
        b.sort.value == "density"
        and "▾" in b.heads["density"].description
        and "▾" not in b.heads["trust"].description
    )
    b.heads["density"].click()
    assert b.features.tolist() == find(view, sort="density", reverse=True).tolist()
    b.state.feature = int(b.features[-1])
    assert b.state.feature in [v for _, v in b.list.select.options]  # the list turns to the selected one


def test_examples_by_band_and_highlighting(view):
    b = Browser(view, feature=int(view.stats.n_texts.idxmax()))
    first = [v for _, v in b.examples.rows.select.options]
    b.examples.pager.forward.click()
    second = [v for _, v in b.examples.rows.select.options]
    assert len(first) == 10 and second and not set(first) & set(second)
    b.examples.highlight.value = True
    assert "<mark" in b.examples.rows.table.value
    b.examples.bands.value = "near misses"
    assert "<mark" not in b.examples.rows.table.value and "0.00" in b.examples.rows.table.value
    b.state.feature = 5
    assert b.examples.pager.page == 0


def test_pages_open_and_answer(view, tmp_path):
    b = Browser(view, notes=tmp_path / "notes.json")
    assert not hasattr(b, "map")  # built when opened
    b.sections.buttons[4].value = True
    assert b.state.page == "Compare two features" and b.sections.pages[4].layout.display is None
    b.sections.buttons[4].value = False
    assert b.state.page == "" and b.sections.pages[4].layout.display == "none"
    for i in range(len(b.sections.titles)):
        b.sections.show(i)
        assert b.sections.pages[i].children[0].comm is not None, b.sections.titles[i]
    points = b.map.figure.data[0]
    b.state.feature = 9
    assert b.map.figure.data[1].x[0] != view.xy[9, 0]  # a closed page is not drawn …
    b.sections.show(0)
    assert b.map.figure.data[1].x[0] == view.xy[9, 0]  # … and is up to date when it is opened

    class Points:
        point_inds = [0, 4]

    points._click_callbacks[0](points, Points, None)
    assert (
        b.state.feature == points.customdata[0] and b.map.figure.data[1].x[0] == view.xy[b.state.feature, 0]
    )
    assert all("<" not in t for t in [*points.hovertext, *(a.text for a in b.map.figure.layout.annotations)])
    box = BoxSelector(
        xrange=view.xy[[0, 4], 0], yrange=view.xy[[4, 0], 1]
    )  # from corner to corner, in any direction
    points._select_callbacks[0](points, Points, box)
    assert {0, 4} <= set(b.features) < set(points.customdata) and "inside the lasso" in b.count.value
    b.state.within = None
    b.search.value = "galaxy"
    assert list(points.selectedpoints) == [1]  # the map shows what a search found
    b.search.value = ""
    assert points.selectedpoints is None
    b.sections.show(1)
    document = b.document_map.figure.data[0]
    document._click_callbacks[0](document, Points, None)
    assert b.state.document == document.customdata[0] and "What the SAE sees" in b.text.head.value
    form = lambda i: b.sections.pages[i].children[0]
    b.sections.show(2)
    form(2).fields[0].value = "river castle"
    form(2).button.click()
    pane, card_beside = form(2).out.children
    strongest = pane.features.select.options[0][1]
    assert "<mark" in pane.head.value and pane.near.select.options
    assert b.state.feature == strongest and f"Feature {strongest}<" in card_beside.value
    form(3).button.click()
    assert "type a text first" in form(3).wrong.value
    form(3).fields[0].value, form(3).fields[1].value = "river castle", "river violin"
    form(3).button.click()
    assert "sum = cosine" in form(3).out.value and not form(3).wrong.value
    for i in (4, 5):
        form(i).button.click()
        assert "<table" in form(i).out.value
    form(6).fields[0].value = str(tmp_path / "out")
    b.notes.set(3, "seen")
    form(6).button.click()
    assert (tmp_path / "out" / "browser.html").stat().st_size > 10_000
    written = pd.read_csv(tmp_path / "out" / "features.csv")
    assert len(written) == 24 and written.user_note[3] == "seen"


def test_notes_survive_steps_and_other_browsers(view, tmp_path):
    file = tmp_path / "notes.json"
    one, other = Browser(view, notes=file, feature=3), Browser(view, notes=file, feature=5)
    one.note.field.value = "typed and not saved"
    one.buttons["next"].click()
    one.buttons["previous"].click()
    assert one.state.feature == 3 and one.note.field.value == "typed and not saved"
    other.note.field.value = "of the other browser"
    other.note.save.click()
    assert json.loads(file.read_text()) == {"3": "typed and not saved", "5": "of the other browser"}
    one.note.field.value = ""
    one.note.save.click()
    assert json.loads(file.read_text()) == {"5": "of the other browser"}
    file.write_bytes('{"0": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not a file of notes"):
        Notes(file)
    other.note.field.value = "too late"
    other.note.save.click()
    assert "not a file of notes" in other.error.value and b"\xe9" in file.read_bytes()


def test_trust_comes_first_where_it_is_known(view):
    assert view.trust_name == "detection" and "detection" in Browser(view).heads["trust"].description
    trust = np.random.default_rng(0).permutation(24) / 24
    view = replace(view, names=view.names.assign(trust=trust))
    live = [f for f in np.argsort(-trust) if f != 23]
    assert find(view).tolist() == live and view.trust(5) == view.trust_share(5) == trust[5]
    b = Browser(view)
    assert b.state.feature == live[0] and "trust ▾" in b.heads["trust"].description
    assert f'<b>{trust[live[0]]:.2f}</b><span class="dim">trust' in b.card.value
    assert "weak name" in cards.card(view, live[-1]) and "weak name" not in cards.card(view, live[0])
    assert np.allclose(colours(view, np.arange(23), "trust")[0]["color"], trust[:23])
    names = view.names.assign(kind="concept", note="")
    names.loc[3, ["kind", "note"]] = ["spelling", 'words with "g-"']
    names.loc[4, "kind"] = "two topics"
    view = replace(view, names=names)
    assert "spelling: words with" in cards.card(view, 3) and "how words are spelled" in cards.card(view, 3)
    assert "two topics" in cards.card(view, 4) and "kind" not in cards.card(view, 5)


def test_no_two_domains_look_alike(view):
    looks = atlas.domain_looks([f"domain {i}" for i in range(60)])
    pairs = [(colour, shape.sign) for colour, shape in looks.values()]
    assert len(set(pairs[:48])) == 48 and set(pairs[48:]) == {("#808080", "●")}
    drawn = [(colour, shape.path) for colour, shape in looks.values()]
    assert len(set(drawn[:48])) == 48
    view.stats["top_domain"] = ["evil <b>", "plain", "other"] * 8
    look, key = colours(view, np.arange(23), "domain")
    assert len(set(zip(look["color"], look["symbol"], strict=True))) == 3 and key.count("<div>") == 3
    content = map_svg(view, {1})
    assert content.count('class="dot"') == 23 and content.count("<a href") == 1


def test_dollars_domains_that_are_absent_and_few_features(view, words, tmp_path):
    texts = [f"{w} number{i}" for i in range(20) for w in ("river", "castle", "violin")]
    x = words.encode(texts)
    for d_sae, domains in ((1, None), (2, ["Ba$$in", None] * 30), (3, ["$5 to $10", "b_{x}"] * 30)):
        sae = make_sae("topk", 48, d_sae, 1)
        sae.fit_normalizer(torch.from_numpy(x))
        with torch.no_grad():
            table = sparse.csr_matrix(sae.encode(torch.from_numpy(x)).numpy())
        small = make_view(
            sae, EncodedTexts(table, texts, x, domains), pd.DataFrame({"label": ["a$b$c"] * d_sae})
        )
        assert list(small.base_rate.index[:1]) != [None] and len(small.base_rate) <= 2
        for figure in (atlas_picture(small), feature_picture(small, 0)):
            figure.canvas.draw()
        assert "<section id=" in page(small)
        b = Browser(small)
        for i in range(len(b.sections.titles)):
            b.sections.show(i)


def test_names_read_back_from_elsewhere(view):
    encoded = EncodedTexts(view.by_text, view.texts, view.embeddings, view.domains)
    as_json = view.names.set_axis(view.names.index.astype(str))
    assert make_view(view.sae, encoded, as_json, folder=view.folder).labels == view.labels
    as_csv = view.names.assign(terms=view.names.terms.map(str))
    with pytest.raises(ValueError, match="keep names in parquet"):
        make_view(view.sae, encoded, as_csv, folder=view.folder)
    bare = view.names.assign(terms=None, term_scores=None)
    assert make_view(view.sae, encoded, bare, folder=view.folder).terms(3) == []


def test_exported_cells_are_no_formulas(view, tmp_path):
    view.labels[4], view.labels[5] = '=HYPERLINK("http://x.example","y")', "a\u202eb"
    export(view, tmp_path, {"6": "@SUM(1)", "7": " -1"})
    frame = pd.read_csv(tmp_path / "features.csv", index_col=0)
    assert (
        frame.label[4].startswith("'=")
        and frame.label[5] == "a\ufffdb"
        and frame.terms[7] == "name7, keyword7"
    )
    assert frame.user_note[6] == "'@SUM(1)" and frame.user_note[7] == "' -1"


def test_the_whole_page_in_a_cell(view):
    content = browse(view, mode="static", limit=5).data
    parser = Tags()
    parser.feed(content)
    assert parser.found == {"div", "iframe"} and not parser.handlers
    (frame,) = [dict(attrs) for tag, attrs in parser.tags if tag == "iframe"]
    assert frame["sandbox"] == "" and frame["srcdoc"].count("<section id=") == 5
    assert '<base href="about:srcdoc">' in frame["srcdoc"] and "<script" not in frame["srcdoc"]


def test_the_toolbar_of_the_maps_sends_nothing(view):
    b = Browser(view)
    b.sections.show(0)
    b.sections.show(1)
    for figure in (b.map.figure, b.document_map.figure):
        assert figure._config["displaylogo"] is False and figure._config["showSendToCloud"] is False
        assert {"sendChartToCloud", "sendDataToCloud"} <= set(figure._config["modeBarButtonsToRemove"])
    assert CONFIG["plotlyServerURL"] == ""


def test_errors_name_the_remedy(view, tmp_path):
    with pytest.raises(ValueError, match="0 to 23"):
        browse(view, feature=24, mode="static")
    with pytest.raises(ValueError, match="mode"):
        browse(view, mode="popup")
    (tmp_path / "bad.json").write_text("[1")
    with pytest.raises(ValueError, match="not a file of notes"):
        read_notes(tmp_path / "bad.json")
    view.encoder = None
    with pytest.raises(ValueError, match="encoder"):
        cards.text_page(view, "a text")
    b = Browser(view)
    assert b.meaning.disabled and b.examples.highlight.disabled
    b.note.field.value = "a note"
    b.note.save.click()
    assert "without a notes file" in b.error.value
    b.sections.show(2)
    form = b.sections.pages[2].children[0]
    form.fields[0].value = "x"
    form.button.click()
    assert "encoder is not loaded" in form.wrong.value
    b.state.document = 30  # a text of the corpus needs no encoder
    assert "What the SAE sees" in b.text.head.value and "<mark" not in b.text.head.value
    with pytest.raises(ValueError, match="the table is"):
        few = EncodedTexts(view.by_text, view.texts[:3], view.embeddings[:3], view.domains[:3])
        make_view(view.sae, few, view.names)
    assert "Feature 3<" in browse(view, feature=3, mode="static").data
    assert export(view, tmp_path / "e")
