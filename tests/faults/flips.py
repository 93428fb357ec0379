"""Flip bits in every kind of file that is kept: `python tests/faults/flips.py 1000`.

A flipped bit is refused, or it changes nothing: in a store once it is verified, in an SAE and a checkpoint
whenever they are read.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from small import D_IN, extract, run, vectors

from saelib.files import digest
from saelib.sae import load_sae, make_sae
from saelib.store import EmbeddingStore


def of_store(folder):
    store = EmbeddingStore(folder)
    store.verify()
    return store.embeddings().tobytes(), store.frame.to_json()


def of_sae(folder):
    sae = load_sae(folder)
    return str(sae), digest(sae.state_dict())


def kinds(folder):
    """Each kind of file: (name, the file, what is read out of it)."""
    extract(folder / "store")
    sae = make_sae("jumprelu", D_IN, 32, 3)
    sae.fit_normalizer(vectors())
    sae.save(folder / "sae", note="kept")
    run(folder / "run", stop_after=7)
    for name in ("manifest.json", "00001.npy", "00002.parquet"):
        yield name, folder / "store" / name, of_store
    for name in ("sae.safetensors", "cfg.json"):
        yield name, folder / "sae" / name, of_sae
    yield (
        "checkpoint.safetensors",
        folder / "run" / "checkpoint.safetensors",
        lambda path: run(path, stop_after=12),
    )


def flips(n, seed=0):
    """How each kind took its share of n flips; raises AssertionError for a flip that changed a result."""
    rng, found, wanted = np.random.default_rng(seed), Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        every = list(kinds(Path(folder)))
        for i in range(n):
            name, file, read = every[i % len(every)]
            good = file.read_bytes()
            if i < len(every):
                wanted[name] = read(file.parent)
                file.write_bytes(good)  # a resumed run has gone on in it
            # half of the flips hit the first kilobyte, where headers are
            bit = int(rng.integers(8 * (min(len(good), 1024) if rng.random() < 0.5 else len(good))))
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            file.write_bytes(bad)
            try:
                assert read(file.parent) == wanted[name], f"bit {bit} of {name} changed the result"
                found[name, "nothing changed"] += 1
            except ValueError:
                found[name, "refused"] += 1
            file.write_bytes(good)
    return found


def main(n):
    found = flips(n)
    for (name, outcome), count in sorted(found.items()):
        print(f"{name:24} {outcome:16} {count}")
    print(f"{found.total()} flips, none changed a result")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
