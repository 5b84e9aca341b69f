"""Wallets: prepaid balances in money or credits, how money comes into them, and what is in them now."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer
from rich.console import Group, RenderableType

from billing_core.errors import InvalidInput
from gateway.command.client.bill import Grant, TopUp, Wallet, Wallets
from gateway.command.client.decision import LiveWallet, LiveWallets
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import CustomerArgument, IdempotencyKey, instant_or_none, key_or_new
from gateway.command.terminal.table import day, facts_of, minor, nanos, table_of

wallets = typer.Typer(name="wallets", help="Prepaid balances.", no_args_is_help=True)

_NONE: Final = "No wallet yet: `tallygate wallets top-up` makes one."

CurrencyOption = Annotated[str, typer.Option(help="The wallet: an ISO 4217 code, or a credit unit of the catalog.")]
AmountArgument = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the major unit, such as 25.00.")]
GrantArgument = Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id, as `wallets show` tells it.")]


class PriceTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What all of the credits cost."""

    currency: str
    amount: str


class BlockTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said of a credit block, whether it is paid for or given."""

    priority: int | None = None
    effective_at: str | None = None
    expires_at: str | None = None
    features: tuple[str, ...] = ()
    price: PriceTerms | None = None
    note: str = ""


def block_terms(
    *,
    priority: Annotated[int | None, typer.Option(min=0, max=255, help="Lower is drawn down first.")] = None,
    effective: Annotated[
        str, typer.Option(metavar="TIME", help="From when on it can be used; now if left out.")
    ] = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help="When what is left lapses.")] = "",
    feature: Annotated[
        list[str] | None, typer.Option(help="Only for this feature; once per feature. All if left out.")
    ] = None,
    price: Annotated[str, typer.Option(metavar="MONEY", help="What all of the credits cost, as `10.00 USD`.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> BlockTerms:
    """The options of a credit block. Raises: InvalidInput where a time or a price is none."""
    return BlockTerms(
        priority=priority,
        effective_at=instant_or_none(effective, field="effective"),
        expires_at=instant_or_none(expires, field="expires"),
        features=tuple(feature or ()),
        price=_price(price),
        note=note,
    )


def _price(text: str) -> PriceTerms | None:
    if not text:
        return None
    amount, _, currency = text.partition(" ")
    if not amount or not currency.strip():
        raise InvalidInput(f"{text!r} is not an amount and a currency, such as `10.00 USD`", field="price")
    return PriceTerms(currency=currency.strip(), amount=amount)


class _TopUpDraft(BlockTerms, frozen=True, kw_only=True, omit_defaults=True):
    """A top-up as the control plane takes it."""

    amount: str
    method: str = ""
    reference: str = ""


class _GrantDraft(BlockTerms, frozen=True, kw_only=True, omit_defaults=True):
    """A grant as the control plane takes it."""

    amount: str
    kind: str = "promotional"


@hang(wallets, "show")
def show_wallets(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    live: Annotated[bool, typer.Option("--live", help="As the gateway sees it at this moment.")] = False,
) -> None:
    """A customer's balances and the grants that make them."""
    path = route("/v1/customers/{}/wallets", customer_id)
    if live:
        desk.show(lambda planes: planes.gateway.get(path, LiveWallets), _live_page)
    else:
        desk.show(lambda planes: planes.control.get(path, Wallets), _wallets_page)


@hang(wallets, "top-up", terms=block_terms)
def top_up(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    amount: AmountArgument,
    currency: CurrencyOption = "USD",
    method: Annotated[str, typer.Option(help="stripe, ach or wire; how the customer pays if left out.")] = "",
    reference: Annotated[
        str, typer.Option(help="What the bank statement says: an ACH or wire that has come.")
    ] = "",
    terms: BlockTerms,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Buy credit: by Stripe at once; by ACH or wire when it has come, see `payments receive`."""
    draft = _TopUpDraft(amount=amount, method=method, reference=reference, **msgspec.structs.asdict(terms))
    path, key = route("/v1/customers/{}/wallets/{}/top-ups", customer_id, currency), key_or_new(idempotency_key)
    desk.show(lambda planes: planes.control.post(path, TopUp, body=draft, idempotency_key=key), _top_up_facts)


@hang(wallets, "grant", terms=block_terms)
def grant(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    amount: AmountArgument,
    currency: CurrencyOption = "USD",
    terms: BlockTerms,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Give promotional credit: nothing is paid, and nothing becomes revenue."""
    draft = _GrantDraft(amount=amount, **msgspec.structs.asdict(terms))
    _give(
        desk, route("/v1/customers/{}/wallets/{}/grants", customer_id, currency), draft=draft, key=idempotency_key
    )


@hang(wallets, "overdraft", terms=block_terms)
def overdraft(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    amount: AmountArgument,
    currency: CurrencyOption = "USD",
    terms: BlockTerms,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Let a wallet be overdrawn up to AMOUNT: what is drawn is owed, and the next top-up repays it."""
    draft = _GrantDraft(amount=amount, kind="overdraft", **msgspec.structs.asdict(terms))
    _give(
        desk, route("/v1/customers/{}/wallets/{}/grants", customer_id, currency), draft=draft, key=idempotency_key
    )


@hang(wallets, "lower")
def lower(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    grant_id: GrantArgument,
    amount: AmountArgument,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Lower an overdraft's limit to AMOUNT; what is drawn above it stays owed."""
    path = route("/v1/customers/{}/grants/{}/lower", customer_id, grant_id)
    _give(desk, path, draft={"amount": amount}, key=idempotency_key)


@hang(wallets, "void")
def void(
    desk: Desk, customer_id: CustomerArgument, *, grant_id: GrantArgument, idempotency_key: IdempotencyKey = ""
) -> None:
    """Take what is left of a grant out of its wallet."""
    _give(desk, route("/v1/customers/{}/grants/{}/void", customer_id, grant_id), draft=None, key=idempotency_key)


def _give(desk: Desk, path: str, *, draft: object, key: str) -> None:
    name = key_or_new(key)
    desk.show(lambda planes: planes.control.post(path, Grant, body=draft, idempotency_key=name), _grant_facts)


def _wallets_page(shown: Wallets) -> RenderableType:
    parts: list[RenderableType] = []
    for wallet in shown.wallets:
        parts += [_balances(wallet), _grant_table(wallet), ""]
    return Group(*parts[:-1]) if parts else _NONE


def _balances(wallet: Wallet) -> RenderableType:
    overdraft, owed = wallet.overdraft_nanos, wallet.owed_nanos
    return facts_of(
        (
            ("balance", nanos(wallet.balance_nanos, wallet.currency)),
            ("can be overdrawn", nanos(overdraft, wallet.currency) if overdraft else ""),
            ("owed", nanos(owed, wallet.currency) if owed else ""),
        )
    )


def _live_page(shown: LiveWallets) -> RenderableType:
    parts: list[RenderableType] = []
    for wallet in shown.wallets:
        balance = ("balance", nanos(wallet.balance_nanos, wallet.currency))
        held = ("held", nanos(wallet.held_nanos, wallet.currency) if wallet.held_nanos else "")
        parts += [facts_of((balance, held)), _live_table(wallet), ""]
    return Group(*parts[:-1]) if parts else _NONE


def _live_table(wallet: LiveWallet) -> RenderableType:
    return table_of(
        ("Grant", "Kind", ">Remaining", ">Held", ">Priority", "Expires", ""),
        (
            (
                one.id,
                one.kind,
                nanos(one.remaining_nanos, wallet.currency),
                nanos(one.held_nanos, wallet.currency),
                one.priority,
                day(one.expires_at),
                "" if one.usable else "cannot be used now",
            )
            for one in wallet.grants
        ),
    )


def _grant_table(wallet: Wallet) -> RenderableType:
    return table_of(
        ("Grant", "Kind", ">Granted", ">Spent", ">Lapsed", ">Priority", "Expires", "Only for"),
        (
            (
                one.grant_id,
                one.kind,
                nanos(one.amount_nanos, wallet.currency),
                nanos(one.spent_nanos, wallet.currency),
                nanos(one.lapsed_nanos, wallet.currency),
                one.priority,
                day(one.expires_at),
                " ".join(one.features),
            )
            for one in wallet.grants
        ),
    )


def _grant_facts(one: Grant) -> RenderableType:
    return facts_of(
        (
            ("grant", one.grant_id),
            ("amount", nanos(one.amount_nanos, one.currency) if one.currency else ""),
            ("kind", one.kind),
            ("limit", "" if one.lowered_nanos is None else nanos(one.lowered_nanos, one.currency)),
            ("price", "" if one.price is None else nanos(one.price.nanos, one.price.currency)),
            ("only for", " ".join(one.features)),
            ("expires", day(one.expires_at)),
            ("note", one.note),
            ("at the gateway", _told(one)),
        )
    )


def _top_up_facts(one: TopUp) -> RenderableType:
    payment = one.payment
    return facts_of(
        (
            ("payment", payment.payment_id),
            ("amount", minor(payment.amount_minor, payment.currency)),
            ("method", payment.method),
            ("state", payment.state),
            ("failure", payment.failure_code),
            ("grant", one.grant_id or "comes with the payment"),
            ("at the gateway", _told(one) if one.grant_id else ""),
        )
    )


def _told(one: Grant | TopUp) -> str:
    """Whether the next check counts it; "" where nothing was said."""
    return {None: "", True: "now", False: "follows as soon as Redis answers"}[one.applied]
