"""Which partition a key belongs to: the same one that Java's default partitioner would choose."""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_SEED = 0x9747B28C
_M = 0x5BD1E995
_32_BITS = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 of `data`, unsigned, with the seed Kafka uses.

    Source: Austin Appleby's MurmurHash2 (public domain), as in `org.apache.kafka.common.utils.Utils.murmur2`.
    """
    length = len(data)
    words = length >> 2
    h = _SEED ^ length
    for word in unpack_from(f"<{words}I", data):
        k = word * _M & _32_BITS
        h = (h * _M & _32_BITS) ^ ((k ^ k >> 24) * _M & _32_BITS)
    if length & 3:
        h = (h ^ int.from_bytes(data[words << 2 :], "little")) * _M & _32_BITS
    h = (h ^ h >> 13) * _M & _32_BITS
    return h ^ h >> 15


@lru_cache(maxsize=65_536)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition, from 0 to `partitions` - 1, of records with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
