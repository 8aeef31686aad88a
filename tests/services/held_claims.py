"""The claims' services with registers that write down what they are asked; pricing does not answer while a file is there.

CLAIMS_ASKED=file CLAIMS_HOLD=file choreo run tests.services.held_claims:claims-adjudication
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from services.claims import registers, services
from services.claims.events import ClaimFiled, Finding
from services.claims.registers import Registers

__all__ = ["services"]


class Held(Registers):
    """Each question is a line of a file, there before it is answered."""

    async def eligibility(self, claim: ClaimFiled) -> Finding:
        _note("eligibility", claim)
        return await super().eligibility(claim)

    async def coverage(self, claim: ClaimFiled) -> Finding:
        _note("coverage", claim)
        return await super().coverage(claim)

    async def pricing(self, claim: ClaimFiled, covered: Finding) -> Finding:
        _note("pricing", claim)
        while _is_held():  # noqa: ASYNC110 - it is another process that says when
            await asyncio.sleep(0.01)
        return await super().pricing(claim, covered)


def _is_held() -> bool:
    return Path(os.environ["CLAIMS_HOLD"]).exists()


def _note(stage: str, claim: ClaimFiled) -> None:
    with Path(os.environ["CLAIMS_ASKED"]).open("a") as asked:
        asked.write(f"{claim.claim_id} {stage}\n")


registers.connect = Held
