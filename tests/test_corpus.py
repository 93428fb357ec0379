"""Corpora: what comes in, what is dropped and counted, what is refused."""

import pandas as pd
import pytest

from saelib.corpus import load_corpus, split_sentences


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


def test_streaming_data_set(tmp_path):
    pd.DataFrame(
        {"body": ["one text", "", "three texts"], "topic": ["a", "b", "c"], "x": [1, 2, 3]}
    ).to_parquet(tmp_path / "train.parquet")
    stream = load_corpus(str(tmp_path), text_column="body", domain_column="topic", streaming=True)
    assert list(stream) == [{"text": "one text", "domain": "a"}, {"text": "three texts", "domain": "c"}]
