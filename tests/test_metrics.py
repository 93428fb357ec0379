"""Metrics by hand and by brute force."""

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import gaussian

from saelib.metrics import evaluate, match_features, mean_max_cosine, neighbour_recall, probe_accuracy
from saelib.sae import VanillaSAE, make_sae


def test_evaluate_by_hand():
    class Half(VanillaSAE):
        def decode(self, f):
            return f

        def encode(self, x):
            return x / 2

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    got = evaluate(Half(2, 2), x)
    assert (round(got.fvu, 6), round(got.cosine, 6), got.l0, got.dead) == (0.5, 1.0, 1.0, 0.0)


def test_neighbour_recall_by_brute_force():
    x, noisy = gaussian(60), gaussian(60) + 0.5 * gaussian(60, seed=1)
    hits = 0
    for i in range(60):
        a, b = (
            [j for j in torch.cosine_similarity(v, v[i][None]).argsort(descending=True).tolist() if j != i][
                :5
            ]
            for v in (x, noisy)
        )
        hits += len(set(a) & set(b))
    assert abs(neighbour_recall(x, noisy, 5) - hits / 300) < 1e-6
    assert neighbour_recall(x, 3 * x, 5) == 1
    with pytest.raises(ValueError, match="lower k"):
        neighbour_recall(x[:5], x[:5], 5)


def test_probe_reads_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[rng.integers(0, 3, 600)]
    x = (y[:, None] == np.array(["a", "b", "c"])) + 0.1 * rng.normal(size=(600, 3))
    assert probe_accuracy(x[:400], y[:400], x[400:], y[400:]) > 0.98
    assert probe_accuracy(rng.normal(size=(400, 3)), y[:400], rng.normal(size=(200, 3)), y[400:]) < 0.5


def test_features_are_matched_one_to_one():
    a = torch.nn.functional.normalize(gaussian(6, 20), dim=1)
    order = torch.tensor([3, 0, 5, 1])
    found = match_features(a, 2 * a[order])
    assert [found.match[i] for i in order.tolist()] == [0, 1, 2, 3] and found.cosine[
        order.tolist()
    ].min() > 0.999
    assert (found.match[[2, 4]] == -1).all() and found.cosine[[2, 4]].isna().all()
    # where two features want the same one, only one gets it: 0.9 + 0.7 beats 1.0 + 0.1
    b, c = torch.eye(3)[:2], torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.4]])
    both = match_features(c, b)
    assert sorted(both.match) == [0, 1]
    by_hand = [c[0] @ b[i] + (c[1] / c[1].norm()) @ b[1 - i] for i in (0, 1)]
    assert both.cosine.sum() == pytest.approx(float(max(by_hand)), abs=1e-6)
    assert mean_max_cosine(b, c) > both.cosine.mean()


def test_embeddings_come_in_any_form_and_are_numbers():
    x, sae = gaussian(60, 8), make_sae("topk", 8, 16, 2)
    for form in (x.numpy(), x.double(), pd.DataFrame(x.numpy()), x.tolist()):
        assert evaluate(sae, form) == evaluate(sae, x)
        assert neighbour_recall(form, x, 5) == 1 and (match_features(form, x).match == range(60)).all()
    holed = x.clone()
    holed[3, 3] = torch.nan
    for call in (evaluate, lambda _, y: neighbour_recall(x, y), lambda _, y: match_features(x, y)):
        with pytest.raises(ValueError, match="NaN"):
            call(sae, holed)
    for wrong in (
        lambda: neighbour_recall(x, x[:9], 5),
        lambda: neighbour_recall(x, x, 0),
        lambda: evaluate(sae, x, 0),
    ):
        with pytest.raises(ValueError, match=r"not of these|k must|batch_size must"):
            wrong()
    sae.W_dec.data[0, 0] = torch.nan
    with pytest.raises(FloatingPointError):
        evaluate(sae, x)
