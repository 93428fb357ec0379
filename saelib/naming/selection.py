"""The combined labeller: from the candidates of all sources, the one to three terms that best say what a feature is about.

"Best" is measured on *training* texts: the label tells active from inactive ones, near ones included, and its terms can be
read (each holds by itself, and they belong together: `Taste`). Nothing here sees a held-out text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.preprocessing import normalize
from torch import Tensor

from saelib.naming.candidates import CandidateTerms, alike, best_terms, label_frame, membership, sources
from saelib.naming.keybert import EmbeddingCache
from saelib.naming.scoring import DetectionSet, draw_detection_set
from saelib.sae import SAE

RELATED = (
    0.45  # a single term has no cosine to others: it counts as this, about what two words of one topic have
)


def masked_auroc(candidates: Tensor, x: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """AUROC of cosine with each candidate: candidates (F, C, d), rows of x with −1 pads (F, P), (F, N) → (F, C)."""
    return _auroc(
        _similarity(candidates, x, positives), _similarity(candidates, x, negatives), positives, negatives
    )


def _similarity(v: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """(F, C, d) with the rows of x that each feature names, (F, n) → (F, C, n)."""
    return torch.bmm(v, x[rows.clamp_min(0)].transpose(1, 2))


def _auroc(pos: Tensor, neg: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """The same from similarities (F, C, P), (F, C, N); a rank, so that no scale matters."""
    neg = neg.masked_fill((negatives < 0)[:, None], torch.inf).sort(2).values
    below = torch.searchsorted(neg.contiguous(), pos.contiguous()).float()
    valid = (positives >= 0)[:, None].float()
    n_neg = (negatives >= 0).sum(1).clamp_min(1)[:, None]
    return (below * valid).sum(2) / valid.sum(2).clamp_min(1) / n_neg


@dataclass(frozen=True)
class Taste:
    """What makes one label better than another, all on training texts.

    Attributes:
        far, near, words: weights of the label's AUROC against random and against near inactive texts, and of its words'
        own detection (share of active texts that hold one, less that of near ones).
        alone, together: weights of readability: the terms' AUROC each by itself, and their cosine to one another. Without
        them the sum of two odd terms may point better than one plain term, and a reader is told "pope, basil, penguin".
        cost: of each further term. slack: a term's AUROC may lie this much under the best candidate's. support: active texts
        that must hold a term.
    """

    far: float = 0.5
    near: float = 0.3
    words: float = 0.2
    alone: float = 0.07
    together: float = 0.04
    cost: float = 0.002
    slack: float = 0.12
    support: int = 1

    def evidence(self, far: Tensor, near: Tensor, missed: Sequence[Tensor]) -> Tensor:
        """What a label detects; `missed`: shares of active and of near texts that hold none of its terms."""
        return self.far * far + self.near * near + self.words * (1 + missed[1] - missed[0]) / 2


class _Block(NamedTuple):
    """Some features' candidates. C are the ids (F, C) in the pool; `active`, `random`, `near` are rows of texts (F, ·)."""

    ids: Tensor
    active: Tensor
    random: Tensor
    near: Tensor
    held: tuple[Tensor, Tensor]  # share of active, of near texts that hold a candidate, (F, C)
    single: Tensor  # AUROC of each by itself, mean of random and near, (F, C)
    cosine: Tensor  # of the candidates to one another, (F, C, C)
    alike: Tensor  # may not stand in one label, (F, C, C)

    def kept(self, order: Tensor) -> _Block:
        """These candidates only, (F, n)."""
        rows = torch.arange(len(order))[:, None]
        square = [m[rows[:, :, None], order[:, :, None], order[:, None]] for m in (self.cosine, self.alike)]
        return _Block(
            self.ids[rows, order], self.active, self.random, self.near, tuple(s[rows, order] for s in self.held),
            self.single[rows, order], *square,
        )  # fmt: skip


def combined(
    sae: SAE, table: sparse.csr_matrix, embeddings: np.ndarray, pool: CandidateTerms, vectors: EmbeddingCache,
    per_source: int = 24, n_terms: int = 3, taste: Taste = Taste(), seed: int = 0, exam: DetectionSet | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Label every live feature with one to three terms chosen on training texts.

    Terms are added greedily to each of eight first terms, by what the sum of their vectors detects; the labels so found are
    then embedded as a reader sees them ("a, b, c", the best term first), and the best of them is kept.

    Args:
        table, embeddings: training activations (n, d_sae) and embeddings (n, d). pool: from the same texts.
        per_source: candidates taken from each labeller. taste: what "better" means.
        exam: the training texts to choose by; None takes `draw_detection_set(table, embeddings, n_random=200, n_near=100)`.

    Returns:
        Index `feature`: `label`, `terms`, `train_auroc` (mean of the two AUROCs of the label on training texts).

    Raises:
        ValueError: table, embeddings and pool are not of one corpus, or no feature is active.
    """
    if not table.shape[0] == len(embeddings) == pool.counts.shape[0]:
        raise ValueError(
            f"{table.shape[0]} activation rows, {len(embeddings)} embeddings and {pool.counts.shape[0]} texts in the pool: "
            "they must be of one corpus"
        )
    exam = exam or draw_detection_set(table, embeddings, n_random=200, n_near=100, seed=seed)
    if not len(exam.features):
        raise ValueError("no feature is active on these texts: nothing to label")
    x = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    ids = np.concatenate(
        [best_terms(s, per_source) for s in sources(sae, exam, embeddings, pool).values()], 1
    )
    stands, blocks, sets = (pool.counts > 0).astype(np.float32), [], []
    for start in range(0, len(ids), 64):  # blocks of features, to bound memory
        blocks.append(_block(pool, stands, exam, ids, slice(start, start + 64), x, taste))
        sets.append(_term_sets(blocks[-1], pool, x, n_terms, taste))
    strings = [
        [[", ".join(str(pool.terms[b.ids[f, j]]) for j in s) for s in of_f] for f, of_f in enumerate(part)]
        for b, part in zip(blocks, sets, strict=True)
    ]
    vectors([s for part in strings for of_f in part for s in of_f])  # every distinct label in one call
    picks, scores = [], []
    for block, part, text in zip(blocks, sets, strings, strict=True):
        chosen, auroc = _best_set(block, part, [vectors(t) for t in text], x, n_terms, taste)
        picks += [[int(block.ids[f, j]) for j in s] for f, s in enumerate(chosen)]
        scores += auroc
    return label_frame(exam.features, picks, pool.terms).assign(train_auroc=scores)


def _block(
    pool: CandidateTerms,
    stands: sparse.csr_matrix,
    exam: DetectionSet,
    ids: np.ndarray,
    at: slice,
    x: Tensor,
    taste: Taste,
    keep: int = 48,
) -> _Block:
    """The `keep` most promising of the candidates ids (all features, C): supported, and not far under the best alone.

    `stands` (n_texts, n_candidates): 1 where a text holds a candidate.
    """
    active = exam.active[at, : (exam.active.shape[1] + 1) // 2]
    rows = [torch.from_numpy(r) for r in (active, exam.random[at], exam.near[at])]
    held = []
    for texts in (active, exam.near[at]):
        share = normalize(membership(texts, len(x)), "l1") @ stands
        held.append(torch.from_numpy(np.take_along_axis(share.toarray(), ids[at], 1)))
    chosen = torch.from_numpy(ids[at].astype(np.int64))
    v = torch.from_numpy(pool.vectors)[chosen]
    single = (masked_auroc(v, x, rows[0], rows[1]) + masked_auroc(v, x, rows[0], rows[2])) / 2
    good = held[0] * (rows[0] >= 0).sum(1, keepdim=True) >= taste.support - 1e-4
    good |= ~good.any(1, keepdim=True)  # a feature none of whose candidates stand in its texts keeps them all
    single = single.masked_fill(~good, -1)
    single = single.masked_fill(single < single.amax(1, keepdim=True) - taste.slack, -1)  # −1: not to be used
    block = _Block(chosen, *rows, tuple(held), single, torch.bmm(v, v.transpose(1, 2)), alike(chosen, pool))
    return block.kept(single.topk(min(keep, single.shape[1]), dim=1).indices)


def _term_sets(
    block: _Block, pool: CandidateTerms, x: Tensor, n_terms: int, taste: Taste, n_starts: int = 8
) -> list[list[list[int]]]:
    """Per feature the sets of candidates (columns of ids) met on the greedy way from each of the best first terms."""
    f, usable, sets = torch.arange(len(block.ids)), block.single >= 0, [[] for _ in block.ids]
    v = torch.from_numpy(pool.vectors)[block.ids]
    rows = (block.active, block.random, block.near)
    parts = [_similarity(v, x, r) for r in rows]  # similarity to a sum of terms is the sum of similarities

    def gain(total: list[Tensor], missed: list[Tensor], nearest: Tensor) -> Tensor:
        pos, far, near = (p + t for p, t in zip(parts, total, strict=True))
        left = [m * (1 - s) for m, s in zip(missed, block.held, strict=True)]
        found = taste.evidence(_auroc(pos, far, rows[0], rows[1]), _auroc(pos, near, rows[0], rows[2]), left)
        return found + taste.alone * block.single + taste.together * nearest

    nothing = [torch.ones(len(f), 1)] * 2
    first = gain([torch.zeros(1)] * 3, nothing, torch.zeros(1)).masked_fill(~usable, -torch.inf)
    blocked = torch.zeros_like(usable)
    for _ in range(min(n_starts, block.ids.shape[1])):
        step = first.masked_fill(blocked, -torch.inf).argmax(1)
        blocked, taken, path = blocked | block.alike[f, step], ~usable, [step]
        total, missed, nearest = [torch.zeros(1)] * 3, nothing, torch.full_like(block.single, 2)
        for _ in range(n_terms - 1):
            total = [t + p[f, step][:, None] for t, p in zip(total, parts, strict=True)]
            missed = [m * (1 - s[f, step][:, None]) for m, s in zip(missed, block.held, strict=True)]
            taken, nearest = taken | block.alike[f, step], torch.minimum(nearest, block.cosine[f, step])
            step = gain(total, missed, nearest).masked_fill(taken, -torch.inf).argmax(1)
            path.append(torch.where(taken.all(1), -1, step))
        for i, row in enumerate(torch.stack(path, 1).tolist()):
            row = row[: row.index(-1)] if -1 in row else row
            for n in range(1, len(row) + 1):
                found = sorted(row[:n], key=lambda j, i=i: -float(block.single[i, j]))
                sets[i] += [found] if found not in sets[i] else []
    return sets


def _best_set(
    block: _Block,
    sets: list[list[list[int]]],
    embedded: list[np.ndarray],
    x: Tensor,
    n_terms: int,
    taste: Taste,
) -> tuple[list[list[int]], list[float]]:
    """Per feature the best of its sets, each judged by its embedding as a reader sees it, and that one's mean AUROC."""
    width = max(map(len, sets))
    v = torch.from_numpy(np.stack([np.concatenate([e, e[:1].repeat(width - len(e), 0)]) for e in embedded]))
    far, near = (masked_auroc(v, x, block.active, r) for r in (block.random, block.near))
    member = torch.tensor(
        [[(s + [-1] * n_terms)[:n_terms] for s in of_f + of_f[:1] * (width - len(of_f))] for of_f in sets]
    )
    inside, at, f = member >= 0, member.clamp_min(0), torch.arange(len(sets))[:, None, None]  # (F, S, n)
    size = inside.sum(2)
    missed = [torch.where(inside, 1 - s[f, at], 1).prod(2) for s in block.held]
    pairs = inside[..., None] & inside[:, :, None] & ~torch.eye(n_terms, dtype=torch.bool)
    cosine = (block.cosine[f[..., None], at[..., None], at[:, :, None]] * pairs).sum((2, 3)) / pairs.sum(
        (2, 3)
    ).clamp_min(1)
    alone, together = (block.single[f, at] * inside).sum(2) / size, torch.where(size > 1, cosine, RELATED)
    score = (
        taste.evidence(far, near, missed)
        + taste.alone * alone
        + taste.together * together
        - taste.cost * size
    )
    best = score.argmax(1)
    auroc = ((far + near) / 2).gather(1, best[:, None])[:, 0].tolist()
    return [of_f[b] if b < len(of_f) else of_f[0] for of_f, b in zip(sets, best.tolist(), strict=True)], auroc
