"""What a response turns out to be: usage frames, events as they flow, messages of a WebSocket."""
