"""Masks: values that must not leave the process are replaced, after the clean-up and before a value is set or stored.

This module decides what a mask replaces; `live.values` decides where it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, final

from otel_metadata.arguments import checked
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.credentials import MASKED, folded
from otel_metadata.model.merge import Json

Mask: TypeAlias = Callable[[str, Json], Json]
"""Takes a path and a value, and returns the value to keep. The path is the kind and key of the field:
`"metadata.email"`, `"input"`, `"tag"`, `"evaluation.Correctness"`; the value is JSON and may be nested.

A mask is called for keys too, among them nested keys and the names of evaluations and annotations. Then the path is
`"key"`, and the value is the key. Where the mask returns no text, the key is replaced."""

KEY_PATH: Final = "key"
"""The path that a mask gets with a key."""

MASK_FAILED: Final = "<masked: the mask failed>"

# Kinds of fields whose value is an object with keys of ours.
_WITH_PARTS: Final = ("evaluation", "annotation")


def parts_of_a_field(path: str, value: Json) -> bool:
    """Whether the keys of *value* are ours: the names of the parts of an evaluation or annotation."""
    return isinstance(value, dict) and path.partition(".")[0] in _WITH_PARTS


def with_keys(
    value: Json, ask: Callable[[str], str], tell: Callable[[str], object], *, keeps_own: bool = False
) -> Json:
    """Return *value* with each key, at every depth, replaced by what *ask* returns for it.

    Args:
        value: JSON.
        ask: Takes a key and returns the key to keep.
        tell: Called with a key that two keys of one object have become; the later one is kept.
        keeps_own: Whether the outermost keys stay as they are.
    """
    if isinstance(value, list):
        return [with_keys(item, ask, tell) for item in value]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Json] = {}
    for key, item in value.items():
        name = key if keeps_own else ask(key)
        if name in kept:
            tell(name)
            del kept[name]  # the later one also takes its place in the order
        kept[name] = with_keys(item, ask, tell)
    return kept


@final
class Masking:
    """A `Mask` with rules by key and by pattern.

    Keys are compared at every depth without case and separators, so that `api_key` is also `API-Key` and `apiKey`;
    patterns are searched in every text and every key, and only what they match is replaced. Of two keys that become the
    same, the later one is kept. Credentials are masked besides, by default: these rules come on top.

    Example:
        >>> mask = Masking(keys=["api_key"], patterns=[r"sk-[a-z0-9]+"])
        >>> mask("metadata.call", {"API-Key": "s", "note": "used sk-abc1"})
        {'API-Key': '<masked>', 'note': 'used <masked>'}
    """

    @checked
    def __init__(self, *, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        """Compile the rules.

        Raises:
            ConfigurationError: One text was given where a list of texts is expected.
            re.error: A pattern is not a regular expression.
        """
        # Read once: either may be an iterator. One text is refused: each of its letters would be a rule.
        rules = [tuple(given) for given in (keys, patterns)]
        for name, given, rule in zip(("keys", "patterns"), (keys, patterns), rules, strict=True):
            if isinstance(given, str) or not all(isinstance(one, str | re.Pattern) for one in rule):
                raise ConfigurationError(f"Masking({name}=)", given, "a list of texts")
        # A key of separators alone is empty without them, and would match every such key.
        self._keys = frozenset(folded(key) for key in rules[0]) - {""}
        self._patterns = [re.compile(pattern) for pattern in rules[1]]

    def __call__(self, path: str, value: Json) -> Json:
        """Return *value* with what the rules name replaced by `MASKED`."""
        masked = self.values(path, value)
        if not self._patterns:
            return masked
        return with_keys(masked, self._text, lambda _: None, keeps_own=parts_of_a_field(path, masked))

    def values(self, path: str, value: Json) -> Json:
        """Return *value* with its values masked, and its keys as they are."""
        if folded(path.partition(".")[2]) in self._keys:
            return MASKED
        return self._masked(value)

    def _text(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(MASKED, text)
        return text

    def _masked(self, value: Json) -> Json:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._masked(item) for item in value]
        if isinstance(value, dict):
            return {key: MASKED if folded(key) in self._keys else self._masked(item) for key, item in value.items()}
        return value
