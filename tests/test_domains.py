"""Features looked for in another SAE: planted ones are found, strangers are not."""

import torch
from synthetic import gaussian

from saelib.domains import fates, found_in, null_cosines, shared_features, splits


def near(rows, noise=0.1, seed=1):
    return rows + noise * gaussian(*rows.shape, seed=seed)


def test_the_nulls_find_nothing_and_know_the_space():
    """Rows in a plane of 8 dimensions: mixtures of them lie there too, shuffled rows do not."""
    b = gaussian(40, 8, 0) @ gaussian(8, 64, 1)
    a = gaussian(20, 8, 2) @ gaussian(8, 64, 1)
    null = null_cosines(a, b)
    assert len(null) == 20 and null.mixed.mean() > 2 * null.shuffled.mean()
    assert null_cosines(b[:20], b).shuffled.max() < 0.9, "even of the same rows"


def test_shared_features_counts_what_is_common():
    common = gaussian(10, 64, 0)
    a, b = torch.cat([common, gaussian(10, 64, 3)]), torch.cat([gaussian(30, 64, 4), near(common)])
    share = shared_features({"a": a, "b": b}, 0.7)
    assert share.loc["a", "b"] == 0.5 and share.loc["b", "a"] == 0.25 and share.loc["a", "a"] == 1


def test_found_in_says_whose_a_feature_is():
    joint = gaussian(30, 64, 0)
    hits = found_in(joint, {"a": near(joint[:10]), "b": near(joint[5:15])}, 0.7)
    counts = (hits >= 0).sum(1)
    assert (counts[:5] == 1).all() and (counts[5:10] == 2).all() and (counts[15:] == 0).all()
    assert hits.a[:10].tolist() == list(range(10)) and hits.b[5] == 0


def test_splits_and_fates():
    small = gaussian(4, 64, 0)
    large = torch.cat([near(small[[0, 1, 1, 1]]), gaussian(5, 64, 7)])
    split = splits(small, large, 0.7)
    assert split.parent.tolist() == [0, 1, 1, 1] + [-1] * 5 and (split.cosine[4:] < 0.7).all()
    fate = fates(split, 4)
    assert fate.fate.tolist() == ["stays", "splits", "gone", "gone"] and fate.children.tolist() == [
        1,
        3,
        0,
        0,
    ]
