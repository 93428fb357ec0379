"""A trained SAE with its names, in a folder or on the Hugging Face hub.

    sae.safetensors  cfg.json     what `SAE.save` writes
    names.parquet                 what `name_features` gives, and `shown_as`; a digest of names and weights
    README.md                     the model card

safetensors and Parquet only: nothing that is read can run.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from huggingface_hub import HfApi, snapshot_download
from pyarrow import parquet

from saelib.corpus import HUB_ID
from saelib.files import digest, read_tensor_file, resolved, write
from saelib.sae import SAE, load_sae

FILES = ["sae.safetensors", "cfg.json", "names.parquet", "README.md"]
WEIGHTS, NAMES, CARD = FILES[0], FILES[2], FILES[3]


class Pretrained(NamedTuple):
    """The SAE; its names, index feature; what was said of it when it was saved (encoder, fingerprint, …)."""

    sae: SAE
    names: pd.DataFrame
    about: dict


def save_pretrained(
    sae: SAE, names: pd.DataFrame, folder: str | Path, card: str = "", **about: object
) -> Path:
    """Write an SAE, its names and a model card to a folder; returns it.

    Args:
        names: index feature, a column `label`. card: Markdown. about: what a reader of the SAE must know,
            such as `encoder` and `fingerprint`.

    Raises:
        ValueError: names of features that the SAE does not have, NaN or infinity among the weights.
    """
    folder = resolved(folder)
    _check(sae, names)
    table, file = parquet.read_table(io.BytesIO(names.to_parquet())), io.BytesIO()
    signed = {**table.schema.metadata, b"saelib": _digest(sae, table)}
    parquet.write_table(table.replace_schema_metadata(signed), file)
    text = card.encode()  # what cannot be written fails before all writing
    sae.save(folder, **about)
    write(folder / NAMES, file.getbuffer())
    write(folder / CARD, text)
    return folder


def from_pretrained(source: str | Path, revision: str | None = None, token: str | None = None) -> Pretrained:
    """Read what `save_pretrained` wrote, from a folder or a repository of the Hugging Face hub.

    Args:
        source: a folder, or "owner/name". revision: a branch, tag or commit. token: for private ones.

    Raises:
        FileNotFoundError: neither a folder nor a repository's id. ValueError: damaged files, names of another
        SAE (which a save that was interrupted leaves, or a copy of some of the files). Whatever
        huggingface_hub raises for a repository that it cannot fetch.
    """
    folder = resolved(source)
    if not folder.is_dir():
        if isinstance(source, Path) or not HUB_ID.fullmatch(source) or "/" not in source:
            raise FileNotFoundError(f"no folder {folder}, and no id of the hub, which is owner/name")
        folder = Path(snapshot_download(source, revision=revision, token=token, allow_patterns=FILES))
    sae = load_sae(folder)
    try:
        table = parquet.read_table(io.BytesIO((folder / NAMES).read_bytes()))
        names, signed = table.to_pandas(), (table.schema.metadata or {}).get(b"saelib")
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has an SAE and no {NAMES}: load_sae reads it alone") from None
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(f"{folder / NAMES} is damaged: {str(error)[:200]}") from error
    if signed is not None and signed != _digest(sae, table):  # before there was a digest, none
        raise ValueError(f"{folder / NAMES} is damaged, or of another SAE: save both once more")
    _check(sae, names)
    return Pretrained(sae, names, (read_tensor_file(folder / WEIGHTS)[1] or {}).get("extra", {}))


def push_to_hub(
    folder: str | Path, repository: str, *, private: bool = True, token: str | None = None
) -> str:
    """Upload what `save_pretrained` wrote, and no other file of the folder; returns the address.

    Args:
        repository: "owner/name", made where it is not there. private: of a new one.

    Raises:
        FileNotFoundError, ValueError: the folder is not whole. Whatever huggingface_hub raises.
    """
    from_pretrained(folder := resolved(folder))
    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=FILES))


def _digest(sae: SAE, names: pa.Table) -> bytes:
    """What ties names to weights."""
    weights = {name: tensor.float() for name, tensor in sae.state_dict().items()}
    return digest(weights, json.dumps(names.to_pylist(), default=str)).encode()


def _check(sae: SAE, names: pd.DataFrame) -> None:
    if "label" not in names or not names.index.isin(range(sae.d_sae)).all():
        raise ValueError(
            f"names must have a column 'label' and an index of features from 0 to {sae.d_sae - 1}: "
            "are they another SAE's?"
        )
