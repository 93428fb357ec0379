"""The browser without a browser: numbers that add up, state that follows the controls, and nothing that can run."""

import base64
import gzip
import hashlib
import json
import re
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from saelib.activations import EncodedTexts
from saelib.browser import atlas, cards, report
from saelib.browser.app import Browser, browse
from saelib.browser.compare import compare_domains, compare_features, compare_texts
from saelib.browser.lookup import (
    BANDS,
    Keep,
    band_texts,
    find,
    label_vectors,
    landmarks,
    nearest,
    similarity,
    texts_with,
    word_hits,
)
from saelib.browser.maps import feature_data
from saelib.browser.notes import Notes, read_notes
from saelib.browser.pictures import atlas_picture, feature_picture
from saelib.browser.render import clean, error, render, visible
from saelib.browser.report import export, page
from saelib.browser.view import _most_together, check_feature, make_view
from saelib.files import array_bytes, kept
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
    xy = np.random.default_rng(0).normal(size=(24, 2))  # the real one has its own test
    kept(atlas.map_file(sae, tmp_path), xy.shape, lambda: xy)
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
ALLOWED |= {"svg", "rect", "text", "circle", "thead", "tbody", "a", "i", "button", "details", "summary"}


def unpacked(content):
    """The pages of the features in an HTML file, by feature."""
    return {k: v for k, v in parts_of(content).items() if k not in ("map", "rows")}


def parts_of(content):
    """All that the page unpacks: those pages, the map, and the rows of the table."""
    parts = re.findall(r'<script type="text/plain" id="part\d+">([^<]*)</script>', content)
    return {k: v for p in parts for k, v in json.loads(gzip.decompress(base64.b64decode(p))).items()}


def test_everything_shown_is_text(view):
    for f in range(24):
        content = cards.overview(view, f, 1.0) + cards.examples(view, f) + cards.neighbours(view, f)
        assert tags(content + cards.feature_rows(view, np.arange(24))) <= ALLOWED
        assert len(content) < 90_000  # a text of 100 kB is cut
    for text in EVIL:
        assert tags(cards.text_page(view, text)) <= ALLOWED
        assert tags(compare_texts(view, text, EVIL[0])) <= ALLOWED
        assert tags(cards.highlighted(view, text, 3)) <= {"bdi", "mark"}
    for r in range(len(EVIL)):
        assert tags(cards.document_page(view, r)) <= ALLOWED
    assert tags(compare_domains(view, "evil <b>", "plain") + compare_features(view, 0, 1)) <= ALLOWED
    assert tags(error("<script>\u202e")) <= ALLOWED and "\u202e" not in error("\u202e")
    assert clean("half \udfff", 60).encode() and clean("x" * 61) == "x" * 60 + "…"


def test_hidden_characters_are_signs_and_joiners_stay(view):
    hidden = "\u202e\u0000\u200b\ud800\ufeff\x85"
    for content, times in (
        (render("neighbours.html", rows=[(0, "1")], labels=[f"a{hidden}"]), 12),  # the name, and its tooltip
        (visible(hidden), 6),
    ):
        assert not set(hidden) & set(content) and content.count("\ufffd") == times
    assert visible("کتاب‌ها 👨‍👩‍👧") == "کتاب‌ها 👨‍👩‍👧" and visible("Dear\r\nteam") == "Dear\nteam"
    view.texts[30] = f"river {hidden[:3]} <b>castle</b>"
    content = cards.document_page(view, 30) + cards.highlighted(view, view.texts[30], 3)
    assert not set(hidden) & set(content) and "<b>castle" not in content and "&lt;b&gt;castle" in content


def test_the_page_is_self_contained(view):
    content = page(view, find(view)[:10], notes={str(find(view)[0]): "my <b>note</b>"})
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
    }
    assert tags(content) <= ALLOWED | allowed | {"script", "noscript", "label", "input", "select", "option"}
    assert not re.search(r"https?://", content) and "default-src 'none'" in content
    (code,) = re.findall(r"<script>(.*?)</script>", content, re.S)  # one script, and no other may run
    (allowed_hash,) = re.findall(r"script-src 'sha256-([^']+)'\"", content)
    assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() == allowed_hash
    pages = unpacked(content)
    assert len(pages) == 11 and "Two texts" in pages["home"] and "Two domains" in pages["home"]
    assert "my &lt;b&gt;note" in pages[str(find(view)[0])]
    for part in pages.values():
        assert tags(part) <= ALLOWED | {"h2"} and "#text=" not in part  # no link that goes nowhere
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', content, re.S)[1]
    )
    later = parts_of(content)
    assert "<" not in json.dumps(later["map"]["kinds"]).replace("evil <b>", "")
    assert len(data["rows"]["id"]) == len(later["rows"]) == 10
    assert tags("".join(later["rows"])) <= ALLOWED and "".join(later["rows"]) in content  # REACH is more
    assert len(unpacked(page(view))) == 25  # every feature, and the comparisons
    for words in ("corpus", "186 texts", "words (ffffffffffffffff)", "TopKSAE(d_in=48", "Python"):
        assert words in content
    marked = unpacked(page(view, [5], mark=2))["5"]
    assert marked.count('<div class="all-lines">') == 2 and "<mark" in marked
    by_default = unpacked(page(view, [5]))["5"]  # an encoder is there: three
    assert by_default.count('<div class="all-lines">') == 3 and report._affordable(view, np.arange(24)) == 3
    assert "<mark" not in unpacked(page(replace(view, encoder=None), [5]))["5"]


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
    assert find(view, "galaxies").tolist() == [1]
    assert find(view, "keyword7").tolist() == [7]  # keywords count, not the label alone
    view.__dict__.pop("names_to_search")
    view.names.at[3, "terms"], view.names.at[4, "terms"] = ["award"], ["warfare", "wars"]
    view.names["term_scores"] = None
    assert find(view, "war").tolist() == [4]  # neither "award" nor what only begins with a short word
    river = find(view, "river")
    assert len(river) and (word_hits(view, "river")[river] == 1).all()  # found by its texts
    assert set(find(view, "river", sort="id")) == set(river)
    assert find(view, "name5", by_meaning=True)[0] == 5
    assert 23 not in find(view) and 23 in find(view, keep=Keep(dead=True))
    by_density = view.stats.density[find(view)].to_numpy()
    assert (np.diff(by_density) <= 0).all()
    assert find(view, sort="trust")[0] == 22 and find(view, sort="id").tolist() == list(range(23))
    assert find(view, sort="trust", reverse=True)[0] == 0 and find(view, sort="id", reverse=True)[0] == 22
    by_label = [view.labels[f] for f in find(view, sort="label")]
    assert by_label == sorted(by_label, key=str.lower)
    assert find(view, sort="trust", within=(3, 9, 23)).tolist() == [9, 3]
    view.names.loc[22, "auroc"] = np.nan
    assert (
        find(view, sort="trust")[-1] == 22 and find(view, sort="trust", reverse=True)[-1] == 22
    )  # absent last
    with pytest.raises(ValueError, match="sort must be one of"):
        find(view, sort="beauty")


def test_filters(view):
    view.names.loc[[3, 4], "kind"] = "spelling"
    assert find(view, sort="id", keep=Keep(kind="spelling")).tolist() == [3, 4]
    top = view.stats.top_domain[3]
    assert set(find(view, keep=Keep(domain=top))) == set(np.flatnonzero(view.stats.top_domain == top)) - {23}
    assert set(find(view, keep=Keep(trust=(0.8, 1.0)))) == set(np.flatnonzero(view.names.auroc >= 0.8)) - {23}
    density = view.stats.density.to_numpy()
    low = find(view, keep=Keep(density=(-9.0, np.log10(np.median(density)))))
    assert set(low) == set(np.flatnonzero(density <= np.median(density) + 1e-9)) - {23}
    assert find(view, keep=Keep(noted=(7, 23))).tolist() == [7]


def test_by_meaning_no_name_is_near_to_everything(view, words):
    """A name in the middle of all others (a hub) does not win once the vectors are centred; noise finds nothing."""
    middle = " ".join(f"name{i}" for i in range(6, 23))
    view.labels[5] = middle
    queries = [f"name{i} other{i}" for i in range(6, 23)]
    assert all(find(view, q, by_meaning=True)[0] == i for i, q in enumerate(queries, 6))
    assert len(find(view, "zzz qqq", by_meaning=True)) <= 2
    score = similarity(view, "name9")
    assert score[9] == score.max() and score[23] == -1  # the dead have no name to be found by


def test_texts_with_one_and_with_two_features(view):
    on = view.table.toarray() > 0
    a, b = map(int, np.argsort(-(on.T @ on.astype(int) * (1 - np.eye(24, dtype=int))).max(1))[:2])
    b = int(view.together[a][0])
    frame, total = texts_with(view, [a, b], size=1000)
    assert set(frame.row) == set(np.flatnonzero(on[:, a] & on[:, b])) and total == len(frame) > 1
    assert (np.diff(frame.act) <= 0).all() and frame.act.max() <= 1


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
    assert "nan" not in cards.card(view, 3) + cards.feature_rows(view, np.arange(24))
    view = replace(view, names=bare.assign(auroc=np.nan, terms=[["a"]] * 24))
    b = Browser(view)
    drawn(b.map)
    assert "nan" not in (b.card.value + b.list.value).lower()
    assert set(b.map.data["values"]["detection"]) == {None}
    assert "not judged" in cards.card(view, 3) and "not judged" not in cards.card(view, 23)
    assert len(find(view)) == 23 and len(unpacked(page(view, [1, 2]))) == 3


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


@pytest.mark.parametrize("damage", ["a bit", "the end", "another shape", "an older kind", "nothing left"])
def test_a_damaged_file_is_made_anew(view, words, tmp_path, monkeypatch, damage):
    """The map and the embedded labels: neither a wrong view nor an error, and the file is whole again."""
    monkeypatch.setattr(atlas, "_two_dimensions", lambda sae: np.arange(48.0).reshape(24, 2))
    xy, vectors = atlas.feature_xy(view.sae, tmp_path / "new"), label_vectors(view)
    (labels,) = tmp_path.glob("labels-*")
    for file in (atlas.map_file(view.sae, tmp_path / "new"), labels):
        content = bytearray(file.read_bytes())
        content[-5] ^= 16
        if damage == "another shape":
            kept(file, (3, 2), lambda: np.zeros((3, 2)))
        elif damage == "an older kind":
            file.write_bytes(array_bytes(np.zeros((24, 2))))
        else:
            file.write_bytes({"a bit": content, "the end": content[:-9], "nothing left": b""}[damage])
    view.vectors = None
    words.seen.clear()
    assert (atlas.feature_xy(view.sae, tmp_path / "new") == xy).all()
    assert np.array_equal(label_vectors(view), vectors, equal_nan=True) and words.seen
    view.vectors = None
    words.seen.clear()
    assert np.array_equal(label_vectors(view), vectors, equal_nan=True) and not words.seen


def test_equal_texts_are_shown_once_with_a_count(view):
    f = int(view.stats.n_texts.idxmax())
    rows = view.table[:, f].indices
    for r in rows[:12]:
        view.texts[r] = "The town hall is closed."
    view.embeddings[rows[:12]] = view.embeddings[rows[0]]
    del view.same  # computed anew
    found = [band_texts(view, f, "strongest", i)[0] for i in range(40)]
    shown = pd.concat(found).row
    assert shown.map(lambda r: view.texts[r]).is_unique and len(shown) == len(rows) - 11
    assert pd.concat(found).set_index("row").times.drop_duplicates().sort_values().tolist() == [1, 12]
    content = cards.text_rows(view, pd.concat(found), f)
    assert content.count("The town hall is closed.") == 1 and content.count("12 times") == 1
    near = nearest(view, view.embeddings[rows[0]], 5, but=int(rows[3]))[0]
    assert "The town hall is closed." not in {view.texts[r] for r in near} and len(near) == 5
    both = texts_with(view, [f], size=1000)[0]
    assert both.row.map(lambda r: view.texts[r]).is_unique


@pytest.fixture
def family_view(view):
    """Family 0: 4 over 5 and 6, 5 over 7. Family 1: 5 over 7, 8 (a later round, without 4). 2 is unnamed."""
    columns = ["family", "feature", "parent", "depth", "weight"]
    rows = [(0, 4, -1, 0, 1.0), (0, 6, 4, 1, 0.6), (0, 5, 4, 1, 0.5), (0, 7, 5, 2, 0.4),
            (1, 5, -1, 0, 1.0), (1, 7, 5, 1, 0.4), (1, 8, 5, 1, 0.3), (2, 2, -1, 0, 1.0), (2, 9, 2, 1, 0.2)]  # fmt: skip
    names = pd.DataFrame({"label": ["<script>plants", "no name", "no name"], "shown": [True, False, False]})
    encoded = EncodedTexts(view.by_text, view.texts, view.embeddings, view.domains)
    given = {"families": pd.DataFrame(rows, columns=columns), "family_names": names}
    return make_view(view.sae, encoded, view.names, encoder=view.encoder, folder=view.folder, **given)


def test_families_on_card_map_and_page(family_view):
    view = family_view
    assert view.kin[5] == ([1, 0], [4], [7, 8]) and view.kin[4].children == [6, 5] and 11 not in view.kin
    assert [view.family_name(i) for i in range(3)] == [
        "<script>plants",
        "unnamed (root: name5)",
        "unnamed (2)",
    ]
    content = cards.card(view, 5)
    assert 'href="#family=1"' in content and "&lt;script&gt;plants" in content and tags(content) <= ALLOWED
    kin = re.search(r'<p class="dim kin">.*?</p>', content, re.S)[0]
    assert re.findall(r'href="#feature=(\d+)"', kin) == ["4", "7", "8"]
    assert "kin" not in cards.card(view, 11)
    tree = cards.family(view, 0)
    assert tags(tree) <= ALLOWED | {"title"}
    assert re.findall(r'data-f="(\d+)"', tree) == ["4", "6", "5", "7"]  # a parent before its children
    on = view.by_text.toarray() > 0
    w = (on[:, 4] & on[:, 6]).sum() / (min(on[:, 4].sum(), on[:, 6].sum()) + 1)
    cells = dict(re.findall(r"<title>(\d+): [^<]* ([\d.]+)<", tree.split('data-f="6"')[1].split("</tr>")[0]))
    assert float(cells.get("4", 0)) == pytest.approx(w, abs=0.006) and float(cells["6"]) > 0.8
    kinds = feature_data(view)["kinds"]["family"]
    assert {k["name"]: k["count"] for k in kinds["looks"]} == {
        "<script>plants": 2, "unnamed (root: name5)": 3, "unnamed (2)": 2, "in no family": 16,
    }  # fmt: skip
    assert [b for _, b in view.family_menu][0] == "<script>plants (4)"
    assert set(find(view, keep=Keep(family=1))) == {5, 7, 8}
    pages = unpacked(page(view))
    assert pages["family=0"] == tree and "family=2" in pages and 'href="#family=0"' in pages["7"]


def test_families_in_the_notebook(family_view, view):
    b = Browser(family_view, feature=5)
    assert list(b.panes.makers) == ["Examples", "Text", "Neighbours", "Family", "Note"]
    assert (
        b.panes.page("Family").layout.display == "none" and b.card.layout.display is None
    )  # it alone is hidden
    b._hear("family", 0)
    assert b.panes.titles.value == "Family" and "Family 0<" in b.panes.page("Family").value
    b._hear("feature", 7)  # walked to a child: the tree stays
    assert "Family 0<" in b.panes.page("Family").value and "Feature 7<" in b.card.value
    b._hear("feature", 8)
    assert "Family 1<" in b.panes.page("Family").value
    b._hear("feature", 11)
    assert "in no family" in b.panes.page("Family").value
    for wrong in (99, "x", None, -1):
        b._hear("family", wrong)
    b.more.value, b.filters.family.value = True, 1
    assert set(b.features) == {5, 7, 8} and set(b.state.matches) == {5, 7, 8}
    plain = Browser(view)
    plain._hear("family", 0)
    assert "Family" not in plain.panes.makers and plain.panes.titles.value == "Examples"


def test_families_of_another_sae_are_refused(view):
    encoded = EncodedTexts(view.by_text, view.texts, view.embeddings, view.domains)
    with pytest.raises(ValueError, match="beyond 23"):
        make_view(view.sae, encoded, view.names, families=pd.DataFrame({"family": [0], "feature": [24]}))


def test_the_data_of_the_map(view):
    live = np.flatnonzero(view.stats.n_texts > 0)
    data = feature_data(view)
    assert data["ids"] == live.tolist() and sorted(data["order"]) == list(range(23))
    assert np.allclose(data["values"]["detection"], view.names.auroc[live], atol=1e-3)
    assert np.ptp(data["x"]) > 0.99 and np.ptp(data["y"]) > 0.99
    domain = data["kinds"]["domain"]
    of_feature = [domain["looks"][g]["name"] for g in domain["group"]]
    assert of_feature == view.stats.top_domain[live].tolist()
    assert {look["name"]: look["count"] for look in domain["looks"]} == dict(
        view.stats.top_domain[live].value_counts()
    )
    written = {data["ids"][i] for i in data["named"]}
    assert written == set(live) - {2}  # names that were not accepted are not written
    marks = landmarks(view)
    assert 3 <= len(marks) <= 25 and 23 not in marks and 2 not in marks
    json.dumps(data, allow_nan=False)


def test_colab_is_asked_to_show_the_maps(view, monkeypatch):
    asked = []
    colab = SimpleNamespace(enable_custom_widget_manager=lambda: asked.append(1))
    monkeypatch.setitem(sys.modules, "google.colab.output", colab)
    browse(view)
    assert asked


def test_the_order_of_drawing():
    xy = np.random.default_rng(0).random((3000, 2))
    order = atlas.drawing_order(xy, weight := np.arange(3000))
    assert sorted(order) == list(weight) and order[0] == 2999  # the heaviest first
    assert len(set(map(tuple, (xy[order[:21]] * 3.999).astype(int)))) == 16  # then one in each of 4 × 4 cells


def send(widget, content):
    """A message, as the page sends it."""
    widget._handle_custom_msg(content, [])


def drawn(points):
    """The page has room for the map now: it asks for the points."""
    send(points, {"ready": True})


def note(b):
    """The pane of notes, open."""
    b.panes.turn_to("Note")
    return b.panes.page("Note")


def listed(b):
    return [int(f) for f in re.findall(r'data-f="(\d+)"', b.list.value)]


def test_controls_and_views_follow_one_state(view, tmp_path):
    b = Browser(view, notes=tmp_path / "notes.json")
    first = next(f for f in find(view) if view.named[f])
    assert (
        b.state.feature == first and f"Feature {first}<" in b.card.value
    )  # something is shown without a click
    b.search.value = "galaxy"
    assert listed(b) == [1] and b.map.found == [1]
    b.buttons["next"].click()
    assert b.state.feature == 1 and "galaxy" in b.card.value and b.number.value == "1" and b.map.chosen == 1
    b.search.value = "no label has these words"
    assert not listed(b) and "by meaning" in b.count.value
    b.search.value = ""
    assert b.map.found is None
    b.meaning.value, b.search.value = True, "name5 stars"
    assert "similar" in b.list.value and "<button" not in b.list.value and listed(b)[0] in (1, 5)
    b.meaning.value, b.search.value = False, ""
    b.number.value = "999999"
    assert b.state.feature == 1 and "0 to 23" in b.error.value
    b.number.value = "23"
    assert (
        "dead" in b.card.value
        and "No text activates" in b.panes.page("Examples").rows.value
        and not b.error.value
    )
    b._hear("feature", 16)  # a click on a link, as the page sends it
    assert "Feature 16<" in b.card.value and "tr[data-f='16']" in b.chosen.value
    row = int(re.findall(r"text=(\d+)", b.panes.page("Examples").rows.value)[0])
    b._hear("text", row)
    assert b.panes.titles.value == "Text" and b.state.document == row and "this text" in b.card.value
    assert (
        "What the SAE sees" in b.panes.page("Text").value
        and "can be said in words" in b.panes.page("Text").value
    )
    b._hear("feature", 9)
    assert b.state.feature == 9 and b.panes.page("Text").layout.display is None
    b.buttons["‹ back"].click()
    assert (b.state.feature, b.state.document) == (16, row)
    b.buttons["‹ back"].click()
    b.buttons["‹ back"].click()
    assert (b.state.feature, b.state.document) == (23, -1)
    b.buttons["forward ›"].click()
    assert b.state.feature == 16
    for kind, wrong in (("feature", 99), ("feature", "x"), ("text", 10**6), ("sort", "evil"), ("else", 1)):
        b._hear(kind, wrong)
    assert b.state.feature == 16 and b.sort == "density"
    b.panes.turn_to("Neighbours")
    assert f'href="#feature={view.near[16][0]}"' in b.panes.page("Neighbours").value
    b.state.feature = 7
    note(b).field.value = "my <b>note</b>"
    assert json.loads((tmp_path / "notes.json").read_text()) == {"7": "my <b>note</b>"}
    b.search.value = "name7"
    assert "my &lt;b&gt;note" in b.list.value and "has a note" in b.list.value
    b.search.value = ""
    b.buttons["random"].click()
    b.state.feature = 7
    assert note(b).field.value == "my <b>note</b>"
    assert note(Browser(view, notes=tmp_path / "notes.json", feature=7)).field.value == "my <b>note</b>"
    assert not b.filters.children and b.filters.keep() == Keep()  # built when opened
    b.more.value, b.filters.noted.value = True, True
    assert listed(b) == [7] and b.map.found == [7]
    b.filters.noted.value, b.filters.trust.value = False, (0.9, 1)
    high = set(np.flatnonzero(view.names.auroc >= 0.9))
    assert 23 in high and set(b.features) == high - {23}
    b.filters.dead.value = True
    assert set(b.features) == high
    b.more.value = False
    assert set(b.features) == high  # closed ones go on filtering


def test_every_feature_is_reached_by_paging_and_sorting(view):
    b, seen = Browser(view), []
    b.pager.page = 0
    b._show_list()
    while True:
        seen += listed(b)
        if b.pager.forward.disabled:
            break
        b.pager.forward.click()
    assert seen == find(view).tolist() and "17–23 of 23" in b.pager.text.value
    b._hear("sort", "trust")
    assert "detection ▾" in b.list.value and "density ▾" not in b.list.value
    b._hear("sort", "trust")
    assert b.features.tolist() == find(view, sort="trust", reverse=True).tolist()
    b.state.feature = int(b.features[-1])
    assert b.state.feature in listed(b)  # the list turns to the selected one


def test_examples_by_band_and_highlighting(view):
    b = Browser(view, feature=int(view.stats.n_texts.idxmax()))
    rows = lambda: re.findall(r"#text=(\d+)", b.panes.page("Examples").rows.value)
    first = rows()
    b.panes.page("Examples").pager.forward.click()
    second = rows()
    assert len(first) == 10 and second and not set(first) & set(second)
    b.panes.page("Examples").highlight.value = True
    assert (
        b.panes.page("Examples").rows.value.count("all-lines") == len(second)
        and "<mark" in b.panes.page("Examples").rows.value
    )
    b.panes.page("Examples").bands.value = "near misses"
    assert (
        "<mark" not in b.panes.page("Examples").rows.value and "0.00" in b.panes.page("Examples").rows.value
    )
    b.state.feature = 5
    assert b.panes.page("Examples").pager.page == 0


def test_the_whole_of_a_long_text_is_highlighted(view):
    text = " ".join(f"word{i}" for i in range(300))
    view.encoder.seen.clear()
    content = re.sub("<[^>]*>", "", cards.highlighted(view, text, 5))
    assert content.split() == text.split()
    assert (
        sum(len(t.split()) for t in view.encoder.seen) < 6000
    )  # long texts in larger pieces: a second, not ten


def test_pages_open_and_answer(view, tmp_path):
    b = Browser(view, notes=tmp_path / "notes.json")
    assert b.state.page == "Features" and not hasattr(b, "text_map")  # built when opened
    b.tabs.titles.value = "Two features"
    assert b.tabs.pages["Two features"].layout.display is None
    assert b.tabs.pages["Features"].layout.display == "none"
    b.state.feature = 9
    assert b.map.chosen != 9  # a closed page is not drawn …
    b.tabs.titles.value = "Features"
    assert b.map.chosen == 9  # … and is up to date when it is opened
    send(b.map, {"pick": 4})
    assert b.state.feature == 4 == b.map.chosen
    send(b.map, {"lasso": [0, 4]})
    assert set(b.features) == {0, 4} and "inside the lasso" in b.count.value and b.map.found == [0, 4]
    send(b.map, {"lasso": None})
    assert b.state.within is None and b.map.found is None and b.map.within is None and len(b.features) == 23
    b.tabs.titles.value = "Texts"
    on = b.text_map.points.values
    assert on[0] == "activation" and len(on[1]) == view.stats.n_texts[4]
    send(b.text_map.points, {"pick": 30})
    assert (
        b.state.document == 30
        and "What the SAE sees" in b.panes.page("Text").value
        and b.panes.titles.value == "Text"
    )
    b.text_list.fields[1].value = "99"
    assert "0 to 23" in b.text_list.rows.value
    b.text_list.fields[1].value = str(view.together[4][0])
    assert "#text=" in b.text_list.rows.value
    form = lambda name: (setattr(b.tabs.titles, "value", name), b.tabs.pages[name])[1]
    sentence = form("Try a sentence")
    sentence.fields[0].value = "river castle"
    sentence.button.click()
    strongest = int(re.findall(r'data-f="(\d+)"', sentence.out.value)[0])
    assert "<mark" in sentence.out.value and b.state.feature == strongest
    pair = form("Two texts")
    pair.button.click()
    assert "type a text first" in pair.wrong.value
    pair.fields[0].value, pair.fields[1].value = "river castle", "river violin"
    pair.button.click()
    assert "sum = cosine" in pair.out.value and not pair.wrong.value and "#feature=" in pair.out.value
    for name in ("Two features", "Two domains"):
        form(name).button.click()
        assert "<table" in form(name).out.value and not b.state.busy
    files = form("Export")
    files.fields[0].value = str(tmp_path / "out")
    b.notes.set(3, "seen")
    files.button.click()
    assert (tmp_path / "out" / "browser.html").stat().st_size > 10_000
    assert (tmp_path / "out" / ".gitignore").read_text() == "*\n"
    written = pd.read_csv(tmp_path / "out" / "features.csv")
    assert len(written) == 24 and written.user_note[3] == "seen"


def test_notes_survive_steps_and_other_browsers(view, tmp_path):
    file = tmp_path / "notes.json"
    one, other = Browser(view, notes=file, feature=3), Browser(view, notes=file, feature=5)
    note(one).field.value = "typed and not saved"
    one.buttons["next"].click()
    one.buttons["previous"].click()
    assert one.state.feature == 3 and note(one).field.value == "typed and not saved"
    note(other).field.value = "of the other browser"
    note(other).save.click()
    assert json.loads(file.read_text()) == {"3": "typed and not saved", "5": "of the other browser"}
    note(one).field.value = ""
    note(one).save.click()
    assert json.loads(file.read_text()) == {"5": "of the other browser"}
    file.write_bytes('{"0": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not a file of notes"):
        Notes(file)
    note(other).field.value = "too late"
    assert "not a file of notes" in other.error.value and b"\xe9" in file.read_bytes()


def test_trust_where_it_is_known(view):
    assert view.trust_name == "detection" and "detection" in Browser(view).list.value
    trust = np.random.default_rng(0).permutation(24) / 24
    view = replace(view, names=view.names.assign(trust=trust))
    live = [f for f in np.argsort(-trust) if f != 23]
    assert find(view, sort="trust").tolist() == live and view.trust(5) == view.trust_share(5) == trust[5]
    b = Browser(view, feature=live[0])
    assert f'<b>{trust[live[0]]:.2f}</b><span class="dim">trust' in b.card.value and ">trust" in b.list.value
    assert "weak name" in cards.card(view, live[-1]) and "weak name" not in cards.card(view, live[0])
    names = view.names.assign(kind="concept", note="")
    names.loc[3, ["kind", "note"]] = ["spelling", 'words with "g-"']
    names.loc[4, "kind"] = "two topics"
    view = replace(view, names=names)
    assert view.labels[3] == 'words with "g-"'  # the note is the name of a feature about spelling
    assert "how words are spelled" in cards.card(view, 3)
    assert "two topics" in cards.card(view, 4) and "kind" not in cards.card(view, 5)
    view.names.loc[6, "auroc"] = np.nan  # too few held-out texts
    assert "not judged" in cards.card(view, 6) and "not judged" not in cards.card(view, 7)


def test_what_can_be_said_in_words(view):
    """Per text and for the SAE: with every feature named it is what the SAE explains."""
    x = torch.from_numpy(view.embeddings[6:])
    error = (x - view.sae(x)).square().sum(1) / (x - view.sae.mean).square().sum(1)
    everything = replace(view, names=view.names.assign(shown=True))
    everything.labels[23] = "named too"
    for row in (10, 40):
        assert np.isclose(
            everything.share_in_words(view.embeddings[row]), 1 - error[row - 6].item(), atol=1e-4
        )
    assert view.share_in_words(view.embeddings[10]) <= everything.share_in_words(view.embeddings[10]) + 0.5
    nothing = replace(view, names=view.names.assign(shown=False))
    assert not nothing.named.any() and nothing.named_share < 0.1


def test_no_two_domains_look_alike(view):
    looks = atlas.domain_looks([f"domain {i}" for i in range(60)])
    pairs = [(colour, shape.sign) for colour, shape in looks.values()]
    assert len(set(pairs[:48])) == 48 and set(pairs[48:]) == {("#808080", "●")}
    drawn = [(colour, shape.path) for colour, shape in looks.values()]
    assert len(set(drawn[:48])) == 48


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
        assert len(unpacked(page(small))) == d_sae + 1
        b = Browser(small)
        for title in b.tabs.titles.options:
            b.tabs.titles.value = title
    silent = EncodedTexts(sparse.csr_matrix(table.shape, dtype=np.float32), texts, x, domains)
    b = Browser(quiet := make_view(sae, silent, pd.DataFrame({"label": ["a"] * d_sae})))
    assert "No text activates" in b.panes.page("Examples").rows.value and "no feature to list" in b.list.value
    for title in b.tabs.titles.options:
        b.tabs.titles.value = title
    assert len(unpacked(page(quiet))) == d_sae + 1
    atlas_picture(quiet).canvas.draw()


def test_names_read_back_from_elsewhere(view):
    encoded = EncodedTexts(view.by_text, view.texts, view.embeddings, view.domains)
    as_json = view.names.set_axis(view.names.index.astype(str))
    assert make_view(view.sae, encoded, as_json, folder=view.folder).labels == view.labels
    as_csv = view.names.assign(terms=view.names.terms.map(str))
    with pytest.raises(ValueError, match="keep names in parquet"):
        make_view(view.sae, encoded, as_csv, folder=view.folder)
    bare = view.names.assign(terms=None, term_scores=None)
    assert make_view(view.sae, encoded, bare, folder=view.folder).terms(3) == []
    short = view.names.assign(term_scores=[[0.9]] * len(view.names))  # of two terms: whose is it?
    (_, first), (_, second) = make_view(view.sae, encoded, short, folder=view.folder).terms(3)
    assert np.isnan([first, second]).all()


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
    content = browse(view, mode="static").data
    parser = Tags()
    parser.feed(content)
    assert parser.found == {"div", "iframe", "small"} and not parser.handlers
    (frame,) = [dict(attrs) for tag, attrs in parser.tags if tag == "iframe"]
    assert frame["sandbox"] == "allow-scripts" and len(unpacked(frame["srcdoc"])) == 25  # of nobody's origin
    assert '<base href="about:srcdoc">' in frame["srcdoc"]


def test_the_map_survives_a_reload(view):
    """What a page asks the kernel for when it is loaded again is what is drawn now; nothing is sent elsewhere."""
    b = Browser(view)
    b.state.feature, b.state.within = 9, (3, 9)
    assert not b.map.get_state()["data"]  # they follow when the page has drawn the rest
    drawn(b.map)
    state = b.map.get_state()
    assert state["chosen"] == 9 and state["found"] == [3, 9] and len(state["data"]["x"]) == 23
    assert "http" not in state["_esm"] and "fetch(" not in state["_esm"]


def test_pairs_are_counted_by_blocks():
    table = sparse.random(300, 1100, 0.02, format="csr", random_state=0, dtype=np.float32)
    ids, count = _most_together(table, 10)
    on = (table.toarray() > 0).astype(int)
    both = on.T @ on - np.diag((on.T @ on).diagonal())
    for f in (0, 511, 512, 1099):
        best = sorted(range(1100), key=lambda g: (-both[f, g], g))[:10]
        assert count[f].tolist() == [both[f, g] for g in best]
        assert ids[f].tolist() == [g if both[f, g] else -1 for g in best]


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
    assert b.meaning.disabled and b.panes.page("Examples").highlight.disabled
    note(b).field.value = "a note"
    assert "without a notes file" in b.error.value
    b.tabs.titles.value = "Try a sentence"
    form = b.tabs.pages["Try a sentence"]
    form.fields[0].value = "x"
    form.button.click()
    assert "encoder is not loaded" in form.wrong.value
    b.state.document = 30  # a text of the corpus needs no encoder
    assert "What the SAE sees" in b.panes.page("Text").value and "<mark" not in b.panes.page("Text").value
    with pytest.raises(ValueError, match="the table is"):
        few = EncodedTexts(view.by_text, view.texts[:3], view.embeddings[:3], view.domains[:3])
        make_view(view.sae, few, view.names)
    assert "Feature 3<" in browse(view, feature=3, mode="static").data
    assert export(view, tmp_path / "e")


def again(view, names=None, **given):
    encoded = EncodedTexts(view.by_text, view.texts, view.embeddings, view.domains)
    return make_view(view.sae, encoded, view.names if names is None else names, folder=view.folder, **given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: n.label, "a column `label`"),
        (lambda n: n.drop(columns="label"), "a column `label`"),
        (lambda n: n.set_axis(n.index + 1), "each once and in 0..23"),
        (lambda n: n.set_axis(n.index + 0.5), "each once and in 0..23"),
        (lambda n: n.set_axis([0, *range(23)]), "each once and in 0..23"),
        (lambda n: n.assign(shown="False"), "True or False"),
        (lambda n: n[["label"]].assign(shown=0.5), "True or False"),
    ],
)
def test_names_that_are_none_are_refused(view, change, said):
    with pytest.raises(ValueError, match=said):
        again(view, change(view.names))


def test_names_by_column_without_a_verdict_and_with_half_characters(view, tmp_path):
    some = view.names.iloc[[3, 5, 9]]
    assert again(view, some.reset_index()).labels == again(view, some).labels
    unsure = again(view, view.names.assign(shown=[True, np.nan] * 12))
    assert unsure.labels[3] == "unnamed" and unsure.labels[4] == "name4"
    half = again(view, view.names.assign(label=pd.Series(["half \ud83d"] * 24, dtype=object)))
    assert export(half, tmp_path / "half", {3: "half \ud83d"}) and half.labels[4] == "half \ufffd"


def test_groups_and_families_that_are_none_are_refused(view):
    for given in (
        {"groups": np.arange(3)},
        {"families": pd.DataFrame({"family": [0], "feature": [3]})},
        {"family_names": pd.DataFrame({"label": ["a"]})},
    ):
        with pytest.raises(ValueError, match="give one for each|as they are found"):
            again(view, **given)


@pytest.mark.parametrize("feature", [3.7, True, "1_0", "\u0663", float("inf"), None, b"3", "24"])
def test_what_is_no_feature(view, feature):
    with pytest.raises(ValueError, match="from 0 to 23"):
        check_feature(view, feature)


def test_features_of_a_page(view):
    rows = lambda some: json.loads(re.search(r'id="data">(.*?)</script>', page(view, some), re.S)[1])["rows"]
    assert rows(np.arange(24) > 20)["id"] == [21, 22, 23] and rows([])["id"] == []
    with pytest.raises(IndexError):
        page(view, [-1])
    long = "x" * 60
    view.stats["top_domain"] = [f"{long}{i % 2}" for i in range(24)]
    assert set(rows([3, 4])["domain"]) == {f"{long}0", f"{long}1"}


def test_sets_capitals_and_what_is_not_seen_are_found(view):
    assert find(view, within={3, 9}).tolist() == find(view, within=(3, 9)).tolist()
    assert find(view, keep=Keep(noted={3, 9})).tolist() == find(view, keep=Keep(noted=(3, 9))).tolist()
    named = again(view, view.names.assign(label=["Stra\u00dfe caf\u00e9"] * 24))
    for query in ("STRASSE", "stra\u00dfe", "cafe\u0301", "\u200bcaf\u00e9"):
        assert len(find(named, query)) > 20, query


def test_two_writers_keep_all_notes(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    one, other = Notes("notes.json"), Notes("notes.json")
    monkeypatch.chdir(tmp_path)  # they stay where they were opened

    def write(notes, first):
        for i in range(15):
            notes.set(first + i, "half \ud83d")

    threads = [threading.Thread(target=write, args=a) for a in ((one, 0), (other, 100))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(read_notes(tmp_path / "a" / "notes.json")) == 30 and not (tmp_path / "notes.json").exists()


@pytest.mark.parametrize("content", ['{"0": ["a"]}', "null", "[" * 100_000])
def test_what_is_no_file_of_notes(tmp_path, content):
    file = tmp_path / "notes.json"
    file.write_text('{"0": null, "1": "a"}')
    assert read_notes(file) == {"1": "a"}
    file.write_text(content)
    with pytest.raises(ValueError, match="not a file of notes"):
        read_notes(file)


def test_a_gitignore_and_notes_by_number(view, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / ".gitignore").write_text("data/\n")
    export(view, tmp_path / "own", {6: "mine"})
    assert (tmp_path / "own" / ".gitignore").read_text() == "data/\n"
    assert pd.read_csv(tmp_path / "own" / "features.csv", index_col=0).user_note[6] == "mine"


def test_an_encoder_that_fails_is_said(view):
    def fails(_):
        raise RuntimeError("out of memory")

    view.encoder = SimpleNamespace(name="", fingerprint="", encode=fails)
    b = Browser(view)
    b.search.value, b.meaning.value = "river", True
    assert "out of memory" in b.error.value and b.state.busy == ""
    b.tabs.titles.value = "Try a sentence"
    form = b.tabs.pages["Try a sentence"]
    form.fields[0].value = "x"
    form.button.click()
    assert "out of memory" in form.wrong.value and b.state.busy == ""


def test_what_cannot_be_kept_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert kept(tmp_path / "file" / "x", (2,), lambda: np.ones(2)).tolist() == [1, 1]


def test_a_domain_that_begins_with_a_line_is_in_the_legend(view):
    view.stats["top_domain"] = ["_inner", "plain"] * 12
    view.base_rate = pd.Series({"_inner": 0.5, "plain": 0.5})
    shown = [t.get_text().strip() for t in atlas_picture(view).axes[0].get_legend().get_texts()]
    assert shown == ["_inner", "plain"]
