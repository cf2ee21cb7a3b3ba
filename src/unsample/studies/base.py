"""What a study is. No torch at import: the files of studies import it inside their functions.

`plans` says which cells the benchmark runs, `probe` looks further at each batch of them (where metrics do not tell what
is asked), `rows` makes finished rows of the cells, `figure` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.models.minis import is_mini, minis

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

SD, FLOW, DDPM, MIXTURE = "scenes-sd", "scenes-flow", "scenes-ddpm", "scenes-mixture"
REPELLING = "[timestep_spacing=trailing,set_alpha_to_one=true]"  # the noisiest first level, from a clean end
TRAILING = SD + REPELLING  # `zeng_first_step` prints how far its first step contracts
LARGER = (SD, TRAILING, DDPM, MIXTURE)  # beside the minis, of a claim about the nature of inversion

ZENG = "Zeng et al., Inverting the Generation Process of DDIM"
TABA = "There and Back Again (TABA)"
EASYINV = "EasyInv"
EDITING = "Comparing DDIM and null-text inversion for editing"
OURS = "unsample"

APART, SEEDS = 20_000, 5_000  # pictures from one seed's first to the next seed's; seeds that there are

Row = dict[str, Any]
"""One finished row: plain values by column; `model` and `unit` (what is sampled: a picture, a split) are among them."""
Cells = Sequence[Mapping[str, Any]]
"""Rows of the benchmark, of all of a study's plans: `model`, `method`, `steps`, `item`, `values`, `probed` ..."""


def nature() -> tuple[str, ...]:
    """The models on which a claim about the nature of inversion is judged: four larger ones, and the minis here."""
    return LARGER + minis()


def is_cheap(model: str) -> bool:
    """Whether an evaluation of its network costs next to nothing: the minis and the mixture."""
    return is_mini(model) or model.partition("[")[0] == MIXTURE


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a study.

    Args:
        models: names as `unsample.load` takes them.
        num_samples: pictures for each model, of which a study may take a part where they are dear, or more where cheap.
        steps: of the grid, each way.
        seed: another seed has other pictures.
        quick: every method's quick preset, to try a study out; its page says so.
    """

    models: tuple[str, ...]
    num_samples: int
    steps: int = 50
    seed: int = 0
    quick: bool = False

    @property
    def generated(self) -> str:
        """Pictures that the model makes itself, on report seeds: their true noise and trajectory are known."""
        return self._spec("generated")

    @property
    def scenes(self) -> str:
        """Drawn scenes, which no model has seen, on report seeds."""
        return self._spec("scenes")

    def _spec(self, name: str) -> str:
        start = f",start={self.seed * APART}" if self.seed else ""
        return f"{name}:{self.num_samples},split=report{start}"

    def plan(self, **given: Any) -> dict[str, Any]:
        """The keys of a plan of these models, steps and seed, with others beside or in their place."""
        own: dict[str, Any] = {"models": list(self.models), "steps": [self.steps], "seed": self.seed}
        own |= {"quick": True} if self.quick else {}
        return own | {"dataset": "" if "datasets" in given else self.generated} | given


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question.

    Args:
        name: of its file, and of its claims.
        question: in one sentence.
        paper: one of the above.
        shows: which table or figure of it.
        models: names that it runs on by default, or a function that gives them (`nature`).
        num_samples: pictures a model by default; the whole is to take less than six minutes on two cores.
        steps: by default.
        needs: what a model must have: of NEEDS.
        plans: the benchmark's plans for what is asked (keys of `Plan`; `Asked.plan` fills in the common ones). Several
            where models or steps differ in what is run.
        rows: finished rows of the cells, in a fixed order.
        figure: of the rows, by matplotlib (`plotting`); None where a table says it all.
        probe: what it looks at beyond metrics, for each batch: a plain JSON mapping a picture (`packed` for tensors).
            It is asked for by `probe=NAME` in a plan.
        probe_passes: network evaluations a picture that the probe adds in all of a picture's cells, for what is asked.
        one_by_one: whether the probe takes pictures one by one, so that each is best a batch of its own.
        minutes: that the default run took on two cores.
        published: the command for the model that the paper used.
        about: further sentences for its page: conventions, what differs from the paper, and why.
    """

    name: str
    question: str
    paper: str
    shows: str
    models: tuple[str, ...] | Callable[[], tuple[str, ...]]
    num_samples: int
    plans: Callable[[Asked], list[dict[str, Any]]]
    rows: Callable[[Cells, Asked], Iterable[Row]]
    figure: Callable[[Sequence[Row]], Figure] | None
    steps: int = 50
    needs: tuple[str, ...] = ()
    probe: Callable[[Findings, Mapping[str, Any]], Sequence[dict[str, Any]]] | None = None
    probe_passes: Callable[[Asked], int] = lambda asked: 0
    one_by_one: bool = False
    minutes: float | None = None
    published: str = ""
    about: tuple[str, ...] = ()

    @property
    def default_models(self) -> tuple[str, ...]:
        """What it runs on when no model is named."""
        return self.models() if callable(self.models) else self.models


NEEDS = {  # a need, and what is said of a model without it
    "prompt": "a model that takes prompts",
    "vae": "a model that works on latents",
    "pixels": "a model that works on pixels",
    "table": "a model with a table of noise levels (DDIM), not one of flow matching",
    "ddim": "a model with DDIM's scheduler or DDPM's, whose clean end can be set",
    "attention": "a model whose attention layers can be reached",
    "scenes": "a model that was trained on drawn scenes",
    "states": "a model of pixels with states of its training (scenes-ddpm in the source tree, or FOLDER/states)",
}


def value(cell: Mapping[str, Any], name: str) -> float | None:
    """A metric of a cell (`recovered.e_latent`); None where it has none: not asked, not computable, diverged."""
    found = cell["values"].get(name)
    return None if found is None or found["value"] is None else float(found["value"])


def packed(tensor: Tensor) -> dict[str, Any]:
    """A tensor as plain JSON, float32, for a probe; `unpacked` reads it."""
    import base64

    plain = tensor.detach().to("cpu").float().contiguous()
    return {"shape": list(plain.shape), "float32": base64.b64encode(plain.numpy().tobytes()).decode()}


def unpacked(told: Mapping[str, Any]) -> Tensor:
    """The tensor of `packed`."""
    import base64

    import torch

    content = bytearray(base64.b64decode(told["float32"]))
    return torch.frombuffer(content, dtype=torch.float32).reshape(told["shape"])
