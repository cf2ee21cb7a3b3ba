"""Every kind of mistake: its exit code, its message, nothing written, torch not imported, and little time.

All mistakes are made in one child process, which reports what each left behind.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

CHILD = """
import contextlib, io, json, sys, time
from unsample.cli.main import main
ended, spent = {}, 0.0
for name, arguments in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    ended[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "torch": "torch" in sys.modules}
    ended[name]["cpu"], spent = time.process_time() - spent, time.process_time()
print(json.dumps(ended))
"""

MIXTURE = "invert good.png -m scenes-mixture"
EDITED = "edit good.png -m scenes-mixture --target-prompt x --editor"
LONG = "x" * 300  # over the 255 bytes that a file system takes
# name: (arguments, exit code, words that the message must hold)
MISTAKES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "study samples": ("study zeng_table1 --num-samples 0", 2, ("--num-samples", "at least 1")),
    "study name": ("study zeng_tabel1", 2, ("zeng_tabel1", "zeng_table1")),
    "study model": ("study edit_guidance -m scenes-ddpm", 2, ("edit_guidance", "takes prompts", "scenes-ddpm")),
    "study folder": ("study zeng_table1 -m scenes-mixture -o good.png", 4, ("good.png", "not a folder")),
    "steps 0": (f"{MIXTURE} --steps 0", 2, ("--steps", "at least 1", "0")),
    "steps -1": (f"{MIXTURE} --steps -1", 2, ("--steps", "-1")),
    "steps 1001": (f"{MIXTURE} --steps 1001", 2, ("--steps", "at most 1000", "1001")),
    "steps above a folder's own": ("invert good.png -m model --steps 201", 2, ("at most 200", "201")),
    "steps of a sample": ("sample -m scenes-mixture --steps 1001", 2, ("at most 1000",)),
    "steps not a number": (f"{MIXTURE} --steps many", 2, ("--steps", "many")),
    "guidance nan": (f"{MIXTURE} --guidance-scale nan", 2, ("--guidance-scale", "finite", "nan")),
    "guidance negative": (f"{MIXTURE} --guidance-scale -1", 2, ("at least 0", "-1")),
    "sampling guidance inf": (f"{MIXTURE} --sampling-guidance-scale inf", 2, ("--sampling-guidance-scale", "inf")),
    "edit guidance": ("edit good.png --target-prompt x --guidance-scale 1,x", 2, ("1,x",)),
    "edit guidance nan": ("edit good.png --target-prompt x --guidance-scale 1,nan", 2, ("finite", "nan")),
    "grid of several": ("edit good.png --target-prompt x --guidance-scale 1,3 --grid", 2, ("--grid",)),
    "strength 0": (f"{MIXTURE} --strength 0", 2, ("--strength", "above 0")),
    "strength nan": (f"{MIXTURE} --strength nan", 2, ("--strength", "nan")),
    "strength of no step": (f"{MIXTURE} --strength 0.01", 2, ("no step",)),
    "seed": (f"{MIXTURE} --seed -1", 2, ("--seed", "-1")),
    "batch size": (f"{MIXTURE} --batch-size 0", 2, ("--batch-size", "0")),
    "number of frames": ("interpolate good.safetensors good.safetensors --num-frames 1", 2, ("--num-frames", "2")),
    "number of images": ("sample --num-images 0", 2, ("--num-images",)),
    "misspelt method": (f"{MIXTURE} --method ddmi", 2, ("'ddmi'", "did you mean 'ddim'?")),
    "misspelt method shown": ("methods fixedpoint", 2, ("did you mean 'fixed_point'?",)),
    "misspelt setting": (f"{MIXTURE} --method fixed_point --set num_iter=3", 2, ("did you mean 'num_iters'?",)),
    "no such choice": (
        f"{MIXTURE} --method fixed_point --set start=nope",
        2,
        ("one of source, previous, extrapolated",),
    ),
    "setting of none": (f"{MIXTURE} --method uni_inv --set start=previous", 2, ("'start'; uni_inv has no settings",)),
    "setting without value": (f"{MIXTURE} --set num_iters", 2, ("KEY=VALUE", "num_iters")),
    "setting of another type": (f"{MIXTURE} --method fixed_point --set num_iters=few", 2, ("num_iters", "int")),
    "setting out of range": (f"{MIXTURE} --method fixed_point --set num_iters=0", 2, ("num_iters", "at least 1")),
    "images without end": ("sample -m scenes-mixture --num-images 100000000", 2, ("--num-images", "at most", "100000")),
    "device": (f"{MIXTURE} --device cudda", 2, ("--device", "cudda", "cuda")),
    "offload on the cpu": (f"{MIXTURE} --device cpu --offload model", 2, ("--offload", "accelerator")),
    "dtype": (f"{MIXTURE} --dtype float8", 2, ("float8", "bfloat16")),
    "prompt for a model without text": ("invert good.png -m pixels --prompt x", 2, ("takes no prompt",)),
    "guidance for a model without text": ("sample -m pixels --guidance-scale 3", 2, ("no guidance", "3")),
    "edit with a model without text": ("edit good.png -m pixels --target-prompt x", 2, ("takes no prompt",)),
    "unknown option": (f"{MIXTURE} --bogus", 2, ("--bogus", "unsample invert --help")),
    "missing picture": ("invert", 2, ("IMAGE", "unsample invert --help")),
    "missing target prompt": ("edit good.png", 2, ("--target-prompt",)),
    "misspelt editor": (f"{EDITED} p2pp", 2, ("did you mean 'p2p'?",)),
    "misspelt setting of an editor": (f"{EDITED} p2p --editor-set cros_steps=1", 2, ("did you mean 'cross_steps'?",)),
    "setting of an editor out of range": (f"{EDITED} p2p --editor-set cross_steps=2", 2, ("cross_steps", "to 1")),
    "setting of an editor without value": (f"{EDITED} p2p --editor-set x", 2, ("--editor-set takes KEY=VALUE",)),
    "setting of auto": (f"{EDITED} auto --editor-set cross_steps=1", 2, ("leave --editor-set out",)),
    "editor without a source prompt": (f"{EDITED} p2p --force", 2, ("editor p2p compares", "--source-prompt")),
    "editor beside a method that edits by itself": (
        f"{EDITED} masactrl --method infedit --source-prompt y --force",
        2,
        ("editor masactrl does not go with infedit",),
    ),
    "unknown verb": ("inverse good.png", 2, ("'inverse'", "'invert'")),
    "misspelt model": ("invert good.png -m scenes-ddmp", 3, ("'scenes-ddmp'", "did you mean 'scenes-ddpm'?")),
    "folder that is no model": ("invert good.png -m folder", 3, ("model_index.json",)),
    "model with a broken index": ("invert good.png -m broken-model", 3, ("model_index.json", "cannot be read")),
    "model of a long name": (f"invert good.png -m {LONG}", 3, ("no model", "too long")),
    "hub id that is not cached": ("invert good.png -m nobody/nothing", 3, ("nobody/nothing", "HF_HUB_OFFLINE")),
    "missing file": ("invert gone.png -m scenes-mixture", 4, ("gone.png", "no such file")),
    "truncated": ("invert truncated.png -m scenes-mixture", 4, ("truncated.png", "damaged or cut short")),
    "zero bytes": ("invert empty.png -m scenes-mixture", 4, ("empty.png", "0 bytes")),
    "text named png": ("invert text.png -m scenes-mixture", 4, ("text.png", "text, not a picture")),
    "20000x20000": ("invert huge.png -m scenes-mixture", 4, ("huge.png", "400 megapixels", "64")),
    "directory": ("invert folder -m scenes-mixture", 4, ("folder", "holds no pictures")),
    "side of 7": ("invert thin.png -m scenes-mixture", 4, ("thin.png", "7x20", "at least 8")),
    "size that the model does not know": ("invert wide.png -m scenes-mixture", 4, ("wide.png", "64x32", "--fit crop")),
    "one bad of three": ("invert good.png empty.png good.png -m scenes-mixture", 4, ("1 of 3", "nothing was written")),
    "corrupt inversion": ("reconstruct corrupt.safetensors", 4, ("corrupt.safetensors", "corrupt")),
    "truncated inversion": ("reconstruct cut.safetensors", 4, ("cut.safetensors", "truncated")),
    "future inversion": ("reconstruct future.safetensors", 4, ("future.safetensors", "999", "upgrade")),
    "other safetensors": ("reconstruct weights.safetensors", 4, ("weights.safetensors", "not an inversion")),
    "missing inversion": ("interpolate gone.safetensors gone.safetensors", 4, ("gone.safetensors", "not there")),
    "interpolation of two sizes": ("interpolate small.safetensors wide.safetensors", 2, ("(1, 3, 8, 8)", "same model")),
    "interpolation of two grids": ("interpolate small.safetensors longer.safetensors", 2, ("2 of 2 and 3 of 3",)),
    "other bundled model": ("reconstruct small.safetensors -m scenes-ddpm", 4, ("scenes-sd", "--allow-other-model")),
    "edit by another": ("edit small.safetensors -m scenes-ddpm --target-prompt x", 4, ("--allow-other-model",)),
    "method of the future": ("reconstruct later.safetensors", 4, ("later.safetensors", "'leap'", "played back")),
    "picture as inversion": ("reconstruct good.png", 4, ("good.png", "is a picture", "'unsample invert'")),
    "inversion of a long name": (f"reconstruct {LONG}", 4, ("cannot be opened", "too long")),
    "pipe as picture": ("edit pipe --target-prompt x", 4, ("pipe", "ordinary file")),
    "pipe shown": ("show pipe", 4, ("pipe", "ordinary file")),
    "pipe as trajectory": (f"{MIXTURE} --method oracle --trajectory pipe", 4, ("pipe", "--keep-trajectory")),
    "prompt in a picture that is no text": ("invert untold.png -m scenes-mixture", 4, ("untold.png", "--prompt")),
    "output of a long name": (f"{MIXTURE} -o {LONG}", 4, ("cannot write", "too long")),
    "sample of a long name": (f"sample -m scenes-mixture -o {LONG}.png", 4, ("cannot write", "too long")),
    "existing output": (f"{MIXTURE} -o taken", 4, ("taken/good.png", "--overwrite")),
    "output under a file": (f"{MIXTURE} -o good.png/out", 4, ("good.png", "file, not a folder")),
    "unwritable output": (f"{MIXTURE} -o /proc/unsample", 4, ("/proc/unsample",)),
    "output over the input": (f"{MIXTURE} -o . --overwrite", 4, ("good.png", "an input")),
    "edit to a jpeg": ("edit good.png --target-prompt x -o out.jpg", 4, ("out.jpg", "PNG")),
    "sample to a jpeg": ("sample -m scenes-mixture -o out.jpg", 4, ("out.jpg", "only PNG", "out.png")),
    "sample to a text file": ("sample -m scenes-mixture -o notes.txt", 4, ("notes.txt",)),
    "showing a jpeg": ("show photo.jpg", 4, ("photo.jpg", "a picture, but no PNG")),
}


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; there are no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def prepare(folder: Path) -> None:
    """The files that the mistakes speak of."""
    from safetensors.numpy import save_file

    from unsample.datasets import Scenes
    from unsample.metrics.pixels import as_pil

    noise = Image.effect_noise((32, 32), 80).convert("RGB")
    as_pil(Scenes("tune", 1, size=32)[0].image[None])[0].save(folder / "good.png")
    noise.save(folder / "photo.jpg")
    whole = (folder / "good.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture")
    (folder / "notes.txt").write_text("notes")
    (folder / "huge.png").write_bytes(png_of_size(20_000, 20_000))
    Image.new("RGB", (64, 32)).save(folder / "wide.png")
    Image.new("RGB", (7, 20)).save(folder / "thin.png")
    info = PngInfo()
    info.add_text("unsample", r'{"prompt": "\ud800"}')
    noise.save(folder / "untold.png", pnginfo=info)
    os.mkfifo(folder / "pipe")
    for name in ("folder", "taken", "model/scheduler", "broken-model", "pixels"):
        (folder / name).mkdir(parents=True)
    (folder / "taken" / "good.png").write_bytes(b"mine")
    (folder / "model" / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
    (folder / "model" / "scheduler" / "scheduler_config.json").write_text('{"num_train_timesteps": 200}')
    (folder / "pixels" / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
    (folder / "broken-model" / "model_index.json").write_text("{")
    import numpy as np

    tensors = {"noise": np.zeros((1, 3, 8, 8), np.float32)}
    save_file(tensors, folder / "weights.safetensors")
    save_file(tensors, folder / "future.safetensors", metadata={"unsample_format": "999", "unsample": "{}"})
    save_file(tensors, folder / "good.safetensors", metadata={"unsample_format": "1", "unsample": "{}"})
    inverted = {"small": ((8, 8), 2, "ddim"), "wide": ((8, 16), 2, "ddim"), "longer": ((8, 8), 3, "ddim")}
    for name, (size, steps, method) in (inverted | {"later": ((8, 8), 2, "leap")}).items():
        save_inversion(folder / f"{name}.safetensors", size, steps, method)
    (folder / "corrupt.safetensors").write_bytes(os.urandom(200))
    whole = (folder / "future.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-10])


def save_inversion(path: Path, size: tuple[int, int], steps: int, method: str) -> None:
    """A sound file that says it was made by scenes-sd."""
    import torch
    from diffusers import DDIMScheduler

    import unsample

    model = unsample.wrap(lambda x, t: 0 * x, DDIMScheduler(), sample_shape=(3, *size))
    found = unsample.invert(model, latents=torch.zeros(1, 3, *size), num_inference_steps=steps)
    named = {"model": found.meta["model"] | {"id": "scenes-sd"}, "method": found.meta["method"] | {"name": method}}
    replace(found, meta=found.meta | named).save(path)


def listing(folder: Path) -> dict[str, float]:
    """All files and folders."""
    return {str(p): p.stat().st_mtime for p in folder.rglob("*") if p.is_file()} | {
        str(p): 0.0 for p in folder.rglob("*") if p.is_dir()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All mistakes, made: what each left, and the files before and after."""
    folder = tmp_path_factory.mktemp("mistakes")
    prepare(folder)
    before = listing(folder)
    asked = {name: [*arguments.split(), "--json"] for name, (arguments, _, _) in MISTAKES.items()}
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=folder,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return {"ended": json.loads(child.stdout), "left": (before, listing(folder))}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_its_code_and_says_what_was_wrong(made: dict[str, Any], name: str) -> None:
    _, code, words = MISTAKES[name]
    ended = made["ended"][name]
    assert ended["code"] == code, ended["err"]
    lines = [line for line in ended["err"].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in ended["err"]
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_json_error_too(made: dict[str, Any], name: str) -> None:
    ended = made["ended"][name]
    error = json.loads(ended["out"])["error"]
    assert error["code"] == ended["code"]
    assert f"error: {' '.join(error['message'].split())}" in ended["err"]


def test_no_mistake_imports_torch(made: dict[str, Any]) -> None:
    assert [name for name, ended in made["ended"].items() if ended["torch"]] == []


def test_no_mistake_leaves_a_file_or_folder(made: dict[str, Any]) -> None:
    before, after = made["left"]
    assert after == before


def test_a_mistake_costs_less_than_two_seconds(made: dict[str, Any]) -> None:
    spent = [ended["cpu"] for ended in made["ended"].values()]  # of the processor, so that a busy machine is no failure
    start = spent[0]  # of Python and the command, before its own first mistake
    assert start + max(spent) < 2
