from tulle.lib.views import Answer, AnswerView, Views


class Answers:
    """A table of answers, each depending on the topic of its own name."""

    def __init__(self) -> None:
        self.of: dict[str, bytes] = {}
        self.computed: list[str] = []

    def view(self, key: str) -> AnswerView:
        def compute() -> tuple[Answer, frozenset[str]]:
            self.computed.append(key)
            return self.of.get(key, b""), frozenset({key})

        return AnswerView(compute)


def test_followers_of_one_key_share_one_computation() -> None:
    answers = Answers()
    views = Views(answers.view)

    with views.follow("a") as first, views.follow("a") as second:
        assert first is second

    assert answers.computed == ["a"]


def test_only_what_depends_on_a_touched_topic_is_computed_anew() -> None:
    answers = Answers()
    views = Views(answers.view)
    with views.follow("a") as a, views.follow("b") as b:
        answers.of["a"] = b"new"

        views.touch({"a", "c"})

        assert a.latest.value == b"new"
        assert b.latest.generation == 1
        assert answers.computed == ["a", "b", "a"]


def test_an_equal_answer_is_not_published_again() -> None:
    answers = Answers()
    views = Views(answers.view)
    with views.follow("a") as view:
        views.touch({"a"})

        assert view.latest.generation == 1


def test_a_view_that_nobody_follows_is_dropped() -> None:
    answers = Answers()
    views = Views(answers.view)
    with views.follow("a"):
        assert (len(views), views.followers) == (1, 1)

    assert len(views) == 0
    assert views.touch({"a"}) == 0
