"""The buffered embedding store: texts are embedded once, written as shards, and served for ever.

A store is a folder (its files: `shards.py`). Opening it maps the arrays and loads nothing; `batches` refills
a buffer from random blocks and serves shuffled mini-batches.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from saelib import shards
from saelib.checks import number, whole
from saelib.encoder import Encoder
from saelib.extraction import fill_store
from saelib.files import resolved
from saelib.shards import StoreError

BLOCK = 256  # rows read together: large enough for sequential reads, small enough to mix well


def row_numbers(rows: object, n: int) -> np.ndarray:
    """Which of n rows are meant: None (all), a slice, a mask (n,) of booleans, or numbers in 0..n−1.

    Raises:
        IndexError: a number outside 0..n−1, a mask of another length. ValueError: anything else.
    """
    if rows is None or isinstance(rows, slice):
        return np.arange(n)[rows or slice(None)]
    found = np.asarray(rows)
    if found.ndim != 1 or (found.dtype.kind not in "biu" and found.size):
        raise ValueError(f"rows must be whole numbers or a mask, not {found.dtype} of shape {found.shape}")
    if found.dtype.kind == "b":
        if len(found) != n:
            raise IndexError(f"a mask of {len(found)} rows does not fit {n} rows")
        return np.flatnonzero(found)
    found = found.astype(np.int64)
    if len(outside := found[(found < 0) | (found >= n)]):
        raise IndexError(f"row {outside[0]} is not in 0..{n - 1} (and {len(outside) - 1} more)")
    return found


class EmbeddingStore:
    """Embeddings with their texts, on disk.

    Attributes:
        path: the folder; manifest: what `manifest.json` says; d_in: width of an embedding.
    """

    def __init__(self, path: str | Path, *, encoder: Encoder | None = None) -> None:
        """Open a store; raises `StoreError` for a damaged one or one that `encoder` did not write."""
        self.path = resolved(path)
        self.manifest = shards.read_manifest(self.path)
        if self.manifest is None:
            raise FileNotFoundError(f"no embedding store at {self.path}; EmbeddingStore.extract makes one")
        if encoder is not None:
            shards.check_encoder(self.manifest, encoder, self.path)
        if not self.manifest["complete"]:
            raise StoreError(
                f"{self.path} holds an interrupted extraction; run EmbeddingStore.extract again to resume"
            )
        self.d_in: int = self.manifest["d_in"]
        self._arrays = [shards.map_shard(self.path, s, self.manifest) for s in self.manifest["shards"]]
        self._offsets = np.cumsum([0] + [len(a) for a in self._arrays])
        self._frame: pd.DataFrame | None = None

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
            self._frame = self.read_frame(None)
        return self._frame

    def read_frame(self, rows: np.ndarray | slice | None) -> pd.DataFrame:
        """Some rows of `frame` (`row_numbers`), in their order; where it is not read, a shard at a time."""
        rows = row_numbers(rows, len(self))
        if self._frame is not None:
            return self._frame.iloc[rows]
        parts, shard_of = [], np.searchsorted(self._offsets, rows, side="right") - 1
        for shard in np.unique(shard_of) if len(rows) else [0]:  # of no rows, the columns
            here = np.flatnonzero(shard_of == shard)
            part = shards.read_texts(self.path, self.manifest["shards"][shard])
            parts.append(part.iloc[rows[here] - self._offsets[shard]].set_axis(here))
        frame = pd.concat(parts).sort_index().reset_index(drop=True)
        if "title" in frame:  # a shard without any has no such column
            frame["title"] = frame["title"].fillna("")
        return frame

    @cached_property
    def texts(self) -> list[str]:
        """All texts, in row order: a list made once, for `store.texts[i]` is written in loops."""
        return self.frame["text"].tolist()

    def embeddings(self, rows: np.ndarray | slice | None = None) -> np.ndarray:
        """Read rows (`row_numbers`: all, a slice, a mask, numbers): (n, d_in) float32.

        Raises `StoreError` for NaN or infinity, `IndexError` for rows that the store does not have.
        """
        rows = row_numbers(rows, len(self))
        out = np.empty((len(rows), self.d_in), dtype=np.float32)
        shard_of = np.searchsorted(self._offsets, rows, side="right") - 1
        for shard in np.unique(shard_of):
            here = shard_of == shard
            out[here] = self._arrays[shard][rows[here] - self._offsets[shard]]
            if hasattr(mmap, "MADV_DONTNEED"):  # what has been read needs no memory of this process
                self._arrays[shard]._mmap.madvise(mmap.MADV_DONTNEED)
        if not np.isfinite(out).all():
            bad = int(rows[~np.isfinite(out).all(axis=1)][0])
            raise StoreError(f"row {bad} of {self.path} is NaN or infinite: extract it again in float32")
        return out

    def verify(self) -> None:
        """Read every file and compare its SHA-256 with the manifest; raises `StoreError`.

        Opening looks at sizes and headers only. To be run after copying a store, and when results surprise.
        """
        for shard in self.manifest["shards"]:
            shards.verify_shard(self.path, shard)

    def split(
        self, held_out: float = 1 / 6, seed: int = 0, *, by: str = "title"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers (train, held_out) of a seeded random split.

        Args:
            held_out: share of the groups held out.
            by: what stays on one side. "title": rows of one article (and equal texts), or a held-out sentence
                has its neighbours in training; rows without a title, and stores of fewer than 20 titles, go
                by text. "text": equal texts only.

        Raises:
            ValueError: a share outside (0, 1), or one that leaves a side empty; another `by`. A warning says
            where large groups make the share held out over twice what was asked.
        """
        if not number("held_out", held_out) < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {held_out}")
        if by not in ("title", "text"):
            raise ValueError(f"by must be 'title' or 'text', not {by!r}")
        texts, titles = self._hashes()
        groups = pd.factorize(texts)[0]
        if by == "title":
            titled = np.full(len(titles), -1)
            titled[titles != 0] = pd.factorize(titles[titles != 0])[0]
            if titled.max() >= 19:
                groups = _joined(groups, titled)
        n_groups = groups.max() + 1
        n_held = round(held_out * n_groups)
        if not 0 < n_held < n_groups:
            raise ValueError(f"held_out={held_out} of {n_groups} groups leaves a side empty: too few texts?")
        chosen = (np.random.default_rng(whole("seed", seed, 0)).permutation(n_groups) < n_held)[groups]
        if chosen.mean() > 2 * held_out:
            warnings.warn(f"{chosen.mean():.0%} are held out: some groups of texts are large", stacklevel=2)
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)

    def _hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """64-bit hashes of texts (without outer white space) and of titles (0: none), a shard at a time."""
        parts = []
        for shard in self.manifest["shards"]:
            frame = shards.read_texts(self.path, shard)
            texts = frame["text"].str.strip()
            titles = frame["title"].fillna("") if "title" in frame else pd.Series("", frame.index)
            both = [pd.util.hash_array(c.to_numpy(object), categorize=False) for c in (texts, titles)]
            parts.append((both[0], np.where(titles == "", np.uint64(0), both[1])))
        texts, titles = zip(*parts, strict=True)
        return np.concatenate(texts), np.concatenate(titles)

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
        and shuffled whole each epoch. The order depends on `seed` and the sizes only. The buffer is the one
        large thing in memory: buffer_rows × d_in numbers of the store's dtype (201 MB for 384 in float16).

        Args:
            rows: serve these rows only (a mask or numbers; e.g. the training split). skip: start at this
            batch, as a resumed run does; skipped batches are not read.
        """
        rows = row_numbers(rows, len(self))
        batch_size = whole("batch_size", batch_size, 1, len(rows))
        skip, buffer_rows = whole("skip", skip, 0), whole("buffer_rows", buffer_rows)
        plan = islice(batch_plan(len(rows), batch_size, buffer_rows, seed), skip, None)
        capacity = min(len(rows), max(buffer_rows, 2 * batch_size) + BLOCK)
        held = torch.empty(capacity, self.d_in, dtype=getattr(torch, self.manifest["dtype"]), device=device)
        slot_of, known = np.full(len(rows), -1), None  # where in `held` a row is; the buffer whose rows are
        for buffer, picked in plan:  # `buffer`: the rows held; `picked`: positions among them
            if buffer is not known:
                known, wanted = buffer, np.unique(buffer)
                stays = wanted[slot_of[wanted] >= 0]
                slots = slot_of[stays]
                slot_of[:] = -1
                slot_of[stays] = slots
                new = np.setdiff1d(wanted, stays)
                slot_of[new] = np.setdiff1d(np.arange(capacity), slots)[: len(new)]
                for part in np.array_split(new, len(new) // 16_384 + 1):
                    read = torch.from_numpy(self.embeddings(rows[part])).to(held)
                    held[torch.from_numpy(slot_of[part]).to(device)] = read
            yield held[torch.from_numpy(slot_of[buffer[picked]]).to(device)].float()

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

        Finished shards are not computed again: they are verified and their texts compared with the corpus,
        so a damaged one is redone, and a changed corpus is an error and not a mixture.

        Args:
            corpus: rows with `text` and, where there are any, `domain` and `title`: what `load_corpus` gives.
            dtype: "float16" or "float32", of the embeddings on disk.
            overwrite: replace the store in `path`, as soon as the first shard of the new one is computed.
            Files that are not the old store's stay.

        Raises:
            StoreError: the folder holds another encoder's or another corpus's embeddings, or other files; or
            the disk has no room for a corpus of this length.
            ValueError: an empty corpus, a row that cannot be embedded, an encoder that gives something else
            than finite vectors (n, d_in), none of them zero, in the store's dtype either.
            TypeError: what is no Encoder.
            InUseError: another process writes there.
        """
        path, settings = resolved(path), {"shard_rows": whole("shard_rows", shard_rows), "dtype": dtype}
        if dtype not in shards.DTYPES or not isinstance(overwrite, bool):
            raise ValueError(f"dtype must be one of {shards.DTYPES}, not {dtype!r}; overwrite True or False")
        lacks = [n for n in ("name", "fingerprint", "dtype", "d_in", "encode") if not hasattr(encoder, n)]
        if lacks:
            raise TypeError(
                f"a {type(encoder).__name__} is no Encoder (no {lacks[0]}): load_encoder makes one"
            )
        fill_store(path, corpus, encoder, settings, batch_tokens, overwrite, progress)
        return cls(path)


def _joined(texts: np.ndarray, titles: np.ndarray) -> np.ndarray:
    """One group number per row, common to rows that share a text or a title (codes; −1 is no title)."""
    n, titled = texts.max() + 1, titles >= 0
    edges = (np.ones(titled.sum()), (texts[titled], n + titles[titled]))
    size = n + titles.max() + 1
    return connected_components(sparse.coo_matrix(edges, shape=(size, size)), directed=False)[1][texts]


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
