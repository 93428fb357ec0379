"""What the SAEs compute with: selections, the sparse decoder, and gradients that autograd does not have.

No state, no parameters; letters as in `saes.py`: B batch, D = d_in, F = d_sae. Papers: Gao et al. 2024 (TopK),
Bussmann et al. 2024 (BatchTopK), Rajamanoharan et al. 2024 (straight-through estimators of JumpReLU).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor

if TYPE_CHECKING:
    from saelib.sae import SAE


def batch_topk(pre: Tensor, k: float) -> tuple[Tensor, Tensor, Tensor]:
    """The k·B largest entries of pre (B, F): (values, rows, cols), rows ascending.

    Exact without a top-k over B·F: each row offers its m largest; if some row offers only
    winners it may hold more, so m doubles.
    """
    d_sae = pre.shape[1]
    wanted, m = max(1, round(k * len(pre))), min(max(2 * round(k), 8), d_sae)
    while True:
        values, cols = pre.topk(m, dim=1, sorted=False)
        cut = values.flatten().kthvalue(values.numel() - wanted + 1).values
        if m == d_sae or not bool((values.min(1).values >= cut).any()):
            keep = values >= cut
            return values[keep], keep.nonzero()[:, 0], cols[keep]
        m = min(2 * m, d_sae)


@torch.no_grad()
def screened_topk(z: Tensor, W_enc: Tensor, b_enc: Tensor, pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of z W_enc + b_enc, (B, k) values and columns, of which `pre` is a bfloat16 estimate.

    1.25 k candidates by the estimate, their exact float32 values, the best k of those.
    """
    m = min(k + max(k // 4, 4), W_enc.shape[1])
    idx = pre.topk(m, dim=1, sorted=False).indices
    offsets = torch.arange(len(z), device=z.device) * m
    with (
        torch.enable_grad()
    ):  # as in SparseDecode: the gradient to the weights is z · W_enc[:, idx], nothing gathered
        ones = torch.ones(idx.numel(), device=z.device, requires_grad=True)
        out = nnf.embedding_bag(
            idx.flatten(), W_enc.detach().t(), offsets, mode="sum", per_sample_weights=ones
        )
        (dots,) = torch.autograd.grad(out, ones, z)
    values, place = (dots.view_as(idx) + b_enc[idx]).topk(k, dim=1, sorted=False)
    return values, idx.gather(1, place)


@torch.no_grad()
def excess_quantile(
    sae: SAE,
    x: Tensor,
    target_l0: float,
    threshold: Tensor | float = 0.0,
    rows: int = 4096,
    positive: bool = True,
) -> float:
    """The t with a mean of `target_l0` entries per row where π > threshold + t (and π > 0, if `positive`), on ≤ `rows` rows."""
    if not 0 < target_l0 <= sae.d_sae:
        raise ValueError(f"target_l0 must be in (0, d_sae = {sae.d_sae}], not {target_l0}")
    x = x[torch.linspace(0, len(x) - 1, min(len(x), rows)).long().to(x.device)]
    wanted = round(target_l0 * len(x))
    m = min(sae.d_sae, max(8 * round(target_l0), 64))
    top = []
    for chunk in x.split(1024):
        pre = sae.pre_acts(chunk)
        excess = pre - threshold
        if positive:
            excess = excess.masked_fill(pre <= 0, -torch.inf)
        top.append(excess.topk(m, dim=1).values.flatten())
    values = torch.cat(top)  # those beyond the m largest of a row are rarely among the winners
    cut = values.kthvalue(max(1, values.numel() - wanted)).values
    return float(cut) if torch.isfinite(cut) else -1e9


class SparseDecode(torch.autograd.Function):
    """ẑ = Σ f_i W_dec,i over the selected entries only, with gradients to the encoder as well.

    For a fixed selection, f_e = z[row_e] · W_enc[:, col_e] + b_enc[col_e] for each selected entry e.
    All gradients touch those entries only: entries sorted by feature are the "bags" of
    `embedding_bag`, which sums rows of z (for W_enc) and of ∂L/∂ẑ (for W_dec). Equal to the dense
    formula (tests compare to 1e-10); it replaces four of its five matrix products. z gets no gradient.
    """

    @staticmethod
    def forward(ctx, z, W_enc, b_enc, W_dec, values, rows, cols):  # noqa: ANN001, ANN205
        offsets = torch.searchsorted(rows, torch.arange(len(z), device=z.device))
        ctx.save_for_backward(z, W_dec, values, rows, cols, offsets)
        return nnf.embedding_bag(cols, W_dec, offsets, mode="sum", per_sample_weights=values)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        z, W_dec, values, rows, cols, offsets = ctx.saved_tensors
        with torch.enable_grad():  # ∂L/∂f_e = grad[row_e] · W_dec[col_e], without gathering (E, D)
            f = values.detach().requires_grad_()
            out = nnf.embedding_bag(cols, W_dec.detach(), offsets, mode="sum", per_sample_weights=f)
            (grad_f,) = torch.autograd.grad(out, f, grad.contiguous())
        n_features = len(W_dec)
        by_feature = torch.argsort(cols)
        sorted_rows = rows[by_feature]
        bags = torch.searchsorted(cols[by_feature], torch.arange(n_features, device=z.device))

        def bag(source: Tensor, weights: Tensor) -> Tensor:
            return nnf.embedding_bag(
                sorted_rows, source, bags, mode="sum", per_sample_weights=weights[by_feature]
            )

        grad_W_enc = bag(z, grad_f).t()  # (D, F), the memory layout of W_enc
        grad_b_enc = torch.zeros(n_features, dtype=z.dtype, device=z.device).index_add_(0, cols, grad_f)
        return None, grad_W_enc, grad_b_enc, bag(grad.contiguous(), values), None, None, None


def aux_loss(
    z: Tensor, z_hat: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, dead: Tensor | None, k_aux: int
) -> Tensor:
    """AuxK (Gao et al. 2024, A.2): the k_aux strongest of the `dead` latents reconstruct the residual z − ẑ (B, D); in FVU."""
    if dead is None or not len(dead):
        return z.new_zeros(())
    residual = (z - z_hat).detach()
    pre = z @ W_enc[:, dead] + b_enc[dead]
    values, idx = pre.topk(min(k_aux, len(dead)), dim=1)
    acts = torch.zeros_like(pre).scatter(1, idx, values.relu())
    error = (residual - acts @ W_dec[dead]).square().sum()
    return error / residual.square().sum().clamp_min(1e-12)


class JumpReLUFunction(torch.autograd.Function):
    """π·1[π > θ]; ∂/∂π is exact, ∂/∂θ = −(θ/ε)·K((π − θ)/ε) (Rajamanoharan et al. 2024, eq. 11)."""

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):  # noqa: ANN001, ANN205
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        pre, threshold = ctx.saved_tensors
        kernel = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre.dtype)
        grad_threshold = (-(threshold / ctx.bandwidth) * kernel * grad).sum(0)
        return grad * (pre > threshold), grad_threshold, None


class StepFunction(torch.autograd.Function):
    """1[π > θ]; ∂/∂θ = −(1/ε)·K((π − θ)/ε), none to π (Rajamanoharan et al. 2024, eq. 12)."""

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):  # noqa: ANN001, ANN205
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        pre, threshold = ctx.saved_tensors
        kernel = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre.dtype)
        return None, (-(1 / ctx.bandwidth) * kernel * grad).sum(0), None
