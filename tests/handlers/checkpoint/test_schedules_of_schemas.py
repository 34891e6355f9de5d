"""A Schedule goes on where it was in a checkpoint of any earlier version, however that told schedules apart."""

import pytest
from test_schema import FOLDERS, expected, made

from leyden.handlers import Schedule
from leyden.handlers.checkpoint import Checkpoint


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_has_counted_all_steps_of_the_run(folder, tmp_path, recwarn) -> None:
    _, _, trainer = made.train(Checkpoint(tmp_path, resume=folder), made.LAST)
    (schedule,) = trainer.find_handlers(Schedule)
    assert schedule.scheduler.last_epoch == trainer.state.step == expected(folder)["step"]
    assert not [each for each in recwarn if "begins anew" in str(each.message)]
