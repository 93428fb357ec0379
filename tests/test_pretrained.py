"""SAEs with names to a folder and back, and what the hub is asked; the one that is shipped."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import saelib as sl
from saelib import pretrained

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "sae"


@pytest.fixture
def saved(tmp_path):
    names = pd.DataFrame({"label": ["moon", "rice"], "terms": [["moon"], ["rice"]]}, index=[0, 3])
    sae = sl.make_sae("batchtopk", 6, 5, 2, seed=3)
    sae.threshold.fill_(0.25)
    return (
        sae,
        names,
        sl.save_pretrained(sae, names, tmp_path / "a", "# A card", encoder="e", fingerprint="f"),
    )


def same(found, sae, names):
    for name, tensor in sae.state_dict().items():
        assert torch.equal(found.sae.state_dict()[name], tensor)
    assert list(found.names.label) == list(names.label) and list(found.names.index) == [0, 3]
    assert found.about == {"encoder": "e", "fingerprint": "f"}


def test_there_and_back(saved):
    sae, names, folder = saved
    same(sl.from_pretrained(folder), sae, names)
    assert (folder / "README.md").read_text() == "# A card"
    (folder / "names.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="load_sae reads it alone"):
        sl.from_pretrained(folder)
    (folder / "names.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="damaged"):
        sl.from_pretrained(folder)


def test_names_of_another_sae_are_refused(saved, tmp_path):
    sae, names, _ = saved
    for wrong in (names.set_axis([0, 5]), names.drop(columns="label")):
        with pytest.raises(ValueError, match="another SAE's"):
            sl.save_pretrained(sae, wrong, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_to_the_hub_and_back(saved, tmp_path, monkeypatch):
    sae, names, folder = saved
    (folder / "secret.txt").write_text("not to be uploaded")
    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token=None):
            assert token == "t"

        def create_repo(self, repository, private, exist_ok):
            assert (repository, private, exist_ok) == ("me/mine", True, True)

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            hub.mkdir()
            for name in allow_patterns:
                shutil.copy(folder_path / name, hub)
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(pretrained, "HfApi", Api)
    monkeypatch.setattr(pretrained, "snapshot_download", lambda name, **asked: {"me/mine": str(hub)}[name])
    assert sl.push_to_hub(folder, "me/mine", token="t") == "https://hub/me/mine"
    assert not (hub / "secret.txt").exists()
    monkeypatch.chdir(tmp_path)
    same(sl.from_pretrained("me/mine"), sae, names)
    for nothing in ("nothing", tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="no folder"):
            sl.from_pretrained(nothing)


def test_a_damaged_folder_is_not_uploaded(saved, monkeypatch):
    _, _, folder = saved
    monkeypatch.setattr(pretrained, "HfApi", lambda token: pytest.fail("asked the hub"))
    data = bytearray((folder / "sae.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "sae.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        sl.push_to_hub(folder, "me/mine")


def test_the_shipped_one_opens_and_is_small():
    found = sl.from_pretrained(SHIPPED)
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 2e6
    assert found.about["fingerprint"] and found.names.shown.mean() > 0.5
    card = (SHIPPED / "README.md").read_text()
    assert f"| features with a name that is shown | {found.names.shown.mean():.1%} |" in card
    assert repr(found.sae) in card and "CC BY-SA 4.0" in card
    x = found.sae.mean + torch.randn(20, found.sae.d_in, generator=torch.Generator().manual_seed(0)) * 0.05
    assert (found.sae.encode(x) > 0).sum(1).max() <= found.sae.k


def test_names_belong_to_weights(saved, tmp_path):
    sae, names, folder = saved
    shutil.copytree(folder, tmp_path / "other")
    other = sl.make_sae("batchtopk", 6, 5, 2, seed=4)
    other.save(tmp_path / "other", encoder="e")  # as if killed before the names
    with pytest.raises(ValueError, match="of another SAE: save both"):
        sl.from_pretrained(tmp_path / "other")
    signed = parquet.read_schema(folder / "names.parquet").metadata
    parquet.write_table(
        pa.Table.from_pandas(names.iloc[::-1]).replace_schema_metadata(signed), folder / "names.parquet"
    )
    with pytest.raises(ValueError, match="is damaged, or of another SAE"):
        sl.from_pretrained(folder)
    names.to_parquet(folder / "names.parquet")  # as it was before there was a digest
    same(sl.from_pretrained(folder), sae, names)


def test_what_cannot_be_written_leaves_what_is_there(saved):
    sae, names, folder = saved
    other = sl.make_sae("batchtopk", 6, 5, 2, seed=4)
    for bad in ({"names": names.assign(terms=[[1], "a"])}, {"card": "\ud83d"}):
        with pytest.raises((ValueError, pa.ArrowException)):
            sl.save_pretrained(other, folder=folder, **{"names": names} | bad)
        same(sl.from_pretrained(folder), sae, names)
