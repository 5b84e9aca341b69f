"""The blocking client, for threads: it says what `gateway.sdk.client` says, and waits.

with Tallygate("http://127.0.0.1:8080", on_outage="refuse") as tallygate:
    tallygate.require(key=key, feature="sms", quantity=1)
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, Unpack

from billing_core.errors import ConfigurationError, Failure, TooLarge, Unavailable
from gateway.admission.order import Mode
from gateway.edge.wire import CheckAnswer, EventsAnswer, SettleAnswer
from gateway.sdk import ask
from gateway.sdk.ask import Act, Asked, HoldAsked
from gateway.sdk.connection import BrokenConnection, Pool
from gateway.sdk.courier import Courier
from gateway.sdk.event import EventAsked, encode_event
from gateway.sdk.hold import Charging, Hold
from gateway.sdk.patience import Health, Patience, Said, late_charge_of, terms_of
from gateway.sdk.refusal import require
from gateway.sdk.spool import Spool

Value = TypeVar("Value")
P = ParamSpec("P")


class Tallygate:
    """A gateway, asked from any number of threads. Enter it, or `close` it when it is needed no more."""

    def __init__(self, url: str, **said: Unpack[Said]) -> None:
        """Who asks, where, and for how long: see `gateway.sdk.patience.Said`. Raises: ConfigurationError."""
        self._terms = terms_of(url, **said)
        self._health = Health()
        self._pool = Pool(
            self._terms.url, headers=ask.headers(self._terms.token), most_idle=self._terms.connections
        )
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._courier: Courier | None = None

    def __enter__(self) -> Tallygate:
        """Begin to bring what an earlier process left in the spool."""
        if self._terms.folder is not None:
            self._bring(self._wanted())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, **asked: Unpack[Asked]) -> CheckAnswer:
        """Decide and debit in one step. Raises: Unavailable; Failure where the request is at fault."""
        return self._decide(ask.check(asked))

    def peek(self, **asked: Unpack[Asked]) -> CheckAnswer:
        """What a check would answer; nothing is changed. Raises: as `check`."""
        return self._decide(ask.check(asked, mode=Mode.PEEK))

    def require(self, **asked: Unpack[Asked]) -> CheckAnswer:
        """Decide and debit. Raises: Refused; else as `check`."""
        return require(self.check(**asked))

    def hold(self, **asked: Unpack[HoldAsked]) -> Hold:
        """Set an amount aside for as long as the block runs; see `gateway.sdk.hold`."""
        return Hold(self, asked)

    def place(self, asked: HoldAsked) -> CheckAnswer:
        """Place a hold."""
        return self._decide(ask.check(asked, mode=Mode.HOLD))

    def settle(self, hold_id: str, used: ask.Quantities) -> SettleAnswer | None:
        """End a hold by what was used; None where that stands in the spool, to be told later."""
        return self._end(ask.settle(hold_id, used))

    def release(self, hold_id: str) -> SettleAnswer | None:
        """End a hold without a charge; None where that stands in the spool, to be told later."""
        return self._end(ask.release(hold_id))

    def record(self, **asked: Unpack[Asked]) -> None:
        """What was done already and is never refused: it is on the disk now, and charged soon."""
        self._keep(ask.check(asked, mode=Mode.RECORD))

    def event(self, **asked: Unpack[EventAsked]) -> str:
        """A usage event: it is on the disk now, and with the gateway soon; its id."""
        event_id, raw = encode_event(asked)
        spool = self._wanted()
        spool.put_event(raw)
        self._bring(spool)
        return event_id

    def events(self, *asked: EventAsked) -> EventsAnswer:
        """Usage events, told now; an answer for each. Raises: as `check`, also where `on_outage` allows."""
        return self.tell(ask.events([encode_event(one)[1] for one in asked]))

    def flush(self, *, within_s: float = 60) -> bool:
        """Wait until all that stands in the spool is with the gateway; whether it is."""
        return self._bring(self._wanted()).flushed(within_s=within_s)

    def charged(self, charging: Charging[P]) -> Callable[[Callable[P, Value]], Callable[P, Value]]:
        """A decorator: each call is charged first, or held and settled if it returns. Raises: as `require`."""

        def decorate(function: Callable[P, Value]) -> Callable[P, Value]:
            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> Value:
                asked = charging.asked(*args, **kwargs)
                if not charging.ttl_ms:
                    self.require(**asked)
                    return function(*args, **kwargs)
                with self.hold(**asked, ttl_ms=charging.ttl_ms):
                    return function(*args, **kwargs)

            return call

        return decorate

    def tell(self, act: Act[Value]) -> Value:
        """Ask until there is an answer, or the deadline has come. Raises: Unavailable; Failure."""
        patience = Patience(self._terms, self._health)
        while True:
            try:
                answer = self._attempt(act, until_s=patience.attempt_until_s())
            except Unavailable as failure:
                pause_s = patience.next_pause_s(failure.detail, is_broken=isinstance(failure, BrokenConnection))
            except Failure:
                patience.answered()
                raise
            else:
                patience.answered()
                return answer
            time.sleep(pause_s)

    def close(self) -> None:
        """Finish what the spool has if the gateway takes it; the rest is brought next time."""
        with self._lock:
            courier, spool = self._courier, self._spool
            self._courier = self._spool = None
        if courier is not None and courier.is_alive:
            courier.flushed(within_s=self._terms.deadline_ms / 1_000)
            courier.stop()
        if spool is not None:
            spool.close()
        self._pool.close()

    def _attempt(self, act: Act[Value], *, until_s: float) -> Value:
        status, content = self._pool.ask(act.path, act.body, until_s=until_s)
        return ask.read(act, status, content=content)

    def _attempt_once(self, act: Act[Any]) -> object:
        return self._attempt(act, until_s=time.monotonic() + self._terms.attempt_ms / 1_000)

    def _decide(self, act: Act[CheckAnswer]) -> CheckAnswer:
        try:
            return self.tell(act)
        except Unavailable as failure:
            late = late_charge_of(act, failure, on_outage=self._terms.on_outage)
            try:
                if late:
                    self._keep(act, otherwise=late)
            except (TooLarge, OSError) as full:
                raise Unavailable(f"nobody answered, and the spool cannot keep the charge: {full}") from None
            return ask.allowed_without_decision()

    def _end(self, act: Act[SettleAnswer]) -> SettleAnswer | None:
        try:
            return self.tell(act)
        except Unavailable:
            if self._terms.folder is None:
                raise
            self._keep(act)
            return None

    def _keep(self, act: Act[Any], *, otherwise: bytes = b"") -> None:
        spool = self._wanted()
        spool.put_act(act, otherwise=otherwise)
        self._bring(spool)

    def _wanted(self) -> Spool:
        if self._terms.folder is None:
            raise ConfigurationError("is needed for what is told later: a folder on the disk", field="spool")
        with self._lock:
            if self._spool is None:
                self._spool = Spool(self._terms.folder, fsync=self._terms.fsync)
            return self._spool

    def _bring(self, spool: Spool) -> Courier:
        with self._lock:
            if self._courier is None or not self._courier.is_alive:
                self._courier = Courier(spool, self._attempt_once)
            courier = self._courier
        courier.notice()
        return courier
