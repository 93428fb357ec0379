"""Training: planted dictionaries found, targets met, runs resumed bit for bit, sweeps equal to single runs."""

import warnings
from dataclasses import replace

import pytest
import torch
from synthetic import gaussian, planted

from saelib.metrics import mean_max_cosine
from saelib.sae import BatchTopKSAE, TopKSAE, VanillaSAE, make_sae
from saelib.trainer import TrainConfig
from saelib.training import suggest_size, train, train_many

ALL = ["vanilla", "topk", "batchtopk", "jumprelu"]


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


def test_a_checkpoint_of_other_texts_is_refused(tmp_path):
    x, config = planted(2000)[0], TrainConfig(steps=20, batch_size=128, target_l0=4)
    train(make_sae("topk", 32, 64, 4), x, config, checkpoint=tmp_path, stop_after=10, progress=False)
    with pytest.raises(ValueError, match="other texts"):
        train(make_sae("topk", 32, 64, 4), x + 1, config, checkpoint=tmp_path, progress=False)


def test_a_sweep_gives_each_member_what_it_gets_alone():
    x, _ = planted(3000)
    config = TrainConfig(steps=80, batch_size=256, eval_every=40, dead_after=500, target_l0=4)
    configs = [config] * 4 + [replace(config, lr=1e-3)]

    def sweep():
        return [make_sae(name, 32, 64, 4, seed=i) for i, name in enumerate(ALL)] + [
            make_sae("topk", 32, 96, 4)
        ]

    together = train_many(sweep(), x, configs, progress=False)
    for sae, c, result in zip(sweep(), configs, together, strict=True):
        alone = train(sae, x, c, progress=False)
        assert alone.history.equals(result.history) and alone.final == result.final
        for a, b in zip(alone.sae.state_dict().values(), result.sae.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_sweep_bad_input():
    x, _ = planted(500)
    with pytest.raises(ValueError, match="one batch_size"):
        train_many(
            [make_sae("topk", 32, 64, 4)] * 2, x, [TrainConfig(batch_size=64), TrainConfig(batch_size=32)]
        )
    with pytest.raises(ValueError, match="at least one SAE"):
        train_many([], x)


def test_bad_training_input_is_named():
    with pytest.raises(ValueError, match="must not be negative"):
        TrainConfig(coefficient=-1)
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


@pytest.mark.parametrize("k", [16, 40])
def test_a_k_that_cannot_be_met_is_announced(k):
    x, config = (
        torch.nn.functional.normalize(gaussian(3000, 32), dim=1),
        TrainConfig(steps=60, batch_size=256),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train(TopKSAE(32, 64, k), x, config, progress=False)
    told = [str(w.message) for w in caught if "over half" in str(w.message)]
    assert len(told) == (k > 32) and (result.final.l0 < 0.97 * k) == (k > 32)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu"])
def test_the_encoder_starts_at_the_scale_that_fits_best(name):
    x, sae = planted(2000)[0], make_sae(name, 32, 256, 8)
    sae.start(x, 8)
    learner = sae.as_batchtopk() if name == "jumprelu" else sae
    errors = []
    for factor in (0.8, 1.25, 1.25):  # 0.8, 1 and 1.25 times the scale it starts at
        sae.W_enc.data *= factor
        errors.append(float(learner.loss(x).recon))
    assert errors[1] < min(errors[0], errors[2])
    assert errors[1] < 0.9 * float(TopKSAE(32, 256, 8).loss(sae.normalize(x)).recon), "and unscaled is worse"
