"""One loop for all four SAEs: `train` trains one, `train_many` a sweep over one pass of the batches.

What a step is, what can be configured, and how the target L0 is met stands in `trainer.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from saelib import processes
from saelib.checks import whole
from saelib.files import digest, only_writer, resolved
from saelib.metrics import Evaluation, evaluate
from saelib.sae import SAE
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig, Trainer
from saelib.training_data import TrainingData, prepare


class TrainResult(NamedTuple):
    """The trained SAE, its history (a row per evaluation), the last of these, seconds of training."""

    sae: SAE
    history: pd.DataFrame
    final: Evaluation
    seconds: float


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
        data: an `EmbeddingStore`, or embeddings (n, d_in): a tensor, an array, a DataFrame of numbers.
        held_out: embeddings (m, d_in) to evaluate on; None keeps a seeded sixth aside, a store's by title,
            and evaluates on at most 50,000 of it.
        rows: the store's training rows (numbers or a mask), when `held_out` is given.
        checkpoint: folder to save to and resume from; None neither. It belongs to this configuration, these
            initial weights, these embeddings and rows; an SAE that this run has begun to train is known too.
        stop_after: stop at this step, as an interrupt would (the checkpoint is written).

    Raises:
        ValueError: d_in differs from the data's, too few embeddings, NaN among them or the SAE's weights.
        CheckpointError: the checkpoint is of another run, or damaged (a ValueError too).
        InUseError: another process trains with this checkpoint.
        FloatingPointError: the loss or the FVU became NaN.
        KeyboardInterrupt: says what is kept.
    """
    every, last = whole("checkpoint_every", checkpoint_every), config.steps
    last = last if stop_after is None else min(last, whole("stop_after", stop_after))
    embeddings = prepare([sae], data, config, held_out, rows, device)
    trainers = [Trainer(sae, config, embeddings.device)]
    if checkpoint is None:
        return _run(trainers, embeddings, progress, last)[0]
    now = digest(sae.state_dict())
    begun_as = sae.begun_as.get(now, now)  # what this run itself has left of an SAE is no stranger
    try:
        run = embeddings.digests() | {"initial weights": begun_as}
        return _run(trainers, embeddings, progress, last, _Checkpoint(resolved(checkpoint), every, run))[0]
    finally:
        sae.begun_as = {digest(sae.state_dict()): begun_as}


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
    """Train several SAEs (architectures, sizes, coefficients, seeds) over one pass of the batches.

    Each gets what `train` would have given it.

    Args:
        configs: one for all, or one each; steps, batch_size, buffer_rows, seed and eval_every must agree.

    Raises:
        ValueError: no SAE, one of them twice, configurations that disagree, and whatever `train` raises.
    """
    saes = list(saes)
    configs = [configs] * len(saes) if isinstance(configs, TrainConfig) else configs
    if not saes or len(configs) != len(saes):
        raise ValueError(
            f"{len(saes)} SAEs and {len(configs)} configurations: "
            "give at least one SAE, and one configuration each"
        )
    for name in ("steps", "batch_size", "buffer_rows", "seed", "eval_every"):
        found = {getattr(c, name) for c in configs}
        if len(found) > 1:
            raise ValueError(f"SAEs that train together must have one {name}, not {sorted(found)}")
    if len({id(sae) for sae in saes}) < len(saes):
        raise ValueError("one SAE stands twice in the list: make one for each run")
    embeddings = prepare(saes, data, configs[0], held_out, rows, device)
    trainers = [Trainer(sae, c, embeddings.device) for sae, c in zip(saes, configs, strict=True)]
    return _run(trainers, embeddings, progress, configs[0].steps)


class _Checkpoint(NamedTuple):
    """Where a run is saved, every how many steps, and what a checkpoint must agree in to be of this run."""

    folder: Path
    every: int
    run: dict


def _run(
    trainers: list[Trainer], embeddings: TrainingData, progress: bool, last: int,
    checkpoint: _Checkpoint | None = None,
) -> list[TrainResult]:  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        sample = embeddings.sample()
        for trainer in trainers:
            kept = (checkpoint.folder, checkpoint.run) if checkpoint else ()
            trainer.begin(sample, embeddings.calibration, *kept)
        del sample
        began = time.perf_counter()
        saved = trainers[0].state["step"]
        if checkpoint and saved < last and processes.is_first():  # a finished run is only read
            stack.enter_context(only_writer(checkpoint.folder))
        stack.enter_context(_tensor_cores(embeddings.device))
        try:
            for step in _steps(trainers, embeddings, progress, last):
                if checkpoint and (step % checkpoint.every == 0 or step == last):
                    if processes.is_first():
                        trainers[0].save(checkpoint.folder)
                    saved = step
        except KeyboardInterrupt:
            kept = "nothing is kept" + (" yet" if checkpoint else "; train(..., checkpoint=folder) keeps it")
            if saved:
                kept = f"step {saved} is kept in {checkpoint.folder}; the same call goes on from there"
            raise KeyboardInterrupt(f"stopped at step {trainers[0].state['step']}: {kept}") from None
        seconds = time.perf_counter() - began
        for t in trainers:  # a run that stops early calibrates what it gives back, and not its checkpoint
            if t.state["step"] < t.config.steps:
                t.calibrate()
        return [
            TrainResult(
                t.sae.eval(), pd.DataFrame(t.state["history"]), evaluate(t.sae, embeddings.held_out), seconds
            )
            for t in trainers
        ]


def _steps(trainers: list[Trainer], embeddings: TrainingData, progress: bool, last: int) -> Iterator[int]:
    """Train to step `last`; yields each step's number when it is done."""
    config, step = trainers[0].config, trainers[0].state["step"]
    eval_every = config.eval_every or max(config.steps // 8, 1)
    stream = embeddings.batches(step)
    name = trainers[0].sae.architecture if len(trainers) == 1 else f"{len(trainers)} SAEs"
    look = {"desc": f"training {name}", "disable": not progress, "mininterval": 1}
    with tqdm(total=config.steps, initial=step, **look) as bar:
        while step < last:
            x = next(stream)
            for trainer in trainers:
                trainer.step(x)
            step += 1
            if step % eval_every == 0 or step == config.steps:
                now = [trainer.evaluate(embeddings.held_out) for trainer in trainers][0]
                if len(trainers) == 1:
                    bar.set_postfix_str(f"FVU {now.fvu:.3f} L0 {now.l0:.1f} dead {now.dead:.1%}")
            bar.update(1)
            yield step


@contextmanager
def _tensor_cores(device: torch.device) -> Iterator[None]:
    """TF32 products on GPUs that have them, while training: float32's range, 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def suggest_size(n_texts: int, d_in: int = 384) -> tuple[int, int]:
    """(d_sae, k) for a corpus of n_texts, so that features can be named.

    From measurements with MiniLM on wiki-vital sentences. The lowest held-out FVU among the sizes at which
    95% of the names had a held-out AUROC of 0.9 or more (by an earlier rule of choosing names, which the
    encoder alone judged) was (64, 4) for 1,000 texts, where no size reached 95%, (64, 4) for 3,000, (256, 4)
    for 10,000 and (512, 8) for 27,000. The line through these, d_sae = 2^(2 log10 n), is also that of
    HypotheSAEs (Movva et al. 2025), which gives (1024, 8) for 100,000. By the share of the variance that
    features with a trusted name explain (`tests/benchmarks/sizes.py`, k 4) the best size was 64 for 1,000
    texts (0.085) and 128 for 3,000 (0.203); for 10,000 texts it is flat: 0.289, 0.295, 0.313, 0.302 for 128,
    256, 512, 1024. For a d_in other than 384, and beyond 60,000 texts, this is an extrapolation.

    Raises:
        ValueError: what are no whole numbers of at least 1.
    """
    n_texts, d_in = whole("n_texts", n_texts), whole("d_in", d_in)
    d_sae = 2 ** round(2 * math.log10(max(n_texts, 10)) + 0.25)
    return int(min(max(d_sae, 16), 8 * d_in)), 4 if n_texts < 16_000 else 8
