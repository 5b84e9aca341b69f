"""The verbs: ingest, renew, close, collect, recognize, project, reconcile."""
