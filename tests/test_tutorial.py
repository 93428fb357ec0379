"""What the notebooks share: the preset, and SAEs that are trained once."""

import pytest
import torch

import saelib as sl
from saelib.tutorial import Tutorial


def test_the_preset_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("SAELIB_PRESET", "gpu")
    tutorial = sl.start(seed=3)
    assert (tutorial.n_texts, tutorial.steps, tutorial.seed) == (None, 1000, 3)
    assert "preset 'gpu'" in capsys.readouterr().out
    monkeypatch.setenv("SAELIB_PRESET", "tpu")
    with pytest.raises(ValueError, match="'tpu'"):
        sl.start()


def test_an_sae_is_trained_once_and_again_for_other_settings(tmp_path, rows, words, capsys):
    store = sl.EmbeddingStore.extract(tmp_path / "store", rows * 2, words, progress=False)
    tutorial = Tutorial("cpu", torch.device("cpu"), tmp_path, None, 5, 0)
    first = tutorial.train("topk", store)
    again = tutorial.train("topk", store)
    assert torch.equal(first.sae.W_dec, again.sae.W_dec) and capsys.readouterr().out == ""
    other = Tutorial("cpu", torch.device("cpu"), tmp_path, None, 6, 0).train("topk", store)
    assert "with other settings" in capsys.readouterr().out
    assert not torch.equal(first.sae.W_dec, other.sae.W_dec)
    assert torch.equal(sl.load_sae(tmp_path / "saes" / "topk-cpu").W_dec, other.sae.W_dec)


def test_what_is_finished_is_only_read(tmp_path, rows, words, monkeypatch):
    store = sl.EmbeddingStore.extract(tmp_path / "store", rows * 2, words, progress=False)
    tutorial = Tutorial("cpu", torch.device("cpu"), tmp_path, None, 5, 0)
    first = tutorial.train("topk", store)

    def read_only(*_, **__):
        raise PermissionError("Read-only file system")

    monkeypatch.setattr("saelib.files.open", read_only, raising=False)
    monkeypatch.setattr("saelib.files.FileLock", read_only)
    monkeypatch.setattr("saelib.tutorial.FileLock", read_only)
    assert torch.equal(tutorial.train("topk", store).sae.W_dec, first.sae.W_dec)
    sl.EmbeddingStore.extract(tmp_path / "store", rows * 2, words, progress=False)
    with pytest.raises(PermissionError):
        tutorial.train("batchtopk", store)
