"""Choosing a name: candidates in, evidence, terms out.

The evidence that a set of terms names a feature is measured on *training* texts, by the encoder that made the
embeddings and by one that did not: a name that only the first believes in is an accident of its space.
Terms are added in one greedy pass, each only if it adds something, fits the terms before it and repeats
none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saelib.naming.candidates import CandidateTerms, best_terms
from saelib.naming.lexicon import COMMON
from saelib.naming.scoring import DetectionSet, auroc


@dataclass(frozen=True)
class Weights:
    """What counts as evidence, on training texts, and when a further term is let in.

    Attributes:
        far, near: of the name's AUROC against random inactive texts and the nearest ones, by the encoder
        and by the independent one. cosine: of the name's mean cosine with the 20 strongest texts, by the
        independent encoder.
        held: of the share of active texts that hold one of its terms, less that of near ones. noun: of how
        much its terms are used like nouns.
        each: of the share of the strongest texts that hold the term which the fewest of them hold. rarest:
        of how common its rarest word is, and common: less that of how far beyond 3% of all texts. Readers
        take a broad, plain word that stands in the texts, not one that stands in any.
        gain: what a further term must add. fit: lowest cosine to the terms before it, by either encoder.
        share: of the first term's closeness to the strongest texts that a further one must have.
    """

    far: tuple[float, float] = (0.5, 0.25)
    near: tuple[float, float] = (0.75, 0.25)
    cosine: float = 1.0
    held: float = 0.5
    noun: float = 0.05
    each: float = 0.25
    rarest: float = 0.04
    common: float = 0.2
    gain: float = 0.02
    fit: tuple[float, float] = (0.35, 0.15)
    share: float = 0.6


class Evidence:
    """For a block of F features with C candidates each: what the terms chosen so far and one more are worth.

    Args:
        ids: (F, C) numbers of terms. sets: the texts of these features that a name has to tell apart.
        texts: the training texts by the encoder and by the independent one, (n, d) each.
        strongest: (F, 20) rows, −1 pads.
    """

    def __init__(
        self, pool: CandidateTerms, ids: np.ndarray, sets: DetectionSet, strongest: np.ndarray,
        texts: tuple[np.ndarray, np.ndarray], weights: Weights = Weights(),
    ) -> None:  # fmt: skip
        half = sets.active[:, : (sets.active.shape[1] + 1) // 2]
        self.weights, self.similarity, self.cosines = weights, [], []
        for terms, x in zip((pool.vectors, pool.independent), texts, strict=True):
            v = torch.from_numpy(terms[ids])  # (F, C, d)
            self.cosines.append(v @ v.transpose(1, 2))
            self.similarity.append([_similarity(v, x, rows) for rows in (half, sets.random, sets.near)])
        self.close = _similarity(v, texts[1], strongest).nanmean(2)  # by the independent encoder
        self.held = [torch.from_numpy(_held(pool, ids, rows)) for rows in (half, sets.near)]
        self.noun = torch.from_numpy(pool.noun[ids]).float()
        self.each = torch.from_numpy(_held(pool, ids, strongest)).nanmean(2)
        self.rarest = torch.from_numpy(pool.rarest[ids]).float()  # of a set of terms the least counts
        stems = torch.from_numpy(pool.stems[ids])
        common = (stems[:, :, None, :, None] == stems[:, None, :, None, :]).flatten(3).any(3)
        low = [c < least for c, least in zip(self.cosines, weights.fit, strict=True)]
        self.clash = (
            common | low[0] | low[1] | (self.cosines[0] >= 0.8)
        )  # may not stand in one name, (F, C, C)

    def keep(self, columns: Tensor) -> None:
        """Go on with these candidates only, (F, n)."""
        f, pair = torch.arange(len(columns))[:, None], columns[:, :, None]
        self.similarity = [[s[f, columns] for s in space] for space in self.similarity]
        self.close, self.noun, self.each, self.rarest, *self.held = (
            t[f, columns] for t in (self.close, self.noun, self.each, self.rarest, *self.held)
        )
        self.cosines = [c[f[..., None], pair, columns[:, None]] for c in self.cosines]
        self.clash = self.clash[f[..., None], pair, columns[:, None]]

    def __call__(self, chosen: list[Tensor]) -> Tensor:
        """(F, C): the worth of the name made of the `chosen` columns, (F,) each, and one candidate more.

        A name is the sum of its terms' vectors, so its similarity to a text is the sum of theirs.
        """
        f, n = torch.arange(len(self.close)), len(chosen) + 1

        def with_chosen(values: Tensor) -> Tensor:
            return values + sum(values[f, c][:, None] for c in chosen) if chosen else values

        found = 0
        w = self.weights
        for space, w_far, w_near in zip(self.similarity, w.far, w.near, strict=True):
            active, far, near = (with_chosen(s) for s in space)
            found = found + w_far * auroc(active, far) + w_near * auroc(active, near)
        cosines, within = self.cosines[1], 1
        for i, c in enumerate(chosen):  # |a + b + …|² from the cosines of the terms
            within = within + 1 + 2 * cosines[f, c] + 2 * sum(cosines[f, c, b][:, None] for b in chosen[:i])
        said = []
        for held in self.held:  # shares of active and of near texts that hold one of the terms
            for c in chosen:
                held = torch.where(held.isnan(), held, torch.maximum(held, held[f, c][:, None]))
            said.append(held.nanmean(2))
        least = [self.each, self.rarest]
        for c in chosen:
            least = [torch.minimum(values, values[f, c][:, None]) for values in least]
        length = torch.sqrt(torch.as_tensor(within).clamp_min(1e-6))
        worth = found + w.cosine * with_chosen(self.close) / length
        worth = worth + w.held * (said[0] - said[1].nan_to_num())
        worth = worth + w.each * least[0] + w.rarest * least[1]
        worth = worth - w.common * (least[1] - COMMON).clamp_min(0)
        return worth + w.noun * with_chosen(self.noun) / n


def _similarity(v: Tensor, x: np.ndarray, rows: np.ndarray) -> Tensor:
    """(F, C, d) with the rows of x that each feature names, (F, n), −1 pads → (F, C, n), NaN at pads."""
    texts = torch.from_numpy(x[np.maximum(rows, 0)])
    return (v @ texts.transpose(1, 2)).masked_fill(torch.from_numpy(rows < 0)[:, None], torch.nan)


def _held(pool: CandidateTerms, ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(F, C, n) float32: 1 where the text holds the candidate, 0 where not, NaN at the pads."""
    inside = [(pool.counts[r] > 0).toarray()[:, i].T for r, i in zip(np.maximum(rows, 0), ids, strict=True)]
    return np.where(rows[:, None] < 0, np.nan, np.stack(inside)).astype(np.float32)


def choose_terms(evidence: Evidence, n_terms: int = 3, keep: int = 24) -> Tensor:
    """One greedy pass: (F, n_terms) columns of the candidates, −1 where no further term pays.

    Only the `keep` best first terms are asked again as second and third ones.
    """
    columns = evidence([]).topk(min(keep, evidence.close.shape[1]), dim=1).indices
    evidence.keep(columns)
    f = torch.arange(len(columns))
    best, step = evidence([]).max(1)
    close = evidence.close >= evidence.weights.share * evidence.close[f, step][:, None]
    picks, free = [step], close & ~evidence.clash[f, step]
    for _ in range(n_terms - 1):
        worth, step = evidence([p.clamp_min(0) for p in picks]).masked_fill(~free, -torch.inf).max(1)
        pays = (worth >= best + evidence.weights.gain) & (picks[-1] >= 0)
        picks.append(torch.where(pays, step, -1))
        best, free = torch.where(pays, worth, best), free & ~evidence.clash[f, step]
    picks = torch.stack(picks, 1)
    return torch.where(picks >= 0, columns.gather(1, picks.clamp_min(0)), -1)


def choose_names(
    pool: CandidateTerms, scores: list[np.ndarray], sets: DetectionSet, strongest: np.ndarray,
    texts: tuple[np.ndarray, np.ndarray], *, weights: Weights = Weights(), per_source: int = 24,
    n_terms: int = 3,
) -> pd.DataFrame:  # fmt: skip
    """Name every feature of `sets`: `per_source` candidates by each of the `scores` (n_features, n_terms),
    then the choice.

    Returns:
        index feature: `label` (the terms, joined by ", "), `terms`.
    """
    ids, picks = np.concatenate([best_terms(s, per_source) for s in scores], 1), []
    for start in range(0, len(ids), 64):  # blocks of features bound the memory
        at = slice(start, start + 64)
        part = DetectionSet(*(rows[at] for rows in sets))
        chosen = choose_terms(Evidence(pool, ids[at], part, strongest[at], texts, weights), n_terms)
        picks += [[int(i[c]) for c in row if c >= 0] for i, row in zip(ids[at], chosen.tolist(), strict=True)]
    return name_frame(sets.features, picks, pool.terms)


def best_of_source(
    scores: np.ndarray, pool: CandidateTerms, features: np.ndarray, n_terms: int = 3
) -> pd.DataFrame:
    """One source alone, for comparison: its n_terms best candidates that share no stem."""
    picks = []
    for row in best_terms(scores, 8 * n_terms).tolist():
        kept = []
        for i in row:
            if len(kept) < n_terms and not any(np.isin(pool.stems[i], pool.stems[j]).any() for j in kept):
                kept.append(i)
        picks.append(kept)
    return name_frame(features, picks, pool.terms)


def name_frame(features: np.ndarray, picks: list[list[int]], terms: np.ndarray) -> pd.DataFrame:
    """Numbers of terms per feature as `label` and `terms`."""
    chosen = [[str(terms[i]) for i in row] for row in picks]
    index = pd.Index(features, name="feature")
    return pd.DataFrame({"label": [", ".join(t) for t in chosen], "terms": chosen}, index=index)
