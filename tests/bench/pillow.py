"""Prints the median milliseconds that Pillow takes from the bytes of a JPEG to those of a smaller one, with a full
decode and with draft(): pillow.py PHOTO SIZE ROUNDS."""

import io
import statistics
import sys
import time

from PIL import Image, ImageOps

photo, size, rounds = open(sys.argv[1], "rb").read(), int(sys.argv[2]), int(sys.argv[3])


def resize(draft):
    image = Image.open(io.BytesIO(photo))
    if draft:
        image.draft("RGB", (size, size))
    image = ImageOps.exif_transpose(image)
    image.thumbnail((size, size), Image.LANCZOS, reducing_gap=None)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)


def median(draft):
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        resize(draft)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


print(median(False), median(True))
