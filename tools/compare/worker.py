"""A process that keeps one PyTorch model and measures it whenever it is asked.

The one argument is a JSON object: the fields of `Work`, and `compile`.
The first line of standard output describes the model. Then every line of standard input, a number
of seconds, is answered by one line with a measurement. In between, the process is blocked on the
pipe and leaves the processor to others.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from work import PRESETS, Work

ROUND_SECONDS = 0.5
"""A round lasts at least this long, so that the clock and a late wake-up do not count."""

WARM_UP_SECONDS = 0.3
WARM_UP_STEPS = 2


def build_model(name: str) -> VisionTransformer:
    """The plain model of a preset, checked to be the one that adavit has."""
    preset = PRESETS[name]
    if name.startswith("deit_"):
        model = timm.create_model(name, pretrained=False)
    else:
        model = VisionTransformer(
            img_size=preset.img_size,
            patch_size=preset.patch_size,
            in_chans=preset.in_chans,
            num_classes=preset.num_classes,
            embed_dim=preset.embed_dim,
            depth=preset.depth,
            num_heads=preset.num_heads,
            mlp_ratio=4.0,
            qkv_bias=True,
            class_token=True,
        )
    assert isinstance(model, VisionTransformer)
    check_model(model, name)
    return model


def check_model(model: VisionTransformer, name: str) -> None:
    """Raises if the model is not adavit's, or would not run fused attention."""
    preset = PRESETS[name]
    blocks = list(model.blocks)
    attention: list[Any] = [block.attn for block in blocks]
    norms = [norm for block in blocks for norm in (block.norm1, block.norm2)] + [model.norm]
    facts = {
        "parameters": (count_parameters(model), preset.parameters),
        "blocks": (len(blocks), preset.depth),
        "heads": ({attn.num_heads for attn in attention}, {preset.num_heads}),
        "bias of query, key and value": ({attn.qkv.bias is not None for attn in attention}, {True}),
        "eps of the norms": ({norm.eps for norm in norms}, {1e-6}),
        "fused attention": ({bool(attn.fused_attn) for attn in attention}, {True}),
        "float32": ({p.dtype for p in model.parameters()}, {torch.float32}),
    }
    for fact, (found, expected) in facts.items():
        if found != expected:
            raise RuntimeError(f"{name}: {fact}: expected {expected}, found {found}")


def count_parameters(model: torch.nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in model.parameters())


def inference_step(work: Work, *, compiled: bool) -> tuple[int, Callable[[], None]]:
    """The number of parameters, and a function that runs a batch through the model."""
    model = build_model(work.preset).eval()
    images, _ = random_batch(work)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.inference_mode():
            forward(images)

    return count_parameters(model), step


def training_step(work: Work, *, compiled: bool) -> tuple[int, Callable[[], None]]:
    """The number of parameters, and a function that trains on a batch."""
    model = build_model(work.preset).train()
    images, labels = random_batch(work)
    forward = torch.compile(model) if compiled else model
    kind: dict[str, Any] = {} if work.adamw == "default" else {work.adamw: True}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05, **kind)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()

    return count_parameters(model), step


def random_batch(work: Work) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels."""
    preset = PRESETS[work.preset]
    images = torch.randn(work.batch, preset.in_chans, preset.img_size, preset.img_size)
    return images, torch.randint(preset.num_classes, (work.batch,))


def repeat(step: Callable[[], None], seconds: float, least: int = 1) -> float:
    """Runs the step for at least so long and so often; steps per second."""
    start = time.perf_counter()
    steps, elapsed = 0, 0.0
    while steps < least or elapsed < seconds:
        step()
        steps += 1
        elapsed = time.perf_counter() - start
    return steps / elapsed


def measure(step: Callable[[], None], batch: int, seconds: float) -> list[float]:
    """Warms up, then images per second of each round."""
    repeat(step, WARM_UP_SECONDS, WARM_UP_STEPS)
    start = time.perf_counter()
    rounds: list[float] = []
    while not rounds or time.perf_counter() - start < seconds:
        rounds.append(batch * repeat(step, ROUND_SECONDS))
    return rounds


def status_bytes(field: str) -> int | None:
    """A size in /proc/self/status, where there is one."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(sizes[0]) * 1024 if sizes else None


def peak_rss() -> int:
    """The most memory that was resident since the last reset."""
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return status_bytes("VmHWM") or maximum


class StepMemory:
    """How far the resident memory rises above what it is before the first step."""

    def __init__(self) -> None:
        self.before = status_bytes("VmRSS")
        self.reset = reset_peak()
        self.peak_before = peak_rss()

    def rise(self, peak: int) -> int | None:
        """None where an earlier peak, as of the imports, hides the one of the steps."""
        if self.before is None or not (self.reset or peak > self.peak_before):
            return None
        return max(peak - self.before, 0)


def reset_peak() -> bool:
    """Sets the peak to what is resident now, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def serve(work: Work, *, compiled: bool) -> None:
    """Describes the model, then answers until standard input ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    torch.set_num_threads(work.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    make_step = training_step if work.train else inference_step
    parameters, step = make_step(work, compiled=compiled)
    memory = StepMemory()
    hello = {"parameters": parameters, "torch": torch.__version__, "timm": timm.__version__}
    print(json.dumps(hello), file=answers, flush=True)

    for line in sys.stdin:
        rounds = measure(step, work.batch, float(line))
        peak = peak_rss()
        # The compiler's own memory would count as the step's.
        rise = memory.rise(peak) if work.train and not compiled else None
        answer = {"rounds": rounds, "peak_rss_bytes": peak, "step_rss_bytes": rise}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    serve(compiled=arguments.pop("compile"), work=Work(**arguments))
