"""The Letta API over HTTP. Only ``http.py`` touches httpx."""
