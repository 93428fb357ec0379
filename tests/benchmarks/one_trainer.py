"""Train one TopK SAE with one library and print a JSON line; `speed.py` runs this in each library's own environment.

Run: python one_trainer.py NAME train.npy test.npy d_sae k steps
Everybody gets the same embeddings, batch size, number of steps and its own training loop. SAELens and dictionary_learning
get inputs scaled to norm √d_in, as both ask for; warm-up is 5% and decay 30% of the run wherever it can be set.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

BATCH, CLOCK = 1024, []
DEVICE = torch.device(
    "cuda" if torch.cuda.is_available() else "cpu"
)  # same for all; no GPU has been measured yet


def peak_mb() -> float:
    """Most memory held: the GPU's where there is one, else this process's; not `ru_maxrss`, which a child inherits."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def tick(*_: object) -> None:
    """Note that a step begins."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    CLOCK.append(time.perf_counter())


def stream(x: torch.Tensor):
    """Shuffled batches for ever."""
    g = torch.Generator().manual_seed(0)
    while True:
        for rows in torch.randperm(len(x), generator=g)[: len(x) // BATCH * BATCH].split(BATCH):
            yield x[rows]


def saelib(x, d_sae, k, steps):
    """This project."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from saelib.sae import make_sae
    from saelib.trainer import TrainConfig, Trainer
    from saelib.training import train

    sae, step = make_sae("topk", x.shape[1], d_sae, k), Trainer.step
    Trainer.step = lambda self, batch: (tick(), step(self, batch))[1]
    config = TrainConfig(steps=steps, target_l0=k, batch_size=BATCH, eval_every=steps)
    train(sae, x, config, held_out=x[:1000], progress=False)
    return sae.encode, sae.decode, 1.0


def textbook(x, d_sae, k, steps, lr=1e-3):
    """The dense formula: top-k, scatter, two dense products and their gradients, Adam; decoder rows normalised."""
    scale = x.shape[1] ** 0.5
    g = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(
        torch.randn(d_sae, x.shape[1], generator=g).to(DEVICE), dim=1
    ).requires_grad_()
    W_enc = W_dec.detach().t().contiguous().requires_grad_()
    b_enc, b_dec = torch.zeros(d_sae, device=DEVICE, requires_grad=True), (x.mean(0) * scale).requires_grad_()
    adam = torch.optim.Adam([W_dec, W_enc, b_enc, b_dec], lr=lr)

    def encode(v):
        values, idx = ((v - b_dec) @ W_enc + b_enc).relu().topk(k, dim=1)
        return torch.zeros(len(v), d_sae, device=DEVICE).scatter(1, idx, values)

    batches = stream(x * scale)
    for _ in range(steps):
        tick()
        v = next(batches)
        loss = (v - encode(v) @ W_dec - b_dec).square().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    return encode, lambda f: f @ W_dec + b_dec, scale


def textbook_our_lr(x, d_sae, k, steps):
    """The same at this project's learning rate: how much of the fidelity is due to it alone?"""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from saelib.trainer import TrainConfig

    return textbook(x, d_sae, k, steps, TrainConfig().lr)


def saelens(x, d_sae, k, steps):
    """SAELens: TopKTrainingSAE and SAETrainer, lr 1e-3."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    scale = x.shape[1] ** 0.5
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=d_sae, k=k, device=str(DEVICE)))
    cfg = SAETrainerConfig(
        total_training_samples=steps * BATCH, train_batch_size_samples=BATCH, lr=1e-3, lr_end=1e-5,
        lr_warm_up_steps=steps // 20, lr_decay_steps=3 * steps // 10, logger=LoggingConfig(log_to_wandb=False), device=str(DEVICE),
    )  # fmt: skip

    def timed():
        for batch in stream(x * scale):
            tick()
            yield batch

    SAETrainer(cfg=cfg, sae=sae, data_provider=timed()).fit()
    return sae.encode, sae.decode, scale


def hypothesaes(x, d_sae, k, steps):
    """HypotheSAEs: SparseAutoencoder.fit, its own learning rate."""
    from hypothesaes.sae import SparseAutoencoder

    sae = SparseAutoencoder(x.shape[1], d_sae, k, device=DEVICE)
    sae.register_forward_pre_hook(tick)
    sae.fit(x, batch_size=BATCH, n_epochs=max(1, round(steps * BATCH / len(x))), show_progress=False)
    sae.eval()
    return (lambda v: sae.get_activations(v, show_progress=False)), None, 1.0, lambda v: sae(v)[0]


def latentsae(x, d_sae, k, steps):
    """latentsae: SaeTrainer, its own learning rate, AuxK as ours."""
    from latentsae.trainer import SaeTrainer
    from latentsae.utils.config import SaeConfig, TrainConfig

    order = torch.cat(
        [
            torch.randperm(len(x), generator=torch.Generator().manual_seed(i))
            for i in range(steps * BATCH // len(x) + 1)
        ]
    )
    data = x[order[: steps * BATCH]]
    cfg = TrainConfig(SaeConfig(num_latents=d_sae, k=k), d_in=x.shape[1], batch_size=BATCH, lr_warmup_steps=steps // 20,
                      auxk_alpha=1 / 32, num_workers=0, log_to_wandb=False, save_every=10**9, checkpoints_directory="/tmp")  # fmt: skip
    trainer = SaeTrainer(cfg, data, DEVICE)
    trainer.sae.register_forward_pre_hook(tick)
    with contextlib.suppress(Exception):  # its last act is to save where we do not want it to
        trainer.fit()
    return None, None, 1.0, lambda v: trainer.sae(v).sae_out, lambda v: trainer.sae(v).latent_indices


def dictionary_learning(x, d_sae, k, steps):
    """dictionary_learning: TopKTrainer.update, its own learning rate."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    scale = x.shape[1] ** 0.5
    trainer = TopKTrainer(
        steps,
        x.shape[1],
        d_sae,
        k,
        0,
        "none",
        warmup_steps=steps // 20,
        decay_start=7 * steps // 10,
        seed=0,
        device=str(DEVICE),
    )
    batches = stream(x * scale)
    for step in range(steps):
        tick()
        trainer.update(step, next(batches))
    return trainer.ae.encode, trainer.ae.decode, scale


def main() -> None:
    """Train, measure, print."""
    name, train_file, test_file = sys.argv[1:4]
    d_sae, k, steps = map(int, sys.argv[4:7])
    x, test = (torch.from_numpy(np.load(f)).to(DEVICE) for f in (train_file, test_file))
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        encode, decode, scale, *whole = globals()[name](x, d_sae, k, steps)
    tick()
    n_clock = len(CLOCK)  # what follows evaluates
    memory = peak_mb()
    with torch.no_grad():
        v = test * scale
        if whole:
            x_hat = torch.cat([whole[0](c) for c in v.split(1024)])
            if encode:
                acts = torch.as_tensor(encode(v)).to(DEVICE)
            else:
                rows = torch.cat([whole[1](c) for c in v.split(1024)])
                acts = torch.zeros(len(v), d_sae, device=DEVICE).scatter(1, rows, 1.0)
        else:
            acts = encode(v)
            x_hat = decode(acts)
        fvu = (v - x_hat).square().sum() / (v - v.mean(0)).square().sum()
    gaps = np.diff(CLOCK[:n_clock])[3:]  # the first steps warm up
    windows = [BATCH / part.mean() for part in np.array_split(gaps, 5)]
    result = {
        "samples/s": float(np.median(windows)), "lowest": float(min(windows)), "highest": float(max(windows)), "peak MB": memory,
        "steps": n_clock - 1, "fvu": float(fvu), "cosine": float(torch.cosine_similarity(v, x_hat).mean()),
        "l0": float((acts > 0).float().sum(1).mean()), "dead": float(((acts > 0).sum(0) == 0).float().mean()),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
