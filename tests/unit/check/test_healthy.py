"""Flows as they should be: no errors and no warnings. They look like the example services."""

import pytest

from tests.unit.check.flows import findings
from tests.unit.check.test_failures_and_compensations import SHOP

FLOWS = {
    "shop": SHOP,
    "fraud": """
event TransactionMade on transactions
event Scored on scores
event Approved on verdicts ends completed
event Flagged on verdicts ends completed
failure Blocked on verdicts ends failed
scoring, verdicts = Service("scoring"), Service("verdicts")

@scoring.on(TransactionMade)
async def score(tx: TransactionMade, ctx: Context) -> Scored:
    await ctx.state.model.score(tx)
    return Scored(id="a")

@verdicts.on(Scored)
async def decide(scored: Scored) -> Approved | Flagged | Blocked: ...
""",
    "ingest": """
class FileArrived(Event, topic=route(lambda f: "files.large" if f.size > 9 else "files", among=("files", "files.large")), key="id"):
    id: str
    size: int
class LargeFile(FileArrived, topic="files.large", key="id", name="FileArrived"): pass
class SmallFile(FileArrived, topic="files", key="id", name="FileArrived"): pass
class FileSplit(Event, topic="chunks", key="id"):
    id: str
    chunks: int
event ChunkReady on chunks
event ChunkLoaded on loads
failure FileRejected on files.done ends failed
event FileLoaded on files.done ends completed
small, large, loader = Service("small"), Service("large"), Service("loader")

@small.on(SmallFile)
async def split(f: SmallFile) -> tuple[FileSplit, ChunkReady] | FileRejected: ...

@large.on(LargeFile)
async def split_large(f: LargeFile) -> list[FileSplit | ChunkReady] | FileRejected: ...

@loader.on(ChunkReady)
async def load(chunk: ChunkReady) -> ChunkLoaded: ...

@loader.join(FileSplit, ChunkLoaded, count=lambda e: e.chunks)
async def done(split: FileSplit, loaded: list[ChunkLoaded]) -> FileLoaded: ...
""",
    "lake": """
event Clicked on clicks
event TableReady on tables
event Loaded on loads
lake = Service("lake")

@lake.batch(Clicked, max_size=500, max_age="2s")
async def load(clicks: list[Clicked], ctx: Context) -> Loaded: ...

@lake.on(TableReady)
async def load_table(t: TableReady) -> None: ...
""",
    "onboarding": """
event AccountRequested on accounts
event TenantCreated on tenants
event TenantRemoved on tenants
event DatabaseProvisioned on databases
event DatabaseDropped on databases
event WelcomeSent on mails
event AdminVerified on accounts
event AdminReminded on mails
event Activated on accounts ends completed
failure OnboardingExpired on accounts ends failed
accounts, tenants, databases, mails = map(Service, ("accounts", "tenants", "databases", "mails"))

@tenants.on(AccountRequested)
async def create(a: AccountRequested) -> TenantCreated: ...

@tenants.compensates(create, on=(OnboardingExpired,))
async def remove(t: TenantCreated, f: OnboardingExpired) -> TenantRemoved: ...

@databases.on(AccountRequested)
async def provision(a: AccountRequested) -> DatabaseProvisioned: ...

@databases.compensates(provision, on=(OnboardingExpired,))
async def drop(t: DatabaseProvisioned, f: OnboardingExpired) -> DatabaseDropped: ...

@mails.join(TenantCreated, DatabaseProvisioned, unless=(OnboardingExpired,))
async def welcome(t: TenantCreated, d: DatabaseProvisioned) -> WelcomeSent: ...

@mails.deadline(WelcomeSent, within="1d", every="2d", times=2, unless=(AdminVerified, OnboardingExpired))
async def remind(w: WelcomeSent) -> AdminReminded: ...

@accounts.deadline(AccountRequested, within="30d", unless=(Activated, AdminVerified))
async def expire(a: AccountRequested) -> OnboardingExpired: ...

@accounts.join(WelcomeSent, AdminVerified, unless=(OnboardingExpired,))
async def activate(w: WelcomeSent, v: AdminVerified) -> Activated: ...
""",
    "claims": """
event ClaimFiled on claims
event ClaimApproved on claims ends completed
failure ClaimDenied on claims ends failed
adjudication, archive, reports, mails = map(Service, ("adjudication", "archive", "reports", "mails"))

@adjudication.on(ClaimFiled)
async def adjudicate(c: ClaimFiled, ctx: Context) -> ClaimApproved | ClaimDenied:
    await ctx.step("eligibility", eligible, c)
    return ClaimApproved(id="c")

@archive.on(ClaimApproved, ClaimDenied)
async def keep(c: ClaimApproved | ClaimDenied) -> None: ...

@reports.on(ClaimApproved, ClaimDenied)
async def report(c: ClaimApproved | ClaimDenied) -> None: ...

@mails.on(ClaimApproved, ClaimDenied)
async def tell(c: ClaimApproved | ClaimDenied) -> None: ...
""",
    "signup": """
event UserRegistered on users
event WelcomeSent on mails
event ProfileCreated on profiles
mail, profiles, analytics = map(Service, ("mail", "profiles", "analytics"))

@mail.on(UserRegistered)
async def welcome(u: UserRegistered) -> WelcomeSent: ...

@profiles.on(UserRegistered)
async def create(u: UserRegistered) -> ProfileCreated: ...

@analytics.on(UserRegistered, ProfileCreated)
async def count(u: UserRegistered | ProfileCreated) -> None: ...
""",
    "delivery": """
event RouteRequested on routes
event RoutePlanned on routes
failure RouteRefused on routes ends failed
event Dispatched on routes
event PositionReported on positions
event Delivered on routes ends completed
planning, dispatch, tracking, customers = map(Service, ("planning", "dispatch", "tracking", "customers"))

@planning.on(RouteRequested)
async def plan(r: RouteRequested) -> RoutePlanned | RouteRefused: ...

@dispatch.on(RoutePlanned)
async def send(r: RoutePlanned) -> Dispatched: ...

@tracking.on(PositionReported)
async def follow(p: PositionReported) -> Delivered | None: ...

@customers.on(Dispatched, PositionReported, Delivered, RouteRefused)
async def tell(e: Dispatched | PositionReported | Delivered | RouteRefused) -> None: ...
""",
    "approval": """
event OrderPlaced on orders
event ApprovalRequested on approvals
event Escalated on approvals
event ManagerApproved on answers
event ManagerRejected on answers
event OrderApproved on orders
failure OrderRejected on orders ends failed
event Fulfilled on orders ends completed
approvals, fulfilment = Service("approvals"), Service("fulfilment")

@approvals.on(OrderPlaced)
async def ask(o: OrderPlaced) -> ApprovalRequested | OrderApproved: ...

@approvals.deadline(ApprovalRequested, within="2d", unless=(ManagerApproved, ManagerRejected))
async def escalate(a: ApprovalRequested) -> Escalated: ...

@approvals.deadline(Escalated, within="3d", unless=(ManagerApproved, ManagerRejected))
async def give_up(a: Escalated) -> OrderRejected | None: ...

@approvals.on(ManagerApproved)
async def approve(a: ManagerApproved) -> OrderApproved | None: ...

@approvals.on(ManagerRejected)
async def reject(a: ManagerRejected) -> OrderRejected | None: ...

@fulfilment.on(OrderApproved)
async def fulfil(o: OrderApproved) -> Fulfilled: ...
""",
}


@pytest.mark.parametrize("flow", FLOWS)
def test_nothing_is_wrong(flow):
    assert [finding for finding in findings(FLOWS[flow]) if finding.severity != "info"] == []
