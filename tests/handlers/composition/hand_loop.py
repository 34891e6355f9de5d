"""The training loop that a user of plain PyTorch would write for any two of the handlers together.

One function, a switch for each handler; nothing of leyden is used. What has to come before what is the order of its
lines.
"""

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from task import BATCH_SIZE, EPOCHS, LEARNING_RATE, inputs_of, loader, loss_of, net, sgd, weight_of
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass
class Options:
    """What the loop does beside the plain one; a field for each handler that changes numbers."""

    autocast: torch.dtype | None = None
    dtype: torch.dtype | None = None
    scaler: dict | None = None
    window: int = 1
    weighted: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None
    per_step: tuple[float, ...] = ()  # the learning rate's factors after each optimizer step
    per_epoch: tuple[float, ...] = ()
    momentum: tuple[float, float, int] | None = None  # from, to, in how many steps
    batch_sizes: dict[int, int] = field(default_factory=dict)  # by epoch, counted from 0
    batch_size: int | None = None
    ema: float | None = None
    swa: int | None = None  # the first epoch that is averaged, counted from 1
    chunk: int | None = None  # time steps
    checkpointed: bool = False
    freeze: tuple[str, ...] = ()
    unfreeze: dict[int, tuple[tuple[str, ...], float]] = field(default_factory=dict)
    lora: dict | None = None
    convert: tuple = ()  # functions that exchange a model's layers
    channels_last: bool = False
    compiled: bool = False
    epochs: int = EPOCHS
    limit: int | None = None
    isolated: bool = False  # loading draws nothing from the stream of random numbers that dropout uses
    combined: bool = False
    seed: int | None = None


def train_by_hand(options: Options, on_batch=lambda epoch: None):
    """Trains; gives the model, the average of its weights if there is one, and the number of optimizer steps.

    `on_batch(epoch)` is called when a batch has come.
    """
    torch.manual_seed(0 if options.seed is None else options.seed)
    model = net()
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if options.dtype is not None:
        model = model.to(options.dtype)
    for convert in options.convert:
        convert(model)
    still = adapt_and_freeze(model, options)
    if options.checkpointed:
        for block in model.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if options.compiled:
        model.compile(backend="eager")
    optimizer = optimizer_of(model, options)
    schedulers = schedulers_of(optimizer, options)
    if options.seed is not None:
        torch.manual_seed(options.seed)  # whatever making the model has drawn
    scaler = None if options.scaler is None else torch.amp.GradScaler("cpu", **options.scaler)
    ema = None if options.ema is None else Average(model, options.ema)
    swa = None if options.swa is None else Average(model)
    steps = weight = 0
    for epoch in range(options.epochs):
        number, batches = data_of(options, epoch)
        unfreeze(model, options, epoch, still)
        for i, batch in enumerate(batches):
            on_batch(epoch)
            size = min(options.window, number - i // options.window * options.window)
            begins, closes = i % options.window == 0, (i + 1) % options.window == 0 or i + 1 == number
            weight = weight_of(batch) + (0 if begins else weight)
            hidden = None
            for x, y in chunks_of(batch, options):
                model.train()
                for module in still:
                    module.eval()
                if options.momentum is not None:
                    first, last, duration = options.momentum
                    progress = min(steps, duration) / duration
                    for group in optimizer.param_groups:
                        group["momentum"] = (1 - progress) * first + progress * last
                with autocast_of(options):
                    prediction, hidden = model(as_input(x, options), hidden)
                    loss = loss_of(prediction, y)
                hidden = hidden.detach()
                loss = loss * weight_of(batch) if options.weighted else loss if size == 1 else loss / size
                (loss if scaler is None else scaler.scale(loss)).backward()
                if not closes:
                    continue
                stepped = step(optimizer, scaler, weight if options.weighted else None, options)
                optimizer.zero_grad()
                if stepped:
                    steps += 1
                    if ema is not None:
                        ema.update(model)
                    for scheduler in schedulers["step"]:
                        scheduler.step()
        for scheduler in schedulers["epoch"]:
            scheduler.step()
        if swa is not None and epoch + 1 >= options.swa:
            swa.update(model)
    if swa is not None and swa.count > 0:
        swa.put(model)
        refresh_batch_norm(model, still, options)
    return model, ema, steps


def adapt_and_freeze(model, options):
    """Freezes what shall be; gives the batch norms that are to stay in eval mode."""
    if options.lora is not None:
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(**options.lora), model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
    names = [*options.freeze, *(name for entry in options.unfreeze.values() for name in entry[0])]
    still = set()
    for name in names:
        module = model.get_submodule(name)
        module.requires_grad_(False)
        still |= {each for each in module.modules() if isinstance(each, nn.BatchNorm2d)}
    return still


def optimizer_of(model, options):
    """One group; under a plan of unfreezing one more for each of its entries, in the order of the epochs."""
    if not options.unfreeze:
        return sgd([parameter for parameter in model.parameters() if parameter.requires_grad])
    groups, planned = [], set()
    for _, (names, ratio) in sorted(options.unfreeze.items()):
        parameters = [parameter for name in names for parameter in model.get_submodule(name).parameters()]
        planned |= set(parameters)
        groups.append({"params": parameters, "lr": LEARNING_RATE * ratio})
    return sgd([{"params": [p for p in model.parameters() if p not in planned]}, *groups])


def schedulers_of(optimizer, options):
    exponential = torch.optim.lr_scheduler.ExponentialLR
    return {
        "step": [exponential(optimizer, factor) for factor in options.per_step],
        "epoch": [exponential(optimizer, factor) for factor in options.per_epoch],
    }


def is_quantized(tensor):
    return hasattr(tensor, "qdata")


class Average:
    """Averages of a model's parameters, at least in fp32: exponential ones with a decay, equal ones without."""

    def __init__(self, model, decay=None):
        self.decay = decay
        self.count = 0
        self.values = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in model.named_parameters()
            if not is_quantized(p)
        }

    @torch.no_grad()
    def update(self, model):
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            parameter = parameters[name]
            if self.count == 0:
                value.copy_(parameter)
            elif self.decay is None:
                value.add_((parameter - value) / (self.count + 1))
            elif value.dtype is parameter.dtype:
                value.lerp_(parameter, 1 - self.decay)
            else:
                value.mul_(self.decay).add_(parameter, alpha=1 - self.decay)
        self.count += 1

    @torch.no_grad()
    def put(self, model):
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            parameters[name].copy_(value)


def data_of(options, epoch):
    """How many batches the epoch has, and the batches."""
    size = options.batch_size or BATCH_SIZE
    if options.batch_sizes:
        size = options.batch_sizes[max(key for key in options.batch_sizes if key <= epoch)]
    data, other = loader(size), loader(size, seed=2, number=16)
    number = len(data) if options.limit is None else min(options.limit, len(data))
    batches = paired(data, other) if options.combined else data
    if options.isolated:
        with torch.random.fork_rng():
            batches = list(batches)
    return number, itertools.islice(batches, number)


def paired(data, other):
    """Batches of both, the shorter one begun anew whenever it has ended."""
    first, second = iter(data), iter(other)
    for batch in first:
        try:
            partner = next(second)
        except StopIteration:
            second = iter(other)
            partner = next(second)
        yield {"a": batch, "b": partner}


def autocast_of(options):
    return nullcontext() if options.autocast is None else torch.autocast("cpu", dtype=options.autocast)


def as_input(x, options):
    x = x if options.dtype is None else x.to(options.dtype)
    return x.contiguous(memory_format=torch.channels_last) if options.channels_last else x


def chunks_of(batch, options):
    x, y = inputs_of(batch)
    if options.chunk is None:
        return [(x, y)]
    return list(zip(x.split(options.chunk, dim=2), y.split(options.chunk, dim=2), strict=True))


def unfreeze(model, options, epoch, still):
    names, _ = options.unfreeze.get(epoch, ((), 1.0))
    for name in names:
        module = model.get_submodule(name)
        module.requires_grad_(True)
        still -= set(module.modules())


def step(optimizer, scaler, weight, options):
    """Unscale, divide, clip, step; whether it stepped."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if scaler is not None:
        scaler.unscale_(optimizer)
    if weight is not None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(1 / torch.tensor(float(weight)))
    if options.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, options.clip_value)
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, options.clip_norm)
    if scaler is None:
        optimizer.step()
        return True
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before


def refresh_batch_norm(model, still, options):
    """One more pass over an epoch's data for the statistics of the batch norms that are trained."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module not in still]
    if not norms:
        return
    with torch.random.fork_rng(), torch.no_grad():
        model.train()
        for module in still:
            module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for batch in data_of(options, options.epochs - 1)[1]:
            with autocast_of(options):
                model(as_input(inputs_of(batch)[0], options))
    for norm in norms:
        norm.momentum = 0.1
