"""The declared choreography of the ground truth: a trip with everything that can be declared, a claim, and a review.

    trip     flight and hotel are steps that are undone, cars are gathered, two of three extras suffice, somebody outside
             approves and is reminded, the desk owns the outcome and has a deadline; mail and lake only listen
    claim    no deadline: a join that waits for ever is stuck
    review   no outcome is declared: it ends when its branches end

Nothing here runs: `tests.tracker.play` decides what each handler did.
"""

from __future__ import annotations

from choreo import Choreography, Event, Failure, Service

EXPIRE, GRACE = 600.0, 0.5
"""Seconds."""


class TripRequested(Event, topic="trips", key="trip"):
    trip: str


class TripConfirmed(Event, topic="ends", key="trip", ends="completed"):
    trip: str


class TripFailed(Failure, topic="ends", key="trip", ends="failed"):
    trip: str


class FlightBooked(Event, topic="flights", key="trip"):
    trip: str


class FlightRefused(Failure, topic="flights", key="trip"):
    trip: str


class FlightCancelled(Event, topic="flights", key="trip"):
    trip: str


class FlightStays(Failure, topic="flights", key="trip"):
    trip: str


class RoomBooked(Event, topic="rooms", key="trip"):
    trip: str


class RoomsCancelled(Event, topic="rooms", key="trip"):
    trip: str


class HotelChosen(Event, topic="rooms", key="trip"):
    trip: str


class HotelRefused(Failure, topic="rooms", key="trip"):
    trip: str


class CarOffered(Event, topic="cars", key="trip"):
    trip: str


class CarChosen(Event, topic="cars", key="trip"):
    trip: str


class InsuranceOffered(Event, topic="extras", key="trip"):
    trip: str


class VisaChecked(Event, topic="extras", key="trip"):
    trip: str


class GuideFound(Event, topic="extras", key="trip"):
    trip: str


class ExtrasReady(Event, topic="extras", key="trip"):
    trip: str


class ApprovalAsked(Event, topic="approvals", key="trip"):
    trip: str


class ApprovalGiven(Event, topic="answers", key="trip"):
    trip: str


class Approved(Event, topic="approvals", key="trip"):
    trip: str


class Reminded(Event, topic="approvals", key="trip"):
    trip: str


class ClaimFiled(Event, topic="claims", key="claim"):
    claim: str


class ClaimAssessed(Event, topic="claims", key="claim"):
    claim: str


class ClaimRejected(Failure, topic="claims", key="claim"):
    claim: str


class BankChecked(Event, topic="banks", key="claim"):
    claim: str


class ClaimPaid(Event, topic="claims", key="claim", ends="completed"):
    claim: str


class ReviewWritten(Event, topic="reviews", key="review"):
    review: str


class ReviewPublished(Event, topic="reviews", key="review"):
    review: str


class ReviewWithdrawn(Event, topic="reviews", key="review"):
    review: str


class ReviewObjected(Failure, topic="objections", key="review"):
    review: str


desk, flights, hotels, cars = Service("desk"), Service("flights"), Service("hotels"), Service("cars")
extras, approvals, mail, lake = Service("extras"), Service("approvals"), Service("mail"), Service("lake")
claims, banks, reviews, lawyers = Service("claims"), Service("banks"), Service("reviews"), Service("lawyers")


@desk.join(FlightBooked, HotelChosen, CarChosen, ExtrasReady, Approved, unless=(TripFailed,))
async def confirm(
    flight: FlightBooked, hotel: HotelChosen, car: CarChosen, extra: ExtrasReady, approved: Approved
) -> TripConfirmed | None: ...


@desk.on(FlightRefused, HotelRefused, ordered=False)
async def give_up(refused: FlightRefused | HotelRefused) -> TripFailed | None: ...


@desk.deadline(TripRequested, within=EXPIRE, unless=(TripConfirmed, TripFailed))
async def expire(requested: TripRequested) -> TripFailed: ...


@flights.on(TripRequested, ordered=False)
async def book(requested: TripRequested) -> FlightBooked | FlightRefused: ...


@flights.compensates(book, on=(TripFailed,))
async def cancel(booked: FlightBooked, failed: TripFailed) -> FlightCancelled | FlightStays: ...


@hotels.on(TripRequested, ordered=False)
async def rooms(requested: TripRequested) -> list[RoomBooked]: ...


@hotels.compensates(rooms, on=(HotelRefused, TripFailed))
async def free(booked: list[RoomBooked], failed: HotelRefused | TripFailed) -> RoomsCancelled: ...


@hotels.on(TripRequested, name="choose", ordered=False)
async def choose_hotel(requested: TripRequested) -> HotelChosen | HotelRefused: ...


@hotels.compensates(choose_hotel, on=(HotelRefused, TripFailed), name="forget")
async def forget_hotel(chosen: HotelChosen, failed: HotelRefused | TripFailed) -> None: ...


@cars.on(TripRequested, ordered=False)
async def offer(requested: TripRequested) -> list[CarOffered]: ...


@cars.join(CarOffered, count=2, unless=(TripFailed,))
async def pick(offered: list[CarOffered]) -> CarChosen: ...


@extras.on(TripRequested, ordered=False)
async def insure(requested: TripRequested) -> InsuranceOffered | None: ...


@extras.on(TripRequested, ordered=False)
async def visa(requested: TripRequested) -> VisaChecked | None: ...


@extras.on(TripRequested, ordered=False)
async def guide(requested: TripRequested) -> GuideFound | None: ...


@extras.join(InsuranceOffered, VisaChecked, GuideFound, need=2)
async def pack(one: InsuranceOffered | None, two: VisaChecked | None, three: GuideFound | None) -> ExtrasReady: ...


@approvals.on(TripRequested, ordered=False)
async def ask(requested: TripRequested) -> ApprovalAsked: ...


@approvals.on(ApprovalGiven, ordered=False)
async def accept(given: ApprovalGiven) -> Approved: ...


@approvals.deadline(ApprovalAsked, every=100.0, times=3, unless=(Approved, TripFailed))
async def remind(asked: ApprovalAsked) -> Reminded: ...


@approvals.deadline(ApprovalAsked, within=200.0, unless=(Approved,))
async def escalate(asked: ApprovalAsked) -> None: ...


@mail.on(TripConfirmed, TripFailed, ordered=False)
async def write(ended: TripConfirmed | TripFailed) -> None: ...


@lake.batch(TripRequested, FlightBooked)
async def load(events: list[TripRequested | FlightBooked]) -> None: ...


@claims.on(ClaimFiled, ordered=False)
async def assess(filed: ClaimFiled) -> ClaimAssessed | ClaimRejected | None: ...


@banks.on(ClaimFiled, ordered=False)
async def check(filed: ClaimFiled) -> BankChecked | None: ...


@claims.join(ClaimAssessed, BankChecked, unless=(ClaimRejected,))
async def pay(assessed: ClaimAssessed, checked: BankChecked) -> ClaimPaid: ...


@reviews.on(ReviewWritten, ordered=False)
async def publish(written: ReviewWritten) -> ReviewPublished: ...


@lawyers.on(ReviewPublished, ordered=False)
async def read(published: ReviewPublished) -> ReviewObjected | None: ...


@reviews.compensates(publish, on=(ReviewObjected,))
async def withdraw(published: ReviewPublished, objected: ReviewObjected) -> ReviewWithdrawn | None: ...


SERVICES = [desk, flights, hotels, cars, extras, approvals, mail, lake, claims, banks, reviews, lawyers]
CHOREOGRAPHY = Choreography.of(SERVICES)
