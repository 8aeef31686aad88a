"""What a handler's source and its SQL give away."""

import pytest

from choreo import Event, Service
from choreo.check.sources import Sources
from choreo.check.sql import assignments
from tests.unit.check.flows import services_of


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE orders SET status = ? WHERE id = ?", [("orders", "status", "?")]),
        ("update Orders set Status = 'new'", [("orders", "status", "'new'")]),
        ("UPDATE orders SET status = ?, paid = coalesce(?, 0), n = n + 1", [("orders", "status", "?"), ("orders", "paid", "coalesce(?, 0)")]),
        ("UPDATE orders SET status = 'b' WHERE id = ? AND status = 'a'", []),
        ('UPDATE OR IGNORE "orders" SET "status" = ?;', [("orders", "status", "?")]),
        ("UPDATE shop.orders SET total = total * 2", []),
        ("INSERT INTO orders VALUES (?) ON CONFLICT (id) DO UPDATE SET status = excluded.status", [("orders", "status", "excluded.status")]),
        ("INSERT INTO orders VALUES (?) ON CONFLICT (id) DO UPDATE SET n = n + excluded.n", []),
        ("INSERT INTO orders VALUES (?) ON CONFLICT DO NOTHING", []),
        ("SELECT status FROM orders", []),
        ("please UPDATE your client", []),
    ],
)  # fmt: skip
def test_columns_that_a_statement_overwrites(statement, found):
    assert list(assignments(statement)) == found


def source_of(body, head="", context=", ctx: Context"):
    flow = f"""
event Asked, Answered on asks
desk = Service("desk")
SET = "UPDATE asks SET state = ?"
{head}

@desk.on(
    Asked,
)
async def answer(asked: Asked{context}) -> Answered:
    {body}
"""
    (service,) = services_of(flow)
    return Sources().of(service.handlers["answer"])


def test_the_place_is_the_line_of_def_not_of_its_decorator():
    place = source_of("...").place
    import linecache

    assert linecache.getline(place.file, place.line).startswith("async def answer(")


@pytest.mark.parametrize(
    ("body", "effect"),
    [
        ("...", False),
        ("await ctx.db.fetch_one('SELECT 1')", False),
        ("ctx.log.info('asked', saga=ctx.correlation_id)", False),
        ("await ctx.state.model.score(asked)", False),
        ("await ctx.db.execute('INSERT INTO asks VALUES (1)')", True),
        ("await ctx.db.execute_many('INSERT INTO asks VALUES (?)', [])", True),
        ("await ctx.step('ask', print)", True),
        ("await ctx.state.mailer.send(asked)", True),
        ("gateway.ask(key=ctx.idempotency_key)", True),
        ("await helper(asked, ctx)", True),
    ],
)
def test_what_looks_like_an_effect(body, effect):
    assert source_of(body).has_effect is effect


def test_texts_of_the_module_are_read_too():
    assert source_of("await ctx.db.execute(SET, ('new',))").assigns == (("asks", "state", "?"),)


def test_a_handler_without_context_is_read():
    found = source_of("requests.post('https://asks')", head="import httpx2 as requests", context="")
    assert found.calls == ("requests.post",)
    assert found.has_effect


class Happened(Event, topic="things", key="id"):
    id: str


def test_what_has_no_source_is_no_trouble():
    service = Service("made")
    made = {}
    exec("async def made(event) -> None: ...", made)  # noqa: S102 - a function without a file
    service.on(Happened)(made["made"])
    service.on(Happened, name="wrapped")(Wrapped().handle)
    assert Sources().of(service.handlers["made"]).place.line == 1
    assert not Sources().of(service.handlers["made"]).has_effect
    assert Sources().of(service.handlers["wrapped"]).place.file == __file__


class Wrapped:
    async def handle(self, event: Happened) -> None: ...
