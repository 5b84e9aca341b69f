"""Tallygate from Python: ask before you serve, and tell what was used.

`client.AsyncTallygate` and `blocking.Tallygate` say the same, the one to be awaited. Whoever makes one says what
becomes of an act that the gateway does not answer in time (`on_outage`), because nobody else can know it.
"""
