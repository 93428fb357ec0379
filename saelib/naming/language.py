"""What names depend on in a language: words that say nothing, how words are stemmed, where they end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import NamedTuple

import pandas as pd
import snowballstemmer
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

WORDS = re.compile(r"[^\W\d_]+")
# Thai, Lao, Myanmar, Khmer, Javanese; Chinese characters, kana
HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
UNSPACED = re.compile(f"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua980-\ua9df{HAN}]+")


class Language(NamedTuple):
    """The language of a corpus.

    Attributes:
        stop_words: words that are no names and no part of one; the PyPI package `stop-words` has lists for 30
            languages. stemmer: of snowballstemmer, "german", "spanish", …; what it does not know it leaves as
            it is. tokenizer: a text → its words, for scripts that write no spaces (`jieba.lcut` for Chinese).
    """

    stop_words: frozenset[str] = ENGLISH_STOP_WORDS
    stemmer: str = "english"
    tokenizer: Callable[[str], list[str]] | None = None

    def spaced(self, texts: list[str]) -> list[str]:
        """The texts with a space between any two words."""
        return [" ".join(self.tokenizer(text)) for text in texts] if self.tokenizer else texts


ENGLISH = Language()


def as_language(language: object) -> Language:
    """The `Language` itself; raises ValueError for what is none, with what to write instead."""
    if not isinstance(language, Language):
        raise ValueError(f"a language is language_for({str(language)!r}, texts), or a Language")
    if isinstance(language.stop_words, str) or not isinstance(language.stop_words, Iterable):
        raise ValueError(f"stop_words must be a set of words, not {language.stop_words!r}: see language_for")
    if language.stemmer not in snowballstemmer.algorithms():
        raise ValueError(f"stemmer must be one of {sorted(snowballstemmer.algorithms())}")
    return language


_stemmer = cache(snowballstemmer.stemmer)


@lru_cache(maxsize=1 << 18)
def stem(word: str, stemmer: str) -> str:
    """The word's stem, by the snowballstemmer of that name; pure Python, so each word is stemmed once."""
    return _stemmer(stemmer).stemWord(word)


def check_spaced(texts: list[str]) -> None:
    """Raise ValueError for texts whose words nobody can tell apart without a tokenizer for their script."""
    runs = [run for text in texts[:: len(texts) // 2000 + 1] for run in UNSPACED.findall(text)]
    letters = sum(map(str.isalpha, "".join(texts[:: len(texts) // 2000 + 1])))
    size, words = sum(map(len, runs)), sum(3 if re.match(f"[{HAN}]", run) else 6 for run in runs)
    if size > letters / 2 and size > words:  # more than words of two Chinese characters, or of six letters
        raise ValueError(
            f"these texts write no spaces between words ({runs[0][:9]!r}), and names would be clauses: say "
            "where words end, language=Language(stop_words, tokenizer=…), with a tokenizer for the script "
            "(jieba.lcut for Chinese; fugashi for Japanese, pythainlp for Thai)"
        )


# Of the most frequent words of a language, those that say which it is
COMMON_WORDS = {
    "english": "the of and to is that was for with are this have not which from",
    "german": "der die und das den ist nicht von mit ein eine auf dem auch sich",
    "french": "le les des et est une dans pour qui que pas sur avec au du",
    "spanish": "el los las y que en por con una para del es como pero su",
    "italian": "il di che è per non una della gli con sono del anche nel più",
    "portuguese": "o os e que do da em um uma para não com por mais dos",
    "dutch": "de het een en van dat niet zijn op voor met aan ook te er",
    "swedish": "och att det som en på är av för inte den med till har ett",
    "russian": "и в не на что он как это по но с из у за от",
}


def guess_language(texts: list[str]) -> str | None:
    """The language whose common words make the largest share of (up to 2,000 of) the texts' words.

    None where that is under 5% of the words, as in texts of other languages, or in lists of names.
    """
    some = texts[:: len(texts) // 2000 + 1]
    words = pd.Series(WORDS.findall(" ".join(some).lower()))
    shares = {name: words.isin(common.split()).mean() for name, common in COMMON_WORDS.items()}
    best = max(shares, key=shares.get)
    return best if shares[best] >= 0.05 else None


def language_for(
    name: str, texts: list[str], tokenizer: Callable[[str], list[str]] | None = None
) -> Language:
    """The stemmer and the stop words for a corpus in the language `name` ("german", "french", …).

    The stop words are sklearn's for English. Otherwise they are those of the PyPI package `stop-words` where
    it is installed (do: names are better), a handful of the language's most common ones, and the words that
    stand in more than a third of the texts: a word that common tells no feature from another.

    Args:
        tokenizer: a text → its words, for scripts that write no spaces. With one the language need not be
            among those that snowballstemmer knows (Chinese has nothing to stem).

    Raises:
        ValueError: a language that snowballstemmer does not know; it says which it does.
    """
    if name == "english" and tokenizer is None:
        return ENGLISH
    if name not in snowballstemmer.algorithms() and tokenizer is None:
        raise ValueError(f"language must be one of {sorted(snowballstemmer.algorithms())}, not {name!r}")
    try:
        from stop_words import StopWordError, get_stop_words

        listed = get_stop_words(name)
    except ModuleNotFoundError:
        listed = []
    except StopWordError:  # it knows fewer languages than the stemmer
        listed = []
    stemmer = name if name in snowballstemmer.algorithms() else "english"  # it leaves other scripts alone
    spaced = Language(tokenizer=tokenizer).spaced(texts)
    in_texts = Counter(word for text in spaced for word in set(WORDS.findall(text.lower())))
    common = {word for word, n in in_texts.items() if n > max(len(texts) / 3, 5)}
    stop_words = frozenset(listed) | set(COMMON_WORDS.get(name, "").split()) | common
    return Language(stop_words, stemmer, tokenizer)
