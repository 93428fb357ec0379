"""From a table of texts to named features, for those who do not open notebooks.

    python -m saelib reviews.csv --text-column review --out report/

writes browser.html (one file to open or send), names.parquet, features.csv, features.json, and the SAE.
The same steps, one by one and explained: notebooks/11_your_own_texts.ipynb.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from saelib.activations import read_texts
from saelib.advice import check_corpus
from saelib.browser.report import export
from saelib.browser.view import make_view
from saelib.corpus import load_corpus
from saelib.encoder import PACKAGED, EmbeddingCache, load_encoder
from saelib.files import InUseError
from saelib.naming.language import language_for
from saelib.naming.pipeline import as_shown, name_features
from saelib.sae import make_sae
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig
from saelib.training import suggest_size, train


def tokenizer(name: str) -> Callable[[str], list[str]]:
    """The function that a name like "jieba:lcut" stands for."""
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{name!r} is no MODULE:FUNCTION that can be imported")
    return found


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser("python -m saelib", description=(__doc__ or "").split("\n")[0])
    made.add_argument("texts", help="a .csv, .tsv, .jsonl, .txt or .parquet file, or a Hugging Face id")
    made.add_argument("--out", required=True, help="folder for the report; what is there is reused")
    made.add_argument("--text-column", default="text", help="column with the texts (default: text)")
    made.add_argument("--domain-column", help="column with a category of each text")
    made.add_argument("--title-column", help="column that says which texts belong together")
    made.add_argument("--encoder", default=PACKAGED, help=f"model name or folder (default: {PACKAGED})")
    made.add_argument("--language", default="english", help="of the texts: german, french, …")
    made.add_argument(
        "--tokenizer", type=tokenizer, metavar="MODULE:FUNCTION",
        help="for scripts without spaces, what cuts a text into words: jieba:lcut",
    )  # fmt: skip
    made.add_argument("--limit", type=int, help="a random sample of this many texts")
    made.add_argument("--steps", type=int, default=400, help="training steps (default: 400)")
    return made


def report(args: argparse.Namespace) -> Path:
    """Do it; returns the page."""
    out, encoder = Path(args.out).expanduser(), load_encoder(args.encoder)
    corpus = load_corpus(
        args.texts, text_column=args.text_column, domain_column=args.domain_column,
        title_column=args.title_column, limit=args.limit,
    )  # fmt: skip
    for check, row in check_corpus(corpus, encoder, args.language).iterrows():
        print(f"{check}: {row.found}" + (f"\n    {row.advice}" if row.advice else ""))
    language = language_for(args.language, list(corpus["text"]), args.tokenizer)
    store = EmbeddingStore.extract(out / "store", corpus, encoder)
    train_rows, test_rows = store.split()
    d_sae, k = suggest_size(len(store), store.d_in)
    config = TrainConfig(steps=args.steps, target_l0=k, batch_size=min(1024, len(train_rows) // 2))
    result = train(make_sae("topk", store.d_in, d_sae, k), store, config)
    sae = result.sae.cpu()
    sae.save(out / "sae", encoder=encoder.name, fingerprint=encoder.fingerprint)
    parts = read_texts(sae, store, train_rows), read_texts(sae, store, test_rows)
    names = name_features(sae, *parts, EmbeddingCache(encoder.encode), language=language)
    names.assign(shown_as=as_shown(names)).to_parquet(out / "names.parquet")
    export(make_view(sae, read_texts(sae, store), names, encoder=encoder, folder=out), out)
    print(f"{d_sae} features, {names.shown.sum()} with a name; held-out FVU {result.final.fvu:.2f}")
    return out / "browser.html"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; what is wrong with its input is one sentence, and exit code 2."""
    args = parser().parse_args(arguments)
    try:
        print(f"open {report(args)}")
    except (ValueError, TypeError, OSError, ModuleNotFoundError, InUseError) as error:
        print(f"saelib: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
