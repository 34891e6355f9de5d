"""What is an image, which pixels it becomes, and what is told of what is none."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from leyden.engine import Engine, Events
from leyden.handlers.loggers import TensorBoardLogger

from .list_logger import ListLogger
from .stored_images import images_of_tensorboard

GREY = torch.arange(30, dtype=torch.uint8).reshape(5, 6) * 8
COLOUR = torch.stack([GREY, 255 - GREY, GREY // 2])  # (3, 5, 6)
CLEAR = torch.cat([COLOUR, GREY[None]])  # (4, 5, 6)


def shown(*images: Any) -> list[np.ndarray]:
    """The pixels that TensorBoard's files have of each."""
    folder = Path(tempfile.mkdtemp(dir="."))
    engine, logger = Engine(lambda engine, batch: None), TensorBoardLogger(folder, every=None)
    engine.attach(logger)

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        for place, image in enumerate(images):
            logger.log_image(f"{place:03}", image, step=engine.state.iteration)

    engine.run(range(1))
    found = images_of_tensorboard(folder)
    assert sorted(found) == [f"{place:03}" for place in range(len(images))]
    assert all([step for step, _ in each] == [1] for each in found.values())
    return [found[name][0][1] for name in sorted(found)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_channels_may_stand_first_or_last_in_tensors_and_arrays() -> None:
    grey, colour, clear = GREY.numpy(), COLOUR.permute(1, 2, 0).numpy(), CLEAR.permute(1, 2, 0).numpy()
    given = {
        (5, 6): grey,
        (1, 5, 6): grey,
        (5, 6, 1): grey,
        (3, 5, 6): colour,
        (5, 6, 3): colour,
        (4, 5, 6): clear,
        (5, 6, 4): clear,
        (1, 3, 5, 6): colour,
        (1, 5, 6, 4): clear,
    }
    wholes = {1: GREY[None], 3: COLOUR, 4: CLEAR}
    tensors = []
    for shape in given:
        channels = 1 if len(shape) == 2 else next(size for size in (shape[-3], shape[-1]) if size in wholes)
        first = wholes[channels]
        tensors.append((first if shape[-1] != channels else first.permute(1, 2, 0)).reshape(shape))
    for images in (tensors, [tensor.numpy() for tensor in tensors], [tensor.float() / 255 for tensor in tensors]):
        for pixels, (shape, expected) in zip(shown(*images), given.items(), strict=True):
            assert np.array_equal(pixels, expected), shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_floats_of_each_width_become_the_nearest_of_256_steps(dtype: torch.dtype) -> None:
    floats = COLOUR.to(dtype) / 255
    (tensor, array) = shown(floats, floats.numpy())
    assert np.array_equal(tensor, COLOUR.permute(1, 2, 0))
    assert np.array_equal(array, tensor)


def test_other_kinds_of_numbers_that_have_a_range() -> None:
    bf16 = torch.tensor([[0.0, 0.5], [0.25, 1.0]], dtype=torch.bfloat16)
    mask = torch.tensor([[True, False]])
    half, truth, array = shown(bf16, mask, mask.numpy())
    assert half.tolist() == [[0, 128], [64, 255]]
    assert truth.tolist() == array.tolist() == [[255, 0]]


def test_tensors_that_need_gradients_and_arrays_that_are_views() -> None:
    needed, flipped = shown((COLOUR / 255).requires_grad_(), COLOUR.numpy()[:, ::-1, ::-1])
    assert np.array_equal(needed, COLOUR.permute(1, 2, 0))
    assert np.array_equal(flipped, COLOUR.flip(1, 2).permute(1, 2, 0))


def test_a_batch_is_a_grid_of_rows_of_eight() -> None:
    images = torch.randint(1, 256, (11, 3, 5, 4), dtype=torch.uint8)
    first, last, row = shown(images, images.permute(0, 2, 3, 1), images[:3])
    assert np.array_equal(first, last)
    assert first.shape == (5 + 2 + 5, 8 * 4 + 7 * 2, 3)
    rest = first.astype(int)
    for place, image in enumerate(images):
        top, left = place // 8 * 7, place % 8 * 6
        assert np.array_equal(first[top : top + 5, left : left + 4], image.permute(1, 2, 0)), place
        rest[top : top + 5, left : left + 4] = 0
    assert not rest.any(), "the gaps are black"
    assert row.shape == (5, 3 * 4 + 2 * 2, 3)


def test_images_of_pil_in_its_many_modes() -> None:
    colour = PILImage.fromarray(COLOUR.permute(1, 2, 0).numpy())
    clear = PILImage.fromarray(CLEAR.permute(1, 2, 0).numpy())
    modes = [colour.convert(mode) for mode in ("L", "1", "P", "CMYK", "YCbCr")] + [colour, clear, clear.convert("LA")]
    grey, mask, palette, print_colours, video, *same, grey_and_clear = shown(*modes)
    assert np.array_equal(grey, colour.convert("L"))
    assert set(np.unique(mask)) == {0, 255}
    assert palette.shape == print_colours.shape == video.shape == (5, 6, 3)
    assert [np.array_equal(a, b) for a, b in zip(same, (colour, clear), strict=True)] == [True, True]
    assert np.array_equal(grey_and_clear[..., 3], CLEAR[3])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.zeros(2, 5, 6), ValueError, r"'x' is \(2, 5, 6\); a batch of grey images is image\[:, None\]"),
        (torch.zeros(8, 2, 5, 6), ValueError, r"\(N, C, H, W\) .*'x' is \(8, 2, 5, 6\)"),
        (np.zeros(7), ValueError, r"shapes \(H, W\), \(C, H, W\) and \(H, W, C\).*'x' is \(7,\)"),
        (torch.zeros(0, 3, 5, 6), ValueError, r"'x' is \(0, 3, 5, 6\)"),
        (torch.zeros(5, 6, dtype=torch.int64), TypeError, r"'x' is of torch.int64; .*palette\[labels\] the classes"),
        (np.zeros((5, 6), np.uint16), TypeError, "floats of 0 to 1, uint8 of 0 to 255, and bool, but 'x' is of uint16"),
        (torch.zeros(5, 6, dtype=torch.complex64), TypeError, "complex64"),
        (PILImage.new("I;16", (5, 6)), TypeError, "images of 8 bits, but 'x' has the mode 'I;16'"),
        (PILImage.new("F", (5, 6)), TypeError, "mode 'F'"),
        ([torch.zeros(5, 6)], TypeError, r"'x' is a list; torch.stack\(images\) makes a batch"),
        ("cat.png", TypeError, "'x' is a str"),
        (torch.tensor([[0.5, float("nan")]]), ValueError, "1 of the 2 numbers of the image 'x' are NaN or infinite"),
        (np.full((2, 2), np.inf), ValueError, "4 of the 4 numbers of the image 'x'"),
    ],
    ids=lambda value: None if isinstance(value, str | type) else f"{getattr(value, 'shape', type(value).__name__)}",
)
def test_what_is_no_image_is_an_error_at_the_call(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TensorBoardLogger("run").log_image("x", image, 1)


def test_a_name_that_stands_behind_the_image_is_told() -> None:
    with pytest.raises(TypeError, match=r"log_image\(name, image, step\) takes the name first, but got a Tensor"):
        TensorBoardLogger("run").log_image(GREY, "x", 1)  # type: ignore[arg-type]


def test_a_logger_that_takes_no_images_says_so() -> None:
    with pytest.raises(NotImplementedError, match="ListLogger takes no images; one that does defines _write_image"):
        ListLogger().log_image("x", GREY, 1)


def test_floats_beyond_0_and_1_are_cut_which_is_told_once_for_each_name() -> None:
    logger, engine = TensorBoardLogger("run", every=None), Engine(lambda engine, batch: None)
    engine.attach(logger)

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        for name in ("a", "b"):
            logger.log_image(name, torch.tensor([[-1.0, 0.5, 2.5]]), engine.state.iteration)
        logger.log_image("rounding", torch.tensor([[-1e-4, 0.5, 1 + 1e-4]]), engine.state.iteration)

    with pytest.warns(UserWarning, match="has numbers from -1 to 2.5; floats are shown from 0 to 1") as told:
        engine.run(range(3))
    assert [str(each.message).split("'")[1] for each in told] == ["a", "b"]
    for images in images_of_tensorboard(Path("run")).values():
        assert [pixels.tolist() for _, pixels in images] == [[[0, 128, 255]]] * 3


def test_what_is_changed_after_the_call_does_not_reach_the_image() -> None:
    logger, engine = TensorBoardLogger("run", every=None), Engine(lambda engine, batch: None)
    engine.attach(logger)
    tensor, array = torch.full((4, 4), 7, dtype=torch.uint8), np.full((4, 4), 7, np.uint8)

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        logger.log_image("tensor", tensor, 1)
        logger.log_image("array", array, 1)
        tensor.zero_()
        array[:] = 0

    engine.run(range(1))
    assert {name: pixels.max() for name, ((_, pixels),) in images_of_tensorboard(Path("run")).items()} == {
        "tensor": 7,
        "array": 7,
    }
