"""What names depend on in a language: words that say nothing, how words are stemmed, where they end."""

from __future__ import annotations

import re
from typing import NamedTuple

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

# Thai, Lao, Myanmar, Khmer, kana, Chinese characters
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")


class Language(NamedTuple):
    """The language of a corpus.

    Attributes:
        stop_words: words that are no names and no part of one; the PyPI package `stop-words` has lists for 30
            languages. stemmer: of snowballstemmer, "german", "spanish", …
    """

    stop_words: frozenset[str] = ENGLISH_STOP_WORDS
    stemmer: str = "english"


ENGLISH = Language()


def check_spaced(texts: list[str]) -> None:
    """Raise ValueError for texts whose words nobody can tell apart without a tokenizer for their script."""
    runs = [run for text in texts[:: len(texts) // 2000 + 1] for run in UNSPACED.findall(text)]
    letters = sum(map(str.isalpha, "".join(texts[:: len(texts) // 2000 + 1])))
    size = sum(map(len, runs))
    if size > letters / 2 and size > 6 * len(runs):
        raise ValueError(
            f"these texts write no spaces between words ({runs[0][:9]!r}), and names would be clauses: put "
            "spaces between the words first, with a tokenizer for the script (jieba for Chinese, fugashi "
            "for Japanese, pythainlp for Thai)"
        )
