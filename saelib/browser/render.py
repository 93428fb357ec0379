"""From data to HTML: Jinja templates that escape whatever they print, and show hidden characters as signs.

Corpus text and names are untrusted. A template cannot forget to escape them: autoescape is on for every
one, and `finalize` replaces characters that hide or reorder text in every value that is printed, attributes
included.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
# control characters, direction overrides, zero width, halves of a pair (joiners stay: emoji need them)
HIDDEN = re.compile(
    "[\u0000-\u0008\u000b-\u000c\u000e-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: object) -> str:
    """Text with a sign for each character that would hide or reorder text; \\r is a line end."""
    return HIDDEN.sub("\ufffd", str(text).replace("\r\n", "\n").replace("\r", "\n"))


def cut(text: object, limit: int) -> str:
    """At most `limit` characters, with … where something is cut."""
    text = str(text)
    return text if len(text) <= limit else text[:limit] + "…"


def clean(text: object, limit: int = 60) -> str:
    """One line of text for a widget that shows text as text."""
    return visible(cut(text, limit)).replace("\n", " ")


def number(value: float, digits: int = 2) -> str:
    """A number in a column, or a dash where it is absent."""
    return "–" if np.isnan(value) else f"{value:.{digits if abs(value) < 9.995 else digits - 1}f}"


def percent(share: float) -> str:
    """A share with three digits that count."""
    return f"{share:.2%}" if share < 0.0995 else f"{share:.1%}"


def _printed(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@functools.cache
def environment() -> Environment:
    """The templates of this folder, escaping by default; an unknown name in a template is an error."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_printed, auto_reload=False,
    )  # fmt: skip
    found.filters |= {
        "cut": cut,
        "number": number,
        "number3": lambda v: number(v, 3),
        "percent": percent,
        "percent1": lambda v: f"{v:.1%}",
        "whole": lambda v: f"{v:.0%}",
        "signed": lambda v: f"{v:+.2f}",
        "signed3": lambda v: f"{v:+.3f}",
        "signed_percent": lambda v: f"{v:+.1%}",
        "width": lambda v: "0.0%" if np.isnan(v) else f"{100 * min(max(v, 0), 1):.1f}%",
    }
    return found


def render(template: str, **data: object) -> Markup:
    """A template of this folder, filled."""
    return Markup(environment().get_template(template).render(data))


@functools.cache
def style(*files: str) -> str:
    """Style sheets of this folder, as text."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in files or ("style.css",))


@functools.cache
def script(*files: str) -> str:
    """Scripts of this folder, as text."""
    return "\n".join((HERE / "static" / name).read_text(encoding="utf-8") for name in files)


def styled(content: Markup | str) -> str:
    """HTML that carries its style sheet, to be shown on its own."""
    return f"<style>{style()}</style>{box(content)}"


def box(content: Markup | str) -> Markup:
    """Content in the frame that the style sheet is for; a plain string is escaped."""
    return Markup('<div class="sae">{}</div>').format(content)


def dim(text: str, role: str = "") -> Markup:
    """A quiet line; `role` "status" is read out by screen readers when it changes."""
    return box(
        Markup('<span class="dim"{}>{}</span>').format(
            Markup(' role="status"') if role else "", visible(text)
        )
    )


def error(message: str) -> Markup | str:
    """A message that says what went wrong, announced by screen readers."""
    return box(Markup('<div class="error" role="alert">{}</div>').format(visible(message))) if message else ""
