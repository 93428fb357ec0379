"""Trust by hand-made cases, and the fitted numbers against what the ratings in data/readers/ say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from saelib.activations import EncodedTexts
from saelib.metrics import evaluate
from saelib.naming.trust import SIGNALS, THRESHOLD, calibration, name_signals, named_share, spelled, trust
from saelib.sae import make_sae

READERS = Path(__file__).resolve().parents[2] / "data" / "readers"


@pytest.fixture
def train():
    texts = ["red", "blue", "red blue", "green"]
    table = sparse.csr_matrix(np.array([[3, 0], [0, 2], [1, 1], [0, 0]], dtype=np.float32))
    return EncodedTexts(table, texts, np.eye(4, dtype=np.float32), np.array(["all"] * 4))


def by_colour(strings):
    """red → x, blue → y, green → z; unit norm."""
    out = np.array([[word in s for word in ("red", "blue", "green")] for s in strings], dtype=float)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def test_signals_by_hand(train):
    names = pd.DataFrame({"label": ["red", "red, green"], "terms": [["red"], ["red", "green"]]}, index=[0, 0])
    found = name_signals(names, train, by_colour)
    alone = (1 + 0.5**0.5) / 2  # cosine 1 with "red", 1/√2 with "red blue"
    assert found.index.tolist() == [0, 0] and list(found) == SIGNALS
    np.testing.assert_allclose(found.closeness, [alone, alone / 2**0.5], atol=1e-6)
    assert found.held.tolist() == [1, 0]  # "red" stands in both texts of the feature, "green" in none
    np.testing.assert_allclose(found.rarest, np.log([2 / 4, 1 / 4]))  # of the four texts
    np.testing.assert_allclose(found.common, np.log([0.5 / 0.03, 0.25 / 0.03]))
    chance = trust(found)
    assert chance.iloc[0] > chance.iloc[1], "a stray term must cost trust"


def test_names_of_another_table_and_terms_that_are_text(train):
    names = pd.DataFrame({"label": ["otter"], "terms": ["otter"]})
    for wrong, said in ((names, "text, not lists"), (names.set_axis([99]), "another SAE's")):
        with pytest.raises(ValueError, match=said):
            name_signals(wrong, train, lambda s: np.ones((len(s), 2)))


def test_a_feature_without_texts_or_name(train):
    names = pd.DataFrame({"label": ["", "red"], "terms": [[], ["red"]]}, index=[0, 1])
    found = name_signals(names, train, by_colour)
    assert np.isfinite(found.to_numpy()).all() and trust(found).iloc[0] < 0.2


def test_spelled_counts_words_that_begin_so():
    texts = ["Stone by stone", "the first", "a strange story"]
    assert spelled("words beginning with st-", texts) == pytest.approx(2 / 3)
    assert spelled('words with "fi-", "st-"', texts) == 1
    assert spelled("square-kilometre, stone", texts) == 0  # a hyphen within a word names no beginning


def test_missing_signals_are_named():
    with pytest.raises(ValueError, match="rarest"):
        trust(pd.DataFrame({"closeness": [0.5]}))


def test_calibration_bins_by_hand():
    bins = calibration(np.array([0.1, 0.9, 0.3, 0.7]), np.array([0, 1, 1, 1]), n_bins=2)
    np.testing.assert_allclose(bins.to_numpy(), [[0.2, 0.5, 2], [0.8, 1.0, 2]])


def test_named_share_by_hand():
    """Two features, e_0 and e_1, that reconstruct exactly: each explains its own coordinate's variance."""
    sae = make_sae("topk", 2, 2, 2)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    x = torch.tensor(
        [[4.0, 0.0], [0.0, 2.0], [0.0, 0.0], [4.0, 2.0]]
    )  # mean (2, 1): 5 from each text, 20 in all
    share, per_text = named_share(sae, x, np.array([True, False]))
    assert share == pytest.approx(1 - 8 / 20)  # e_1 is missing from two texts: 2² each
    np.testing.assert_allclose(per_text, [1, 1 - 4 / 5, 1, 1 - 4 / 5], atol=1e-6)
    everything, _ = named_share(sae, x, np.array([True, True]))
    assert everything == pytest.approx(1 - evaluate(sae, x).fvu) == pytest.approx(1)
    nothing, _ = named_share(sae, x, np.array([False, False]))
    assert nothing == pytest.approx(1 - 40 / 20)  # the origin is further from the texts than their mean is
    with pytest.raises(ValueError, match="one bool per feature"):
        named_share(sae, x, np.array([True]))


def test_trust_knows_what_the_reader_accepted():
    """trust.json on the recorded signals; the cross-validated predictions, and the right signs."""
    names = pd.read_csv(READERS / "trust_cv.csv")
    assert len(names) == 1080
    keywords = ~names.source.str.contains("language")
    assert roc_auc_score(names.rating[keywords] == 2, names.trust_cv[keywords]) >= 0.85
    chance = trust(names)
    assert np.corrcoef(chance[keywords], names.trust_cv[keywords])[0, 1] > 0.98, (
        "trust.json and trust_cv.csv are of different fits"
    )
    shown = names[keywords & (names.trust_cv >= THRESHOLD)]
    assert (shown.rating == 2).mean() == pytest.approx(shown.trust_cv.mean(), abs=0.05)
    fitted = json.loads((READERS.parents[1] / "saelib" / "naming" / "trust.json").read_text())["coefficients"]
    assert list(fitted) == SIGNALS
    assert all((value < 0) == (name == "common") for name, value in fitted.items())


def test_the_names_in_the_csv_are_those_rated():
    rows = [json.loads(line) for line in (READERS / "wiki.jsonl").read_text(encoding="utf-8").splitlines()]
    rated = {(str(r["feature"]), s, n["name"], n["rating"]) for r in rows for s, n in r["names"].items()}
    names = pd.read_csv(READERS / "trust_cv.csv")[["feature", "source", "label", "rating"]]
    later = names.source.str.contains("round")
    assert set(names[~later].itertuples(index=False, name=None)) == rated
    recorded = pd.read_csv(READERS / "later_rounds.csv")
    assert sorted(zip(names[later].label, names[later].rating, strict=True)) == sorted(
        zip(recorded.label, recorded.rating, strict=True)
    )
