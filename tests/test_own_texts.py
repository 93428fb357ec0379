"""A table of texts to a report by one command, the checks on the way, languages by name."""

import csv
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense

from saelib import __main__ as command
from saelib.__main__ import main, parser
from saelib.advice import check_corpus
from saelib.corpus import load_corpus
from saelib.encoder import load_encoder
from saelib.files import InUseError
from saelib.naming.language import ENGLISH, guess_language, language_for
from saelib.sae import load_sae
from saelib.store import EmbeddingStore

TOPICS = {
    "sea": ("The {} sailed along the coast past the lighthouse.", "ship boat ferry yacht trawler canoe"),
    "food": ("She cooked the {} with garlic and olive oil in a pan.", "rice soup stew pasta beans fish"),
    "sky": ("The telescope showed the {} in the dark sky at night.", "moon comet planet star galaxy nebula"),
}


def sentences():
    """144 different texts in three topics."""
    numbers = "two three four five six seven eight nine".split()
    return [
        (f"{form.format(word)} It was seen by {number} people.", topic)
        for topic, (form, words) in TOPICS.items()
        for word in words.split()
        for number in numbers
    ]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(device="cpu")


@pytest.fixture
def table(tmp_path):
    with open(tmp_path / "reviews.csv", "w", newline="") as file:
        csv.writer(file).writerows([("review", "kind"), *sentences(), ("", "sky")])
    return tmp_path / "reviews.csv"


def test_one_command_from_a_table_to_a_report(table, tmp_path, capsys):
    out = tmp_path / "report"
    command = [str(table), "--text-column", "review", "--domain-column", "kind", "--out", str(out)]
    assert main([*command, "--steps", "30"]) == 0
    said = capsys.readouterr().out
    assert "dropped 1 of 145 rows: 1 empty" in said and "few: expect broad features" in said
    assert {"browser.html", "names.parquet", "features.csv", "sae", "store"} <= {
        p.name for p in out.iterdir()
    }
    names = pd.read_parquet(out / "names.parquet")
    assert len(names) > 3 and {"shown_as", "trust", "label"} <= set(names)
    assert (names.label != "").all()
    assert len(EmbeddingStore(out / "store")) == 144


def test_what_is_wrong_is_one_sentence(table, tmp_path, capsys):
    few = tmp_path / "few.txt"
    few.write_text("\n".join(text for text, _ in sentences()[:20]))
    for arguments, said in (
        ([str(few)], "20 texts are too few"),
        ([str(table), "--text-column", "reviews"], "no column 'reviews'"),
        ([str(tmp_path / "none.csv")], "no corpus file"),
        ([str(few), "--language", "klingon", "--limit", "0"], "limit must be at least 1, not 0"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "r")]) == 2
        found = capsys.readouterr().err
        assert found.startswith("saelib: ") and said in found and found.count("\n") == 1


def test_a_folder_in_use_is_one_sentence(monkeypatch, capsys):
    def used(_):
        raise InUseError("r/store is being written")

    monkeypatch.setattr(command, "report", used)
    assert (
        main(["x.csv", "--out", "r"]) == 2 and capsys.readouterr().err == "saelib: r/store is being written\n"
    )


def test_an_encoder_that_counts_no_tokens(words):
    found = check_corpus(load_corpus([f"text number {i}" for i in range(120)]), words)
    assert "not known" in found.found["length"]


def test_a_script_without_spaces_brings_its_tokenizer(capsys):
    """By name on the command line; what it cuts is counted, and its language needs no stemmer."""
    args = parser().parse_args(
        ["x.csv", "--out", "r", "--language", "chinese", "--tokenizer", "builtins:list"]
    )
    language = language_for(args.language, ["猫坐", "狗坐", "鱼坐"] * 10, args.tokenizer)
    assert language.spaced(["猫坐"]) == ["猫 坐"]
    assert "坐" in language.stop_words and "狗" not in language.stop_words
    for wrong in ("builtins", "no_such_module:cut", "builtins:no_such", "builtins:__doc__", ":"):
        with pytest.raises(SystemExit):
            parser().parse_args(["x.csv", "--out", "r", "--tokenizer", wrong])
        assert f"{wrong!r} is no MODULE:FUNCTION" in capsys.readouterr().err


def test_checks_say_what_is_odd(encoder):
    texts = [text for text, _ in sentences()]
    fine = check_corpus(load_corpus(texts * 30, verbose=False), encoder)
    assert fine.advice["language"] == "" and "drop_duplicates" in fine.advice["copies"]
    long = check_corpus(load_corpus([text * 40 for text in texts], verbose=False), encoder)
    assert "100% are cut" in long.advice["length"] and long.found["copies"].startswith("0 of 144")
    german = ["Die Katze und der Hund sind nicht mit dem Zug gefahren."] * 50 + [
        f"Das ist {i}." for i in range(50)
    ]
    assert "language='german'" in check_corpus(load_corpus(german, verbose=False), encoder).advice["language"]
    with pytest.raises(ValueError, match="99 texts are too few"):
        check_corpus(load_corpus(texts[:99], verbose=False), encoder)


def test_languages_by_name():
    german = ["die katze sitzt und wartet", "die maus läuft und lacht"] * 20 + ["ein hund bellt"] * 60
    found = language_for("german", german)
    assert {"die", "und", "bellt"} <= found.stop_words and found.stemmer == "german"
    assert not {"katze", "maus", "lacht"} & found.stop_words
    assert language_for("english", german) is ENGLISH
    with pytest.raises(ValueError, match="language must be one of"):
        language_for("klingon", german)
    assert guess_language(["Der Zug und die Bahn sind nicht mit dem Bus zu vergleichen."]) == "german"
    assert guess_language(["Les trains et les bus ne sont pas sur la route avec une voiture."]) == "french"
    assert guess_language(["Xq zz"]) is None


def test_a_list_of_stop_words_is_used_where_there_is_one(monkeypatch):
    module = type(sys)("stop_words")
    module.StopWordError, module.get_stop_words = KeyError, lambda name: {"german": ["oder"]}[name]
    monkeypatch.setitem(sys.modules, "stop_words", module)
    assert "oder" in language_for("german", ["a"]).stop_words
    assert language_for("yiddish", ["a"]).stop_words == frozenset()
    monkeypatch.setitem(sys.modules, "stop_words", None)  # not installed
    assert "oder" not in language_for("german", ["a"]).stop_words


def test_titles_by_another_column(tmp_path, words):
    rows = [{"text": f"text number {i}", "thread": f"t{i // 4}"} for i in range(400)]
    corpus = load_corpus(pd.DataFrame(rows), title_column="thread", verbose=False)
    assert corpus["title"][:5] == ["t0"] * 4 + ["t1"]
    train, test = EmbeddingStore.extract(tmp_path / "s", corpus, words, progress=False).split()
    assert not {i // 4 for i in train} & {i // 4 for i in test}


def test_a_wider_encoder_from_a_folder(table, tmp_path, encoder):
    """768 numbers a text and a prompt, by the same command; the store says whose vectors it holds."""
    wider = Dense(384, 768, activation_function=torch.nn.Identity())
    model = SentenceTransformer(modules=[*encoder.model, wider.to(encoder.dtype)], device="cpu")
    model.prompts, model.default_prompt_name = {"passage": "passage: "}, "passage"
    model.save(str(tmp_path / "wide"))
    found = load_encoder(tmp_path / "wide", device="cpu")
    assert found.d_in == 768 and found.prompt == "passage: " and found.fingerprint != encoder.fingerprint
    command = [str(table), "--text-column", "review", "--encoder", str(tmp_path / "wide"), "--steps", "20"]
    assert main([*command, "--out", str(tmp_path / "r")]) == 0
    store = EmbeddingStore(tmp_path / "r" / "store")
    assert store.d_in == load_sae(tmp_path / "r" / "sae").d_in == 768
    np.testing.assert_allclose(store.embeddings()[:1], found.encode(store.texts[:1]), atol=2e-3)
    with pytest.raises(ValueError, match="choose another folder, or load that encoder"):
        EmbeddingStore(tmp_path / "r" / "store", encoder=encoder)
