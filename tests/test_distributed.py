"""Several processes: gloo on the CPU, 2 and 4 of them, against one process with the same batches."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from conftest import WordEncoder
from datasets import Dataset, IterableDataset
from synthetic import planted

from saelib import distributed, processes
from saelib.sae import load_sae, make_sae
from saelib.shards import StoreError
from saelib.sparse_step import loss_function
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig
from saelib.training import train

ROOT = Path(__file__).resolve().parent.parent
ALL = ["vanilla", "topk", "batchtopk", "jumprelu"]
CONFIG = TrainConfig(steps=60, batch_size=128, target_l0=4, eval_every=20, dead_after=300)
TEXTS = [{"text": f"text number {i} of group{i % 3}", "domain": f"group{i % 3}"} for i in range(410)]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def stream():
    yield from TEXTS


def work(rank, count, port, folder):
    """What each process does: extract twice, train the four SAEs, say what came out."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    folder, encoder, said = Path(folder), WordEncoder(), {}
    for name, corpus in (
        ("table", Dataset.from_list(TEXTS)),
        ("stream", IterableDataset.from_generator(stream)),
    ):
        for _ in range(2):
            store = distributed.extract(folder / name, corpus, encoder, shard_rows=40, progress=False)
        said[name] = (len(store), len(encoder.seen))
    x, _ = planted(2000)
    for name in ALL:
        sae = make_sae(name, 32, 64, 4, seed=rank)  # the first process's weights are the ones that count
        result = distributed.train(sae, x, CONFIG, checkpoint=None, progress=False)
        said[name] = result.history.to_dict("list")
        few = make_sae(name, 32, 64, 4)
        distributed.train(few, x, replace(CONFIG, steps=5), progress=False)
        said[f"{name} few"] = [p.flatten().tolist() for p in few.parameters()]
        said[f"{name} sum"] = float(sum(t.double().sum() for t in sae.state_dict().values()))
        if rank == 0:
            sae.save(folder / name)
    torch.manual_seed(0)
    mine = processes_with_gradients(rank)
    try:
        distributed.train(
            make_sae("topk", 32, 64, 4), x, TrainConfig(steps=3, batch_size=129), progress=False
        )
    except ValueError as error:
        said["error"] = str(error)
    (folder / f"said-{rank}.json").write_text(json.dumps(said | {"mine": mine}))


def processes_with_gradients(rank):
    """Gradients of one batch's loss by every process's share, averaged: for each architecture the largest part."""
    x, found = planted(256)[0][:128], {}
    for name, fast in [(name, fast) for name in ALL for fast in (False, True)]:
        sae = make_sae(name, 32, 64, 4).double()
        sae.start(x.double(), 4)
        loss = loss_function(sae) if fast else sae.loss
        with processes.together():
            loss(processes.part(x.double()), 0.1, torch.arange(5), 8, 0.1).total.backward()
            processes.average(p.grad for p in sae.parameters() if p.grad is not None)
        found[f"{name} {fast}"] = {
            key: p.grad.flatten().tolist()[:500] for key, p in sae.named_parameters() if p.grad is not None
        }
    return found if rank == 0 else None


@pytest.fixture(scope="module", params=[2, 4])
def several(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"processes{request.param}")
    imported = ["saelib.distributed", "datasets", "synthetic"]  # by the server, once for all
    mp.get_context("forkserver").set_forkserver_preload(imported)
    mp.start_processes(
        work, (request.param, free_port(), str(folder)), nprocs=request.param, start_method="forkserver"
    )
    said = [json.loads((folder / f"said-{i}.json").read_text()) for i in range(request.param)]
    return request.param, folder, said


def test_gradients_are_those_of_the_whole_batch(several):
    one = processes_with_gradients(0)
    for name, gradients in several[2][0]["mine"].items():
        for key, values in gradients.items():
            np.testing.assert_allclose(values, one[name][key], rtol=1e-9, atol=1e-12, err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", ALL)
def test_training_agrees_with_one_process(several, name):
    _, folder, said = several
    sae = make_sae(name, 32, 64, 4)
    alone = train(sae, planted(2000)[0], CONFIG, progress=False)
    for own in said:
        assert own[name] == said[0][name] and own[f"{name} sum"] == said[0][f"{name} sum"], "all have one SAE"
    together, together_few = said[0][name], said[0][f"{name} few"]
    for column, near in (("fvu", 0.05), ("l0", 0.05), ("coefficient", 0.05), ("loss", 0.1)):
        np.testing.assert_allclose(together[column], alone.history[column], rtol=near, err_msg=column)
    np.testing.assert_allclose(together["dead_train"], alone.history.dead_train, atol=2 / 64)
    few = make_sae(name, 32, 64, 4)
    train(few, planted(2000)[0], replace(CONFIG, steps=5), progress=False)
    for ours, theirs in zip(few.parameters(), together_few, strict=True):  # before roundings have grown
        np.testing.assert_allclose(theirs, ours.detach().flatten(), atol=1e-5)
    found = load_sae(folder / name)
    cosine = torch.nn.functional.cosine_similarity(found.W_dec, sae.W_dec)
    assert cosine.median() > 0.999


def test_extraction_by_several_is_one_store(several, tmp_path):
    count, folder, said = several
    alone = EmbeddingStore.extract(tmp_path / "alone", TEXTS, WordEncoder(), shard_rows=40, progress=False)
    table, dealt = EmbeddingStore(folder / "table"), EmbeddingStore(folder / "stream")
    for store in (table, dealt):
        store.verify()
        order = np.argsort([int(text.split()[2]) for text in store.texts])
        np.testing.assert_array_equal(store.embeddings(order), alone.embeddings())
        assert [store.texts[i] for i in order] == alone.texts
    assert table.texts == alone.texts, "a Dataset keeps its order"
    for own in said:  # the second call encodes nothing again
        assert own["table"][0] == own["stream"][0] == len(TEXTS)
        assert own["stream"][1] <= 2 * (len(TEXTS) // count + 1)
    again = WordEncoder()
    EmbeddingStore.extract(folder / "table", TEXTS, again, shard_rows=40, progress=False)
    assert not again.seen, "one process finds the texts of several in their order"


def test_a_batch_that_cannot_be_shared_is_named(several):
    assert all("129" in own["error"] and "multiple" in own["error"] for own in several[2])


def test_an_interrupted_join_is_done_again(tmp_path, monkeypatch):
    parts = [tmp_path / "parts" / str(i) for i in range(2)]
    for part, rows in zip(parts, (TEXTS[:100], TEXTS[100:]), strict=True):
        EmbeddingStore.extract(part, rows, WordEncoder(), shard_rows=40, progress=False)
    link, done = os.link, []

    def stops(source, target):
        done.append(target)
        if len(done) == 5:
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(os, "link", stops)
    with pytest.raises(KeyboardInterrupt):
        distributed._join(tmp_path, parts)
    with pytest.raises(StoreError, match="interrupted"):
        EmbeddingStore(tmp_path)
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no links here")))
    for _ in range(2):
        distributed._join(tmp_path, parts)
        store = EmbeddingStore(tmp_path)
        store.verify()
        assert store.texts == [row["text"] for row in TEXTS]
    other = tmp_path / "other"
    EmbeddingStore.extract(other, TEXTS[:50], WordEncoder(), progress=False)
    with pytest.raises(StoreError, match="another store"):
        distributed._join(other, parts)


def test_without_a_launcher_it_is_one_process(tmp_path):
    store = distributed.extract(tmp_path, TEXTS, WordEncoder(), progress=False)
    assert not (tmp_path / "parts").exists() and len(store) == len(TEXTS)
    x, _ = planted(1000)
    results = [
        f(make_sae("batchtopk", 32, 64, 4), x, CONFIG, progress=False) for f in (train, distributed.train)
    ]
    assert torch.equal(results[0].sae.W_dec, results[1].sae.W_dec)


@pytest.mark.skipif(sys.platform == "win32", reason="gloo by accelerate")
def test_the_command_with_two_processes(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "\n".join(
            f"The {a} {b} of town {i} was seen."
            for i in range(30)
            for a, b in (("red", "house"), ("old", "bridge"), ("tall", "tower"))
        )
    )
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        free_port(),
    ]
    command += [
        "-m",
        "saelib.distributed",
        str(texts),
        "--out",
        str(tmp_path / "out"),
        "--d-sae",
        "32",
        "--k",
        "2",
        "--steps",
        "20",
        "--batch-size",
        "32",
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 process(es)") == 1, done.stdout
    store = EmbeddingStore(tmp_path / "out" / "store")
    assert len(store) == 90 and load_sae(tmp_path / "out" / "sae", store.d_in).d_sae == 32
