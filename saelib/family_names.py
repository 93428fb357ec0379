"""A name for a family: from its members' texts, chosen and trusted as a feature's name is.

A family is read as one wide feature: how active it is on a text is the sum of its members' activations, each
over its own mean. Its strongest texts are then those where several members agree.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from saelib.activations import EncodedTexts, feature_stats
from saelib.encoder import EmbeddingCache, Encode
from saelib.families import check_members
from saelib.naming.language import ENGLISH, Language
from saelib.naming.pipeline import choose, top_rows
from saelib.naming.trust import THRESHOLD, name_signals, trust
from saelib.sae import SAE


def family_table(table: sparse.csr_matrix, members: pd.DataFrame) -> sparse.csr_matrix:
    """Activations of families, Σ over members of f_i / (mean active f_i): (n, d_sae) → (n, n_families)."""
    mean = feature_stats(table).mean_active.to_numpy()
    weight = 1 / np.maximum(mean[members.feature], 1e-9)
    shape = (table.shape[1], int(members.family.max()) + 1 if len(members) else 0)
    return (table @ sparse.csr_matrix((weight, (members.feature, members.family)), shape)).astype(np.float32)


def name_families(
    sae: SAE, train: EncodedTexts, members: pd.DataFrame, vectors: EmbeddingCache, independent: Encode,
    language: Language = ENGLISH,
) -> pd.DataFrame:  # fmt: skip
    """Names chosen on training texts: candidates of self-activation are asked of the family's root.

    Args:
        members: of `find_families`, or any frame with `family` (0, 1, …) and `feature`, the root first (or
            with the `parent` −1).
        vectors: the cache of the encoder that made the embeddings. independent: a second opinion,
            `load_independent(train.texts)`. language: stop words and stemmer of the texts' language.

    Returns:
        index family: `label`, `terms`, `trust`, `shown` (False: to be read as "unnamed"), `top_rows`.

    Raises:
        ValueError: a member that is no feature of this SAE.
    """
    if not len(members):
        columns, index = ["label", "terms", "trust", "shown", "top_rows"], pd.Index([], name="family")
        return pd.DataFrame(columns=columns, index=index).astype({"trust": float, "shown": bool})
    check_members(members, sae.d_sae)
    if "parent" in members:
        members = members.sort_values("parent", key=lambda p: p >= 0, kind="stable")
    wide, first = train._replace(table=family_table(train.table, members)), members.drop_duplicates("family")
    roots = np.zeros(wide.table.shape[1], np.int64)  # families may be numbered with gaps
    roots[first.family] = first.feature
    names = choose(sae, wide, vectors, independent, parents=roots, language=language).rename_axis("family")
    names["trust"] = trust(name_signals(names, wide, independent, language))
    return names.assign(shown=names.trust >= THRESHOLD, top_rows=top_rows(wide.table))
