"""Commands of the data plane: checks, holds, events, receipts, and what was metered."""
