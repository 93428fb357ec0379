"""Names side by side: labellers on the same held-out texts, names across SAEs, concepts known beforehand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from saelib.activations import EncodedTexts, top_texts
from saelib.encoder import EmbeddingCache, Encode, load_independent
from saelib.naming.language import ENGLISH, Language, as_language
from saelib.naming.lexicon import Lexicon
from saelib.naming.pipeline import Judges, centroids
from saelib.naming.scoring import draw_detection_set, score_names
from saelib.sae import SAE


def judge_all(
    name_sets: dict[str, pd.DataFrame], sae: SAE, train: EncodedTexts, test: EncodedTexts,
    vectors: EmbeddingCache, *, independent: Encode | None = None, second: Encode | None = None,
    seed: int = 0, language: Language = ENGLISH,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Several labellers side by side on the same held-out texts, with the scale to read them by.

    Args:
        name_sets: labeller → names (index feature, `label`, `terms`); the last one is also dealt out wrongly.
        language: of the texts, as for `name_features`.

    Returns:
        labeller → `score_names`, by the encoder, BM25, LSA and the independent encoder; then "nearest
        feature's label" and "shuffled labels" of the last set; then, by the encoder alone, directions that
        need no words: "mean of the top texts" (no ceiling: it is beaten on near texts), "decoder row" and
        "encoder row".

    Raises:
        ValueError: no name set, or no `Language`.
    """
    if not name_sets:
        raise ValueError("there are no names to judge: name_sets is empty")
    language = as_language(language)
    train, test = (part._replace(texts=language.spaced(part.texts)) for part in (train, test))
    last = list(name_sets.values())[-1]
    rows_of = last.index.tolist()
    W_dec, W_enc = sae.W_dec[rows_of].detach().cpu(), sae.W_enc[:, rows_of].T.detach().cpu()
    order = {"nearest feature's label": (W_dec @ W_dec.T).fill_diagonal_(-1).argmax(1).numpy()}
    order["shuffled labels"] = np.random.default_rng(seed).permutation(len(last))
    wrong = {name: last[["label", "terms"]].iloc[o].set_index(last.index) for name, o in order.items()}
    independent = independent or load_independent(train.texts)
    judges = Judges(train, test, vectors, independent, second, language)
    sets, out = draw_detection_set(test.table, test.embeddings, n_random=0, seed=seed), {}
    for name, names in (name_sets | wrong).items():
        names = names[names.label != ""]
        out[name] = score_names(names, judges(list(names.label)), sets, test.table, judges.lexicon)
    centre = centroids(top_texts(train.table, 10)[0][last.index], train.embeddings)
    centred = test.embeddings - sae.mean.cpu().numpy()
    without_words = {
        "mean of the top texts": (centre, test.embeddings),
        "decoder row": (W_dec.numpy(), centred),
        "encoder row": (W_enc.numpy(), centred),
    }
    for name, judge in without_words.items():
        out[name] = score_names(last[["label", "terms"]], {"encoder": judge}, sets, test.table)
    return out


def summary(scores: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One line per labeller: the mean of every metric, the median and 10th percentile of `auroc`."""
    lines = {}
    for name, frame in scores.items():
        means = frame.drop(columns=["n", "low", "high", "precision", "recall"], errors="ignore").mean()
        ends = {"auroc_median": frame.auroc.median(), "auroc_p10": frame.auroc.quantile(0.1)}
        lines[name] = means.to_dict() | ends
    return pd.DataFrame(lines).T


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, columns: list[str] | None = None, clusters: pd.Series | None = None,
    n_bootstrap: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Is labeller a better than b on the features that both have scores for? Differences a − b, per metric.

    Args:
        a, b: what `judge_all` gives for two labellers. clusters: feature → a group (an SAE's seed, say);
        groups are drawn whole, with replacement. None: every feature is its own.

    Returns:
        index metric: `difference` (mean), `low`, `high` (95%, bootstrap over clusters), `wins` (share of
        features where a is better, ties half), `n` features.
    """
    columns = columns or [c for c in a.columns.intersection(b.columns) if c.startswith(("ap", "auroc", "f1"))]
    both, lines = a.index.intersection(b.index), {}
    if not len(both):
        raise ValueError("the two have no feature in common: judge them on one SAE")
    group = pd.factorize(clusters[both] if clusters is not None else both)[0]
    draws = np.random.default_rng(seed).multinomial(
        group.max() + 1, np.ones(group.max() + 1) / (group.max() + 1), n_bootstrap
    )
    for column in columns:
        difference = (a.loc[both, column] - b.loc[both, column]).to_numpy(dtype=float)
        known = ~np.isnan(difference)
        total, n = (np.bincount(group[known], w, group.max() + 1) for w in (difference[known], None))
        means = (draws @ total) / np.maximum(draws @ n, 1)
        low, high = np.quantile(means, [0.025, 0.975])
        wins = np.mean((np.sign(difference[known]) + 1) / 2)
        lines[column] = {
            "difference": difference[known].mean(),
            "low": low,
            "high": high,
            "wins": wins,
            "n": known.sum(),
        }
    return pd.DataFrame(lines).T.rename_axis("metric")


def collision(
    names: pd.DataFrame, table: sparse.csr_matrix, vectors: Encode, embeddings: np.ndarray
) -> pd.Series:
    """Does a name lead back to its own feature, and to no other?

    Args:
        table, embeddings: held-out texts. vectors: the encoder, n strings → (n, d) unit vectors.

    Returns:
        `unique_names`: share of names that no other feature has. Each name is then compared with the mean
        of every feature's ten strongest texts: `top_1`, share of names nearest to their own feature; `mrr`,
        the mean of 1/rank of their own.
    """
    rows = top_texts(table, 10)[0][names.index]
    live = rows[:, 0] >= 0
    names, rows = names[live], rows[live]
    similarity = vectors(list(names.label)) @ centroids(rows, embeddings).T  # (names, features)
    rank = (similarity > np.diag(similarity)[:, None]).sum(1) + 1
    unique = ~names.label.duplicated(keep=False)
    found = {"unique_names": unique.mean(), "top_1": (rank == 1).mean(), "mrr": (1 / rank).mean()}
    return pd.Series(found | {"n": len(names)})


@torch.no_grad()
def stability(
    sae: SAE, labels: pd.DataFrame, vectors: np.ndarray,
    other: SAE, other_labels: pd.DataFrame, other_vectors: np.ndarray, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Does the same name come back in another SAE of the same encoder (another seed, corpus half or d_sae)?

    Each labelled feature is matched to the labelled feature of `other` with the nearest decoder row.

    Returns:
        index feature: `match`, `cosine` of the two rows, `label_cosine` of the two labels' vectors, `shared`
        (bool: a word in common), and `chance`: label_cosine with a random label of the other.
    """
    a, b = sae.W_dec[labels.index.tolist()], other.W_dec[other_labels.index.tolist()]
    cosine, best = (a @ b.T.to(a.device)).cpu().max(1)
    best = best.numpy()
    split = [[set(" ".join(ts).split()) for ts in frame.terms] for frame in (labels, other_labels)]
    shuffled = np.random.default_rng(seed).integers(0, len(other_labels), len(labels))
    return pd.DataFrame({
        "match": other_labels.index.to_numpy()[best],
        "cosine": cosine.numpy(),
        "label_cosine": (vectors * other_vectors[best]).sum(1),
        "shared": [bool(words & split[1][j]) for words, j in zip(split[0], best, strict=True)],
        "chance": (vectors * other_vectors[shuffled]).sum(1),
    }, index=labels.index)  # fmt: skip


def concept_recovery(
    train: sparse.csr_matrix,
    train_concepts: np.ndarray,
    test: sparse.csr_matrix,
    test_concepts: np.ndarray,
    min_texts: int = 10,
) -> pd.DataFrame:
    """For each known concept the feature that answers to it, chosen by F1 on training texts, measured on
    held-out ones.

    Args:
        train, test: activations (n, d_sae). train_concepts, test_concepts: a concept's name per text, None
            for a text without.
        min_texts: concepts with fewer training texts (or without a held-out one) are left out.

    Returns:
        index concept: `feature`, `f1` ("active" as an answer), `auroc` of its activation, `n` held-out texts.
    """
    train_concepts, test_concepts = (np.array(c, dtype=object) for c in (train_concepts, test_concepts))
    names, n_train = np.unique(train_concepts[~pd.isna(train_concepts)], return_counts=True)
    names = np.array(
        [c for c, n in zip(names, n_train, strict=True) if n >= min_texts and (test_concepts == c).any()],
        dtype=object,
    )
    if not len(names):
        raise ValueError(f"no concept has {min_texts} training texts and a held-out one: lower min_texts")

    def f1(table: sparse.csr_matrix, concepts: np.ndarray) -> np.ndarray:
        place = pd.Index(names).get_indexer(concepts)
        member = sparse.csr_matrix(
            (np.ones((place >= 0).sum()), (place[place >= 0], np.flatnonzero(place >= 0))),
            (len(names), len(place)),
        )
        on = (table > 0).astype(np.float64)
        said = np.asarray(on.sum(0)).ravel()
        return 2 * (member @ on).toarray() / np.maximum(np.asarray(member.sum(1)) + said[None], 1)

    best = f1(train, train_concepts).argmax(1)
    here, acts = np.asarray(test_concepts)[:, None] == names[None], test[:, best].toarray()
    area = (
        roc_auc_score(here, acts, average=None) if len(names) > 1 else roc_auc_score(here[:, 0], acts[:, 0])
    )
    held = f1(test, test_concepts)[np.arange(len(names)), best]
    return pd.DataFrame(
        {"feature": best, "f1": held, "auroc": area, "n": here.sum(0)}, index=pd.Index(names, name="concept")
    )


def says_concept(
    concepts: pd.DataFrame, labels: pd.DataFrame, encode: Encode, lexicon: Lexicon
) -> pd.DataFrame:
    """Does the feature's label say the concept's name? `label`, `says` (a stem in common), `rank` of the
    name among all concepts' names by cosine with the label (1 is best)."""
    found = labels.label.reindex(concepts.feature).fillna("").to_numpy()
    names = concepts.index.to_numpy().astype(str)
    similarity = encode([f or "?" for f in found]) @ encode(list(names)).T
    own = similarity[np.arange(len(names)), np.arange(len(names))]
    a, b = (lexicon.queries(list(strings))[0] for strings in (found, names))
    return pd.DataFrame(
        {
            "label": found,
            "says": np.asarray(a.multiply(b).sum(1)).ravel() > 0,
            "rank": (similarity > own[:, None]).sum(1) + 1,
        },
        index=concepts.index,
    )
