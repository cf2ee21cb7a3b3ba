"""Tokenizers and text encoders for tiny pipelines: real classes, random weights, a vocabulary of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

SPECIAL = ("<pad>", "<s>", "</s>")
VOCABULARY = len(SPECIAL) + 256
CHAT = (
    "{% for m in messages %}{{ m.role }}:"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}"
    "\n{% endfor %}"
)


@contextmanager
def seed(number: int) -> Iterator[None]:
    """Random weights are drawn from this seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        yield


def seeded(number: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A builder whose weights are drawn from this seed."""

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(build)
        def built(*args: Any, **kwargs: Any) -> Any:
            with seed(number):
                return build(*args, **kwargs).eval()

        return built

    return decorate


def tokenizer(length: int = 512, side: str = "right", framed: bool = False) -> PreTrainedTokenizerFast:
    """Every byte is a token; `framed` puts a start token before them, as CLIP's does."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({t: i for i, t in enumerate((*SPECIAL, *bytes_))}, merges=[], unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if framed else "$A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<pad>",
        model_max_length=length,
        padding_side=side,
    )
    made.chat_template = CHAT
    return made


def clip_tokenizer(length: int = 77) -> PreTrainedTokenizerFast:
    """For `clip`."""
    return tokenizer(length, framed=True)


@seeded(1)
def clip(projected: bool = False, length: int = 77, width: int = 32) -> Any:
    """A CLIP text encoder of two layers."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
        projection_dim=width,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


@seeded(2)
def bert(width: int = 32) -> Any:
    """A BERT of two layers."""
    return BertModel(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            pad_token_id=0,
        )
    )


@seeded(2)
def t5(width: int = 32) -> Any:
    """A T5 encoder of two layers."""
    return T5EncoderModel(
        T5Config(vocab_size=VOCABULARY, d_model=width, d_kv=8, d_ff=40, num_layers=2, num_heads=4, pad_token_id=0)
    )


@seeded(3)
def language_model(width: int = 32, layers: int = 3) -> Any:
    """A causal language model, Qwen's."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=40,
            num_hidden_layers=layers,
            num_attention_heads=width // 8,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=0,
        )
    )
