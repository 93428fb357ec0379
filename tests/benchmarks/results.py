"""The results: one SAE over all texts and one per domain, each architecture, three seeds.

Run: python tests/benchmarks/results.py [corpus] [--limit 20480] [--domain-column domain] [--seeds 3]
A corpus is what `load_corpus` takes: a file or a Hugging Face id with `text` and a domain column; none: the
wiki-vital sentences. Prints a table and writes data/results/NAME.parquet, a line per SAE, and
data/results/gallery-NAME.parquet, the names of the first; notebook 13 reads both.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from labels import DATA, open_store, share_in_words  # noqa: E402

import saelib as sl  # noqa: E402

RESULTS = DATA / "results"
RATES = {"vanilla": 0.064}  # the learning rate that suits it (notebook 07); the others: TrainConfig's


def train(architecture: str, scope: str, store, rows, held_out, seed: int):
    """One SAE of the advised size, 400 steps (fewer texts than two batches: smaller batches)."""
    d_sae, k = sl.suggest_size(len(rows), store.d_in)
    config = sl.TrainConfig(steps=400, target_l0=k, seed=seed, batch_size=min(1024, len(rows) // 2))
    if architecture in RATES:
        config = sl.TrainConfig(**(vars(config) | {"lr": RATES[architecture]}))
    sae = sl.make_sae(architecture, store.d_in, d_sae, k, seed)
    folder = DATA / "saes" / "results" / f"{store.path.name}-{scope}-{architecture}-{seed}"
    result = sl.train(sae, store, config, held_out=held_out, rows=rows, progress=False, checkpoint=folder)
    return result, k


def names_of(sae, store, rows, test_rows, vectors, independent, seed: int):
    """The judged names of an SAE, its two tables, and what the names are worth."""
    a, b = sl.read_texts(sae, store, rows), sl.read_texts(sae, store, test_rows)
    names = sl.name_features(sae, a, b, vectors, independent=independent, seed=seed)
    unique = sl.collision(names, b.table, vectors, b.embeddings)
    return names, (a, b), {
        "shown": names.shown.sum() / sae.d_sae, "trust": names.trust[names.shown].mean(), "named_share": share_in_words(sae, names, b.embeddings),
        "ap": names.ap.mean(), "ap_bm25": names.ap_bm25.mean(), "ap_lsa": names.ap_lsa.mean(),
        "auroc": names.auroc.mean(), "auroc_bm25": names.auroc_bm25.mean(),
        "unique_names": unique.unique_names, "top_1": unique.top_1, "density": names.density.median(),
    }  # fmt: skip


def line(scope: str, architecture: str, seed: int, result, x) -> dict:
    """What every SAE is measured by, on held-out embeddings x."""
    with torch.no_grad():
        recall = sl.neighbour_recall(x, result.sae(x))
    size = {"d_sae": result.sae.d_sae, "n_test": len(x), "recall": recall}
    return {"scope": scope, "architecture": architecture, "seed": seed} | size | result.final._asdict()


def gallery(names: pd.DataFrame, a, with_text: bool) -> pd.DataFrame:
    """Names as shown, what is known of them and, where the licence allows, the strongest training text."""
    kept = ["label", "kind", "trust", "shown", "density", "ap", "ap_bm25", "n"]
    table = names[kept].assign(shown_as=sl.as_shown(names))
    return table.assign(text=[a.texts[rows[0]] for rows in names.top_rows]) if with_text else table


def main() -> None:
    """All SAEs; two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--domain-column", default="domain")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    encoder = sl.load_encoder()
    name, store = open_store(arguments.corpus, encoder, arguments.domain_column, arguments.limit)
    rows, test_rows = store.split()
    x_test = torch.from_numpy(store.embeddings(test_rows))
    domain, texts = store.frame.domain.to_numpy(), store.texts
    vectors, records, joint = sl.EmbeddingCache(encoder.encode), [], {}
    independent = sl.EmbeddingCache(sl.load_independent([texts[i] for i in rows]))
    RESULTS.mkdir(parents=True, exist_ok=True)

    def keep(record: dict) -> None:
        records.append({n: v.item() if isinstance(v, np.generic) else v for n, v in record.items()})
        pd.DataFrame(records).to_parquet(RESULTS / f"{name}.parquet")
        took = f"{time.perf_counter() - began:.0f} s"
        print(
            {n: round(v, 3) if isinstance(v, float) else v for n, v in records[-1].items()}, took, flush=True
        )

    for seed in range(arguments.seeds):
        for architecture in ("topk", "batchtopk", "jumprelu", "vanilla"):
            began = time.perf_counter()
            result, k = train(architecture, "all", store, rows, x_test, seed)
            names, (a, b), found = names_of(result.sae, store, rows, test_rows, vectors, independent, seed)
            record = line("all", architecture, seed, result, x_test) | {"k": k, "n_train": len(rows)} | found
            if seed == 0:
                probe = [sl.probe_accuracy(p, domain[rows], q, domain[test_rows]) for p, q in
                         ((a.table, b.table), (a.embeddings, b.embeddings))]  # fmt: skip
                record |= dict(zip(("probe", "probe_dense"), probe, strict=True))
            if architecture == "topk":
                joint[seed] = result.sae
                if seed == 0:
                    gallery(names, a, arguments.corpus is None).to_parquet(
                        RESULTS / f"gallery-{name}.parquet"
                    )
            keep(record)
    for one in sorted(set(domain) - {"Uncategorized"}):
        part, held = rows[domain[rows] == one], test_rows[domain[test_rows] == one]
        x = torch.from_numpy(store.embeddings(held))
        for seed in range(arguments.seeds):
            began = time.perf_counter()
            result, k = train("topk", one, store, part, x, seed)
            _, _, found = names_of(result.sae, store, part, held, vectors, independent, seed)
            record = line(one, "topk", seed, result, x) | {"k": k, "n_train": len(part)} | found
            keep(record | {"fvu_joint": sl.evaluate(joint[seed], x).fvu})
    print(pd.DataFrame(records).groupby(["scope", "architecture"]).mean().round(3).T.to_string())


if __name__ == "__main__":
    main()
