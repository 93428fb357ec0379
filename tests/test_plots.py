"""Figures: whole labels, a title, and what colours and numbers are said to mean."""

import numpy as np
import pandas as pd
import pytest

from saelib import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plots.plt.close("all")


def test_a_constant_l0_gets_no_panel():
    history = pd.DataFrame({"step": [0, 10, 20], "fvu": [0.9, 0.5, 0.4], "l0": [8.0, 8.0, 8.0]})
    assert len(plots.training_curves(history, "TopK", 8).axes) == 1
    moving = plots.training_curves(history.assign(l0=[40.0, 12.0, 8.0]), "Vanilla", 8)
    assert len(moving.axes) == 2 and moving.get_suptitle() == "Vanilla"


def test_density_is_in_percent_and_the_dead_are_counted():
    density = np.array([0, 0, 0.001, 0.01, 0.01, 0.1])
    figure = plots.density_ecdf({"TopK": density, "Vanilla": np.full(6, 0.05)}, "title")
    axis = figure.axes[0]
    x, y = axis.lines[0].get_data()
    np.testing.assert_allclose(y[x <= 1.0 + 1e-9].max(), 0.75)  # three of four live ones on at most 1%
    assert axis.get_title() == "title" and axis.get_xscale() == "log"
    assert [t.get_text() for t in axis.get_legend().get_texts()] == [
        "TopK: 2 of 6 never active",
        "Vanilla: 0 of 6 never active",
    ]
    figure.canvas.draw()
    assert "1%" in [t.get_text() for t in axis.get_xticklabels()]


def test_labels_are_whole_and_no_tex():
    name = "a name of $price$ that is very much longer than any line of a figure should be, to its very end"
    figure = plots.bars(pd.Series({name: 1.0, "b": 2.0}), "x", "title")
    shown = figure.axes[0].get_yticklabels()[0].get_text().replace("\n", " ")
    assert shown == name.replace("$", r"\$")
    figure.canvas.draw()  # an unbalanced "$" would raise here


def test_no_two_domains_look_alike():
    names = np.array([f"domain {i:02d}" for i in range(30)])
    figure = plots.domain_map(np.random.default_rng(0).normal(size=(30, 2)), names, "title")
    drawn = figure.axes[0].collections
    colours = [tuple(c.get_facecolor()[0]) for c in drawn]
    looks = {(colour, len(c.get_paths()[0].vertices), c.get_paths()[0].vertices.tobytes())
             for colour, c in zip(colours, drawn, strict=True)}  # fmt: skip
    assert len(set(colours[:12])) == 12 and len(looks) == 30


def test_sentence_features_show_trust_and_quartile():
    frame = pd.DataFrame({"label": ["birds", "war"], "act": [3.0, 1.0], "auroc": [0.99, np.nan]})

    def numbers_and_colours(frame):
        axis = plots.sentence_features({"A sentence.": frame}).axes[0]
        colours = [plots.plt.matplotlib.colors.to_hex(p.get_facecolor()) for p in axis.patches]
        return [t.get_text() for t in axis.texts], colours, axis.get_xlabel()

    texts, colours, label = numbers_and_colours(frame)
    assert {"0.99", "not judged"} <= set(texts) and "AUROC" in label
    assert colours == [plots.BLUES[3], plots.BLUES[0]]
    texts, colours, label = numbers_and_colours(frame.assign(trust=[0.62, 0.1], quartile=[1, 3]))
    assert {"0.62", "0.10"} <= set(texts) and "trust" in label
    assert colours == [plots.BLUES[0], plots.BLUES[2]]


def test_sankey_ribbons_are_as_wide_as_said():
    nodes = [(0, "sky"), (1, "star $x"), (1, "moon"), (2, "sun")]
    figure = plots.sankey(nodes, [(0, 1, 0.5), (0, 2, 0.7), (1, 3, 0.4)], ["64", "256", "1,024"], "title")
    axis = figure.axes[0]
    heights = [bar.get_height() for bar in axis.patches]
    np.testing.assert_allclose(heights, [1.2, 0.5, 0.7, 0.4])
    assert len(axis.collections) == 3 and axis.get_title() == "title"
    figure.canvas.draw()  # "$" in a label is no TeX


def test_text_of_a_corpus_is_text_in_titles_and_legends():
    name = "x" * 31 + "$5" + "y" * 29 + "$"
    domains, xy = np.array(["_in", None, "", name] * 2, dtype=object), np.random.default_rng(0).random((8, 2))
    figures = [plots.domain_map(xy, domains, "Ba$$in"), plots.domain_map(xy, None, "title")]
    shown = [t.get_text().strip() for t in figures[0].axes[0].get_legend().get_texts()]
    assert len(shown) == 4 and {"", "_in", "(none)"} < set(shown)
    figures.append(plots.density_ecdf({"_x": np.ones(2), "Ba$$in": np.ones(3)}, "$_"))
    assert len(figures[-1].axes[0].get_legend().get_texts()) == 2
    figures.append(plots.bars(pd.Series({"a": 1.0}), "x$$", "$_"))
    figures.append(plots.sankey([(0, "a"), (1, "b")], [(0, 1, 1.0)], ["$_", "b"], "$_"))
    for figure in figures:
        figure.canvas.draw()  # what TeX cannot read would raise here
