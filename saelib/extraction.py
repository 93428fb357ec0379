"""Extraction: a corpus through an encoder into the shards of a store, interrupted and resumed at will.

A shard is written while the next one is encoded. The manifest is written after each, so a killed run leaves a
store that the same call completes, to the same bits.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from saelib import shards
from saelib.corpus import as_row, why_not_embeddable
from saelib.encoder import Encoder
from saelib.files import only_writer
from saelib.shards import StoreError


def fill_store(
    path: Path, corpus: Iterable[dict], encoder: Encoder, settings: dict,
    batch_tokens: int | None, overwrite: bool, progress: bool,
) -> None:  # fmt: skip
    """Do what `EmbeddingStore.extract` says; `settings` are the manifest's `shard_rows` and `dtype`."""
    manifest = None if overwrite else _fitting(path, encoder, settings)
    if manifest and manifest["complete"] and not _damaged(path, manifest):
        count = 0  # a whole store is only read, whoever else reads it
        for count, rows in enumerate(_batched(corpus, manifest), start=1):
            _check_texts(path, manifest, count - 1, rows)
        _check_count(path, manifest, count)
        return
    check_strangers(path, overwrite)
    with only_writer(path):
        old = shards.read_manifest(path) if overwrite else None
        manifest = None if overwrite else _fitting(path, encoder, settings)
        if manifest is None:
            manifest = {
                "version": shards.FORMAT, "encoder": str(encoder.name), "fingerprint": encoder.fingerprint,
                "encoder_dtype": str(encoder.dtype), "d_in": int(encoder.d_in), **settings,
                "n": 0, "complete": False, "shards": [],
            }  # fmt: skip
        shards.remove_replaced(path, manifest)
        try:
            _encode(path, manifest, old, corpus, encoder, batch_tokens, progress)
        except KeyboardInterrupt:
            kept = shards.read_manifest(path) or {"n": 0, "complete": False}
            again = "the old store is still there" if kept["complete"] else "the same call goes on from there"
            if overwrite and not kept["complete"]:
                again += " without overwrite=True"
            raise KeyboardInterrupt(f"stopped: {path} holds {kept['n']:,} texts; {again}") from None


def _encode(
    path: Path, manifest: dict, old: dict | None, corpus: Iterable[dict], encoder: Encoder,
    batch_tokens: int | None, progress: bool,
) -> None:  # fmt: skip
    """Encode and write what `manifest` lacks; the `old` store goes when the first new shard is there."""
    done, damaged = len(manifest["shards"]), _damaged(path, manifest)
    if str(encoder.dtype) != manifest["encoder_dtype"]:
        raise StoreError(
            f"{path} was begun with the encoder in {manifest['encoder_dtype']}, not {encoder.dtype}: "
            "load it in that dtype, or overwrite=True"
        )
    total = len(corpus) if hasattr(corpus, "__len__") else None
    look = {"unit": " texts", "disable": not progress, "mininterval": 1, "miniters": 1}
    count, seen, cut, writing = 0, 0, getattr(encoder, "n_cut", 0), None
    with ThreadPoolExecutor(1) as writer, tqdm(total=total, desc="extracting", **look) as bar:
        for count, rows in enumerate(_batched(corpus, manifest), start=1):
            if count <= done or manifest["complete"]:
                _check_texts(path, manifest, count - 1, rows)
            if count > done or count - 1 in damaged:  # a shard is written while the next one is encoded
                if count == done + 1 and total:
                    _check_space(path, manifest, rows, total - seen, progress)
                vectors = encoder.encode([row["text"] for row in rows], batch_tokens, progress=bar.update)
                stored = shards.as_stored(vectors, rows, manifest)
                if writing:
                    writing.result()
                elif done == 0:
                    shards.replace_store(path, manifest, old)
                writing = writer.submit(_add_shard, path, manifest, count - 1, rows, stored)
            seen += len(rows)
            bar.update(seen - bar.n)  # equal texts count too
    if writing:
        writing.result()
    _check_count(path, manifest, count)
    if progress and (cut := getattr(encoder, "n_cut", 0) - cut):
        print(
            f"{cut:,} of {seen:,} texts reach the encoder's limit of tokens: only their beginning is embedded"
        )
    manifest["complete"] = True
    shards.write_manifest(path, manifest)


def _fitting(path: Path, encoder: Encoder, settings: dict) -> dict | None:
    """The manifest in `path`, or None; raises `StoreError` for another encoder, or other settings."""
    manifest = shards.read_manifest(path)
    if manifest is None:
        return None
    shards.check_encoder(manifest, encoder, path)
    for name, value in settings.items():
        if manifest[name] != value:
            raise StoreError(
                f"{path} was begun with {name}={manifest[name]}, not {value}: pass that, or overwrite=True"
            )
    return manifest


def check_strangers(path: Path, overwrite: bool) -> None:
    """In a folder without a store: no file that would be overwritten, with `overwrite` none at all."""
    if path.is_dir() and shards.read_manifest(path) is None:
        names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
        strangers = [name for name in names if overwrite or re.fullmatch(r"\d{5,}\.(npy|parquet)", name)]
        if strangers:
            raise StoreError(
                f"{path} holds {strangers[0]} and no embedding store: it will not be overwritten; "
                "choose another folder, or delete it"
            )


def _check_space(path: Path, manifest: dict, rows: list[dict], n: int, progress: bool) -> None:
    """`StoreError` where n texts like these do not fit on the disk; of a large store, say what it takes."""
    needed, free = n * shards.bytes_per_text(rows, manifest), shutil.disk_usage(path).free
    what = (
        f"{n:,} texts take about {needed / 1e9:,.1f} GB, and the disk of {path} has {free / 1e9:,.1f} GB free"
    )
    if needed > free:
        smaller = ', or dtype="float16"' if manifest["dtype"] == "float32" else ""
        raise StoreError(f"{what}: choose another folder, or fewer texts{smaller}")
    if progress and needed > 5e9:
        print(what)


def _damaged(path: Path, manifest: dict) -> set[int]:
    """The shards whose files are not what was written."""
    found = set()
    for number, shard in enumerate(manifest["shards"]):
        try:
            shards.verify_shard(path, shard)
        except StoreError:
            found.add(number)
    return found


def _batched(corpus: Iterable[dict], manifest: dict) -> Iterator[list[dict]]:
    """Rows of a corpus, a shard at a time (as long as one there already); names a row that is no text."""
    source, start = iter(corpus), 0
    sizes = chain([shard["rows"] for shard in manifest["shards"]], repeat(manifest["shard_rows"]))
    while rows := list(islice(source, next(sizes))):
        for i, row in enumerate(rows, start):
            if not isinstance(row, Mapping) or "text" not in row:
                raise ValueError(
                    f"row {i} is a {type(row).__name__}, not a text with its domain: use load_corpus"
                )
            if reason := why_not_embeddable(row["text"]):
                raise ValueError(f"row {i} cannot be embedded: {reason}; use load_corpus")
        yield [as_row(row) for row in rows]
        start += len(rows)


def _check_texts(path: Path, manifest: dict, number: int, rows: list[dict]) -> None:
    """Does the store hold this shard of the corpus?"""
    if number >= len(manifest["shards"]):
        raise StoreError(f"{path} holds a shorter corpus: choose another folder or overwrite=True")
    if manifest["shards"][number]["corpus"] != shards.text_digest(rows, manifest["version"]):
        raise StoreError(f"{path} holds other texts: choose another folder, or overwrite=True")


def _check_count(path: Path, manifest: dict, count: int) -> None:
    if count == 0:
        raise ValueError("the corpus is empty: nothing to embed")
    if count < len(manifest["shards"]):
        raise StoreError(f"{path} holds a longer corpus: choose another folder or overwrite=True")


def _add_shard(path: Path, manifest: dict, number: int, rows: list[dict], stored: np.ndarray) -> None:
    entry = shards.write_shard(path, number, rows, stored)
    entry["corpus"] = shards.text_digest(rows, manifest["version"])
    manifest["shards"][number : number + 1] = [entry]
    shards.write_manifest(path, manifest)
