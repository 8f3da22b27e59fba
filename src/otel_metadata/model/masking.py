"""What must not leave the process is replaced here, once, after the clean-up and before a value is set or stored.

This module decides what is replaced. Where it runs is in `live.values`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, final

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.credentials import MASKED, folded
from otel_metadata.model.merge import Json

__all__ = ["MASKED", "MASK_FAILED", "Mask", "Masking"]

Mask: TypeAlias = Callable[[str, Json], Json]
"""(path, value) → what to keep of it. The path is the kind and key of the field: `"metadata.email"`, `"input"`,
`"tag"`, `"evaluation.Correctness"`; the value is JSON and may be nested."""

MASK_FAILED: Final = "<masked: the mask failed>"


@final
class Masking:
    """Rules by key and by pattern, as one `Mask`.

    Keys are compared at every depth without case and separators, so that `api_key` is also `API-Key` and `apiKey`;
    patterns are searched in every text and only what they match is replaced. Credentials are masked besides, by
    default: these rules come on top.

    Example:
        >>> mask = Masking(keys=["api_key"], patterns=[r"sk-[a-z0-9]+"])
        >>> mask("metadata.call", {"API-Key": "s", "note": "used sk-abc1"})
        {'API-Key': '<masked>', 'note': 'used <masked>'}
    """

    def __init__(self, *, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        """Compile the rules.

        Raises:
            ConfigurationError: One text was given where a list of texts is expected.
            re.error: A pattern is not a regular expression.
        """
        for setting, given in (("Masking(keys=)", keys), ("Masking(patterns=)", patterns)):
            if isinstance(given, str):
                # Its letters would be taken for rules, and nothing that was meant would be masked.
                raise ConfigurationError(setting, given, "a list of texts")
        # A key of separators alone is nothing without them.
        self._keys = frozenset(folded(key) for key in keys) - {""}
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, path: str, value: Json) -> Json:
        """Return *value* with what the rules name replaced by `MASKED`."""
        if folded(path.partition(".")[2]) in self._keys:
            return MASKED
        return self._masked(value)

    def _masked(self, value: Json) -> Json:
        if isinstance(value, str):
            for pattern in self._patterns:
                value = pattern.sub(MASKED, value)
            return value
        if isinstance(value, list):
            return [self._masked(item) for item in value]
        if isinstance(value, dict):
            return {key: MASKED if folded(key) in self._keys else self._masked(item) for key, item in value.items()}
        return value
