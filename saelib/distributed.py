"""Several processes, one store, one SAE: extraction split by process, training data-parallel.

    accelerate launch --num_processes 2 -m saelib.distributed texts.parquet --out data/scaled/

(where there is no GPU, `accelerate launch --multi_gpu` starts them too: they talk by gloo). The same function
from a cell is `notebook_launcher(extract_and_train, (texts, out), num_processes=2)`, in a kernel that has not
used its GPUs yet. Without a launcher everything here runs in one process.

Extraction: `datasets.distributed.split_dataset_by_node` gives each process its texts, each writes a store of
its own, `parts/`, which resumes by itself; at the end the first process joins their shards to one store (by
hard links: no second copy). Training: every process reads the same batches and computes on its share
(`processes.py` says what they tell each other).
"""

from __future__ import annotations

import argparse
import os
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node

from saelib import shards, training
from saelib.corpus import load_corpus
from saelib.encoder import PACKAGED, Encoder, load_encoder, pick_device
from saelib.extraction import check_strangers
from saelib.files import only_writer, resolved
from saelib.processes import together
from saelib.sae import ARCHITECTURES, SAE, make_sae
from saelib.shards import StoreError
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig


def join_processes() -> PartialState:
    """Join the others that a launcher (accelerate, torchrun) has started.

    Returns this one's `process_index`, `num_processes`, `device`. They wait a week for one another: an
    extraction is not equally long for all.
    """
    return PartialState(cpu=pick_device().type == "cpu", timeout=timedelta(days=7))


def extract(
    path: str | Path, corpus: Dataset | IterableDataset, encoder: Encoder, **settings: object
) -> EmbeddingStore:
    """`EmbeddingStore.extract` by all processes; each is called with the whole corpus and encodes its part.

    The store holds the texts of the first process, then those of the second, …: a `Dataset` in its order, a
    stream dealt out in turns (or by its shards). `path`/parts/ holds the same files once more, as links, for
    the next call, which compares the texts as `EmbeddingStore.extract` does; a finished store does not need
    it. Whether the disk has room is asked by each process for its own part.

    Args:
        settings: those of `EmbeddingStore.extract` but `overwrite`.

    Raises:
        StoreError: the folder holds something else. Whatever `EmbeddingStore.extract` raises.
    """
    state, path = join_processes(), resolved(path)
    n, number = state.num_processes, state.process_index
    if n == 1:
        return EmbeddingStore.extract(path, corpus, encoder, **settings)
    check_strangers(path, overwrite=False)
    parts = [path / "parts" / f"{i}-of-{n}" for i in range(n)]
    mine = split_dataset_by_node(corpus, rank=number, world_size=n)
    settings["progress"] = bool(settings.get("progress", True)) and state.is_main_process
    EmbeddingStore.extract(parts[number], mine, encoder, **settings)
    state.wait_for_everyone()
    if state.is_main_process:
        _join(path, parts)
    state.wait_for_everyone()
    return EmbeddingStore(path, encoder=encoder)


def _join(path: Path, parts: list[Path]) -> None:
    """The shards of the parts as one store; interrupted, the next call does it again."""
    stores, found, files = [shards.read_manifest(part) for part in parts], [], {}
    for part, store in zip(parts, stores, strict=True):
        for shard in store["shards"]:
            names = shards.file_names(len(found))
            files |= {path / names[kind]: part / shard[kind] for kind in names}
            found.append(shard | names)
    manifest = stores[0] | {"shards": found, "complete": False}
    with only_writer(path):
        there = shards.read_manifest(path)
        if there and there["shards"] != found:
            raise StoreError(f"{path} holds another store: choose another folder, or delete it")
        shards.write_manifest(path, manifest)  # from here on the folder is this store's
        for file, source in files.items():
            _link(source, file)
        shards.write_manifest(path, manifest | {"complete": True})


def _link(source: Path, file: Path) -> None:
    """`file` becomes another name of `source`, or a copy where the disk knows no links."""
    temporary = file.with_name(f".{file.name}.part")
    with suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, file)


def train(
    sae: SAE, store: EmbeddingStore | torch.Tensor, config: TrainConfig, **settings: object
) -> training.TrainResult:
    """`training.train` by all processes, each with its share of every batch; all return the same SAE.

    Each gives the same SAE (the weights that count are the first one's), the same data and settings, and
    reads the checkpoint's folder, which the first one writes. A run may go on with another number of
    processes, then equal up to rounding and not bit for bit.

    Raises:
        ValueError: a batch_size that is no multiple of the number of processes, and more (`training.train`).
    """
    state = join_processes()
    settings["progress"] = bool(settings.get("progress", True)) and state.is_main_process
    with together():
        return training.train(sae, store, config, **{"device": state.device} | settings)


def extract_and_train(
    texts: str | Path, out: str | Path, *, encoder: str = PACKAGED, architecture: str = "topk",
    d_sae: int | None = None, k: int | None = None, config: TrainConfig = TrainConfig(),
    shard_rows: int = 8192, **columns: object,
) -> None:  # fmt: skip
    """A corpus to `out`/store and an SAE to `out`/sae, by however many processes call this; both resume.

    Args:
        texts, columns: source and settings of `load_corpus`; `streaming=True` keeps memory constant.
        d_sae, k: None: what `suggest_size` advises.
    """
    state, out = join_processes(), resolved(out)
    corpus = load_corpus(texts, **{"verbose": state.is_main_process} | columns)
    model = load_encoder(encoder, device=state.device)
    store = extract(out / "store", corpus, model, shard_rows=shard_rows)
    advised = training.suggest_size(len(store), store.d_in)
    d_sae, k = d_sae or advised[0], k or advised[1]
    sae = make_sae(architecture, store.d_in, d_sae, k, config.seed)
    result = train(sae, store, config, checkpoint=out / "checkpoint")
    if state.is_main_process:
        result.sae.save(out / "sae", encoder=model.name, fingerprint=model.fingerprint)
        print(
            f"{state.num_processes} process(es): {store} and {sae}, held-out FVU {result.final.fvu:.4f}, "
            f"L0 {result.final.l0:.2f}; {config.steps} steps of {config.batch_size} in {result.seconds:.0f} s"
        )
    state.wait_for_everyone()


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser("saelib.distributed", description=(__doc__ or "").split("\n")[0])
    made.add_argument("texts", help="a file, a folder of files, or a Hugging Face id")
    made.add_argument("--out", required=True, help="folder for store and SAE; what is there is reused")
    made.add_argument("--text-column", default="text")
    made.add_argument("--domain-column", default="domain")
    made.add_argument(
        "--streaming", action="store_true", help="read the texts as they come, in constant memory"
    )
    made.add_argument("--limit", type=int, help="so many texts: a sample; streaming: the first ones")
    made.add_argument("--encoder", default=PACKAGED, help=f"model name or folder (default: {PACKAGED})")
    made.add_argument("--architecture", default="topk", choices=sorted(ARCHITECTURES))
    made.add_argument("--d-sae", type=int, help="default: what the number of texts advises")
    made.add_argument("--k", type=int, help="default: what the number of texts advises")
    made.add_argument("--steps", type=int, default=TrainConfig.steps)
    made.add_argument(
        "--batch-size", type=int, default=TrainConfig.batch_size, help="of all processes together"
    )
    made.add_argument("--shard-rows", type=int, default=8192)
    made.add_argument("--seed", type=int, default=0)
    return made


def main(arguments: list[str] | None = None) -> None:
    """What `accelerate launch -m saelib.distributed` runs in every process."""
    args = vars(parser().parse_args(arguments))
    config = TrainConfig(**{name: args.pop(name) for name in ("steps", "batch_size", "seed")})
    extract_and_train(args.pop("texts"), args.pop("out"), config=config, **args)


if __name__ == "__main__":
    main()
