"""The tokenizer of the bundled models: CLIP's byte-level BPE with a vocabulary of the words of scenes.

All 256 byte symbols stand in it twice (within a word, and ending one), so that any text can be written; the end
token has the largest id, as in CLIP, where the text model pools at it.
"""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from training.run import BUNDLED
from unsample.models.domain import WORDS

LENGTH = 24


def words() -> list[str]:
    """Every word that a caption can hold, and a few that people type."""
    return sorted(WORDS)


def build() -> CLIPTokenizer:
    """A `CLIPTokenizer` in which every known word is one token: the committed one, else a new one.

    Training breaks ties anew each time, so another run gives some words other ids than the text tower was trained with.
    """
    if (BUNDLED / "scenes-clip" / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(BUNDLED / "scenes-clip", local_files_only=True)
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=10**5, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(words(), trainer)
    import json

    merges = [
        tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(bpe.to_str())["model"]["merges"]
    ]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = [*symbols, *(s + "</w>" for s in symbols)]
    vocab += [t for t in dict.fromkeys(a + b for a, b in merges) if t not in set(vocab)]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: k for k, token in enumerate(vocab)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=LENGTH)


if __name__ == "__main__":
    tokenizer = build()
    print(len(tokenizer), "tokens;", tokenizer.tokenize("a large striped red circle, wörd 漢 zebra!! 42"))
    missed = [w for w in words() if len(tokenizer.tokenize(w)) != 1]
    print("words in more than one token:", missed)
