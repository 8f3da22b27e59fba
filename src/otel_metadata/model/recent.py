"""A map that remembers the latest keys and forgets the oldest by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar, final

_K = TypeVar("_K")
_V = TypeVar("_V")


@final
class RecentMap(Generic[_K, _V]):
    """Remembers at least the latest *size* keys that were set, and at most twice as many.

    It has two generations: when the young one is full, it becomes the old one, and the old one is dropped as a whole.
    Each operation is one or two dict operations, without a lock. (Popping the first key of a plain dict again and again
    is quadratic: `next(iter(d))` walks over the places of all keys that were popped before.)
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        """Start empty."""
        self._size = size
        self._young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}

    def __setitem__(self, key: _K, value: _V) -> None:
        """Remember *key* as the latest."""
        young = self._young
        young[key] = value
        if len(young) >= self._size:
            self.turn()

    def update(self, items: Mapping[_K, _V]) -> None:
        """Remember each of *items* as the latest."""
        for key, value in items.items():
            self[key] = value

    def turn(self) -> None:
        """Forget the older generation now."""
        self._old = self._young
        self._young = {}

    def get(self, key: _K) -> _V | None:
        """Return the value of *key*, None when it is not remembered."""
        value = self._young.get(key)
        return value if value is not None else self._old.get(key)

    def pop(self, key: _K) -> _V | None:
        """Forget *key*, and return its value, None when it is not remembered."""
        young, old = self._young.pop(key, None), self._old.pop(key, None)
        return young if young is not None else old

    def __contains__(self, key: object) -> bool:
        """Whether *key* is remembered."""
        return key in self._young or key in self._old

    def __len__(self) -> int:
        """How many keys are remembered; one in both generations counts twice."""
        return len(self._young) + len(self._old)
