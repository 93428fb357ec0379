"""What makes features that can be named? Ways of starting and training a TopK SAE, by the named share of held-out texts.

Run: python tests/benchmarks/better_features.py [corpus.parquet] [--seeds 1]
Every variant changes one thing of the first line. Prints a table and writes data/results/better-NAME.parquet.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.preprocessing import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from labels import DATA, open_store, share_in_words  # noqa: E402

import saelib as sl  # noqa: E402

VARIANTS = {  # what differs: of the SAE, of the training
    "as it is": {},
    "from k-means": {"start": "kmeans"},
    "from texts": {"start": "texts"},
    "lr 2e-3": {"lr": 2e-3},
    "lr 1e-3": {"lr": 1e-3},
    "twice the steps": {"longer": 2},
    "k 4": {"k": 4},
    "k 12": {"k": 12},
    "twice as wide": {"wider": 2},
    "four times as wide": {"wider": 4},
    "twice as wide, from k-means": {"wider": 2, "start": "kmeans"},
}


def directions(start: str, x: np.ndarray, d_sae: int, seed: int) -> np.ndarray:
    """(d_sae, d_in) unit rows for the decoder: centroids of the centred training embeddings, or some of these."""
    z = normalize(x - x.mean(0))
    if start == "texts":
        return z[np.random.default_rng(seed).permutation(len(z))[:d_sae]]
    kmeans = MiniBatchKMeans(d_sae, random_state=seed, n_init=1, batch_size=4096, max_iter=20)
    return normalize(kmeans.fit(z).cluster_centers_)


def measure(variant: dict, store, rows, test_rows, vectors, independent, seed: int) -> dict:
    """Train one SAE, name its features, measure."""
    d_sae, k = sl.suggest_size(len(rows), store.d_in)
    d_sae, k = d_sae * variant.get("wider", 1), variant.get("k", k)
    sae = sl.make_sae("topk", store.d_in, d_sae, k, seed)
    if "start" in variant:
        W_dec = directions(variant["start"], store.embeddings(rows), d_sae, seed)
        with torch.no_grad():
            sae.W_dec.copy_(torch.from_numpy(W_dec))
            sae.W_enc.copy_(sae.W_dec.t())
    config = sl.TrainConfig(steps=400 * variant.get("longer", 1), target_l0=k, seed=seed)
    config = replace(config, lr=variant.get("lr", config.lr))
    held_out = torch.from_numpy(store.embeddings(test_rows))
    result = sl.train(sae, store, config, held_out=held_out, rows=rows, progress=False)
    train, test = sl.read_texts(sae, store, rows), sl.read_texts(sae, store, test_rows)
    names = sl.name_features(sae, train, test, vectors, independent=independent)
    return {
        "fvu": result.final.fvu, "named_share": share_in_words(sae, names, held_out.numpy()),
        "shown": names.shown.sum() / d_sae, "trust": names.trust.mean(),
        "ap": names.ap.mean(), "ap_bm25": names.ap_bm25.mean(), "ap_lsa": names.ap_lsa.mean(),
    }  # fmt: skip


def main() -> None:
    """All variants, a line each: the mean over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    encoder = sl.load_encoder()
    name, store = open_store(arguments.corpus, encoder)
    rows, test_rows = store.split()
    texts = store.texts
    vectors = sl.EmbeddingCache(encoder.encode)
    independent = sl.EmbeddingCache(sl.load_independent([texts[i] for i in rows]))
    lines = {}
    for title, variant in VARIANTS.items():
        found = [
            measure(variant, store, rows, test_rows, vectors, independent, seed)
            for seed in range(arguments.seeds)
        ]
        lines[title] = pd.DataFrame(found).mean()
        print(
            pd.DataFrame({title: lines[title]})
            .T.round(3)
            .to_string(header=len(lines) == 1, index_names=False)
        )
        sys.stdout.flush()
    (DATA / "results").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(lines).T.to_parquet(DATA / "results" / f"better-{name}.parquet")


if __name__ == "__main__":
    main()
