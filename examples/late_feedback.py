"""A user's thumbs-down arrives after the answer, perhaps in another process: keep the `traceparent` with the answer."""

import otel_metadata as om


@om.observe(as_type="chain")
def answer(question: str) -> dict[str, str]:
    om.update_current_trace(user_id="u-1", metadata={"source": "chat"})
    return {"text": question.upper(), "feedback_token": om.current_span_ref().to_traceparent()}


def thumbs_down(feedback_token: str, comment: str) -> om.Receipt:
    om.annotate_span(feedback_token, "comment", text=comment, annotator="u-1")
    return om.update_span(feedback_token, metadata={"thumbs": "down"})


def main() -> None:
    om.configure("sqlite:///late_feedback.db")
    reply = answer("why is the sky blue?")
    om.flush()  # the answer is stored and on the user's screen
    receipt = thumbs_down(reply["feedback_token"], "shouting")
    print("the feedback went", receipt.route)
    om.flush()
    span_id = om.SpanRef.from_traceparent(reply["feedback_token"]).span_id_hex
    with om.Client("sqlite:///late_feedback.db") as client:
        record = client.spans.get(span_id)
    print(record.name, dict(record.metadata), [note.text for note in record.annotations])


if __name__ == "__main__":
    main()
