"""One SAE in training: its optimiser, its steps, its sparsity target, its checkpoint. `training.py` drives one or several.

Per step: Adam with warm-up and linear decay, the decoder gradient projected before the step and the rows renormalised after
it, clipping, AuxK for dead latents. The target L0: for Vanilla the L1 coefficient is steered; JumpReLU learns thresholds
towards it; at the end one number (Vanilla: a shift of b_enc; JumpReLU: of the thresholds; BatchTopK: its threshold) is
calibrated on rows that no step used. Checkpoints are safetensors + JSON, and a resumed run is bit for bit the run that was
not interrupted.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelib.metrics import Evaluation, evaluate
from saelib.sae import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE
from saelib.sparse_step import excess_quantile


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


class CheckpointError(ValueError):
    """A checkpoint of another run: another configuration or another SAE."""


def _schedule(step: int, config: TrainConfig) -> float:
    warm, cool = config.warmup * config.steps, config.decay * config.steps
    return min(1.0, (step + 1) / max(warm, 1), (config.steps - step) / max(cool, 1))


def _load_checkpoint(
    folder: Path, sae: SAE, adam: torch.optim.Optimizer, config: TrainConfig
) -> tuple[dict, Tensor | None]:
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        state = json.loads(file.metadata()["state"])
    if state["config"] != asdict(config) or state["sae"] != sae.config():
        raise CheckpointError(
            f"the checkpoint in {folder} is of another run ({state['sae']}): delete it, or use its configuration"
        )
    tensors = load_file(folder / "checkpoint.safetensors")
    sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
    slots: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, i, key = name.split(".")
            slots.setdefault(int(i), {})[key] = value
    adam.load_state_dict({"state": slots, "param_groups": adam.state_dict()["param_groups"]})
    for parameter in adam.state:  # Adam's moments in the memory layout of their parameters
        for key in ("exp_avg", "exp_avg_sq"):
            moment = adam.state[parameter][key]
            adam.state[parameter][key] = torch.empty_like(parameter).copy_(moment)
    return state, tensors["dead"].to(sae.W_enc.device) if "dead" in tensors else None


class Trainer:
    """One SAE in training: its optimiser, its state, its steps. `train` drives one, `train_many` several."""

    def __init__(self, sae: SAE, config: TrainConfig, device: torch.device) -> None:
        if config.target_l0 is not None and isinstance(sae, TopKSAE) and sae.k != config.target_l0:
            raise ValueError(
                f"target_l0 is {config.target_l0} but the SAE's k is {sae.k}: for TopK and BatchTopK they are one"
            )
        self.sae, self.config = sae.to(device).train(), config
        self.target = config.target_l0 or getattr(sae, "target_l0", None)
        self.jumprelu = isinstance(sae, JumpReLUSAE) and bool(self.target)
        if self.jumprelu:
            sae.target_l0, sae.warm = self.target, True
        self.dead_after = config.dead_after or min(config.steps * config.batch_size // 8, 10_000_000)
        self.k_aux = config.k_aux or max(sae.d_in // 2, 1)
        self.dead: Tensor | None = None
        self.state = {
            "step": 0, "coefficient": config.coefficient, "l0": None, "unseen": 1.0, "history": [],
            "config": asdict(config), "sae": sae.config(),
        }  # fmt: skip

    def begin(self, sample: Tensor, calibration: Tensor, folder: Path | None) -> None:
        """Fit the normaliser, make the optimiser, and resume where a checkpoint stands."""
        sae, self.calibration = self.sae, calibration
        sae.fit_normalizer(sample)
        if (
            isinstance(sae, VanillaSAE) and self.target
        ):  # start sparse, or the penalty shrinks everything first
            sae.b_enc.data.fill_(
                -excess_quantile(sae, sample, min(4 * self.target, sae.d_sae / 2), positive=False)
            )
        self.own = [sae.threshold] if isinstance(sae, JumpReLUSAE) else []
        main = [p for p in sae.parameters() if all(p is not q for q in self.own)]
        groups = [{"params": main, "peak": self.config.lr}]
        groups += [{"params": self.own, "peak": self.config.threshold_lr}] if self.own else []
        self.adam = torch.optim.Adam(groups, lr=self.config.lr, betas=(0.9, 0.999), fused=True)
        if folder and (folder / "checkpoint.safetensors").exists():
            self.state, self.dead = _load_checkpoint(folder, sae, self.adam, self.config)
            if isinstance(sae, JumpReLUSAE):
                sae.warm = (
                    self.jumprelu and self.state["step"] <= self.config.jumprelu_start * self.config.steps
                )
        if isinstance(sae, VanillaSAE) and self.target:
            for name in ("coefficient", "l0", "unseen"):
                if self.state[name] is not None:
                    self.state[name] = torch.tensor(self.state[name], device=sae.mean.device)

    def save(self, folder: Path) -> None:
        """Write the checkpoint whole, or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"sae.{k}": v for k, v in self.sae.state_dict().items()}
        for i, slot in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in slot.items()}
        if (
            self.dead is not None
        ):  # looked up every 16th step only, so a resumed run needs what was found last
            tensors["dead"] = self.dead
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        save_file(tensors, folder / "new.safetensors", {"state": json.dumps(self.state, default=float)})
        os.replace(folder / "new.safetensors", folder / "checkpoint.safetensors")

    def step(self, x: Tensor, pre: Tensor | None = None) -> Tensor:
        """The loss of the next step, before `finish` takes it."""
        sae, config, step = self.sae, self.config, self.state["step"]
        if step % 16 == 0:  # looking at the counter forces a synchronisation: not every step
            self.dead = torch.nonzero(sae.samples_since_active > self.dead_after)[:, 0]
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * _schedule(step, config)
        fade = min(1.0, (step + 1) / max(config.coefficient_warmup * config.steps, 1))
        self.loss = sae.loss(x, fade * self.state["coefficient"], self.dead, self.k_aux, config.aux_coef, pre)
        self.adam.zero_grad(set_to_none=True)
        return self.loss.total

    def finish(self, n: int) -> None:
        """After the backward pass: project, clip, step, renormalise, count."""
        sae, loss = self.sae, self.loss
        sae.project_decoder_gradient()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), self.config.clip)
        self.adam.step()
        sae.normalize_decoder()
        if self.own:
            sae.threshold.data.clamp_(min=1e-4)
        sae.samples_since_active.add_(n).masked_fill_(loss.active, 0)
        if isinstance(sae, VanillaSAE) and self.target:
            if (
                self.state["step"] % 20 == 19
            ):  # texts of no training step activate more features than those of the batch
                with torch.no_grad():
                    unseen = (sae.encode(self.calibration[:1024]) > 0).sum(1).float().mean()
                self.state["unseen"] = unseen / self.state["l0"].clamp_min(0.1)
            _steer(self.state, loss.l0, self.target / self.state["unseen"])
        self.state["step"] += 1

    def leave_warm_start(self, x: Tensor) -> None:
        """JumpReLU: from BatchTopK's selection to its own thresholds, at `jumprelu_start` of the run."""
        if (
            self.jumprelu
            and self.sae.warm
            and self.state["step"] >= self.config.jumprelu_start * self.config.steps
        ):
            self.sae.calibrate(x)
            self.sae.warm = False

    def evaluate(self, held_out: Tensor) -> Evaluation:
        """Calibrate what is calibrated, evaluate, and write a line of history."""
        sae, step, last = self.sae, self.state["step"], self.state["step"] == self.config.steps
        total = float(self.loss.total.detach())
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total} at step {step}: lower lr (now {self.config.lr})")
        if isinstance(sae, VanillaSAE) and self.target and last:
            sae.b_enc.data.sub_(excess_quantile(sae, self.calibration, self.target, positive=False))
        if isinstance(sae, BatchTopKSAE) or (isinstance(sae, JumpReLUSAE) and (last or sae.warm)):
            sae.calibrate(self.calibration, self.target)
        now = evaluate(sae, held_out)
        dead_train = float((sae.samples_since_active > self.dead_after).float().mean())
        line = {"step": step, "loss": total, **now._asdict(), "dead_train": dead_train}
        line["coefficient"] = float(self.state["coefficient"])
        self.state["history"].append(line)
        return now


def _steer(state: dict, l0: Tensor, target: Tensor) -> None:
    """Move log λ by the log ratio of the smoothed batch L0 to its target, damped by that ratio's change.

    In tensors, on the device: to look at a number each step would make a GPU wait for the processor.
    """
    old = state["l0"]
    state["l0"] = l0 if old is None else 0.9 * old + 0.1 * l0
    gap = (state["l0"].clamp_min(1e-3) / target).log()
    slope = 0.0 if old is None else gap - (old.clamp_min(1e-3) / target).log()
    state["coefficient"] = state["coefficient"] * (0.015 * gap + 0.3 * slope).clamp(-0.02, 0.02).exp()
