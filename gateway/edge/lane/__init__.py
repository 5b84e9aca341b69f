"""The fast lane: HTTP/1.1 by hand for what is asked all the time; everything else goes to aiohttp."""
