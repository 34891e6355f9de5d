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

    Rank 0 calls out a new word; each other rank takes a ticket of the word it reads, of which there are as many as
    ranks. When the last is taken rank 0, if it lives, closes the attempt, and says how many there were. A rank with a
    ticket beyond those has read the word of an attempt that was closed before, and looks again; so does one whose word
    nobody closes. None reads more than a few words, however many ranks there are.
    """
    others = place.world_size - 1
    if place.rank == 0:
        call = uuid.uuid4().hex
        store.set(_CALL, call)
        if others:
            store.wait([f"{call}/full"], timeout)
        store.set(f"{call}/closed", str(others))
        return call
    heard, ticket = "", 0
    pause = _FIRST_PAUSE
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        word: str = store.get(_CALL).decode()
        if word != heard:
            heard, pause = word, _FIRST_PAUSE
            ticket = store.add(f"{word}/tickets", 1)
            if ticket == others:
                store.set(f"{word}/full", "yes")
        closed = f"{word}/closed"
        if store.check([closed]) and ticket <= int(store.get(closed)):
            return word
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise RuntimeError(
        f"rank {place.rank} waited {timeout.total_seconds():.0f} s for all {place.world_size} ranks to join; "
        "look for the rank that did not start, or give initialize() a longer timeout"
    )
