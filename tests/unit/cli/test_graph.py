import json

import pytest

from choreo import Choreography
from choreo.cli.load import load_services


@pytest.mark.parametrize("output", ["text", "json", "mermaid"])
def test_each_format_is_what_the_choreography_says(cli, output):
    ended = cli("graph", "cli_shop", "--format", output)
    choreography = Choreography.of(load_services(["cli_shop"]))
    assert ended.code == 0
    assert ended.out == getattr(choreography, f"to_{output}")() + "\n"


def test_text_is_the_default_and_one_service_can_be_chosen(cli):
    ended = cli("graph", "cli_shop:mail")
    assert ended.out.startswith("services: 1, handlers: 1, events: 2\n")
    assert "PaymentCharged (topic payments, key order_id, from outside)\n  mail.tell -> nothing" in ended.out


def test_json_can_be_read(cli):
    graph = json.loads(cli("graph", "cli_shop", "-f", "json").out)
    assert [service["name"] for service in graph["services"]] == ["mail", "payments"]


def test_services_that_do_not_fit_together_fail(cli, project):
    (project / "cli_second.py").write_text("from choreo import Service\nmail = Service('mail')")
    ended = cli("graph", "cli_shop", "cli_second")
    assert ended.code == 1
    assert "two services have the name 'mail'" in ended.err
