"""What can be expected of a corpus, said before anything is computed: `check_corpus`."""

from __future__ import annotations

import pandas as pd
from datasets import Dataset

from saelib.encoder import Encoder
from saelib.naming.language import guess_language
from saelib.training import suggest_size

FEWEST = 100  # of these a sixth is held out, and a name needs some texts that show it


def check_corpus(corpus: Dataset, encoder: Encoder, language: str = "english") -> pd.DataFrame:
    """How many texts, copies, which language, how long, and what size of SAE they are enough for.

    Args:
        corpus: what `load_corpus` gives. language: the one that its names are to be made for.

    Returns:
        One row per check: `found`, and `advice`, empty where all is well.

    Raises:
        ValueError: fewer than 100 texts.
    """
    texts = list(corpus["text"])
    if len(texts) < FEWEST:
        raise ValueError(
            f"{len(texts)} texts are too few for features: {FEWEST} at least, 3,000 for names to rely on. "
            "Long texts can be split into sentences or paragraphs, a row each"
        )
    checks = (
        ("texts", *_size(len(texts), encoder.d_in)), ("copies", *_copies(texts)),
        ("language", *_language(texts, language)), ("length", *_length(texts, encoder)),
        ("domains", *_domains(corpus)),
    )  # fmt: skip
    return pd.DataFrame(checks, columns=["check", "found", "advice"]).set_index("check")


def _size(n: int, d_in: int) -> tuple[str, str]:
    d_sae, k = suggest_size(n, d_in)
    advice = ""
    if n < 3000:
        advice = (
            "few: expect broad features, several without a name, and names that are judged on "
            f"{n // 6} texts. 3,000 texts or more make it better; so do sentences instead of long texts"
        )
    return f"{n:,} texts, enough for {d_sae} features, {k} of them active in a text", advice


def _copies(texts: list[str]) -> tuple[str, str]:
    copies = len(texts) - len({text.strip() for text in texts})
    advice = (
        "drop them (drop_duplicates): they make features about one text" if copies > len(texts) / 50 else ""
    )
    return f"{copies:,} of {len(texts):,} repeat another text", advice


def _language(texts: list[str], language: str) -> tuple[str, str]:
    found = guess_language(texts)
    if found is None:
        return "not recognised", "say the language; without it the stop words and stems are English"
    if found == language:
        return found, ""
    return found, (
        f"names are made for {language}: language={found!r} has its stop words and stems. "
        "all-MiniLM-L6-v2 knows English only: take a multilingual encoder for other languages"
    )


def _length(texts: list[str], encoder: Encoder) -> tuple[str, str]:
    """Tokens of at most 2,000 texts, evenly."""
    if not callable(getattr(getattr(encoder, "model", None), "tokenizer", None)):
        return "not known: this encoder does not count tokens", ""
    some, limit = texts[:: len(texts) // 2000 + 1], encoder.model.max_seq_length
    tokens = pd.Series([len(ids) for ids in encoder.model.tokenizer(some, truncation=False)["input_ids"]])
    found = f"{tokens.median():.0f} tokens in the middle, {tokens.max():,} at most; the encoder reads {limit}"
    cut = (tokens > limit).mean() if limit else 0.0
    advice = f"{cut:.0%} are cut: split them into paragraphs or sentences" if cut > 0.02 else ""
    if not advice and tokens.median() < 5:
        advice = "very short: there is little for a feature to be about"
    return found, advice


def _domains(corpus: Dataset) -> tuple[str, str]:
    counts = pd.Series(corpus["domain"]).value_counts()
    if len(counts) == 1:
        return "none", ""
    advice = "" if len(counts) <= 30 else "many: the browser's colours tell few of them apart"
    return f"{len(counts)}, the largest {counts.index[0]!r} with {counts.iloc[0]:,}", advice
