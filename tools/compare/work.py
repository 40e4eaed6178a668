"""What is measured: the presets, and the work that is done with one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Sizes of a plain model, those of `ModelConfig::preset` in crates/adavit-model."""

    img_size: int
    patch_size: int
    in_chans: int
    num_classes: int
    embed_dim: int
    depth: int
    num_heads: int
    parameters: int
    """What adavit's model has; the model that is measured must have as many."""


def _deit(embed_dim: int, num_heads: int, parameters: int) -> Preset:
    return Preset(224, 16, 3, 1000, embed_dim, 12, num_heads, parameters)


def _nano(patch_size: int, embed_dim: int, parameters: int) -> Preset:
    return Preset(28, patch_size, 1, 10, embed_dim, 6, 4, parameters)


PRESETS = {
    "deit_tiny_patch16_224": _deit(192, 3, 5_717_416),
    "deit_small_patch16_224": _deit(384, 6, 22_050_664),
    "deit_base_patch16_224": _deit(768, 12, 86_567_656),
    "nano_patch4_28": _nano(4, 64, 305_034),
    "nano_patch7_28": _nano(7, 64, 305_034),
    "nano_wide_patch7_28": _nano(7, 128, 1_199_882),
}

ADAMW = ("fused", "foreach", "default")
"""Implementations of torch.optim.AdamW, the fastest on a CPU first."""


@dataclass(frozen=True)
class Work:
    """One line of a comparison."""

    preset: str
    batch: int
    train: bool
    threads: int
    adamw: str = ADAMW[0]

    def __str__(self) -> str:
        kind = "training" if self.train else "inference"
        return f"{self.preset}, {kind}, batch {self.batch}"
