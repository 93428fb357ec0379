"""Which features make a text, which words carry a feature, why texts are similar, what tells domains apart.

All four are sums read off one SAE and its activations; nothing here knows of a browser. An SAE writes an
embedding as

    x = base + Σ_i f_i d_i + e,     d_i = W_dec,i / scale,   base = mean + b_dec / scale,   e = x − x̂

so every inner product with x splits into one part per feature. Each part is computed from its own
definition, "not explained" too (from e, the reconstruction's error): that the parts add up is a check, not
a construction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.stats import false_discovery_control, norm
from torch import Tensor

from saelib.checks import one_each
from saelib.encoder import Encode
from saelib.sae import SAE, finite


def _rows(sae: SAE, *embeddings: np.ndarray) -> Tensor:
    """Embeddings (d_in,) as rows on the SAE's device; raises ValueError for NaN and infinity."""
    return finite(np.stack(embeddings), "explained").to(sae.mean.device)


@torch.no_grad()
def explain_embedding(sae: SAE, x: np.ndarray) -> pd.DataFrame:
    """Which features make an embedding x (d_in,), and how much of it.

    With v = x − mean, each part's share is its inner product with v over ‖v‖²: f_i d_i · v for a feature,
    b_dec / scale · v for the bias, (x − x̂) · v for what is not explained. They add up to 1; a share can be
    negative.

    Returns:
        index: the active features by falling activation, then "bias" and "not explained"; columns `act`
        (NaN for the last two) and `share`.
    """
    v = _rows(sae, x)
    acts = sae.encode(v)
    error, centred, f = (v - sae.decode(acts))[0], (v - sae.mean)[0], acts[0]
    along = centred / (centred @ centred).clamp_min(1e-12)
    on = torch.nonzero(f)[:, 0]
    on = on[torch.argsort(f[on], descending=True, stable=True)]
    share = f[on] * (sae.W_dec[on] @ along) / sae.scale
    bias, rest = float(sae.b_dec @ along / sae.scale), float(error @ along)
    return pd.DataFrame(
        {"act": [*f[on].tolist(), np.nan, np.nan], "share": [*share.tolist(), bias, rest]},
        index=pd.Index([*on.tolist(), "bias", "not explained"], dtype=object),
    )


@torch.no_grad()
def cosine_parts(sae: SAE, x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Why two unit embeddings (d_in,) have their cosine.

    x·y = Σ_i ½ (f_i d_i·y + g_i d_i·x) + ½ base·(x + y) + ½ (e_x·y + e_y·x),
    with f and g the activations of x and y.

    Returns:
        index: the features active in either by falling |contribution|, then "common part" and "not
        explained"; columns `first` and `second` (activations, NaN for the last two) and `contribution`,
        which add up to the cosine.
    """
    v = _rows(sae, x, y)
    f = sae.encode(v)
    error, base = v - sae.decode(f), sae.mean + sae.b_dec / sae.scale
    on = torch.nonzero((f > 0).any(0))[:, 0]
    d = sae.W_dec[on] / sae.scale
    part = 0.5 * (f[0, on] * (d @ v[1]) + f[1, on] * (d @ v[0]))
    columns = {"first": f[0, on], "second": f[1, on], "contribution": part}
    frame = pd.DataFrame({name: c.cpu().numpy() for name, c in columns.items()}, index=on.tolist())
    frame = frame.sort_values("contribution", key=np.abs, ascending=False, kind="stable")
    rest = [0.5 * float(base @ (v[0] + v[1])), 0.5 * float(error[0] @ v[1] + error[1] @ v[0])]
    ends = pd.DataFrame({"contribution": rest}, index=["common part", "not explained"])
    return pd.concat([frame, ends.reindex(columns=frame.columns)])


class WordEffects(NamedTuple):
    """The pieces of a text, and how far each activation falls without a piece, CSC (pieces, d_sae)."""

    words: list[str]
    effects: sparse.csc_matrix


@torch.no_grad()
def word_effects(sae: SAE, encode: Encode, text: str, pieces: int = 60) -> WordEffects:
    """Which words carry a feature: each is left out in turn, and the text embedded again.

    One pass answers for every feature. A text of more than `pieces` words is cut into that many pieces of
    neighbouring words, so that the whole text counts and the number of embeddings stays bounded.
    """
    words = text.split()
    parts = [list(p) for p in np.array_split(np.array(words, dtype=object), min(pieces, len(words)) or 1)]
    without = [" ".join(w for q in parts[:i] + parts[i + 1 :] for w in q) or "." for i in range(len(parts))]
    x = torch.from_numpy(encode([" ".join(words) or ".", *without])).to(sae.mean.device)
    acts = sparse.csr_matrix(sae.encode(x).cpu().numpy())
    whole = sparse.vstack([acts[:1]] * len(parts))
    return WordEffects([" ".join(p) for p in parts], (whole - acts[1:]).tocsc())


def domain_contrast(
    acts: sparse.csr_matrix,
    domains: np.ndarray,
    first: str,
    second: str,
    groups: np.ndarray | None = None,
    level: float = 0.05,
) -> pd.DataFrame:
    """Features over-represented in one domain (or corpus) against another.

    Args:
        acts: activations, (n, d_sae). domains: of each text, (n,). first, second: two of them. groups: the
            article (or author) of each text, (n,): texts of one group are not independent, and intervals
            widen by the design effect; a text with None, NaN or "" is a group of its own.

    Returns:
        index feature (those active in either), by falling `log_odds`: `share_first`, `share_second`,
        `log_odds` (log odds ratio, ½ added to each count: Haldane–Anscombe), `low` and `high` (its Wald
        interval at 1 − level), and `q`: the test's p after Benjamini and Hochberg (1995) over all rows.

    Raises:
        ValueError: no text has the domain, or not each has a domain and a group.
    """
    for what, given in (("domains", domains), ("groups", groups)):
        if given is not None:
            one_each(what, given, acts.shape[0])
    sides = []
    for name in (first, second):
        rows = np.flatnonzero(np.asarray(domains) == name)
        if not len(rows):
            some = ", ".join(map(str, pd.unique(pd.Series(domains))[:20]))
            raise ValueError(f"no text has the domain {name!r}; there are {some}")
        on = (sparse.csr_matrix(acts)[rows] > 0).astype(np.float64)
        sides.append(_log_odds(on, None if groups is None else np.asarray(groups, dtype=object)[rows]))
    (count_a, share_a, odds_a, var_a), (count_b, share_b, odds_b, var_b) = sides
    odds, error = odds_a - odds_b, np.sqrt(var_a + var_b)
    frame = pd.DataFrame({"share_first": share_a, "share_second": share_b, "log_odds": odds})
    wide = norm.isf(level / 2) * error
    frame = frame.assign(low=odds - wide, high=odds + wide, p=2 * norm.sf(np.abs(odds / error)))
    frame = frame[count_a + count_b > 0].rename_axis("feature")
    frame["q"] = false_discovery_control(frame.pop("p"), method="bh") if len(frame) else []
    return frame.sort_values("log_odds", ascending=False, kind="stable")


def _log_odds(on: sparse.csr_matrix, groups: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Of each column of 0/1 values (n, F): count, share, log odds, and their variance."""
    n, count = on.shape[0], np.asarray(on.sum(0)).ravel()
    share = count / n
    variance = 1 / (count + 0.5) + 1 / (n - count + 0.5)
    if groups is not None:
        # design effect: Σ_g (Σ_{i in g} y_i − share)², against n share (1 − share) for independent texts
        codes, names = pd.factorize(np.where(groups == "", None, groups))
        codes = np.where(codes < 0, len(names) + np.arange(n), codes)  # without one: a group of its own
        member = sparse.csr_matrix((np.ones(n), (codes, np.arange(n))))
        size, sums = np.bincount(codes, minlength=len(names)), sparse.csr_matrix(member @ on)
        spread = np.asarray(sums.power(2).sum(0)).ravel() - 2 * share * (sums.T @ size)
        spread += share**2 * (size**2).sum()
        independent = n * share * (1 - share)
        effect = np.divide(spread, independent, out=np.ones_like(spread), where=independent > 0)
        variance = variance * np.maximum(effect, 1)
    return count, share, np.log((count + 0.5) / (n - count + 0.5)), variance
