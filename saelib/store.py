"""The buffered embedding store: texts are embedded once, written as shards, and served for ever.

A store is a folder: `manifest.json` (encoder, fingerprint of its weights, d_in, counts, checksums)
and per shard one `.npy` (embeddings) and one `.parquet` (text, domain). Opening it maps the arrays
and loads nothing; `batches` refills a buffer from random blocks and serves shuffled mini-batches.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from saelib.corpus import why_not_embeddable
from saelib.encoder import Encoder

BLOCK = 256  # rows read together: large enough for sequential reads, small enough to mix well


class StoreError(ValueError):
    """A store that cannot be used as asked: cut short, damaged, or written by another encoder."""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _text_digest(rows: list[dict]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row["text"].encode("utf-8", "surrogatepass") + b"\0" + row["domain"].encode() + b"\1")
    return digest.hexdigest()[:16]


def _write_json(path: Path, value: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)


class EmbeddingStore:
    """Embeddings with their texts, on disk.

    Attributes:
        path: the folder; manifest: what `manifest.json` says; d_in: width of an embedding.
    """

    def __init__(self, path: str | Path, *, encoder: Encoder | None = None) -> None:
        """Open a store; raises `StoreError` for a damaged one or one that `encoder` did not write."""
        self.path = Path(path)
        try:
            self.manifest = json.loads((self.path / "manifest.json").read_text())
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no embedding store at {self.path}; EmbeddingStore.extract makes one"
            ) from None
        if encoder is not None:
            self._check_encoder(self.manifest, encoder, self.path)
        if not self.manifest["complete"]:
            raise StoreError(
                f"{self.path} holds an interrupted extraction; run EmbeddingStore.extract again to resume"
            )
        self.d_in: int = self.manifest["d_in"]
        self._arrays = [self._map(shard) for shard in self.manifest["shards"]]
        self._offsets = np.cumsum([0] + [len(a) for a in self._arrays])
        self._frame: pd.DataFrame | None = None

    @staticmethod
    def _check_encoder(manifest: dict, encoder: Encoder, path: Path) -> None:
        if manifest["fingerprint"] != encoder.fingerprint:
            raise StoreError(
                f"{path} was written by {manifest['encoder']} ({manifest['fingerprint']}), not by "
                f"{encoder.name} ({encoder.fingerprint}): choose another folder, or load that encoder"
            )

    def _map(self, shard: dict) -> np.ndarray:
        for name, size in (("embeddings", "embeddings_bytes"), ("texts", "texts_bytes")):
            file = self.path / shard[name]
            found = file.stat().st_size if file.exists() else 0
            if found != shard[size]:
                raise StoreError(
                    f"{file} has {found} bytes, not {shard[size]}: it was cut short or lost; "
                    f"run EmbeddingStore.extract(..., overwrite=True)"
                )
        return np.load(self.path / shard["embeddings"], mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __repr__(self) -> str:
        m = self.manifest
        size = f"{len(self):,} × {self.d_in}"
        return f"EmbeddingStore({self.path.name}: {size} by {m['encoder']}, {len(m['shards'])} shards)"

    @property
    def frame(self) -> pd.DataFrame:
        """Texts and domains (and titles where the corpus has them), in row order; read on first use."""
        if self._frame is None:
            parts = [pd.read_parquet(self.path / s["texts"]) for s in self.manifest["shards"]]
            self._frame = pd.concat(parts, ignore_index=True)
        return self._frame

    @property
    def texts(self) -> list[str]:
        return self.frame["text"].tolist()

    def embeddings(self, rows: np.ndarray | slice | None = None) -> np.ndarray:
        """Read rows (all when None): (n, d_in) float32. Raises `StoreError` for NaN or infinity."""
        rows = np.arange(len(self)) if rows is None else rows
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        out = np.empty((len(rows), self.d_in), dtype=np.float32)
        shard_of = np.searchsorted(self._offsets, rows, side="right") - 1
        for shard in np.unique(shard_of):
            here = shard_of == shard
            out[here] = self._arrays[shard][rows[here] - self._offsets[shard]]
        if not np.isfinite(out).all():
            bad = int(rows[~np.isfinite(out).all(axis=1)][0])
            raise StoreError(f"row {bad} of {self.path} is NaN or infinite: extract it again in float32")
        return out

    def verify(self) -> None:
        """Read every file and compare its SHA-256 with the manifest; raises `StoreError`."""
        for shard in self.manifest["shards"]:
            for name in ("embeddings", "texts"):
                if _sha256(self.path / shard[name]) != shard[f"{name}_sha256"]:
                    raise StoreError(
                        f"{self.path / shard[name]} does not match its checksum: extract it again"
                    )

    def split(
        self, held_out: float = 1 / 6, seed: int = 0, *, by: str = "title"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers (train, held_out) of a seeded random split.

        Args:
            held_out: share of the groups held out. by: what stays on one side. "title": rows of one article
            (and equal texts), or a held-out sentence has its neighbours in training; rows without a title,
            and stores of fewer than 20 titles, go by text. "text": equal texts only.

        Raises:
            ValueError: a share outside (0, 1), another `by`.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {held_out}")
        if by not in ("title", "text"):
            raise ValueError(f"by must be 'title' or 'text', not {by!r}")
        groups = pd.factorize(self.frame["text"])[0]
        if by == "title" and "title" in self.frame:
            titles = pd.factorize(self.frame["title"].where(self.frame["title"] != ""))[0]  # −1: none
            if titles.max() >= 19:
                groups = _joined(groups, titles)
        n_groups = groups.max() + 1
        chosen = np.random.default_rng(seed).permutation(n_groups) < round(held_out * n_groups)
        return np.flatnonzero(~chosen[groups]), np.flatnonzero(chosen[groups])

    def batches(
        self,
        batch_size: int = 1024,
        *,
        rows: np.ndarray | None = None,
        seed: int = 0,
        skip: int = 0,
        buffer_rows: int = 262_144,
        device: str | torch.device = "cpu",
    ) -> Iterator[torch.Tensor]:
        """Serve shuffled (batch_size, d_in) float32 batches for ever.

        Blocks of 256 rows enter a buffer of `buffer_rows` in random order; batches are drawn from
        it without replacement, and it is refilled when half empty. A store that fits is read once
        and shuffled whole each epoch. The order depends on `seed` and the sizes only.

        Args:
            rows: serve these rows only (e.g. the training split). skip: start at this batch, as a
            resumed run does; skipped batches are not read.
        """
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        if not 1 <= batch_size <= len(rows):
            raise ValueError(f"batch_size must be in 1..{len(rows)} (the rows served), not {batch_size}")
        plan = islice(batch_plan(len(rows), batch_size, buffer_rows, seed), skip, None)
        if len(rows) <= buffer_rows:
            table = torch.from_numpy(self.embeddings(rows)).to(device)
            for _, picked in plan:
                yield table[torch.from_numpy(picked).to(device)]
        buffer_id, slots = None, None
        for buffer, picked in plan:  # `buffer`: the rows held; `picked`: positions among them
            if buffer is not buffer_id:
                buffer_id, order = buffer, np.sort(buffer)
                slots = torch.from_numpy(self.embeddings(rows[order])).to(device)
            yield slots[torch.from_numpy(np.searchsorted(order, buffer[picked])).to(device)]

    @classmethod
    def extract(
        cls,
        path: str | Path,
        corpus: Iterable[dict],
        encoder: Encoder,
        *,
        shard_rows: int = 8192,
        batch_tokens: int | None = None,
        dtype: str = "float16",
        overwrite: bool = False,
        progress: bool = True,
    ) -> EmbeddingStore:
        """Embed a corpus into `path`, or resume where an earlier run stopped, or open what is whole.

        Finished shards are never computed again: their texts are compared with the corpus, so a
        changed corpus is an error and not a mixture.

        Raises:
            StoreError: the folder holds another encoder's or another corpus's embeddings.
            ValueError: an empty corpus, or a row that cannot be embedded.
        """
        path = Path(path)
        if overwrite:
            _remove(path)
        settings = {"shard_rows": shard_rows, "dtype": dtype}
        manifest = _begin(path, encoder, settings)
        cls._check_encoder(manifest, encoder, path)
        total = len(corpus) if hasattr(corpus, "__len__") else None
        look = {"unit": " texts", "disable": not progress, "mininterval": 1, "miniters": 1}
        done, count, writing = len(manifest["shards"]), 0, None
        with ThreadPoolExecutor(1) as writer, tqdm(total=total, desc="extracting", **look) as bar:
            for number, rows in enumerate(_shards(corpus, shard_rows)):
                digest = _text_digest(rows)
                if number < done or manifest["complete"]:
                    _check_texts(manifest, number, digest, path)
                else:  # a shard is written while the next one is encoded
                    vectors = encoder.encode([row["text"] for row in rows], batch_tokens, progress=bar.update)
                    if writing:
                        writing.result()
                    writing = writer.submit(_add_shard, path, manifest, rows, vectors, digest)
                count = number + 1
                bar.update(number * shard_rows + len(rows) - bar.n)  # equal texts count too
        if writing:
            writing.result()
        if count == 0:
            raise ValueError("the corpus is empty: nothing to embed")
        if count < done:
            raise StoreError(f"{path} holds a longer corpus: choose another folder or overwrite=True")
        if not manifest["complete"]:  # a whole store is only read, whoever else reads it
            manifest["complete"] = True
            _write_json(path / "manifest.json", manifest)
        return cls(path)


def _remove(path: Path) -> None:
    if path.exists():
        if any(path.iterdir()) and not (path / "manifest.json").exists():
            raise StoreError(f"{path} is not an embedding store; it will not be overwritten")
        shutil.rmtree(path)


def _begin(path: Path, encoder: Encoder, settings: dict) -> dict:
    """The manifest of the store in `path`, or that of an empty one with these `settings`."""
    path.mkdir(parents=True, exist_ok=True)
    if not (path / "manifest.json").exists():
        written_by = {
            "encoder": encoder.name, "fingerprint": encoder.fingerprint,
            "encoder_dtype": str(encoder.dtype), "d_in": encoder.d_in,
        }  # fmt: skip
        return {"version": 1, **written_by, **settings, "n": 0, "complete": False, "shards": []}
    manifest = json.loads((path / "manifest.json").read_text())
    for name, value in settings.items():
        if manifest[name] != value:
            raise StoreError(
                f"{path} was begun with {name}={manifest[name]}, not {value}: pass that, or overwrite=True"
            )
    return manifest


def _shards(corpus: Iterable[dict], shard_rows: int) -> Iterator[list[dict]]:
    """Rows of a corpus, `shard_rows` at a time; a row that cannot be embedded is an error that names it."""
    source, start = iter(corpus), 0
    while rows := list(islice(source, shard_rows)):
        for i, row in enumerate(rows, start):
            if reason := why_not_embeddable(row["text"]):
                raise ValueError(f"row {i} cannot be embedded: {reason}; use load_corpus")
        yield rows
        start += len(rows)


def _check_texts(manifest: dict, number: int, digest: str, path: Path) -> None:
    """Does the store hold this shard of the corpus?"""
    if number >= len(manifest["shards"]):
        raise StoreError(f"{path} holds a shorter corpus: choose another folder or overwrite=True")
    if manifest["shards"][number]["corpus"] != digest:
        raise StoreError(f"{path} holds other texts: choose another folder, or overwrite=True")


def _add_shard(path: Path, manifest: dict, rows: list[dict], vectors: np.ndarray, digest: str) -> None:
    entry = _write_shard(path, len(manifest["shards"]), rows, vectors, manifest["dtype"])
    manifest["shards"].append(entry | {"corpus": digest})
    manifest["n"] += len(rows)
    _write_json(path / "manifest.json", manifest)


def _joined(texts: np.ndarray, titles: np.ndarray) -> np.ndarray:
    """One group number per row, common to rows that share a text or a title (codes; −1 is no title)."""
    n, titled = texts.max() + 1, titles >= 0
    edges = (np.ones(titled.sum()), (texts[titled], n + titles[titled]))
    size = n + titles.max() + 1
    return connected_components(sparse.coo_matrix(edges, shape=(size, size)), directed=False)[1][texts]


def _write_shard(path: Path, number: int, rows: list[dict], vectors: np.ndarray, dtype: str) -> dict:
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(
            f"the encoder gave NaN or infinity for {rows[bad]['text'][:60]!r}: use dtype=torch.float32"
        )
    names = {"embeddings": f"{number:05d}.npy", "texts": f"{number:05d}.parquet"}
    np.save(path / names["embeddings"], vectors.astype(dtype), allow_pickle=False)
    pd.DataFrame(rows).to_parquet(path / names["texts"], index=False)
    entry: dict = {"rows": len(rows), **names}
    for kind, name in names.items():
        entry[f"{kind}_bytes"] = (path / name).stat().st_size
        entry[f"{kind}_sha256"] = _sha256(path / name)
    return entry


def batch_plan(
    n: int, batch_size: int, buffer_rows: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows in the buffer, positions drawn from it), without touching data; see `batches`."""
    rng = np.random.default_rng(seed)
    if n <= buffer_rows:
        everything = np.arange(n)
        while True:
            order = rng.permutation(n)
            for start in range(0, n - batch_size + 1, batch_size):
                yield everything, order[start : start + batch_size]
    starts = np.arange(0, n, BLOCK)
    left, blocks = np.empty(0, dtype=np.int64), iter(())
    while True:
        parts = [left]
        while sum(map(len, parts)) < max(buffer_rows, 2 * batch_size):
            block = next(blocks, None)
            if block is None:
                blocks = iter(rng.permutation(starts))
                block = next(blocks)
            parts.append(np.arange(block, min(block + BLOCK, n)))
        buffer = np.concatenate(parts)
        order, used = rng.permutation(len(buffer)), 0
        while len(buffer) - used > max(len(buffer) // 2, batch_size):
            yield buffer, order[used : used + batch_size]
            used += batch_size
        left = buffer[order[used:]]
