"""How good is a name? Judged on held-out texts, with no API call.

A *judge* is two matrices, of the names (n_names, d) and of the texts (n_texts, d), whose product says how
well each name fits each text: the encoder that made the embeddings (it flatters every name alike), an
independent encoder, BM25 (only shared words count), LSA (a small semantic space of the corpus itself). A
*metric* compares a row of the product with the texts on which the feature is active:

- average precision over all held-out texts at their natural prevalence: the headline, for it notices a name
  that is too narrow and one that is too broad (`metric_sanity` prints that test);
- F1 of the name as a keyword query;
- AUROC, the "embedding score" of Paulo et al. 2024 (delphi): a diagnosis. 0.5 is a name that says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.stats import pearsonr, rankdata
from torch import Tensor

from saelib.naming.lexicon import Lexicon

Matrix = np.ndarray | sparse.csr_matrix
Judge = tuple[Matrix, Matrix]  # (n_names, d), (n_texts, d)


class DetectionSet(NamedTuple):
    """The texts that a name has to tell apart: rows per feature, −1 pads.

    Attributes:
        features: (L,) their numbers. active: (L, A) activating texts by falling activation, thinned evenly
        to A. random, near: inactive texts at random, and those nearest to any of a few of the active half.
    """

    features: np.ndarray
    active: np.ndarray
    random: np.ndarray
    near: np.ndarray


def draw_detection_set(
    table: sparse.csr_matrix, embeddings: np.ndarray, *, n_active: int = 200, n_random: int = 1000,
    n_near: int = 50, n_seeds: int = 32, seed: int = 0,
) -> DetectionSet:  # fmt: skip
    """Choose the texts: up to n_active activating ones, per feature n_random and at least n_near inactive
    ones.

    Args:
        table: activations (n, d_sae). embeddings: the same texts', (n, d), unit norm.
        n_seeds: of the more active half; the near texts are those with the highest cosine to one of these.
    """
    n, csc = table.shape[0], table.tocsc(copy=True)
    csc.eliminate_zeros()
    count = np.diff(csc.indptr)
    features = np.flatnonzero((count > 0) & (count < n))
    order = csc.indices[np.lexsort((csc.indices, -csc.data, np.repeat(np.arange(len(count)), count)))]
    width = np.minimum(count[features], n_active)
    step = np.arange(max(width.max(initial=1), 1))
    place = csc.indptr[features][:, None] + (step * (count[features] / np.maximum(width, 1))[:, None]).astype(
        int
    )
    active = np.where(step < width[:, None], order[np.minimum(place, max(len(order) - 1, 0))], -1)
    half = (width + 1) // 2

    shuffled = np.random.default_rng(seed).permutation(n)[: 4 * n_random]
    texts = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    random = np.full((len(features), min(n_random, n)), -1)
    near = np.full((len(features), min(max(n_near, half.max(initial=0)), n)), -1)
    some = min(16, max(2**20 // max(n, 1), 1))
    for start in range(0, len(features), 64):  # blocks of features bound the memory
        block = slice(start, start + 64)
        off = csc[:, features[block]].toarray().T == 0
        first = np.argsort(~off[:, shuffled], axis=1, kind="stable")[
            :, : random.shape[1]
        ]  # inactive ones first
        random[block] = np.where(np.take_along_axis(off[:, shuffled], first, 1), shuffled[first], -1)
        spread = (np.arange(n_seeds) / n_seeds * half[block, None]).astype(int)
        seeds = torch.from_numpy(np.take_along_axis(active[block], spread, 1))
        closest = torch.cat(
            [(texts[rows.flatten()] @ texts.T).unflatten(0, rows.shape).amax(1) for rows in seeds.split(some)]
        ).numpy()  # several features in one product: one at a time, all texts are read once for each
        found = _largest(np.where(off, closest, -np.inf), near.shape[1])
        wanted = np.arange(found.shape[1]) < np.maximum(n_near, half[block, None])
        near[block] = np.where(wanted, found, -1)
    return DetectionSet(features, active, random, near)


def _largest(key: np.ndarray, n: int) -> np.ndarray:
    """Columns of the n largest keys per row, best first; −1 where a key is negative infinity."""
    values, columns = torch.from_numpy(key).topk(min(n, key.shape[1]), dim=1)
    return torch.where(values > -torch.inf, columns, -1).numpy()


def _share_below(values: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each value (…, P) how many of the others (…, N) lie below, how many at or below; N without NaNs."""
    ordered = others.nan_to_num(torch.inf).sort(-1).values.contiguous()
    n = (~others.isnan()).sum(-1, keepdim=True)
    values = values.contiguous()
    at_or_below = torch.minimum(torch.searchsorted(ordered, values, right=True), n)
    return torch.searchsorted(ordered, values), at_or_below, n


def auroc(positives: Tensor, negatives: Tensor) -> Tensor:
    """AUROC along the last dimension, ties counted half, NaNs left out: (…, P), (…, N) → (…); NaN for an
    empty side.

    Equal to scipy's `mannwhitneyu(axis=-1, nan_policy="omit")` / (P·N), a test holds it so, and some
    16 times as fast on the blocks of `choose_names`.
    """
    below, at_or_below, n = _share_below(positives, negatives)
    placed = (below + at_or_below) / (2 * n)
    return placed.masked_fill(positives.isnan(), torch.nan).nanmean(-1)


def average_precision(positives: Tensor, negatives: Tensor) -> Tensor:
    """Average precision along the last dimension, as sklearn's (ties stand or fall together), NaNs left out.

    (…, P) scores of the texts to be found and (…, N) of all the others → (…).
    """
    below, _, n = _share_below(positives, negatives)
    own_below, _, own = _share_below(positives, positives)
    found, wrong = own - own_below, n - below
    return (found / (found + wrong)).masked_fill(positives.isnan(), torch.nan).nanmean(-1)


def auroc_interval(
    auroc: np.ndarray, n: np.ndarray, m: np.ndarray, z: float = 1.96
) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of an AUROC from n positives and m negatives: Newcombe 2006, method 5 (Stat. Med. 25:559).

    Both ends θ solve |AUROC − θ| = z·sqrt(V(θ)), so the interval has a width at complete separation too,
    where a bootstrap says 1.00 to 1.00: with 5 positives AUROC 1 means "above 0.65 or so". Texts count as
    independent; sentences of one article are not quite, and the true interval is somewhat wider.
    """

    def distance(theta: np.ndarray) -> np.ndarray:
        mean = (n + m) / 2 - 1
        spread = 1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return np.abs(auroc - theta) - z * np.sqrt(theta * (1 - theta) * spread / (m * n))

    ends = []
    for outer in (0.0, 1.0):
        inside, outside = np.asarray(auroc, dtype=float), np.full(len(auroc), outer)
        for _ in range(40):  # bisection: no step of a root finder can leave 0…1
            middle = (inside + outside) / 2
            within = distance(middle) <= 0
            inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
        ends.append(np.where(np.isnan(auroc), np.nan, inside))
    return ends[0], ends[1]


def spearman(scores: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Simulation: rank correlation of scores (L, n) with activations (L, n), zeros included: (L,)."""
    return pearsonr(rankdata(scores, axis=1), rankdata(activations, axis=1), axis=1).statistic


def keyword_f1(found: np.ndarray, table: sparse.csr_matrix) -> pd.DataFrame:
    """precision, recall, F1 of "the text holds a keyword" (L, n) for "the feature is active" (n, L)."""
    active = table.T.tocsr() > 0
    hit = np.asarray(active.multiply(found).sum(1), dtype=float).ravel()
    said, true = found.sum(1), np.asarray(active.sum(1), dtype=float).ravel()
    precision, recall = hit / np.maximum(said, 1), hit / np.maximum(true, 1)
    f1 = 2 * hit / np.maximum(said + true, 1)
    return pd.DataFrame({"precision": precision, "recall": recall, "f1": f1})


def products(judge: Judge) -> np.ndarray:
    """A judge's scores, (n_names, n_texts) float32."""
    scores = judge[0] @ judge[1].T
    return np.asarray(scores.todense() if sparse.issparse(scores) else scores, dtype=np.float32)


def score_judge(
    judge: Judge, sets: DetectionSet, table: sparse.csr_matrix, full: bool = False
) -> pd.DataFrame:
    """One judge on names in the order of `sets`: `auroc` and `auroc_near` (of the stronger half of the
    active texts, against all inactive ones and against the near ones), `ap` (of all active texts); with
    `full` also `auroc_q1` … `auroc_q4` and `ap_q1` … `ap_q4` by activation quartile, strongest first, and
    `spearman`.
    """
    parts, csc = [], table.tocsc()
    block = min(128, max(2**21 // table.shape[0], 8))  # blocks of features bound the memory
    for start in range(0, len(sets.features), block):
        at = slice(start, start + block)
        scores, acts = products((judge[0][at], judge[1])), csc[:, sets.features[at]].toarray().T
        width = int((acts > 0).sum(1).max())
        order = torch.from_numpy(np.argsort(-acts, axis=1, kind="stable")[:, :width].copy())
        s = torch.from_numpy(scores)
        positives = s.gather(1, order).masked_fill(torch.from_numpy(acts).gather(1, order) <= 0, torch.nan)
        negatives = s.masked_fill(torch.from_numpy(acts) > 0, torch.nan)
        near = s.gather(1, torch.from_numpy(np.maximum(sets.near[at], 0)))
        near = near.masked_fill(torch.from_numpy(sets.near[at] < 0), torch.nan)
        n = (~positives.isnan()).sum(1, keepdim=True)
        rank = torch.arange(width) / n
        half = positives.masked_fill(torch.arange(width) >= (n + 1) // 2, torch.nan)
        part = {"auroc": auroc(half, negatives), "auroc_near": auroc(half, near)}
        part["ap"] = average_precision(positives, negatives)
        for q in range(4 if full else 0):
            quartile = positives.masked_fill((rank < q / 4) | (rank >= (q + 1) / 4), torch.nan)
            part[f"auroc_q{q + 1}"] = auroc(quartile, negatives)
            part[f"ap_q{q + 1}"] = average_precision(quartile, negatives)
        if full:
            part["spearman"] = spearman(scores, acts)
        parts.append(pd.DataFrame({name: np.asarray(values) for name, values in part.items()}))
    return pd.concat(parts).set_index(pd.Index(sets.features, name="feature"))


def score_names(
    names: pd.DataFrame, judges: dict[str, Judge], sets: DetectionSet, table: sparse.csr_matrix,
    lexicon: Lexicon | None = None, min_texts: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """Every metric for every name.

    Args:
        names: index feature, columns `label`, `terms`. judges: name → matrices (len(names), d), (n_texts,
        d); the first gives the plain column names. table: held-out activations (n_texts, d_sae). lexicon:
        of the held-out texts.

    Returns:
        index feature: `n` active held-out texts, the first judge's `score_judge` in full, `low` and `high`
        (of its `auroc`), `auroc_NAME`, `auroc_near_NAME`, `ap_NAME` of the others; with a lexicon
        `precision`, `recall`, `f1`, `npmi`. NaN for a feature active on fewer than `min_texts`.

    Raises:
        ValueError: a feature with two names, a judge of other names or texts, terms that are no lists.
    """
    if not names.index.is_unique:
        raise ValueError(
            f"feature {names.index[names.index.duplicated()][0]} has two names: judge one of them"
        )
    at = names.index.get_indexer(sets.features)
    sets = DetectionSet(*(part[at >= 0] for part in sets))
    at, n_texts, frame = (
        at[at >= 0],
        table.shape[0],
        pd.DataFrame(index=pd.Index(sets.features, name="feature")),
    )
    frame["n"] = np.bincount(table.indices[table.data > 0], minlength=table.shape[1])[sets.features]
    for name, (of_names, of_texts) in judges.items():
        if (of_names.shape[0], of_texts.shape[0]) != (len(names), n_texts):
            raise ValueError(
                f"judge {name!r} has {of_names.shape[0]} names and {of_texts.shape[0]} texts, not "
                f"{len(names)} and {n_texts}: a row for each name and one for each held-out text"
            )
        first = len(frame.columns) == 1
        scores = score_judge((of_names[at], of_texts), sets, table, full=first)
        frame = frame.join(scores if first else scores.add_suffix(f"_{name}"))
        if first:
            half = (frame.n.to_numpy() + 1) // 2
            frame["low"], frame["high"] = auroc_interval(
                frame.auroc.to_numpy(), half, n_texts - frame.n.to_numpy()
            )
    if lexicon is not None:
        terms = names.terms.iloc[at]
        frame[["precision", "recall", "f1"]] = keyword_f1(
            lexicon.contains(terms), table[:, sets.features]
        ).to_numpy()
        frame["npmi"] = lexicon.npmi(terms)
    frame.loc[frame.n < min_texts, frame.columns.drop(["n", "npmi"], errors="ignore")] = np.nan
    return frame.reindex(names.index)


def metric_sanity(
    judge: Judge, features: np.ndarray, table: sparse.csr_matrix, seed: int = 0, notice: float = 0.01
) -> pd.DataFrame:
    """Can a metric fail? The two tests of Oikarinen et al. 2025 (NeuronEval, arXiv 2506.05774).

    A name is judged again with half of the feature's texts dropped from the answers, and with as many wrong
    ones added. A metric that does not fall cannot tell a name that is too broad, or one that is too narrow,
    from a right one.

    Args:
        judge: of the names of these `features`, in this order. table: held-out activations (n_texts, d_sae).

    Returns:
        index metric: its mean as it is (`true`), with half `dropped`, with as many `added`, and the shares
        of names for which it falls by more than `notice` of its value (`notices_dropped`, `notices_added`).
    """
    rng, active = np.random.default_rng(seed), (table[:, features].toarray().T > 0)
    draw = rng.random(active.shape)
    count = active.sum(1, keepdims=True)
    rank_in = rankdata(np.where(active, draw, 2), axis=1)
    rank_out = rankdata(np.where(active, 2, draw), axis=1)
    answers = {
        "true": active,
        "dropped": active & (rank_in > count // 2),
        "added": active | (rank_out <= count),
    }
    scores = torch.from_numpy(products(judge))
    said = scores >= scores.sort(1, descending=True).values.gather(1, torch.from_numpy(count - 1))
    values = {}
    for name, right in answers.items():
        right = torch.from_numpy(right)
        positives, negatives = scores.masked_fill(~right, torch.nan), scores.masked_fill(right, torch.nan)
        hit = (said & right).sum(1)
        values[name] = {
            "average precision": average_precision(positives, negatives),
            "F1": 2 * hit / (said.sum(1) + right.sum(1)),
            "AUROC": auroc(positives, negatives),
            "recall": hit / right.sum(1),
        }
    lines = {}
    for metric, true in values["true"].items():
        line = {name: float(values[name][metric].nanmean()) for name in values}
        fell = {name: values[name][metric] < true * (1 - notice) for name in ("dropped", "added")}
        lines[metric] = line | {f"notices_{name}": float(f.float().mean()) for name, f in fell.items()}
    return pd.DataFrame(lines).T.rename_axis("metric")
