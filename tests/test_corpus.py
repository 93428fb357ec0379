"""Corpora: what comes in, what is dropped and counted, what is refused."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow import parquet

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


def written(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_of_a_csv_every_field_is_text_and_only_an_empty_one_is_missing(tmp_path):
    file = written(tmp_path / "x.csv", '\ufefftext,domain\n000123,NA\nnull,007\n"a, ""b""\nc",\n')
    assert load_corpus(file).to_list() == [
        {"text": "000123", "domain": "NA"},
        {"text": "null", "domain": "007"},
        {"text": 'a, "b"\nc', "domain": "all"},
    ]
    file.write_text("text,domain\nNone,nan\n")  # rewritten: nothing is cached
    assert load_corpus(file).to_list() == [{"text": "None", "domain": "nan"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,domain\nfine,a\nhello, world,a\n", "line 3: 3 fields, but 2"),
        ("text,domain\nhello,a,\n", "line 2: 3 fields"),
        ("text,domain\nhello\n", "line 2: 1 field"),
        ('text,domain\nfine,a\n"hello,a\nb,c\n', "line 3: unexpected end"),
        ("text,text\na,b\n", "2 columns 'text'"),
        ("body\na\n", r"no column 'text' in .*\['body'\]"),
        ("text\nUn café\n".encode("cp1252"), "not UTF-8.*save it as UTF-8"),
        ("", "no row to embed"),
    ],
)
def test_a_malformed_csv_is_named_by_its_line(tmp_path, content, said):
    with pytest.raises(ValueError, match=said):
        load_corpus(written(tmp_path / "x.csv", content))


def test_a_path_is_a_path_and_endings_are_read_in_any_form(tmp_path):
    written(tmp_path / "a1.csv", "text\nwrong")
    for name, content in {
        "a[1].csv": "text\nright", "[2024] export/x.CSV": "text\nright", "n.txt": "right\n\n", "t.tsv": "text\tdomain\nright\tall\n",
        "z.csv.gz": gzip.compress(b"text\nright"), "l.jsonl.gz": gzip.compress(b'{"text": "right"}\n'), "a.json": '[{"text": "right"}]',
    }.items():  # fmt: skip
        corpus = load_corpus(written(tmp_path / name, content), verbose=False)
        assert corpus.to_list() == [{"text": "right", "domain": "all"}], name
    assert len(load_corpus(tmp_path / "[2024] export")) == 1
    with pytest.raises(ValueError, match="files of one kind"):
        load_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"damaged.*end-of-stream"):
        load_corpus(written(tmp_path / "b.csv.gz", gzip.compress(b"text\nright")[:-9]))
    with pytest.raises(ValueError, match="line 2"):
        load_corpus(written(tmp_path / "b.jsonl", '{"text": "a"}\n{"text"\n'))
    with pytest.raises(FileNotFoundError, match="no corpus file at"):
        load_corpus("absent.csv")


def test_domains_mean_the_same_from_every_source(tmp_path):
    assert list(
        load_corpus(pd.DataFrame({"text": ["a", "b", "c"], "domain": [2021, None, 2022]}))["domain"]
    ) == ["2021", "all", "2022"]
    missing = [None, np.nan, pd.NA, pd.NaT, "", "<NA>"]
    frame = pd.DataFrame({"text": list("abcdef"), "domain": pd.Series(missing, dtype=object)})
    for source in (frame, frame.to_dict("records")):
        assert set(load_corpus(source)["domain"]) == {"all"}
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["Sports", "World"])})
    labelled = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=kinds)
    labelled.to_parquet(tmp_path / "x.parquet")
    for source in (labelled, tmp_path / "x.parquet"):
        assert list(load_corpus(source, domain_column="label")["domain"]) == ["Sports", "World", "all"]


def test_sources_in_memory():
    texts = ["a text", "b text"]
    for source in (
        pd.Series(texts),
        np.array(texts),
        tuple(texts),
        (t for t in texts),
        load_corpus(texts),
        [{"text": t} for t in texts],
    ):
        assert list(load_corpus(source)["text"]) == texts
    with pytest.raises(ValueError, match=r"one text alone is \[text\]"):
        load_corpus("One lone text, by mistake.")
    for source in (None, 7, b"bytes", {"text": texts}, np.array("x")):
        with pytest.raises(TypeError, match="a corpus is"):
            load_corpus(source)
    with pytest.raises(ValueError) as error:
        load_corpus([{f"column {i}": "x" * 1000 for i in range(500)}] * 300)
    assert len(str(error.value)) < 1000


def test_halves_of_characters_are_replaced_and_markup_is_said(capsys):
    corpus = load_corpus(["half \ud83d emoji", "<p>a&nbsp;b</p>"])
    assert list(corpus["text"])[0] == "half \ufffd emoji"
    printed = capsys.readouterr().out
    assert "1 of 2 texts with half a character" in printed and "1 of 2 texts with HTML" in printed


def test_class_labels_have_names_wherever_they_stand():
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["Sports", "World"])})
    labelled = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=kinds)
    for streaming in (False, True):
        found = load_corpus(labelled.to_iterable_dataset(), domain_column="label", streaming=streaming)
        assert [row["domain"] for row in found] == ["Sports", "World", "all"]


def test_a_stream_of_files_means_the_same_later(tmp_path, monkeypatch):
    written(tmp_path / "a" / "x.jsonl", '{"body": "right"}\n')
    monkeypatch.chdir(tmp_path / "a")
    stream = load_corpus("x.jsonl", text_column="body", streaming=True)
    wrong = load_corpus("x.jsonl", streaming=True)
    monkeypatch.chdir(tmp_path)
    assert [row["text"] for row in stream] == ["right"]
    with pytest.raises(Exception) as error:
        list(wrong)
    assert "no column 'text'" in f"{error.value} {error.value.__cause__}"


def test_files_as_people_leave_them(tmp_path):
    for name, content in {
        "spaces.csv": " caf\u00e9 , kind\nright,k\n", "accents.csv": "cafe\u0301,kind\nright,k\n",
        "blank.csv": "\n\ncaf\u00e9,kind\nright,k\n", "pretty.json": '{\n "caf\u00e9": "right",\n "kind": "k"\n}\n',
    }.items():  # fmt: skip
        for asked in ("caf\u00e9", "cafe\u0301") if name != "pretty.json" else ("caf\u00e9",):
            found = load_corpus(written(tmp_path / name, content), text_column=asked, domain_column="kind")
            assert found.to_list() == [{"text": "right", "domain": "k"}], name
    written(tmp_path / "f" / "a.txt", "right\n")
    written(tmp_path / "f" / "._a.txt", b"\0\5\x16\7Mac OS X")
    assert list(load_corpus(tmp_path / "f")["text"]) == ["right"]
    with pytest.raises(ValueError, match="NUL.*UTF-16.*save it as UTF-8"):
        load_corpus(written(tmp_path / "u.txt", "hello world\n".encode("utf-16-le")))
    with pytest.raises(FileNotFoundError, match="no user's home"):
        load_corpus("~no_such_user/x.csv")


def test_columns_of_tables_as_they_come(tmp_path):
    frame = pd.DataFrame([["right", np.array([1, 2])]])
    assert load_corpus(frame, text_column=0, domain_column=1).to_list() == [
        {"text": "right", "domain": "[1 2]"}
    ]
    with pytest.raises(ValueError, match="2 columns 'text'"):
        load_corpus(pd.DataFrame([["a", "b"]], columns=["text", "text"]))
    for wrong in ({"text_column": ["text"]}, {"text_column": None}, {"domain_column": True}, {"limit": 2.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            load_corpus(["a b"], **wrong)
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    for metadata, domain in ((None, maps), ({"huggingface": "{"}, ["k"])):
        table = pa.table({"text": ["right"], "domain": domain}).replace_schema_metadata(metadata)
        parquet.write_table(table, tmp_path / "x.parquet")
        assert list(load_corpus(tmp_path / "x.parquet")["text"]) == ["right"]


def test_what_is_not_seen_cuts_no_word_in_two():
    texts = [
        "vio\u00adlin ri\u200bver cas\u2060tle\ufeff",
        "\u1780\u17b6\u200b\u1781\u17b6",
        "x: \u2060\u2060.",
    ]
    assert list(load_corpus(texts)["text"]) == ["violin river castle", "\u1780\u17b6 \u1781\u17b6", texts[2]]
