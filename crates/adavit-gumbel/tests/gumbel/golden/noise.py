"""Prints the values of `the_stream_never_changes` in ../noise.rs, from its own ChaCha8.

    python3 crates/adavit-gumbel/tests/gumbel/golden/noise.py
"""
import math
import struct

M = 0xFFFFFFFF


def quarter(x, a, b, c, d):
    for p, q, r, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[p] = (x[p] + x[q]) & M
        x[r] ^= x[p]
        x[r] = (x[r] << n | x[r] >> (32 - n)) & M


def chacha8(key):
    counter = 0
    while True:
        init = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, 0, 0, 0]
        x = list(init)
        for _ in range(4):
            for i in range(4):
                quarter(x, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        words = [(a + b) & M for a, b in zip(x, init)]
        yield from (lo | hi << 32 for lo, hi in zip(words[::2], words[1::2]))
        counter += 1


def unit(seed, epoch, sample, block, axis, n):
    stream = chacha8(struct.pack("<QQQII", seed, epoch, sample, block, axis))
    return [((next(stream) >> 12) + 0.5) / 2**52 for _ in range(n)]


# 20 values need a third ChaCha block (8 u64 each), so the counter is covered too.
for key in ((0, 0, 0, 0, 0), (2**64 - 2, 3, 49999, 11, 2)):
    us = unit(*key, 20)
    for name, f in (("logistic", lambda u: math.log(u) - math.log1p(-u)), ("gumbel", lambda u: -math.log(-math.log(u)))):
        print(key, name, [f(us[i]) for i in (0, 1, 7, 8, 19)])
