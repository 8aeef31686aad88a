from hypothesis import given
from hypothesis import strategies as st

from choreo.log.partitioning import murmur2, partition_for

# The values that Kafka's own UtilsTest.testMurmur2 expects, signed as in Java.
KNOWN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_murmur2_is_kafkas() -> None:
    assert {data: murmur2(data) for data in KNOWN} == {data: value & 0xFFFFFFFF for data, value in KNOWN.items()}


def test_the_sign_is_dropped_before_the_remainder() -> None:
    assert partition_for(b"21", 1000) == (-973932308 & 0x7FFFFFFF) % 1000 == 340


@given(st.binary(max_size=70), st.integers(1, 500))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    assert 0 <= murmur2(key) < 1 << 32
    assert 0 <= partition_for(key, partitions) < partitions
