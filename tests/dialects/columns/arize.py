"""The `openinference` dialect as Arize AX takes it: in metadata no bool, list or object."""

from __future__ import annotations

from tests.dialects.columns import openinference

from otel_metadata.dialects.openinference import OpenInferenceDialect

DIALECT = OpenInferenceDialect(scalars=True)

EXPECTED = {
    **openinference.EXPECTED,
    "metadata bool": {"metadata": '{"k":"false"}'},
    "metadata nested": {"metadata": '{"k":"{\\"a\\":[1,null]}"}'},
    "metadata list of texts": {"metadata": '{"k":"[\\"a\\",\\"b\\"]"}'},
    "metadata mixed list": {"metadata": '{"k":"[\\"a\\",1,null]"}'},
}
