"""What to train: the configuration of a run, an SAE by its name or from its folder, and a size that fits a corpus."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from saelib.saes import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE


@dataclass(frozen=True)
class TrainConfig:
    """How to train; every field has a default that works for the tutorial's corpora.

    Attributes:
        steps: optimiser steps. batch_size: embeddings a step.
        lr: Adam's peak learning rate. warmup, decay: shares of the run.
        threshold_lr: the peak rate of JumpReLU's thresholds, which live on the scale of pre-activations, not of weights.
        target_l0: features active per text; None leaves the coefficient as it is.
        coefficient: of the sparsity penalty (Vanilla: where steering starts; JumpReLU: constant).
        coefficient_warmup: share of the run over which the penalty fades in.
        jumprelu_start: share of the run that JumpReLU, when it has a target, trains with BatchTopK's
            selection, so that its thresholds start where L0 is the target.
        clip: gradient-norm limit. aux_coef: weight of AuxK. k_aux: latents in it, None = d_in / 2.
        dead_after: a latent is dead when not active on this many last training samples;
            None = an eighth of the run, at most 10 million.
        eval_every: steps between held-out evaluations; None = an eighth of the run.
        seed: order of the batches.
    """

    steps: int = 800
    batch_size: int = 1024
    lr: float = 4e-3
    threshold_lr: float = 2e-2
    warmup: float = 0.05
    decay: float = 0.3
    target_l0: float | None = None
    coefficient: float = 1.0
    coefficient_warmup: float = 0.1
    jumprelu_start: float = 0.5
    clip: float = 1.0
    aux_coef: float = 1 / 32
    k_aux: int | None = None
    dead_after: int | None = None
    eval_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "lr", "threshold_lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("coefficient", "coefficient_warmup", "aux_coef", "warmup", "decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup + decay must be at most 1, not {self.warmup + self.decay}")
        if self.target_l0 is not None and not self.target_l0 > 0:
            raise ValueError(f"target_l0 must be positive, not {self.target_l0}")


ARCHITECTURES = {cls.architecture: cls for cls in (VanillaSAE, TopKSAE, BatchTopKSAE, JumpReLUSAE)}


def make_sae(architecture: str, d_in: int, d_sae: int, k: int, seed: int = 0) -> SAE:
    """An SAE by its name ("vanilla", "topk", "batchtopk", "jumprelu") whose L0 is to be k."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {sorted(ARCHITECTURES)}, not {architecture!r}")
    sparsity = {"vanilla": {}, "topk": {"k": k}, "batchtopk": {"k": k}, "jumprelu": {"target_l0": k}}[architecture]
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
        raise ValueError(f"unknown architecture {cfg.get('architecture')!r} in {folder}; known: {sorted(ARCHITECTURES)}")
    if d_in is not None and cfg["d_in"] != d_in:
        raise ValueError(f"the SAE in {folder} takes d_in {cfg['d_in']}, the store has {d_in}: another encoder wrote it")
    sae = ARCHITECTURES[cfg["architecture"]](**{k: v for k, v in cfg.items() if k not in ("architecture", "extra")})
    sae.load_state_dict(weights)
    return sae.eval()


def suggest_size(n_texts: int, d_in: int = 384) -> tuple[int, int]:
    """(d_sae, k) for a corpus of n_texts, so that features can be named.

    From a measurement (`tests/benchmarks/sizes.py`: MiniLM, wiki-vital sentences, 1,000 to 27,000 training texts, d_sae 16 to
    2,048, k 4 to 16, a learning rate of 2e-3): the lowest held-out FVU among the sizes at which 95% of the labels have a
    held-out detection of 0.9 or more was (64, 4) for 1,000 texts (where no size reached 95%), (64, 4) for 3,000, (256, 4) for
    10,000 and (512, 8) for 27,000. The line through these, d_sae = 2^(2 log10 n), is also that of HypotheSAEs (Movva et al.
    2025), which gives (1024, 8) for 100,000; for a d_in other than 384, and beyond 60,000 texts, this is an extrapolation
    (at 50,000 training abstracts of arXiv (1024, 8) gives 97%, `tests/benchmarks/labels.py`).
    """
    if n_texts < 1:
        raise ValueError(f"n_texts must be positive, not {n_texts}")
    d_sae = 2 ** round(2 * math.log10(max(n_texts, 10)) + 0.25)
    return int(min(max(d_sae, 16), 8 * d_in)), 4 if n_texts < 16_000 else 8
