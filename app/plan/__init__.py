"""A user's words become a plan, and a plan becomes stages. All name look-ups live here and in the two catalogues."""

from app.framing import FORMATS, READABLE, Format, format_of_file_name, format_of_media_type, sniff
from app.framing.codecs import CODEC_ALIASES
from app.framing.compression import CONTENT_CODINGS
from app.framing.dialect import check_reading
from app.plan.building import BuildOptions, build, build_within
from app.plan.built import Allowance, Built
from app.plan.document import items_of_document, plan_of_document, plan_of_text
from app.plan.plan import ON_ERROR, Plan, with_pipeline
from app.plan.words import WORDS, plan_of_query
from app.stages import STEPS

__all__ = [
    "CODEC_ALIASES",
    "CONTENT_CODINGS",
    "FORMATS",
    "ON_ERROR",
    "READABLE",
    "STEPS",
    "WORDS",
    "Allowance",
    "BuildOptions",
    "Built",
    "Format",
    "Plan",
    "build",
    "build_within",
    "check_reading",
    "format_of_file_name",
    "format_of_media_type",
    "items_of_document",
    "plan_of_document",
    "plan_of_query",
    "plan_of_text",
    "sniff",
    "with_pipeline",
]
