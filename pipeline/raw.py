"""Raw samples from the bytes of a wav or an image: one reading for data sources and for devices.

A sample that is read in another way than those the net learned from is another sample, so `prepare`
and `slipway run` both call this. Axes: T time; H height, W width, C channel.
"""

import io
import struct
import warnings
import wave
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtimes.errors import RunnerError

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP_SECONDS = 1  # a raw waveform of a data source: shorter ones are padded, longer ones cut
AUDIO_SUFFIXES = (".wav",)
IMAGE_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
}
ANIMATED = ("PNG", "WEBP")  # a JPEG of several frames (MPO) is one picture and its previews
# what Pillow's readers let out of a broken file
BROKEN_IMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    SyntaxError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
GREY_MODES = ("1", "L", "LA")
WIDE_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")


def suffix(name: str) -> str:
    """Return the ending of a file's name in lower case, as the tables of this module hold it."""
    return Path(name).suffix.lower()


def waveform(content: bytes, sample_rate_hz: int, num_samples: int, where: str) -> NDArray[Any]:
    """Read a wav as int16 [num_samples]: a shorter one between zeros, of a longer one the middle.

    Raises:
        RunnerError: one line that begins with ``where``: not a wav of 16-bit PCM with one channel,
            another sample rate (nothing is resampled), or fewer samples than its header says.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = file.getparams()
            frames = file.readframes(found.nframes)
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:  # a seek behind the end
        said = str(error) or "it ends within its header"
        raise RunnerError(f"{where} is no readable wav: {said}; record it again") from error
    if (found.nchannels, found.sampwidth) != (1, 2):
        raise RunnerError(
            f"{where} has {found.nchannels} channels of {8 * found.sampwidth} bits; "
            "convert it to one channel of 16-bit PCM"
        )
    if found.framerate != sample_rate_hz:
        raise RunnerError(
            f"{where} has a sample rate of {found.framerate} Hz, {sample_rate_hz} Hz is needed; "
            "nothing is resampled here, convert it"
        )
    samples = np.frombuffer(frames[: len(frames) // 2 * 2], dtype="<i2")
    if len(samples) != found.nframes or not len(samples):
        raise RunnerError(
            f"{where} holds {len(samples)} of the {found.nframes} samples that its header says; "
            "record it again"
        )
    return _centred(samples.astype(np.int16), num_samples)


def _centred(samples: NDArray[Any], num_samples: int) -> NDArray[Any]:
    missing = num_samples - len(samples)
    if missing <= 0:
        start = -missing // 2
        return samples[start : start + num_samples]
    return np.pad(samples, (missing // 2, missing - missing // 2))


def pixels(
    content: bytes, channels: int, size: tuple[int, int] | None, where: str
) -> NDArray[np.uint8]:
    """Read an image as uint8 [H, W, C], turned upright as its Exif says.

    A grey image fills all of three channels, but nothing that an image holds is thrown away:
    colours are not made grey, and neither see-through pixels nor 16-bit values are taken.

    Args:
        content: of a JPEG, PNG, BMP or WebP file.
        channels: 3 (RGB) or 1 (grey).
        size: (H, W) to resize to, bilinearly with antialiasing; None keeps the image's own.
        where: what the image is called in an error.

    Raises:
        RunnerError: Pillow is absent; or one line that begins with ``where``.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise RunnerError(
            f"{where} needs Pillow, which is not installed here; pip install 'slipway[image]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken Exif, which leaves the pixels whole
            # above its limit Pillow warns, above twice that it refuses: refuse at once
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            formats = sorted(set(IMAGE_FORMATS.values()))
            with Image.open(io.BytesIO(content), formats=formats) as image:
                image.load()
                upright = ImageOps.exif_transpose(_plain(image, channels, where))
                if size is not None and upright.size != size[::-1]:
                    upright = upright.resize(size[::-1], Image.Resampling.BILINEAR)
                found: NDArray[np.uint8] = np.asarray(upright, dtype=np.uint8)
    except (
        *BROKEN_IMAGE,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        said = str(error).partition("<_io")[0].strip() or type(error).__name__
        raise RunnerError(f"{where} is no readable image: {said}; save it again") from error
    return found.reshape(*found.shape[:2], channels)


def _plain(image: "Image", channels: int, where: str) -> "Image":
    """Return the image in mode RGB or L, and refuse where that would lose something."""
    if image.format in ANIMATED and getattr(image, "n_frames", 1) > 1:
        raise RunnerError(f"{where} is an animation; save one frame of it")
    if image.mode in WIDE_MODES:
        raise RunnerError(f"{where} has pixels of mode {image.mode}; save it with 8 bits a channel")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        if lowest != 255:
            raise RunnerError(f"{where} has see-through pixels; save it without an alpha channel")
    if channels == 1 and image.mode not in GREY_MODES:
        raise RunnerError(f"{where} has colours, one grey channel is needed; save it in grey")
    return image.convert("RGB" if channels == 3 else "L")
