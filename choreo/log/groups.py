"""Who owns which partition of a consumer group: the pure decisions shared by the embedded logs.

Rebalancing is cooperative, as in KIP-429: only partitions that move are revoked, the others are read on without a
pause. A partition changes hands in two steps: its owner releases it, then its new owner claims it. Each claim carries the
group's generation at that moment, and a commit must name it: a member that has lost a partition and got it back
cannot commit what it did before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from choreo.log.port import TopicPartition

SESSION_TIMEOUT = 3_000  # after so many milliseconds without a heartbeat a member counts as dead
RELEASE_TIMEOUT = 60_000  # a partition that its owner has not released after so many milliseconds is taken from it


class Member(NamedTuple):
    """What one consumer of a group subscribes to, and when its last heartbeat was (ms). Its id is never given twice."""

    topics: frozenset[str]
    seen: int


class Claim(NamedTuple):
    """A partition's owner, the group's generation then, and when it is taken away (ms); None while it may stay."""

    member: int
    generation: int
    release_by: int | None = None


class Step(NamedTuple):
    """What a member finds when it looks: its partitions with the generation of each claim, and which to release."""

    owned: dict[TopicPartition, int]
    revoke: list[TopicPartition]


@dataclass
class Group:
    """The whole state of one consumer group.

    Attributes:
        generation: grows whenever a member comes or goes or a claim changes, so that everybody looks again.
        claims: the owner of each partition that has one.
    """

    generation: int = 0
    members: dict[int, Member] = field(default_factory=dict)
    claims: dict[TopicPartition, Claim] = field(default_factory=dict)

    @classmethod
    def load(cls, text: str) -> Self:
        """The group that `dump` has written."""
        generation, members, claims = json.loads(text)
        return cls(
            generation,
            {id_: Member(frozenset(topics), seen) for id_, topics, seen in members},
            {TopicPartition(topic, number): Claim(*claim) for topic, number, *claim in claims},
        )

    def dump(self) -> str:
        """The whole state as text; equal states have equal texts."""
        members = [(id_, sorted(topics), seen) for id_, (topics, seen) in self.members.items()]
        claims = [(*partition, *claim) for partition, claim in self.claims.items()]
        return json.dumps([self.generation, members, claims])

    def join(self, member: int, topics: Iterable[str], now: int) -> None:
        """Add a member."""
        self.members[member] = Member(frozenset(topics), now)
        self.generation += 1

    def leave(self, member: int) -> None:
        """Remove a member and free its partitions."""
        if self.members.pop(member, None):
            self.release(member, [partition for partition, claim in self.claims.items() if claim.member == member])
            self.generation += 1

    def release(self, member: int, partitions: Iterable[TopicPartition]) -> None:
        """Free those of these partitions that the member owns."""
        for partition in partitions:
            if partition in self.claims and self.claims[partition].member == member:
                del self.claims[partition]
                self.generation += 1

    def expel(self, now: int) -> None:
        """Remove the members that are dead; a heartbeat from the future is one from before a restart of the machine."""
        for member, (_, seen) in list(self.members.items()):
            if not -SESSION_TIMEOUT <= now - seen <= SESSION_TIMEOUT:
                self.leave(member)

    def settle(self, member: int, partitions: Collection[TopicPartition], now: int) -> Step:
        """Bring one member nearer to where the group should be: claim for it what is free, name what it should release.

        Args:
            member: who is asking.
            partitions: all partitions of the topics that any member subscribes to.
            now: milliseconds of the clock that all members share.
        """
        owners = {partition: claim.member for partition, claim in self.claims.items()}
        before = self.claims.copy()
        wanted = assign({id_: each.topics for id_, each in self.members.items()}, partitions, owners)
        for partition, claim in list(self.claims.items()):
            if wanted.get(partition) == claim.member:
                self.claims[partition] = claim._replace(release_by=None)
            elif claim.release_by is None:
                self.claims[partition] = claim._replace(release_by=now + RELEASE_TIMEOUT)
            elif claim.release_by <= now:
                self.release(claim.member, [partition])
        for partition, owner in wanted.items():
            if owner == member and partition not in self.claims:
                self.claims[partition] = Claim(member, self.generation)
        if self.claims != before:
            self.generation += 1
        mine = [(partition, claim) for partition, claim in self.claims.items() if claim.member == member]
        return Step({p: c.generation for p, c in mine}, [p for p, c in mine if c.release_by is not None])

    def owns(self, member: int, partition: TopicPartition, generation: int) -> bool:
        """Whether the member still holds this very claim."""
        return self.claims.get(partition, Claim(0, 0))[:2] == (member, generation)


def assign(
    topics: Mapping[int, Collection[str]],
    partitions: Collection[TopicPartition],
    owners: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Which member should own each partition: balanced, and moving as little as that allows.

    Args:
        topics: what each member subscribes to.
        partitions: all partitions to hand out; those nobody subscribes to are left out of the answer.
        owners: who owns what now.
    """
    load: Counter[int] = Counter(dict.fromkeys(topics, 0))
    of_topic: Counter[tuple[str, int]] = Counter()
    candidates = {topic: sorted(id_ for id_, named in topics.items() if topic in named) for topic, _ in partitions}
    ordered = sorted(partition for partition in partitions if candidates[partition.topic])
    wanted: dict[TopicPartition, int] = {}

    def give(partition: TopicPartition, owner: int) -> None:
        if partition in wanted:
            load[wanted[partition]] -= 1
            of_topic[partition.topic, wanted[partition]] -= 1
        wanted[partition] = owner
        load[owner] += 1
        of_topic[partition.topic, owner] += 1

    def lightest(topic: str) -> int:  # each topic is spread for itself: their partitions are not worth the same
        return min(candidates[topic], key=lambda id_: (of_topic[topic, id_], load[id_]))

    stays = {partition: owners.get(partition) in candidates[partition.topic] for partition in ordered}
    for partition in sorted(ordered, key=stays.__getitem__, reverse=True):
        give(partition, owners[partition] if stays[partition] else lightest(partition.topic))
    moved = True
    while moved:  # ends: each move makes a topic more even, or all together where it leaves the topic as even as it was
        moved = False
        for partition in reversed(ordered):
            heavy, light = wanted[partition], lightest(partition.topic)
            gap = of_topic[partition.topic, heavy] - of_topic[partition.topic, light]
            if gap > 1 or (gap == 1 and load[heavy] - load[light] > 1):
                give(partition, light)
                moved = True
    return wanted
