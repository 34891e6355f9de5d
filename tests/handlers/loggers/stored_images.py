"""Events of TensorBoard's files, and images, read back from where loggers put them."""

import re
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

Stored = dict[str, list[tuple[int, np.ndarray]]]


def read_events(folder: Path) -> list[Any]:
    """The events of all files of a folder, file after file by name, which is the order in which they were made.

    A record is: its length (8 bytes), a checksum (4), an Event as protobuf, a checksum (4).
    """
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            events.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += 12 + length + 4
    return events


def images_of_tensorboard(folder: Path) -> Stored:
    """By name, in the order of steps: the step and the pixels, (H, W) or (H, W, C)."""
    found: Stored = {}
    for event in read_events(folder):
        for value in event.summary.value:
            if value.HasField("image"):
                pixels = pixels_of(value.image.encoded_image_string)
                assert pixels.shape[:2] == (value.image.height, value.image.width)
                assert value.image.colorspace == (pixels.shape[2] if pixels.ndim == 3 else 1)
                found.setdefault(value.tag, []).append((event.step, pixels))
    return found


def images_of_mlflow(client: Any, run_id: str | None) -> Stored:
    """The same of a run that has a tab of images."""
    found: Stored = {}
    files = sorted(file.path for file in client.list_artifacts(run_id, "images"))
    for path in files:
        if path.endswith(".png"):
            name, step = re.fullmatch(r"images/(.+?)[+%]step[+%](\d+)[+%]timestamp[+%].*\.png", path).groups()
            assert any(small.startswith(path[:-4]) and small.endswith(".webp") for small in files), "no small one"
            data = Path(client.download_artifacts(run_id, path)).read_bytes()
            found.setdefault(re.sub("[~#]", "/", name), []).append((int(step), pixels_of(data)))
    assert not found or client.get_run(run_id).data.tags["mlflow.loggedImages"] == "True"
    return {name: sorted(images, key=lambda image: image[0]) for name, images in found.items()}


def pixels_of(png: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(BytesIO(png)) as opened:
        return np.array(opened)
