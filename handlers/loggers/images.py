"""Pictures as loggers take them: checked, and made pixels that no later change of the model or the batch can reach."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
import torch

from leyden import distributed as dist

CHANNELS = (1, 3, 4)
COLUMNS, GAP = 8, 2  # of a grid, as in torchvision.utils.make_grid
MODES = {"1": "L", "LA": "RGBA", "La": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}
"""PIL's modes, and what each becomes; "L", "RGB" and "RGBA" stay, and all others but the WIDE become RGB."""
WIDE = ("I", "F")
HALF_A_STEP = 1 / 510  # what leaves 0..1 by less than that is rounding


def check_image(name: Any, image: Any) -> Any:
    """The image, one of PIL as an array. Looks at no pixel, so that nothing waits for the device.

    Raises TypeError for what is no image and for dtypes whose range is not known, ValueError for shapes that do not
    say where the channels are, and for tensors that are sharded over ranks; ModuleNotFoundError without pillow.
    """
    if find_spec("PIL") is None:
        raise ModuleNotFoundError("log_image needs pillow, which is not installed: pip install pillow", name="PIL")
    if not isinstance(name, str):
        raise TypeError(f"log_image(name, image, step) takes the name first, but got a {type(name).__name__}")
    if callable(getattr(image, "convert", None)) and isinstance(getattr(image, "mode", None), str):
        image = _array_of(name, image)
    if not isinstance(image, torch.Tensor | np.ndarray):
        raise TypeError(
            f"log_image takes a tensor, an array or an image of PIL, but {name!r} is a {type(image).__name__}; "
            "torch.stack(images) makes a batch of several, which is shown as a grid"
        )
    if not _is_known(image):
        raise TypeError(
            f"log_image takes floats of 0 to 1, uint8 of 0 to 255, and bool, but {name!r} is of {image.dtype}; "
            "image / image.max() shows any numbers, palette[labels] the classes of a segmentation"
        )
    if isinstance(image, torch.Tensor) and not dist.is_whole(image):
        raise ValueError(
            f"{name!r} is a tensor sharded over ranks, of which rank 0 has a part; full_tensor(), called on all ranks, "
            "is what log_image takes"
        )
    _channel_axis(name, tuple(image.shape))
    return image


def to_pixels(name: str, image: torch.Tensor | np.ndarray) -> tuple[np.ndarray, tuple[float, float] | None]:
    """What `check_image` let pass, as uint8 (H, W) or (H, W, C) in memory of its own, a batch as a grid; and the
    smallest and largest number, if they left 0..1, where they are cut. Waits for the device.

    Raises ValueError where numbers are not finite.
    """
    if isinstance(image, torch.Tensor):
        tensor = dist.local_part(image.detach()).cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        array = image.astype(np.float32) if image.dtype.kind == "f" else image
    beyond = None
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype != np.uint8:
        if wrong := int(array.size - np.isfinite(array).sum()):
            raise ValueError(f"{wrong} of the {array.size} numbers of the image {name!r} are NaN or infinite")
        least, most = float(array.min()), float(array.max())
        if least < -HALF_A_STEP or most > 1 + HALF_A_STEP:
            beyond = least, most
        array = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    if (axis := _channel_axis(name, array.shape)) is not None:
        array = np.moveaxis(array, axis, -1)
    if array.ndim == 4:
        array = _grid(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return np.array(array, order="C"), beyond


def to_png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _array_of(name: str, image: Any) -> np.ndarray:
    if image.mode.startswith(WIDE):
        raise TypeError(
            f"log_image takes PIL's images of 8 bits, but {name!r} has the mode {image.mode!r}, whose range is not "
            "known: give it as an array of floats of 0 to 1"
        )
    if image.mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
    else:
        mode = MODES.get(image.mode, image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB")
    return np.asarray(image if mode == image.mode else image.convert(mode))


def _is_known(image: torch.Tensor | np.ndarray) -> bool:
    if isinstance(image, torch.Tensor):
        return image.is_floating_point() or image.dtype in (torch.uint8, torch.bool)
    return image.dtype.kind == "f" or image.dtype in (np.uint8, np.bool_)


def _channel_axis(name: str, shape: tuple[int, ...]) -> int | None:
    """None for (H, W); where first and last could both be the channels, it is the first."""
    if 0 not in shape:
        if len(shape) == 2:
            return None
        for axis in (-3, -1):
            if len(shape) in (3, 4) and shape[axis] in CHANNELS:
                return axis
    hint = "; a batch of grey images is image[:, None]" if len(shape) == 3 else ""
    raise ValueError(
        "log_image takes shapes (H, W), (C, H, W) and (H, W, C), and (N, C, H, W) and (N, H, W, C) for a grid, with C "
        f"of 1, 3 or 4, but {name!r} is {shape}{hint}"
    )


def _grid(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) in rows of up to 8, with black (or nothing) between them."""
    number, height, width, channels = images.shape
    columns = min(number, COLUMNS)
    rows = -(-number // columns)
    down, along = height + GAP, width + GAP
    grid = np.zeros((rows * down - GAP, columns * along - GAP, channels), np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * down, place % columns * along
        grid[top : top + height, left : left + width] = image
    return grid
