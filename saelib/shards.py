"""The files of a store: a manifest and, per shard, an `.npy` of embeddings and a `.parquet` of texts.

`manifest.json` names the encoder and the size and SHA-256 of every file, and carries a checksum of itself.
Here is what these files must be like, and how they are written and read; what a store does is `store.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import parquet

from saelib.encoder import Encoder
from saelib.files import array_bytes, write, write_json

FORMAT = 2  # 1 had no checksum of the manifest, and digests of the corpus without titles; it is still read
DTYPES = ("float16", "float32")
ENDINGS = {"embeddings": ".npy", "texts": ".parquet"}
AGAIN = "run EmbeddingStore.extract again, which redoes damaged shards alone"


class StoreError(ValueError):
    """A store that cannot be used as asked: cut short, damaged, or written by another encoder."""


def file_names(number: int) -> dict[str, str]:
    """The two files of a shard."""
    return {kind: f"{number:05d}{ending}" for kind, ending in ENDINGS.items()}


def checksum(manifest: dict) -> str:
    """SHA-256 of what a manifest says, which covers every file through its own."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict | None:
    """What the manifest of the store in `path` says; None where there is none.

    Raises:
        StoreError: it is damaged, another version's, or no manifest of a store.
    """
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text("utf-8"))
        found, version = manifest.pop("checksum", None), manifest["version"]
        whole = found == (checksum(manifest) if version == FORMAT else None)
        if whole and version in (1, FORMAT) and _is_consistent(manifest):
            return manifest
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError):
        pass
    raise StoreError(f"{file} is damaged, or is not a store's: delete the folder, or choose another")


def _is_consistent(manifest: dict) -> bool:
    shards = manifest["shards"]
    counts = [manifest["d_in"], manifest["shard_rows"], *(shard["rows"] for shard in shards)]
    return (
        all({kind: shard[kind] for kind in ENDINGS} == file_names(i) for i, shard in enumerate(shards))
        and all(type(count) is int and count > 0 for count in counts)
        and manifest["n"] == sum(shard["rows"] for shard in shards)
        and manifest["dtype"] in DTYPES
        and manifest["complete"] in ([True, False] if shards else [False])
    )


def check_encoder(manifest: dict, encoder: Encoder, path: Path) -> None:
    """Raise `StoreError` for a store that another encoder wrote."""
    if manifest["fingerprint"] != encoder.fingerprint:
        raise StoreError(
            f"{path} was written by {manifest['encoder']} ({manifest['fingerprint']}), not by "
            f"{encoder.name} ({encoder.fingerprint}): choose another folder, or load that encoder"
        )


def write_manifest(path: Path, manifest: dict) -> None:
    """Write the manifest with its checksum."""
    manifest["n"] = sum(shard["rows"] for shard in manifest["shards"])
    write_json(path / "manifest.json", manifest | {"checksum": checksum(manifest)})


def replace_store(path: Path, manifest: dict, old: dict | None) -> None:
    """Put an empty store's manifest into `path`; the files of the `old` store go, and no other file.

    Killed between the two, the next extraction ends it: `replaces` shards are still to be removed.
    """
    if old:
        manifest["replaces"] = max(len(old["shards"]), old.get("replaces", 0))
    write_manifest(path, manifest)
    remove_replaced(path, manifest)


def remove_replaced(path: Path, manifest: dict) -> None:
    """Remove the shards of the store that this one replaces."""
    for number in range(manifest.pop("replaces", 0)):
        for name in file_names(number).values():
            (path / name).unlink(missing_ok=True)


def text_digest(rows: list[dict], version: int) -> str:
    """What tells whether a shard holds these texts, domains and titles.

    \\0, \\1 and \\2 end the three; where a field itself holds one of them, it is marked by a \\3.
    """
    digest = hashlib.sha256()

    def add(field: str, end: bytes) -> None:
        digest.update(re.sub(rb"[\0-\3]", b"\3\\g<0>", field.encode("utf-8", "surrogatepass")) + end)

    for row in rows:
        add(row["text"], b"\0")
        add(row["domain"], b"\1")
        if version > 1 and row.get("title"):
            add(row["title"], b"\2")
    return digest.hexdigest()[:16]


def as_stored(vectors: np.ndarray, rows: list[dict], manifest: dict) -> np.ndarray:
    """The embeddings of these rows, (n, d_in), in the store's dtype.

    Raises:
        ValueError: another shape, no floats, NaN, infinity, zero vectors, or values beyond the dtype.
    """
    vectors, shape = np.asarray(vectors), (len(rows), manifest["d_in"])
    if vectors.shape != shape or vectors.dtype.kind != "f":
        raise ValueError(
            f"for {len(rows)} texts the encoder gave {vectors.dtype} of shape {vectors.shape}, "
            f"not floats of shape {shape}"
        )
    with np.errstate(over="ignore"):
        stored = vectors.astype(manifest["dtype"], order="C")
    given, kept = (np.linalg.norm(array.astype(np.float64), axis=1) for array in (vectors, stored))
    same = (np.abs(kept - given) <= 0.01 * given) & (given > 0)  # of NaN and infinity neither is true
    if not same.all():
        bad = int(same.argmin())
        beyond = f"values beyond {manifest['dtype']}", 'extract(..., dtype="float32")'
        what, remedy = beyond if np.isfinite(given[bad]) else ("NaN or infinity", "use dtype=torch.float32")
        if given[bad] == 0:
            what, remedy = "a zero vector", "leave the text out, or use another encoder"
        raise ValueError(f"the encoder gave {what} for {rows[bad]['text'][:60]!r}: {remedy}")
    return stored


def write_shard(path: Path, number: int, rows: list[dict], stored: np.ndarray) -> dict:
    """Write a shard's two files; returns its entry for the manifest."""
    data = {"embeddings": array_bytes(stored), "texts": pd.DataFrame(rows).to_parquet(index=False)}
    entry = {"rows": len(rows), **file_names(number)}
    for kind, content in data.items():
        write(path / entry[kind], content)
        entry[f"{kind}_bytes"] = len(content)
        entry[f"{kind}_sha256"] = hashlib.sha256(content).hexdigest()
    return entry


def bytes_per_text(rows: list[dict], manifest: dict) -> float:
    """What a text like these takes on the disk: its embedding, and its part of a compressed `.parquet`."""
    texts = len(pd.DataFrame(rows).to_parquet(index=False)) / len(rows)
    return manifest["d_in"] * np.dtype(manifest["dtype"]).itemsize + texts


def map_shard(path: Path, shard: dict, manifest: dict) -> np.ndarray:
    """The embeddings of a shard (rows, d_in), mapped. Both files are looked at, their content is not read.

    Raises:
        StoreError: a file is missing or cut short, or is not what the manifest says.
    """
    for kind in ENDINGS:
        file = path / shard[kind]
        found = file.stat().st_size if file.is_file() else 0
        if found != shard[f"{kind}_bytes"]:
            raise StoreError(
                f"{file} has {found} bytes, not {shard[f'{kind}_bytes']}: it was cut short or lost; {AGAIN}"
            )
    try:
        array = np.lib.format.open_memmap(path / shard["embeddings"], mode="r")
        n_texts = parquet.read_metadata(path / shard["texts"]).num_rows
    except Exception as error:  # damaged headers fail in every way that parsers know
        raise StoreError(f"a header in shard {shard['embeddings']} of {path} is damaged; {AGAIN}") from error
    wanted = (shard["rows"], manifest["d_in"]), np.dtype(manifest["dtype"]), True, shard["rows"]
    if (array.shape, array.dtype, array.flags.c_contiguous, n_texts) != wanted:
        raise StoreError(
            f"shard {shard['embeddings']} of {path} is {array.dtype} {array.shape} with {n_texts} texts, "
            f"not {wanted[1]} {wanted[0]}; {AGAIN}"
        )
    return array


def read_texts(path: Path, shard: dict) -> pd.DataFrame:
    """Texts, domains and titles of a shard; raises `StoreError` when they are not what was written."""
    return pd.read_parquet(io.BytesIO(_read(path, shard, "texts")))


def verify_shard(path: Path, shard: dict) -> None:
    """Read both files whole; raises `StoreError` for one that is not what was written."""
    for kind in ENDINGS:
        _read(path, shard, kind)


def _read(path: Path, shard: dict, kind: str) -> bytes:
    file = path / shard[kind]
    data = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(data).hexdigest() != shard[f"{kind}_sha256"]:
        raise StoreError(f"{file} does not match its checksum; {AGAIN}")
    return data
