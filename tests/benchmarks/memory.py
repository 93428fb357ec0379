"""How much memory does a large corpus take? Peak above what the process held before, each part in a process of its own.

Run: python tests/benchmarks/memory.py [--texts 1000000] [--only batches,training,table,texts,names] [--d-sae 1024] [--k 8]
The store is synthetic and needs no encoder: halves of wiki-vital sentences put together, embedded as the sum of their
words' random vectors (d_in 384, float16). `texts` and `names` are what `read_texts` and `name_features` take.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import HashingVectorizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import saelib as sl  # noqa: E402

ROOT, D_IN = Path(__file__).resolve().parents[2], 384
DIRECTIONS = np.random.default_rng(0).normal(size=(2**14, D_IN)).astype(np.float32)
WORDS = HashingVectorizer(n_features=2**14, stop_words="english", alternate_sign=False)


def encode(texts: list[str], *_: object, **__: object) -> np.ndarray:
    """(n,) strings → (n, 384) unit vectors."""
    vectors = WORDS.transform(texts).astype(np.float32) @ DIRECTIONS + 1e-3 * DIRECTIONS[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def synthetic(n: int) -> sl.EmbeddingStore:
    """A store of n texts, made once."""
    path = ROOT / "data" / "stores" / f"synthetic-{n}"
    try:
        return sl.EmbeddingStore(path)
    except (FileNotFoundError, ValueError):
        pass
    base = sl.load_corpus(verbose=False).to_pandas()
    halves = [text.split() for text in base.text]
    rng, domains = np.random.default_rng(0), base.domain.tolist()

    def rows() -> object:
        for _ in range(n):
            a, b = rng.integers(len(halves), size=2)
            text = halves[a][: len(halves[a]) // 2] + halves[b][len(halves[b]) // 2 :]
            yield {"text": " ".join(text) + ".", "domain": domains[a]}

    encoder = SimpleNamespace(name="words", fingerprint="0" * 16, dtype="float32", d_in=D_IN, encode=encode)
    return sl.EmbeddingStore.extract(path, rows(), encoder, progress=False)


def held_mb(line: str) -> float:
    """VmRSS (now) or VmHWM (the most ever) of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(found.split()[1]) / 1024 for found in status if found.startswith(line))


def measure(part: str, n: int, d_sae: int, k: int) -> dict:
    """One part, in this process: MB above what was held before, seconds, and how much came out."""
    store, sae = sl.EmbeddingStore(ROOT / "data" / "stores" / f"synthetic-{n}"), None
    warm = sl.make_sae("topk", D_IN, d_sae, k)
    sl.train(
        warm,
        encode(["some text", "another one"] * 500 + ["a b c third"] * 500),
        sl.TrainConfig(steps=2),
        progress=False,
    )
    if part in ("table", "texts", "names"):
        sae = sl.load_sae(ROOT / "data" / "stores" / f"synthetic-{n}-sae" / f"{d_sae}-{k}")
    if part == "names":
        train, test = (sl.read_texts(sae, store, rows) for rows in store.split())
    before, began = held_mb("VmRSS"), time.perf_counter()
    if part == "batches":
        batches = store.batches()
        found = sum(len(next(batches)) for _ in range(200))
    elif part == "training":
        config = sl.TrainConfig(steps=100)
        found = sl.train(sl.make_sae("topk", D_IN, d_sae, k), store, config, progress=False).final.fvu
    elif part == "table":
        found = sl.activation_table(sae, store).nnz
    elif part == "texts":
        found = len(sl.read_texts(sae, store).texts)
    else:
        before = 0.0  # what was read counts
        names = sl.name_features(sae, train, test, sl.EmbeddingCache(encode))
        found = f"{names.shown.mean():.0%} of {len(names)} shown"
    return {"MB": held_mb("VmHWM") - before, "seconds": time.perf_counter() - began, "found": found}


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--only", default="batches,training,table,texts,names")
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--here", action="store_true", help="measure in this process")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.only, args.texts, args.d_sae, args.k)))
        return
    store, sae = synthetic(args.texts), sl.make_sae("topk", D_IN, args.d_sae, args.k)
    folder = ROOT / "data" / "stores" / f"synthetic-{args.texts}-sae" / f"{args.d_sae}-{args.k}"
    if not (folder / "sae.safetensors").exists():
        sl.train(sae, store, sl.TrainConfig(steps=300), progress=False).sae.save(folder)
    lines = {}
    for part in args.only.split(","):
        numbers = ["--texts", str(args.texts), "--d-sae", str(args.d_sae), "--k", str(args.k)]
        command = [sys.executable, __file__, "--here", "--only", part, *numbers]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stdout.strip().splitlines()
        lines[part] = json.loads(said[-1]) if done.returncode == 0 else {"found": done.stderr[-300:]}
    print(f"{args.texts:,} texts × {D_IN}, d_sae {args.d_sae}, k {args.k}; MB above the start of each part "
          "(names: the whole process)")  # fmt: skip
    print(pd.DataFrame(lines).T.to_string(float_format="{:.0f}".format))


if __name__ == "__main__":
    main()
