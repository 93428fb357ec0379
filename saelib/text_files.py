"""Rows of text out of local files: CSV, TSV, JSON, JSON lines, plain text and Parquet, gzipped or not.

Nothing is guessed: every field is text, only what the writer quoted may hold a comma, a path is a path and
no pattern, and a malformed line is an error that names it. Nothing is cached either.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO
from unicodedata import normalize

import pyarrow as pa
from datasets import ClassLabel, Features
from pyarrow import parquet

from saelib.files import expanded


def ending(path: Path) -> str:
    """How the file's name ends, in lower case and without .gz; "" where it has none."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def text_files(source: str | Path) -> list[Path]:
    """The files that `source` names: one, or all of one kind in a folder; none for what looks like no path.

    Raises:
        FileNotFoundError: what looks like a path leads nowhere. ValueError: an ending that is not read, a
        folder without a file of such endings, or with several kinds of them.
    """
    if not str(source).strip():
        raise ValueError("the name of the corpus is empty")
    path = expanded(source)
    known = ", ".join(READERS)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError:  # a name too long for any file
        is_file = is_folder = False
    if is_folder:
        files = sorted(
            file
            for file in path.iterdir()
            if ending(file) in READERS and not file.name.startswith(".") and file.is_file()
        )
        if len({ending(file) for file in files}) != 1:
            raise ValueError(f"the folder {path} must hold files of one kind of {known}; name one file")
        return files
    if is_file:
        if ending(path) not in READERS:
            raise ValueError(f"{path.name} must end in one of {known} (or that and .gz)")
        return [path]
    text = str(source)
    named = text[:1] in ("/", "~", ".") or (ending(path) in READERS and " " not in text)
    if named or isinstance(source, Path):
        raise FileNotFoundError(f"no corpus file at {path}")
    return []


def read_rows(path: Path, text: str, columns: Iterable[str]) -> Iterator[dict]:
    """Rows of a file as dicts; of tables these `columns` (where there), of which `text` must be there.

    Raises:
        ValueError: not UTF-8, damaged, a malformed line, no such column.
    """
    try:
        yield from READERS[ending(path)](path, text, columns)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except PermissionError:
        raise
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise ValueError(f"{path} is damaged, or not what its name says: {str(error)[:200]}") from error


def check_column(text: str, columns: Iterable[str], where: object, wanted: Iterable[str] = ()) -> None:
    """Raise ValueError where the column of texts is missing, or one that is `wanted` is there twice."""
    names = list(columns)
    if text not in names:
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        shown = [str(name) for name in names[:20]]
        raise ValueError(f"no column {text!r} in {where}; it has {shown}{more}: pass text_column=")
    for name in wanted:
        if names.count(name) > 1:
            raise ValueError(f"{where} has {names.count(name)} columns {name!r}: rename all but one")


def _open(path: Path) -> IO[str]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _csv(path: Path, text: str, columns: Iterable[str], dialect: str = "excel") -> Iterator[dict]:
    csv.field_size_limit(2**31 - 1)
    with _open(path) as file:
        reader, line = csv.reader(file, dialect, strict=True), 1
        try:
            asked = {_plain(name): name for name in columns}  # whatever spaces and accents are made of
            header = [asked.get(_plain(name), name) for name in next(filter(None, reader), [])]
            if header:
                check_column(text, header, path, columns)
            line = reader.line_num + 1
            for fields in reader:
                if fields and len(fields) != len(header):
                    raise ValueError(
                        f"{path}, line {line}: {len(fields)} fields, but {len(header)} in the header; a text "
                        f"with a comma needs quotes: {str(fields)[:80]}"
                    )
                if fields:
                    yield dict(zip(header, fields, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: {error}") from error


def _plain(name: object) -> str:
    return normalize("NFC", str(name)).strip()


def _tsv(path: Path, text: str, columns: Iterable[str]) -> Iterator[dict]:
    return _csv(path, text, columns, "excel-tab")


def _json(path: Path, text: str, columns: Iterable[str]) -> Iterator[dict]:
    with _open(path) as file:
        line = file.readline()
        while line and not line.strip():
            line = file.readline()
        whole = line.lstrip().startswith("[") or line.strip() == "{"  # one value; else one a line
        pieces = [line + file.read()] if whole else _chain(line, file)
        for number, piece in enumerate(pieces, start=1):
            if not piece.strip():
                continue
            try:
                values = json.loads(piece)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            for value in values if whole and isinstance(values, list) else [values]:
                yield value if isinstance(value, dict) else {text: value}


def _chain(line: str, file: IO[str]) -> Iterator[str]:
    yield line
    yield from file


def _txt(path: Path, text: str, columns: Iterable[str]) -> Iterator[dict]:
    with _open(path) as file:
        for line in file:
            if line.count("\0") > max(4, len(line) / 3):
                raise ValueError(f"{path} is full of NUL characters, as UTF-16 is: save it as UTF-8")
            yield {text: line.rstrip("\r\n")}


def _parquet(path: Path, text: str, columns: Iterable[str]) -> Iterator[dict]:
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as raw:
        file = parquet.ParquetFile(raw)
        schema = file.schema_arrow
        check_column(text, schema.names, path)
        found = [name for name in columns if name in schema.names]
        kept = pa.schema([schema.field(name) for name in found], schema.metadata)
        features = {}
        with suppress(Exception):  # a type that `datasets` does not know, damaged metadata: no class labels
            features = Features.from_arrow_schema(kept)
        yield from arrow_rows(file.iter_batches(4096, columns=found), features)


def arrow_rows(batches: Iterable[pa.RecordBatch | pa.Table], features: dict) -> Iterator[dict]:
    """Rows of Arrow tables as dicts; class labels give their names."""
    return with_class_names((row for batch in batches for row in batch.to_pylist()), features)


def with_class_names(rows: Iterable[dict], features: dict) -> Iterator[dict]:
    """The rows, class labels as their names."""
    labels = {name: kind for name, kind in features.items() if isinstance(kind, ClassLabel)}
    for row in rows:
        yield row | {name: class_name(kind, row[name]) for name, kind in labels.items()}


def class_name(label: ClassLabel, value: int | None) -> str | None:
    """The name of a class; None for none (−1)."""
    return label.names[value] if value is not None and 0 <= value < len(label.names) else None


READERS = {
    ".csv": _csv, ".tsv": _tsv, ".jsonl": _json, ".ndjson": _json, ".json": _json, ".txt": _txt,
    ".parquet": _parquet,
}  # fmt: skip
