import functools
import inspect

import pytest

from choreo import DeclarationError, Event, Failure, Retry, Service


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str


class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str


class PaymentDeclined(Failure, topic="payments", key="order_id"):
    order_id: str


def other_class_of_the_same_type():
    class Other(Event, topic="orders", key="order_id", name="OrderPlaced"):
        order_id: str

    return Other


def test_a_handler_is_recorded_and_the_function_stays_itself():
    payments = Service("payments")

    async def charge(order: OrderPlaced, ctx: object) -> PaymentCharged | PaymentDeclined:
        return PaymentCharged(order_id=order.order_id)

    assert payments.on(OrderPlaced)(charge) is charge
    handler = payments.handlers["charge"]
    assert str(handler) == "payments.charge"
    assert handler.function is charge
    assert handler.consumes == (OrderPlaced,)
    assert handler.emits.classes == (PaymentCharged, PaymentDeclined)
    assert handler.takes_context
    assert handler.is_async
    assert handler.retry == Retry()


def test_a_blocking_handler_without_context_of_several_events():
    payments = Service("payments")
    retry = Retry(attempts=1)

    @payments.on(OrderPlaced, PaymentDeclined, OrderPlaced, name="record", retry=retry)
    def record_it(event: OrderPlaced | PaymentDeclined) -> None:
        pass

    handler = payments.handlers["record"]
    assert handler.consumes == (OrderPlaced, PaymentDeclined), "each event once"
    assert not handler.is_async
    assert not handler.takes_context
    assert handler.retry is retry


def test_one_function_may_be_two_handlers_under_two_names():
    payments = Service("payments")

    def note(event: Event) -> None:
        pass

    payments.on(OrderPlaced)(note)
    payments.on(PaymentCharged, name="note_charges")(note)
    assert list(payments.handlers) == ["note", "note_charges"]


def test_bound_methods_can_be_handlers():
    class Handlers:
        async def charge(self, order: OrderPlaced) -> PaymentCharged:
            return PaymentCharged(order_id=order.order_id)

    payments = Service("payments")
    payments.on(OrderPlaced)(Handlers().charge)
    assert payments.handlers["charge"].is_async


def test_a_decorator_that_wraps_keeps_the_declaration():
    def traced(function):
        @functools.wraps(function)
        async def wrapper(*args):
            return await function(*args)

        return wrapper

    payments = Service("payments")

    @payments.on(OrderPlaced)
    @traced
    async def charge(order: OrderPlaced, ctx: object) -> PaymentCharged:
        return PaymentCharged(order_id=order.order_id)

    assert payments.handlers["charge"].emits.classes == (PaymentCharged,)
    assert inspect.iscoroutinefunction(payments.handlers["charge"].function)


def test_event_classes_are_listed_once_in_order_of_declaration():
    payments = Service("payments")

    @payments.on(OrderPlaced)
    async def charge(order: OrderPlaced) -> PaymentCharged | PaymentDeclined: ...

    @payments.on(PaymentDeclined, PaymentCharged)
    async def tell(event: PaymentDeclined | PaymentCharged) -> None: ...

    assert payments.event_classes == (OrderPlaced, PaymentCharged, PaymentDeclined)


def test_services_do_not_share_handlers():
    one, other = Service("one"), Service("other")

    @one.on(OrderPlaced)
    async def charge(order: OrderPlaced) -> None: ...

    assert not other.handlers


@pytest.mark.parametrize("name", ["", "with space", "a/b", "-a", ".a", "a" * 201, "größe", None, 7])
def test_a_service_name_that_is_no_consumer_group_is_refused(name):
    with pytest.raises(DeclarationError, match=r"service name .* is no legal consumer group \(use 1 to 200 letters"):
        Service(name)


@pytest.mark.parametrize("name", ["a", "7", "shop.payments_v2-eu", "a" * 200])
def test_legal_service_names(name):
    assert Service(name).name == name


def test_concurrency_is_at_least_one():
    with pytest.raises(DeclarationError, match=r"service 'payments' has concurrency 0 \(use 1 or more"):
        Service("payments", concurrency=0)


def test_one_handler_name_twice_is_refused():
    payments = Service("payments")

    def declare():
        @payments.on(OrderPlaced)
        async def charge(order: OrderPlaced) -> None: ...

    declare()
    with pytest.raises(DeclarationError, match=r"handler payments\.charge is declared twice \(rename .* name='\.\.\.'"):
        declare()


def test_a_handler_of_no_event_is_refused():
    with pytest.raises(DeclarationError, match=r"handler payments\.charge names no event \(write @service\.on\("):

        @Service("payments").on()
        async def charge(order: OrderPlaced) -> None: ...


def test_the_decorator_without_parentheses_is_refused_at_once():
    with pytest.raises(DeclarationError, match=r"handler payments\.charge names no event \(write @service\.on\("):

        @Service("payments").on
        async def charge(order: OrderPlaced) -> None: ...


@pytest.mark.parametrize("wrong", [Event, Failure, str, "OrderPlaced", OrderPlaced(order_id="o1")])
def test_a_handler_of_something_that_is_no_event_is_refused(wrong):
    with pytest.raises(
        DeclarationError, match=r"handler payments\.charge is declared on .*no event \(name a class that"
    ):

        @Service("payments").on(wrong)
        async def charge(order: OrderPlaced) -> None: ...


@pytest.mark.parametrize("name", ["a b", "a.b", '"', "-a"])
def test_an_illegal_handler_name_is_refused(name):
    with pytest.raises(DeclarationError, match=r"handler payments\..* has no legal name \(give it one of letters"):

        @Service("payments").on(OrderPlaced, name=name)
        async def charge(order: OrderPlaced) -> None: ...


def test_two_classes_of_one_type_name_in_one_service_are_refused():
    payments, other = Service("payments"), other_class_of_the_same_type()

    @payments.on(OrderPlaced)
    async def charge(order: OrderPlaced) -> None: ...

    with pytest.raises(DeclarationError) as refused:

        @payments.on(other)
        async def again(order) -> None: ...

    message = str(refused.value)
    assert "handler payments.again" in message
    assert f"{__name__}.OrderPlaced" in message
    assert f"{__name__}.{other.__qualname__}" in message
    assert "rename one of them" in message
    assert "again" not in payments.handlers


def test_two_classes_of_one_type_name_in_one_handler_are_refused():
    other = other_class_of_the_same_type()

    with pytest.raises(DeclarationError, match=r"handler payments\.charge uses .*same type name 'OrderPlaced'"):

        @Service("payments").on(OrderPlaced, other)
        async def charge(order) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "a handler is called at least once"),
        ({"delay": "10m"}, "delay is longer than max_delay"),
        ({"within": "ever"}, "'ever' is no duration"),
        ({"in_place": "x"}, "'x' is no duration"),
        ({"fatal": ("TypeError",)}, "is no exception class"),
        ({"transient": (OSError,), "fatal": (OSError,)}, "OSError as transient and as fatal"),
        ({"business": {KeyError: print}, "fatal": (KeyError,)}, "KeyError as business and as fatal"),
        ({"delay": "soon"}, "'soon' is no duration"),
        ({"max_delay": -1}, "-1 is no duration"),
    ],
)
def test_a_retry_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(DeclarationError, match=message):
        Retry(**arguments)


def test_a_handler_has_time():
    with pytest.raises(DeclarationError, match="timeout 0"):

        @Service("payments").on(OrderPlaced, timeout=0)
        async def charge(order: OrderPlaced) -> None: ...


class RefusedError(Exception):
    pass


def not_declared(order: OrderPlaced, error: RefusedError) -> PaymentDeclined:
    return PaymentDeclined(order_id=order.order_id)


def no_failure(order: OrderPlaced, error: RefusedError) -> PaymentCharged:
    return PaymentCharged(order_id=order.order_id)


@pytest.mark.parametrize("function", [not_declared, no_failure])
def test_what_a_business_error_becomes_is_a_failure_that_is_declared(function):
    with pytest.raises(DeclarationError, match=r"handler payments\.charge .*PaymentDeclined|PaymentCharged"):

        @Service("payments").on(OrderPlaced, retry=Retry(business={RefusedError: function}))
        async def charge(order: OrderPlaced) -> PaymentCharged: ...


@pytest.mark.parametrize("function", [not_declared, lambda order, _: PaymentDeclined(order_id=order.order_id)])
def test_a_declared_failure_may_stand_for_a_business_error(function):
    payments = Service("payments")

    @payments.on(OrderPlaced, retry=Retry(business={RefusedError: function}))
    async def charge(order: OrderPlaced) -> PaymentCharged | PaymentDeclined: ...

    assert payments.handlers["charge"].retry.business == {RefusedError: function}
