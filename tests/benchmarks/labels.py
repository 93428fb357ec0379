"""How good are the names? All labellers, judges and baselines over three SAE seeds; abstention, stability, concepts.

Run: python tests/benchmarks/labels.py [corpus.parquet]     (texts in `text`, concepts in `label` or `domain`)
Without an argument: the wiki-vital sentences. Prints the tables and writes data/results/labels-NAME.json.
"""

import json
import platform
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from saelib import labellers, trust  # noqa: E402
from saelib.activations import read_texts  # noqa: E402
from saelib.corpus import load_corpus  # noqa: E402
from saelib.encoder import load_encoder  # noqa: E402
from saelib.naming.keybert import EmbeddingCache, KeyBERTInterpreter  # noqa: E402
from saelib.naming.scoring import Lexicon, draw_detection_set  # noqa: E402
from saelib.naming.selection import Taste, combined  # noqa: E402
from saelib.sae import make_sae  # noqa: E402
from saelib.store import EmbeddingStore  # noqa: E402
from saelib.trainer import TrainConfig  # noqa: E402
from saelib.training import suggest_size, train  # noqa: E402


def open_store(argument: str | None, encoder) -> tuple[str, EmbeddingStore]:
    """The store of a corpus, extracted when it is not there."""
    data = Path(__file__).resolve().parents[2] / "data" / "stores"
    if argument is None:
        return "wiki-vital", EmbeddingStore.extract(data / "all", load_corpus(), encoder)
    column = "label" if "label" in pq.read_schema(argument).names else "domain"
    name = Path(argument).stem
    return name, EmbeddingStore.extract(data / name, load_corpus(argument, domain_column=column), encoder)


def show(names: pd.DataFrame, texts: list[str], n: int = 30) -> None:
    """Print n features drawn by seed 0: the label as shown, its held-out scores, the three strongest training texts."""
    labels = trust.as_shown(names)
    for f in names.sample(min(n, len(names)), random_state=0).index:
        line = names.loc[f]
        print(
            f"{f}: {labels[f]}   (random {line.auroc:.2f}, near {line.auroc_near:.2f}, BM25 {line.auroc_bm25:.2f}, {line.kind})"
        )
        for row in line.top_rows[:3]:
            print("      " + texts[row][:120].replace("\n", " "))


def main() -> None:
    """Three seeds; tables; JSON."""
    encoder = load_encoder()
    name, store = open_store(sys.argv[1] if len(sys.argv) > 1 else None, encoder)
    rows, test_rows = store.split()
    d_sae, k = suggest_size(len(rows), store.d_in)
    print(
        f"{store}\nd_sae {d_sae}, k {k}, {len(rows):,} training and {len(test_rows):,} held-out texts, three seeds"
    )
    vectors, tables, shown, seconds, named, saes = EmbeddingCache(encoder.encode), [], [], [], [], []
    for seed in range(3):
        held_out = torch.from_numpy(store.embeddings(test_rows))
        config = TrainConfig(steps=800, target_l0=k, seed=seed)
        sae = train(
            make_sae("topk", store.d_in, d_sae, k, seed),
            store,
            config,
            held_out=held_out,
            rows=rows,
            progress=False,
        ).sae
        a, b = read_texts(sae, store, rows), read_texts(sae, store, test_rows)
        began = time.perf_counter()
        reference = KeyBERTInterpreter(vectors).label(a.table, a.texts, a.embeddings)
        reference_s, began = time.perf_counter() - began, time.perf_counter()
        names = trust.name_features(sae, a, b, vectors)
        seconds.append({"reference": reference_s, "name_features": time.perf_counter() - began})
        pool, exam = (
            labellers.candidate_terms(a.texts, vectors),
            draw_detection_set(a.table, a.embeddings, n_random=200, n_near=100),
        )
        sets = {"reference (KeyBERT)": reference}
        found = labellers.sources(sae, exam, a.embeddings, pool)
        sets |= {s: labellers.simple_labels(m, pool, exam.features) for s, m in found.items()}
        blunt = Taste(alone=0, together=0, cost=0, slack=1, support=0)
        sets["AUROC alone"] = combined(sae, a.table, a.embeddings, pool, vectors, taste=blunt, exam=exam)
        sets["combined"] = names
        tables.append(trust.summary(trust.judge_all(sets, sae, a, b, vectors)))
        kept = names.kind.value_counts(normalize=True).add_prefix("kind ").to_dict()
        shown.append(names.attrs | kept | {"good without abstaining": (names.auroc >= 0.9).mean()})
        named.append(names)
        saes.append(sae)
        shown[-1]["terms in a label"] = names.terms.str.len().mean()
        print(
            f"seed {seed}: reference {reference_s:.0f} s, name_features {seconds[-1]['name_features']:.0f} s",
            flush=True,
        )

    table = sum(tables) / len(tables)
    print("\nLabellers, mean over live features and seeds (held-out texts)\n" + table.round(3).to_string())
    abstain = pd.DataFrame(shown).mean()
    print(
        "\nAbstention and kinds, mean of three seeds (share_shown, share_good: on the check half)\n"
        + abstain.round(3).to_string()
    )

    def other(size: int, part, seed: int) -> tuple:
        """An SAE of another size or from a part of the texts, and its names."""
        held_out, config = (
            torch.from_numpy(store.embeddings(test_rows)),
            TrainConfig(steps=800, target_l0=k, seed=seed),
        )
        sae = train(
            make_sae("topk", store.d_in, size, k, seed),
            store,
            config,
            held_out=held_out,
            rows=part,
            progress=False,
        ).sae
        a = read_texts(sae, store, part)
        return sae, combined(sae, a.table, a.embeddings, labellers.candidate_terms(a.texts, vectors), vectors)

    halves = [other(d_sae, rows[i::2], 3 + i) for i in (0, 1)]
    pairs = {
        "another seed": [((saes[0], named[0]), (saes[i], named[i])) for i in (1, 2)],
        "two halves of the texts": [tuple(halves)],
        f"d_sae {d_sae} in {2 * d_sae}": [((saes[0], named[0]), other(2 * d_sae, rows, 1))],
    }
    stability = {}
    for what, members in pairs.items():
        parts = [
            trust.stability(s, n, vectors(list(n.label)), s2, n2, vectors(list(n2.label)))
            for (s, n), (s2, n2) in members
        ]
        stable = pd.concat(parts)
        for title, part in {
            what: stable,
            f"{what}, decoder cosine ≥ 0.7": stable[stable.cosine >= 0.7],
        }.items():
            columns = ["cosine", "label_cosine", "shared", "chance"]
            stability[title] = part[columns].astype(float).mean().to_dict() | {"features": len(part)}
    stability = pd.DataFrame(stability).T
    print("\nStability of the names\n" + stability.round(3).to_string())

    a, b = read_texts(saes[0], store, rows), read_texts(saes[0], store, test_rows)
    known = {"domain": ("domain", 10)}
    if (
        "title" in store.frame and store.frame["title"].value_counts().iloc[0] >= 20
    ):  # articles of many sentences
        known["title"] = ("title", 8)
    concepts = {}
    for concept, (column, least) in known.items():
        values = store.frame[column].to_numpy()
        found = trust.concept_recovery(a.table, values[rows], b.table, values[test_rows], least)
        said = found.join(
            trust.says_concept(found, named[0], vectors, Lexicon(a.texts + [str(c) for c in found.index]))
        )
        line = {
            "concepts": len(found),
            "f1": found.f1.mean(),
            "auroc": found.auroc.mean(),
            "label says it": said.says.mean(),
        }
        concepts[concept] = line | {
            "median rank of the name": said["rank"].median(),
            "chance rank": (len(said) + 1) / 2,
        }
        print(
            f"\nKnown concepts ({concept}), the best five and the worst\n"
            + said.sort_values("f1").iloc[[-1, -2, -3, -4, -5, 0]].round(3).to_string()
        )
    print("\nKnown concepts\n" + pd.DataFrame(concepts).T.round(3).to_string())

    print("\nThirty features of the first SAE, drawn by seed 0")
    show(named[0], a.texts)
    result = {
        "corpus": name,
        "d_sae": d_sae,
        "k": k,
        "seeds": [0, 1, 2],
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    result |= {
        "labellers": table.T.to_dict(),
        "abstention": abstain.to_dict(),
        "stability": stability.T.to_dict(),
    }
    result |= {"concepts": concepts, "seconds": seconds}
    out = Path(__file__).resolve().parents[2] / "data" / "results"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"labels-{name}.json").write_text(json.dumps(result, indent=1, default=float))
    named[0].drop(columns="top_rows").to_parquet(out / f"names-{name}.parquet")


if __name__ == "__main__":
    main()
