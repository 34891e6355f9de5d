"""What the tests let ranks do, each function returning plain values for the test to judge."""

import os
import signal
import threading
import time

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import SequentialSampler, TensorDataset

from leyden import distributed as dist


def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def who_am_i():
    return {
        "rank": dist.rank(),
        "local_rank": dist.local_rank(),
        "world_size": dist.world_size(),
        "local_world_size": dist.local_world_size(),
        "node_rank": dist.node_rank(),
        "node_count": dist.node_count(),
        "backend": dist.backend(),
        "device": str(dist.device()),
        "initialized": dist.is_initialized(),
        "model_name": dist.model_name(),
        "other backend": error_of(dist.initialize, "nccl"),
        "same backend": error_of(dist.initialize, "gloo"),
        "tensor": torch.full((3,), float(dist.rank())),
        "launched": dist.launch(dist.rank, 4),
    }


def collectives():
    rank, size = dist.rank(), dist.world_size()
    row = torch.arange(3) + rank
    results = {
        "ops": {op: dist.all_reduce(row.float(), op).tolist() for op in ("sum", "mean", "min", "max", "product")},
        "number ops": {op: dist.all_reduce(rank + 1, op) for op in ("sum", "mean", "min", "max", "product")},
        "truth": [dist.all_reduce(rank == 0, op) for op in ("and", "or", "sum")],
        "truth tensor": [dist.all_reduce(torch.tensor([True, rank == 0]), op).tolist() for op in ("and", "or", "sum")],
        "dtypes": [
            str(dist.all_reduce(torch.ones(2, dtype=dtype)).dtype)
            for dtype in (torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float64)
        ],
        "large whole": dist.all_reduce(2**62 + rank),
        "whole beside float": dist.all_reduce(0 if rank else 0.5),
        "infinite": dist.all_reduce(float("inf"), "max"),
        "transposed": dist.all_reduce(torch.arange(6.0).reshape(2, 3).t()).tolist(),
        "gathered": dist.all_gather(row.reshape(1, 3)).tolist(),
        "gathered scalar": dist.all_gather(torch.tensor(rank)).tolist(),
        "gathered uneven": dist.all_gather(torch.full((rank + 1, 2), float(rank))).tolist(),
        "gathered from one": dist.all_gather(torch.empty(0) if rank else torch.tensor([[1, 2]])).tolist(),
        "gathered nothing": list(dist.all_gather(torch.empty(0)).shape),
        "gathered truth": dist.all_gather(torch.tensor([rank == 0])).tolist(),
        "gathered numbers": dist.all_gather(rank),
        "gathered kinds": [type(x).__name__ for x in dist.all_gather([True, 1, 0.5][rank])],
        "gathered strings": dist.all_gather("é" * rank),
        "gathered objects": dist.all_gather_object({"rank": rank}),
        "broadcast tensor": dist.broadcast(torch.eye(2) if rank == size - 1 else None, src=size - 1).tolist(),
        "broadcast number": dist.broadcast(rank + 0.5),
        "broadcast string": dist.broadcast(f"run-{rank}", src=1),
        "broadcast object": dist.broadcast_object({rank}, src=1),
        "gathered by known lengths": dist.all_gather(
            torch.full((rank + 1,), float(rank)), lengths=[other + 1 for other in range(size)]
        ).tolist(),
        "gathered to one": dist.all_gather_object(
            None
            if (one := dist.gather(torch.full((rank,), rank), 1, lengths=list(range(size)))) is None
            else one.tolist()
        ),
        "no such rank": error_of(lambda: dist.gather(torch.zeros(1), size, lengths=[1] * size)),
        "gather error": error_of(dist.all_gather, torch.zeros(2, rank + 1)),
        "broadcast error": error_of(dist.broadcast, {} if rank == 0 else 1),
    }
    parameter = torch.ones(2, requires_grad=True)
    results["grad"] = dist.all_reduce(parameter).requires_grad
    results["input"] = [row.tolist(), parameter.tolist()]
    dist.barrier()
    return results


def one_rank():
    log = []

    @dist.one_rank_only(rank=1, with_barrier=True)
    def write():
        log.append("wrote")
        return "value"

    returned = write()
    with dist.one_rank_first():
        if dist.rank() == 0:
            time.sleep(0.2)
        went = time.time()
    return {"log": log, "returned": returned, "went": went}


def error_in_the_first_rank():
    try:
        with dist.one_rank_first():
            if dist.rank() == 0:
                raise OSError("no network")
    except OSError as error:
        return str(error)
    return "went on"


def coordinate():
    return {"one rank": one_rank(), "error": error_in_the_first_rank(), "agreement": agreement()}


def agreement():
    agree = dist.Agreement(2)
    other = dist.Agreement(1)
    if dist.rank() == 1:
        time.sleep(1.0)
    started = time.perf_counter()
    for step in range(6):
        agree.post([1, step * dist.rank()])
        other.post([step])
    posted = time.perf_counter()
    pending = agree.pending
    sums = [agree.result() for _ in range(6)]
    waited = time.perf_counter()
    others = [other.result() for _ in range(6)]
    agree.post([0, 0])
    agree.close()
    return {
        "posting": posted - started,
        "waiting": waited - posted,
        "pending": pending,
        "sums": sums,
        "others": others,
        "left": agree.pending,
    }


def late_for_an_agreement():
    """What the others are told when rank 1 does not come within the timeout."""
    agree = dist.Agreement(1)
    if dist.rank() == 1:
        time.sleep(14.0)
        return 0.0, ""
    started = time.perf_counter()
    agree.post([1])
    try:
        agree.result()
    except RuntimeError as error:
        return time.perf_counter() - started, "\n".join([str(error), *error.__notes__])
    return 0.0, "no error"


def adapt():
    torch.manual_seed(dist.rank())
    model = dist.auto_model(nn.Linear(2, 1))
    frozen = dist.auto_model(nn.Linear(2, 1).requires_grad_(False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.full((1, 2), float(dist.rank()))).sum().backward()
    data = TensorDataset(torch.arange(10))
    loader = dist.auto_dataloader(data, batch_size=4, shuffle=False)
    proxied = dist.auto_dataloader(data, batch_size=4, sampler=SequentialSampler(data))
    wrong = torch.utils.data.DistributedSampler(data, num_replicas=5, rank=0)
    own = dist.auto_dataloader(data, sampler=ShareOfRank(data))
    return {
        "own share": [sample for batch in own for sample in batch[0].tolist()],
        "wrapped": isinstance(model, DistributedDataParallel),
        "wrapped twice": dist.auto_model(model) is not model,
        "frozen wrapped": isinstance(frozen, DistributedDataParallel),
        "grad": model.module.weight.grad.tolist(),
        "weight": model.module.weight.tolist(),
        "same optimizer": dist.auto_optim(optimizer) is optimizer,
        "batches": [batch[0].tolist() for batch in loader],
        "proxied": [batch[0].tolist() for batch in proxied],
        "workers": dist.auto_dataloader(data, num_workers=3).num_workers,
        "wrong sampler": error_of(dist.auto_dataloader, data, sampler=wrong),
    }


class ShareOfRank(SequentialSampler):
    """Takes its rank's share, and is no DistributedSampler."""

    rank = property(lambda self: dist.rank())
    num_replicas = property(lambda self: dist.world_size())

    def __iter__(self):
        return iter(range(self.rank, 10, self.num_replicas))


def groups():
    """Of three ranks, the first and the last."""
    rank = dist.rank()
    row = torch.tensor([rank + 1.0])
    pair = dist.new_group([0, 2])
    return {
        how: {
            "sum": dist.all_reduce(row, group=group).tolist(),
            "mean": dist.all_reduce(row, "mean", group=group).tolist(),
            "number": dist.all_reduce(rank + 1, "max", group=group),
            "gathered": dist.all_gather(row, group=group).tolist(),
            "strings": dist.all_gather(str(rank), group=group),
            "objects": dist.all_gather_object({rank}, group=group),
        }
        for how, group in (("made", pair), ("ranks", [0, 2]), ("all", None))
    }


def take(local_rank, config, scale=1):
    return (local_rank, dist.rank(), dist.world_size(), config["x"] * scale)


def fail_on(rank):
    if dist.rank() == rank:
        raise KeyError("lost")
    dist.barrier()  # without the failed rank this would wait for ever


def die_on(rank):
    if dist.rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def unpicklable():
    return lambda: None


def _counting_groups():
    """What new_group is called for from now on, a list that grows."""
    made, new_group = [], torch.distributed.new_group

    def counted(*args, **options):
        made.append(args)
        return new_group(*args, **options)

    torch.distributed.new_group = counted
    return made


def agreements_of_one_group():
    made = _counting_groups()
    small, large, wide = dist.Agreement(1), dist.Agreement(14), dist.Agreement(15)
    in_thread = []

    def agree_in_a_thread():
        own = dist.Agreement(1)
        for _ in range(50):
            own.post([10])
        in_thread.extend(own.result()[0] for _ in range(50))
        own.close()

    small.close()  # which leaves the group to the others
    thread = threading.Thread(target=agree_in_a_thread)
    thread.start()
    sums = []
    for step in range(50):
        large.post([dist.rank() + step] * 14)
        wide.post([step] * 15)
        sums.append((large.result()[-1], wide.result()[-1]))
    thread.join()
    return {"groups": len(made), "sums": sums, "in a thread": in_thread}


def agreements_in_another_order():
    one, other = dist.Agreement(1), dist.Agreement(3)
    mine = one if dist.rank() == 0 else other
    mine.post([1] * mine.size)
    try:
        return mine.result()
    except RuntimeError as error:
        return str(error)


def agreements_on_a_users_group(file):
    """finalize() ends the group of the agreements, and leaves the user's; later ones have another."""
    rank = dist.rank()
    dist.finalize()
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    made = _counting_groups()
    found = []
    for _ in range(2):
        agreement = dist.Agreement(1)
        agreement.post([1])
        found += agreement.result()
        dist.finalize()
    up = torch.distributed.is_initialized()
    torch.distributed.destroy_process_group()
    return {"groups": len(made), "sums": found, "left": up}
