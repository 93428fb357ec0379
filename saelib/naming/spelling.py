"""Which word of a text carries a feature, and what such words share besides a meaning: letters, numbers."""

from __future__ import annotations

import re

import numpy as np
import torch
from scipy.stats import binom
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from saelib.encoder import MARKS, Encode
from saelib.naming.language import stem
from saelib.sae import SAE

LETTERS = rf"[^\W_][^\W_{MARKS}]*(?:[{MARKS}]+[^\W_]*)*"
WORD = re.compile(rf"\d+(?:[.,]\d+)+|{LETTERS}(?:['’.\-]{LETTERS})*")


def content_words(text: str) -> list[str]:
    """The words and numbers of a text, as they stand, without stop words."""
    return [w for w in WORD.findall(text) if w.lower() not in ENGLISH_STOP_WORDS]


@torch.no_grad()
def carrying_words(
    sae: SAE, encode: Encode, texts: dict[int, list[str]], max_words: int = 60
) -> dict[int, list[tuple[str, float]]]:
    """Feature → for each of its texts the word it answers to most, alone, and its pre-activation.

    The distinct words of all texts are encoded in one call: about a tenth of the work of leaving each word
    out of each text in turn, which nearly always finds the same word. A text of stop words is skipped.
    """
    split = {f: [content_words(t)[:max_words] for t in ts] for f, ts in texts.items()}
    words = sorted({w.lower() for ts in split.values() for t in ts for w in t})
    if not words:
        return {f: [] for f in texts}
    acts = sae.pre_acts(torch.from_numpy(encode(words)).to(sae.W_enc.device)).cpu().numpy()
    place, found = {w: i for i, w in enumerate(words)}, {f: [] for f in texts}
    for feature, lists in split.items():
        for candidates in filter(None, lists):
            answers = acts[[place[w.lower()] for w in candidates], feature]
            found[feature].append((candidates[answers.argmax()], float(answers.max())))
    return found


def word_notes(
    texts: dict[int, list[str]], carriers: dict[int, list[tuple[str, float]]], independent: Encode
) -> dict[int, tuple[str, str]]:
    """Feature → ("form" or "spelling", note), where its words are numbers, abbreviations, or share letters.

    Letters count when in 55% of the texts the word begins or ends with them; when four different stems do,
    which the independent encoder does not find alike (mean cosine < 0.4); and when chance would do it less
    than once in 10⁸ (binomial over the stems, at the letters' share among all words of `texts`), as thousands
    of pieces are looked at for each of some hundred features.
    """
    pieces, notes = CountVectorizer(analyzer=ends, binary=True), {}
    pool = sorted({w.lower() for ts in texts.values() for t in ts for w in content_words(t)})
    base = np.asarray(pieces.fit_transform(pool).mean(0)).ravel() if pool else None
    for feature, found in carriers.items():
        words = [w for w, _ in found]
        if note := numbers(words) or abbreviations(words):
            notes[feature] = ("form", note)
            continue
        lower = [w.lower().removesuffix("'s") for w in words]
        words = list({stem(w, "english"): w for w in lower}.values())
        if len(words) < 4:
            continue
        share, count = (np.asarray(pieces.transform(ws).sum(0)).ravel() for ws in (lower, words))
        held = np.flatnonzero((share >= 0.55 * len(lower)) & (count >= 4))
        held = held[binom.sf(count[held] - 1, len(words), base[held]) < 1e-8]
        if not len(held):
            continue
        longest = held[count[held] >= 0.75 * count[held].max()]
        piece = max(pieces.get_feature_names_out()[longest], key=len)
        vectors = independent([w for w in words if piece in ends(w)])
        n = len(vectors)
        if (np.sum(vectors @ vectors.T) - n) / (n * (n - 1)) < 0.4:
            how = "beginning with" if piece.endswith("-") else "ending in"
            notes[feature] = ("spelling", f"words {how} {piece}")
    return notes


def ends(word: str) -> list[str]:
    """The first and the last one to five letters of a word: "st-", "-ing"."""
    sizes = range(1, min(len(word), 5) + 1)
    return [f"{word[:n]}-" for n in sizes] + [f"-{word[-n:]}" for n in sizes]


def numbers(words: list[str]) -> str:
    """Of words, three in five of them with a digit: "numbers between 18 and 33", or years, or "numbers"."""
    digits = [re.search(r"\d+", w.replace(",", ""))[0] for w in words if re.search(r"\d", w)]
    if len(words) < 5 or len(digits) < 0.6 * len(words):
        return ""
    values = np.sort(np.array(digits, dtype=np.float64))
    middle = np.median(values)
    usual = values[(values >= middle / 2) & (values <= middle * 2)]
    if len(usual) < 0.6 * len(values) or usual[0] == usual[-1]:
        return "numbers"
    kind = "years" if usual[0] > 1000 and usual[-1] < 2100 else "numbers"
    return f"{kind} between {usual[0]:.0f} and {usual[-1]:.0f}"


def abbreviations(words: list[str]) -> str:
    """Of words of which four in five are all capitals: "abbreviations such as CCD, CCP, PCD"."""
    capital = [w for w in words if w.isalpha() and w.isupper() and len(w) > 1]
    distinct = list(dict.fromkeys(capital))
    enough = len(words) >= 5 and len(capital) >= 0.8 * len(words) and len(distinct) >= 3
    return "abbreviations such as " + ", ".join(distinct[:3]) if enough else ""
