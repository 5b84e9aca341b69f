"""Slices: units of a hot key that one worker sets aside and decides on by itself.

    many orders for one feature       the worker takes a slice: an ordinary hold, decided by Redis
    next order of that kind           is allowed out of the slice, and counted in memory that outlives the process
    slice used up, or a moment old    settled with what was used; the next one is there already

A lease (`degraded`) is the cousin: units for the time in which Redis is away, used for nothing else, charged order
by order out of the journal. A slice is for the time in which Redis is there and one customer asks for one feature
more often than Redis should be asked: charged as a whole, at its end.
"""
