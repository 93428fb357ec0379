"""Steering: an edit that changes nothing changes nothing, parts of a score add up, a ranking is a ranking."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from synthetic import planted

from saelib import steering
from saelib.sae import make_sae
from saelib.trainer import TrainConfig
from saelib.training import train


@pytest.fixture(scope="module")
def world():
    """An SAE on planted atoms, unit embeddings of texts, their activations."""
    x, atoms = planted(4000, d=32, atoms=48, active=3)
    x = torch.nn.functional.normalize(x + 0.3, dim=1)
    config = TrainConfig(steps=200, batch_size=256, target_l0=3)
    sae = train(make_sae("topk", 32, 48, 3), x, config, progress=False).sae
    with torch.no_grad():
        table = sparse.csr_matrix(sae.encode(x).numpy())
    return sae, x.numpy(), table


def test_an_edit_of_nothing_leaves_the_vector(world):
    sae, x, _ = world
    for levels in ({}, steering.query_features(sae, x[5]).to_dict()):
        edited = steering.edit(sae, x[5], levels)
        np.testing.assert_allclose(edited.x, x[5], atol=1e-6)
        assert edited.length == pytest.approx(1, abs=1e-5)


def test_an_edit_moves_the_reconstruction_and_keeps_the_error(world):
    sae, x, table = world
    on = steering.query_features(sae, x[7])
    new = next(i for i in range(48) if i not in on.index)
    edited = steering.edit(sae, x[7], {on.index[0]: 0.0, new: 5.0})
    with torch.no_grad():
        f = sae.encode(torch.from_numpy(x[7:8]))
        error = torch.from_numpy(x[7:8]) - sae.decode(f)
        f[0, on.index[0]], f[0, new] = 0.0, 5.0
        u = (sae.decode(f) + error)[0].numpy()
    np.testing.assert_allclose(edited.x, u / np.linalg.norm(u), atol=1e-5)
    assert edited.change[new] == 5 and edited.change[on.index[0]] == pytest.approx(-on.iloc[0])


def test_turning_a_feature_up_brings_its_texts_and_off_takes_them_away(world):
    sae, x, table = world
    level = steering.typical(table)
    feature, shares = int(np.argmax(np.diff(table.tocsc().indptr))), []
    shows = table[:, [feature]].toarray()[:, 0] > 0
    query = int(np.flatnonzero(~shows)[0])
    for strength in (0, 1, 3):
        edited = steering.edit(sae, x[query], {feature: strength * level[feature]})
        shares.append(shows[steering.search(x, edited.x, 20).rows].mean())
    assert shares[0] <= shares[1] <= shares[2] and shares[2] > shares[0] + 0.3
    query = int(table[:, [feature]].toarray()[:, 0].argmax())
    before = shows[steering.search(x, x[query], 20).rows].mean()
    off = steering.edit(sae, x[query], {feature: 0.0})
    assert shows[steering.search(x, off.x, 20).rows].mean() < before


def test_the_parts_of_a_score_add_up_and_are_what_they_say(world):
    sae, x, table = world
    edited = steering.edit(sae, x[3], {1: 4.0, 2: 0.0, 9: 1.5})
    texts = x[[10, 20, 30]]
    frame = steering.why(edited, sae, x[3], texts)
    parts = frame[[1, 2, 9, "length"]].sum(axis=1)
    np.testing.assert_allclose(parts, texts @ edited.x - texts @ x[3], atol=1e-5)
    d = (sae.W_dec / sae.scale).detach().numpy()
    np.testing.assert_allclose(frame[1], edited.change[1] * texts @ d[1] / edited.length, atol=1e-6)


def test_features_and_levels_that_cannot_be_are_refused(world):
    sae, x, _ = world
    with pytest.raises(ValueError, match="0 to 47"):
        steering.edit(sae, x[0], {48: 1.0})
    for level in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="at least 0"):
            steering.edit(sae, x[0], {3: level})


def test_search_is_the_ranking_by_cosine(world):
    _, x, _ = world
    hits, scores = steering.search(x, x[0], 15), x @ x[0]
    assert hits.rows[0] == 0 and (np.diff(hits.scores) <= 0).all() and len(set(hits.rows)) == 15
    assert set(scores[hits.rows]) == set(np.sort(scores)[-15:])
    fits = np.zeros(len(x), bool)
    fits[[4, 8, 2]] = True
    assert sorted(steering.search(x, x[0], 15, fits).rows) == [2, 4, 8]
    assert len(steering.search(x, x[0], 15, np.zeros(len(x), bool)).rows) == 0
    assert len(steering.search(x[:5], x[0], 15).rows) == 5
    assert steering.search(np.ones((9, 4), np.float32) / 2, np.ones(4) / 2, 3).rows.tolist() == [0, 1, 2]


def test_must_and_must_not(world):
    _, _, table = world
    on = table.toarray() > 0
    assert (steering.allowed(table, [3], [5, 6]) == on[:, 3] & ~on[:, 5] & ~on[:, 6]).all()
    assert steering.allowed(table).all() and not steering.allowed(table, [3], [3]).any()


def test_typical_is_a_quantile_of_the_active(world):
    table = sparse.csr_matrix(np.array([[1, 0, 0], [2, 5, 0], [3, 0, 0], [4, 0, 0]], np.float32))
    assert steering.typical(table, 0.5).tolist() == [3, 5, 0] and steering.typical(table, 1.0)[0] == 4


def test_a_family_moves_as_far_as_one_feature(world):
    typical = np.full(48, 2.0)
    now = pd.Series({1: 5.0})
    levels = steering.family_levels(now, [0, 1, 2, 3], 1.0, typical)
    assert levels == {0: 1.0, 1: 5.0, 2: 1.0, 3: 1.0}
    assert set(steering.family_levels(now, [0, 1], 0.0, typical).values()) == {0.0}


def test_an_index_finds_what_exact_search_finds(world):
    pytest.importorskip("faiss")
    _, x, _ = world
    assert steering.index_recall(steering.make_index(x), x, x[:50]) > 0.95


def test_index_recall_counts_what_is_missing(world):
    _, x, _ = world

    class Half:
        def search(self, queries, n):
            exact = np.array([steering.search(x, q, n).rows for q in queries])
            return None, np.where(np.arange(n) < n // 2, exact, -1)

    assert steering.index_recall(Half(), x, x[:5], 10) == 0.5


def test_without_faiss_the_remedy_is_named(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match="pip install faiss-cpu"):
        steering.make_index(world[1])


def test_what_is_no_feature_level_query_or_row_is_refused(world):
    sae, x, table = world
    some = pd.Series({1: 5.0})
    calls = [
        *(lambda f=f: steering.edit(sae, x[0], {f: 1.0}) for f in (3.7, "3", True, -1)),
        *(lambda v=v: steering.edit(sae, x[0], {3: v}) for v in ("x", None, True)),
        *(lambda q=q: steering.edit(sae, q, {3: 1.0}) for q in (x[0] * 0, x[0] * np.nan, x[0][:7], x[:1])),
        *(lambda q=q: steering.search(x, q) for q in (x[0] * 0, x[0] * np.nan, x[0][:7])),
        *(lambda n=n: steering.search(x, x[0], n) for n in (-1, 0, 2.5)),
        *(lambda f=f: steering.search(x, x[0], fits=np.array(f)) for f in ([1, 2], [True], np.arange(4000))),
        *(lambda f=f: steering.allowed(table, [f]) for f in (-1, 48, 3.0, "3", True)),
        *(lambda q=q: steering.typical(table, q) for q in (1.5, -1, np.nan)),
        *(lambda m=m, s=s: steering.family_levels(some, m, s, np.ones(9)) for m, s in (([9], 1), ([1], -1))),
    ]
    for i, call in enumerate(calls):
        with pytest.raises(ValueError):
            raise AssertionError((i, call()))


def test_a_table_without_activations_has_nothing_typical():
    assert steering.typical(sparse.csr_matrix((5, 3), dtype=np.float32)).tolist() == [0, 0, 0]
