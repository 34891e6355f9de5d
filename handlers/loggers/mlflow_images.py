"""The images of a run in MLflow, where its page has them as a grid by step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from leyden.handlers.loggers.entries import Image

FOLDER = "images"
FILE = re.compile(FOLDER + r"/(?P<name>.+?)[+%]step[+%](?P<step>-?\d+)[+%]timestamp[+%].*(?<!compressed)\.png")
"""Of an image in full; MLflow keeps a small one beside it; earlier ones put % for + and # for ~."""
SMALL = ("+compressed.webp", "%compressed.webp")
TAG = "mlflow.loggedImages"  # for which the run's page has a tab of images


class MLflowImages:
    """Writes images to a run, none of them twice: neither one whose writing failed halfway, nor, of a run that was
    killed after its last checkpoint, one that comes again. Another image of the same name and step is written too.
    """

    def __init__(self, client: Any, run_id: str, may_repeat: bool) -> None:
        """may_repeat: the run may have images already that come again."""
        self._client = client
        self._run_id = run_id
        self._may_repeat = may_repeat
        self._files: list[str] | None = None  # as they were when first asked for, or after the last failure

    def write(self, image: Image) -> None:
        """Raises what MLflow's client raises."""
        if self._may_repeat and self._has(image):
            self._client.set_tag(self._run_id, TAG, "True")  # written last
            return
        try:
            self._client.log_image(
                self._run_id,
                image.pixels,
                key=image.name,
                step=image.step,
                timestamp=round(image.time * 1000),
                synchronous=True,
            )
        except Exception:
            self._may_repeat, self._files = True, None
            raise

    def _has(self, image: Image) -> bool:
        if self._files is None:
            self._files = [file.path for file in self._client.list_artifacts(self._run_id, FOLDER)]
        return any(np.array_equal(self._pixels(path), image.pixels) for path in self._paths(image))

    def _paths(self, image: Image) -> Iterator[str]:
        """Of those of its name and step that are there whole."""
        assert self._files is not None
        there = set(self._files)
        for path in self._files:
            match = FILE.fullmatch(path)
            if match is None or re.sub("[~#]", "/", match["name"]) != image.name or int(match["step"]) != image.step:
                continue
            if any(path.removesuffix(".png") + small in there for small in SMALL):
                yield path

    def _pixels(self, path: str) -> np.ndarray:
        from PIL import Image as PILImage

        with TemporaryDirectory() as folder:
            file = self._client.download_artifacts(self._run_id, path, folder)
            with PILImage.open(Path(file)) as opened:
                return np.array(opened)
