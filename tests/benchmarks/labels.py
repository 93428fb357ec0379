"""How good are the names? All labellers, judges and baselines over three SAE seeds; stability, concepts.

Run: python tests/benchmarks/labels.py [corpus.parquet]     (texts in `text`, concepts in `label` or `domain`)
Without an argument: the wiki-vital sentences. Prints the tables and writes data/results/labels-NAME.json.
"""

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import saelib as sl  # noqa: E402
from saelib.naming import comparing  # noqa: E402
from saelib.naming.candidates import candidate_terms, ctfidf, self_activation  # noqa: E402
from saelib.naming.lexicon import Lexicon  # noqa: E402
from saelib.naming.pipeline import Judges, choose  # noqa: E402
from saelib.naming.selection import best_of_source  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "data"


def open_store(
    argument: str | None, encoder, column: str | None = None, limit: int | None = None
) -> tuple[str, sl.EmbeddingStore]:
    """The store of a corpus, extracted when it is not there. column: the concepts', `label` or `domain` of a file."""
    if argument is None:
        return "wiki-vital", sl.EmbeddingStore.extract(DATA / "stores" / "all", sl.load_corpus(), encoder)
    of_file = column is None
    if of_file:
        column = "label" if "label" in pq.read_schema(argument).names else "domain"
    name = Path(argument).stem
    corpus = sl.load_corpus(argument, domain_column=column, limit=limit)
    folder = name if of_file else f"{name}-{len(corpus)}"
    return name, sl.EmbeddingStore.extract(DATA / "stores" / folder, corpus, encoder)


def share_in_words(sae, names: pd.DataFrame, x: np.ndarray) -> float:
    """The named share of held-out embeddings x."""
    shown = np.zeros(sae.d_sae, dtype=bool)
    shown[names.index[names.shown]] = True
    return sl.named_share(sae, torch.from_numpy(x), shown)[0]


def train(store, rows, test_rows, d_sae: int, k: int, seed: int):
    held_out = torch.from_numpy(store.embeddings(test_rows))
    config = sl.TrainConfig(steps=800, target_l0=k, seed=seed)
    sae = sl.make_sae("topk", store.d_in, d_sae, k, seed)
    return sl.train(sae, store, config, held_out=held_out, rows=rows, progress=False).sae


def single_sources(sae, a, vectors, independent) -> dict[str, pd.DataFrame]:
    """The best three terms by each source of candidates alone."""
    rows, _ = sl.top_texts(a.table, 40)
    features = np.flatnonzero(rows[:, 0] >= 0)
    pool = candidate_terms(a.texts, rows[features], vectors, independent, a.titles)
    scores = {
        "c-TF-IDF": ctfidf(rows[features, :20], pool),
        "self-activation": self_activation(sae, pool, features),
    }
    return {name: best_of_source(s, pool, features) for name, s in scores.items()}


def show(names: pd.DataFrame, texts: list[str], n: int = 30) -> None:
    """Print n features drawn by seed 0: the name as shown, trust, scores, the three strongest training texts."""
    shown = sl.as_shown(names)
    for f in names.sample(min(n, len(names)), random_state=0).index:
        x = names.loc[f]
        print(
            f"{f}: {shown[f]}   [{x.label}]  ({x.kind}, trust {x.trust:.2f}, AP {x.ap:.2f}, AUROC {x.auroc:.2f}, n {x.n})"
        )
        for row in x.top_rows[:3]:
            print("      " + texts[row][:120].replace("\n", " "))


def stability_table(saes, named, others, vectors) -> pd.DataFrame:
    """Do names come back? Pairs of (SAE, names): other seeds, another half of the texts, another size."""
    pairs = {
        "another seed": [((saes[0], named[0]), (saes[i], named[i])) for i in range(1, len(saes))]
    } | others
    lines = {}
    for what, members in pairs.items():
        found = pd.concat([
            comparing.stability(s, n, vectors(list(n.label)), s2, n2, vectors(list(n2.label))) for (s, n), (s2, n2) in members
        ])  # fmt: skip
        for title, part in {what: found, f"{what}, cosine ≥ 0.7": found[found.cosine >= 0.7]}.items():
            lines[title] = part[["cosine", "label_cosine", "shared", "chance"]].astype(
                float
            ).mean().to_dict() | {"features": len(part)}
    return pd.DataFrame(lines).T


def concept_table(store, rows, test_rows, a, b, names, vectors) -> pd.DataFrame:
    """Known concepts, found and named: domains, and titles of many texts."""
    known = {"domain": ("domain", 10)}
    if "title" in store.frame and store.frame["title"].value_counts().iloc[0] >= 20:
        known["title"] = ("title", 8)
    lines = {}
    for concept, (column, least) in known.items():
        values = store.frame[column].to_numpy()
        try:
            found = comparing.concept_recovery(a.table, values[rows], b.table, values[test_rows], least)
        except ValueError as error:  # a split by title leaves no title on both sides
            print(f"{concept}: {error}")
            continue
        said = found.join(
            comparing.says_concept(found, names, vectors, Lexicon(a.texts + [str(c) for c in found.index]))
        )
        lines[concept] = {
            "concepts": len(found), "f1": found.f1.mean(), "auroc": found.auroc.mean(), "name says it": said.says.mean(),
            "median rank": said["rank"].median(), "chance rank": (len(said) + 1) / 2,
        }  # fmt: skip
    return pd.DataFrame(lines).T


def main() -> None:
    """Three seeds; tables; JSON."""
    encoder = sl.load_encoder()
    name, store = open_store(sys.argv[1] if len(sys.argv) > 1 else None, encoder)
    rows, test_rows = store.split()
    d_sae, k = sl.suggest_size(len(rows), store.d_in)
    print(
        f"{store}\nd_sae {d_sae}, k {k}, {len(rows):,} training, {len(test_rows):,} held-out texts, three seeds"
    )
    vectors, saes, named, seconds, judged = sl.EmbeddingCache(encoder.encode), [], [], [], []
    for seed in range(3):
        sae = train(store, rows, test_rows, d_sae, k, seed)
        a, b = sl.read_texts(sae, store, rows), sl.read_texts(sae, store, test_rows)
        independent = sl.EmbeddingCache(sl.load_independent(a.texts))
        began = time.perf_counter()
        reference = sl.KeyBERTInterpreter(vectors).label(a.table, a.texts, a.embeddings)
        reference_s, began = time.perf_counter() - began, time.perf_counter()
        names = sl.name_features(sae, a, b, vectors, independent=independent)
        seconds.append({"reference": reference_s, "name_features": time.perf_counter() - began})
        sets = (
            {"reference (KeyBERT)": reference}
            | single_sources(sae, a, vectors, independent)
            | {"chosen": names}
        )
        judged.append(sl.judge_all(sets, sae, a, b, vectors, independent=independent))
        saes.append(sae)
        named.append(names)
        print(
            f"seed {seed}: " + ", ".join(f"{what} {s:.0f} s" for what, s in seconds[-1].items()), flush=True
        )
        if seed == 0:
            first = a, b, independent

    table = sum(sl.summary(j) for j in judged) / len(judged)
    print("\nLabellers, mean over live features and seeds (held-out texts)\n" + table.round(3).to_string())
    stacked = {
        s: pd.concat([j[s].set_axis([(i, f) for f in j[s].index]) for i, j in enumerate(judged)])
        for s in judged[0]
    }
    columns = ["ap", "ap_bm25", "ap_lsa", "f1", "auroc", "auroc_near", "auroc_bm25", "auroc_lsa"]
    for other in ("reference (KeyBERT)", "c-TF-IDF"):
        difference = sl.paired_difference(stacked["chosen"], stacked[other], columns)
        print(f"\nchosen − {other}, paired, 95%\n" + difference.round(3).to_string())
    kinds = pd.concat(named).kind.value_counts(normalize=True)
    shown = pd.concat(named).shown.mean()
    print(f"\nshown {shown:.1%} of the features; kinds\n" + kinds.round(3).to_string())

    a, b, independent = first
    judge = Judges(a, b, vectors, independent)(list(named[0].label))["encoder"]
    sanity = sl.metric_sanity(judge, named[0].index.to_numpy(), b.table)
    print(
        "\nCan the metric fail? (half of the texts dropped, as many wrong ones added)\n"
        + sanity.round(3).to_string()
    )
    collision = sl.collision(named[0], b.table, vectors, b.embeddings)
    print("\nCollision\n" + collision.round(3).to_string())

    def other(size: int, part, seed: int) -> tuple:
        sae = train(store, part, test_rows, size, k, seed)
        return sae, choose(sae, sl.read_texts(sae, store, part), vectors, independent)

    others = {
        "two halves of the texts": [(other(d_sae, rows[::2], 3), other(d_sae, rows[1::2], 4))],
        f"d_sae {d_sae} in {2 * d_sae}": [((saes[0], named[0]), other(2 * d_sae, rows, 1))],
    }
    stability = stability_table(saes, named, others, vectors)
    print("\nStability of the names\n" + stability.round(3).to_string())
    concepts = concept_table(store, rows, test_rows, a, b, named[0], vectors)
    print("\nKnown concepts\n" + concepts.round(3).to_string())
    print("\nThirty features of the first SAE, drawn by seed 0")
    show(named[0], a.texts)

    result = {
        "corpus": name,
        "d_sae": d_sae,
        "k": k,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    tables = {"labellers": table, "sanity": sanity, "stability": stability, "concepts": concepts}
    result |= {what: t.T.to_dict() for what, t in tables.items()}
    result |= {"shown": shown, "kinds": kinds.to_dict(), "collision": collision.to_dict(), "seconds": seconds}
    out = DATA / "results"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"labels-{name}.json").write_text(json.dumps(result, indent=1, default=float))
    named[0].drop(columns=["top_rows", "parts"]).to_parquet(out / f"names-{name}.parquet")


if __name__ == "__main__":
    main()
