"""Parquet for the viewers of others: embedding-atlas, and Latent Scope's table of labels.

Of embedding-atlas (Ren et al. 2025, https://github.com/apple/embedding-atlas) the column types are those of
its options `--neighbors` and `--features`, which takes two features of one name for one
(and whose queries mistake a column that is named x). Latent Scope
(https://github.com/enjalot/latent-scope) reads its labels by the place of a column, not by its name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saelib.browser import atlas
from saelib.browser.render import clean, visible
from saelib.browser.view import FeatureView
from saelib.files import only_writer, resolved, write

NEIGHBOURS = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])


def write_embedding_atlas(
    view: FeatureView, folder: str | Path, *, xy: np.ndarray | None = None, n_neighbours: int = 15
) -> Path:
    """Write what embedding-atlas opens, without computing anything itself; returns the folder.

    `texts.parquet` has a text a row: `text`, `projection_x`, `projection_y`, `domain`, `neighbours` {ids,
    distances: 1 − cosine} and `features`, strongest first {feature: name and number, source: its kind, index:
    its number, activation}. `features.parquet` has a feature a row (`feature`, `index`, `topics`,
    `description`, `kind`, numbers), `labels.parquet` the names that are shown, each where texts that show it
    lie. In the folder:

        embedding-atlas texts.parquet --text text --x projection_x --y projection_y --neighbors neighbours
            --features features --labels labels.parquet --table features features.parquet

    Their map needs a browser with WebGPU; version 0.22 draws it with WebGL where there is none.

    Args:
        view: from `make_view`. xy: places of the texts (n, 2); None for t-SNE of the neighbours.
        n_neighbours: of each text, by cosine, each pair compared.

    Raises:
        ValueError: xy of another number of texts. InUseError: another process writes there.
    """
    n, folder = len(view.texts), resolved(folder)
    if xy is not None and np.shape(xy) != (n, 2):
        raise ValueError(f"xy must be ({n}, 2), a place for each text, not {np.shape(xy)}")
    ids, cosine = atlas.nearest_rows(view.embeddings, min(n_neighbours, n - 1))
    xy = np.asarray(atlas.places(view.embeddings, ids, 1 - cosine) if xy is None else xy, np.float32)
    names = unique_names(view)
    texts = pa.table({
        "text": [visible(text) for text in view.texts], "projection_x": xy[:, 0], "projection_y": xy[:, 1],
        "domain": [clean(domain) for domain in view.domains],
        "neighbours": pa.array(
            [{"ids": i, "distances": d} for i, d in zip(ids.tolist(), (1 - cosine).tolist(), strict=True)],
            NEIGHBOURS,
        ),
        "features": _features_of_texts(view, names),
    })  # fmt: skip
    with only_writer(folder):
        tables = {"texts": texts, "features": _about(view, names), "labels": _labels(view, xy)}
        for name, table in tables.items():
            _write(folder / f"{name}.parquet", table)
    return folder


def write_latent_scope(view: FeatureView, file: str | Path) -> Path:
    """Write the table of labels that Latent Scope and latent-taxonomy read; returns the file.

    A feature a row, in their order of columns: `feature`, `max_activation`, `x`, `y`, `top10_x`, `top10_y`,
    `label`, `order` (0 to 1, alike beside alike). Activations are those of the folder that `write_sparsify`
    writes for the same SAE, ours divided by its scale. Latent Scope 1.0 runs that folder (`ls-sae
    --checkpoint`); its page, though, fetches labels only from the addresses written in it, of SAEs it knows.
    """
    file = resolved(file)
    centred = view.xy - view.xy.mean(0)
    along = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]  # the map's longest axis
    x, y = (2 * (view.xy - view.xy.min(0)) / np.maximum(np.ptp(view.xy, axis=0), 1e-9) - 1).T
    table = pa.table({
        "feature": np.arange(view.sae.d_sae),
        "max_activation": view.stats["max"].to_numpy(np.float64) / float(view.sae.scale),
        "x": x, "y": y, "top10_x": x, "top10_y": y,
        "label": [clean(label, 200) for label in view.labels],
        "order": along.argsort().argsort() / max(len(along) - 1, 1),
    })  # fmt: skip
    with only_writer(file.parent):
        _write(file, table)
    return file


def unique_names(view: FeatureView) -> list[str]:
    """Of each feature its name as shown and its number, so that no two are the same."""
    return [f"{clean(label, 80)} · {f}" for f, label in enumerate(view.labels)]


def _kinds(view: FeatureView) -> np.ndarray:
    """Of each feature what it is about, "unnamed" where no name is shown."""
    kind = [view.word(f, "kind") or "concept" for f in range(view.sae.d_sae)]
    return np.where(view.named, kind, "unnamed")


def _features_of_texts(view: FeatureView, names: list[str]) -> pa.ListArray:
    """The features of each text, strongest first."""
    table, kinds = view.by_text, _kinds(view)
    row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    order = np.lexsort((-table.data, row))
    f = table.indices[order]
    columns = {
        "feature": pa.array(np.array(names, dtype=object)[f], pa.string()),
        "source": pa.array(kinds[f], pa.string()),
        "index": pa.array(f, pa.int32()),
        "activation": pa.array(table.data[order], pa.float32()),
    }
    structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return pa.ListArray.from_arrays(pa.array(table.indptr, pa.int32()), structs)


def _about(view: FeatureView, names: list[str]) -> pa.Table:
    """A row for each feature that is ever active."""
    stats, live = view.stats, np.flatnonzero(view.stats.n_texts > 0)
    kinds, best = _kinds(view), [visible(view.texts[view.rows[f][0]])[:300] for f in live]
    return pa.table({
        "feature": [names[f] for f in live], "index": live,
        "topics": [sorted({clean(stats.top_domain.iloc[f]), str(kinds[f])}) for f in live],
        "description": [f"strongest in: {text}" for text in best],
        "kind": kinds[live].tolist(), "trust": view.trusts.to_numpy()[live],
        **{name: stats[name].to_numpy()[live] for name in ("n_texts", "density", "max", "mean_active")},
    })  # fmt: skip


def _labels(view: FeatureView, xy: np.ndarray) -> pa.Table:
    """The names that are shown, each at that of its ten strongest texts which is nearest to the others."""
    found = []
    for f in np.flatnonzero(view.named):
        rows = view.rows[f][:10][view.rows[f][:10] >= 0]
        apart = np.linalg.norm(xy[rows][:, None] - xy[rows][None], axis=2).sum(1)
        x, y = xy[rows[apart.argmin()]].tolist()
        weight = float(view.stats.n_texts.iloc[f]) * max(np.nan_to_num(view.trusts.iloc[f]), 0.01)
        found.append({"x": x, "y": y, "text": clean(view.labels[f], 40), "priority": weight})
    columns = {"x": float, "y": float, "text": str, "priority": float}
    frame = pd.DataFrame(found, columns=list(columns)).astype(columns)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _write(file: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)  # snappy, which every reader in a browser knows
    write(file, memoryview(sink.getvalue()))
