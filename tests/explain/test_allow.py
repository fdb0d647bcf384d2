"""What is missing for a client to get in, and that it is the least."""

import pytest

from e2e.folders import case, workloads
from tests.explain.test_why import ACCOUNTS, FOR_WEB, SERVER, SHOP, ground
from tulle.explain import words
from tulle.explain.allow import allow
from tulle.explain.answer import Explanation, Question
from tulle.explain.folder import compiled
from tulle.explain.ground import Ground
from tulle.explain.why import explain
from tulle.model.errors import SettingError
from tulle.policy.authorizations import DefaultPolicy
from tulle.rules.decode import decode

FOLDERS, REQUESTS = 40, 10


def kinds(manifests: str) -> list[str]:
    """Return the kinds of a text's documents."""
    return [line.removeprefix("kind: ") for line in manifests.splitlines() if line.startswith("kind: ")]


def with_manifests(
    manifests: str, *texts: str, default: DefaultPolicy = DefaultPolicy.ALL_UNAUTHENTICATED
) -> Ground:
    """Compile the shop with what was printed for it."""
    files = [("accounts.yaml", ACCOUNTS), ("shop.yaml", SHOP), ("policy.yaml", "".join(texts) or "# none")]
    return compiled(decode([*files, ("new.yaml", manifests)]).accepted(), default=default)


def test_a_server_that_is_there_needs_one_object() -> None:
    found = allow(ground(SERVER), Question("web", "cart"))

    assert kinds(found.manifests) == ["AuthorizationPolicy"]
    assert found.test == 'assert mesh.call("web", "cart").allowed'
    assert explain(with_manifests(found.manifests, SERVER), Question("web", "cart")).allowed


def test_what_is_allowed_already_needs_nothing() -> None:
    assert allow(ground(SERVER, FOR_WEB), Question("web", "cart")).manifests == ""


def test_a_port_without_a_server_keeps_its_default_policy() -> None:
    question, default = Question("10.9.9.9", "cart.shop"), DefaultPolicy.ALL_AUTHENTICATED
    before = compiled(decode([("accounts.yaml", ACCOUNTS), ("shop.yaml", SHOP)]).accepted(), default=default)

    found = allow(before, question)

    after = with_manifests(found.manifests, default=default)
    assert kinds(found.manifests) == ["Server", "NetworkAuthentication", "AuthorizationPolicy"]
    assert explain(after, question).allowed
    assert explain(after, Question("web", "cart")).allowed
    assert not explain(after, Question("10.9.9.8", "cart.shop")).allowed


def test_one_path_alone_leaves_everybody_else_what_he_had() -> None:
    found = allow(ground(SERVER), Question("web", "cart", "/items"))

    after = with_manifests(found.manifests, SERVER, FOR_WEB.replace("web", "cart"))
    assert kinds(found.manifests) == ["HTTPRoute", "HTTPRoute", "AuthorizationPolicy"]
    assert explain(after, Question("web", "cart", "/items")).allowed
    assert not explain(after, Question("web", "cart", "/other")).allowed
    assert explain(after, Question("cart", "cart", "/other")).allowed


def test_one_path_alone_keeps_probes_alive() -> None:
    probe = "livenessProbe: {httpGet: {path: /healthz, port: 8080}}, ports: [{containerPort"
    shop = SHOP.replace("ports: [{containerPort", probe, 1)
    files = [("accounts.yaml", ACCOUNTS), ("shop.yaml", shop), ("policy.yaml", SERVER)]
    kubelet = Question("10.9.9.9", "cart.shop", "/healthz")
    before = compiled(decode(files).accepted())
    assert explain(before, kubelet).allowed

    found = allow(before, Question("web", "cart", "/items/"))

    after = compiled(decode([*files, ("new.yaml", found.manifests)]).accepted())
    assert explain(after, kubelet).allowed
    assert explain(after, Question("web", "cart", "/items/7")).allowed
    assert not explain(after, Question("10.9.9.9", "cart.shop", "/items/7")).allowed


def test_a_client_without_an_identity_is_meshed_first() -> None:
    with pytest.raises(SettingError) as caught:
        allow(ground(SERVER), Question("plain", "cart"))

    assert str(caught.value).startswith("plain proves no identity here")


def test_what_no_authorization_helps_against_is_said() -> None:
    with pytest.raises(SettingError) as caught:
        allow(ground(), Question("web", "cart:81"))

    assert "(port_undefined); see tulle why" in str(caught.value)


def test_with_what_is_printed_the_request_is_allowed_and_every_other_decision_is_as_before() -> None:
    printed = 0
    for seed in range(FOLDERS):
        drawn, default = case(seed, REQUESTS, ways=False), list(DefaultPolicy)[seed % len(DefaultPolicy)]
        files = [("workloads.yaml", workloads(["sleep"])), ("policies.yaml", drawn.policies)]
        before = compiled(decode(files).accepted(), default=default)
        earlier = {question: outcome(explain(before, question)) for question in drawn.questions}
        for question in drawn.questions:
            try:
                found = allow(before, question)
            except SettingError:
                continue
            if not found.manifests:
                assert found.explanation.allowed
                continue
            printed += 1
            new = decode([*files, ("new.yaml", found.manifests)]).accepted()
            after = compiled(new, default=default)

            then = explain(after, question)
            refusal = words.first_refusal(then)
            # Who is let in may still be sent elsewhere.
            assert then.allowed or (refusal and refusal.location), (
                f"seed {seed}: {question}\n{found.manifests}"
            )
            for other, was in earlier.items():
                if other.source != question.source:
                    now = outcome(explain(after, other))
                    assert now == was, f"seed {seed}: {other} after {question}\n{found.manifests}"
    assert printed > FOLDERS


def outcome(of: Explanation) -> tuple[object, ...]:
    """Return what a decision comes to, without the names of what it came from."""
    refusal = words.first_refusal(of)
    return of.allowed, refusal and (refusal.reason, refusal.status, refusal.location)
