"""Trust: the chance that a reader accepts a name as it stands, from what is known without any reader.

Five signals of a name and the ten strongest training texts of its feature go into a logistic regression,
fitted on 900 rated names made of keywords, of two corpora (`data/readers/`;
`tests/benchmarks/readers.py --fit` fits it again and writes `trust.json`). All come from words and from an
encoder that did not make the embeddings: the one that did is the accused, and its cosines mean something
else for every model. Trust says how a name will read, not how
well it finds texts; that is measured in `scoring.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from saelib.activations import EncodedTexts, top_texts
from saelib.encoder import Encode
from saelib.naming.language import ENGLISH, Language
from saelib.naming.lexicon import COMMON, Lexicon
from saelib.sae import SAE

FITTED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
SIGNALS = ["closeness", "held", "rarest", "common", "spelled"]
THRESHOLD: float = FITTED["threshold"]  # a feature whose name is trusted less is shown as "unnamed"
WORD = re.compile(r"\w\w+")
PREFIX = re.compile(r"(?<![\w-])([^\W\d_]{1,5})-(?![\w-])")  # the "st-" of "words beginning with st-"


def name_signals(
    names: pd.DataFrame, train: EncodedTexts, independent: Encode, language: Language = ENGLISH
) -> pd.DataFrame:
    """What is known of a name without a reader.

    Args:
        names: index feature, columns `label` (str), `terms` (list of str); a feature may stand there twice.
        train: the texts that names were chosen by.
        independent: n strings → (n, d) unit vectors of an encoder that did not make the embeddings, centred
            on the corpus' mean.

    Returns:
        The same index. `closeness`: mean cosine of the label with the ten strongest texts; `held`: the share
        of them that hold all words (stems) of a term, of the term that the fewest hold; `rarest`: log of the
        share of all training texts that hold the label's rarest word; `common`: how far that is above the
        log of 3%, else 0 (a word of every other text names nothing); `spelled`: for a name like "words
        beginning with st-", the share of the ten texts that hold such a word, else 0.

    Raises:
        ValueError: a feature that the table has not, terms that are no lists.
    """
    if not names.index.isin(range(train.table.shape[1])).all():
        raise ValueError(f"names have features beyond {train.table.shape[1] - 1}: they are another SAE's")
    rows, _ = top_texts(train.table, 10)
    strongest = [[train.texts[r] for r in rows[f] if r >= 0] for f in names.index]
    return signals_of(names, strongest, independent, Lexicon(train.texts, language))


def signals_of(
    names: pd.DataFrame, texts: list[list[str]], independent: Encode, lexicon: Lexicon
) -> pd.DataFrame:
    """`name_signals` for names whose strongest texts are given: a list of texts for each row of `names`.

    lexicon: of the corpus, which knows how common a word is.
    """
    flat = list(dict.fromkeys(t for ts in texts for t in ts))
    vectors, stems = (
        dict(zip(flat, independent(flat), strict=True)),
        dict(zip(flat, lexicon.stems(flat), strict=True)),
    )
    labels, records = independent([label or "?" for label in names.label]), []
    for name, vector, strongest in zip(names.itertuples(), labels, texts, strict=True):
        closeness = np.mean([vectors[t] @ vector for t in strongest]) if strongest else 0.0
        shares = [
            np.mean([bool(term) and term <= stems[t] for t in strongest])
            for term in lexicon.stems(name.terms)
        ]
        records.append((closeness, min(shares, default=0.0), spelled(name.label, strongest)))
    found = pd.DataFrame(records, columns=["closeness", "held", "spelled"], index=names.index, dtype=float)
    rarest = lexicon.rarest(list(names.label))
    return found.assign(rarest=rarest, common=np.maximum(rarest - COMMON, 0))[SIGNALS]


def spelled(label: str, texts: list[str]) -> float:
    """Share of the texts with a word that begins as the label says ("words beginning with st-"), else 0."""
    prefixes = tuple(PREFIX.findall(label.lower()))
    if not prefixes or not texts:
        return 0.0
    return float(np.mean([any(w.startswith(prefixes) for w in WORD.findall(t.lower())) for t in texts]))


def trust(signals: pd.DataFrame, fitted: dict | None = None) -> pd.Series:
    """The chance in (0, 1) that a reader accepts the name as it stands: σ(intercept + Σ coefficient·signal).

    Args:
        signals: what `name_signals` gives.
        fitted: `intercept` and `coefficients`; None: those of `trust.json`, which hold for names of one to
            three terms and for wordllama as the independent encoder. Under another one the order of names
            still means something, the probability does not.

    Raises:
        ValueError: a signal is missing.
    """
    missing = [s for s in SIGNALS if s not in signals]
    if missing:
        raise ValueError(f"signals {missing} are missing; name_signals gives {SIGNALS}")
    fitted = fitted or FITTED
    logit = fitted["intercept"] + sum(signals[s] * fitted["coefficients"][s] for s in SIGNALS)
    return (1 / (1 + np.exp(-logit))).rename("trust")


def calibration(predicted: np.ndarray, accepted: np.ndarray, n_bins: int = 6) -> pd.DataFrame:
    """Predicted against found, in bins of equally many names: `predicted` and `accepted` (means), `n`.

    The expected calibration error is the mean of |predicted − accepted| weighted by n.
    """
    order = np.argsort(predicted, kind="stable")
    parts = [p for p in np.array_split(order, n_bins) if len(p)]
    predicted, accepted = np.asarray(predicted, dtype=float), np.asarray(accepted, dtype=float)
    return pd.DataFrame(
        [(predicted[p].mean(), accepted[p].mean(), len(p)) for p in parts],
        columns=["predicted", "accepted", "n"],
    )


@torch.no_grad()
def named_share(
    sae: SAE, x: torch.Tensor, named: np.ndarray, batch_size: int = 4096
) -> tuple[float, np.ndarray]:
    """How much of the variance can be said in words: 1 − ‖x − x̂‖² / ‖x − mean‖², x̂ from named features.

    Args:
        x: held-out embeddings (n, d_in). named: (d_sae,) bool, features with a name that is shown; the
            activations of the others are set to zero. All named: 1 − FVU (`metrics.evaluate`).

    Returns:
        The share over the set (sums, then the ratio), and per text (n,). Both can be negative: what the named
        features alone make may be further away than the mean is.

    Raises:
        ValueError: `named` is not one bool per feature.
    """
    named = torch.as_tensor(np.asarray(named, dtype=bool), device=x.device)
    if named.shape != (sae.d_sae,):
        raise ValueError(f"named has shape {tuple(named.shape)}, not ({sae.d_sae},): one bool per feature")
    mean = x.mean(0)
    left = torch.cat([
        (part - sae.decode(sae.encode(part) * named)).square().sum(1) for part in x.split(batch_size)
    ]).double()  # fmt: skip
    total = (x - mean).square().sum(1).double()
    return float(1 - left.sum() / total.sum()), (1 - left / total).cpu().numpy()
