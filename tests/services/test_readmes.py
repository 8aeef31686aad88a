"""The pages of the flows: their picture is the one that `choreo graph` draws, and what they name is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from choreo import Choreography

SERVICES = Path(__file__).parents[2] / "services"
FLOWS = ["signup", "fraud", "claims", "delivery", "onboarding", "approval", "ingest", "lake"]


@pytest.mark.parametrize("flow", FLOWS)
def test_the_picture_is_the_graph(flow):
    page = (SERVICES / flow / "README.md").read_text("utf-8")
    (picture,) = re.findall(r"```mermaid\n(.*?)\n```", page, re.DOTALL)
    services = importlib.import_module(f"services.{flow}").services
    assert picture == Choreography.of(services).to_mermaid().strip(), (
        f"choreo graph services.{flow} --format mermaid draws another one"
    )


@pytest.mark.parametrize("flow", FLOWS)
def test_links_lead_somewhere_and_services_are_called_by_their_names(flow):
    page = (SERVICES / flow / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (SERVICES / flow / target).exists(), target
    names = {service.name for service in importlib.import_module(f"services.{flow}").services}
    run = set(re.findall(rf"services\.{flow}:([\w-]+)", page))
    assert run
    assert run <= names
    assert all(f"`{name}`" in page or name in run for name in names)
