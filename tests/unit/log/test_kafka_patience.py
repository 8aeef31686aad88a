from choreo.log.kafka.patience import Patience


def test_a_member_that_is_left_out_begins_again_and_then_waits_twice_as_long():
    patience = Patience(45, now=0)
    patience.taken_in(100)
    assert not patience.is_over(190)
    assert patience.is_over(191)
    patience.replaced(191)
    assert not patience.is_over(371)
    assert patience.is_over(372)


def test_one_that_is_taken_in_has_all_its_patience_again():
    patience = Patience(45, now=0)
    patience.replaced(91)
    patience.taken_in(100)
    assert patience.is_over(191)


def test_while_brokers_are_away_nothing_is_replaced():
    """The group would wait a session's time for the old client when they are back."""
    patience = Patience(45, now=0)
    for now in range(0, 600, 30):
        patience.unreachable(now)
        assert not patience.is_over(now + 29)
    assert not patience.is_over(570 + 90)
    assert patience.is_over(570 + 91)


def test_a_client_that_says_for_ever_that_it_has_no_broker_is_replaced_all_the_same():
    patience = Patience(45, now=0)
    patience.unreachable(899)
    assert not patience.is_over(900)
    assert patience.is_over(901)
