"""Do SAELens, latentsae and sparsify compute from our folders what we compute, and we from theirs?

Run: python tests/benchmarks/interchange.py --peers peers/bin/python
where peers/ is an environment with sae-lens, latentsae and eai-sparsify, as far as they are to be looked at.
Prints the largest differences over 2,000 sentences; activations in units of raw embeddings.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("vanilla", "topk", "batchtopk", "jumprelu")


def dense(acts: torch.Tensor, indices: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Activations of the strongest features as a table."""
    return torch.zeros_like(like).scatter(1, indices, acts)


def show(who: str, acts: torch.Tensor, recon: torch.Tensor, wanted: dict) -> None:
    """One line: the largest differences, and whether the same features are active."""
    f, x_hat = (float((found - wanted[key]).abs().max()) for found, key in ((acts, "acts"), (recon, "recon")))
    same = bool(((acts > 0) == (wanted["acts"] > 0)).all())
    print(
        f"{who:32s} activations {f:.0e}, reconstructions {x_hat:.0e}, same features active: {same}",
        flush=True,
    )


@torch.no_grad()
def theirs(folder: Path) -> None:
    """What runs in the peers' environment, without saelib."""
    wanted = {kind: load_file(folder / f"{kind}.safetensors") for kind in KINDS}
    x = wanted["topk"]["x"]
    try:
        from sae_lens import SAE

        for kind in KINDS:
            sae = SAE.load_from_disk(folder / f"saelens-{kind}").eval()
            acts = sae.encode(x)
            show(f"SAELens of our {kind}", acts, sae.decode(acts), wanted[kind])
            sae.save_model(folder / f"from-saelens-{kind}")
    except ModuleNotFoundError as error:
        print(f"SAELens: {error}")
    try:
        from latentsae.sae import Sae

        sae = Sae.load_from_disk(folder / "sparsify-topk").eval()
        acts = dense(*sae.encode(x), wanted["topk"]["acts"])
        show("latentsae of our topk", acts, sae(x).sae_out, wanted["topk"])
        sae.save_to_disk(folder / "from-latentsae-topk")
    except ModuleNotFoundError as error:
        print(f"latentsae: {error}")
    try:
        from sparsify import SparseCoder

        sae = SparseCoder.load_from_disk(folder / "sparsify-topk", device="cpu")
        found = sae.encode(x)
        acts = dense(found.top_acts, found.top_indices, wanted["topk"]["acts"])
        show("sparsify of our topk", acts, sae.decode(found.top_acts, found.top_indices), wanted["topk"])
        sae.save_to_disk(folder / "from-sparsify-topk")
    except ModuleNotFoundError as error:
        print(f"sparsify: {error}")


@torch.no_grad()
def compare(folder: Path, peers: str) -> None:
    """Write, let them read and write again, read."""
    sys.path.insert(0, str(ROOT))
    import saelib as sl

    store = sl.start(verbose=False).store()
    x = torch.from_numpy(store.embeddings(slice(0, 2000)))
    data = torch.from_numpy(store.embeddings(slice(2000, 8000)))
    for kind in KINDS:
        config = sl.TrainConfig(steps=60, target_l0=8)
        sae = sl.train(sl.make_sae(kind, store.d_in, 256, 8), data, config, progress=False).sae.cpu()
        acts = sae.encode(x)
        wanted = {"x": x, "acts": acts / sae.scale, "recon": sae.decode(acts).contiguous()}
        save_file(wanted, folder / f"{kind}.safetensors")
        sl.write_saelens(sae, folder / f"saelens-{kind}", "all-MiniLM-L6-v2")
        if kind == "topk":
            sl.write_sparsify(sae, folder / "sparsify-topk")
    subprocess.run([peers, __file__, "--theirs", folder], check=True)
    for path in sorted(folder.glob("from-*")):
        sae = sl.read_foreign(path)
        acts = sae.encode(x)
        show(
            f"we of {path.name}",
            acts,
            sae.decode(acts),
            load_file(folder / f"{path.name.split('-')[-1]}.safetensors"),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="the Python of their environment")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        theirs(args.theirs)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            compare(Path(temporary), args.peers or parser.error("--peers is needed"))
