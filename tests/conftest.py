"""What all tests share: a small encoder stand-in (deterministic unit vectors from a text's words), and a last word on what was skipped."""

import hashlib

import numpy as np
import pytest


class WordEncoder:
    """A text is the normalised sum of its words' hash vectors: shared words make texts similar."""

    name, dtype, d_in, fingerprint = "words", "float32", 48, "f" * 16

    def __init__(self):
        self.seen = []

    def encode(self, texts, batch_tokens=None, progress=False):
        self.seen += list(texts)
        out = np.zeros((len(texts), self.d_in), np.float32)
        for i, text in enumerate(texts):
            for word in text.lower().replace(".", "").split():
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
                out[i] += np.random.default_rng(seed).normal(size=self.d_in)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture
def words():
    return WordEncoder()


@pytest.fixture
def rows():
    return [{"text": f"text number {i} of group{i % 3}", "domain": f"group{i % 3}"} for i in range(700)]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Notebooks one by one and first, as they take longest; a file's other tests stay together.

    While the first notebook embeds the corpus, which the others then find, the other process tests faults and
    runs the notebooks that have a corpus of their own.
    """
    notebooks = [item for item in items if item.path.suffix == ".ipynb"]
    others = [item for item in items if item not in notebooks]
    own = ("12_scale_up", "11_your_own_texts")
    notebooks[1:] = sorted(notebooks[1:], key=lambda item: item.path.stem not in own)
    for item in notebooks:
        item.add_marker(pytest.mark.timeout(7200))
    for item in others:
        item.add_marker(pytest.mark.xdist_group(item.path.name))
    faults = [item for item in others if item.path.name == "test_faults.py"]
    items[:] = [*notebooks[:1], *faults, *notebooks[1:], *(item for item in others if item not in faults)]


def pytest_terminal_summary(terminalreporter):
    """Say at the end when no browser was there to test in, and how to have those tests run."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    skipped = sum("no chromium" in reason for reason in reasons)
    if skipped:
        terminalreporter.section("browser tests skipped")
        terminalreporter.line(
            f"{skipped} browser test(s) were skipped: there is no Chromium on this machine. To have them run: "
            "apt-get install chromium, or CHROMIUM=/path/to/chromium make test"
        )
