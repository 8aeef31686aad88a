"""The API under whatever its own document allows, and much that it does not: no 500, and answers as the document says."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as of_openapi

from choreo.web.openapi import document
from tests.questions.conftest import Server

CHECKS = [
    checks.not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_schema_conformance,
    of_openapi.negative_data_rejection,
]
API = schemathesis.openapi.from_dict(document())
OPERATIONS = [found.ok() for found in API.get_all_operations()]
FINITE = [one for one in OPERATIONS if not one.path.endswith("/watch")]


def fuzzed(operation, server: Server, mode: GenerationMode, examples: int) -> None:
    known = {"saga": st.sampled_from(["o-7-00040", "o-7-00001", "01a2"]), "other": st.just("o-7-00002")}

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(operation.as_strategy(generation_mode=mode), st.data())
    def ask(case, data) -> None:
        if mode is GenerationMode.POSITIVE and data.draw(st.booleans()):  # so that not all of them are unknown
            for name in set(known) & set(case.path_parameters or {}):
                case.path_parameters[name] = data.draw(known[name])
        case.call_and_validate(base_url=server.url, headers=server.headers, checks=CHECKS)

    ask()


@pytest.mark.parametrize("operation", FINITE, ids=lambda one: one.path)
def test_what_the_document_allows_is_answered(operation, server: Server) -> None:
    fuzzed(operation, server, GenerationMode.POSITIVE, 60)


@pytest.mark.parametrize("operation", [one for one in FINITE if list(one.iter_parameters())], ids=lambda one: one.path)
def test_what_it_does_not_allow_is_refused(operation, server: Server) -> None:
    fuzzed(operation, server, GenerationMode.NEGATIVE, 60)
