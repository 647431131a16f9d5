"""Internal: the App Server of Letta Code, over one WebSocket."""
