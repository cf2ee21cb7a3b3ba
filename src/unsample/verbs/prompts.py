"""What pictures are conditioned on, as people give it, and as the rows that a network is asked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption
from unsample.models.base import Condition, Model
from unsample.preflight import rules

if TYPE_CHECKING:
    from torch import Tensor

EMBEDS, LABELS = ("prompt_embeds", "negative_prompt_embeds"), ("class_labels", "negative_class_labels")


@dataclass(frozen=True)
class Prompts:
    """What a picture is conditioned on, as given: text, or embeddings in its place, or class labels."""

    prompt: str | Sequence[str] | None = None
    negative_prompt: str | Sequence[str] | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    class_labels: Tensor | Sequence[int] | int | None = None
    negative_class_labels: Tensor | Sequence[int] | int | None = None

    def count(self) -> int:
        """How many pictures it speaks of; 1 if of any number.

        Raises:
            BadOption: a prompt that is no text, or no prompt in a list.
        """
        if self.prompt_embeds is not None:
            return len(self.prompt_embeds)
        if self.class_labels is not None:
            return len(self.labels())
        if self.prompt is None or isinstance(self.prompt, str):
            return 1
        if not isinstance(self.prompt, list | tuple) or not self.prompt:
            raise BadOption(f"prompt must be a string or a list of them, one a picture; got {self.prompt!r}")
        return len(self.prompt)

    def labels(self, name: str = "class_labels") -> Tensor:
        """`class_labels` or `negative_class_labels`, one a picture: int64."""
        import torch

        given = getattr(self, name)
        try:
            labels = torch.as_tensor(given).reshape(-1)
        except (TypeError, ValueError, RuntimeError):
            labels = torch.empty(0)
        if labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool or len(labels) == 0:
            raise BadOption(f"{name} must be whole numbers, one a picture; got {given!r}")
        return labels.long()

    def repeated(self, times: int) -> Prompts:
        """Each prompt `times` times in a row, as diffusers does; what holds for every picture stays as it is."""
        if self.count() in (1, self.count() * times):
            return self
        texts = {
            name: [p for p in value for _ in range(times)] if isinstance(value, list | tuple) else value
            for name, value in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt))
        }
        tensors = {n: None if (t := getattr(self, n)) is None else t.repeat_interleave(times, 0) for n in EMBEDS}
        given = {n: getattr(self, n) for n in LABELS}
        several = {n: self.labels(n) for n, value in given.items() if value is not None}
        labels = {n: t.repeat_interleave(times) for n, t in several.items() if t.numel() > 1}
        return Prompts(**texts, **tensors, **given | labels)  # type: ignore[arg-type]

    def texts(self, count: int) -> list[str | None]:
        """The prompt of each of `count` pictures."""
        return [None] * count if self.prompt is None else list(_spread("prompt", self.prompt, count))

    def negatives(self, count: int) -> list[str | None]:
        """The negative prompt of each of `count` pictures."""
        given = self.negative_prompt
        return [None] * count if given is None else list(_spread("negative_prompt", given, count))

    def conditions(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """Conditional and unconditional rows for `count` pictures.

        Raises:
            Incompatible: a prompt for a model without text, labels for one without classes.
            BadOption: counts that do not match.
        """

        if self.prompt is not None and self.prompt_embeds is not None:
            raise BadOption("give prompt or prompt_embeds, not both")
        rules.check_takes_prompt(model.id, model.takes_prompt, self.prompt or self.negative_prompt)
        labels, null = self._labels(model, count)
        condition, free = self._texts(model, count, guidance_scale)
        if labels is not None:
            if free is not None and null is None and condition.prompt_embeds is not None:
                null = labels  # guidance is over the text then, and the class is the same on both sides
            free = None if null is None else Condition(None if free is None else free.prompt_embeds, null)
            condition = replace(condition, class_labels=labels)
        return condition, free

    def _labels(self, model: Model, count: int) -> tuple[Tensor | None, Tensor | None]:
        """The class of each picture, and the class that stands for none, if one was given or the model has one."""
        null: int | None = getattr(model, "null_class", None)
        if self.class_labels is None:
            rules.check_classes(model.id, model.num_classes, labelled=False)
            if "class_labels" in getattr(model, "needs", ()):
                raise BadOption(f"the network of {model.id} cannot be asked without class_labels; give them")
            if self.negative_class_labels is not None:
                raise BadOption("negative_class_labels were given without class_labels; give both")
            return None, None
        labels = [self._class(model, "class_labels", model.num_classes, count)]
        if self.negative_class_labels is not None:
            most = None if model.num_classes is None else model.num_classes + (null is not None)
            labels.append(self._class(model, "negative_class_labels", most, count))
        elif null is not None:
            labels.append(labels[0].new_full((count,), null))
        return labels[0], labels[1] if len(labels) > 1 else None

    def _class(self, model: Model, name: str, classes: int | None, count: int) -> Tensor:
        labels = self.labels(name)
        takes = classes or getattr(model, "takes_labels", False)
        rules.check_classes(model.id, None if takes else 0, labelled=True, name=name)
        rules.check_in_range(model.id, classes, labels.tolist(), name)
        return _rows(name, labels.to(model.device), count)

    def all_labels(self, count: int) -> dict[str, Tensor]:
        """`class_labels` and `negative_class_labels`, those that were given, of each of `count` pictures."""
        return {n: _rows(n, self.labels(n), count) for n in LABELS if getattr(self, n) is not None}

    def all_embeds(self, count: int) -> dict[str, Tensor]:
        """`prompt_embeds` and `negative_prompt_embeds`, those that were given, a row for each of `count` pictures."""
        given = {n: getattr(self, n) for n in EMBEDS if getattr(self, n) is not None}
        return {name: tensor.detach().expand(count, *tensor.shape[1:]) for name, tensor in given.items()}

    def _texts(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """The part of the conditions that is text."""
        if not model.takes_prompt:
            return self._embeds(model, count, guidance_scale)
        embeds, negative = self.prompt_embeds, self.negative_prompt_embeds
        if embeds is None:
            embeds = _embed(model, [p or "" for p in self.texts(count)])
        if negative is None and guidance_scale != 1:
            negative = _embed(model, [p or "" for p in self.negatives(count)])
        return self._pair(model, count, embeds, negative)

    def _embeds(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """A model without text of its own: embeddings or nothing."""
        if self.prompt_embeds is None and "encoder_hidden_states" in getattr(model, "needs", ()):
            width = config_width(model) or "width"
            raise BadOption(
                f"the network of {model.id} cannot be asked without encoder_hidden_states; give prompt_embeds "
                f"(B, length, {width}) of its text encoder"
            )
        if self.prompt_embeds is None and self.negative_prompt_embeds is None:
            nothing = Condition()
            return nothing, nothing if guidance_scale == 0 else None
        if self.prompt_embeds is None:
            raise BadOption(
                f"negative_prompt_embeds were given without prompt_embeds; {model.id} has no text of its own"
            )
        condition, unconditional = self._pair(model, count, self.prompt_embeds, self.negative_prompt_embeds)
        return condition, Condition() if unconditional is None and guidance_scale == 0 else unconditional

    @staticmethod
    def _pair(
        model: Model, count: int, embeds: Tensor | None, negative: Tensor | None
    ) -> tuple[Condition, Condition | None]:
        named = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
        for name, tensor in named.items():
            _check_width(model, name, tensor)
        if embeds is not None and negative is not None and embeds.shape[1:] != negative.shape[1:]:
            shapes = f"{tuple(embeds.shape)} and {tuple(negative.shape)}"
            raise BadOption(
                f"prompt_embeds and negative_prompt_embeds must have the same length and width; got {shapes}"
            )
        rows = [None if t is None else Condition(_rows(n, t.to(model.device), count)) for n, t in named.items()]
        return rows[0] or Condition(), rows[1]


def _check_width(model: Model, name: str, embeds: Tensor | None) -> None:
    """Embeddings of another text encoder do not fit the network's cross-attention."""
    import torch

    if not isinstance(embeds, torch.Tensor | None):
        raise BadOption(f"{name} must be a tensor (B, length, width); got {type(embeds).__name__}")
    if embeds is not None and (embeds.ndim < 2 or not embeds.is_floating_point()):
        raise BadOption(f"{name} are (B, length, width), floating point; got {tuple(embeds.shape)} {embeds.dtype}")
    width = config_width(model) or getattr(model, "embed_width", None)
    if embeds is not None and width is not None and (embeds.ndim != 3 or embeds.shape[2] != width):
        raise BadOption(f"{name} of {model.id} are (B, length, {width}); got {tuple(embeds.shape)}")


def config_width(model: Model) -> int | None:
    """The width of embeddings that a network's config names."""
    config = getattr(getattr(model, "unet", None), "config", None) or {}
    width = config.get("cross_attention_dim")
    return width if isinstance(width, int) else None


def _embed(model: Model, prompts: list[str]) -> Tensor:
    """Each different prompt is embedded once."""
    import torch

    different = list(dict.fromkeys(prompts))
    for prompt in different:
        rules.check_text(prompt)
    embedded = model.embed(different)
    return embedded[torch.tensor([different.index(p) for p in prompts], device=embedded.device)]


def _rows(name: str, tensor: Tensor, count: int) -> Tensor:
    if len(tensor) not in (1, count):
        raise BadOption(f"{name} has {len(tensor)} rows for {count} pictures; give 1 or {count}")
    return tensor.expand(count, *tensor.shape[1:])


def _spread(name: str, value: str | Sequence[str], count: int) -> Sequence[str]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(v, str) for v in values) or len(values) not in (1, count):
        raise BadOption(f"{name} must be one string, or {count} of them for {count} pictures; got {value!r}"[:300])
    return values * count if len(values) == 1 else values
