"""The filters of the table: by domain, kind, family, trust and density. Built when they are opened."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import numpy as np
import pandas as pd

from saelib.browser.controls import AUTO, WRAPPED, html, labelled
from saelib.browser.lookup import Keep
from saelib.browser.notes import Notes
from saelib.browser.render import box, clean, render
from saelib.browser.view import FeatureView


class Filters(w.Box):
    """Menus, and sliders under histograms; `changed` is called when one of them is touched."""

    def __init__(self, view: FeatureView, notes: Notes, changed: Callable[..., None]) -> None:
        self.view, self.notes, self.changed = view, notes, changed
        super().__init__(layout=w.Layout(display="none", **WRAPPED))
        self.add_class("sae-filters")

    def show(self, on: bool) -> None:
        """Open or close; closed ones go on filtering."""
        if not self.children:
            self._build()
        self.layout.display = None if on else "none"

    def _build(self) -> None:
        view, live = self.view, self.view.stats.n_texts > 0
        self.domain = _menu("domain", view.stats.top_domain[live].value_counts())
        self.kind = _menu("kind", view.names.kind.value_counts() if "kind" in view.names else pd.Series())
        families = [("all", -1), *((clean(name, 40), i) for i, name in view.family_menu)]
        self.family = w.Dropdown(options=families, **labelled("230px", description="family"))
        density = np.log10(view.stats.density[live].to_numpy())
        low = float(np.floor(density.min(initial=0) * 10) / 10)
        self.trust, trusts = _brush(view.trust_name, view.trusts[live].to_numpy(), (0, 1), 0.05, ".2f")
        self.density, densities = _brush("density (log10)", density, (low, 0), 0.1, ".1f")
        self.dead = w.Checkbox(description="dead ones too", indent=False, layout=AUTO)
        self.noted = w.Checkbox(description="with a note", indent=False, layout=AUTO)
        menus = [self.domain, self.kind, *([self.family] if view.family_menu else [])]
        for control in (*menus, self.trust, self.density, self.dead, self.noted):
            control.observe(self.changed, "value")
        self.children = [w.VBox(menus), trusts, densities, w.VBox([self.dead, self.noted])]

    def keep(self) -> Keep:
        """What is asked for."""
        if not self.children:
            return Keep()
        of = lambda slider, every: every if slider.value == (slider.min, slider.max) else slider.value
        return Keep(
            self.domain.value, self.kind.value, of(self.trust, (0.0, 1.0)), of(self.density, (-9.0, 0.0)),
            self.dead.value, tuple(self.notes.known()) if self.noted.value else None, self.family.value,
        )  # fmt: skip


def _menu(name: str, counts: pd.Series) -> w.Dropdown:
    options = [("all", ""), *((f"{clean(n, 40)} ({c:,})", str(n)) for n, c in counts.items())]
    return w.Dropdown(options=options, **labelled("230px", description=name))


def _brush(
    title: str, values: np.ndarray, ends: tuple[float, float], step: float, form: str
) -> tuple[w.FloatRangeSlider, w.VBox]:
    """A slider of two ends, and itself under a small histogram."""
    look = {"layout": w.Layout(width="240px"), "style": {"description_width": "0"}, "readout_format": form}
    slider = w.FloatRangeSlider(min=ends[0], max=ends[1], value=ends, step=step, **look)
    counts, _ = np.histogram(values[~np.isnan(values)], bins=30, range=ends)
    bars = np.sqrt(counts / max(counts.max(), 1)).tolist()
    return slider, w.VBox([html(box(render("brush.html", title=title, bars=bars))), slider])
