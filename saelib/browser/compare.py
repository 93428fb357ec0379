"""Two texts, two features, two domains, side by side, as HTML."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from saelib.attribution import cosine_parts, domain_contrast
from saelib.browser.render import render
from saelib.browser.view import FeatureView


def compare_texts(view: FeatureView, first: str, second: str, n: int = 12) -> Markup:
    """Two texts: shared features, separating ones, and the sum that is their cosine."""
    return compare_embeddings(view, *view.encode([first, second]), n)


def compare_embeddings(view: FeatureView, x: np.ndarray, y: np.ndarray, n: int = 12) -> Markup:
    """The same for two embeddings (d_in,), unit norm."""
    parts = cosine_parts(view.sae, x, y)
    features, rest = parts.iloc[:-2], parts.contribution[-2:]
    one, two = features["first"] > 0, features["second"] > 0
    names = {"shared": one & two, "only in the first": one & ~two, "only in the second": ~one & two}
    groups = []
    for name, which in names.items():
        some = features[which]
        group = {
            "name": name,
            "total": some.contribution.sum(),
            "rows": list(some.head(n).itertuples(name=None)),
        }
        groups.append(group | {"more": max(len(some) - n, 0), "rest": some.contribution[n:].sum()})
    top = max(float(parts.contribution.abs().max()), 1e-9)
    return render(
        "two_texts.html", cosine=float(x @ y), total=parts.contribution.sum(), groups=groups, top=top,
        rest=list(rest.items()), labels=view.labels,
    )  # fmt: skip


def compare_features(view: FeatureView, a: int, b: int, opens: bool = True) -> Markup:
    """Two features: how often together, cosine of their directions, shared examples, and a scatter."""
    one, two = (view.table[:, f].toarray().ravel() for f in (a, b))
    both, some = np.flatnonzero((one > 0) & (two > 0)), np.flatnonzero((one > 0) | (two > 0))
    jaccard = len(both) / max(len(some), 1)
    W = view.sae.W_dec.detach()
    one_, two_ = one / max(one.max(), 1e-9), two / max(two.max(), 1e-9)
    strongest = both[np.argsort(-(one_[both] + two_[both]), kind="stable")[:5]]
    some = some[np.linspace(0, len(some) - 1, min(len(some), 500)).astype(int)]
    return render(
        "two_features.html", a=a, b=b, n=f"{len(both):,}", jaccard=jaccard, cosine=float(W[a] @ W[b]),
        dots=list(zip(one_[some].tolist(), two_[some].tolist(), strict=True)),
        rows=[(float(one[r]), float(two[r]), int(r)) for r in strongest], view=view, opens=opens,
    )  # fmt: skip


def compare_domains(view: FeatureView, first: str, second: str, n: int = 8) -> Markup:
    """The sparse compare: what one domain has more of than the other."""
    frame = domain_contrast(view.by_text, view.domains, first, second, view.groups)
    sure = frame[frame.q < 0.05]
    more, less = sure[sure.log_odds > 0].head(n), sure[sure.log_odds < 0].tail(n)[::-1]
    parts = [(first, list(more.itertuples())), (second, list(less.itertuples()))]
    return render(
        "two_domains.html", n=len(sure), of=len(frame), grouped=view.groups is not None, parts=parts,
        labels=view.labels,
    )  # fmt: skip
