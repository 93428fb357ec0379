"""Feature families: groups of features that fire on the same texts, with a parent and its children.

The procedure of O'Neill et al. 2024 (arXiv 2408.00657), sparse throughout. With C_ij the number of
texts on which features i and j are both active, i the rarer of the two,

    w_ij = C_ij / (C_ii + 1)                            the share of i's texts on which j is active too

edges of w ≥ 0.1; of these the maximum spanning forest; each edge runs from the denser feature to the rarer; a
root (nothing denser next to it) and all that is reached from it are a family. Then the roots are removed and
the rest is searched again, three rounds in all; of two families that are nearly the same the larger stays.
Features on more than a fifth of the texts, and families with fewer than four children, are left out.

What the texts mean is not known here: `family_meaning.py` asks a second encoder, `family_names.py` names.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import minimum_spanning_tree

MEMBERS = ["family", "feature", "parent", "depth", "weight"]


def family_edges(
    table: sparse.csr_matrix, min_share: float = 0.1, max_density: float = 0.2, block: int = 1024
) -> sparse.csr_matrix:
    """How far each feature's texts are those of a denser one: (d_sae, d_sae), w at [denser, rarer].

    Features are taken `block` at a time and small shares are dropped at once, so that memory is that of the
    edges kept. Of two features with equally many texts the one with the lower number counts as denser.

    Args:
        table: activations (n, d_sae). min_share: the least w kept (0: all pairs that fire together).
        max_density: features on a larger share of the texts have no edges.
    """
    on = sparse.csr_matrix(table > 0, dtype=np.float32)
    n = np.asarray(on.sum(0)).ravel()
    on = on @ sparse.diags((n <= max_density * on.shape[0]).astype(np.float32), format="csr")
    on.eliminate_zeros()
    by_feature, rank, parts = on.T.tocsr(), np.empty(len(n), np.int64), []
    rank[np.lexsort((np.arange(len(n)), -n))] = np.arange(len(n))  # 0: the densest
    for start in range(0, len(n), block):
        both = (by_feature[start : start + block] @ on).tocoo()
        rarer, w = both.row + start, both.data / (n[both.row + start] + 1)
        kept = (w >= min_share) & (rank[both.col] < rank[rarer])
        parts.append((w[kept], both.col[kept], rarer[kept]))
    w, denser, rarer = (np.concatenate(p) for p in zip(*parts, strict=True))
    return sparse.csr_matrix((w, (denser, rarer)), shape=(len(n), len(n)))


def spanning_forest(edges: sparse.csr_matrix) -> sparse.csr_matrix:
    """The maximum spanning forest of edges w > 0, with their directions kept (d_sae, d_sae)."""
    tree = minimum_spanning_tree(-edges)
    return -tree.tocsr()


def check_members(members: pd.DataFrame, d_sae: int) -> None:
    """Raise ValueError for a member that is no feature of this SAE."""
    if not members["feature"].between(0, d_sae - 1).all():
        raise ValueError(f"families have features beyond {d_sae - 1}: find them in this SAE's table")


def descend(forest: sparse.csr_matrix, roots: np.ndarray) -> pd.DataFrame:
    """All that is reached from each root: columns `MEMBERS`, `family` counting the roots from 0.

    In a forest there is one way from a root to a feature: `parent` is the last step of it (−1 for the root),
    `depth` their number, `weight` the last step's w (1 for the root).
    """
    family, parent, weight = np.arange(len(roots)), np.full(len(roots), -1), np.ones(len(roots))
    feature, levels = np.asarray(roots), []
    while len(feature):
        level = (family, feature, parent, np.full(len(feature), len(levels)), weight)
        levels.append(pd.DataFrame(dict(zip(MEMBERS, level, strict=True))))
        below = forest[feature]
        times = np.diff(below.indptr)
        family, parent = np.repeat(family, times), np.repeat(feature, times)
        feature, weight = below.indices, below.data
    return pd.concat(levels, ignore_index=True)


def find_families(
    table: sparse.csr_matrix, *, rounds: int = 3, min_share: float = 0.1, max_density: float = 0.2,
    min_children: int = 4, overlap: float = 0.6,
) -> pd.DataFrame:  # fmt: skip
    """The families of the features of a table (n, d_sae); defaults are the paper's.

    Args:
        rounds: how often the roots are removed and the rest is searched again. overlap: of two families
            whose Jaccard index is above, the one found first stays, larger ones first in each round.

    Returns:
        One row per family and feature, the largest family first: `family` (0, 1, …), `feature`, `parent`
        (−1 for the root), `depth` (0 for the root), `weight` (w to the parent), `round`. A feature may be in
        several families: `of_feature` gives one for each. No family: no rows.
    """
    edges, found = family_edges(table, min_share, max_density), []
    for number in range(rounds):
        forest = spanning_forest(edges)
        roots = np.flatnonzero((np.diff(forest.tocsc().indptr) == 0) & (np.diff(forest.indptr) > 0))
        if not len(roots):
            break
        here = descend(forest, roots).assign(round=number)
        here["family"] += found[-1].family.max() + 1 if found else 0
        found.append(here)
        rest = np.ones(edges.shape[0], np.float32)
        rest[roots] = 0
        keep = sparse.diags(rest, format="csr")
        edges = sparse.csr_matrix(keep @ edges @ keep)
        edges.eliminate_zeros()
    if not found:
        return pd.DataFrame({c: pd.Series(dtype=int) for c in [*MEMBERS, "round"]}).astype({"weight": float})
    every = pd.concat(found, ignore_index=True)
    size = every.groupby("family").feature.transform("size")
    return _distinct(every[size > min_children], overlap)


def _distinct(members: pd.DataFrame, overlap: float) -> pd.DataFrame:
    """Families that share at most `overlap` with one before them, numbered anew, the largest first."""
    order = members.groupby("family").agg(size=("feature", "size"), round=("round", "first"))
    order = order.sort_values(["round", "size"], ascending=[True, False], kind="stable").index
    codes = order.get_indexer(members.family)
    M = sparse.csr_matrix((np.ones(len(codes)), (codes, members.feature)), (len(order), _width(members)))
    size, shared = np.asarray(M.sum(1)).ravel(), (M @ M.T).tocsr()
    kept = np.ones(len(order), bool)
    for i in range(len(order)):
        others = shared.indices[shared.indptr[i] : shared.indptr[i + 1]]
        both = shared.data[shared.indptr[i] : shared.indptr[i + 1]]
        jaccard = both / (size[i] + size[others] - both)
        kept[i] = not (kept[others] & (others < i) & (jaccard > overlap)).any()
    rank = pd.Series(size[kept], index=order[kept]).sort_values(ascending=False, kind="stable").index
    members = members[members.family.isin(rank)]
    return (
        members.assign(family=rank.get_indexer(members.family))
        .sort_values(["family", "depth", "weight"], ascending=[True, True, False], kind="stable")
        .reset_index(drop=True)
    )


def _width(members: pd.DataFrame) -> int:
    return int(members.feature.max()) + 1 if len(members) else 0


def of_feature(members: pd.DataFrame, d_sae: int) -> pd.DataFrame:
    """One family per feature, for a map or a table: index feature, `family`, `parent`, both −1 where none.

    Of several families the one in which the feature is nearest to the root; of these the strongest `weight`.
    """
    best = members.sort_values(["depth", "weight"], ascending=[True, False], kind="stable")
    best = best.drop_duplicates("feature").set_index("feature")[["family", "parent"]]
    return best.reindex(pd.RangeIndex(d_sae, name="feature"), fill_value=-1)


def family_quality(table: sparse.csr_matrix, members: pd.DataFrame) -> pd.DataFrame:
    """Do the members fire together? Read it on texts that had no part in finding the families.

    A family's first row is its root. All pairs that fire together are held, so this is for some 16,000
    features at most.

    Means of w over pairs: `parent_child` (root and another), `child_child` (two others), `inside` (all
    pairs), `outside` (a member and any feature that is not one), `size`. Index family.
    """
    w = family_edges(table, 0.0, 1.0)
    w = (w + w.T).tocsr()
    rows = []
    for _, group in members.groupby("family", sort=False):
        features, others = group.feature.to_numpy(), np.ones(w.shape[0], bool)
        others[features] = False
        block = w[features][:, features].toarray()
        n, away = len(features), w[features].sum() - block.sum()
        children = block[1:, 1:].sum() / max((n - 1) * (n - 2), 1)
        outside = away / max(n * others.sum(), 1)
        rows.append((n, block[0, 1:].mean(), children, block.sum() / (n * (n - 1)), outside))
    columns = ["size", "parent_child", "child_child", "inside", "outside"]
    index = pd.Index(members.family.unique(), name="family")
    return pd.DataFrame(rows, index=index, columns=columns)


def random_families(members: pd.DataFrame, features: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Families of the same sizes, their features drawn at random from `features`."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(features)[:n] for n in members.groupby("family").size()]
    return members.assign(feature=np.concatenate(drawn) if drawn else [])


def clustered_families(W_dec: np.ndarray, density: np.ndarray, n_groups: int) -> pd.DataFrame:
    """What families are measured against: average-linkage clusters of the decoder rows, by cosine.

    Args:
        W_dec: (d_sae, d_in). density: (d_sae,), of the features' texts; those with 0 are left out, and the
            densest of a cluster stands where a family has its root. n_groups: clusters the tree is cut into.

    Raises:
        ValueError: more than 16,000 features (the method needs all pairs).
    """
    features = np.flatnonzero(density > 0)
    if len(features) > 16_000:
        raise ValueError(f"clustering needs all pairs: {len(features)} features are too many (16,000)")
    group = fcluster(linkage(W_dec[features], "average", metric="cosine"), n_groups, "maxclust")
    frame = pd.DataFrame({"family": group - 1, "feature": features, "density": density[features]})
    frame = frame.sort_values(["family", "density"], ascending=[True, False], kind="stable")
    return frame[["family", "feature"]].reset_index(drop=True)
