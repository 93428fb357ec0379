"""Corpora, encoder and store: what comes in, what is refused, and that nothing is lost."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from saelib.activations import co_activation
from saelib.corpus import load_corpus, split_sentences
from saelib.encoder import load_encoder
from saelib.store import EmbeddingStore, StoreError, batch_plan


def test_wiki_vital_has_eleven_domains():
    corpus = load_corpus("wiki-vital", unit="summaries", verbose=False)
    assert set(corpus.column_names) >= {"text", "domain"} and len(corpus) > 9000
    assert len(set(corpus["domain"])) == 11
    a, b = (load_corpus("wiki-vital", limit=50, seed=3)["text"] for _ in range(2))
    assert list(a) == list(b)


def test_what_cannot_be_embedded_is_dropped_and_counted(capsys):
    corpus = load_corpus(["good text", "", None, "  ", 7, "another", "…!"])
    assert list(corpus["text"]) == ["good text", "another"]
    printed = capsys.readouterr().out
    assert (
        "dropped 5 of 7" in printed and "2 empty" in printed and "1 missing" in printed and "int" in printed
    )
    with pytest.raises(ValueError, match="no row to embed"):
        load_corpus(["", None])
    with pytest.raises(ValueError, match="no column 'body'"):
        load_corpus(pd.DataFrame({"text": ["a"]}), text_column="body")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_local_files(tmp_path, ending):
    frame = pd.DataFrame({"body": ["one text", "two texts"], "topic": ["a", "b"]})
    file = tmp_path / f"c.{ending}"
    {"parquet": frame.to_parquet, "csv": lambda f: frame.to_csv(f, index=False),
     "jsonl": lambda f: frame.to_json(f, orient="records", lines=True)}[ending](file)  # fmt: skip
    corpus = load_corpus(str(file), text_column="body", domain_column="topic")
    assert corpus.to_list() == [{"text": "one text", "domain": "a"}, {"text": "two texts", "domain": "b"}]


def test_sentences():
    text = "The cat sat on the old mat. Dr. Smith, who was there (in Paris), saw it happen. It was 3.5 m away from the house."
    assert " ".join(split_sentences(text)) == text and len(split_sentences(text)) >= 2


def test_packaged_encoder_is_real_and_unit_norm():
    encoder = load_encoder(device="cpu", dtype=torch.float32)
    v = encoder.encode(["a cat on a mat", "the kitten sat on a rug", "stock market crash", "a cat on a mat"])
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    assert v[0] @ v[1] > v[0] @ v[2] + 0.2 and np.array_equal(v[0], v[3]) and encoder.d_in == 384
    fast = load_encoder(device="cpu").encode(["a cat on a mat"])
    assert fast[0] @ v[0] > 0.999
    plain = encoder.model.encode(["stock market crash"], normalize_embeddings=True)
    np.testing.assert_allclose(plain[0], v[2], atol=1e-5)
    with pytest.raises(ValueError, match="text 1 cannot be embedded"):
        encoder.encode(["fine", ""])


def test_encoding_in_batches_of_tokens_equals_the_plain_library():
    texts = ["river bank " * n for n in (90, 1, 40, 2, 1, 3, 60, 7)] + ["Ein Satz."] * 2
    encoder, told = load_encoder(device="cpu", dtype=torch.float32), []
    vectors = encoder.encode(texts, batch_tokens=64, progress=told.append)
    plain = encoder.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(vectors, plain, atol=2e-6)
    assert sum(told) == len(set(texts))
    encoder.model.tokenizer.padding_side = (
        "left"  # a row alone in its batch keeps its tokens and none of the padding
    )
    np.testing.assert_allclose(
        encoder.encode([texts[i] for i in (0, 2, 3)], batch_tokens=64), vectors[[0, 2, 3]], atol=2e-6
    )


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


def test_streaming_data_set(tmp_path):
    pd.DataFrame(
        {"body": ["one text", "", "three texts"], "topic": ["a", "b", "c"], "x": [1, 2, 3]}
    ).to_parquet(tmp_path / "train.parquet")
    stream = load_corpus(str(tmp_path), text_column="body", domain_column="topic", streaming=True)
    assert list(stream) == [{"text": "one text", "domain": "a"}, {"text": "three texts", "domain": "c"}]


def test_co_activation_by_brute_force():
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.normal(size=(80, 6)), 0) * (rng.random((80, 6)) < 0.5)
    both = co_activation(sparse.csr_matrix(dense)).toarray()
    for i in range(6):
        for j in range(6):
            assert both[i, j] == (0 if i == j else ((dense[:, i] > 0) & (dense[:, j] > 0)).sum())
