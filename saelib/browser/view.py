"""What the browser knows, computed once: an SAE's activations on a corpus, its names, neighbours and a map.

Numbers only: `lookup.py` searches them, `cards.py` turns them into HTML, `app.py` into widgets.
"""

from __future__ import annotations

import datetime
import platform
import re
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from saelib.activations import EncodedTexts, feature_stats, top_texts
from saelib.attribution import WordEffects, word_effects
from saelib.browser import atlas
from saelib.browser.render import environment
from saelib.checks import one_each
from saelib.corpus import mended
from saelib.encoder import Encoder
from saelib.families import MEMBERS, check_members
from saelib.files import resolved
from saelib.naming.lexicon import check_terms
from saelib.naming.pipeline import as_shown, flags
from saelib.naming.trust import named_share
from saelib.sae import SAE

PATIENCE = 3000  # words to embed again when a text's words are marked: about a second on two cores
ZERO_WIDTH = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
NO_NAME = ("unnamed", "(no label)", "(dead)")


class Kin(NamedTuple):
    """Of a feature: its families, the one where it is nearest to the root first, and its parents and children
    in any of them."""

    families: list[int]
    parents: list[int]
    children: list[int]


@dataclass
class FeatureView:
    """Everything the browser needs, computed once.

    Attributes:
        sae, texts, domains, embeddings (n, d_in). by_text, table: activations (n, d_sae) as CSR and CSC.
        names: what `name_features` returned, or any frame with an index of features and a column `label`;
            `trust` (0 to 1), `auroc`, `shown`, `kind`, `note`, `terms`, `term_scores` are used where present.
        stats: `feature_stats`. rows: top texts (d_sae, 20). xy: map of the features (d_sae, 2).
        near, near_cosine; together, together_count: ten neighbours of each feature, by decoder row and by
            co-activation.
        encoder: None where no text can be embedded. folder: where slow results are kept.
        groups: the article of each text (n,), None where it is not known.
        families: of `find_families`, None where none were looked for. family_names: index family, as shown.
        about: where all this is from, as it is printed on every page: title → words.
        effects, vectors: what was computed on the way (words left out, embedded labels).
    """

    sae: SAE
    texts: list[str]
    domains: np.ndarray
    embeddings: np.ndarray
    by_text: sparse.csr_matrix
    names: pd.DataFrame
    stats: pd.DataFrame
    rows: np.ndarray
    near: np.ndarray
    near_cosine: np.ndarray
    together: np.ndarray
    together_count: np.ndarray
    xy: np.ndarray
    encoder: Encoder | None = None
    folder: Path | None = None
    groups: np.ndarray | None = None
    families: pd.DataFrame | None = None
    family_names: pd.Series | None = None
    about: dict[str, str] = field(default_factory=dict)
    effects: dict[str, WordEffects] = field(default_factory=dict)
    vectors: tuple[str, np.ndarray] | None = None

    @cached_property
    def table(self) -> sparse.csc_matrix:
        """The activations by column."""
        return self.by_text.tocsc()

    @cached_property
    def labels(self) -> list[str]:
        """Of every feature, as it may be shown: "unnamed" where its name did not pass, "(dead)" if never
        active, the note in place of the name of a feature about spelling or form."""
        names, every = self.names, range(self.sae.d_sae)
        if {"shown", "kind", "note", "terms"} <= set(names):
            label = as_shown(names.assign(note=names.note.fillna("")))
        else:
            label = names["label"]
            if "shown" in names:
                label = label.where(flags(names["shown"]), "unnamed")
        label = label.fillna("").astype(str).replace("", "unnamed")
        dead = self.stats.n_texts.reindex(every) == 0
        return label.reindex(every).fillna("(no label)").mask(dead, "(dead)").tolist()

    @cached_property
    def named(self) -> np.ndarray:
        """Which features have a name that is shown (d_sae,)."""
        return ~np.isin(self.labels, NO_NAME)

    @cached_property
    def named_share(self) -> float:
        """How much of the variance of (up to 4,096 of) the texts the named features explain."""
        rows = np.random.default_rng(0).permutation(len(self.embeddings))[:4096]
        x = torch.from_numpy(self.embeddings[rows]).float().to(self.sae.mean.device)
        return named_share(self.sae, x, self.named)[0]

    @torch.no_grad()
    def share_in_words(self, x: np.ndarray) -> float:
        """The same of one embedding (d_in,): 1 − ‖x − x̂‖² / ‖x − mean‖², x̂ from its named features."""
        sae, x = self.sae, torch.from_numpy(x).float().to(self.sae.mean.device)[None]
        left = x - sae.decode(sae.encode(x) * torch.from_numpy(self.named).to(x.device))
        return float(1 - left.square().sum() / (x - sae.mean).square().sum().clamp_min(1e-12))

    @cached_property
    def same(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every text the first row that holds the same, and how many rows do: (n,), (n,)."""
        codes = pd.factorize(np.array([text.strip() for text in self.texts], dtype=object))[0]
        return np.unique(codes, return_index=True)[1][codes], np.bincount(codes)[codes]

    @cached_property
    def kin(self) -> dict[int, Kin]:
        """The features that are in a family, each with its families, parents and children there."""
        if self.families is None:
            return {}
        near_root = self.families.sort_values(["depth", "weight"], ascending=[True, False], kind="stable")
        below = near_root[near_root.parent >= 0]
        parents = below.groupby("feature").parent.unique().to_dict()
        children = below.groupby("parent").feature.unique().to_dict()
        of = near_root.groupby("feature").family.unique().to_dict()
        listed = lambda some, f: some[f].tolist() if f in some else []
        return {f: Kin(listed(of, f), listed(parents, f), listed(children, f)) for f in of}

    @cached_property
    def family_menu(self) -> list[tuple[int, str]]:
        """Every family's number and its name with the count of its features, largest first."""
        if self.families is None:
            return []
        sizes = self.families.groupby("family").feature.nunique().sort_values(ascending=False, kind="stable")
        return [(int(i), f"{self.family_name(i)} ({n:,})") for i, n in sizes.items()]

    def members(self, family: int) -> np.ndarray:
        """The features of a family."""
        return self.families.feature[self.families.family == family].to_numpy()

    def family_name(self, family: int) -> str:
        """As it may be shown: "unnamed" with what its root is called where it has no name of its own."""
        names = self.family_names if self.family_names is not None else {}
        name = names.get(family, "unnamed")
        if name != "unnamed":
            return name
        root = int(self.members(family)[0])
        return f"unnamed (root: {self.labels[root]})" if self.named[root] else f"unnamed ({family})"

    @cached_property
    def names_to_search(self) -> list[str]:
        """Of every feature, its name and its keywords, `folded`."""
        every = range(self.sae.d_sae)
        return [folded(" ".join([self.labels[f], *(t for t, _ in self.terms(f))])) for f in every]

    @cached_property
    def texts_to_search(self) -> tuple[np.ndarray, list[str]]:
        """The rows that are among the strongest texts of a feature, and these texts (up to 2,000 letters),
        `folded`."""
        rows = np.unique(self.rows[self.rows >= 0])
        return rows, [folded(self.texts[r][:2000]) for r in rows]

    @cached_property
    def base_rate(self) -> pd.Series:
        """Share of each domain in the corpus, most frequent first."""
        return pd.Series(self.domains).value_counts(normalize=True)

    @property
    def trust_name(self) -> str:
        """What stands for trust in a name: its column "trust" where there is one, else held-out
        "detection"."""
        return "trust" if "trust" in self.names else "detection"

    @property
    def trusts(self) -> pd.Series:
        """How far each name can be trusted: `trust` in 0 … 1, or detection (AUROC, 0.5 is chance)."""
        column = "trust" if self.trust_name == "trust" else "auroc"
        known = self.names[column] if column in self.names else pd.Series(dtype=float)
        return known.reindex(range(self.sae.d_sae)).astype(float)

    def trust(self, feature: int) -> float:
        """The same of one feature."""
        return self.score(feature, "trust" if self.trust_name == "trust" else "auroc")

    @property
    def weak(self) -> float:
        """Below this share of full trust a name is called weak: trust 0.5, or detection 0.8."""
        return 0.5 if self.trust_name == "trust" else 0.6

    def trust_share(self, feature: int) -> float:
        """The same from 0 to 1, for a bar."""
        return self.trust(feature) if self.trust_name == "trust" else 2 * self.trust(feature) - 1

    def score(self, feature: int, column: str = "auroc") -> float:
        """A number from the results, NaN where it is absent."""
        known = column in self.names and feature in self.names.index
        return float(pd.to_numeric(self.names.at[feature, column])) if known else float("nan")

    def unjudged(self, feature: int) -> bool:
        """Whether its name was put to no test: there were too few held-out texts."""
        return self.named[feature] and "auroc" in self.names and np.isnan(self.score(feature))

    def word(self, feature: int, column: str) -> str:
        """A word from the results, empty where it is absent."""
        known = column in self.names and feature in self.names.index
        return (
            str(self.names.at[feature, column]) if known and pd.notna(self.names.at[feature, column]) else ""
        )

    def terms(self, feature: int) -> list[tuple[str, float]]:
        """Keywords of a feature, each with its own detection score (NaN where it has none)."""
        if "terms" not in self.names or feature not in self.names.index:
            return []
        terms = _listed(self.names.at[feature, "terms"])
        scores = _listed(self.names.at[feature, "term_scores"]) if "term_scores" in self.names else []
        scores = scores if len(scores) == len(terms) else [np.nan] * len(terms)
        return [(str(t), float(s)) for t, s in zip(terms, scores, strict=True)]

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embeddings of new texts; a ValueError where there is no encoder."""
        if self.encoder is None:
            raise ValueError("the encoder is not loaded: pass encoder=… to make_view")
        return self.encoder.encode(texts)

    def words(self, text: str, feature: int) -> list[tuple[str, float]]:
        """The pieces of a text, each with the fall of the activation without it; embedded once for every
        feature."""
        if text not in self.effects:
            pieces = int(np.clip(PATIENCE / max(len(text.split()), 1), 12, 60))
            self.effects[text] = word_effects(self.sae, self.encode, text, pieces)
        found = self.effects[text]
        return list(zip(found.words, found.effects[:, [feature]].toarray()[:, 0].tolist(), strict=True))


def folded(text: str) -> str:
    """Text as it is searched: composed, neither capitals nor characters without width."""
    return normalize("NFC", ZERO_WIDTH.sub("", text)).casefold()


def _listed(value: object) -> list:
    """A list from a list, an array or nothing."""
    return [] if value is None or isinstance(value, float) else list(value)


def make_view(
    sae: SAE, texts: EncodedTexts, names: pd.DataFrame, *, encoder: Encoder | None = None,
    folder: str | Path | None = None, groups: np.ndarray | None = None, corpus: str = "",
    families: pd.DataFrame | None = None, family_names: pd.DataFrame | None = None,
) -> FeatureView:  # fmt: skip
    """Compute what the browser reads; the slow part (the map) is kept in `folder` when given.

    Args:
        texts: from `read_texts`; domains may be None, or hold None. names: an index of features and a column
            `label`. groups: the article of each text, for intervals that count articles. corpus: its name,
            for the line that says where all this is from. families, family_names: what `find_families` and
            `name_families` returned, for features to be walked from parent to child.

    Raises:
        ValueError: table, texts, embeddings, names or SAE do not belong together; names that are not as
        `name_features` has them.
    """
    table, n = texts.table.tocsr(), len(texts.texts)
    if table.shape != (n, sae.d_sae) or len(texts.embeddings) != n:
        found = f"the table is {table.shape}, for {n} texts, {len(texts.embeddings)} embeddings"
        raise ValueError(f"{found} and d_sae {sae.d_sae}: read the texts with this SAE (read_texts)")
    names, folder = _checked(names, sae.d_sae), None if folder is None else resolved(folder)
    if groups is not None:
        one_each("groups", groups, n)
    if families is not None:
        check_members(families, sae.d_sae)
    for frame, columns in ((families, MEMBERS), (family_names, ["label", "shown"])):
        if frame is not None and not set(columns) <= set(frame):
            raise ValueError(f"families and their names are frames with {columns}, as they are found")
    called = None
    if family_names is not None:
        called = family_names.label.where(flags(family_names.shown), "unnamed")
    given = [None] * n if texts.domains is None else texts.domains
    domains = np.array([mended("" if pd.isna(d) else str(d)) or "(none)" for d in given], dtype=object)
    near, near_cosine = atlas.nearest_rows(sae.W_dec.detach().cpu(), min(10, sae.d_sae - 1))
    together, count = _most_together(table, min(10, sae.d_sae - 1))
    view = FeatureView(
        sae, texts.texts, domains, texts.embeddings, table, names,
        feature_stats(table, domains.astype(str)), top_texts(table, 20)[0], near, near_cosine, together,
        count, atlas.feature_xy(sae, folder), encoder, folder, groups,
        families if families is not None and len(families) else None, called,
        _provenance(sae, n, encoder, corpus),
    )  # fmt: skip
    for name in ("table", "same", "named_share", "kin"):  # so that the first screen does not wait for them,
        getattr(view, name)
    for name in environment().list_templates():  # nor for templates to be compiled
        environment().get_template(name)
    return view


def _checked(names: pd.DataFrame, d_sae: int) -> pd.DataFrame:
    """The names by the number of their feature, as `name_features` has them; a ValueError for others."""
    if not isinstance(names, pd.DataFrame) or "label" not in names:
        raise ValueError("names must be a frame with a column `label`: what name_features returns")
    names = names.set_index("feature") if "feature" in names else names
    index = pd.Series(pd.to_numeric(names.index, errors="coerce"), dtype=float)
    if not (index.between(0, d_sae - 1) & (index % 1 == 0)).all() or index.duplicated().any():
        raise ValueError(f"names must have an index of features, each once and in 0..{d_sae - 1}")
    if "terms" in names:
        check_terms(names.terms)
    if "shown" in names:
        flags(names["shown"])
    whole = names["label"].map(lambda label: mended(label) if isinstance(label, str) else label)
    return names.assign(label=whole).set_axis(pd.Index(index.astype(int), name="feature"))


def _provenance(sae: SAE, n_texts: int, encoder: Encoder | None, corpus: str) -> dict[str, str]:
    """Where a view is from: corpus, encoder, SAE, date, versions."""
    by = f"{encoder.name} ({encoder.fingerprint})" if encoder else "not given"
    packages = " · ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "ipywidgets"))
    return {
        "corpus": f"{corpus + ', ' if corpus else ''}{n_texts:,} texts",
        "encoder": by,
        "SAE": f"{sae!r}, decoder {atlas.fingerprint(sae)}",
        "made": f"{datetime.date.today():%Y-%m-%d}",
        "versions": f"Python {platform.python_version()} · {packages}",
    }


def _most_together(table: sparse.csr_matrix, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each feature the n others that are most often active with it, ties by id: (ids, texts), (F, n), −1
    where none is. Counted for 512 features at a time: all pairs at once would fill the memory."""
    on = sparse.csr_matrix((np.ones(table.nnz, np.float32), table.indices, table.indptr), table.shape)
    columns, F, ids, count = on.T.tocsr(), table.shape[1], [], []
    for start in range(0, F, 512):
        both = torch.from_numpy((columns[start : start + 512] @ on).toarray())
        both[torch.arange(len(both)), torch.arange(start, start + len(both))] = 0
        key = (both.double() * F - torch.arange(F)).topk(n, dim=1).indices  # counts whole, ties by rising id
        found = both.gather(1, key).long()
        ids.append(key.where(found > 0, -1).numpy())
        count.append(found.numpy())
    return np.concatenate(ids), np.concatenate(count)


def check_feature(view: FeatureView, feature: object) -> int:
    """The number of a feature, or a ValueError that names the valid range."""
    remedy = f"give a number from 0 to {view.sae.d_sae - 1}"
    text = str(feature).strip()
    if not re.fullmatch(r"-?[0-9]{1,12}(\.0)?", text):
        raise ValueError(f"{text[:40]!r} is not a feature: {remedy}")
    number = int(text.removesuffix(".0"))
    if not 0 <= number < view.sae.d_sae:
        raise ValueError(f"there is no feature {number}: {remedy}")
    return number
