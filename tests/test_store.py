"""The store: nothing is lost, nothing damaged is served, and batches repeat."""

import hashlib
import json
import os
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from saelib.activations import read_texts
from saelib.files import InUseError, only_writer, write
from saelib.sae import make_sae
from saelib.shards import bytes_per_text, checksum, text_digest
from saelib.store import EmbeddingStore, StoreError, batch_plan


def test_store_round_trip_and_resume(tmp_path, rows, words):
    whole = EmbeddingStore.extract(tmp_path / "a", rows, words, shard_rows=200, progress=False)
    assert len(whole) == 700 and whole.texts == [r["text"] for r in rows]
    np.testing.assert_allclose(
        whole.embeddings(np.array([699, 0, 250])),
        words.encode([rows[i]["text"] for i in (699, 0, 250)]),
        atol=1e-3,
    )
    whole.verify()

    class Interrupt(type(words)):
        def encode(self, texts, batch_tokens=None, progress=False):
            if len(self.seen) >= 400:
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        EmbeddingStore.extract(tmp_path / "b", rows, Interrupt(), shard_rows=200, progress=False)
    with pytest.raises(StoreError, match="interrupted"):
        EmbeddingStore(tmp_path / "b")
    words.seen.clear()
    resumed = EmbeddingStore.extract(tmp_path / "b", rows, words, shard_rows=200, progress=False)
    assert len(words.seen) == 300
    assert resumed.manifest == whole.manifest


def test_a_store_that_does_not_fit_is_refused(tmp_path, rows, words):
    store = EmbeddingStore.extract(tmp_path, rows, words, shard_rows=200, progress=False)
    other = type(words)()
    other.fingerprint = "0" * 16
    with pytest.raises(StoreError, match="was written by words"):
        EmbeddingStore(tmp_path, encoder=other)
    with pytest.raises(StoreError, match="other texts"):
        EmbeddingStore.extract(
            tmp_path, [{"text": "x", "domain": "y"}] * 700, words, shard_rows=200, progress=False
        )
    with pytest.raises(StoreError, match="longer corpus"):
        EmbeddingStore.extract(tmp_path, rows[:200], words, shard_rows=200, progress=False)
    file = tmp_path / store.manifest["shards"][1]["embeddings"]
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(StoreError, match="cut short"):
        EmbeddingStore(tmp_path)
    file.write_bytes(content[:-2] + b"\x00\x7c")  # float16 infinity, same size
    with pytest.raises(StoreError, match="checksum"):
        EmbeddingStore(tmp_path).verify()
    with pytest.raises(StoreError, match="NaN or infinite"):
        EmbeddingStore(tmp_path).embeddings()
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"]


def test_bad_extraction_input(tmp_path, words):
    with pytest.raises(ValueError, match="empty"):
        EmbeddingStore.extract(tmp_path / "a", [], words, progress=False)
    with pytest.raises(ValueError, match="row 1 cannot be embedded: empty"):
        EmbeddingStore.extract(
            tmp_path / "b", [{"text": "a", "domain": "d"}, {"text": "", "domain": "d"}], words, progress=False
        )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.doc").write_text("precious")
    with pytest.raises(StoreError, match="not be overwritten"):
        EmbeddingStore.extract(
            tmp_path / "c", [{"text": "a", "domain": "d"}], words, overwrite=True, progress=False
        )


@pytest.mark.parametrize("buffer_rows", [10_000, 512])
def test_batches_cover_repeat_and_skip(tmp_path, rows, words, buffer_rows):
    store = EmbeddingStore.extract(tmp_path, rows, words, shard_rows=200, progress=False)
    served, _ = store.split(1 / 6)

    def take(n, **kw):
        stream = store.batches(64, rows=served, buffer_rows=buffer_rows, **kw)
        return [next(stream) for _ in range(n)]

    first = take(20, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, take(20, seed=1), strict=True))
    assert not torch.equal(first[0], take(1, seed=2)[0])
    assert torch.equal(first[13], take(1, seed=1, skip=13)[0])
    allowed = {tuple(v) for v in store.embeddings(served).round(4).tolist()}
    assert {tuple(v) for v in torch.cat(first).numpy().round(4).tolist()} <= allowed
    with pytest.raises(ValueError, match="batch_size"):
        take(1) and next(store.batches(10_000))


def test_the_buffer_serves_every_row_about_equally_often():
    counts, plan = np.zeros(3000), batch_plan(3000, 100, 1000, seed=0)
    for _ in range(300):
        buffer, picked = next(plan)
        np.add.at(counts, buffer[picked], 1)
    assert counts.sum() == 30_000 and 8 <= counts.min() and counts.max() <= 12


def test_split_keeps_articles_together(tmp_path, words):
    rows = [{"text": f"t {i}", "domain": "d", "title": f"article {i // 5}"} for i in range(250)]
    rows += [
        {"text": "t 0", "domain": "d", "title": "article 49"}
    ]  # an equal text in two articles joins them
    rows += [{"text": f"loose {i}", "domain": "d", "title": ""} for i in range(50)]
    store = EmbeddingStore.extract(tmp_path / "a", rows, words, progress=False)
    train, test = store.split(0.2, seed=1)
    assert len(train) + len(test) == len(rows) and 20 < len(test) < 110
    titles = [{rows[i]["title"] for i in part} - {""} for part in (train, test)]
    assert titles[0] and titles[1] and not titles[0] & titles[1]
    assert not {rows[i]["text"] for i in train} & {rows[i]["text"] for i in test}
    assert all(any(not rows[i]["title"] for i in part) for part in (train, test)), (
        "no title is no common title"
    )
    by_text = store.split(0.2, seed=1, by="text")
    groups = pd.factorize(store.frame.text)[0]  # the split that published SAEs were trained on
    chosen = np.random.default_rng(1).permutation(300) < 60
    assert np.array_equal(by_text[1], np.flatnonzero(chosen[groups]))
    few = [row | {"title": f"book {i % 3}"} for i, row in enumerate(rows)]
    store = EmbeddingStore.extract(tmp_path / "b", few, words, progress=False)
    assert np.array_equal(store.split()[1], store.split(by="text")[1])
    with pytest.raises(ValueError, match="'title' or 'text'"):
        store.split(by="domain")


def test_split_keeps_equal_texts_together(tmp_path, words):
    rows = [{"text": f"t {i // 2}", "domain": "d"} for i in range(200)]
    train, test = EmbeddingStore.extract(tmp_path, rows, words, progress=False).split(0.25)
    assert (
        not {i // 2 for i in train} & {i // 2 for i in test}
        and len(train) + len(test) == 200
        and len(test) == 50
    )


def extract(path, rows, encoder, **settings):
    return EmbeddingStore.extract(path, rows, encoder, **{"shard_rows": 200, "progress": False} | settings)


def test_rows_are_a_mask_or_numbers_that_exist(tmp_path, rows, words):
    store, sae = extract(tmp_path, rows, words), make_sae("topk", words.d_in, 96, 4)
    mask = store.frame.domain == "group1"
    numbers = np.flatnonzero(mask)
    for form in (
        mask,
        mask.to_numpy(),
        mask.tolist(),
        torch.tensor(mask.to_numpy()),
        numbers,
        numbers.tolist(),
    ):
        assert np.array_equal(store.embeddings(form), store.embeddings(numbers))
        assert read_texts(sae, store, form).texts == [rows[i]["text"] for i in numbers]
        assert torch.equal(next(store.batches(9, rows=form)), next(store.batches(9, rows=numbers)))
    assert np.array_equal(store.embeddings(slice(3, 9, 2)), store.embeddings([3, 5, 7]))
    assert store.embeddings([]).shape == (0, words.d_in)
    for bad, said in (([0, -1], "row -1"), ([700], "row 700 is not in 0..699"), (mask[:5], "mask of 5")):
        with pytest.raises(IndexError, match=said):
            store.embeddings(bad)
    for bad in ([0.5], [[1]], 3, ["a"]):
        with pytest.raises(ValueError, match="whole numbers or a mask"):
            store.embeddings(bad)


def test_overwriting_touches_the_old_store_alone_and_late(tmp_path, rows, words):
    store = extract(tmp_path, rows, words)
    (tmp_path / "thesis.docx").write_text("years of work")
    for corpus in ([], [{"text": ""}], [{"text": f"t {i}"} for i in range(150)] + [{"text": ""}]):
        with pytest.raises(ValueError, match=r"empty"):
            extract(tmp_path, corpus, words, overwrite=True)
        store.verify()
    new = extract(tmp_path, rows[:300], words, overwrite=True)
    new.verify()
    files = {
        "manifest.json",
        *(f"{i:05d}.{end}" for i in (0, 1) for end in ("npy", "parquet")),
        "thesis.docx",
    }
    assert {p.name for p in tmp_path.iterdir()} - {".lock"} == files
    assert store.embeddings().shape == (700, words.d_in), "what was mapped stays"
    with pytest.raises(StoreError, match="checksum"):  # and no texts of the new store beside it
        len(store.texts)
    (tmp_path / "manifest.json").write_text('{"name": "a web app", "version": 1}')
    for overwrite in (True, False):
        with pytest.raises(StoreError, match=r"is not a store's: delete the folder"):
            extract(tmp_path, rows, words, overwrite=overwrite)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StoreError, match="00000.npy and no embedding store"):
        extract(tmp_path, rows, words)


def test_a_killed_overwrite_goes_on(tmp_path, rows, words):
    extract(tmp_path / "a", rows, words)

    class Stops(type(words)):
        def encode(self, texts, batch_tokens=None, progress=False):
            if len(self.seen) >= 400:
                raise KeyboardInterrupt
            return super().encode(texts)

    again = [row | {"domain": "other"} for row in rows]
    with pytest.raises(
        KeyboardInterrupt, match="holds 400 texts; the same call goes on .* without overwrite"
    ):
        extract(tmp_path / "a", again, Stops(), overwrite=True)
    assert (
        extract(tmp_path / "a", again, words, overwrite=True).manifest
        == extract(tmp_path / "b", again, words).manifest
    )
    with pytest.raises(KeyboardInterrupt, match="the old store is still there"):
        stops = Stops()
        stops.seen = [""] * 400
        extract(tmp_path / "a", rows, stops, overwrite=True)
    EmbeddingStore(tmp_path / "a").verify()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[1:], "float32 of shape"),
        (lambda x: x[:, 0], "float32 of shape"),
        (lambda x: np.hstack([x, x]), "float32 of shape"),
        (lambda x: x.astype(int), "int64 of shape"),
        (lambda x: x * 1e6, "values beyond float16"),
        (lambda x: x * 1e-9, "values beyond float16"),
        (lambda x: x * 3e-7, "values beyond float16"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 3, 0, x), "a zero vector for 'text number 3"),
        (lambda x: np.where(x > 0.3, np.nan, x), "NaN or infinity"),
    ],
)
def test_what_an_encoder_gives_is_checked(tmp_path, rows, words, change, said):
    class Odd(type(words)):
        def encode(self, texts, batch_tokens=None, progress=False):
            return change(super().encode(texts))

    with pytest.raises(ValueError, match=said):
        extract(tmp_path, rows, Odd())
    with pytest.raises(FileNotFoundError):
        EmbeddingStore(tmp_path)
    large = extract(tmp_path / "f32", rows, words, dtype="float32").embeddings()
    assert np.array_equal(large, words.encode([r["text"] for r in rows]))
    for dtype in ("int8", "float64", None):
        with pytest.raises(ValueError, match="float16"):
            extract(tmp_path / "i", rows, words, dtype=dtype)


def lies(path, change, signed=True):
    """Change what a manifest says, and sign it again."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest.pop("checksum")
    change(manifest)
    file.write_text(json.dumps(manifest | ({"checksum": checksum(manifest)} if signed else {})))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["shards"].pop(),
        lambda m: m["shards"].reverse(),
        lambda m: m["shards"].append(m["shards"][0]),
        lambda m: m["shards"][0].update(embeddings="../b/00000.npy"),
        lambda m: m["shards"][0].update(texts="/dev/zero"),
        lambda m: m["shards"][0].update(rows=199),
        lambda m: (m["shards"][0].update(rows=199), m.update(n=699)),
        lambda m: m.update(d_in=24),
        lambda m: m.update(dtype="float32"),
        lambda m: m.update(shards=[], n=0),
        lambda m: m.pop("n"),
        lambda m: m.update(version=3),
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path, rows, words, change):
    for signed in (True, False):
        store = extract(tmp_path / f"a{signed}", rows, words)
        lies(store.path, change, signed)
        with pytest.raises(StoreError):
            EmbeddingStore(store.path)


def test_no_other_texts_have_the_digest_of_these():
    row = {"text": "a", "domain": "b", "title": "c"}
    others = [
        [row | {"text": "a\0b\1c\2a"}], [{"text": "a\0b\1c", "domain": "b", "title": ""}], [row, row],
        [{"text": "a", "domain": "b\1c\2", "title": ""}], [row | {"text": "a\3"}], [row | {"text": "a\3\3"}],
        [{"text": "a", "domain": "b", "title": ""}, {"text": "", "domain": "", "title": "c"}],
    ]  # fmt: skip
    assert len({text_digest(rows, 2) for rows in [[row], *others]}) == 8
    plain = hashlib.sha256(b"a\0b\1c\2").hexdigest()  # of texts without such characters: as it always was
    assert text_digest([row], 2) == plain[:16]


def test_damage_is_found_and_redone_alone(tmp_path, rows, words):
    store = extract(tmp_path, rows, words)
    good = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix in (".npy", ".parquet")}
    for content in ("", "{", "[]", '{"version": 2}', "\0" * 99, "[" * 100_000):
        kept = (tmp_path / "manifest.json").read_text()
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(StoreError, match="damaged"):
            EmbeddingStore(tmp_path)
        (tmp_path / "manifest.json").write_text(kept)
    npy, texts = tmp_path / "00001.npy", tmp_path / "00002.parquet"
    npy.write_bytes(good["00001.npy"].replace(b"descr", b"desks"))
    with pytest.raises(StoreError, match="header"):
        EmbeddingStore(tmp_path)
    texts.unlink()
    words.seen.clear()
    assert extract(tmp_path, rows, words).manifest == store.manifest
    assert words.seen == [row["text"] for row in rows[200:600]]
    assert all((tmp_path / name).read_bytes() == content for name, content in good.items())
    npy.unlink()
    os.mkfifo(npy)  # is not waited for
    with pytest.raises(StoreError, match="lost"):
        EmbeddingStore(tmp_path)


def test_a_resumed_extraction_does_not_mix(tmp_path, rows, words):
    class Stops(type(words)):
        def encode(self, texts, batch_tokens=None, progress=False):
            if len(self.seen) >= 400:
                raise KeyboardInterrupt
            return super().encode(texts)

    titled = [row | {"title": "one"} for row in rows]
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, titled, Stops())
    words.dtype = "bfloat16"
    with pytest.raises(StoreError, match="in float32, not bfloat16"):
        extract(tmp_path, titled, words)
    words.dtype = "float32"
    with pytest.raises(StoreError, match="other texts"):
        extract(tmp_path, [row | {"title": "two"} for row in rows], words)
    assert extract(tmp_path, titled, words).frame["title"].tolist() == ["one"] * 700


def test_one_writer_at_a_time(tmp_path, rows, words):
    class Waits(type(words)):
        def encode(self, texts, batch_tokens=None, progress=False):
            begun.set()
            assert told.wait(30)
            return super().encode(texts)

    begun, told = threading.Event(), threading.Event()
    first = threading.Thread(target=extract, args=(tmp_path / "a", rows, Waits()))
    first.start()
    assert begun.wait(30)
    with pytest.raises(InUseError, match=f"written by process {os.getpid()} on .*wait"):
        extract(tmp_path / "a", rows, words)
    told.set()
    first.join()
    with only_writer(tmp_path / "a"):  # a whole store is only read
        extract(tmp_path / "a", rows, words).verify()


def test_a_store_stays_the_one_that_was_opened(tmp_path, rows, words, monkeypatch):
    for name, part in (("a", rows[:300]), ("b", rows[300:])):
        extract(tmp_path / name / "store", part, words)
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("HOME", str(tmp_path / "b"))
    store = EmbeddingStore("store")
    monkeypatch.chdir(tmp_path / "b")
    assert store.texts == [row["text"] for row in rows[:300]]
    assert EmbeddingStore("~/store").texts == [row["text"] for row in rows[300:]]
    assert extract("~/other", rows, words).path == tmp_path / "b" / "other"


def test_a_store_of_the_first_format_is_still_read(tmp_path, rows, words):
    store = extract(tmp_path, rows, words)
    lies(tmp_path, lambda m: m.update(version=1), signed=False)
    assert EmbeddingStore(tmp_path).manifest == store.manifest | {"version": 1}
    assert len(extract(tmp_path, rows, words)) == 700
    lies_about = lambda m: m["shards"][1].update(embeddings="00000.npy")
    file = tmp_path / "manifest.json"
    manifest = json.loads(file.read_text())
    lies_about(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(StoreError):
        EmbeddingStore(tmp_path)


def test_files_are_written_whole_and_leftovers_go(tmp_path, monkeypatch):
    write(tmp_path / "a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("saelib.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"
    (tmp_path / ".a.123.part").write_text("half")
    with only_writer(tmp_path):
        assert not (tmp_path / ".a.123.part").exists()
    shutil.rmtree(tmp_path)


def test_rows_without_load_corpus_are_taken_or_named(tmp_path, words):
    assert (
        list(extract(tmp_path / "a", [{"text": "a"}, {"text": "b", "domain": None}], words).frame["domain"])
        == ["all"] * 2
    )
    for corpus in (["a", "b"], pd.DataFrame({"text": ["a"]}), [{"body": "a"}]):
        with pytest.raises(ValueError, match="row 0 .*use load_corpus"):
            extract(tmp_path / "b", corpus, words)


def test_a_corpus_that_does_not_fit_on_the_disk_is_refused(tmp_path, rows, words, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    need = 700 * bytes_per_text(rows[:128], {"d_in": 48, "dtype": "float16"})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(0.9 * need)))
    with pytest.raises(StoreError, match="GB free.*another folder"):
        EmbeddingStore.extract(tmp_path / "a", rows, words, shard_rows=128, progress=False)
    assert not words.seen, "before anything is embedded"
    store = EmbeddingStore.extract(tmp_path / "a", iter(rows), words, shard_rows=128, progress=False)
    assert len(store) == 700, "nobody knows how long a stream is"
    written = sum(file.stat().st_size for file in (tmp_path / "a").glob("0*"))
    assert 0.8 < written / need < 1.25
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**15))
    monkeypatch.setattr("saelib.shards.bytes_per_text", lambda *_: 10**9)
    EmbeddingStore.extract(tmp_path / "b", rows, words, shard_rows=128)
    assert "about 700.0 GB" in capsys.readouterr().out


def test_texts_are_read_by_the_same_rows_as_embeddings(tmp_path, rows, words):
    mask = np.arange(700) % 7 == 2
    for _ in range(2):  # of a frame that is in memory, and of one that is not
        store = extract(tmp_path, rows, words)
        if _:
            store.frame  # noqa: B018
        for form in (mask, list(mask), np.flatnonzero(mask), range(2, 700, 7), slice(2, None, 7)):
            assert list(store.read_frame(form).text) == [row["text"] for row in rows[2::7]]
        assert len(store.read_frame(None)) == 700
        assert list(store.read_frame([]).columns) == ["text", "domain"] and not len(store.read_frame([]))
        for bad, kind in ((-1, IndexError), (700, IndexError), (1.5, ValueError)):
            with pytest.raises(kind):
                store.read_frame([bad])


def test_titles_of_any_kind_keep_articles_together(tmp_path, words):
    article = np.arange(200) // 4
    kinds = {
        "numbers": lambda i: int(article[i]),
        "floats": lambda i: float(article[i]),
        "spaces": lambda i: f"a{article[i]}" + " " * (i % 2),
        "accents": lambda i: ("\u00e9", "e\u0301")[i % 2] + str(article[i]),
    }
    for kind, title in kinds.items():
        corpus = [{"text": f"t {i}", "title": title(i), "domain": "e\u0301 "} for i in range(200)]
        store = extract(tmp_path / kind, corpus, words)
        train, test = store.split()
        assert not set(article[train]) & set(article[test]), kind
        assert set(store.frame.domain) == {"\u00e9"}


def test_a_split_without_one_side_is_refused_and_a_large_group_is_said(tmp_path, rows, words):
    store = extract(tmp_path / "a", rows, words)
    for share in (1e-6, 1 - 1e-6):
        with pytest.raises(ValueError, match="leaves a side empty"):
            store.split(share)
    one = [row | {"title": f"t{max(0, i - 670)}"} for i, row in enumerate(rows)]
    store = extract(tmp_path / "b", one, words)
    with pytest.warns(UserWarning, match="are held out"):
        for seed in range(20):
            store.split(seed=seed)


def test_an_encoder_whose_arrays_lie_by_columns(tmp_path, rows, words):
    class Columns(type(words)):
        def encode(self, texts, batch_tokens=None, progress=False):
            return np.asfortranarray(super().encode(texts).astype(np.float16))

    assert extract(tmp_path / "a", rows, Columns()).manifest == extract(tmp_path / "b", rows, words).manifest


def test_what_is_no_encoder_or_no_number_is_named(tmp_path, rows, words):
    for bad in (len, None, "all-MiniLM-L6-v2"):
        with pytest.raises(TypeError, match="is no Encoder.*load_encoder"):
            extract(tmp_path, rows, bad)
    words.d_in, words.name = np.int64(48), tmp_path
    store = extract(tmp_path / "a", rows, words)
    for settings in ({"skip": -1}, {"skip": 1.5}, {"batch_size": True}, {"buffer_rows": "9"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            next(store.batches(**{"batch_size": 32} | settings))
    for settings in ({"overwrite": "no"}, {"shard_rows": 2.5}, {"shard_rows": True}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            extract(tmp_path / "b", rows, words, **settings)
