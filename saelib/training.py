"""One loop for all four SAEs: `train` trains one, `train_many` a sweep over one pass of the batches.

What a step is, what can be configured, and how the target L0 is met stands in `trainer.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from saelib.metrics import Evaluation, evaluate
from saelib.sae import SAE
from saelib.store import EmbeddingStore, batch_plan
from saelib.trainer import TrainConfig, Trainer


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
        data: an `EmbeddingStore`, or embeddings (n, d_in).
        held_out: embeddings (m, d_in) to evaluate on; None keeps a seeded sixth aside, a store's by title.
        rows: the store's training rows, when `held_out` is given.
        checkpoint: folder to save to and resume from; None neither.
        stop_after: stop at this step, as an interrupt would (the checkpoint is written).

    Raises:
        ValueError: d_in differs from the data's, NaN in the data, a checkpoint of another run.
        FloatingPointError: the loss became NaN.
    """
    embeddings = _prepare([sae], data, config, held_out, rows, device)
    trainers, folder = [Trainer(sae, config, embeddings.device)], Path(checkpoint) if checkpoint else None
    return _run(trainers, embeddings, progress, folder, checkpoint_every, stop_after)[0]


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
        configs: one for all, or one each; steps, batch_size, seed and eval_every must agree.

    Raises:
        ValueError: no SAE, configurations that disagree, and whatever `train` raises.
    """
    configs = [configs] * len(saes) if isinstance(configs, TrainConfig) else configs
    if not saes or len(configs) != len(saes):
        raise ValueError(
            f"{len(saes)} SAEs and {len(configs)} configurations: "
            "give at least one SAE, and one configuration each"
        )
    for name in ("steps", "batch_size", "seed", "eval_every"):
        found = {getattr(c, name) for c in configs}
        if len(found) > 1:
            raise ValueError(f"SAEs that train together must have one {name}, not {sorted(found)}")
    embeddings = _prepare(saes, data, configs[0], held_out, rows, device)
    trainers = [Trainer(sae, c, embeddings.device) for sae, c in zip(saes, configs, strict=True)]
    return _run(trainers, embeddings, progress)


class _Embeddings(NamedTuple):
    """Embeddings (n, d_in) by what they are for, and the training batches from any step on."""

    sample: Tensor  # for the normaliser
    calibration: Tensor  # no step sees these
    held_out: Tensor
    batches: Callable[[int], Iterator[Tensor]]
    device: torch.device


def _prepare(
    saes: list[SAE], data: EmbeddingStore | Tensor, config: TrainConfig, held_out: Tensor | None,
    rows: np.ndarray | None, device: str | torch.device | None,
) -> _Embeddings:  # fmt: skip
    d_in = data.d_in if isinstance(data, EmbeddingStore) else data.shape[1]
    for sae in saes:
        if sae.d_in != d_in:
            raise ValueError(f"the SAE takes d_in {sae.d_in}, the data has {d_in}: make it with d_in={d_in}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
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

    def batches(skip: int) -> Iterator[Tensor]:
        if isinstance(data, EmbeddingStore):
            return data.batches(config.batch_size, rows=rows, seed=config.seed, skip=skip, device=device)
        return _tensor_batches(data.to(device, torch.float32), config, skip)

    parts = (t.to(device, torch.float32) for t in (sample, calibration, held_out))
    return _Embeddings(*parts, batches, device)


def _tensor_batches(x: Tensor, config: TrainConfig, skip: int) -> Iterator[Tensor]:
    """What `store.batches` is to a store, for a tensor (n, d_in) in memory."""
    if config.batch_size > len(x):
        raise ValueError(
            f"batch_size {config.batch_size} is more than the {len(x)} training embeddings: lower it"
        )
    for _, picked in islice(batch_plan(len(x), config.batch_size, len(x), config.seed), skip, None):
        yield x[torch.from_numpy(picked).to(x.device)]


def _run(
    trainers: list[Trainer], embeddings: _Embeddings, progress: bool,
    folder: Path | None = None, save_every: int = 200, stop_after: int | None = None,
) -> list[TrainResult]:  # fmt: skip
    config, held_out = trainers[0].config, embeddings.held_out
    for trainer in trainers:
        trainer.begin(embeddings.sample, embeddings.calibration, folder)
    step, last = trainers[0].state["step"], min(config.steps, stop_after or config.steps)
    eval_every = config.eval_every or max(config.steps // 8, 1)
    stream, began = embeddings.batches(step), time.perf_counter()
    name = trainers[0].sae.architecture if len(trainers) == 1 else f"{len(trainers)} SAEs"
    bar = tqdm(total=config.steps, initial=step, desc=f"training {name}", disable=not progress, mininterval=1)
    with _tensor_cores(embeddings.device), bar:
        while step < last:
            x = next(stream)
            for trainer in trainers:
                trainer.step(x)
            step += 1
            if step % eval_every == 0 or step == config.steps:
                now = [trainer.evaluate(held_out) for trainer in trainers][0]
                if len(trainers) == 1:
                    bar.set_postfix_str(f"FVU {now.fvu:.3f} L0 {now.l0:.1f} dead {now.dead:.1%}")
            bar.update(1)
            if folder and (step % save_every == 0 or step == last):
                trainers[0].save(folder)
    seconds = time.perf_counter() - began
    return [
        TrainResult(t.sae.eval(), pd.DataFrame(t.state["history"]), evaluate(t.sae, held_out), seconds)
        for t in trainers
    ]


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

    From a measurement with an earlier rule of choosing names, which the encoder alone judged (MiniLM,
    wiki-vital sentences, 1,000 to 27,000 training texts, d_sae 16 to 2,048, k 4 to 16, a learning rate of
    2e-3; `tests/benchmarks/sizes.py` measures anew): the lowest held-out FVU among the sizes at which 95%
    of the names had a held-out AUROC of 0.9 or more was (64, 4) for 1,000 texts (where no size reached
    95%), (64, 4) for 3,000, (256, 4) for 10,000 and (512, 8) for 27,000. The line through
    these, d_sae = 2^(2 log10 n), is also that of HypotheSAEs (Movva et al. 2025), which gives (1024, 8) for
    100,000; for a d_in other than 384, and beyond 60,000 texts, this is an extrapolation.
    """
    if n_texts < 1:
        raise ValueError(f"n_texts must be positive, not {n_texts}")
    d_sae = 2 ** round(2 * math.log10(max(n_texts, 10)) + 0.25)
    return int(min(max(d_sae, 16), 8 * d_in)), 4 if n_texts < 16_000 else 8
