"""How long families take, and in how much memory: synthetic sparse tables with planted families.

Run: python tests/benchmarks/families.py            3,072 features × 36,000 texts, k 32
     python tests/benchmarks/families.py --large    65,536 features × 1,000,000 texts, k 32 (minutes; 16 GB)
Prints seconds, peak memory of the process, and how many of the planted families came back.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from saelib.families import find_families  # noqa: E402


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


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true")
    n, d_sae = (1_000_000, 65_536) if parser.parse_args().large else (36_000, 3072)
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
