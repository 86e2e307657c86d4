import random
import time
from collections.abc import Iterator

import pytest

from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.core.records import Observation
from lit_qagent.environments.conformance import check_environment
from lit_qagent.environments.webshop import remote_client
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.remote import RemoteWebShop
from lit_qagent.environments.webshop.remote_client import RemoteSpec
from tests.lit_qagent.environments.webshop.shop_parts import LAMP, SHIRT
from tests.lit_qagent.environments.webshop.shop_server import Fault, ShopServer, shop_server

SESSIONS = {"train": (3, 6), "test": (0, 2)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ShopServer]:
    monkeypatch.setattr(remote_client, "_FIRST_WAIT_S", 0.01)
    more = generate_catalog(CatalogSpec(num_products=8))
    with shop_server([SHIRT, LAMP, *more]) as running:
        yield running


def connect(server: ShopServer, **changes: object) -> RemoteWebShop:
    spec = RemoteSpec(base_url=server.base_url, timeout_s=2.0, retries=2)
    values: dict[str, object] = {"remote": spec, "sessions": SESSIONS, **changes}
    return RemoteWebShop(**values)  # type: ignore[arg-type]


def draw(observation: Observation, rng: random.Random) -> str:
    if observation.pattern:
        return rng.choice(["search[shirt]", "search[lamp soap]", "search[zebra/red]"])
    return rng.choice(observation.admissible or ("",))


@pytest.mark.parametrize("form", ["text", "brackets"])
def test_it_behaves_as_a_world_must(server: ShopServer, form: str) -> None:
    world = connect(server, observation=form, max_steps=6)
    check_environment(world, "train", num_tasks=2, commands=draw)


def test_an_episode_in_the_text_form(server: ShopServer) -> None:
    world = connect(server)
    task = world.tasks("test")[1]
    assert (task.task_id, task.instruction) == ("webshop-fixed_1", "i need goal fixed_1 & more")
    lead = f"Instruction: [SEP] {task.instruction}"
    assert world.reset(task).text == f"WebShop [SEP] {lead} [SEP] Search"
    found = world.step("search[Lina B]").observation
    assert found.text == (
        f"{lead} [SEP] Back to Search [SEP] Page 1 (Total results: 1) [SEP] Next > [SEP] B100 "
        "[SEP] Lina cotton slim fit shirt [SEP] $23.50"
    )
    assert found.admissible == ("click[back to search]", "click[next >]", "click[b100]")
    item = world.step("click[B100]").observation
    assert item.text == (
        f"{lead} [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red [SEP] blue [SEP] size "
        "[SEP] small [SEP] large [SEP] Lina cotton slim fit shirt [SEP] Price: $23.50 [SEP] "
        "Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    for command in ("click[red]", "click[large]", "click[blue]", "click[features]"):
        assert world.step(command).valid
    assert world.observation.admissible == ("click[back to search]", "click[< prev]")
    world.step("click[< prev]")
    last = world.step("click[Buy Now]")
    assert (last.reward, last.terminated) == (0.75, True)
    query = "['lina', 'b']/1"
    options = "{'color': 'blue', 'size': 'large'}"
    assert server.paths[-3:] == [
        f"/item_sub_page/fixed_1/B100/{query}/Features/{options}",
        f"/item_page/fixed_1/B100/{query}/{options}",
        f"/done/fixed_1/B100/{options}",
    ]


def test_the_bracket_form_shows_three_products_in_full(server: ShopServer) -> None:
    world = connect(server, observation="brackets")
    first = world.reset(world.tasks("test")[0]).text
    assert first == "\nWebShop \nInstruction: \ni need goal fixed_0 & more \n[Search] "
    world.step("search[shirt lamp]")
    world.step("click[b100]")
    assert "color [red][blue]" in world.observation.text
    chosen = world.step("click[blue]").observation.text
    assert chosen.startswith("\n[Back to Search] \n[< Prev] \ncolor [red][[blue]]\nsize [small]")
    assert "goal" not in chosen


def test_pages_of_results_and_the_ways_back(server: ShopServer) -> None:
    world = connect(server)
    world.reset(world.tasks("test")[0])
    assert not world.step("click[next >]").valid
    assert not world.step("search[]").valid
    assert not world.step("search[" + "x" * 1_001 + "]").valid
    world.step("search[shirt lamp soap tea mug scarf]")
    assert not world.step("click[< prev]").valid
    assert not world.step("search[again]").valid
    world.step("click[next >]")
    assert "Page 2" in world.observation.text
    world.step("click[< prev]")
    assert "Page 1" in world.observation.text
    world.step("click[back to search]")
    assert world.observation.text.startswith("WebShop")


def test_another_product_starts_without_options(server: ShopServer) -> None:
    world = connect(server)
    world.reset(world.tasks("test")[0])
    for command in ("search[shirt lamp]", "click[b100]", "click[blue]", "click[< prev]"):
        world.step(command)
    world.step("click[b200]")
    assert server.paths[-1].endswith("/B200/['shirt', 'lamp']/1/{}")


def test_a_fork_costs_no_request(server: ShopServer) -> None:
    world = connect(server)
    world.reset(world.tasks("test")[0])
    world.step("search[shirt]")
    before = len(server.paths)
    twin = world.fork()
    assert len(server.paths) == before
    assert twin.step("click[b100]") == world.step("click[b100]")


def test_nothing_typed_can_leave_its_place_in_an_address(server: ShopServer) -> None:
    world = connect(server)
    world.reset(world.tasks("test")[0])
    world.step("search['] + open('x') + [' ../%2e?a=b#c]")
    assert server.paths[-1].startswith("/search_results/fixed_0/")
    assert server.paths[-1].count("/") == 4


@pytest.mark.parametrize(
    "fault",
    [Fault(status=0), Fault(status=503), Fault(status=429), Fault(status=500)],
)
def test_a_passing_fault_is_retried(server: ShopServer, fault: Fault) -> None:
    world = connect(server)
    server.faults = [fault, fault]
    assert world.reset(world.tasks("test")[0]).text.startswith("WebShop")


@pytest.mark.parametrize(
    ("fault", "requests", "match"),
    [
        (Fault(status=0), 3, "did not answer .* start the original WebShop server"),
        (Fault(status=503), 3, "status 503"),
        (Fault(status=404), 1, "status 404"),
        (Fault(status=302), 1, "status 302"),
        (Fault(status=200, body=b"x" * 3_000_000), 1, "is over 2 MB; raise remote.max_page_mb"),
        (Fault(status=200, body=b""), 1, "has no instruction; is it an original WebShop"),
        (Fault(status=200, body=b"\xff\x00<<<a <b>&#0;</i>" * 99), 1, "has no instruction"),
        (Fault(status=200, body=b"<div>" * 50_000), 1, "has no instruction"),
    ],
)
def test_a_lasting_fault_is_a_failure_that_says_what_to_do(
    server: ShopServer, fault: Fault, requests: int, match: str
) -> None:
    spec = RemoteSpec(base_url=server.base_url, timeout_s=2.0, retries=2, max_page_mb=2)
    world = connect(server, remote=spec)
    server.faults = [fault] * 3
    with pytest.raises(EnvironmentFailure, match=match):
        world.tasks("test")
    assert len(server.paths) == requests


@pytest.mark.parametrize(
    "fault", [Fault(delay_s=1.0), Fault(body=b"x" * 100, trickle_s=0.05)], ids=["mute", "trickle"]
)
def test_a_slow_server_is_given_up(server: ShopServer, fault: Fault) -> None:
    spec = RemoteSpec(base_url=server.base_url, timeout_s=0.3, retries=0)
    world = connect(server, remote=spec)
    server.faults = [fault]
    start_s = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=r"ReadTimeout.*remote.timeout_s \(0.3\)"):
        world.tasks("test")
    assert time.monotonic() - start_s < 2


@pytest.mark.parametrize("shown", ["", "nan", "1.5", "-1", "lots", "inf", "1e999"])
def test_a_score_out_of_range_is_a_failure(server: ShopServer, shown: str) -> None:
    world = connect(server)
    world.reset(world.tasks("test")[0])
    for command in ("search[shirt]", "click[b100]"):
        world.step(command)
    server.reward = shown
    with pytest.raises(EnvironmentFailure, match="no score in"):
        world.step("click[buy now]")


def test_nobody_listens() -> None:
    spec = RemoteSpec(base_url="http://127.0.0.1:9", timeout_s=1.0, retries=0)
    with pytest.raises(EnvironmentFailure, match="did not answer"):
        RemoteWebShop(remote=spec, sessions=SESSIONS).tasks("test")


def test_settings_out_of_range_are_refused() -> None:
    for values, match in (
        ({"base_url": "localhost:3000"}, "must start with http://"),
        ({"timeout_s": 0.0}, "timeout_s must be > 0"),
        ({"retries": -1}, "retries must be >= 0"),
    ):
        with pytest.raises(ConfigError, match=match):
            RemoteSpec(**values)
    with pytest.raises(ConfigError, match=r"sessions.train must be \[first, end\]"):
        RemoteWebShop(sessions={"train": (5, 5)})
    with pytest.raises(ConfigError, match="has no split 'dev', only train, test"):
        RemoteWebShop(sessions=SESSIONS).tasks("dev")


def test_the_hash_changes_with_the_servers_goals(server: ShopServer) -> None:
    first = connect(server)
    assert first.data_hash() == connect(server).data_hash()
    assert first.data_hash() != connect(server, sessions={"test": (0, 2)}).data_hash()
    assert first.settings()["sessions"] == {"train": [3, 6], "test": [0, 2]}
