"""The App Server of Letta Code, over one WebSocket.

Internal: not part of the public API.
"""
