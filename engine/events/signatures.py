"""Whether and how a function can be called as a handler, or as the process function of an engine."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

Handler = Callable[..., Any]


def describe_handler(handler: Handler) -> str:
    """The name a reader would look for: `EarlyStopping.check`, `train.<locals>.note`."""
    owner = getattr(handler, "__self__", None)
    if owner is not None and not inspect.ismodule(owner) and not inspect.isclass(owner):
        return f"{type(owner).__name__}.{handler.__name__}"
    function = getattr(handler, "func", handler)
    return str(getattr(function, "__qualname__", type(function).__name__))


def _refuse_deferred(handler: Any, what: str) -> None:
    """Raises TypeError for a coroutine or generator function, as calling it would run nothing."""
    function = handler
    while isinstance(function, functools.partial):
        function = function.func
    called = [function]
    if isinstance(function, torch.nn.Module):
        called.append(function.forward)
    elif not inspect.isroutine(function) and not inspect.isclass(function):
        called.append(type(function).__call__)
    for each in called:
        if inspect.iscoroutinefunction(each):
            kind, cure = "an async function", "make it a plain one (asyncio.run(...) inside, say)"
        elif inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            kind, cure = "a generator function", "return what it yields, or make it a plain function"
        else:
            continue
        raise TypeError(f"{what} {describe_handler(handler)} is {kind}: a call of it would run nothing; {cure}")


def leading_arguments(
    handler: Handler, offered: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """How many of the offered arguments (the engine, then what the event brings) the handler takes before its own
    `args`.

    An offered argument goes only into a required positional parameter (or into `*args`), never into one with a default.

    Raises TypeError if no number of them makes a valid call.
    """
    if not callable(handler):
        raise TypeError(
            f"a handler must be callable, but {handler!r} is not; objects with attach() go to engine.attach()"
        )
    _refuse_deferred(handler, "the handler")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        raise TypeError(
            f"the parameters of {describe_handler(handler)} can't be read; wrap it: lambda engine: ..."
        ) from None
    room = 0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            room = len(offered)
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        if parameter.default is not parameter.empty or parameter.name in kwargs:
            break
        room += 1
    for taken in range(min(room, len(offered)), -1, -1):
        try:
            signature.bind(*offered[:taken], *args, **kwargs)
        except TypeError:
            continue
        return tuple(offered[:taken])
    given = ", ".join([*(repr(arg) for arg in args), *(f"{name}=..." for name in kwargs)]) or "nothing"
    names = " and ".join(type(item).__name__ if not isinstance(item, str) else item for item in offered)
    raise TypeError(
        f"{describe_handler(handler)}{signature} can't be called as a handler here: "
        f"the event offers {names}, and {given} was given with it"
    )


def check_process(process: Any) -> None:
    """Raises TypeError unless it can be called with (engine, batch); a model is called with neither."""
    if isinstance(process, torch.nn.Module):
        name = type(process).__name__
        raise TypeError(
            f"an engine needs a process function of (engine, batch), but got the model {name} itself: "
            f"supervised_trainer({name.lower()}, optimizer, loss_fn) trains it, supervised_evaluator({name.lower()}) "
            "evaluates it, and a step of one's own calls it"
        )
    if not callable(process):
        raise TypeError(f"an engine needs a process function of (engine, batch), but got {process!r}")
    _refuse_deferred(process, "the process function")
    try:
        signature = inspect.signature(process)
    except (TypeError, ValueError):
        return  # built-ins may not tell their parameters
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"the process function must take (engine, batch), but is {describe_handler(process)}{signature}: {error}"
        ) from None
