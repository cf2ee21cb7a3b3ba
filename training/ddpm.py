"""Train `scenes-ddpm`: unconditional, 32x32 pixels, epsilon prediction (DDPM, arXiv:2006.11239), with an EMA.

What the loss has to ask for. A network that is wrong by e in eps is wrong by e sigma / alpha in the picture. The plain
loss, and one with the weight 1 / alpha too, hardly notices that between t = 400 and 800, where it is decided what a
picture shows: 14,000 steps of the latter made textures with coloured specks. The weight 1 / alpha^2 (v prediction's) is
the error of the picture itself; above t = 765, where a noisy picture tells little but its mean colour, it would drown
the rest and is capped, except for 8x8 block means: the colours.

Which timesteps. The committed weights were trained with 55 % of them between 400 and 800, and above 600 they are within
6 % of the best there is. What they lack lies below, and grows all the way down (`training.evaluate` denoises from
t = 100, 300, 500), so a run that is started now draws 85 % of the timesteps below 600, stratified over the batch.

What the network has to be able to do. Every norm divides by a standard deviation, so a plain network of GroupNorms
cannot tell a noise of std 1.03 from one of 1, which times 130 is noise in x0 that no later step takes away. One channel
of each group before the last norm therefore carries a large constant, and what is beside it passes linearly: with it
the network starts as eps = x, nearly right at high noise. Time enters by scale and shift, so that levels can differ.
Helper heads name the scene's attributes and draw the object's mask (after 1,000 steps of one seed the error of eps was
0.052 with them and 0.055 without).

Twelve EMA states at log-spaced steps are written to `training/ddpm-history/` in fp16: how inversion error grows with
training is a question of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, silu
from tqdm import tqdm

from training.heads import AttributeHeads, attribute_index, naming_loss
from training.run import BUNDLED, Run, arguments, plain_attention, train_scenes
from unsample.datasets.scenes import ATTRIBUTES, render
from unsample.media.files import atomic_write

BATCH, GROUPS, CONSTANT = 512, 8, 12.0
SCENES, CHUNK = 2**20, 1024  # training scenes in all, and how many are drawn at a time
HELP = 0.01  # of the helper heads' loss at the start; falls linearly to 0 at the last step
CAP = 3e-3  # of alpha^2 in the weight 1 / alpha^2; reached at t = 765
HISTORY = Path(__file__).parent / "ddpm-history"


def build() -> UNet2DModel:
    """Self-attention at 16x16 and 8x8; starts close to eps = x."""
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=(32, 64, 96),
        down_block_types=["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        layers_per_block=2,
        attention_head_dim=32,
        norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift",
    )
    start_as_identity(unet)
    return unet


@torch.no_grad()
def start_as_identity(unet: UNet2DModel) -> None:
    """Set the weights so that the output is x, but for a small function of x and t.

    Channel 0 of each group before the last norm is a constant. The next two, in the first three groups, are x and -x,
    one colour each: silu(z) - silu(-z) = z. They come from the first convolution by the last skip connection.
    """
    last, width = unet.up_blocks[-1].resnets[-1], unet.config["block_out_channels"][0]
    each, old = width // GROUPS, last.in_channels - width
    spread = CONSTANT * math.sqrt((each - 1) / each**2)  # the standard deviation within a group
    last.conv2.bias[::each] = CONSTANT
    unet.conv_out.weight.mul_(0.1)
    unet.conv_out.bias.zero_()
    for c in range(3):
        unet.conv_in.weight[c].zero_()
        unet.conv_in.weight[c, c, 1, 1] = 1
        unet.conv_in.bias[c] = 0
        for channel, sign in ((c * each + 1, 1.0), (c * each + 2, -1.0)):
            last.conv_shortcut.weight[channel].zero_()
            last.conv_shortcut.weight[channel, old + c] = sign
            last.conv_shortcut.bias[channel] = 0
            last.conv2.weight[channel].zero_()
            last.conv2.bias[channel] = 0
            unet.conv_norm_out.bias[channel] = CONSTANT / each / spread  # the group's mean is taken off again
            unet.conv_out.weight[:, channel].zero_()
            unet.conv_out.weight[c, channel, 1, 1] = sign * spread


class Helped(nn.Module):
    """The network and the heads that help it along: what is the scene, and where is its object, read in the middle.

    They are not kept. What a noisy picture shows is what a denoiser has to find out, and here it is known (as features
    of a trained encoder are in REPA, arXiv:2410.06940).
    """

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet
        deep, wide = unet.config["block_out_channels"][-1], unet.config["block_out_channels"][1]
        self.heads = AttributeHeads(deep)
        self.mask = nn.Conv2d(wide, 1, 1)
        self.seen: dict[str, Tensor] = {}
        unet.conv_norm_out.register_forward_pre_hook(lambda _, given: (given[0].float(),))  # see Objective
        unet.mid_block.register_forward_hook(lambda *given: self.seen.update(deep=given[-1]))
        unet.up_blocks[1].register_forward_hook(lambda *given: self.seen.update(wide=given[-1]))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The output (B, 3, H, W), logits of each attribute (B, V), mask logits (B, 1, H, W)."""
        out = self.unet(x, t).sample
        return out, self.heads(silu(self.seen["deep"]).mean((2, 3))), self.mask(silu(self.seen["wide"]))


def timesteps(shift: Tensor) -> Tensor:
    """One timestep for each stratum of the batch, from shifts (B,) in [0, 1), in rising order.

    Four in ten below 230, where edges and textures are decided; one in seven above 600, which is learnt soon.
    """
    place = (torch.arange(len(shift)) + shift) / len(shift)
    t = np.interp(place, [0, 0.35, 0.65, 0.85, 0.95, 1], [0, 200, 400, 600, 800, 1000])
    return torch.from_numpy(t).long().clamp(max=999)


def drawn(chunk: int) -> tuple[np.ndarray, ...]:
    """`CHUNK` training scenes: pictures and object masks as bytes, as a PNG would hold them, and the place of each
    attribute (N, 7)."""
    scenes = train_scenes(chunk, CHUNK, stream=4)
    made = render(scenes, 32)
    index = torch.stack(list(attribute_index(scenes, "cpu").values()), 1)
    as_bytes = ((255 * part).round().byte().numpy() for part in (made.images, made.object_mask))
    return *as_bytes, index.byte().numpy()


class Bank:
    """`count` training scenes, drawn by processes before the first step and kept on the device: 4 kB each.

    Drawn anew for every step they would take processors from the one that trains.
    """

    def __init__(self, count: int, device: str, workers: int) -> None:
        self.device, self.count = device, count
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            parts = list(tqdm(pool.map(drawn, range(count // CHUNK)), "drawing scenes", count // CHUNK, mininterval=5))
        held = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.images, self.masks, self.index = (torch.from_numpy(part).to(device) for part in held)
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.long)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures (B, 3, 32, 32) in [-1, 1], object masks (B, 1, 32, 32) in [0, 1], attributes (7, B), timesteps."""
        per_epoch = self.count // BATCH
        if step // per_epoch != self.epoch:
            self.epoch = step // per_epoch
            shuffle = torch.Generator().manual_seed(self.epoch)
            self.order = torch.randperm(self.count, generator=shuffle).to(self.device)
        rows = self.order[step % per_epoch * BATCH :][:BATCH]
        t = timesteps(torch.rand(BATCH, generator=torch.Generator().manual_seed(step)))
        images, masks = self.images[rows].float() / 127.5 - 1, self.masks[rows].float() / 255
        return images, masks, self.index[rows].long().T.contiguous(), t.to(self.device, non_blocking=True)


class InBfloat16(torch.autograd.Function):
    """Tensors in bfloat16, all at once; autocast would cast each by itself, and run norms in float32."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        copies = [torch.empty_like(part, dtype=torch.bfloat16) for part in tensors]
        torch._foreach_copy_(copies, list(tensors))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        wide = [torch.empty_like(part, dtype=torch.float32) for part in grads]
        torch._foreach_copy_(wide, list(grads))
        return tuple(wide)


class Objective:
    """The loss of a batch, and figures of its parts.

    Weights and loss are float32, the network runs in bfloat16 but for its last norm and convolution: in bfloat16 these
    would round away what the constant channels leave of x: its test finds gradients six times as wrong then.
    """

    def __init__(self, helped: Helped, abar: Tensor) -> None:
        self.helped, self.abar = helped, abar
        named = dict(helped.named_parameters())
        self.wide = {
            name: named.pop(name) for name in list(named) if name.startswith(("unet.conv_norm_out", "unet.conv_out"))
        }
        self.narrow = named

    def __call__(
        self, x0: Tensor, outline: Tensor, index: Tensor, t: Tensor, eps: Tensor, helping: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.wide | dict(zip(self.narrow, InBfloat16.apply(*self.narrow.values()), strict=True))
        a = self.abar[t]
        x = a.sqrt()[:, None, None, None] * x0 + (1 - a).sqrt()[:, None, None, None] * eps
        x = x.bfloat16().contiguous(memory_format=torch.channels_last)
        out, named, mask = functional_call(self.helped, weights, (x, t))
        error = out.float() - eps
        plain = error.square().mean((1, 2, 3))
        coarse = avg_pool2d(error, 8).square().mean((1, 2, 3))
        value = (plain / a.clamp(min=CAP) + 0.05 * coarse / a).mean()
        heads = naming_loss(named, dict(zip(ATTRIBUTES, index, strict=True)))
        outlined = binary_cross_entropy_with_logits(mask.float(), outline)
        bands = {"low": t < 200, "middle": (t >= 200) & (t < 600), "high": t >= 600}
        figures = {name: ((plain / a) * rows).sum().detach() / rows.sum() for name, rows in bands.items()}
        figures |= {"heads": heads.detach(), "outline": outlined.detach()}
        return value + helping * (heads + 20 * outlined), figures


class Graphed:
    """The same, captured with its backward pass as a CUDA graph: a processor may launch kernels too slowly for its GPU.

    Gradients lie in `.grad` after a call, and the value that is returned needs none. Not run on a GPU yet.
    """

    def __init__(self, objective: Objective, batch: Sequence[Tensor]) -> None:
        self.held = [part.clone() for part in batch]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # cuDNN chooses its kernels before the capture
            for _ in range(3):
                objective(*self.held)[0].backward()
        torch.cuda.current_stream().wait_stream(aside)
        objective.helped.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            value, self.figures = objective(*self.held)
            value.backward()
        self.value = value.detach()

    def __call__(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        for held, part in zip(self.held, batch, strict=True):
            held.copy_(part)
        self.graph.replay()
        return self.value.clone(), {name: figure.clone() for name, figure in self.figures.items()}


def log_spaced(steps: int, count: int = 12, first: int = 100) -> set[int]:
    """`count` steps from `first` to the last, evenly spaced in the logarithm."""
    return {round(first * (steps / first) ** (k / (count - 1))) for k in range(count)}


def main() -> None:
    options = arguments(__doc__ or "", steps=4690, switches=["--graph"])
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    scheduler = DDPMScheduler(clip_sample=False)
    abar = scheduler.alphas_cumprod.to(options.device)
    unet = build()
    helped = Helped(unet).to(options.device, memory_format=torch.channels_last)
    plain_attention(unet, options.device)
    folder = BUNDLED / "scenes-ddpm"

    def committed() -> dict[str, Tensor]:
        state = UNet2DModel.from_pretrained(folder / "unet", dtype=torch.float32).state_dict()
        return {f"unet.{key}": value for key, value in state.items()}

    given = {"steps": options.steps, "finish": options.finish, "folder": folder, "committed": committed}
    run = Run("ddpm", helped, lr=1e-3, warmup=500, ema=0.9995, **given)

    def batch(step: int) -> tuple[Tensor, ...]:
        x0, outline, index, t = bank.batch(step)
        generator = torch.Generator(options.device).manual_seed(step)
        eps = torch.randn(x0.shape, generator=generator, device=options.device)
        return x0, outline, index, t, eps, torch.full((), HELP * (1 - run.done()), device=options.device)

    if run.done() < 1:
        bank = Bank(SCENES, options.device, options.workers)
        objective = Objective(helped, abar)
        made = Graphed(objective, batch(run.step)) if options.graph else objective
        states = log_spaced(options.steps, 60)  # the last step is not known yet when the clock decides
        run.loop(
            lambda step: made(*batch(step)),
            minutes=options.minutes,
            keep=lambda step: step in states or run.done() == 1,
        )
    helped.load_state_dict(run.ema)
    DDPMPipeline(unet=unet.cpu().half(), scheduler=scheduler).save_pretrained(folder)
    run.write_history()
    write_states(run, log_spaced(run.step))


def of_unet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a state."""
    return {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}


def write_states(run: Run, wanted: set[int]) -> None:
    """The kept states nearest to the log-spaced steps (a run that was lengthened has others), without pickle.

    A run that went on from the committed weights goes on with their history.
    """
    made = {int(p.stem.removeprefix("ema-")): p for p in run.path.parent.glob("ema-*.pt")}
    if not made:  # nothing was trained: the committed weights are complete
        return
    HISTORY.mkdir(exist_ok=True)
    written = {int(p.stem.removeprefix("step-")): p for p in HISTORY.glob("*.safetensors")}
    there = [*made, *(written if run.fresh else ())]
    kept = {min(there, key=lambda s, w=w: abs(math.log(max(s, 1) / w))) for w in wanted}  # type: ignore[misc]
    for step, path in written.items():
        if step and (step not in kept or step in made):  # the start stays
            path.unlink()
    for step in kept & made.keys():
        state = of_unet(torch.load(made[step], weights_only=True))
        about = {"steps": str(step), "model": "scenes-ddpm"}
        state = {key: value.contiguous() for key, value in state.items()}
        content = save(state, metadata=about)
        atomic_write(HISTORY / f"step-{step:06d}.safetensors", lambda temporary, c=content: temporary.write_bytes(c))


if __name__ == "__main__":
    main()
