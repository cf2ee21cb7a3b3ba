"""What a verb makes of some items of a collection: a row an item, and what goes into shards.

The work is the experiment's (`unsample.experiment`), as it is of the benchmark's cells; here its findings become rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsample.collections.jobs import Job
from unsample.errors import BadInput, Diverged
from unsample.experiment.findings import every, saved_of, seen
from unsample.media.fitting import batches

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.item import Item
    from unsample.experiment.findings import Findings
    from unsample.experiment.setup import Setup
    from unsample.metrics import Subject
    from unsample.verbs.results import Images, Inversion

HEALTH = ("grade", "grade_reason", "mean", "std", "kl", "lag1_correlation", "residual", "residual_step")
LEFT_OUT = "unreadable"  # the status of an item of which nothing could be made, since it is not what is wanted


@dataclass
class Made:
    """Of some items: a row each, and what is kept of them, with the places of its pictures among the items."""

    rows: list[dict[str, Any]]
    kept: list[tuple[Any, list[int]]] = field(default_factory=list)


def make(job: Job, model: Any, items: Sequence[Item]) -> Made:
    """Do the job's verb to some items."""
    made = Made([{} for _ in items])
    if job.verb == "measure":
        _measure(job, model, items, made)
    elif job.verb == "reconstruct":
        _reconstruct(job, model, items, made)
    else:
        for places in batches_of(model, items, job.asked["fit"]):
            _experiment(job, model, [items[k] for k in places], places, made)
    return made


def batches_of(model: Any, items: Sequence[Item], fit: Any) -> list[list[int]]:
    """The places of pictures that go through the model together, and of saved inversions that do."""
    if all(hasattr(item.image, "pixels") for item in items):
        pixels = model.picture_size[0] * model.picture_size[1]
        sizes = [item.image.pixels.size for item in items]
        return list(batches(sizes, pixels, model.multiple, fit, len(items)))
    groups: dict[str, list[int]] = {}
    for k, item in enumerate(items):
        groups.setdefault(str(item.extra["kind"]), []).append(k)
    return list(groups.values())


def as_item(item: Item, job: Job, input: str) -> Item:
    """An item as the experiment takes it: an opened picture with what is known of its file, and its prompts.

    Raises:
        BadInput: it has no picture, or no target prompt where one is needed.
    """
    from unsample.media.pictures import Picture
    from unsample.metrics.pixels import as_pil

    asked = job.asked
    if job.verb == "measure":
        return item
    target = asked.get("target_prompt") or item.target_prompt
    if job.verb == "edit" and not target:
        raise BadInput("it has no target prompt: none was given for all, and its row has none")
    if "inversion" in item.extra:
        return replace(item, target_prompt=target)
    metadata = dict(item.extra.get("metadata", {}))
    own = metadata.get("prompt")
    prompt = next((p for p in (asked.get("prompt"), item.prompt, own) if isinstance(p, str) and p), None)
    if item.image is None:
        raise BadInput("it is no picture but what a model is to sample; 'unsample sample' makes pictures")
    pixels = item.image if hasattr(item.image, "getbands") else as_pil(item.image[None])[0]
    picture = Picture(pixels, input, item.id, tuple(item.extra.get("notes", ())), metadata)
    return replace(item, image=picture, prompt=prompt, target_prompt=target)


def setup_of(job: Job) -> Setup:
    """What a job asks of the experiment."""
    from unsample.edits import get_editor
    from unsample.edits.choose import AUTO
    from unsample.experiment.setup import NO_MASK, Setup
    from unsample.methods import get_method

    asked = job.asked
    edit: dict[str, Any] = {}
    stages: tuple[str, ...] = ("record", "recovered") if asked["metrics"] else ()
    if job.verb == "edit":
        editor = asked["editor"]
        edit = {"editor": editor if editor == AUTO else get_editor(editor, dict(asked["editor_settings"]))}
        edit |= {"mask": asked["mask"] or NO_MASK, "edit_guidance": asked["edit_guidance_scale"]}
        stages = ("edit",)
    return Setup(
        method=get_method(asked["method"], dict(asked["settings"])),
        metrics=tuple(asked["metrics"]),
        guidance=asked["sampling_guidance_scale"],
        guidance_schedule=asked["guidance_schedule"],
        inversion_guidance=asked["guidance_scale"],
        steps=asked["num_inference_steps"],
        strength=asked["strength"],
        stages=stages,
        negative_prompt=asked["negative_prompt"],
        seed=asked["seed"],
        seeding="picture",
        fit=asked["fit"],
        clip=asked["clip"],
        first_step_radius=asked["first_step_radius"],
        class_labels=asked["class_labels"],
        negative_class_labels=asked["negative_class_labels"],
        **edit,
    )


def _experiment(job: Job, model: Any, items: Sequence[Item], places: list[int], made: Made) -> None:
    from unsample.experiment.cell import run_cells

    found = run_cells(model, items, setup_of(job))
    failure = found.failures.get("edit")
    if job.verb == "edit" and failure is not None and not isinstance(failure, Diverged):
        raise failure if isinstance(failure, Exception) else BadInput(failure)
    for n, (place, row) in enumerate(zip(places, found.rows, strict=True)):
        about = {"status": row["status"], "reason": None, "nfe": row.get("nfe"), "backward": row.get("backward")}
        about |= {"seconds": found.seconds / len(items), "values": _named(row["values"])}
        made.rows[place] = about | _of_item(items[n]) | _of_inversion(found.inversion, n) | _of_edit(job, found, n)
        if found.inversion is None:
            made.rows[place]["reason"] = str(next(iter(found.failures.values()), "diverged"))
        elif found.inversion.lost_at[n] is not None:
            made.rows[place]["reason"] = f"diverged at {found.inversion.lost_at[n]}"
        else:
            made.rows[place]["out_of_domain"] = found.outside[n]
    if job.verb == "invert" and found.inversion is not None:
        _keep(made, found.inversion, places, [n for n, status in enumerate(found.status) if status != "diverged"])
    elif job.verb == "edit" and "edit" in found.made:
        _keep_pictures(made, found.made["edit"], places)


def _reconstruct(job: Job, model: Any, items: Sequence[Item], made: Made) -> None:
    import unsample
    from unsample.experiment.findings import Findings
    from unsample.experiment.scoring import score
    from unsample.experiment.setup import Setup

    asked = job.asked
    for places in batches_of(model, items, None):
        some = [items[k] for k in places]
        inversion = saved_of(some)
        assert inversion is not None
        play = {name: asked[name] for name in ("use", "guidance_scale", "guidance_schedule", "allow_other_model")}
        setup = Setup(method=inversion.meta.method.name, metrics=tuple(asked["metrics"]), stages=("record",))
        try:
            images = unsample.reconstruct(model, inversion, progress=False, **play)
        except Diverged as error:
            for place in places:
                made.rows[place] = {"status": "diverged", "reason": str(error), **_of_item(items[place])}
            continue
        values: dict[str, Any] = {}
        if inversion.source is not None and asked["metrics"]:
            found = Findings(model, some, setup, seen(inversion), status=list(images.status), inversion=inversion)
            found.pictures = {"record": images.images.cpu()}
            values = score(found)
        for n, place in enumerate(places):
            about: dict[str, Any] = {
                "status": images.status[n],
                "reason": _lost(images, n),
                "nfe": images.nfe[n],
                "backward": 0,
            }
            about |= {
                "seconds": images.seconds / len(some),
                "values": _named({name: column[n] for name, column in values.items()}),
            }
            made.rows[place] = about | _of_item(items[place]) | _of_inversion(inversion, n)
            made.rows[place]["status"] = images.status[n] if images.status[n] == "diverged" else inversion.status[n]
        _keep_pictures(made, images, places)


def _measure(job: Job, model: Any, items: Sequence[Item], made: Made) -> None:
    from unsample.metrics import Settings, measure
    from unsample.metrics.detecting import with_autoencoded

    groups: dict[str, list[int]] = {}
    for k, item in enumerate(items):
        groups.setdefault(repr([_size(item), _size(item.extra.get("held")), item.mask is None]), []).append(k)
    asked = job.asked
    settings = Settings(
        weights_dir=asked["weights_dir"], clip=asked["clip_model"], device=asked["device"], key=asked.get("key")
    )
    for places in groups.values():
        subject = _subject([items[k] for k in places])
        if model is not None:
            try:
                subject = with_autoencoded(model, subject)
            except BadInput as error:  # of all of this size
                for place in places:
                    made.rows[place] = {"status": LEFT_OUT, "reason": str(error), **_of_item(items[place])}
                continue
        scores = measure(asked["metrics"], subject, settings)
        for n, place in enumerate(places):
            values = {
                name: {"value": score.values[n], "exact": score.exact[n], "reason": score.reasons[n]}
                for name, score in scores.items()
            }
            made.rows[place] = {"status": "ok", "reason": None, "values": values, **_of_item(items[place])}


def _subject(items: Sequence[Item]) -> Subject:
    """What is known of items of one size, and of those that they are held against."""
    import torch

    from unsample.datasets.batches import as_tensor
    from unsample.metrics import Subject

    def pictures(some: Sequence[Item]) -> dict[str, Tensor]:
        saved = saved_of(some)
        if saved is not None:
            return {"noise": saved.noise} | ({} if saved.source is None else {"images": seen(saved)})
        return {"images": torch.cat([as_tensor(item.image) for item in some])}

    def texts(name: str) -> list[str] | None:
        found = every(items, name)
        return None if found is None else [str(text) for text in found]

    given: dict[str, Any] = pictures(items)
    if "held" in items[0].extra:
        held = pictures([item.extra["held"] for item in items])
        given |= {"reference": held.get("images"), "true_noise": held.get("noise")}
    masks = every(items, "mask")
    given |= {"mask": None if masks is None else torch.stack(masks)}
    return Subject(**given, prompts=texts("prompt"), target_prompts=texts("target_prompt"))


def _size(item: Item | None) -> Any:
    if item is None or "inversion" in item.extra:
        return None if item is None else item.extra["kind"]
    return item.image.size if hasattr(item.image, "getbands") else tuple(item.image.shape)


def _keep(made: Made, inversion: Inversion, places: Sequence[int], sound: list[int]) -> None:
    if sound:
        made.kept.append((inversion if len(sound) == len(inversion) else inversion.picked(sound),
                          [places[n] for n in sound]))  # fmt: skip


def _keep_pictures(made: Made, images: Images, places: Sequence[int]) -> None:
    from unsample.media.pictures import png_of

    kept = [(n, image) for n, image in enumerate(images.pil()) if image is not None]
    if kept:
        contents = [png_of(image, images.settings(n)) for n, image in kept]
        made.kept.append((contents, [places[n] for n, _ in kept]))


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """By the metric alone; of one that two stages have, the first that has a value."""
    found: dict[str, Any] = {}
    for name, entry in values.items():
        key = name.partition(".")[2]
        if key not in found or (found[key]["value"] is None and not found[key]["exact"]):
            found[key] = entry
    return found


def _of_item(item: Item) -> dict[str, Any]:
    notes = list(item.image.notes) if hasattr(item.image, "notes") else []
    return {"prompt": item.prompt, "target_prompt": item.target_prompt, "notes": notes}


def _of_inversion(inversion: Inversion | None, n: int) -> dict[str, Any]:
    if inversion is None:
        return {}
    size = None if inversion.source is None else list(inversion.source.shape[1:3])
    health = inversion.health[n]
    about = {name: health.get(name) for name in HEALTH} | {"first_step": health.get("first_step")}
    seeds, notes = inversion.meta.get("seeds"), inversion.meta.get("notes")
    more = {"seed": seeds[n] if seeds else None, "prompt": (inversion.meta.get("prompt") or {n: None})[n]}
    more |= {"notes": [notes[n]] if notes and notes[n] else []}
    return {**about, **more, "height": size and size[0], "width": size and size[1]}


def _of_edit(job: Job, found: Findings, n: int) -> dict[str, Any]:
    if job.verb != "edit":
        return {}
    edit = found.made.get("edit")
    if edit is None:
        return {"status": "diverged", "reason": found.reason("edit")}
    about = {"edit_nfe": edit.nfe[n], "edit_guidance": found.edit_guidance, "auto": edit.meta.get("auto")}
    return about | ({"status": "diverged", "reason": _lost(edit, n)} if edit.status[n] == "diverged" else {})


def _lost(images: Images, n: int) -> str | None:
    return None if images.lost_at[n] is None else f"diverged at {images.lost_at[n]}"
