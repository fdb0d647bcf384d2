from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tests.control_plane import WEB
from tulle.destination import history as module
from tulle.destination.history import History
from tulle.destination.index import Peer, Resolution
from tulle.wire import destination_pb2 as wire
from tulle.wire.addresses import from_wire

PEERS = st.dictionaries(st.integers(1, 8), st.sampled_from(["a", "b"]), max_size=6)


def resolution(peers: Mapping[int, str], *, exists: bool = True) -> Resolution:
    found = {
        (f"10.0.0.{number}", 80): Peer(f"10.0.0.{number}", 80, (("version", of),))
        for number, of in peers.items()
    }
    return Resolution(WEB, found, exists)


class Proxy:
    """What a client of the stream believes after the messages so far."""

    def __init__(self) -> None:
        self.believes: dict[int, str] = {}
        self._adds = 0

    def receive(self, messages: tuple[bytes, ...]) -> None:
        for message in messages:
            update = wire.Update.FromString(message)
            if update.HasField("add"):
                if not self._adds:
                    self.believes.clear()
                self._adds += 1
                self.believes.update(
                    {number(of.addr): of.metric_labels["version"] for of in update.add.addrs}
                )
            elif update.HasField("remove"):
                for address in update.remove.addrs:
                    self.believes.pop(number(address), None)
            else:
                self.believes.clear()


def number(address: object) -> int:
    text = from_wire(address.ip)  # type: ignore[attr-defined]
    assert text is not None
    return int(text.rpartition(".")[2])


@given(st.lists(st.tuples(PEERS, st.booleans()), min_size=1, max_size=30))
def test_a_follower_that_misses_any_generations_believes_what_is_so(
    steps: list[tuple[dict[int, str], bool]],
) -> None:
    history, proxy, sent = History(), Proxy(), 0
    for peers, awake in steps:
        history.take(resolution(peers))
        if awake:
            messages = history.since(sent)
            assert messages is not None
            proxy.receive(messages)
            sent = history.generation
            assert proxy.believes == peers


def test_a_follower_at_the_generation_before_gets_only_what_changed() -> None:
    history = History()
    history.take(resolution({1: "a", 2: "a", 3: "a"}))

    history.take(resolution({1: "a", 2: "b"}))

    added, removed = map(wire.Update.FromString, history.since(1) or ())
    assert [number(of.addr) for of in added.add.addrs] == [2]
    assert [number(of) for of in removed.remove.addrs] == [3]


def test_followers_of_one_generation_share_the_same_bytes() -> None:
    history = History()
    history.take(resolution({1: "a"}))
    history.take(resolution({2: "a"}))

    assert history.since(1) is history.since(1)


def test_an_equal_resolution_is_no_generation() -> None:
    history = History()

    assert history.take(resolution({1: "a"}))
    assert not history.take(resolution({1: "a"}))
    assert history.generation == 1


def test_nothing_is_said_as_no_endpoints_at_once() -> None:
    history = History()
    history.take(resolution({}))
    (message,) = history.since(0) or ()
    assert wire.Update.FromString(message) == wire.Update(no_endpoints=wire.NoEndpoints(exists=True))

    history.take(resolution({}, exists=False))
    (message,) = history.since(1) or ()
    assert wire.Update.FromString(message) == wire.Update(no_endpoints=wire.NoEndpoints(exists=False))


def test_what_went_is_remembered_only_so_far() -> None:
    history = History()
    history.take(resolution({1: "a"}))
    most = module._MOST_GONE

    for generation in range(2, most + 4):
        history.take(
            Resolution(WEB, {(f"10.{generation >> 8}.{generation & 255}.1", 80): Peer("10.9.9.9", 80)})
        )

    assert len(history._gone) == most
    assert history.since(1) is None
    assert history.since(history.generation - 1) is not None
    assert history.since(0) is not None
