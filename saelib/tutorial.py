"""What the notebooks share: where files land, and a size of everything chosen from the hardware.

`start()` gives a `Tutorial` whose preset is "cpu" (two cores, minutes) or "gpu" (full size); the
variable SAELIB_PRESET overrides the choice. The cells are the same for both.
"""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from saelib.corpus import load_corpus
from saelib.encoder import EmbeddingCache, Encoder, load_encoder, pick_device
from saelib.sae import make_sae
from saelib.store import EmbeddingStore
from saelib.trainer import CheckpointError, TrainConfig
from saelib.training import TrainResult, suggest_size, train


@dataclass(frozen=True)
class Tutorial:
    """One session's settings.

    Attributes:
        preset: "cpu" or "gpu".
        device: of the encoder and of training.
        data: the repository's data folder.
        n_texts: sentences used, None for all.
        steps: optimiser steps of an SAE.
        seed: of the sample, the weights and the batches.
    """

    preset: str
    device: torch.device
    data: Path
    n_texts: int | None
    steps: int
    seed: int

    def encoder(self) -> Encoder:
        return load_encoder(device=self.device)

    def vectors(self, encoder: Encoder) -> EmbeddingCache:
        """What embeds words: each once for all notebooks."""
        path = self.data / "vectors" / f"{encoder.fingerprint}-{encoder.dtype}.safetensors"
        return EmbeddingCache(encoder.encode, path)

    def store(self, encoder: Encoder | None = None) -> EmbeddingStore:
        """The wiki-vital store of this preset: opened when it is there, extracted when not."""
        path = self.data / "stores" / f"wiki-vital-{self.preset}"
        with self._turn(path):
            try:
                return EmbeddingStore(path, encoder=encoder)
            except (FileNotFoundError, ValueError):
                corpus = load_corpus("wiki-vital", limit=self.n_texts, seed=self.seed)
                return EmbeddingStore.extract(path, corpus, encoder or self.encoder())

    def train(self, architecture: str, store: EmbeddingStore, name: str | None = None) -> TrainResult:
        """Train at the advised size, or resume; a finished run is loaded from its checkpoint."""
        d_sae, k = suggest_size(len(store), store.d_in)
        folder = self.data / "saes" / (name or f"{architecture}-{self.preset}")
        sae = make_sae(architecture, store.d_in, d_sae, k, self.seed)
        config = TrainConfig(steps=self.steps, target_l0=k, seed=self.seed)
        with self._turn(folder):
            try:
                result = train(sae, store, config, checkpoint=folder, device=self.device, progress=False)
            except CheckpointError:  # left by an earlier version of the tutorial, whose settings were others
                print(f"data/saes/{folder.name} was trained with other settings, or is damaged: once more")
                (folder / "checkpoint.safetensors").unlink()
                return self.train(architecture, store, name)
            result.sae.save(folder, encoder=store.manifest["fingerprint"])
        return result

    def _turn(self, wanted: Path) -> AbstractContextManager:
        """Two notebooks at once: the second waits, then opens what the first has made."""
        try:
            self.data.mkdir(exist_ok=True)
            lock = FileLock(self.data / f".{wanted.name}.lock", is_singleton=True)  # `train` may ask twice
            return lock.acquire()
        except OSError:  # a folder that is only read needs no turn
            if not wanted.exists():
                raise
            return nullcontext()


def start(seed: int = 0, verbose: bool = True) -> Tutorial:
    """Choose the preset from the hardware, and print versions, device and preset.

    Raises:
        ValueError: SAELIB_PRESET is neither "cpu" nor "gpu".
    """
    device = pick_device()
    preset = os.environ.get("SAELIB_PRESET", "gpu" if device.type == "cuda" else "cpu")
    if preset not in ("cpu", "gpu"):
        raise ValueError(f"SAELIB_PRESET must be 'cpu' or 'gpu', not {preset!r}")
    data = Path(__file__).resolve().parent.parent / "data"
    torch.manual_seed(seed)
    if verbose:
        packages = ("torch", "sentence-transformers", "keybert", "datasets")
        print(", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages))
        print(f"device {device.type}, preset {preset!r}")
    size = {"cpu": (12_000, 400), "gpu": (None, 1000)}[preset]
    return Tutorial(preset, device, data, *size, seed)
