from hypothesis import given
from hypothesis import strategies as st

from choreo.log.kafka.buffer import MAX_BYTES, MAX_RECORDS, Buffer
from choreo.log.port import Record, TopicPartition


def rec(partition, offset, value=b"v"):
    return Record("t", partition, offset, 0, None, value, [])


def tp(partition):
    return TopicPartition("t", partition)


def test_records_are_taken_in_order_up_to_the_limit():
    buffer = Buffer()
    buffer.put([rec(0, n) for n in range(3)])
    buffer.put([rec(1, n) for n in range(3)])
    assert [r[1:3] for r in buffer.take(4)] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [r[1:3] for r in buffer.take(4)] == [(1, 1), (1, 2)]
    assert buffer.take(4) == []


def test_it_is_bounded_by_number():
    buffer = Buffer()
    buffer.put([rec(0, n) for n in range(MAX_RECORDS)])
    assert buffer.filled(1)
    buffer.take(1)
    assert not buffer.filled(1)
    assert buffer.filled(0.5)


def test_it_is_bounded_by_bytes():
    buffer = Buffer()
    buffer.put([rec(0, n, bytes(MAX_BYTES // 2)) for n in range(2)])
    assert buffer.filled(1)
    buffer.take(2)
    assert not buffer.filled(0.01)


def test_keys_count_too():
    buffer = Buffer()
    buffer.put([Record("t", 0, 0, 0, bytes(MAX_BYTES), None, [])])
    assert buffer.filled(1)


def test_dropped_partitions_are_gone_held_or_not():
    buffer = Buffer()
    buffer.put([rec(0, 0), rec(1, 0), rec(0, 1), rec(2, 0)])
    buffer.pause({tp(2)})
    buffer.drop({tp(0), tp(2)})
    buffer.resume({tp(2)})
    assert [r[1:3] for r in buffer.take(9)] == [(1, 0)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 2)),
            st.tuples(st.just("take"), st.integers(1, 3)),
            st.tuples(st.just("pause"), st.integers(0, 2)),
            st.tuples(st.just("resume"), st.integers(0, 2)),
        )
    )
)
def test_pausing_loses_repeats_and_reorders_nothing(steps):
    buffer, written, paused, taken = Buffer(), {0: 0, 1: 0, 2: 0}, set(), []
    for step, number in steps:
        if step == "put":  # a paused partition too: what was on its way
            buffer.put([rec(number, written[number])])
            written[number] += 1
        elif step == "take":
            for record in buffer.take(number):
                assert record.partition not in paused
                taken.append(record)
        elif step == "pause":
            buffer.pause({tp(number)})
            paused.add(number)
        elif step == "resume":
            buffer.resume({tp(number)})
            paused.discard(number)
    buffer.resume({tp(0), tp(1), tp(2)})
    taken += buffer.take(10_000)
    for partition, count in written.items():
        assert [r.offset for r in taken if r.partition == partition] == list(range(count))
    assert not buffer.filled(1e-9) or buffer.take(1)
