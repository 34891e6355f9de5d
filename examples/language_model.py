"""Trains a small GPT on the docstrings of Python's own standard library, batches weighted by their tokens.

    python examples/language_model.py                                  one process, well under a minute on 2 CPU cores
    torchrun --nproc-per-node 2 examples/language_model.py             the same on two ranks
    python examples/language_model.py --compare                        accumulation by tokens and by means, in figures
    python examples/language_model.py --preset 124m                    the shape of GPT-2 small, for a GPU

Docstrings are long and short, so batches hold many tokens and few. The mean of their losses is not the loss of the big
batch; their mean by tokens is: GradientAccumulation(n, weight=number_of_targets).
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, random_split

from leyden import distributed as dist
from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    Checkpoint,
    ClipGradients,
    DataParallel,
    Evaluate,
    GradientAccumulation,
    MixedPrecision,
    MLflowLogger,
    ProgressBar,
    Schedule,
)
from leyden.metrics import Loss, RunningAverage

# In every Python from 3.11 on, and not changed by what else is installed.
MODULES = """abc argparse ast asyncio.base_events asyncio.events asyncio.locks asyncio.streams asyncio.tasks base64
bdb bisect calendar cmd code codecs collections concurrent.futures._base configparser contextlib copy csv dataclasses
difflib dis doctest email.message enum fileinput fractions ftplib functools gettext glob heapq html.parser http.client
http.cookiejar imaplib inspect ipaddress json logging mailbox mimetypes multiprocessing.pool netrc optparse os pdb
pickle pickletools pkgutil platform poplib pprint profile pstats pydoc queue random sched selectors shelve shlex
shutil smtplib socket socketserver sqlite3.dump ssl statistics string subprocess tarfile tempfile textwrap threading
timeit tokenize trace traceback turtle types typing unittest.case unittest.mock urllib.parse urllib.request uuid
warnings wave weakref webbrowser xml.dom.minidom xml.etree.ElementTree zipapp"""

END, PADDING = 256, 257  # tokens beyond the 256 bytes; END stands before a text too, as the first thing to go on from

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a GPT."""

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int


PRESETS = {"tiny": Shape(2, 4, 96, 128, 258), "124m": Shape(12, 12, 768, 1024, 50_304)}


class Block(nn.Module):
    """Attention to what came before, then two linear layers at each position, on normalised inputs."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(shape.width)
        self.queries_keys_values = nn.Linear(shape.width, 3 * shape.width)
        self.join = nn.Linear(shape.width, shape.width)
        self.mlp_norm = nn.LayerNorm(shape.width)
        self.expand = nn.Linear(shape.width, 4 * shape.width)
        self.contract = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples, length, width = x.shape
        parts = self.queries_keys_values(self.attention_norm(x)).view(samples, length, 3, self.heads, -1)
        seen = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4).unbind(), is_causal=True)
        x = x + self.join(seen.transpose(1, 2).reshape(samples, length, width))
        return x + self.contract(F.gelu(self.expand(self.mlp_norm(x)), approximate="tanh"))


class GPT(nn.Module):
    """From tokens (samples, length) to logits (samples, length, vocabulary) of each position's next token.

    Radford et al., Language Models are Unsupervised Multitask Learners, 2019: GPT-2. At 768 wide its initial values are
    drawn with a deviation of 0.02; here that follows the width. Padding stands at the right, where no token looks, so
    it needs no mask.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        deviation = 0.02 * (768 / shape.width) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("join.weight", "contract.weight")):  # these are summed, two a layer
                nn.init.normal_(parameter, std=deviation / (2 * shape.layers) ** 0.5)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=deviation)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


# -- the text ----------------------------------------------------------------------------------------------------------


def read_docstrings() -> list[str]:
    """The docstrings of MODULES, each once, in the order of the sources, which are read and not run."""
    library = Path(sysconfig.get_path("stdlib"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts: dict[str, None] = {}
    for module in MODULES.split():
        path = library.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        nodes = ast.walk(ast.parse(source.read_bytes()))
        texts.update({ast.get_docstring(node) or "": None for node in nodes if isinstance(node, documented)})
    return [text for text in texts if text]


def encode(text: str, context: int) -> torch.Tensor:
    """END, the bytes, END; cut to what the context can take and predict."""
    return torch.tensor([END, *text.encode(), END][: context + 1])


def collate(texts: Sequence[torch.Tensor]) -> Batch:
    """Inputs and targets, each (samples, length of the longest)."""
    tokens = nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=PADDING)
    return tokens[:, :-1], tokens[:, 1:]


def number_of_targets(batch: Batch) -> torch.Tensor:
    """What a batch weighs: the tokens that it predicts, a scalar."""
    return (batch[1] != PADDING).sum()


def loss_fn(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Nats a token, the mean over those that are not padding."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=PADDING)


@torch.no_grad()
def go_on(model: GPT, text: str, length: int) -> str:
    """A text continued by `length` bytes, each the likeliest."""
    tokens = torch.tensor([[END, *text.encode()]], device=model.norm.weight.device)
    for _ in range(length):
        following = model(tokens[:, -model.shape.context :])[:, -1:, :END].argmax(-1)
        tokens = torch.cat([tokens, following], dim=1)
    return bytes(tokens[0, 1:].tolist()).decode(errors="replace")


# -- training ----------------------------------------------------------------------------------------------------------


def train(options: argparse.Namespace, shape: Shape) -> None:
    """Trains, and says what was reached."""
    torch.manual_seed(0)
    texts = [encode(text, shape.context) for text in read_docstrings()[: options.texts]]
    train_set, test_set = random_split(texts, [0.95, 0.05], torch.Generator().manual_seed(0))
    train_loader = DataLoader(train_set, options.batch_size, shuffle=True, collate_fn=collate)
    test_loader = DataLoader(test_set, options.batch_size, collate_fn=collate)

    model = GPT(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate or 0.5 / shape.width, betas=(0.9, 0.95))
    samples_a_step = options.batch_size * options.accumulate * dist.world_size()
    steps = options.epochs * -(-len(train_set) // samples_a_step)
    warmup = steps // 10 + 1

    trainer = supervised_trainer(model, optimizer, loss_fn)
    by_targets = Loss(loss_fn, batch_size=lambda targets: int((targets != PADDING).sum()))
    evaluator = supervised_evaluator(model, metrics={"loss": by_targets})
    RunningAverage().attach(trainer, "loss")
    trainer.attach(
        DataParallel(),
        MixedPrecision(options.precision),
        GradientAccumulation(options.accumulate, weight=number_of_targets),
        ClipGradients(norm=1.0),
        Schedule(
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup + 1), warmup=warmup, warmup_start=0.01
        ),
        Evaluate(evaluator, test_loader, prefix="val/", on=Events.STARTED | Events.EPOCH_COMPLETED),
        ProgressBar(),
    )
    if options.checkpoints is not None:
        trainer.attach(Checkpoint(options.checkpoints, best="val/loss", resume="auto"))
    if options.mlflow is not None:
        trainer.attach(MLflowLogger(experiment="language model", tracking_uri=options.mlflow))

    @trainer.on(Events.STARTED | Events.EPOCH_COMPLETED)
    @dist.one_rank_only()
    def note(engine: Engine) -> None:
        state = engine.state
        print(f"epoch {state.epoch}: validation loss {state.metrics['val/loss']:.3f} after {state.step} steps")

    if dist.rank() == 0:
        weights = sum(parameter.numel() for parameter in model.parameters())
        print(f"{len(texts):,} docstrings, {sum(map(len, texts)):,} tokens, {weights:,} weights")
    state = trainer.run(train_loader, max_epochs=options.epochs)
    if dist.rank() == 0:
        print(f"training time   {state.times['COMPLETED']:.1f} s on {dist.world_size()} process(es)")
        print(f"a sample        {go_on(model, 'Return the ', 60)!r}")


# -- accumulation beside the big batch ---------------------------------------------------------------------------------


def compare(options: argparse.Namespace, shape: Shape) -> None:
    """Says how far accumulation by tokens and by means end from where the big batch does, on the CPU in fp32.

    The steps are SGD's, in which a parameter moves in proportion to its gradient: what is seen is the difference of the
    gradients. Adam divides each gradient by its own size, so that the rounding of one near zero becomes a full step (by
    tokens then ends some 1e-4 away).
    """
    torch.manual_seed(0)
    texts = [encode(text, shape.context) for text in read_docstrings()[: options.texts]]
    order = torch.randperm(len(texts)).tolist()
    samples = [texts[i] for i in order[: options.compare_steps * options.accumulate * options.batch_size]]
    big_batches = [collate(each) for each in in_pieces(samples, options.accumulate * options.batch_size)]
    batches = [collate(each) for each in in_pieces(samples, options.batch_size)]
    start = GPT(shape)

    def optimizer_of(model: GPT) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    big = copy.deepcopy(start)
    optimizer = optimizer_of(big)
    for inputs, targets in big_batches:  # by hand
        loss_fn(big(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    def difference(**by: object) -> float:
        model = copy.deepcopy(start)
        trainer = supervised_trainer(model, optimizer_of(model), loss_fn, device="cpu")
        trainer.attach(GradientAccumulation(options.accumulate, **by))
        trainer.run(batches)
        return largest_difference(model, big)

    counts = [int(number_of_targets(batch)) for batch in batches]
    print(f"{len(big_batches)} steps of {options.accumulate} batches, of {min(counts)} to {max(counts)} tokens each")
    print("the largest difference of a parameter")
    print(f"big batch from the beginning         {largest_difference(start, big):.2e}")
    print(f"accumulated by tokens from big batch {difference(weight=number_of_targets):.2e}")
    print(f"accumulated by means from big batch  {difference():.2e}")


def in_pieces(samples: list[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    """The samples in their order, `size` at a time."""
    return (samples[i : i + size] for i in range(0, len(samples), size))


@torch.no_grad()
def largest_difference(model: nn.Module, other: nn.Module) -> float:
    """Of a parameter of one model from the same of the other, in absolute value."""
    return max(float((a - b).abs().max()) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def main() -> None:
    """Reads the command line, then trains or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="the shape of the GPT, which is then:")
    for field in dataclasses.fields(Shape):
        parser.add_argument(f"--{field.name}", type=int)
    parser.add_argument("--texts", type=int, help="how many docstrings to take, if not all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="docstrings in a batch, of one rank")
    parser.add_argument("--accumulate", type=int, default=2, help="batches in a step")
    parser.add_argument("--learning-rate", type=float, help="at its highest; by default 0.5 / width")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--checkpoints", type=Path, help="a folder to keep checkpoints in, and to go on from")
    parser.add_argument("--mlflow", metavar="URI", help="where to log, sqlite:///runs/mlflow.db for one")
    parser.add_argument("--compare", action="store_true", help="compare accumulation by tokens and by means, and end")
    parser.add_argument("--compare-steps", type=int, default=8)
    options = parser.parse_args()
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Shape)}
    shape = dataclasses.replace(PRESETS[options.preset], **{k: v for k, v in given.items() if v is not None})
    (compare if options.compare else train)(options, shape)


if __name__ == "__main__":
    main()
