"""Measurements that are not cells: each has a name, starts what it needs, and returns its figures."""

import asyncio
import json
import re
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benches import load, measure, mesh, policies, proc, rig
from benches.load import Load, Sample
from benches.mesh import SERVICE_PORTS, TARGETS, Mesh
from benches.rig import (
    ADDRESSES,
    BACKENDS,
    CLIENT,
    CONTROL,
    HTTP1,
    LOAD_CORE,
    PROXY_CORE,
    PROXY_UID,
    SERVER,
    BenchError,
    Process,
)
from benches.topologies import ALL, Topologies
from tulle.local.control import DESTINATION_PORT
from tulle.model.pod import ADMIN_PORT
from tulle.wire import destination_pb2

Json = dict[str, Any]
KIB, MIB = 2**10, 2**20

DOWNLOAD = 256 * MIB
STEADY = Load("http1", KIB, 48, 2_000, seconds=3.0, warmup=1.0)
NO_SCRAPES = f"""
table inet bench {{
  chain arriving {{
    type filter hook input priority 0;
    ip saddr {ADDRESSES[CONTROL]} tcp dport {ADMIN_PORT} drop
  }}
}}
"""
"""Keeps the controller from reading a proxy's metrics, which would be counted with the requests."""
ACCESS_LOG = {"LINKERD2_PROXY_ACCESS_LOG": "json"}
BOTH_CORES = f"{LOAD_CORE},{PROXY_CORE}"


async def download(topologies: Topologies) -> Json:
    """One answer of 256 MiB over one connection."""
    asked = Load("http1", DOWNLOAD, 1, requests=1)
    taken: dict[str, list[Json]] = {}
    for _ in range(3):
        for each in ALL:
            if topologies.missing(each) or "http1" not in each.protocols:
                continue
            async with topologies.up(each, "http1") as up:
                # The first one opens connections and grows buffers.
                warm = replace(asked, body=MIB)
                await load.run(topologies.place, warm, up.target, proxies=up.proxies)
                one = await load.run(topologies.place, asked, up.target, proxies=up.proxies)
            facts = {
                "gigabits_per_s": one.said["bytes_per_s"] * 8 / 1e9,
                "cpu_ms": one.proxy_cpu_us / 1e3,
                "rss_mib": max(one.rss_mib, default=0.0),
            }
            taken.setdefault(each.name, []).append(facts)
            measure.progress(f"download, {each.name}: {facts['gigabits_per_s']:.2f} Gb/s")
    return {
        name: {key: round(statistics.median(each[key] for each in facts), 2) for key in facts[0]}
        for name, facts in taken.items()
    }


async def slow_backend(topologies: Topologies) -> Json:
    """Eleven back ends, one of which takes a second for the middle half of a minute."""
    slow = f"{BACKENDS[0]}:{HTTP1}"
    flags = [f"--http1={address}:{HTTP1}" for address in (*BACKENDS, ADDRESSES[SERVER])]
    asked = Load("http1", KIB, 256, 500, seconds=60.0, warmup=1.0)
    async with (
        topologies.origin(*flags, f"--slow={slow}", "--slow-ms=1000") as origin,
        mesh.running(topologies.place, topologies.own, backends=BACKENDS) as running,
    ):
        loop = asyncio.get_running_loop()

        def plan() -> None:
            loop.call_later(15, origin.signal, signal.SIGUSR1)
            loop.call_later(45, origin.signal, signal.SIGUSR2)

        one = await load.run(
            topologies.place, asked, TARGETS["http1"], proxies=running.pair, origin=origin, during=plan
        )
    due = one.said["requests"] + one.said["errors"]
    return {
        "requests": due,
        "errors": one.said["errors"],
        "within_100_ms": one.said["within_100_ms"] / due,
        "late": due - one.said["within_100_ms"],
        **{name: one.said[name] for name in ("p50_us", "p99_us", "p999_us", "max_us")},
    }


async def idle_connections(topologies: Topologies) -> Json:
    """What a proxy's memory is at rest, under load, and with connections that only stay open."""
    made: Json = {}
    cases = {"http1_1000": ("http1", 1_000), "http1_10000": ("http1", 10_000), "tcp_1000": ("tcp", 1_000)}
    async with topologies.origin() as origin:
        for name, (protocol, idle) in cases.items():
            async with mesh.running(topologies.place, topologies.own) as running:
                rest = [proc.rss_mib(process.pid) for process in running.pair]
                made.setdefault("at_rest_mib", [round(each, 2) for each in rest])
                asked = Load(protocol, KIB, 1, 100, seconds=1.0, warmup=1.0)
                before = await _faultless(topologies, asked, running, origin)
                after = await _faultless(topologies, replace(asked, idle=idle), running, origin)
                each = [(b - a) * 1024 / idle for a, b in zip(before.rss_mib, after.rss_mib, strict=True)]
                made[name] = {
                    "rss_mib": [round(value, 1) for value in after.rss_mib],
                    "kib_per_connection": [round(value, 2) for value in each],
                }
                measure.progress(f"idle connections, {name}: {made[name]}")
        async with mesh.running(topologies.place, topologies.own) as running:
            loaded = await _faultless(topologies, STEADY, running, origin)
            made["at_48_connections_mib"] = [round(value, 2) for value in loaded.rss_mib]
    made["each_is"] = "[outbound, inbound]"
    return made


async def instructions(topologies: Topologies) -> Json:
    """User instructions of each proxy for a request."""
    out, into = await _instructions(topologies, {})
    return {"outbound": out, "inbound": into, "connections": 48}


async def _instructions(topologies: Topologies, environment: Mapping[str, str]) -> tuple[int, int]:
    """Return those of the outbound and of the inbound proxy, from the difference of two runs."""
    few, many = 1_000, 5_000
    counted: dict[int, tuple[int, int]] = {}
    async with topologies.origin() as origin:
        for requests in (few, many):
            async with mesh.running(topologies.place, topologies.own, environment=environment) as running:
                outputs = []
                for name in (SERVER, CLIENT):
                    await topologies.place.stop([running.proxies[name]])
                    await rig.inside(name, "nft", "-f", "-", text=NO_SCRAPES)
                    output = topologies.place.writable(PROXY_UID) / f"callgrind-{name}-{requests}"
                    outputs.append(output)
                    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
                    process = running.proxies[name] = await running.launch_proxy(name, before=tool)
                    await rig.ready(process, ADDRESSES[name])
                asked = Load("http1", KIB, 48, requests=requests)
                await _faultless(topologies, asked, running, origin)
                # It writes its sums when it ends.
                await topologies.place.stop(running.pair)
                inbound, outbound = (_total(output) for output in outputs)
                counted[requests] = (outbound, inbound)
    out, into = ((counted[many][side] - counted[few][side]) / (many - few) for side in (0, 1))
    return round(out), round(into)


async def features(topologies: Topologies) -> Json:
    """Plain, with 50 routes, retries, time-outs, authorization and a limit, and with an access log besides."""
    cases: dict[str, Json] = {
        "plain": {},
        "configured": {"policies": policies.everything()},
        "configured_and_logged": {"policies": policies.everything(), "environment": ACCESS_LOG},
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(5):
        for name, asked in cases.items():
            async with (
                topologies.origin() as origin,
                mesh.running(topologies.place, topologies.own, **asked) as running,
            ):
                one = await _faultless(topologies, STEADY, running, origin)
            taken[name].append((one.proxy_cpu_us, one.said["p99_us"]))
    cpu = {name: statistics.median(each for each, _ in of) for name, of in taken.items()}
    p99 = {name: sorted(each for _, each in of) for name, of in taken.items()}
    return {
        **{f"{name}_cpu_us_per_request": round(each, 1) for name, each in cpu.items()},
        **{
            f"{name}_ratio": round(statistics.median(each / plain for (each, _), (plain, _) in pairs), 3)
            for name in ("configured", "configured_and_logged")
            if (pairs := list(zip(taken[name], taken["plain"], strict=True)))
        },
        **{
            f"{name}_p99_us": f"{statistics.median(each):.0f} ({each[0]:.0f}-{each[-1]:.0f})"
            for name, each in p99.items()
        },
    }


async def access_log(topologies: Topologies) -> Json:
    """User instructions of the pair for a request, without and with an access log, which is the inbound proxy's."""
    plain, logged = [await _instructions(topologies, told) for told in ({}, ACCESS_LOG)]
    made: Json = {"plain": list(plain), "logged": list(logged), "each_is": "[outbound, inbound]"}
    return made | {"ratio": round(sum(logged) / sum(plain), 3)}


async def start(topologies: Topologies) -> Json:
    """From exec to ready."""
    stamp = ["bash", "-c", 'echo "exec $EPOCHREALTIME" >&2; exec "$@"', "bash"]
    times = []
    async with topologies.origin(), mesh.running(topologies.place, topologies.own) as running:
        for _ in range(10):
            await topologies.place.stop([running.proxies[SERVER]])
            process = running.proxies[SERVER] = await running.launch_proxy(SERVER, before=stamp)
            await rig.ready(process, ADDRESSES[SERVER], pause=0)
            ready = time.time()
            begun = float(re.findall(r"^exec (\d+\.\d+)$", process.log.read_text(), re.MULTILINE)[-1])
            times.append((ready - begun) * 1e3)
    return {
        "median_ms": round(statistics.median(times), 1),
        "max_ms": round(max(times), 1),
        "starts": len(times),
    }


async def restart(topologies: Topologies) -> Json:
    """A proxy ended and started again while 256 connections are busy."""
    made: Json = {}
    asked = Load("http1", KIB, 256, 2_000, seconds=6.0, warmup=1.0)
    for name, side in ((SERVER, "inbound"), (CLIENT, "outbound")):
        async with (
            topologies.origin() as origin,
            mesh.running(topologies.place, topologies.own) as running,
            asyncio.TaskGroup() as group,
        ):

            async def again(running: Mesh = running, name: str = name) -> None:
                await asyncio.sleep(2)
                await topologies.place.stop([running.proxies[name]])
                await running.start_proxy(name)

            one = await load.run(
                topologies.place,
                asked,
                TARGETS["http1"],
                proxies=running.pair,
                origin=origin,
                during=lambda group=group, again=again: group.create_task(again()),  # type: ignore[misc]
            )
        names = ("requests", "errors", "longest_silence_ms", "p99_us", "max_us", "first_error")
        made[side] = {key: one.said[key] for key in names if key in one.said}
    return made


async def subscribers(topologies: Topologies) -> Json:
    """One service changed for 1,000 subscribers of the controller: when all of them know."""
    place, count, changes = topologies.place, 1_000, 20
    async with mesh.controller_only(place, topologies.own, BACKENDS[:1]) as running:
        controller = running.controller
        assert controller
        alone = proc.rss_mib(controller.pid)
        asked = destination_pb2.GetDestination(path=f"{SERVER}.bench.svc.cluster.local:{min(SERVICE_PORTS)}")
        program = place.copy(place.root / "target/release/tulle-load", "tulle-load")
        argv = [program, "watch", "--target", f"{ADDRESSES[CONTROL]}:{DESTINATION_PORT}"]
        argv += ["--path", "/io.linkerd.proxy.destination.Destination/Get"]
        argv += ["--message", asked.SerializeToString().hex(), "--subscribers", str(count)]
        watcher = await place.start("watch", argv, where=CLIENT, core=PROXY_CORE, piped=True)
        taken = []
        async with place.running(watcher):
            await _message(watcher)
            rss, cpu = proc.rss_mib(controller.pid), proc.cpu_ns([controller.pid])
            for number in range(changes):
                await asyncio.sleep(0.2)
                begun = time.time_ns()
                await running.world.state(*mesh.snapshot(BACKENDS[: 2 - number % 2]))
                arrived = await _message(watcher)
                taken.append(
                    {key: (arrived[f"{key}_ns"] - begun) / 1e6 for key in ("first", "p50", "p99", "last")}
                )
            cpu = proc.cpu_ns([controller.pid]) - cpu
    return {
        **{f"{key}_ms": round(statistics.median(each[key] for each in taken), 1) for key in taken[0]},
        "cpu_ms_per_change": round(cpu / changes / 1e6, 1),
        "rss_mib": round(rss, 1),
        "rss_mib_without_subscribers": round(alone, 1),
        "subscribers": count,
        "changes": changes,
    }


async def workers(topologies: Topologies) -> Json:
    """Two workers beside one, both free to run on both cores, in rounds that each judge for themselves."""
    asked = replace(STEADY, connections=256)
    taken: dict[int, list[float]] = {1: [], 2: []}
    shares: dict[str, list[float]] = {"outbound": [], "inbound": []}
    for _ in range(7):
        for count in (1, 2):
            async with (
                topologies.origin() as origin,
                mesh.running(topologies.place, topologies.own, workers=count, core=BOTH_CORES) as running,
            ):
                one = await _faultless(topologies, asked, running, origin)
            taken[count].append(one.proxy_cpu_us)
            if count == 2:
                for side, threads, process in zip(shares, one.threads, running.pair, strict=True):
                    shares[side] += _shares(threads, process)
    single, double = (statistics.median(taken[count]) for count in (1, 2))
    ratios = sorted(two / one for one, two in zip(taken[1], taken[2], strict=True))
    return {
        "cpu_us_per_request": {"1": round(single, 1), "2": round(double, 1)},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": f"{ratios[0]:.2f}-{ratios[-1]:.2f}",
        # What the generator's connections meet; between the proxies there are fewer than 256.
        "lowest_share": round(min(shares["outbound"]), 3),
        "highest_share": round(max(shares["outbound"]), 3),
        "lowest_share_inbound": round(min(shares["inbound"]), 3),
        "share_is": "of the CPU time of both workers of a proxy",
    }


MEASUREMENTS: Mapping[str, Callable[[Topologies], Awaitable[Json]]] = {
    "download": download,
    "slow-backend": slow_backend,
    "idle-connections": idle_connections,
    "instructions": instructions,
    "start": start,
    "restart": restart,
    "subscribers": subscribers,
    "workers": workers,
    "features": features,
    "access-log": access_log,
}


async def _faultless(topologies: Topologies, asked: Load, running: Mesh, origin: Process) -> Sample:
    """Run through the mesh; failed requests would be cheap ones."""
    target = TARGETS[asked.protocol]
    one = await load.run(topologies.place, asked, target, proxies=running.pair, origin=origin)
    if one.said["errors"]:
        raise BenchError(f"{one.said['errors']} requests failed: {one.said['first_error']}")
    return one


def _total(file: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise BenchError(f"{file.name} has no sum: valgrind did not end in order")
    return int(found[1])


def _shares(threads: Mapping[str, int], process: Process) -> list[float]:
    """Return each worker's part; the first worker is the process's first thread."""
    workers = []
    for thread, spent in threads.items():
        number, _, name = thread.partition(" ")
        if int(number) == process.pid or name.startswith("shard-"):
            workers.append(spent)
    return [each / sum(workers) for each in workers]


async def _message(watcher: Process) -> Json:
    assert watcher.child.stdout
    line = await asyncio.wait_for(watcher.child.stdout.readline(), 60)
    if not line:
        raise BenchError(f"the subscribers failed: {watcher.words()}")
    decoded: Json = json.loads(line)
    return decoded
