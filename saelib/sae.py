"""Four sparse autoencoders over one embedding: Vanilla, TopK, BatchTopK, JumpReLU.

Raw embeddings go in and come out. Inside, z = (x − mean) · scale with E‖z‖² = d_in (buffers, fixed
by `fit_normalizer`), so that coefficients and thresholds mean the same for every encoder:

    π = z W_enc + b_enc,   f = σ(π),   ẑ = f W_dec + b_dec,   x̂ = ẑ / scale + mean

Only σ and the sparsity penalty differ. Papers: Bricken et al. 2023 (Vanilla), Gao et al. 2024
(TopK, AuxK), Bussmann et al. 2024 (BatchTopK), Rajamanoharan et al. 2024 (JumpReLU).
Letters in shape comments: B batch, D = d_in, F = d_sae. Training lives in `training.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saelib.sparse_step import (
    JumpReLUFunction,
    SparseDecode,
    StepFunction,
    aux_loss,
    batch_topk,
    excess_quantile,
    screened_topk,
)


class Loss(NamedTuple):
    """The terms of one training step; `active` (F,) bool says which features fired."""

    total: Tensor
    recon: Tensor
    l0: Tensor
    aux: Tensor
    active: Tensor


class SAE(nn.Module):
    """What the four share: normalisation, encoder, decoder, AuxK, saving. Use a subclass."""

    architecture = ""

    def __init__(self, d_in: int, d_sae: int, seed: int = 0) -> None:
        super().__init__()
        for name, value in (("d_in", d_in), ("d_sae", d_sae)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        self.d_in, self.d_sae = d_in, d_sae
        generator = torch.Generator().manual_seed(seed)  # local: constructors do not reseed the world
        W_dec = nnf.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.W_dec = nn.Parameter(W_dec)  # (F, D), unit rows
        self.W_enc = nn.Parameter(W_dec.clone().t())  # (D, F), rows of the transpose contiguous
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("samples_since_active", torch.zeros(d_sae, dtype=torch.long))

    def config(self) -> dict:
        """What the constructor needs to make this SAE again."""
        return {"d_in": self.d_in, "d_sae": self.d_sae}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.config().items())})"

    @torch.no_grad()
    def fit_normalizer(self, x: Tensor) -> None:
        """Set mean and scale from training embeddings x (n, D), so that E‖z‖² = d_in."""
        self._check(x)
        if not torch.isfinite(x).all():
            raise ValueError("the training embeddings hold NaN or infinity: extract them again in float32")
        self.mean.copy_(x.mean(0))
        spread = (x - x.mean(0)).square().sum(1).mean()
        if spread <= 1e-12:
            raise ValueError("the training embeddings are all equal: there is nothing to learn")
        self.scale.copy_((self.d_in / spread).sqrt())

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise ValueError(
                f"this SAE takes embeddings of shape (n, {self.d_in}), not {tuple(x.shape)}: was it trained on another encoder?"
            )

    def normalize(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale

    def pre_acts(self, x: Tensor) -> Tensor:
        """π = z W_enc + b_enc: (B, D) → (B, F)."""
        self._check(x)
        return self.normalize(x) @ self.W_enc + self.b_enc

    def activate(self, pre: Tensor) -> Tensor:
        """σ: (B, F) → (B, F) ≥ 0; at inference a row never depends on the other rows."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations of raw embeddings: (B, D) → (B, F)."""
        return self.activate(self.pre_acts(x))

    def decode(self, feature_acts: Tensor) -> Tensor:
        """Raw embeddings from feature activations: (B, F) → (B, D)."""
        return (feature_acts @ self.W_dec + self.b_dec) / self.scale + self.mean

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Unit-norm decoder rows; called after every optimiser step."""
        self.W_dec.copy_(nnf.normalize(self.W_dec, dim=1))

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Remove the gradient's part along each row: the norm is fixed, so it is no direction to move in."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    def is_sparse_step(self, device: torch.device) -> bool:
        """Does a training step on this device take gradients from the selected entries only?"""
        return False

    def training_pre_acts(self, z: Tensor) -> Tensor:
        """z W_enc + b_enc of a training step, (B, F); `TopKSAE` may give them in bfloat16, to be screened."""
        return torch.addmm(self.b_enc, z, self.W_enc)

    def loss(
        self, x: Tensor, coefficient: float, dead: Tensor | None = None, k_aux: int = 192, aux_coef: float = 1 / 32,
        pre: Tensor | None = None,
    ) -> Loss:  # fmt: skip
        """One training step's loss on raw embeddings x (B, D); errors are ‖z − ẑ‖² / d_in, mean over B.

        `pre` (B, F), when given, is z W_enc + b_enc as `train_many` has computed it for several SAEs at once.
        """
        z = self.normalize(x)
        if pre is None:
            with torch.set_grad_enabled(not self.is_sparse_step(z.device)):
                pre = self.training_pre_acts(z)
        z_hat, penalty, l0, active = self._reconstruct(z, pre)
        recon = (z - z_hat).square().sum(1).mean() / self.d_in
        aux = aux_loss(z, z_hat, self.W_enc, self.b_enc, self.W_dec, dead, k_aux)
        return Loss(
            recon + coefficient * penalty + aux_coef * aux, recon.detach(), l0.detach(), aux.detach(), active
        )

    def _reconstruct(self, z: Tensor, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training-time (ẑ, sparsity penalty, L0, active) from z (B, D) and π (B, F)."""
        raise NotImplementedError

    def _sparse_reconstruct(
        self, z: Tensor, values: Tensor, rows: Tensor, cols: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        positive = values > 0
        if not bool(positive.all()):
            values, rows, cols = values[positive], rows[positive], cols[positive]
        z_hat = SparseDecode.apply(z, self.W_enc, self.b_enc, self.W_dec, values, rows, cols) + self.b_dec
        active = torch.zeros(self.d_sae, dtype=torch.bool, device=z.device)
        active[cols] = True
        l0 = torch.tensor(len(values) / len(z))
        return z_hat, z.new_zeros(()), l0, active

    def _batch_topk_reconstruct(
        self, z: Tensor, pre: Tensor, k: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.is_sparse_step(z.device):
            return self._sparse_reconstruct(z, *batch_topk(pre.detach(), k))
        values, idx = pre.flatten().topk(
            max(1, round(k * len(pre))), sorted=False
        )  # no look at a value, as batch_topk takes
        feature_acts = torch.zeros_like(pre).flatten().scatter(0, idx, values.relu()).view_as(pre)
        return self._dense_reconstruct(z, feature_acts, z.new_zeros(()))

    def _dense_reconstruct(
        self, z: Tensor, feature_acts: Tensor, penalty: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        fired = feature_acts > 0
        return feature_acts @ self.W_dec + self.b_dec, penalty, fired.sum(1).float().mean(), fired.any(0)

    def save(self, folder: str | Path, **extra: object) -> None:
        """Write `sae.safetensors` and `cfg.json` (constructor arguments, plus `extra`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()},
            folder / "sae.safetensors",
        )
        (folder / "cfg.json").write_text(
            json.dumps({"architecture": self.architecture, **self.config(), "extra": extra}, indent=1)
        )


class VanillaSAE(SAE):
    """f = ReLU(π); penalty Σ f_i ‖W_dec,i‖ (Bricken et al. 2023)."""

    architecture = "vanilla"

    def activate(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def _reconstruct(self, z: Tensor, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        feature_acts = pre.relu()
        penalty = (feature_acts @ self.W_dec.norm(dim=1)).mean() / self.d_in
        return self._dense_reconstruct(z, feature_acts, penalty)


class TopKSAE(SAE):
    """f keeps the k largest of ReLU(π) in each row (Gao et al. 2024, eq. 5)."""

    architecture = "topk"

    def __init__(self, d_in: int, d_sae: int, k: int, seed: int = 0) -> None:
        super().__init__(d_in, d_sae, seed)
        if not isinstance(k, int) or not 1 <= k <= d_sae:
            raise ValueError(f"k must be a whole number in 1..d_sae ({d_sae}), not {k!r}")
        self.k = k
        self.screen = bool(
            getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        )  # or the product is slower

    def config(self) -> dict:
        return super().config() | {"k": self.k}

    def activate(self, pre: Tensor) -> Tensor:
        values, idx = pre.topk(self.k, dim=1)
        return torch.zeros_like(pre).scatter(1, idx, values.relu())

    def is_sparse_step(self, device: torch.device) -> bool:
        return device.type == "cpu"  # dense products are nearly free on a GPU

    def training_pre_acts(self, z: Tensor) -> Tensor:
        if self.screen and self.d_sae >= 2048 and z.dtype == torch.float32 and self.is_sparse_step(z.device):
            return torch.addmm(self.b_enc.bfloat16(), z.bfloat16(), self.W_enc.bfloat16())
        return super().training_pre_acts(z)

    def _reconstruct(self, z: Tensor, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not self.is_sparse_step(z.device):
            return self._dense_reconstruct(z, self.activate(pre), z.new_zeros(()))
        if pre.dtype == torch.bfloat16:
            values, idx = screened_topk(z, self.W_enc, self.b_enc, pre, self.k)
        else:
            values, idx = pre.topk(self.k, dim=1, sorted=False)
        rows = torch.arange(len(z), device=z.device).repeat_interleave(self.k)
        return self._sparse_reconstruct(z, values.flatten(), rows, idx.flatten())


class BatchTopKSAE(TopKSAE):
    """The k·B largest of a batch while training; a fixed threshold afterwards (Bussmann et al. 2024).

    `threshold` is a buffer, calibrated after training so that the mean L0 is k: what a text
    activates then never depends on the texts beside it.
    """

    architecture = "batchtopk"

    def __init__(self, d_in: int, d_sae: int, k: int, seed: int = 0) -> None:
        super().__init__(d_in, d_sae, k, seed)
        self.screen = False  # a row may hold any number of winners: a screen of 1.25 k of them would not do
        self.register_buffer("threshold", torch.zeros(()))

    def activate(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def _reconstruct(self, z: Tensor, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._batch_topk_reconstruct(z, pre, self.k)

    @torch.no_grad()
    def calibrate(self, x: Tensor, target_l0: float | None = None) -> None:
        """Set the inference threshold so that the mean L0 on x (n, D) is `target_l0` (default k)."""
        self.threshold.fill_(excess_quantile(self, x, self.k if target_l0 is None else target_l0))


class JumpReLUSAE(SAE):
    """f = π·1[π > θ] with a learned θ > 0 per feature (Rajamanoharan et al. 2024).

    The penalty is the target form (L0/L0* − 1)², L0 by the straight-through step function with a
    rectangle kernel of `bandwidth` ε in units of z; without `target_l0` it is L0 / d_sae.
    """

    architecture = "jumprelu"

    def __init__(
        self, d_in: int, d_sae: int, target_l0: float | None = None, bandwidth: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(d_in, d_sae, seed)
        if target_l0 is not None and not 0 < target_l0 <= d_sae:
            raise ValueError(f"target_l0 must be in (0, d_sae = {d_sae}], not {target_l0}")
        if bandwidth <= 0:
            raise ValueError(f"bandwidth must be positive, not {bandwidth}")
        self.target_l0, self.bandwidth = target_l0, bandwidth
        self.warm = False  # True in the first part of training: select as BatchTopK does
        self.threshold = nn.Parameter(torch.full((d_sae,), 0.5))

    def config(self) -> dict:
        return super().config() | {"target_l0": self.target_l0, "bandwidth": self.bandwidth}

    def activate(self, pre: Tensor) -> Tensor:
        return JumpReLUFunction.apply(pre.relu(), self.threshold, self.bandwidth)

    def is_sparse_step(self, device: torch.device) -> bool:
        return self.warm and device.type == "cpu"

    def _reconstruct(self, z: Tensor, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.warm:
            return self._batch_topk_reconstruct(z, pre, self.target_l0)
        pre = pre.relu()
        feature_acts = JumpReLUFunction.apply(pre, self.threshold, self.bandwidth)
        l0 = StepFunction.apply(pre, self.threshold, self.bandwidth).sum(1).mean()
        penalty = l0 / self.d_sae if self.target_l0 is None else (l0 / self.target_l0 - 1).square()
        return self._dense_reconstruct(z, feature_acts, penalty)

    @torch.no_grad()
    def calibrate(self, x: Tensor, target_l0: float | None = None) -> None:
        """Shift all thresholds by one number so that the mean L0 on x (n, D) is the target."""
        target = self.target_l0 if target_l0 is None else target_l0
        if target is not None:
            if self.warm:
                self.threshold.zero_()
            self.threshold.add_(excess_quantile(self, x, target, self.threshold)).clamp_(min=1e-4)


ARCHITECTURES = {cls.architecture: cls for cls in (VanillaSAE, TopKSAE, BatchTopKSAE, JumpReLUSAE)}


def make_sae(architecture: str, d_in: int, d_sae: int, k: int, seed: int = 0) -> SAE:
    """An SAE by its name ("vanilla", "topk", "batchtopk", "jumprelu") whose L0 is to be k."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {sorted(ARCHITECTURES)}, not {architecture!r}")
    sparsity = {"vanilla": {}, "topk": {"k": k}, "batchtopk": {"k": k}, "jumprelu": {"target_l0": k}}[
        architecture
    ]
    return ARCHITECTURES[architecture](d_in, d_sae, **sparsity, seed=seed)


def load_sae(folder: str | Path, d_in: int | None = None) -> SAE:
    """Load what `SAE.save` wrote; `d_in` (a store's) is checked when given.

    Raises:
        FileNotFoundError, ValueError: a missing or damaged file, an unknown architecture, another d_in.
    """
    folder = Path(folder)
    try:
        cfg = json.loads((folder / "cfg.json").read_text())
        weights = load_file(folder / "sae.safetensors")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no SAE in {folder}: {error.filename} is missing") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"the SAE in {folder} is damaged ({error}): train it again") from error
    if cfg.get("architecture") not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {cfg.get('architecture')!r} in {folder}; known: {sorted(ARCHITECTURES)}"
        )
    if d_in is not None and cfg["d_in"] != d_in:
        raise ValueError(
            f"the SAE in {folder} takes d_in {cfg['d_in']}, the store has {d_in}: another encoder wrote it"
        )
    sae = ARCHITECTURES[cfg["architecture"]](
        **{k: v for k, v in cfg.items() if k not in ("architecture", "extra")}
    )
    sae.load_state_dict(weights)
    return sae.eval()
