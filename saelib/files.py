"""Files that are whole or absent, folders with one writer, digests that tell a changed bit.

Whatever the library keeps is written by `write`: under another name, down to the disk, then renamed. A kill,
a full disk or a power cut leaves the old file or the new one, and at worst a leftover, which the next writer
of the folder removes.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
import xxhash
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

LEFTOVER = ".part"


class InUseError(RuntimeError):
    """Another process writes to this folder."""


def expanded(path: str | Path) -> Path:
    """The path with `~` followed; raises FileNotFoundError for the home of a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"no user's home for {path}: write the path out") from None


def resolved(path: str | Path) -> Path:
    """The absolute path, `~` and links followed: it means the same after a change of the working folder."""
    return expanded(path).resolve()


def write(path: Path, data: bytes | memoryview) -> None:
    """Make `path` a file with this content, whole or not at all, and on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{LEFTOVER}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # the new name is on the disk too; Windows opens no folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def array_bytes(array: np.ndarray) -> memoryview:
    """An `.npy` file of this array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getbuffer()


def readable_json(value: dict) -> bytes:
    """What `write_json` writes."""
    return json.dumps(value, indent=1).encode()


def write_json(path: Path, value: dict) -> None:
    """Write readable JSON as `write` does."""
    write(path, readable_json(value))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other writers out of it; what a killed writer left half-written goes.

    Raises:
        InUseError: another process (or thread) holds it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = _read_soon(file) or "another process"
        raise InUseError(
            f"{folder} is being written by {holder}: wait until it has ended, or choose another folder"
        ) from None
    try:
        with suppress(OSError):  # Windows lets nobody write into a locked file
            file.write_text(
                f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}"
            )
        for leftover in folder.glob(f".*{LEFTOVER}"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _read_soon(file: Path) -> str:
    """What the holder wrote into its lock; it may have to be waited for."""
    for _ in range(10):
        with suppress(OSError):
            if text := file.read_text():
                return text
        time.sleep(0.02)
    return ""


def as_json(about: dict) -> str:
    """JSON of what is said about tensors; arrays become lists, and what JSON does not know its text."""
    return json.dumps(about, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))


def tensor_file(tensors: Mapping[str, Tensor], about: dict) -> bytes:
    """A safetensors file of tensors and what is said about them, with a digest over both."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = as_json(about)
    return save(tensors, {"saelib": json.dumps({"digest": digest(tensors, text), "about": text})})


def read_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    """Tensors, and what was said about them (None in a file that is not `tensor_file`'s).

    Raises:
        FileNotFoundError. ValueError: not one bit of it may differ from what was written.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        if metadata is None:
            return tensors, None
        signed = json.loads(metadata["saelib"])
        if digest(tensors, signed["about"]) == signed["digest"]:
            return tensors, json.loads(signed["about"])
        problem = "its content does not match its digest"
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {str(error)[:200]}"
    raise ValueError(f"{path} is damaged, or of an earlier version ({problem})")


def kept(path: Path | None, shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
    """A float32 array that is slow to make: read from `path` where it is whole there, else made and kept.

    One changed bit, another shape, or no file: it is made anew. `path` None, or a folder that is only read:
    it is not kept.
    """
    if path is not None:
        with suppress(ValueError, OSError):
            tensors, about = read_tensor_file(path)
            if about is not None and tensors["array"].shape == shape:
                return tensors["array"].numpy()
    made = np.ascontiguousarray(make(), dtype=np.float32)
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, tensor_file({"array": torch.from_numpy(made)}, {}))
    return made


def digest(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """XXH3-128 over names, types, shapes and bytes of tensors, and over texts: 11 GB/s, so always on."""
    found = xxhash.xxh3_128("\0".join(texts).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy())
    return found.hexdigest()
