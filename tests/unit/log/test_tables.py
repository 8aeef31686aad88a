import sqlite3
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from choreo.log.port import Headers, NewRecord, Topic, TopicPartition
from choreo.log.tables import SCHEMA, Tables

names = st.text(max_size=20)  # surrogates cannot be written as UTF-8, and are no header names


def through_the_tables(headers: Headers) -> Headers:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        tables = Tables(connection)
        tables.create_topics([Topic(name="t", partitions=1)])
        tables.write([NewRecord("t", None, None, headers)], None, None)
        ((_, (found,)),) = tables.fetch({TopicPartition("t", 0): 0}, 1, "earliest").values()
        return found.headers


@given(st.lists(st.tuples(names, st.binary(max_size=300)), max_size=12))
def test_headers_come_back_as_they_were(headers: Headers) -> None:
    assert through_the_tables(headers) == headers


def test_large_headers() -> None:
    headers = [("n" * 70_000, b"v" * 70_000), ("", b"")]
    assert through_the_tables(headers) == headers
