"""Sparse autoencoders for sentence embeddings, with features named by keyword extraction: `import saelib as sl`.

The front door: what a notebook needs stands here; the modules are in the order in which a text goes through them.
The browser (widgets and plotly) is imported when it is asked for.
"""

from saelib import plots
from saelib.activations import EncodedTexts, activation_table, feature_stats, read_texts, top_texts
from saelib.corpus import load_corpus
from saelib.encoder import load_encoder
from saelib.metrics import evaluate, match_features, mean_max_cosine, neighbour_recall, probe_accuracy
from saelib.naming.keybert import EmbeddingCache, KeyBERTInterpreter
from saelib.naming.pipeline import as_shown, name_features
from saelib.sae import BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE, load_sae, make_sae
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig
from saelib.training import suggest_size, train, train_many
from saelib.tutorial import start

__all__ = [
    "BatchTopKSAE",
    "EmbeddingCache",
    "EmbeddingStore",
    "EncodedTexts",
    "JumpReLUSAE",
    "KeyBERTInterpreter",
    "TopKSAE",
    "TrainConfig",
    "VanillaSAE",
    "activation_table",
    "as_shown",
    "browse",
    "evaluate",
    "feature_stats",
    "load_corpus",
    "load_encoder",
    "load_sae",
    "make_sae",
    "make_view",
    "match_features",
    "mean_max_cosine",
    "name_features",
    "neighbour_recall",
    "plots",
    "probe_accuracy",
    "read_texts",
    "start",
    "suggest_size",
    "top_texts",
    "train",
    "train_many",
]


def __getattr__(name: str) -> object:
    if name == "browse":
        from saelib.browser.app import browse

        return browse
    if name == "make_view":
        from saelib.browser.view import make_view

        return make_view
    raise AttributeError(f"module 'saelib' has no attribute {name!r}")
