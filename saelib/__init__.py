"""Sparse autoencoders for sentence embeddings, features named by keyword extraction: `import saelib as sl`.

The front door: what a notebook needs stands here, in the order in which a text goes through the modules.
The browser (widgets) and KeyBERT are imported when they are asked for.
"""

from importlib import import_module

from saelib import domains, families, plots, steering
from saelib.activations import EncodedTexts, activation_table, feature_stats, read_texts, top_texts
from saelib.advice import check_corpus
from saelib.attribution import cosine_parts, domain_contrast, explain_embedding, word_effects
from saelib.corpus import load_corpus
from saelib.costs import estimate_cost
from saelib.encoder import EmbeddingCache, load_encoder, load_independent
from saelib.families import find_families
from saelib.family_names import name_families
from saelib.interchange import read_foreign, store_from_vectors, write_saelens, write_sparsify
from saelib.metrics import evaluate, match_features, mean_max_cosine, neighbour_recall, probe_accuracy
from saelib.naming.comparing import collision, judge_all, paired_difference, summary
from saelib.naming.language import Language, language_for
from saelib.naming.pipeline import as_shown, name_features
from saelib.naming.scoring import metric_sanity
from saelib.naming.trust import calibration, named_share
from saelib.pretrained import from_pretrained, push_to_hub, save_pretrained
from saelib.sae import BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE, load_sae, make_sae
from saelib.store import EmbeddingStore
from saelib.trainer import TrainConfig
from saelib.training import suggest_size, train, train_many
from saelib.tutorial import start

__all__ = [
    "BatchTopKSAE", "EmbeddingCache", "EmbeddingStore", "EncodedTexts", "JumpReLUSAE",
    "KeyBERTInterpreter", "Language", "TopKSAE", "TrainConfig", "VanillaSAE", "activation_table",
    "as_shown", "browse", "calibration", "check_corpus", "collision", "cosine_parts", "domain_contrast",
    "domains", "estimate_cost", "evaluate", "explain_embedding", "families", "feature_stats", "find_families",
    "from_pretrained", "judge_all", "language_for", "load_corpus", "load_encoder", "load_independent",
    "load_sae", "make_sae", "make_view", "match_features", "mean_max_cosine", "metric_sanity",
    "name_families", "name_features", "named_share", "neighbour_recall", "paired_difference", "plots",
    "probe_accuracy", "push_to_hub", "read_foreign", "read_texts", "save_pretrained", "start", "steering",
    "store_from_vectors", "suggest_size", "summary", "top_texts", "train", "train_many", "word_effects",
    "write_embedding_atlas", "write_latent_scope", "write_saelens", "write_sparsify",
]  # fmt: skip


_LAZY = {  # imported when asked for: the browser's wing, and what takes long to import
    "browse": "saelib.browser.app", "make_view": "saelib.browser.view",
    "write_embedding_atlas": "saelib.browser.exports", "write_latent_scope": "saelib.browser.exports",
    "KeyBERTInterpreter": "saelib.naming.keybert",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saelib' has no attribute {name!r}")
