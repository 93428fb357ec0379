"""Does a feature steer a search better than words do? ≥ 300 (query, feature) pairs, no language model.

Run: python tests/benchmarks/steering.py [corpus.parquet | folder of a store] [--pairs 400] [--index N]
Without an argument: the wiki-vital sentences. Queries are titles of held-out articles, the texts searched are
held out, features have a name that is shown and are not active in the query.

  reached  share of the top ten that show the feature: it is active on them (by activation), or their cosine
           with its name by an encoder that is a stranger to the embeddings is at least the median of that of
           its own active training texts (independent)
  kept     overlap of the top ten with the original query's; or the ratio of the mean cosines of both top tens
           with the original query

Three tasks: features turned up, families turned up (two members active), a query's own feature turned off (there
reached is the share that does not show it). Every method's strength is swept; methods are compared at equal kept, on the curve of means, with intervals of
95% from drawing the pairs anew. `--index N` prints instead what faiss' index finds of the exact ten among N texts.
Writes data/results/steering-NAME.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from labels import DATA, open_store  # noqa: E402

import saelib as sl  # noqa: E402
from saelib import steering  # noqa: E402
from saelib.family_names import family_table  # noqa: E402

STRENGTHS = np.r_[np.linspace(0, 1, 26), np.linspace(1.1, 3, 20)]
REPEATS, PARTS = 6, 5  # of the name behind the query's words; of the way from one wording to the next
LEVELS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
STEERING = "SAE direction"
METHODS = [STEERING, "root's direction", "name's embedding", "Rocchio", "words", "random direction"]


class Targets(NamedTuple):
    """What queries are steered to: features or families, T of them.

    of: (d_sae, T), which features belong to a target. names: index target, `label`, `terms`, of those a query may
    be steered to. train, test: (n, T), which texts show it. vectors: method → (T, d) unit rows to add to a query.
    """

    of: sparse.csr_matrix
    names: pd.DataFrame
    train: sparse.csc_matrix
    test: sparse.csc_matrix
    vectors: dict[str, np.ndarray]

    def on(self, where: str, target: int) -> np.ndarray:
        table = getattr(self, where)
        found = np.zeros(table.shape[0], bool)
        found[table.indices[table.indptr[target] : table.indptr[target + 1]]] = True
        return found


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def shuffled_neighbour(size: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each of T targets another one of almost the same size: (T,)."""
    order, other = np.argsort(size, kind="stable"), np.arange(len(size))
    shift = np.random.default_rng(seed).choice([-2, -1, 1, 2], len(order))
    other[order] = order[(np.arange(len(order)) + shift) % len(order)]
    return other


def make_targets(sae, of, wide, names, texts, encode, least: int) -> Targets:
    """Targets with a name that is shown and 20 held-out texts; a text shows one when `least` features of it are on.

    wide: (n_train, T), how active a target is: its ten strongest texts are Rocchio's.
    """
    train, test = texts
    shows = [sparse.csc_matrix((t.table > 0).astype(np.float32) @ of >= least) for t in (train, test)]
    direction, name = (
        unit(of.T @ unit(sae.W_dec.detach().numpy())),
        np.zeros((of.shape[1], sae.d_in), np.float32),
    )
    name[names.index] = encode(names.label.tolist())
    top = sl.top_texts(wide, 10)[0]
    relevant = unit(train.embeddings[top].mean(1) - train.embeddings.mean(0))
    vectors = {STEERING: direction, "name's embedding": name, "Rocchio": relevant,
               "random direction": direction[shuffled_neighbour(np.diff(shows[0].indptr))]}  # fmt: skip
    fit = names[names.shown & (np.diff(shows[1].indptr)[names.index] >= 20)]
    return Targets(of, fit, *shows, vectors)


def of_features(sae, names, texts, encode) -> Targets:
    identity = sparse.identity(sae.d_sae, dtype=np.float32, format="csr")
    concepts = names.assign(shown=names.shown & (names.kind == "concept"))
    return make_targets(sae, identity, texts[0].table, concepts, texts, encode, least=1)


def of_families(sae, texts, encode, independent) -> Targets:
    """With the root's own direction as a further method."""
    members = sl.find_families(texts[0].table)
    names = sl.name_families(sae, texts[0], members, encode, independent)
    at, wide = (members.feature, members.family), family_table(texts[0].table, members)
    of = sparse.csr_matrix((np.ones(len(members), np.float32), at), (sae.d_sae, wide.shape[1]))
    found = make_targets(sae, of, wide, names, texts, encode, least=2)
    roots = members.drop_duplicates("family").sort_values("family").feature
    found.vectors["root's direction"] = unit(sae.W_dec.detach().numpy())[roots]
    return found


def draw_pairs(targets: Targets, active: np.ndarray, n: int, off: bool = False) -> list[tuple[int, int]]:
    """n pairs (query, target) with a target that is not active in the query; with `off` the strongest that is.

    active: (queries, T), how strongly.
    """
    generator, fit, pairs = np.random.default_rng(0), targets.names.index.to_numpy(), []
    for q in generator.permutation(len(active)):
        here = fit[(active[q, fit] > 0) == off]
        if len(here) and len(pairs) < n:
            pairs.append((int(q), int(here[active[q, here].argmax()] if off else generator.choice(here))))
    return pairs


def worded(titles: list[str], pairs: list, names: pd.DataFrame, encode) -> np.ndarray:
    """The query, with more and more of the name behind it, then the name alone: (pairs, steps, d).

    A word cannot be added in part, its embedding can: between two wordings the way is walked in PARTS steps, so
    that words have as fine a dial as the other methods.
    """
    rows = []
    for q, t in pairs:
        terms = list(names.terms[t]) + list(names.terms[t])[-1:] * (3 - len(names.terms[t]))
        steps = [" ".join([titles[q], *terms[:i]]) for i in range(4)]
        rows.append(
            [*steps, *(" ".join([titles[q], *terms * r]) for r in range(2, REPEATS + 1)), " ".join(terms)]
        )
    e = encode([s for steps in rows for s in steps]).reshape(len(pairs), -1, 384)
    part = np.arange(PARTS)[:, None] / PARTS
    between = [unit(e[:, i, None] * (1 - part) + e[:, i + 1, None] * part) for i in range(e.shape[1] - 1)]
    return np.concatenate([*between, e[:, -1:]], axis=1)


def measure(q: np.ndarray, edited: np.ndarray, x: np.ndarray, shows: np.ndarray, n: int = 10) -> np.ndarray:
    """One pair: query (d,), edited (S, d), texts (N, d), shows (2, N) → (S, 4): two reached, two kept."""
    scores = edited @ x.T
    top = np.argpartition(-scores, n - 1, axis=1)[:, :n]  # (S, n)
    first = np.argpartition(-(x @ q), n - 1)[:n]
    near = x @ q
    overlap = np.isin(top, first).mean(1)
    return np.c_[
        shows[0][top].mean(1), shows[1][top].mean(1), overlap, near[top].mean(1) / near[first].mean()
    ]


def at_levels(curves: np.ndarray, kept: int, levels: list[float]) -> np.ndarray:
    """Mean curves (…, S, 4) → reached at each level of kept: (…, levels, 2); NaN below what is ever kept."""
    out = np.full((*curves.shape[:-2], len(levels), 2), np.nan)
    for at in np.ndindex(curves.shape[:-2]):
        k = np.minimum.accumulate(curves[at][:, 2 + kept])
        for r in range(2):
            out[at][:, r] = np.interp(levels, k[::-1], curves[at][::-1, r], left=np.nan)
    return out


def compare(curves: dict[str, np.ndarray], kept: int, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Per level and method: reached (mean, low, high), and the lead of steering over it with its interval."""
    n = len(next(iter(curves.values())))
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n
    found = {
        m: np.concatenate([
            at_levels(c.mean(0)[None], kept, LEVELS),
            at_levels(np.tensordot(weights, c, 1), kept, LEVELS),
        ])
        for m, c in curves.items()
    }  # fmt: skip
    rows = []
    for m, values in found.items():
        for i, level in enumerate(LEVELS):
            for r, judge in enumerate(("activation", "independent")):
                lead = found[STEERING][:, i, r] - values[:, i, r]
                low, high = np.percentile(values[1:, i, r], [2.5, 97.5])
                rows.append(
                    (
                        judge,
                        level,
                        m,
                        values[0, i, r],
                        low,
                        high,
                        lead[0],
                        *np.percentile(lead[1:], [2.5, 97.5]),
                    )
                )
    columns = ["judge", "kept", "method", "reached", "low", "high", "lead", "lead_low", "lead_high"]
    return pd.DataFrame(rows, columns=columns)


def show(table: pd.DataFrame, what: str) -> None:
    """Print reached per method and level, * where steering is ahead of it, † where behind (95%)."""
    mark = np.select([table.lead_low > 0, table.lead_high < 0], ["*", "†"], " ")
    numbers = zip(table.reached, table.low, table.high, mark, strict=True)
    cell = [f"{r:.3f} [{a:.3f} {b:.3f}]{m}" for r, a, b, m in numbers]
    for judge, part in table.assign(cell=cell).groupby("judge", sort=False):
        wide = part.pivot(index="method", columns="kept", values="cell")[LEVELS]
        print(
            f"\n{what}, reached by {judge}\n" + wide.loc[[m for m in METHODS if m in wide.index]].to_string()
        )


def sweep(targets: Targets, pairs, titles, queries, texts, encode, independent, up: bool) -> dict:
    """Method → (pairs, strengths, 4): two reached, two kept."""
    meaning, meaning_train = independent(texts[1].texts), independent(texts[0].texts)
    said = dict(zip(targets.names.index, independent(targets.names.label.tolist()), strict=True))
    words = worded(titles, pairs, targets.names, encode) if up else None
    curves = {m: [] for m in [*targets.vectors, *(["words"] if up else [])]}
    for i, (q, t) in enumerate(pairs):
        like = meaning @ said[t] >= np.median(meaning_train[targets.on("train", t)] @ said[t])
        shows = np.stack([targets.on("test", t), like]) == up
        for m, v in targets.vectors.items():
            edited = unit(queries[q] + (1 if up else -1) * STRENGTHS[:, None] * v[t])
            curves[m].append(measure(queries[q], edited, texts[1].embeddings, shows))
        if up:
            curves["words"].append(measure(queries[q], words[i], texts[1].embeddings, shows))
    return {m: np.stack(c) for m, c in curves.items()}


def evaluate(store, n_pairs: int) -> dict:
    encoder = sl.load_encoder()
    encode, (rows, test_rows) = sl.EmbeddingCache(encoder.encode), store.split()
    d_sae, k = sl.suggest_size(len(rows), store.d_in)
    held_out, config = torch.from_numpy(store.embeddings(test_rows)), sl.TrainConfig(steps=800, target_l0=k)
    sae = sl.make_sae("topk", store.d_in, d_sae, k)
    sae = sl.train(sae, store, config, held_out=held_out, rows=rows, progress=False).sae
    train, test = texts = [sl.read_texts(sae, store, r) for r in (rows, test_rows)]
    independent = sl.EmbeddingCache(sl.load_independent(train.texts))
    names = sl.name_features(sae, train, test, encode, independent=independent)
    titles = list(dict.fromkeys(t for t in test.titles if t))
    titles = [titles[i] for i in np.random.default_rng(0).permutation(len(titles))[: 3 * n_pairs]]
    queries = encode(titles)
    with torch.no_grad():
        acts = sae.encode(torch.from_numpy(queries)).numpy()
    features = of_features(sae, names, texts, encode)
    families = of_families(sae, texts, encode, independent)
    print(
        f"{store}\nd_sae {d_sae}, k {k}; {len(test_rows):,} held-out texts searched; named {len(features.names)} features, {len(families.names)} families"
    )

    result = {}
    for what, targets, up in (
        ("features turned up", features, True),
        ("families turned up", families, True),
        ("features turned off", features, False),
    ):
        pairs = draw_pairs(targets, acts @ targets.of, n_pairs, off=not up)
        curves = sweep(targets, pairs, titles, queries, texts, encode, independent, up)
        start = curves[STEERING][:, 0].mean(0)
        print(
            f"\n{len(pairs)} pairs, {what}; before: {start[0]:.3f} by activation, {start[1]:.3f} independent"
        )
        for kept, name in enumerate(("overlap", "cosine")):
            table = compare(curves, kept)
            show(table, f"{what}, at equal {name} kept")
            result[f"{what}, {name}"] = table.to_dict("records")
    print("\n* steering by the SAE's direction reaches more than this method, † less (95%, pairs drawn anew)")
    return result


def index(store, n: int) -> None:
    """Recall of the index against the exact ten, and what a search takes; texts beyond the store are copies with noise."""
    generator = np.random.default_rng(0)
    x = store.embeddings()
    while len(x) < n:
        more = x[generator.integers(len(x), size=min(n - len(x), 100_000))]
        x = np.concatenate([x, unit(more + 0.05 * generator.normal(size=more.shape).astype(np.float32))])
    x, queries = x[:n], unit(x[:200] + 0.03 * generator.normal(size=(200, x.shape[1])).astype(np.float32))
    began = time.perf_counter()
    built = steering.make_index(x)
    seconds, began = time.perf_counter() - began, time.perf_counter()
    for q in queries:
        built.search(q[None], 10)
    fast, began = time.perf_counter() - began, time.perf_counter()
    for q in queries:
        steering.search(x, q)
    exact = time.perf_counter() - began
    print(
        f"{n:,} texts: index built in {seconds:.0f} s; a search {1000 * fast / 200:.2f} ms, exact {1000 * exact / 200:.2f} ms; recall of the exact ten {steering.index_recall(built, x, queries):.3f}"
    )


def main() -> None:
    """The evaluation, or the index."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--index", type=int)
    given = parser.parse_args()
    if given.corpus and (Path(given.corpus) / "manifest.json").exists():
        name, store = Path(given.corpus).name, sl.EmbeddingStore(given.corpus)
    else:
        name, store = open_store(given.corpus, sl.load_encoder())
    if given.index:
        index(store, given.index)
        return
    result = evaluate(store, given.pairs)
    (DATA / "results").mkdir(parents=True, exist_ok=True)
    (DATA / "results" / f"steering-{name}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
