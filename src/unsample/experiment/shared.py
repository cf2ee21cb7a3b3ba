"""Work that several setups share, done once: what a model was asked before, about the very same bits.

Setups on the same items ask for the same things over and over: the encoding, the prompts' embeddings, the inversion
trajectory of DDIM at guidance 1, the pictures of `generated`, plain sampling from one recovered noise. They are
remembered at the model's edge, below the place where cost is counted, so a row's cost is the method's own as if it ran
alone; calls that a gradient goes through are never remembered.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Condition

T = TypeVar("T")
LIMIT_MB = 256.0


class Shared:
    """An LRU bounded in memory, keyed by all that a result depends on: `whose`, and the bits that were asked.

    `owed` is how many seconds what was reused took when it was made.

    Args:
        limit_mb: of all that is kept, in MiB.
    """

    def __init__(self, limit_mb: float = LIMIT_MB) -> None:
        self._limit = int(limit_mb * 2**20)
        self._kept: OrderedDict[bytes, tuple[Any, int, float]] = OrderedDict()  # value, bytes, seconds
        self._size = 0
        self.owed = 0.0

    def once(self, key: bytes, make: Callable[[], T]) -> T:
        """What `make` gives, from memory where it was made before."""
        if key in self._kept:
            self._kept.move_to_end(key)
            value, _, seconds = self._kept[key]
            self.owed += seconds
            return value  # type: ignore[no-any-return]
        begin, owed = time.perf_counter(), self.owed
        value = make()
        size = sum(tensor.nbytes for tensor in _tensors(value))
        if size <= self._limit:
            self._kept[key] = value, size, time.perf_counter() - begin + self.owed - owed
            self._size += size
        while self._size > self._limit:
            _, (_, size, _) = self._kept.popitem(last=False)
            self._size -= size
        return value  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._size = 0


class SharedModel:
    """A model whose answers are remembered; everything else about it is the model's own."""

    def __init__(self, model: Any, shared: Shared, where: tuple[int, ...] = ()) -> None:
        self._model, self._shared, self._whose = model, shared, whose(model)
        self._where = where  # the size and the number of steps that it is bound to

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def bare(self) -> Any:
        """The model itself, for a walk in which its answers depend on more than what is asked (an editor's)."""
        return self._model

    def network(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """See `Model`."""
        rows = [part for named in condition.named.items() for part in named]
        asked = (x, timestep, *self._where, *rows)
        return self._answer("network", asked, lambda: self._model.network(x, timestep, condition))

    def encode(self, images: Tensor) -> Tensor:
        """See `Model`."""
        return self._answer("encode", (images,), lambda: self._model.encode(images))

    def decode(self, latents: Tensor) -> Tensor:
        """See `Model`."""
        return self._answer("decode", (latents,), lambda: self._model.decode(latents))

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """See `Model`."""
        asked = (*prompts, negative, *self._where)
        return self._kept("embed", asked, lambda: self._model.embed(prompts, negative))

    def at(self, sample_shape: tuple[int, ...], num_inference_steps: int) -> SharedModel:
        """See `Model`."""
        bound = self._model.at(sample_shape, num_inference_steps)
        where = (*sample_shape, num_inference_steps)
        return self if bound is self._model else SharedModel(bound, self._shared, where)

    def _answer(self, what: str, asked: Sequence[Any], make: Callable[[], Tensor]) -> Tensor:
        """A copy of its own, since whoever asked may write into it."""
        import torch

        answer = self._kept(what, asked, make)
        return answer if torch.is_grad_enabled() else answer.clone()

    def _kept(self, what: str, asked: Sequence[Any], make: Callable[[], T]) -> T:
        """What was answered before; calls that a gradient goes through are made anew."""
        import torch

        if torch.is_grad_enabled():
            return make()

        def made() -> T:
            answer = make()
            for device in {tensor.device for tensor in _tensors(answer) if tensor.is_cuda}:
                torch.cuda.synchronize(device)  # so that the seconds are those of the work
            return answer

        return self._shared.once(key_of(what, *self._whose, *asked), made)


def unshared(model: Any) -> Any:
    """The model itself: what an editor does within the network is not told by what the network was asked."""
    return model._model if isinstance(model, SharedModel) else model


def whose(model: Any) -> tuple[str, ...]:
    """What of a model its answers depend on: its weights have one hash in every type."""
    return model.weights_sha256(), str(model.dtype), str(model.device)


def key_of(*asked: Any) -> bytes:
    """A hash of text, numbers, None, lists, mappings and the bits of tensors."""
    import torch

    found = hashlib.blake2b(digest_size=16)
    for value in asked:
        if isinstance(value, torch.Tensor):
            # the layout too: in another one the same numbers go through other kernels, which round otherwise
            found.update(f"{value.dtype}{tuple(value.shape)}{value.stride()}{value.device}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            text = repr(value).encode("utf-8", "surrogatepass")
            found.update(f"{len(text)}:".encode() + text)
    return found.digest()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, its fields and its entries."""
    if hasattr(value, "nbytes"):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
