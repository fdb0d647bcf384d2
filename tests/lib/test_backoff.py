from tulle.lib.backoff import Backoff


def test_each_delay_is_twice_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(random=lambda: 0.0, shortest=1, longest=5)

    assert [backoff.delay() for _ in range(5)] == [1, 2, 4, 5, 5]


def test_jitter_takes_away_at_most_its_share() -> None:
    backoff = Backoff(random=lambda: 1.0, shortest=1, longest=8, jitter=0.5)

    assert [backoff.delay() for _ in range(3)] == [0.5, 1, 2]


def test_a_success_begins_anew() -> None:
    backoff = Backoff(random=lambda: 0.0, shortest=1, longest=8)
    backoff.delay()
    backoff.delay()

    backoff.reset()

    assert backoff.delay() == 1
