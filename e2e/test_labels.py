"""How many series a proxy has, and which labels, is what its settings say."""

from e2e.conftest import Field
from e2e.http1 import Recorder, get
from e2e.routes.rig import ask
from e2e.test_reasons import added, environment


async def test_the_authority_is_a_label_where_that_is_asked_for(field: Field) -> None:
    wanted = environment(LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS="unsafe")
    async with added(field, "labelled", wanted) as of, of.serving(Recorder()) as served:
        for host in ("one.example", "other.example"):
            await ask(field["plain-client"], of.name, get(host=host), port=served.port)

        text = await field.mesh.api.proxy_metrics(of.name)

    requests = [line for line in text.splitlines() if line.startswith("request_total{")]
    assert [line.endswith(" 1") for line in requests if 'authority="one.example"' in line] == [True]
    assert [line.endswith(" 1") for line in requests if 'authority="other.example"' in line] == [True]


async def test_what_is_above_the_ceiling_is_counted_together(field: Field) -> None:
    few = environment(TULLE_PROXY_METRICS_MAX_SERIES="1")
    async with added(field, "few", few) as of, of.serving(Recorder()) as served:
        for _ in range(3):
            await ask(field["client-ours"], of.name, get(), port=served.port)

        text = await field.mesh.api.proxy_metrics(of.name)

    requests = [line for line in text.splitlines() if line.startswith("request_total{")]
    assert requests == ['request_total{overflow="true"} 3']
