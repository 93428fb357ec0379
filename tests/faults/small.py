"""What the tests with damage share: an encoder that costs nothing, a tiny run, and what a folder holds."""

import hashlib
import time
from pathlib import Path

import numpy as np
import torch

from saelib.files import digest
from saelib.sae import make_sae
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig
from saelib.training import train

D_IN = 16
ROWS = [{"text": f"text number {i}", "domain": f"d{i % 3}", "title": f"t{i // 4}"} for i in range(120)]
CONFIG = TrainConfig(steps=12, batch_size=16, target_l0=3, eval_every=4, dead_after=64)


class HashEncoder:
    """A text is 16 numbers of its hash; `pause` seconds a call."""

    dtype, d_in = "float32", D_IN

    def __init__(self, name="hash", pause=0.0):
        self.name, self.pause = name, pause
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()[:16]

    def encode(self, texts, batch_tokens=None, progress=False):
        time.sleep(self.pause)
        digests = [
            hashlib.sha512((self.name + text).encode("utf-8", "surrogatepass")).digest() for text in texts
        ]
        out = np.array([np.frombuffer(d[: 2 * D_IN], np.int16) for d in digests], np.float32)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def extract(path, rows=None, encoder=None, **settings):
    rows, encoder = ROWS if rows is None else rows, encoder or HashEncoder()
    return EmbeddingStore.extract(path, rows, encoder, **{"shard_rows": 30, "progress": False} | settings)


def vectors():
    return torch.from_numpy(HashEncoder().encode([row["text"] for row in ROWS]))


def run(checkpoint=None, name="batchtopk", data=None, **settings):
    """The tiny run; the digest of all that came out of it."""
    sae = make_sae(name, D_IN, 32, 3)
    settings = {"checkpoint": checkpoint, "checkpoint_every": 3, "progress": False} | settings
    result = train(sae, vectors() if data is None else data, CONFIG, **settings)
    return digest(result.sae.state_dict(), str(result.history.to_dict()), str(result.final))


def content(folder):
    """SHA-256 of every file in a folder but the lock."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in Path(folder).iterdir()
        if p.name != ".lock"
    }
