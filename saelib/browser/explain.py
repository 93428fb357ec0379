"""What explains a text or a pair: features and their shares, words that carry them, a cosine as a sum, domains side by side.

Numbers only; `views.py` and `pages.py` turn them into HTML.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.stats import false_discovery_control, norm

from saelib.browser.view import FeatureView


def nearest(view: FeatureView, x: np.ndarray, n: int = 5, but: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The n corpus texts nearest to an embedding (rows, cosines), without the row `but`."""
    cosine = view.embeddings @ x
    if but >= 0:
        cosine[but] = -2
    n = min(n, len(cosine) - (but >= 0))
    rows = np.argpartition(-cosine, max(n - 1, 0))[:n]
    rows = rows[np.argsort(-cosine[rows], kind="stable")]
    return rows, cosine[rows]


def word_effects(view: FeatureView, text: str, feature: int, limit: int = 60) -> list[tuple[str, float]]:
    """Leave one word out: (word, fall of the activation without it), for the first `limit` words.

    One pass answers for every feature; it is cached by text.
    """
    if view.encoder is None:
        raise ValueError("word effects need the encoder: pass encoder=… to make_view")
    words = [word[:200] for word in text.split()[:limit]]
    if ("effects", text) not in view.cache:
        without = [" ".join(words[:i] + words[i + 1 :]) or "." for i in range(len(words))]
        view.cache["effects", text] = sparse.csc_matrix(activations(view, [" ".join(words) or ".", *without]))
    acts = view.cache["effects", text][:, feature].toarray().ravel()
    return [(word, float(acts[0] - a)) for word, a in zip(words, acts[1:], strict=True)]


@torch.no_grad()
def activations(view: FeatureView, texts: list[str]) -> np.ndarray:
    """Feature activations of new texts (n, d_sae)."""
    if view.encoder is None:
        raise ValueError("the encoder is not loaded: pass encoder=… to make_view")
    x = torch.from_numpy(view.encoder.encode(texts)).to(view.sae.mean.device)
    return view.sae.encode(x).cpu().numpy()


@torch.no_grad()
def explain(view: FeatureView, x: np.ndarray) -> pd.DataFrame:
    """One embedding (d_in,) as a sum: index feature, `act`, and `share` of ‖x − mean‖² that each part explains.

    share_i = f_i W_dec,i · (x − mean) / (scale ‖x − mean‖²); "bias" and "not explained" complete the sum to exactly 1.
    """
    sae, v = view.sae, torch.from_numpy(np.asarray(x, np.float32)).to(view.sae.mean.device)
    acts, centred = sae.encode(v[None])[0], v - sae.mean
    on, norm2 = torch.nonzero(acts)[:, 0], (centred @ centred).clamp_min(1e-12)
    share = acts[on] * (sae.W_dec[on] @ centred) / sae.scale / norm2
    bias = float(sae.b_dec @ centred / sae.scale / norm2)
    frame = pd.DataFrame(
        {"act": acts[on].cpu().numpy(), "share": share.cpu().numpy()}, index=on.cpu().tolist()
    ).sort_values("act", ascending=False)
    rest = pd.DataFrame(
        {"act": np.nan, "share": [bias, 1 - bias - float(share.sum())]}, index=["bias", "not explained"]
    )
    return pd.concat([frame, rest])


@torch.no_grad()
def cosine_parts(view: FeatureView, x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Why two unit embeddings have their cosine: contributions that add up to it exactly.

    With x = base + Σ f_i d_i + e, d_i = W_dec,i / scale, base = mean + b_dec / scale:
    x·y = Σ_i ½ (f_i d_i·y + g_i d_i·x) + ½ base·(x + y) + ½ (e_x·y + e_y·x).

    Returns:
        index feature (then "common part", "not explained"): `first`, `second` activation, `contribution`.
    """
    sae = view.sae
    v = torch.from_numpy(np.stack([x, y]).astype(np.float32)).to(sae.mean.device)
    f = sae.encode(v)
    on = torch.nonzero((f > 0).any(0))[:, 0]
    d = sae.W_dec[on] / sae.scale
    part = 0.5 * (f[0, on] * (d @ v[1]) + f[1, on] * (d @ v[0]))
    common = 0.5 * float((sae.mean + sae.b_dec / sae.scale) @ (v[0] + v[1]))
    total = float(v[0].double() @ v[1].double())
    frame = pd.DataFrame(
        {
            "first": f[0, on].cpu().numpy(),
            "second": f[1, on].cpu().numpy(),
            "contribution": part.cpu().numpy(),
        },
        index=on.cpu().tolist(),
    )
    frame = frame.sort_values("contribution", key=np.abs, ascending=False)
    rest = [common, total - common - float(part.double().sum())]
    return pd.concat(
        [
            frame,
            pd.DataFrame(
                {"first": np.nan, "second": np.nan, "contribution": rest},
                index=["common part", "not explained"],
            ),
        ]
    )


def domain_contrast(view: FeatureView, first: str, second: str, level: float = 0.05) -> pd.DataFrame:
    """Features over-represented in one domain (or corpus) against another.

    Returns:
        index feature: `share_first`, `share_second`, `log_odds` (effect size, Haldane–Anscombe 0.5 correction) with its 95%
        Wald interval `low`, `high`, and `q`: p of the Wald test after Benjamini–Hochberg over all live features.
    """
    masks = [view.domains == d for d in (first, second)]
    for name, mask in zip((first, second), masks, strict=True):
        if not mask.any():
            raise ValueError(
                f"no text has the domain {name!r}; there are {', '.join(map(str, np.unique(view.domains)[:20]))}"
            )
    on = view.by_text > 0
    a, b = (np.asarray(on[np.flatnonzero(m)].sum(0)).ravel().astype(float) for m in masks)
    n, m = masks[0].sum(), masks[1].sum()
    live = np.flatnonzero(a + b > 0)
    a, b = a[live], b[live]
    odds = np.log((a + 0.5) / (n - a + 0.5)) - np.log((b + 0.5) / (m - b + 0.5))
    error = np.sqrt(1 / (a + 0.5) + 1 / (n - a + 0.5) + 1 / (b + 0.5) + 1 / (m - b + 0.5))
    q = false_discovery_control(2 * norm.sf(np.abs(odds / error)), method="bh")
    z = norm.isf(level / 2)
    frame = pd.DataFrame(
        {
            "share_first": a / n,
            "share_second": b / m,
            "log_odds": odds,
            "low": odds - z * error,
            "high": odds + z * error,
            "q": q,
        }
    )
    return frame.set_index(pd.Index(live, name="feature")).sort_values("log_odds", ascending=False)
