"""Makes position embeddings, and what timm resamples them to.

    pip install torch timm safetensors
    python make.py
"""

import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed


def positions():
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for prefix, (old, news) in enumerate(
        [((6, 6), [(9, 9), (4, 4), (5, 8)]), ((4, 7), [(7, 4), (8, 14), (2, 3)])], 1
    ):
        table = torch.randn(1, prefix + old[0] * old[1], 5, generator=generator)
        key = f"{prefix}/{old[0]}x{old[1]}"
        tensors[key] = table
        for new in news:
            resampled = resample_abs_pos_embed(
                table, list(new), old_size=list(old), num_prefix_tokens=prefix
            )
            tensors[f"{key}/{new[0]}x{new[1]}"] = resampled.contiguous()
    save_file(tensors, "positions.safetensors")


if __name__ == "__main__":
    positions()
