"""Two destinations, one of them dead: each has its own outbox, so the other one is not delayed."""

import otel_metadata as om


@om.observe
def work(item: int) -> int:
    return item * 2


def main() -> None:
    # Nothing listens on port 9 (discard) of this machine.
    om.configure("sqlite:///several.db", "http://127.0.0.1:9")
    refs = []
    for item in range(3):
        with om.capture_spans() as captured:
            work(item)
        refs.append(captured.last)
    for ref in refs:
        om.update_span(ref, metadata={"checked": True})
    om.flush(timeout_millis=2_000)
    for name, stats in om.stats().destinations.items():
        print(f"{name}: {stats.delivered} delivered, {stats.waiting} waiting, {stats.spans_exported} spans exported")
    om.shutdown(timeout_millis=500)


if __name__ == "__main__":
    main()
