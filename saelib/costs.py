"""What a large corpus costs, before it is begun: operations of the encoder, hours, disk, memory.

A text of T tokens takes 2 P T + 4 L T² d operations: two for each of the P weights of the encoder's L layers
of width d and each token, and the products of attention. What a machine does of that in a second is measured
(`rate`) or assumed. An SAE's step takes 10 · d_in · d_sae a text: five products of two operations each.
"""

from __future__ import annotations

import time

import pandas as pd

from saelib.encoder import Encoder
from saelib.shards import bytes_per_text

ROW_BYTES = 85  # a text's row numbers in memory while training: notebook 12 measures 79 to 92


def encoder_flops(encoder: Encoder, tokens: float) -> float:
    """Floating-point operations of the encoder for a text of so many tokens; 0 for static embeddings."""
    network = next((m for m in encoder.model[0].modules() if hasattr(m, "config")), None)
    if network is None:
        return 0.0
    weights = sum(
        p.numel() for name, p in network.named_parameters() if p.ndim == 2 and "embeddings" not in name
    )
    pooler = sum(p.numel() for name, p in network.named_parameters() if p.ndim == 2 and "pooler" in name)
    config = network.config
    attention = 4 * config.num_hidden_layers * tokens**2 * config.hidden_size
    return 2.0 * (weights - pooler) * tokens + attention


def measured_rate(encoder: Encoder, texts: list[str]) -> float:
    """Operations a second that encoding these texts comes to, here and now."""
    lengths = [len(ids) for ids in encoder.model.tokenizer(texts, truncation=True)["input_ids"]]
    began = time.perf_counter()
    encoder.encode(texts)
    return sum(encoder_flops(encoder, n) for n in lengths) / (time.perf_counter() - began)


def estimate_cost(
    n_texts: int,
    encoder: Encoder,
    rows: list[dict],
    rate: float,
    dtype: str = "float16",
    shard_rows: int = 8192,
) -> pd.Series:
    """What it takes to extract a store of n_texts like these rows.

    Args:
        rows: a sample, dicts with `text` as a corpus has them. rate: operations a second (`measured_rate`).

    Returns:
        `tokens` of a text (mean), `flops` in all, `hours` at that rate, `GB` on the disk, `shards`,
        `MB_shard`, `GB_memory` of row numbers while training: all in memory that grows with the corpus.
    """
    texts = [row["text"] for row in rows]
    lengths = [len(ids) for ids in encoder.model.tokenizer(texts, truncation=True)["input_ids"]]
    flops = n_texts * sum(encoder_flops(encoder, n) for n in lengths) / len(texts)
    size = bytes_per_text(rows, {"d_in": encoder.d_in, "dtype": dtype})
    return pd.Series({
        "tokens": sum(lengths) / len(lengths),
        "flops": flops,
        "hours": flops / rate / 3600,
        "GB": n_texts * size / 1e9,
        "shards": -(-n_texts // shard_rows),
        "MB_shard": shard_rows * size / 1e6,
        "GB_memory": n_texts * ROW_BYTES / 1e9,
    })  # fmt: skip
