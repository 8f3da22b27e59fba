"""Flushes: the spans and patches that each of them waits for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, final

from otel_metadata.delivery.shared_place import THEIRS
from otel_metadata.model.span_ref import SpanKey

if TYPE_CHECKING:
    from otel_metadata.delivery.waiting_patches import Answered, PatchQueue, Pending
    from otel_metadata.delivery.waiting_spans import SpanQueue


@final
class FlushTicket:
    """The spans and patches that waited when a flush began; it waits until each was tried once.

    Attributes:
        keys: The targets that are still to be tried.
        deadline_ns: Until when the caller waits; monotonic. The flush does not wait for a patch that cannot be tried by
            then.
        behind: The `keys` for which a patch is being sent while another patch, or their span, waits behind it.
        wants_spooled: Whether the flush also waits for rows of the spool that nobody has loaded.
        is_filling: Whether `keys` is not complete yet.
        is_clean: Whether everything that was tried so far arrived.
    """

    __slots__ = ("_dropped", "behind", "deadline_ns", "done", "is_clean", "is_filling", "keys", "wants_spooled")

    def __init__(self, deadline_ns: int, done: Callable[[], None]) -> None:
        """Call *done* when `keys` is complete and runs empty."""
        self.keys: set[SpanKey] = set()
        self.deadline_ns = deadline_ns
        self.behind: set[SpanKey] = set()
        self.wants_spooled = False
        self.is_filling = True
        self.is_clean = True
        self.done = done
        self._dropped: set[SpanKey] = set()

    @property
    def is_over(self) -> bool:
        """Whether the flush waits for nothing more."""
        return not self.keys and not self.wants_spooled and not self.is_filling

    def tried(self, key: SpanKey, *, is_clean: bool) -> None:
        """Note the answer to the patch or span that went first; the patch behind it is still to be tried."""
        if key in self.keys:
            self.is_clean = self.is_clean and is_clean
            if key in self.behind:
                self.behind.discard(key)
            else:
                self.keys.discard(key)

    def forget(self, key: SpanKey, *, is_clean: bool) -> None:
        """Note that nothing of *key* is left to be tried."""
        self.behind.discard(key)
        self.tried(key, is_clean=is_clean)

    def give_up_on(self, keys: Collection[SpanKey]) -> None:
        """Note that *keys* were tried in vain: the flush waits neither for them nor for the patches behind them."""
        if not self.keys.isdisjoint(keys):
            self.is_clean = False
            self.behind.difference_update(keys)
            self.keys.difference_update(keys)

    def read_no_more(self) -> None:
        """Wait no longer for rows of the spool that nobody has loaded, if there are any."""
        if self.wants_spooled:
            self.wants_spooled = self.is_clean = False

    def wait_for(self, keys: Iterable[SpanKey], patches: PatchQueue, now_ns: int) -> None:
        """Wait for the patches of *keys* that are still here."""
        for key in keys:
            if not patches.holds(key):
                continue
            self.keys.add(key)
            if patches.is_behind(key):
                self.behind.add(key)
            pending = patches.waiting.get(key)
            if pending is not None:
                self.hurry(key, pending, patches, now_ns)

    def hurry(self, key: SpanKey, pending: Pending, patches: PatchQueue, now_ns: int) -> None:
        """Let a waiting patch go as soon as it may; where that is too late, do not wait for it.

        The flush still waits for the span or the patch that goes before it.
        """
        if not self.is_hopeless(pending, patches, now_ns):
            patches.make_due(key, pending, pending.earliest_ns)
            return
        self.is_clean = False
        self.behind.discard(key)
        if not patches.is_blocked(key):
            self.keys.discard(key)

    def is_hopeless(self, pending: Pending, patches: PatchQueue, now_ns: int) -> bool:
        """Whether a patch may not go before the deadline, or waits out a pause.

        A patch that was never tried does go to a paused destination, once: a flush is a probe.
        """
        is_paused = pending.attempts > 0 and pending.earliest_ns > now_ns and patches.circuit.is_open(now_ns)
        return pending.earliest_ns > self.deadline_ns or is_paused

    def drop_patches(self, patches: PatchQueue, spans: SpanQueue) -> None:
        """Wait for no patch that is not being sent; its cost depends on the keys that are kept, not on all of them."""
        kept = self.keys.intersection([THEIRS, *patches.sending, *spans.exporting, *spans.waiting])
        if len(kept) < len(self.keys) or not patches.waiting.keys().isdisjoint(kept):
            self.is_clean = False
        self.behind = self.behind.difference(patches.waiting)
        self._keep(kept)

    def _keep(self, kept: set[SpanKey]) -> None:
        """Wait for *kept* alone; a set of many keys is freed with the ticket, not here, under the lock."""
        self._dropped, self.keys = self._dropped or self.keys, kept

    def give_up(self) -> None:
        """Wait for nothing more: the destination does not answer."""
        self.is_clean = self.is_clean and not self.keys and not self.wants_spooled
        self._keep(set())
        self.behind.clear()
        self.wants_spooled = False


@final
class Flushes:
    """The tickets of all flushes that somebody waits for; called under the outbox's lock, which is re-entrant."""

    def __init__(self) -> None:
        """Start with none."""
        self._tickets: list[FlushTicket] = []

    def __bool__(self) -> bool:
        """Whether somebody waits for a flush."""
        return bool(self._tickets)

    def __iter__(self) -> Iterator[FlushTicket]:
        """Yield each ticket."""
        yield from list(self._tickets)

    def __contains__(self, key: object) -> bool:
        """Whether a flush waits for *key*."""
        return any(key in ticket.keys for ticket in self._tickets)

    @property
    def is_waiting(self) -> bool:
        """Whether one of them still waits for a span or patch."""
        return any(ticket.keys for ticket in self._tickets)

    def among(self, keys: Collection[SpanKey]) -> set[SpanKey]:
        """Return those of *keys* for which a flush waits."""
        return set().union(*(ticket.keys.intersection(keys) for ticket in self._tickets))

    def add(self, ticket: FlushTicket) -> None:
        """Add the ticket of one more."""
        self._tickets.append(ticket)

    def drop(self, ticket: FlushTicket) -> None:
        """Forget a ticket whose caller waits no more."""
        with suppress(ValueError):
            self._tickets.remove(ticket)

    def answered(self, answers: Iterable[Answered]) -> None:
        """Tell every ticket the answers to patches."""
        for key, is_clean, is_last in answers:
            for ticket in self._tickets:
                if is_last:
                    ticket.forget(key, is_clean=is_clean)
                else:
                    ticket.tried(key, is_clean=is_clean)

    def forget(self, key: SpanKey, *, is_clean: bool) -> None:
        """Tell every ticket that nothing of *key* is left to be tried."""
        for ticket in self._tickets:
            ticket.forget(key, is_clean=is_clean)

    def give_up_on(self, keys: Collection[SpanKey]) -> None:
        """Tell every ticket that *keys* were tried in vain."""
        for ticket in self._tickets:
            ticket.give_up_on(keys)

    def end_those_that_are_over(self) -> None:
        """Wake the callers of flushes that are over."""
        for ticket in self:
            if not ticket.is_over:
                continue
            try:
                self._tickets.remove(ticket)
            except ValueError:  # a shutdown that interrupted us here has told it
                continue
            ticket.done()
