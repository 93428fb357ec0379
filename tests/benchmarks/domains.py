"""What an SAE of one domain says about another: FVU matrix, features matched one to one, whose the joint ones are.

Run: python tests/benchmarks/domains.py [corpus.parquet] [--domain-column domain] [--limit 8192] [--seeds 2]
     [--d-sae 64] [--k 4] [--steps 200] [--joint-d-sae 256]
Without a corpus: wiki-vital and its eleven domains. One SAE per domain and seed, one over all. Prints the tables
and writes data/results/domains-NAME.png: held-out FVU of each SAE on each domain, and shared features.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from labels import open_store  # noqa: E402

import saelib as sl  # noqa: E402
from saelib.domains import found_in, null_cosines, shared_features  # noqa: E402
from saelib.sae import SAE  # noqa: E402

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"


def trained(x: torch.Tensor, d_sae: int, k: int, steps: int, seed: int) -> SAE:
    """A TopK SAE on embeddings (n, d_in)."""
    config = sl.TrainConfig(steps=steps, batch_size=min(1024, len(x) // 2), target_l0=k, seed=seed)
    return sl.train(sl.make_sae("topk", x.shape[1], d_sae, k, seed), x, config, progress=False).sae.cpu()


def cosines(a: dict[str, SAE], b: dict[str, SAE], pairs: list) -> np.ndarray:
    """Of every pair of SAEs the cosines of their one-to-one match, in a row."""
    return np.concatenate([sl.match_features(a[i].W_dec, b[j].W_dec).cosine for i, j in pairs])


def heat_maps(fvu: pd.DataFrame, share: pd.DataFrame, name: str) -> None:
    """Both matrices as pictures, side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    drawn = ((fvu, "held-out FVU (SAE of row, texts of column)"), (share, "share of the row's features found in the column's SAE"))  # fmt: skip
    for axis, (frame, title) in zip(axes, drawn, strict=True):
        image = axis.imshow(frame, vmin=0.5 if axis is axes[0] else 0, vmax=1.1 if axis is axes[0] else 1)
        axis.set_xticks(range(frame.shape[1]), [sl.plots.wrapped(c, 26) for c in frame], rotation=40, ha="right", fontsize=7)  # fmt: skip
        axis.set_yticks(range(len(frame)), [sl.plots.wrapped(r, 26) for r in frame.index], fontsize=7)
        axis.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axis, shrink=0.6)
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / f"domains-{name}.png", dpi=110)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--domain-column")
    parser.add_argument("--limit", type=int)
    for option, default in (("seeds", 2), ("d-sae", 64), ("k", 4), ("steps", 200), ("joint-d-sae", 256)):
        parser.add_argument(f"--{option}", type=int, default=default)
    given = parser.parse_args()
    name, store = open_store(given.corpus, sl.load_encoder(), given.domain_column, given.limit)
    (rows, test_rows), domains = store.split(), store.frame.domain.to_numpy()
    x, x_test = (
        {d: torch.from_numpy(store.embeddings(r[domains[r] == d])) for d in pd.unique(domains)}
        for r in (rows, test_rows)
    )
    names = sorted(x, key=lambda d: -len(x[d]))
    size = given.d_sae, given.k, given.steps
    own = [{d: trained(x[d], *size, seed) for d in names} for seed in range(given.seeds)]
    joint = trained(torch.from_numpy(store.embeddings(rows)), given.joint_d_sae, given.k, 800, 0)

    fvu = pd.DataFrame({
        b: {a: np.mean([sl.evaluate(saes[a], x_test[b]).fvu for saes in own]) for a in names}
        | {"all domains": sl.evaluate(joint, x_test[b]).fvu}
        for b in names
    })  # fmt: skip
    home, away = np.eye(len(names), dtype=bool), fvu.loc[names].to_numpy()
    print(f"{name}: {len(store):,} texts, {len(names)} domains ({', '.join(f'{d} {len(x[d]):,}' for d in names)})")  # fmt: skip
    print(f"\nHeld-out FVU, mean of {given.seeds} seeds; SAE of the row, texts of the column\n"
          + fvu.round(3).to_string())  # fmt: skip
    print(f"at home {away[home].mean():.3f}, away {away[~home].mean():.3f}, joint ({given.joint_d_sae} features) "
          f"{fvu.loc['all domains'].mean():.3f}")  # fmt: skip

    pairs = [(a, b) for a in names for b in names if a < b]
    null = pd.concat([null_cosines(own[0][a].W_dec, own[0][b].W_dec) for a, b in pairs])
    level = np.quantile(null.mixed, 0.99)
    found = {
        "shuffled rows": null.shuffled.to_numpy(), "mixtures": null.mixed.to_numpy(),
        "another domain": cosines(own[0], own[0], pairs),
        "another domain, another seed": cosines(own[0], own[-1], pairs),
        "same domain, another seed": cosines(own[0], own[-1], [(d, d) for d in names]),
    }  # fmt: skip
    lines = {n: {"matches": len(v), "median cosine": np.median(v), "at the level": (v >= level).mean()} for n, v in found.items()}  # fmt: skip
    print(f"\nMatched one to one; level {level:.3f}, which one mixture in a hundred reaches\n"
          + pd.DataFrame(lines).T.round(3).to_string())  # fmt: skip
    decoders = {d: sae.W_dec.detach() for d, sae in own[0].items()}
    share = shared_features(decoders, level)
    print("\nShare of the row's features found in the column's SAE\n" + share.round(2).to_string())
    hits = found_in(joint.W_dec.detach(), decoders, level) >= 0
    count = hits.sum(1)
    print(f"\nOf the joint SAE's {given.joint_d_sae} features {(count == 1).mean():.0%} are one domain's own, "
          f"{(count > 1).mean():.0%} shared, {(count == len(names)).sum()} by all, {(count == 0).mean():.0%} in none")  # fmt: skip
    lacking = 1 - hits.sum() / given.d_sae
    print("Share of a domain's features that the joint SAE lacks\n" + lacking.round(2).to_string())
    heat_maps(fvu, share, name)


if __name__ == "__main__":
    main()
