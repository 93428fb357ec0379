"""Parquet for other viewers: the column types that they expect, numbers that add up, hostile texts as text."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_views import view  # noqa: F401 (fixture)

from saelib.browser.atlas import nearest_rows, places
from saelib.browser.exports import write_embedding_atlas, write_latent_scope
from saelib.browser.render import HIDDEN


def test_texts_for_embedding_atlas(view, tmp_path):  # noqa: F811
    xy = np.random.default_rng(0).normal(size=(len(view.texts), 2))
    folder = write_embedding_atlas(view, tmp_path / "out", xy=xy, n_neighbours=5)
    table = pq.read_table(folder / "texts.parquet")
    assert table.column_names == ["text", "projection_x", "projection_y", "domain", "neighbours", "features"]
    assert table.schema.field("neighbours").type == pa.struct(
        {"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())}
    )
    struct = {f.name: f.type for f in table.schema.field("features").type.value_type}
    assert struct["feature"] == struct["source"] == pa.string() and struct["index"] == pa.int32()
    rows = table.to_pylist()
    np.testing.assert_allclose([(row["projection_x"], row["projection_y"]) for row in rows], xy, atol=1e-6)
    assert not any(HIDDEN.search(row["text"]) for row in rows) and "<script>" in rows[0]["text"], (
        "text, not markup"
    )
    for i in (0, 7, 100):
        cosine = view.embeddings @ view.embeddings[i]
        cosine[i] = -2
        near = rows[i]["neighbours"]
        np.testing.assert_allclose(1 - np.array(near["distances"]), np.sort(cosine)[:-6:-1], atol=1e-5)
        assert i not in near["ids"] and near["distances"] == sorted(near["distances"])
        acts = {f["index"]: f["activation"] for f in rows[i]["features"]}
        assert acts == {f: pytest.approx(view.by_text[i, f]) for f in view.by_text[i].indices}
        assert list(acts.values()) == sorted(acts.values(), reverse=True)


def test_features_for_embedding_atlas(view, tmp_path):  # noqa: F811
    folder = write_embedding_atlas(view, tmp_path, xy=np.zeros((len(view.texts), 2)))
    features, texts = (pd.read_parquet(folder / f"{name}.parquet") for name in ("features", "texts"))
    used = {f["feature"] for row in texts.features for f in row}
    assert features.feature.is_unique and set(features.feature) == used, (
        "every name of the texts can be looked up"
    )
    assert 23 not in set(features["index"]), "a dead feature is on no text"
    assert set(features.kind) == {"concept", "unnamed"} and all(len(t) == 2 for t in features.topics)
    counts = pd.Series([f["feature"] for row in texts.features for f in row]).value_counts()
    assert (features.set_index("feature").n_texts == counts.reindex(features.feature)).all()
    labels = pd.read_parquet(folder / "labels.parquet")
    assert list(labels) == ["x", "y", "text", "priority"] and len(labels) == view.named.sum() > 10
    with pytest.raises(ValueError, match=r"a place for each text, not \(3, 2\)"):
        write_embedding_atlas(view, folder, xy=np.zeros((3, 2)))


def test_places_of_texts(view):  # noqa: F811
    ids, cosine = nearest_rows(view.embeddings, 15)
    for n in (15, 3):  # t-SNE, principal components
        xy = places(view.embeddings, ids[:, :n], 1 - cosine[:, :n])
        assert xy.shape == (len(view.texts), 2) and np.isfinite(xy).all()
        apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
        assert np.median(apart[np.arange(len(ids))[:, None], ids[:, :3]]) < np.median(apart), (
            "neighbours lie together"
        )
        np.testing.assert_array_equal(xy, places(view.embeddings, ids[:, :n], 1 - cosine[:, :n]))


def test_labels_for_latent_scope(view, tmp_path):  # noqa: F811
    """Its page reads columns 0, 1, 6 and 7 of each row, and takes row i for feature i."""
    table = pq.read_table(write_latent_scope(view, tmp_path / "features.parquet"))
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert [row[0] for row in rows] == list(range(24))
    assert table.column_names[1] == "max_activation" and table.column_names[6:] == ["label", "order"]
    np.testing.assert_allclose([row[1] * float(view.sae.scale) for row in rows], view.stats["max"], rtol=1e-5)
    assert rows[1][6] == view.labels[1] and rows[23][6] == "(dead)"
    assert sorted(row[7] for row in rows) == pytest.approx(np.linspace(0, 1, 24))
