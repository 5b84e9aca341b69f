"""The catalog: a document that was found to hold together, with look-ups, and the terms cut out of it.

A subscription is bound to a version of a plan, and a bill must be replayable after the catalog has changed. So a
plan version keeps **terms**: the plan with the meters and features that it names, and nothing else. Two terms with
the same digest are the same terms; a plan whose terms did not change keeps its version.

Worked example: renaming a feature that plan `starter` does not use leaves the digest of `starter` alone; a second
digit on one of its prices, or another aggregation of one of its meters, changes it.
"""

from __future__ import annotations

import hashlib
import tomllib
from typing import TypeVar

import msgspec

from billing_core.catalog.document import Addon, CatalogDocument, Feature, Meter, Plan, Price
from billing_core.catalog.guard import EntitlementTerms
from billing_core.catalog.rule import check_document
from billing_core.contract.problem import decode_json
from billing_core.errors import InvalidInput, NotFound

Named = TypeVar("Named", Meter, Feature, Plan, Price, Addon)

_DOCUMENT = msgspec.json.Decoder(CatalogDocument)
_CANONICAL = msgspec.json.Encoder(order="sorted")


class PlanTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One plan with the meters and features that it names: all that is needed to price and entitle by it."""

    plan: Plan
    meters: tuple[Meter, ...] = ()
    features: tuple[Feature, ...] = ()

    def meter(self, code: str) -> Meter:
        """The meter of that code. Raises: NotFound."""
        return _named(self.meters, code, kind="meter")

    def feature(self, code: str) -> Feature:
        """The feature of that code. Raises: NotFound."""
        return _named(self.features, code, kind="feature")

    def price(self, code: str) -> Price:
        """The price of that code. Raises: NotFound."""
        return _named(self.plan.prices, code, kind="price")

    def entitlement(self, feature: str) -> EntitlementTerms | None:
        """What the plan says about a feature, if anything."""
        return next((one for one in self.plan.entitlements if one.feature == feature), None)


class AddonTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One add-on with the features that it names: kept with whoever took it."""

    addon: Addon
    features: tuple[Feature, ...] = ()

    def feature(self, code: str) -> Feature:
        """The feature of that code. Raises: NotFound."""
        return _named(self.features, code, kind="feature")


class PlanVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Terms under the number that the store gave them, 1 for the first."""

    version: int
    terms: PlanTerms

    def price_id(self, price: Price) -> str:
        """The price's name in counters and on invoice lines: `plan:version:price`."""
        return f"{self.terms.plan.code}:{self.version}:{price.code}"


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """A document that holds together. Made by `catalog_of`."""

    document: CatalogDocument

    def meter(self, code: str) -> Meter:
        """The meter of that code. Raises: NotFound."""
        return _named(self.document.meters, code, kind="meter")

    def feature(self, code: str) -> Feature:
        """The feature of that code. Raises: NotFound."""
        return _named(self.document.features, code, kind="feature")

    def plan(self, code: str) -> Plan:
        """The plan of that code. Raises: NotFound."""
        return _named(self.document.plans, code, kind="plan")

    def terms(self, plan_code: str) -> PlanTerms:
        """The plan with what it names, sorted by code. Raises: NotFound."""
        plan = self.plan(plan_code)
        named = {one.feature for one in plan.entitlements} | {price.feature for price in plan.prices}
        features = [feature for feature in self.document.features if feature.code in named]
        read = {price.meter for price in plan.prices} | {feature.meter for feature in features}
        meters = [meter for meter in self.document.meters if meter.code in read]
        return PlanTerms(
            plan=plan,
            meters=tuple(sorted(meters, key=lambda meter: meter.code)),
            features=tuple(sorted(features, key=lambda feature: feature.code)),
        )

    def addon_terms(self, addon_code: str) -> AddonTerms:
        """The add-on with what it names, sorted by code. Raises: NotFound."""
        addon = _named(self.document.addons, addon_code, kind="add-on")
        named = {one.feature for one in addon.entitlements}
        features = [feature for feature in self.document.features if feature.code in named]
        return AddonTerms(addon=addon, features=tuple(sorted(features, key=lambda feature: feature.code)))


def catalog_of(document: CatalogDocument) -> Catalog:
    """The document as a catalog.

    Raises: InvalidInput with the path of the first fault, its rule, and how many more there are.
    """
    check_document(document)
    return Catalog(document=document)


def document_of_toml(text: str) -> CatalogDocument:
    """The document in a TOML file's text.

    Raises: InvalidInput where it is no TOML, or a field is unknown, missing or of another type.
    """
    try:
        words = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"not a TOML document: {error}", field="body") from None
    return decode_json(msgspec.json.encode(words), _DOCUMENT)


def canonical_json(value: PlanTerms | CatalogDocument) -> bytes:
    """The one spelling of a value: keys sorted, defaults left out, no white space."""
    return _CANONICAL.encode(value)


def terms_digest(terms: PlanTerms) -> str:
    """What tells two versions of a plan apart: sha256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical_json(terms)).hexdigest()


def _named(things: tuple[Named, ...], code: str, *, kind: str) -> Named:
    for thing in things:
        if thing.code == code:
            return thing
    raise NotFound(f"there is no {kind} {code!r}", field=kind.replace("-", ""))
