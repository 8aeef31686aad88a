"""`import choreo` stays quick: what is heavy is loaded by whoever uses it. A condition on modules, not on the clock."""

import subprocess
import sys

import pytest

HEAVY = (
    "confluent_kafka",
    "fastavro",
    "httpx2",
    "opentelemetry.sdk",
    "prometheus_client",
    "pydantic_settings",
    "rich",
    "sqlite3",
    "starlette",
    "structlog",
    "typer",
)


def loaded(code):
    """The heavy modules that a fresh interpreter has loaded after running `code`."""
    check = f"{code}\nimport sys\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


DECLARATIONS = """
import choreo
class Happened(choreo.Event, topic="t", key="k"):
    k: str
service = choreo.Service("s")
@service.on(Happened)
async def handle(event: Happened) -> None: ...
choreo.Choreography.of([service]).to_json()
"""


@pytest.mark.parametrize("code", ["import choreo", DECLARATIONS], ids=["import", "declarations"])
def test_declarations_load_nothing_heavy(code):
    assert loaded(code) == set()


def test_every_public_name_can_be_had():
    code = "import choreo\nfor name in choreo.__all__: getattr(choreo, name)"
    assert "confluent_kafka" not in loaded(code), "the Kafka client is loaded when a Kafka log is opened"


def test_a_name_that_is_not_there_says_so():
    import choreo

    with pytest.raises(AttributeError, match="module 'choreo' has no attribute 'Nothing'"):
        _ = choreo.Nothing
