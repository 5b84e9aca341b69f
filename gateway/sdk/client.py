"""The asynchronous client.

    async with AsyncTallygate("http://127.0.0.1:8080", on_outage="refuse") as tallygate:
        answer = await tallygate.check(key=key, feature="sms", quantity=1)
        async with tallygate.hold(key=key, charges={"output_tokens": 512}, ttl_ms=60_000) as hold:
            hold.used({"output_tokens": await generate()})

`check` tells a refusal as a value; `require`, `hold` and `charged` raise it as Refused. All raise Unavailable where
nobody answers by the deadline and `on_outage` says refuse; where it says allow, the answer stands for a decision
that was not made, and says so (`degraded`). Where it says record, that is so for checks, which are charged out of
the spool when somebody answers again; what would be held is refused. Connections are kept and shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar, Unpack

import aiohttp

from billing_core.errors import ConfigurationError, Failure, TooLarge, Unavailable
from gateway.admission.order import Mode
from gateway.edge.wire import CheckAnswer, EventsAnswer, SettleAnswer
from gateway.sdk import ask
from gateway.sdk.ask import Act, Asked, HoldAsked
from gateway.sdk.courier import AsyncCourier
from gateway.sdk.event import EventAsked, encode_event
from gateway.sdk.hold import AsyncHold, Charging
from gateway.sdk.patience import Health, Patience, Said, late_charge_of, terms_of
from gateway.sdk.refusal import require
from gateway.sdk.spool import Spool

Value = TypeVar("Value")
P = ParamSpec("P")

_IDLE_S: Final = 60


class AsyncTallygate:
    """A gateway, asked from one event loop. Enter it, or `close` it when it is needed no more."""

    def __init__(self, url: str, **said: Unpack[Said]) -> None:
        """Who asks, where, and for how long: see `gateway.sdk.patience.Said`. Raises: ConfigurationError."""
        self._terms = terms_of(url, **said)
        self._health = Health()
        self._headers = ask.headers(self._terms.token)
        self._session: aiohttp.ClientSession | None = None
        self._spool: Spool | None = None
        self._courier: AsyncCourier | None = None
        self._loose: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> AsyncTallygate:
        """Begin to bring what an earlier process left in the spool."""
        if self._terms.folder is not None:
            self._bring(self._wanted())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def check(self, **asked: Unpack[Asked]) -> CheckAnswer:
        """Decide and debit in one step. Raises: Unavailable; Failure where the request is at fault."""
        return await self._decide(ask.check(asked))

    async def peek(self, **asked: Unpack[Asked]) -> CheckAnswer:
        """What a check would answer; nothing is changed. Raises: as `check`."""
        return await self._decide(ask.check(asked, mode=Mode.PEEK))

    async def require(self, **asked: Unpack[Asked]) -> CheckAnswer:
        """Decide and debit. Raises: Refused; else as `check`."""
        return require(await self.check(**asked))

    def hold(self, **asked: Unpack[HoldAsked]) -> AsyncHold:
        """Set an amount aside for as long as the block runs; see `gateway.sdk.hold`."""
        return AsyncHold(self, asked)

    async def settle(self, hold_id: str, used: ask.Quantities) -> SettleAnswer | None:
        """End a hold by what was used; None where that stands in the spool, to be told later."""
        return await self._end(ask.settle(hold_id, used))

    async def release(self, hold_id: str) -> SettleAnswer | None:
        """End a hold without a charge; None where that stands in the spool, to be told later."""
        return await self._end(ask.release(hold_id))

    async def record(self, **asked: Unpack[Asked]) -> None:
        """What was done already and is never refused: it is on the disk now, and charged soon."""
        await self._keep(ask.check(asked, mode=Mode.RECORD))

    async def event(self, **asked: Unpack[EventAsked]) -> str:
        """A usage event: it is on the disk now, and with the gateway soon; its id."""
        event_id, raw = encode_event(asked)
        await self._put(lambda spool: spool.put_event(raw))
        return event_id

    async def events(self, *asked: EventAsked) -> EventsAnswer:
        """Usage events, told now; an answer for each. Raises: as `check`, also where `on_outage` allows."""
        return await self.tell(ask.events([encode_event(one)[1] for one in asked]))

    async def flush(self) -> None:
        """Wait until all that stands in the spool is with the gateway."""
        spool = self._wanted()
        await self._bring(spool).flushed()

    def charged(
        self, charging: Charging[P]
    ) -> Callable[[Callable[P, Awaitable[Value]]], Callable[P, Coroutine[Any, Any, Value]]]:
        """A decorator: each call is charged first, or held and settled if it returns. Raises: as `require`."""

        def decorate(function: Callable[P, Awaitable[Value]]) -> Callable[P, Coroutine[Any, Any, Value]]:
            @functools.wraps(function)
            async def call(*args: P.args, **kwargs: P.kwargs) -> Value:
                asked = charging.asked(*args, **kwargs)
                if not charging.ttl_ms:
                    await self.require(**asked)
                    return await function(*args, **kwargs)
                async with self.hold(**asked, ttl_ms=charging.ttl_ms):
                    return await function(*args, **kwargs)

            return call

        return decorate

    async def tell(self, act: Act[Value]) -> Value:
        """Ask until there is an answer, or the deadline has come. Raises: Unavailable; Failure."""
        patience = Patience(self._terms, self._health)
        while True:
            is_broken = False
            try:
                answer = await self.attempt(act, until_s=patience.attempt_until_s())
            except Unavailable as failure:
                fault = failure.detail
                is_broken = isinstance(failure, _Broken)
            except Failure:
                patience.answered()
                raise
            else:
                patience.answered()
                return answer
            await asyncio.sleep(patience.next_pause_s(fault, is_broken=is_broken))

    async def attempt(self, act: Act[Value], *, until_s: float | None = None) -> Value:
        """Ask once. Raises: as `tell`."""
        left_s = self._terms.attempt_ms / 1_000 if until_s is None else until_s - time.monotonic()
        url = f"{self._terms.url}{act.path}"
        try:
            async with (
                asyncio.timeout(left_s),
                self._open().post(url, data=act.body, headers=self._headers, allow_redirects=False) as reply,
            ):
                content = await reply.read()
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"nobody listens at {self._terms.url}: {error.strerror}") from None
        except TimeoutError:
            raise Unavailable(f"no answer from {self._terms.url} in time") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _Broken(f"the connection to {self._terms.url} broke: {type(error).__name__}") from None
        return ask.read(act, reply.status, content=content)

    def undo(self, placing: asyncio.Task[CheckAnswer]) -> None:
        """Release, in the background, a hold whose taker went away while it was being placed."""
        self.in_background(self._undo(placing))

    def in_background(self, act: Coroutine[Any, Any, Value]) -> asyncio.Task[Value]:
        """An act that goes on though its caller is cancelled; `close` waits for it."""
        task = asyncio.create_task(act)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
        return task

    async def close(self) -> None:
        """Finish what is under way, and bring what the spool has; what is not taken by the deadline stays there."""
        await asyncio.gather(*self._loose, return_exceptions=True)
        if self._courier is not None:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._courier.flushed(), self._terms.deadline_ms / 1_000)
            await self._courier.stop()
            self._courier = None
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def place(self, asked: HoldAsked) -> CheckAnswer:
        """Place a hold."""
        return await self._decide(ask.check(asked, mode=Mode.HOLD))

    async def _decide(self, act: Act[CheckAnswer]) -> CheckAnswer:
        try:
            return await self.tell(act)
        except Unavailable as failure:
            late = late_charge_of(act, failure, on_outage=self._terms.on_outage)
            try:
                if late:
                    await self._keep(act, otherwise=late)
            except (TooLarge, OSError) as full:
                raise Unavailable(f"nobody answered, and the spool cannot keep the charge: {full}") from None
            return ask.allowed_without_decision()

    async def _end(self, act: Act[SettleAnswer]) -> SettleAnswer | None:
        try:
            return await self.tell(act)
        except Unavailable:
            if self._terms.folder is None:
                raise
            await self._keep(act)
            return None

    async def _undo(self, placing: asyncio.Task[CheckAnswer]) -> None:
        with contextlib.suppress(Failure):  # then it ends at its deadline
            if hold := ask.hold_in(await placing):
                await self.release(hold.id)

    async def _keep(self, act: Act[Any], *, otherwise: bytes = b"") -> None:
        await self._put(lambda spool: spool.put_act(act, otherwise=otherwise))

    async def _put(self, put: Callable[[Spool], None]) -> None:
        """Into the spool; the event loop does not wait for the disk."""
        spool = self._wanted()
        if self._terms.fsync:
            await asyncio.to_thread(put, spool)
        else:
            put(spool)
        self._bring(spool)

    def _wanted(self) -> Spool:
        if self._terms.folder is None:
            raise ConfigurationError("is needed for what is told later: a folder on the disk", field="spool")
        if self._spool is None:
            self._spool = Spool(self._terms.folder, fsync=self._terms.fsync)
        return self._spool

    def _bring(self, spool: Spool) -> AsyncCourier:
        if self._courier is None or not self._courier.is_alive:
            self._courier = AsyncCourier(spool, self.attempt)
        self._courier.notice()
        return self._courier

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._terms.connections, keepalive_timeout=_IDLE_S)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


class _Broken(Unavailable):
    """A connection that had been kept broke off: another one may do."""
