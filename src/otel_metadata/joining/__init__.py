"""Joining an application that has tracing already: its provider, its processors, and its exporters.

`providers` finds the provider and adds our processor to it. `found_exporters` finds the exporters that it has, and
`addresses` says which of them send to the same place as a destination. `sharing` decides who sends a span to such a
place, so that it leaves once; `taps` tell it which spans the application exports.

Private attributes of the SDK and of other packages are read here and nowhere else. What cannot be read counts as
absent.
"""
