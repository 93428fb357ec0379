"""Families: planted ones come back, and what they are measured by knows good from random."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from saelib import family_names
from saelib.activations import EncodedTexts
from saelib.encoder import EmbeddingCache
from saelib.families import (
    clustered_families,
    descend,
    family_edges,
    family_quality,
    find_families,
    of_feature,
    random_families,
    spanning_forest,
)
from saelib.family_meaning import absorption, coherence
from saelib.family_names import family_table, name_families
from saelib.sae import make_sae

N_FAMILIES, SIZE = 6, 7  # feature 7 f is the parent of 7 f + 1 … 7 f + 6


def planted(n=4000, noise=0.01, seed=0):
    """A text is of one family: its parent fires, and one or two of the children; others at random."""
    g = np.random.default_rng(seed)
    family, on = g.integers(N_FAMILIES, size=n), g.random((n, N_FAMILIES * SIZE)) < noise
    on[np.arange(n), family * SIZE] = True
    for _ in range(2):
        on[np.arange(n), family * SIZE + 1 + g.integers(SIZE - 1, size=n)] = True
    return sparse.csr_matrix(on * (0.5 + g.random(on.shape)), dtype=np.float32)


def as_sets(members):
    return {frozenset(group) for _, group in members.groupby("family").feature}


def test_edges_are_what_the_definition_says():
    table = planted(300)
    edges, on = family_edges(table, 0.1, 1.0, block=5).toarray(), (table.toarray() > 0).astype(float)
    C, n = on.T @ on, on.sum(0)
    for i in range(len(n)):
        for j in range(len(n)):
            denser = n[i] > n[j] or (n[i] == n[j] and i < j)
            share = C[i, j] / (n[j] + 1)
            assert edges[i, j] == pytest.approx(share if denser and share >= 0.1 else 0, rel=1e-6)


def test_a_feature_on_a_large_share_of_the_texts_has_no_edges():
    table = sparse.hstack([planted(), np.ones((4000, 1), np.float32)], format="csr")
    edges = family_edges(table, 0.1, 0.2).tocoo()
    assert table.shape[1] - 1 not in set(edges.row) | set(edges.col) and edges.nnz
    assert table.shape[1] - 1 in set(family_edges(table, 0.1, 1.0).tocoo().row)


def test_the_forest_is_the_best_one():
    """Against Kruskal written out: the sum of the weights, and no circle."""
    edges = family_edges(planted(500, noise=0.05))
    forest, coo = spanning_forest(edges), edges.tocoo()
    group = list(range(edges.shape[0]))

    def top(i):
        while group[i] != i:
            i = group[i]
        return i

    total = 0.0
    for w, i, j in sorted(zip(coo.data, coo.row, coo.col, strict=True), reverse=True):
        if top(i) != top(j):
            group[top(i)] = top(j)
            total += w
    assert forest.sum() == pytest.approx(total, rel=1e-5)
    assert forest.nnz == edges.shape[0] - len({top(i) for i in range(edges.shape[0])})
    assert ((forest > 0).astype(int) - (edges > 0).astype(int)).max() == 0, "an edge that was not there"


def test_descend_walks_every_way_down():
    forest = sparse.csr_matrix(([0.9, 0.8, 0.7, 0.6], ([0, 0, 2, 4], [1, 2, 3, 3])), shape=(5, 5))
    members = descend(forest, np.array([0, 4]))
    first = members[members.family == 0].set_index("feature")
    assert first.parent.to_dict() == {0: -1, 1: 0, 2: 0, 3: 2} and first.depth.to_dict()[3] == 2
    assert first.weight[3] == pytest.approx(0.7) and set(members[members.family == 1].feature) == {4, 3}


def test_planted_families_come_back():
    members = find_families(planted())
    assert as_sets(members) == {frozenset(range(f * SIZE, (f + 1) * SIZE)) for f in range(N_FAMILIES)}
    roots = members[members.parent < 0]
    assert sorted(roots.feature) == [f * SIZE for f in range(N_FAMILIES)] and (roots.depth == 0).all()
    assert (members[members.depth == 1].parent % SIZE == 0).all()


def test_the_order_of_the_features_does_not_matter():
    g = np.random.default_rng(0)  # no two features as dense, or it is their order that decides
    family, rate = g.integers(N_FAMILIES, size=30_000), np.linspace(0.02, 0.3, N_FAMILIES * SIZE)
    own = family[:, None] == np.arange(N_FAMILIES * SIZE) % N_FAMILIES
    table = sparse.csr_matrix(g.random(own.shape) < np.where(own, rate, 0.01), dtype=np.float32)
    assert len(np.unique(table.sum(0).A1)) == table.shape[1]
    order = np.random.default_rng(1).permutation(table.shape[1])
    there = {frozenset(order[list(s)]) for s in as_sets(find_families(table[:, order]))}
    assert there == as_sets(find_families(table)) and len(there) >= N_FAMILIES


def test_later_rounds_find_what_the_root_hid():
    """A grandparent over all: once it is gone the parents are roots."""
    table = sparse.hstack([planted(), sparse.csr_matrix(np.ones((4000, 1), np.float32))], format="csr")
    members = find_families(table, max_density=1.0)
    assert members.groupby("family")["round"].first().to_dict()[0] == 0
    assert (members.groupby("family")["round"].first() == 1).sum() == N_FAMILIES
    assert members.family.is_monotonic_increasing and members.groupby("family").size().is_monotonic_decreasing
    assert find_families(table, max_density=1.0, rounds=1).family.nunique() == 1


def test_no_family_is_an_empty_table():
    members = find_families(sparse.identity(20, dtype=np.float32, format="csr"))
    assert len(members) == 0 and {"family", "feature", "parent", "depth", "weight", "round"} <= set(members)
    assert (of_feature(members, 20) == -1).all().all()


def test_of_feature_gives_one_family_each():
    members = pd.DataFrame({
        "family": [0, 0, 0, 1, 1], "feature": [5, 1, 2, 2, 3], "parent": [-1, 5, 1, -1, 2],
        "depth": [0, 1, 2, 0, 1], "weight": [1, 0.5, 0.4, 1, 0.3],
    })  # fmt: skip
    one = of_feature(members, 7)
    assert one.family.tolist() == [-1, 0, 1, 1, -1, 0, -1] and one.parent.tolist() == [
        -1,
        5,
        -1,
        2,
        -1,
        -1,
        -1,
    ]


def test_quality_on_other_texts_knows_families_from_random_ones():
    members, other = find_families(planted(seed=0)), planted(seed=1)
    ours = family_quality(other, members).mean()
    random = family_quality(other, random_families(members, np.arange(N_FAMILIES * SIZE))).mean()
    assert ours.parent_child > 0.8 > 0.5 > ours.child_child, "children share a parent, less each other"
    assert ours.inside > 3 * random.inside and ours.inside > 3 * ours.outside
    assert ours["size"] == random["size"] == SIZE


def test_quality_by_hand():
    table = sparse.csr_matrix(np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0]], np.float32))
    members = pd.DataFrame({"family": [0, 0], "feature": [0, 1]})
    q = family_quality(table, members).loc[0]
    assert q.parent_child == q.inside == pytest.approx(2 / 3)
    assert q.outside == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_clusters_of_decoder_rows_have_the_densest_first():
    g = np.random.default_rng(0)
    W = np.repeat(g.normal(size=(3, 16)), 5, axis=0) + 0.05 * g.normal(size=(15, 16))
    density = np.r_[0, np.linspace(0.01, 0.02, 14)]
    groups = clustered_families(W, density, 3)
    assert as_sets(groups) == {frozenset(range(1, 5)), frozenset(range(5, 10)), frozenset(range(10, 15))}
    assert set(groups.drop_duplicates("family").feature) == {4, 9, 14}
    with pytest.raises(ValueError, match="16,000"):
        clustered_families(W, np.ones(16_001), 3)


def test_a_family_is_as_active_as_its_members_together():
    table = sparse.csr_matrix(np.array([[2, 0, 1], [4, 3, 0], [0, 0, 5]], np.float32))
    members = pd.DataFrame({"family": [0, 0, 1], "feature": [0, 1, 2]})
    expected = [[2 / 3, 1 / 3], [4 / 3 + 1, 0], [0, 5 / 3]]
    np.testing.assert_allclose(family_table(table, members).toarray(), expected, rtol=1e-6)


def test_coherence_and_absorption_by_an_encoder_of_the_subject():
    """Texts of subject s mean s. The parent leaves out half of the texts that its child takes."""
    g = np.random.default_rng(0)
    subject = g.integers(4, size=2000)
    meaning = np.eye(4)[subject] + 0.1 * g.normal(size=(2000, 4))
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    child = (subject == 0) & (g.random(2000) < 0.3)
    taken = child & (g.random(2000) < 0.5)
    stranger = (subject == 3) & (g.random(2000) < 0.3)
    on = np.stack([(subject == 0) & ~taken, child, stranger], 1)
    table = sparse.csr_matrix(on * (1 + g.random(on.shape)), dtype=np.float32)
    rows = np.stack([np.flatnonzero(on[:, f])[:10] for f in range(3)])
    pairs = pd.DataFrame({"family": [0, 0, 0], "feature": [0, 1, 2], "parent": [-1, 0, 0]})
    found = absorption(table, pairs, rows, meaning).set_index("child")
    assert found.silent[1] == pytest.approx(taken.sum() / child.sum()) and found.silent[2] == 1
    assert found.absorbed[1] > 3 * found.chance[1] and found.absorbed[2] < found.chance[2]
    alike = coherence(rows, pd.DataFrame({"family": [0, 0, 1, 1], "feature": [0, 1, 0, 2]}), meaning)
    assert alike[0] > 0.9 > 0.3 > alike[1]


def test_a_family_is_named_by_what_its_members_share(words):
    """Members fire on one kind each; what their texts have in common is the word of the family."""
    kinds = {
        "animal": ["otter", "heron", "badger", "viper"],
        "tool": ["hammer", "chisel", "pliers", "wrench"],
    }
    flat = [(family, kind) for family, own in kinds.items() for kind in own]
    places = ("river", "meadow", "street")
    texts = [
        f"the {k} and the {f} near the {p} on day {i}" for i in range(12) for f, k in flat for p in places
    ]
    labels = ["animal", *kinds["animal"], "tool", *kinds["tool"]]
    g = np.random.default_rng(0)
    dense = np.array([[word in t.split() for word in labels] for t in texts]) * (
        1 + g.random((len(texts), 10))
    )
    x = words.encode(texts)
    sae = make_sae("topk", 48, 10, 2)
    sae.fit_normalizer(torch.from_numpy(x))
    train = EncodedTexts(
        sparse.csr_matrix(dense.astype(np.float32)), texts, x, np.array(["all"] * len(texts))
    )
    members = find_families(train.table, max_density=0.6)
    assert as_sets(members) == {frozenset(range(5)), frozenset(range(5, 10))}
    names = name_families(sae, train, members, EmbeddingCache(words.encode), words.encode)
    roots = members.drop_duplicates("family").set_index("family").feature
    for family, label in names.label.items():
        assert labels[roots[family]] in label.split(", "), (family, label)
    assert names.trust.between(0, 1).all() and names.top_rows.str.len().eq(10).all()


def test_unsorted_families_silent_parents_gaps_and_none_at_all(words, monkeypatch):
    members, table = find_families(planted(600)), planted(600, seed=1)
    turned = members.iloc[::-1].sort_values(["family", "depth"], ascending=[False, True], kind="stable")
    pd.testing.assert_frame_equal(family_quality(table, turned).sort_index(), family_quality(table, members))
    parent = int(members.parent[members.parent >= 0].iloc[0])
    silent = table.multiply(np.arange(table.shape[1])[None] != parent).tocsr()
    silent.eliminate_zeros()
    found = absorption(silent, members, np.zeros((table.shape[1], 3), int), np.ones((600, 2)))
    assert found.absorbed[found.parent == parent].isna().all() and found.absorbed.notna().any()
    x = np.eye(4, dtype=np.float32)
    texts = EncodedTexts(table[:4], ["a"] * 4, x, np.array(["all"] * 4))
    assert not len(name_families(make_sae("topk", 4, 42, 2), texts, members[:0], words.encode, words.encode))
    beyond = members.assign(feature=members.feature + 42)
    with pytest.raises(ValueError, match="features beyond 41"):
        name_families(make_sae("topk", 4, 42, 2), texts, beyond, words.encode, words.encode)
    with_gap, asked = members[members.family > 0].sample(frac=1, random_state=0), []
    monkeypatch.setattr(family_names, "choose", lambda *_, parents, **__: asked.extend(parents) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        name_families(make_sae("topk", 4, 42, 2), texts, with_gap, words.encode, words.encode)
    roots = with_gap[with_gap.parent < 0].set_index("family").feature
    assert [asked[i] for i in roots.index] == roots.tolist()
