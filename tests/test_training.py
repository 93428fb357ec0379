"""Training: planted dictionaries found, targets met, runs resumed bit for bit, sweeps equal to single runs."""

import warnings
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from synthetic import gaussian, planted
from torch.utils._python_dispatch import TorchDispatchMode

from saelib.files import InUseError, only_writer
from saelib.metrics import evaluate, mean_max_cosine
from saelib.sae import BatchTopKSAE, TopKSAE, VanillaSAE, make_sae
from saelib.store import EmbeddingStore
from saelib.trainer import CheckpointError, TrainConfig, Trainer
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


def test_a_cold_start_of_jumprelu_is_cold():
    x, _ = planted(2000)
    config = TrainConfig(steps=100, batch_size=256, target_l0=4, jumprelu_start=0.0)
    trainer = Trainer(make_sae("jumprelu", 32, 96, 4), config, torch.device("cpu"))
    trainer.begin(x, x[:256])
    trainer.step(x[:256])
    assert (trainer.sae.threshold - 0.5).abs().max() <= config.threshold_lr, "not yet where L0 is the target"


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


def test_a_checkpoint_belongs_to_one_run(tmp_path, words, rows):
    store = EmbeddingStore.extract(tmp_path / "s", rows, words, progress=False)
    other = EmbeddingStore.extract(tmp_path / "o", rows[::-1], words, progress=False)
    config, held = TrainConfig(steps=20, batch_size=64, target_l0=4), store.embeddings(slice(0, 50))
    sae = lambda seed=0: make_sae("topk", words.d_in, 96, 4, seed=seed)
    half = {"held_out": held, "rows": np.arange(50, 700), "checkpoint": tmp_path / "k", "progress": False}
    train(sae(), store, config, stop_after=10, **half)
    for change, said in (
        ({"sae": sae(1)}, "other initial weights"),
        ({"sae": make_sae("topk", words.d_in, 97, 4)}, "another SAE"),
        ({"data": other}, "other texts"),
        ({"rows": np.arange(60, 700)}, "other rows"),
        ({"held_out": held + 1e-3}, "other held-out texts"),
        ({"config": replace(config, lr=1e-4)}, "another TrainConfig"),
    ):
        with pytest.raises(CheckpointError, match=f"with .*{said}.*: delete"):
            train(**{"sae": sae(), "data": store, "config": config} | half | change)
    done = train(sae(), store, config, **half)
    assert len(done.history) == 10
    x = torch.from_numpy(store.embeddings())
    tensor = {"checkpoint": tmp_path / "t", "progress": False}
    train(sae(), x, config, stop_after=10, **tensor)
    close = x.clone()
    close[123, 4] += 1e-4  # the mean is as good as equal
    with pytest.raises(CheckpointError, match="other texts"):
        train(sae(), close, config, **tensor)


def test_an_sae_that_a_run_has_begun_goes_on_in_that_run(tmp_path):
    x, config = planted(2000)[0], TrainConfig(steps=20, batch_size=128, target_l0=4)
    whole = train(make_sae("topk", 32, 64, 4), x, config, progress=False).sae
    sae = make_sae("topk", 32, 64, 4)
    train(sae, x, config, checkpoint=tmp_path, stop_after=7, progress=False)
    for _ in range(2):  # as a cell that is run again does
        train(sae, x, config, checkpoint=tmp_path, progress=False)
        assert torch.equal(sae.W_dec, whole.W_dec)
    sae.W_dec.data.roll(1)
    sae.b_enc.data += 1
    with pytest.raises(CheckpointError, match="other initial weights"):
        train(sae, x, config, checkpoint=tmp_path, progress=False)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    x, config = planted(2000)[0], TrainConfig(steps=20, batch_size=128, target_l0=4)
    run = lambda **k: train(make_sae("topk", 32, 64, 4), x, config, checkpoint=tmp_path, progress=False, **k)
    run(stop_after=10)
    file = tmp_path / "checkpoint.safetensors"
    good = file.read_bytes()
    for bad in (b"", good[:3000], good[:-1], good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], b"{}" * 99):
        file.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"damaged.*delete"):
            run()
    save_file({"a": x}, file)
    with pytest.raises(CheckpointError, match="another version's"):
        run()
    file.unlink()
    run()


def test_one_run_writes_a_checkpoint_and_a_finished_one_is_only_read(tmp_path):
    x, config = planted(2000)[0], TrainConfig(steps=20, batch_size=128, target_l0=4)
    run = lambda: train(make_sae("topk", 32, 64, 4), x, config, checkpoint=tmp_path, progress=False)
    with only_writer(tmp_path), pytest.raises(InUseError, match="is being written by process"):
        run()
    first = run()
    with only_writer(tmp_path):
        assert torch.equal(run().sae.W_dec, first.sae.W_dec)


def test_an_interrupt_says_what_is_kept(tmp_path, monkeypatch):
    x, config = planted(2000)[0], TrainConfig(steps=20, batch_size=128, target_l0=4)
    step = Trainer.step

    def stops(trainer, batch):
        if trainer.state["step"] == 15:
            raise KeyboardInterrupt
        step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", stops)
    run = lambda **k: train(make_sae("topk", 32, 64, 4), x, config, progress=False, **k)
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step 15: nothing is kept; .*checkpoint=folder"):
        run()
    with pytest.raises(KeyboardInterrupt, match="nothing is kept yet"):
        run(checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt, match="step 15: step 15 is kept in .*the same call goes on"):
        run(checkpoint=tmp_path, checkpoint_every=5)


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


def test_held_out_embeddings_are_checked_as_training_ones_are():
    x, config = gaussian(300, 8), TrainConfig(steps=2, batch_size=32)
    for bad, said in ((x[:0], "too few"), (x[:1], "all equal"), (torch.where(x > 2, torch.nan, x), "NaN"), (x / 0, "NaN"), (gaussian(9, 7), "d_in 7")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            train(TopKSAE(8, 16, 2), x, config, held_out=bad, progress=False)
        if bad.shape[1] == 8:
            with pytest.raises(ValueError, match=said):
                evaluate(TopKSAE(8, 16, 2), bad)
    x[-1, 0] = torch.inf
    with pytest.raises(ValueError, match="training embeddings hold NaN or infinity"):
        train(TopKSAE(8, 16, 2), x, config, progress=False)


@pytest.mark.parametrize("name", ALL)
def test_few_texts_train_or_are_too_few_whatever_the_seed(name, tmp_path, words):
    rows = [{"text": f"word{i} and word{i % 5}"} for i in range(25)]
    store = EmbeddingStore.extract(tmp_path / "a", rows, words, progress=False)
    for seed in range(5):
        config = TrainConfig(steps=8, batch_size=8, target_l0=2, seed=seed)
        final = train(make_sae(name, words.d_in, 16, 2), store, config, progress=False).final
        assert all(map(np.isfinite, final))
    store = EmbeddingStore.extract(tmp_path / "b", rows[:3], words, progress=False)
    with pytest.raises(ValueError, match="too few texts"):
        train(make_sae(name, words.d_in, 16, 2), store, TrainConfig(batch_size=2), progress=False)


def test_embeddings_come_in_any_form():
    x, config = gaussian(300, 8), TrainConfig(steps=5, batch_size=32, target_l0=2)
    run = lambda data: train(TopKSAE(8, 16, 2), data, config, progress=False).sae.W_dec
    expected = run(x)
    read_only = x.numpy().copy()
    read_only.setflags(write=False)
    for form in (
        x.numpy(),
        read_only,
        pd.DataFrame(x.numpy()),
        x.clone().requires_grad_(),
        x.double(),
        x.tolist(),
    ):
        assert torch.equal(run(form), expected)
    for off in (torch.no_grad(), torch.inference_mode()):
        sae = TopKSAE(8, 16, 2)
        with off:
            assert torch.equal(train(sae, x * 1, config, progress=False).sae.W_dec, expected)
    with torch.inference_mode(), pytest.raises(ValueError, match="make it outside"):
        run(x)
    for bad in (x[0], x[None], x.to(torch.complex64), [["a"]], None, "x"):
        with pytest.raises(ValueError, match="must be embeddings"):
            run(bad)
    for rows, held in ((range(9), None), (range(9), x)):
        with pytest.raises(ValueError, match="rows are those of a store"):
            train(TopKSAE(8, 16, 2), x, config, rows=rows, held_out=held, progress=False)


class NoFloat64(TorchDispatchMode):
    """What Apple's MPS does."""

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        assert not (torch.is_tensor(out) and out.dtype == torch.float64)
        return out


@pytest.mark.parametrize("name", ALL)
def test_no_float64_on_the_device(name):
    with NoFloat64():
        train(
            make_sae(name, 8, 16, 2),
            gaussian(300, 8),
            TrainConfig(steps=8, batch_size=32, target_l0=2),
            progress=False,
        )


def test_numbers_are_checked_where_they_come_in():
    whole = ["steps", "batch_size", "seed", "k_aux", "dead_after", "eval_every"]
    for name in [field.name for field in fields(TrainConfig)]:
        for bad in [float("nan"), float("inf"), -1, "x", [1], *([20.5, True] if name in whole else [])]:
            if (name, bad) == ("clip", float("inf")):
                continue  # never clips
            with pytest.raises(ValueError, match=name):
                TrainConfig(**{name: bad})
    for name in ("steps", "batch_size", "k_aux", "dead_after", "eval_every", "lr", "clip", "target_l0"):
        with pytest.raises(ValueError, match=name):
            TrainConfig(**{name: 0})
    numpys = TrainConfig(
        steps=np.int64(20), lr=np.float32(0.5), batch_size=torch.tensor(32), target_l0=np.int16(2)
    )
    assert numpys == TrainConfig(steps=20, lr=0.5, batch_size=32, target_l0=2)
    x, config = gaussian(300, 8), TrainConfig(steps=4, batch_size=32)
    for name, bad in (
        ("stop_after", 0),
        ("stop_after", 1.5),
        ("checkpoint_every", 0),
        ("checkpoint_every", -3),
    ):
        with pytest.raises(ValueError, match=name):
            train(TopKSAE(8, 16, 2), x, config, progress=False, **{name: bad})
    for sae in (
        VanillaSAE(8, 16),
        make_sae("jumprelu", 8, 16, 2),
    ):  # before the first step, not after the last
        with pytest.raises(ValueError, match="target_l0 must be at most 16, not 20"):
            train(sae, x, replace(config, target_l0=20), progress=False)
    with pytest.raises(ValueError, match="batch_size 301"):
        train(TopKSAE(8, 16, 2), x, replace(config, batch_size=301), progress=False)
    assert train(make_sae("vanilla", 8, 16, 2), x, replace(config, steps=60), progress=False).final.l0 < 3


def test_what_cannot_learn_or_is_not_finite_is_refused():
    x, config = gaussian(300, 8), TrainConfig(steps=4, batch_size=32)
    run = lambda sae, **k: train(sae, x, config, **{"progress": False} | k)
    broken = TopKSAE(8, 16, 2)
    broken.W_enc.data[0, 0] = torch.nan
    frozen = TopKSAE(8, 16, 2).requires_grad_(False)
    for sae, said in (
        (broken, "NaN or infinity"), (frozen, "requires_grad_"), (TopKSAE(8, 16, 2).half(), "float32"), ("topk", "a str is no SAE"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            run(sae)
    for held_out in (x * 1e20, x * 1e-30, x[:1] + torch.tensor([[0.0], [1e-7]]) * 0.1):
        with pytest.raises(ValueError, match="vary by|all equal"):
            run(TopKSAE(8, 16, 2), held_out=held_out)
    with pytest.raises(FloatingPointError):
        train(TopKSAE(8, 16, 2), x, replace(config, lr=1e30), stop_after=3, progress=False)
    with pytest.raises(ValueError, match="twice in the list"):
        train_many([TopKSAE(8, 16, 2)] * 2, x, config, progress=False)


def test_a_run_that_stops_early_gives_back_its_target():
    x, config = planted(2000)[0], TrainConfig(steps=40, batch_size=128, eval_every=40)
    for name in ("batchtopk", "jumprelu"):
        found = train(make_sae(name, 32, 64, 4), x, config, stop_after=15, progress=False)
        assert found.final.l0 == pytest.approx(4, rel=0.15)


def test_more_forms_of_embeddings_and_numbers():
    x, config = (
        gaussian(300, 8),
        TrainConfig(steps=5, batch_size=32, lr=torch.tensor(0.5), clip=np.array(0.5)),
    )
    assert (config.lr, config.clip) == (0.5, 0.5)
    run = lambda data: train(TopKSAE(8, 16, 2), data, config, progress=False).sae.W_dec
    for form in (
        x.flip(0).numpy()[::-1], pd.DataFrame(x.numpy()).astype("Float32"), x.numpy().astype(">f4"), x.numpy().astype(object),
    ):  # fmt: skip
        assert torch.equal(run(form), run(x))
    for bad in (x.to("meta"), x.to_sparse_csr(), np.full((9, 2), "a"), pd.DataFrame({"a": [pd.NA, 1]})):
        with pytest.raises(ValueError, match="must be embeddings"):
            run(bad)
    for name in ("lr", "clip", "warmup", "target_l0"):
        for bad in (True, np.True_, "0.5"):
            with pytest.raises(ValueError, match=name):
                TrainConfig(**{name: bad})
    for bad in ((0,), ("9",), (True,), (1.5,), (9, 0)):
        with pytest.raises(ValueError, match="n_texts|d_in"):
            suggest_size(*bad)
