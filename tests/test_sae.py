"""Numerics of the four SAEs against independent formulas, finite differences and planted dictionaries."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from saelib.metrics import evaluate, mean_max_cosine, neighbour_recall, probe_accuracy
from saelib.sae import BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE, load_sae, make_sae
from saelib.sparse_step import JumpReLUFunction, SparseDecode, StepFunction, batch_topk, screened_topk
from saelib.trainer import TrainConfig
from saelib.training import suggest_size, train, train_many

ALL = ["vanilla", "topk", "batchtopk", "jumprelu"]


def gaussian(n=200, d=16, seed=0, **kw):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), **kw)


def planted(n=12_000, d=32, atoms=64, active=4, seed=0):
    """Sparse sums of known unit atoms: (x (n, d), dictionary (atoms, d))."""
    g = torch.Generator().manual_seed(seed)
    dictionary = torch.nn.functional.normalize(torch.randn(atoms, d, generator=g), dim=1)
    chosen = torch.rand(n, atoms, generator=g).argsort(1)[:, :active]
    weights = torch.rand(n, active, generator=g) + 0.5
    return torch.einsum("nk,nkd->nd", weights, dictionary[chosen]), dictionary


@pytest.mark.parametrize("name", ALL)
def test_forward_is_decode_of_encode_and_rows_do_not_matter_to_each_other(name):
    sae, x = make_sae(name, 16, 40, 5), gaussian()
    sae.fit_normalizer(x)
    if name in ("batchtopk", "jumprelu"):
        sae.calibrate(x, 5)
    assert torch.equal(sae(x), sae.decode(sae.encode(x)))
    assert torch.allclose(sae.encode(x)[:7], sae.encode(x[:7]), atol=1e-5)
    assert (sae.encode(x) >= 0).all()


def test_topk_equals_textbook_formula():
    sae, x = TopKSAE(16, 40, 5), gaussian()
    sae.fit_normalizer(x)
    z = (x.numpy() - x.numpy().mean(0)) * float(sae.scale)
    assert np.isclose((z**2).sum(1).mean(), 16, rtol=1e-4)
    pre = z @ sae.W_enc.detach().numpy() + sae.b_enc.detach().numpy()
    f = np.where(pre >= np.sort(pre, 1)[:, [-5]], np.maximum(pre, 0), 0)
    x_hat = (f @ sae.W_dec.detach().numpy() + sae.b_dec.detach().numpy()) / float(sae.scale) + x.numpy().mean(
        0
    )
    np.testing.assert_allclose(sae(x).detach().numpy(), x_hat, atol=1e-4)


@pytest.mark.parametrize("per_row", [True, False])
def test_sparse_step_equals_dense_formula_in_float64(per_row):
    z = gaussian(64, 16, dtype=torch.float64)
    W = torch.nn.functional.normalize(gaussian(40, 16, 1, dtype=torch.float64), dim=1)
    inputs = [
        W.t().clone().requires_grad_(),
        gaussian(1, 40, 2, dtype=torch.float64)[0].requires_grad_(),
        W.clone().requires_grad_(),
    ]
    target = gaussian(64, 16, 3, dtype=torch.float64)
    pre = z @ inputs[0] + inputs[1]
    if per_row:
        values, cols = pre.detach().topk(5, 1)
        values, cols, rows = values.flatten(), cols.flatten(), torch.arange(64).repeat_interleave(5)
    else:
        values, rows, cols = batch_topk(pre.detach(), 5)
        assert len(values) == 5 * 64 and set(values.tolist()) == set(
            pre.detach().flatten().topk(320).values.tolist()
        )
    mask = torch.zeros_like(pre)
    mask[rows, cols] = 1
    dense = (pre * mask) @ inputs[2]
    sparse = SparseDecode.apply(z, *inputs, values, rows, cols)
    torch.testing.assert_close(sparse, dense, atol=1e-10, rtol=0)
    for a, b in zip(
        torch.autograd.grad((sparse - target).square().sum(), inputs),
        torch.autograd.grad((dense - target).square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu"])
def test_the_dense_step_of_a_gpu_equals_the_sparse_one(name):
    x, grads, losses = gaussian(64, 16), [], []
    for sparse in (True, False):
        sae = make_sae(name, 16, 40, 5)
        sae.warm = True  # JumpReLU's first half
        if not sparse:
            sae.is_sparse_step = lambda device: False
        loss = sae.loss(x, 1.0)
        loss.total.backward()
        losses.append([loss.total.detach(), loss.l0, loss.active])
        grads.append([p.grad for p in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)
    assert float(losses[0][1]) == pytest.approx(5, rel=0.02)


def smooth_step(u, eps):
    """The function whose derivative is the rectangle kernel: the step, seen through the estimator."""
    return (u / eps + 0.5).clamp(0, 1)


def test_jumprelu_gradients_are_the_documented_ones():
    eps = 0.3
    pre, theta = (
        gaussian(30, 8, dtype=torch.float64),
        torch.full((8,), 0.4, dtype=torch.float64, requires_grad=True),
    )
    weight = gaussian(30, 8, 5, dtype=torch.float64)
    (step_grad,) = torch.autograd.grad((StepFunction.apply(pre, theta, eps) * weight).sum(), theta)
    (jump_grad,) = torch.autograd.grad((JumpReLUFunction.apply(pre, theta, eps) * weight).sum(), theta)
    h = 1e-6
    numeric = (
        (smooth_step(pre - theta - h, eps) - smooth_step(pre - theta + h, eps)) / (2 * h) * weight
    ).sum(0)
    torch.testing.assert_close(step_grad, numeric.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(jump_grad, (theta * numeric).detach(), rtol=1e-4, atol=1e-6)
    far = torch.where((pre - 0.4).abs() < 1e-3, pre + 0.01, pre).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: JumpReLUFunction.apply(p, theta.detach(), eps), far)


@pytest.mark.parametrize("name", ALL)
def test_planted_dictionary_is_found_and_target_l0_met(name):
    x, dictionary = planted()
    sae = make_sae(name, 32, 96, 4)
    result = train(sae, x, TrainConfig(steps=1500, batch_size=512, target_l0=4, lr=3e-3), progress=False)
    assert mean_max_cosine(sae.W_dec.detach(), dictionary) >= 0.9
    assert abs(result.final.l0 / 4 - 1) <= 0.1
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(96), atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [16, 40])
def test_vanilla_meets_a_target_that_is_a_large_share_of_d_sae(k):
    x = torch.nn.functional.normalize(
        torch.randn(3000, 32, generator=torch.Generator().manual_seed(0)), dim=1
    )
    result = train(
        make_sae("vanilla", 32, 64, k), x, TrainConfig(steps=200, batch_size=256, target_l0=k), progress=False
    )
    assert result.final.l0 == pytest.approx(k, rel=0.1)
    assert result.history.fvu.max() < 2, "the bias starts within the range of the pre-activations"


def test_training_is_no_worse_than_the_textbook_dense_loop():
    x, _ = planted(6000)
    test, x = x[:1000], x[1000:]
    ours = train(
        make_sae("topk", 32, 96, 4),
        x,
        TrainConfig(steps=400, batch_size=512, target_l0=4),
        held_out=test,
        progress=False,
    )
    mean, scale = x.mean(0), (32 / (x - x.mean(0)).square().sum(1).mean()).sqrt()
    W_dec = torch.nn.functional.normalize(gaussian(96, 32), dim=1).requires_grad_()
    W_enc = W_dec.detach().t().clone().requires_grad_()
    b_enc, b_dec = torch.zeros(96, requires_grad=True), torch.zeros(32, requires_grad=True)
    adam, g = torch.optim.Adam([W_enc, W_dec, b_enc, b_dec], lr=2e-3), torch.Generator().manual_seed(0)

    def reconstruct(z):
        values, idx = (z @ W_enc + b_enc).relu().topk(4, dim=1)
        return torch.zeros(len(z), 96).scatter(1, idx, values) @ W_dec + b_dec

    for _ in range(400):
        z = (x[torch.randint(len(x), (512,), generator=g)] - mean) * scale
        adam.zero_grad()
        (reconstruct(z) - z).square().sum(1).mean().backward()
        adam.step()
        W_dec.data = torch.nn.functional.normalize(W_dec.data, dim=1)
    z = (test - mean) * scale
    textbook = float((reconstruct(z) - z).square().sum() / (z - z.mean(0)).square().sum())
    assert ours.final.fvu <= textbook + 0.005, (ours.final.fvu, textbook)


@pytest.mark.parametrize("name", ALL)
def test_resume_is_bit_for_bit(name, tmp_path):
    x, _ = planted(2000)
    config = TrainConfig(steps=60, batch_size=128, target_l0=4, eval_every=20, dead_after=500)
    whole = train(make_sae(name, 32, 64, 4), x, config, progress=False)
    train(make_sae(name, 32, 64, 4), x, config, checkpoint=tmp_path, stop_after=37, progress=False)
    resumed = train(make_sae(name, 32, 64, 4), x, config, checkpoint=tmp_path, progress=False)
    for key, value in whole.sae.state_dict().items():
        assert torch.equal(value, resumed.sae.state_dict()[key]), key
    assert whole.history.equals(resumed.history)
    with pytest.raises(ValueError, match="another run"):
        train(
            make_sae(name, 32, 64, 4),
            x,
            TrainConfig(steps=61, target_l0=4),
            checkpoint=tmp_path,
            progress=False,
        )


@pytest.mark.parametrize("name", ALL)
def test_wide_dictionaries_train_too(name):
    """From d_sae 2048 on TopK screens in bfloat16 where the CPU has it; nobody else may be given such pre-activations."""
    x = torch.nn.functional.normalize(torch.randn(600, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    result = train(
        make_sae(name, 16, 2048, 4), x, TrainConfig(steps=4, batch_size=64, target_l0=4), progress=False
    )
    assert result.final.l0 == pytest.approx(4, rel=0.5) and np.isfinite(result.final.fvu)


def test_a_resumed_run_knows_which_latents_were_dead(tmp_path):
    x = torch.nn.functional.normalize(
        torch.randn(2000, 32, generator=torch.Generator().manual_seed(0)), dim=1
    )
    config = TrainConfig(steps=32, batch_size=128, target_l0=4, dead_after=100, k_aux=8)
    whole = train(make_sae("topk", 32, 256, 4), x, config, progress=False)
    assert whole.history.dead_train.max() > 0, "the case needs dead latents"
    train(make_sae("topk", 32, 256, 4), x, config, checkpoint=tmp_path, stop_after=23, progress=False)
    resumed = train(make_sae("topk", 32, 256, 4), x, config, checkpoint=tmp_path, progress=False)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.sae.state_dict().values(), resumed.sae.state_dict().values(), strict=True)
    )


def test_aux_loss_gives_gradient_to_dead_latents_only():
    sae, x = TopKSAE(16, 40, 5), gaussian()
    sae.fit_normalizer(x)
    sae.b_enc.data[:3] = -100  # never chosen
    loss = sae.loss(x, 0.0, dead=torch.tensor([0, 1, 2]))
    assert loss.aux > 0.9 and not loss.active[:3].any()
    assert sae.loss(x, 0.0, dead=None).aux == 0


@pytest.mark.parametrize("name", ALL)
def test_save_load(name, tmp_path):
    sae, x = make_sae(name, 16, 40, 5), gaussian()
    sae.fit_normalizer(x)
    sae.save(tmp_path)
    assert torch.equal(load_sae(tmp_path).encode(x), sae.encode(x))
    with pytest.raises(ValueError, match="d_in 16.*20"):
        load_sae(tmp_path, d_in=20)
    file = tmp_path / "sae.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged"):
        load_sae(tmp_path)


def test_constructors_do_not_reseed_the_world():
    torch.manual_seed(1)
    a = torch.rand(1)
    torch.manual_seed(1)
    make_sae("jumprelu", 8, 16, 2)
    assert torch.rand(1) == a


def test_evaluate_by_hand():
    class Half(VanillaSAE):
        def decode(self, f):
            return f

        def encode(self, x):
            return x / 2

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    got = evaluate(Half(2, 2), x)
    assert (round(got.fvu, 6), round(got.cosine, 6), got.l0, got.dead) == (0.5, 1.0, 1.0, 0.0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k must be"):
        TopKSAE(8, 16, 17)
    with pytest.raises(ValueError, match="d_sae must be"):
        VanillaSAE(8, 0)
    with pytest.raises(ValueError, match="target_l0"):
        JumpReLUSAE(8, 16, target_l0=20)
    with pytest.raises(ValueError, match="must not be negative"):
        TrainConfig(coefficient=-1)
    with pytest.raises(ValueError, match="architecture"):
        make_sae("gated", 8, 16, 2)
    with pytest.raises(ValueError, match=r"\(n, 8\).*another encoder"):
        VanillaSAE(8, 16).encode(torch.zeros(3, 9))
    x = gaussian(100, 8)
    with pytest.raises(ValueError, match="d_in 8.*has 16"):
        train(VanillaSAE(8, 16), gaussian(), TrainConfig(), progress=False)
    with pytest.raises(ValueError, match="k is 2"):
        train(TopKSAE(8, 16, 2), x, TrainConfig(target_l0=3), progress=False)
    x[3, 3] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        train(BatchTopKSAE(8, 16, 2), x, TrainConfig(batch_size=32), progress=False)


def test_suggest_size_follows_the_measured_points():
    assert [suggest_size(n) for n in (1_000, 10_000, 27_000, 100_000)] == [
        (64, 4),
        (256, 4),
        (512, 8),
        (1024, 8),
    ]
    assert suggest_size(10**9, d_in=16)[0] == 128  # never more than 8 d_in


def test_screened_selection_is_the_exact_one():
    sae, z = TopKSAE(64, 4096, 32), gaussian(256, 64)
    exact = (z @ sae.W_enc + sae.b_enc).topk(32, dim=1)
    with torch.no_grad():
        estimate = torch.addmm(sae.b_enc.bfloat16(), z.bfloat16(), sae.W_enc.bfloat16())
        values, idx = screened_topk(z, sae.W_enc, sae.b_enc, estimate, sae.k)
    same = [len(set(a.tolist()) & set(b.tolist())) / 32 for a, b in zip(exact.indices, idx, strict=True)]
    assert np.mean(same) > 0.999
    torch.testing.assert_close(values.sort(1).values, exact.values.sort(1).values, atol=2e-3, rtol=1e-3)


def test_a_sweep_gives_each_member_what_it_gets_alone():
    x, _ = planted(3000)
    config = TrainConfig(steps=80, batch_size=256, eval_every=40, dead_after=500)

    def sweep():
        return [
            make_sae(name, 32, d, 4, seed=i)
            for i, (name, d) in enumerate([*((n, 64) for n in ALL), ("topk", 96)])
        ]

    configs = [
        replace(config, target_l0=4),
        *[replace(config, target_l0=4)] * 3,
        replace(config, target_l0=4, lr=1e-3),
    ]
    together = train_many(sweep(), x, configs, progress=False)
    for sae, c, result in zip(sweep(), configs, together, strict=True):
        alone = train(sae, x, c, progress=False)
        assert abs(alone.final.fvu - result.final.fvu) < 0.01 and abs(alone.final.l0 - result.final.l0) < 0.3
        assert result.history.step.tolist() == [40, 80]


def test_the_first_step_of_a_sweep_is_that_of_one():
    x, _ = planted(1000)
    config = TrainConfig(steps=1, batch_size=256, eval_every=1)
    both = train_many(
        [make_sae("topk", 32, 64, 4), make_sae("vanilla", 32, 48, 4)], x, config, progress=False
    )
    for result, alone in zip(
        both, (make_sae("topk", 32, 64, 4), make_sae("vanilla", 32, 48, 4)), strict=True
    ):
        train(alone, x, config, progress=False)
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(
                result.sae.state_dict()[key].float(), value.float(), atol=1e-5, rtol=1e-4
            )


def test_sweep_bad_input():
    x, _ = planted(500)
    with pytest.raises(ValueError, match="one batch_size"):
        train_many(
            [make_sae("topk", 32, 64, 4)] * 2, x, [TrainConfig(batch_size=64), TrainConfig(batch_size=32)]
        )
    with pytest.raises(ValueError, match="at least one SAE"):
        train_many([], x)


def test_neighbour_recall_by_brute_force():
    x, noisy = gaussian(60), gaussian(60) + 0.5 * gaussian(60, seed=1)
    hits = 0
    for i in range(60):
        a, b = (
            [j for j in torch.cosine_similarity(v, v[i][None]).argsort(descending=True).tolist() if j != i][
                :5
            ]
            for v in (x, noisy)
        )
        hits += len(set(a) & set(b))
    assert abs(neighbour_recall(x, noisy, 5) - hits / 300) < 1e-6
    assert neighbour_recall(x, 3 * x, 5) == 1
    with pytest.raises(ValueError, match="lower k"):
        neighbour_recall(x[:5], x[:5], 5)


def test_probe_reads_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[rng.integers(0, 3, 600)]
    x = (y[:, None] == np.array(["a", "b", "c"])) + 0.1 * rng.normal(size=(600, 3))
    assert probe_accuracy(x[:400], y[:400], x[400:], y[400:]) > 0.98
    assert probe_accuracy(rng.normal(size=(400, 3)), y[:400], rng.normal(size=(200, 3)), y[400:]) < 0.5
