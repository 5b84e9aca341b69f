"""Commands about how a customer stands: what it may do apart from its plan, and the budgets below it."""
