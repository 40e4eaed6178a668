"""Records what Pillow makes of every operation of adavit-data's augmentation.

    python3 -m venv venv && venv/bin/pip install pillow numpy
    venv/bin/python tools/record/augmentations.py > crates/adavit-data/tests/augmentations/ops.txt

A line is `picture operation argument filter crc32`: the checksum of the bytes after the operation, which are
Pillow's to the last bit. The pictures are made by the formula below and by the test alike. Lines of
`blur23` hold the bytes in hexadecimal instead: they may differ by 1.
"""

import math
import sys
import zlib

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

FILL = (124, 116, 104)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def picture(name):
    """The test picture: 24 rows and 20 columns, or 37 and 50 for `large`; `dim` has little contrast."""
    height, width = (37, 50) if name.endswith("large") else (24, 20)
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    values = (x * 9 + y * 4 + c * 40 + (x * x + 3 * y * y + 7 * c * x * y) % 23 * 4) % 256
    if name.endswith("dim"):
        values = 40 + values // 3
    values = values.astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if name.startswith("grey") else values)


def affine(image, matrix, filter):
    fill = FILL if image.mode == "RGB" else FILL[0]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, FILTERS[filter], fillcolor=fill)


def rotate(image, degrees, filter):
    fill = FILL if image.mode == "RGB" else FILL[0]
    return image.rotate(degrees, FILTERS[filter], fillcolor=fill)


def solarize_add(image, add):
    lut = [min(255, i + add) if i < 128 else i for i in range(256)]
    return image.point(lut * len(image.getbands()))


def hue(image, turn):
    """torchvision's `adjust_hue` of a picture of Pillow's."""
    h, s, v = image.convert("HSV").split()
    h = np.array(h, dtype=np.uint8) + np.int32(turn * 255).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(h), s, v)).convert("RGB")


def blur23(image, sigma):
    """torchvision's `gaussian_blur` with a kernel of 23, in f64."""
    line = np.exp(-0.5 * (np.linspace(-11, 11, 23) / sigma) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    padded = np.pad(np.array(image, dtype=np.float64), 11, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (23, 23))
    return np.round((windows * kernel).sum((2, 3))).astype(np.uint8)


TABLES = [
    ("AutoContrast", [0], lambda i, _: ImageOps.autocontrast(i)),
    ("Equalize", [0], lambda i, _: ImageOps.equalize(i)),
    ("Invert", [0], lambda i, _: ImageOps.invert(i)),
    ("Posterize", [1, 3, 7], ImageOps.posterize),
    ("Solarize", [0, 26, 128, 200.5], ImageOps.solarize),
    ("SolarizeAdd", [0, 99, 110], solarize_add),
    ("Contrast", [0.1, 0.55, 1.3, 1.9], lambda i, f: ImageEnhance.Contrast(i).enhance(f)),
    ("Brightness", [0, 0.1, 0.55, 1.3, 1.9], lambda i, f: ImageEnhance.Brightness(i).enhance(f)),
    ("Color", [0, 0.1, 0.55, 1.3, 1.9], lambda i, f: ImageEnhance.Color(i).enhance(f)),
    ("Sharpness", [0, 0.1, 0.55, 1.3, 1.9], lambda i, f: ImageEnhance.Sharpness(i).enhance(f)),
    ("GaussianBlur", [0.1, 0.7, 1.3, 2.0, 9.5], lambda i, s: i.filter(ImageFilter.GaussianBlur(s))),
]

AFFINES = [
    ("Rotate", [-27.3, 9.0, 30.0, 90.0, 135.0, 180.0, 270.0], rotate),
    ("ShearX", [-0.3, 0.17, 0.99], lambda i, f, m: affine(i, (1, f, 0, 0, 1, 0), m)),
    ("ShearY", [-0.3, 0.17, 0.99], lambda i, f, m: affine(i, (1, 0, 0, f, 1, 0), m)),
    ("TranslateX", [-4.05, 2.5, 3.0], lambda i, p, m: affine(i, (1, 0, p, 0, 1, 0), m)),
    ("TranslateY", [-4.05, 2.5, 3.0], lambda i, p, m: affine(i, (1, 0, 0, 0, 1, p), m)),
]


def main():
    print(f"# Pillow {PIL.__version__}; tools/record/augmentations.py wrote this file.")
    for name in ["color", "color-dim", "color-large", "grey", "grey-dim"]:
        image = picture(name)

        def line(op, argument, filter, result):
            assert result.mode == image.mode and result.size == image.size
            print(name, op, argument, filter, f"{zlib.crc32(result.tobytes()):08x}")

        for op, arguments, function in TABLES:
            for argument in arguments:
                line(op, argument, "none", function(image, argument))
        if image.mode == "RGB":
            for turn in [-0.5, -0.1, 0.0, 0.05, 0.37]:
                line("Hue", turn, "none", hue(image, turn))
        for op, arguments, function in AFFINES:
            for argument in arguments:
                for filter in FILTERS:
                    line(op, argument, filter, function(image, argument, filter))
    for sigma in [0.1, 0.8, 2.0]:
        print("grey blur23", sigma, "none", blur23(picture("grey"), sigma).tobytes().hex())


main()
