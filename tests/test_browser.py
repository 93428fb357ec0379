"""The browser without a browser: numbers that add up, state that follows the controls, and nothing that can run."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from saelib import explain, views
from saelib.browser import Browser, browse
from saelib.explain import make_view
from saelib.pages import export, page, read_notes
from saelib.training import make_sae

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
        self.found, self.handlers = set(), []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.handlers += [k for k, v in attrs if k.startswith("on") or "javascript:" in (v or "")]


def tags(content):
    parser = Tags()
    parser.feed(content)
    assert not parser.handlers, parser.handlers
    return parser.found


@pytest.fixture
def view(words):
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
        {"label": labels, "auroc": np.linspace(0.5, 1, 24), "shown": np.arange(24) != 2, "kind": "concept", "note": ""}
    )
    return make_view(sae, texts, domains, x, table, names.rename_axis("feature"), words)


ALLOWED = {"h3", "h4", "p", "br", "table", "tr", "td", "th", "span", "bdi", "svg", "rect", "text", "line", "circle", "mark"}


def test_everything_shown_is_text(view):
    for f in range(24):
        content = views.card(view, f) + views.histogram(view, f, 1.0) + views.examples(view, f) + views.neighbours(view, f)
        assert tags(content) <= ALLOWED
        assert len(content) < 60_000  # a text of 100 kB is cut
    for text in EVIL:
        assert tags(views.text_page(view, text)) <= ALLOWED
        assert tags(views.compare_texts(view, text, EVIL[0])) <= ALLOWED
        assert tags(views.highlighted(view, text, 3)) <= {"bdi", "mark"}
    assert tags(views.compare_domains(view, "evil <b>", "plain") + views.compare_features(view, 0, 1)) <= ALLOWED
    assert not set("\u202e\u0000\u200b") & set(views.safe(EVIL[3])) and "<" not in views.plain(EVIL[0])


def test_the_page_is_self_contained(view):
    content = page(view, limit=10)
    assert tags(content) <= ALLOWED | {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "details",
        "summary",
        "a",
    }
    assert "http" not in content.replace("http-equiv", "") and "default-src 'none'" in content
    assert content.count("<details id=") == 10 and "Two texts" in content and "Two domains" in content


def test_explanation_adds_up_to_one_and_to_the_cosine(view, words):
    x, y = words.encode(["river number3 castle", "castle violin"])
    parts = explain.explain(view, x)
    assert abs(parts.share.sum() - 1) < 1e-5
    with torch.no_grad():
        v = torch.from_numpy(x)
        rest = v - view.sae(v[None])[0]
        centred = v - view.sae.mean
    assert abs(parts.share["not explained"] - float(rest @ centred / (centred @ centred))) < 1e-4
    pair = explain.cosine_parts(view, x, y)
    assert abs(pair.contribution.sum() - float(x @ y)) < 1e-6
    shared = [i for i in pair.index if isinstance(i, int)]
    assert len(shared) >= 4 and set(pair.index[-2:]) == {"common part", "not explained"}


def test_neighbours_and_co_activation_by_brute_force(view):
    W, on = view.sae.W_dec.detach().numpy(), view.table.toarray() > 0
    for f in (0, 5, 11):
        cosine = W @ W[f]
        cosine[f] = -2
        assert set(view.near[f]) == set(np.argsort(-cosine)[:10])
        both = (on & on[:, [f]]).sum(0)
        both[f] = 0
        assert view.together_count[f].tolist() == sorted(both, reverse=True)[:10]


def test_word_effects_leave_one_out(view, words):
    text = "river castle number7"
    f = int(explain.activations(view, [text])[0].argmax())
    effects = dict(explain.word_effects(view, text, f))
    full, without = explain.activations(view, [text, "castle number7"])[:, f]
    assert abs(effects["river"] - (full - without)) < 1e-5
    words.seen.clear()
    explain.word_effects(view, text, f)
    assert not words.seen  # cached


def test_domain_contrast_by_hand(view):
    frame = explain.domain_contrast(view, "plain", "other")
    on = view.table.toarray() > 0
    f = frame.index[0]
    a, b = on[view.domains == "plain", f].sum(), on[view.domains == "other", f].sum()
    odds = np.log((a + 0.5) / (90 - a + 0.5)) - np.log((b + 0.5) / (90 - b + 0.5))
    assert abs(frame.log_odds[f] - odds) < 1e-9 and frame.low[f] < odds < frame.high[f]
    assert 23 not in frame.index and frame.q.between(0, 1).all()
    with pytest.raises(ValueError, match="no text has the domain 'nowhere'"):
        explain.domain_contrast(view, "plain", "nowhere")


def test_find_by_word_meaning_and_order(view):
    assert explain.find(view, "galaxy").tolist() == [1]
    assert explain.find(view, "name5", by_meaning=True)[0] == 5
    assert 23 not in explain.find(view) and 23 in explain.find(view, hide_dead=False)
    by_density = view.stats.density[explain.find(view, sort="density")].to_numpy()
    assert (np.diff(by_density) <= 0).all()
    assert explain.find(view)[0] == 22 and explain.find(view, sort="id").tolist() == list(range(23))


def test_controls_and_views_follow_one_state(view, tmp_path):
    b = Browser(view, notes=tmp_path / "notes.json")
    assert b.state.feature == 22 and "Feature 22" in b.card.value  # something is shown without a click
    b.search.value = "galaxy"
    assert [v for _, v in b.list.options] == [1]
    b.buttons["next"].click()
    assert b.state.feature == 1 and "galaxy" in b.card.value and b.number.value == "1"
    b.search.value = "no label has these words"
    assert not b.list.options and "by meaning" in b.count.value
    b.search.value = ""
    b.number.value = "999999"
    assert b.state.feature == 1 and "0 to 23" in b.error.value
    b.number.value = "23"
    assert "dead" in b.card.value and "No text activates" in b.examples.value and not b.error.value
    b.list.value = 7
    assert "Feature 7" in b.card.value
    b.open_text.value = b.open_text.options[1][1]
    assert "What the SAE sees" in b.document.value and "<line" in b.histogram.value
    b.note.value = "my <b>note</b>"
    b.save.click()
    assert json.loads((tmp_path / "notes.json").read_text()) == {"7": "my <b>note</b>"}
    b.buttons["random"].click()
    b.state.feature = 7
    assert b.note.value == "my <b>note</b>"
    assert Browser(view, notes=tmp_path / "notes.json", feature=7).note.value == "my <b>note</b>"


def test_pages_open_and_answer(view, tmp_path):
    b = Browser(view)
    for i in range(len(b.accordion.titles)):
        b.accordion.selected_index = i
        assert len(b.pages[i].children) > 1, b.accordion.titles[i]
    trace = b.map.data[0]

    class Points:
        point_inds = [0]

    trace._click_callbacks[0](trace, Points, None)
    assert b.state.feature == trace.customdata[0]
    assert all("<" not in t for trace in b.map.data for t in trace.hovertext)
    for page_number, fields, wanted in ((2, {"sentence": "river castle"}, "What the SAE sees"),):
        for name, value in fields.items():
            getattr(b, name).value = value
        b.pages[page_number].children[-2].click()
        assert wanted in b.pages[page_number].children[-1].value
    b.pages[3].children[-2].click()
    assert "type a text first" in b.pages[3].children[-1].value
    for i in (4, 5):
        b.pages[i].children[-2].click()
        assert "<table" in b.pages[i].children[-1].value
    b.folder.value = str(tmp_path / "out")
    b.pages[6].children[-2].click()
    assert (tmp_path / "out" / "browser.html").stat().st_size > 10_000
    assert len(pd.read_csv(tmp_path / "out" / "features.csv")) == 24


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
        views.text_page(view, "a text")
    b = Browser(view)
    b.accordion.selected_index = 2
    b.sentence.value = "x"
    b.pages[2].children[-2].click()
    assert "encoder is not loaded" in b.pages[2].children[-1].value
    with pytest.raises(ValueError, match="the table is"):
        make_view(view.sae, view.texts[:3], view.domains[:3], view.embeddings[:3], view.by_text, view.names)
    assert "Feature 3" in browse(view, feature=3, mode="static").data
    assert export(view, tmp_path / "e")
