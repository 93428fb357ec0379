"""How long families take, in how much memory, and whether they are families.

Run: python tests/benchmarks/families.py                   3,072 features × 36,000 texts, k 32 (synthetic)
     python tests/benchmarks/families.py --large           65,536 features × 1,000,000 texts, k 32 (minutes)
     python tests/benchmarks/families.py --quality [corpus.parquet | folder of a store]   (none: wiki-vital)
The first two print seconds, peak memory of the process, and how many of the planted families came back. The third
trains SAEs of three sizes and prints, on held-out texts, how far members fire together and mean alike (by an
encoder that is a stranger to the embeddings), beside clusters of decoder rows and random families, with 95%.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from labels import open_store  # noqa: E402

import saelib as sl  # noqa: E402
from saelib.families import clustered_families, family_quality, find_families, random_families  # noqa: E402
from saelib.family_meaning import absorption, coherence  # noqa: E402


def synthetic(n: int, d_sae: int, k: int, size: int = 8, seed: int = 0) -> sparse.csr_matrix:
    """n texts of k features: of a quarter as many families the parent and two children, the rest Zipf noise.

    Feature f·size is the parent of f·size + 1 … f·size + size − 1.
    """
    generator, parts = np.random.default_rng(seed), []
    popular = 1 / (10 + np.arange(d_sae))  # the noise has a few frequent features, and many rare ones
    shuffled = generator.permutation(d_sae)
    cumulative = np.cumsum(popular / popular.sum())
    for start in range(0, n, 100_000):
        rows = min(100_000, n - start)
        families = generator.integers(d_sae // size, size=(rows, k // 4)) * size
        children = [families + 1 + generator.integers(size - 1, size=families.shape) for _ in range(2)]
        noise = shuffled[np.searchsorted(cumulative, generator.random((rows, k - 3 * (k // 4))))]
        columns = np.concatenate([families, *children, noise], axis=1)
        at = np.repeat(np.arange(rows), columns.shape[1])
        values = 0.5 + generator.random(columns.size, dtype=np.float32)
        parts.append(sparse.csr_matrix((values, (at, columns.ravel())), (rows, d_sae)))
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def interval(values: pd.Series, draws: int = 1000) -> str:
    """Mean and 95%, from drawing the families anew."""
    values = values.dropna().to_numpy()
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f} {high:.3f}]"


def quality(store: sl.EmbeddingStore) -> None:
    """The table of three sizes."""
    rows, test_rows = store.split()
    held_out, small = torch.from_numpy(store.embeddings(test_rows)), sl.suggest_size(len(rows), store.d_in)
    meaning = None
    for d_sae, k in (small, (1024, 16), (3072, 32)):
        config, sae = sl.TrainConfig(steps=800, target_l0=k), sl.make_sae("topk", store.d_in, d_sae, k)
        sae = sl.train(sae, store, config, held_out=held_out, rows=rows, progress=False).sae
        table, test = sl.activation_table(sae, store, rows), sl.activation_table(sae, store, test_rows)
        if meaning is None:
            texts = store.frame.text.iloc[rows].tolist()
            meaning = sl.load_independent(texts)(texts)
        members, density = find_families(table), sl.feature_stats(table).density.to_numpy()
        clusters = clustered_families(sae.W_dec.detach().numpy(), density, members.family.nunique())
        clusters = clusters[clusters.groupby("family").feature.transform("size") >= 5]
        groups = {
            "families": members,
            "clusters": clusters,
            "random": random_families(members, np.flatnonzero(density)),
        }
        top, lines = sl.top_texts(table, 10)[0], {}
        for name, group in groups.items():
            q = family_quality(test, group).assign(coherence=coherence(top, group, meaning))
            shown = {
                c: interval(q[c]) for c in ("parent_child", "child_child", "inside", "outside", "coherence")
            }
            lines[name] = {
                "groups": len(q),
                "features": group.feature.nunique(),
                "size": q["size"].median(),
            } | shown
        absorbed = absorption(table, members, top, meaning)
        print(f"\n{store.path.name}, d_sae {d_sae}, k {k}\n" + pd.DataFrame(lines).T.to_string())
        print(
            f"of a child's texts its parent is silent on {absorbed.silent.mean():.0%}, absorbed {absorbed.absorbed.mean():.1%} (chance {absorbed.chance.mean():.1%})",
            flush=True,
        )


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--quality", nargs="?", const="")
    given = parser.parse_args()
    if given.quality is not None:
        whole = given.quality and (Path(given.quality) / "manifest.json").exists()
        quality(
            sl.EmbeddingStore(given.quality)
            if whole
            else open_store(given.quality or None, sl.load_encoder())[1]
        )
        return
    n, d_sae = (1_000_000, 65_536) if given.large else (36_000, 3072)
    table = synthetic(n, d_sae, 32)
    began = time.perf_counter()
    members = find_families(table)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux
    planted = {frozenset(range(f, f + 8)) for f in range(0, d_sae, 8)}
    found = {frozenset(group) for _, group in members.groupby("family").feature}
    print(f"{d_sae:,} features × {n:,} texts, {table.nnz:,} activations: {seconds:.1f} s, peak {peak:.1f} GB")
    print(
        f"{members.family.nunique():,} families; {len(planted & found):,} of {len(planted):,} planted ones exactly"
    )


if __name__ == "__main__":
    main()
