"""Price: what a model costs where nobody publishes it, or where you pay another price.

Floor 1, pure: a folder's words for money. What holds for which request is `measure.overrides`'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from extproc.measure.overrides import ALWAYS_NS, Override, Overrides
from extproc.measure.tariff import INPUT, OUTPUT, Tariff
from extproc.policy.literals import KNOWN
from extproc.policy.money import AMOUNT_SCHEMA, decimal
from extproc.policy.objects import Block, PolicyObject, Spec, one_of, one_or_more, rejected, whole
from extproc.policy.suggest import did_you_mean

# A dollar a token is far above any price.
_MOST: Final = Decimal(1_000_000)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MODEL: Final = re.compile(r"[^\s*{}]{0,255}[^\s{}]")

# The fields of `usdPerMillion`, the whole before its parts -> the names of their prices in tariffs.
_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "input": INPUT,
        "cache_read": "cache_read_mtok",
        "cache_write": "cache_write_mtok",
        "cache_write_1h": "cache_write_1h_mtok",
        "audio_input": "input_audio_mtok",
        "image_input": "input_image_mtok",
        "tool_input": "input_tool_mtok",
    }
)
_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "output": OUTPUT,
        "reasoning_output": "output_reasoning_mtok",
        "audio_output": "output_audio_mtok",
        "image_output": "output_image_mtok",
    }
)


def _price(value: Any) -> Decimal:
    amount = decimal(value)
    if amount > _MOST:
        raise rejected("this is more than a dollar a token; prices are US dollars for a million tokens")
    return amount


def _percent(value: Any) -> Decimal:
    amount = decimal(value)
    if amount > 100:  # noqa: PLR2004  percent
        raise rejected("a discount is between 0 and 100 percent")
    return amount


def _day_ns(value: Any) -> int:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) and _DATE.fullmatch(value) else None
    except ValueError:
        day = None
    if day is None:
        raise rejected('a day is wanted, such as "2026-01-31"; it begins at midnight UTC')
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1_000


def _model(name: str) -> str:
    if not _MODEL.fullmatch(name) or name != name.lower():
        raise rejected(
            "a model is lower case, without spaces; only a beginning of names ends in *, such as llama-3*"
        )
    return name


def _some(models: tuple[str, ...]) -> tuple[str, ...]:
    if not models:
        raise rejected('at least one model must be named; "*" is every model')
    if len(set(models)) < len(models):
        raise rejected("a model is there twice")
    return models


def _known(name: str | None, info: ValidationInfo) -> str | None:
    known = (info.context or {}).get("known", KNOWN)["request.provider"]
    if name is not None and name not in known:
        meant = did_you_mean(name, known)
        raise rejected(f"no provider has this name; the providers are {', '.join(known)}{meant}")
    return name


Dollars = Annotated[
    Decimal | None,
    PlainValidator(_price),
    WithJsonSchema({**AMOUNT_SCHEMA, "minimum": 0, "maximum": 1_000_000}),
]
Percent = Annotated[
    Decimal | None,
    PlainValidator(_percent),
    WithJsonSchema({**AMOUNT_SCHEMA, "minimum": 0, "maximum": 100}),
]
Model = Annotated[
    str,
    AfterValidator(_model),
    WithJsonSchema(
        {"type": "string", "pattern": "^[^\\sA-Z*{}]{0,255}[^\\sA-Z{}]$", "examples": ["llama-3*"]}
    ),
]
Day = Annotated[
    int,
    PlainValidator(_day_ns),
    WithJsonSchema({"type": "string", "format": "date", "pattern": whole(_DATE)}),
]


class UsdPerMillion(Block):
    """US dollars for a million tokens; a part without a price of its own has that of its whole."""

    model_config = ConfigDict(
        json_schema_extra={
            **one_or_more("input", "output"),
            "dependentRequired": {
                to_camel(part): [first] for first, *parts in (_INPUTS, _OUTPUTS) for part in parts
            },
        }
    )

    input: Dollars = None
    """Of input tokens."""
    output: Dollars = None
    """Of output tokens."""
    cache_read: Dollars = None
    """Of input read from the provider's cache."""
    cache_write: Dollars = None
    """Of input written to it."""
    cache_write_1h: Dollars = Field(default=None, alias="cacheWrite1h")
    """Of input written to it for an hour."""
    audio_input: Dollars = None
    """Of audio that is sent."""
    image_input: Dollars = None
    """Of images that are sent."""
    tool_input: Dollars = None
    """Of what the provider's tools put in."""
    reasoning_output: Dollars = None
    """Of reasoning."""
    audio_output: Dollars = None
    """Of audio that is generated."""
    image_output: Dollars = None
    """Of images that are generated."""

    @model_validator(mode="after")
    def _whole(self) -> UsdPerMillion:
        if not self.listed:
            raise rejected("at least one of input, output must be given")
        for first, *parts in (_INPUTS, _OUTPUTS):
            if getattr(self, first) is None and any(getattr(self, part) is not None for part in parts):
                raise rejected(f"{first} must be given too: what its parts leave over has a price")
        return self

    @cached_property
    def listed(self) -> Mapping[str, Decimal]:
        """The prices that are given, as tariffs call them."""
        given = ((listed, getattr(self, name)) for name, listed in {**_INPUTS, **_OUTPUTS}.items())
        return MappingProxyType({listed: price for listed, price in given if price is not None})


class Price(Spec):
    """The price of some models from a day on, or a discount on what is published.

    An exact model comes before the longest beginning, then one that names the provider, then the latest
    day that has begun. What has no price at all has no cost, and no estimate: an expression that
    compares `cost.estimated_usd` fails there, so that an allow-rule never grants, a deny-rule denies
    by its onError, and `has(cost.estimated_usd)` is how to say otherwise.
    """

    model_config = ConfigDict(json_schema_extra=one_of("usdPerMillion", "discountPercent"))

    provider: Annotated[str | None, AfterValidator(_known)] = None
    """Whose models, as request.provider calls it; left out: anybody's."""
    # Not by min_length: that would count a model with a fault as one that is not there.
    models: Annotated[tuple[Model, ...], AfterValidator(_some)] = Field(json_schema_extra={"minItems": 1})
    """Lower-case names; one that ends in * is a beginning, and * alone every model."""
    from_: Day = Field(default=ALWAYS_NS, alias="from")  # Unix nanoseconds once loaded
    """The day it begins, at midnight UTC; left out: always."""
    usd_per_million: UsdPerMillion | None = None
    """US dollars for a million tokens."""
    discount_percent: Percent = None
    """What comes off the published price instead."""

    @model_validator(mode="after")
    def _one_price(self) -> Price:
        if (self.usd_per_million is None) == (self.discount_percent is None):
            raise rejected("exactly one of usdPerMillion, discountPercent must be given")
        return self


def overrides(prices: Iterable[PolicyObject[Price]], revision: str) -> Overrides:
    """What these objects say of money; `revision` is that of their folder."""
    return Overrides(_override(item, revision) for item in prices)


def _override(item: PolicyObject[Price], revision: str) -> Override:
    spec = item.spec
    listed = spec.usd_per_million.listed if spec.usd_per_million else {}
    return Override(
        revision=f"{item.ref}@{revision}",
        models=spec.models,
        provider=spec.provider or "",
        begins_ns=spec.from_,
        tariff=Tariff(listed) if listed else None,
        has_input=INPUT in listed,
        has_output=OUTPUT in listed,
        percent=100 - (spec.discount_percent or Decimal(0)),
    )
