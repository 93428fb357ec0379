"""One training loop for all four SAEs, with a sparsity target that is met on held-out data.

`train` trains one SAE, `train_many` a sweep over one pass of the batches. What one step is stands in `member.py`, what can
be configured in `config.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
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
    """The trained SAE, its history (one row per evaluation), and the last held-out evaluation."""

    sae: SAE
    history: pd.DataFrame
    final: Evaluation
    seconds: float


@contextmanager
def _tensor_cores(device: torch.device) -> Iterator[None]:
    """TF32 products on GPUs that have them, while training: float32 range, 10 bits of mantissa, several times the speed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
        raise ValueError(
            f"{len(saes)} SAEs and {len(configs)} configurations: give at least one SAE, and one configuration each"
        )
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
    return _train(
        [sae], data, [config], held_out, rows, folder, checkpoint_every, stop_after, device, progress
    )[0]


def _train(
    saes: list[SAE], data: EmbeddingStore | Tensor, configs: list[TrainConfig], held_out: Tensor | None, rows: np.ndarray | None,
    folder: Path | None, checkpoint_every: int, stop_after: int | None, device: str | torch.device | None, progress: bool,
) -> list[TrainResult]:  # fmt: skip
    config, d_in = configs[0], data.d_in if isinstance(data, EmbeddingStore) else data.shape[1]
    for sae in saes:
        if sae.d_in != d_in:
            raise ValueError(f"the SAE takes d_in {sae.d_in}, the data has {d_in}: make it with d_in={d_in}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    members = [Trainer(sae, c, device) for sae, c in zip(saes, configs, strict=True)]

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
    with _tensor_cores(device), bar:
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
                bar.set_postfix_str(
                    f"FVU {now[0].fvu:.3f} L0 {now[0].l0:.1f} dead {now[0].dead:.1%}"
                    if len(saes) == 1
                    else ""
                )
            bar.update(1)
            if folder and (step % checkpoint_every == 0 or step == last):
                members[0].save(folder)
    seconds = time.perf_counter() - began
    return [
        TrainResult(m.sae.eval(), pd.DataFrame(m.state["history"]), evaluate(m.sae, held_out), seconds)
        for m in members
    ]


def _tensor_batches(x: Tensor, config: TrainConfig, skip: int) -> Iterator[Tensor]:
    """What `store.batches` is to a store, for a tensor (n, d_in) in memory."""
    if config.batch_size > len(x):
        raise ValueError(
            f"batch_size {config.batch_size} is more than the {len(x)} training embeddings: lower it"
        )
    for _, picked in islice(batch_plan(len(x), config.batch_size, len(x), config.seed), skip, None):
        yield x[torch.from_numpy(picked).to(x.device)]


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
