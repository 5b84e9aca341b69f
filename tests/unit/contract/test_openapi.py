"""The document of a small plane: what is made of types, and in which form."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from billing_core.contract.openapi.document import document_of
from billing_core.contract.openapi.operation import Operation, Parameter, Plane, Reply, Scheme
from billing_core.contract.problem import Problem
from billing_core.values.ids import Code

Item = TypeVar("Item")


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    """What comes in.

    On two
    lines.
    """

    code: Code
    note: str = ""


class Shown(msgspec.Struct):
    """What goes out."""

    note: str


class Page(msgspec.Struct, Generic[Item]):
    """Some of them."""

    items: tuple[Item, ...]


class Query(msgspec.Struct):
    """How many, and of whom."""

    limit: int = 5
    owner: Code | None = None


def made() -> dict[str, Any]:
    name = Parameter(name="code", place="path", kind=Code, is_required=True)
    document = document_of(
        Plane(
            title="t",
            version="1",
            says="s",
            schemes=(Scheme(name="operator", says="A token."), Scheme(name="signed", says="S.", header="X-Sign")),
            operations=(
                Operation(
                    method="POST",
                    path="/things/{code}",
                    name="make",
                    summary="Make one",
                    parameters=(name,),
                    body=Draft,
                    replies=(Reply(status=201, says="It is made.", kind=(Shown, Draft)),),
                    failures=(201, 409),
                    schemes=("operator", ""),
                ),
                Operation(
                    method="GET",
                    path="/things/{code}",
                    name="look",
                    summary="Look",
                    query=Query,
                    replies=(Reply(status=200, says="Some.", kind=Page[Shown]),),
                ),
            ),
            also=(Problem,),
            text_rule={"maxLength": 7},
        )
    )
    return msgspec.json.decode(document)


def test_what_comes_in_is_bounded_and_patterns_are_of_json_schema() -> None:
    """The same field going out has no such bound."""
    schemas = made()["components"]["schemas"]
    draft = schemas["Draft"]["properties"]
    assert draft["note"] == {"type": "string", "default": "", "maxLength": 7}
    assert draft["code"]["pattern"].endswith("{0,63}$")
    assert schemas["Shown"]["properties"]["note"] == {"type": "string"}
    assert schemas["Draft"]["description"] == "What comes in.\n\nOn two lines."


def test_names_are_readable_and_a_query_string_is_no_schema() -> None:
    """Pages by what stands on them."""
    assert set(made()["components"]["schemas"]) == {"Draft", "Shown", "ShownPage", "Problem"}


def test_a_query_string_has_no_null() -> None:
    """What may be null may be left out."""
    told = {one["name"]: one for one in made()["paths"]["/things/{code}"]["get"]["parameters"]}
    assert told["limit"] == {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "default": 5},
    }
    assert set(told["owner"]["schema"]) == {"type", "pattern"}


def test_an_operation_says_who_may_and_what_comes_back() -> None:
    """A status that is told is not told again as a failure."""
    told = made()["paths"]["/things/{code}"]["post"]
    assert told["security"] == [{"operator": []}, {}]
    content = told["responses"]["201"]["content"]["application/json"]["schema"]
    assert content == {"anyOf": [{"$ref": "#/components/schemas/Shown"}, {"$ref": "#/components/schemas/Draft"}]}
    assert told["responses"]["409"] == {"$ref": "#/components/responses/Problem"}
    assert made()["components"]["securitySchemes"]["signed"]["name"] == "X-Sign"
