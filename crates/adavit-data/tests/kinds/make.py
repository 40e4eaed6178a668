"""Makes small pictures of every format and kind that is read, and what Pillow makes of them.

    pip install pillow numpy safetensors
    python make.py
"""

import os
import struct

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

HEIGHT, WIDTH = 19, 26


def smooth(channels, seed, height=HEIGHT, width=WIDTH):
    """Waves of 0 to 255, as smooth as a photograph."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 9.0
    planes = []
    for _ in range(channels):
        a, b, c, d = random.uniform(0.4, 1.6, 4)
        planes.append(128 + 60 * np.sin(a * x + b * y + 3 * a) + 50 * np.cos(c * x - d * y))
    return np.clip(np.stack(planes, -1), 0, 255).round().astype(np.uint8)


RGB = Image.fromarray(smooth(3, 0))
GREY = Image.fromarray(smooth(1, 1)[..., 0])
RGBA = Image.fromarray(smooth(4, 2))
PALETTE = RGB.quantize(16)
BITS = GREY.convert("1")
CMYK = Image.fromarray(smooth(4, 3), "CMYK")
DEEP = (smooth(1, 4)[..., 0].astype(np.uint16) * 257).clip(0, 65535)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_jpegs():
    RGB.save("420.jpg", quality=88)
    RGB.save("444.jpg", quality=92, subsampling=0)
    RGB.save("422.jpg", quality=92, subsampling=1)
    RGB.save("progressive.jpg", quality=88, progressive=True)
    RGB.save("restarts.jpg", quality=88, restart_marker_blocks=1)
    RGB.save("rgb.jpg", quality=92, keep_rgb=True)
    GREY.save("grey.jpg", quality=88)
    CMYK.save("cmyk.jpg", quality=92)
    for orientation in (3, 5, 6, 8):
        RGB.save(f"turned{orientation}.jpg", quality=88, exif=turned(orientation))
    as_ycck("cmyk.jpg", "ycck.jpg")
    without_names("rgb.jpg", "rgb_by_names.jpg")


def as_ycck(source, target):
    """The same numbers, declared as luma, differences and black."""
    data = bytearray(open(source, "rb").read())
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    open(target, "wb").write(data)


def without_names(source, target):
    """Without Adobe's segment: the names of the components say that they are red, green, blue."""
    data = open(source, "rb").read()
    at = data.index(b"Adobe") - 4
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    open(target, "wb").write(data[:at] + data[at + 2 + length :])


def write_others():
    RGB.save("rgb.png")
    PALETTE.save("palette.png", transparency=3)
    BITS.save("bits.png")
    RGBA.save("lossless.webp", lossless=True)
    RGB.save("lossy.webp", quality=80)
    RGB.save("animated.webp", save_all=True, append_images=[ImageOps.invert(RGB)], lossless=True)
    RGB.save("palette.gif")
    GREY.save("grey.gif")
    RGB.save("animated.gif", save_all=True, append_images=[ImageOps.invert(RGB)])
    PALETTE.save("transparent.gif", transparency=2)
    for name, image in [("rgb", RGB), ("grey", GREY), ("palette", PALETTE), ("bits", BITS)]:
        image.save(f"{name}.bmp")
    for name, image in [("rgb", RGB), ("grey", GREY), ("bits", BITS)]:
        image.save(f"{name}.tif")
    # Of a kind that is not read.
    os.makedirs("unread", exist_ok=True)
    PALETTE.save("unread/palette.tif")
    RGBA.save("rgba.tif")
    CMYK.save("cmyk.tif")
    Image.fromarray(DEEP).save("grey16.tif")
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        RGB.save(f"{name}.tif", compression=name)
    RGB.save("jpeg.tif", compression="jpeg", quality=90)
    RGB.save("turned6.tif", tiffinfo={0x0112: 6})
    RGB.save("rgb.ppm")
    GREY.save("grey.pgm")
    BITS.save("bits.pbm")
    write_pnms()
    RGB.save("rgb.qoi")
    RGBA.save("rgba.qoi")


def write_pnms():
    """Kinds of PNM that Pillow reads but does not write."""
    header = f"{WIDTH} {HEIGHT}\n"
    grey = np.asarray(GREY)
    open("sixteen.pgm", "wb").write(f"P5\n# sixteen levels\n{header}15\n".encode() + (grey // 16).tobytes())
    rgb = np.asarray(RGB).astype(">u2") * 257
    open("deep.ppm", "wb").write(f"P6\n{header}65535\n".encode() + rgb.astype(">u2").tobytes())
    numbers = "\n".join(" ".join(str(x) for x in row) for row in grey)
    open("plain.pgm", "w").write(f"P2\n{header}255\n{numbers}\n")


def expected(name):
    image = ImageOps.exif_transpose(Image.open(name))
    if image.mode.startswith("I;16"):
        # Pillow would clip grey of 16 bits.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB")).copy()


def scaled(name, divisor):
    """What Pillow's draft mode makes of a JPEG: fewer frequencies of each block."""
    image = Image.open(name)
    image.draft(image.mode, (image.width // divisor, image.height // divisor))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).copy()


if __name__ == "__main__":
    import glob

    write_jpegs()
    write_others()
    names = sorted(set(glob.glob("*.*")) - {"make.py"} - set(glob.glob("expected*")))
    save_file({name: expected(name) for name in names}, "expected.safetensors")
    jpegs = sorted(glob.glob("*.jpg"))
    save_file(
        {f"{divisor} {name}": scaled(name, divisor) for name in jpegs for divisor in (4, 8)},
        "expected_scaled.safetensors",
    )
