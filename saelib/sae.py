"""Four sparse autoencoders over one embedding: Vanilla, TopK, BatchTopK, JumpReLU.

Raw embeddings x go in and come out. Inside, z has mean 0 and E‖z‖² = d_in (buffers `mean` and `scale`,
fixed by `fit_normalizer`), so that coefficients and thresholds mean the same for every encoder:

    z = (x − mean) · scale                      normalise
    π = z W_enc + b_enc,   f = σ(π)             encode: pre-activations, then select
    ẑ = f W_dec + b_dec,   x̂ = ẑ / scale + mean    decode
    loss = ‖z − ẑ‖² / d_in + λ · penalty + AuxK / 32

The four differ in σ and in the penalty only:

    Vanilla     f = ReLU(π)                     Σ f_i ‖W_dec,i‖ / d_in   Bricken et al. 2023
    TopK        the k largest of a row          none                     Gao et al. 2024
    BatchTopK   the k·B largest of a batch      none                     Bussmann et al. 2024
    JumpReLU    f = π · 1[π > θ], θ > 0         (L0 / L0* − 1)²          Rajamanoharan et al. 2024

Where this departs from the papers: Vanilla's penalty is weighted by decoder norms (Anthropic's update of
April 2024; with unit rows it is plain L1) and its dead latents are revived by AuxK, not resampled; Gao's
TopK subtracts b_dec before the encoder, here the mean is subtracted; b_enc is learned, and the k largest go
through a ReLU: Gao's equation has neither. π has no ReLU in it, as in the JumpReLU paper; L0 is the mean over
the batch, L0* its target (`target_l0`).

Letters in shape comments: B batch, D = d_in, F = d_sae. How they are trained stands in `trainer.py`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from saelib import processes
from saelib.checks import number, whole
from saelib.files import (
    as_json,
    only_writer,
    read_tensor_file,
    readable_json,
    resolved,
    tensor_file,
    write,
    write_json,
)  # fmt: skip


class Loss(NamedTuple):
    """The terms of one training step; `active` (F,) bool says which features fired."""

    total: Tensor
    recon: Tensor
    l0: Tensor
    aux: Tensor
    active: Tensor


class SAE(nn.Module):
    """What the four share: normalisation, encoder, decoder, loss, saving. Use a subclass.

    Attributes:
        target_l0: the L0 it is made for; None where it has none.
        steers_penalty: the trainer holds L0 at its target by the coefficient of the penalty.
        calibrate_anytime: `calibrate` changes nothing that a training step reads.
        begun_as: digest of the weights as a run with a checkpoint left them → the digest it began with.
    """

    architecture = ""
    target_l0: float | None = None
    steers_penalty = False
    calibrate_anytime = False

    def __init__(self, d_in: int, d_sae: int, seed: int = 0) -> None:
        super().__init__()
        self.begun_as: dict[str, str] = {}
        self.d_in, self.d_sae = d_in, d_sae = whole("d_in", d_in, 1, 2**31), whole("d_sae", d_sae, 1, 2**31)
        generator = torch.Generator().manual_seed(
            whole("seed", seed, 0)
        )  # local: constructors do not reseed the world
        W_dec = nnf.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.W_dec = nn.Parameter(W_dec)  # (F, D), unit rows
        self.W_enc = nn.Parameter(W_dec.clone().t())  # (D, F), a feature's weights side by side in memory
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))  # z is centred: this is the mean
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("samples_since_active", torch.zeros(d_sae, dtype=torch.long))

    def config(self) -> dict:
        """What the constructor needs to make this SAE again."""
        return {"d_in": self.d_in, "d_sae": self.d_sae}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.config().items())})"

    # normalise, encode, decode

    @torch.no_grad()
    def fit_normalizer(self, x: Tensor) -> None:
        """Set mean and scale from training embeddings x (n, D), so that E‖z‖² = d_in.

        Raises:
            ValueError: another d_in, NaN or infinity, or embeddings that are all equal.
        """
        self._check(x)
        check_embeddings(x, "training")
        self.mean.copy_(x.mean(0))
        spread = (x - x.mean(0)).square().sum(1).mean()
        if not 1e-12 < spread < torch.inf:
            raise ValueError(
                f"the training embeddings vary by {float(spread):.1g}: there is nothing to learn"
            )
        self.scale.copy_((self.d_in / spread).sqrt())

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise ValueError(
                f"this SAE takes embeddings of shape (n, {self.d_in}), not {tuple(x.shape)}: "
                "was it trained on another encoder?"
            )

    def normalize(self, x: Tensor) -> Tensor:
        """z = (x − mean) · scale, (B, D)."""
        return (x - self.mean) * self.scale

    def pre_acts(self, x: Tensor) -> Tensor:
        """π = z W_enc + b_enc: (B, D) → (B, F)."""
        self._check(x)
        return self.normalize(x) @ self.W_enc + self.b_enc

    def activate(self, pre: Tensor) -> Tensor:
        """σ: π (B, F) → f (B, F) ≥ 0; a row never depends on the other rows."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations of raw embeddings: (B, D) → (B, F)."""
        return self.activate(self.pre_acts(x))

    def decode(self, feature_acts: Tensor) -> Tensor:
        """Raw embeddings from feature activations: (B, F) → (B, D)."""
        return (feature_acts @ self.W_dec + self.b_dec) / self.scale + self.mean

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    # what is trained, and what a trainer asks for

    def activate_in_training(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """(f, penalty) of a training batch π (B, F): σ as it is in training, and its penalty."""
        return self.activate(pre), pre.new_zeros(())

    def loss(
        self, x: Tensor, coefficient: float | Tensor = 0.0, dead: Tensor | None = None,
        k_aux: int = 192, aux_coef: float = 1 / 32,
    ) -> Loss:  # fmt: skip
        """‖z − ẑ‖² / d_in + λ · penalty + aux_coef · AuxK, means over the batch of raw embeddings x (B, D).

        Args:
            coefficient: λ. dead: indices of the latents that AuxK revives. k_aux: how many a text may use.
        """
        self._check(x)
        z = self.normalize(x)
        f, penalty = self.activate_in_training(torch.addmm(self.b_enc, z, self.W_enc))
        z_hat = f @ self.W_dec + self.b_dec
        fired = f > 0
        recon = (z - z_hat).square().sum(1).mean() / self.d_in
        aux = z.new_zeros(())
        if dead is not None and len(dead):
            aux = aux_loss(z, z_hat, self.W_enc[:, dead], self.b_enc[dead], self.W_dec[dead], k_aux)
        total = recon + coefficient * penalty + aux_coef * aux
        return Loss(total, recon.detach(), fired.sum(1).float().mean(), aux.detach(), fired.any(0))

    def start(self, sample: Tensor, target_l0: float | None) -> None:
        """Before the first step: fit the normaliser on training embeddings (n, D), take up the target L0."""
        self.fit_normalizer(sample)

    @torch.no_grad()
    def after_step(self) -> None:
        """After every optimiser step: decoder rows of norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def calibrate(self, x: Tensor, target_l0: float | None = None) -> None:
        """Move one number so that the mean L0 on x (n, D) is `target_l0`; TopK has none to move."""

    def save(self, folder: str | Path, **extra: object) -> None:
        """Write `sae.safetensors`: weights, constructor arguments, `extra`, and a digest of all that.

        One file, so never the weights of one SAE with the k of another; `cfg.json` beside it is for people.
        Nothing is written where the same is there already.

        Raises:
            ValueError: NaN or infinity among the weights.
            InUseError: another process writes there, one that trains with its checkpoint in this folder, say.
        """
        folder = resolved(folder)
        check_weights(self.state_dict())
        cfg = {"architecture": self.architecture, **self.config(), "extra": extra}
        data, file = tensor_file(self.state_dict(), cfg), folder / "sae.safetensors"
        readable, cfg_file = json.loads(as_json(cfg)), folder / "cfg.json"
        there = [path.read_bytes() if path.is_file() else None for path in (file, cfg_file)]
        if there != [data, readable_json(readable)]:
            with only_writer(folder):
                write(file, data)
                write_json(cfg_file, readable)


class VanillaSAE(SAE):
    """f = ReLU(π) (Bricken et al. 2023); penalty Σ f_i ‖W_dec,i‖ / d_in (Anthropic, April 2024)."""

    architecture = "vanilla"
    steers_penalty = True

    def __init__(self, d_in: int, d_sae: int, target_l0: float | None = None, seed: int = 0) -> None:
        super().__init__(d_in, d_sae, seed)
        self.target_l0 = None if target_l0 is None else number("target_l0", target_l0, d_sae)

    def config(self) -> dict:
        return super().config() | {"target_l0": self.target_l0}

    def activate(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def activate_in_training(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        f = pre.relu()
        return f, (f @ self.W_dec.norm(dim=1)).mean() / self.d_in

    def start(self, sample: Tensor, target_l0: float | None) -> None:
        """Begin at four times the target, or the penalty shrinks every activation before it selects."""
        super().start(sample, target_l0)
        if target_l0:
            self.calibrate(sample, min(4 * target_l0, self.d_sae / 2))

    @torch.no_grad()
    def calibrate(self, x: Tensor, target_l0: float | None = None) -> None:
        """Shift all of b_enc by one number so that the mean L0 on x (n, D) is the target."""
        if target_l0:
            self.b_enc.sub_(l0_quantile(self, x, target_l0))


class TopKSAE(SAE):
    """f keeps the k largest of ReLU(π) in each row (Gao et al. 2024, §2.3; there without ReLU and b_enc)."""

    architecture = "topk"

    def __init__(self, d_in: int, d_sae: int, k: int, seed: int = 0) -> None:
        super().__init__(d_in, d_sae, seed)
        self.k = self.target_l0 = whole("k", k, 1, self.d_sae)

    def config(self) -> dict:
        return super().config() | {"k": self.k}

    def activate(self, pre: Tensor) -> Tensor:
        values, idx = pre.topk(self.k, dim=1)
        return torch.zeros_like(pre).scatter(1, idx, values.relu())

    def start(self, sample: Tensor, target_l0: float | None) -> None:
        if target_l0 not in (None, self.k):
            raise ValueError(
                f"target_l0 is {target_l0} but the SAE's k is {self.k}: for TopK and BatchTopK they are one"
            )
        warn_if_dense(self.k, self.d_sae)
        super().start(sample, target_l0)
        self.scale_encoder(sample)

    @torch.no_grad()
    def scale_encoder(self, sample: Tensor) -> None:
        """Multiply W_enc by the number with which the first ẑ fits z best.

        W_enc starts as W_decᵀ, and the k best of many random directions together say too much: unscaled,
        the first steps are spent on shrinking (d_sae 12288, k 32: FVU 0.82 before any step, 0.55 scaled).
        """
        z = self.normalize(sample[:: max(len(sample) // 512, 1)])
        z_hat = self.activate_in_training(z @ self.W_enc + self.b_enc)[0] @ self.W_dec + self.b_dec
        self.W_enc.mul_((z * z_hat).sum() / z_hat.square().sum())


class BatchTopKSAE(TopKSAE):
    """The k·B largest of a batch while training; f = π · 1[π > t] afterwards (Bussmann et al. 2024).

    The threshold t is a buffer, calibrated after training so that the mean L0 is k: what a text activates
    then never depends on the texts beside it. (The paper averages the smallest activations of training
    batches.)
    """

    architecture = "batchtopk"
    calibrate_anytime = True

    def __init__(self, d_in: int, d_sae: int, k: int, seed: int = 0) -> None:
        super().__init__(d_in, d_sae, k, seed)
        self.register_buffer("threshold", torch.zeros(()))

    def activate(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def activate_in_training(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        n = self.k * len(pre) * processes.count()
        values, idx = pre.flatten().topk(min(n, pre.numel()), sorted=False)
        values = values.relu() * processes.among_largest(values, n)
        return torch.zeros_like(pre).flatten().scatter(0, idx, values).view_as(pre), pre.new_zeros(())

    @torch.no_grad()
    def calibrate(self, x: Tensor, target_l0: float | None = None) -> None:
        """Set the inference threshold so that the mean L0 on x (n, D) is `target_l0` (default k)."""
        self.threshold.fill_(max(l0_quantile(self, x, target_l0 or self.k), 0.0))


class JumpReLUSAE(SAE):
    """f = π · 1[π > θ] with a learned θ > 0 per feature (Rajamanoharan et al. 2024).

    A step has no slope, so θ learns through a straight-through estimator: forward the step 1[π > θ],
    backward a ramp of width ε (`bandwidth`, in units of z) around θ. That is the paper's rectangle kernel K
    (eqs. 11, 12):

        ∂ 1[π > θ] / ∂θ = −K((π − θ)/ε) / ε,     ∂ f / ∂θ = −(θ/ε) K((π − θ)/ε),     ∂ f / ∂π = 1[π > θ]

    The penalty is (L0 / L0* − 1)² with L0 the mean of the batch; without `target_l0` it is L0 / d_sae.
    """

    architecture = "jumprelu"

    def __init__(
        self, d_in: int, d_sae: int, target_l0: float | None = None, bandwidth: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(d_in, d_sae, seed)
        self.target_l0 = None if target_l0 is None else number("target_l0", target_l0, d_sae)
        self.bandwidth = number("bandwidth", bandwidth)
        self.threshold = nn.Parameter(torch.full((d_sae,), 0.5))  # θ

    def config(self) -> dict:
        return super().config() | {"target_l0": self.target_l0, "bandwidth": self.bandwidth}

    def activate(self, pre: Tensor) -> Tensor:
        return pre * (pre > self.threshold)

    def activate_in_training(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        f, step = jump_relu(pre, self.threshold, self.bandwidth)
        return f, self.penalty(step.sum(1).mean())

    def penalty(self, l0: Tensor) -> Tensor:
        """Of the mean L0 of a batch."""
        l0 = processes.mean(l0)
        return l0 / self.d_sae if self.target_l0 is None else (l0 / self.target_l0 - 1).square()

    def start(self, sample: Tensor, target_l0: float | None) -> None:
        super().start(sample, target_l0)
        self.target_l0 = target_l0 or self.target_l0
        if self.target_l0:
            warn_if_dense(self.target_l0, self.d_sae)
            self.as_batchtopk().scale_encoder(sample)

    @torch.no_grad()
    def after_step(self) -> None:
        super().after_step()
        self.threshold.clamp_(min=1e-4)

    @torch.no_grad()
    def calibrate(self, x: Tensor, target_l0: float | None = None) -> None:
        """Shift all thresholds by one number so that the mean L0 on x (n, D) is the target."""
        target = target_l0 or self.target_l0
        if target:
            shift = l0_quantile(
                self, x, target, lambda pre: (pre - self.threshold).where(pre > 0, -torch.inf)
            )
            self.threshold.add_(shift).clamp_(min=1e-4)

    def as_batchtopk(self) -> BatchTopKSAE:
        """A BatchTopK SAE of these very weights (shared, not copied) with k = L0*."""
        sae = BatchTopKSAE(self.d_in, self.d_sae, max(1, round(self.target_l0)))
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "mean", "scale", "samples_since_active"):
            setattr(sae, name, getattr(self, name))
        return sae.to(self.mean.device)


def aux_loss(z: Tensor, z_hat: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, k_aux: int) -> Tensor:
    """AuxK: dead latents learn what is left. ‖e − ê‖² / ‖e‖², e = z − ẑ (Gao et al. 2024, A.2).

    ê is decoded from the k_aux largest of ReLU(π) among the N dead latents, whose weights are given: W_enc
    (D, N), b_enc (N,), W_dec (N, D). e is a target, without gradient.
    """
    e = (z - z_hat).detach()
    pre = z @ W_enc + b_enc
    values, idx = pre.topk(min(k_aux, len(b_enc)), dim=1)
    e_hat = torch.zeros_like(pre).scatter(1, idx, values.relu()) @ W_dec
    return (e - e_hat).square().sum() / processes.mean(e.square().sum()).clamp_min(1e-12)


def warn_if_dense(k: float, d_sae: int) -> None:
    """Warn of a target L0 that cannot be met: measured, L0 is 0.99 k at k = 0.55 d_sae, 0.90 k at 0.625."""
    if k > d_sae / 2:
        warnings.warn(
            f"k is {k} of d_sae {d_sae}: where k is over half of d_sae, fewer than k pre-activations are "
            "positive and L0 stays under k; lower k, or raise d_sae",
            stacklevel=3,
        )


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights of which one is no number."""
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ValueError("NaN or infinity among the SAE's weights")


def as_embeddings(x: object, what: str) -> Tensor:
    """Embeddings (n, d) as a tensor, whatever holds them; raises ValueError for what is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a read-only array is only read
            array = x if isinstance(x, Tensor) else np.asarray(x)
            if not isinstance(x, Tensor) and array.dtype.kind in "fiuO":
                kind, reversed_ = array.dtype.kind, min(array.strides, default=0) < 0
                if kind in "uO" or not array.dtype.isnative or reversed_:  # what torch does not take
                    array = array.astype(np.float32, order="C")
            found = torch.as_tensor(array).detach()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be embeddings (n, d_in), not a {type(x).__name__}: {error}") from None
    if found.ndim != 2 or found.is_complex() or found.layout != torch.strided or found.is_meta:
        raise ValueError(
            f"{what} must be embeddings (n, d_in), not {found.dtype} of shape {tuple(found.shape)}"
        )
    return found


def finite(x: object, what: str) -> Tensor:
    """Embeddings (n, d), in any form, as float32; raises ValueError for NaN and infinity too."""
    found = as_embeddings(x, what).float()
    if not found.isfinite().all():
        raise ValueError(f"the {what} embeddings hold NaN or infinity: extract them again in float32")
    return found


def check_embeddings(x: Tensor, what: str) -> None:
    """Raise ValueError for embeddings (n, d_in) of which nothing can be learnt or said."""
    if not len(x):
        raise ValueError(f"there are no {what} embeddings: too few texts?")
    low, high = x.amin(0), x.amax(0)  # NaN is both
    if not (low.isfinite() & high.isfinite()).all():
        raise ValueError(f"the {what} embeddings hold NaN or infinity: extract them again in float32")
    if torch.equal(low, high):
        raise ValueError(f"the {what} embeddings are all equal ({len(x)} of them): too few texts?")
    spread = float((high.float() - low.float()).square().sum())
    if not 1e-12 < spread < torch.inf:
        raise ValueError(f"the {what} embeddings vary by {spread:.1g}: there is nothing to learn or to say")


def jump_relu(pre: Tensor, threshold: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(π · 1[π > θ], 1[π > θ]) of π (B, F), θ (F,), with the straight-through gradients of `JumpReLUSAE`."""
    hard = (pre > threshold).to(pre.dtype)
    soft = ((pre.detach() - threshold) / epsilon + 0.5).clamp(0, 1)  # the ramp whose slope is K / ε
    step = hard + (soft - soft.detach())
    return pre * hard + threshold.detach() * (step - step.detach()), step


@torch.no_grad()
def l0_quantile(
    sae: SAE,
    x: Tensor,
    target_l0: float,
    excess: Callable[[Tensor], Tensor] = lambda pre: pre,
    rows: int = 4096,
) -> float:
    """The t exceeded by a mean of `target_l0` entries a row of excess(π), on at most `rows` rows of x (n,
    D).

    Raises:
        ValueError: a target beyond d_sae.
    """
    if not 0 < target_l0 <= sae.d_sae:
        raise ValueError(f"target_l0 must be in (0, d_sae = {sae.d_sae}], not {target_l0}")
    x = x[torch.linspace(0, len(x) - 1, min(len(x), rows)).long().to(x.device)]
    m = min(sae.d_sae, max(8 * round(target_l0), 64))  # those beyond a row's m largest hardly ever count
    largest = [excess(sae.pre_acts(part)).topk(m, dim=1).values.flatten() for part in x.split(1024)]
    values = torch.cat(largest)
    cut = processes.mean(values.kthvalue(max(1, values.numel() - round(target_l0 * len(x)))).values)
    return float(cut) if torch.isfinite(cut) else -1e9


ARCHITECTURES = {cls.architecture: cls for cls in (VanillaSAE, TopKSAE, BatchTopKSAE, JumpReLUSAE)}


def make_sae(architecture: str, d_in: int, d_sae: int, k: int, seed: int = 0) -> SAE:
    """An SAE by its name ("vanilla", "topk", "batchtopk", "jumprelu") whose L0 is to be k.

    Raises:
        ValueError: an unknown name, or sizes that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {sorted(ARCHITECTURES)}, not {architecture!r}")
    sparsity = "k" if issubclass(ARCHITECTURES[architecture], TopKSAE) else "target_l0"
    return ARCHITECTURES[architecture](d_in, d_sae, **{sparsity: k}, seed=seed)


def load_sae(folder: str | Path, d_in: int | None = None) -> SAE:
    """Load what `SAE.save` wrote; `d_in` (a store's) is checked when given.

    Raises:
        FileNotFoundError, ValueError: a missing or damaged file, an unknown architecture, another d_in.
    """
    folder = resolved(folder)
    try:
        weights, cfg = read_tensor_file(folder / "sae.safetensors")
        if cfg is None:  # before there was a digest, the configuration stood in a file of its own
            cfg = json.loads((folder / "cfg.json").read_text("utf-8-sig"))
            warnings.warn(
                f"the SAE in {folder} has no digest and cannot be checked: save it again", stacklevel=2
            )
        architecture = cfg.pop("architecture", None)
        if architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {architecture!r}; known: {sorted(ARCHITECTURES)}")
        sae = ARCHITECTURES[architecture](**{k: v for k, v in cfg.items() if k != "extra"})
        sae.load_state_dict(weights)
        check_weights(weights)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no SAE in {folder}: sae.safetensors or cfg.json is missing") from error
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"the SAE in {folder} is damaged: {str(error)[:300]}; train it again") from error
    if d_in is not None and sae.d_in != d_in:
        raise ValueError(
            f"the SAE in {folder} takes d_in {sae.d_in}, the store has {d_in}: another encoder wrote it"
        )
    return sae.eval()
