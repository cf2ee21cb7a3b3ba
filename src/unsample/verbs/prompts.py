"""What pictures are conditioned on, as people give it, and as the rows that a network is asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible
from unsample.models.base import LENGTH, Condition, Model
from unsample.preflight import rules

if TYPE_CHECKING:
    from torch import Tensor

EMBEDS, LABELS = ("prompt_embeds", "negative_prompt_embeds"), ("class_labels", "negative_class_labels")


@dataclass(frozen=True)
class Prompts:
    """What a picture is conditioned on, as given: text, or embeddings in its place, or class labels."""

    prompt: str | Sequence[str] | None = None
    negative_prompt: str | Sequence[str] | None = None
    prompt_embeds: Tensor | Condition | None = None  # a Condition: as `model.embed` gives it, all rows of a prompt
    negative_prompt_embeds: Tensor | Condition | None = None
    class_labels: Tensor | Sequence[int] | int | None = None
    negative_class_labels: Tensor | Sequence[int] | int | None = None

    def count(self) -> int:
        """How many pictures it speaks of; 1 if of any number.

        Raises:
            BadOption: a prompt that is no text, or no prompt in a list.
        """
        if (given := rows_of(self.prompt_embeds)) is not None:
            return len(given)
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
        given = {n: getattr(self, n) for n in EMBEDS}
        tensors = {n: _each(t, lambda rows: rows.repeat_interleave(times, 0)) for n, t in given.items()}
        classes = {n: getattr(self, n) for n in LABELS}
        several = {n: self.labels(n) for n, value in classes.items() if value is not None}
        labels = {n: t.repeat_interleave(times) for n, t in several.items() if t.numel() > 1}
        return Prompts(**texts, **tensors, **classes | labels)  # type: ignore[arg-type]

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
            Incompatible: a prompt for a model without text, labels for one without classes, a negative prompt for one
                without guidance.
            BadOption: counts that do not match.
        """

        if self.prompt is not None and self.prompt_embeds is not None:
            raise BadOption("give prompt or prompt_embeds, not both")
        if model.guidance != "cfg" and (self.negative_prompt or self.negative_prompt_embeds is not None):
            raise Incompatible(
                f"a negative prompt was given, and {model.id} asks its network once a step (guidance is "
                f"{model.guidance}): there is no unconditional half for it; leave it out"
            )
        rules.check_takes_prompt(model.id, model.takes_prompt, self.prompt or self.negative_prompt)
        labels, null = self._labels(model, count)
        condition, free = self._texts(model, count, guidance_scale)
        if labels is not None:
            if free is not None and null is None and condition.prompt_embeds is not None:
                null = labels  # guidance is over the text then, and the class is the same on both sides
            free = None if null is None else replace(free or Condition(), class_labels=null)
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
            most = None if model.num_classes is None else max(model.num_classes, -1 if null is None else null + 1)
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
        """`prompt_embeds` and `negative_prompt_embeds`, those that were given, a row for each of `count` pictures.

        The other rows of a `Condition` are "prompt_embeds.NAME" (`of_embeds` reads them).
        """
        given = {n: getattr(self, n) for n in EMBEDS if getattr(self, n) is not None}
        every: dict[str, Tensor] = {}
        for name, rows in given.items():
            named = rows.named if isinstance(rows, Condition) else {EMBEDS[0]: rows}
            own = {name if n == EMBEDS[0] else f"{name}.{n}": t.detach() for n, t in named.items()}
            every |= {n: t.expand(count, *t.shape[1:]) for n, t in own.items()}
        return every

    def _texts(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """The part of the conditions that is text."""
        if not model.takes_prompt:
            return self._embeds(model, count, guidance_scale)
        embeds, negative = self.prompt_embeds, self.negative_prompt_embeds
        condition, free = self._pair(model, count, embeds, negative)
        if embeds is None:
            condition = _embed(model, self.texts(count))
        if negative is None and guidance_scale != 1 and model.guidance == "cfg":
            free = _embed(model, self.negatives(count), negative=True)
        needed = {n for c in (condition, free) if c is not None for n in c.more if not n.endswith(LENGTH)}
        if lacking := [n for c in (condition, free) if c is not None for n in sorted(needed) if n not in c.more]:
            raise Incompatible(
                f"{model.id} is conditioned on {', '.join(dict.fromkeys(lacking))} beside prompt_embeds; give prompts, "
                "or for prompt_embeds and negative_prompt_embeds what model.embed gives"
            )
        return condition, free

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
        model: Model, count: int, embeds: Tensor | Condition | None, negative: Tensor | Condition | None
    ) -> tuple[Condition, Condition | None]:
        named = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
        plain = {name: rows_of(given) for name, given in named.items()}
        for name, tensor in plain.items():
            _check_width(model, name, tensor)
        shape, other = (None if t is None else tuple(t.shape) for t in plain.values())
        ragged = isinstance(embeds, Condition) or isinstance(negative, Condition)
        if shape is not None and other is not None and shape[1:] != other[1:] and not ragged:
            shapes = f"{shape} and {other}"
            raise BadOption(
                f"prompt_embeds and negative_prompt_embeds must have the same length and width; got {shapes}"
            )
        rows = [_each(t, partial(_row_each, model, count, name)) for name, t in named.items()]
        found = [r if isinstance(r, Condition) or r is None else Condition(r) for r in rows]
        return found[0] or Condition(), found[1]


def rows_of(given: Tensor | Condition | None) -> Tensor | None:
    """The text rows of embeddings as they may be given."""
    return given.prompt_embeds if isinstance(given, Condition) else given


def of_embeds(name: str, embeds: Tensor | None, more: Mapping[str, Tensor]) -> Tensor | Condition | None:
    """What was given as `name`, from what `all_embeds` made of it."""
    own = {n.removeprefix(f"{name}."): t for n, t in more.items() if n.startswith(f"{name}.")}
    return Condition(embeds, more=own) if own else embeds


def _each(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Every tensor of what was given, changed."""
    if isinstance(given, Condition):
        return Condition.of({name: change(t) for name, t in given.named.items()})
    return given if given is None else change(given)


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


def _embed(model: Model, prompts: Sequence[str | None], negative: bool = False) -> Condition:
    """Each different prompt is embedded once."""
    import torch

    different = list(dict.fromkeys(prompts))
    for prompt in different:
        rules.check_text(prompt or "")
    embedded = model.embed(different, negative)
    return embedded.rows(torch.tensor([different.index(p) for p in prompts], device=model.device))


def _row_each(model: Model, count: int, name: str, tensor: Tensor) -> Tensor:
    """`_rows` on the model's device."""
    return _rows(name, tensor.to(model.device), count)


def _rows(name: str, tensor: Tensor, count: int) -> Tensor:
    if len(tensor) not in (1, count):
        raise BadOption(f"{name} has {len(tensor)} rows for {count} pictures; give 1 or {count}")
    return tensor.expand(count, *tensor.shape[1:])


def _spread(name: str, value: str | Sequence[str], count: int) -> Sequence[str]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(v, str) for v in values) or len(values) not in (1, count):
        raise BadOption(f"{name} must be one string, or {count} of them for {count} pictures; got {value!r}"[:300])
    return values * count if len(values) == 1 else values
