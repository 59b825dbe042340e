"""The Free Spoken Digit Dataset: an archive of ``DIGIT_SPEAKER_INDEX.wav``, 8 kHz, one channel.

https://github.com/Jakobovski/free-spoken-digit-dataset
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import raw
from pipeline.data import archive, download
from pipeline.data.rows import Rows
from pipeline.data.samples import Samples
from pipeline.errors import DataError
from pipeline.runtimes.errors import RunnerError

SAMPLE_RATE_HZ = 8000
NUM_SAMPLES = raw.CLIP_SECONDS * SAMPLE_RATE_HZ
NAME = re.compile(r"([0-9])_([A-Za-z0-9]+)_[0-9]+\.wav")


def read(path: Path, spool: Path = download.CACHE) -> Samples:
    """Read every wav of the archive as int16 [8000], one second; the group is its speaker.

    Raises:
        DataError: one line naming the archive and the member that is wrong.
    """
    labels: list[int] = []
    speakers: list[str] = []

    def waveforms() -> Iterator[NDArray[Any]]:
        for member in archive.members(path, raw.AUDIO_SUFFIXES):
            found = NAME.fullmatch(PurePosixPath(member.name).name)
            if found is None:
                raise DataError(
                    f"{path}: {member.name} is not called DIGIT_SPEAKER_INDEX.wav; leave it out"
                )
            try:
                yield raw.waveform(member.content, SAMPLE_RATE_HZ, NUM_SAMPLES, member.name)
            except RunnerError as error:
                raise DataError(f"{path}: {error}") from error
            labels.append(int(found[1]))
            speakers.append(found[2])

    inputs = Rows.spool(waveforms(), spool)
    if inputs is None:
        raise DataError(f"{path} holds no wav; name the archive of the recordings")
    return Samples(inputs, np.array(labels, np.int64), tuple("0123456789"), tuple(speakers))
