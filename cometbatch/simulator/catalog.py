"""The models of the simulator, all fictional, and the shapes in which the service lists them.

Law: each shape of `GET /api/models` in the contract sheet (section 8.1 and section 10 item 11) is here.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from cometbatch.records import Usage

CREATED = 1773798949  # Unix seconds, the sheet's own example: the simulator has no clock
LIST_CREATED = 1626777600  # Unix seconds; /v1/models gives every model this same time (section 8.2)
FULL_RATIO = Decimal("0.8")  # charged price / list price of most models, in shapes with a ratio (section 8.3)
SHORT_PAGE_ROWS = 6  # models on a page of a catalog that comes in pages
SHORT_PAGE_TOTAL = 302  # models that such a catalog says it has
PAGE_ROWS = 5  # models on a page of a catalog whose other pages can be had
BUSY_S = 1  # seconds from the first request on in which a busy catalog answers 429
CACHE_WRITE_FACTOR = Decimal("1.25")  # of the input rate (section 8.3); cache reads mostly cost the full input rate
CACHE_WRITE_1H_FACTOR = Decimal(2)  # of the input rate, for what is kept for an hour
SEARCH_FEE = Decimal("0.01")  # US dollars for the searches of one answer, beside its tokens
_MILLION = 1_000_000
_TEXT_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:generateContent",
}

Quirk = Literal[
    "snapshot",
    "extra-usage",
    "bare-usage",
    "reasoning-content",
    "cost",
    "tool-use",
    "parts-beside",
    "parts-inside",
    "search",
]
Endpoints = Literal["string", "object", "null", "double"]


class Model(Struct, frozen=True):
    """One model. Prices are US dollars per million tokens, per request or per second; None if it has no such price.

    `reasoning`: spends output tokens on thinking. `caching`: reports cached input; `writes`: also what it wrote to a
    cache, for five minutes and for an hour. `cache_read`: the price of cached input as a share of the input price.
    `listed`: False for a model that can be called but is not in the catalog. `upcoming`: in the catalog, but can't be
    called yet.
    """

    id: str
    code: str
    input: Decimal | None = None
    output: Decimal | None = None
    per_request: Decimal | None = None
    per_second: Decimal | None = None
    type: str = "text"
    context_length: str | int | None = "128K"
    max_completion_tokens: str | int | None = "8K"
    reasoning: bool = False
    caching: bool = False
    writes: bool = False
    cache_read: Decimal = Decimal(1)
    listed: bool = True
    upcoming: bool = False
    quirks: tuple[Quirk, ...] = ()


class CatalogShape(Struct, frozen=True):
    """One shape in which the service was seen to list its models.

    `page_name`: the name in a query by which other pages can be had; "" where all is on one. `busy`: the first requests
    are answered 429 with `Retry-After`.
    """

    short_page: bool = False
    page_name: str = ""
    busy: bool = False
    ratio: bool = False
    endpoints: Endpoints = "string"


def _tokens(input_price: str, output_price: str) -> tuple[Decimal, Decimal]:
    return Decimal(input_price), Decimal(output_price)


def _with_parts(name: str, *quirks: Quirk) -> Model:
    """A model whose tokens are of every kind that has a price of its own."""
    prices, tenth = _tokens("3", "15"), Decimal("0.1")
    return Model(name, name, *prices, reasoning=True, caching=True, writes=True, cache_read=tenth, quirks=quirks)


MODELS: tuple[Model, ...] = (
    Model("comet-sim-1", "comet-sim-1", *_tokens("0.5", "1.5"), quirks=("snapshot",)),
    Model("comet-sim-1-mini", "comet-sim-1-mini", *_tokens("0.1", "0.4"), quirks=("bare-usage",)),
    Model(
        "comet-sim-reasoner",
        "comet-sim-reasoner",
        *_tokens("2", "8"),
        context_length=1_000_000,
        reasoning=True,
        quirks=("reasoning-content", "extra-usage"),
    ),
    Model("comet-sim.2.5", "comet-sim-2-5", *_tokens("1.25", "10"), context_length="1M", quirks=("cost",)),
    Model("comet-sim-cache", "comet-sim-cache", *_tokens("3", "15"), caching=True),
    _with_parts("comet-sim-parts", "tool-use"),
    _with_parts("comet-sim-parts-beside", "tool-use", "parts-beside"),
    _with_parts("comet-sim-parts-inside", "tool-use", "parts-inside"),
    Model("comet-sim-search", "comet-sim-search", *_tokens("0.5", "1.5"), quirks=("search",)),
    Model("comet-sim-flat", "comet-sim-flat", per_request=Decimal("0.002")),
    Model("comet-sim-edge-20260317", "comet-sim-edge", *_tokens("0.037", "0.15"), context_length=None),
    Model("open-comets/comet-sim-8b", "open-comets-comet-sim-8b", *_tokens("0.02", "0.02"), quirks=("extra-usage",)),
    Model("comet-sim-unpriced", "comet-sim-unpriced", max_completion_tokens=None),
    Model("comet-sim-3", "comet-sim-3", *_tokens("5", "25"), upcoming=True),
    Model("comet-sim-image", "comet-sim-image", per_request=Decimal("0.04"), type="image", context_length=None),
    Model("comet-sim-video", "comet-sim-video", per_second=Decimal("0.1"), type="video", context_length=None),
    Model("comet-sim-unlisted", "comet-sim-unlisted", *_tokens("1", "2"), listed=False),
)
CATALOG_SHAPES: Mapping[str, CatalogShape] = MappingProxyType(
    {
        "full": CatalogShape(),
        "short-page": CatalogShape(short_page=True),
        "pages": CatalogShape(page_name="page"),
        "pages-by-p": CatalogShape(page_name="p"),
        "busy": CatalogShape(busy=True),
        "ratio": CatalogShape(ratio=True),
        "endpoints-object": CatalogShape(endpoints="object"),
        "endpoints-null": CatalogShape(endpoints="null"),
        "endpoints-double": CatalogShape(endpoints="double"),
    }
)
MODEL_BY_ID = {model.id: model for model in MODELS}
_BY_CODE = {model.code: model for model in MODELS}
_ENCODER = msgspec.json.Encoder(decimal_format="number")  # prices are JSON numbers, digit for digit


def callable_model(model_id: str, models: Mapping[str, Model] = MODEL_BY_ID) -> Model | None:
    """The model that can be called by this id, or None; an upcoming one can't be called yet."""
    model = models.get(model_id)
    return None if model is None or model.upcoming else model


def models_with(further: str | None) -> Mapping[str, Model]:
    """The models by their ids, with one more of this id that is like the first."""
    if further is None or further in MODEL_BY_ID:
        return MODEL_BY_ID
    return MODEL_BY_ID | {further: msgspec.structs.replace(MODELS[0], id=further, code=further)}


def is_code_only(name: str) -> bool:
    """Whether this is a model's `code` and no id: it has a detail page and can't be called (section 8.1)."""
    return name in _BY_CODE and name not in MODEL_BY_ID


def cost(model: Model, usage: Usage) -> Decimal | None:
    """The exact cost in US dollars at list price; None if the model has no price for text. Unknown counts are 0."""
    if model.per_request is not None:
        return model.per_request
    if model.input is None or model.output is None:
        return None
    read, written = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    hour = usage.cache_write_1h_input_tokens or 0
    weighted_input = (usage.input_tokens or 0) - read - written + read * model.cache_read
    weighted_input += (written - hour) * CACHE_WRITE_FACTOR + hour * CACHE_WRITE_1H_FACTOR
    fee = SEARCH_FEE if "search" in model.quirks else Decimal(0)
    return (weighted_input * model.input + (usage.output_tokens or 0) * model.output) / _MILLION + fee


def catalog_page(
    variant: str, models: Iterable[Model] = MODELS, *, query: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """The body of `GET /api/models`. `variant` is a name in CATALOG_SHAPES; raises `KeyError` for another one.

    `query`: what the request asks for; a page that is no number from 1 is the first.
    """
    shape = CATALOG_SHAPES[variant]
    rows = [catalog_row(model, shape) for model in models if model.listed]
    if shape.short_page:
        paging = {"page": 1, "page_size": 20, "total": SHORT_PAGE_TOTAL}
        return _ENCODER.encode({"success": True, **paging, "data": rows[:SHORT_PAGE_ROWS]})
    if shape.page_name:
        asked = query.get(shape.page_name, "")
        number = max(1, int(asked)) if asked.isascii() and asked.isdigit() else 1
        paging = {"page": number, "page_size": PAGE_ROWS, "total": len(rows)}
        some = rows[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]
        return _ENCODER.encode({"success": True, **paging, "data": some})
    return _ENCODER.encode({"success": True, "page": 0, "page_size": 0, "total": len(rows), "data": rows})


def model_page(code: str) -> bytes | None:
    """The body of `GET /api/model/{code}`; None if no listed model has this code."""
    model = _BY_CODE.get(code)
    if model is None or not model.listed:
        return None
    return _ENCODER.encode({"success": True, "data": {**catalog_row(model, CatalogShape()), "overview": ""}})


def model_list(models: Iterable[Model] = MODELS) -> bytes:
    """The body of `GET /v1/models`: all models that can be called, also those that the catalog lacks."""
    rows = [
        {
            "id": m.id,
            "object": "model",
            "created": LIST_CREATED,
            "owned_by": "custom",
            "supported_endpoint_types": ["openai"],
        }
        for m in models
        if not m.upcoming
    ]
    return _ENCODER.encode({"success": True, "object": "list", "data": rows})


def catalog_row(model: Model, shape: CatalogShape) -> dict[str, object]:
    """One record of the catalog."""
    return {
        "id": model.id,
        "code": model.code,
        "name": model.id.replace("-", " ").title(),
        "provider": "Comet Simulations",
        "provider_code": "comet-simulations",
        "created": CREATED,
        "model_type": model.type,
        "features": [f"text-to-{model.type}"] if model.context_length else None,
        "endpoints": _endpoints(model, shape.endpoints),
        "pricing": _pricing(model, shape),
        "context_length": model.context_length,
        "max_completion_tokens": model.max_completion_tokens,
        "api_doc_url": "https://docs.example/api/text/chat",
        "upcoming": model.upcoming,
    }


def _pricing(model: Model, shape: CatalogShape) -> dict[str, object]:
    prices: dict[str, object] = {
        "currency": "USD / M Tokens",
        "input": model.input,
        "output": model.output,
        "per_request": model.per_request,
        "per_second": model.per_second,
    }
    if shape.ratio:
        prices["ratio"] = Decimal(1) if model.per_request is not None else FULL_RATIO
    return prices


def _endpoints(model: Model, kind: Endpoints) -> object:
    paths = _TEXT_PATHS if model.type == "text" else {f"{model.type}-generation": f"/v1/{model.type}s/generations"}
    table = {name: {"path": path, "method": "POST"} for name, path in paths.items()}
    text = msgspec.json.format(msgspec.json.encode(table), indent=2).decode()
    shapes: dict[Endpoints, object] = {
        "string": text,
        "object": table,
        "null": None,
        "double": msgspec.json.encode(text).decode(),
    }
    return shapes[kind]
