"""What `configure` decides for the application's thread: the mask, whether input and output are captured, the tracer.

One private object holds it. `pipeline` replaces the object as a whole; everybody else reads it. Without `configure`
the object follows the environment, for applications that add a `MetadataSpanProcessor` themselves.
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

CAPTURE: Final = "OTEL_PYTHON_METADATA_CAPTURE"
"""The environment variable that switches off the capture of input and output."""

MASK_CREDENTIALS: Final = "OTEL_PYTHON_METADATA_MASK_CREDENTIALS"
"""The environment variable that switches off the masking of credentials."""

SCOPE_NAME: Final = "otel_metadata"
"""The instrumentation scope of the spans that we open."""

VERSIONS: Final = VersionSource(SystemClock())
"""The source of the version of every update in this process."""


def _global_tracer() -> Tracer:
    # Until a provider is set this is OpenTelemetry's proxy, which forwards to the provider that is set later.
    return trace.get_tracer(SCOPE_NAME, __version__)


def _switch(variable: str, reason: str, *, if_wrong: bool, consequence: str) -> bool:
    """Return the value of a switch; *if_wrong* for a wrong value, because it is read at import, which must not fail."""
    try:
        return flag(variable, default=True)
    except ConfigurationError as error:
        REPORTER.tell(reason, f"{error} {consequence}")
        return if_wrong


def _captures() -> bool:
    # After a wrong value, values that may be private stay private; below as well.
    return _switch(CAPTURE, "capture", if_wrong=False, consequence="Input and output are not captured.")


def _masks_credentials() -> bool:
    return _switch(MASK_CREDENTIALS, "mask_credentials", if_wrong=True, consequence="Credentials are masked.")


def _max_attributes() -> int:
    share = our_share(span_attribute_limit())
    return 1 << 30 if share is None else share


@final
@dataclass(frozen=True, slots=True)
class LiveSettings:
    """Settings of the application's side.

    Attributes:
        mask: Replaces values that must not leave the process; None for no mask.
        masks_credentials: Whether the values of keys that name a secret are replaced; by default the value of
            `OTEL_PYTHON_METADATA_MASK_CREDENTIALS`.
        capture: Whether observed functions capture input and output unless they say otherwise; by default the value of
            `OTEL_PYTHON_METADATA_CAPTURE`.
        max_attributes: How many attributes we set on one live span; by default our share of OpenTelemetry's limit.
        max_bytes: Estimated size of everything that updates set on live spans; a further update is lost
            (`buffer_full`).
        tracer: Opens the spans of `observe` and `start_span`.
    """

    mask: Mask | None = None
    masks_credentials: bool = field(default_factory=_masks_credentials)
    capture: bool = field(default_factory=_captures)
    max_attributes: int = field(default_factory=_max_attributes)
    max_bytes: int = 64 * 1024 * 1024
    tracer: Tracer = field(default_factory=_global_tracer)


in_force = LiveSettings()
"""The settings in force. Read it through the module each time: it is replaced, never changed."""


def use(settings: LiveSettings) -> None:
    """Put *settings* in force, for every thread."""
    global in_force  # noqa: PLW0603 # the one private configuration object
    in_force = settings
