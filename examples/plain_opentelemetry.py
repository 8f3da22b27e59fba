"""An application that plain OpenTelemetry traces: `configure` joins its provider, and updates reach its spans."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om


def main() -> None:
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    om.configure("sqlite:///plain.db")  # joins the provider that is there

    tracer = trace.get_tracer("shop")
    with om.using_metadata({"tenant": "acme"}, session_id="s-1"), tracer.start_as_current_span("order") as span:
        om.update_current_span(metadata={"items": 3, "coupon": None}, tags=["checkout"])
        with tracer.start_as_current_span("payment"):
            om.score_current_span("risk", score=0.2, label="low")
    om.update_span(span, metadata={"shipped": True})  # ended, and still waiting to be exported
    om.shutdown()

    with om.Client("sqlite:///plain.db") as client:
        for record in client.spans.list():
            print(record.name, dict(record.metadata), record.session_id, list(record.evaluations))


if __name__ == "__main__":
    main()
