"""What a reader makes of the names: ratings with intervals, automatic metrics, trust fitted and checked, blind sheets.

    python tests/benchmarks/readers.py                      tables for the methods rated in data/readers/
    python tests/benchmarks/readers.py --fit                 fit trust on the ratings: saelib/naming/trust.json,
                                                            data/readers/trust_cv.csv, data/results/calibration.png
    python tests/benchmarks/readers.py --sheets names.parquet out/      blind sheets for a person (HTML and CSV)
    python tests/benchmarks/readers.py --ratings sheet.csv … --key out/key/key.csv      take filled sheets in

--store FOLDER: an embedding store of the whole wiki-vital corpus; without it one is extracted into
data/stores/wiki-vital (a few minutes).
"""

import argparse
import html
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
READERS = ROOT / "data" / "readers"
SOURCES = ["keybert", "chosen", "prototype", "language_model"]
FIRST_ROUND = ["keybert", "chosen", "language_model"]  # the 180 names that one annotator saw


# Reading the ratings


def terms_of(label: str) -> list[str]:
    """The parts of a written name: cut at commas, "and", "or", brackets."""
    return [t for t in (part.strip(" ()") for part in re.split(r", | and | or | \(", label)) if t]


def read_ratings() -> pd.DataFrame:
    """One row per rated name: feature, source, label, terms, rating, accepted, top_texts, balanced_accuracy, f1."""
    records = []
    for line in (READERS / "wiki.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for source, name in row["names"].items():
            record = {"feature": row["feature"], "source": source, "label": name["name"]}
            record |= {
                "terms": terms_of(name["name"]),
                "rating": name["rating"],
                "top_texts": row["top_texts"],
            }
            records.append(record | (found_texts(name["find"]) if "find" in name else {}))
    frame = pd.DataFrame(records)
    return frame.assign(accepted=frame.rating == 2)


def read_later_rounds() -> pd.DataFrame:
    """The names rated later, of two corpora, with their signals (the texts of one are not ours to give)."""
    frame = pd.read_csv(READERS / "later_rounds.csv")
    sae = frame["round"].map({2: " ", 3: " ", 4: " round 4 "})  # rounds 2 and 3 share their SAEs
    return frame.assign(
        feature=frame.corpus + sae + frame.feature.astype(str),
        source=frame.source + ", round " + frame["round"].astype(str) + ", " + frame.corpus,
        accepted=frame.rating == 2,
    ).drop(columns=["round", "corpus"])


def found_texts(task: dict) -> dict[str, float]:
    """Balanced accuracy and F1 of the texts picked for a name, against those on which the feature is active."""
    active, picked = np.array(task["active"]), np.isin(np.arange(len(task["texts"])), task["picked"])
    f1 = 2 * (active & picked).sum() / (active.sum() + picked.sum())
    return {"balanced_accuracy": (picked[active].mean() + (~picked[~active]).mean()) / 2, "f1": f1}


# Tables


def acceptance(frame: pd.DataFrame) -> pd.DataFrame:
    """Per source: names, accepted as they stand with Wilson's 95% interval, the three ratings, the find task."""
    lines = {}
    for source, part in frame.groupby("source"):
        interval = binomtest(int(part.accepted.sum()), len(part)).proportion_ci(method="wilson")
        lines[source] = {
            "names": len(part), "accepted": part.accepted.mean(), "low": interval.low, "high": interval.high,
            "mean rating": part.rating.mean(), "meaningless": (part.rating == 0).mean(),
        }  # fmt: skip
        if "f1" in part:
            lines[source] |= {c: part[c].mean() for c in ("balanced_accuracy", "f1")}
    return pd.DataFrame(lines).T


def paired_differences(frame: pd.DataFrame, n_bootstrap: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Every pair of sources on the features both named: mean difference, 95% bootstrap interval over features."""
    rng, lines = np.random.default_rng(seed), {}
    sources = [s for s in SOURCES if s in set(frame.source)] + sorted(set(frame.source) - set(SOURCES))
    for column in [c for c in ("balanced_accuracy", "f1", "accepted", "rating") if c in frame]:
        wide = frame.pivot_table(index="feature", columns="source", values=column, aggfunc="mean").astype(
            float
        )
        for a, b in ((a, b) for i, a in enumerate(sources) for b in sources[i + 1 :]):
            if not {a, b} <= set(wide):
                continue
            difference = (wide[b] - wide[a]).dropna().to_numpy()
            draws = difference[rng.integers(0, len(difference), (n_bootstrap, len(difference)))].mean(1)
            low, high = np.quantile(draws, [0.025, 0.975])
            lines[f"{b} − {a}", column] = {"difference": difference.mean(), "low": low, "high": high}
    return pd.DataFrame(lines).T


def automatic_metrics(frame: pd.DataFrame, train, test, encode, independent) -> pd.DataFrame:
    """Per source, held-out texts: AUROC and average precision (all active against all other texts) by four judges."""
    from saelib.encoder import lsa_space
    from saelib.naming.lexicon import Lexicon
    from saelib.naming.scoring import products

    lexicon, lsa = Lexicon(test.texts), lsa_space(train.texts)
    labels, active = frame.label.tolist(), (test.table[:, frame.feature.to_numpy()] > 0).toarray().T
    judges = {
        "encoder": encode(labels) @ test.embeddings.T,
        "bm25": products(lexicon.bm25(labels)),
        "lsa": lsa(labels) @ lsa(test.texts).T,
        "independent": independent(labels) @ independent(test.texts).T,
    }
    scores = {
        ("auroc", n): [roc_auc_score(y, s) for y, s in zip(active, j, strict=True)] for n, j in judges.items()
    }
    scores |= {
        ("average precision", n): [average_precision_score(y, s) for y, s in zip(active, j, strict=True)]
        for n, j in judges.items()
    }
    return pd.DataFrame(scores).groupby(frame.source.to_numpy()).mean()


# Trust


def fit_logistic(signals: pd.DataFrame, accepted: np.ndarray) -> dict:
    """Logistic regression (L2, C = 1, on standardised signals) as intercept and coefficients of the raw signals."""
    scaler = StandardScaler().fit(signals)
    model = LogisticRegression(C=1.0).fit(scaler.transform(signals), accepted)
    coefficients = model.coef_[0] / scaler.scale_
    intercept = float(model.intercept_[0] - coefficients @ scaler.mean_)
    return {"intercept": intercept, "coefficients": dict(zip(signals, map(float, coefficients), strict=True))}


def made_of_keywords(frame: pd.DataFrame) -> np.ndarray:
    """Which names trust is for: all but those that a language model wrote."""
    return ~frame.source.str.contains("language").to_numpy()


def cross_validated(frame: pd.DataFrame, signals: pd.DataFrame, seed: int, n_folds: int = 10) -> np.ndarray:
    """Predictions for each name by a fit on names made of keywords that saw no name of its feature."""
    from saelib.naming.trust import trust

    keywords = made_of_keywords(frame)
    features = np.random.default_rng(seed).permutation(frame.feature.unique())
    fold = frame.feature.map({f: i % n_folds for i, f in enumerate(features)}).to_numpy()
    predicted = np.empty(len(frame))
    for i in range(n_folds):
        seen = (fold != i) & keywords
        fitted = fit_logistic(signals[seen], frame.accepted[seen])
        predicted[fold == i] = trust(signals[fold == i], fitted)
    return predicted


def calibration_figure(predicted: np.ndarray, accepted: np.ndarray, path: Path) -> None:
    """Reliability diagram of predictions that the fit did not see."""
    from saelib import plots
    from saelib.naming.trust import calibration

    bins = calibration(predicted, accepted)
    error = np.average((bins.predicted - bins.accepted).abs(), weights=bins.n)
    intervals = [
        binomtest(round(r.accepted * r.n), int(r.n)).proportion_ci(method="wilson") for r in bins.itertuples()
    ]
    reach = [[r.accepted - i.low for r, i in zip(bins.itertuples(), intervals, strict=True)],
             [i.high - r.accepted for r, i in zip(bins.itertuples(), intervals, strict=True)]]  # fmt: skip
    figure, axis = plots.plt.subplots(figsize=(4.6, 4))
    axis.plot([0, 1], [0, 1], ":", color="black", label="a perfect promise")
    axis.errorbar(
        bins.predicted,
        bins.accepted,
        yerr=np.maximum(reach, 0),
        fmt="o-",
        capsize=3,
        label="names of held-out features",
    )
    axis.set(
        xlabel="trust (predicted chance of acceptance)", ylabel="share accepted", xlim=(0, 1), ylim=(0, 1.02)
    )
    axis.set_title(f"Trust keeps its promise within {error:.2f}")
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def threshold_table(frame: pd.DataFrame, predicted: np.ndarray) -> pd.DataFrame:
    """At each threshold, by group: share shown, mean trust of those, share accepted."""
    groups = {"all": frame.source != ""}
    groups |= {
        f"{c}, round {i}": frame.source == f"choice, round {i}, {c}"
        for i in (3, 4)
        for c in ("wiki", "arxiv")
    }
    lines = {}
    for threshold in np.arange(0.4, 0.86, 0.05).round(2):
        for group, of in groups.items():
            shown = of & (predicted >= threshold)
            line = (shown.sum() / of.sum(), predicted[shown].mean(), frame.accepted[shown].mean())
            lines[group, threshold] = dict(zip(("shown", "predicted", "accepted"), line, strict=True))
    return pd.DataFrame(lines).T.unstack(0).swaplevel(axis=1).sort_index(axis=1).rename_axis("threshold")


def bootstrap_area(frame: pd.DataFrame, predicted: np.ndarray, n_bootstrap: int = 2000) -> np.ndarray:
    """95% interval of the ROC area, features drawn with replacement: what another sixty might have given."""
    accepted, rows = frame.accepted.to_numpy(), frame.groupby("feature").indices
    features, rng, areas = list(rows), np.random.default_rng(0), []
    for _ in range(n_bootstrap):
        picked = np.concatenate([rows[f] for f in rng.choice(features, len(features))])
        areas.append(roc_auc_score(accepted[picked], predicted[picked]))
    return np.quantile(areas, [0.025, 0.975])


def fit_trust(frame: pd.DataFrame, signals: pd.DataFrame, threshold: float, n_repeats: int = 20) -> None:
    """Cross-validate by feature, print, write `trust.json` and the predictions."""
    from saelib.naming.trust import calibration

    draws = np.array([cross_validated(frame, signals, seed) for seed in range(n_repeats)])
    first, keywords = frame.source.isin(FIRST_ROUND).to_numpy(), made_of_keywords(frame)
    groups = {"180 names of the first round": first, f"the {keywords.sum()} made of keywords": keywords}
    groups |= {source: (frame.source == source).to_numpy() for source in frame.source.unique()}
    area = {name: [roc_auc_score(frame.accepted[on], p[on]) for p in draws] for name, on in groups.items()}
    predicted, features = draws.mean(0), frame.feature.nunique()
    table = pd.DataFrame(
        {
            n: {"ROC area": np.mean(a), "std over splits": np.std(a), "names": groups[n].sum()}
            for n, a in area.items()
        }
    ).T
    table["mean trust"] = [predicted[on].mean() for on in groups.values()]
    table["accepted"] = [frame.accepted[on].mean() for on in groups.values()]
    print(f"\nTrust, cross-validated by feature ({n_repeats} × 10 folds)\n" + table.round(3).to_string())
    table = frame[["feature", "source", "label", "rating"]].join(signals).assign(trust_cv=predicted)
    table.round(4).to_csv(READERS / "trust_cv.csv", index=False)
    frame, signals, predicted = frame[keywords], signals[keywords], predicted[keywords]
    low, high = bootstrap_area(frame, predicted)
    print(
        f"From here on those made of keywords. ROC area, 95% bootstrap over features: [{low:.3f}, {high:.3f}]"
    )
    single = {s: roc_auc_score(frame.accepted, signals[s]) for s in signals}
    print("Each signal alone: " + ", ".join(f"{s} {v:.2f}" for s, v in single.items()))
    bins = calibration(predicted, frame.accepted.to_numpy())
    error = np.average((bins.predicted - bins.accepted).abs(), weights=bins.n)
    print("\nCalibration (predictions that the fit did not see)\n" + bins.round(3).to_string(index=False))
    print(f"expected calibration error {error:.3f}, log loss {log_loss(frame.accepted, predicted):.3f} "
          f"(always the mean: {log_loss(frame.accepted, np.full(len(frame), frame.accepted.mean())):.3f})")  # fmt: skip
    print(
        "\nWhat a threshold shows (cross-validated)\n"
        + threshold_table(frame, predicted).round(3).to_string()
    )
    fitted = fit_logistic(signals, frame.accepted) | {"threshold": threshold}
    print("\n" + json.dumps(fitted, indent=1))
    fitted |= {
        "names": len(frame),
        "features": features,
        "roc_area_cv": float(np.mean(area[f"the {keywords.sum()} made of keywords"])),
    }
    (ROOT / "saelib" / "naming" / "trust.json").write_text(json.dumps(fitted, indent=1) + "\n")
    calibration_figure(predicted, frame.accepted.to_numpy(), ROOT / "data" / "results" / "calibration.png")


# Sheets for a person

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.4 sans-serif;max-width:50em;margin:2em auto}}fieldset{{margin:1.5em 0}}li{{margin:.3em 0}}</style>
<h1>{title}</h1><p>Each name stands over five texts. Does it fit them? <b>2</b>: a stranger would accept it as it stands.
<b>1</b>: partly (some of the texts, too broad, too narrow, mixed with odd words). <b>0</b>: misleading or meaningless.</p>
<form>{items}</form><button type="button" onclick="save()">Save ratings as CSV</button><script>
function save(){{const rows=[["id","rating"],...[...document.querySelectorAll("input:checked")].map(i=>[i.name,i.value])];
const a=document.createElement("a");a.href=URL.createObjectURL(new Blob([rows.map(r=>r.join(",")).join("\\n")+"\\n"]));
a.download="{title}.csv";a.click()}}</script>"""


def strongest_texts(names: pd.DataFrame) -> list[list[str]]:
    """Five texts per name: its column `top_texts`, else those of the same feature in data/readers/."""
    if "top_texts" in names:
        return [list(ts)[:5] for ts in names.top_texts]
    known = read_ratings().drop_duplicates("feature").set_index("feature").top_texts
    missing = sorted(set(names.feature) - set(known.index))
    if missing:
        raise SystemExit(
            f"features {missing[:5]} … are not those of data/readers/: add a column `top_texts` (lists of the five "
            "strongest texts) to the names"
        )
    return [known[f][:5] for f in names.feature]


def write_sheets(path: Path, out: Path, seed: int) -> None:
    """Blind sheets: a feature stands once on each, names of different sources are dealt out at random."""
    names = pd.read_parquet(path)
    names = names.reset_index() if "feature" not in names else names.reset_index(drop=True)
    names = names.assign(
        source=names.source if "source" in names else path.stem, texts=strongest_texts(names)
    )
    names = names.sample(frac=1, random_state=seed).reset_index(drop=True)
    names["sheet"] = names.groupby("feature").cumcount() + 1
    names["id"] = [f"n{i:04d}" for i in range(len(names))]
    (out / "key").mkdir(parents=True, exist_ok=True)
    kept = ["id", "sheet", "feature", "source", "label"] + [c for c in ("trust",) if c in names]
    names[kept].to_csv(out / "key" / "key.csv", index=False)
    for number, sheet in names.groupby("sheet"):
        title, items = f"sheet_{number}", []
        for row in sheet.itertuples():
            texts = "".join(f"<li>{html.escape(t)}" for t in row.texts)
            marks = " ".join(
                f'<label><input type="radio" name="{row.id}" value="{v}">{v}</label>' for v in (2, 1, 0)
            )
            items.append(
                f"<fieldset><legend><b>{html.escape(row.label)}</b></legend><ol>{texts}</ol>{marks}</fieldset>"
            )
        (out / f"{title}.html").write_text(PAGE.format(title=title, items="\n".join(items)), encoding="utf-8")
        table = pd.DataFrame(sheet.texts.tolist(), index=sheet.index).rename(
            columns=lambda i: f"text_{i + 1}"
        )
        table = sheet[["id", "label"]].join(table).assign(rating="")
        table = table.replace(r"^([=+@-])", r"'\1", regex=True)  # no text is to be taken for a formula
        table.to_csv(out / f"{title}.csv", index=False)
    print(
        f"{names.sheet.max()} sheet(s) with {len(names)} names in {out}; the key is in {out / 'key'}: do not look"
    )


def read_sheets(files: list[Path], key: Path) -> pd.DataFrame:
    """Filled sheets (id, rating) joined with their key."""
    filled = pd.concat([pd.read_csv(f) for f in files])[["id", "rating"]].dropna()
    wrong = filled[~filled.rating.isin([0, 1, 2])]
    if len(wrong):
        raise SystemExit(f"ratings must be 0, 1 or 2; {wrong.id.iloc[0]} has {wrong.rating.iloc[0]!r}")
    frame = filled.merge(pd.read_csv(key), on="id", how="left", validate="many_to_one")
    if frame.source.isna().any():
        raise SystemExit(f"{frame.id[frame.source.isna()].iloc[0]} is not in {key}: the key of other sheets")
    print(f"{len(frame)} of {len(pd.read_csv(key))} names rated")
    return frame.assign(rating=frame.rating.astype(int), accepted=frame.rating == 2)


def show_sheets(frame: pd.DataFrame) -> None:
    """Acceptance by source, paired differences, and whether trust foretold it."""
    print("\nAs rated\n" + acceptance(frame).round(3).to_string())
    if frame.source.nunique() > 1:
        print("\nPaired differences\n" + paired_differences(frame).round(3).to_string())
    if "trust" in frame and frame.accepted.nunique() == 2:
        from saelib.naming.trust import THRESHOLD, calibration

        shown = frame[frame.trust >= THRESHOLD]
        print(f"\nTrust: ROC area {roc_auc_score(frame.accepted, frame.trust):.3f}; of the {len(shown)} names shown "
              f"({len(shown) / len(frame):.0%}) {shown.accepted.mean():.0%} accepted, {shown.trust.mean():.0%} predicted")  # fmt: skip
        print(calibration(frame.trust.to_numpy(), frame.accepted.to_numpy()).round(3).to_string(index=False))


# The command


def open_readers(store_folder: Path | None) -> tuple:
    """(train, test, encoder's function, independent encoder) for the SAE in data/readers/."""
    from saelib.activations import read_texts
    from saelib.corpus import load_corpus
    from saelib.encoder import load_encoder, load_independent
    from saelib.sae import load_sae
    from saelib.store import EmbeddingStore

    encoder, sae = load_encoder(), load_sae(READERS / "wiki_sae")
    if store_folder:
        store = EmbeddingStore(store_folder, encoder=encoder)
    else:
        store = EmbeddingStore.extract(
            ROOT / "data" / "stores" / "wiki-vital", load_corpus("wiki-vital"), encoder
        )
    train, test = (
        read_texts(sae, store, rows) for rows in store.split(seed=0, by="text")
    )  # as that SAE was trained
    return train, test, encoder.encode, load_independent(train.texts)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--threshold", type=float, default=0.5, help="written to trust.json by --fit")
    parser.add_argument("--sheets", nargs=2, type=Path, metavar=("NAMES", "OUT"))
    parser.add_argument("--ratings", nargs="+", type=Path, metavar="SHEET")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the sheets' shuffling")
    arguments = parser.parse_args()
    if arguments.sheets:
        return write_sheets(*arguments.sheets, arguments.seed)
    if arguments.ratings:
        if arguments.key is None:
            parser.error("--ratings needs --key, the key.csv that --sheets wrote")
        return show_sheets(read_sheets(arguments.ratings, arguments.key))

    frame = read_ratings()
    train, test, encode, independent = open_readers(arguments.store)
    if arguments.fit:
        from saelib.naming.trust import SIGNALS, name_signals

        signals = name_signals(frame.set_index("feature"), train, independent).reset_index(drop=True)
        frame = pd.concat(
            [frame.join(signals).astype({"feature": str}), read_later_rounds()], ignore_index=True
        )
        return fit_trust(frame, frame[SIGNALS], arguments.threshold)
    print("Readers: 60 features, blind\n" + acceptance(frame).loc[SOURCES].round(3).to_string())
    print(
        "\nPaired differences, 95% bootstrap over features\n" + paired_differences(frame).round(3).to_string()
    )
    table = automatic_metrics(frame, train, test, encode, independent).loc[SOURCES]
    print("\nAutomatic metrics, held-out texts, mean of 60 features\n" + table.round(3).to_string())


if __name__ == "__main__":
    main()
