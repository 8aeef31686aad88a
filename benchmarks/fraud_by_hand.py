"""The fraud flow as a careful engineer writes it without a framework: one loop a service, at-least-once, without stores.

    python fraud_by_hand.py scorer | verdicts | cases BOOTSTRAP GROUP

confluent-kafka in batches, fastavro, pydantic, flush and commit per batch, one line of JSON on stderr for each verdict.
It uses the model and the rule of services/fraud, and nothing of choreo's runtime.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, Producer
from job import settle_garbage_collector

sys.path.insert(0, str(Path(__file__).parent.parent))

from services.fraud.events import TransactionMade, TransactionScored
from services.fraud.model import Model
from services.fraud.verdicts import verdict_on

HERE = Path(__file__).parent
BATCH = 1000
PREFIX = "by-hand."
_FRAMING = bytes(5)
_MADE, _SCORED = "fraud.transactions/TransactionMade", "fraud.scores/TransactionScored"
_VERDICTS = [f"fraud.verdicts/Transaction{verdict}" for verdict in ("Approved", "Flagged", "Blocked")]
SCHEMAS = {
    path.rpartition("/")[2]: fastavro.parse_schema(json.loads((HERE.parent / f"schemas/{path}.avsc").read_text()))
    for path in (_MADE, _SCORED, *_VERDICTS)
}
Emitted = tuple[str, Any] | None


def read(value: bytes, type_name: str) -> dict[str, Any]:
    found: dict[str, Any] = fastavro.schemaless_reader(io.BytesIO(value[len(_FRAMING) :]), SCHEMAS[type_name], None)
    return found


def write(event: Any) -> bytes:
    out = io.BytesIO()
    out.write(_FRAMING)
    fastavro.schemaless_writer(out, SCHEMAS[type(event).__name__], event.__dict__)
    return out.getvalue()


def headers(event: Any, cause: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid.uuid4()).encode()),
        ("ce_type", type(event).__name__.encode()),
        ("ce_source", b"by-hand"),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
        ("ce_correlationid", cause["ce_correlationid"]),
        ("ce_causationid", cause["ce_id"]),
    ]


def scorer() -> Callable[[bytes, dict[str, bytes]], Emitted]:
    model = Model.of_environment()

    def score(value: bytes, _: dict[str, bytes]) -> Emitted:
        made = TransactionMade.model_validate(read(value, "TransactionMade"))
        how_likely, version = model.score(made)
        return "fraud.scores", TransactionScored(
            transaction_id=made.transaction_id,
            card_id=made.card_id,
            amount=made.amount,
            score=how_likely,
            model=version,
        )

    return score


def verdicts() -> Callable[[bytes, dict[str, bytes]], Emitted]:
    def decide(value: bytes, cause: dict[str, bytes]) -> Emitted:
        scored = TransactionScored.model_validate(read(value, "TransactionScored"))
        verdict = verdict_on(scored)
        line = {
            "event": "verdict", "verdict": type(verdict).__name__, "score": scored.score, "model": scored.model,
            "transaction_id": scored.transaction_id, "correlation_id": cause["ce_correlationid"].decode(),
            "timestamp": time.time(),
        }  # fmt: skip
        print(json.dumps(line), file=sys.stderr)
        return "fraud.verdicts", verdict

    return decide


def cases() -> Callable[[bytes, dict[str, bytes]], Emitted]:
    store = sqlite3.connect("cases.db", isolation_level=None)
    store.execute("CREATE TABLE cases (transaction_id TEXT, verdict TEXT, score REAL)")

    def open_case(value: bytes, cause: dict[str, bytes]) -> Emitted:
        verdict = cause["ce_type"].decode()
        if verdict != "TransactionApproved":
            event = read(value, verdict)
            store.execute("INSERT INTO cases VALUES (?, ?, ?)", (event["transaction_id"], verdict, event["score"]))
        return None

    return open_case


STEPS = {
    "scorer": ("fraud.transactions", scorer),
    "verdicts": ("fraud.scores", verdicts),
    "cases": ("fraud.verdicts", cases),
}


def main(step: str, bootstrap: str, group: str) -> None:
    topic, make = STEPS[step]
    handle = make()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": f"{group}-{step}", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 50, **json.loads(os.environ["CHOREO_KAFKA"]),
        }
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1})
    failed: list[Any] = []
    consumer.subscribe([PREFIX + topic])
    settle_garbage_collector()
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        for message in [first, *consumer.consume(BATCH - 1, 0)]:
            if message.error():
                raise SystemExit(message.error())
            cause = dict(message.headers())
            emitted = handle(message.value(), cause)
            if emitted is not None:
                to, event = emitted
                producer.produce(
                    PREFIX + to,
                    write(event),
                    event.card_id.encode(),
                    headers=headers(event, cause),
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
        producer.flush()
        if failed:
            raise SystemExit(failed[0])
        consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
