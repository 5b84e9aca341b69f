"""The servers of the peers: small files of our own, each as its own documentation would have it."""
