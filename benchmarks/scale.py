"""What one rank of W pays at start-up, at a save, at a resume and at an epoch's end, as W grows.

One process plays one rank of W (`_one_of_many.py` says how the others are played): files opened and bytes read of a
checkpoint that W ranks wrote, calls of collectives, messages and bytes that arrive, sockets of new groups, memory of
Python. The model is sharded over 8 ranks and replicated over the others. The checkpoint is written by the code itself,
rank after rank, into one folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from _measure import print_table
from _one_of_many import Cost, OneOfMany, PlayedStore, as_rank
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from leyden.distributed.environment import RankLayout
from leyden.distributed.meeting import _agree_on_attempt
from leyden.engine import Engine, Events, Order, Update
from leyden.handlers.checkpoint import Checkpoint
from leyden.metrics import Mean, Precision

SHARDS = 8
WIDTH, LAYERS = 64, 6
METRICS = 20


class Enough(Exception):
    """What was to be measured is."""


class Net(nn.Module):
    """Weights in shards, a batch norm's on each rank."""

    def __init__(self, mesh: Any) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)
        self.layers = nn.ParameterList()
        shards = mesh.size(1)
        for number in range(LAYERS):
            local = torch.full((WIDTH // shards, WIDTH), float(number))
            whole = DTensor.from_local(
                local, mesh, [Replicate(), Shard(0)], shape=torch.Size((WIDTH, WIDTH)), stride=(WIDTH, 1)
            )
            self.layers.append(nn.Parameter(whole))


def make(size: int, shards: int, *handlers: Any) -> Engine[Any, Any]:
    """An engine whose optimizer has a state."""
    mesh = init_device_mesh("cpu", (size // shards, shards), mesh_dim_names=("replicate", "shard"))
    model = Net(mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    engine: Engine[Any, Any] = Engine(lambda engine, batch: None)
    Update(engine, model, optimizer)
    engine.attach(*handlers)
    return engine


def run_until_started(engine: Engine[Any, Any], then: Callable[[], None] = lambda: None) -> None:
    """All that comes before the first iteration; then `then`, and the run is left."""

    def leave() -> None:
        then()
        raise Enough

    engine.add_event_handler(Events.STARTED, leave, order=Order.LAST)
    with contextlib.suppress(Enough), contextlib.redirect_stdout(io.StringIO()):
        engine.run([0] * 10, max_epochs=3)


def meet(ranks: OneOfMany) -> Cost:
    """The ranks of a torchrun find the word of their attempt in its store, which may be that of an earlier one."""
    place = RankLayout(ranks.rank, 0, ranks.size, 1)
    with ranks.measured() as cost:
        _agree_on_attempt(PlayedStore(ranks), place, timedelta(seconds=1))  # type: ignore[arg-type]
    return cost


def begin(ranks: OneOfMany, folder: Path) -> Cost:
    """Start-up: two engines, one of which saves."""
    with ranks.play():
        engine = make(ranks.size, SHARDS, Checkpoint(folder / "none"))
        other: Engine[Any, Any] = Engine(lambda engine, batch: None)
        other.share_stops()
        with ranks.measured() as cost:
            run_until_started(engine)
            other.run([0], max_epochs=1)
    return cost


def resume(ranks: OneOfMany, kept: Path, shards: int = SHARDS) -> Cost:
    """Start-up and resume, of a checkpoint that is there."""
    with ranks.play(), tempfile.TemporaryDirectory() as elsewhere:
        (path,) = kept.glob("epoch=*")
        engine = make(ranks.size, shards, Checkpoint(elsewhere, resume=path))
        with ranks.measured(kept) as cost:
            run_until_started(engine)
        if engine.state.iteration != 3:
            raise RuntimeError("nothing was restored")
    return cost


def epoch_end(ranks: OneOfMany, folder: Path) -> Cost:
    """The end of an epoch with so many metrics."""
    with ranks.play():
        engine: Engine[Any, Any] = Engine(lambda engine, batch: batch)
        for number in range(METRICS // 2):
            Mean(lambda output: output[0]).attach(engine, f"mean {number}")
            Precision(average=False).attach(engine, f"precision {number}")
        measured = Cost()
        stack = contextlib.ExitStack()

        def enter() -> None:
            nonlocal measured
            measured = stack.enter_context(ranks.measured())

        engine.add_event_handler(Events.EPOCH_COMPLETED, enter, order=Order.FIRST)
        engine.add_event_handler(Events.EPOCH_COMPLETED, stack.close, order=Order.METRICS + 1)
        engine.run([(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))], max_epochs=1)
    return measured


class PlayedExchange:
    """What the writers of the ranks tell each other, where one process writes for one after the other.

    others: on rank 0, what writes for the others once there is a folder, and gives what they tell. word: on these,
    rank 0's.
    """

    def __init__(
        self, ranks: OneOfMany, others: Callable[[Any], dict[int, Any]] | None = None, word: Any = None
    ) -> None:
        self.ranks, self.others, self.word = ranks, others, word
        self.given: Any = None
        self._answers: dict[int, Any] = {}

    def begin(self) -> None:
        return

    def broadcast(self, token: str, value: Any) -> Any:
        told = value if self.others is not None else self.word
        self.ranks.broadcast_object_list([told])
        if self.others is not None:
            self._answers = self.others(value)
        return told

    def gather(self, token: str, value: Any) -> dict[int, Any]:
        self.given = value
        self.ranks.count_gather([each for each in self._answers.values() if each is not None])
        answers = {0: value, **self._answers} if self.others is not None else {}
        return {rank: each for rank, each in answers.items() if each is not None}


def save(size: int, folder: Path) -> dict[int, Cost]:
    """A save by each of the ranks in turn; the costs of the first and the last."""
    costs: dict[int, Cost] = {}
    zero = OneOfMany(0, size)
    with zero.play():
        checkpoint = Checkpoint(folder, asynchronous=False, event=Events.ITERATION_COMPLETED(once=10**6))
        engine = make(size, SHARDS, checkpoint)

        def saver(exchange: PlayedExchange) -> Any:
            made = type(checkpoint._saver)(checkpoint._checkpoints, checkpoint._lock, checkpoint.keeping, raises=True)
            made.exchange = exchange  # type: ignore[assignment]
            return made

        def by(rank: int, word: Any) -> Any:
            """What that rank tells rank 0 once it has written."""
            exchange = PlayedExchange(zero, word=word)
            zero.rank, zero.replayed = rank, zero.decided[-1:]
            try:
                with as_rank(rank), zero.measured() if rank == size - 1 else contextlib.nullcontext(Cost()) as cost:
                    made = saver(exchange)
                    made.begin(engine, {}, {}, beside=False, buffered=False)
                    if made.writer._error is not None:
                        raise made.writer._error
            finally:
                zero.rank, zero.replayed = 0, []
            costs[rank] = cost
            return exchange.given

        def others(word: Any) -> dict[int, Any]:
            mine, zero.cost = zero.cost, Cost()
            given = {rank: by(rank, word) for rank in range(1, size)}
            zero.cost = mine
            return given

        def write() -> None:
            with zero.measured(folder) as cost:
                saver(PlayedExchange(zero, others)).begin(engine, {}, {}, beside=False, buffered=False)
            costs[0] = cost
            raise Enough

        engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), write, order=Order.LAST)
        with contextlib.suppress(Enough), contextlib.redirect_stdout(io.StringIO()):
            engine.run([0] * 10, max_epochs=3)
    return costs


def of_size(size: int) -> Iterator[tuple[str, Cost]]:
    """The rows for W ranks: what is done, by which of them, and its cost."""
    last = size - 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rank in (0, last):
            yield f"meeting, rank {rank}", meet(OneOfMany(rank, size))
        for rank in (0, last):
            yield f"start-up, rank {rank}", begin(OneOfMany(rank, size), folder)
        costs = save(size, folder / "kept")
        for rank in (0, last):
            yield f"save, rank {rank}", costs[rank]
        for rank in (0, last):
            yield f"resume, rank {rank}", resume(OneOfMany(rank, size), folder / "kept")
        fewer = size // 2
        for rank in (0, fewer - 1):
            yield f"resume by W/2, rank {rank}", resume(OneOfMany(rank, fewer), folder / "kept", SHARDS // 2)
        yield f"epoch's end, {METRICS} metrics", epoch_end(OneOfMany(last, size), folder)


def row(what: str, cost: Cost) -> tuple[str, ...]:
    values = (cost.opened, cost.json, cost.tensors, cost.calls, cost.messages, cost.arrived, cost.sockets, cost.memory)
    return (what, *(f"{value:,}" for value in values))


HEAD = ("what", "files", "B of JSON", "other B read", "calls", "messages", "B arrive", "sockets", "B of memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[8, 128, 1024, 10_000], help="numbers of ranks")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for size in options.sizes:
        rows = [row(what, cost) for what, cost in of_size(size)]
        print_table(f"One rank of {size:,}, its model in {SHARDS} shards", HEAD, rows)


if __name__ == "__main__":
    main()
