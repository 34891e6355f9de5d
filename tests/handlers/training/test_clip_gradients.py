"""Gradients kept within bounds, as torch.nn.utils does it."""

import functools
import math

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand, train_with
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from leyden.engine import Engine, Update, UpdateEvents, supervised_trainer
from leyden.handlers import ClipGradients, EarlyStopping, GradientAccumulation


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
def test_the_norm_is_clipped_as_torch_does_it_to_the_bit(norm_type):
    ours, theirs, norms = net(), net(), []

    def clip(parameters):
        norms.append(nn.utils.clip_grad_norm_(parameters, 0.7, norm_type))

    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(ClipGradients(norm=0.7, norm_type=norm_type))
    ours_norms = []
    trainer.add_event_handler(
        UpdateEvents.STEP_COMPLETED, lambda engine: ours_norms.append(engine.state.metrics["grad_norm"])
    )
    trainer.run(batches(10), max_epochs=3)
    train_by_hand(theirs, sgd(theirs), batches(10), clip=clip)
    assert equal(ours, theirs)
    assert ours_norms == [norm.item() for norm in norms]  # the norm before clipping
    assert max(ours_norms) > 0.7  # it was clipped
    assert min(ours_norms) < max(ours_norms)


def test_a_norm_within_the_bound_changes_nothing():
    ours, theirs = net(), net()
    train_with(ClipGradients(norm=1e6), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), batches(10))
    assert equal(ours, theirs)


def test_an_infinite_bound_only_measures():
    ours, theirs = net(), net()
    trainer = train_with(ClipGradients(norm=math.inf), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), batches(10))
    assert equal(ours, theirs)
    assert trainer.state.metrics["grad_norm"] > 0


def test_values_are_clipped_as_torch_does_it_to_the_bit():
    ours, theirs = net(), net()
    trainer = train_with(ClipGradients(value=0.05), model=ours, optimizer=sgd(ours), data=batches(10))
    clip = functools.partial(nn.utils.clip_grad_value_, clip_value=0.05)
    train_by_hand(theirs, sgd(theirs), batches(10), clip=clip)
    assert equal(ours, theirs)
    assert "grad_norm" not in trainer.state.metrics


def test_parameters_of_several_dtypes():
    def mixed():
        model = net()
        model[2].double()
        model[1].register_forward_hook(lambda module, args, output: output.double())
        return model

    ours, theirs = mixed(), mixed()
    data = [(x, y.double()) for x, y in batches(10)]
    train_with(ClipGradients(norm=0.7), model=ours, optimizer=sgd(ours), data=data)
    clip = functools.partial(nn.utils.clip_grad_norm_, max_norm=0.7)
    train_by_hand(theirs, sgd(theirs), data, clip=clip)
    assert equal(ours, theirs)


def test_frozen_and_unused_parameters_take_no_part():
    def partly():
        model = net()
        model[0].requires_grad_(False)
        model.unused = nn.LayerNorm(3)
        model.forward = lambda x: model[2](model[1](model[0](x)))
        return model

    ours, theirs = partly(), partly()
    train_with(ClipGradients(norm=0.7), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), batches(10), clip=functools.partial(nn.utils.clip_grad_norm_, max_norm=0.7))
    assert equal(ours, theirs)


class CountHostCopies(TorchDispatchMode):
    """Counts the copies of a scalar to the host, each of which waits for the device."""

    copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.copies += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_norm_is_copied_to_the_host_only_when_it_is_read():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ClipGradients(norm=0.7))
    with CountHostCopies() as counter:
        trainer.run(batches(10))
        in_the_run = counter.copies
        value = trainer.state.metrics["grad_norm"]
        assert (in_the_run, counter.copies) == (0, 1)
    assert isinstance(value, float)


def test_the_norm_is_known_by_name_before_the_run():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(EarlyStopping("grad_norm", mode="min"), ClipGradients(norm=1.0))
    assert trainer.metric_names() == ["grad_norm"]
    trainer.run(batches(1))


@pytest.mark.parametrize("foreach", [True, False])
def test_with_or_without_operations_on_lists(foreach):
    ours, theirs = net(), net()
    train_with(ClipGradients(norm=0.7, foreach=foreach), model=ours, optimizer=sgd(ours), data=batches(10))
    clip = functools.partial(nn.utils.clip_grad_norm_, max_norm=0.7, foreach=foreach)
    train_by_hand(theirs, sgd(theirs), batches(10), clip=clip)
    assert equal(ours, theirs)


# -- groups of parameters ----------------------------------------------------------------------------------------------


def in_groups(model):
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.05}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def clip_groups(model, clip, bounds):
    for layer, bound in zip((model[0], model[2]), bounds, strict=True):
        clip(layer.parameters(), bound)


@pytest.mark.parametrize(
    ("arguments", "clip", "bounds"),
    [
        ({"norm": 0.3, "per_group": True}, nn.utils.clip_grad_norm_, (0.3, 0.3)),
        ({"norm": [0.3, 0.6]}, nn.utils.clip_grad_norm_, (0.3, 0.6)),
        ({"norm": [0.3, 0.6], "foreach": False}, nn.utils.clip_grad_norm_, (0.3, 0.6)),
        ({"value": (0.02, 0.1)}, nn.utils.clip_grad_value_, (0.02, 0.1)),
    ],
    ids=("norm for all", "norms", "norms one by one", "values"),
)
def test_each_group_by_itself_to_the_bit(arguments, clip, bounds):
    ours, theirs = net(), net()
    train_with(ClipGradients(**arguments), model=ours, optimizer=in_groups(ours), data=batches(10))
    train_by_hand(theirs, in_groups(theirs), batches(10), clip=lambda _: clip_groups(theirs, clip, bounds))
    assert equal(ours, theirs)


def test_each_group_has_its_norm():
    model = net()
    trainer = supervised_trainer(model, in_groups(model), loss_fn)
    trainer.attach(ClipGradients(norm=0.3, per_group=True))
    assert trainer.metric_names() == ["grad_norm/0", "grad_norm/1"]
    seen = {}

    @trainer.on(UpdateEvents.GRADIENTS_READY, order=-1)
    def note(engine, update):
        for index, layer in enumerate((model[0], model[2])):
            seen[f"grad_norm/{index}"] = nn.utils.get_total_norm([p.grad for p in layer.parameters()]).item()

    metrics = trainer.run(batches(1)).metrics
    assert dict(metrics) == pytest.approx(seen)


def test_more_bounds_than_groups():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ClipGradients(norm=[1.0, 2.0]))
    with pytest.raises(ValueError, match="has 2 bounds, but the optimizer of update 'default' has 1 groups"):
        trainer.run(batches(1))


@pytest.mark.parametrize("order", [("norm", "value"), ("value", "norm")])
def test_values_then_the_norm_whatever_the_order_of_attaching(order):
    ours, theirs = net(), net()
    bounds = {"norm": 0.3, "value": 0.1}
    train_with(
        *(ClipGradients(**{kind: bounds[kind]}) for kind in order), model=ours, optimizer=sgd(ours), data=batches(9)
    )

    def clip(parameters):
        parameters = list(parameters)
        nn.utils.clip_grad_value_(parameters, 0.1)
        nn.utils.clip_grad_norm_(parameters, 0.3)

    train_by_hand(theirs, sgd(theirs), batches(9), clip=clip)
    assert equal(ours, theirs)


def test_two_of_a_kind():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ClipGradients(norm=1.0))
    with pytest.raises(ValueError, match="both bound the norm of one update's gradients"):
        trainer.attach(ClipGradients(norm=2.0))


# -- several updates ---------------------------------------------------------------------------------------------------


def gan():
    critic, generator = nn.Linear(2, 1), nn.Linear(3, 2)

    def process(engine, real):
        with critic_update.forward():
            loss = critic(generator(noise)).mean() - critic(real).mean()
        critic_update.backward(loss)
        with generator_update.forward():
            loss = -critic(generator(noise)).mean()
        generator_update.backward(loss)

    noise = torch.ones(4, 3)
    engine = Engine(process)
    critic_update = Update(engine, critic, torch.optim.SGD(critic.parameters(), lr=0.1), name="critic")
    generator_update = Update(engine, generator, torch.optim.SGD(generator.parameters(), lr=0.1), name="generator")
    return engine


def norms_when_ready(engine):
    """The true norm of each update's gradients, before and after the handlers that were attached between."""
    norms = {}

    def note(engine, update, when):
        total = torch.stack([gradient.norm() for gradient in update.gradients()]).norm()
        norms[update.name, when] = pytest.approx(total.item(), rel=1e-5)

    engine.add_event_handler(UpdateEvents.GRADIENTS_READY, note, "before", order=-1)
    engine.add_event_handler(UpdateEvents.GRADIENTS_READY, note, "after", order=1)
    return norms


REAL = [torch.tensor([[1.0, -2.0], [3.0, 0.5]])]


def test_all_updates_by_default_each_under_its_name():
    engine = gan()
    engine.attach(ClipGradients(norm=0.01))
    norms = norms_when_ready(engine)
    metrics = engine.run(REAL).metrics
    assert set(metrics) == {"critic/grad_norm", "generator/grad_norm"}
    for name in ("critic", "generator"):
        assert metrics[f"{name}/grad_norm"] == norms[name, "before"]
        assert norms[name, "after"] == 0.01


def test_one_update_by_name():
    engine = gan()
    engine.attach(ClipGradients(norm=0.01, update="critic"))
    norms = norms_when_ready(engine)
    engine.run(REAL)
    assert norms["critic", "after"] == 0.01
    assert norms["generator", "after"] == norms["generator", "before"].expected


def test_a_handler_for_each_update():
    """Two bounds, two norms: neither hides the other."""
    engine = gan()
    engine.attach(ClipGradients(norm=0.01, update="critic"), ClipGradients(norm=0.02, update="generator"))
    norms = norms_when_ready(engine)
    metrics = engine.run(REAL).metrics
    assert norms["critic", "after"] == 0.01
    assert norms["generator", "after"] == 0.02
    assert {name: metrics[name] for name in sorted(metrics)} == {
        "critic/grad_norm": norms["critic", "before"],
        "generator/grad_norm": norms["generator", "before"],
    }


def test_once_in_a_window():
    ours, theirs = net(), net()
    train_with(ClipGradients(norm=0.7), GradientAccumulation(4), model=ours, optimizer=sgd(ours), data=batches(10))
    clip = functools.partial(nn.utils.clip_grad_norm_, max_norm=0.7)
    train_by_hand(theirs, sgd(theirs), batches(10), window=4, clip=clip)
    assert equal(ours, theirs)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [{}, {"norm": 1.0, "value": 1.0}])
def test_not_one_bound(bounds):
    with pytest.raises(ValueError, match="ClipGradients takes either norm or value, but got norm="):
        ClipGradients(**bounds)


@pytest.mark.parametrize("bound", [0, -1.0, math.nan])
@pytest.mark.parametrize("kind", ["norm", "value"])
def test_a_bound_that_is_not_positive(kind, bound):
    with pytest.raises(ValueError, match=f"ClipGradients needs a positive bound, but got {bound}"):
        ClipGradients(**{kind: bound})


@pytest.mark.parametrize("kind", ["norm", "value"])
def test_a_group_without_parameters_or_gradients(kind):
    ours, theirs = net(), net()
    ours[0].requires_grad_(False)
    theirs[0].requires_grad_(False)
    groups = [{"params": []}, {"params": list(ours[0].parameters())}, {"params": list(ours[2].parameters())}]
    clip = ClipGradients(**{kind: 0.1}, per_group=True)
    trainer = train_with(clip, model=ours, optimizer=torch.optim.SGD(groups, lr=0.1), data=batches(10))
    by_torch = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}[kind]
    train_by_hand(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1), batches(10), clip=lambda p: by_torch(p, 0.1))
    assert equal(ours, theirs)
    if kind == "norm":
        norms = trainer.state.metrics
        assert (norms["grad_norm/0"], norms["grad_norm/1"]) == (0.0, 0.0) != norms["grad_norm/2"]


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="ClipGradients works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(ClipGradients(norm=1.0))


def test_an_update_that_is_not_there():
    with pytest.raises(ValueError, match="ClipGradients names the update 'actor', but the engine has: critic, gen"):
        gan().attach(ClipGradients(norm=1.0, update="actor"))


def test_a_closure_is_clipped_each_time_the_optimizer_calls_it():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(ClipGradients(norm=0.01))
    after = []

    @trainer.on(UpdateEvents.GRADIENTS_READY, order=1)
    def note(engine, update):
        after.append(torch.stack([gradient.norm() for gradient in update.gradients()]).norm().item())

    trainer.run(batches(1))
    assert len(after) >= 3
    assert after == pytest.approx([0.01] * len(after), rel=1e-3)
