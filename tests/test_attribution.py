"""Attribution: parts that are computed one by one and add up, words left out, domains compared."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from saelib.attribution import cosine_parts, domain_contrast, explain_embedding, word_effects
from saelib.sae import make_sae

ARCHITECTURES = ("vanilla", "topk", "batchtopk", "jumprelu")


@pytest.fixture(params=ARCHITECTURES)
def sae(request, words):
    """An SAE that is not at its start: every term of the sums has a part to play."""
    x = torch.from_numpy(words.encode([f"{w} number{i}" for i in range(40) for w in ("river", "castle")]))
    sae = make_sae(request.param, 48, 24, 4)
    sae.fit_normalizer(x)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for name, value in sae.named_parameters():
            if name in ("b_dec", "b_enc", "W_enc"):
                value += 0.1 * torch.randn(value.shape, generator=generator)
    return sae


def test_shares_add_up_to_one_and_are_what_they_say(sae, words):
    x = words.encode(["river number3 castle"])[0]
    parts = explain_embedding(sae, x)
    assert abs(parts.share.sum() - 1) < 1e-5
    v = torch.from_numpy(x)[None]
    with torch.no_grad():
        acts, centred = sae.encode(v)[0], (v - sae.mean)[0]
        error = (v - sae(v))[0]
        for f in parts.index[:-2]:
            piece = acts[f] * sae.W_dec[f] / sae.scale
            assert abs(parts.share[f] - float(piece @ centred / (centred @ centred))) < 1e-5
        assert abs(parts.share["not explained"] - float(error @ centred / (centred @ centred))) < 1e-5
        assert sorted(parts.index[:-2]) == torch.nonzero(acts)[:, 0].tolist()
    assert parts.act[:-2].is_monotonic_decreasing and abs(parts.share["bias"]) > 1e-4


def test_of_nan_nothing_is_explained(sae):
    x = np.full(sae.d_in, np.nan, np.float32)
    for explain in (lambda: explain_embedding(sae, x), lambda: cosine_parts(sae, x, x)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            explain()


def test_a_wrong_decoder_breaks_the_sum(words):
    """The sum is a check: with a decode that leaves the bias out it is not 1."""
    sae = make_sae("topk", 48, 24, 4)
    sae.fit_normalizer(torch.from_numpy(words.encode([f"river number{i}" for i in range(40)])))
    with torch.no_grad():
        sae.b_dec += 0.3
    sae.decode = lambda acts: acts @ sae.W_dec / sae.scale + sae.mean
    x, y = words.encode(["river castle", "castle violin"])
    assert abs(explain_embedding(sae, x).share.sum() - 1) > 1e-3
    assert abs(cosine_parts(sae, x, y).contribution.sum() - float(x @ y)) > 1e-3


def test_contributions_add_up_to_the_cosine(sae, words):
    x, y = words.encode(["river number3 castle", "castle violin"])
    parts = cosine_parts(sae, x, y)
    assert abs(parts.contribution.sum() - float(x @ y)) < 1e-5
    assert parts.index[-2:].tolist() == ["common part", "not explained"]
    swapped = cosine_parts(sae, y, x)
    np.testing.assert_allclose(swapped.loc[parts.index].contribution, parts.contribution, atol=1e-6)
    np.testing.assert_allclose(swapped.loc[parts.index]["first"], parts["second"], atol=1e-6)


def test_word_effects_leave_one_out(sae, words):
    found = word_effects(sae, words.encode, "river castle number7")
    assert found.words == ["river", "castle", "number7"]
    with torch.no_grad():
        whole, without = sae.encode(
            torch.from_numpy(words.encode(["river castle number7", "castle number7"]))
        )
    np.testing.assert_allclose(found.effects.toarray()[0], (whole - without).numpy(), atol=1e-5)
    nothing = word_effects(sae, lambda texts: np.zeros((len(texts), 48), np.float32), "")
    assert nothing.words == [""] and nothing.effects.shape == (1, 24)


def test_a_long_text_is_covered_to_its_end(sae, words):
    text = " ".join(f"word{i}" for i in range(130))
    words.seen.clear()
    found = word_effects(sae, words.encode, text)
    assert " ".join(found.words) == text and len(found.words) == 60 and len(words.seen) == 61
    assert found.effects.shape == (60, 24) and found.effects[59].nnz


def table(share, n, seed):
    return (np.random.default_rng(seed).random((n, len(share))) < share).astype(np.float32)


def test_domain_contrast_by_hand():
    on = np.vstack([table([0.2, 0.5, 0.0, 0.0], 90, 0), table([0.1, 0.5, 0.2, 0.0], 110, 1)])
    domains = np.array(["a"] * 90 + ["b"] * 110)
    frame = domain_contrast(sparse.csr_matrix(on), domains, "a", "b")
    assert sorted(frame.index) == [0, 1, 2] and frame.log_odds.is_monotonic_decreasing
    a, b = int(on[:90, 0].sum()), int(on[90:, 0].sum())
    odds = np.log((a + 0.5) / (90 - a + 0.5)) - np.log((b + 0.5) / (110 - b + 0.5))
    error = np.sqrt(1 / (a + 0.5) + 1 / (90.5 - a) + 1 / (b + 0.5) + 1 / (110.5 - b))
    row = frame.loc[0]
    by_hand = odds + 1.959963985 * error * np.array([0, -1, 1])
    np.testing.assert_allclose([row.log_odds, row.low, row.high], by_hand, atol=1e-9)
    assert frame.q.between(0, 1).all() and abs(row.share_first - a / 90) < 1e-12
    with pytest.raises(ValueError, match="no text has the domain 'nowhere'; there are a, b"):
        domain_contrast(sparse.csr_matrix(on), domains, "a", "nowhere")


def test_groups_undo_repetition():
    """Every text four times over is no more evidence than once: with groups the interval stays, without it halves."""
    on = np.vstack([table([0.2, 0.5], 400, 0), table([0.3, 0.5], 400, 1)])
    domains, title = np.repeat(["a", "b"], 400), np.arange(800)
    width = lambda frame: (frame.high - frame.low).sort_index().to_numpy()
    once = width(domain_contrast(sparse.csr_matrix(on), domains, "a", "b"))
    four = sparse.csr_matrix(np.repeat(on, 4, axis=0))
    clustered = domain_contrast(four, np.repeat(domains, 4), "a", "b", np.repeat(title, 4))
    np.testing.assert_allclose(width(clustered), once, rtol=0.02)
    naive = domain_contrast(four, np.repeat(domains, 4), "a", "b")
    np.testing.assert_allclose(width(naive), once / 2, rtol=0.02)
    alone = domain_contrast(sparse.csr_matrix(on), domains, "a", "b", title)  # groups of one change nothing
    np.testing.assert_allclose(width(alone), once)


def test_a_text_without_a_group_is_a_group_of_its_own_and_lengths_are_checked():
    acts = sparse.random(80, 6, 0.4, format="csr", random_state=0)
    domains, own = np.array(["a", "b"] * 40), np.arange(80).astype(object)
    want = domain_contrast(acts, domains, "a", "b", own)
    for missing in (None, np.nan, ""):
        groups = own.copy()
        groups[10:] = missing
        pd.testing.assert_frame_equal(domain_contrast(acts, domains, "a", "b", groups), want)
    for wrong in ((domains[:9], None), (domains, own[:9])):
        with pytest.raises(ValueError, match="for 80 texts"):
            domain_contrast(acts, wrong[0], "a", "b", wrong[1])
