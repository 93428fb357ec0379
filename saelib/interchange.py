"""Roads in and out: SAEs of other libraries, and vectors that others computed. No pickles.

Written and read are folders of SAELens (version 6 and later) and of sparsify and latentsae. None of them
knows our normalisation z = (x − mean) · scale, so it is folded into the weights when an SAE is written:

    W_enc' = W_enc,  W_dec' = W_dec,  f' = f / scale,  θ' = θ / scale,  b_dec' = b_dec / scale + mean
    b_enc' = b_enc / scale − mean W_enc                 where the encoder sees x        (SAELens)
    b_enc' = (b_enc + b_dec W_enc) / scale              where it sees x − b_dec'        (sparsify, latentsae)

Reconstructions stay what they were, activations become those of ours divided by scale. An SAE that is read
has mean 0 and scale 1; its b_enc takes up whatever is subtracted from the input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from saelib.corpus import load_corpus
from saelib.files import digest, only_writer, resolved, write, write_json
from saelib.sae import SAE, JumpReLUSAE, TopKSAE, VanillaSAE
from saelib.store import EmbeddingStore
from saelib.text_files import check_column

SAELENS_FILE, SPARSIFY_FILE = "sae_weights.safetensors", "sae.safetensors"
SAELENS_VERSION = "6.0.0"  # the format's; without one SAELens takes a folder for one of its first versions


@torch.no_grad()
def folded(sae: SAE, subtracts_b_dec: bool) -> dict[str, Tensor]:
    """Weights of an SAE that takes raw embeddings, computed in float64, float32: `W_enc` (d_in, d_sae), …

    Args:
        subtracts_b_dec: the reader's encoder sees x − b_dec', not x.
    """
    w = {name: tensor.detach().cpu().double() for name, tensor in sae.state_dict().items()}
    b_enc = w["b_enc"] / w["scale"]
    b_enc += (w["b_dec"] / w["scale"] if subtracts_b_dec else -w["mean"]) @ w["W_enc"]
    found = {"W_enc": w["W_enc"], "W_dec": w["W_dec"], "b_enc": b_enc}
    found["b_dec"] = w["b_dec"] / w["scale"] + w["mean"]
    if "threshold" in w:
        found["threshold"] = (w["threshold"] / w["scale"]).expand(sae.d_sae)
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


def write_saelens(sae: SAE, folder: str | Path, model_name: str | None = None) -> Path:
    """Write a folder that SAELens' `SAE.load_from_disk` reads; returns it.

    Vanilla is its "standard", TopK its "topk", JumpReLU its "jumprelu"; BatchTopK, whose inference is a
    threshold, is "jumprelu" with one threshold for all.

    Args:
        model_name: the encoder's, kept as metadata.
    """
    kinds = {"vanilla": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu"}
    cfg = {
        "architecture": kinds[sae.architecture], "d_in": sae.d_in, "d_sae": sae.d_sae, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": False, "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": SAELENS_VERSION, "model_name": model_name, "hook_name": "embedding"},
    }  # fmt: skip
    if sae.architecture == "topk":
        cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    weights = folded(sae, subtracts_b_dec=False)
    if "threshold" in weights:  # ours keep π > 0 besides
        weights["threshold"] = weights["threshold"].clamp_min(0)
    return _write(folder, SAELENS_FILE, weights, cfg)


def write_sparsify(sae: SAE, folder: str | Path) -> Path:
    """Write a folder that sparsify's `SparseCoder.load_from_disk` and latentsae's `Sae.load_from_disk` read.

    Raises:
        ValueError: for all but TopK. Vanilla has no number of active features there; latentsae's BatchTopK
        keeps at most k features of a text, ours k on average; its JumpReLU keeps thresholds as logarithms and
        decodes the 512 strongest, sparsify has none.
    """
    if type(sae) is not TopKSAE:
        raise ValueError(
            f"the format of sparsify and latentsae has no place for a {type(sae).__name__}: they keep "
            "a fixed number of features of a text, as only TopK does. write_saelens takes all four"
        )
    weights = folded(sae, subtracts_b_dec=True)
    named = {"encoder.weight": weights["W_enc"].T.contiguous(), "encoder.bias": weights["b_enc"]}
    named |= {name: weights[name] for name in ("W_dec", "b_dec")}
    cfg = {
        "d_in": sae.d_in, "num_latents": sae.d_sae, "k": sae.k,
        "expansion_factor": max(1, sae.d_sae // sae.d_in),
        "normalize_decoder": True, "multi_topk": False, "activation": "topk", "sae_type": "TOPK",
    }  # fmt: skip
    return _write(folder, SPARSIFY_FILE, named, cfg)


def _write(folder: str | Path, name: str, weights: dict[str, Tensor], cfg: dict) -> Path:
    folder = resolved(folder)
    with only_writer(folder):
        write(folder / name, save(weights, {"format": "pt"}))
        write_json(folder / "cfg.json", cfg)
    return folder


def read_foreign(folder: str | Path) -> SAE:
    """Read an SAE of SAELens (6 or later), sparsify or latentsae; which of them, its files say.

    Raises:
        FileNotFoundError: no such files. ValueError: damaged, a pickle, or what none of our four can be:
        another architecture, activations normalised on the way, features scaled by the decoder's norms.
    """
    folder = resolved(folder)
    files = [name for name in (SAELENS_FILE, SPARSIFY_FILE) if (folder / name).is_file()]
    if not files or not (folder / "cfg.json").is_file():
        pickles = [p.name for p in folder.glob("*") if p.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")]
        if pickles:
            raise ValueError(
                f"{pickles[0]} in {folder} is a pickle, and opening one can run code: it is not read. "
                "Save the weights as safetensors in the library that wrote it"
            )
        raise FileNotFoundError(f"no {SAELENS_FILE} or {SPARSIFY_FILE} with a cfg.json in {folder}")
    try:
        cfg = json.loads((folder / "cfg.json").read_text("utf-8"))
        weights = {name: tensor.float() for name, tensor in load_file(folder / files[0]).items()}
        sae = (_from_saelens if files[0] == SAELENS_FILE else _from_sparsify)(cfg, weights)
    except _NotOursError as error:
        raise ValueError(f"the SAE in {folder} {error}") from None
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"the SAE in {folder} is damaged, or of another format: {str(error)[:200]!r}"
        ) from error
    if not all(tensor.isfinite().all() for tensor in sae.state_dict().values()):
        raise ValueError(f"the SAE in {folder} is damaged: NaN or infinity among the weights")
    return sae.eval()


class _NotOursError(ValueError):
    """What the folder holds is sound, and none of our architectures."""


def _from_saelens(cfg: dict, w: dict[str, Tensor]) -> SAE:
    version = str((cfg.get("metadata") or {}).get("sae_lens_version", ""))
    if not version or int(version.split(".")[0]) < 6:
        raise _NotOursError("was written by a SAELens before version 6: load and save it with a later one")
    if cfg.get("normalize_activations", "none") != "none" or cfg.get("reshape_activations", "none") != "none":
        raise _NotOursError(
            "normalises or reshapes its input by SAELens' rules: fold that into the weights there first"
        )
    d_in, d_sae = w["W_enc"].shape
    norms = w["W_dec"].norm(dim=1)
    if cfg.get("rescale_acts_by_decoder_norm") and not torch.allclose(norms, torch.ones(d_sae), atol=1e-4):
        raise _NotOursError("scales features by its decoder's norms: call fold_W_dec_norm() there first")
    kind = cfg["architecture"]
    if kind == "standard":
        sae: SAE = VanillaSAE(d_in, d_sae)
    elif kind == "topk":
        sae = TopKSAE(d_in, d_sae, cfg["k"])
    elif kind == "jumprelu":
        sae = JumpReLUSAE(d_in, d_sae)
        _copy(sae.threshold.data, w.pop("threshold").clamp_min(0), "threshold")
    else:
        raise _NotOursError(f"is a {kind!r}; of SAELens' architectures standard, topk and jumprelu are read")
    if extras := set(w) - {"W_enc", "b_enc", "W_dec", "b_dec"}:
        raise _NotOursError(f"has weights that a {kind!r} has not: {sorted(extras)}")
    subtracts = cfg.get("apply_b_dec_to_input", True)
    if not isinstance(subtracts, bool):
        raise ValueError(f"apply_b_dec_to_input must be true or false, not {subtracts!r}")
    return _filled(sae, w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"], subtracts)


def _from_sparsify(cfg: dict, w: dict[str, Tensor]) -> SAE:
    kind = str(cfg.get("sae_type", cfg.get("activation", "topk"))).lower()
    if "architecture" in cfg:
        raise _NotOursError("is of saelib's own kind: load_sae reads it")
    if "encoder.weight" not in w or "W_dec" not in w or kind != "topk":
        raise _NotOursError(f"is a {kind!r} of sparsify or latentsae, of which topk is read")
    if cfg.get("transcode") or cfg.get("skip_connection"):
        raise _NotOursError("is a transcoder: it writes something else than it reads")
    if extras := set(w) - {"encoder.weight", "encoder.bias", "W_dec", "b_dec", "input_mean"}:
        raise _NotOursError(f"has weights that TopK has not: {sorted(extras)}")
    d_sae, d_in = w["encoder.weight"].shape
    mean = w.get("input_mean", torch.zeros(d_in))  # latentsae's mean_center: W_enc sees x − mean − b_dec
    weights = w["encoder.weight"].T, w["encoder.bias"], w["W_dec"], w["b_dec"]
    sae = _filled(TopKSAE(d_in, d_sae, cfg["k"]), *weights, subtracts_b_dec=True)
    _copy(sae.mean, mean, "input_mean")
    return sae


@torch.no_grad()
def _filled(
    sae: SAE, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, subtracts_b_dec: bool
) -> SAE:
    for name, value in (("W_enc", W_enc), ("W_dec", W_dec), ("b_dec", b_dec), ("b_enc", b_enc)):
        _copy(getattr(sae, name), value, name)
    if subtracts_b_dec:
        sae.b_enc.copy_(b_enc - b_dec @ W_enc)
    return sae


def _copy(target: Tensor, value: Tensor, name: str) -> None:
    if target.shape != value.shape:  # one number would become a whole row
        raise ValueError(f"{name} is {tuple(value.shape)}, not {tuple(target.shape)}")
    target.copy_(value)


def store_from_vectors(
    path: str | Path, texts: object, vectors: np.ndarray | str, *, encoder_name: str, dtype: str = "float32",
    **columns: str | None,
) -> EmbeddingStore:  # fmt: skip
    """A store of vectors that others computed, each scaled to length 1.

    Args:
        texts: a list of texts, or a Parquet file or DataFrame with an embedding column.
        vectors: (n, d) in the order of the texts; or the name of that column. encoder_name: of the encoder
        that made them; only it can embed further texts for this store. columns: `text_column`,
        `domain_column`, `title_column` of `load_corpus`.

    Raises:
        ValueError: another number of vectors than of texts, vectors of unlike width, NaN, a zero vector,
        equal texts with unlike vectors. Whatever `load_corpus` and `EmbeddingStore.extract` raise.
    """
    if isinstance(vectors, str):
        texts, vectors = _with_column(texts, vectors)
    x = vectors.detach().float().cpu().numpy() if isinstance(vectors, Tensor) else np.asarray(vectors)
    if x.dtype.kind not in "fiu" or x.ndim != 2:
        raise ValueError(f"vectors must be numbers (n, d), not {x.dtype} of shape {x.shape}")
    x = x.astype(np.float32)
    corpus = load_corpus(texts, **columns, verbose=False)
    if len(corpus) != len(x):
        raise ValueError(
            f"{len(x)} vectors for {len(corpus)} texts that can be used (a missing or empty text has to go "
            "with its vector)"
        )
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        bad = int(np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))[0])
        raise ValueError(f"vector {bad} is zero, NaN or infinite: embed its text again, or leave it out")
    x /= norms
    texts = list(corpus["text"])  # by text, so that an interrupted import goes on where it stopped
    row_of = {text: row for row, text in reversed(list(enumerate(texts)))}
    cosine = (x * x[[row_of[text] for text in texts]]).sum(1)
    if cosine.min() < 0.99:
        raise ValueError(f"row {int(cosine.argmin())} has the text of an earlier row, and another vector")

    def given(batch: list[str], batch_tokens: object = None, progress: object = False) -> np.ndarray:
        return x[[row_of[text] for text in batch]]

    fingerprint = digest({"": torch.from_numpy(x)})[:16]  # nobody can check that another model made these
    encoder = SimpleNamespace(
        name=encoder_name,
        fingerprint=f"vectors {fingerprint}",
        dtype=torch.float32,
        d_in=x.shape[1],
        encode=given,
    )
    return EmbeddingStore.extract(path, corpus, encoder, dtype=dtype, progress=False)


def _with_column(source: object, column: str) -> tuple[object, Iterable]:
    if not isinstance(source, (pd.DataFrame, str, Path)):
        raise ValueError(
            f"a column {column!r} is one of a DataFrame or Parquet file, not a {type(source).__name__}"
        )
    frame = source if isinstance(source, pd.DataFrame) else pd.read_parquet(str(source))
    check_column(column, frame.columns, "the table")
    for row, value in enumerate(frame[column]):
        if not hasattr(value, "__len__"):
            raise ValueError(f"row {row} has no vector in {column!r}, but {value!r}")
    widths = frame[column].map(len)
    if widths.nunique() > 1:
        raise ValueError(
            f"the vectors in {column!r} have {widths.min()} to {widths.max()} numbers: of two encoders?"
        )
    return frame.drop(columns=column), np.stack(frame[column].to_numpy())
