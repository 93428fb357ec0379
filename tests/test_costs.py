"""The cost of a large corpus, against what torch counts and what was written."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from saelib.costs import encoder_flops, estimate_cost, measured_rate
from saelib.encoder import load_encoder
from saelib.store import EmbeddingStore

TEXTS = [f"The old bridge over river number {i} was built of red stone." for i in range(200)]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(device="cpu", dtype=torch.float32)


def test_operations_are_those_that_torch_counts(encoder):
    tokens = encoder.model.preprocess(TEXTS[:1] * 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.model(tokens)
    assert 3 * encoder_flops(encoder, tokens["input_ids"].shape[1]) == pytest.approx(
        counter.get_total_flops(), rel=0.05
    )


def test_the_estimate_is_what_is_written(encoder, tmp_path):
    rows = [{"text": text, "domain": "all"} for text in TEXTS]
    cost = estimate_cost(10**9, encoder, rows, rate=1e12)
    store = EmbeddingStore.extract(tmp_path, rows, encoder, progress=False)
    written = sum(file.stat().st_size for file in tmp_path.glob("0*")) / len(store)
    assert cost.GB == pytest.approx(written, rel=0.1) and cost.shards == np.ceil(1e9 / 8192)
    assert cost.hours == pytest.approx(cost.flops / 1e12 / 3600)
    assert cost.flops == pytest.approx(1e9 * encoder_flops(encoder, cost.tokens), rel=0.01)


def test_the_measured_rate_is_of_these_texts(encoder):
    assert 1e6 < measured_rate(encoder, TEXTS) < 1e16
