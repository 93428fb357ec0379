"""The features of one SAE looked for in another: across knowledge domains, and as d_sae grows.

Two SAEs over one encoder write in the same space, so their decoder rows can be compared by cosine: matched
one to one (`match_features`) between domains, the nearest between sizes, where a feature may become several.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as nnf
from torch import Tensor

from saelib.metrics import match_features


@torch.no_grad()
def null_cosines(a: Tensor, b: Tensor, seed: int = 0) -> pd.DataFrame:
    """The cosines that a one-to-one match reaches when there is nothing to find.

    Args:
        a, b: decoders (F, d) and (F', d).

    Returns:
        Two columns, a row per feature of a: `shuffled`, b with the entries of each row in random order;
        `mixed`, b replaced by as many random mixtures of its own rows, which lie where decoders lie and are
        the stricter null.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(b.shape, generator=generator).argsort(1).to(b.device)
    mixed = torch.randn(len(b), len(b), generator=generator).to(b.device) @ nnf.normalize(b, dim=1)
    nulls = {"shuffled": b.gather(1, order), "mixed": mixed}
    return pd.DataFrame({name: match_features(a, null).cosine for name, null in nulls.items()})


def shared_features(decoders: Mapping[str, Tensor], level: float) -> pd.DataFrame:
    """For each pair of SAEs the share of the first one's features (row) found in the second (column).

    Found: matched one to one with a cosine of at least `level`. The diagonal is 1.
    """
    share = {
        b: {a: (match_features(A, B).cosine >= level).mean() if a != b else 1.0 for a, A in decoders.items()}
        for b, B in decoders.items()
    }
    return pd.DataFrame(share).loc[list(decoders), list(decoders)]


def found_in(joint: Tensor, decoders: Mapping[str, Tensor], level: float) -> pd.DataFrame:
    """Which SAEs have each feature of a joint one: (d_sae rows, a column per SAE), its match there or −1.

    A feature with one hit is a domain's own, with several shared, with none the joint SAE's alone.
    """
    columns = {}
    for name, decoder in decoders.items():
        match = match_features(joint, decoder)
        columns[name] = match.match.where(match.cosine >= level, -1)
    return pd.DataFrame(columns)


@torch.no_grad()
def splits(small: Tensor, large: Tensor, level: float) -> pd.DataFrame:
    """Where the features of a larger SAE come from: its nearest row of the smaller one.

    Args:
        small, large: decoders (F, d) and (F', d). level: the cosine from which on a row counts as near.

    Returns:
        One row per feature of `large`: `parent`, a feature of `small`, or −1 ("appears"); `cosine`, with the
        nearest row, near or not.
    """
    cosine, parent = (nnf.normalize(large, dim=1) @ nnf.normalize(small, dim=1).T).max(1)
    cosine, parent = cosine.cpu().numpy(), parent.cpu().numpy()
    frame = pd.DataFrame({"parent": np.where(cosine >= level, parent, -1), "cosine": cosine})
    return frame.rename_axis("feature")


def fates(split: pd.DataFrame, d_small: int) -> pd.DataFrame:
    """What becomes of the features of the smaller SAE: index feature, `children`, `fate`.

    Fates: "gone" (no child), "stays" (one), "splits" (several). `split` as `splits` gives it.
    """
    children = np.bincount(split.parent[split.parent >= 0], minlength=d_small)
    fate = np.select([children == 0, children == 1], ["gone", "stays"], "splits")
    return pd.DataFrame({"children": children, "fate": fate}).rename_axis("feature")
