"""Both planes over HTTP: where they are, who asks, and the shapes of what they answer."""
