"""Whether a model has what a study needs, told before any work, and before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unsample.errors import Incompatible, UnsampleError
from unsample.models.families import read_json
from unsample.models.loading import BUNDLED, MIXTURE
from unsample.models.states import states_of
from unsample.models.variants import parted
from unsample.numbers.levels import CONVERTED, name_of
from unsample.preflight.known import KnownModel, known_model, known_of
from unsample.studies.base import NEEDS, Asked, Study

SETTABLE = CONVERTED[:-1]  # schedulers whose clean end can be set
JOINT = ("SD3", "Flux", "AuraFlow", "QwenImage")  # transformers in which text and picture share one attention


@dataclass(frozen=True)
class Facts:
    """What of NEEDS a model has; None where it cannot be told beforehand."""

    name: str
    prompt: bool | None
    vae: bool | None
    table: bool | None
    ddim: bool | None
    attention: bool | None

    @property
    def pixels(self) -> bool | None:
        """Whether it works on pixels."""
        return None if self.vae is None else not self.vae

    @property
    def scenes(self) -> bool:
        """Whether it was trained on drawn scenes."""
        return parted(self.name)[0] in BUNDLED

    @property
    def states(self) -> bool:
        """Whether states of its training are here."""
        return self.pixels is not False and bool(states_of(self.name))


def facts_of(known: KnownModel) -> Facts:
    """Of a model that is not loaded."""
    table = None if known.flow is None else not known.flow
    if parted(known.name)[0] == MIXTURE:
        return Facts(known.name, True, False, True, True, False)
    if known.folder is None or known.folder.is_file():
        return Facts(known.name, known.takes_prompt, None, table, None, None)
    index = read_json(known.folder / "model_index.json")
    parts = {part: str(kind[-1]) for part, kind in index.items() if isinstance(kind, list) and kind and kind[0]}
    network = parts.get("unet") or parts.get("transformer") or ""
    attention = None if network != "UNet2DModel" and not network.startswith(JOINT) else False
    vae = any(part.startswith(("vae", "vqvae", "movq")) for part in parts)
    ddim = parts["scheduler"] in SETTABLE if "scheduler" in parts else None
    return Facts(known.name, known.takes_prompt, vae, table, ddim, attention)


def _facts_of_loaded(model: Any) -> Facts:
    known, network = known_of(model), type(getattr(model, "unet", None)).__name__
    attention = False if network in ("UNet2DModel", "NoneType") or network.startswith(JOINT) else None
    table = None if known.flow is None else not known.flow
    ddim = model.family != "pipeline" and name_of(getattr(model, "scheduler", None)) in SETTABLE
    return Facts(model.id, known.takes_prompt, getattr(model, "vae", None) is not None, table, ddim, attention)


def is_flow(name: str) -> bool:
    """Whether a model by its name is one of flow matching, as far as can be told."""
    try:
        return bool(known_model(name).flow)
    except UnsampleError:  # one that is lent, by a name that says nothing
        return False


def check_needs(study: Study, asked: Asked, loaded: Mapping[str, Any] | None = None) -> None:
    """Refuse a model that lacks what a study needs.

    Raises:
        Incompatible: which model, and what it lacks. BadOption: more steps than it was trained with.
        WeightsMissing: no such model.
    """
    for name in asked.models:
        lent = loaded[name] if loaded and name in loaded else None
        known = known_model(name) if lent is None else known_of(lent)
        facts = facts_of(known) if lent is None else _facts_of_loaded(lent)
        for need in study.needs:
            if getattr(facts, need) is False:
                raise Incompatible(
                    f"the study {study.name} needs {NEEDS[need]}, and {name} is none; "
                    f"by itself it runs on {', '.join(study.default_models)}"
                )
        if known.num_classes:
            raise Incompatible(
                f"{name} draws classes, and a study's pictures have no labels of them; "
                f"the study {study.name} takes models of pictures alone, or of prompts"
            )
        known.check(asked.steps)  # whatever numbers of steps its plans walk
