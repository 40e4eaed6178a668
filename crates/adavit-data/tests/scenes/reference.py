"""Builds scenes of fashion-scenes without adavit, from docs/scenes.md, and prints what `main.rs` compares with.

    python3 reference.py

It needs Python's standard library only. ChaCha8 and the keys are those of crates/adavit-data/src/rng.rs.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

DATA = Path(__file__).resolve().parents[4] / "data/fashion-mnist-subset"
CANVAS, SIDE, VISIBLE, PIECES, PIECE_SIDE, TRIES = 72, 28, 16, 8, 8, 50
MASK = 0xFFFFFFFF


def read(prefix):
    images = gzip.open(DATA / f"{prefix}-images-idx3-ubyte.gz").read()[16:]
    return images, gzip.open(DATA / f"{prefix}-labels-idx1-ubyte.gz").read()[8:]


class Rng:
    """ChaCha8, read as integers of 64 bits."""

    def __init__(self, seed, tag, a, b):
        self.key = struct.unpack("<8I", struct.pack("<QQQ", seed, a, b) + tag.ljust(8, b"\0"))
        self.counter, self.words = 0, []

    def block(self):
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key]
        start += [self.counter & MASK, self.counter >> 32, 0, 0]
        x = start[:]

        def quarter(a, b, c, d):
            for into, add, turn, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[into] = (x[into] + x[add]) & MASK
                mixed = x[turn] ^ x[into]
                x[turn] = (mixed << by | mixed >> (32 - by)) & MASK

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        self.counter += 1
        return [(a + b) & MASK for a, b in zip(x, start)]

    def below(self, n):
        if not self.words:
            self.words = self.block()[::-1]
        low, high = self.words.pop(), self.words.pop()
        return (low | high << 32) * n >> 64

    def shuffle(self, xs):
        for i in range(len(xs) - 1, 0, -1):
            j = self.below(i + 1)
            xs[i], xs[j] = xs[j], xs[i]


class Garments:
    def __init__(self, images, labels, indices):
        self.images, self.all = images, indices
        self.by_class = [[i for i in indices if labels[i] == c] for c in range(10)]

    def picture(self, index):
        return self.images[index * SIDE * SIDE :][: SIDE * SIDE]


def parts():
    """Training, held-out and test garments."""
    (images, labels), test = read("train"), read("t10k")
    order = list(range(len(labels)))
    Rng(0, b"subset", 0, 0).shuffle(order)
    counts, held_out = [0] * 10, []
    for i in order:
        counts[labels[i]] += 1
        if counts[labels[i]] <= 100:
            held_out.append(i)
    held_out.sort()
    train = sorted(set(order) - set(held_out))
    every = list(range(len(test[1])))
    return [Garments(images, labels, train), Garments(images, labels, held_out), Garments(*test, every)]


def seen(picture):
    """Top, left, height and width of what is visible."""
    places = [divmod(i, SIDE) for i, value in enumerate(picture) if value >= VISIBLE]
    rows, columns = zip(*places)
    return min(rows), min(columns), max(rows) - min(rows) + 1, max(columns) - min(columns) + 1


def shares(index, source, target):
    start, end = index * source, (index + 1) * source
    pixels = range(start // target, -(-end // target))
    return [(p, min(end, (p + 1) * target) - max(start, p * target)) for p in pixels]


def places(sizes, rng):
    placed = []
    for h, w in sizes:
        for _ in range(TRIES):
            t, l = rng.below(CANVAS - h + 1), rng.below(CANVAS - w + 1)
            if all(t >= b + c or b >= t + h or l >= a + d or a >= l + w for b, a, c, d in placed):
                placed.append((t, l, h, w))
                break
        else:
            return None
    return placed


def scene(garments, label, rng):
    count = [1, 3, 5][rng.below(3)]
    classes, further = [label] * (count - count // 2), [c for c in range(10) if c != label]
    for _ in range(count // 2):
        classes.append(further.pop(rng.below(len(further))))
    rng.shuffle(classes)
    chosen = [of[rng.below(len(of))] for of in (garments.by_class[c] for c in classes)]
    pictures = [garments.picture(index) for index in chosen]
    windows, largest, placed = [seen(picture) for picture in pictures], 30, None
    while placed is None:
        sizes = []
        for _, _, h, w in windows:
            size = 20 + rng.below(largest - 20 + 1)
            sizes.append(tuple(max(1, (side * size + SIDE // 2) // SIDE) for side in (h, w)))
        placed, largest = places(sizes, rng), max(20, largest - 1)
    canvas = bytearray(CANVAS * CANVAS)
    for _ in range(PIECES):
        picture = garments.picture(garments.all[rng.below(len(garments.all))])
        from_top, from_left = (rng.below(SIDE - PIECE_SIDE + 1) for _ in range(2))
        top, left = (rng.below(CANVAS - PIECE_SIDE + 1) for _ in range(2))
        for y in range(PIECE_SIDE):
            for x in range(PIECE_SIDE):
                place = (top + y) * CANVAS + left + x
                value = picture[(from_top + y) * SIDE + from_left + x]
                canvas[place] = min(255, canvas[place] + value)
    for picture, (top, left, rows, columns), (t, l, h, w) in zip(pictures, windows, placed):
        across, whole = [shares(x, columns, w) for x in range(w)], rows * columns
        for y in range(h):
            down = shares(y, rows, h)
            for x in range(w):
                of = ((a * b, picture[(top + p) * SIDE + left + q]) for p, a in down for q, b in across[x])
                value = (sum(weight * pixel for weight, pixel in of) + whole // 2) // whole
                if value >= VISIBLE:
                    canvas[(t + y) * CANVAS + l + x] = value
    return bytes(canvas)


def main():
    garments = parts()
    fixed = lambda part, i: scene(garments[part], i % 10, Rng(0, b"fixscene", part, i))
    of_epoch = lambda i: scene(garments[0], i % 10, Rng(7, b"scene", 3, i))
    for made in (lambda i: fixed(0, i), of_epoch, lambda i: fixed(1, i), lambda i: fixed(2, i)):
        print(f"{zlib.crc32(b''.join(made(i) for i in [*range(40), 3999])):#010x}")
    values = b"".join(fixed(0, i) for i in range(2000))
    mean = sum(values) / len(values)
    variance = sum(value * value for value in values) / len(values) - mean * mean
    print(f"mean {mean / 255:.9f}, standard deviation {math.sqrt(variance) / 255:.9f}")


if __name__ == "__main__":
    main()
