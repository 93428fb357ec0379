"""The four SAEs against independent formulas and finite differences; saving; what is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from synthetic import gaussian

from saelib.files import InUseError, only_writer
from saelib.sae import JumpReLUSAE, TopKSAE, VanillaSAE, jump_relu, load_sae, make_sae

ALL = ["vanilla", "topk", "batchtopk", "jumprelu"]


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


def smooth_step(u, eps):
    """The function whose derivative is the rectangle kernel: the step, seen through the estimator."""
    return (u / eps + 0.5).clamp(0, 1)


def test_jumprelu_gradients_are_the_documented_ones():
    eps, shape = 0.3, dict(dtype=torch.float64)
    pre, weight = gaussian(30, 8, **shape), gaussian(30, 8, 5, **shape)
    theta = torch.full((8,), 0.4, **shape, requires_grad=True)
    f, step = jump_relu(pre, theta, eps)
    assert torch.equal(f, pre * (pre > 0.4)) and torch.equal(step, (pre > 0.4).double())
    (step_grad,) = torch.autograd.grad((step * weight).sum(), theta, retain_graph=True)
    (jump_grad,) = torch.autograd.grad((f * weight).sum(), theta)
    h = 1e-6
    ramps = smooth_step(pre - theta - h, eps), smooth_step(pre - theta + h, eps)
    numeric = ((ramps[0] - ramps[1]) / (2 * h) * weight).sum(0).detach()
    torch.testing.assert_close(step_grad, numeric, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(jump_grad, (theta * numeric).detach(), rtol=1e-4, atol=1e-6)
    far = torch.where((pre - 0.4).abs() < 1e-3, pre + 0.01, pre).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: jump_relu(p, theta.detach(), eps)[0], far)


def test_jumprelu_penalises_the_mean_of_the_batch():
    sae = JumpReLUSAE(16, 40, target_l0=3)
    pre = gaussian(50, 40)
    l0 = (pre > 0.5).sum(1).double().mean()
    penalty = sae.activate_in_training(pre)[1]
    assert penalty.item() == pytest.approx(float((l0 / 3 - 1) ** 2), rel=1e-5)


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
    sae.save(tmp_path, fvu=np.float32(0.25), encoder="e")
    assert torch.equal(load_sae(tmp_path).encode(x), sae.encode(x))
    assert load_sae(tmp_path).config() == sae.config()
    assert json.loads((tmp_path / "cfg.json").read_text())["extra"] == {"fvu": 0.25, "encoder": "e"}
    with pytest.raises(ValueError, match="d_in 16.*20"):
        load_sae(tmp_path, d_in=20)
    file = tmp_path / "sae.safetensors"
    good = file.read_bytes()
    for bad in (
        b"",
        good[:-50],
        good[:8],
        good[:-1] + bytes([good[-1] ^ 4]),
        good.replace(b"d_sae", b"d_saf"),
        b"\0" * 999,
    ):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged"):
            load_sae(tmp_path)


def test_weights_and_configuration_are_one_file(tmp_path, monkeypatch):
    TopKSAE(16, 40, 5).save(tmp_path)
    for name in ("write_json", "write"):  # killed between the files, or at the first
        monkeypatch.setattr(f"saelib.sae.{name}", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            TopKSAE(16, 40, 7).save(tmp_path)
        monkeypatch.undo()
        sae = load_sae(tmp_path)
        assert torch.equal(sae.W_dec, TopKSAE(16, 40, sae.k).W_dec)
        TopKSAE(16, 40, 5).save(tmp_path)
    (tmp_path / "cfg.json").write_text("not read")
    assert load_sae(tmp_path).k == 5


def test_what_is_there_already_is_not_written_again(tmp_path):
    sae = TopKSAE(16, 40, 5)
    sae.save(tmp_path)
    with only_writer(tmp_path):  # nor is a read-only folder touched
        sae.save(tmp_path)
        with pytest.raises(InUseError):
            TopKSAE(16, 40, 6).save(tmp_path)


def test_saes_saved_before_there_was_a_digest(tmp_path):
    sae = TopKSAE(16, 40, 5)
    save_file({k: v.contiguous() for k, v in sae.state_dict().items()}, tmp_path / "sae.safetensors")
    with pytest.raises(FileNotFoundError, match=r"cfg.json is missing"):
        load_sae(tmp_path)
    cfg = {"architecture": "topk", "d_in": 16, "d_sae": 40, "k": 5, "extra": {}}
    (tmp_path / "cfg.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(cfg).encode())
    assert load_sae(tmp_path).k == 5
    for change in ({"d_sae": 41}, {"k": 0}, {"k": "5"}, {"kk": 5}, {"architecture": "gated"}):
        (tmp_path / "cfg.json").write_text(json.dumps(cfg | change))
        with pytest.raises(ValueError, match="damaged"):
            load_sae(tmp_path)
    for bad in ("", "[]", "null", "[" * 100_000):
        (tmp_path / "cfg.json").write_text(bad)
        with pytest.raises(ValueError, match="damaged"):
            load_sae(tmp_path)


def test_constructors_do_not_reseed_the_world():
    torch.manual_seed(1)
    a = torch.rand(1)
    torch.manual_seed(1)
    make_sae("jumprelu", 8, 16, 2)
    assert torch.rand(1) == a


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k must be"):
        TopKSAE(8, 16, 17)
    with pytest.raises(ValueError, match="d_sae must be"):
        VanillaSAE(8, 0)
    with pytest.raises(ValueError, match="target_l0"):
        JumpReLUSAE(8, 16, target_l0=20)
    for bad in (2.5, True, "4", None, -1, float("nan")):
        with pytest.raises(ValueError, match="k must be"):
            TopKSAE(8, 16, bad)
        with pytest.raises(ValueError, match="d_sae must be"):
            VanillaSAE(8, bad)
    assert make_sae("topk", np.int64(8), np.int32(16), np.uint8(4)).config() == {
        "d_in": 8,
        "d_sae": 16,
        "k": 4,
    }
    for name in ALL:
        assert make_sae(name, 8, 16, 4).target_l0 == 4
        with pytest.raises(ValueError, match="must be"):
            make_sae(name, 8, 16, 17)
    with pytest.raises(ValueError, match="architecture"):
        make_sae("gated", 8, 16, 2)
    with pytest.raises(ValueError, match=r"\(n, 8\).*another encoder"):
        VanillaSAE(8, 16).encode(torch.zeros(3, 9))


def test_a_good_sae_is_not_overwritten_by_a_broken_one(tmp_path):
    TopKSAE(16, 40, 5).save(tmp_path)
    broken = TopKSAE(16, 40, 5)
    broken.b_dec.data[0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        broken.save(tmp_path)
    load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text("of another SAE")  # what a kill between the two files leaves
    TopKSAE(16, 40, 5).save(tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["k"] == 5


def test_an_sae_that_cannot_be_checked_says_so(tmp_path):
    sae = TopKSAE(16, 40, 5)
    sae.save(tmp_path)
    save_file({k: v.contiguous() for k, v in sae.state_dict().items()}, tmp_path / "sae.safetensors")
    with pytest.warns(UserWarning, match="cannot be checked: save it again"):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu"])
def test_a_target_over_half_of_the_features_is_announced(name):
    with pytest.warns(UserWarning, match="k is 21 of d_sae 40: where k is over half"):
        make_sae(name, 16, 40, 21).start(gaussian(), None)
