"""Internal: the Letta API over HTTP; only ``http.py`` touches httpx."""
