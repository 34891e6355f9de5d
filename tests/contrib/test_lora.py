"""Low-rank adapters, held against the loop in which a user calls peft himself."""

import subprocess
import sys
import warnings

import pytest
import torch
from by_hand import equal, loss_fn, train_by_hand, train_with
from torch import nn

from leyden.contrib.adapters import adapter_state, merge, save_adapters, unmerge
from leyden.contrib.lora import LoRA
from leyden.engine import Engine, Events, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, ClipGradients, Evaluate, GradientAccumulation, MixedPrecision, Schedule
from leyden.handlers.model.finetune import Finetune
from leyden.handlers.model.freeze import Freeze
from leyden.handlers.model.quantize import Quantize

pytest.importorskip("peft")

ADAPTERS = [f"{layer}.{part}.default.weight" for layer in ("0", "3") for part in ("lora_A", "lora_B")]


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 2))


def batches(number=10, size=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 32, generator=generator), 2 * torch.randn(size, 2, generator=generator))
        for _ in range(number)
    ]


def adapted(model, rank=8, alpha=16, targets="all-linear", **options):
    """By hand; the adapters begin with the random numbers of seed 0, as those of `train` do."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*get_apply_tensor_subclass")
        return inject_adapter_in_model(config, model)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def trained_part(model, lr=0.02):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9)


def train(*handlers, model, optimizer=None, **options):
    torch.manual_seed(0)
    optimizer = sgd(model) if optimizer is None else optimizer
    return train_with(*handlers, model=model, optimizer=optimizer, data=batches(), **options)


def trained_names(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def places(model, optimizer):
    """The names of the parameters in each of the optimizer's groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


# -- training ----------------------------------------------------------------------------------------------------------


CASES = {
    "all linear layers": ({}, {}),
    "one layer": ({"targets": ["3"]}, {"targets": ["3"]}),
    "a regular expression": ({"targets": "[03]"}, {"targets": "[03]"}),
    "rank and alpha": ({"rank": 2, "alpha": 1}, {"rank": 2, "alpha": 1}),
    "dropout": ({"dropout": 0.3}, {"lora_dropout": 0.3}),
    "a layer trained in full": ({"targets": ["0"], "modules_to_save": ["3"]},) * 2,
    "biases": ({"bias": "lora_only"},) * 2,
    "dora": ({"use_dora": True},) * 2,
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_loop_with_pefts_adapters_to_the_bit(name):
    options, theirs_options = CASES[name]
    theirs = adapted(net(), **theirs_options)
    begun = [parameter.detach().clone() for parameter in theirs.parameters()]
    train_by_hand(theirs, trained_part(theirs), batches())
    train(LoRA(**options), model=(ours := net()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert trained_names(ours) == trained_names(theirs)
    assert equal(ours, theirs)
    moved = [not torch.equal(a, b) for a, b in zip(begun, theirs.parameters(), strict=True)]
    assert moved == [parameter.requires_grad for parameter in theirs.parameters()]


@pytest.mark.parametrize("first", ["LoRA", "the others"])
def test_it_goes_with_the_handlers_of_the_step(first):
    ours, theirs = net(), adapted(net())
    optimizer = sgd(ours)
    others = [
        MixedPrecision("bf16"),
        GradientAccumulation(4),
        ClipGradients(norm=0.5),
        Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)),
    ]
    train(*([LoRA(), *others] if first == "LoRA" else [*others, LoRA()]), model=ours, optimizer=optimizer)
    by_hand = trained_part(theirs)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(by_hand, 0.9)
    train_by_hand(
        theirs,
        by_hand,
        batches(),
        window=4,
        dtype=torch.bfloat16,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5),
        after_step=scheduler.step,
    )
    assert equal(ours, theirs)


@pytest.mark.parametrize("kind", ["int8-weights", "int4-weights", "float8"])
@pytest.mark.parametrize("first", ["LoRA", "Quantize"])
def test_it_adapts_quantized_layers(kind, first):
    pytest.importorskip("torchao")
    options = {"layers": ["0"], "emulate": True} if kind == "float8" else {}
    ours, theirs = net(), net()
    handlers = [LoRA(), Quantize(kind, **options)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # none of peft's about merging
        train(*(handlers if first == "LoRA" else handlers[::-1]), model=ours)
    Quantize(kind, **options).apply(theirs)
    train_by_hand(adapted(theirs), trained_part(theirs), batches())
    ours_state, theirs_state = ours.state_dict(), theirs.state_dict()
    assert list(ours_state) == list(theirs_state)
    assert all(torch.equal(ours_state[name], theirs_state[name]) for name in ours_state)


def test_the_model_stays_the_users_object_and_an_evaluator_sees_the_adapters():
    model = net()
    evaluator = supervised_evaluator(model)
    trainer = train(LoRA(), Evaluate(evaluator, batches(1)), model=model)
    assert type(model) is nn.Sequential
    assert trainer.updates["default"].modules == {"model": model}
    assert torch.equal(evaluator.state.output[0], model(batches(1)[0][0]))
    assert not torch.equal(evaluator.state.output[0], net()(batches(1)[0][0]))


# -- the optimizer -----------------------------------------------------------------------------------------------------


def test_adapters_take_the_places_of_the_weights_they_adapt():
    model = net()
    groups = [{"params": model[:2].parameters(), "lr": 0.01}, {"params": model[3].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(LoRA(), Schedule(scheduler, per="epoch"), model=model, optimizer=optimizer)
    assert places(model, optimizer) == [ADAPTERS[:2], ADAPTERS[2:]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.01 / 8, 0.02 / 8]


def test_a_learning_rate_of_their_own():
    ours, theirs = net(), adapted(net(), targets=["0"], modules_to_save=["3"])
    optimizer = torch.optim.SGD(ours.named_parameters(), lr=0.1, momentum=0.9)
    train(LoRA(targets=["0"], modules_to_save=["3"], lr=0.01), model=ours, optimizer=optimizer)
    train_by_hand(theirs, trained_part(theirs, lr=0.01), batches())
    assert places(ours, optimizer) == [[], trained_names(ours)]
    assert [group["param_names"] for group in optimizer.param_groups] == places(ours, optimizer)
    assert equal(ours, theirs)


def test_what_is_trained_still_stays_in_its_group():
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    train(LoRA(targets=["3"], bias="all"), model=model, optimizer=optimizer, epochs=1)
    assert places(model, optimizer) == [["0.bias", "1.bias", "3.base_layer.bias", *ADAPTERS[2:]]]
    assert optimizer.param_groups[0]["param_names"] == ["0.bias", "1.bias", "3.bias", *ADAPTERS[2:]]


def test_parameters_outside_of_the_model_stay():
    model, scale = net(), nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([scale, *model.parameters()], lr=0.1)
    trainer = supervised_trainer(model, optimizer, lambda y_pred, y: loss_fn(scale * y_pred, y))
    trainer.attach(LoRA())
    trainer.run(batches(2))
    assert optimizer.param_groups[0]["params"][-1] is scale
    assert len(optimizer.param_groups[0]["params"]) == 5
    assert scale != 1


def test_one_update_of_two():
    models = {"a": net(), "b": net()}

    def process(engine, batch):
        for update in (a, b):
            with update.forward():
                loss = loss_fn(models[update.name](batch[0]), batch[1])
            update.backward(loss)

    engine = Engine(process)
    a, b = (Update(engine, model, sgd(model), name=name) for name, model in models.items())
    engine.attach(LoRA(update="b"), Freeze("0", update="a"))
    engine.run(batches(2))
    assert trained_names(models["a"]) == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert trained_names(models["b"]) == ADAPTERS


def test_nothing_is_called_in_a_step():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(LoRA())
    update = trainer.updates["default"]
    assert all(not table.entries for table in [*trainer.tables(), *update.tables.values()])
    assert update.slots.owners == {}


# -- keeping -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantized", [False, True])
def test_a_resumed_run_is_the_run_that_never_stopped(quantized, tmp_path):
    def run(seed, stop=None, resume=None):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        trainer = supervised_trainer(model, optimizer, loss_fn)
        trainer.attach(
            Checkpoint(tmp_path / str(resume), resume=resume),
            LoRA(dropout=0.2),
            Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)),
            *([Quantize("int8-weights")] if quantized else []),
        )
        if stop is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), trainer.interrupt)
        trainer.run(batches(), max_epochs=2)
        return model, optimizer

    expected, _ = run(seed=0)
    run(seed=0, stop=7, resume="auto")
    run(seed=3, stop=14, resume="auto")
    resumed, optimizer = run(seed=4, resume="auto")
    state = expected.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())
    assert all(value.isfinite().all() for value in state.values())
    assert len(optimizer.state) == 4


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("r", "rank"), ("lora_alpha", "alpha"), ("target_modules", "targets"), ("lora_dropout", "dropout")],
)
def test_pefts_own_names_are_told(theirs, ours):
    with pytest.raises(TypeError, match=rf"peft's {theirs} under the name {ours}: LoRA\({ours}=4\)"):
        LoRA(**{theirs: 4})


def test_merging_and_unmerging():
    model = net()
    trainer = train(LoRA(), model=model)
    x, _ = batches(1)[0]
    before, weights = model(x), [parameter.detach().clone() for parameter in model.parameters()]
    merge(model)
    merge(model)
    assert torch.allclose(model(x), before, atol=1e-5)
    assert not torch.equal(model[0].base_layer.weight, weights[0])
    with pytest.raises(ValueError, match="can't train adapters that are merged"):
        trainer.run(batches(), max_epochs=4)
    unmerge(model)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(model.parameters(), weights, strict=True))
    trainer.run(batches(), max_epochs=4)


def test_a_model_that_is_merged_for_good_has_its_first_layout_again():
    model = net()
    train(LoRA(targets=["0"], modules_to_save=["3"]), model=model)
    x, _ = batches(1)[0]
    before = model(x)
    merge(model, unload=True)
    plain = net()
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(plain(x), before, atol=1e-5)
    assert not hasattr(model, "peft_config")
    assert not torch.equal(plain[3].weight, net()[3].weight)


def test_a_merged_model_of_transformers_is_told_to_be_unloaded_before_it_is_saved(recwarn, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    trainer = Engine(lambda engine, tokens: update.backward(model(input_ids=tokens, labels=tokens).loss))
    update = Update(trainer, model, torch.optim.SGD(model.parameters(), lr=1.0))
    trainer.attach(LoRA(rank=2))
    trainer.run([torch.randint(20, (2, 8)) for _ in range(3)])
    with pytest.warns(UserWarning, match=r"merge\(model, unload=True\) before saving it"):
        merge(model)
    recwarn.clear()
    merge(model, unload=True)
    assert not [each for each in recwarn if "unload" in str(each.message)]
    model.save_pretrained(tmp_path)
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    tokens = torch.arange(8)[None]
    assert torch.allclose(again.eval()(tokens).logits, model.eval()(tokens).logits, atol=1e-6)


def test_merging_into_integers_rounds_anew():
    pytest.importorskip("torchao")
    model = net()
    train(LoRA(), Quantize("int8-weights"), model=model)
    x, _ = batches(1)[0]
    before = model(x)
    merge(model)
    assert torch.allclose(model(x), before, atol=0.05)
    assert not torch.equal(model(x), before)
    assert type(model[0].base_layer.weight).__name__ == "Int8Tensor"
    with pytest.raises(ValueError, match="0 can't be unmerged: merging has rounded its quantized weight anew"):
        unmerge(model)
    merge(model, unload=True)
    other = net()
    Quantize("int8-weights").apply(other)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_adapters_alone_are_exported_as_peft_reads_them(tmp_path):
    from peft import PeftModel

    model = net()
    train(LoRA(targets=["0", "3"]), model=model)
    state = adapter_state(model)
    assert list(state) == [name.replace(".default", "") for name in ADAPTERS]
    save_adapters(model, tmp_path / "adapters")
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    loaded = PeftModel.from_pretrained(net(), tmp_path / "adapters")
    x, _ = batches(1)[0]
    assert torch.equal(loaded(x), model(x))


# -- how it is told ----------------------------------------------------------------------------------------------------


def test_an_engine_shows_it():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(LoRA())
    assert "      ADAPT  LoRA\n      OPTIMIZER  adapters of LoRA" in str(trainer)


def test_importing_it_imports_neither_peft_nor_torchao():
    code = "import sys, leyden.contrib.lora; print([name for name in ('peft', 'torchao') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, -1, 2.0, True])
def test_a_rank_that_is_none(rank):
    with pytest.raises(ValueError, match="needs a whole rank of at least 1, but got "):
        LoRA(rank)


def test_peft_is_missing(monkeypatch):
    monkeypatch.setattr("leyden.handlers.common.packages.find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=r'LoRA needs the package peft, .*: pip install "leyden\[lora\]"'):
        LoRA()


def test_targets_that_are_not_there():
    for targets, named in ((["0", "q_proj"], "q_proj"), ("head.*", r"head\.\*")):
        with pytest.raises(
            ValueError, match=f"is to adapt {named}, and finds no such layer .* linear layers are: 0, 3"
        ):
            train(LoRA(targets=targets), model=net())
    with pytest.raises(ValueError, match=r"a model that is itself a layer: wrap it in nn\.Sequential"):
        train(LoRA(), model=nn.Linear(32, 2))


def test_adapters_that_are_there_already():
    with pytest.raises(ValueError, match="finds an adapter in the model already, at 0"):
        train(LoRA(), model=adapted(net()))


def test_a_model_without_adapters():
    for function in (merge, unmerge, adapter_state):
        with pytest.raises(ValueError, match="this Sequential has no adapters; LoRA puts them in when the run starts"):
            function(net())


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="LoRA works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(LoRA())


def test_two_of_them():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(LoRA())
    with pytest.raises(ValueError, match="both adapt the models of one update"):
        trainer.attach(LoRA(4))


COMPANY = {
    "Freeze": (LoRA, lambda optimizer: Freeze("0"), r"LoRA freezes the model itself; .*modules_to_save"),
    "Finetune": (LoRA, lambda optimizer: Finetune({1: "3", 2: "0"}), "LoRA freezes the model itself"),
    "qat": (LoRA, lambda optimizer: Quantize("qat-int8"), 'LoRA freezes the weights that "qat-int8" is to train'),
    "a schedule": (
        lambda: LoRA(lr=0.1),
        lambda optimizer: Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)),
        r"LoRA\(lr=0\.1\) makes a group of parameters that a scheduler made before does not know",
    ),
}


@pytest.mark.parametrize("name", COMPANY)
@pytest.mark.parametrize("first", [True, False])
def test_company_that_does_not_go_with_it(name, first):
    make, make_other, reason = COMPANY[name]
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    handlers = [make(), make_other(optimizer)]
    with pytest.raises(ValueError, match=reason):
        trainer.attach(*(handlers if first else handlers[::-1]))


def test_a_rate_of_its_own_beside_the_schedule_of_another_update():
    engine = Engine(lambda engine, batch: None)
    updates = [Update(engine, model, sgd(model), name=name) for name, model in (("one", net()), ("two", net()))]
    schedules = [Schedule(torch.optim.lr_scheduler.ExponentialLR(update.optimizer, 0.9)) for update in updates]
    engine.attach(schedules[0], LoRA(lr=0.1, update="two"))
    with pytest.raises(ValueError, match="makes a group of parameters that a scheduler made before does not know"):
        engine.attach(schedules[1])


def test_a_layer_without_a_shape():
    model = nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"LoRA is to adapt 0, which has no shape yet .*send one batch through"):
        train(LoRA(), model=model)
