"""One SAE in training: its optimiser, its steps, its sparsity target, its checkpoint.

A step: the loss (by `sparse_step.py` where it applies, else the SAE's own), the decoder's gradient made
orthogonal to its rows, clipping, Adam with warm-up and linear decay, decoder rows back to norm 1.

How L0 meets its target L0*: TopK has it by construction while k is small beside d_sae; for Vanilla λ is
steered (`Trainer.steer`); JumpReLU learns as BatchTopK first, so that its thresholds start where L0 is the
target. At the end one number of Vanilla, BatchTopK and JumpReLU is moved (`SAE.calibrate`) on texts that no
step used. Checkpoints are safetensors + JSON; a resumed run is bit for bit the run that was not interrupted.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from saelib import processes
from saelib.checks import number, whole
from saelib.files import read_tensor_file, tensor_file, write
from saelib.metrics import Evaluation, evaluate
from saelib.sae import SAE, JumpReLUSAE
from saelib.sparse_step import loss_function

FORMAT = 4  # of a checkpoint
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    """How to train; every field has a default that works for the tutorial's corpora.

    Attributes:
        steps: optimiser steps. More lower the FVU of training texts, and up to a point of held-out ones.
        batch_size: embeddings a step. BatchTopK selects among as many.
        buffer_rows: of a store, embeddings in memory that batches are drawn from (`EmbeddingStore.batches`).
        lr: Adam's peak learning rate. Higher gets further in few steps; too high leaves latents dead.
        threshold_lr: the same for JumpReLU's θ, which lives on the scale of pre-activations, not of weights.
        warmup: share of the run over which the learning rates rise from 0.
        decay: share of the run, at its end, over which they fall to 0; the last of the FVU is gained here.
        target_l0: features active per text, on held-out texts. None: the SAE's own k or target; without one,
            L0 is what the coefficient makes of it.
        coefficient: λ of the penalty. Vanilla: where steering starts, or, without target_l0, what L0 depends
            on. JumpReLU: how strictly L0 is held while training. TopK and BatchTopK have no penalty.
        coefficient_warmup: share of the run over which λ fades in; too short, and features die early.
        jumprelu_start: share of the run that JumpReLU, when it has a target, trains with BatchTopK's
            selection. 0 starts cold, from equal thresholds.
        clip: longest gradient, its norm over all weights; lower is slower and calmer.
        aux_coef: weight of AuxK, 0 leaves dead latents dead.
        k_aux: how many dead latents a text may use; None: d_in / 2.
        dead_after: a latent is dead when not active on this many last training samples; None: an eighth of
            the run, at most 10 million. Fewer revive sooner, rare features among them.
        eval_every: steps between held-out evaluations (rows of the history); None: an eighth of the run.
        seed: order of the batches, and which texts `train` holds out. The weights' seed is the SAE's.
    """

    steps: int = 800
    batch_size: int = 1024
    buffer_rows: int = 262_144
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
        checked = {"seed": whole("seed", self.seed, 0)}
        for name in ("steps", "batch_size", "buffer_rows", "k_aux", "dead_after", "eval_every"):
            value = getattr(self, name)
            optional = value is None and name in ("k_aux", "dead_after", "eval_every")
            checked[name] = None if optional else whole(name, value)
        for name in ("lr", "threshold_lr", "clip"):
            endless = name == "clip" and self.clip == math.inf  # never clips
            checked[name] = math.inf if endless else number(name, getattr(self, name))
        for name in ("coefficient", "aux_coef"):
            checked[name] = number(name, getattr(self, name), zero=True)
        for name in ("coefficient_warmup", "warmup", "decay", "jumprelu_start"):
            checked[name] = number(name, getattr(self, name), most=1, zero=True)
        if self.target_l0 is not None:
            checked["target_l0"] = number("target_l0", self.target_l0)
        if checked["warmup"] + checked["decay"] > 1:
            raise ValueError(f"warmup + decay must be at most 1, not {checked['warmup'] + checked['decay']}")
        for name, value in checked.items():  # numpy's numbers become Python's, which JSON knows
            object.__setattr__(self, name, value)


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another run: configuration, SAE, initial weights, embeddings."""


class Trainer:
    """One SAE in training. `begin`, then `step` for each batch, `evaluate` and `save` now and then."""

    def __init__(self, sae: SAE, config: TrainConfig, device: torch.device) -> None:
        self.sae, self.config = sae.to(device).train(), config
        self.target = config.target_l0 or sae.target_l0
        if self.target:
            number("target_l0", self.target, sae.d_sae)
        self.dead_after = config.dead_after or min(config.steps * config.batch_size // 8, 10_000_000)
        self.dead: Tensor | None = None
        self.state = {
            "format": FORMAT, "step": 0, "history": [],
            "coefficient": config.coefficient, "l0": None, "unseen": 1.0,
        }  # fmt: skip

    def begin(
        self, sample: Tensor, calibration: Tensor, folder: Path | None = None, run: dict | None = None
    ) -> None:
        """Fit the normaliser on `sample` (n, d_in), make the optimiser, resume from a checkpoint in `folder`.

        Args:
            calibration: (m, d_in), texts that no step uses, on which L0 is brought to its target.
            run: digests of what must be the same for a checkpoint to be this run's.
        """
        sae, config, self.calibration = self.sae, self.config, calibration
        sae.start(sample, self.target)
        self.state |= {"config": asdict(config), "sae": sae.config(), "run": run}
        # the same memory, row by row: of what is not contiguous, fused Adam makes copies
        self.W_enc_rows = torch.nn.Parameter(sae.W_enc.detach().t())
        weights = [self.W_enc_rows, sae.b_enc, sae.W_dec, sae.b_dec]
        groups = [{"params": weights, "peak": config.lr}]
        if isinstance(sae, JumpReLUSAE):
            groups.append({"params": [sae.threshold], "peak": config.threshold_lr})
        self.adam = torch.optim.Adam(groups, lr=config.lr, betas=(0.9, 0.999), fused=True)
        if folder and (folder / CHECKPOINT).exists():
            self._resume(folder)
        processes.same(t.detach() for t in (*sae.parameters(), *sae.buffers()))
        warm = isinstance(sae, JumpReLUSAE) and self.target and self.state["step"] <= self._warm_steps > 0
        self._learn_as(sae.as_batchtopk() if warm else sae)
        self.steers = sae.steers_penalty and bool(self.target)
        for name in ("coefficient", "l0", "unseen") if self.steers else ():
            if self.state[name] is not None:  # in tensors: to look at a number makes a GPU wait
                self.state[name] = torch.tensor(self.state[name], device=sae.mean.device)

    @property
    def _warm_steps(self) -> float:
        return self.config.jumprelu_start * self.config.steps

    def _learn_as(self, learner: SAE) -> None:
        self.learner, self.loss_of = learner, loss_function(learner)

    def step(self, x: Tensor) -> None:
        """Learn from one batch x (B, d_in) of raw embeddings."""
        sae, config, step = self.sae, self.config, self.state["step"]
        if self.learner is not sae and step >= self._warm_steps:  # JumpReLU goes on by itself
            sae.calibrate(x)
            self._learn_as(sae)
        if step % 16 == 0:  # looking at the counter forces a synchronisation: not every step
            self.dead = torch.nonzero(sae.samples_since_active > self.dead_after)[:, 0]
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * self._schedule(step)
        fade = min(1.0, (step + 1) / max(config.coefficient_warmup * config.steps, 1))
        k_aux = config.k_aux or max(sae.d_in // 2, 1)

        sae.zero_grad(set_to_none=True)
        mine, coefficient = processes.part(x), fade * self.state["coefficient"]
        self.loss = self.loss_of(mine, coefficient, self.dead, k_aux, config.aux_coef)
        self.loss.total.backward()
        processes.average(p.grad for p in sae.parameters() if p.grad is not None)
        # decoder rows keep their norm, so along them is nowhere to go; in pieces that stay in a cache
        for W, gradient in zip(sae.W_dec.detach().split(2048), sae.W_dec.grad.split(2048), strict=True):
            gradient.addcmul_((gradient * W).sum(1, keepdim=True), W, value=-1)
        torch.nn.utils.clip_grad_norm_(sae.parameters(), config.clip)
        self.W_enc_rows.grad = sae.W_enc.grad.t()
        self.adam.step()
        sae.after_step()

        sae.samples_since_active.add_(len(x)).masked_fill_(processes.anywhere(self.loss.active), 0)
        if self.steers:
            self.steer(processes.mean(self.loss.l0))
        self.state["step"] += 1

    def _schedule(self, step: int) -> float:
        warm, cool = self.config.warmup * self.config.steps, self.config.decay * self.config.steps
        return min(1.0, (step + 1) / max(warm, 1), (self.config.steps - step) / max(cool, 1))

    @torch.no_grad()
    def steer(self, l0: Tensor) -> None:
        """Hold L0 at L0* by λ: Δ log λ = 0.015 g + 0.3 Δg, at most ± 0.02, where g = log(L0 / L0*).

        L0 is smoothed over batches. Texts of no step activate more features than those of the batch; their
        ratio, measured every 20 steps on `calibration`, lowers L0* by as much.
        """
        state, old = self.state, self.state["l0"]
        if state["step"] % 20 == 19:
            unseen = (self.sae.encode(self.calibration[:1024]) > 0).sum(1).float().mean()
            state["unseen"] = processes.mean(unseen) / old.clamp_min(0.1)
        target = self.target / state["unseen"]
        state["l0"] = l0 if old is None else 0.9 * old + 0.1 * l0
        gap = (state["l0"].clamp_min(1e-3) / target).log()
        change = 0.0 if old is None else gap - (old.clamp_min(1e-3) / target).log()
        state["coefficient"] = state["coefficient"] * (0.015 * gap + 0.3 * change).clamp(-0.02, 0.02).exp()

    def calibrate(self) -> None:
        """Bring L0 to its target by one number, at the end or where it does not touch the run."""
        if self.state["step"] == self.config.steps or self.learner.calibrate_anytime:
            self.sae.calibrate(self.calibration, self.target)

    def evaluate(self, held_out: Tensor) -> Evaluation:
        """Calibrate, evaluate, write a line of history.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        sae, step, total = self.sae, self.state["step"], float(processes.mean(self.loss.total.detach()))
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total} at step {step}: lower lr (now {self.config.lr})")
        self.calibrate()
        now = evaluate(sae, held_out)
        dead_train = float((sae.samples_since_active > self.dead_after).float().mean())
        line = {"step": step, "loss": total, **now._asdict(), "dead_train": dead_train}
        self.state["history"].append(line | {"coefficient": float(self.state["coefficient"])})
        return now

    def save(self, folder: Path) -> None:
        """Write the checkpoint whole, or not at all."""
        tensors = {f"sae.{k}": v for k, v in self.sae.state_dict().items()}
        for i, slot in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in slot.items()}
        if self.dead is not None:  # looked up every 16th step only: a resumed run needs what was found last
            tensors["dead"] = self.dead
        write(folder / CHECKPOINT, tensor_file(tensors, self.state))

    def _resume(self, folder: Path) -> None:
        sae, remedy = self.sae, f"delete {folder / CHECKPOINT}, or choose another folder"
        try:
            tensors, state = read_tensor_file(folder / CHECKPOINT)
        except ValueError as error:
            raise CheckpointError(f"{error}: {remedy}") from error
        state = state or {}
        if state.get("format") != FORMAT:
            raise CheckpointError(f"the checkpoint in {folder} is another version's: {remedy}")
        ours, theirs = ({**s, **(s["run"] or {})} for s in (self.state, state))
        other = [
            name for name in ("config", "sae", *(self.state["run"] or ())) if ours[name] != theirs.get(name)
        ]
        if other:
            what = {"config": "another TrainConfig", "sae": "another SAE"}
            raise CheckpointError(
                f"the checkpoint in {folder} is of another run, with "
                f"{', '.join(what.get(name, f'other {name}') for name in other)}: {remedy}"
            )
        sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
        slots: dict[int, dict] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                slots.setdefault(int(i), {})[key] = value
        self.adam.load_state_dict({"state": slots, "param_groups": self.adam.state_dict()["param_groups"]})
        dead = tensors.get("dead")
        self.state, self.dead = state, None if dead is None else dead.to(sae.mean.device)
