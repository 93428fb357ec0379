"""The browser's page for the site: the SAE of data/sae on a sample of wiki-vital, as one HTML file.

    python docs/browser_page.py [sentences]

Writes build/browser/page/feature_browser.html, and keeps the embeddings beside it for the
next time.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import saelib as sl  # noqa: E402
from saelib.browser.report import page  # noqa: E402


def main(n: int = 2000) -> None:
    """Embed, read with the SAE, write."""
    out, encoder = ROOT / "build" / "browser", sl.load_encoder()
    sae, names, about = sl.from_pretrained(ROOT / "data" / "sae")
    if about["fingerprint"] != encoder.fingerprint:
        sys.exit(f"data/sae is of encoder {about['fingerprint']}, the one installed is {encoder.fingerprint}")
    corpus = sl.load_corpus(about["corpus"], limit=n, seed=0)
    store = sl.EmbeddingStore.extract(out / f"store-{n}", corpus, encoder, progress=False)
    view = sl.make_view(sae, sl.read_texts(sae, store), names, folder=out, corpus=about["corpus"])
    (out / "page").mkdir(exist_ok=True)
    (out / "page" / "feature_browser.html").write_text(page(view), "utf-8", errors="replace")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
