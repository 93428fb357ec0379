"""The sparse step is the dense formula, and its selections are the exact ones."""

import numpy as np
import pytest
import torch
from synthetic import gaussian

from saelib import sparse_step
from saelib.sae import TopKSAE, make_sae
from saelib.sparse_step import loss_function, select
from saelib.trainer import TrainConfig
from saelib.training import train


@pytest.mark.parametrize("norms", [1.0, 0.7])
@pytest.mark.parametrize("name", ["vanilla", "topk", "batchtopk", "jumprelu", "jumprelu, warm"])
def test_the_sparse_step_is_the_dense_formula(name, norms, monkeypatch):
    """Loss and every gradient, AuxK's among them, to 1e-10 in float64; decoder rows of any norm."""
    monkeypatch.setattr(sparse_step, "DENSE", 1)
    x, grads, losses = gaussian(64, 16, dtype=torch.float64), [], []
    for sparse in (True, False):
        sae = make_sae(name.split(",")[0], 16, 40, 5).double()
        sae.b_enc.data = 0.3 * gaussian(1, 40, 2, dtype=torch.float64)[0]
        sae.W_dec.data[3:] *= norms
        learner = sae.as_batchtopk() if name == "jumprelu, warm" else sae  # the first half of its run
        learner.b_enc.data[:3] = -0.5  # seldom chosen, and positive: AuxK has something to say
        compute = loss_function(learner) if sparse else learner.loss
        loss = compute(x, 0.3, torch.tensor([0, 1, 2]), 8, 1 / 32)
        loss.total.backward()
        losses.append([loss.total.detach(), loss.recon, loss.l0.double(), loss.aux, loss.active])
        learnt = {n: p.grad for n, p in sae.named_parameters() if n != "threshold" or name == "jumprelu"}
        grads.append(learnt)
    assert loss_function(learner) != learner.loss
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-10, check_dtype=False)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-10)
    assert abs(losses[0][3] - 1) > 0.05 and not any(g.is_sparse for g in grads[0].values())
    assert all(g.abs().max() > 1e-6 for g in grads[0].values())
    if isinstance(learner, TopKSAE):
        assert float(losses[0][2]) == pytest.approx(5, rel=0.02)


@pytest.mark.parametrize("name", ["vanilla", "jumprelu"])
def test_where_much_is_active_the_dense_formula_is_taken(name):
    sae, x = make_sae(name, 16, 40, 5), gaussian(64, 16)
    assert select(sae, x) is None  # a fresh one: half of all is positive, a third near its threshold
    loss = loss_function(sae)(x, 1.0, None, 8, 0.0)
    torch.testing.assert_close(loss.total, sae.loss(x, 1.0, None, 8, 0.0).total)
    sae.b_enc.data -= 2.0
    assert len(select(sae, x)[2]) < 64 * 40 / 8


@pytest.mark.parametrize("d_sae", [2048, 4096, 3000, 2049])
@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_selection_is_the_exact_one(name, d_sae):
    sae, z = make_sae(name, 64, d_sae, 32), gaussian(256, 64)
    sae.b_enc.data -= 0.5
    exact = sae.activate_in_training(z @ sae.W_enc + sae.b_enc)[0]
    crow, cols, values = select(sae, z)
    found = torch.sparse_csr_tensor(crow, cols, values, exact.shape, check_invariants=True).to_dense()
    assert ((exact > 0) & (found > 0)).sum() >= 0.999 * (exact > 0).sum()
    assert len(values) == (exact > 0).sum()
    same = (exact > 0) & (found > 0)
    torch.testing.assert_close(found[same], exact[same], atol=1e-5, rtol=1e-5)


def test_where_fewer_than_k_are_positive_the_positive_ones_are_kept():
    sae, z = TopKSAE(16, 40, 30), gaussian(64, 16)
    crow, cols, values = select(sae, z)
    positive = (z @ sae.W_enc > 0).sum(1).clamp(max=30)
    assert torch.equal(crow.diff().long(), positive) and positive.min() < 20
    sae.b_enc.data -= 100
    assert len(select(sae, z)[2]) == 0 and torch.isfinite(loss_function(sae)(z, 0.0, None, 8, 0.0).total)


@pytest.mark.parametrize("name", ["vanilla", "topk", "batchtopk", "jumprelu"])
def test_wide_dictionaries_train_too(name):
    """From d_sae 2048 on TopK screens in bfloat16 where the CPU has it; nobody else may be given such pre-activations."""
    x = torch.nn.functional.normalize(torch.randn(600, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    result = train(
        make_sae(name, 16, 2048, 4), x, TrainConfig(steps=4, batch_size=64, target_l0=4), progress=False
    )
    assert result.final.l0 == pytest.approx(4, rel=0.5) and np.isfinite(result.final.fvu)
