"""The atomic steps: one act per Lua script, each with a header that the loader holds against its body.

`request/` has what a request runs, `upkeep/` what the billing side runs to keep the state right, `lib/` what they
include. A script runs in Valkey to its end before anything else does; so it checks everything, then writes.

What is included has floors too, from the ground up: `value` (numbers, time, names), `level` (what is counted, and
what refuses there), `money` (prices, wallets, the entry), `plain` (what one charge meets mostly, looked at in
few steps), `hold` (what is set aside, and its end), `decision` (all checks, what they write, and the answer that is
kept).
"""
