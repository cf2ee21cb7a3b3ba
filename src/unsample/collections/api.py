"""The door of Python: `invert_collection`, and how a collection is done."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.collections.asking import check, chosen_model, devices, peeked, resolved, walked
from unsample.collections.jobs import METRICS, Job
from unsample.collections.opened import Collection
from unsample.collections.run import How, run_collection
from unsample.collections.shards import SHARD_SIZE, check_shard_size
from unsample.collections.sources import check_apart, open_source
from unsample.errors import BadOption, OutOfDomainWarning
from unsample.models.domain import spoken
from unsample.numeric import is_whole
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, known_model, known_of
from unsample.preflight.walk import Labels, Walk

if TYPE_CHECKING:
    from unsample.media.pictures import Fit
    from unsample.methods import Method

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def invert_collection(
    model: Any,
    source: Source,
    output: str | os.PathLike[str],
    *,
    prompt: str | None = None,
    method: str | Method = "ddim",
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    sampling_guidance_scale: float | None = None,
    guidance_schedule: str = "constant",
    strength: float | None = None,
    generator: int = 0,
    negative_prompt: str | None = None,
    class_labels: int | None = None,
    negative_class_labels: int | None = None,
    first_step_radius: bool = False,
    fit: Fit = "aspect",
    clip: str = "off",
    metrics: Sequence[str] = METRICS,
    dtype: str = "float32",
    device: str | None = None,
    batch_size: int | str = "auto",
    workers: int | None = None,
    threads: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    shard_size: int = SHARD_SIZE,
) -> Collection:
    """Invert thousands of pictures, resumably; results go into shards.

    What is there already is skipped, so that the same call goes on where it was stopped, and does what is new.

    Args:
        model: the name of one, as `unsample.load` takes it, which every worker loads; or a loaded one, which works in
            this process.
        source: a folder, a .csv, .tsv or .jsonl list, .parquet, .tar, a data set (`scenes:200`), or files and patterns.
        output: a folder, for shard-00000.safetensors ..., index.parquet and the ledger.
        prompt: what the pictures show, all of them; default: what the list says, else the picture's own metadata.
        method, num_inference_steps, guidance_scale, sampling_guidance_scale, guidance_schedule, strength,
            negative_prompt, class_labels, negative_class_labels, first_step_radius, fit, clip: as in `invert`, one for
            all pictures.
        generator: the number that seeds every picture together with its content.
        metrics: of the reconstruction and of the noise, a column each; none: nothing is reconstructed.
        dtype, device: of the network; several devices joined by commas, or as many as there are GPUs, have a worker
            each.
        batch_size: pictures at once, or "auto", which begins at 8 and halves when memory is short.
        workers: processes, or actors of Ray; default: one a device.
        threads: of the CPU, of each worker; default: the cores shared out.
        engine: "local" or "ray", with `ray_address` of a cluster.
        shard_size: pictures of a shard at most; one of 128 MB is full too.

    Returns:
        The `Collection`: its rows, and each picture's `Inversion` by name.

    Raises:
        BadOption, Incompatible, BadInput: what was asked cannot be done, the folder holds other results, or a file
            cannot be written. What was committed stays.
    """
    labels = Labels(*(None if n is None else (n,) for n in (class_labels, negative_class_labels)))
    walk = Walk(
        _method(method),
        num_inference_steps,
        guidance_scale,
        sampling_guidance_scale,
        guidance_schedule,
        strength,
        generator,
        fit,
        clip,
        first_step_radius,
        labels,
    )
    texts = rules.check_text(prompt), rules.check_text(negative_prompt, "negative_prompt")
    check_apart(_given(source), Path(output))
    data = open_source(_given(source))
    first = peeked(data)
    known, loaded = _known(model, first)
    asked = walked(walk, texts) | {"metrics": resolved(metrics), "dtype": _dtype(loaded, known, dtype)}
    job = Job("invert", known.name, asked)
    if outside := [(what, why) for _, what, why in check(job, walk, known, first)]:
        warnings.warn(OutOfDomainWarning("out_of_domain", lambda name: spoken(known.name, outside)), stacklevel=2)
    if loaded and ((workers or 1) > 1 or engine != "local"):
        raise BadOption("a loaded model works in this process alone; give its name for several workers")
    how = _how(batch_size, workers, threads, engine, ray_address, shard_size, device)
    run_collection(job, data, Path(output), how, loaded=loaded)
    return Collection(output)


def how_of(
    batch_size: int, workers: int | None, threads: int | None, engine: str, ray_address: str | None, shard_size: int,
    device: str | None, command: Sequence[str] = (),
) -> How:  # fmt: skip
    """How a collection is done; `batch_size` 0 is auto.

    Raises:
        BadOption, BadInput: what cannot be.
    """
    from unsample.errors import unknown_name

    if engine not in ("local", "ray"):
        raise unknown_name("engine", engine, ("local", "ray"))
    if engine == "ray":
        from unsample.bench.ray_engine import import_ray

        import_ray()
    rules.check_ray(engine, ray_address)
    for name, number in (("workers", workers), ("threads", threads)):
        if number is not None and (not is_whole(number) or not 1 <= number <= 1024):
            raise BadOption(f"{name} must be from 1 to 1024; got {number!r}")
    where, count = devices(device, workers)
    return How(
        engine=engine,
        workers=count,
        batch_size=batch_size,
        threads=threads,
        device=where,
        ray_address=ray_address,
        shard_size=check_shard_size(shard_size),
        command=command,
    )


def _how(batch_size: int | str, *more: Any) -> How:
    if batch_size != "auto" and (not is_whole(batch_size) or not 1 <= int(batch_size) <= 4096):
        raise BadOption(f"batch_size must be from 1 to 4096, or 'auto'; got {batch_size!r}")
    return how_of(0 if batch_size == "auto" else int(batch_size), *more)


def _given(source: Source) -> list[str]:
    return [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(one) for one in source]


def _method(method: str | Method) -> Method:
    from unsample.methods import get_method

    return get_method(method)


def _known(model: Any, first: Sequence[Any]) -> tuple[KnownModel, Mapping[str, Any] | None]:
    """What is known of the model, and the model itself where it is in memory."""
    if model is None or isinstance(model, str | os.PathLike):
        return chosen_model(None if model is None else known_model(os.fspath(model)), first), None
    known = known_of(model)
    return known, {known.name: model}


def _dtype(loaded: Mapping[str, Any] | None, known: KnownModel, dtype: str) -> str:
    return dtype if loaded is None else str(loaded[known.name].dtype).removeprefix("torch.")
