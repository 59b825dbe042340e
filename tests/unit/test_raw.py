"""Raw samples from wav and image: known values, refusals, and no broken file gets through."""

import io
import struct
import sys
import wave
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import raw
from pipeline.runtimes.errors import RunnerError


def wav(samples, rate=8000, channels=1, width=2):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples).tobytes())
    return content.getvalue()


def image(pixels, kind="PNG", **options):
    content = io.BytesIO()
    found = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    found.save(content, kind, **options)
    return content.getvalue()


SHORT = np.array([1, -2, 32767], np.int16)
LENGTHS = {
    "a shorter one stands between zeros": (SHORT, 6, [0, 1, -2, 32767, 0, 0]),
    "one of the length stays": (SHORT, 3, [1, -2, 32767]),
    "of a longer one the middle is kept": (np.arange(7, dtype=np.int16), 4, [1, 2, 3, 4]),
}


@pytest.mark.parametrize(("samples", "length", "expected"), LENGTHS.values(), ids=LENGTHS)
def test_a_waveform_has_the_length_asked_for(samples, length, expected):
    found = raw.waveform(wav(samples), 8000, length, "a.wav")
    assert found.dtype == np.int16
    assert found.tolist() == expected


WHOLE = wav(np.arange(4000, dtype=np.int16))
BAD_WAVS = {
    "another sample rate": (
        wav(SHORT, rate=16000),
        r"a\.wav has a sample rate of 16000 Hz, 8000 Hz is needed; nothing is resampled here",
    ),
    "two channels": (wav([[1, 2], [3, 4]], channels=2, width=2), "2 channels of 16 bits"),
    "eight bits": (wav(np.zeros(4, np.uint8), width=1), "1 channels of 8 bits; convert it"),
    "no samples": (wav(SHORT[:0]), "holds 0 of the 0 samples"),
    "truncated samples": (WHOLE[:4000], r"a\.wav holds 1978 of the 4000 samples that its header"),
    "an odd cut": (WHOLE[:4001], "holds 1978 of the 4000 samples"),
    "a truncated header": (WHOLE[:30], r"a\.wav is no readable wav: "),
    "nothing": (b"", "is no readable wav: it ends within its header; record it again"),
    "random bytes": (np.random.default_rng(0).bytes(5000), "no readable wav: file does not start"),
    "random bytes behind a magic": (
        b"RIFF\xff\xff\xff\x7fWAVE" + np.random.default_rng(0).bytes(5000),
        "no readable wav: ",
    ),
    "a float format": (
        WHOLE[:20] + struct.pack("<H", 3) + WHOLE[22:],
        "no readable wav: unknown format: 3",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_WAVS.values(), ids=BAD_WAVS)
def test_a_bad_wav_is_one_line(content, message):
    with pytest.raises(RunnerError, match=message) as caught:
        raw.waveform(content, 8000, 8000, "a.wav")
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(WHOLE)))
def test_a_changed_wav_is_read_or_refused_and_nothing_else(at, byte, cut):
    content = bytearray(WHOLE)
    content[at % 60] = byte  # its header
    try:
        found = raw.waveform(bytes(content[:cut]), 8000, 8000, "a.wav")
    except RunnerError:
        return
    assert found.shape == (8000,)


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], -1)
PALETTE = Image.fromarray(COLOUR).quantize(16)
READ = {
    "png": (image(COLOUR), 3, COLOUR),
    "bmp": (image(COLOUR, "BMP"), 3, COLOUR),
    "lossless webp": (image(COLOUR, "WEBP", lossless=True), 3, COLOUR),
    "grey fills three channels": (image(GREY), 3, np.stack([GREY] * 3, -1)),
    "grey as one channel": (image(GREY), 1, GREY[..., None]),
    "a palette": (image(PALETTE), 3, np.asarray(PALETTE.convert("RGB"))),
    "an alpha channel that hides nothing": (
        image(np.dstack([COLOUR, np.full((6, 8), 255, np.uint8)])),
        3,
        COLOUR,
    ),
}


@pytest.mark.parametrize(("content", "channels", "expected"), READ.values(), ids=READ)
def test_pixels_are_those_of_the_image(content, channels, expected):
    found = raw.pixels(content, channels, None, "a.png")
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_a_jpeg_is_about_what_was_saved():
    smooth = np.asarray(Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.BILINEAR))
    found = raw.pixels(image(smooth, "JPEG", quality=95), 3, None, "a.jpg")
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - smooth).mean() < 6


def test_an_image_is_turned_upright_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    found = raw.pixels(image(COLOUR, exif=exif), 3, None, "a.png")
    assert np.array_equal(found, np.rot90(COLOUR, -1))


def test_resizing_averages_and_leaves_an_image_of_the_size_alone():
    board = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    found = raw.pixels(image(board), 1, (4, 8), "a.png")
    assert found.shape == (4, 8, 1)
    assert np.abs(found.astype(int) - 127).max() < 10  # without antialiasing it would be 0 or 255
    assert np.array_equal(raw.pixels(image(GREY), 1, (6, 8), "a.png")[..., 0], GREY)


FRAMES = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
SEE_THROUGH = np.dstack([COLOUR, GREY])
BAD_IMAGES = {
    "colours for one channel": (image(COLOUR), 1, "has colours, one grey channel is needed"),
    "see-through pixels": (image(SEE_THROUGH), 3, "has see-through pixels; save it without"),
    "16 bits": (image(GREY.astype(np.uint16) * 200), 3, "pixels of mode I;16; save it with 8 bits"),
    "an animation": (
        image(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True),
        3,
        "is an animation; save one frame",
    ),
    "a gif": (image(PALETTE, "GIF"), 3, "no readable image: cannot identify image file; save it"),
    "random bytes": (np.random.default_rng(0).bytes(999), 3, "no readable image: cannot identify"),
    "nothing": (b"", 3, "no readable image: cannot identify"),
    "a truncated png": (image(COLOUR)[:-40], 3, r"a\.png is no readable image: "),
    "a truncated jpeg": (image(COLOUR, "JPEG")[:-60], 3, "no readable image: .*[Tt]runcated"),
    "random bytes behind a jpeg's magic": (
        b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(999),
        3,
        "no readable image: ",
    ),
}


@pytest.mark.parametrize(("content", "channels", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_one_line(content, channels, message):
    with pytest.raises(RunnerError, match=message) as caught:
        raw.pixels(content, channels, (4, 4), "a.png")
    assert "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused_by_its_header():
    """A PNG of 20,000 x 20,000 pixels says so in 70 bytes."""
    bomb = bytearray(image(np.zeros((1, 1), np.uint8)))
    bomb[16:24] = struct.pack(">II", 20_000, 20_000)
    crc = zlib.crc32(bomb[12:29])
    bomb[29:33] = struct.pack(">I", crc)
    with pytest.raises(RunnerError, match=r"exceeds limit of .* pixels"):
        raw.pixels(bytes(bomb), 3, (4, 4), "a.png")


SMALL_FILES = [
    image(COLOUR, kind) if kind != "JPEG" else image(COLOUR, kind, quality=90)
    for kind in ("PNG", "BMP", "JPEG", "WEBP")
] + [image(PALETTE)]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_changed_image_is_read_or_refused_and_nothing_else(data):
    content = bytearray(data.draw(st.sampled_from(SMALL_FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(content) // 2, len(content)))
    try:
        found = raw.pixels(bytes(content[:cut]), 3, (4, 4), "a.png")
    except RunnerError:
        return
    assert found.shape == (4, 4, 3)


def test_without_pillow_the_extra_is_named(monkeypatch):
    content = image(COLOUR)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RunnerError, match=r"a\.png needs Pillow.*slipway\[image\]"):
        raw.pixels(content, 3, None, "a.png")
