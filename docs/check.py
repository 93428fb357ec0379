"""What a built site must not have: a link into nothing, anything that a page loads from elsewhere.

    python docs/check.py build/site
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = ("img", "script", "iframe", "source", "video", "audio", "embed")  # what their src names is fetched
ELSEWHERE = re.compile(r"(?:url\(|@import\s+)\s*['\"]?((?:https?:)?//[^'\")\s]+)")
OWN_PLACES = ("feature_browser.html",)  # a page whose script makes what is linked to
LOADING_LINKS = {"stylesheet", "preload", "modulepreload", "icon", "manifest", "prefetch", "preconnect"}


class Page(HTMLParser):
    """Attributes: `links`, addresses to go to; `loads`, those that are fetched; `ids`, places to link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Sort what the tag refers to."""
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and "href" in found:
            loading = set(found.get("rel", "").lower().split()) & LOADING_LINKS
            (self.loads if loading else self.links).append(found["href"])
        if tag in LOADS and "src" in found:
            self.loads.append(found["src"])


def problems(site: Path) -> list[str]:
    """One line for each link into nothing and each file that would be loaded from another host."""
    written = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in written}
    found = [] if pages else [f"no page in {site}"]
    for path, page in pages.items():
        for address, loaded in [(a, False) for a in page.links] + [(a, True) for a in page.loads]:
            parts, where = urlsplit(address), path.relative_to(site.resolve())
            if parts.scheme in ("data", "about", "javascript", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                if loaded:
                    found.append(f"{where} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{where} refers to {address}, which is not there")
            elif (
                parts.fragment
                and target in pages
                and target.name not in OWN_PLACES
                and unquote(parts.fragment) not in pages[target].ids
            ):
                found.append(f"{where} refers to {address}: the page has no such place")
    for path in sorted(site.rglob("*.css")):
        for address in ELSEWHERE.findall(path.read_text("utf-8")):
            found.append(f"{path.relative_to(site)} loads {address}")
    return found


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    pages = len(list(Path(sys.argv[1]).rglob("*.html")))
    print("\n".join(wrong) or f"{pages} pages, every link leads somewhere, nothing is loaded from elsewhere")
    sys.exit(bool(wrong))
