"""The encoder: packaged weights, unit norm, and the plain library's vectors whatever the batches."""

import numpy as np
import pytest
import torch

from saelib.encoder import load_encoder


def test_packaged_encoder_is_real_and_unit_norm():
    encoder = load_encoder(device="cpu", dtype=torch.float32)
    v = encoder.encode(["a cat on a mat", "the kitten sat on a rug", "stock market crash", "a cat on a mat"])
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    assert v[0] @ v[1] > v[0] @ v[2] + 0.2 and np.array_equal(v[0], v[3]) and encoder.d_in == 384
    fast = load_encoder(device="cpu").encode(["a cat on a mat"])
    assert fast[0] @ v[0] > 0.999
    plain = encoder.model.encode(["stock market crash"], normalize_embeddings=True)
    np.testing.assert_allclose(plain[0], v[2], atol=1e-5)
    with pytest.raises(ValueError, match="text 1 cannot be embedded"):
        encoder.encode(["fine", ""])


def test_encoding_in_batches_of_tokens_equals_the_plain_library():
    texts = ["river bank " * n for n in (90, 1, 40, 2, 1, 3, 60, 7)] + ["Ein Satz."] * 2
    encoder, told = load_encoder(device="cpu", dtype=torch.float32), []
    vectors = encoder.encode(texts, batch_tokens=64, progress=told.append)
    plain = encoder.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(vectors, plain, atol=2e-6)
    assert sum(told) == len(set(texts))
    encoder.model.tokenizer.padding_side = (
        "left"  # a row alone in its batch keeps its tokens and none of the padding
    )
    np.testing.assert_allclose(
        encoder.encode([texts[i] for i in (0, 2, 3)], batch_tokens=64), vectors[[0, 2, 3]], atol=2e-6
    )
