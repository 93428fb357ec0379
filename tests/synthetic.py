"""Data whose answer is known: what several test files draw from."""

import torch


def gaussian(n=200, d=16, seed=0, **kw):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), **kw)


def planted(n=12_000, d=32, atoms=64, active=4, seed=0):
    """Sparse sums of known unit atoms: (x (n, d), dictionary (atoms, d))."""
    g = torch.Generator().manual_seed(seed)
    dictionary = torch.nn.functional.normalize(torch.randn(atoms, d, generator=g), dim=1)
    chosen = torch.rand(n, atoms, generator=g).argsort(1)[:, :active]
    weights = torch.rand(n, active, generator=g) + 0.5
    return torch.einsum("nk,nkd->nd", weights, dictionary[chosen]), dictionary
