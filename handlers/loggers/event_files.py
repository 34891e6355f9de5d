"""TensorBoard's event files: written so that nothing is lost with the process, and read back."""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from leyden.handlers.loggers.entries import Image, Value
from leyden.handlers.loggers.images import to_png

EventPoint = tuple[str, int, float | None]
"""Name, step and number, in the precision in which files keep it; None for what is not a number. Of an image, for the
number, when it was logged.
"""


class EventFile:
    """A new file in a folder. What was added is on the disk when `add` returns. Threads may add at the same time.

    tensorboardX's own SummaryWriter hands everything to a thread, for which nobody can wait.
    """

    def __init__(self, folder: Path, hides_from: int | None = None) -> None:
        """hides_from: TensorBoard shows no points from this step on of what the folder has already."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        # A file is named by the second, so another one made in it would replace it. TensorBoard reads files by name.
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._lock = threading.Lock()
        if hides_from is not None:
            self._write(
                {"step": hides_from, "file_version": "brain.Event:2"},
                {"step": hides_from, "session_log": SessionLog(status=SessionLog.START)},
            )

    def add(self, values: Iterable[Value]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        events = []
        for value in values:  # under its own name: tensorboardX's functions make one of several
            summary = Summary(value=[Summary.Value(tag=value.name, simple_value=value.number)])
            events.append({"step": value.step, "wall_time": value.time, "summary": summary})
        self._write(*events)

    def add_image(self, image: Image) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        height, width, *channels = image.pixels.shape
        picture = Summary.Image(
            height=height,
            width=width,
            colorspace=channels[0] if channels else 1,
            encoded_image_string=to_png(image.pixels),
        )
        summary = Summary(value=[Summary.Value(tag=image.name, image=picture)])
        self._write({"step": image.step, "wall_time": image.time, "summary": summary})

    def add_text(self, name: str, text: str) -> None:
        from tensorboardX.summary import text as to_summary

        self._write({"step": 0, "summary": to_summary(name, text)})

    def close(self) -> None:
        with self._lock:
            self._writer.close()

    def _write(self, *events: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with self._lock:
            for fields in events:
                self._writer.write_event(Event(**({"wall_time": time.time()} | fields)))
            self._writer.flush()


def point_of(entry: Value | Image) -> EventPoint:
    """A value or an image as files keep it."""
    return entry.name, entry.step, entry.time if isinstance(entry, Image) else _kept(entry.number)


def points_in(folder: Path, steps: Collection[int]) -> set[EventPoint]:
    """The points at these steps that TensorBoard shows of a folder."""
    points: set[EventPoint] = set()
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events(path):
            if event.HasField("session_log"):
                points = {point for point in points if point[1] < event.step}
            if event.step in steps:
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        points.add((value.tag, event.step, _kept(value.simple_value)))
                    elif value.HasField("image"):
                        points.add((value.tag, event.step, event.wall_time))
    return points


def _events(path: Path) -> Iterator[Any]:
    """A record is: its length (8 bytes), a checksum (4), an Event, a checksum (4); the last one may be cut."""
    from tensorboardX.proto.event_pb2 import Event

    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack_from("<Q", head)
            data = file.read(length)
            if len(file.read(4)) < 4:
                return
            yield Event.FromString(data)


def _kept(number: float) -> float | None:
    if math.isnan(number):
        return None  # which is equal to itself
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
