"""Budgets: how a customer's own means are shared out below it, in units and in money.

A budget document names nodes. `""` is the customer itself; `team:ml/project:chat` one node; `team:*` stands for
every team that is not named. Each has guards for features and spend caps. What holds a node is found feature by
feature and cap by cap: what the node says, else what its kind's `*` says, else the plan's default for the level. A
guard without a word lifts the default. At the customer nothing is lifted: its budget only narrows what the plan and
the other sources allow.

A document is replaced whole, and so is what a gateway knows of it.

Worked example: a plan lets every key make 1,000 requests a day; the document says 50 for `key:*` and 5,000 for
`team:ml/key:batch`. A key `k1` makes 50, the key `batch` of team `ml` 5,000, the key `batch` of another team 50.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from billing_core.catalog.document import Feature, FeatureKind
from billing_core.catalog.fault import Fault, raise_first
from billing_core.catalog.guard import EntitlementTerms, Guard, PlanSpendCap, SpendCap, SpendLevel
from billing_core.catalog.guard_rule import cap_faults, guard_faults
from billing_core.contract.path import Level, level_of, parse_path
from billing_core.errors import InvalidInput
from billing_core.values.ids import Code

MAX_NODES = 1_000
MAX_GUARDS = 50
MAX_CAPS = 8
_DEFAULTS = {f"{level}:*": level for level in Level}


class FeatureGuard(Guard, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds one feature back."""

    feature: Code


class BudgetNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds one node back, or all nodes of a kind."""

    node: str = ""
    guards: tuple[FeatureGuard, ...] = ()
    spend_caps: tuple[SpendCap, ...] = ()


class BudgetDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All budgets of a customer."""

    nodes: tuple[BudgetNode, ...] = ()

    @property
    def customer(self) -> BudgetNode:
        """What holds the customer itself back."""
        return next((one for one in self.nodes if not one.node), _NOTHING)


class NodeTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a node back once all is counted in: guards by feature, caps by counter."""

    guards: Mapping[str, Guard] = {}
    caps: Mapping[str, SpendCap] = {}


_NOTHING = BudgetNode()


def check_budgets(document: BudgetDocument, *, features: Mapping[str, Feature], units: Collection[str]) -> None:
    """Raise InvalidInput unless the document is sound; `features` and credit `units` are those of the tenant."""
    raise_first(list(_faults(document, features=features, units=units)))


def _faults(
    document: BudgetDocument, *, features: Mapping[str, Feature], units: Collection[str]
) -> Iterator[Fault]:
    if len(document.nodes) > MAX_NODES:
        yield Fault("nodes", f"at most {MAX_NODES} nodes")
        return
    first: dict[str, int] = {}
    for index, one in enumerate(document.nodes):
        where = f"nodes[{index}]"
        if one.node in first:
            yield Fault(f"{where}.node", f"{one.node!r} is named by nodes[{first[one.node]}] already")
        first.setdefault(one.node, index)
        if one.node and one.node not in _DEFAULTS:
            try:
                parse_path(one.node)
            except InvalidInput as fault:
                yield Fault(f"{where}.node", f"{fault.detail}; or team:*, project:*, user:*, key:*")
        yield from _node_faults(one, where, features=features)
        yield from _cap_faults(one, where, units=units)


def _node_faults(one: BudgetNode, path: str, *, features: Mapping[str, Feature]) -> Iterator[Fault]:
    if len(one.guards) > MAX_GUARDS:
        yield Fault(f"{path}.guards", f"at most {MAX_GUARDS} guards")
        return
    named: set[str] = set()
    for index, guard in enumerate(one.guards):
        where = f"{path}.guards[{index}]"
        feature = features.get(guard.feature)
        if feature is None:
            yield Fault(f"{where}.feature", f"there is no feature {guard.feature!r}")
        elif feature.kind not in {FeatureKind.METERED, FeatureKind.GAUGE}:
            yield Fault(f"{where}.feature", f"a {feature.kind} feature cannot be limited")
        else:
            yield from guard_faults(guard, where, kind=feature.kind)
        if guard.feature in named:
            yield Fault(f"{where}.feature", f"{guard.feature!r} is guarded at this node already")
        named.add(guard.feature)


def _cap_faults(one: BudgetNode, path: str, *, units: Collection[str]) -> Iterator[Fault]:
    if len(one.spend_caps) > MAX_CAPS:
        yield Fault(f"{path}.spend_caps", f"at most {MAX_CAPS} spend caps")
        return
    counters: set[str] = set()
    for index, cap in enumerate(one.spend_caps):
        where = f"{path}.spend_caps[{index}]"
        yield from cap_faults(cap, where, currency="", units=units)
        counter = cap.counter_in("")
        if counter in counters:
            yield Fault(where, "the same currency and windows are capped at this node already")
        counters.add(counter)


def customer_caps(
    document: BudgetDocument, plan_caps: tuple[PlanSpendCap, ...], *, currency: str
) -> dict[str, SpendCap]:
    """The caps of the customer itself: of two on the same windows the one that refuses first."""
    caps = _plan_caps(plan_caps, SpendLevel.CUSTOMER, currency=currency)
    for cap in document.customer.spend_caps:
        counter = cap.counter_in(currency)
        caps[counter] = min(caps.get(counter, cap), cap, key=_first_to_refuse)
    return caps


def node_terms(
    document: BudgetDocument,
    entitled: Mapping[str, EntitlementTerms],
    *,
    plan_caps: tuple[PlanSpendCap, ...] = (),
    currency: str = "",
) -> dict[str, NodeTerms]:
    """What holds each named node back, and under `team:*` and its like every other; empty ones are left out."""
    named = {one.node: one for one in document.nodes if one.node}
    found: dict[str, NodeTerms] = {}
    for star, level in _DEFAULTS.items():
        default = NodeTerms(
            guards=_level_guards(entitled, level),
            caps=_plan_caps(plan_caps, SpendLevel(level.value), currency=currency),
        )
        found[star] = _over(default, named.get(star, _NOTHING), entitled=entitled)
    for node, one in named.items():
        if node not in _DEFAULTS:
            found[node] = _over(found[f"{level_of(node)}:*"], one, entitled=entitled)
    return {node: terms for node, terms in found.items() if terms.guards or terms.caps}


def _over(below: NodeTerms, one: BudgetNode, *, entitled: Mapping[str, EntitlementTerms]) -> NodeTerms:
    told = {guard.feature: guard for guard in one.guards if guard.feature in entitled}
    return NodeTerms(
        guards={**below.guards, **told},
        caps={**below.caps, **{cap.counter_in(""): cap for cap in one.spend_caps}},
    )


def _level_guards(entitled: Mapping[str, EntitlementTerms], level: Level) -> dict[str, Guard]:
    told = {code: terms.levels.told.get(level) for code, terms in entitled.items()}
    return {code: guard for code, guard in told.items() if guard is not None}


def _plan_caps(caps: tuple[PlanSpendCap, ...], level: SpendLevel, *, currency: str) -> dict[str, SpendCap]:
    return {cap.counter_in(currency): cap for cap in caps if cap.level is level}


def _first_to_refuse(cap: SpendCap) -> tuple[bool, int, int]:
    return cap.ceiling < 0, cap.ceiling, cap.nanos
