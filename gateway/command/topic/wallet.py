"""Wallets: prepaid balances, how money comes into them, and what is in them now."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer
from rich.console import Group, RenderableType

from gateway.command.client.bill import Grant, TopUp, Wallet, Wallets
from gateway.command.client.decision import LiveWallet, LiveWallets
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import CustomerArgument, IdempotencyKey, instant_or_none, key_or_new
from gateway.command.terminal.table import day, facts_of, minor, nanos, table_of

wallets = typer.Typer(name="wallets", help="Prepaid balances.", no_args_is_help=True)

_NONE: Final = "No wallet yet: `tallygate wallets top-up` makes one."

CurrencyOption = Annotated[str, typer.Option(help="ISO 4217 code of the wallet.")]
AmountArgument = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the major unit, such as 25.00.")]


class BlockTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said of a credit block, whether it is paid for or given."""

    priority: int | None = None
    expires_at: str | None = None
    note: str = ""


def block_terms(
    *,
    priority: Annotated[int | None, typer.Option(min=0, max=255, help="Lower is drawn down first.")] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="When what is left lapses.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> BlockTerms:
    """The options of a credit block. Raises: InvalidInput where a time is none."""
    return BlockTerms(priority=priority, expires_at=instant_or_none(expires, field="expires"), note=note)


class _TopUpDraft(BlockTerms, frozen=True, kw_only=True, omit_defaults=True):
    """A top-up as the control plane takes it."""

    amount: str
    method: str = ""
    reference: str = ""


class _GrantDraft(BlockTerms, frozen=True, kw_only=True, omit_defaults=True):
    """A grant as the control plane takes it."""

    amount: str
    effective_at: str | None = None


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
def grant(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    amount: AmountArgument,
    currency: CurrencyOption = "USD",
    effective: Annotated[
        str, typer.Option(metavar="TIME", help="From when on it can be used; now if left out.")
    ] = "",
    terms: BlockTerms,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Give promotional credit: nothing is paid, and nothing becomes revenue."""
    effective_at = instant_or_none(effective, field="effective")
    draft = _GrantDraft(amount=amount, effective_at=effective_at, **msgspec.structs.asdict(terms))
    path, key = route("/v1/customers/{}/wallets/{}/grants", customer_id, currency), key_or_new(idempotency_key)
    desk.show(lambda planes: planes.control.post(path, Grant, body=draft, idempotency_key=key), _grant_facts)


def _wallets_page(shown: Wallets) -> RenderableType:
    parts: list[RenderableType] = []
    for wallet in shown.wallets:
        parts += [facts_of((("balance", nanos(wallet.balance_nanos, wallet.currency)),)), _grant_table(wallet), ""]
    return Group(*parts[:-1]) if parts else _NONE


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
                "paid" if one.paid else "promotional",
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
        ("Grant", "Kind", ">Granted", ">Spent", ">Lapsed", ">Priority", "Expires"),
        (
            (
                one.grant_id,
                one.kind,
                nanos(one.amount_nanos, wallet.currency),
                nanos(one.spent_nanos, wallet.currency),
                nanos(one.lapsed_nanos, wallet.currency),
                one.priority,
                day(one.expires_at),
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
            ("expires", day(one.expires_at)),
            ("note", one.note),
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
        )
    )
