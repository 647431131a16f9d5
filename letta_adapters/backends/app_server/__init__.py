"""The App Server of Letta Code, over one WebSocket."""
