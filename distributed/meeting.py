"""Where the ranks find each other: the key-value store through which a process group is made."""

from __future__ import annotations

import socket
import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import torch.distributed as dist

from leyden.distributed.environment import Environment, RankLayout

_CALL = "leyden/call"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5  # seconds between two looks into the store


def open_store(environment: Environment, timeout: timedelta) -> dist.PrefixStore:
    """The store of the ranks that the environment describes, with keys that no earlier attempt of theirs has used.

    Raises:
        ValueError: the environment names no meeting point.
        RuntimeError: the other ranks did not come in time.
    """
    place = environment.place
    if environment.init_method is not None:
        rendezvous = dist.rendezvous(environment.init_method, place.rank, place.world_size, timeout=timeout)
        return dist.PrefixStore("leyden/only", next(iter(rendezvous))[0])
    host, port = environment.meeting_point()
    store = dist.TCPStore(
        host,
        port,
        place.world_size,
        is_master=place.rank == 0 and not environment.agent_hosts_store,
        timeout=timeout,
        multi_tenant=True,
    )
    # A torchrun agent keeps its store when it restarts its workers, with the addresses of the dead in it (pytorch
    # issues 135712, 167288). Agents count restarts each for itself, so the ranks find their own word for an attempt.
    attempt = _agree_on_attempt(store, place, timeout) if environment.launcher == "torchrun" else "only"
    return dist.PrefixStore(f"leyden/{attempt}", store)


def layout_by_host(store: dist.PrefixStore, place: RankLayout) -> RankLayout:
    """Work out which ranks share a node by what each says its host is."""
    store.set(f"host-{place.rank}", socket.gethostname())
    hosts = store.multi_get([f"host-{rank}" for rank in range(place.world_size)])
    host = hosts[place.rank]
    nodes = list(dict.fromkeys(hosts))
    return replace(
        place,
        local_rank=hosts[: place.rank].count(host),
        local_world_size=Counter(hosts)[host],
        node_rank=nodes.index(host),
        node_count=len(nodes),
    )


def _agree_on_attempt(store: dist.TCPStore, place: RankLayout, timeout: timedelta) -> str:
    """A word that all ranks of this attempt share, found in a store that may still hold words of earlier ones.

    Rank 0 calls out a new word; each other rank answers the word it reads with one of its own; rank 0 closes the
    attempt by repeating all answers. A rank whose answer is not among them has read an old word, and looks again.
    """
    if place.rank == 0:
        call = uuid.uuid4().hex
        store.set(_CALL, call)
        answers = [f"{call}/answer-{rank}" for rank in range(1, place.world_size)]
        store.wait(answers, timeout)
        store.set(f"{call}/closed", b",".join(store.multi_get(answers)))  # type: ignore[arg-type]
        return call
    answer = uuid.uuid4().hex
    heard = ""
    pause = _FIRST_PAUSE
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        word: str = store.get(_CALL).decode()
        if word != heard:
            store.set(f"{word}/answer-{place.rank}", answer)
            heard, pause = word, _FIRST_PAUSE
        closed = f"{word}/closed"
        if store.check([closed]) and answer in store.get(closed).decode().split(","):
            return word
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise RuntimeError(
        f"rank {place.rank} waited {timeout.total_seconds():.0f} s for all {place.world_size} ranks to join; "
        "look for the rank that did not start, or give initialize() a longer timeout"
    )
