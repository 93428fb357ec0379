"""Where the points of a map lie, in which order they are drawn, which are named, and how a domain looks.

Arrays in, arrays out: the map on the screen (static/map.js) and the picture draw from here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from saelib.files import kept
from saelib.sae import SAE

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito
PALETTE = [BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#B8A000", "#7A4FBF"]


class Shape(NamedTuple):
    """One sign, as each way of drawing calls it; `path` is an SVG path of about unit radius."""

    sign: str
    marker: str
    path: str


SHAPES = [
    Shape("●", "o", "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0"),
    Shape("■", "s", "M-.9-.9h1.8v1.8h-1.8z"),
    Shape("▲", "^", "M0-1.2L1.1.8H-1.1z"),
    Shape("◆", "D", "M0-1.2L1.2 0L0 1.2L-1.2 0z"),
    Shape("✚", "P", "M-.4-1.2h.8v.8h.8v.8h-.8v.8h-.8v-.8h-.8v-.8h.8z"),
    Shape("✖", "X", "M-1.1-.6L-.6-1.1L0-.5L.6-1.1L1.1-.6L.5 0L1.1.6L.6 1.1L0 .5L-.6 1.1L-1.1.6L-.5 0z"),
]
OTHER = ("#808080", SHAPES[0])


def domain_looks(names: list[str]) -> dict[str, tuple[str, Shape]]:
    """A colour and a shape for each domain, no two alike; after 48 (give the frequent first) all are grey."""
    pairs = [(colour, shape) for shape in SHAPES for colour in PALETTE]
    return {name: pairs[i] if i < len(pairs) else OTHER for i, name in enumerate(names)}


def fingerprint(sae: SAE) -> str:
    """Sixteen letters that stand for the SAE's decoder."""
    return hashlib.sha256(sae.W_dec.detach().cpu().numpy().tobytes()).hexdigest()[:16]


def map_file(sae: SAE, folder: Path) -> Path:
    """Where the map of this SAE is kept: named after its decoder, so that no other SAE gets an old map."""
    return Path(folder) / f"map-{fingerprint(sae)}.safetensors"


def feature_xy(sae: SAE, folder: Path | None = None) -> np.ndarray:
    """The decoder rows in two dimensions (d_sae, 2), kept in `folder`; made anew where the file is damaged.

    By t-SNE of the thirty nearest rows; by two principal components where there are ten features or fewer.
    """
    return kept(map_file(sae, folder) if folder else None, (sae.d_sae, 2), lambda: _two_dimensions(sae))


def _two_dimensions(sae: SAE) -> np.ndarray:
    W = torch.nn.functional.normalize(sae.W_dec.detach().cpu(), dim=1).numpy()
    ids, cosine = nearest_rows(W, min(30, len(W) - 1))
    return places(W, ids, 1 - cosine)


def places(x: np.ndarray, ids: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Rows of x (N, d) in two dimensions (N, 2), from each row's n nearest others (N, n).

    t-SNE (van der Maaten and Hinton 2008; interpolated, Linderman et al. 2019), with n / 3 neighbours as its
    perplexity; two principal components where n is under ten.
    """
    centred, flat = x - x.mean(0), np.zeros((len(x), 2))
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    flat[:, : len(axes)] = centred @ axes.T
    if ids.shape[1] < 10:
        return flat
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    known = PrecomputedNeighbors(ids, distances.clip(0))
    near = PerplexityBasedNN(knn_index=known, perplexity=ids.shape[1] / 3)
    start = 1e-4 * flat / max(flat[:, 0].std(), 1e-9)
    return np.asarray(TSNE(random_state=0).fit(affinities=near, initialization=start))


def nearest_rows(x: np.ndarray | torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of x (N, d) the n others with the highest cosine, rows being unit vectors: (rows, cosines),
    both (N, n)."""
    x = torch.as_tensor(x, dtype=torch.float32)
    near, cosines = [], []
    for start, part in zip(range(0, len(x), 1024), x.split(1024), strict=True):
        cosine = part @ x.T
        cosine[torch.arange(len(part)), torch.arange(start, start + len(part))] = -2
        best = cosine.topk(n, dim=1)
        near.append(best.indices.numpy())
        cosines.append(best.values.numpy())
    return np.concatenate(near), np.concatenate(cosines)


def unit_square(xy: np.ndarray) -> np.ndarray:
    """Points (n, 2) within [0, 1)²."""
    return (xy - xy.min(0)) / np.maximum(np.ptp(xy, axis=0), 1e-9) * (1 - 1e-6)


def _first_of_cells(unit: np.ndarray, n: int) -> np.ndarray:
    """Positions, ascending, of the first point in each of n × n cells; `unit` from `unit_square`."""
    return np.sort(np.unique((unit * n).astype(int) @ [n, 1], return_index=True)[1])


def apart(xy: np.ndarray, letters: np.ndarray, weight: np.ndarray, n: int = 4) -> list[int]:
    """Which points get their name written: the heaviest of each of n × n cells, no name over another.

    Args:
        xy: (n, 2). letters: how long each name is, (n,). weight: (n,).
    """
    if not len(xy):
        return []
    unit, order = unit_square(xy), np.argsort(-weight, kind="stable")
    kept: list[int] = []
    for i in order[_first_of_cells(unit[order], n)]:
        gap = np.abs(unit[kept] - unit[i])  # a letter is about 0.8% of the width, a line 4% of the height
        if not ((gap[:, 0] < 0.004 * (letters[kept] + letters[i])) & (gap[:, 1] < 0.04)).any():
            kept.append(int(i))
    return kept


def drawing_order(xy: np.ndarray, weight: np.ndarray, levels: int = 10) -> np.ndarray:
    """Positions 0 … n − 1 such that any first part covers the map evenly.

    The heaviest point, then the heaviest of each of 2 × 2 cells, of 4 × 4, …; xy (n, 2), weight (n,).
    """
    unit, left, parts = unit_square(xy), np.argsort(-weight, kind="stable"), []
    for level in range(levels):
        first = _first_of_cells(unit[left], 2**level)
        parts.append(left[first])
        left = np.delete(left, first)
    return np.concatenate([*parts, left])
