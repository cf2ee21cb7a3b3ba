"""The studies: experiments of papers, and ours, each a question with a verdict whose claims were fixed before the run.

A study is a file of this package (`STUDY = Study(...)`, see `base`) and a file of claims (`claims/NAME.toml`). Its long
work is plans of the benchmark (`running`), its rows and figure follow from their cells, and what holds is computed from
the rows alone (`verdicts`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from unsample.errors import unknown_name

if TYPE_CHECKING:
    from unsample.studies.base import Study

NAMES: tuple[str, ...] = (  # in the order of the site: by paper
    "zeng_table1",
    "zeng_histograms",
    "zeng_selfinterpolation",
    "zeng_first_step",
    "zeng_direct_steps",
    "zeng_cost",
    "taba_correlation",
    "taba_latents",
    "taba_triangle",
    "taba_path",
    "taba_variance",
    "taba_plain",
    "taba_step_error",
    "taba_interpolation",
    "taba_diversity",
    "taba_assignment",
    "taba_replacement",
    "taba_forward",
    "taba_training",
    "easyinv_table1",
    "easyinv_wraparound",
    "easyinv_precision",
    "easyinv_midpoint",
    "easyinv_white",
    "easyinv_window",
    "easyinv_oversmoothing",
    "easyinv_masactrl",
    "easyinv_models",
    "edit_guidance",
    "edit_schedules",
    "edit_methods",
    "edit_embeddings",
    "roundtrip_vs_noise",
    "convergence",
    "precision",
    "quantisation",
    "seed_noise",
)


def get_study(name: str) -> Study:
    """A study by its name. No torch.

    Raises:
        UnknownName: no such study.
    """
    if name not in NAMES:
        raise unknown_name("study", name, NAMES)
    study: Study = import_module(f"unsample.studies.{name}").STUDY
    return study
