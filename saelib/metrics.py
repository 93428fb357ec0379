"""Numbers that say how good an SAE is, all on held-out embeddings. Nothing here trains an SAE."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as nnf
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import MaxAbsScaler
from torch import Tensor

from saelib.checks import whole
from saelib.sae import SAE, as_embeddings, check_embeddings, finite


class Evaluation(NamedTuple):
    """fvu: ‖x − x̂‖² / ‖x − mean‖², sums over the set (0 perfect, 1 no better than the mean);
    cosine: mean of cos(x, x̂); l0: mean number of active features; dead: share of features that are
    active on none of these embeddings."""

    fvu: float
    cosine: float
    l0: float
    dead: float


@torch.no_grad()
def evaluate(sae: SAE, x: Tensor, batch_size: int = 2048) -> Evaluation:
    """Evaluate on raw embeddings x (n, d_in): a tensor, an array, a DataFrame of numbers.

    Raises:
        ValueError: no embeddings, all as good as equal, NaN or infinity. FloatingPointError: the FVU is no
        number, as of an SAE with such weights.
    """
    x = as_embeddings(x, "held-out").to(sae.mean.device, torch.float32)
    check_embeddings(x, "held-out")
    mean = x.mean(0)
    error = total = cosine = active = 0.0
    fired = torch.zeros(sae.d_sae, dtype=torch.bool, device=x.device)
    for chunk in x.split(whole("batch_size", batch_size)):
        acts = sae.encode(chunk)
        x_hat = sae.decode(acts)
        error += float((chunk - x_hat).square().sum())  # not float64 on the device: Apple's has none
        total += float((chunk - mean).square().sum())
        cosine += float(nnf.cosine_similarity(chunk, x_hat).sum())
        active += int((acts > 0).sum())
        fired |= (acts > 0).any(0)
    n = len(x)
    if not math.isfinite(error / total):
        raise FloatingPointError(
            f"the FVU is {error / total}: the SAE's weights or the embeddings are too large"
        )
    return Evaluation(error / total, cosine / n, active / n, float((~fired).float().mean()))


@torch.no_grad()
def mean_max_cosine(found: Tensor, truth: Tensor) -> float:
    """Mean over the rows of `truth` (n, d) of the best cosine with a row of `found` (m, d).

    Several rows of `truth` may share a best row; `match_features` matches one to one.
    """
    return float((nnf.normalize(truth, dim=1) @ nnf.normalize(found, dim=1).T).max(1).values.mean())


@torch.no_grad()
def match_features(a: Tensor, b: Tensor) -> pd.DataFrame:
    """Match the features of two decoders one to one, the sum of cosines the largest there is.

    Args:
        a, b: decoders (F, d) and (F', d), `W_dec` of two SAEs.

    Returns:
        One row per feature of a: `match`, its feature of b, and their `cosine`; −1 and NaN for those of a
        larger a that are left over.

    Raises:
        ValueError: what are no rows of numbers, NaN or infinity.
    """
    a, b = finite(a, "first"), finite(b, "second")
    cosine = (nnf.normalize(a, dim=1) @ nnf.normalize(b, dim=1).T).cpu().numpy()
    rows, cols = linear_sum_assignment(cosine, maximize=True)
    frame = pd.DataFrame({"match": -1, "cosine": np.nan}, index=pd.RangeIndex(len(a), name="feature"))
    frame.loc[rows, "match"], frame.loc[rows, "cosine"] = cols, cosine[rows, cols]
    return frame


@torch.no_grad()
def neighbour_recall(x: Tensor, x_hat: Tensor, k: int = 10) -> float:
    """Share of each embedding's k nearest neighbours (cosine, in the set) that its reconstruction has too.

    What a search over reconstructions would find of what a search over embeddings finds; x, x_hat (n, d).

    Raises:
        ValueError: fewer than k + 1 rows, x_hat of another shape, NaN or infinity.
    """
    x, x_hat, k = finite(x, "original"), finite(x_hat, "reconstructed"), whole("k", k)
    if x.shape != x_hat.shape:
        raise ValueError(
            f"reconstructions are {tuple(x_hat.shape)}, embeddings {tuple(x.shape)}: not of these"
        )
    if len(x) <= k:
        raise ValueError(f"{k} neighbours need more than {len(x)} embeddings: lower k")
    a, b = nnf.normalize(x, dim=1), nnf.normalize(x_hat, dim=1)
    shared = 0
    for rows in torch.arange(len(x), device=x.device).split(1024):
        own = (torch.arange(len(rows), device=x.device), rows)  # nobody is a neighbour of itself
        near = [(v[rows] @ v.T).index_put(own, v.new_tensor(-2.0)).topk(k).indices for v in (a, b)]
        shared += int((near[0][:, :, None] == near[1][:, None, :]).sum())
    return shared / (k * len(x))


def probe_accuracy(
    train: np.ndarray | sparse.csr_matrix,
    y_train: np.ndarray,
    test: np.ndarray | sparse.csr_matrix,
    y_test: np.ndarray,
) -> float:
    """Held-out accuracy of a logistic regression from features or embeddings (n, d) to domains (n,).

    Columns are divided by their largest absolute value (which keeps zeros zero). The strength C of the
    regularisation is chosen by threefold cross-validation on (at most 4,000 of) the training part, for dense
    and sparse inputs alike: with one C for all, whom it suits looks best.
    """
    scaler = MaxAbsScaler().fit(train)
    x, y = scaler.transform(train), np.asarray(y_train)
    some = np.random.default_rng(0).permutation(len(y))[:4000]
    grid = {"C": [0.01, 0.1, 1.0, 10.0, 100.0]}
    search = GridSearchCV(LogisticRegression(max_iter=200, tol=1e-3), grid, cv=3, refit=False).fit(
        x[some], y[some]
    )
    probe = LogisticRegression(**search.best_params_, max_iter=300, tol=1e-3).fit(x, y)
    return float(probe.score(scaler.transform(test), y_test))
