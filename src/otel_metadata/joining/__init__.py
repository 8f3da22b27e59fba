"""Joining an application that has tracing already: its provider, its processors, and its exporters.

`providers` finds the provider and adds our processor to it. `places` finds the exporters that are there and says which
of them sends to the same place as a destination of ours. `sharing` lets each span leave for such a place once.

What the SDK and the packages of others keep in attributes of their own is read here and nowhere else. Whatever cannot
be read is taken for not being there.
"""
