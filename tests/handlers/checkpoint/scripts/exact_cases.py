"""Runs that never stop, and the same ones stopped and resumed: `exact_cases.py NPROC BASE PHASE NUMBER...`.

Each case is a combination of ranks, workers, data, randomness and place of stopping. A run is told by the exact losses,
metrics and weights that it had, so that two can be compared across processes. PHASE "first" makes the run that never
stops and the one that is stopped, "second" what is resumed; BASE/PHASE.json has what each rank tells of each case.

What a dataset draws in worker processes is exact under Reproducible, which these cases then attach, or where the
dataset keeps the state of its generators and a StatefulDataLoader asks for it, as with the IterableDataset here.
"""

import hashlib
import itertools
import json
import multiprocessing
import random
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from exact_data import AUGMENTATIONS, BATCHES, make_loader
from torch import nn

from leyden import distributed as dist
from leyden.engine import Events, supervised_evaluator, supervised_trainer
from leyden.engine.stopping import shared_stops
from leyden.handlers import DataParallel, Evaluate, GradientAccumulation, Reproducible, Schedule
from leyden.handlers.checkpoint import Checkpoint
from leyden.metrics import Accuracy, Loss, Mean

EPOCHS = 3
WINDOW = 3
DATA = ("shuffle", "weighted sampler", "custom batch sampler", "iterable with state")
STOPS = ("random batch", "open window", "evaluation", "end of epoch")


@dataclass(frozen=True)
class Case:
    """One combination. `dice` are its own, the same in each process."""

    ranks: int
    workers: int
    data: str
    randomness: str
    stop: str

    def __str__(self):
        return f"{self.ranks} rank(s), {self.workers} workers, {self.data}, {self.randomness}, stop: {self.stop}"

    @property
    def folder(self):
        return str(self).replace(" ", "_").replace(",", "").replace(":", "")

    def dice(self):
        return random.Random(str(self))

    def stops_at(self):
        """The iteration, or for a stop within an evaluation or at an epoch's end the epoch; and how it stops.

        "interrupt" is a run that is asked to stop, "dies" one that saves and is gone.
        """
        dice = self.dice()
        length = BATCHES // self.ranks
        way = dice.choice(["interrupt", "dies"])
        epoch = dice.randrange(EPOCHS - 1)
        if self.stop == "end of epoch":
            return epoch + 1, way
        if self.stop == "evaluation":
            return epoch + 1, "interrupt"
        batches = [batch for batch in range(1, length) if self.stop == "random batch" or batch % WINDOW]
        return epoch * length + dice.choice(batches), "dies" if self.ranks > 1 else way


CASES = [Case(*values) for values in itertools.product((1, 2), (0, 2), DATA, AUGMENTATIONS, STOPS)]


class Died(Exception):
    """Stands for the end of a process."""


def scramble():
    """What a new process has before anything is seeded, or restored."""
    seed = random.SystemRandom().randrange(2**32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def run(case, *handlers, stopped_by=None):
    """Trains as the case says, and tells of it. `stopped_by`: given the trainer and the evaluator, has them stopped."""
    scramble()
    told = {"losses": [], "epochs": []}
    torch.manual_seed(0)
    dropout = nn.Dropout(0.3) if case.randomness == "dropout" else nn.Identity()
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), dropout, nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    Mean().attach(trainer, "mean")
    evaluator = supervised_evaluator(model, {"accuracy": Accuracy(), "loss": Loss(nn.CrossEntropyLoss())})
    trainer.attach(DataParallel(deal="batches"), Schedule(torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.9)))
    if case.workers and case.randomness != "dropout" and case.data != "iterable with state":
        trainer.attach(Reproducible(7))
    if case.stop == "open window":
        trainer.attach(GradientAccumulation(WINDOW))
    data, own = (make_loader(case.data, case.randomness, case.workers, seed) for seed in (1, 2))
    if case.stop in ("evaluation", "end of epoch"):
        # It draws as well, from the generators that training draws from.
        trainer.attach(Evaluate(evaluator, own, prefix="val/"))

    def after_a_step():
        told["losses"].append([trainer.state.iteration, trainer.state.output.item().hex()])

    # A step is told before it is saved, an epoch after: what a stopped run had not told, the resumed one has to.
    trainer.add_event_handler(Events.ITERATION_COMPLETED, after_a_step, order=-100)

    def after_an_epoch():
        metrics = {name: value.hex() for name, value in trainer.state.metrics.items()}
        told["epochs"].append([trainer.state.epoch, metrics])

    trainer.add_event_handler(Events.EPOCH_COMPLETED, after_an_epoch, order=100)
    trainer.attach(*handlers)
    if stopped_by is not None:
        stopped_by(trainer, evaluator)
    seed = 100 + dist.rank()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    with suppress(Died):
        trainer.run(data, max_epochs=EPOCHS)
    # Passes that were cut short end here; the garbage collector would wait 5 s for each of their workers.
    trainer.run_data.feed.iterator = evaluator.run_data.feed.iterator = data._iterator = own._iterator = None
    told["reached"] = [trainer.state.epoch, trainer.state.iteration]
    told["weights"] = {name: digest(value) for name, value in model.state_dict().items()}
    states = optimizer.state_dict()["state"].values()
    told["optimizer"] = [digest(value) for state in states for value in state.values()]
    generators = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state(legacy=False)["state"]
    told["generators"] = hashlib.sha256(repr(generators).encode()).hexdigest()
    return told


def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def whole(case):
    return run(case)


def stopped(case, base):
    """The run up to its stop. What it saved is in a folder of `base`."""
    moment, way = case.stops_at()
    at_epoch = case.stop in ("evaluation", "end of epoch")
    event = Events.EPOCH_COMPLETED if at_epoch else Events.ITERATION_COMPLETED

    def die():
        raise Died

    def stop(trainer, evaluator):
        if case.stop == "evaluation":
            within = case.dice().randrange(1, BATCHES // case.ranks)

            @evaluator.on(Events.ITERATION_COMPLETED(every=within))
            def interrupt():
                if trainer.state.epoch == moment and evaluator.state.iteration == within:
                    trainer.interrupt()
        elif way == "interrupt":
            trainer.add_event_handler(event(once=moment), trainer.interrupt)
        else:
            trainer.add_event_handler(event(once=moment), die, order=200)

    saved_at = event(once=moment) if way == "dies" else Events.EPOCH_COMPLETED(every=1000)
    return run(case, Checkpoint(base / case.folder, event=saved_at), stopped_by=stop)


def resumed(case, base):
    return run(case, Checkpoint(base / case.folder, event=Events.EPOCH_COMPLETED(every=1000), resume="auto"))


def differences(whole, stopped, resumed):
    """What is not equal, in words; nothing if the resumed run is the one that never stopped."""
    for told in (whole, stopped, resumed):
        if "error" in told:
            return [told["error"]]
    found = []
    if stopped["reached"] >= whole["reached"]:
        found.append(f"it was not stopped, but came to {stopped['reached']}")
    if stopped["losses"] + resumed["losses"] != whole["losses"]:
        pairs = itertools.zip_longest(whole["losses"], stopped["losses"] + resumed["losses"])
        first = next(pair for pair in pairs if pair[0] != pair[1])
        found.append(f"stopped at {stopped['reached']}; the first loss that differs: {first[0]} became {first[1]}")
    epochs = stopped["epochs"] + [each for each in resumed["epochs"] if each not in stopped["epochs"]]
    if epochs != whole["epochs"]:
        found.append(f"metrics of epochs: {whole['epochs']} became {epochs}")
    for what in ("weights", "optimizer", "generators"):
        if resumed[what] != whole[what]:
            found.append(f"other {what}")
    return found


def told_of(function, *arguments):
    try:
        return function(*arguments)
    except Exception:
        return {"error": traceback.format_exc()}


def play(base, phase, numbers):
    shared_stops.SECONDS_BETWEEN_POLLS = 0  # the runs are short: ranks ask each other after each step
    # A process with gloo's threads is not to fork workers: in CPython 3.11 the child may wait for ever for a lock that
    # one of them held. To spawn each takes seconds.
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(["torchdata.stateful_dataloader", "leyden.handlers"])
    base = Path(base)
    if phase == "first":
        return [[told_of(whole, CASES[n]), told_of(stopped, CASES[n], base)] for n in numbers]
    return [told_of(resumed, CASES[n], base) for n in numbers]


if __name__ == "__main__":
    _, nproc, base, phase, *numbers = sys.argv
    of_ranks = dist.launch(play, int(nproc), args=(base, phase, list(map(int, numbers))), backend="gloo", timeout=30)
    # A file, as what other processes print may fall into a long line.
    Path(base, f"{phase}.json").write_text(json.dumps(of_ranks))
