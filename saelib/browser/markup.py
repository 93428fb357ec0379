"""The small change of the views: harmless text, numbers, tables, bars, colours and the style sheet, as strings of HTML.

Everything that comes from a corpus or a label passes through `safe` or `plain`, so whatever it holds is shown as text.
"""

from __future__ import annotations

import html
import re

import numpy as np

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito
PALETTE = [BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#B8A000", "#808080"]
# invisible, direction-changing, control and half characters
HIDDEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
STYLE = """<style>
.sae{--line:var(--jp-border-color2,#8885);--soft:#8080801f;--bar:#2a8cc8;--brand:var(--jp-brand-color1,#2a8cc8);
font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,inherit);overflow-wrap:anywhere}
.sae *{box-sizing:border-box}.sae h3{margin:2px 0 6px;font-size:21px;line-height:1.25;font-weight:600}
.sae h4{margin:14px 0 6px;font-size:11px;font-weight:600;letter-spacing:.05em;text-transform:uppercase;opacity:.75}
.sae p{margin:4px 0 8px}.sae a{color:inherit;text-decoration-color:var(--brand);text-underline-offset:2px}
.sae table{border-collapse:separate;border-spacing:0;width:100%;table-layout:fixed;margin:0;font-size:13px;border:0}
.sae tr{background:none!important}.sae table td,.sae table th{text-align:left!important}.sae table .n{text-align:right!important}
.sae td,.sae th{padding:0 7px!important;vertical-align:middle;background:none;border:0;box-shadow:inset 0 -1px var(--line);
overflow:hidden;white-space:nowrap;text-overflow:ellipsis;max-width:none}.sae th{font-size:11px;font-weight:600;opacity:.75}
.sae .h30 tr{height:30px}.sae .h44 tr{height:44px}.sae .h64 tr{height:64px}
.sae .n{text-align:right;font-variant-numeric:tabular-nums}.sae .dim{opacity:.72;font-size:12px}.sae .eye{opacity:.75;margin-right:8px}
.sae .two-lines{display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden;white-space:normal;line-height:1.4}
.sae .one-line{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;line-height:1.35}
.sae .b{display:inline-block;height:8px;border-radius:2px;background:var(--bar);vertical-align:middle}
.sae .track{display:block;position:relative;height:8px;border-radius:2px;background:var(--soft)}
.sae .track .b{position:absolute;left:0;top:0}.sae .tick{position:absolute;top:-3px;width:2px;height:14px;background:currentColor}
.sae .bad{display:inline-block;border:1px solid currentColor;border-radius:10px;padding:0 8px;margin:0 4px 0 0;font-size:11px}
.sae .chip{display:inline-block;background:var(--soft);border-radius:4px;padding:1px 7px;margin:0 5px 5px 0}
.sae .tiles{display:flex;flex-wrap:wrap;gap:4px 18px;margin:4px 0 2px}
.sae .tiles b{display:block;font-size:15px;font-weight:600;font-variant-numeric:tabular-nums}
.sae .two{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:0 28px}
.sae mark{color:inherit;border-radius:3px;padding:1px 2px;background:none}.sae .text{font-size:15px;line-height:1.6;margin:2px 0 4px}
.sae svg{max-width:100%;height:auto;display:block}.sae svg text{fill:currentColor;font-size:10px}.sae svg .halo{paint-order:stroke;stroke:Canvas;stroke-width:3px}
.sae .error{border-left:3px solid #D55E00;padding:4px 10px;background:#D55E0022;font-weight:600}
</style>"""


def clean(text: object, limit: int = 60) -> str:
    """One line of text for a widget that shows text as text: cut, with signs for invisible and direction-changing characters."""
    return HIDDEN.sub("�", str(text)[:limit]).replace("\n", " ")


def safe(text: object, limit: int = 400) -> str:
    """Any text as harmless HTML: escaped, cut at `limit`, isolated in its direction, invisible characters shown as signs."""
    text = str(text)
    cut = text[:limit] + ("…" if len(text) > limit else "")
    return f"<bdi>{html.escape(HIDDEN.sub('�', cut), quote=True)}</bdi>"


def plain(text: object, limit: int = 60) -> str:
    """The same for hover texts and attributes, which show HTML or not as they please: escaped, without tags of ours."""
    return html.escape(clean(text, limit), quote=True)


def number(value: float, digits: int = 2) -> str:
    """A number in a column, or a dash where it is absent."""
    return "–" if np.isnan(value) else f"{value:.{digits if abs(value) < 9.995 else digits - 1}f}"


def percent(share: float) -> str:
    """A share with three digits that count."""
    return f"{share:.2%}" if share < 0.0995 else f"{share:.1%}"


def box(content: str) -> str:
    """Content in the frame that `STYLE` is for."""
    return f'<div class="sae">{content}</div>'


def table(
    rows: list[str], height: int, widths: tuple[str, ...], head: tuple[str, ...] = (), none: str = "none"
) -> str:
    """Rows of equal height under fixed columns; a head ending in "#" is right-aligned."""
    cols = "".join(f'<col style="width:{w}">' if w else "<col>" for w in widths)
    titles = "".join(
        f'<th scope="col"{" class=n" if h.endswith("#") else ""}>{h.rstrip("#")}</th>' for h in head
    )
    lines = "".join(rows) or (f'<tr><td colspan="{len(widths)}">{none}</td></tr>' if none else "")
    return f'<table class="h{height}"><colgroup>{cols}</colgroup>{f"<tr>{titles}</tr>" if head else ""}{lines}</table>'


def bar(share: float, colour: str = "", tick: float | None = None) -> str:
    """A share of a track as a bar; `tick` marks another share on it."""
    share, colour = float(np.clip(np.nan_to_num(share), 0, 1)), f";background:{colour}" if colour else ""
    mark = "" if tick is None else f'<span class="tick" style="left:{100 * tick:.1f}%"></span>'
    return (
        f'<span class="track"><span class="b" style="width:{100 * share:.1f}%{colour}"></span>{mark}</span>'
    )


def error(message: str) -> str:
    """A message that says what went wrong, announced by screen readers."""
    return (
        f'<div class="sae"><div class="error" role="alert">{html.escape(HIDDEN.sub("�", message))}</div></div>'
        if message
        else ""
    )
