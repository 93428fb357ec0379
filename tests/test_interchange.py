"""SAEs of other libraries, written and read; vectors that others computed. The libraries' own formulas stand here."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic import gaussian

from saelib.interchange import read_foreign, store_from_vectors, write_saelens, write_sparsify
from saelib.sae import make_sae
from saelib.store import EmbeddingStore

FOUR = ["vanilla", "topk", "batchtopk", "jumprelu"]


def trained(kind):
    """As if trained: no buffer and no bias is at its start."""
    x, sae = gaussian(300, 12) * 0.05 + 0.3, make_sae(kind, 12, 20, 3, seed=1)
    sae.fit_normalizer(x)
    with torch.no_grad():
        sae.b_dec.copy_(gaussian(1, 12, seed=5)[0] * 0.2)
        sae.b_enc.copy_(gaussian(1, 20, seed=6)[0] * 0.2)
        sae.W_enc.add_(0.1 * gaussian(12, 20, seed=7))
    sae.calibrate(x, 3)
    return sae.eval(), x


def by_their_formulas(folder, x):
    """(activations, reconstructions) as SAELens and latentsae compute them from the files."""
    cfg = json.loads((folder / "cfg.json").read_text())
    w = load_file(next(folder.glob("*.safetensors")))
    if "encoder.weight" in w:
        pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
        cfg["architecture"] = "topk"
    else:
        assert not cfg["apply_b_dec_to_input"]
        pre = x @ w["W_enc"] + w["b_enc"]
    f = pre.relu()
    if cfg["architecture"] == "topk":
        top = f.topk(cfg["k"], dim=1)
        f = torch.zeros_like(f).scatter(1, top.indices, top.values)
    if cfg["architecture"] == "jumprelu":
        f = f * (pre > w["threshold"])
    return f, f @ w["W_dec"] + w["b_dec"]


def agree(sae, x, f, x_hat, scale):
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x) / scale, f, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(sae(x), x_hat, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", FOUR)
def test_saelens_has_the_same_activations(kind, tmp_path):
    sae, x = trained(kind)
    folder = write_saelens(sae, tmp_path / "s", "a-model")
    f, x_hat = by_their_formulas(folder, x)
    assert 2 < (f > 0).sum(1).float().mean() < 4
    agree(sae, x, f, x_hat, sae.scale)
    again = read_foreign(folder)
    agree(again, x, f, x_hat, 1.0)
    assert again.architecture == {"batchtopk": "jumprelu"}.get(kind, kind)


def test_sparsify_and_latentsae_take_topk(tmp_path):
    sae, x = trained("topk")
    f, x_hat = by_their_formulas(write_sparsify(sae, tmp_path), x)
    agree(sae, x, f, x_hat, sae.scale)
    agree(read_foreign(tmp_path), x, f, x_hat, 1.0)
    for kind in set(FOUR) - {"topk"}:
        with pytest.raises(ValueError, match="write_saelens takes all four"):
            write_sparsify(trained(kind)[0], tmp_path / kind)


def changed(folder, **settings):
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | settings))


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"architecture": "gated"}, "is a 'gated'"),
        ({"metadata": {}}, "before version 6"),
        ({"normalize_activations": "layer_norm"}, "normalises"),
        ({"k": "many"}, "damaged"),
    ],
)
def test_what_does_not_fit_is_said(settings, said, tmp_path):
    changed(write_saelens(trained("topk")[0], tmp_path), **settings)
    with pytest.raises(ValueError, match=said):
        read_foreign(tmp_path)


def test_a_transcoder_is_refused(tmp_path):
    changed(write_sparsify(trained("topk")[0], tmp_path), transcode=True)
    with pytest.raises(ValueError, match="is a transcoder"):
        read_foreign(tmp_path)


def test_an_input_less_b_dec_is_read(tmp_path):
    """SAELens' own default: its encoder sees x − b_dec."""
    sae, x = trained("topk")
    folder = write_saelens(sae, tmp_path)
    w = load_file(folder / "sae_weights.safetensors")
    w["b_enc"] += w["b_dec"] @ w["W_enc"]
    save_file(w, folder / "sae_weights.safetensors")
    changed(folder, apply_b_dec_to_input=True)
    with torch.no_grad():
        torch.testing.assert_close(read_foreign(folder)(x), sae(x), atol=1e-5, rtol=1e-4)


def test_decoder_norms_and_centring(tmp_path):
    sae, x = trained("topk")
    folder = write_saelens(sae, tmp_path / "a")
    w = load_file(folder / "sae_weights.safetensors")
    save_file(w | {"W_dec": w["W_dec"] * 2}, folder / "sae_weights.safetensors")
    changed(folder, rescale_acts_by_decoder_norm=True)
    with pytest.raises(ValueError, match="fold_W_dec_norm"):
        read_foreign(folder)
    folder = write_sparsify(sae, tmp_path / "b")  # latentsae's mean_center: x − m goes in, + m comes out
    w, m = load_file(folder / "sae.safetensors"), torch.full((12,), 0.1)
    save_file(w | {"b_dec": w["b_dec"] - m, "input_mean": m}, folder / "sae.safetensors")
    agree(read_foreign(folder), x, *by_their_formulas(write_sparsify(sae, tmp_path / "c"), x), 1.0)


def test_pickles_and_damage_are_refused(tmp_path):
    (tmp_path / "ae.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="is a pickle"):
        read_foreign(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_foreign(tmp_path / "nothing")
    folder = write_saelens(trained("topk")[0], tmp_path / "s")
    data = (folder / "sae_weights.safetensors").read_bytes()
    (folder / "sae_weights.safetensors").write_bytes(data[:-8])
    with pytest.raises(ValueError, match="damaged"):
        read_foreign(folder)
    sae = trained("topk")[0]
    sae.save(tmp_path / "own")
    with pytest.raises(ValueError, match="load_sae reads it"):
        read_foreign(tmp_path / "own")


# ---- vectors that others computed ----


def test_vectors_of_others_become_a_store(tmp_path):
    texts, x = [f"text number {i}" for i in range(50)], gaussian(50, 6).numpy() * 3
    store = store_from_vectors(tmp_path / "a", texts, x, encoder_name="theirs")
    np.testing.assert_allclose(store.embeddings(), x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-6)
    assert store.texts == texts and store.manifest["encoder"] == "theirs"
    frame = pd.DataFrame({"body": texts, "emb": list(x), "kind": ["a", "b"] * 25})
    frame.to_parquet(tmp_path / "x.parquet")
    named = {"encoder_name": "theirs", "text_column": "body", "domain_column": "kind"}
    other = store_from_vectors(tmp_path / "b", tmp_path / "x.parquet", "emb", **named)
    np.testing.assert_array_equal(other.embeddings(), store.embeddings())
    assert list(other.frame.domain[:2]) == ["a", "b"]
    assert len(store_from_vectors(tmp_path / "b", frame, "emb", **named)) == 50, "opened, as it is whole"
    with pytest.raises(ValueError, match="was written by theirs"):
        store_from_vectors(tmp_path / "a", texts, x[::-1], encoder_name="others")


def test_vectors_that_do_not_fit(tmp_path):
    texts, x = ["one text", "two text", "three text"], gaussian(3, 4).numpy()
    bad = x.copy()
    bad[1] = 0
    for given, vectors, said in (
        (texts, x[:2], "2 vectors for 3 texts"),
        (["", *texts[1:]], x, "3 vectors for 2 texts"),
        (texts, bad, "vector 1 is zero"),
        (texts, x[0], "numbers"),
        (["one text", "one text", "b c"], x, "row 1 has the text of an earlier row"),
        (pd.DataFrame({"text": texts, "v": [[1, 2], [3.0], [4, 5]]}), "v", "1 to 2 numbers"),
        (pd.DataFrame({"text": texts}), "v", "no column 'v'"),
    ):
        with pytest.raises(ValueError, match=said):
            store_from_vectors(tmp_path / "s", given, vectors, encoder_name="theirs")
    with pytest.raises(FileNotFoundError):
        EmbeddingStore(tmp_path / "s")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("topk", {"b_enc": torch.zeros(1)}, "b_enc is"),
        ("jumprelu", {"threshold": torch.ones(1)}, "threshold is"),
        ("topk", {"threshold": torch.ones(20)}, r"has not: \['threshold'\]"),
        ("sparsify", {"encoder.bias": torch.zeros(1)}, "b_enc is"),
        ("sparsify", {"input_mean": torch.zeros(1)}, "input_mean is"),
    ],
)
def test_one_number_is_not_taken_for_a_row(kind, change, said, tmp_path):
    if kind == "sparsify":
        write_sparsify(trained("topk")[0], tmp_path)
    else:
        write_saelens(trained(kind)[0], tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    save_file(load_file(file) | change, file)
    with pytest.raises(ValueError, match=said):
        read_foreign(tmp_path)


def test_settings_and_tables_that_are_none(tmp_path):
    changed(write_saelens(trained("topk")[0], tmp_path), apply_b_dec_to_input="false")
    with pytest.raises(ValueError, match="must be true or false"):
        read_foreign(tmp_path)
    for given, said in ((["a b"] * 9, "not a list"), (pd.DataFrame({"text": ["a b", "c d"], "v": [[1.0], None]}), "row 1 has no vector")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            store_from_vectors(tmp_path / "s", given, "v", encoder_name="theirs")
    x = gaussian(3, 4).bfloat16().requires_grad_()
    assert len(store_from_vectors(tmp_path / "t", ["a b", "c d", "e f"], x, encoder_name="theirs")) == 3
