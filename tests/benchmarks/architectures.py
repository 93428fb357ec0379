"""All four SAEs and a plain dense TopK at d_sae 3072, L0 32, 800 steps on wiki-vital sentences, a sixth held out.

Run: python tests/benchmarks/architectures.py [steps]
"""

import json
import platform
import sys
import time
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from saelib.corpus import load_corpus  # noqa: E402
from saelib.encoder import load_encoder  # noqa: E402
from saelib.sae import make_sae  # noqa: E402
from saelib.store import EmbeddingStore  # noqa: E402
from saelib.trainer import TrainConfig  # noqa: E402
from saelib.training import train  # noqa: E402

D_SAE, K = 3072, 32


def dense_reference(
    x: torch.Tensor, held_out: torch.Tensor, steps: int, lr: float, batch_size: int = 1024
) -> tuple[float, float]:
    """The textbook dense TopK step with Adam, same inputs, constant lr: (held-out FVU, seconds)."""
    g = torch.Generator().manual_seed(0)
    mean, scale = x.mean(0), (x.shape[1] / (x - x.mean(0)).square().sum(1).mean()).sqrt()
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, x.shape[1], generator=g), dim=1).requires_grad_()
    W_enc = W_dec.detach().t().clone().requires_grad_()
    b_enc, b_dec = torch.zeros(D_SAE, requires_grad=True), torch.zeros(x.shape[1], requires_grad=True)
    adam = torch.optim.Adam([W_dec, W_enc, b_enc, b_dec], lr=lr)

    def reconstruct(z: torch.Tensor) -> torch.Tensor:
        values, idx = (z @ W_enc + b_enc).relu().topk(K, dim=1)
        return torch.zeros(len(z), D_SAE).scatter(1, idx, values) @ W_dec + b_dec

    began = time.perf_counter()
    for _ in range(steps):
        z = (x[torch.randint(len(x), (batch_size,), generator=g)] - mean) * scale
        loss = (z - reconstruct(z)).square().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    seconds = time.perf_counter() - began
    with torch.no_grad():
        z = (held_out - mean) * scale
        centred = (held_out - held_out.mean(0)) * scale
        return float((z - reconstruct(z)).square().sum() / centred.square().sum()), seconds


def main() -> None:
    """Print one table and write it beside the store."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    data = Path(__file__).resolve().parents[2] / "data"
    store = EmbeddingStore.extract(data / "stores" / "all", load_corpus(), load_encoder())
    rows, test = store.split()
    held_out = torch.from_numpy(store.embeddings(test))
    records = []
    for lr in (1e-3, TrainConfig().lr):
        fvu, seconds = dense_reference(torch.from_numpy(store.embeddings(rows)), held_out, steps, lr)
        records.append(
            {"sae": f"dense TopK, lr {lr}", "fvu": fvu, "l0": K, "samples/s": steps * 1024 / seconds}
        )
    for name in ("topk", "batchtopk", "jumprelu", "vanilla"):
        sae, config = make_sae(name, store.d_in, D_SAE, K), TrainConfig(steps=steps, target_l0=K)
        result = train(sae, store, config, held_out=held_out, rows=rows)
        records.append({"sae": name, **result.final._asdict(), "samples/s": steps * 1024 / result.seconds})
    print(pd.DataFrame(records).round(4).to_string(index=False))
    about = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "seed": 0,
    }
    (data / "benchmark.json").write_text(json.dumps({"about": about, "rows": records}, indent=1))


if __name__ == "__main__":
    main()
