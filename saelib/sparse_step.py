"""The fast training step on a CPU: the loss of `SAE.loss`, at a fraction of its cost.

Of a text's d_sae activations a few are not zero. The dense formula multiplies the zeros too, forward and
backward: five matrix products. Here one is left, the encoder's, and everything else touches the selected
entries only. The results are equal (`tests/test_sparse_step.py`: to 1e-10 in float64). On a GPU dense
products are nearly free, and `SAE.loss` is used.

Letters as in `sae.py`: B batch, D = d_in, F = d_sae; E selected entries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from threading import get_ident

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy import sparse
from torch import Tensor

from saelib import processes
from saelib.sae import SAE, BatchTopKSAE, JumpReLUSAE, Loss, TopKSAE, VanillaSAE, aux_loss, jump_relu

SCREEN = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # without it bfloat16 is slower
DENSE = 8  # of more entries than one in so many, five dense products are faster
TINY = np.finfo(np.float32).tiny
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def loss_function(sae: SAE) -> Callable[..., Loss]:
    """What computes this SAE's training loss fastest where its weights are: `sparse_loss` or `sae.loss`."""
    return partial(sparse_loss, sae) if sae.W_enc.device.type == "cpu" else sae.loss


def sparse_loss(
    sae: SAE, x: Tensor, coefficient: float | Tensor, dead: Tensor | None, k_aux: int, aux_coef: float
) -> Loss:
    """`sae.loss` by the sparse step: same arguments, same loss, same gradients."""
    z = sae.normalize(x)
    found = select(sae, z)
    if found is None:  # too many entries
        return sae.loss(x, coefficient, dead, k_aux, aux_coef)
    at, pre = Places(found[0], found[1], sae.d_sae), found[2]
    W_enc = sae.W_enc.t()  # (F, D): row by row in memory, as W_dec
    f, penalty = activate(sae, SparseEncode.apply(z, W_enc, sae.b_enc, at, pre), at)
    z_hat = SparseDecode.apply(f, sae.W_dec, at) + sae.b_dec
    recon = (z - z_hat).square().sum(1).mean() / sae.d_in
    aux = z.new_zeros(())
    if dead is not None and len(dead):  # sparse: gradients of the dead rows alone, added to the others'
        enc, dec = (nnf.embedding(dead, W, sparse=True) for W in (W_enc, sae.W_dec))
        aux = aux_loss(z, z_hat, enc.t(), sae.b_enc[dead], dec, k_aux)
    fired, active = f.detach() > 0, torch.zeros(sae.d_sae, dtype=torch.bool)
    active[at.cols[fired].long()] = True
    total = recon + coefficient * penalty + aux_coef * aux
    return Loss(total, recon.detach(), fired.sum() / len(z), aux.detach(), active)


def activate(sae: SAE, pre: Tensor, at: Places) -> tuple[Tensor, Tensor]:
    """`sae.activate_in_training` of the selected entries (E,) alone: f (E,) and the penalty."""
    if isinstance(sae, JumpReLUSAE):
        f, step = jump_relu(pre, sae.threshold.index_select(0, at.cols), sae.bandwidth)
        return f, sae.penalty(step.sum() / at.n_texts)
    if isinstance(sae, VanillaSAE):
        norms = sae.W_dec.norm(dim=1).index_select(0, at.cols)
        return pre, (pre * norms).sum() / at.n_texts / sae.d_in
    return pre, pre.new_zeros(())


@torch.no_grad()
def select(sae: SAE, z: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The entries of π that f or a gradient depends on, of z (B, D): (crow, cols, π), CSR.

    TopK and BatchTopK: the positive ones that training keeps. Vanilla: the positive ones. JumpReLU: those
    over θ − ε/2. None where these are so many that the dense formula is the faster.
    """
    if isinstance(sae, TopKSAE):
        return select_largest(sae, z)
    pre = encoder_product(sae, z)
    least = sae.threshold - sae.bandwidth / 2 if isinstance(sae, JumpReLUSAE) else 0.0
    found = np.flatnonzero((pre > least).numpy())
    if len(found) > pre.numel() // DENSE:
        return None
    rows, cols = np.divmod(found, sae.d_sae)
    return _offsets(rows, len(z)), torch.from_numpy(cols.astype(np.int32)), pre.flatten()[found]


@torch.no_grad()
def select_largest(sae: TopKSAE, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of ReLU(π) that training keeps of z (B, D): the k largest of each row, or the k·B of
    the batch.

    Where the CPU multiplies bfloat16 fast, such a product only screens: an eighth more entries than wanted,
    whose exact values decide.
    """
    screen = SCREEN and sae.d_sae >= 2048 and z.dtype == torch.float32
    if screen:  # positive bfloat16 numbers sort as the whole numbers with the same bits
        pre = torch.addmm(sae.b_enc.bfloat16(), z.bfloat16(), sae.W_enc.bfloat16()).view(torch.int16)
    else:
        pre = encoder_product(sae, z)
    # the whole batch is one group for BatchTopK, each text is one for TopK
    whole_batch = isinstance(sae, BatchTopKSAE)
    n, groups = (sae.k * len(z) * processes.count(), pre.view(1, -1)) if whole_batch else (sae.k, pre)
    found = at_least(groups, n + max(n // 8, 4) if screen else n)
    rows, cols = np.divmod(found, sae.d_sae)
    crow = _offsets(rows, len(z))
    if screen:
        values = products(z, sae.W_enc, crow, torch.from_numpy(cols)) + sae.b_enc[cols]
    else:
        values = pre.flatten()[found]
    keep = largest(values.numpy(), found // groups.shape[1], n)
    if whole_batch:
        keep[keep] = processes.among_largest(values[torch.from_numpy(keep)], n).numpy()
    crow = _offsets(rows[keep], len(z))
    return crow, torch.from_numpy(cols[keep].astype(np.int32)), values[torch.from_numpy(keep)]


def at_least(groups: Tensor, n: int) -> np.ndarray:
    """Flat positions of all positive entries that may be among the n largest of their row of `groups` (R,
    N).

    Cut a row into blocks. At least n entries reach the n-th largest of the blocks' maxima (those n maxima
    do), so none below it is among the n largest: to find it takes one pass and a selection among N / 16
    numbers.
    """
    n_rows, width = groups.shape
    block = next(b for b in (16, 8, 4, 2, 1) if width % b == 0 and (width // b >= 4 * n or b == 1))
    maxima = groups.view(n_rows, block, width // block).amax(1).numpy()
    cut = nth_largest(maxima, n).clip(1 if groups.dtype == torch.int16 else TINY)
    return np.flatnonzero(groups.numpy() >= cut)


def largest(values: np.ndarray, row: np.ndarray, n: int) -> np.ndarray:
    """Which values (E,) are positive and among the n largest of their row (E,), ascending."""
    count = np.bincount(row)
    place = np.arange(len(row)) - (np.cumsum(count) - count)[row]
    table = np.full((len(count), count.max(initial=1)), -np.inf, values.dtype)
    table[row, place] = values
    return values >= nth_largest(table, n).clip(TINY)[row, 0]


def nth_largest(table: np.ndarray, n: int) -> np.ndarray:
    """The n-th largest number of each row (R, N), the smallest where there are fewer: (R, 1)."""
    at = max(table.shape[1] - n, 0)
    return np.partition(table, at, axis=1)[:, at : at + 1]


def encoder_product(sae: SAE, z: Tensor) -> Tensor:
    """π of z (B, D): (B, F), good until the next call: it is written over what the last one gave."""
    return torch.addmm(sae.b_enc, z, sae.W_enc, out=_room(len(z), sae.d_sae, z.dtype, get_ident()))


@lru_cache(1)
def _room(n_texts: int, d_sae: int, dtype: torch.dtype, thread: int) -> Tensor:  # noqa: ARG001
    """Memory that a thread keeps: at d_sae 12288, to ask for it anew costs a third of the product."""
    return torch.empty(n_texts, d_sae, dtype=dtype)


def _offsets(rows: np.ndarray, n_rows: int) -> Tensor:
    crow = np.zeros(n_rows + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=n_rows), out=crow[1:])
    return torch.from_numpy(crow)


def products(a: Tensor, b: Tensor, crow: Tensor, cols: Tensor) -> Tensor:
    """The entries (E,) of a @ b, (B, D) and (D, F), at the places of a CSR pattern; no other is computed."""
    shape, zeros = (len(a), b.shape[1]), a.new_zeros(len(cols))
    where = torch.sparse_csr_tensor(crow, cols.int(), zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(where, a, b.detach(), beta=0).values()


class Places:
    """Where E selected entries stand in a matrix (B, F): those of text i are crow[i] to crow[i + 1].

    Sums over the entries of a text (ẑ) or of a feature (the gradients) are `embedding_bag`s: weighted sums
    of rows of a matrix.
    """

    def __init__(self, crow: Tensor, cols: Tensor, d_sae: int) -> None:
        self.crow, self.cols, self.n_texts = crow, cols, len(crow) - 1
        entries = (np.arange(len(cols)), cols.numpy(), crow.numpy())
        by_feature = sparse.csr_matrix(entries, shape=(self.n_texts, d_sae)).tocsc()
        self.order = torch.from_numpy(by_feature.data)
        rows, starts = by_feature.indices, by_feature.indptr[:-1]
        self.rows, self.starts = (torch.from_numpy(a.astype(np.int32)) for a in (rows, starts))

    def per_text(self, source: Tensor, weights: Tensor) -> Tensor:
        """Σ weights_e source[col_e] over the entries e of each text: (F, D), (E,) → (B, D)."""
        return _bags(self.cols, source, self.crow[:-1], weights)

    def per_feature(self, source: Tensor, weights: Tensor) -> Tensor:
        """Σ weights_e source[row_e] over the entries e of each feature: (B, D), (E,) → (F, D)."""
        return _bags(self.rows, source, self.starts, weights[self.order])


def _bags(index: Tensor, source: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return nnf.embedding_bag(index, source, starts, mode="sum", per_sample_weights=weights)


class SparseEncode(torch.autograd.Function):
    """π_e = z[row_e] · W_enc[col_e] + b_enc[col_e] of the selected entries, known already.

    z gets no gradient."""

    @staticmethod
    def forward(ctx, z, W_enc, b_enc, at, pre):  # noqa: ANN001, ANN205, ARG004
        ctx.save_for_backward(z, b_enc)
        ctx.at = at
        return pre.view_as(pre)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        z, b_enc = ctx.saved_tensors
        grad_b_enc = torch.zeros_like(b_enc).index_add_(0, ctx.at.cols, grad)
        return None, ctx.at.per_feature(z, grad), grad_b_enc, None, None


class SparseDecode(torch.autograd.Function):
    """f W_dec, (B, D), of the selected entries f (E,) alone."""

    @staticmethod
    def forward(ctx, f, W_dec, at):  # noqa: ANN001, ANN205
        ctx.save_for_backward(f, W_dec)
        ctx.at = at
        return at.per_text(W_dec, f)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        f, W_dec = ctx.saved_tensors
        grad = grad.contiguous()
        grad_f = products(grad, W_dec.t(), ctx.at.crow, ctx.at.cols)  # ∂L/∂ẑ[row_e] · W_dec[col_e]
        return grad_f, ctx.at.per_feature(grad, f), None
