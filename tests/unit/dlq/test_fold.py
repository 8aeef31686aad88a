"""What is known of dead letters after their topics were read, in any order."""

import random

import pytest

from choreo.dlq import Fold, Selection
from choreo.errors import ChoreoError
from tests.unit.dlq import samples

PLACES = [("orders", 0, 5), ("orders", 0, 9), ("orders", 0, 10), ("orders", 1, 2), ("payments", 0, 1)]


def fold_of(*records, keep=lambda _: True):
    fold = Fold(keep)
    for record in records:
        fold.add(record)
    return fold


def letter(id_, place=("orders", 0, 5), first=1_000, **more):
    topic, partition, offset = place
    return samples.own(
        id_, original_topic=topic, original_partition=partition, original_offset=offset, first_failed=first, **more
    )


def ids(letters):
    return [one.id for one in letters]


def states(fold):
    return {one.id: fold.state(one) for one in fold.letters.values()}


def test_a_dead_letter_is_open_until_it_is_resolved():
    records = [letter("a"), letter("b"), letter("c"), samples.resolution("a"), samples.resolution("b", "discarded")]
    for _ in range(5):
        random.shuffle(records)
        assert states(fold_of(*records)) == {"a": "redriven", "b": "discarded", "c": "open"}


def test_one_that_failed_again_is_open_with_its_count_and_knows_its_history():
    records = [
        letter("a"),
        samples.resolution("a", by="ada"),
        letter("b", redrive_count=1),
        letter("x", ("orders", 0, 6)),
    ]
    fold = fold_of(*reversed(records))
    assert states(fold) == {"a": "redriven", "b": "open", "x": "open"}
    first, again = fold.letters["a"], fold.letters["b"]
    assert fold.failed_again(first)
    assert not fold.failed_again(again)
    assert again.redrives == 1
    (failed, done, back) = fold.history(again)
    assert (failed.id, done.by, back.id) == ("a", "ada", "b")


def test_what_another_handler_makes_of_an_undecodable_one_or_of_another_systems_is_its_history_too():
    undecodable = letter("u", PLACES[0], handler="")
    foreign = samples.lying(samples.SPRING, topic="orders.DLT")  # orders/3@77
    fold = fold_of(
        undecodable, foreign, letter("c", PLACES[0], handler="charge", redrive_count=1),
        letter("f", ("orders", 3, 77), handler="charge", redrive_count=1), letter("x", ("orders", 3, 78), redrive_count=1),
    )  # fmt: skip
    (spring,) = [one for one in fold.letters.values() if one.family == "spring"]
    assert fold.failed_again(fold.letters["u"])
    assert fold.failed_again(spring)
    assert not any(fold.failed_again(fold.letters[id_]) for id_ in "cfx")
    assert ids(fold.history(fold.letters["c"])) == ["u", "c"]
    assert ids(fold.history(spring)) == [spring.id, "f"]


def test_copies_change_nothing():
    fold = fold_of(letter("a", offset=1), letter("a", offset=2), samples.resolution("a"), samples.resolution("a"))
    assert (states(fold), fold.letters["a"].at.offset) == ({"a": "redriven"}, 1)


def test_what_fails_anew_after_it_was_resolved_is_open_again_whatever_its_id():
    before, done = letter("a", failed_at=100), samples.resolution("a", **{"failed-at": "100"})
    anew = letter("a", failed_at=200)  # the service has lost its store and reads the topic once more
    for records in ([before, done, anew], [anew, done, before]):
        fold = fold_of(*records)
        assert states(fold) == {"a": "open"}
        fold.add(samples.resolution("a", "discarded", **{"failed-at": "200"}))
        assert states(fold) == {"a": "discarded"}


def test_values_are_kept_of_those_that_are_wanted_only():
    fold = fold_of(letter("a"), letter("b"), keep=Selection(ids=("b",)).fits)
    assert {one.id: one.record.value for one in fold.letters.values()} == {"a": None, "b": b'{"id": "o-1"}'}
    assert fold.letters["a"].type_name == "OrderPlaced"
    assert (fold.letters["a"].missing, fold.letters["b"].missing) == (("value", "headers"), ())
    (spring,) = fold_of(samples.lying(samples.SPRING), keep=lambda _: False).letters.values()
    assert spring.trace == ""


def test_what_no_header_explains_is_counted():
    assert fold_of(samples.lying([]), letter("a")).foreign == 1


def test_the_oldest_goes_first_but_one_partition_in_its_own_order():
    times = [50, 10, 20, 15, 30]  # the clocks of two instances differ: offset 5 seems to have failed last
    records = [letter(str(n), place, first) for n, (place, first) in enumerate(zip(PLACES, times, strict=True))]
    for _ in range(5):
        random.shuffle(records)
        assert ids(fold_of(*records).select(Selection())) == ["0", "3", "1", "4", "2"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Selection(), "abc"),
        (Selection(ids=("a", "c")), "ac"),
        (Selection(service="payments"), "abc"),
        (Selection(service="mail"), ""),
        (Selection(fingerprint="00aa"), "ab"),
        (Selection(handler="refund"), "b"),
        (Selection(type_name="OrderPlaced"), "abc"),
        (Selection(type_name="Other"), ""),
        (Selection(key="o-2"), "c"),
        (Selection(since_ms=1_700_000_002_000), "ab"),
        (Selection(state="open"), "bc"),
        (Selection(state="redriven", key="o-1"), "a"),
    ],
)
def test_filters(chosen, expected):
    fold = fold_of(
        letter("a"), letter("b", handler="refund"), letter("c", fingerprint="ff", key=b"o-2", failed_at=5),
        samples.resolution("a"),
    )  # fmt: skip
    assert "".join(sorted(ids(fold.select(chosen)))) == expected


def test_dead_letters_of_other_systems_fit_any_service():
    fold = fold_of(samples.lying(samples.SPRING), letter("a"))
    assert len(fold.select(Selection(service="mail"))) == 1
    assert len(fold.select(Selection(service="payments"))) == 2


@pytest.mark.parametrize(
    ("given", "reason"), [("9", "0 dead letters begin with '9'"), ("a", "2 dead letters begin with")]
)
def test_an_id_has_to_be_one_dead_letters(given, reason):
    with pytest.raises(ChoreoError, match=reason):
        fold_of(letter("ab"), letter("ac")).select(Selection(ids=(given,)))


def test_groups_say_how_many_since_when_and_who_waits():
    fold = fold_of(
        letter("a", PLACES[0], 1_000, failed_at=2_000),
        letter("b", PLACES[1], 3_000, failed_at=4_000, key=b"o-2"),
        letter("c", PLACES[2], 500, failed_at=600, parked=0, key=b"o-3"),
        letter("d", PLACES[3], 100, failed_at=200),
        letter("e", PLACES[3], 100, failed_at=9_000, redrive_count=1),
        letter("f", PLACES[4], 7_000, failed_at=8_000, fingerprint="ff", parked=0),
        samples.resolution("c", "discarded"),
        samples.resolution("d"),
    )
    first, second = fold.groups(fold.letters.values())
    assert (first.example.fingerprint, second.example.fingerprint) == ("00aa11bb22cc33dd", "ff")
    assert (first.open, first.redriven, first.failed_again, first.discarded) == (3, 1, 1, 1)
    assert (first.first_ms, first.last_ms) == (100, 9_000)
    assert (first.parked, second.parked) == (2, 0)
    assert first.example.id == "e"
