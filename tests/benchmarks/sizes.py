"""How large an SAE, for how many texts? FVU, names and the named share over n_texts, d_sae and k.

Run: python tests/benchmarks/sizes.py [corpus.parquet]
Writes data/results/sizes-NAME.parquet.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from labels import DATA, open_store, share_in_words  # noqa: E402

import saelib as sl  # noqa: E402

GRID = {
    1000: (32, 64, 128, 256),
    3000: (64, 128, 256, 512),
    10_000: (128, 256, 512, 1024),
    30_000: (256, 512, 1024, 2048),
}


def measure(result, store, some, test_rows, vectors, independent) -> dict:
    """One trained SAE: its fidelity, its names, and what share of the held-out variance the names account for."""
    sae = result.sae
    a, b = sl.read_texts(sae, store, some), sl.read_texts(sae, store, test_rows)
    names = sl.name_features(sae, a, b, vectors, independent=independent)
    return {
        "n_texts": len(some), "d_sae": sae.d_sae, "k": sae.k, "fvu": result.final.fvu, "dead": result.final.dead,
        "live": len(names), "judged": int(names.ap.notna().sum()), "shown": names.shown.mean(), "trust": names.trust.mean(),
        "named_share": share_in_words(sae, names, b.embeddings), "ap": names.ap.mean(), "auroc": names.auroc.mean(), "auroc_near": names.auroc_near.mean(),
    }  # fmt: skip


def main() -> None:
    """One sweep per number of texts and k; TopK, 400 steps; every live feature named and judged."""
    encoder = sl.load_encoder()
    name, store = open_store(sys.argv[1] if len(sys.argv) > 1 else None, encoder)
    rows, test_rows = store.split()
    test_rows = np.sort(np.random.default_rng(0).permutation(test_rows)[:6000])
    held_out = torch.from_numpy(store.embeddings(test_rows))
    vectors, records = sl.EmbeddingCache(encoder.encode), []
    for n, sizes in GRID.items():
        some = np.sort(np.random.default_rng(0).permutation(rows)[:n])
        independent = sl.EmbeddingCache(sl.load_independent([store.texts[i] for i in some]))
        for k in (4, 8, 16):
            began = time.perf_counter()
            saes = [sl.make_sae("topk", store.d_in, d_sae, k) for d_sae in sizes]
            config = sl.TrainConfig(steps=400, target_l0=k, batch_size=min(1024, len(some) // 2))
            results = sl.train_many(saes, store, config, held_out=held_out, rows=some, progress=False)
            records += [measure(r, store, some, test_rows, vectors, independent) for r in results]
            table = pd.DataFrame(records[-len(sizes) :]).round(3).to_string(header=k == 4, index=False)
            print(table + f"    ({time.perf_counter() - began:.0f} s)", flush=True)
    (DATA / "results").mkdir(exist_ok=True)
    pd.DataFrame(records).to_parquet(DATA / "results" / f"sizes-{name}.parquet")


if __name__ == "__main__":
    main()
