"""Puts a row maker together: the prompt's templates, the wire format, and what identifies a request."""

import functools
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from cometbatch import wire
from cometbatch.commands.clock import now
from cometbatch.commands.row_variants import RowVariants
from cometbatch.input.image_files import ImageFolder
from cometbatch.job import Job, Target
from cometbatch.job.targets import Template, VendorName
from cometbatch.job.vendor_batch import VENDORS
from cometbatch.prompt.instruction import instructed
from cometbatch.records import Failure, HttpRequest, Message
from cometbatch.runner.images import ImageBounds, Images, ImageSender, Send
from cometbatch.runner.row_maker import RowMaker
from cometbatch.runner.whole_rows import WholeRowMaker
from cometbatch.transport.image_fetch import ImageFetcher
from cometbatch.wire.structured import with_part
from cometbatch.wire.whole_bodies import request_reader

IMAGE_THREADS: Final = 4
"""Threads that read images and put them into requests: few, since each may hold a request twice while it does."""
Maker: TypeAlias = RowMaker | WholeRowMaker
"""What makes requests of rows: by a prompt's templates, or as the row has them."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def row_maker(
    target: Target,
    template: Template,
    columns: Sequence[str],
    id_column: str | None,
    images: Images | None = None,
    *,
    numbers: Mapping[str, int] = NOTHING,
    refused: Mapping[str, Failure] = NOTHING,
) -> Maker:
    """How rows of a table with these columns become requests to a target, whose compiled prompt is `template`.

    Only the columns that are needed become Python values. `images`: where those of prompts come from, if there are any.
    `numbers`, `refused`: as of `RowVariants`, for a target of which rows say in their own cells how they are asked.
    """
    if target.batch is not None:
        return _whole_row_maker(target, target.batch)

    def of_variant(variant: Target, number: int) -> RowMaker:
        maker = _templated(variant, template, columns, id_column, images)
        return msgspec.structs.replace(maker, target=number)

    maker = _templated(target, template, columns, id_column, images)
    if not target.columns:
        return maker
    return msgspec.structs.replace(maker, variant=RowVariants(target, numbers, refused, of_variant))


def _templated(
    target: Target, template: Template, columns: Sequence[str], id_column: str | None, images: Images | None
) -> RowMaker:
    """How rows become requests to a target that asks all of them in the same way."""
    wire_format = wire.FORMATS[target.format]
    part, words = target.response.body_part(target.format), target.response.instruction
    build = wire_format.request_builder(target.model, with_part(target.params, part))
    needed = set(columns) if template.needs_all_columns else set(template.columns_needed)
    needed.update(target.columns.values())
    return RowMaker(
        columns=tuple(name for name in columns if name in needed or name == id_column),
        id_column=id_column,
        render=template.render,
        build=build if words is None else functools.partial(_build_instructed, build, words),
        as_sent=wire_format.as_sent,
        hash_start=_hash_start(target),
        now=now,
        max_output_tokens=target.max_output_tokens,
        images=images,
        added_characters=len(words or "") + (len(json.dumps(part)) if part else 0),
    )


def _build_instructed(
    build: Callable[[Sequence[Message]], HttpRequest], words: str, messages: Sequence[Message]
) -> HttpRequest:
    """The request with words about the answer's form in its prompt."""
    return build(instructed(messages, words))


def _whole_row_maker(target: Target, batch: VendorName) -> WholeRowMaker:
    """How the lines of a vendor's batch file become requests to a target."""
    vendor = VENDORS[batch]
    return WholeRowMaker(
        body=vendor.body,
        id_column=vendor.id,
        read=request_reader(target.format, target.model, target.params),
        hash_start=_hash_start(target),
        now=now,
    )


def _hash_start(target: Target) -> "hashlib._Hash":
    return hashlib.sha256(f"{target.format}\n{target.model}\n".encode())


@asynccontextmanager
async def sending_images(send: Send, images: Images | None) -> AsyncIterator[Send]:
    """How requests are sent whose prompts may have images: these are put in first, in threads of their own."""
    if images is None:
        yield send
        return
    fetcher = ImageFetcher() if images.is_fetching else None
    threads = ThreadPoolExecutor(IMAGE_THREADS, thread_name_prefix="images")
    try:
        yield ImageSender(send, images, threads, fetcher.fetch if fetcher is not None else None).send
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # they only read
        if fetcher is not None:
            await fetcher.aclose()


def images_for(job: Job, target: Target) -> Images | None:
    """Where the images of a job's prompts come from, and how large they may be; None where prompts have none."""
    if not target.may_have_images:
        return None
    settings = job.images
    bounds = ImageBounds(settings.max_bytes, settings.max_request_bytes, settings.tokens)
    unsupported = wire.FORMATS[target.format].unsupported_image
    folder = ImageFolder(job.image_root, settings.max_bytes)
    return Images(folder, bounds, unsupported, is_fetching=settings.fetch)
