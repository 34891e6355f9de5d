"""A state that becomes no data in mid-run is a save that failed: told, while training goes on, or raised."""

import warnings

import pytest

from leyden.engine import Events
from leyden.handlers import Checkpoint


class Holder:
    value = 1

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state_dict):
        self.value = state_dict["value"]


def spoilt(make_run, path, *, mended_at=None, **options):
    """A run whose extra state is no data from the end of epoch 2, saved after each epoch."""
    held = Holder()
    run = make_run(Checkpoint(path, keep=None, extra={"held": held}, **options))

    @run.trainer.on(Events.EPOCH_COMPLETED)
    def spoil(engine):
        held.value = object() if engine.state.epoch == 2 else 1 if engine.state.epoch == mended_at else held.value

    return run


def epochs(path):
    return [folder.name[:10] for folder in sorted(path.iterdir()) if folder.name.startswith("epoch=")]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_it_is_told_and_training_goes_on(asynchronous, make_run, tmp_path):
    run = spoilt(make_run, tmp_path, mended_at=4, asynchronous=asynchronous)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.trainer.run(run.data, max_epochs=5)
    told = [str(each.message) for each in caught if "could not be written" in str(each.message)]
    assert len(told) == 2
    assert all("TypeError: extra/held/value is a builtins.object" in each for each in told)
    assert run.trainer.state.epoch == 5
    assert epochs(tmp_path) == ["epoch=0001", "epoch=0004", "epoch=0005"]


def test_a_run_that_completes_without_its_last_checkpoint_raises(make_run, tmp_path):
    run = spoilt(make_run, tmp_path)
    with pytest.warns(UserWarning, match="could not be written"), pytest.raises(TypeError, match="extra/held/value"):
        run.trainer.run(run.data, max_epochs=3)
    assert run.trainer.state.epoch == 3
    assert epochs(tmp_path) == ["epoch=0001"]


def test_on_error_raise_ends_the_run(make_run, tmp_path):
    run = spoilt(make_run, tmp_path, mended_at=4, on_error="raise")
    with pytest.raises(TypeError, match="extra/held/value"):
        run.trainer.run(run.data, max_epochs=5)
    assert run.trainer.state.epoch == 2
