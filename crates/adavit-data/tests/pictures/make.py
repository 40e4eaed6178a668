"""Makes the pictures here, and what Pillow, torchvision and timm make of them.

    pip install torch torchvision timm safetensors pillow
    python make.py
"""

import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from timm.data import create_transform

SETTINGS = {
    "bicubic_center": dict(input_size=(3, 32, 32), interpolation="bicubic", crop_pct=0.9),
    "bilinear_center": dict(input_size=(3, 40, 40), interpolation="bilinear", crop_pct=0.875),
    "bicubic_squash": dict(
        input_size=(3, 32, 32), interpolation="bicubic", crop_pct=1.0, crop_mode="squash"
    ),
    "bicubic_wide": dict(input_size=(3, 24, 48), interpolation="bicubic", crop_pct=0.9),
    "bicubic_larger": dict(input_size=(3, 144, 144), interpolation="bicubic", crop_pct=1.0),
}


def picture(height, width, channels, seed):
    """Waves and some noise, 0 to 255."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for channel in range(channels):
        wave = np.sin(x / (3 + channel)) + np.cos(y / (5 + 2 * channel)) + np.sin(x * y / 400)
        planes.append(127 + 45 * wave + random.normal(0, 12, (height, width)))
    return np.clip(np.stack(planes, -1), 0, 255).round().astype(np.uint8)


def write_png16(path, pixels):
    """Red, green and blue of 16 bits, which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunks)


def write_pictures():
    rgb = Image.fromarray(picture(70, 90, 3, 0))
    rgb.save("rgb.png")
    rgb.save("rgb.webp", lossless=True)
    Image.fromarray(picture(84, 61, 1, 1)[..., 0]).save("grey.png")
    Image.fromarray(picture(50, 75, 4, 2), "RGBA").save("rgba.png")
    Image.fromarray(picture(40, 60, 2, 3), "LA").save("grey_alpha.png")
    rgb.quantize(32).save("palette.png")
    write_png16("rgb16.png", picture(40, 50, 3, 6).astype(np.uint16) * 256 + 200)
    deep = picture(45, 64, 1, 4)[..., 0].astype(np.uint16) * 257 + 100
    Image.fromarray(np.minimum(deep, 65535).astype(np.uint16)).save("grey16.png")
    # JPEG, where decoders differ: compared more loosely.
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees clockwise.
    smooth = Image.fromarray(picture(16, 24, 3, 5)).resize((96, 64), Image.BICUBIC)
    smooth.save("turned.jpg", quality=95, subsampling=0, exif=exif)
    smooth.convert("CMYK").save("cmyk.jpg", quality=95, subsampling=0)
    smooth.save("rgb.jpg", quality=95, subsampling=0)


def expected():
    names = ["rgb.png", "rgb.webp", "grey.png", "rgba.png", "grey_alpha.png", "palette.png"]
    names += ["grey16.png", "rgb16.png", "turned.jpg", "cmyk.jpg", "rgb.jpg"]
    tensors = {}
    for name in names:
        image = ImageOps.exif_transpose(Image.open(name))
        if image.mode.startswith("I;16"):
            # Pillow would clip grey of 16 bits; of colours it takes the upper byte, and so do we of both.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("RGB")
        for setting, options in SETTINGS.items():
            transform = create_transform(**options, is_training=False, normalize=False)
            tensors[f"{name}/{setting}"] = transform(image).contiguous()
        tensors[f"{name}/grey"] = torch.from_numpy(np.asarray(image.convert("L")).copy())
    normal = create_transform((3, 32, 32), interpolation="bicubic", crop_pct=0.9, is_training=False)
    tensors["rgb.png/normalized"] = normal(Image.open("rgb.png").convert("RGB")).contiguous()
    save_file(tensors, "expected.safetensors")


if __name__ == "__main__":
    write_pictures()
    expected()
