"""Random inputs of every kind, good, odd and damaged: `python tests/faults/fuzz.py 10000`.

Allowed is a right result, or an exception that the docstring of what was called names, with a short message.
Every case has a seed, which a failure prints, and seconds after which it counts as hung.
"""

import csv
import gzip
import io
import json
import math
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from small import D_IN, ROWS, HashEncoder, content, extract, run

from saelib.activations import activation_table
from saelib.corpus import is_missing, load_corpus
from saelib.files import digest
from saelib.sae import ARCHITECTURES, load_sae, make_sae
from saelib.store import EmbeddingStore, StoreError
from saelib.trainer import CheckpointError, TrainConfig
from saelib.training import train

PATIENCE = 30  # seconds for one case
PIECES = [
    "word", "two words", "ünï cödé", "日本語", "a,b", 'a "quote"', "line\nbreak", "tab\there", "NA", "null", "None", "000123", "nan", "1e5",
    "", " ", "…!", "\u200c", "e\u0301", "half \ud83d", "x" * 3000, "=1+1", "<b>", "\r", "\x00z", "'", "\\", "🙂 yes", "\u2028end",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 5, 16, 40, 200, -1, 0.5, 2.5, 1e-9, 1e12, math.nan, math.inf, True, None, "3", [], np.int64(4), np.float32(0.25), 10**30]  # fmt: skip


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def text(rng):
    return " ".join(pick(rng, PIECES) for _ in range(int(rng.integers(1, 4))))


def embeddable(value):
    return isinstance(value, str) and any(c.isalnum() for c in value)


# ---- each case: what is returned is how it ended; AssertionError and undocumented exceptions are failures ----


def corpus_in_memory(rng, folder):
    odd = [None, np.nan, pd.NA, 7, 2.5, b"bytes", ["list"], {"a": 1}]
    values = [pick(rng, odd) if rng.random() < 0.15 else text(rng) for _ in range(int(rng.integers(0, 12)))]
    domains = [pick(rng, [None, np.nan, pd.NA, "a", "NA", 3, 2021.0, ""]) for _ in values]
    rows = [{"text": v, "domain": d} for v, d in zip(values, domains, strict=True)]
    if rng.random() < 0.1:
        gone = pick(rng, ["text", "domain"])
        rows = [{k: v for k, v in row.items() if k != gone} for row in rows]
    frame = pd.DataFrame(rows, dtype=object)
    form = pick(
        rng, ["rows", "texts", "frame", "generator", "series", "array", "tuple", "nonsense", "dataset"]
    )
    source = {
        "rows": rows, "texts": values, "frame": frame, "generator": (v for v in values), "tuple": tuple(rows),
        "series": pd.Series(values, dtype=object), "array": np.array([*values, None], object)[:-1],
        "nonsense": pick(rng, [None, 3, b"x", {"text": values}, "a lone text", folder / "absent.csv", "/dev", 2.5, "", "x" * 999]),
        "dataset": Dataset.from_dict({"text": [v for v in values if isinstance(v, str) and "\ud83d" not in v]}),
    }[form]  # fmt: skip
    kept = [row.get("text") for row in rows] if form in ("rows", "frame", "tuple") else values
    kept = [normalize("NFC", v.replace("\ud83d", "\ufffd")) for v in kept if embeddable(v)]
    if form == "dataset":
        kept = [v for v in kept if "\ufffd" not in v]
    try:
        corpus = load_corpus(source, verbose=bool(rng.random() < 0.5))
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert form == "nonsense" or not kept or "no column" in str(error), error
        return "refused", error
    assert list(corpus["text"]) == kept
    if form == "rows":
        pairs = [r for r in rows if embeddable(r.get("text"))]
        for row, domain in zip(pairs, corpus["domain"], strict=True):
            value = row.get("domain")
            wanted = "all" if is_missing(value) or value == "" else "2021" if value == 2021.0 else str(value)
            assert domain == wanted
    return "right", None


def corpus_file(rng, folder):
    rows = [(text(rng), pick(rng, ["a", "NA", "", "007"])) for _ in range(int(rng.integers(1, 8)))]
    rows = [(t.encode("utf-8", "replace").decode(), d) for t, d in rows]
    ending = pick(rng, [".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet"])
    buffer = io.StringIO(newline="")
    if ending in (".csv", ".tsv"):
        if sys.version_info < (3, 11):  # its writer has no way to write NUL
            rows = [(t.replace("\0", ""), d) for t, d in rows]
        writer = csv.writer(
            buffer,
            "excel" if ending == ".csv" else "excel-tab",
            quoting=pick(rng, [csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        )
        writer.writerows([("text", "domain"), *rows])
    elif ending == ".jsonl":
        buffer.writelines(json.dumps({"text": t, "domain": d}) + "\n" for t, d in rows)
    elif ending == ".json":
        json.dump([{"text": t, "domain": d} for t, d in rows], buffer)
    else:
        rows = [(t.replace("\n", " ").replace("\r", " "), "") for t, _ in rows]
        buffer.write("\n".join(t for t, _ in rows))
    data = buffer.getvalue().encode()
    if ending == ".parquet":
        data = pd.DataFrame(rows, columns=["text", "domain"]).to_parquet(index=False)
    zipped = rng.random() < 0.2
    data = gzip.compress(data) if zipped else data
    file = folder / (
        pick(rng, ["x", "a[1]", "ü", "[*]", "a b", "X"])
        + (ending.upper() if rng.random() < 0.2 else ending)
        + ".gz" * zipped
    )
    damaged = rng.random() < 0.4
    if damaged:
        data = damage(rng, data)
    file.write_bytes(data)
    kept = [(normalize("NFC", t), d or "all") for t, d in rows if embeddable(t)]
    try:
        corpus = load_corpus(file, verbose=False)
    except (ValueError, FileNotFoundError) as error:
        assert damaged or not kept, error
        return "refused", error
    assert damaged or list(zip(corpus["text"], corpus["domain"], strict=True)) == kept
    return "read, damaged" if damaged else "right", None


def configuration(rng, folder):
    names = [*TrainConfig.__dataclass_fields__]
    settings = {pick(rng, names): pick(rng, NUMBERS) for _ in range(int(rng.integers(1, 4)))}
    settings = {"steps": 4, "batch_size": 16, "target_l0": 3} | settings
    name, sizes = pick(rng, list(ARCHITECTURES)), {"d_sae": 32, "k": 3, "seed": 0}
    if rng.random() < 0.3:
        sizes[pick(rng, list(sizes))] = pick(rng, NUMBERS)
    calls = {}
    if rng.random() < 0.2:
        calls = {pick(rng, ["stop_after", "checkpoint_every"]): pick(rng, NUMBERS)}
    try:
        config = TrainConfig(**settings)
        sae = make_sae(name, D_IN, **sizes)
        if config.steps * config.batch_size > 1e5 or sae.d_sae > 1e4:
            return "too large to try", None
        x = torch.randn(200, D_IN, generator=torch.Generator().manual_seed(0))
        final = train(sae, x, config, progress=False, **calls).final
    except (ValueError, FloatingPointError) as error:
        return "refused", error
    assert all(map(math.isfinite, final)), final
    steps = [config.steps, calls.get("stop_after") or config.steps]
    assert type(config.steps) is int and (min(steps) < config.steps or final.l0 <= sae.d_sae)
    return "right", None


def tensor(rng, folder):
    n, d = pick(rng, [0, 1, 2, 3, 20, 25, 40, 60, 60, 60, 60]), pick(rng, [D_IN] * 18 + [7, 0])
    x = rng.normal(size=pick(rng, [(n, d)] * 17 + [(n,), (2, n, d), ()])).astype(
        pick(rng, [np.float32, np.float64, np.float16, np.int64])
    )
    if x.size and rng.random() < 0.3:
        if x.dtype.kind == "f":
            x.flat[int(rng.integers(x.size))] = pick(rng, [math.nan, math.inf, -math.inf, 6e4])
    if rng.random() < 0.1:
        x = x * 0
    form = pick(rng, ["tensor", "array", "frame", "list", "grad", "nonsense"])
    data = {
        "tensor": lambda: torch.as_tensor(x), "array": lambda: x, "list": lambda: x.tolist(),
        "frame": lambda: pd.DataFrame(x) if x.ndim == 2 else x,
        "grad": lambda: torch.as_tensor(x).float().requires_grad_(),
        "nonsense": lambda: pick(rng, [None, "x", [["a"]], {}, object(), [[1], [1, 2]]]),
    }[form]()  # fmt: skip
    held = (
        None
        if rng.random() < 0.6
        else rng.normal(size=(pick(rng, [0, 1, 9, 9, 9, 9]), pick(rng, [D_IN] * 6 + [3]))).astype(np.float32)
    )
    sae = make_sae(pick(rng, list(ARCHITECTURES)), D_IN, 24, 2)
    config = TrainConfig(steps=3, batch_size=pick(rng, [1, 4, 16]), target_l0=2, seed=int(rng.integers(5)))
    try:
        final = train(sae, data, config, held_out=held, progress=False).final
    except (ValueError, FloatingPointError) as error:
        return "refused", error
    assert form != "nonsense" and x.ndim == 2 and np.isfinite(x).all() and d == D_IN
    assert all(map(math.isfinite, final)), final
    return "right", None


def rows_of_a_store(rng, folder):
    store, n = stored(folder), len(ROWS)
    numbers = rng.integers(-3, n + 3, size=int(rng.integers(0, 9)))
    numbers = numbers if rng.random() < 0.2 else numbers.clip(0, n - 1)
    mask = rng.random(n if rng.random() < 0.8 else n + 1) < 0.1
    form = pick(
        rng,
        [
            numbers,
            mask,
            slice(3, 9),
            numbers.tolist(),
            torch.from_numpy(mask),
            pd.Series(mask),
            numbers * 1.0,
            [[1]],
            "abc",
            3,
        ],
    )
    try:
        found = store.embeddings(form)
    except (IndexError, ValueError) as error:
        return "refused", error
    wanted = all_embeddings(folder)[
        np.arange(n)[form] if isinstance(form, slice) else np.asarray(form, dtype=None if len(form) else int)
    ]
    assert np.array_equal(found, wanted)
    sae = make_sae("topk", D_IN, 24, 2)
    assert activation_table(sae, store, form).shape[0] == len(found) if len(found) else True
    return "right", None


def store_folder(rng, folder):
    """Damage a store, then open it or extract again: right, or refused."""
    path = folder / "it"
    stored(folder)
    shutil.copytree(folder / "store", path)
    files = sorted(p for p in path.iterdir() if p.name != ".lock")
    for _ in range(int(rng.integers(1, 3))):
        file = pick(rng, files)
        if not file.is_file():
            continue
        action = pick(rng, ["bytes", "bytes", "remove", "swap", "json", "json", "folder"])
        if action == "bytes":
            file.write_bytes(damage(rng, file.read_bytes()))
        elif action == "remove":
            file.unlink()
        elif action == "swap":
            shutil.copy(pick(rng, [f for f in files if f.is_file()]), folder / "other")
            shutil.copy(folder / "other", file)
        elif action == "folder":
            file.unlink()
            file.mkdir()
        elif action == "json" and (path / "manifest.json").is_file():
            (path / "manifest.json").write_text(
                json.dumps(lie(rng, json.loads((folder / "store" / "manifest.json").read_text())))
            )
    try:
        if rng.random() < 0.5:
            store = extract(path)
            found, wanted = content(path), content(folder / "store")
            assert found | {"manifest.json": wanted["manifest.json"]} == wanted
            assert store.manifest == stored(folder).manifest
        else:
            store = EmbeddingStore(path)
            store.verify()
    except (StoreError, FileNotFoundError, IsADirectoryError) as error:
        return "refused", error
    assert np.array_equal(store.embeddings(), all_embeddings(folder)) and store.texts == [
        row["text"] for row in ROWS
    ]
    return "right", None


def sae_folder(rng, folder):
    path = folder / "sae"
    sae = make_sae(pick(rng, list(ARCHITECTURES)), D_IN, 24, 2, seed=int(rng.integers(9)))
    sae.save(path, note=pick(rng, NUMBERS))
    file = path / pick(rng, ["sae.safetensors"] * 3 + ["cfg.json"])
    action = pick(rng, ["bytes", "bytes", "remove", "other"])
    if action == "bytes":
        file.write_bytes(damage(rng, file.read_bytes()))
    elif action == "remove":
        file.unlink()
    else:
        file.write_bytes(pick(rng, [b"", b"{}", b"\x00" * 100, b"[" * 9999, rng.bytes(500)]))
    try:
        loaded = load_sae(path)
    except (ValueError, FileNotFoundError) as error:
        return "refused", error
    assert loaded.config() == sae.config() and digest(loaded.state_dict()) == digest(sae.state_dict())
    return "right", None


def checkpoint_folder(rng, folder):
    path, cached = folder / "it", folder / "checkpoint"
    name = pick(rng, list(ARCHITECTURES))
    if not (cached / name).exists():
        run(cached / name, name, stop_after=6)
        (folder / f"{name}.txt").write_text(run(None, name))
    shutil.copytree(cached / name, path)
    file = path / "checkpoint.safetensors"
    action = pick(rng, ["bytes", "bytes", "other", "none", "remove", "leftover"])
    if action == "bytes":
        file.write_bytes(damage(rng, file.read_bytes()))
    elif action == "other":
        file.write_bytes(
            pick(rng, [b"", b"{}", b"\x00" * 100, (cached / name / file.name).read_bytes()[:-1]])
        )
    elif action == "remove":
        file.unlink()
    elif action == "leftover":
        (path / ".checkpoint.safetensors.12.part").write_bytes(b"half")
    try:
        found = run(path, name)
    except CheckpointError as error:
        assert action in ("bytes", "other")
        return "refused", error
    assert found == (folder / f"{name}.txt").read_text()
    assert not list(path.glob(".*.part"))
    return "right", None


# ---- what the cases share ----


def damage(rng, data):
    """The bytes with a bit, a byte, a stretch changed, or cut, or something put in."""
    data, at = bytearray(data), int(rng.integers(max(len(data), 1)))
    action = pick(rng, ["bit", "byte", "cut", "insert", "zero", "double"])
    if action == "bit" and data:
        data[at] ^= 1 << int(rng.integers(8))
    elif action == "byte" and data:
        data[at] = int(rng.integers(256))
    elif action == "cut":
        data = data[:at]
    elif action == "insert":
        data[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif action == "zero":
        data[at : at + 50] = bytes(len(data[at : at + 50]))
    elif action == "double":
        data = data + data
    return bytes(data)


def lie(rng, value):
    """JSON with one value, somewhere, changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = pick(rng, list(value))
        return (
            {k: v for k, v in value.items() if k != key}
            if rng.random() < 0.2
            else value | {key: lie(rng, value[key])}
        )
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return pick(
            rng,
            [
                value[::-1],
                value + value[at : at + 1],
                value[:at] + value[at + 1 :],
                [*value[:at], lie(rng, value[at]), *value[at + 1 :]],
            ],
        )
    return pick(rng, [None, 0, -1, 10**9, "x", "../../etc/passwd", "/dev/zero", [], {}, True, 1.5, "float32"])


def stored(folder):
    if not (folder / "store").exists():
        extract(folder / "store")
    return EmbeddingStore(folder / "store")


def all_embeddings(folder):
    return HashEncoder().encode([row["text"] for row in ROWS]).astype(np.float16).astype(np.float32)


def hung(signum, frame):
    raise TimeoutError(f"hung for {PATIENCE} s")


CASES = [
    corpus_in_memory, corpus_file, configuration, tensor, rows_of_a_store, store_folder, sae_folder, checkpoint_folder,
]  # fmt: skip


def fuzz(n, seed=0):
    """Outcomes of n cases, and what failed."""
    found, failed = Counter(), []
    signal.signal(signal.SIGALRM, hung)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        for i in range(n):
            case = CASES[i % len(CASES)]
            signal.alarm(PATIENCE)
            try:
                outcome, error = case(np.random.default_rng([seed, i]), folder)
                assert error is None or 10 < len(str(error)) < 1500, (
                    f"a message of {len(str(error))} characters"
                )
                found[case.__name__, outcome] += 1
            except Exception:
                failed.append(f"{case.__name__}, seed {seed}, case {i}\n{traceback.format_exc()[-1500:]}")
            finally:
                signal.alarm(0)
                for rest in [
                    p
                    for p in folder.iterdir()
                    if p.name not in ("store", "checkpoint") and p.suffix != ".txt"
                ]:
                    shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
    return found, failed


def main(n, seed=0):
    began = time.perf_counter()
    torch.set_num_threads(1)
    found, failed = fuzz(n, seed)
    for (case, outcome), count in sorted(found.items()):
        print(f"{case:20} {outcome:18} {count}")
    print(*failed[:5], sep="\n\n")
    print(f"{n} cases, {len(failed)} failed, {time.perf_counter() - began:.0f} s")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*(int(a) for a in sys.argv[1:] or ["10000"]))))
