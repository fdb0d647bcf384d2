from dataclasses import replace

from tests.control_plane import WEB_SERVICE, web_pod
from tulle.model.update import Changed, Removed, key_of
from tulle.sources.merge import Merge


def test_a_whole_state_yields_only_what_changed() -> None:
    merge = Merge(1)
    assert merge.replace(0, [WEB_SERVICE, web_pod(0), web_pod(1)]) == [
        Changed(WEB_SERVICE),
        Changed(web_pod(0)),
        Changed(web_pod(1)),
    ]

    moved = web_pod(1, node="other")

    assert merge.replace(0, [WEB_SERVICE, moved]) == [Removed(key_of(web_pod(0))), Changed(moved)]


def test_the_earlier_source_wins_and_the_later_one_takes_over() -> None:
    merge = Merge(2)
    other = replace(WEB_SERVICE, cluster_ips=("10.78.0.9",))
    assert merge.replace(1, [other]) == [Changed(other)]

    assert merge.replace(0, [WEB_SERVICE]) == [Changed(WEB_SERVICE)]
    assert merge.replace(1, [replace(other, ports=())]) == []
    assert merge.replace(0, []) == [Changed(replace(other, ports=()))]
    assert merge.apply(1, [Removed(key_of(other))]) == [Removed(key_of(other))]


def test_one_source_s_whole_state_says_nothing_of_another_s_objects() -> None:
    merge = Merge(2)
    merge.replace(0, [WEB_SERVICE])

    assert merge.replace(1, [web_pod()]) == [Changed(web_pod())]
    assert merge.replace(1, []) == [Removed(key_of(web_pod()))]
