"""How large an SAE, for how many texts? Held-out FVU and label scores over n_texts, d_sae and k (wiki-vital sentences).

Run: python tests/benchmarks/sizes.py     Writes data/results/sizes.parquet, which notebook 05 shows when it is there.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from saelib import labellers  # noqa: E402
from saelib.activations import read_texts  # noqa: E402
from saelib.corpus import load_corpus  # noqa: E402
from saelib.encoder import load_encoder  # noqa: E402
from saelib.naming.keybert import EmbeddingCache  # noqa: E402
from saelib.naming.scoring import draw_detection_set, score_labels  # noqa: E402
from saelib.naming.selection import combined  # noqa: E402
from saelib.sae import make_sae  # noqa: E402
from saelib.store import EmbeddingStore  # noqa: E402
from saelib.trainer import TrainConfig  # noqa: E402
from saelib.training import train_many  # noqa: E402

GRID = {
    1000: (16, 32, 64, 128, 256),
    3000: (32, 64, 128, 256, 512),
    10_000: (64, 128, 256, 512, 1024),
    30_000: (128, 256, 512, 1024, 2048),
}


def main() -> None:
    """One sweep per number of texts and k; TopK, 400 steps; every live feature named and judged."""
    data, encoder = Path(__file__).resolve().parents[2] / "data", load_encoder()
    store = EmbeddingStore.extract(data / "stores" / "all", load_corpus(), encoder)
    rows, test_rows = store.split()
    held_out, vectors, records = (
        torch.from_numpy(store.embeddings(test_rows)),
        EmbeddingCache(encoder.encode),
        [],
    )
    for n, sizes in GRID.items():
        some = np.sort(np.random.default_rng(0).permutation(rows)[:n])
        for k in (4, 8, 16):
            began = time.perf_counter()
            saes = [make_sae("topk", store.d_in, d_sae, k) for d_sae in sizes]
            config = TrainConfig(steps=400, target_l0=k, batch_size=min(1024, len(some) // 2))
            results = train_many(saes, store, config, held_out=held_out, rows=some, progress=False)
            for result in results:
                a, b = read_texts(result.sae, store, some), read_texts(result.sae, store, test_rows)
                labels = combined(
                    result.sae, a.table, a.embeddings, labellers.candidate_terms(a.texts, vectors), vectors
                )
                judge = {"encoder": vectors(list(labels.label)) @ b.embeddings.T}
                scores = score_labels(labels, judge, draw_detection_set(b.table, b.embeddings), b.table)
                line = {
                    "n_texts": len(some),
                    "d_sae": result.sae.d_sae,
                    "k": k,
                    "fvu": result.final.fvu,
                    "dead": result.final.dead,
                }
                line |= {
                    "live": len(labels),
                    "auroc": scores.auroc.mean(),
                    "auroc_near": scores.auroc_near.mean(),
                }
                records.append(line | {"share_good": float((scores.auroc.dropna() >= 0.9).mean())})
            shown = pd.DataFrame(records[-len(sizes) :]).round(3)
            print(
                shown.to_string(header=k == 4, index=False) + f"    ({time.perf_counter() - began:.0f} s)",
                flush=True,
            )
    (data / "results").mkdir(exist_ok=True)
    pd.DataFrame(records).to_parquet(data / "results" / "sizes.parquet")


if __name__ == "__main__":
    main()
