"""What each option of TrainConfig changes: one option at a time, the others at their defaults.

Run: python tests/benchmarks/train_options.py [store]
12,000 sentences of wiki-vital, articles held out whole, d_sae 256 and k 4 (the advised size) and a wide dictionary of
2048 where latents die; 400 steps; means over three seeds of the weights. `fvu` (least to most over the seeds), `l0` and
`dead` on held-out sentences, `fitted`: the FVU of the training sentences.
"""

import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import saelib as sl  # noqa: E402

SEEDS, WIDE = (0, 1, 2), {"d_sae": 2048, "k": 4}
TRIED = [
    ("topk", {}, [
        {}, {"steps": 100}, {"steps": 1600}, {"batch_size": 256}, {"batch_size": 4096}, {"lr": 1e-3}, {"lr": 1.6e-2},
        {"lr": 6.4e-2}, {"warmup": 0.0}, {"warmup": 0.3}, {"decay": 0.0}, {"decay": 0.8}, {"clip": 0.1},
        {"clip": float("inf")}, {"seed": 1}, {"eval_every": 10},
    ]),
    ("topk", WIDE, [
        {}, {"aux_coef": 0.0}, {"aux_coef": 1.0}, {"k_aux": 16}, {"k_aux": 1024}, {"dead_after": 4096},
        {"dead_after": 400_000},
    ]),
    ("vanilla", {}, [
        {}, {"lr": 6.4e-2}, {"coefficient": 10.0}, {"coefficient_warmup": 0.0}, {"coefficient_warmup": 0.5},
        {"target_l0": None}, {"target_l0": None, "coefficient": 10.0}, {"target_l0": 16},
    ]),
    ("jumprelu", {}, [
        {}, {"threshold_lr": 2e-3}, {"threshold_lr": 2e-1}, {"jumprelu_start": 0.0}, {"jumprelu_start": 1.0},
        {"coefficient": 0.1}, {"coefficient": 10.0}, {"coefficient_warmup": 0.0}, {"target_l0": 16},
    ]),
]  # fmt: skip


def measured(store: sl.EmbeddingStore, split: tuple, architecture: str, size: dict, changed: dict) -> dict:
    """One row: what a configuration makes of three SAEs."""
    train_rows, x_fit, x_test = split
    d_sae, k = size.get("d_sae", 256), size.get("k", 4)
    config = sl.TrainConfig(**{"steps": 400, "target_l0": k} | changed)
    saes = [sl.make_sae(architecture, store.d_in, d_sae, int(config.target_l0 or k), seed=s) for s in SEEDS]
    if config.target_l0 is None:
        for sae in saes:
            sae.target_l0 = None
    done = sl.train_many(saes, store, config, held_out=x_test, rows=train_rows, progress=False)
    found = pd.DataFrame([sl.evaluate(r.sae, x_test)._asdict() for r in done])
    fitted = sum(sl.evaluate(r.sae, x_fit).fvu for r in done) / len(done)
    return {
        "SAE": f"{architecture} {d_sae}", "option": ", ".join(f"{n} {v}" for n, v in changed.items()) or "defaults",
        "fvu": f"{found.fvu.mean():.3f} ({found.fvu.min():.3f} to {found.fvu.max():.3f})", "fitted": f"{fitted:.3f}",
        "l0": f"{found.l0.mean():.2f}", "dead": f"{found.dead.mean():.1%}", "seconds": f"{done[0].seconds / len(done):.1f}",
    }  # fmt: skip


def main() -> None:
    """Print the table, row by row, as Markdown."""
    encoder = sl.load_encoder()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data" / "stores" / "wiki-vital-cpu"
    corpus = lambda: sl.load_corpus("wiki-vital", limit=12_000, seed=0)
    store = sl.EmbeddingStore(path) if path.exists() else sl.EmbeddingStore.extract(path, corpus(), encoder)
    train_rows, test_rows = store.split()
    split = train_rows, *(torch.from_numpy(store.embeddings(rows)) for rows in (train_rows, test_rows))
    tried = {name for _, _, runs in TRIED for run in runs for name in run}
    print("not tried:", sorted({f.name for f in fields(sl.TrainConfig)} - tried))
    for i, (architecture, size, runs) in enumerate(TRIED):
        for j, changed in enumerate(runs):
            row = measured(store, split, architecture, size, changed)
            if not i and not j:
                print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
            print("| " + " | ".join(row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
