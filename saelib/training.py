"""One training loop for all four SAEs, with a sparsity target that is met on held-out data.

Adam with warm-up and linear decay, the decoder gradient projected before each step and the rows
renormalised after it, clipping, AuxK for dead latents. For Vanilla the L1 coefficient is steered
while training until the measured L0 is the target; JumpReLU learns thresholds towards it. At the end
one number (Vanilla: a shift of b_enc; JumpReLU: of the thresholds; BatchTopK: its threshold) is
calibrated on a twentieth of the training rows that was kept out of the steps. Checkpoints are safetensors + JSON, and a
resumed run is bit for bit the run that was not interrupted.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from saelib.metrics import Evaluation, evaluate
from saelib.saes import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE, excess_quantile
from saelib.store import EmbeddingStore


@dataclass(frozen=True)
class TrainConfig:
    """How to train; every field has a default that works for the tutorial's corpora.

    Attributes:
        steps: optimiser steps. batch_size: embeddings a step.
        lr: Adam's peak learning rate. warmup, decay: shares of the run.
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
    lr: float = 2e-3
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
        for name in ("steps", "batch_size", "lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("coefficient", "coefficient_warmup", "aux_coef", "warmup", "decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup + decay must be at most 1, not {self.warmup + self.decay}")
        if self.target_l0 is not None and not self.target_l0 > 0:
            raise ValueError(f"target_l0 must be positive, not {self.target_l0}")


class TrainResult(NamedTuple):
    """The trained SAE, its history (one row per evaluation), and the last held-out evaluation."""

    sae: SAE
    history: pd.DataFrame
    final: Evaluation
    seconds: float


def make_sae(architecture: str, d_in: int, d_sae: int, k: int, seed: int = 0) -> SAE:
    """An SAE by its name ("vanilla", "topk", "batchtopk", "jumprelu") whose L0 is to be k."""
    makers = {
        "vanilla": lambda: VanillaSAE(d_in, d_sae, seed=seed),
        "topk": lambda: TopKSAE(d_in, d_sae, k, seed=seed),
        "batchtopk": lambda: BatchTopKSAE(d_in, d_sae, k, seed=seed),
        "jumprelu": lambda: JumpReLUSAE(d_in, d_sae, target_l0=k, seed=seed),
    }
    if architecture not in makers:
        raise ValueError(f"architecture must be one of {sorted(makers)}, not {architecture!r}")
    return makers[architecture]()


def suggest_size(n_texts: int, d_in: int = 384) -> tuple[int, int]:
    """(d_sae, k) for a corpus of n_texts, so that features can be named.

    From a measurement (`tests/benchmarks/sizes.py`: MiniLM, wiki-vital sentences, 1,000 to 27,000 training texts, d_sae 16 to
    2,048, k 4 to 16): the lowest held-out FVU among the sizes at which 95% of the labels have a held-out detection of 0.9
    or more was (64, 4) for 1,000 texts (where no size reached 95%), (64, 4) for 3,000, (256, 4) for 10,000 and (512, 8) for
    27,000. The line through these, d_sae = 2^(2 log10 n), is also that of HypotheSAEs (Movva et al. 2025), which
    gives (1024, 8) for 100,000; beyond 30,000 texts, and for a d_in other than 384, this is an extrapolation.
    """
    if n_texts < 1:
        raise ValueError(f"n_texts must be positive, not {n_texts}")
    d_sae = 2 ** round(2 * math.log10(max(n_texts, 10)) + 0.25)
    return int(min(max(d_sae, 16), 8 * d_in)), 4 if n_texts < 16_000 else 8


def _schedule(step: int, config: TrainConfig) -> float:
    warm, cool = config.warmup * config.steps, config.decay * config.steps
    return min(1.0, (step + 1) / max(warm, 1), (config.steps - step) / max(cool, 1))


def _save_checkpoint(folder: Path, sae: SAE, adam: torch.optim.Optimizer, state: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"sae.{k}": v for k, v in sae.state_dict().items()}
    for i, slot in adam.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v for k, v in slot.items()}
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / "new.safetensors", {"state": json.dumps(state)}
    )
    os.replace(folder / "new.safetensors", folder / "checkpoint.safetensors")


def _load_checkpoint(folder: Path, sae: SAE, adam: torch.optim.Optimizer, config: TrainConfig) -> dict:
    from safetensors import safe_open

    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        state = json.loads(file.metadata()["state"])
    if state["config"] != asdict(config) or state["sae"] != sae.config():
        raise ValueError(f"the checkpoint in {folder} is of another run ({state['sae']}): delete it, or use its configuration")
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
    return state


class _Member:
    """One SAE in training: its optimiser, its state, its steps. `train_many` drives one or several."""

    def __init__(self, sae: SAE, config: TrainConfig, device: torch.device) -> None:
        if config.target_l0 is not None and isinstance(sae, TopKSAE) and sae.k != config.target_l0:
            raise ValueError(f"target_l0 is {config.target_l0} but the SAE's k is {sae.k}: for TopK and BatchTopK they are one")
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
        if isinstance(sae, VanillaSAE) and self.target:  # start sparse, or the penalty shrinks everything first
            sae.b_enc.data.fill_(-excess_quantile(sae, sample, min(4 * self.target, sae.d_sae / 2), positive=False))
        self.own = [sae.threshold] if isinstance(sae, JumpReLUSAE) else []
        main = [p for p in sae.parameters() if all(p is not q for q in self.own)]
        groups = [{"params": main, "peak": self.config.lr}] + [{"params": [p], "peak": self.config.lr} for p in self.own]
        self.adam = torch.optim.Adam(groups, lr=self.config.lr, betas=(0.9, 0.999), fused=True)
        if folder and (folder / "checkpoint.safetensors").exists():
            self.state = _load_checkpoint(folder, sae, self.adam, self.config)
            if isinstance(sae, JumpReLUSAE):
                sae.warm = self.jumprelu and self.state["step"] <= self.config.jumprelu_start * self.config.steps

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
            if self.state["step"] % 20 == 19:  # texts of no training step activate more features than those of the batch
                with torch.no_grad():
                    unseen = (sae.encode(self.calibration[:1024]) > 0).sum(1).float().mean()
                self.state["unseen"] = float(unseen) / max(self.state["l0"], 0.1)
            _steer(self.state, float(loss.l0), self.target / self.state["unseen"])
        self.state["step"] += 1

    def leave_warm_start(self, x: Tensor) -> None:
        """JumpReLU: from BatchTopK's selection to its own thresholds, at `jumprelu_start` of the run."""
        if self.jumprelu and self.sae.warm and self.state["step"] >= self.config.jumprelu_start * self.config.steps:
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
        line = {"step": step, "loss": total, **now._asdict(), "dead_train": dead_train, "coefficient": self.state["coefficient"]}
        self.state["history"].append(line)
        return now


def _stacked_pre_acts(saes: list[SAE], x: Tensor) -> list[Tensor]:
    """z W_enc + b_enc of several SAEs, one product for those that need its gradient and one for those that do not."""
    z, out = saes[0].normalize(x), [x] * len(saes)  # the normaliser is common: they saw the same sample
    for sparse in (True, False):
        group = [i for i, s in enumerate(saes) if s.is_sparse_step(x.device) == sparse]
        if not group:
            continue
        with torch.set_grad_enabled(not sparse):
            bias = torch.cat([saes[i].b_enc for i in group])
            pre = torch.addmm(bias, z, torch.cat([saes[i].W_enc.t() for i in group]).t())
        for i, part in zip(group, pre.split([saes[i].d_sae for i in group], dim=1), strict=True):
            out[i] = part
    return out


def train_many(
    saes: list[SAE],
    data: EmbeddingStore | Tensor,
    configs: list[TrainConfig] | TrainConfig = TrainConfig(),
    *,
    held_out: Tensor | None = None,
    rows: np.ndarray | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[TrainResult]:
    """Train a sweep over one pass of the batches: other sizes, k, coefficients, architectures or seeds of the weights.

    The encoder products of all members are one product, the batches are read once, and each member gets what `train`
    would have given it, but for the rounding of that product.

    Args:
        configs: one for all, or one each; steps, batch_size, seed and eval_every must agree.

    Raises:
        ValueError: no SAE, configurations that disagree, and whatever `train` raises.
    """
    configs = [configs] * len(saes) if isinstance(configs, TrainConfig) else configs
    if not saes or len(configs) != len(saes):
        raise ValueError(f"{len(saes)} SAEs and {len(configs)} configurations: give at least one SAE, and one configuration each")
    for name in ("steps", "batch_size", "seed", "eval_every"):
        if len({getattr(c, name) for c in configs}) > 1:
            raise ValueError(
                f"members that train together must have one {name}, not {sorted({getattr(c, name) for c in configs})}"
            )
    return _train(saes, data, configs, held_out, rows, None, 1, None, device, progress)


def train(
    sae: SAE,
    data: EmbeddingStore | Tensor,
    config: TrainConfig = TrainConfig(),
    *,
    held_out: Tensor | None = None,
    rows: np.ndarray | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train an SAE on a store (or a tensor) of raw embeddings.

    Args:
        data: an `EmbeddingStore`, or embeddings (n, d_in).
        held_out: embeddings to evaluate on; None keeps a seeded sixth of `data` aside.
        rows: the store's training rows, when `held_out` is given.
        checkpoint: folder to save to and resume from; None neither.
        stop_after: stop at this step, as an interrupt would (the checkpoint is written).

    Raises:
        ValueError: d_in differs from the data's, NaN in the data, a checkpoint of another run.
        FloatingPointError: the loss became NaN.
    """
    folder = Path(checkpoint) if checkpoint else None
    return _train([sae], data, [config], held_out, rows, folder, checkpoint_every, stop_after, device, progress)[0]


def _train(
    saes: list[SAE], data: EmbeddingStore | Tensor, configs: list[TrainConfig], held_out: Tensor | None, rows: np.ndarray | None,
    folder: Path | None, checkpoint_every: int, stop_after: int | None, device: str | torch.device | None, progress: bool,
) -> list[TrainResult]:  # fmt: skip
    config, d_in = configs[0], data.d_in if isinstance(data, EmbeddingStore) else data.shape[1]
    for sae in saes:
        if sae.d_in != d_in:
            raise ValueError(f"the SAE takes d_in {sae.d_in}, the data has {d_in}: make it with d_in={d_in}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    members = [_Member(sae, c, device) for sae, c in zip(saes, configs, strict=True)]

    generator = np.random.default_rng(config.seed)
    if isinstance(data, EmbeddingStore):
        if held_out is None:
            rows, test_rows = data.split(seed=config.seed)
            held_out = torch.from_numpy(data.embeddings(test_rows))
        rows = np.arange(len(data)) if rows is None else rows
        aside = generator.random(len(rows)) < min(0.05, 4096 / len(rows))
        calibration = torch.from_numpy(data.embeddings(rows[aside]))
        rows = rows[~aside]
        sample = torch.from_numpy(data.embeddings(np.sort(generator.permutation(rows)[:50_000])))
    else:
        order = torch.from_numpy(generator.permutation(len(data))).to(data.device)
        if held_out is None:
            held_out, order = data[order[: len(data) // 6]], order[len(data) // 6 :]
        n_aside = min(len(order) // 20, 4096) or 1
        calibration, data = data[order[:n_aside]], data[order[n_aside:]]
        sample = data[:50_000]
    sample, calibration, held_out = (t.to(device, torch.float32) for t in (sample, calibration, held_out))
    for member in members:
        member.begin(sample, calibration, folder)

    step = members[0].state["step"]
    if isinstance(data, EmbeddingStore):
        stream = data.batches(config.batch_size, rows=rows, seed=config.seed, skip=step, device=device)
    else:
        stream = _tensor_batches(data.to(device, torch.float32), config, step)
    eval_every = config.eval_every or max(config.steps // 8, 1)
    began, last = time.perf_counter(), min(config.steps, stop_after or config.steps)
    name = saes[0].architecture if len(saes) == 1 else f"{len(saes)} SAEs"
    bar = tqdm(total=config.steps, initial=step, desc=f"training {name}", disable=not progress, mininterval=1)
    while step < last:
        x = next(stream)
        for member in members:
            member.leave_warm_start(x)
        pre = _stacked_pre_acts(saes, x) if len(saes) > 1 else [None]
        torch.stack([member.step(x, p) for member, p in zip(members, pre, strict=True)]).sum().backward()
        for member in members:
            member.finish(len(x))
        step += 1
        if step % eval_every == 0 or step == config.steps:
            now = [member.evaluate(held_out) for member in members]
            bar.set_postfix_str(f"FVU {now[0].fvu:.3f} L0 {now[0].l0:.1f} dead {now[0].dead:.1%}" if len(saes) == 1 else "")
        bar.update(1)
        if folder and (step % checkpoint_every == 0 or step == last):
            _save_checkpoint(folder, saes[0], members[0].adam, members[0].state)
    bar.close()
    seconds = time.perf_counter() - began
    return [TrainResult(m.sae.eval(), pd.DataFrame(m.state["history"]), evaluate(m.sae, held_out), seconds) for m in members]


def _steer(state: dict, l0: float, target: float) -> None:
    """Move log λ by the log ratio of the smoothed batch L0 to its target, damped by that ratio's change."""
    old = state["l0"]
    state["l0"] = l0 if old is None else 0.9 * old + 0.1 * l0
    gap = math.log(max(state["l0"], 1e-3) / target)
    slope = gap - math.log(max(old, 1e-3) / target) if old else 0.0
    state["coefficient"] *= math.exp(max(-0.02, min(0.02, 0.015 * gap + 0.3 * slope)))


def _tensor_batches(x: Tensor, config: TrainConfig, skip: int):  # noqa: ANN202
    from itertools import islice

    from saelib.store import _batch_plan

    if config.batch_size > len(x):
        raise ValueError(f"batch_size {config.batch_size} is more than the {len(x)} training embeddings: lower it")
    for _, picked in islice(_batch_plan(len(x), config.batch_size, len(x), config.seed), skip, None):
        yield x[torch.from_numpy(picked).to(x.device)]
