"""The whole way from texts to judged names: `name_features`, what the notebooks and the browser read."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.preprocessing import normalize

from saelib.activations import EncodedTexts, top_texts
from saelib.corpus import is_missing
from saelib.encoder import EmbeddingCache, Encode, load_independent, lsa_space
from saelib.naming.candidates import candidate_terms, ctfidf, membership, self_activation
from saelib.naming.feature_types import feature_types
from saelib.naming.language import ENGLISH, Language, as_language
from saelib.naming.lexicon import Lexicon
from saelib.naming.scoring import DetectionSet, Judge, draw_detection_set, score_judge, score_names
from saelib.naming.selection import Weights, choose_names
from saelib.naming.trust import THRESHOLD, name_signals, trust
from saelib.sae import SAE


def top_rows(table: sparse.csr_matrix, n: int = 10) -> pd.Series:
    """index feature → list of its n strongest rows, for live features."""
    rows, _ = top_texts(table, n)
    live = np.flatnonzero(rows[:, 0] >= 0)
    return pd.Series([rows[f][rows[f] >= 0].tolist() for f in live], index=pd.Index(live, name="feature"))


def check_part(part: EncodedTexts, n_features: int) -> None:
    """Raise ValueError where a table, its texts and embeddings do not belong together, or to the SAE."""
    (n, width), texts, embeddings = part.table.shape, len(part.texts), len(part.embeddings)
    if not n == embeddings == texts:
        raise ValueError(
            f"{n} activation rows, {embeddings} embeddings and {texts} texts: they must be of one corpus"
        )
    if width != n_features:
        raise ValueError(f"the table has {width} features, the SAE {n_features}: read_texts with this SAE")


def choose(
    sae: SAE, train: EncodedTexts, vectors: EmbeddingCache, independent: Encode, *,
    parents: np.ndarray | None = None, weights: Weights = Weights(), n_terms: int = 3, seed: int = 0,
    language: Language = ENGLISH,
) -> pd.DataFrame:  # fmt: skip
    """Names chosen on training texts alone: index feature (live columns of the table), `label`, `terms`.

    Args:
        parents: for a table whose columns are parts of features, the feature of the SAE that each belongs to.

    Raises:
        ValueError: the parts of `train` are not of one corpus and this SAE, or no feature is active.
    """
    table, texts, embeddings = train.table, train.texts, train.embeddings
    check_part(train, sae.d_sae if parents is None else len(parents))
    sets = draw_detection_set(table, embeddings, n_random=200, n_near=100, n_seeds=16, seed=seed)
    if not len(sets.features):
        active = "every active feature is active on all" if table.nnz else "no feature is active on any"
        raise ValueError(f"{active} of these texts: there is nothing to name")
    rows = top_texts(table, 40)[0][sets.features]
    pool = candidate_terms(texts, rows, vectors, independent, train.titles, language=language)
    of_sae = sets.features if parents is None else parents[sets.features]
    scores = [self_activation(sae, pool, of_sae), ctfidf(rows[:, :20], pool)]
    both = (np.asarray(embeddings, dtype=np.float32), independent(texts))
    return choose_names(pool, scores, sets, rows[:, :20], both, weights=weights, n_terms=n_terms)


def name_parts(
    parts: pd.Series, sae: SAE, train: EncodedTexts, vectors: EmbeddingCache, independent: Encode,
    language: Language = ENGLISH,
) -> pd.DataFrame:  # fmt: skip
    """Two-topic features: a name of one term for each topic, `label` "boxing · bridge", `terms` of both.

    Args:
        parts: index feature → two lists of rows. Its further active texts go to the topic nearest by meaning.
    """
    csc, texts = train.table.tocsc(), independent(train.texts)
    columns, parents = [], np.repeat(parts.index.to_numpy(), 2)
    for feature, groups in parts.items():
        own = csc[:, [feature]].tocoo()
        centres = np.stack([texts[rows].mean(0) for rows in groups])
        side = (texts[own.row] @ centres.T).argmax(1)
        columns.append(sparse.csr_matrix((own.data, (own.row, side)), (len(texts), 2)))
    split = train._replace(table=sparse.hstack(columns, format="csr"))
    found = choose(sae, split, vectors, independent, parents=parents, n_terms=1, language=language)
    label = found.label.groupby(parents[found.index]).agg(list)
    return pd.DataFrame({"label": label.str.join(" · "), "terms": label})


class Judges:
    """Those who judge names on the held-out texts: a call gives name → two matrices, see `scoring.py`.

    The encoder and the independent one took part in choosing; BM25 and LSA did not, nor does `second`.
    """

    def __init__(
        self, train: EncodedTexts, test: EncodedTexts, vectors: EmbeddingCache, independent: Encode,
        second: Encode | None = None, language: Language = ENGLISH,
    ) -> None:  # fmt: skip
        lsa = lsa_space(train.texts, stop_words=language.stop_words)
        spaces = {"lsa": lsa, "independent": independent} | ({"second": second} if second else {})
        self.vectors, self.embeddings = vectors, test.embeddings
        self.lexicon = Lexicon(test.texts, language)
        self.spaces = {name: (encode, normalize(encode(test.texts))) for name, encode in spaces.items()}

    def __call__(self, labels: list[str]) -> dict[str, Judge]:
        judges = {"encoder": (self.vectors(labels), self.embeddings), "bm25": self.lexicon.bm25(labels)}
        return judges | {
            name: (normalize(encode(labels)), texts) for name, (encode, texts) in self.spaces.items()
        }


def centroids(rows: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Unit mean of each feature's texts: rows (L, n) with −1 pads, embeddings (n_texts, d) → (L, d)."""
    return normalize(membership(rows, len(embeddings)) @ embeddings).astype(np.float32)


def name_features(
    sae: SAE, train: EncodedTexts, test: EncodedTexts, vectors: EmbeddingCache, *,
    independent: Encode | None = None, second: Encode | None = None, weights: Weights = Weights(),
    seed: int = 0, language: Language = ENGLISH,
) -> pd.DataFrame:  # fmt: skip
    """Names chosen on `train`, judged on `test`, with what each feature is about and how far to trust its
    name.

    Args:
        train, test: of `read_texts`. vectors: the cache of the encoder that made the embeddings.
        independent: a second opinion when choosing, n strings → (n, d); None for
            `load_independent(train.texts)`.
        second: another encoder that only judges: `auroc_second`, `auroc_near_second`, `ap_second`.
        language: stop words, stemmer and, for scripts without spaces, tokenizer of the texts' language.

    Returns:
        index feature (live ones): `label`, `terms`, `term_scores` (held-out AUROC of each term by itself),
        `kind`, `note`, `parts` (what it is about), `trust` (0…1), `shown` (False: to be read as "unnamed"),
        `density`, `top_rows` (of train), every column of `score_names` for the encoder, `bm25`, `lsa`,
        `independent`, `second`, and `centroid`: the ten strongest training texts' centroid by the
        independent encoder, in place of the name. Where that scores low too, it is the feature that says
        nothing, not the name.

    Raises:
        ValueError: parts that are of another SAE or not of one corpus, too few texts, or no `Language`.
    """
    language = as_language(language)
    check_part(train, sae.d_sae)
    check_part(test, sae.d_sae)
    train, test = (p._replace(texts=language.spaced(p.texts)) for p in (train, test))
    independent = EmbeddingCache(independent or load_independent(train.texts))
    held_out = draw_detection_set(test.table, test.embeddings, n_random=0, seed=seed)
    if not len(held_out.features):
        raise ValueError(
            f"no feature is active on some of the {len(test.texts)} held-out texts and not on others: too "
            "few held-out texts, or another SAE's"
        )
    names = choose(sae, train, vectors, independent, weights=weights, seed=seed, language=language)
    names = names.join(feature_types(sae, vectors, independent, train, names))
    two = names.parts[names.kind == "two topics"]
    if len(two):
        renamed = name_parts(two, sae, train, vectors, independent, language)
        names.loc[renamed.index, ["label", "terms"]] = renamed
    names["trust"] = trust(name_signals(said(names), train, independent, language))
    names["shown"] = (names.trust >= THRESHOLD) | (names.kind == "form")
    names["density"] = (np.diff(train.table.tocsc().indptr) / train.table.shape[0])[names.index]
    names["top_rows"] = top_rows(train.table)

    judges = Judges(train, test, vectors, independent, second, language)
    rows = top_texts(train.table, 10)[0][names.index]
    centre = centroids(rows, independent(train.texts)), judges.spaces["independent"][1]
    of_names = judges(list(names.label)) | {"centroid": centre}
    names = names.join(score_names(names, of_names, held_out, test.table, judges.lexicon))
    return names.assign(term_scores=term_scores(names, held_out, test, vectors))


def said(names: pd.DataFrame) -> pd.DataFrame:
    """The names with the note in the terms' place where a feature is about spelling or form."""
    noted = names.kind.isin(["spelling", "form"])
    terms = [
        [note] if is_noted else terms
        for note, is_noted, terms in zip(names.note, noted, names.terms, strict=True)
    ]
    return names.assign(label=names.label.mask(noted, names.note), terms=terms)


def term_scores(
    names: pd.DataFrame, held_out: DetectionSet, test: EncodedTexts, vectors: EmbeddingCache
) -> list:
    """For each name the held-out AUROC of its terms one by one; NaN where `n` is under five."""
    place = pd.Index(held_out.features).get_indexer(names.index)
    at = np.repeat(place, names.terms.str.len())
    flat = vectors([t for terms in names.terms for t in terms])
    score = np.full(len(at), np.nan)
    alone = DetectionSet(*(part[at[at >= 0]] for part in held_out))
    if len(alone.features):
        found = score_judge((flat[at >= 0], test.embeddings), alone, test.table)
        score[at >= 0] = found.auroc.where(names.n[found.index].to_numpy() >= 5).round(3)
    return [list(part) for part in np.split(score, np.cumsum(names.terms.str.len())[:-1])]


def as_shown(names: pd.DataFrame) -> pd.Series:
    """The names as a reader is to see them: "unnamed" where trust is low, the note of a spelling or form."""
    return said(names).label.where(flags(names.shown), "unnamed")


def flags(shown: pd.Series) -> pd.Series:
    """A column `shown` as booleans, a missing one False; raises ValueError for others ("False" is true)."""
    found = [False if is_missing(value) else value for value in shown]
    if other := [value for value in found if not isinstance(value, (bool, np.bool_))]:
        raise ValueError(
            f"`shown` must hold True or False, not {other[0]!r} (from a CSV?): keep names in parquet"
        )
    return pd.Series(found, index=shown.index, dtype=bool)
