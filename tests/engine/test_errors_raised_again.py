"""Handlers of EXCEPTION_RAISED that raise: the error of the run again, as Ignite's users do, or one of their own."""

import pytest

from leyden.engine import Engine, Events


def failing(error):
    def step(engine, batch):
        raise error

    return Engine(step)


def raise_again(engine, error):
    raise error


@pytest.mark.parametrize("error", [ValueError("bad batch"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_other_handler_sees_the_error_and_it_reaches_the_caller(error, position):
    engine, seen = failing(error), []
    for place in range(3):
        if place == position:
            engine.add_event_handler(Events.EXCEPTION_RAISED, raise_again)
        else:
            engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, each: seen.append(each))
    engine.add_event_handler(Events.CLOSED, lambda: seen.append("closed"))
    with pytest.raises(type(error)) as caught:
        engine.run([1])
    assert caught.value is error
    assert seen == [error, error, "closed"]


def test_an_error_of_a_handlers_own_takes_its_place_and_names_it():
    engine, seen = failing(ValueError("bad batch")), []

    def fail(engine, error):
        raise RuntimeError("the disk is full")

    def fail_too(engine, error):
        raise OSError("no network")

    engine.add_event_handler(Events.EXCEPTION_RAISED, fail)
    engine.add_event_handler(Events.EXCEPTION_RAISED, fail_too)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: seen.append(str(error)))
    with pytest.raises(RuntimeError, match="the disk is full") as caught:
        engine.run([1])
    assert str(caught.value.__cause__) == "bad batch"
    assert caught.value.__notes__ == ["another handler of EXCEPTION_RAISED raised OSError: no network"]
    assert seen == ["bad batch"]


def test_a_second_ctrl_c_is_heeded_at_once():
    engine, seen = failing(ValueError("bad batch")), []

    def stop(engine, error):
        raise KeyboardInterrupt

    engine.add_event_handler(Events.EXCEPTION_RAISED, stop)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: seen.append("late"))
    engine.add_event_handler(Events.CLOSED, lambda: seen.append("closed"))
    with pytest.raises(KeyboardInterrupt):
        engine.run([1])
    assert seen == ["closed"]
