"""Kill and interrupt extraction and training at random, and race two writers for a store:

    python tests/faults/kills.py 100 40 200     # kills, interrupts, races

Whatever was cut off, the same call completes to the same bits; of two writers one wins and the other is told.
Each victim is a fork of this process, so it begins at once. This process itself extracts and reads nothing (all of
that happens in forks): what has started threads may hang when it is forked.
"""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from small import ROWS, HashEncoder, content, extract, run

from saelib.files import InUseError
from saelib.store import EmbeddingStore, StoreError

FORK = get_context("fork")
PAUSE = 0.01  # seconds that a victim's shard takes


def extraction(folder):
    extract(folder, encoder=HashEncoder(pause=PAUSE))


def overwriting(folder):
    extract(folder, encoder=HashEncoder(pause=PAUSE), overwrite=True)


def old_store(folder):
    extract(folder, [row | {"text": row["text"] + " old"} for row in ROWS], shard_rows=17)


def old_or_interrupted(folder):
    """An overwriting that was cut off: the old store is whole, or it is an interrupted new one."""
    try:
        assert len(EmbeddingStore(folder)) == len(ROWS)
        EmbeddingStore(folder).verify()
    except StoreError as error:
        assert "interrupted" in str(error)


def training(folder):
    (folder.parent / "digest").write_text(run(folder))


WORKS = {"extraction": extraction, "overwriting": overwriting, "training": training}


def child(work, folder, outcome):
    """What a fork does; says in the file `outcome` how it ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work(folder)
        outcome.write_text("done")
    except BaseException as error:
        outcome.write_text(f"{type(error).__name__}: {error}")


def fork(work, folder, outcome):
    process = FORK.Process(target=child, args=(work, folder, outcome), daemon=True)
    process.start()
    return process


def end(process, seconds=60):
    process.join(seconds)
    assert process.exitcode is not None, f"a process hung for {seconds} s"


def whole(work, folder):
    """Work undisturbed in a fork."""
    outcome = folder.parent / "whole"
    end(fork(work, folder, outcome))
    assert outcome.read_text() == "done", outcome.read_text()


def cut_off(kind, sign, after, folder, wanted):
    """Send a signal `after` seconds, then call again; returns what happened to the victim."""
    path, outcome = folder / "it", folder / "outcome"
    if kind == "overwriting":
        whole(old_store, path)
    victim = fork(WORKS[kind], path, outcome)
    time.sleep(after)
    os.kill(victim.pid, sign)
    end(victim)
    said = outcome.read_text() if outcome.exists() else "killed"
    if said != "done" and kind == "overwriting":
        whole(old_or_interrupted, path)
    whole(WORKS[kind], path)
    found = content(path) if kind != "training" else (folder / "digest").read_text()
    assert found == wanted[kind], f"{kind}, {sign.name} after {after:.3f} s: another result"
    if said.startswith("KeyboardInterrupt: "):
        assert (
            "goes on" in said or "nothing is kept" in said or "still there" in said or said.endswith(": ")
        ), said
        return "interrupted" + (", said what is kept" if len(said) > 25 else ", before it began")
    assert said in ("done", "killed"), said
    return "ended before" if said == "done" else said


def reference(kind):
    """The result of an undisturbed run, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        whole(WORKS[kind], Path(folder) / "it")
        seconds = time.perf_counter() - began
        result = content(Path(folder) / "it") if kind != "training" else (Path(folder) / "digest").read_text()
    return result, seconds


def cut_offs(n_kills, n_interrupts, seed=0):
    """How many of each kind ended how."""
    torch.set_num_threads(1)
    rng, found = np.random.default_rng(seed), Counter()
    references = {kind: reference(kind) for kind in WORKS}
    wanted = {kind: result for kind, (result, _) in references.items()}
    for i in range(n_kills + n_interrupts):
        kind, sign = list(WORKS)[i % 3], signal.SIGKILL if i < n_kills else signal.SIGINT
        after = rng.uniform(0, references[kind][1])
        with tempfile.TemporaryDirectory() as folder:
            found[kind, sign.name, cut_off(kind, sign, after, Path(folder), wanted)] += 1
    return found


def is_whole(folder, encoder):
    EmbeddingStore(folder).verify()
    assert EmbeddingStore(folder).manifest["encoder"] == encoder


def race(different, lead, folder):
    """Two writers, the second `lead` seconds later; returns how it ended."""
    encoders = [HashEncoder("a", PAUSE), HashEncoder("b" if different else "a", PAUSE)]
    outcomes = [folder / "0", folder / "1"]
    writers = []
    for encoder, outcome in zip(encoders, outcomes, strict=True):
        writers.append(fork(partial(extract, encoder=encoder), folder / "it", outcome))
        time.sleep(lead)
    for writer in writers:
        end(writer)
    said = [outcome.read_text() for outcome in outcomes]
    won = [s == "done" for s in said]
    assert any(won), said
    for told in (s for s in said if s != "done"):
        assert told.startswith((f"{InUseError.__name__}: ", f"{StoreError.__name__}: ")), told
    assert not (different and all(won)), said
    winner = encoders[won.index(True)]
    whole(partial(is_whole, encoder=winner.name), folder / "it")
    whole(partial(extract, encoder=winner), folder / "alone")
    assert content(folder / "it") == content(folder / "alone")
    return (
        "one after the other"
        if all(won)
        else f"one told: {next(s for s in said if s != 'done').split(':')[0]}"
    )


def races(n, seed=0):
    """How n races ended."""
    rng, found = np.random.default_rng(seed), Counter()
    for i in range(n):
        with tempfile.TemporaryDirectory() as folder:
            found[race(i % 2 == 1, rng.uniform(0, 2 * PAUSE), Path(folder))] += 1
    return found


def main(n_kills, n_interrupts, n_races):
    for found in (cut_offs(n_kills, n_interrupts), races(n_races)):
        for outcome, count in sorted(found.items()):
            print(f"{outcome if isinstance(outcome, str) else ', '.join(outcome):60} {count}")
    print("all completed to the same bits, and no store was written by two")


if __name__ == "__main__":
    main(*(int(n) for n in sys.argv[1:] or (100, 40, 200)))
