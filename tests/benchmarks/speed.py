"""How fast is it, beside what you would use instead? One command, one table each, medians of 5, JSON with machine and versions.

Run: python tests/benchmarks/speed.py [--peers PYTHON] [--only training,sweep,extraction,feeding,labels,growth] [--steps 800]
PYTHON is the interpreter of an environment with tests/benchmarks/requirements-peers.txt; without it the peers are left out.
On a machine with a GPU the training part also times the dense step at d_sae 3072, 12288 and 65536 (`--only gpu`).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from saelib.activations import activation_table, top_texts  # noqa: E402
from saelib.corpus import load_corpus  # noqa: E402
from saelib.encoder import load_encoder  # noqa: E402
from saelib.naming.keybert import EmbeddingCache, KeyBERTInterpreter  # noqa: E402
from saelib.sae import make_sae  # noqa: E402
from saelib.store import EmbeddingStore  # noqa: E402
from saelib.trainer import TrainConfig  # noqa: E402
from saelib.training import train, train_many  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("latentsae", "saelens", "hypothesaes", "dictionary_learning")


def seconds(call, repeats: int = 5) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def training(store: EmbeddingStore, peers: str | None, steps: int) -> dict[str, pd.DataFrame]:
    """Every trainer on the same embeddings, each in a process of its own."""
    rows, test = store.split()
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "train.npy", Path(folder) / "test.npy"]
        for file, part in zip(files, (rows, test), strict=True):
            np.save(file, store.embeddings(part))
        widest = ((65_536, steps // 8),) if torch.cuda.is_available() else ()
        for d_sae, n_steps in ((3072, steps), (12288, max(steps // 8, 20)), *widest):
            lines = {}
            for name in ("saelib", "textbook", "textbook_our_lr", *(PEERS if peers else ())):
                python = peers if name in PEERS else sys.executable
                command = [
                    python,
                    str(Path(__file__).with_name("one_trainer.py")),
                    name,
                    *map(str, files),
                    str(d_sae),
                    "32",
                    str(n_steps),
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                try:
                    lines[name] = json.loads(done.stdout.strip().splitlines()[-1])
                except (IndexError, json.JSONDecodeError):
                    lines[name] = {"failed": done.stderr.strip()[-200:]}
            table = pd.DataFrame(lines).T
            table["ours / this"] = table["samples/s"]["saelib"] / table["samples/s"]
            tables[f"training, d_in {store.d_in}, d_sae {d_sae}, k 32, batch 1024, {n_steps} steps"] = table
    return tables


def sweep(store: EmbeddingStore) -> pd.DataFrame:
    """`train_many` against one after the other: 8 TopK SAEs of d_sae 512 (it reads the batches once)."""
    x = torch.from_numpy(store.embeddings())

    def members() -> list:
        return [make_sae("topk", store.d_in, 512, k, seed) for k in (4, 8, 16, 32) for seed in (0, 1)]

    configs = [TrainConfig(steps=60, target_l0=s.k, eval_every=60) for s in members()]

    def one_by_one() -> None:
        for sae, config in zip(members(), configs, strict=True):
            train(sae, x, config, progress=False)

    alone, together = seconds(one_by_one), seconds(lambda: train_many(members(), x, configs, progress=False))
    return pd.DataFrame(
        {"one after the other": {"seconds": alone}, "train_many": {"seconds": together}}
    ).T.assign(ratio=lambda t: alone / t.seconds)


def extraction() -> pd.DataFrame:
    """Our encode against plain fp32 `SentenceTransformer.encode`, on 3,000 wiki-vital sentences."""
    texts = load_corpus(limit=3000, verbose=False)["text"][:]
    plain, ours = load_encoder(dtype=torch.float32), load_encoder()
    plain_vectors = plain.model.encode(texts[:500], show_progress_bar=False)
    got = ours.encode(list(texts[:500]))
    cosine = (got * plain_vectors / np.linalg.norm(plain_vectors, axis=1, keepdims=True)).sum(1)
    times = {"SentenceTransformer.encode, fp32": [], f"saelib, {ours.dtype}": []}
    for _ in range(5):  # alternating, so that a busy moment falls on both
        for name, call in zip(
            times,
            (lambda: plain.model.encode(texts, batch_size=32), lambda: ours.encode(list(texts))),
            strict=True,
        ):
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    table = pd.DataFrame({name: {"texts/s": len(texts) / np.median(t)} for name, t in times.items()}).T
    return table.assign(
        ratio=table["texts/s"] / table["texts/s"].iloc[0],
        **{"lowest cosine to fp32": [1.0, float(cosine.min())]},
    )


def feeding(store: EmbeddingStore) -> pd.DataFrame:
    """Training steps per second from the store and from a tensor in memory, and the batches alone."""
    x, usual = torch.from_numpy(store.embeddings()), TrainConfig(steps=200, target_l0=32, eval_every=200)
    speeds = {"tensor in memory": [], "store, fits its buffer": [], "store, buffer of 8,192 rows": []}
    held_out = x[:1000]
    for _ in range(5):
        for name in speeds:
            data, sae = x if name == "tensor in memory" else store, make_sae("topk", store.d_in, 3072, 32)
            config = replace(usual, buffer_rows=8192) if "8,192" in name else usual
            result = train(sae, data, config, held_out=held_out, progress=False)
            speeds[name].append(config.steps / result.seconds)
    table = pd.DataFrame({name: {"steps/s": np.median(v)} for name, v in speeds.items()}).T
    return table.assign(share=table["steps/s"] / table["steps/s"].iloc[0])


def reference_labels(encoder, texts, x, table, features) -> list[list[tuple[str, float]]]:
    """The reference procedure as it is written down: a loop over features and texts, every string embedded each time."""
    from keybert import KeyBERT

    model, out = KeyBERT(model=encoder.model), []
    for f in features:
        column = table[:, f].toarray().ravel()
        total: dict[str, float] = {}
        count: dict[str, int] = {}
        for r in np.argsort(-column, kind="stable")[:10]:
            if column[r] <= 0:
                continue
            document = encoder.encode([texts[r]])[0]
            words = model.extract_keywords(
                texts[r], keyphrase_ngram_range=(1, 1), stop_words="english", top_n=5
            )
            kept: list[tuple[str, float]] = []
            for word, score in words:
                if all(encoder.encode([word])[0] @ encoder.encode([w])[0] < 0.9 for w, _ in kept):
                    kept.append((word, score))
            terms = list(kept)
            for i, (a, _) in enumerate(kept):
                for b, _ in kept[i + 1 :]:
                    cosine = float(encoder.encode([f"{a} {b}"])[0] @ document)
                    terms += [(f"{a} {b}", cosine)] if cosine >= 0.4 else []
            for term, score in terms:
                total[term], count[term] = total.get(term, 0) + score, count.get(term, 0) + 1
        order = sorted(total, key=lambda t: -total[t] / count[t] * np.log1p(count[t]))
        vectors, groups, used = {t: encoder.encode([t])[0] for t in order}, [], set()
        for t in order:
            if t not in used:
                group = [u for u in order if u not in used and (u == t or vectors[u] @ vectors[t] >= 0.8)]
                used |= set(group)
                s, n = sum(total[u] for u in group), sum(count[u] for u in group)
                groups.append((t, s / n * np.log1p(n)))
        out.append(sorted(groups, key=lambda g: -g[1])[:3])
    return out


def reference_top_texts(sae, x, n) -> list[np.ndarray]:
    """Top texts as the reference finds them: for each feature a pass over the encoded texts in a Python loop."""
    acts = sae.encode(x).detach()
    out = []
    for feature in range(acts.shape[1]):
        pairs = [(float(acts[i, feature]), i) for i in range(len(acts))]
        out.append(np.array([i for _, i in sorted(pairs, reverse=True)[:n]]))
    return out


def labels(store: EmbeddingStore) -> pd.DataFrame:
    """Per feature: top-20 texts against a loop over texts; labelling against the transcription on 20 features."""
    rows, _ = store.split()
    sae = train(
        make_sae("topk", store.d_in, 512, 8), store, TrainConfig(steps=200, target_l0=8), progress=False
    ).sae
    x, texts, encoder = (
        store.embeddings(rows),
        store.frame.text.iloc[rows].tolist(),
        load_encoder(dtype=torch.float32),
    )
    some = make_sae("topk", store.d_in, 8, 2)  # the loop on 8 features is slow enough
    loop = seconds(lambda: reference_top_texts(some, torch.from_numpy(x), 20), 1) / 8
    table = activation_table(sae, x)
    ours = seconds(lambda: top_texts(activation_table(sae, x), 20)) / 512
    lines = {
        "top-20 texts": {"reference s / 1,000 features": 1000 * loop, "ours s / 1,000 features": 1000 * ours}
    }
    began = time.perf_counter()
    used, anew = (
        np.unique(top_texts(table, 10)[0]),
        np.zeros_like(x),
    )  # only a feature's top texts are looked at
    used = used[used >= 0]
    anew[used] = encoder.encode([texts[r] for r in used])
    exact = KeyBERTInterpreter(EmbeddingCache(encoder.encode)).label(table, texts, anew)
    whole = (time.perf_counter() - began) / len(exact)
    began = time.perf_counter()
    frame = KeyBERTInterpreter(EmbeddingCache(encoder.encode)).label(table, texts, x)
    stored = (time.perf_counter() - began) / len(frame)
    features = np.random.default_rng(0).choice(frame.index, 20, replace=False)
    began = time.perf_counter()
    direct = reference_labels(encoder, texts, x, table, features)
    slow = (time.perf_counter() - began) / 20
    same = float(
        np.mean([list(exact.terms[f]) == [t for t, _ in d] for f, d in zip(features, direct, strict=True)])
    )
    gap = max(
        np.abs(np.array(exact.scores[f]) - [s for _, s in d]).max()
        for f, d in zip(features, direct, strict=True)
        if d
    )
    names = ("reference s / 1,000 features", "ours s / 1,000 features")
    lines["labels, texts embedded already"] = dict(zip(names, (1000 * slow, 1000 * stored), strict=True))
    lines["labels, top texts embedded anew"] = dict(zip(names, (1000 * slow, 1000 * whole), strict=True))
    lines["labels, top texts embedded anew"] |= {"same labels": same, "largest difference of a score": gap}
    frame = pd.DataFrame(lines).T
    return frame.assign(ratio=frame.iloc[:, 0] / frame.iloc[:, 1])


def growth() -> pd.DataFrame:
    """Time and memory against n, d_sae and k, on synthetic embeddings (Gaussian, unit norm)."""
    code = (
        "import sys, time, json, torch; sys.path.insert(0, {root!r})\n"
        "from saelib.sae import make_sae\nfrom saelib.trainer import TrainConfig\nfrom saelib.training import train\n"
        "from saelib.activations import activation_table, top_texts\n"
        "sys.path.insert(0, {root!r} + '/tests/benchmarks'); from one_trainer import peak_mb\n"
        "n, d_sae, k, steps = {n}, {d_sae}, {k}, {steps}\n"
        "x = torch.nn.functional.normalize(torch.randn(n, 384, generator=torch.Generator().manual_seed(0)), dim=1)\n"
        "r = train(make_sae('topk', 384, d_sae, k), x, TrainConfig(steps=steps, target_l0=k, eval_every=steps), held_out=x[:500], progress=False)\n"
        "t = time.perf_counter(); m = min(n, 100_000); top_texts(activation_table(r.sae, x[:m].numpy()), 20); t = time.perf_counter() - t\n"
        "print(json.dumps(dict(ms=1000 * r.seconds / steps, us_text=1e6 * t / m, mb=peak_mb())))"
    )
    cases = [(n, 3072, 32) for n in (10_000, 100_000, 1_000_000)]
    cases += [(50_000, d, 32) for d in (1024, 4096, 16_384, 65_536)] + [
        (50_000, 3072, k) for k in (8, 64, 128)
    ]
    lines = []
    for n, d_sae, k in cases:
        steps = 40 if d_sae <= 4096 else 10
        text = code.format(root=str(ROOT), n=n, d_sae=d_sae, k=k, steps=steps)
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        got = (
            json.loads(done.stdout.splitlines()[-1])
            if done.returncode == 0
            else {"ms": np.nan, "us_text": np.nan, "mb": np.nan}
        )
        lines.append(
            {
                "n": n,
                "d_sae": d_sae,
                "k": k,
                "ms / step": got["ms"],
                "µs / text, top texts": got["us_text"],
                "peak MB": got["mb"],
            }
        )
    return pd.DataFrame(lines)


def plot_growth(table: pd.DataFrame, file: Path) -> None:
    """Three panels: against n, d_sae and k."""
    from saelib import plots

    figure, axes = plots.plt.subplots(1, 3, figsize=(10, 3))
    fixed = {
        "n": (table.d_sae == 3072) & (table.k == 32),
        "d_sae": (table.n == 50_000) & (table.k == 32),
        "k": (table.d_sae == 3072) & (table.n <= 100_000),
    }
    for axis, (name, rows) in zip(axes, fixed.items(), strict=True):
        part = table[rows].sort_values(name).drop_duplicates(name)
        axis.loglog(part[name], part["ms / step"], "o-", label="ms / training step")
        axis.loglog(part[name], part["peak MB"], "s-", label="peak memory, MB")
        axis.set(xlabel=name)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Cost of TopK training (batch 1024, d_in 384)")
    figure.savefig(file)


def gpu() -> pd.DataFrame:
    """On a GPU: TopK steps at three widths, as a share of the measured matrix-product rate, and 1M embeddings."""
    x = torch.nn.functional.normalize(torch.randn(1_000_000, 384, device="cuda"), dim=1)
    a = torch.randn(8192, 8192, device="cuda")
    torch.cuda.synchronize()

    def product() -> None:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()

    rate, lines = 20 * 2 * 8192**3 / seconds(product), {}
    for d_sae, k in ((3072, 32), (12288, 32), (65536, 32)):
        config = TrainConfig(steps=300, target_l0=k, batch_size=4096, eval_every=300)
        result = train(make_sae("topk", 384, d_sae, k), x, config, held_out=x[:4096], progress=False)
        per_step = 5 * 2 * 4096 * 384 * d_sae
        lines[d_sae] = {
            "samples/s": 300 * 4096 / result.seconds,
            "share of matmul rate": per_step * 300 / result.seconds / rate,
        }
        lines[d_sae]["seconds for one pass over 1M"] = 1e6 / lines[d_sae]["samples/s"]
    return pd.DataFrame(lines).T


def main() -> None:
    """Run the parts asked for; print and write data/results/speed.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="python of the peers' environment")
    parser.add_argument(
        "--only",
        default="training,sweep,extraction,feeding,labels,growth"
        + (",gpu" if torch.cuda.is_available() else ""),
    )
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    store = EmbeddingStore.extract(
        ROOT / "data" / "stores" / "all", load_corpus(verbose=False), load_encoder(), progress=False
    )
    tables = training(store, arguments.peers, arguments.steps) if "training" in parts else {}
    simple = {"sweep": lambda: sweep(store), "extraction": extraction, "feeding": lambda: feeding(store), "labels": lambda: labels(store),
              "growth": growth, "gpu": gpu}  # fmt: skip
    tables |= {name: call() for name, call in simple.items() if name in parts}
    folder = ROOT / "data" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        print(f"\n{name}\n{table.round(4).to_string()}")
    if "growth" in tables:
        plot_growth(tables["growth"], folder / "growth.png")
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": 0,
    }
    out = folder / "speed.json"
    old = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(
        json.dumps(old | machine | {name: t.T.to_dict() for name, t in tables.items()}, indent=1, default=str)
    )


if __name__ == "__main__":
    main()
