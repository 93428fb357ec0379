"""What a run trains on: embeddings of a store or a tensor, by what they are for, each input checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelib.files import digest
from saelib.sae import SAE, as_embeddings, check_embeddings, check_weights
from saelib.shards import checksum
from saelib.store import EmbeddingStore, batch_plan, row_numbers
from saelib.trainer import TrainConfig

ENOUGH = 50_000  # embeddings that fix a mean or a held-out figure


class TrainingData(NamedTuple):
    """Embeddings (n, d_in) by what they are for, and the training batches from any step on."""

    sample: Callable[[], Tensor]  # for the normaliser, read when it is wanted and not kept
    calibration: Tensor  # no step sees these
    held_out: Tensor
    batches: Callable[[int], Iterator[Tensor]]
    digests: Callable[[], dict[str, str]]  # what they are
    device: torch.device


def prepare(
    saes: list[SAE], data: EmbeddingStore | Tensor, config: TrainConfig, held_out: Tensor | None,
    rows: np.ndarray | None, device: str | torch.device | None,
) -> TrainingData:  # fmt: skip
    """The arguments of `train`, checked, as what a run trains on."""
    for sae in saes:
        if not isinstance(sae, SAE):
            raise ValueError(f"a {type(sae).__name__} is no SAE: make_sae makes one")
        if not all(p.requires_grad and p.dtype == torch.float32 for p in sae.parameters()):
            raise ValueError("only float32 weights with gradients can learn: sae.float().requires_grad_()")
        check_weights(sae.state_dict())
    is_store = isinstance(data, EmbeddingStore)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    generator = np.random.default_rng(config.seed)
    data = data if is_store else as_embeddings(data, "data")
    d_in = data.d_in if is_store else data.shape[1]
    for sae in saes:
        if sae.d_in != d_in:
            raise ValueError(f"the SAE takes d_in {sae.d_in}, the data has {d_in}: make it with d_in={d_in}")
        if sae.W_dec.is_inference():
            raise ValueError("an SAE that was made under torch.inference_mode cannot learn: make it outside")
    if held_out is not None:
        held_out = as_embeddings(held_out, "held_out")
        if held_out.shape[1] != d_in:
            raise ValueError(f"held_out has d_in {held_out.shape[1]}, the data {d_in}: one encoder for both")
    if rows is not None and (held_out is None or not is_store):
        raise ValueError(
            "rows are those of a store, and go with held_out: without it, train splits the store"
        )
    if is_store:
        if held_out is None:
            rows, test_rows = data.split(seed=config.seed)
            held_out = torch.from_numpy(data.embeddings(_some(test_rows, config.seed)))
        rows = row_numbers(rows, len(data))
        aside = generator.random(len(rows)) < min(0.05, 4096 / max(len(rows), 1))
        aside[:1] |= not aside.any()  # of few texts, chance may have put none aside
        calibration, train_rows = torch.from_numpy(data.embeddings(rows[aside])), rows[~aside]
        for_sample = np.sort(generator.permutation(train_rows)[:ENOUGH])
    else:
        check_embeddings(data, "training")
        order = generator.permutation(len(data))
        if held_out is None:
            test_rows, order = order[: len(data) // 6], order[len(data) // 6 :]
            held_out = data[_some(test_rows, config.seed)]
        n_aside = min(len(order) // 20, 4096) or 1
        calibration, train_rows = data[order[:n_aside]], order[n_aside:]
        for_sample = train_rows[:ENOUGH]
    check_embeddings(held_out, "held-out")

    def sample() -> Tensor:
        read = torch.from_numpy(data.embeddings(for_sample)) if is_store else data[for_sample]
        return read.to(device, torch.float32)

    def batches(skip: int) -> Iterator[Tensor]:
        if config.batch_size > len(train_rows):
            raise ValueError(
                f"batch_size {config.batch_size} is more than the {len(train_rows)} training rows: lower it"
            )
        if is_store:
            settings = {"buffer_rows": config.buffer_rows, "device": device}
            return data.batches(config.batch_size, rows=train_rows, seed=config.seed, skip=skip, **settings)
        return _tensor_batches(data.to(device), train_rows, config, skip)

    def digests() -> dict[str, str]:
        found = {"held-out texts": digest({"": held_out})}
        if is_store:
            return found | {
                "texts": checksum(data.manifest),
                "rows": digest({"": torch.from_numpy(rows)}),
            }
        return found | {"texts": digest({"": data})}

    parts = (t.to(device, torch.float32) for t in (calibration, held_out))
    return TrainingData(sample, *parts, batches, digests, device)


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    """These rows, or a seeded sample where there are more than it takes to evaluate."""
    return rows if len(rows) <= ENOUGH else np.sort(np.random.default_rng(seed).choice(rows, ENOUGH, False))


def _tensor_batches(x: Tensor, rows: np.ndarray, config: TrainConfig, skip: int) -> Iterator[Tensor]:
    """What `store.batches` is to a store, for rows of a tensor (n, d_in) in memory."""
    for _, picked in islice(batch_plan(len(rows), config.batch_size, len(rows), config.seed), skip, None):
        yield x[torch.from_numpy(rows[picked]).to(x.device)].float()
