"""The `tallygate` command: supervises processes and talks to the control plane over HTTP."""
