"""Holds as blocks: what the work costs is set aside when it begins, and charged when it is known.

A block that ends well settles its hold: by what `used` was told, and a feature that was not told as it was held.
A block that ends with an exception, or is cancelled, releases it; what was charged in parts stays charged. Where
nobody answers, the hold is ended out of the spool later, or, without one, at its deadline (`on_expiry`).

Where `on_outage` allows and nobody decided, the block runs without a hold, and nothing is charged by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, cast

import msgspec

from billing_core.errors import Failure
from gateway.edge.wire import CheckAnswer, PartAnswer, SettleAnswer
from gateway.sdk import ask
from gateway.sdk.ask import Act, Asked, HoldAsked, Quantities
from gateway.sdk.refusal import require

P = ParamSpec("P")


class Charging(msgspec.Struct, Generic[P], frozen=True, kw_only=True):
    """What a call of a decorated function is charged, and to whom: each a value, or made of the call's arguments.

    With `ttl_ms` it is held, settled if the function returns and released if it raises.
    """

    key: str | Callable[P, str]
    charges: Quantities | Callable[P, Quantities]
    ttl_ms: int = 0

    def asked(self, *args: P.args, **kwargs: P.kwargs) -> Asked:
        """The check for one call."""
        key = self.key(*args, **kwargs) if callable(self.key) else self.key
        charges = self.charges(*args, **kwargs) if callable(self.charges) else self.charges
        return Asked(key=key, charges=charges)


class Usage:
    """What is known of one hold while its block runs."""

    def __init__(self, asked: HoldAsked) -> None:
        self._asked = asked
        self._used: dict[str, int] = {}
        self._is_open = False
        self._token: contextvars.Token[Any] | None = None
        self.answer: CheckAnswer | None = None
        self.outcome: SettleAnswer | None = None

    @property
    def id(self) -> str:
        """The hold's id; "" where there is none."""
        held = ask.hold_in(self.answer) if self.answer is not None else None
        return held.id if held is not None else ""

    def used(self, quantities: Quantities) -> None:
        """State how much was really used; said again of a feature, the last word counts."""
        self._used |= quantities

    def _begin(self, answer: CheckAnswer) -> None:
        self.answer = require(answer)
        self._is_open = bool(self.id)

    def _enter(self) -> None:
        self._token = _CURRENT.set(self)

    def _leave(self, left: tuple[object, ...]) -> BaseException | None:
        """Forget the hold; with which exception its block was left."""
        token, self._token = self._token, None
        if token is not None:
            with contextlib.suppress(ValueError):  # left in another context than it was entered in: that knows none
                _CURRENT.reset(token)
        error = left[1]
        return error if isinstance(error, BaseException) else None

    def _end(self) -> bool:
        """Whether it is still to be ended, which is so once."""
        was_open, self._is_open = self._is_open, False
        return was_open


class Gateway(Protocol):
    """What a hold needs of the asynchronous client."""

    async def place(self, asked: HoldAsked) -> CheckAnswer: ...
    async def settle(self, hold_id: str, used: Quantities) -> SettleAnswer | None: ...
    async def release(self, hold_id: str) -> SettleAnswer | None: ...
    async def tell(self, act: Act[Any]) -> Any: ...
    def undo(self, placing: asyncio.Task[CheckAnswer]) -> None: ...
    def in_background(self, act: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]: ...


class AsyncHold(Usage):
    """A hold as an asynchronous block. Raises on entry: Refused; as `AsyncTallygate.check`."""

    def __init__(self, gateway: Gateway, asked: HoldAsked) -> None:
        super().__init__(asked)
        self._gateway = gateway

    async def __aenter__(self) -> AsyncHold:
        placing = self._gateway.in_background(self._gateway.place(self._asked))
        try:
            self._begin(await asyncio.shield(placing))
        except asyncio.CancelledError:
            self._gateway.undo(placing)
            raise
        self._enter()
        return self

    async def __aexit__(self, *left: object) -> None:
        error = self._leave(left)
        if not self._end():
            return
        ending = self._gateway.settle(self.id, self._used) if error is None else self._gateway.release(self.id)
        task = self._gateway.in_background(ending)
        try:
            self.outcome = await asyncio.shield(task)
        except Failure as failure:
            if error is None:
                raise
            _note(error, self.id, failure=failure)

    async def settle(self, used: Quantities | None = None) -> None:
        """End the hold before the block does."""
        self.used(used or {})
        if self._end():
            self.outcome = await self._gateway.settle(self.id, self._used)

    async def release(self) -> None:
        """Give the hold back before the block ends."""
        if self._end():
            self.outcome = await self._gateway.release(self.id)

    async def part(self, used: Quantities, *, ttl_ms: int = 0) -> PartAnswer | None:
        """Charge so much now; the rest stays held. None where there is no hold."""
        return await self._gateway.tell(ask.part(self.id, used, ttl_ms=ttl_ms)) if self._is_open else None

    async def extend(self, more: Quantities | None = None, *, ttl_ms: int) -> None:
        """Keep the hold for longer, and set more aside. Raises: Refused, and then it stays as it was."""
        if self._is_open:
            require(await self._gateway.tell(ask.extend(self.id, more or {}, ttl_ms=ttl_ms)))


class BlockingGateway(Protocol):
    """What a hold needs of the blocking client."""

    def place(self, asked: HoldAsked) -> CheckAnswer: ...
    def settle(self, hold_id: str, used: Quantities) -> SettleAnswer | None: ...
    def release(self, hold_id: str) -> SettleAnswer | None: ...
    def tell(self, act: Act[Any]) -> Any: ...


class Hold(Usage):
    """A hold as a block. Raises on entry: Refused; as `Tallygate.check`."""

    def __init__(self, gateway: BlockingGateway, asked: HoldAsked) -> None:
        super().__init__(asked)
        self._gateway = gateway

    def __enter__(self) -> Hold:
        self._begin(self._gateway.place(self._asked))
        self._enter()
        return self

    def __exit__(self, *left: object) -> None:
        error = self._leave(left)
        if error is None:
            return self.settle()
        try:
            self.release()
        except Failure as failure:
            _note(error, self.id, failure=failure)
        return None

    def settle(self, used: Quantities | None = None) -> None:
        """End the hold before the block does."""
        self.used(used or {})
        if self._end():
            self.outcome = self._gateway.settle(self.id, self._used)

    def release(self) -> None:
        """Give the hold back before the block ends."""
        if self._end():
            self.outcome = self._gateway.release(self.id)

    def part(self, used: Quantities, *, ttl_ms: int = 0) -> PartAnswer | None:
        """Charge so much now; the rest stays held. None where there is no hold."""
        if not self._is_open:
            return None
        return cast("PartAnswer", self._gateway.tell(ask.part(self.id, used, ttl_ms=ttl_ms)))

    def extend(self, more: Quantities | None = None, *, ttl_ms: int) -> None:
        """Keep the hold for longer, and set more aside. Raises: Refused, and then it stays as it was."""
        if self._is_open:
            require(self._gateway.tell(ask.extend(self.id, more or {}, ttl_ms=ttl_ms)))


_CURRENT: contextvars.ContextVar[Usage | None] = contextvars.ContextVar("tallygate_hold", default=None)


def current_hold() -> Usage | None:
    """The hold of the block, call or request that this code runs in."""
    return _CURRENT.get()


def _note(error: BaseException, hold_id: str, *, failure: Failure) -> None:
    error.add_note(f"the hold {hold_id} could not be released: {failure.detail}")
