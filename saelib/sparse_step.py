"""The fast training step of TopK and BatchTopK on a CPU: the loss of `SAE.loss`, at a fraction of its cost.

Of a text's d_sae activations k are not zero. The dense formula multiplies the zeros too, forward and
backward: five matrix products. Here one is left, the encoder's, and everything else touches the selected
entries only. The results are equal (`tests/test_sparse_step.py`: to 1e-10 in float64). On a GPU dense
products are nearly free, and `SAE.loss` is used.

Letters as in `sae.py`: B batch, D = d_in, F = d_sae; E selected entries, which are kept as the CSR arrays
crow (B + 1,), cols (E,), values (E,): the entries of text i are those from crow[i] to crow[i + 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy import sparse
from torch import Tensor

from saelib import processes
from saelib.sae import SAE, BatchTopKSAE, Loss, TopKSAE, aux_loss

SCREEN = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # without it bfloat16 is slower
TINY = np.finfo(np.float32).tiny
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def loss_function(sae: SAE) -> Callable[..., Loss]:
    """What computes this SAE's training loss fastest where its weights are: `sparse_loss` or `sae.loss`."""
    is_sparse = isinstance(sae, TopKSAE) and sae.W_enc.device.type == "cpu"
    return partial(sparse_loss, sae) if is_sparse else sae.loss


def sparse_loss(
    sae: TopKSAE, x: Tensor, coefficient: float, dead: Tensor | None, k_aux: int, aux_coef: float
) -> Loss:
    """`sae.loss` by the sparse step: same arguments (there is no penalty), same loss, same gradients."""
    z = sae.normalize(x)
    crow, cols, values = select(sae, z)
    W_enc = sae.W_enc.t()  # (F, D): row by row in memory, as W_dec
    z_hat = SparseDecode.apply(z, W_enc, sae.b_enc, sae.W_dec, crow, cols, values) + sae.b_dec
    recon = (z - z_hat).square().sum(1).mean() / sae.d_in
    aux = z.new_zeros(())
    if dead is not None and len(dead):  # sparse: gradients of the dead rows alone, added to the others'
        enc, dec = (nnf.embedding(dead, W, sparse=True) for W in (W_enc, sae.W_dec))
        aux = aux_loss(z, z_hat, enc.t(), sae.b_enc[dead], dec, k_aux)
    active = torch.zeros(sae.d_sae, dtype=torch.bool)
    active[cols.long()] = True
    l0 = torch.tensor(len(values) / len(z))
    return Loss(recon + aux_coef * aux, recon.detach(), l0, aux.detach(), active)


@torch.no_grad()
def select(sae: TopKSAE, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of ReLU(π) that training keeps of z (B, D): the k largest of each row, or the k·B of
    the batch.

    Returns (crow, cols, values). Where the CPU multiplies bfloat16 fast, such a product only screens: an
    eighth more entries than wanted, whose exact values decide.
    """
    screen = SCREEN and sae.d_sae >= 2048 and z.dtype == torch.float32
    if screen:  # positive bfloat16 numbers sort as the whole numbers with the same bits
        pre = torch.addmm(sae.b_enc.bfloat16(), z.bfloat16(), sae.W_enc.bfloat16()).view(torch.int16)
    else:
        pre = torch.addmm(sae.b_enc, z, sae.W_enc)
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


def _offsets(rows: np.ndarray, n_rows: int) -> Tensor:
    crow = np.zeros(n_rows + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=n_rows), out=crow[1:])
    return torch.from_numpy(crow)


def products(a: Tensor, b: Tensor, crow: Tensor, cols: Tensor) -> Tensor:
    """The entries (E,) of a @ b, (B, D) and (D, F), at the places of a CSR pattern; no other is computed."""
    shape, zeros = (len(a), b.shape[1]), a.new_zeros(len(cols))
    where = torch.sparse_csr_tensor(crow, cols.int(), zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(where, a, b.detach(), beta=0).values()


class SparseDecode(torch.autograd.Function):
    """ẑ = Σ f_i W_dec,i over the selected entries only, with gradients to the encoder as well.

    For a fixed selection, f_e = z[row_e] · W_enc[col_e] + b_enc[col_e] for each selected entry e. Sums
    over the entries of a text (ẑ) or of a feature (the gradients) are `embedding_bag`s: weighted sums of
    rows of a matrix. It replaces four of the dense formula's five matrix products. z gets no gradient.
    """

    @staticmethod
    def forward(ctx, z, W_enc, b_enc, W_dec, crow, cols, values):  # noqa: ANN001, ANN205
        ctx.save_for_backward(z, W_dec, crow, cols, values)
        return nnf.embedding_bag(cols, W_dec, crow[:-1], mode="sum", per_sample_weights=values)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        z, W_dec, crow, cols, values = ctx.saved_tensors
        grad = grad.contiguous()
        grad_f = products(grad, W_dec.t(), crow, cols)  # ∂L/∂f_e = ∂L/∂ẑ[row_e] · W_dec[col_e]
        entries = (np.arange(len(cols)), cols.numpy(), crow.numpy())
        by_feature = sparse.csr_matrix(entries, shape=(len(z), len(W_dec))).tocsc()
        order = torch.from_numpy(by_feature.data)
        rows, bags = (
            torch.from_numpy(a.astype(np.int32)) for a in (by_feature.indices, by_feature.indptr[:-1])
        )

        def per_feature(source: Tensor, weights: Tensor) -> Tensor:
            return nnf.embedding_bag(rows, source, bags, mode="sum", per_sample_weights=weights[order])

        grad_b_enc = torch.zeros_like(W_dec[:, 0]).index_add_(0, cols, grad_f)
        return None, per_feature(z, grad_f), grad_b_enc, per_feature(grad, values), None, None, None
