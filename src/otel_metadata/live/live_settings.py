"""What `configure` decides for the application's thread: the mask, whether input and output are captured, the tracer.

One private object; `pipeline` replaces it whole, everybody else reads it. Until then it is what the environment says,
for who adds a `MetadataSpanProcessor` by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from opentelemetry import trace

from otel_metadata._version import __version__
from otel_metadata.environment import flag, our_share, span_attribute_limit
from otel_metadata.errors import ConfigurationError
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock, VersionSource

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from otel_metadata.model.masking import Mask

__all__ = ["CAPTURE", "MASK_CREDENTIALS", "SCOPE_NAME", "VERSIONS", "LiveSettings", "current", "in_force", "use"]

CAPTURE: Final = "OTEL_PYTHON_METADATA_CAPTURE"
"""The environment variable that switches the capture of input and output off."""

MASK_CREDENTIALS: Final = "OTEL_PYTHON_METADATA_MASK_CREDENTIALS"
"""The environment variable that ends the masking of credentials."""

SCOPE_NAME: Final = "otel_metadata"
"""The instrumentation scope of the spans that we open."""

VERSIONS: Final = VersionSource(SystemClock())
"""Where every update of this process gets its version."""


def _global_tracer() -> Tracer:
    # Before a provider is set this is OpenTelemetry's proxy, which follows the provider that comes.
    return trace.get_tracer(SCOPE_NAME, __version__)


def _captures() -> bool:
    try:
        return flag(CAPTURE, default=True)
    except ConfigurationError as error:
        # Read at import, which must not fail; what was meant to be private stays private.
        REPORTER.tell("capture", f"{error} Input and output are not captured.")
        return False


def _masks_credentials() -> bool:
    try:
        return flag(MASK_CREDENTIALS, default=True)
    except ConfigurationError as error:
        REPORTER.tell("mask_credentials", f"{error} Credentials are masked.")  # as above
        return True


def _max_attributes() -> int:
    share = our_share(span_attribute_limit())
    return 1 << 30 if share is None else share


@final
@dataclass(frozen=True, slots=True)
class LiveSettings:
    """Settings of the application's side.

    Attributes:
        mask: Replaces what must not leave the process; None for nothing.
        masks_credentials: Whether values of keys that name a secret are replaced; by default what
            `OTEL_PYTHON_METADATA_MASK_CREDENTIALS` says.
        capture: Whether observed functions capture input and output unless they say otherwise; by default what
            `OTEL_PYTHON_METADATA_CAPTURE` says.
        max_attributes: Attribute names of ours on one live span; by default our share of OpenTelemetry's limit.
        max_bytes: Estimated size of what is set on all live spans; an update beyond it is lost (`buffer_full`).
        tracer: Opens the spans of `observe` and `start_span`.
    """

    mask: Mask | None = None
    masks_credentials: bool = field(default_factory=_masks_credentials)
    capture: bool = field(default_factory=_captures)
    max_attributes: int = field(default_factory=_max_attributes)
    max_bytes: int = 64 * 1024 * 1024
    tracer: Tracer = field(default_factory=_global_tracer)


in_force = LiveSettings()
"""The settings in force. Read it through the module, each time: it is replaced, never changed."""


def current() -> LiveSettings:
    """Return the settings in force."""
    return in_force


def use(settings: LiveSettings) -> None:
    """Put *settings* in force, for every thread."""
    global in_force  # noqa: PLW0603 # the one private configuration object
    in_force = settings
